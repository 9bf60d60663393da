package proxy

import (
	"errors"
	"slices"
	"strconv"
	"sync/atomic"

	"shardproxy/exec"
	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// A COPY FROM STDIN into a table on several shards runs on all of them at once, in the
// client's transaction or one of its own. While it streams the session is parked, and
// both its client and its server connections block: what a shard does not take stays
// with the client.

// copyIn is a COPY that is cut into rows.
type copyIn struct {
	s       *session
	plan    *router.CopyIn
	dialect *exec.CopyDialect
	reader  *exec.CopyReader
	shards  []*copyShard // by the order of owners.All()
	owners  *router.Owners
	effects query.Effect
	drawn   [][]int64 // of each draw, not used yet
	last    []int64   // of each draw, used; nil before the first row

	drawNext int // how many are drawn next
	unwanted atomic.Bool

	left   int         // bytes of the client's frame that have not come
	err    *wire.Error // what the client is told, nil while all is well
	raw    []byte      // the same as a server said it, nil when none did
	ended  bool        // the client's last frame has come
	aborts string      // why the shards must fail; "" when they need not
	gone   error       // why the client cannot be reached
}

// copyShard is one shard's part.
type copyShard struct {
	index  int
	lease  *pool.Server
	to     *pool.Copying
	out    *exec.CopyWriter
	lines  *exec.CopyLines
	answer pool.Answer
	err    error
}

// runCopyIn runs a simple query that is such a COPY.
func (s *session) runCopyIn(size int) error {
	text := string(trimNUL(s.client.Buffered()[5:size]))
	c := &copyIn{s: s, plan: s.segment[0].CopyIn, owners: s.db.Owners(), effects: s.segment[0].Effects & auditEffects}
	own := s.tx == 'I'
	e := c.prepare(text)
	if e == nil && s.staysTied() {
		e = s.tiedTo(0)
	}
	if e == nil && s.tx != 'E' {
		e = s.enlistAll(own, false, slices.Clone(c.owners.All()))
	}
	if e != nil {
		return s.refuseWhole(wire.MsgQuery, size, e)
	}
	s.db.stats.statements.Add(1)
	s.noteAsk(nil, scopeSeveral)
	s.tallyBegins(s.segment[0], c.owners.All())
	s.setPhase(phaseActive)
	s.unnamedTok, s.unnamedLarge = 0, false
	s.client.Release()
	s.held = false
	s.drop(size)
	if err := c.run(text); err != nil {
		return err
	}
	return c.finish(own)
}

// prepare reads the statement.
func (c *copyIn) prepare(text string) *wire.Error {
	s := c.s
	if c.owners == nil {
		return errNoOwners()
	}
	_, shapes := query.AnalyzeShapes(text, s.textOptions())
	if len(shapes) != 1 || shapes[0].Copy == nil {
		return wire.Errorf("0A000", "this COPY is not understood")
	}
	var err error
	c.dialect, err = exec.ReadCopyDialect(shapes[0].Copy, exec.CopySession{
		ClientEncoding: s.encoding(), ServerEncoding: s.greeted.values["server_encoding"], Version: majorVersion(s.greeted.values["server_version"]),
	})
	var refused *exec.CopyRefusal
	if errors.As(err, &refused) && !refused.Invalid {
		return wire.Errorf("0A000", "this COPY cannot be split over shards: %s", refused.Reason)
	} else if refused != nil {
		c.err = wire.Errorf("0A000", "this COPY cannot be split over shards: %s", refused.Reason)
		return nil // a server says it better
	}
	o := exec.CopyReaderOptions{Dialect: c.dialect, Relation: c.plan.Table, Columns: c.plan.Columns}
	for _, k := range c.plan.Keys {
		if k < len(c.plan.Columns) {
			o.Wanted = append(o.Wanted, k)
		}
	}
	c.reader = exec.NewCopyReader(o)
	c.drawn, c.drawNext = make([][]int64, len(c.plan.Draws)), 16
	return nil
}

// textOptions say how the session's texts are read.
func (s *session) textOptions() query.Options {
	return query.Options{BackslashStrings: s.nonStandard, UnsafeEncoding: s.unsafeEncoding}
}

// majorVersion reads a server_version; 0 when it is none.
func majorVersion(v string) int {
	i := 0
	for i < len(v) && '0' <= v[i] && v[i] <= '9' {
		i++
	}
	n, _ := strconv.Atoi(v[:i])
	return n
}

// shardText is the statement that the shards get.
func (c *copyIn) shardText(text string) (string, *wire.Error) {
	change := query.CopyChange{NoHeader: c.dialect.Header != exec.CopyHeaderNone}
	if len(c.plan.Draws) > 0 {
		if !c.plan.Listed {
			change.Columns = slices.Clone(c.plan.Columns)
		}
		for _, d := range c.plan.Draws {
			change.Columns = append(change.Columns, d.Column)
		}
	}
	out, err := query.RewriteCopy(text, c.s.textOptions(), change)
	if err != nil {
		return "", wire.Errorf("0A000", "this COPY cannot be split over shards: %v", err)
	}
	return out, nil
}

// run has the copy done, up to the answers of all shards. An error ends the session.
func (c *copyIn) run(text string) error {
	s := c.s
	if c.reader == nil {
		c.invalid(text)
		return nil
	}
	text, c.err = c.shardText(text)
	if c.err != nil {
		_ = s.failLease()
		return nil
	}
	for _, shard := range c.connections() {
		s.task.release(shard.lease.Socket())
	}
	s.task.aside(func() { c.start(text) })
	if c.err != nil {
		return c.lost()
	}
	s.client.SetOutput(wire.AppendFrame(s.client.Output(), wire.MsgCopyInResponse, c.header()))
	if err := s.flushAll(); err != nil {
		c.gone = err
	}
	s.task.aside(c.stream)
	if c.gone != nil {
		return s.clientError(c.gone)
	}
	return c.lost()
}

// connections lists the shards' connections, the lease among them.
func (c *copyIn) connections() []*copyShard {
	s := c.s
	c.shards = nil
	for _, i := range c.owners.All() {
		shard := &copyShard{index: i, lines: exec.NewCopyLines(c.plan.Table)}
		shard.lease, _ = s.partOn(i)
		c.shards = append(c.shards, shard)
	}
	return c.shards
}

// at finds the part on a shard of the cluster by its place in the configuration.
func (c *copyIn) at(place int) int {
	i, _ := slices.BinarySearch(c.owners.All(), place)
	return i
}

// start begins the copy on every shard.
func (c *copyIn) start(text string) {
	defer c.watched()()
	for _, shard := range c.shards {
		shard.to, shard.answer, shard.err = shard.lease.StartCopy(text)
		if shard.err != nil {
			c.err = c.told(shard)
			break
		}
		shard.out = exec.NewCopyWriter(shard.to, c.dialect, shard.lines)
	}
	if c.err == nil {
		return
	}
	for _, shard := range c.shards {
		if shard.to != nil {
			_, shard.err = shard.to.Fail("another shard has refused the COPY")
		}
	}
}

// header is the CopyInResponse for the client: without what is drawn.
func (c *copyIn) header() []byte {
	b := slices.Clone(c.shards[0].to.Header())
	if n := len(c.plan.Columns); len(b) >= 3+2*n {
		b = b[:3+2*n]
		b[1], b[2] = byte(n>>8), byte(n)
	}
	return b
}

// invalid has a server refuse a statement that is wrong.
func (c *copyIn) invalid(text string) {
	s := c.s
	refusal := c.err
	shard := &copyShard{index: s.index, lease: s.lease}
	s.task.release(s.lease.Socket())
	s.task.aside(func() {
		shard.to, shard.answer, shard.err = s.lease.StartCopy(text)
		if shard.err == nil {
			shard.answer, shard.err = shard.to.Fail("it cannot be split over shards")
			shard.answer.Error = nil
			if !isLost(shard.err) {
				shard.err = refusal
			}
		}
	})
	c.shards = []*copyShard{shard}
	c.err = c.told(shard)
}

// told is what the client is told of a shard's error.
func (c *copyIn) told(shard *copyShard) *wire.Error {
	if isLost(shard.err) {
		return wire.Fatal("08006", "the connection to a server was lost").
			WithDetail("Shard %s, node %s.", c.s.db.Shards[shard.index].Name, shard.lease.Address()).WithCause(shard.err)
	}
	shard.err = c.s.ofVictim(&shard.answer, shard.err)
	c.raw = shard.answer.Error
	return wire.AsError(shard.err)
}

// lost returns the error that ends the session, nil when all connections are whole.
func (c *copyIn) lost() error {
	for _, shard := range c.shards {
		if shard.err != nil && isLost(shard.err) {
			c.s.db.Shards[shard.index].lost(shard.lease.Node, shard.err)
			return c.told(shard)
		}
	}
	return nil
}

// flushAll waits until the client has what was sent to it.
func (s *session) flushAll() error {
	for {
		if err := s.client.Flush(); err != nil {
			return s.clientError(err)
		}
		if s.client.Pending() == 0 {
			return nil
		}
		s.task.await(interest{socket: s.client.Socket(), write: true}, interest{})
		if err := s.obeyWaiting(); err != nil {
			return err
		}
	}
}

// finish ends the transaction if it is the copy's own, and answers.
func (c *copyIn) finish(own bool) error {
	s := c.s
	s.upload, s.uploadVoid = c.left, true // the rest of a frame that nobody needs
	rows := int64(0)
	var notices []byte
	for _, shard := range c.shards {
		if shard.out == nil {
			continue
		}
		notices = append(notices, c.noticesOf(shard)...)
		if shard.out.Rows() == 0 {
			continue
		}
		_, n, _ := shard.answer.Count()
		if c.plan.Everywhere {
			rows = int64(n)
		} else {
			rows += int64(n)
		}
		_, wrote := s.partOn(shard.index)
		*wrote = true
	}
	s.acted = true
	s.suspect |= c.effects
	e, err := s.endSpread(own, c.err)
	if err != nil {
		return err
	}
	s.forgetPlans()
	c.recall(c.err == nil && e == nil)
	out := append(s.client.Output(), notices...)
	switch {
	case e != nil && e.IsFatal():
		return e
	case e != nil:
		s.tellsError(e)
		s.scriptFails()
		if c.raw != nil && s.script != nil {
			c.raw = s.script.position(c.raw)
		}
		if c.raw != nil {
			out = wire.AppendFrame(out, wire.MsgErrorResponse, c.raw)
		} else {
			out = e.Append(out)
		}
	default:
		out = wire.AppendCommandComplete(out, "COPY "+strconv.FormatInt(rows, 10))
	}
	s.client.SetOutput(out)
	s.steps++
	s.answerReady()
	return nil
}

// noticesOf returns a shard's notices with the client's lines.
func (c *copyIn) noticesOf(shard *copyShard) (out []byte) {
	for b := shard.answer.Frames; len(b) >= 5; {
		size := frameSize(b)
		out = wire.AppendFrame(out, b[0], shard.lines.AppendFields(nil, b[5:size]))
		b = b[size:]
	}
	return out
}

// recall has the session remember what was drawn for it.
func (c *copyIn) recall(used bool) {
	for i, v := range c.last {
		if d := &c.plan.Draws[i]; d.Sequence != "" {
			c.s.recalls().drew(d.Sequence, v)
		}
	}
	if used {
		c.s.recall.confirm()
	}
}

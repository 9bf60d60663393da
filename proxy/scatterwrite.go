package proxy

import (
	"slices"
	"strconv"

	"shardproxy/pool"
	"shardproxy/router"
	"shardproxy/wire"
)

// An UPDATE or DELETE that needs rows of other shards than those it writes gathers them as a query
// does, and then runs with them on every shard that has rows of its target. What was gathered on a
// shard and what is written there must be of one snapshot, or a row that came between would be
// taken for one without partners. A transaction of the statement's own is REPEATABLE READ. When it meets
// rows that others have changed since it begins again, as in one of the client's that is READ COMMITTED:
// the target is locked first, and nobody else writes to it until the transaction ends.

// writing is such a statement.
type writing struct {
	c  *scattering
	of *router.Written
	// own is set in a transaction of the statement's own, locks when the target must be locked.
	own, locks bool
	// waits is set once others have written the same rows.
	waits  bool
	frames []byte
	answer []byte
}

// level is the isolation level of the query's own transaction.
func (c *scattering) level() string {
	if c.written != nil && !c.written.waits && !c.claiming() || c.inSteps() {
		return repeatableRead
	}
	return readCommitted
}

// conflicts reports whether rows were written that others had changed since the transaction began.
func (c *scattering) conflicts() bool {
	return c.written != nil && c.err != nil && c.err.Code == "40001"
}

// withTargets adds the shards that are written to.
func (c *scattering) withTargets(shards []int) []int {
	home := false
	switch {
	case c.into != nil:
		home = c.into.of.Home
	case c.written != nil:
		home = c.written.of.Home
	default:
		return shards
	}
	all := []int{0}
	if !home {
		all = c.s.allShards()
	}
	for _, i := range shards {
		if !slices.Contains(all, i) {
			all = append(all, i)
		}
	}
	slices.Sort(all)
	return all
}

// allShards returns the places of the shards that the cluster has now, none without a slot map.
func (s *session) allShards() []int { return slices.Clone(s.db.Owners().All()) }

// travelsByName has the values of types that each server numbers anew travel as text.
func travelsByName(types map[uint32]typeOf) {
	for oid, t := range types {
		if oid >= firstOwnOID && t.array != 0 {
			t.array, t.cast = textArray, t.name
			types[oid] = t
		}
	}
}

// prepare makes the request for the shards.
func (w *writing) prepare(inputs []gathered) {
	c := w.c
	part, ok := c.finishing(inputs)
	if !ok {
		return
	}
	tail := append(describePortal(), executeSync()...)
	w.frames = partFrames(&part, true, tail)
}

// steady sees to it that what is read and what is written later are of one snapshot.
func (w *writing) steady() bool {
	c := w.c
	if !w.locks || c.claiming() { // whose rows are locked, and no others are written
		return true
	}
	for n, shard := range c.shards {
		if w.of.Home && shard.index != 0 {
			continue
		}
		a, err := shard.lease.Run(c.s.server.ctx, wire.AppendQuery(nil, w.of.Lock), pool.RunOptions{})
		if err != nil {
			shard.answer, shard.err = a, err
			c.fail(wire.AsError(err), withoutPosition(a.Error), n)
			return false
		}
	}
	return true
}

// put runs the statement on the shards; what fails is in the query's error then. An error ends
// the session.
func (w *writing) put(p *router.Plan) error {
	c, s := w.c, w.c.s
	defer func() { w.frames = nil }()
	targets := []int{0}
	if !w.of.Home {
		targets = s.allShards()
	}
	s.tallyAlso(targets)
	answers := make([]pool.Answer, len(targets))
	for n, shard := range targets {
		l, wrote := s.partOn(shard)
		*wrote = true
		a, err := s.runOn(l, w.frames, answerMax)
		if err == nil && n > 0 && w.of.Everywhere && a.Tag != answers[0].Tag {
			err = wire.Errorf("55000", "shards gave different results: %s on %s, %s on %s", answers[0].Tag, s.db.Shards[targets[0]].Name,
				a.Tag, s.db.Shards[shard].Name).WithHint("The copies of the table differ.")
		}
		if err == nil && n == 0 {
			err = w.sameColumns(a.Frames)
		}
		if answers[n] = a; err != nil {
			if s.goTo(shard); !isLost(err) && a.Error == nil {
				l = s.lease
			}
			return c.notWritten(l, a, err)
		}
	}
	s.notesDrawing(p)
	return w.join(answers)
}

// sameColumns checks that what RETURNING gives has the types that the client was told.
func (w *writing) sameColumns(frames []byte) error {
	for b := frames; len(b) > 0; b = b[frameSize(b):] {
		if b[0] == wire.MsgRowDescription {
			if e := w.c.sameColumns(readColumns(b[5:frameSize(b)])); e != nil {
				return e
			}
		}
	}
	return nil
}

// notWritten notes why a shard did not write, and makes the transaction fail.
func (c *scattering) notWritten(l *pool.Server, a pool.Answer, err error) error {
	if a.Error != nil {
		a.Error = withoutPosition(a.Error)
	}
	e := c.s.allFailed(l, a, err)
	if c.fail(e, a.Error, -1); e.IsFatal() {
		return e
	}
	return nil
}

// join makes the answer of those of the shards.
func (w *writing) join(answers []pool.Answer) error {
	c := w.c
	if w.of.Everywhere {
		answers = answers[:1]
	}
	total, command := 0, ""
	out := writeHead(&c.asks, &c.describedAs)
	for n := range answers {
		of, count, ok := answers[n].Count()
		if !ok {
			return c.notWritten(c.s.lease, pool.Answer{}, wire.Errorf("XX000", "a shard answered %q to a write", answers[n].Tag))
		}
		total, command = total+count, of
		head, rows, _ := cutRows(answers[n].Frames)
		c.notices = append(c.notices, newNotices(head, c.notices)...)
		for _, row := range rows {
			out = append(out, row...)
		}
	}
	w.answer = wire.AppendCommandComplete(out, command+strconv.Itoa(total))
	return nil
}

// writeHead begins the answer to a write of which a server has described the text.
func writeHead(asks *clientAsks, d *description) (out []byte) {
	var columns []byte
	if d.body != nil {
		columns = columnsFor(d.body, len(d.columns), asks.formats)
	}
	switch {
	case asks.simple && columns != nil:
		return wire.AppendFrame(out, wire.MsgRowDescription, columns)
	case asks.simple:
		return nil
	}
	if asks.parse {
		out = wire.AppendEmpty(out, wire.MsgParseComplete)
	}
	out = wire.AppendEmpty(out, wire.MsgBindComplete)
	switch {
	case asks.describe && columns != nil:
		out = wire.AppendFrame(out, wire.MsgRowDescription, columns)
	case asks.describe:
		out = wire.AppendEmpty(out, wire.MsgNoData)
	}
	return out
}

package proxy

import (
	"slices"
	"strconv"

	"shardproxy/exec"
	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// A query over several shards may be read in pieces: by a portal with a row limit, or by a cursor. What
// it has not given yet stays where its rows are, in portals of the servers: their connections
// are free for other statements of the transaction between two pieces. The rows are those of
// the moment when the portals were made, and the servers end them with the transaction, or with the
// savepoint they were made behind, as they do for a client of their own.

// openQuery is such a query. It lives in a transaction; see session.opens.
type openQuery struct {
	c    *scattering
	name string // the client's
	on   string // what it is called on the servers
	// declared is set for a cursor of DECLARE, scroll when it can go back.
	declared, scroll bool
	// level is the number of savepoints that are open around it.
	level int
	// columns is the body of the RowDescription, formats those of its columns, as Bind has them; those of the
	// servers' portals have the hidden ones behind them.
	columns, formats []byte
	visible, hidden  int

	// pieces puts the rows of the shards in order; nil when a server finishes the query, so that
	// its portal there has what the client gets.
	pieces  *exec.Pieces
	from    []*scatterShard // its sources
	rowsAs  []byte          // the formats of the rows that are held
	asked   bool            // the shards have given a block each
	block   int64           // how many rows are asked for at once
	records *recordCheck    // of the rows that are given; nil for none
	counted int64           // of what is held, in the metric

	// Where the client is, as in PostgreSQL's portals.
	atStart, atEnd bool
	pos            int64
	failed         bool // a piece of it has
}

// portalPrefix begins the servers' names of the portals.
const portalPrefix = "shardproxy_portal_"

// errCursorExists is what a server says of a name that is taken.
func errCursorExists(name string) *wire.Error {
	return wire.Errorf("42P03", "cursor \"%s\" already exists", name)
}

// declareOf returns what a plan that scatters declares; not ok when it declares no cursor.
func declareOf(p *router.Plan, text []byte) (o query.DeclareOptions, ok bool) {
	if p == nil || p.Single == nil || p.Single.Kind != query.KindDeclare {
		return o, false
	}
	return query.ReadDeclare(text)
}

// declare has the query be one that a cursor reads.
func (c *scattering) declare(name string, o query.DeclareOptions) *wire.Error {
	switch {
	case o.Scroll && o.NoScroll:
		return wire.Errorf("42P11", "cannot specify both SCROLL and NO SCROLL")
	case o.Asensitive && o.Insensitive:
		return wire.Errorf("42P11", "cannot specify both ASENSITIVE and INSENSITIVE")
	case c.s.tx == 'I':
		return errNoBlock("DECLARE CURSOR")
	case c.s.nameTaken(name):
		return errCursorExists(name)
	}
	c.text = c.text[o.Start:]
	c.source = c.text
	c.opening = &openQuery{name: name, declared: true, scroll: o.Scroll}
	// To go back one server must have all rows.
	c.options.NoMerge = o.Scroll
	c.promised = nil
	if c.asks.formats = []byte{0, 0}; o.Binary {
		c.asks.formats = []byte{0, 1, 0, 1}
	}
	return nil
}

// errNoBlock is PostgreSQL's error for a command that has no effect behind the end of its transaction.
func errNoBlock(command string) *wire.Error {
	return wire.Errorf("25P01", "%s can only be used in transaction blocks", command)
}

// nameTaken reports whether a portal or cursor of the transaction has the name.
func (s *session) nameTaken(name string) bool {
	if name == "" {
		return false // the unnamed one is replaced
	}
	if s.spread != nil {
		if _, ok := s.spread.portals[name]; ok && s.portals[name] != nil {
			return true
		}
	}
	return s.cursors[name] != nil
}

// opens notes a query that has been opened.
func (s *session) opens(q *openQuery) {
	s.closes(q.name)
	if s.cursors == nil {
		s.cursors = map[string]*openQuery{}
	}
	q.level, q.atStart = len(s.savepoints), true
	s.cursors[q.name] = q
}

// closes forgets an open query, if there is one of the name. Its portals on the servers are closed with the
// next piece of another, or with the transaction.
func (s *session) closes(name string) {
	q := s.cursors[name]
	if q == nil {
		return
	}
	s.forgets(q)
	if s.spread == nil {
		return
	}
	if s.spread.unclosed == nil {
		s.spread.unclosed = map[int][]string{}
	}
	for _, shard := range q.c.shards {
		s.spread.unclosed[shard.index] = append(s.spread.unclosed[shard.index], q.on)
	}
}

// usedUnnamed notes that the unnamed portals of the servers are not the client's.
func (s *session) usedUnnamed() {
	if s.spread != nil {
		s.spread.noUnnamed = true
	}
}

func (s *session) forgets(q *openQuery) {
	delete(s.cursors, q.name)
	if q.pieces != nil {
		q.pieces.Close()
	}
	s.db.stats.gatherHeld.Add(-q.counted)
	q.counted = 0
}

// closesAll forgets all open queries, whose servers have ended them.
func (s *session) closesAll() {
	for _, q := range s.cursors {
		s.forgets(q)
	}
}

// closesBehind forgets the open queries, and the portals of one shard, that were opened behind a savepoint which is
// rolled back to.
func (s *session) closesBehind(savepoint int) {
	for _, q := range s.cursors {
		if q.level > savepoint {
			s.forgets(q)
		}
	}
	if s.spread == nil {
		return
	}
	for name, level := range s.spread.levels {
		if level > savepoint {
			delete(s.portals, name)
			delete(s.spread.portals, name)
			delete(s.spread.levels, name)
		}
	}
}

// released notes that what was opened behind a savepoint belongs to what is around it.
func (s *session) released(savepoint int) {
	for _, q := range s.cursors {
		q.level = min(q.level, savepoint)
	}
	if s.spread == nil {
		return
	}
	for name, level := range s.spread.levels {
		s.spread.levels[name] = min(level, savepoint)
	}
}

// closing takes the portals of a shard that are to be closed there, as frames.
func (s *session) closing(shard int) (frames []byte) {
	for _, name := range s.spread.unclosed[shard] {
		frames = wire.AppendClose(frames, 'P', name)
	}
	delete(s.spread.unclosed, shard)
	return frames
}

// errOpenFailed is what a server says of a portal that has failed.
func errOpenFailed(name string) *wire.Error {
	return wire.Errorf("55000", "portal \"%s\" cannot be run", name)
}

// newPortalName names the next portal on the servers.
func (s *session) newPortalName() string {
	s.spread.opened++
	return portalPrefix + strconv.Itoa(s.spread.opened)
}

// portalFrames makes a portal of a part on one shard, and has it described.
func (c *scattering) portalFrames(shard int, part *router.Part) []byte {
	q := c.opening
	// When the shards are begun anew, one of the first try is there.
	frames := wire.AppendClose(c.s.closing(shard), 'P', q.on)
	frames = wire.AppendParse(frames, "", parseRest(part))
	if q.scroll {
		// Only a cursor can go back. It takes the parameters as any statement does.
		frames = wire.AppendFrame(frames, wire.MsgBind, []byte("\x00\x00"), part.Bind)
		frames = wire.AppendFrame(frames, wire.MsgExecute, make([]byte, 5))
		frames = wire.AppendClose(frames, 'P', "")
	} else {
		frames = wire.AppendFrame(frames, wire.MsgBind, []byte(q.on), []byte("\x00\x00"), part.Bind)
	}
	return wire.AppendFrame(frames, wire.MsgDescribe, []byte{'P'}, []byte(q.on), []byte{0})
}

// openMerge makes the portals of a query whose shards' rows are merged. columns is what the client is
// told of them, nil for what the shards say.
func (c *scattering) openMerge(part *router.Part, o exec.MergeOptions, columns []byte) {
	q := c.opening
	q.on, q.formats = c.s.newPortalName(), c.asks.formats
	agree := true
	q.from = nil
	for _, shard := range c.shards {
		if slices.Contains(c.merging, shard.index) {
			q.from = append(q.from, shard)
		}
	}
	c.prepare(c.start(func(shard *scatterShard) []byte {
		if !slices.Contains(q.from, shard) {
			return nil
		}
		return c.portalFrames(shard.index, part)
	}, wire.AppendEmpty(nil, wire.MsgSync)), func(body []byte) {
		if agree = agree && c.agrees(body); agree && columns == nil {
			columns = append([]byte(nil), body...)
		}
		agree = agree && c.asTold(columns)
	})
	switch {
	case c.err != nil:
	case c.stale:
		c.afresh(c.merge)
	default:
		if q.columns = columns; columns == nil {
			q.columns = []byte{0, 0}
		}
		q.visible, q.hidden = len(readColumns(q.columns)), o.Hidden
		q.block = firstBlock
		q.pieces = exec.NewPieces(len(q.from), o)
	}
}

// openFinal makes the portal of the text that finishes a query.
func (c *scattering) openFinal(part *router.Part) {
	q := c.opening
	q.on, q.formats = c.s.newPortalName(), c.asks.formats
	if q.scroll {
		part.Text = append([]byte(`DECLARE "`+q.on+`" SCROLL CURSOR FOR `), part.Text...)
		part.Bind = append(part.Bind[:len(part.Bind)-len(q.formats)], 0, 0)
	}
	first := c.shards[0]
	c.prepare(c.start(func(shard *scatterShard) []byte {
		if shard != first {
			return nil
		}
		return c.portalFrames(shard.index, part)
	}, wire.AppendEmpty(nil, wire.MsgSync)), func(body []byte) {
		if wrong := c.sameColumns(readColumns(body)); wrong != nil {
			c.fail(wrong, nil, -1)
		}
	})
	if c.err != nil {
		c.notItsOwn()
		return
	}
	q.visible = len(c.describedAs.columns)
	q.columns = columnsFor(c.describedAs.body, q.visible, q.formats)
}

// prepare waits for portals to be made, and gives what the shards say of their columns to described.
func (c *scattering) prepare(sources []exec.Source, described func(body []byte)) {
	if c.err != nil {
		return
	}
	_, err := exec.Merge(sources, exec.MergeOptions{Limit: -1}, func([]byte) error { return errUnwanted }, func(_ int, frame []byte) {
		if frame[0] == wire.MsgRowDescription {
			described(frame[5:])
		}
	})
	c.endStreams(err)
}

// peelsClose answers a Close that stands, without a Sync, in front of a simple query, as JDBC sends it: the query
// is a request of its own then.
func (s *session) peelsClose(kind byte, size int) (done bool, err error) {
	if s.places == nil || kind != wire.MsgClose || s.private || s.fresh || s.settling || s.audit.running || s.readyOwed || !s.owed.empty() {
		return false, nil
	}
	b := s.client.Buffered()
	for len(b) >= 5 && b[0] == wire.MsgClose {
		b = b[min(frameSize(b), len(b)):]
	}
	if len(b) == 0 || b[0] != wire.MsgQuery {
		return false, nil
	}
	body := s.client.Buffered()[5:size]
	if len(body) < 2 {
		return false, wire.Fatal("08P01", "invalid message format")
	}
	name := string(cut(body[1:]))
	if body[0] == 'P' && s.spread != nil && s.lease != nil && s.portals[name] != nil {
		l, _ := s.partOn(s.spread.portals[name])
		if _, err := s.runOn(l, wire.AppendEmpty(wire.AppendClose(nil, 'P', name), wire.MsgSync), 0); isLost(err) {
			return false, s.allFailed(l, pool.Answer{}, err)
		}
		delete(s.portals, name)
	}
	s.closesHere(s.client.Buffered()[5:size])
	s.client.SetOutput(wire.AppendEmpty(s.client.Output(), wire.MsgCloseComplete))
	s.drop(size)
	return true, nil
}

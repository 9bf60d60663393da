package proxy

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// FETCH, MOVE and CLOSE of a cursor over several shards. One that a server finishes does there what the
// client asks for. One whose shards' rows are merged goes forward only; what it does then is what
// PostgreSQL's cursors do (DoPortalRunFetch and PortalRunSelect in pquery.c).

// names reports whether a command is about a query over several shards that is open, or closes what may
// be on any shard of the transaction.
func (s *session) names(p *router.Plan) bool {
	if p == nil || p.Single == nil {
		return false
	}
	switch p.Single.Kind {
	case query.KindFetch:
		return s.cursors[p.Single.Target] != nil
	case query.KindClose:
		return s.spreads() || p.Single.All && len(s.cursors) > 0 || s.cursors[p.Single.Target] != nil
	}
	return false
}

// declares reports whether a plan declares a cursor that may be over several shards.
func declares(p *router.Plan) bool {
	return p != nil && p.Scatters() && p.Single.Kind == query.KindDeclare
}

// namesAny reports whether any command of a text may be about one.
func (s *session) namesAny(p *router.Plan) bool {
	if s.spread == nil || p.Statement == nil {
		return false
	}
	return slices.ContainsFunc(p.Statement.Commands, func(c query.Command) bool {
		return (c.Kind == query.KindFetch || c.Kind == query.KindClose) && (c.All && len(s.cursors) > 0 || s.nameTaken(c.Target))
	})
}

// placeCursor finds the shard of a FETCH from a cursor, or portal, of one shard, and why a DECLARE must not run.
func (s *session) placeCursor(n *need, p *router.Plan) {
	if n.err != nil || s.spread == nil || s.tx != 'T' || p == nil || p.Single == nil {
		return
	}
	switch p.Single.Kind {
	case query.KindFetch:
		switch at := s.cursorShard(p); {
		case at == router.AnyShard || at == n.shard:
		case n.shard == router.AnyShard:
			n.shard = at
		default:
			n.batch = true
		}
	case query.KindDeclare:
		if s.nameTaken(p.Single.Target) {
			n.err = errCursorExists(p.Single.Target)
		}
	}
}

// cursorShard returns the shard that has the cursor, or portal, of a FETCH; router.AnyShard when none is known to.
func (s *session) cursorShard(p *router.Plan) int {
	if s.spread != nil && p.Single != nil && p.Single.Kind == query.KindFetch && s.portals[p.Single.Target] != nil {
		if at, ok := s.spread.portals[p.Single.Target]; ok {
			return at
		}
	}
	return router.AnyShard
}

// cursorCommand runs a simple query that is about an open query, and answers it.
func (s *session) cursorCommand(p *router.Plan, size int) error {
	text := string(trimNUL(s.client.Buffered()[5:size]))
	s.unnamedTok, s.unnamedLarge = 0, false
	s.client.Release()
	s.held = false
	s.dropRequest()
	defer s.usedUnnamed()
	a, err := s.commandOf(p, text, nil)
	if err != nil {
		return err
	}
	s.forgetPlans()
	if a.failed {
		s.tx, s.failed = 'E', true
		s.tellsFrames(a.frames)
		s.scriptFails()
	}
	s.client.SetOutput(append(s.client.Output(), a.frames...))
	s.steps++
	s.answerReady()
	return nil
}

// cursorAnswer is what ends the answer to such a command.
type cursorAnswer struct {
	frames []byte
	failed bool
}

func failedAnswer(e *wire.Error) cursorAnswer {
	return cursorAnswer{frames: e.Append(nil), failed: true}
}

// commandOf runs a FETCH, MOVE or CLOSE; the rows of a FETCH go to the client. formats are those of
// its result, as Bind has them; nil for a simple query, whose rows have a description. An error ends the session.
func (s *session) commandOf(p *router.Plan, text string, formats []byte) (cursorAnswer, error) {
	if p.Single.Kind == query.KindClose {
		return s.closeCommand(p.Single)
	}
	f, ok := query.ReadFetch(text)
	q := s.cursors[f.Cursor]
	if !ok || q == nil {
		return failedAnswer(errNoCursor(p.Single.Target)), s.failHere()
	}
	simple := formats == nil
	if simple {
		if formats = []byte{0, 0}; q.declared {
			formats = q.formats
		}
	}
	err := q.read(func() { q.answer(f, formats, simple) })
	if err != nil {
		return cursorAnswer{}, err
	}
	return q.ends(f), nil
}

func errNoCursor(name string) *wire.Error {
	return wire.Errorf("34000", "cursor \"%s\" does not exist", name)
}

// answer does what a FETCH or MOVE asks for; c.rows is the number of its rows then.
func (q *openQuery) answer(f query.Fetch, formats []byte, simple bool) {
	c := q.c
	if n := int(binary.BigEndian.Uint16(formats)); n > 1 && n != q.visible && !f.Move {
		c.fail(wire.Errorf("08P01", "bind message has %d result formats but query has %d columns", n, q.visible), nil, -1)
		return
	}
	described := !simple || f.Move
	describe := func() {
		if !described {
			out := c.s.client.Output()
			c.s.client.SetOutput(wire.AppendFrame(out, wire.MsgRowDescription, columnsFor(q.columns, q.visible, formats)))
		}
		described = true
	}
	give := func(frames []byte) error {
		describe()
		return c.send(frames)
	}
	switch {
	case f.Move && q.pieces != nil:
		c.rows = q.scan(f, q.heldFormats(), func([]byte) error { return nil })
	case q.pieces != nil:
		c.rows = q.scan(f, formats, give)
	default:
		if f.Move {
			formats = []byte{0, 0}
		}
		q.final(q.sql(nil, f, formats), give)
		_, n, _ := c.shards[0].answer.Count()
		c.rows = int64(n)
	}
	if c.err == nil {
		describe()
	}
}

// heldFormats are those in which rows go on that nobody sees.
func (q *openQuery) heldFormats() []byte {
	if q.rowsAs == nil {
		return q.formats
	}
	return slices.Clone(q.rowsAs)
}

// ends returns what ends the answer of a FETCH or MOVE.
func (q *openQuery) ends(f query.Fetch) cursorAnswer {
	c := q.c
	if c.err != nil {
		return cursorAnswer{frames: c.errorFrame(nil), failed: true}
	}
	word := "FETCH "
	if f.Move {
		word = "MOVE "
	}
	return cursorAnswer{frames: wire.AppendCommandComplete(slices.Clone(c.notices), word+strconv.FormatInt(c.rows, 10))}
}

// errorFrame appends what failed.
func (c *scattering) errorFrame(out []byte) []byte {
	out = append(out, c.notices...)
	if c.raw != nil {
		return wire.AppendFrame(out, wire.MsgErrorResponse, c.raw)
	}
	return c.err.Append(out)
}

// closeCommand runs a CLOSE. CLOSE ALL is for the cursors of all servers of the transaction.
func (s *session) closeCommand(c *query.Command) (cursorAnswer, error) {
	text, tag, servers := "CLOSE ALL", "CLOSE CURSOR ALL", []*pool.Server(nil)
	at, known := s.spread.portals[c.Target]
	switch {
	case c.All:
		s.closesAll()
		s.spread.unclosed = nil
		servers = append(servers, s.lease)
		for _, b := range s.spread.branches {
			servers = append(servers, b.lease)
		}
		clear(s.portals)
	case s.cursors[c.Target] != nil:
		s.closes(c.Target)
		tag = "CLOSE CURSOR"
	case known && s.portals[c.Target] != nil:
		l, _ := s.partOn(at)
		text, tag, servers = `CLOSE "`+strings.ReplaceAll(c.Target, `"`, `""`)+`"`, "CLOSE CURSOR", append(servers, l)
		delete(s.portals, c.Target)
	default:
		return failedAnswer(errNoCursor(c.Target)), s.failHere()
	}
	for _, l := range servers {
		switch a, err := s.runOn(l, wire.AppendQuery(nil, text), 0); {
		case isLost(err):
			return cursorAnswer{}, s.allFailed(l, a, err)
		case err != nil:
			return failedAnswer(wire.AsError(err)), s.failHere()
		}
	}
	return cursorAnswer{frames: wire.AppendCommandComplete(nil, tag)}, nil
}

// failHere has the transaction fail on the lease, where the client's next statement runs.
func (s *session) failHere() error {
	if err := s.failLease(); err != nil {
		return s.allFailed(s.lease, pool.Answer{}, err)
	}
	return nil
}

// scan does what a FETCH or MOVE asks of a cursor that goes forward only, and returns the number of rows.
func (q *openQuery) scan(f query.Fetch, formats []byte, give func([]byte) error) int64 {
	count, nothing := f.Count, func([]byte) error { return nil }
	skip := func(forward bool, n int64) bool {
		q.run(forward, n, formats, nothing)
		return q.c.err == nil
	}
	direction := f.Direction
	switch direction {
	case query.FetchForward, query.FetchBackward:
		if count < 0 {
			count = -count
			if direction = query.FetchForward; f.Direction == query.FetchForward {
				direction = query.FetchBackward
			}
		}
	case query.FetchAbsolute:
		return q.absolute(count, formats, give, skip)
	case query.FetchRelative:
		switch {
		case count > 0:
			if count > 1 && !skip(true, count-1) {
				return 0
			}
			return q.run(true, 1, formats, give)
		case count < 0:
			return q.run(false, 1, formats, give) // -count rows back, were there a way
		}
		direction = query.FetchForward
	}
	forward := direction == query.FetchForward
	if count == 0 {
		onRow := !q.atStart && !q.atEnd
		if f.Move {
			if onRow {
				return 1
			}
			return 0
		}
		if onRow && !skip(false, 1) {
			return 0
		}
	}
	if !forward && count == query.FetchAll && f.Move {
		rows := q.pos
		if rows > 0 && !q.atEnd {
			rows--
		}
		if !q.rewind() {
			return 0
		}
		return rows
	}
	return q.run(forward, count, formats, give)
}

// absolute goes to a row by its number from the start, or from the end.
func (q *openQuery) absolute(count int64, formats []byte, give func([]byte) error, skip func(bool, int64) bool) int64 {
	switch {
	case count > 0 && count-1 <= q.pos/2:
		if !q.rewind() || count > 1 && !skip(true, count-1) {
			return 0
		}
		return q.run(true, 1, formats, give)
	case count > 0:
		pos := q.pos
		if q.atEnd {
			pos++
		}
		if count <= pos && !skip(false, pos-count+1) || count > pos+1 && !skip(true, count-pos-1) {
			return 0
		}
		return q.run(true, 1, formats, give)
	case count < 0:
		if !skip(true, query.FetchAll) {
			return 0
		}
		return q.run(false, 1, formats, give)
	}
	if !q.rewind() {
		return 0
	}
	return q.run(true, 0, formats, give)
}

// rewind goes to the start, where it must be already.
func (q *openQuery) rewind() bool {
	if q.atStart && !q.atEnd {
		return true
	}
	q.c.fail(errForwardOnly(), nil, -1)
	return false
}

func errForwardOnly() *wire.Error {
	return wire.Errorf("55000", "cursor can only scan forward").WithHint("Declare it with SCROLL option to enable backward scan.")
}

// run gives the next rows, count at most.
func (q *openQuery) run(forward bool, count int64, formats []byte, give func([]byte) error) int64 {
	if !forward {
		q.c.fail(errForwardOnly(), nil, -1)
		return 0
	}
	if q.atEnd || count <= 0 {
		return 0
	}
	most := count
	if count == query.FetchAll {
		most = -1
	}
	n := q.rows(most, formats, give)
	if q.c.err == nil {
		q.atStart = q.atStart && n == 0
		q.atEnd = n < count
		q.pos += n
	}
	return n
}

// readsPieces deals with a request about queries that are open, in a transaction.
func (s *session) readsPieces(kind byte, size int) (verdict, error) {
	switch {
	case !s.owed.empty():
		s.forgetPlans()
		return waits, nil
	case s.tx == 'E' && kind != wire.MsgQuery && !slices.ContainsFunc(s.executes, leavesFailed):
		return isRefused, s.refuseHere(kind, size, wire.Errorf("25P02", "current transaction is aborted, commands ignored until end of transaction block"))
	case s.tx == 'T' && kind == wire.MsgQuery && s.names(s.executes[0]):
		return isRefused, s.cursorCommand(s.executes[0], size)
	}
	return goesOn, nil
}

package proxy

import (
	"bytes"
	"cmp"

	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// A batch is a request of the extended protocol, up to its Sync, whose statements lie on
// several shards: what drivers send of JDBC's batches, pgx.Batch, psycopg's
// executemany. It is one transaction, the client's or one of its own. Its statements are
// read as they come and run in chunks: each shard gets those of a chunk that are for
// it in one go, all shards at the same time. The answers go back in the order of
// the statements, up to the first that failed; what came behind that one rolls back.
type batch struct {
	s     *session
	units []*unit
	bytes int // of their frames
	open  *unit
	own   bool // the transaction is the batch's
	begun bool // something has run
	// failed is set when the client has been told an error: what comes up to the Sync is
	// skipped.
	failed bool
}

// unit is one statement of a batch: what one Bind runs, or a Parse alone.
type unit struct {
	plan *router.Plan
	name string
	rest []byte // what Parse has behind the name
	bind []byte // what Bind has behind the names; nil without one
	tail []byte // Describe and Execute of the portal
	lead []byte // what the client is told before the servers' answer

	parsed    bool // the client's own Parse is in it
	described bool // of the statement
	supplied  int  // how many of its parameters the client does not know
	portal    bool // the portal is described
	executed  bool

	shards []int
	parts  [][]byte // for each of shards
	rows   [][]int
	same   bool // all shards get the same, and answer alike
	adds   bool // all shards get the same, each for its own rows
	moment bool // the time of the transaction is to be put in
	// scatter is set for a query that is answered from several shards, opens when a portal reads it in
	// pieces: limit is the number of rows of the first.
	scatter    *scattering
	opens      *openQuery
	portalName string
	limit      int64
	// do is what is done instead, for the commands of portals and cursors.
	do func() error

	err *wire.Error // why it cannot be run
}

// Bounds of a chunk.
const (
	chunkUnits = 256
	chunkBytes = 1 << 20
)

// batchFrameMax bounds one frame of a batch, in bytes.
const batchFrameMax = 16 << 20

// runBatch runs a request as a batch, and answers it.
func (s *session) runBatch() error {
	b := &batch{s: s, own: s.tx == 'I'}
	s.client.Release()
	s.held = false
	s.forgetPlans()
	for {
		kind, size, ok, err := s.client.Header(s.db.Policy().MessageMax)
		if err != nil {
			return err
		}
		var large *wire.Error
		if ok && size > batchFrameMax {
			large = wire.Errorf("54000", "a message of a request on several shards is longer than %d bytes", batchFrameMax)
		} else if ok {
			large = s.oversized(kind, size)
		}
		if large != nil && !b.failed {
			err = b.fail(large)
		} else if !ok || len(s.client.Buffered()) < size {
			err = b.more(large != nil)
		} else if kind == wire.MsgSync {
			return b.sync(size)
		} else {
			err = b.frame(kind, size)
		}
		if err != nil {
			return err
		}
	}
}

// more waits for the client; what is there runs meanwhile. With drop, what has come of a
// frame that is skipped is dropped.
func (b *batch) more(drop bool) error {
	s := b.s
	if drop {
		_, size, _, _ := s.client.Header(s.db.Policy().MessageMax)
		return b.skipFrame(size)
	}
	if err := b.run(); err != nil {
		return err
	}
	if err := s.flushAll(); err != nil {
		return s.clientError(err)
	}
	if !s.client.More() {
		s.task.await(interest{socket: s.client.Socket(), read: true}, interest{})
	}
	if err := s.obeyWaiting(); err != nil {
		if e := wire.AsError(err); !e.IsFatal() {
			return nil // nothing of it ran
		}
		return err
	}
	return s.fillClient()
}

// skipFrame drops a frame whose end may not have come.
func (b *batch) skipFrame(size int) error {
	s := b.s
	for size > 0 {
		n := min(size, len(s.client.Buffered()))
		s.client.Discard(n)
		if size -= n; size == 0 {
			return nil
		}
		if !s.client.More() {
			s.task.await(interest{socket: s.client.Socket(), read: true}, interest{})
		}
		if err := s.obeyWaiting(); err != nil && wire.AsError(err).IsFatal() {
			return err
		}
		if err := s.fillClient(); err != nil {
			return err
		}
		if s.clientLeft {
			return errEnded
		}
	}
	return nil
}

// frame takes one whole frame.
func (b *batch) frame(kind byte, size int) error {
	s := b.s
	if r := s.recall; !b.failed && (r == nil || r.until <= s.client.Consumed()) {
		now, _, e := s.supplyFrame(0, kind, size)
		if e != nil {
			s.client.Discard(size)
			return b.fail(e)
		}
		size = now
		if s.recall != nil {
			s.recall.until = s.client.Consumed() + uint64(size)
		}
	}
	body := bytes.Clone(s.client.Buffered()[5:size])
	if kind == wire.MsgExecute && !b.failed {
		s.paysFor()
	}
	s.client.Discard(size)
	s.steps++
	if b.failed {
		return nil
	}
	var e *wire.Error
	switch kind {
	case wire.MsgParse:
		e = b.parse(body)
	case wire.MsgBind:
		e = b.bindTo(body)
	case wire.MsgDescribe:
		e = b.describe(body)
	case wire.MsgExecute:
		e = b.execute(body)
	case wire.MsgClose:
		e = b.close(body)
	case wire.MsgFlush:
		b.finishUnit()
		if err := b.run(); err != nil || b.failed {
			return err
		}
		return s.flushAll()
	case wire.MsgTerminate:
		return errEnded
	default:
		return wire.Fatal("0A000", "a message of type %q cannot stand in a request on several shards", kind)
	}
	if e != nil {
		return b.fail(e)
	}
	if len(b.units) >= chunkUnits || b.bytes >= chunkBytes {
		return b.run()
	}
	return nil
}

// fail runs what comes before the error and tells it.
func (b *batch) fail(e *wire.Error) error {
	if e.IsFatal() {
		return e
	}
	b.finishUnit()
	if err := b.run(); err != nil || b.failed {
		return err
	}
	b.s.db.countRefusal(e)
	b.tell(e.Append(nil))
	return nil
}

func (b *batch) tell(frames []byte) {
	s := b.s
	b.failed = true
	s.tellsFrames(frames)
	s.client.SetOutput(append(s.client.Output(), frames...))
	s.steps++
}

// finishUnit closes the statement that is being read.
func (b *batch) finishUnit() {
	u := b.open
	if u == nil {
		return
	}
	b.open = nil
	switch {
	case u.bind != nil && !u.executed && u.reads():
		u.err = b.opening(u)
	case u.bind == nil && b.names(u.plan):
		b.describesCommand(u)
		return
	case u.bind != nil && !u.executed:
		u.err = wire.Errorf("0A000", "a portal must be executed at once in a request on several shards")
	case u.bind == nil && u.plan.Single.Kind == query.KindBegin:
		u.err = errAlone() // to describe it no server is asked
	case u.bind == nil:
		frames := wire.AppendParse(nil, "", u.rest)
		if u.described {
			frames = appendDescribe(frames, 'S')
		}
		shard := 0 // where all tables are
		if at := b.last(); at >= 0 && (u.plan.Where == router.Keyed || u.plan.Where == router.Anywhere) {
			shard = at
		}
		u.shards, u.parts = []int{shard}, [][]byte{frames}
	}
	b.units = append(b.units, u)
	b.bytes += len(u.rest) + len(u.bind)
}

func (b *batch) parse(body []byte) *wire.Error {
	s := b.s
	b.finishUnit()
	name, rest, ok := wire.CString(body)
	if !ok || bytes.IndexByte(rest, 0) < 0 {
		return wire.Fatal("08P01", "invalid message format")
	}
	if len(rest) > s.db.Policy().ParsedMax {
		return errTooLong()
	}
	p := s.plan(cut(rest))
	s.seesParent(rest)
	if p.Where == router.Refused && !p.Refusal.Describable() {
		return p.Refusal.Error()
	}
	if !b.takes(p) {
		return cmp.Or(p.BlockedBy(), errAlone())
	}
	if e := s.preparesHere(string(name), rest, p); e != nil {
		return e
	}
	b.open = &unit{plan: p, name: string(name), rest: bytes.Clone(rest), parsed: true, supplied: s.suppliedTo(name)}
	return nil
}

// statement opens the unit of a statement that was prepared before.
func (b *batch) statement(name []byte) *wire.Error {
	s := b.s
	if b.open != nil && b.open.name == string(name) && b.open.bind == nil {
		return nil
	}
	b.finishUnit()
	s.ahead = ahead{}
	rest := s.restOf(name)
	p := s.planOf(name, nil, nil)
	if rest == nil || p == nil {
		return wire.Errorf("26000", "prepared statement \"%s\" does not exist", name)
	}
	if !b.takes(p) {
		return cmp.Or(p.BlockedBy(), errAlone())
	}
	b.open = &unit{plan: p, name: string(name), rest: bytes.Clone(rest), supplied: s.suppliedTo(name)}
	return nil
}

// takes reports whether a statement may stand in a batch. BEGIN may be the first.
func (b *batch) takes(p *router.Plan) bool {
	if p.Single != nil && p.Single.Kind == query.KindBegin {
		return b.s.tx == 'I' && !b.begun && len(b.units) == 0
	}
	if declares(p) || b.names(p) {
		return true
	}
	return p.Single != nil && p.Single.Kind != query.KindDeclare && p.CopyIn == nil && !p.Each && !p.Moves() && !p.Journalled && !controlsTransaction(p)
}

// begin begins the client's transaction, as the first statement of the batch.
func (b *batch) begin(u *unit) {
	s, c := b.s, u.plan.Single
	text := cut(u.rest)
	s.takeOver(&need{}, c, string(text))
	b.own = false
	var out []byte
	if u.parsed {
		out = wire.AppendEmpty(out, wire.MsgParseComplete)
	}
	out = wire.AppendEmpty(out, wire.MsgBindComplete)
	if u.portal {
		out = wire.AppendEmpty(out, wire.MsgNoData)
	}
	b.units = append(b.units, &unit{lead: wire.AppendCommandComplete(out, tagOf(c, text))})
}

func (b *batch) bindTo(body []byte) *wire.Error {
	portal, after, ok := wire.CString(body)
	if !ok {
		return wire.Fatal("08P01", "invalid message format")
	}
	name, values, ok := wire.CString(after)
	if !ok {
		return wire.Fatal("08P01", "invalid message format")
	}
	b.s.countsBind(name)
	if len(portal) == 0 && (b.s.cursors[""] != nil || b.willOpen("")) {
		b.special(&unit{}, func() error {
			b.s.closes("")
			return nil
		})
	}
	if e := b.statement(name); e != nil {
		return e
	}
	if len(portal) > 0 && !b.open.reads() && !b.names(b.open.plan) {
		b.open = nil
		return wire.Errorf("0A000", "named portals cannot be used in a request on several shards")
	}
	if u := b.open; u.described {
		// It is described as the client wrote it, whatever the shards get.
		b.finishUnit()
		b.open = &unit{plan: u.plan, name: u.name, rest: u.rest}
	}
	b.open.portalName = string(portal)
	b.open.bind = values
	return nil
}

func (b *batch) describe(body []byte) *wire.Error {
	if len(body) < 2 {
		return wire.Fatal("08P01", "invalid message format")
	}
	name := cut(body[1:])
	u := b.open
	if body[0] == 'S' {
		if e := b.statement(name); e != nil {
			return e
		}
		b.open.described = true
		return nil
	}
	if b.portalCommand(name, b.describes) {
		return nil
	}
	if u == nil || u.bind == nil || u.portal || u.executed || u.portalName != string(name) {
		return errNoPortal(name)
	}
	u.portal = true
	u.tail = appendDescribe(u.tail, 'P')
	return nil
}

func (b *batch) execute(body []byte) *wire.Error {
	u := b.open
	if len(body) < 5 {
		return wire.Fatal("08P01", "invalid message format")
	}
	name, limit := limitOf(body)
	if b.portalCommand([]byte(name), func(q *openQuery) error { return b.executes(q, limit) }) {
		return nil
	}
	if u == nil || u.bind == nil || u.executed || u.portalName != name {
		return errNoPortal([]byte(name))
	}
	if b.names(u.plan) {
		return b.cursorUnit(u, limit)
	}
	if u.reads() && (limit > 0 || name != "" || b.executesAgain()) {
		u.executed, u.limit = true, limit
		e := b.opening(u)
		if e != nil {
			b.open = nil
			return e
		}
		if u.scatter != nil {
			b.finishUnit()
			return nil
		}
	}
	u.limit = limit
	u.executed = true
	u.tail = wire.AppendFrame(u.tail, wire.MsgExecute, make([]byte, 5))
	switch u.plan.Single.Kind {
	case query.KindBegin:
		b.open = nil
		b.begin(u)
		return nil
	case query.KindDeclare:
		if b.own {
			b.open = nil
			return errNoBlock("DECLARE CURSOR")
		}
	}
	e := b.place(u)
	if e == nil && u.scatter == nil && u.plan.Single.Kind == query.KindDeclare {
		e = errAlone() // it is a cursor of one shard
	}
	if e != nil {
		b.open = nil
		return e
	}
	b.finishUnit()
	return nil
}

// close forgets a statement, or a portal.
func (b *batch) close(body []byte) *wire.Error {
	s := b.s
	if len(body) < 2 {
		return wire.Fatal("08P01", "invalid message format")
	}
	b.finishUnit()
	if body[0] == 'P' && b.portalCommand(cut(body[1:]), b.closes) {
		return nil
	}
	s.closesHere(body)
	b.units = append(b.units, &unit{lead: wire.AppendEmpty(nil, wire.MsgCloseComplete)})
	return nil
}

// place finds the shards of a statement, and what each of them gets.
func (b *batch) place(u *unit) *wire.Error {
	s, p := b.s, u.plan
	s.ahead = ahead{described: s.describedTypes([]byte(u.name))}
	if e := s.unrecalled(p, cut(u.rest)); e != nil {
		return e
	}
	if p.Where == router.Refused {
		return p.Refusal.Error()
	}
	s.notesDrawing(p)
	if c := p.Single; c.Kind == query.KindDiscard && c.Target != "PLANS" && c.Target != "TEMP" {
		s.forgetSequences()
	}
	frames := wire.AppendParse(nil, "", u.rest)
	frames = append(wire.AppendFrame(frames, wire.MsgBind, []byte("\x00\x00"), u.bind), u.tail...)
	if p.Where != router.All && !p.Splits() && !p.MustDraw() {
		shard, err := s.shardOf(p, cut(u.rest), u.rest, u.bind)
		switch {
		case err == nil:
			if shard == router.AnyShard {
				shard = s.cursorShard(p)
			}
			if shard == router.AnyShard {
				shard = max(b.last(), 0)
			}
			u.shards, u.parts = []int{shard}, [][]byte{frames}
			return nil
		case err != errSplit:
			return wire.AsError(err)
		}
	}
	r := allRequest{plan: p, frames: frames, opens: u.opens, limit: u.limit}
	s.values = router.Values{Text: cut(u.rest), Types: appendTypes(nil, u.rest), Described: s.ahead.described}
	s.values.Bind(u.bind)
	if e := s.spreadOver(&r, u.bind, u.tail); e != nil {
		return e
	}
	u.shards, u.parts, u.rows, u.adds, u.moment = r.shards, r.parts, r.rows, r.adds, r.moment
	if u.scatter = r.scatter; u.scatter != nil {
		u.scatter.asks.parse = u.parsed
		return nil
	}
	if u.same = r.parts == nil; u.same {
		u.parts = make([][]byte, len(u.shards))
		for i := range u.parts {
			u.parts[i] = r.frames
		}
	}
	return nil
}

// last returns a shard where the batch is already, -1 for none.
func (b *batch) last() int {
	if n := len(b.units); n > 0 && len(b.units[n-1].shards) > 0 {
		return b.units[n-1].shards[0]
	}
	if b.s.lease != nil {
		return b.s.index
	}
	return -1
}

func appendDescribe(dst []byte, what byte) []byte {
	return wire.AppendFrame(dst, wire.MsgDescribe, []byte{what, 0})
}

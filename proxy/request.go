package proxy

import (
	"bytes"
	"encoding/binary"
	"time"

	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// scanMax bounds how far ahead a request is read to find out whether it only
// reads; a longer one goes to the primary, which is always right.
const scanMax = 64 << 10

// pumpClient consumes client frames as far as they go.
func (s *session) pumpClient() error {
	for range pumpFrames {
		if s.uploadErr != nil {
			return s.uploadErr
		}
		if s.client.Pending() > highWater || s.deaf != nil || s.lease != nil && s.lease.Pending() > highWater {
			return nil
		}
		if s.upload > 0 {
			// Also when much is owed: in the middle of a frame no reply comes.
			if !s.stream() {
				return nil
			}
			continue
		}
		if wait, err := s.repliesFirst(); wait {
			return err
		}
		if s.script != nil {
			if going, err := s.runScript(); err != nil || !going {
				return err
			}
		}
		kind, size, ok, err := s.client.Header(s.db.Policy().MessageMax)
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		if size > smallMax+1 && isSmall(kind) {
			return wire.Fatal("08P01", "invalid message length").
				WithDetail("A message of type %q has %d bytes.", kind, size)
		}
		if kind == wire.MsgCopyData && s.copyIn && s.lease != nil {
			size = s.copyRun()
		}
		going, err := s.request(kind, size)
		if err != nil {
			return err
		}
		s.answerLocal() // if nothing is owed before it
		if !going {
			return nil
		}
	}
	s.steps++
	s.more = true
	return nil
}

// pumpFrames bounds the frames of the client that are dealt with before the
// server is looked at, and other sessions have their turn.
const pumpFrames = 128

// smallMax bounds the frames that hold little more than a name, in bytes; they are
// read whole. PostgreSQL's own limit (PQ_SMALL_MESSAGE_LIMIT), which does not count
// the type.
const smallMax = 10_000

func isSmall(kind byte) bool {
	switch kind {
	case wire.MsgDescribe, wire.MsgExecute, wire.MsgClose, wire.MsgSync, wire.MsgFlush, wire.MsgTerminate,
		wire.MsgCopyDone, wire.MsgCopyFail:
		return true
	}
	return false
}

// owedMax bounds the replies that one client may have owed. It is more than a
// server keeps back in its output buffer (8 KiB, five bytes a reply), so that
// some are always on their way when it is reached.
const owedMax = 8192

// askForReplies makes the server send what it may keep back, once for each time
// that the bound is reached.
func (s *session) askForReplies() error {
	if s.lease != nil && s.upload == 0 && !s.asked {
		s.lease.SetOutput(wire.AppendEmpty(s.lease.Output(), wire.MsgFlush))
		s.asked = true
		s.steps++
	}
	return nil
}

// stream moves on with a frame that is forwarded, or dropped, as it comes.
func (s *session) stream() bool {
	b := s.client.Buffered()
	if len(b) == 0 {
		return false
	}
	b = b[:min(len(b), s.upload)]
	if s.uploadLarge {
		if s.uploadErr = s.lookInto(b); s.uploadErr != nil {
			return false
		}
		s.uploadLarge = len(b) < s.upload
	}
	if !s.uploadVoid && s.lease != nil {
		if err := s.lease.Queue(b); err != nil {
			s.hearOut(err)
		}
	}
	s.upload -= len(b)
	s.client.Discard(len(b))
	s.steps++
	return true
}

// forward sends the next size bytes, which may still be arriving, to the server.
func (s *session) forward(size int) {
	s.uploadVoid = false
	s.upload = size
	s.stream()
}

// drop consumes the next size bytes.
func (s *session) drop(size int) {
	s.uploadVoid = true
	s.upload = size
	s.stream()
}

// request deals with the frame at the head of the buffer; false means that it
// must wait, for more bytes or for replies.
func (s *session) request(kind byte, size int) (bool, error) {
	s.remembers(kind, size)
	switch kind {
	case wire.MsgTerminate:
		if s.lease != nil && !s.copyIn && (s.owed.anyEnds() || s.lease.Pending() > 0) {
			return false, nil // as a server, run first what came before it
		}
		return false, errEnded
	case wire.MsgCopyData, wire.MsgCopyDone, wire.MsgCopyFail:
		return s.copyFrame(kind, size), nil
	case wire.MsgQuery, wire.MsgParse, wire.MsgBind, wire.MsgDescribe, wire.MsgExecute,
		wire.MsgClose, wire.MsgSync, wire.MsgFlush, wire.MsgFunctionCall:
	default:
		return false, s.errNoMessage(kind)
	}
	if s.copyIn {
		if kind == wire.MsgSync {
			// Ignored by a server in copy-in mode; answered if the copy has failed.
			s.forward(size)
			s.owed.push(expect{kind: expectSync, inCopy: true})
			s.syncsInCopy++
			return true, nil
		}
		if kind == wire.MsgFlush {
			s.forward(size)
			return true, nil
		}
		// Either the copy has failed already, or the server ends the session
		// for this breach of the protocol.
		s.copyIn, s.breach = false, true
	}
	if s.skipping {
		s.skip(kind, size)
		return true, nil
	}
	if v, err := s.limited(kind, size); v != goesOn || err != nil {
		return v == isRefused && err == nil, err
	}
	if s.routing != nil {
		return s.routeFrame(kind, size)
	}
	if s.lost {
		return s.lostRequest(kind, size)
	}
	if !s.open {
		return s.begin(kind, size)
	}
	if s.queried && !s.breach && (s.owed.queryDecides() || s.readyOwed || s.settling) {
		return false, nil // as behind a Sync
	}
	return s.send(kind, size)
}

// copyRun measures the run of copy data at the head of the client's buffer. It
// goes on in one piece, as if it were one frame; the last one may still be arriving.
func (s *session) copyRun() (n int) {
	b := s.client.Buffered()
	limit := s.db.Policy().MessageMax
	for len(b)-n >= 5 && b[n] == wire.MsgCopyData {
		size := frameSize(b[n:])
		if size < 5 || size > limit {
			break // it is refused when its turn comes
		}
		n += size
	}
	return n
}

// copyFrame passes copy data on. It may come before the server has asked for
// it, and after a copy has failed; the server tells these cases apart.
func (s *session) copyFrame(kind byte, size int) bool {
	if s.lease == nil || (!s.copyIn && s.owed.empty()) {
		s.drop(size)
		return true
	}
	s.copyUnsure = s.copyUnsure || s.syncsInCopy > 0
	if kind != wire.MsgCopyData {
		if !s.copyIn {
			s.owed.push(expect{kind: expectCopyEnd})
		}
		s.copyIn = false
	}
	s.dataAhead = !s.copyIn && kind == wire.MsgCopyData
	s.forward(size)
	return true
}

// skip drops frames after an error, up to the Sync that ends it.
func (s *session) skip(kind byte, size int) {
	switch {
	case kind == wire.MsgQuery || kind == wire.MsgFunctionCall:
		// A server skips these too: they do not end an extended sequence.
		s.drop(size)
	case kind != wire.MsgSync:
		s.drop(size)
	case s.lease == nil:
		s.skipping = false
		s.drop(size)
		s.answerReady()
	default:
		s.skipping = false
		s.forward(size)
		s.owed.push(expect{kind: expectSync, ask: s.takeAsk()})
		s.open = false
	}
}

// loadingWait is how long a statement waits, after a start, for the tables of the shards
// to be known.
const loadingWait = 5 * time.Second

// begin deals with the first frame of a request: it finds the server for it.
func (s *session) begin(kind byte, size int) (bool, error) {
	if s.waiting.queued {
		got, err := s.resume()
		return s.obtained(kind, size, got, err)
	}
	if s.control.Load()&(controlKill|controlDrain) != 0 && s.tx == 'I' && s.owed.empty() && !s.fresh {
		// Here too, for a busy client may never let the session come to rest.
		return false, errTerminated()
	}
	if done, err := s.peelsClose(kind, size); done || err != nil {
		return done, err
	}
	if s.lease != nil {
		if s.settling {
			return false, nil
		}
		if s.places != nil && s.tx == 'I' && s.pinned == "" && s.mode != ModeSession && !s.fresh && s.settled() {
			return false, nil // what has ended a transaction over several shards: the lease goes back first
		}
		if s.fresh {
			// The request that the lease was taken for.
			going, err := s.send(kind, size)
			s.fresh = !going && !s.open
			return going, err
		}
		if s.replica && (!s.owed.empty() || s.tx == 'I' && s.pinned == "") {
			return false, nil // what follows may need another node
		}
		if s.audit.running || !s.breach && (s.owed.barriers > 0 || s.owed.unnamed > 0 && !s.bringsUnnamed(kind)) {
			return false, nil // after a breach the server itself waits for this frame
		}
		if s.failed && !s.owed.empty() || s.discarded || s.readyOwed {
			return false, nil // what the session has set is known with the end of the last one
		}
		if v, err := s.explains(kind, size); v != goesOn || err != nil {
			return v == isRefused, err
		}
		if s.places != nil {
			if v, err := s.staysHere(kind); v != goesOn || err != nil {
				return v == isRefused, err
			}
			size = frameSize(s.client.Buffered()) // see supply
		} else {
			s.forgetPlans()
		}
		// With a second request under way the first cannot be taken back.
		s.read = false
		s.commitHold()
		return s.send(kind, size)
	}
	switch kind {
	case wire.MsgSync:
		s.drop(size)
		s.answerReady()
		return true, nil
	case wire.MsgFlush:
		s.drop(size)
		return true, nil
	}
	if v, err := s.explains(kind, size); v != goesOn || err != nil {
		return v == isRefused, err
	}
	need, ok := s.scan()
	if !ok {
		return false, nil
	}
	if need.err != nil && router.IsLoading(need.err) {
		if ok, err := s.awaitTables(&need); !ok || err != nil {
			return false, err
		}
	}
	if need.err == errHeld {
		if ok, err := s.awaitSlots(&need); !ok || err != nil {
			return false, err
		}
	}
	if v, err := s.answersKept(&need); v != goesOn || err != nil {
		return v == isRefused, err
	}
	size = frameSize(s.client.Buffered()) // who has looked at it, perhaps again, may have changed it
	if s.answersHere(&need) || s.peelsBegin(&need) {
		return true, nil
	}
	if need.script {
		s.startScript(size)
		return true, nil
	}
	if need.batch && need.err == nil {
		return true, s.runBatch()
	}
	if need.all && need.err == nil {
		return true, s.runAll(kind, size)
	}
	if e := s.refusal(need); e != nil {
		s.refuse(kind, size, e)
		return true, nil
	}
	got, err := s.obtain(need)
	return s.obtained(kind, size, got, err)
}

// obtained is what begin says when the search for a server connection has come so far.
func (s *session) obtained(kind byte, size int, got bool, err error) (bool, error) {
	switch {
	case got:
		s.steps++
		return true, nil
	case err == nil:
		return false, nil // queued
	}
	e := wire.AsError(err)
	if e.IsFatal() || err == errEnded {
		return false, err
	}
	s.refuse(kind, size, e)
	return true, nil
}

// bringsUnnamed reports whether the frame opens a request that cannot mean the
// unnamed statement of one before it.
func (s *session) bringsUnnamed(kind byte) bool {
	b := s.client.Buffered()
	return kind == wire.MsgQuery || kind == wire.MsgSync || kind == wire.MsgParse && len(b) > 5 && b[5] == 0
}

// refuse answers a request that got no server with an error.
func (s *session) refuse(kind byte, size int, e *wire.Error) {
	s.tellsError(e)
	s.tallyRefused()
	if s.db.countRefusal(e) {
		s.noteAsk(nil, scopeRefused)
	}
	s.endHold()
	s.forgetPlans()
	s.noReplica, s.exclude = false, 0
	s.abort()
	s.scriptFails()
	s.client.SetOutput(e.Append(s.client.Output()))
	s.steps++
	if kind == wire.MsgQuery || kind == wire.MsgFunctionCall {
		s.drop(size)
		s.answerReady()
		return
	}
	s.skipping = true
}

func (s *session) answerReady() {
	s.endVictim(s.lease)
	s.tellsEnd()
	if s.script != nil {
		s.commandDone()
		return
	}
	s.askEnds(s.takeAsk())
	s.tellTakenBack()
	s.client.SetOutput(wire.AppendReadyForQuery(s.client.Output(), s.tx))
	s.steps++
}

// need is what a request asks of a node.
type need struct {
	read     bool // proven to read only: any fresh node, and it may be tried again
	readOnly bool // begins a read-only transaction
	replica  bool // the client insists on a replica
	primary  bool // the client insists on the primary
	opaque   bool
	shard    int         // the place of the shard, router.AnyShard
	bound    int         // how many statements were placed
	all      bool        // it runs on all shards
	batch    bool        // its statements lie on several shards
	odd      bool        // it has more than what runs one statement
	pieces   bool        // it reads a piece of a query over several shards
	script   bool        // a text whose commands run one by one
	err      *wire.Error // why it is not sent anywhere
}

// scanned is scan when the texts are as they are to be.
func (s *session) scanned() (n need, ok bool) {
	buf := s.client.Buffered()
	n.shard, s.ahead = router.AnyShard, ahead{}
	var unnamed *router.Plan
	var portals [][]byte // with a name, bound by the request
	unnamedBound := false
	intent, bound, parsed, executed, scatters := true, 0, 0, 0, false
	var parsedName, boundName []byte
	for off := 0; ; {
		if off > scanMax {
			if s.places != nil && buf[0] != wire.MsgQuery && buf[0] != wire.MsgFunctionCall {
				n.batch = true // where what follows lies is seen when it comes
				return n, true
			}
			return s.unread(n), true
		}
		if off > len(buf) {
			return need{}, false
		}
		rest := buf[off:]
		if len(rest) < 5 {
			return need{}, false
		}
		kind, size := rest[0], int(binary.BigEndian.Uint32(rest[1:]))+1
		body := rest[5:min(len(rest), max(size, 5))]
		whole := len(rest) >= size
		switch kind {
		case wire.MsgQuery:
			if off > 0 || size > s.db.Policy().ParsedMax {
				return s.unread(n), true
			}
			if !whole {
				return need{}, false
			}
			p := s.planInto(trimNUL(body))
			s.runs(p)
			n := s.needOf(p)
			s.locate(&n, p, trimNUL(body), nil, nil)
			s.blockedAhead(&n, p)
			s.queriesAhead(&n, p)
			n.script = s.needsScript(&n, p)
			return n, true
		case wire.MsgParse:
			if size > s.db.Policy().ParsedMax || off > 0 && off+size > scanMax {
				return s.unread(n), true
			}
			if !whole {
				return need{}, false
			}
			nm, text, good := wire.CString(body)
			if !good {
				return s.unread(n), true
			}
			p := s.planInto(cut(text))
			n.pieces = n.pieces || s.names(p)
			parsed, parsedName = parsed+1, nm
			s.parsed(&n, p, nm, text)
			n.primary = n.primary || s.routeFor(p) == query.RoutePrimary
			if len(nm) == 0 {
				unnamed = p
			}
			intent = intent && p.Intent == router.Read
		case wire.MsgBind:
			portal, after, good := wire.CString(body)
			var nm []byte
			if good {
				nm, _, good = wire.CString(after)
			}
			if s.needsValues(off) || good && size > scanMax && size <= batchFrameMax && s.places != nil {
				n.batch = true // where it lies is seen when all of it has come
				return n, true
			}
			if !good || size > scanMax {
				if whole || size > scanMax {
					return s.unread(n), true
				}
				return need{}, false
			}
			p := s.planOf(nm, unnamed, s.ahead.named)
			bound, boundName = bound+1, nm
			if unnamedBound = unnamedBound || len(portal) == 0; len(portal) > 0 {
				portals = append(portals, portal)
			}
			s.runs(p)
			s.bindsTo(&n, p, nm, after)
			if bound == 1 {
				s.blockedAhead(&n, p)
			}
			scatters = s.bindsAhead(&n, p, portal) || scatters
			if p == nil {
				intent, n.replica = false, false
			} else {
				if bound == 1 && parsed <= 1 && s.beginsReadOnly(p) {
					n.readOnly = true
				}
				n.replica = s.wantsReplica(p) && (n.replica || bound == 1)
				n.primary = n.primary || s.routeFor(p) == query.RoutePrimary
				intent = intent && p.Intent == router.Read
			}
		case wire.MsgExecute:
			intent, executed = intent && bound > 0, executed+1
			s.executesAhead(&n, body, scatters, portals, unnamedBound)
		case wire.MsgDescribe, wire.MsgClose:
			if kind == wire.MsgClose && len(body) > 1 && body[0] == 'S' && len(cut(body[1:])) > 0 {
				s.ahead.names(aheadText{name: cut(body[1:])})
			}
			n.pieces = n.pieces || kind == wire.MsgDescribe && s.describesAhead(body, portals, unnamedBound)
			n.odd = n.odd || kind == wire.MsgClose || len(body) == 0 || body[0] != 'P'
		case wire.MsgSync:
			n.batch = n.batch || n.pieces || scatters && executed != 1 || n.all && (n.odd || parsed > 0 && (parsed > 1 || !bytes.Equal(parsedName, boundName)))
			n.read = intent && (bound > 0 || parsed > 0)
			n.readOnly = n.readOnly && bound == 1
			return n, true
		default:
			if kind == wire.MsgFlush && s.places != nil && parsed+bound > 0 {
				n.batch = true // what follows may be for another shard
				return n, true
			}
			return s.unread(n), true
		}
		off += size
	}
}

// planOf finds what a Bind refers to.
// The latest of what the request itself has named counts.
func (s *session) planOf(name []byte, unnamed *router.Plan, named []aheadText) *router.Plan {
	if len(name) == 0 {
		if unnamed != nil {
			return unnamed
		}
		if s.unnamedTok != 0 && !s.unnamedLarge && !s.unnamedOther {
			s.unnamedAs = s.plan(cut(s.unnamed))
		}
		return s.unnamedAs
	}
	if at := latest(named, name); at != nil {
		return at.plan
	}
	if st := s.statements[string(name)]; st != nil {
		return s.replan(st)
	}
	return nil
}

// replan looks a prepared statement up again: the catalog, or the search_path,
// may have changed since it was parsed.
func (s *session) replan(st *preparedStatement) *router.Plan {
	if !st.substituted && st.shared != nil {
		st.plan = s.plan(st.shared.Text())
	} else {
		s.writesBy(st.plan)
	}
	return st.plan
}

// needOf says what one simple query asks for.
func (s *session) needOf(p *router.Plan) need {
	return need{shard: router.AnyShard, read: p.Intent == router.Read, readOnly: s.beginsReadOnly(p), replica: s.wantsReplica(p),
		primary: s.routeFor(p) == query.RoutePrimary}
}

// wantsReplica reports whether the client itself vouches for a replica: by
// hint or setting, for a statement that at least does not write by its form.
func (s *session) wantsReplica(p *router.Plan) bool {
	r := s.routeFor(p)
	return r == query.RouteReplica && (p.Intent == router.Read || (p.Single != nil && p.Single.Reads) || s.beginsReadOnly(p))
}

func (s *session) routeFor(p *router.Plan) query.Route {
	if p.Statement != nil && p.Statement.Hint != query.RouteUnset {
		return p.Statement.Hint
	}
	return s.route
}

// beginsReadOnly reports whether the plan is one BEGIN of a transaction that a
// hot standby can run.
func (s *session) beginsReadOnly(p *router.Plan) bool {
	c := p.Single
	if c == nil || c.Kind != query.KindBegin || !c.Tx.ReadOnly {
		return false
	}
	return c.Tx.Isolation != "serializable" && (c.Tx.Isolation != "" || !s.serializable)
}

// planned is plan whatever is blocked.
func (s *session) planned(text []byte) *router.Plan {
	ctx := s.planContext()
	if s.alteredAhead || s.owed.altering > 0 {
		ctx = router.Context{SearchPath: router.UnknownPath, NonStandardStrings: true, UnsafeEncoding: true, HiddenSlots: ctx.HiddenSlots}
	}
	if len(text) < router.LongText {
		return s.db.Planner.Plan(text, ctx)
	}
	if p := s.db.Planner.Cached(text, ctx); p != nil {
		return p
	}
	return s.planAside(text, ctx)
}

func (s *session) planAside(text []byte, ctx router.Context) (p *router.Plan) {
	s.task.aside(func() { p = s.db.Planner.Plan(text, ctx) })
	return p
}

// boundBefore returns the plan of a portal that an earlier request bound, nil when none is known.
func (s *session) boundBefore(portal []byte) *router.Plan {
	if len(portal) == 0 {
		return s.portal
	}
	return s.portals[string(portal)]
}

// runs notes that the request runs a statement; p is nil when it is not known.
func (s *session) runs(p *router.Plan) {
	if t := &s.tallying; p != nil {
		t.next = p.Tally
		t.plans++
	}
	if s.places != nil && p != nil {
		s.executes = append(s.executes, p)
	}
}

// planInto plans a text of the request that is looked ahead at. What it alters
// holds for those behind it.
func (s *session) planInto(text []byte) *router.Plan {
	p := s.plan(text)
	s.seesParent(text)
	s.segment = append(s.segment, p)
	s.alteredAhead = s.alteredAhead || p.Effects&altersMeaning != 0
	return p
}

// forgetPlans drops what scan has planned and no frame has used.
func (s *session) forgetPlans() {
	s.segment, s.executes, s.segmentRead, s.alteredAhead = s.segment[:0], s.executes[:0], 0, false
	s.tallying.next, s.tallying.plans = nil, 0
}

// planAhead returns the plan that scan made for the text, or makes it. The
// caller counts it in segmentRead once the text goes out.
func (s *session) planAhead(text []byte) *router.Plan {
	if s.segmentRead < len(s.segment) {
		return s.segment[s.segmentRead]
	}
	s.seesParent(text)
	return s.plan(text)
}

func trimNUL(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == 0 {
		return b[:n-1]
	}
	return b
}

// cut returns b up to its first NUL.
func cut(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

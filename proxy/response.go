package proxy

import (
	"errors"
	"strings"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/wire"
)

// serverFrameMax bounds the server frames that must be read whole; rows and
// copy data are relayed as they come, whatever their size.
const serverFrameMax = 64 << 20

// pumpServer relays what the server has sent, looking only at what changes state.
func (s *session) pumpServer() error {
	for s.lease != nil {
		if s.client.Pending() > highWater {
			return nil
		}
		n, rest, more := s.plainFrames()
		if n > 0 {
			ended := s.download > 0 && s.download <= n
			s.deliver(n)
			s.gives(n)
			s.download, s.swallowing = rest, false
			if ended && rest == 0 {
				s.answerLocal() // what waited behind that frame
			}
			continue
		}
		if s.download > 0 {
			if !s.relayRest() {
				return nil
			}
			continue
		}
		if !more {
			return nil
		}
		going, err := s.reply()
		if err != nil || !going {
			return err
		}
	}
	return nil
}

// relayRest moves on with a server frame that is relayed as it comes.
func (s *session) relayRest() bool {
	b := s.lease.Buffered()
	if len(b) == 0 {
		return false
	}
	b = b[:min(len(b), s.download)]
	if !s.swallowing {
		// A failed write shows again at the next flush.
		_ = s.client.Queue(b)
		s.gives(len(b))
	}
	s.download -= len(b)
	s.lease.Discard(len(b))
	s.steps++
	if s.download == 0 {
		s.answerLocal() // what waited behind this frame
	}
	return true
}

// plainFrames measures the run at the head of the server's buffer that is relayed
// without a look, in one piece: what is left of a frame that is being relayed,
// rows and copy data. Of the last frame rest bytes are still to come. more tells
// whether another frame's header follows.
func (s *session) plainFrames() (n, rest int, more bool) {
	b := s.lease.Buffered()
	front := s.owed.front()
	if front == nil || front.mode != relay || s.result.cut || s.download > 0 && s.swallowing || s.download == 0 && front.above != "" {
		return 0, 0, len(b) >= 5
	}
	for n = s.download; n <= len(b); {
		if len(b)-n < 5 {
			return n, 0, false
		}
		kind, size := b[n], frameSize(b[n:])
		if kind != wire.MsgDataRow && kind != wire.MsgCopyData || size < 5 || !front.hasRows() {
			return n, 0, true
		}
		n += size
	}
	return len(b), n - len(b), false
}

func frameSize(b []byte) int {
	return int(uint32(b[1])<<24|uint32(b[2])<<16|uint32(b[3])<<8|uint32(b[4])) + 1
}

// deliver relays the next n bytes of whole frames to the client.
func (s *session) deliver(n int) {
	s.commitHold()
	_ = s.client.Queue(s.lease.Buffered()[:n]) // a failed write shows again at the next flush
	s.lease.Discard(n)
	s.steps++
}

// commitHold gives up the possibility to try the request again: the client is
// about to see a byte of the answer.
func (s *session) commitHold() {
	if !s.delivered {
		s.delivered = true
		s.endHold()
	}
}

// endHold gives up the request's bytes; the client gets what was kept back.
func (s *session) endHold() {
	s.held = false
	s.client.Release()
	if len(s.answerHead) > 0 {
		s.client.SetOutput(append(s.client.Output(), s.answerHead...))
		s.answerHead = s.answerHead[:0]
	}
}

// answerHeadMax bounds what is kept back of an answer.
const answerHeadMax = 32 << 10

// keepBack takes a whole frame that begins the answer of a held read: servers
// send these together with the error of a statement that fails before its first
// row, and then the client need not see them.
func (s *session) keepBack(kind byte, size int) bool {
	if !s.read || !s.held || len(s.answerHead)+size > answerHeadMax {
		return false
	}
	switch kind {
	case wire.MsgParseComplete, wire.MsgBindComplete, wire.MsgRowDescription, wire.MsgParameterDescription, wire.MsgNoData:
		s.answerHead = append(s.answerHead, s.lease.Buffered()[:size]...)
		s.lease.Discard(size)
		s.steps++
		return true
	}
	return false
}

// reply deals with one server frame that changes state.
func (s *session) reply() (bool, error) {
	b := s.lease.Buffered()
	kind, size := b[0], frameSize(b)
	if size < 5 {
		return false, s.outOfStep("frame of impossible length")
	}
	switch kind {
	case wire.MsgDataRow, wire.MsgCopyData, wire.MsgRowDescription, wire.MsgFunctionCallResponse,
		wire.MsgParameterDescription:
		return s.relayStreamed(kind, size)
	}
	if size > serverFrameMax {
		return false, s.outOfStep("frame too large")
	}
	if len(b) < size {
		return s.fillReply(size)
	}
	body := b[5:size]
	switch kind {
	case wire.MsgReadyForQuery:
		return true, s.ready(body, size)
	case wire.MsgErrorResponse:
		return true, s.serverError(body, size)
	case wire.MsgNoticeResponse, wire.MsgNotificationResponse:
		s.aside(kind, size)
		return true, nil
	case wire.MsgParameterStatus:
		if s.learning != nil && (size > learnedBytes || len(s.learning) >= learnedMax) {
			return false, s.outOfStep("too many parameters")
		}
		s.aside(kind, size)
		return true, nil
	}
	front := s.owed.front()
	if front == nil {
		return false, s.outOfStep("reply that nobody asked for")
	}
	if front.kind == expectQuery {
		return true, s.queryReply(front, kind, body, size)
	}
	return true, s.extendedReply(front, kind, body, size)
}

// fillReply asks for the rest of a frame that is read whole.
func (s *session) fillReply(size int) (bool, error) {
	err := s.lease.Fill(size)
	if err == nil {
		s.steps++
		return true, nil
	}
	if errors.Is(err, wire.ErrWouldBlock) {
		return false, nil
	}
	return false, s.serverLost(err)
}

// relayStreamed begins a frame whose body is relayed, or swallowed, as it comes.
func (s *session) relayStreamed(kind byte, size int) (bool, error) {
	front := s.owed.front()
	if front == nil {
		return false, s.outOfStep("reply that nobody asked for")
	}
	if !front.streams(kind) {
		return false, s.outOfStep("reply out of order")
	}
	if kind == wire.MsgDataRow && front.above != "" {
		s.sayAbove(front)
	}
	if s.audit.running && front.purpose == forAudit && kind == wire.MsgDataRow {
		if size > serverFrameMax {
			return false, s.outOfStep("frame too large")
		}
		b := s.lease.Buffered()
		if len(b) < size {
			return s.fillReply(size)
		}
		s.audit.row = append(s.audit.row[:0], b[5:size]...)
	}
	if kind == wire.MsgRowDescription && front.shape != nil && size <= shapeMax {
		b := s.lease.Buffered()
		if len(b) < size {
			return s.fillReply(size)
		}
		s.described(front, b[5:size])
	}
	if kind == wire.MsgParameterDescription && front.shape != nil && s.places != nil && size <= shapeMax {
		b := s.lease.Buffered()
		if len(b) < size {
			return s.fillReply(size)
		}
		front.shape.takesParams(b[5:size], front.token)
	}
	if kind == wire.MsgParameterDescription && front.supplied > 0 {
		b := s.lease.Buffered()
		if len(b) < size {
			return s.fillReply(size)
		}
		now := len(withoutSupplied(b[:size], int(front.supplied)))
		s.lease.Discard(size - now)
		size = now
	}
	s.swallowing = front.mode == swallow || s.result.cut
	whole := len(s.lease.Buffered()) >= size
	if kind == wire.MsgRowDescription && front.kind == expectDescribe {
		s.owed.pop()
	}
	if !s.swallowing {
		if whole && s.keepBack(kind, size) {
			s.answerLocal()
			return true, nil
		}
		s.commitHold()
	}
	s.download = size
	s.relayRest()
	return true, nil
}

// passUncut is pass for what ends a result, which is swallowed when that was cut.
func (s *session) passUncut(mode expectMode, size int) {
	if s.result.cut {
		mode = swallow
	}
	s.pass(mode, size)
}

// pass relays or swallows one whole frame.
func (s *session) pass(mode expectMode, size int) {
	if mode == swallow {
		s.lease.Discard(size)
		s.steps++
		return
	}
	s.deliver(size)
}

// aside deals with notices, notifications and parameter changes, which may
// come at any moment.
func (s *session) aside(kind byte, size int) {
	front := s.owed.front()
	switch {
	case kind == wire.MsgNotificationResponse:
		// The client's whenever it comes, also before the end of a query of ours.
		s.pass(relay, size)
	case front != nil && front.mode == swallow:
		s.learn(kind, size)
		if s.tellParams && kind == wire.MsgParameterStatus && front.purpose == forSettings {
			s.wasTold(s.lease.Buffered()[:size])
			s.pass(relay, size)
			return
		}
		// Ours: the client did not ask for it. What changed by applying its
		// settings it knows already.
		s.pass(swallow, size)
	case kind == wire.MsgParameterStatus && s.discardsOwn(front, size):
		s.pass(swallow, size)
	case kind == wire.MsgParameterStatus:
		s.noteTold(size)
		if s.script != nil {
			s.script.reported(s.lease.Buffered()[:size])
			s.pass(swallow, size)
			return
		}
		s.wasTold(s.lease.Buffered()[:size])
		s.pass(relay, size)
	default:
		// A notice kept back would be lost; relayed, it ends the chance to try
		// the request again.
		s.pass(relay, size)
	}
}

// queryReply deals with the replies to a simple query.
func (s *session) queryReply(front *expect, kind byte, body []byte, size int) error {
	switch kind {
	case wire.MsgCommandComplete:
		s.copyEnded()
		if s.result.cut {
			return s.cutEnds(front, size)
		}
		if front.mode == relay {
			s.resultEnds()
			tag := front.replacedBy(front.done)
			s.completed(front, cut(body))
			if tag == "" && s.script != nil {
				tag = s.script.tagOf(cut(body))
			}
			if tag != "" {
				s.lease.Discard(size)
				s.sayComplete(tag)
				if front.spliced == nil && front.plan.Single.Kind == query.KindDeallocate {
					s.deallocated(front.plan.Single.Target)
				}
				return nil
			}
		}
	case wire.MsgCopyInResponse, wire.MsgCopyBothResponse:
		s.enterCopy()
	case wire.MsgEmptyQueryResponse, wire.MsgCopyOutResponse, wire.MsgCopyDone:
	default:
		return s.outOfStep("unexpected reply to a query")
	}
	s.passUncut(front.mode, size)
	return nil
}

// extendedReply deals with the replies to the extended protocol's messages.
func (s *session) extendedReply(front *expect, kind byte, body []byte, size int) error {
	ok := false
	switch front.kind {
	case expectParse:
		ok = kind == wire.MsgParseComplete
		if ok && front.tag != "" {
			s.lease.Discard(size)
			s.sayComplete(front.tag)
			s.pop()
			s.answerLocal()
			return nil
		}
	case expectBind:
		ok = kind == wire.MsgBindComplete
	case expectClose:
		ok = kind == wire.MsgCloseComplete
		if ok && front.prev != nil {
			s.release(front.prev)
		}
	case expectDescribe:
		if ok = kind == wire.MsgNoData; ok {
			s.described(front, nil)
		}
	case expectExecute:
		if s.result.cut && (kind == wire.MsgCommandComplete || kind == wire.MsgPortalSuspended) {
			return s.cutEnds(front, size)
		}
		switch kind {
		case wire.MsgCopyOutResponse, wire.MsgCopyDone:
			s.passUncut(front.mode, size)
			return nil
		case wire.MsgCopyInResponse, wire.MsgCopyBothResponse:
			// A Sync sent ahead is ignored by the server; the one that ends this
			// request comes after the data.
			if s.enterCopy(); s.copyIn {
				s.open = true
			}
			s.pass(front.mode, size)
			return nil
		case wire.MsgCommandComplete:
			s.copyEnded()
			if front.mode == relay {
				s.resultEnds()
				s.completed(front, cut(body))
				tag := front.tag
				if s.deallocatesOwn(front) {
					s.deallocated(front.plan.Single.Target)
					tag = "DEALLOCATE"
				}
				if tag != "" {
					s.lease.Discard(size)
					s.sayComplete(tag)
					s.popExecute()
					s.answerLocal()
					return nil
				}
			} else if front.purpose == forPrivate {
				s.forgotten()
			}
			ok = true
		case wire.MsgEmptyQueryResponse, wire.MsgPortalSuspended:
			s.resultEnds()
			ok, s.tallying.rows = true, front.rowsBy(kind)
		}
	}
	if !ok {
		return s.outOfStep("reply out of order")
	}
	mode := front.mode
	if front.statement != nil {
		s.commitHold() // sent again, it would exist already
	}
	e := s.pop()
	if mode != relay || !s.keepBack(kind, size) {
		s.pass(mode, size)
	}
	s.tallyReply(&e)
	s.answerLocal()
	return nil
}

// pop takes the entry whose reply has come and notes what it may have done.
func (s *session) pop() expect {
	e := s.owed.pop()
	s.acted = s.acted || e.acts()
	s.noteWrite(&e)
	return e
}

// noteWrite notes whether the request may have written. Nothing does on a replica.
func (s *session) noteWrite(e *expect) {
	s.wrote = s.wrote || !s.replica && e.writes()
}

// sayComplete tells the client that its command is complete.
func (s *session) sayComplete(tag string) {
	s.commitHold()
	s.steps++
	if s.script != nil && s.script.closing() {
		s.script.complete = wire.AppendCommandComplete(nil, tag)
		return
	}
	s.client.SetOutput(wire.AppendCommandComplete(s.client.Output(), tag))
}

// enterCopy notes that the server awaits copy data, or has it already.
func (s *session) enterCopy() {
	ended, kept := s.owed.enterCopy()
	s.copyIn = !ended
	if kept > 0 {
		s.syncsInCopy += kept
		s.copyUnsure = true
	}
}

// copyEnded forgets the Syncs sent during a copy that has succeeded.
func (s *session) copyEnded() {
	if s.syncsInCopy > 0 {
		s.owed.dropInCopy()
		s.syncsInCopy, s.copyUnsure = 0, false
	}
}

// answerLocal answers the requests at the head of the queue that never went to
// the server.
func (s *session) answerLocal() {
	for {
		e := s.owed.front()
		if e != nil && e.kind == expectCopyEnd {
			s.owed.pop()
			continue
		}
		if e == nil || e.mode != local {
			return
		}
		s.commitHold() // first, for it writes what was kept back
		out := s.client.Output()
		switch e.kind {
		case expectParse:
			if e.tag != "" {
				out = wire.AppendCommandComplete(out, e.tag)
			} else {
				out = wire.AppendEmpty(out, wire.MsgParseComplete)
			}
		case expectClose:
			out = wire.AppendEmpty(out, wire.MsgCloseComplete)
			if e.prev != nil {
				s.release(e.prev)
			}
		}
		s.client.SetOutput(out)
		s.steps++
		s.owed.pop()
	}
}

// ready deals with ReadyForQuery.
func (s *session) ready(body []byte, size int) error {
	front := s.owed.front()
	if front == nil || !front.ends() {
		return s.outOfStep("ReadyForQuery out of order")
	}
	if len(body) != 1 || body[0] != 'I' && body[0] != 'T' && body[0] != 'E' {
		return s.outOfStep("ReadyForQuery of unknown status")
	}
	e := s.pop()
	status, gone := body[0], s.result.fails
	if gone {
		s.lease.Discard(size)
		s.steps++
		var err error
		if status, err = s.cutFails(status); err != nil {
			return err
		}
	}
	s.discarded = false
	s.identityGoes = s.identityGoes && e.mode != relay
	s.copyIn, s.breach = false, false
	if phase(s.phase.Load()) == phaseActive {
		s.since.Store(s.server.clock.Load()) // what follows has its own time
	}
	s.wholeDateStyle()
	if !s.enlisting || e.purpose == forBegin {
		s.transaction(status)
	}
	if e.mode == relay {
		s.tellsEnd()
	}
	if e.mode == relay && s.tx == 'I' {
		s.tellOfRole()
		if s.tellParams {
			// What DISCARD ALL took away of the start-up packet is there again, and
			// told, before the command is over.
			if err := s.applySettings(); err != nil || s.settling {
				s.lease.Discard(size)
				s.steps++
				s.readyOwed = true
				return err
			}
		}
	}
	switch {
	case gone && s.script == nil:
		s.client.SetOutput(wire.AppendReadyForQuery(s.client.Output(), status))
	case e.mode == relay && s.script != nil:
		if !gone {
			s.lease.Discard(size)
		}
		s.commandDone()
	default:
		s.pass(e.mode, size)
	}
	s.tallyReply(&e)
	if e.mode == relay {
		s.endVictim(nil)
		if s.script == nil {
			s.askEnds(e.ask)
		}
	}
	switch e.purpose {
	case forSettings:
		if err := s.settingsApplied(); err != nil {
			return err
		}
	case forReset:
		if s.owed.empty() {
			s.settling = false // nothing else is set
		}
	case forAudit:
		return s.auditDone()
	case forRetry:
		s.tryAgain()
	case forBegin:
		s.enlisting = false
		if s.tx != 'T' {
			// What was sent behind it runs outside of a transaction.
			return wire.Fatal("08006", "the transaction could not be begun")
		}
	}
	s.answerLocal()
	return nil
}

// transaction notes the status of the transaction after a statement.
func (s *session) transaction(status byte) {
	if s.setsSequences {
		s.db.Draws.Forget()
		s.setsSequences = status != 'I'
	}
	if status == 'I' {
		if !s.spreads() {
			s.spread = nil
		}
		s.txMark.Store(0)
		if s.failed {
			s.rolledBack() // also by a COMMIT that failed
		}
		if s.tx != 'I' || s.acted {
			s.db.stats.transactions.Add(1)
		}
		s.acted = false
		if s.wrote {
			s.mark = s.shard.Nodes.Mark()
			s.wrote = false
		}
		s.spreadDDL()
		s.committed()
		clear(s.portals)
		s.closesAll()
	}
	s.failed = false
	s.tx = status
}

// spreadDDL tells of the DDL of a transaction, now that others see what it did.
func (s *session) spreadDDL() {
	if !s.catalogChanged {
		s.newsSent = false
		return
	}
	if s.catalogMade {
		s.db.SchemaChanged()
	}
	if s.places != nil && s.db.Announce != nil && !s.newsSent {
		s.db.Announce()
	}
	switch {
	case s.places != nil && s.db.Refreshed != nil:
		s.task.aside(s.db.Refreshed)
	case s.db.Refresh != nil:
		s.db.Refresh()
	}
	s.catalogChanged, s.catalogMade, s.newsSent = false, false, false
}

// outOfStep ends a session whose server said something that has no place in
// the protocol: what it would say next cannot be trusted to be this client's.
func (s *session) outOfStep(what string) error {
	s.server.opt.Logger.Error("server out of step", "session", s.id, "node", s.lease.Address(), "reason", what)
	s.giveBack(pool.Dead)
	return wire.Fatal("08P01", "lost synchronization with the server").WithDetail("%s", what)
}

// isEndOfServer reports that an error is the last word of its connection.
func isEndOfServer(e *wire.Error) bool {
	return e.Severity == "FATAL" || e.Severity == "PANIC"
}

// isReplicaFault reports whether an error of a read may come from the replica
// being a replica (recovery conflicts, what needs a primary, its failing) and
// not from the statement.
func isReplicaFault(e *wire.Error) bool {
	switch e.Code {
	case "25006", "40001", "40P01", "0A000", "55000", "58000", "58030", "XX000", "XX001", "XX002", "53100", "53200":
		return true
	}
	return strings.HasPrefix(e.Code, "57P") || strings.HasPrefix(e.Code, "08")
}

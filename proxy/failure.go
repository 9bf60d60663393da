package proxy

import (
	"bytes"
	"errors"
	"time"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// serverError deals with an ErrorResponse.
func (s *session) serverError(body []byte, size int) error {
	e := wire.ReadError(body)
	if isEndOfServer(e) {
		if e.Code == "08P01" {
			// The client broke the protocol; PostgreSQL ends its session too.
			s.giveBack(pool.Dead)
			return e
		}
		return s.serverLost(e)
	}
	front := s.owed.front()
	if front == nil {
		return s.outOfStep("error that nobody asked for")
	}
	if front.purpose == forSequences && e.Code != "25P02" || front.purpose == forOwn && front.kind != expectQuery && !s.aheadOfSync() {
		// What the client asks behind it would be answered from another's values,
		// or not at all.
		s.giveBack(pool.Dead)
		e.Severity = "FATAL"
		return e
	}
	if front.mode == swallow && s.internalError(front, e) {
		s.lease.Discard(size)
		s.steps++
		return nil
	}
	if s.mayRetry(e) {
		s.lease.Discard(size)
		s.retry(e)
		return nil
	}
	if s.syncsInCopy > 0 {
		if s.copyUnsure {
			return s.outOfStep("Sync in the middle of copy data that failed")
		}
		// Nothing was sent behind it: it comes after the failure and is answered.
		s.syncsInCopy, s.open = 0, false
	}
	s.copyIn = false
	s.failed, s.breach = true, false
	s.tellsError(s.relayError(e, body, size))
	s.tallyError(front)
	if front.kind == expectQuery || front.kind == expectFunction {
		return nil // ReadyForQuery follows
	}
	if !s.owed.failSegment(s.undo) {
		s.skipping = true
		s.forgetPlans()
	}
	return nil
}

// errQueryTimeout is what is told of a statement that was cancelled for its time.
func errQueryTimeout() *wire.Error {
	return wire.Errorf("57014", "canceling statement due to query timeout").
		WithDetail("The statement ran longer than the proxy's timeouts.query.")
}

// relayError passes an error on, in our words where the cause is ours. It returns what the client is told.
func (s *session) relayError(e *wire.Error, body []byte, size int) *wire.Error {
	s.commitHold()
	s.scriptFails()
	s.notesSick(s.index, s.lease, e)
	was := s.result.cut
	s.resultEnds()
	if e.Code == "57014" && was {
		own := errResult(s.resultMax)
		s.client.SetOutput(own.Append(s.client.Output()))
		s.lease.Discard(size)
		s.steps++
		return own
	}
	if e.Code == "57014" && s.timedOut {
		s.timedOut = false
		own := errQueryTimeout()
		s.client.SetOutput(own.Append(s.client.Output()))
		s.lease.Discard(size)
		s.steps++
		return own
	}
	if own := s.deadlocked(e); own != nil {
		s.client.SetOutput(own.Append(s.client.Output()))
		s.lease.Discard(size)
		s.steps++
		return own
	}
	if f := s.owed.front(); f != nil && f.instead != nil {
		if s.db.countRefusal(f.instead) {
			s.refusesAsk()
		}
		s.client.SetOutput(f.instead.Append(s.client.Output()))
		s.lease.Discard(size)
		s.steps++
		return f.instead
	}
	if e.Code == "0A000" && wire.Field(body, 'R') == "RevalidateCachedQuery" {
		s.db.SchemaChanged() // by somebody else
	}
	shifted := false
	if f := s.owed.front(); f != nil && (f.shift != 0 || f.spliced != nil) {
		body, shifted = s.clientPosition(body, f), true
	}
	if s.script != nil {
		body, shifted = s.script.position(body), true
	}
	if shifted || bytes.Contains(body, []byte(pool.NamePrefix)) {
		s.client.SetOutput(wire.AppendFrame(s.client.Output(), wire.MsgErrorResponse, s.clientNames(body)))
		s.lease.Discard(size)
		s.steps++
		return e
	}
	s.deliver(size)
	return e
}

// renamedMax bounds the errors that are searched for names, in bytes. What a server
// has to say of a statement is short; what a client has it say may be made of names.
const renamedMax = 16 << 10

// clientNames puts the client's names of its statements in place of the servers'.
func (s *session) clientNames(body []byte) []byte {
	put := func(st *preparedStatement, name string) {
		if st != nil && st.shared != nil && len(body) <= renamedMax {
			body = bytes.ReplaceAll(body, []byte(`"`+st.shared.Name+`"`), []byte(`"`+name+`"`))
		}
	}
	if f := s.owed.front(); f != nil && f.about != nil {
		put(f.about, f.about.name)
	}
	for name, st := range s.statements {
		put(st, name)
	}
	for i := s.owed.head; i < len(s.owed.items); i++ {
		put(s.owed.items[i].prev, s.owed.items[i].name)
	}
	return body
}

// internalError notes the failure of a query of ours; false when the client
// must be told after all.
func (s *session) internalError(front *expect, e *wire.Error) bool {
	switch {
	case front.purpose == forSettings || front.purpose == forReset:
		s.settingsErr = e
		return true
	case front.purpose == forSequences:
		s.lease.Sequences = mixedSequences // in a failed transaction nothing is discarded
		return true
	case front.purpose == forOwn && s.aheadOfSync():
		s.owed.failSegment(s.undo)
		return true
	case front.purpose == forOwn && front.kind == expectQuery, front.purpose == forBegin:
		return true
	case front.purpose == forMark:
		if s.spread != nil {
			s.spread.markErr = e
		}
		return true
	case front.purpose == forAudit:
		s.audit.err = e
		return true
	case front.kind == expectParse && s.aheadOfSync():
		// The EXECUTE behind it, whose statement there is not then, tells the client.
		s.owed.failSegment(s.undo)
		s.owed.failsWith(e)
		return true
	}
	return false
}

// aheadOfSync reports whether a Sync of ours ends what the front entry belongs to.
func (s *session) aheadOfSync() bool {
	for i := s.owed.head; i < len(s.owed.items); i++ {
		if e := &s.owed.items[i]; e.ends() {
			return e.kind == expectSync && e.mode == swallow
		}
	}
	return false
}

// mayRetry reports whether the request can be tried on another node without
// the client seeing it: nothing of an answer was delivered, and the error says
// that the node, not the statement, was at fault.
func (s *session) mayRetry(e *wire.Error) bool {
	if s.delivered || s.tx != 'I' || s.cancelled || !s.held {
		return false
	}
	if s.replica {
		return s.read && isReplicaFault(e)
	}
	// The primary was demoted under us; nothing was executed.
	return e.Code == "25006" && s.undoneByError() && s.roleMayHaveChanged()
}

// undoneByError reports whether an error takes back all that the request did:
// code that may commit on its own must not run twice.
func (s *session) undoneByError() bool {
	for i := s.owed.head; i < len(s.owed.items); i++ {
		e := &s.owed.items[i]
		runs := e.kind == expectQuery || e.kind == expectExecute || e.kind == expectFunction
		if runs && e.mode == relay && (e.plan == nil || e.plan.Single == nil || e.plan.Effects&query.EffectUnknown != 0) {
			return false
		}
	}
	return true
}

// roleMayHaveChanged bounds how often a demoted primary is believed to be the
// reason of a 25006: the session may have asked for read-only itself.
func (s *session) roleMayHaveChanged() bool {
	if it, ok := s.settings.Get("default_transaction_read_only"); ok && it.Text != "off" && it.Text != "false" {
		return false
	}
	if s.tries == 0 {
		s.triedSince = time.Now()
	}
	return s.tries < 3 || time.Since(s.triedSince) < time.Second
}

// retry leaves the rest of the answer to be read and dropped; the request then
// goes out again.
func (s *session) retry(e *wire.Error) {
	s.shard.Nodes.Suspect(s.lease.Node, e)
	front := s.owed.front()
	extended := front != nil && !front.ends()
	if synced := s.owed.failSegment(s.undo); extended && !synced {
		// Its own Sync is not sent yet, or never comes: a query follows.
		s.lease.SetOutput(wire.AppendEmpty(s.lease.Output(), wire.MsgSync))
	}
	s.owed.clear(s.undo)
	s.owed.push(expect{kind: expectSync, mode: swallow, purpose: forRetry})
	s.open = false
	s.copyIn = false
	s.steps++
}

// tryAgain starts the held request anew, elsewhere.
func (s *session) tryAgain() {
	node := s.lease.Node
	s.lease.Settings = s.leaseBase
	fate := pool.Clean
	if !s.read {
		fate = pool.Dirty // what failed may have taken locks that outlive its transaction
	}
	s.giveBack(fate)
	s.rewind(node)
}

// rewind makes the held request unread again and excludes the node from the
// next choice of a replica.
func (s *session) rewind(node int) {
	s.db.stats.retries.Add(1)
	s.tallyRetry()
	s.client.Rewind()
	s.held, s.answerHead = false, s.answerHead[:0]
	s.exclude |= 1 << node
	s.tries++
	s.suspect, s.wrote, s.acted, s.open, s.failed = 0, false, false, false, false
	s.setSettings(s.txBase)
	s.steps++
}

// triesMax bounds how often a read starts anew for a lost connection: the read
// itself may be what servers die of.
const triesMax = 8

// serverLost deals with the end of the lease's connection, by its last error
// or without a word. A held read starts anew; otherwise the client is told what
// can be known, and keeps its session unless state was lost with the server.
func (s *session) serverLost(cause error) error {
	l := s.lease
	partial := s.download > 0 && !s.swallowing
	inTx := s.tx != 'I'
	stateful := s.pinned != "" || s.mode == ModeSession || s.audit.running || s.left
	s.download, s.copyIn, s.syncsInCopy, s.copyUnsure = 0, false, 0, false
	s.breach = false
	s.dropBranches()
	s.enlisting = false
	s.settling, s.settingsErr, s.forgetting, s.fresh, s.failed = false, nil, false, false, false
	s.uploadVoid = s.upload > 0
	e := s.lostError(cause, l)
	s.shard.Nodes.Suspect(l.Node, cause)
	s.server.opt.Logger.Info("server connection lost", "session", s.id, "node", l.Address(), "error", cause)
	s.giveBack(pool.Dead)
	if !partial && !stateful && s.read && !s.delivered && !inTx && !s.cancelled && s.tries < triesMax {
		s.owed.clear(s.undo)
		s.rewind(l.Node)
		return nil
	}
	s.shard.fails(l.Node, "08006")
	switch {
	case partial:
		return errEnded // in the middle of a frame nothing can be said
	case stateful:
		e.Severity = "FATAL"
		return e.WithHint("The session's state was on that server connection; connect again.")
	}
	s.endHold()
	s.exclude, s.tries = 0, 0 // of this request
	s.failOwed(e, inTx)
	return nil
}

// lostError says to the client what happened to its server connection.
func (s *session) lostError(cause error, l *pool.Server) *wire.Error {
	var we *wire.Error
	detail := "Shard " + s.shard.Name + ", node " + l.Address() + "."
	if errors.As(cause, &we) && we.Code != "" {
		e := *we
		e.Severity = "ERROR"
		if e.Detail != "" {
			detail = e.Detail + " " + detail
		}
		e.Detail = detail
		return &e
	}
	return wire.Errorf("08006", "the connection to the server was lost").WithDetail("%s", detail).WithCause(cause)
}

// failOwed answers every request that was under way on a lost server.
func (s *session) failOwed(e *wire.Error, inTx bool) {
	s.auditsOwed()
	s.setSettings(s.txBase)
	s.savepoints = s.savepoints[:0]
	told := false
	if s.readyOwed {
		s.readyOwed = false
		s.answerReady() // the command itself was over
	}
	if inTx {
		s.tx, s.lost = 'E', true
	}
	for !s.owed.empty() {
		unknown, ours := s.fateOfSegment()
		front := *s.owed.front()
		ended := s.owed.failRequest(s.undo)
		if ended {
			last := s.pop()
			unknown = unknown || mayCommit(&last, inTx)
			ours = ours && last.mode != relay
		}
		if ours {
			continue
		}
		s.tell(e, unknown)
		if front.runs() {
			s.counts(s.tallyOf(front.plan), s.index)
		}
		told = true
		if unknown {
			s.tx, s.lost, inTx = 'I', false, false
			// It may have taken effect, and the client must then see it.
			s.mark, s.wrote = s.shard.Nodes.Mark(), false
			s.spreadDDL()
		}
		if ended {
			s.answerReady()
		}
	}
	switch {
	case s.open && !told:
		s.tell(e, false)
		fallthrough
	case s.open:
		s.skipping = true
		s.forgetPlans()
	case !told && inTx:
		s.lostErr = e
	}
	s.open = false
	s.steps++
}

func (s *session) tell(e *wire.Error, unknown bool) {
	s.scriptFails()
	if unknown {
		c := *e
		c.Code, c.Message = "08007", "the connection to the server was lost during the commit: transaction resolution unknown"
		c.Hint = "Find out whether the transaction took effect before trying it again."
		e = &c
	}
	s.tellsError(e)
	s.client.SetOutput(e.Append(s.client.Output()))
}

// fateOfSegment looks at the requests that fail together: whether one of them
// may have committed, and whether all are ours.
func (s *session) fateOfSegment() (unknown, ours bool) {
	ours = true
	for i := s.owed.head; i < len(s.owed.items); i++ {
		e := &s.owed.items[i]
		if e.kind == expectSync || i == s.owed.head && e.ends() {
			break
		}
		unknown = unknown || mayCommit(e, s.tx != 'I')
		ours = ours && e.mode == swallow
	}
	return unknown, ours
}

// mayCommit reports whether the request, under way when its server was lost,
// may have taken effect for good.
func mayCommit(e *expect, inTx bool) bool {
	if e.mode != relay || (e.kind != expectQuery && e.kind != expectExecute && e.kind != expectFunction) {
		return false
	}
	if e.plan == nil {
		return true
	}
	if e.plan.Single != nil {
		k := e.plan.Single.Kind
		if inTx {
			return k == query.KindCommit || k == query.KindPrepareTx
		}
		return e.plan.Intent != router.Read && k != query.KindBegin && k != query.KindRollback
	}
	return e.plan.Intent != router.Read
}

// lostRequest answers a client whose transaction's server is gone, as a failed
// transaction: everything is refused until the client ends it.
func (s *session) lostRequest(kind byte, size int) (bool, error) {
	if kind != wire.MsgSync && kind != wire.MsgFlush && kind != wire.MsgClose && len(s.client.Buffered()) < size {
		return false, nil
	}
	body := s.client.Buffered()[5:max(5, min(size, len(s.client.Buffered())))]
	out := s.client.Output()
	fail := false
	switch kind {
	case wire.MsgQuery:
		if endsTransaction(s.plan(trimNUL(body))) {
			s.lost, s.tx = false, 'I'
			out = wire.AppendCommandComplete(out, "ROLLBACK")
			s.lostErr = nil
		} else {
			s.scriptFails()
			out = s.refusedInLost().Append(out)
		}
		s.client.SetOutput(out)
		s.drop(size)
		s.answerReady()
		return true, nil
	case wire.MsgParse:
		name, rest, ok := wire.CString(body)
		if !ok {
			return false, wire.Fatal("08P01", "invalid message format")
		}
		p := s.plan(cut(rest))
		if fail = !endsTransaction(p) || len(name) > 0 && s.private; fail {
			break
		}
		// Drivers that prepare all they run do so with ROLLBACK, too.
		if e := s.preparesHere(string(name), rest, p); e != nil {
			if e.Severity == "FATAL" {
				return false, e
			}
			out, s.skipping = e.Append(out), true
			break
		}
		out = wire.AppendEmpty(out, wire.MsgParseComplete)
	case wire.MsgBind:
		_, after, _ := wire.CString(body)
		p := s.planOf(cut(after), nil, nil)
		if fail = p == nil || !endsTransaction(p); !fail {
			s.portal = p
			out = wire.AppendEmpty(out, wire.MsgBindComplete)
		}
	case wire.MsgDescribe:
		if len(body) > 0 && body[0] == 'S' {
			out = append(out, wire.MsgParameterDescription, 0, 0, 0, 6, 0, 0)
		}
		out = wire.AppendEmpty(out, wire.MsgNoData)
	case wire.MsgExecute:
		if fail = s.portal == nil || !endsTransaction(s.portal); !fail {
			out = wire.AppendCommandComplete(out, "ROLLBACK")
			s.tx, s.lostErr = 'I', nil
		}
	case wire.MsgClose:
		if len(body) > 1 && !s.private {
			s.closesHere(body)
		}
		out = wire.AppendEmpty(out, wire.MsgCloseComplete)
	case wire.MsgSync:
		s.lost = s.tx != 'I'
		out = wire.AppendReadyForQuery(out, s.tx)
	case wire.MsgFlush:
	case wire.MsgFunctionCall:
		out = wire.AppendReadyForQuery(s.refusedInLost().Append(out), s.tx)
	}
	if fail {
		out = s.refusedInLost().Append(out)
		s.skipping = true
	}
	s.client.SetOutput(out)
	s.drop(size)
	s.steps++
	return true, nil
}

// refusedInLost is what a statement in a lost transaction gets: first what
// happened, then PostgreSQL's own words.
func (s *session) refusedInLost() *wire.Error {
	if e := s.lostErr; e != nil {
		s.lostErr = nil
		return e
	}
	return wire.Errorf("25P02", "current transaction is aborted, commands ignored until end of transaction block")
}

// endsTransaction reports whether the plan ends a failed transaction and begins
// no other: a chained one would have no server.
func endsTransaction(p *router.Plan) bool {
	c := p.Single
	return c != nil && (c.Kind == query.KindRollback || c.Kind == query.KindCommit) && !c.Chain
}

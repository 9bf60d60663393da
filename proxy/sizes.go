package proxy

import "shardproxy/wire"

// limited applies what bounds a frame, and the request that it begins, before anything is done with it:
// its size, and the rates. waits and isRefused are what begin means by false and true.
func (s *session) limited(kind byte, size int) (verdict, error) {
	if s.routing != nil || s.lost || s.breach {
		return goesOn, nil
	}
	if e := s.oversized(kind, size); e != nil && !s.waiting.queued {
		return s.refuseLarge(kind, size, e)
	}
	if t := s.throttle.Load(); t != nil && !s.open && !s.fresh && !s.waiting.queued {
		return s.admits(t, kind, size)
	}
	return goesOn, nil
}

// oversized returns why a frame is too large to be sent on, nil when it is not. A bound is at least
// scanMax: what is looked at together never holds such a frame but as its first.
func (s *session) oversized(kind byte, size int) *wire.Error {
	if s.statementMax == 0 || size-5 <= s.statementMax {
		return nil
	}
	switch kind {
	case wire.MsgQuery, wire.MsgParse, wire.MsgBind, wire.MsgFunctionCall:
		return wire.Errorf("54000", "the statement, or its parameters, take more bytes than they may").
			WithDetail("The message has %d bytes, the limit is %d.", size-5, s.statementMax).
			WithHint("limits.statement_size bounds it, or that of the database or the user. Send large rows by COPY.")
	}
	return nil
}

// refuseLarge refuses a frame and drops it as it comes: no server gets any of it. A transaction fails.
func (s *session) refuseLarge(kind byte, size int, e *wire.Error) (verdict, error) {
	if s.lease == nil {
		s.refuse(kind, size, e)
		return isRefused, nil
	}
	if !s.open && (!s.owed.empty() || s.settling || s.audit.running || s.readyOwed || s.discarded ||
		s.tx == 'I' && s.pinned == "" && s.mode != ModeSession && s.settled()) {
		return waits, nil // what goes before it ends first, and a lease that is free is given back
	}
	s.read = false
	s.commitHold()
	simple := kind == wire.MsgQuery || kind == wire.MsgFunctionCall
	if err := s.refuseHere(kind, size, e); err != nil {
		return isRefused, err
	}
	s.fresh = false
	if !simple {
		s.drop(size)
	}
	return isRefused, nil
}

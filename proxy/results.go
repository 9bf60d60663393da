package proxy

import (
	"shardproxy/wire"
)

// A result that is larger than it may be is cut behind a row: what comes of it is not relayed any more, and the
// server's work is cancelled. It may be over by then, for the rows were on their way already. Then the error is ours,
// where that is no lie: the transaction fails as it would have by the server's error, or there is none and
// the statement has changed nothing. Else the session ends, as by a lost connection: what has come of the
// statement is not known to the client.

// resultCut is what has become of the result that is being relayed.
type resultCut struct {
	given int64 // bytes of it
	cut   bool  // no more of it is relayed
	fails bool  // the client was told, and its transaction is to fail
}

func errResult(limit int64) *wire.Error {
	return wire.Errorf("54000", "the result takes more bytes than it may").WithDetail("The limit is %d.", limit).
		WithHint("limits.result_size bounds it, or that of the database or the user. Ask for less, or read it in pieces by a cursor.")
}

// gives counts bytes of the result that the client is given, and cuts it.
func (s *session) gives(n int) {
	if s.resultMax == 0 || s.result.cut {
		return
	}
	if s.result.given += int64(n); s.result.given <= s.resultMax {
		return
	}
	s.result.cut = true
	if front := s.owed.front(); s.lastOfRequest(front) && s.nothingBehind() {
		s.cancelServer(func() {})
	}
}

// resultEnds forgets a result that has ended.
func (s *session) resultEnds() { s.result.given, s.result.cut = 0, false }

// lastOfRequest reports whether the front entry is the last of its request that runs anything, as far as it was sent.
func (s *session) lastOfRequest(front *expect) bool {
	if front.kind == expectQuery {
		return front.plan != nil && front.plan.Single != nil && front.spliced == nil
	}
	next := s.owed.head + 1
	return next == len(s.owed.items) || s.owed.items[next].kind == expectSync
}

// nothingBehind reports whether nothing is owed behind the front entry and the end of its request.
func (s *session) nothingBehind() bool {
	n := s.owed.len()
	return n == 1 || n == 2 && s.owed.front().kind != expectQuery
}

// cutEnds deals with the end of a statement whose result was cut and that the cancel came too late for.
func (s *session) cutEnds(front *expect, size int) error {
	s.lease.Discard(size)
	s.steps++
	e := errResult(s.resultMax)
	inTx := s.tx == 'T'
	if !s.lastOfRequest(front) || inTx && !s.nothingBehind() || !inTx && front.writes() {
		e.Severity = "FATAL"
		return e.WithDetail("The limit is %d. The statement has been executed.", s.resultMax)
	}
	s.resultEnds()
	s.result.fails, s.failed = inTx, true
	s.scriptFails()
	s.client.SetOutput(e.Append(s.client.Output()))
	s.tellsError(e)
	s.tallyError(front)
	if front.kind == expectQuery {
		return nil // ReadyForQuery follows
	}
	if !s.owed.failSegment(s.undo) {
		s.skipping = true
		s.forgetPlans()
	}
	return nil
}

// cutFails has the transaction fail whose client was told so, and gives the status of it then.
func (s *session) cutFails(status byte) (byte, error) {
	s.result.fails = false
	if status != 'T' {
		return status, nil
	}
	return 'E', s.failHere()
}

// unfit returns why an answer that was collected is not given to the client, nil when it is; limit is that of an Execute.
func (s *session) unfit(frames []byte, limit int64) *wire.Error {
	switch {
	case limited(frames, limit):
		return errLimited()
	case s.resultMax > 0 && int64(len(frames)) > s.resultMax:
		return errResult(s.resultMax)
	}
	return nil
}

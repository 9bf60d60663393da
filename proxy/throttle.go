package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"shardproxy/wire"
)

// throttle is what the rates make of a session; see docs/design/limits.md.
type throttle struct {
	rates   *sessionRates   // nil where there are none
	permits *sessionPermits // the same
	paidTo  uint64          // bytes of the client's stream up to which its statements are paid for
	ahead   bool            // one more is paid for, which has not come yet
	bytes   uint64          // of its bytes, both ways, that are paid for; from the first look on
	looked  bool            // bytes is set
	slow    time.Time       // until when no more bytes are read
}

// errRate is what is refused by a rate: 53400, for it is a limit of the configuration that is
// exceeded and not the server's connections (53300) or memory that are used up.
func errRate(kind, by int, wait int64) *wire.Error {
	again := max(time.Duration(wait).Round(time.Millisecond), time.Millisecond)
	what := fmt.Sprintf("too many %s in a second for this %s", rateKindNames[kind], rateOwnerNames[by])
	if kind == rateLogins {
		return wire.Fatal("53400", "%s", what).WithHint("Try again in %s.", again)
	}
	return wire.Errorf("53400", "%s", what).WithHint("The statement was not executed. Try again in %s.", again)
}

// bound gives a session the bounds of the settings, whichever they are by then. One that has ended gets none.
func (srv *Server) bound(s *session) {
	for set := srv.settings.Load(); ; {
		srv.boundBy(s, set)
		now := srv.settings.Load()
		if now == set {
			return
		}
		set = now
	}
}

func (srv *Server) boundBy(s *session, set *Settings) {
	var t *throttle
	rates := srv.rates.hold(set.Rates, s.userName, s.db.Name, s.address, time.Now().UnixNano())
	permits := srv.permits.hold(set.Concurrency, s.userName, s.db.Name)
	if rates != nil || permits != nil {
		t = &throttle{rates: rates, permits: permits}
	}
	srv.mu.Lock()
	there := srv.sessions[s.key.PID] == s
	if there {
		t = s.throttle.Swap(t)
	}
	srv.mu.Unlock()
	if t != nil { // the old one, or what it does not get
		srv.rates.drop(t.rates)
		srv.permits.drop(t.permits)
	}
}

// unbound gives back what a session has of bounds that ends.
func (s *session) unbound() {
	if s.permits != nil {
		s.endPermits()
	}
	if t := s.throttle.Swap(nil); t != nil {
		s.server.rates.drop(t.rates)
		s.server.permits.drop(t.permits)
	}
}

// admits lets the request at the head of the buffer begin, or has it wait for its turn, or refuses it.
func (s *session) admits(t *throttle, kind byte, size int) (verdict, error) {
	if t.rates != nil {
		if v, err := s.affords(t, kind, size); v != goesOn || err != nil {
			return v, err
		}
	}
	if t.permits != nil {
		return s.permitted(t, kind, size)
	}
	return goesOn, nil
}

// affords lets the request at the head of the buffer begin, or has it wait for its turn by the
// rates, or refuses it. It has paid for its statements then. Within a transaction nobody waits, who
// would keep locks meanwhile: what runs there is paid for by those behind it.
func (s *session) affords(t *throttle, kind byte, size int) (verdict, error) {
	at := s.client.Consumed()
	if t.paidTo > at || s.script != nil {
		return goesOn, nil
	}
	n, end, whole := s.statementsAhead()
	inTx := s.tx != 'I' || s.begun != nil
	due, ahead := t.due(n, whole || inTx)
	r := s.server.settings.Load().Rates
	if r == nil {
		return goesOn, nil
	}
	now := time.Now().UnixNano()
	if due == 0 || inTx {
		t.rates.take(rateStatements, due, now, noLimit)
		t.paid(end, ahead)
		return goesOn, nil
	}
	busy := s.lease != nil && s.busyForOthers()
	most := int64(r.Wait)
	if busy {
		most = 0
	}
	wait, by, ok := t.rates.take(rateStatements, due, now, most)
	switch {
	case !ok && busy:
		return waits, nil
	case !ok:
		s.server.rates.refused[rateStatements][by].Add(1)
		s.refuse(kind, size, errRate(rateStatements, by, wait-most))
		return isRefused, nil
	}
	t.paid(end, ahead)
	if wait > 0 {
		s.server.rates.waited[rateStatements][by].Add(1)
		if err := s.waitsForRate(time.Duration(wait)); err != nil {
			if e := wire.AsError(err); e.IsFatal() || err == errEnded {
				return isRefused, err
			}
			s.refuse(kind, size, wire.AsError(err))
			return isRefused, nil
		}
	}
	return goesOn, nil
}

// busyForOthers reports whether the session has replies to wait for, or a connection to give back, before
// it may wait for anything else.
func (s *session) busyForOthers() bool {
	return !s.owed.empty() || s.settling || s.audit.running || s.readyOwed || s.pinned == "" && s.mode != ModeSession
}

// waitsForRate waits with the stack, as at the gate, until the time has passed.
func (s *session) waitsForRate(d time.Duration) error {
	end := time.Now().Add(d)
	s.wakeIn(d)
	defer s.timer.Stop()
	for time.Now().Before(end) {
		if s.control.Load()&controlDrain != 0 {
			return errTerminated()
		}
		if err := s.waitTurn(phaseWaiting); err != nil {
			return err
		}
	}
	return nil
}

// due returns how many statements are to be paid for when n of a request have been seen, and whether
// one is paid for ahead then. Of a request that has not come whole and executes nothing yet one is: what
// is let go of it reaches a server, and its Execute would find nobody to wait there.
func (t *throttle) due(n int64, whole bool) (due int64, ahead bool) {
	switch {
	case n > 0 && t.ahead:
		return n - 1, false
	case n == 0 && !whole && !t.ahead:
		return 1, true
	}
	return n, t.ahead
}

// paid notes that what was due is paid for, up to a place of the client's stream.
func (t *throttle) paid(end uint64, ahead bool) {
	t.paidTo, t.ahead = end, ahead
}

// statementsAhead counts the statements of the request at the head of the buffer as far as it
// has come, and returns where that ends in the client's stream, and whether it has come whole.
func (s *session) statementsAhead() (n int64, end uint64, whole bool) {
	b := s.client.Buffered()
	at := s.client.Consumed()
	for off := 0; off+5 <= len(b); {
		kind, size := b[off], frameSize(b[off:])
		if size < 5 {
			break
		}
		off += size
		switch kind {
		case wire.MsgExecute:
			n++
		case wire.MsgQuery, wire.MsgFunctionCall:
			return n + 1, at + uint64(off), true
		case wire.MsgSync:
			return n, at + uint64(off), true
		}
		end = at + uint64(off)
	}
	return n, end, false
}

// paysFor takes what an Execute costs that came behind what its request has paid for.
func (s *session) paysFor() {
	t := s.throttle.Load()
	switch {
	case t == nil || t.rates == nil || t.paidTo > s.client.Consumed():
	case t.ahead:
		t.ahead = false
	default:
		t.rates.take(rateStatements, 1, time.Now().UnixNano(), noLimit)
	}
}

// slowed reports whether the session reads no more for now because of its bytes a second, and
// has itself woken when it may. It takes what has passed since it was last asked.
func (s *session) slowed(t *throttle) bool {
	if t.rates == nil {
		return false
	}
	passed := s.client.Received() + s.client.Sent()
	now := time.Now()
	if !t.looked {
		t.bytes, t.looked = passed, true // what passed before the settings were read is not theirs
	}
	if n := passed - t.bytes; n > 0 {
		t.bytes = passed
		if wait, by, _ := t.rates.take(rateBytes, int64(n), now.UnixNano(), noLimit); wait > 0 {
			if !t.slow.After(now) {
				s.server.rates.waited[rateBytes][by].Add(1)
			}
			t.slow = now.Add(time.Duration(wait))
		}
	}
	if !t.slow.After(now) {
		return false
	}
	if s.control.Load() != 0 || s.client.Socket().HungUp() {
		return false // somebody wants something of it, or nobody any more
	}
	s.wakeIn(min(t.slow.Sub(now), slowedLook))
	return true
}

// slowedLook is how often a session that is slowed looks whether its client is still there: it does not read from it.
const slowedLook = time.Second

// slowsAside waits as slowed says, on a goroutine that may block while the session is parked.
func (s *session) slowsAside() {
	t := s.throttle.Load()
	for t != nil && s.slowed(t) {
		time.Sleep(min(time.Until(t.slow), copyPoll))
	}
}

// mayLogIn waits until the rates let somebody in, or returns why they do not. It takes what is to be
// taken, and keeps no buckets.
func (srv *Server) mayLogIn(ctx context.Context, set *Settings, user, database string, addr netip.Addr) error {
	if set.Rates == nil {
		return nil
	}
	now := time.Now().UnixNano()
	held := srv.rates.hold(set.Rates, user, database, addr, now)
	if held == nil {
		return nil
	}
	defer srv.rates.drop(held)
	wait, by, ok := held.take(rateLogins, 1, now, int64(set.Rates.Wait))
	if !ok {
		srv.rates.refused[rateLogins][by].Add(1)
		return errRate(rateLogins, by, wait-int64(set.Rates.Wait))
	}
	if wait == 0 {
		return nil
	}
	srv.rates.waited[rateLogins][by].Add(1)
	timer := time.NewTimer(time.Duration(wait))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for a login's turn: %w", context.Cause(ctx))
	}
}

package proxy

import (
	"errors"
	"sync"
	"time"

	"shardproxy/wire"
)

// sweepInterval is how exact timeouts are.
const sweepInterval = 100 * time.Millisecond

// cancelWaiters are the cancel requests that wait to be passed on.
type cancelWaiters struct {
	mu   sync.Mutex
	done []chan struct{}
}

// add returns a channel that is closed when the request has been dealt with.
func (c *cancelWaiters) add() <-chan struct{} {
	done := make(chan struct{})
	c.mu.Lock()
	c.done = append(c.done, done)
	c.mu.Unlock()
	return done
}

// take returns a function that tells all that wait now.
func (c *cancelWaiters) take() func() {
	c.mu.Lock()
	all := c.done
	c.done = nil
	c.mu.Unlock()
	return func() {
		for _, d := range all {
			close(d)
		}
	}
}

// signal sets a control flag and wakes the session. Any goroutine may call it.
func (s *session) signal(flag uint32) {
	s.control.Or(flag)
	s.task.wake()
}

// flag takes a control flag back and reports whether it was set.
func (s *session) flag(f uint32) bool {
	if s.control.Load()&f == 0 {
		return false
	}
	s.control.And(^f)
	return true
}

func errTerminated() *wire.Error {
	return wire.Fatal("57P01", "terminating connection due to administrator command")
}

// obeyIdle heeds the control flags of a session without a lease.
func (s *session) obeyIdle() error {
	if s.control.Load() == 0 {
		return nil
	}
	s.flag(controlDeadlock) // nothing waits for a lock
	switch {
	case s.flag(controlKill | controlDrain):
		return errTerminated()
	case s.flag(controlTimeout) && s.expired(phaseIdle, s.timeouts.ClientIdle):
		return wire.Fatal("57P05", "terminating connection due to idle-session timeout")
	case s.begun != nil && s.expired(phaseIdleInTx, s.timeouts.IdleInTransaction):
		return wire.Fatal("25P03", "terminating connection due to idle-in-transaction timeout")
	case s.flag(controlCancel):
		s.cancels.take()() // nothing runs: as PostgreSQL, ignore it
	}
	return nil
}

// obeyWaiting heeds the control flags of a session that waits for a server.
func (s *session) obeyWaiting() error {
	if s.control.Load() == 0 {
		return nil
	}
	s.flag(controlDeadlock) // nothing waits for a lock
	switch {
	case s.flag(controlKill):
		return errTerminated()
	case s.flag(controlCancel):
		s.cancels.take()()
		return errUserCancel()
	}
	return nil
}

// errNodeDown is the loss of a server that does not answer any more.
var errNodeDown = errors.New("the node does not answer or is not the primary any more")

// Abandon ends the leases of the database's sessions on a node that does not
// answer, or has lost its role, as if the connections had broken: held reads
// start anew elsewhere, other clients are told. Without it a server that was
// stopped, not killed, would keep them for ever.
func (srv *Server) Abandon(db *Database, shard *Shard, node int) {
	shard.Pools.Abandon(node)
	srv.each(func(s *session) {
		if l := s.leased.Load(); s.db == db && l != nil && l.Node == node && shard.Pools.Owns(l) {
			s.abandoned.Store(l.ID())
			s.signal(controlNode)
		}
	})
}

// obey heeds the control flags of a session with a lease.
func (s *session) obey() error {
	if s.control.Load() == 0 {
		return nil
	}
	if s.flag(controlNode) && s.abandoned.Load() == s.lease.ID() {
		return s.serverLost(errNodeDown)
	}
	if s.flag(controlKill) {
		return errTerminated()
	}
	if s.flag(controlAudit) {
		s.steps++ // to be settled once more
	}
	if !s.oursRuns() && s.flag(controlCancel) {
		done := s.cancels.take()
		if s.owed.empty() || s.audit.running {
			done() // nothing of the client's runs
		} else {
			s.cancelServer(done)
		}
	}
	if s.control.Load()&controlDeadlock != 0 && !s.oursRuns() {
		s.cancelVictim()
	}
	if s.control.Load()&controlDrain != 0 && s.tx == 'I' && s.settled() {
		return errTerminated()
	}
	if s.flag(controlTimeout) {
		return s.timeout()
	}
	return nil
}

// oursRuns reports whether the server works on something of ours that the
// client's request behind it relies on: what cancels that comes too early.
func (s *session) oursRuns() bool {
	for i := s.owed.head; i < len(s.owed.items); i++ {
		// What of ours shares a request with the client's shows no progress of its
		// own: servers answer at the end.
		if e := &s.owed.items[i]; e.ends() {
			return e.mode == swallow && !s.audit.running
		}
	}
	return false
}

// timeout acts on a bound that has passed.
func (s *session) timeout() error {
	switch {
	case s.expired(phaseIdleInTx, s.timeouts.IdleInTransaction):
		return wire.Fatal("25P03", "terminating connection due to idle-in-transaction timeout")
	case s.expired(phaseIdle, s.timeouts.ClientIdle):
		return wire.Fatal("57P05", "terminating connection due to idle-session timeout")
	case s.expired(phaseActive, s.timeouts.Query) && !s.timedOut && !s.oursRuns():
		s.timedOut = true
		s.cancelServer(func() {})
	}
	return nil
}

// cancelServer has what the lease's server works on cancelled; done is called when the server has
// taken the request. What the client asks for next waits until then: see heldBack.
func (s *session) cancelServer(done func()) {
	s.cancelled = true
	s.cancelling.Add(1)
	s.cancelledOn = s.lease.ID()
	s.lease.Cancel(func() {
		s.cancelling.Add(-1)
		s.server.wake(s)
		done()
	})
}

// cancelsAway reports whether a cancel request is under way to the lease's server.
func (s *session) cancelsAway() bool {
	return s.cancelling.Load() > 0 && s.lease != nil && s.lease.ID() == s.cancelledOn
}

// repliesFirst reports whether the client's next frame must wait for what is owed to the session.
func (s *session) repliesFirst() (wait bool, err error) {
	if s.owed.len() >= owedMax {
		return true, s.askForReplies()
	}
	return s.heldBack(), nil
}

// heldBack reports whether the client's next request must wait, for a cancel request would hit it
// that is for another one. One of the client's is for all of a script.
func (s *session) heldBack() bool {
	if !s.timedOut && s.cancelling.Load() == 0 || !s.owed.empty() || s.copyIn {
		return false
	}
	if s.cancelsAway() {
		return s.timedOut || s.script == nil
	}
	s.timedOut = false // it ended before it was cancelled
	return false
}

// expired reports whether the session has been in the phase for longer than bound.
func (s *session) expired(p phase, bound time.Duration) bool {
	return bound > 0 && phase(s.phase.Load()) == p && s.server.clock.Load()-s.since.Load() > int64(bound)
}

// stalls reports whether the session may have been waiting for one side alone
// for long, so that it must find out whether the other is still there.
func (s *session) stalls() bool {
	return s.expired(phaseActive, sweepInterval) || s.expired(phaseIdleInTx, sweepInterval) ||
		s.expired(phaseWaiting, sweepInterval) || s.expired(phaseHeld, sweepInterval)
}

// sweep keeps the coarse clock and tells sessions whose bounds have passed.
// Nothing is timed per statement: what began since the last sweep is taken to have begun
// now, so that no bound passes early, however late the sweep comes.
func (srv *Server) sweep() {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-srv.ctx.Done():
			return
		case <-tick.C:
			now := time.Now() // the tick may have lain there for long
			last := srv.clock.Swap(now.UnixNano())
			var may suspects
			srv.each(func(s *session) {
				if s.since.Load() == last {
					s.since.CompareAndSwap(last, now.UnixNano()+1) // which the clock never is
				}
				if s.expired(phaseIdle, s.timeouts.ClientIdle) || s.expired(phaseActive, s.timeouts.Query) ||
					s.expired(phaseIdleInTx, s.timeouts.IdleInTransaction) {
					s.signal(controlTimeout)
				}
				if end := s.waitEnd.Load(); end != 0 && now.UnixNano() > end {
					s.task.wake()
				}
				if s.auditAgain.Load() && s.db.loaded() {
					s.signal(controlAudit)
				}
				if s.near == nil && s.stalls() && !s.watchAll.Swap(true) {
					s.task.wake()
				}
				may.add(s)
			})
			may.tell()
			srv.expireBlocks(now)
			srv.tickBreakers(now)
		}
	}
}

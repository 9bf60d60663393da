package proxy

import (
	"errors"
	"time"

	"shardproxy/pool"
	"shardproxy/router"
	"shardproxy/wire"
)

// waiting is the search of a request for a server connection, from the choice of the
// node to the lease. On a loop the usual request waits in it without a stack: begin
// returns, and is called again for the same frame when something has come.
type waiting struct {
	ticket   *pool.Ticket // storage; nil before the first wait
	queued   bool         // without a stack: begin goes on with it
	replica  bool
	need     need
	node     int
	deadline time.Time // zero before the first wait
}

// obtain finds a server connection for the request at the head of the buffer. false
// without an error means that it is waited for.
func (s *session) obtain(n need) (bool, error) {
	s.seeks(n)
	return s.seek(s.near != nil && s.script == nil)
}

// acquire finds the node for a request, waits for a connection to it within
// bounds, and makes it the lease.
func (s *session) acquire(n need) error {
	s.seeks(n)
	_, err := s.seek(false)
	return err
}

// seeks begins the search.
func (s *session) seeks(n need) {
	s.moveTo(n.shard)
	if n.shard == router.AnyShard && s.places != nil && (s.shard.Gate.Closed() || s.strayed()) {
		s.moveToOpen()
	}
	if b := s.begun; b != nil {
		n.read, n.readOnly, n.replica, n.primary = false, b.readOnly, b.replica, n.primary || b.primary
		if b.parts != nil {
			s.exclude = b.parts.excluded[s.index]
		}
	}
	s.waiting.need, s.waiting.deadline = n, time.Time{}
}

// seek goes on with the search. When it is stackless it may return false, queued.
func (s *session) seek(stackless bool) (bool, error) {
	pol := s.db.Policy()
	w := &s.waiting
	for {
		var err error
		if w.node, w.replica, err = s.pick(w.need, pol); err != nil {
			return false, err
		}
		srv, err := s.borrow(pol.WaitTimeout, stackless)
		if w.queued {
			return false, nil
		}
		if got, err := s.borrowed(srv, err); got || err != nil {
			return got, err
		}
	}
}

// borrow asks for a connection to the node. Unless stackless it waits for it.
func (s *session) borrow(wait time.Duration, stackless bool) (*pool.Server, error) {
	w := &s.waiting
	if w.ticket == nil {
		w.ticket = &pool.Ticket{}
	}
	// First where the session drew its last value from a sequence, if it did.
	srv, queued, err := s.user.AcquireNear(w.node, s.sequencesOn, s.near, s.wake, w.ticket)
	switch {
	case errors.Is(err, pool.ErrQueueFull):
		return nil, wire.Errorf("53300", "too many statements wait for a server connection")
	case errors.Is(err, pool.ErrClosed):
		return nil, wire.Fatal("57P01", "the database is being closed")
	case err != nil || !queued:
		return srv, err
	}
	if w.deadline.IsZero() {
		w.deadline = time.Now().Add(wait)
	}
	if stackless {
		w.queued = true
		s.waitEnd.Store(w.deadline.UnixNano())
		s.setPhase(phaseWaiting)
		return nil, s.obeyQueued()
	}
	return s.awaitTicket()
}

// awaitTicket waits for the connection with the stack.
func (s *session) awaitTicket() (*pool.Server, error) {
	w := &s.waiting
	s.wakeIn(time.Until(w.deadline))
	defer s.timer.Stop()
	for !w.ticket.Done() {
		if time.Now().After(w.deadline) {
			w.ticket.Cancel()
			return nil, s.waitedInVain()
		}
		if err := s.waitTurn(phaseWaiting); err != nil {
			w.ticket.Cancel()
			return nil, err
		}
	}
	return s.ticketResult()
}

func (s *session) ticketResult() (*pool.Server, error) {
	srv, err := s.waiting.ticket.Result()
	if errors.Is(err, pool.ErrClosed) {
		return nil, wire.Fatal("57P01", "the database is being closed")
	}
	return srv, err
}

// resume goes on with a search that is queued, as obtain does.
func (s *session) resume() (bool, error) {
	w := &s.waiting
	if err := s.obeyQueued(); err != nil {
		return false, err
	}
	if !w.ticket.Done() {
		// The sweeper wakes who has waited too long: see waitEnd.
		if end := s.waitEnd.Load(); s.server.clock.Load() <= end {
			return false, nil
		}
		s.leaveQueue()
		return false, s.waitedInVain()
	}
	w.queued = false
	s.waitEnd.Store(0)
	srv, err := s.ticketResult()
	if got, err := s.borrowed(srv, err); got || err != nil {
		return got, err
	}
	return s.seek(true)
}

// obeyQueued heeds the control flags of a request that is queued.
func (s *session) obeyQueued() error {
	err := s.obeyWaiting()
	if err != nil {
		s.leaveQueue()
	}
	return err
}

// leaveQueue gives up a search that is queued.
func (s *session) leaveQueue() {
	if s.waiting.queued {
		s.waiting.queued = false
		s.waitEnd.Store(0)
		s.waiting.ticket.Cancel()
	}
}

// borrowed makes what the pool gave, or the error of a dial, of the search: the lease,
// its end, or false for another round.
func (s *session) borrowed(srv *pool.Server, err error) (bool, error) {
	w := &s.waiting
	if err == nil {
		s.lease = srv
		s.leased.Store(srv)
		if srv.Stale() {
			// Its node was given up before the session could be told of it.
			s.giveBack(pool.Clean)
			return false, nil
		}
		if s.late() {
			s.giveBack(pool.Clean)
			return false, errLate
		}
		if err := s.attach(w.need, w.replica); err != nil {
			return false, err
		}
		return true, nil
	}
	var de *pool.DialError // here, for it lives on the heap
	switch {
	case !errors.As(err, &de):
		return false, err
	case w.replica:
		s.exclude |= 1 << w.node
		return false, nil
	}
	if e := loginRefused(de); e != nil {
		return false, e
	}
	if time.Now().After(w.deadline) {
		s.shard.Breaker.InVain("08001")
		return false, wire.Errorf("08001", "could not connect to the primary").
			WithDetail("Shard %s, node %s.", s.shard.Name, de.Address).WithCause(de)
	}
	// The monitor has been told and closes the gate if the node is gone.
	return false, s.pause(50*time.Millisecond, phaseWaiting)
}

// waitedInVain is what a statement is told that got no connection in time.
func (s *session) waitedInVain() *wire.Error {
	if s.shard.Pools.Paused() {
		return wire.Errorf("57P03", "the database is paused, and the wait timeout has passed").
			WithHint("The statement was not executed and may be tried again after RESUME. pool.wait_timeout bounds the wait.")
	}
	s.db.stats.waitTimeouts.Add(1)
	return wire.Errorf("53300", "no server connection became free within the wait timeout").
		WithHint("The statement was not executed. Raise pool.size or pool.wait_timeout.")
}

package pool

import (
	"container/list"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"shardproxy/wire"
)

// nodePool holds the server connections of one user to one node.
//
// Every Server is in exactly one place: idle, lent, or in the hands of a
// goroutine that resets it or waits for its cancel requests (parked). total
// counts all of them and the dials under way.
type nodePool struct {
	pools  *Pools
	user   *User
	target Target
	node   int
	gen    atomic.Uint64

	// mu serialises borrowers, dials, resets and the maintenance loop.
	mu       sync.Mutex
	idle     []*Server // most recently used last
	waiting  list.List // of *Ticket, first come first
	total    int
	lent     int
	dialling int
	retryAt  time.Time // no dial before: the last one failed
	failures int
}

// Ticket is a borrower's place in the queue. Done turns true at most once,
// after which Result holds; Wake has been called by then.
type Ticket struct {
	pool   *nodePool
	elem   *list.Element
	wake   func()
	since  time.Time
	done   atomic.Bool
	server *Server
	err    error
}

// Done reports whether the wait is over.
func (t *Ticket) Done() bool { return t.done.Load() }

// Result returns what came of it: a connection, or the error of a dial.
func (t *Ticket) Result() (*Server, error) { return t.server, t.err }

// Since returns when the wait began.
func (t *Ticket) Since() time.Time { return t.since }

// Cancel leaves the queue. A connection that was granted meanwhile goes back.
func (t *Ticket) Cancel() {
	p := t.pool
	p.mu.Lock()
	if !t.done.Load() {
		p.waiting.Remove(t.elem)
		t.err = context.Canceled
		t.done.Store(true)
		p.mu.Unlock()
		return
	}
	s := t.server
	p.mu.Unlock()
	if s != nil {
		p.release(s, Clean)
	}
}

// DialError says that a server connection could not be opened. Nothing was
// sent, so the statement may be tried elsewhere.
type DialError struct {
	Node    int
	Address string
	Err     error
}

func (e *DialError) Error() string { return "connect to " + e.Address + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// SafeToRetry reports that nothing of a statement reached a server.
func (e *DialError) SafeToRetry() bool { return true }

// acquire lends an idle connection, or queues.
func (p *nodePool) acquire(prefer uint64, wake func()) (*Server, *Ticket, error) {
	now := p.pools.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pools.closed.Load() {
		return nil, nil, ErrClosed
	}
	if !p.pools.paused.Load() && p.waiting.Len() == 0 {
		if s := p.popIdleLocked(prefer, now); s != nil {
			return s, nil, nil
		}
	}
	if limit := p.user.policy().MaxWaiting; limit > 0 && p.waiting.Len() >= limit {
		p.pools.stats.shed.Add(1)
		return nil, nil, ErrQueueFull
	}
	t := &Ticket{pool: p, wake: wake, since: now}
	t.elem = p.waiting.PushBack(t)
	p.growLocked(now)
	return nil, t, nil
}

// popIdleLocked takes the preferred connection, or else the most recently used
// one, that is still good.
func (p *nodePool) popIdleLocked(prefer uint64, now time.Time) *Server {
	if prefer != 0 {
		if i := slices.IndexFunc(p.idle, func(s *Server) bool { return s.id == prefer }); i >= 0 {
			s := p.idle[i]
			p.idle = append(slices.Delete(p.idle, i, i+1), s)
		}
	}
	for len(p.idle) > 0 {
		s := p.idle[len(p.idle)-1]
		p.idle[len(p.idle)-1] = nil
		p.idle = p.idle[:len(p.idle)-1]
		// An idle server has nothing to say except that it is going away.
		if s.Stale() || s.Socket().Readable() {
			p.discardLocked(s)
			continue
		}
		p.lendLocked(s, now)
		return s
	}
	return nil
}

func (p *nodePool) lendLocked(s *Server, now time.Time) {
	s.lent = true
	s.used = now
	p.lent++
	p.pools.stats.assigned.Add(1)
}

// discardLocked closes a connection that nobody borrows.
func (p *nodePool) discardLocked(s *Server) {
	p.total--
	p.user.servers.Add(-1)
	p.pools.stats.closed.Add(1)
	s.Drop()
	// Closing may send a TLS alert; it does not wait.
	_ = s.Conn.Close()
	p.growLocked(p.pools.now())
}

// release takes a connection back.
func (p *nodePool) release(s *Server, f Fate) {
	s.Socket().SetNotify(nil)
	if f != Dead && (s.Pending() > 0 || len(s.Buffered()) > 0) {
		f = Dead
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !s.lent {
		panic("pool: server connection released twice")
	}
	s.lent = false
	p.lent--
	s.fate = f
	if s.cancels > 0 {
		// A cancel request may still be on its way to this process; whoever
		// borrowed it next would be hit.
		s.parked = true
		return
	}
	p.settleLocked(s)
}

// settleLocked decides what becomes of a connection that nobody borrows.
func (p *nodePool) settleLocked(s *Server) {
	now := p.pools.now()
	switch {
	case s.fate == Dead || s.Stale() || p.pools.closed.Load() || now.Sub(s.created) > s.lifetime:
		p.discardLocked(s)
	case s.fate == Dirty:
		p.pools.stats.resets.Add(1)
		p.pools.tasks.Go(func() { p.reset(s) })
	default:
		p.offerLocked(s, now)
	}
	p.pools.notePaused()
}

// offerLocked gives a good connection to the first in the queue, or keeps it.
func (p *nodePool) offerLocked(s *Server, now time.Time) {
	if !p.pools.paused.Load() {
		if e := p.waiting.Front(); e != nil {
			t := p.waiting.Remove(e).(*Ticket)
			p.lendLocked(s, now)
			t.server = s
			p.pools.stats.waited.Add(int64(now.Sub(t.since)))
			t.done.Store(true)
			t.wake()
			return
		}
	}
	s.used = now
	p.idle = append(p.idle, s)
}

// reset rolls back and discards all session state, then offers the connection.
func (p *nodePool) reset(s *Server) {
	err := s.discardAll(p.pools.opt.ResetTimeout)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.pools.opt.Logger.Info("server connection not reset, closing it", "node", p.target.Address, "error", err)
		p.discardLocked(s)
		p.pools.notePaused()
		return
	}
	s.fate = Clean
	p.settleLocked(s)
}

// growLocked starts as many dials as the queue needs and the limits allow.
func (p *nodePool) growLocked(now time.Time) {
	if p.pools.closed.Load() || p.pools.paused.Load() {
		return
	}
	pol := p.user.policy()
	for p.dialling < p.waiting.Len()-len(p.idle) && p.dialling < pol.MaxDialing &&
		p.total < p.sizeLocked(pol, now) && !now.Before(p.retryAt) && p.user.mayOpen(pol) {
		p.dialLocked()
	}
}

// sizeLocked is the number of connections allowed now: with the reserve once
// somebody has waited long enough.
func (p *nodePool) sizeLocked(pol Policy, now time.Time) int {
	if pol.Reserve > 0 {
		if e := p.waiting.Front(); e != nil && now.Sub(e.Value.(*Ticket).since) >= pol.ReserveAfter {
			return pol.Size + pol.Reserve
		}
	}
	return pol.Size
}

func (p *nodePool) dialLocked() {
	p.dialling++
	p.total++
	p.user.servers.Add(1)
	gen := p.gen.Load()
	p.pools.tasks.Go(func() { p.dial(gen) })
}

func (p *nodePool) dial(gen uint64) {
	ctx, cancel := context.WithTimeout(p.pools.ctx, p.target.ConnectTimeout)
	s, err := p.open(ctx)
	cancel()
	now := p.pools.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialling--
	if err != nil {
		p.total--
		p.user.servers.Add(-1)
		p.dialFailedLocked(err, now)
		return
	}
	p.failures, p.retryAt = 0, time.Time{}
	p.pools.stats.opened.Add(1)
	s.gen = gen
	s.fate = Clean
	p.settleLocked(s)
	p.growLocked(now)
}

// dialFailedLocked fails the queue when the node cannot be reached or will not
// have us, so that the statements may go elsewhere; a full server is no such
// reason, the queue waits for it.
func (p *nodePool) dialFailedLocked(err error, now time.Time) {
	p.failures++
	p.pools.stats.dialErrors.Add(1)
	backoff := min(time.Duration(p.failures)*100*time.Millisecond, 2*time.Second)
	p.retryAt = now.Add(backoff/2 + rand.N(backoff/2))
	if p.pools.closed.Load() {
		err = ErrClosed
	} else if p.pools.opt.OnDialError != nil {
		p.pools.opt.OnDialError(p.node, err)
	}
	if IsSaturated(err) {
		return
	}
	if p.total > 0 && !unreachable(err) {
		return // others work: those who wait get one of them
	}
	p.failWaitersLocked(&DialError{Node: p.node, Address: p.target.Address, Err: err})
}

func (p *nodePool) failWaitersLocked(err error) {
	for e := p.waiting.Front(); e != nil; e = p.waiting.Front() {
		t := p.waiting.Remove(e).(*Ticket)
		t.err = err
		t.done.Store(true)
		t.wake()
	}
}

// retire closes the idle connections and marks the others to be closed when
// they come back.
func (p *nodePool) retire() {
	p.gen.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retryAt = time.Time{}
	idle := p.idle
	p.idle = nil
	for _, s := range idle {
		p.discardLocked(s)
	}
}

// maintain closes what is too old or idle for too long, keeps the minimum, and
// retries dials that somebody waits for.
func (p *nodePool) maintain(now time.Time) {
	pol := p.user.policy()
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.idle[:0]
	spare := p.total - pol.Min
	var gone []*Server
	for _, s := range p.idle {
		tooIdle := pol.IdleTimeout > 0 && now.Sub(s.used) > pol.IdleTimeout && spare > 0
		if tooIdle || now.Sub(s.created) > s.lifetime || s.Stale() || s.Socket().Readable() {
			spare--
			gone = append(gone, s)
			continue
		}
		kept = append(kept, s)
	}
	clear(p.idle[len(kept):])
	p.idle = kept
	for _, s := range gone {
		p.discardLocked(s)
	}
	p.growLocked(now)
	for p.total < min(pol.Min, pol.Size) && p.dialling < pol.MaxDialing && !now.Before(p.retryAt) &&
		!p.pools.paused.Load() && p.user.mayOpen(pol) {
		p.dialLocked()
	}
}

func (p *nodePool) preparedMax() int { return max(p.user.policy().PreparedStatements, 1) }

// newServer wraps a connection that has just logged in.
func (p *nodePool) newServer(c *wire.Conn, pid uint32, secret []byte, reported *Reported) *Server {
	pol := p.user.policy()
	cache, err := simplelru.NewLRU[*Statement, struct{}](1<<30, nil)
	if err != nil {
		panic(err) // the size is positive
	}
	now := p.pools.now()
	// Connections opened together shall not all end together.
	life := pol.LifeTime - rand.N(max(pol.LifeTime/10, 1))
	return &Server{
		Conn: c, Node: p.node, PID: pid, Reported: reported, pool: p, prepared: cache,
		key: wire.CancelKey{PID: pid, Secret: string(secret)}, created: now, used: now,
		lifetime: life, gen: p.gen.Load(), id: p.pools.lastID.Add(1),
	}
}

// Errors of Acquire.
var (
	ErrClosed    = errors.New("pool: closed")
	ErrQueueFull = errors.New("pool: too many statements wait for a server connection")
)

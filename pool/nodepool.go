package pool

import (
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
	// reported is what the newest connection was told at login.
	reported atomic.Pointer[Reported]

	// mu serialises borrowers, dials, resets and the maintenance loop.
	mu       sync.Mutex
	idle     []*Server // most recently used last
	servers  map[*Server]struct{}
	waiting  queue
	total    int
	lent     int
	dialling int
	retryAt  time.Time // no dial before: the last one failed
	failures int
	lastSeq  uint64 // numbers tickets and dials in the order of their beginning
	reached  uint64 // the latest dial that has succeeded
}

// acquire lends an idle connection, or queues with t; it reports whether it has queued.
func (p *nodePool) acquire(prefer uint64, near *wire.Poller, wake func(), t *Ticket) (s *Server, queued bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pools.closed.Load() {
		return nil, false, ErrClosed
	}
	if !p.pools.Paused() && p.waiting.n == 0 {
		if s := p.popIdleLocked(prefer, near); s != nil {
			return s, false, nil
		}
	}
	if limit := p.user.policy().MaxWaiting; limit > 0 && p.waiting.n >= limit {
		p.pools.stats.shed.Add(1)
		return nil, false, ErrQueueFull
	}
	now := p.pools.now()
	p.lastSeq++
	t.pool, t.wake, t.since, t.seq, t.server, t.err = p, wake, now, p.lastSeq, nil, nil
	t.done.Store(false)
	p.waiting.push(t)
	p.growLocked(now)
	return nil, true, nil
}

// popIdleLocked takes the preferred connection, or else the most recently used
// one near the borrower, or of all, that is still good.
func (p *nodePool) popIdleLocked(prefer uint64, near *wire.Poller) *Server {
	if prefer != 0 {
		p.bringUpLocked(slices.IndexFunc(p.idle, func(s *Server) bool { return s.id == prefer }))
	} else if n := len(p.idle); near != nil && n > 0 && p.idle[n-1].Socket().Poller() != near {
		p.bringUpLocked(p.lastNearLocked(near))
	}
	for len(p.idle) > 0 {
		s := p.idle[len(p.idle)-1]
		p.idle[len(p.idle)-1] = nil
		p.idle = p.idle[:len(p.idle)-1]
		// An idle server has nothing to say except that it is going away.
		if s.Stale() || !s.Socket().Silent(near) && s.Socket().Readable() {
			p.discardLocked(s)
			continue
		}
		p.lendLocked(s)
		return s
	}
	return nil
}

// bringUpLocked makes the idle connection at i, if there is one, the next to be lent.
func (p *nodePool) bringUpLocked(i int) {
	if i >= 0 {
		s := p.idle[i]
		p.idle = append(slices.Delete(p.idle, i, i+1), s)
	}
}

// nearMax bounds how many idle connections are looked at for one that is near.
const nearMax = 16

func (p *nodePool) lastNearLocked(near *wire.Poller) int {
	for i := len(p.idle) - 1; i >= max(0, len(p.idle)-nearMax); i-- {
		if p.idle[i].Socket().Poller() == near {
			return i
		}
	}
	return -1
}

func (p *nodePool) lendLocked(s *Server) {
	s.lent, s.served = true, true
	p.lent++
	p.pools.stats.assigned.Add(1)
}

// discardLocked closes a connection that nobody borrows.
func (p *nodePool) discardLocked(s *Server) {
	p.total--
	delete(p.servers, s)
	p.pools.room.give(p.user)
	p.pools.stats.closed.Add(1)
	s.Drop()
	// Closing may send a TLS alert; it does not wait.
	_ = s.Conn.Close()
	p.growLocked(p.pools.now())
}

// release takes a connection back.
func (p *nodePool) release(s *Server, f Fate) {
	s.Socket().Abandon()
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

// offerLocked gives a good connection to the first in the queue, or keeps it,
// or closes it if the limits want that another pool has one.
func (p *nodePool) offerLocked(s *Server, now time.Time) {
	wanted := p.pools.room.waiting.Load() > 0
	if t := p.waiting.first; t != nil && !p.pools.Paused() {
		if wanted && s.served && p.pools.room.cede(p, p.total, t.since, now) {
			p.discardLocked(s)
			return
		}
		p.waiting.remove(t)
		p.lendLocked(s)
		p.pools.stats.waited.Add(int64(now.Sub(t.since)))
		p.pools.stats.waits.Observe(now.Sub(t.since))
		t.endLocked(s, nil)
		if wanted && !p.wantsLocked(p.user.policy(), now) {
			p.pools.room.leave(p)
		}
		return
	}
	s.used = now
	p.idle = append(p.idle, s)
	if wanted {
		p.pools.room.kick()
	}
}

// reset rolls back and discards all session state, then offers the connection.
func (p *nodePool) reset(s *Server) {
	err := s.discardAll(p.pools.opt.ResetTimeout, p.pools.opt.Enter)
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

// failWaitersLocked fails those in the queue whose number is at most upTo.
func (p *nodePool) failWaitersLocked(err error, upTo uint64) {
	for t := p.waiting.first; t != nil; t = p.waiting.first {
		if t.seq > upTo {
			return
		}
		p.waiting.remove(t)
		t.endLocked(nil, err)
	}
	p.pools.room.leave(p)
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
	p.keepMinLocked(pol, now)
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
		lifetime: life, gen: p.gen.Load(), id: p.pools.lastID.Add(1), localAddr: c.Socket().LocalAddr().String(),
	}
}

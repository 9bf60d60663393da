package pool

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// turn is how long a pool without any connection waits before a busy pool
// gives up its only one for it. Each such change of hands costs a login, so a
// bound below the number of busy pools must not bring one for every statement.
const turn = 100 * time.Millisecond

// room counts the connections, dials included, that the limits over several
// pools bound: Options.MaxServers and Policy.MaxServers. The pools that such a
// limit keeps from dialling wait in it, first come first served. It only
// counts: Pools.makeRoom closes what others can spare and grants the places.
type room struct {
	max  int           // connections in all; 0: no limit
	wake chan struct{} // one slot: makeRoom may have something to do
	// waiting is len(queue), for a look without the lock.
	waiting atomic.Int64

	// mu guards taken, queue and every User.servers. It is a leaf.
	mu    sync.Mutex
	taken int
	queue []*place
}

// place is one pool in the queue for room.
type place struct {
	pool  *nodePool
	since time.Time
	have  int // connections of the pool when it asked last
}

func newRoom(limit int) *room { return &room{max: limit, wake: make(chan struct{}, 1)} }

// kick makes makeRoom look at the queue.
func (r *room) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// userFullLocked reports that the user's own limit leaves no room.
func (r *room) userFullLocked(u *User) bool {
	limit := u.policy().MaxServers
	return limit > 0 && u.servers >= limit
}

func (r *room) fullLocked() bool { return r.max > 0 && r.taken >= r.max }

func (r *room) fitsLocked(u *User) bool { return !r.fullLocked() && !r.userFullLocked(u) }

func (r *room) findLocked(p *nodePool) int {
	return slices.IndexFunc(r.queue, func(q *place) bool { return q.pool == p })
}

// firstLocked returns whose turn it is: the first in the queue that the limits
// leave room; -1 when there is none.
func (r *room) firstLocked() int {
	return slices.IndexFunc(r.queue, func(q *place) bool { return r.fitsLocked(q.pool.user) })
}

// promoteLocked makes the i-th in the queue the first.
func (r *room) promoteLocked(i int) {
	q := r.queue[i]
	r.queue = slices.Insert(slices.Delete(r.queue, i, i+1), 0, q)
}

func (r *room) countLocked(u *User, n int) {
	r.taken += n
	u.servers += n
}

func (r *room) removeLocked(i int) {
	r.queue = slices.Delete(r.queue, i, i+1)
	r.waiting.Store(int64(len(r.queue)))
}

// take counts one more connection of the pool, which has have of them, if the
// limits allow it and nobody who waits could use the place. Otherwise, with
// queue, the pool waits for its turn.
func (r *room) take(p *nodePool, have int, now time.Time, queue bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.findLocked(p); i >= 0 {
		r.queue[i].have = have
		return false
	}
	if r.firstLocked() < 0 && r.fitsLocked(p.user) {
		r.countLocked(p.user, 1)
		return true
	}
	if queue {
		r.queue = append(r.queue, &place{pool: p, since: now, have: have})
		r.waiting.Store(int64(len(r.queue)))
		r.kick()
	}
	return false
}

// give counts one connection of the user less.
func (r *room) give(u *User) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.countLocked(u, -1)
	if len(r.queue) > 0 {
		r.kick()
	}
}

// leave takes the pool out of the queue.
func (r *room) leave(p *nodePool) {
	if r.waiting.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.findLocked(p); i >= 0 {
		r.removeLocked(i)
	}
}

// admit ends the wait of the first pool that the limits no longer keep, if it
// is this one, and counts its new connection.
func (r *room) admit(p *nodePool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := r.firstLocked()
	if i < 0 || r.queue[i].pool != p {
		return false
	}
	r.removeLocked(i)
	r.countLocked(p.user, 1)
	return true
}

// queued returns the pools that wait, in their order.
func (r *room) queued() []*nodePool {
	if r.waiting.Load() == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*nodePool, len(r.queue))
	for i, q := range r.queue {
		all[i] = q.pool
	}
	return all
}

// promote makes the pool the first in the queue.
func (r *room) promote(p *nodePool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.findLocked(p); i >= 0 {
		r.promoteLocked(i)
	}
}

// search says whose connection must go for a pool to get one, and whether one
// may be taken that its own pool is meant to keep (Policy.Min).
type search struct {
	of  *User // nil: anybody's
	min bool
}

// obstacle returns what search would help the pool, false when it needs none.
func (r *room) obstacle(p *nodePool) (search, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.userFullLocked(p.user):
		return search{of: p.user}, true
	case r.fullLocked():
		return search{}, true
	}
	return search{}, false
}

// cede reports whether the pool must give up a connection although its own
// borrowers wait, the first of them since since: another pool has waited
// longer, is poorer by more than the one connection, and gets it next. So
// pools that are busy all the time come to share what the limit allows, and
// then leave it at that.
func (r *room) cede(p *nodePool, have int, since, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	spare := have > p.user.policy().Min
	i := slices.IndexFunc(r.queue, func(q *place) bool {
		switch {
		case q.pool == p || !q.since.Before(since) || !spare && q.have > 0:
			return false
		case r.fitsLocked(q.pool.user) || r.userFullLocked(q.pool.user) && q.pool.user != p.user:
			return false // it has its place already, or this one is of no use to it
		}
		return have > q.have+1 || q.have == 0 && now.Sub(q.since) >= turn
	})
	if i < 0 {
		return false
	}
	r.promoteLocked(i)
	if i := r.findLocked(p); i >= 0 {
		// It had its turn; the wait for the next begins now.
		own := r.queue[i]
		own.since, own.have = now, have-1
		r.queue = append(slices.Delete(r.queue, i, i+1), own)
	}
	return true
}

// makeRoom grants places to the pools that wait for one, in their order, and
// closes the connections for it that others do not need. Only the maintenance
// loop calls it; it holds one pool's lock at a time.
func (p *Pools) makeRoom() {
	barren := map[search]bool{}
	for _, n := range p.room.queued() {
		if n.enter() {
			continue
		}
		s, blocked := p.room.obstacle(n)
		if !blocked {
			continue
		}
		// Within others' minimum only for who has nothing at all.
		for _, s.min = range []bool{false, true} {
			if s.min && n.connections() > 0 || barren[s] {
				continue
			}
			if !p.evict(s) {
				barren[s] = true
				continue
			}
			if s.min {
				p.room.promote(n) // the place was made for nobody else
			}
			n.enter() // or, if another is first, at the next look
			break
		}
	}
}

// evict closes the connection that has been idle for the longest time, of
// those that the search allows.
func (p *Pools) evict(s search) bool {
	for {
		var victim *nodePool
		var oldest time.Time
		p.each(func(n *nodePool) {
			if s.of != nil && n.user != s.of {
				return
			}
			if used, ok := n.idleSince(s.min); ok && (victim == nil || used.Before(oldest)) {
				victim, oldest = n, used
			}
		})
		if victim == nil {
			return false
		}
		if victim.closeIdle(s.min) {
			return true
		}
		// Lent in between: look again.
	}
}

// connections returns how many there are, dials included.
func (p *nodePool) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.total
}

// enter dials if the pool has room now; a pool that needs none stops waiting
// for it. It reports whether nothing is left to be done for the pool.
func (p *nodePool) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.pools.now()
	if !p.wantsLocked(p.user.policy(), now) {
		p.pools.room.leave(p)
		return true
	}
	if !p.pools.room.admit(p) {
		return false
	}
	p.dialLocked(now)
	p.growLocked(now) // for more, it queues again
	return true
}

// idleSince returns since when the pool's longest idle connection is; false
// when there is none to spare.
func (p *nodePool) idleSince(intoMin bool) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.maySpareLocked(intoMin) {
		return time.Time{}, false
	}
	return p.idle[0].used, true
}

func (p *nodePool) maySpareLocked(intoMin bool) bool {
	return len(p.idle) > 0 && (intoMin || p.total > p.user.policy().Min)
}

// closeIdle closes the longest idle connection if there is still one to spare.
func (p *nodePool) closeIdle(intoMin bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.maySpareLocked(intoMin) {
		return false
	}
	s := p.idle[0]
	p.idle = slices.Delete(p.idle, 0, 1)
	p.pools.opt.Logger.Debug("idle server connection closed to make room for another",
		"user", p.user.Name, "node", p.target.Address)
	p.discardLocked(s)
	return true
}

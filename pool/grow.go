package pool

import (
	"context"
	"math/rand/v2"
	"time"
)

// wantsLocked reports whether the queue needs another dial and the limits of
// the pool itself allow one.
func (p *nodePool) wantsLocked(pol Policy, now time.Time) bool {
	return !p.pools.closed.Load() && !p.pools.Paused() &&
		p.dialling < p.waiting.n-len(p.idle) && p.dialling < pol.MaxDialing &&
		p.total < p.sizeLocked(pol, now) && !now.Before(p.retryAt)
}

// growLocked starts as many dials as the queue needs and the limits allow.
// Where a limit over several pools does not, the pool waits for room.
func (p *nodePool) growLocked(now time.Time) {
	pol := p.user.policy()
	for p.wantsLocked(pol, now) {
		if !p.pools.room.take(p, p.total, now, true) {
			return
		}
		p.dialLocked(now)
	}
}

// keepMinLocked dials for the minimum, where nobody else waits for the room.
func (p *nodePool) keepMinLocked(pol Policy, now time.Time) {
	for p.total < min(pol.Min, pol.Size) && p.dialling < pol.MaxDialing && !now.Before(p.retryAt) &&
		!p.pools.closed.Load() && !p.pools.Paused() && p.pools.room.take(p, p.total, now, false) {
		p.dialLocked(now)
	}
}

// sizeLocked is the number of connections allowed now: with the reserve once
// somebody has waited long enough.
func (p *nodePool) sizeLocked(pol Policy, now time.Time) int {
	if pol.Reserve > 0 {
		if t := p.waiting.first; t != nil && now.Sub(t.since) >= pol.ReserveAfter {
			return pol.Size + pol.Reserve
		}
	}
	return pol.Size
}

// dialLocked starts a dial that room has been taken for.
func (p *nodePool) dialLocked(now time.Time) {
	p.dialling++
	p.total++
	p.lastSeq++
	d := attempt{seq: p.lastSeq, gen: p.gen.Load()}
	p.pools.tasks.Go(func() { p.dial(d) })
}

// attempt is one dial. seq orders it among the pool's dials and tickets by
// their beginning.
type attempt struct{ seq, gen uint64 }

func (p *nodePool) dial(d attempt) {
	ctx, cancel := context.WithTimeout(p.pools.ctx, p.target.ConnectTimeout)
	s, err := p.open(ctx)
	cancel()
	now := p.pools.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dialling--
	if err != nil {
		p.total--
		p.pools.room.give(p.user)
		p.dialFailedLocked(d, err, now)
		return
	}
	p.failures, p.retryAt = 0, time.Time{}
	p.reached = max(p.reached, d.seq)
	p.pools.stats.opened.Add(1)
	s.gen = d.gen
	s.fate = Clean
	if p.servers == nil {
		p.servers = map[*Server]struct{}{}
	}
	p.servers[s] = struct{}{}
	p.settleLocked(s)
	p.growLocked(now)
}

// dialFailedLocked fails those who wait when the node cannot be reached or will
// not have us, so that the statements may go elsewhere; a full server is no such
// reason, the queue waits for it. Nor is a failure that a later dial's success
// has made stale: the queue is served by it and by the dials that follow.
func (p *nodePool) dialFailedLocked(d attempt, err error, now time.Time) {
	p.pools.stats.dialErrors.Add(1)
	if p.pools.closed.Load() {
		err = ErrClosed
	} else if p.pools.opt.OnDialError != nil {
		p.pools.opt.OnDialError(p.node, err)
	}
	if d.seq < p.reached {
		p.growLocked(now)
		return
	}
	p.failures++
	backoff := min(time.Duration(p.failures)*100*time.Millisecond, 2*time.Second)
	p.retryAt = now.Add(backoff/2 + rand.N(backoff/2))
	failed := &DialError{Node: p.node, Address: p.target.Address, Err: err}
	switch {
	case IsSaturated(err):
	case unreachable(err):
		p.failWaitersLocked(failed, p.lastSeq)
	case p.total > p.dialling:
		// Others work: those who wait get one of them.
	default:
		// Who came later gets a dial of its own.
		p.failWaitersLocked(failed, d.seq)
	}
}

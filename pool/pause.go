package pool

import (
	"context"
	"sync"
)

// pausing is one time of being paused, from the first Pause to Resume.
type pausing struct{ over chan struct{} } // closed by Resume

// signal tells all who wait at a moment that something has happened. Its mu is
// a leaf.
type signal struct {
	mu sync.Mutex
	ch chan struct{} // nil while nobody waits
}

// next returns a channel that the next send closes.
func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) send() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// Pause stops lending and waits until every connection on loan has come back;
// then it closes the idle ones. Any number may wait at a time. When ctx ends
// first, its error is returned and the pause stays in force; when Resume comes
// first, ErrResumed is.
func (p *Pools) Pause(ctx context.Context) error {
	mine := &pausing{over: make(chan struct{})}
	for !p.pausing.CompareAndSwap(nil, mine) {
		if other := p.pausing.Load(); other != nil {
			mine = other
			break
		}
	}
	for {
		// Before the count: what comes back after it is not missed.
		news := p.returned.next()
		if p.Lent() == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-mine.over:
			return ErrResumed
		case <-news:
		}
	}
	select {
	case <-mine.over:
		return ErrResumed
	default:
	}
	for i := range p.opt.Nodes {
		p.Retire(i)
	}
	return nil
}

// notePaused wakes those who wait in Pause.
func (p *Pools) notePaused() {
	if p.Paused() {
		p.returned.send()
	}
}

// Resume lends again, those who waited first, and ends every Pause that still
// waits.
func (p *Pools) Resume() {
	if was := p.pausing.Swap(nil); was != nil {
		close(was.over)
	}
	p.each(func(n *nodePool) {
		n.mu.Lock()
		defer n.mu.Unlock()
		now := p.now()
		for n.waiting.n > 0 {
			s := n.popIdleLocked(0, nil)
			if s == nil {
				break
			}
			s.lent = false
			n.lent--
			n.offerLocked(s, now)
		}
		n.growLocked(now)
	})
}

// Paused reports whether Pause is in force.
func (p *Pools) Paused() bool { return p.pausing.Load() != nil }

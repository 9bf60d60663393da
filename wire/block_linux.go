package wire

import (
	"os"
	"sync"
	"time"
)

// blockAtMost is how long a blocked goroutine trusts that it is told.
const blockAtMost = 100 * time.Millisecond

// blocked is a goroutine that uses a socket in blocking mode and waits until it can be read, or written.
// It holds no thread and no processor meanwhile, as poll(2) would until the scheduler has
// noticed that it waits.
type blocked struct {
	told  chan struct{}
	timer *time.Timer
}

var blockeds = sync.Pool{New: func() any {
	b := &blocked{told: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	b.timer.Stop()
	return b
}}

// Ready implements Waiter.
func (b *blocked) Ready(*Socket, bool, bool) {
	select {
	case b.told <- struct{}{}:
	default:
	}
}

// block waits until the socket is readable or writable, whichever is wanted. It may return early. It reports
// whether p could wait: not when it is closed. One goroutine may read while another one writes; that which
// runs Wait may do neither.
func (p *Poller) block(s *Socket, want readiness) (served bool, err error) {
	limit := blockAtMost
	if s.deadline != 0 {
		left := time.Until(time.Unix(0, s.deadline))
		if left <= 0 {
			return true, os.ErrDeadlineExceeded
		}
		limit = min(limit, left)
	}
	b := blockeds.Get().(*blocked)
	defer blockeds.Put(b) // what it may be told later has the next one look in vain
	if served, err = p.enlist(s, want, b); !served || err != nil {
		return served, err
	}
	b.timer.Reset(limit)
	defer b.timer.Stop()
	select {
	case <-b.told:
	case <-b.timer.C:
	case <-p.gone:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.blocked[want.index()] == b {
		s.blocked[want.index()] = nil
	}
	return true, nil
}

// index is the place in Socket.blocked.
func (r readiness) index() int { return int(r) - 1 }

// enlist has b told, once, in the owner's place.
func (p *Poller) enlist(s *Socket, want readiness, b *blocked) (open bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false, nil
	}
	s.blocked[want.index()] = b
	if all := s.blockedFor(); all&^s.armed != 0 {
		if err = p.controlLocked(s, all); err != nil {
			s.blocked[want.index()] = nil
		}
	}
	return true, err
}

// blockedFor is what goroutines that block wait for.
func (s *Socket) blockedFor() (all readiness) {
	for i, b := range s.blocked {
		if b != nil {
			all |= readiness(i + 1)
		}
	}
	return all
}

// unblockLocked tells those that wait for what the socket is. The kernel looks no more then for who has been
// told: who reads does so some time later, and until then it would tell again and again.
func (p *Poller) unblockLocked(s *Socket, is readiness) {
	for i, b := range s.blocked {
		if b != nil && is&readiness(i+1) != 0 {
			p.ready = append(p.ready, Ready{Owner: b, Socket: s})
			s.blocked[i] = nil
		}
	}
	_ = p.controlLocked(s, s.blockedFor()) // whoever blocks next finds out
}

package auth

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"shardproxy/config"
	"shardproxy/wire"
)

const (
	// maxWaitDelays is how many times the longest delay an attempt may have to
	// wait; whoever would have to wait longer is refused.
	maxWaitDelays = 3
	// patience is the number of failures from which on attempts are refused.
	// Before it they wait: after one typing error a thousand clients may start
	// from the same address, and the first of them clears the way for all.
	patience = 5
)

// distance returns the pause between attempts after so many failures in a row.
func distance(limits config.Throttle, failures int) time.Duration {
	d := limits.Delay
	for i := 1; i < failures && d < limits.MaxDelay; i++ {
		d *= 2
	}
	return min(d, limits.MaxDelay)
}

// throttle slows password guessing down. Each failure from an address doubles
// the distance between attempts that are let through from there; attempts wait
// their turn. A success from the address forgets its failures. The addresses
// remembered are bounded; the one whose last failure is longest ago goes first.
type throttle struct {
	now func() time.Time

	mu      sync.Mutex
	limits  config.Throttle
	strikes *simplelru.LRU[netip.Prefix, *strikes]
	waited  uint64
	refused uint64
}

// strikes are the failures of one address.
type strikes struct {
	failures int
	last     time.Time     // of the last failure
	next     time.Time     // when the next attempt may start
	cleared  chan struct{} // closed by a success
}

func newThrottle(now func() time.Time) (*throttle, error) {
	table, err := simplelru.NewLRU[netip.Prefix, *strikes](1, nil)
	return &throttle{now: now, strikes: table}, err
}

func (t *throttle) configure(limits config.Throttle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.limits = limits
	t.strikes.Resize(max(1, limits.MaxAddresses))
}

// throttleKey is who shares a count: an IPv4 address, or an IPv6 /64, which
// one guesser usually has whole.
func throttleKey(addr netip.Addr) netip.Prefix {
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // only a zone or too many bits are errors
	return p
}

// wait lets an attempt through at once, or when its turn has come. Clients of
// Unix-domain sockets have no address and are never held up.
func (t *throttle) wait(ctx context.Context, addr netip.Addr) error {
	if !addr.IsValid() {
		return nil
	}
	pause, cleared, refused := t.reserve(throttleKey(addr))
	if refused {
		return wire.Fatal("53300", "too many failed logins from address %s", addr).
			WithHint("Wait, then try again.")
	}
	if pause <= 0 {
		return nil
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-cleared:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reserve takes the next free turn. The turns of one address follow each other
// at its distance, however many connections ask at once.
func (t *throttle) reserve(key netip.Prefix) (pause time.Duration, cleared <-chan struct{}, refused bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.strikes.Peek(key)
	now := t.now()
	if !ok || t.limits.Delay <= 0 {
		return 0, nil, false
	}
	if now.Sub(s.last) >= t.limits.ForgetAfter {
		t.forgetLocked(key, s)
		return 0, nil, false
	}
	start := now
	if s.next.After(now) {
		start = s.next
	}
	pause = start.Sub(now)
	if longest := maxWaitDelays * t.limits.MaxDelay; pause > longest {
		if s.failures >= patience {
			t.refused++
			return 0, nil, true
		}
		t.waited++
		return longest, s.cleared, false
	}
	if pause > 0 {
		t.waited++
	}
	s.next = start.Add(distance(t.limits, s.failures))
	return pause, s.cleared, false
}

func (t *throttle) forgetLocked(key netip.Prefix, s *strikes) {
	close(s.cleared)
	t.strikes.Remove(key)
}

// failed counts a wrong password.
func (t *throttle) failed(addr netip.Addr) {
	if !addr.IsValid() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	key, now := throttleKey(addr), t.now()
	s, ok := t.strikes.Get(key)
	if !ok {
		s = &strikes{cleared: make(chan struct{})}
		t.strikes.Add(key, s)
	}
	s.failures++
	s.last = now
	if next := now.Add(distance(t.limits, s.failures)); next.After(s.next) {
		s.next = next
	}
}

// succeeded forgets the address's failures and lets those who wait through.
func (t *throttle) succeeded(addr netip.Addr) {
	if !addr.IsValid() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	key := throttleKey(addr)
	if s, ok := t.strikes.Peek(key); ok {
		t.forgetLocked(key, s)
	}
}

// counts returns the size of the table and how many attempts have waited and
// have been refused.
func (t *throttle) counts() (addresses int, waited, refused uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.strikes.Len(), t.waited, t.refused
}

package gate

import (
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// broken is a breaker in a time of its own, ticked each tenth of a second.
type broken struct {
	Breaker
	t    testing.TB
	opts BreakerOptions
	down bool // not ready
	now  time.Time
}

func newBroken(t testing.TB) *broken {
	return &broken{t: t, now: time.Unix(1000, 0),
		opts: BreakerOptions{Share: 0.5, Least: 6, Window: time.Second, OpenFor: 2 * time.Second, OpenMax: 5 * time.Second}}
}

// tick lets so many tenths of a second pass, in each of which as many come as each says: those who get through succeed or fail.
func (b *broken) tick(tenths, good, bad int) {
	for range tenths {
		for n := range good + bad {
			if !b.Admits(!b.down) {
				continue
			}
			if b.Tried(); n >= good {
				b.Failed("58030")
			}
		}
		b.now = b.now.Add(100 * time.Millisecond)
		b.Tick(b.opts, !b.down, b.now)
	}
}

func (b *broken) is(want BreakerState) {
	b.t.Helper()
	if got := b.Status(); got.State != want {
		b.t.Fatalf("%v, want %v: %+v", got.State, want, got)
	}
}

func TestBreakerOpens(t *testing.T) {
	for name, c := range map[string]struct {
		run  func(b *broken)
		want BreakerState
	}{
		"half of them fail":        {func(b *broken) { b.tick(10, 2, 2) }, BreakerOpen},
		"fewer fail":               {func(b *broken) { b.tick(40, 3, 2) }, BreakerClosed},
		"too few":                  {func(b *broken) { b.tick(5, 0, 1) }, BreakerClosed},
		"enough over all the time": {func(b *broken) { b.tick(6, 0, 1) }, BreakerOpen},
		"at once, and over":        {func(b *broken) { b.tick(2, 0, 50); b.tick(20, 1, 0) }, BreakerClosed},
		"at once, and nobody else": {func(b *broken) { b.tick(2, 0, 50); b.tick(20, 0, 0) }, BreakerClosed},
		"long ago":                 {func(b *broken) { b.tick(5, 0, 1); b.tick(10, 0, 0); b.tick(5, 0, 1) }, BreakerClosed},
		"a late tick": {func(b *broken) { b.tick(2, 0, 3); b.now = b.now.Add(time.Minute); b.tick(1, 0, 3) },
			BreakerClosed},
		"off": {func(b *broken) { b.opts = BreakerOptions{}; b.tick(40, 0, 9) }, BreakerClosed},
		"turned off": {func(b *broken) { b.tick(10, 0, 2); b.is(BreakerOpen); b.opts = BreakerOptions{}; b.tick(1, 0, 2) },
			BreakerClosed},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBroken(t)
			b.tick(1, 0, 0)
			c.run(b)
			b.is(c.want)
		})
	}
}

// TestBreakerComesBack: an open one refuses all, then lets three through, and closes when these fare well.
func TestBreakerComesBack(t *testing.T) {
	b := newBroken(t)
	b.tick(1, 0, 0)
	b.tick(10, 0, 2)
	b.is(BreakerOpen)
	if s := b.Status(); s.Last != "58030" || s.Fails != s.Tries || s.Fails < 6 || s.Opened != 1 || s.Retry.IsZero() {
		t.Errorf("%+v", s)
	}
	if refused := b.Status().Refused; b.Admits(true) || b.Status().Refused != refused+1 {
		t.Error("one got through")
	}
	for b.Status().State == BreakerOpen {
		b.tick(1, 0, 0)
	}
	b.is(BreakerHalfOpen)
	passed := 0
	for range 10 {
		if b.Admits(true) {
			passed++
			b.Tried()
		}
	}
	if passed != breakerTrials {
		t.Errorf("%d got through", passed)
	}
	b.tick(9, 0, 0)
	b.is(BreakerHalfOpen)
	b.tick(3, 0, 0)
	b.is(BreakerClosed)
	if !b.Admits(true) {
		t.Error("it is closed, and nobody gets through")
	}
	if s := b.Status(); s.Tries != 0 || s.Fails != 0 || !s.Retry.IsZero() {
		t.Errorf("it has not forgotten: %+v", s)
	}
}

// TestBreakerStaysAway opens for longer each time that a trial fails, and is told when there is no sense in one.
func TestBreakerStaysAway(t *testing.T) {
	b := newBroken(t)
	b.tick(1, 0, 0)
	b.tick(10, 0, 2)
	for i, want := range []time.Duration{2, 4, 5, 5} {
		b.is(BreakerOpen)
		if s := b.Status(); s.Retry.Sub(s.Since) != want*time.Second {
			t.Errorf("the %d. time for %v", i, s.Retry.Sub(s.Since))
		}
		for b.Status().State == BreakerOpen {
			b.tick(1, 0, 0)
		}
		b.is(BreakerHalfOpen)
		b.tick(1, 0, 1)
	}
	// It does not find out about a shard that its probes do not find.
	b.down = true
	b.tick(200, 0, 0)
	b.is(BreakerOpen)
	opened := b.Status().Opened
	// When they do, it is tried at once.
	b.now = b.Status().Retry
	b.down = false
	b.tick(1, 0, 0)
	b.is(BreakerHalfOpen)
	b.down = true
	if b.Admits(false) {
		t.Error("one was let through to no primary")
	}
	b.down = false
	b.tick(1, 3, 0)
	b.tick(11, 0, 0)
	b.is(BreakerClosed)
	if b.Status().Opened != opened {
		t.Error("it opened once more")
	}
	// It opens for as long as at first.
	b.tick(10, 0, 2)
	if s := b.Status(); s.Retry.Sub(s.Since) != 2*time.Second {
		t.Errorf("for %v", s.Retry.Sub(s.Since))
	}
}

// TestBreakerReadyEarly: a shard whose primary is back is tried before the time is over.
func TestBreakerReadyEarly(t *testing.T) {
	b := newBroken(t)
	b.tick(1, 0, 0)
	b.tick(6, 0, 2)
	b.is(BreakerOpen)
	b.down = true
	b.tick(2, 0, 0)
	b.is(BreakerOpen)
	b.down = false
	b.tick(1, 0, 0)
	b.is(BreakerHalfOpen)
}

// TestBreakerTrialsLost: those who were let through and gave up before they came to the shard are made up for.
func TestBreakerTrialsLost(t *testing.T) {
	b := newBroken(t)
	b.tick(1, 0, 0)
	b.tick(10, 0, 2)
	for b.Status().State == BreakerOpen {
		b.tick(1, 0, 0)
	}
	for range breakerTrials {
		b.Admits(true)
	}
	b.tick(19, 0, 0)
	if b.Admits(true) {
		t.Error("a fourth got through")
	}
	b.tick(2, 0, 0)
	b.is(BreakerHalfOpen)
	if !b.Admits(true) {
		t.Error("nobody is let through any more")
	}
}

// TestBreakerAlwaysComesBack: whatever happens, a shard that fails nothing is not left alone for ever, and one that is
// never asked for anything bad is never left alone.
func TestBreakerAlwaysComesBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := newBroken(t)
		harmless := rapid.Bool().Draw(rt, "harmless")
		for range rapid.IntRange(0, 60).Draw(rt, "steps") {
			bad := rapid.IntRange(0, 5).Draw(rt, "bad")
			if harmless {
				bad = 0
			}
			b.down = rapid.IntRange(0, 5).Draw(rt, "down") == 0
			b.tick(rapid.IntRange(1, 30).Draw(rt, "tenths"), rapid.IntRange(0, 5).Draw(rt, "good"), bad)
			if harmless && b.Status().State != BreakerClosed {
				rt.Fatal("it opened for nothing")
			}
		}
		b.down = false
		b.tick(int((b.opts.OpenMax+breakerQuiet)/(100*time.Millisecond))+5, 1, 0)
		if s := b.Status(); s.State != BreakerClosed {
			rt.Fatalf("it does not close: %+v", s)
		}
	})
}

// TestBreakerTogether has many come at once: no more than the trials get through.
func TestBreakerTogether(t *testing.T) {
	b := newBroken(t)
	b.tick(1, 0, 0)
	b.tick(10, 0, 2)
	for b.Status().State == BreakerOpen {
		b.tick(1, 0, 0)
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for range 20 {
		group.Go(func() {
			for range 100 {
				if b.Admits(true) {
					mu.Lock()
					passed++
					mu.Unlock()
				}
			}
		})
	}
	group.Wait()
	if passed != breakerTrials {
		t.Errorf("%d got through", passed)
	}
}

package gate

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// waiter is one caller and what happened to it.
type waiter struct {
	ticket *Ticket
	wakes  atomic.Int32
	woken  chan struct{}
}

func enter(t testing.TB, g *Gate) *waiter {
	t.Helper()
	w := &waiter{woken: make(chan struct{})}
	ticket, err := g.Enter(func() {
		if w.wakes.Add(1) == 1 {
			close(w.woken)
		}
	})
	if err != nil {
		t.Fatalf("Enter: %v", err)
	}
	w.ticket = ticket
	return w
}

func wantState(t testing.TB, w *waiter, want State) {
	t.Helper()
	if got := w.ticket.State(); got != want {
		t.Fatalf("ticket is %v, want %v", got, want)
	}
	wakes := int32(1)
	if want == Waiting || want == Cancelled {
		wakes = 0
	}
	if got := w.wakes.Load(); got != wakes {
		t.Fatalf("a %v ticket was woken %d times, want %d", want, got, wakes)
	}
}

func TestOpenGateLetsThrough(t *testing.T) {
	g := New(Options{})
	if g.Closed() {
		t.Fatal("a new gate is closed")
	}
	if w := enter(t, g); w.ticket != nil {
		t.Fatal("an open gate gave a ticket")
	}
	if n := testing.AllocsPerRun(100, func() {
		if g.Closed() {
			t.Fatal("closed")
		}
	}); n != 0 {
		t.Fatalf("Closed allocates %v times", n)
	}
}

func TestReleaseInStepsThatDouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{DrainBatch: 2, DrainInterval: time.Second})
		g.Close("no primary")
		var ws []*waiter
		for range 9 {
			ws = append(ws, enter(t, g))
		}
		if s := g.Stats(); s.HeldNow != 9 || s.Reason != "no primary" || !s.Closed || s.OldestSince.IsZero() {
			t.Fatalf("stats %+v", s)
		}
		g.Open()
		for _, releasedN := range []int{2, 6, 9} {
			synctest.Wait()
			for i, w := range ws {
				want := Waiting
				if i < releasedN {
					want = Released
				}
				wantState(t, w, want)
			}
			if got, want := g.Closed(), releasedN < 9; got != want {
				t.Fatalf("after %d releases Closed is %v", releasedN, got)
			}
			time.Sleep(time.Second)
		}
		if s := g.Stats(); s.Closed || s.Totals.Released != 9 || s.Totals.LongestHeld != 2*time.Second {
			t.Fatalf("stats %+v", s)
		}
	})
}

func TestNewcomersQueueBehindADrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{MaxHeld: 3, DrainBatch: 1, DrainInterval: time.Second})
		g.Close("x")
		enter(t, g)
		second := enter(t, g)
		g.Open()
		third, fourth := enter(t, g), enter(t, g)
		if third.ticket == nil || fourth.ticket == nil {
			t.Fatal("a newcomer overtook those who were held")
		}
		// The bound is never a refusal while the shard is there.
		if over := enter(t, g); over.ticket != nil {
			t.Fatal("more than MaxHeld are held")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		wantState(t, second, Released)
		time.Sleep(time.Second)
		synctest.Wait()
		wantState(t, fourth, Released)
		if g.Closed() {
			t.Fatal("still closed after the drain")
		}
	})
}

func TestTimeoutIsEachTicketsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{HoldTimeout: 10 * time.Second})
		g.Close("x")
		first := enter(t, g)
		time.Sleep(4 * time.Second)
		second := enter(t, g)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		wantState(t, first, TimedOut)
		wantState(t, second, Waiting)
		// The queue runs empty and fills again: the timer must be armed anew.
		time.Sleep(4 * time.Second)
		synctest.Wait()
		wantState(t, second, TimedOut)
		third := enter(t, g)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		wantState(t, third, TimedOut)
		g.Open()
	})
}

func TestTimeoutAfterTheFirstLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{HoldTimeout: 10 * time.Second})
		g.Close("x")
		first := enter(t, g)
		time.Sleep(time.Second)
		second := enter(t, g)
		if !first.ticket.Cancel() || first.ticket.Cancel() {
			t.Fatal("Cancel is true once")
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		wantState(t, first, Cancelled)
		wantState(t, second, TimedOut)
		g.Open()
	})
}

func TestClosedAgainDuringADrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{HoldTimeout: 10 * time.Second, DrainBatch: 1, DrainInterval: time.Second})
		g.Close("first")
		a, b := enter(t, g), enter(t, g)
		g.Open()
		g.Close("second")
		time.Sleep(5 * time.Second) // the drain step of the first opening would run here
		synctest.Wait()
		wantState(t, a, Released)
		wantState(t, b, Waiting)
		time.Sleep(5 * time.Second) // its deadline has not moved
		synctest.Wait()
		wantState(t, b, TimedOut)
		g.Open()
	})
}

func TestBoundAndShutdown(t *testing.T) {
	g := New(Options{MaxHeld: 2})
	g.Close("x")
	a, b := enter(t, g), enter(t, g)
	if _, err := g.Enter(func() { t.Error("woken") }); !errors.Is(err, ErrFull) {
		t.Fatalf("third ticket: %v", err)
	}
	if !a.ticket.Cancel() {
		t.Fatal("not cancelled")
	}
	c := enter(t, g) // the place is free again
	g.Shutdown()
	g.Shutdown()
	wantState(t, b, Evicted)
	wantState(t, c, Evicted)
	g.Open()
	g.Close("y")
	if _, err := g.Enter(func() {}); !errors.Is(err, ErrShutdown) {
		t.Fatalf("after Shutdown: %v", err)
	}
	want := Totals{Closures: 1, Held: 3, Evicted: 2, Cancelled: 1, Refused: 1}
	got := g.Stats().Totals
	got.HeldTime, got.LongestHeld = 0, 0
	if got != want {
		t.Fatalf("totals %+v, want %+v", got, want)
	}
}

// A callback may use the gate.
func TestWakeMayCallTheGate(t *testing.T) {
	g := New(Options{})
	g.Close("x")
	done := false
	if _, err := g.Enter(func() { g.Close("again"); g.Stats(); g.Open(); done = true }); err != nil {
		t.Fatal(err)
	}
	g.Open()
	if !done {
		t.Fatal("not woken")
	}
}

// TestConcurrent lets many enter, leave, open and close at once: nobody is
// left behind and nobody is woken twice.
func TestConcurrent(t *testing.T) {
	g := New(Options{HoldTimeout: time.Minute, MaxHeld: 64, DrainBatch: 3, DrainInterval: 50 * time.Microsecond})
	var entering, toggling sync.WaitGroup
	stop := make(chan struct{})
	toggling.Go(func() {
		for {
			select {
			case <-stop:
				g.Open()
				return
			default:
				g.Close("x")
				g.Open()
			}
		}
	})
	for n := range 16 {
		entering.Go(func() {
			for i := range 2000 {
				w := &waiter{woken: make(chan struct{})}
				ticket, err := g.Enter(func() {
					if w.wakes.Add(1) == 1 {
						close(w.woken)
					}
				})
				if err != nil || ticket == nil {
					continue
				}
				if i%7 == n%7 && ticket.Cancel() {
					continue
				}
				<-w.woken
				if s := ticket.State(); s != Released {
					t.Errorf("ticket is %v", s)
				}
				if k := w.wakes.Load(); k != 1 {
					t.Errorf("woken %d times", k)
				}
			}
		})
	}
	entering.Wait()
	close(stop)
	toggling.Wait()
	s := g.Stats()
	if s.HeldNow != 0 || s.Totals.Held != s.Totals.Released+s.Totals.Cancelled {
		t.Fatalf("stats %+v", s)
	}
}

// lateClock fires its timers when told, stopped or not: a timer's function may
// already be running when Stop is called.
type lateClock struct {
	now    time.Time
	timers []func()
}

type lateTimer struct{}

func (lateTimer) Stop() bool { return false }

func (c *lateClock) Now() time.Time { return c.now }

func (c *lateClock) AfterFunc(_ time.Duration, f func()) Timer {
	c.timers = append(c.timers, f)
	return lateTimer{}
}

func TestTimersOfEarlierGenerationsDoNothing(t *testing.T) {
	clock := &lateClock{}
	g := New(Options{DrainBatch: 1, HoldTimeout: time.Second, Clock: clock})
	g.Close("x")
	enter(t, g)
	b := enter(t, g)
	g.Open()
	clock.now = clock.now.Add(time.Hour)
	clock.timers[0]() // the expiry armed before Open: b is being drained now, not late
	wantState(t, b, Waiting)
	g.Close("y")
	clock.timers[1]() // the drain of the opening that is over
	wantState(t, b, Waiting)
	g.Open()
	wantState(t, b, Released)
}

func TestLastOneOfADrainLeaves(t *testing.T) {
	clock := &lateClock{}
	g := New(Options{DrainBatch: 1, Clock: clock})
	g.Close("x")
	enter(t, g)
	b := enter(t, g)
	g.Open()
	if !g.Closed() || !b.ticket.Cancel() || g.Closed() {
		t.Fatal("the gate must open for good when nobody waits any more")
	}
}

// TestOverdue: a gate is overdue when whoever came as it closed would wait no longer.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(Options{HoldTimeout: time.Second, DrainInterval: time.Hour, DrainBatch: 1})
		defer g.Shutdown()
		is := func(want bool) {
			t.Helper()
			if g.Overdue() != want {
				t.Errorf("overdue: %v", !want)
			}
		}
		is(false)
		g.Close("a test")
		time.Sleep(999 * time.Millisecond)
		is(false)
		a, b := enter(t, g), enter(t, g)
		time.Sleep(time.Millisecond)
		is(true)
		g.Open() // a goes, b waits for its turn
		wantState(t, a, Released)
		wantState(t, b, Waiting)
		is(false)
		g.Close("again")
		is(false)
		time.Sleep(time.Second)
		is(true)
	})
}

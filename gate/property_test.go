package gate

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// TestProperties drives a gate at random and compares it with a slice.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		opts := Options{
			HoldTimeout:   time.Duration(rapid.IntRange(1, 50).Draw(rt, "hold")) * time.Millisecond,
			MaxHeld:       rapid.IntRange(1, 12).Draw(rt, "max"),
			DrainBatch:    rapid.IntRange(1, 4).Draw(rt, "batch"),
			DrainInterval: time.Duration(rapid.IntRange(1, 20).Draw(rt, "interval")) * time.Millisecond,
		}
		steps := rapid.SliceOfN(rapid.IntRange(0, 99), 1, 120).Draw(rt, "steps")
		synctest.Test(t, func(t *testing.T) { runModel(t, rt, opts, steps) })
	})
}

func runModel(t *testing.T, rt *rapid.T, opts Options, steps []int) {
	g := New(opts)
	var (
		mu       sync.Mutex
		all      []*waiter
		released []int
	)
	for _, step := range steps {
		switch {
		case step < 50:
			n, w := len(all), &waiter{}
			mu.Lock() // a callback may come before Enter has returned
			ticket, err := g.Enter(func() {
				w.wakes.Add(1)
				mu.Lock()
				defer mu.Unlock()
				if w.ticket.State() == Released {
					released = append(released, n)
				}
			})
			w.ticket = ticket
			mu.Unlock()
			switch held := g.Stats().HeldNow; {
			case held > opts.MaxHeld:
				rt.Fatalf("%d held, bound %d", held, opts.MaxHeld)
			case errors.Is(err, ErrFull) && held != opts.MaxHeld:
				rt.Fatalf("refused with %d held, bound %d", held, opts.MaxHeld)
			}
			if ticket != nil {
				all = append(all, w)
			}
		case step < 60 && len(all) > 0:
			w := all[step%len(all)]
			was := w.ticket.State()
			if w.ticket.Cancel() != (was == Waiting) {
				rt.Fatalf("Cancel of a %v ticket", was)
			}
		case step < 75:
			time.Sleep(time.Duration(step-59) * time.Millisecond)
			synctest.Wait()
		case step < 90:
			g.Close("x")
		default:
			g.Open()
		}
	}
	if len(steps)%2 == 0 {
		g.Shutdown()
	} else {
		g.Open()
		time.Sleep(time.Hour)
	}
	synctest.Wait()
	checkEnded(rt, all)
	mu.Lock()
	defer mu.Unlock()
	for i := 1; i < len(released); i++ {
		if released[i] < released[i-1] {
			rt.Fatalf("released out of order: %v", released)
		}
	}
}

func checkEnded(rt *rapid.T, all []*waiter) {
	for i, w := range all {
		s, wakes := w.ticket.State(), w.wakes.Load()
		if s == Waiting {
			rt.Fatalf("ticket %d was lost", i)
		}
		if s == Cancelled && wakes != 0 || s != Cancelled && wakes != 1 {
			rt.Fatalf("ticket %d is %v and was woken %d times", i, s, wakes)
		}
	}
}

package pool_test

import (
	"context"
	"errors"
	"testing"

	"shardproxy/pool"
)

func TestPauseAndResume(t *testing.T) {
	b := sharedBench(t, policy(2))
	lent := b.take()
	paused := make(chan error, 1)
	go func() { paused <- b.Pause(within(t, patience)) }()
	waitFor(t, "Pause", b.Paused)
	s, w := b.ask()
	if s != nil || w.ticket.Done() {
		t.Fatal("lent while paused")
	}
	select {
	case err := <-paused:
		t.Fatalf("Pause did not wait: %v", err)
	default:
	}
	lent.Release(pool.Clean)
	if err := <-paused; err != nil {
		t.Fatal(err)
	}
	if st := b.stat(); st.Total != 0 || w.ticket.Done() {
		t.Errorf("%+v", st)
	}
	b.Resume()
	s, err := w.result()
	if err != nil {
		t.Fatal(err)
	}
	// Pause gives up with its context; Resume ends one that waits.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.Pause(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b.Resume()
	for range 200 { // however close the two come to each other
		go func() { paused <- b.Pause(within(t, patience)) }()
		waitFor(t, "Pause", b.Paused)
		b.Resume()
		if err := <-paused; !errors.Is(err, pool.ErrResumed) {
			t.Fatalf("a Pause that was resumed: %v", err)
		}
	}
	s.Release(pool.Clean)
	if b.Paused() || b.Lent() != 0 || b.stat().Idle != 1 {
		t.Error(b.describe())
	}
}

// watched tells when somebody is about to wait for it.
type watched struct {
	context.Context
	asked chan<- struct{}
}

func (w watched) Done() <-chan struct{} {
	w.asked <- struct{}{}
	return w.Context.Done()
}

// TestPauses has several waiting in Pause at a time: all return, when the last
// connection comes back as well as when Resume comes first.
func TestPauses(t *testing.T) {
	b := sharedBench(t, policy(2))
	for _, resume := range []bool{false, true} {
		lent := b.take()
		const many = 5
		waiting := make(chan struct{}, 100)
		paused := make(chan error, many)
		for range many {
			go func() { paused <- b.Pause(watched{within(t, patience), waiting}) }()
		}
		for range many {
			<-waiting
		}
		want := error(nil)
		if resume {
			want = pool.ErrResumed
			b.Resume()
		} else {
			lent.Release(pool.Clean)
		}
		for range many {
			if err := <-paused; !errors.Is(err, want) {
				t.Errorf("resumed %v: %v", resume, err)
			}
		}
		if resume {
			lent.Release(pool.Clean)
		}
		b.Resume()
	}
}

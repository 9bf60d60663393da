package catalog

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeSource is a catalog whose fingerprint and faults the test sets.
type fakeSource struct {
	mu  sync.Mutex
	sum string
	err error
}

func (s *fakeSource) set(sum string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum, s.err = sum, err
}

func (s *fakeSource) get() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sum, s.err
}

func fakeRefresher(s *fakeSource, changed func(*Catalog)) *Refresher {
	r := NewRefresher(Options{
		Interval: time.Minute, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), Changed: changed,
	})
	r.check = func(context.Context) (string, error) { return s.get() }
	r.load = func(context.Context) (*Catalog, error) {
		_, err := s.get()
		return &Catalog{}, err
	}
	return r
}

func TestRefresherLoadsOnlyChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeSource{sum: "a"}
		published := make(chan uint64, 8)
		r := fakeRefresher(s, func(c *Catalog) { published <- c.Version() })
		if r.Current() != nil {
			t.Error("a snapshot before Open")
		}
		if err := r.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect := func(when string, checks, loads, version uint64) {
			t.Helper()
			synctest.Wait()
			if got := r.Stats(); got != (Stats{Checks: checks, Loads: loads, Version: version}) {
				t.Errorf("%s: %+v", when, got)
			}
		}
		expect("at first", 1, 1, 1)
		time.Sleep(time.Minute)
		expect("unchanged", 2, 1, 1)
		s.set("b", nil)
		time.Sleep(time.Minute)
		expect("changed", 3, 2, 2)
		s.set("c", nil)
		r.Poke()
		expect("poked right after a look", 3, 2, 2)
		time.Sleep(pokeGap)
		expect("poked", 4, 3, 3)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r.Poke()
		if r.Current() == nil || r.Current().Version() != 3 {
			t.Error("the last snapshot is gone")
		}
		if err := r.Open(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("Open after Close: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		for version := range uint64(3) {
			if got := <-published; got != version+1 {
				t.Errorf("published version %d as number %d", got, version+1)
			}
		}
	})
}

func TestRefresherRetriesSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeSource{sum: "a", err: errors.New("away")}
		r := fakeRefresher(s, nil)
		if err := r.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		synctest.Wait()
		for i, after := range []time.Duration{0, 1, 2, 4, 8, 16, 32, 60, 60} {
			time.Sleep(after * time.Second)
			synctest.Wait()
			if got := r.Stats(); got.Failures != uint64(i+1) || r.Current() != nil {
				t.Errorf("attempt %d: %+v", i, got)
			}
		}
		s.set("a", nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := r.Stats(); got.Loads != 1 || got.Version != 1 {
			t.Errorf("back again: %+v", got)
		}
	})
}

func TestRefresherEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := fakeRefresher(&fakeSource{sum: "a"}, nil)
		if err := r.Open(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

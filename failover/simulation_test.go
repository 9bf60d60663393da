package failover

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// world is a simulated shard that writes, replicates, restarts and fails over
// at random, with slow probes.
type world struct {
	t       *testing.T
	c       *fakeCluster
	m       *Monitor
	rng     *rand.Rand
	primary int
	forks   map[uint32]LSN // where each timeline but the first begins

	reads, replicaReads, failovers int
}

// restartTime is how long a restarting server is away.
const restartTime = 50 * time.Millisecond

// preserved reports whether a commit that ended at lsn on timeline term is part
// of timeline now.
func (w *world) preserved(lsn LSN, term, now uint32) bool {
	for t := term + 1; t <= now; t++ {
		if w.forks[t] < lsn {
			return false
		}
	}
	return term <= now
}

// TestPickReadIsNeverStale lets sessions write and read for minutes of
// simulated time and checks each replica picked for a session against what the
// replica has really replayed at that moment.
func TestPickReadIsNeverStale(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{t: t, c: newFakeCluster(4), rng: rand.New(rand.NewPCG(seed, 1)), forks: map[uint32]LSN{}}
				for _, s := range w.c.servers {
					s.delay = time.Duration(1+w.rng.IntN(20)) * time.Millisecond
				}
				w.m, _ = open(t, w.c, Options{Rules: Rules{MaxLag: -1}})
				w.run(2 * time.Minute)
				t.Logf("%d of %d reads from replicas, %d failovers", w.replicaReads, w.reads, w.failovers)
				if w.replicaReads < 1000 || w.replicaReads == w.reads || w.failovers < 2 {
					t.Errorf("%d of %d reads went to replicas in %d failovers: the test shows nothing", w.replicaReads, w.reads, w.failovers)
				}
			})
		})
	}
}

func (w *world) run(d time.Duration) {
	stop := make(chan struct{})
	var all sync.WaitGroup
	for _, f := range []func(*rand.Rand, <-chan struct{}){w.replicate, w.disturb} {
		rng := rand.New(rand.NewPCG(w.rng.Uint64(), 0))
		all.Go(func() { f(rng, stop) })
	}
	for range 8 {
		seed := w.rng.Uint64()
		all.Go(func() { w.session(rand.New(rand.NewPCG(seed, 2)), stop) })
	}
	<-time.After(d)
	close(stop)
	all.Wait()
}

func each(stop <-chan struct{}, d func() time.Duration, f func()) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(d()):
			f()
		}
	}
}

// session writes now and then and reads in between.
func (w *world) session(rng *rand.Rand, stop <-chan struct{}) {
	var (
		mark    Mark
		written LSN
		term    uint32 // timeline of the last write
	)
	pause := func() time.Duration { return time.Duration(rng.IntN(200)) * time.Millisecond }
	each(stop, pause, func() {
		p, ok := w.m.Primary()
		w.c.mu.Lock()
		defer w.c.mu.Unlock()
		if s := w.c.servers[max(p, 0)]; ok && rng.IntN(4) == 0 && !s.obs.InRecovery && s.err == nil {
			s.obs.Insert += LSN(1 + rng.IntN(100))
			s.obs.Flush = s.obs.Insert
			written, term = s.obs.Insert, s.obs.Timeline
			mark = w.m.Mark()
			return
		}
		w.reads++
		id, ok := w.m.PickRead(mark, true, 0)
		if !ok {
			w.m.Want()
			return
		}
		s := w.c.servers[id]
		if s.err != nil {
			w.m.Suspect(id, s.err)
			return
		}
		w.replicaReads++
		// It may have been promoted a moment ago: then it is ahead of all.
		if s.obs.LSN() < written && w.preserved(written, term, s.obs.Timeline) || s.obs.Timeline < term {
			w.t.Errorf("node %d is at %v on timeline %d, the session wrote %v on timeline %d (mark %d)",
				id, s.obs.LSN(), s.obs.Timeline, written, term, mark)
		}
	})
}

// replicate moves the replicas forward, each by fits and starts.
func (w *world) replicate(rng *rand.Rand, stop <-chan struct{}) {
	each(stop, func() time.Duration { return time.Duration(1+rng.IntN(10)) * time.Millisecond }, func() {
		w.c.mu.Lock()
		defer w.c.mu.Unlock()
		p := w.c.servers[w.primary]
		for i, s := range w.c.servers {
			switch fork := w.forks[s.obs.Timeline+1]; {
			case i == w.primary || s.err != nil || rng.IntN(8) == 0:
			case s.obs.Timeline == p.obs.Timeline:
				s.obs.Replay = min(p.obs.Flush, s.obs.Replay+LSN(rng.IntN(40)))
				s.obs.Receive = s.obs.Replay
			case rng.IntN(100) == 0:
				// It follows the promoted one, rewound if it was ahead of the fork.
				s.obs.Timeline++
				s.obs.InRecovery = true
				if s.obs.Replay > fork {
					w.restartLocked(s)
					s.obs.Replay = fork
				}
			case s.obs.InRecovery && rng.IntN(4) == 0:
				s.obs.Replay = s.obs.Receive // what it had received of the old timeline
			}
		}
	})
}

// disturb restarts replicas and fails the primary over.
func (w *world) disturb(rng *rand.Rand, stop <-chan struct{}) {
	each(stop, func() time.Duration { return time.Duration(500+rng.IntN(8000)) * time.Millisecond }, func() {
		w.c.mu.Lock()
		defer w.c.mu.Unlock()
		n := rng.IntN(len(w.c.servers))
		if n == w.primary {
			w.failOverLocked()
			return
		}
		// A standby that crashed comes back with an earlier position, but not
		// before the timeline it is on began.
		s := w.c.servers[n]
		w.restartLocked(s)
		s.obs.Replay = max(s.obs.Replay-min(s.obs.Replay, LSN(rng.IntN(200))), min(s.obs.Replay, w.forks[s.obs.Timeline]))
	})
}

// restartLocked ends the server's connections and refuses new ones for a while.
func (w *world) restartLocked(s *fakeServer) {
	s.breakConn()
	s.err = syscall.ECONNREFUSED
	s.obs.StartedAt = time.Now()
	time.AfterFunc(restartTime, func() {
		w.c.mu.Lock()
		defer w.c.mu.Unlock()
		s.err = nil
	})
}

// failOverLocked promotes the furthest replica that follows the primary. The
// others stay where they are until replicate lets them follow.
func (w *world) failOverLocked() {
	old, next := w.c.servers[w.primary], -1
	for i, s := range w.c.servers {
		if i != w.primary && s.obs.Timeline == old.obs.Timeline && s.err == nil &&
			(next < 0 || s.obs.Replay > w.c.servers[next].obs.Replay) {
			next = i
		}
	}
	if next < 0 {
		return
	}
	w.failovers++
	s := w.c.servers[next]
	s.obs.InRecovery = false
	s.obs.Insert, s.obs.Flush = s.obs.Replay, s.obs.Replay
	s.obs.Timeline++
	w.forks[s.obs.Timeline] = s.obs.Replay
	w.restartLocked(old)
	old.obs.Replay, old.obs.Receive = old.obs.Flush, old.obs.Flush
	w.primary = next
}

package failover

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// world is a simulated shard that writes, replicates, restarts and fails over
// at random, with slow and reordered probes.
type world struct {
	t       *testing.T
	c       *fakeCluster
	m       *Monitor
	rng     *rand.Rand
	primary int
	// writes are the ends of all commits of the current history.
	reads, replicaReads int
}

// TestPickReadIsNeverStale lets sessions write and read for minutes of
// simulated time and checks each replica picked for a session against what the
// replica has really replayed at that moment.
func TestPickReadIsNeverStale(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{t: t, c: newFakeCluster(4), rng: rand.New(rand.NewPCG(seed, 1))}
				for _, s := range w.c.servers {
					s.delay = time.Duration(1+w.rng.IntN(20)) * time.Millisecond
				}
				w.m, _ = open(t, w.c, Options{Rules: Rules{MaxLag: -1}})
				w.run(3 * time.Minute)
				if w.replicaReads < 200 || w.replicaReads == w.reads {
					t.Errorf("%d of %d reads went to replicas: the test shows nothing", w.replicaReads, w.reads)
				}
			})
		})
	}
}

func (w *world) run(d time.Duration) {
	stop := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() { w.replicate(stop) })
	all.Go(func() { w.disturb(stop) })
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
		w.replicaReads++
		if s := w.c.servers[id]; s.obs.Timeline == term && s.obs.Replay < written || s.obs.Timeline < term {
			w.t.Errorf("node %d has replayed %v on timeline %d, the session wrote %v on timeline %d (mark %d)",
				id, s.obs.Replay, s.obs.Timeline, written, term, mark)
		}
	})
}

// replicate moves the replicas forward, each by fits and starts.
func (w *world) replicate(stop <-chan struct{}) {
	rng := rand.New(rand.NewPCG(w.rng.Uint64(), 3))
	each(stop, func() time.Duration { return time.Duration(1+rng.IntN(10)) * time.Millisecond }, func() {
		w.c.mu.Lock()
		defer w.c.mu.Unlock()
		p := w.c.servers[w.primary]
		for i, s := range w.c.servers {
			if i == w.primary || s.obs.Timeline != p.obs.Timeline || rng.IntN(8) == 0 {
				continue
			}
			s.obs.Replay = min(p.obs.Flush, s.obs.Replay+LSN(rng.IntN(40)))
			s.obs.Receive = s.obs.Replay
		}
	})
}

// disturb restarts replicas and fails the primary over.
func (w *world) disturb(stop <-chan struct{}) {
	rng := rand.New(rand.NewPCG(w.rng.Uint64(), 4))
	each(stop, func() time.Duration { return time.Duration(500+rng.IntN(8000)) * time.Millisecond }, func() {
		w.c.mu.Lock()
		n := rng.IntN(len(w.c.servers))
		if n == w.primary {
			w.failOverLocked(rng)
			w.c.mu.Unlock()
			return
		}
		// A standby that crashed comes back with an earlier position.
		s := w.c.servers[n]
		s.obs.Replay -= min(s.obs.Replay, LSN(rng.IntN(200)))
		s.breakConn()
		w.c.mu.Unlock()
		synctestYield()
	})
}

// failOverLocked promotes the furthest replica of the primary's timeline; all
// others follow it, the old primary too.
func (w *world) failOverLocked(rng *rand.Rand) {
	old, next := w.c.servers[w.primary], -1
	for i, s := range w.c.servers {
		if i != w.primary && s.obs.Timeline == old.obs.Timeline && (next < 0 || s.obs.Replay > w.c.servers[next].obs.Replay) {
			next = i
		}
	}
	old.obs.InRecovery = true
	old.breakConn()
	fork := w.c.servers[next].obs.Replay
	for i, s := range w.c.servers {
		if i == next {
			s.obs.InRecovery = false
			s.obs.Insert, s.obs.Flush = fork, fork
		} else {
			s.obs.Replay = min(fork, s.obs.Replay)
			s.breakConn()
		}
		s.obs.Timeline = old.obs.Timeline + 1
	}
	for _, s := range w.c.servers {
		s.obs.Timeline = w.c.servers[next].obs.Timeline
	}
	w.primary = next
	_ = rng
}

func synctestYield() { synctest.Wait() }

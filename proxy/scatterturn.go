package proxy

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/router"
	"shardproxy/wire"
)

// CrossShard says what becomes of queries that need rows of several shards.
type CrossShard uint8

// The ways to treat them.
const (
	CrossShardAllow CrossShard = iota
	CrossShardWarn
	CrossShardRefuse
)

// crossShardSetting is the setting of a session that overrides the configuration.
const crossShardSetting = ownPrefix + "cross_shard"

// crossShardNamed returns what a setting's value, in quotes or not, stands for.
func crossShardNamed(value string) (mode CrossShard, ok bool) {
	switch strings.Trim(strings.ToLower(value), "'\" ") {
	case "allow":
		return CrossShardAllow, true
	case "warn":
		return CrossShardWarn, true
	case "refuse":
		return CrossShardRefuse, true
	}
	return CrossShardRefuse, false // set where nobody could check it, as in a function
}

// mayScatter finds out whether the session wants such a query; warn is set when it is to be
// told of it.
func (s *session) mayScatter() (warn bool, e *wire.Error) {
	mode := s.crossShard
	if text := s.ownSetting(crossShardSetting); text != "" {
		mode, _ = crossShardNamed(text)
	}
	if s.spread != nil && s.spread.crossShard != "" {
		mode, _ = crossShardNamed(s.spread.crossShard)
	}
	if mode == CrossShardRefuse {
		return false, wire.Errorf("0A000", "this statement needs rows of several shards, which is refused here").
			WithHint("Give the key of every sharded table, or SET %s = allow.", crossShardSetting)
	}
	return mode == CrossShardWarn, nil
}

// scatterWays are the words for how a query is answered from several shards; see
// router.RouteScatter.
var scatterWays = [...]string{"merge", "rank", "groups", "gather"}

// Scatters returns how many queries were answered from several shards, by the way.
func (d *Database) Scatters() map[string]int64 {
	counts := map[string]int64{}
	for i, way := range scatterWays {
		counts[way] = d.stats.scatters[i].Load()
	}
	return counts
}

// countScatter counts a query by its way.
func (d *Database) countScatter(way string) {
	for i, w := range scatterWays {
		if w == way {
			d.stats.scatters[i].Add(1)
		}
	}
}

// scatterOptions are those of a query's first way.
func (d *Database) scatterOptions() router.ScatterOptions {
	return router.ScatterOptions{Unlike: d.Unlike != nil && d.Unlike()}
}

// turns lets so many statements run at once, first come, first served. Those of a database are for queries
// over several shards: keyed statements find connections beside them.
type turns struct {
	mu      sync.Mutex
	taken   int
	waiting []*turn
}

// turn is a place in the queue.
type turn struct {
	given atomic.Bool
	wake  func()
}

// enter takes a turn, or a place in the queue.
func (t *turns) enter(limit int, wake func()) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := &turn{wake: wake}
	if t.taken < limit && len(t.waiting) == 0 {
		t.taken++
		n.given.Store(true)
		return n
	}
	t.waiting = append(t.waiting, n)
	return n
}

// leave gives a turn back, or a place in the queue up.
func (t *turns) leave(n *turn, limit int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n.given.Load() {
		t.taken--
	} else {
		for i, w := range t.waiting {
			if w == n {
				t.waiting = append(t.waiting[:i], t.waiting[i+1:]...)
				break
			}
		}
	}
	t.serveLocked(limit)
}

// serve gives turns to those who wait, as the limit is now.
func (t *turns) serve(limit int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.serveLocked(limit)
}

func (t *turns) serveLocked(limit int) {
	for t.taken < limit && len(t.waiting) > 0 {
		next := t.waiting[0]
		t.waiting = t.waiting[1:]
		t.taken++
		next.given.Store(true)
		next.wake()
	}
}

// awaitTurn waits for the query's turn. The function it returns ends the turn.
func (s *session) awaitTurn() (end func(), e *wire.Error) {
	pol := s.db.Policy()
	n := s.db.turns.enter(pol.ScatterMax, s.wake)
	end = func() { s.db.turns.leave(n, s.db.Policy().ScatterMax) }
	if n.given.Load() {
		return end, nil
	}
	deadline := time.Now().Add(pol.WaitTimeout)
	s.wakeIn(pol.WaitTimeout)
	defer s.timer.Stop()
	for !n.given.Load() {
		if time.Now().After(deadline) {
			end()
			return nil, wire.Errorf("53300", "too many queries over several shards run at once, and none ended within the wait timeout").
				WithHint("The statement was not executed. Raise cross_shard_queries or pool.wait_timeout.")
		}
		if err := s.waitTurn(phaseWaiting); err != nil {
			end()
			return nil, wire.AsError(err)
		}
	}
	return end, nil
}

package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// rates are writers and readers of a table that every shard has whole.
type rates struct {
	t    *testing.T
	s    *txStage
	done atomic.Int64 // acknowledged writes
	read atomic.Int64
	// failed counts statements that failed, by their SQLSTATE.
	mu     sync.Mutex
	failed map[string]int
}

// begin has two clients at work, one through each proxy, until stop is called.
func (r *rates) begin() (stop func()) {
	must(r.t, r.s.proxies[0].connect(), "INSERT INTO rates VALUES (0, 0), (1, 0)")
	r.failed = map[string]int{}
	ctx, cancel := context.WithCancel(r.t.Context())
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() {
			c := &txClient{t: r.t, dsn: r.s.dsn(i), id: i, set: []string{"SET lock_timeout = '10s'"}}
			defer c.drop()
			for own := int64(0); c.connected(ctx); {
				if r.did(c, "UPDATE rates SET v = v + 1 WHERE id = $1", i) == nil {
					own++
					r.done.Add(1)
				}
				rows, _, err := c.query("SELECT v FROM rates WHERE id = $1", i)
				if err != nil {
					r.fail(err)
				} else if got := rows[0][0].(int64); got != own {
					r.t.Errorf("client %d has written %d and reads %d", i, own, got)
					own = got
				}
				r.read.Add(1)
			}
		})
	}
	stop = func() {
		cancel()
		all.Wait()
	}
	r.t.Cleanup(stop)
	return stop
}

func (r *rates) did(c *txClient, sql string, args ...any) error {
	_, _, err := c.query(sql, args...)
	if err != nil {
		r.fail(err)
	}
	return err
}

func (r *rates) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed[sqlState(err)+" "+err.Error()]++
}

// judge compares what the shards have with what was acknowledged.
func (r *rates) judge(members ...int) {
	r.t.Helper()
	r.t.Logf("%d writes of what all shards have, %d reads; failed: %v", r.done.Load(), r.read.Load(), r.failed)
	if len(r.failed) > 0 {
		r.t.Error("statements failed")
	}
	for _, i := range members {
		if got := r.s.shards[i].Primary().Value("app", "SELECT sum(v) FROM rates"); got != fmt.Sprint(r.done.Load()) {
			r.t.Errorf("shard %d has %s of %d writes", i, got, r.done.Load())
		}
	}
}

// members are the shards of the slot map.
func (s *txStage) members() string {
	return s.shards[0].Primary().Value("app", "SELECT string_agg(name, ' ' ORDER BY name) FROM shardproxy.shards")
}

// TestShardsJoinAndLeave has a cluster of two shards become one of three, and of two again, while clients are at work through two
// proxies: no client sees an error, no total is wrong, and what every shard has whole is the same on all. With
// SHARDPROXY_TEST_MOVES it goes by four shards.
func TestShardsJoinAndLeave(t *testing.T) {
	t.Parallel()
	servers := 3
	if testNumber(t, "SHARDPROXY_TEST_MOVES", 0) > 0 {
		servers = 4
	}
	s := startSpareStage(t, servers, 2)
	b := s.openBank(t, "SET lock_timeout = '10s'")
	b.committed = true
	stop := b.begin(t, 3, 2)
	r := &rates{t: t, s: s}
	stopRates := r.begin()
	var said []string
	type step struct {
		args    []string
		members string
	}
	steps := []step{{[]string{"--add", "s2"}, "s0 s1 s2"}, {[]string{"--remove", "s1"}, "s0 s2"}}
	if testNumber(t, "SHARDPROXY_TEST_MOVES", 0) > 0 {
		steps = []step{
			{[]string{"--add", "s2", "--threshold", "5%"}, "s0 s1 s2"}, {[]string{"--add", "s3", "--threshold", "5%"}, "s0 s1 s2 s3"}, {[]string{"--remove", "s1"}, "s0 s2 s3"},
			{[]string{"--add", "s1"}, "s0 s1 s2 s3"}, {[]string{"--remove", "s3"}, "s0 s1 s2"},
		}
	}
	for _, step := range steps {
		if len(step.args) > 1 && step.args[1] == "s1" && step.args[0] == "--add" {
			s.shards[1].Primary().Exec("app", "TRUNCATE rates") // it left with the rows that it had
		}
		said = append(said, s.rebalance(t, append([]string{"start", "--step-slots", "1000"}, step.args...)...), s.watched(t))
		if got := s.members(); got != step.members {
			t.Fatalf("the shards are %s, want %s", got, step.members)
		}
	}
	eventually(t, "nothing is guarded any more", func() bool {
		return s.shards[0].Primary().Value("app", "SELECT guarded OR closed FROM shardproxy.epoch") == "f"
	})
	stop()
	stopRates()
	s.settled()
	t.Log(strings.Join(said, "\n"))
	b.judge(t)
	for state := range b.states {
		if (strings.Contains(state, "failed") || strings.Contains(state, "unknown")) && state != "read failed 40001" {
			t.Errorf("%s: %d times", state, b.states[state])
		}
	}
	s.clean(t)
	var members []int
	for i, cl := range s.shards {
		if strings.Contains(s.members(), fmt.Sprint("s", i)) {
			members = append(members, i)
			continue
		}
		if got := cl.Primary().Value("app", "SELECT (SELECT count(*) FROM accounts) + (SELECT count(*) FROM ledger) + (SELECT count(*) FROM lists)"); got != "0" {
			t.Errorf("shard s%d has left and has %s rows", i, got)
		}
	}
	r.judge(members...)
	if b.slowest > 5*time.Second {
		t.Error("a statement took", b.slowest)
	}
}

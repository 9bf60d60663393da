package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// joinCrashes are moments in which both proxies die: what a server says when it has come.
var joinCrashes = []struct {
	name, on, sql string
	leave, abort  bool
}{
	{name: "the schema is there", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE kind = 'join' AND phase = 'planned')"},
	{name: "a replication slot is made", on: "home", sql: "SELECT EXISTS (SELECT FROM pg_replication_slots)"},
	{name: "rows come", on: "target", sql: "SELECT EXISTS (SELECT FROM rates)"},
	{name: "changes are followed", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE kind = 'join' AND phase = 'following')"},
	{name: "the fence is made", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.fences)"},
	{name: "writes wait", on: "home", sql: "SELECT closed FROM shardproxy.epoch"},
	{name: "the fence is closed", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.fences WHERE closed)"},
	{name: "it has joined", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.shards WHERE name = 's2')"},
	{name: "writes go on", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE kind = 'join' AND phase = 'purging')"},
	{name: "it is to be given up", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE kind = 'join' AND abort)", abort: true},
	{name: "it is being given up", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE kind = 'join' AND phase = 'aborting')", abort: true},
	{name: "it is to leave", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE kind = 'leave')", leave: true},
	{name: "it has left", on: "home", sql: "SELECT NOT EXISTS (SELECT FROM shardproxy.shards WHERE name = 's2')", leave: true},
	{name: "writes go on without it", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE kind = 'leave' AND phase = 'purging')", leave: true},
}

// TestJoinCrashes kills both proxies in one moment of a shard's joining or leaving after the other: the next one that runs brings it to its
// end, reference tables are the same on all shards, and nothing is left. SHARDPROXY_TEST_CRASHES is how many moments, spread over
// all; 2 of them otherwise.
func TestJoinCrashes(t *testing.T) {
	t.Parallel()
	s := startSpareStage(t, 3, 2)
	must(t, s.proxies[0].connect(), "INSERT INTO rates SELECT n, 0 FROM generate_series(1, 60000) n")
	every := max(1, len(joinCrashes)/max(testNumber(t, "SHARDPROXY_TEST_CRASHES", 2), 1))
	value := func(sql string) string { return s.shards[0].Primary().Value("app", sql) }
	const left = "SELECT count(*) FROM shardproxy.moves WHERE phase NOT IN ('done', 'aborted')"
	writes := 0
	for i := every / 2; i < len(joinCrashes); i += every {
		c := joinCrashes[i]
		join := []string{"start", "--add", "s2", "--slots", s.slotsOf(t, 1, 500), "--to", "s2"}
		s.rebalance(t, join...)
		if c.leave {
			s.ends(t, c.name)
			s.rebalance(t, "start", "--remove", "s2", "--threshold", "99%")
		}
		if c.abort {
			eventually(t, "rows are copied", func() bool {
				return value("SELECT EXISTS (SELECT FROM shardproxy.moves WHERE kind = 'join' AND phase IN ('copying', 'following'))") == "t"
			})
			s.rebalance(t, "abort")
		}
		on, seen := s.shards[map[string]int{"home": 0, "target": 2}[c.on]].Primary(), false
		for end := time.Now().Add(30 * time.Second); !seen && time.Now().Before(end) && value(left) != "0"; {
			seen = on.Value("app", c.sql) == "t"
		}
		s.kill(0)
		s.kill(1)
		s.restart(0)
		s.restart(1)
		s.ends(t, c.name)
		s.settled()
		t.Logf("%s (seen: %v): %s", c.name, seen, value("SELECT string_agg(kind || ' ' || phase || ' ' || said, '; ' ORDER BY id) FROM shardproxy.moves WHERE id > (SELECT max(id) - 2 FROM shardproxy.moves)"))
		joined := strings.Contains(s.members(), "s2")
		if c.leave && joined {
			t.Fatalf("%s: the shards are %s", c.name, s.members())
		}
		eventually(t, "the proxies write", func() bool {
			_, err := s.proxies[0].connect().Exec(within(t, 10*time.Second), "UPDATE rates SET v = v + 1 WHERE id = 1")
			if err == nil {
				writes++
			}
			return err == nil
		})
		s.sameRates(t, c.name, joined, writes)
		s.clean(t)
		if joined {
			s.rebalance(t, "start", "--remove", "s2", "--threshold", "99%")
			s.ends(t, c.name)
		}
		if got := s.members(); got != "s0 s1" || t.Failed() {
			t.Fatalf("%s: the shards are %s", c.name, got)
		}
		s.shards[2].Primary().Exec("app", "TRUNCATE rates")
	}
}

// ends waits until no move is left.
func (s *txStage) ends(t *testing.T, what string) {
	t.Helper()
	soon(t, 90*time.Second, what+": no move is left", func() bool {
		return s.shards[0].Primary().Value("app", "SELECT count(*) FILTER (WHERE phase NOT IN ('done', 'aborted')) = 0 AND (SELECT NOT guarded AND NOT closed FROM shardproxy.epoch) FROM shardproxy.moves") == "t"
	})
}

// sameRates compares what every shard has whole.
func (s *txStage) sameRates(t *testing.T, what string, joined bool, writes int) {
	t.Helper()
	shards := s.shards[:2]
	if joined {
		shards = s.shards
	}
	for i, cl := range shards {
		if got := cl.Primary().Value("app", "SELECT count(*) || ' ' || sum(v) FROM rates"); got != fmt.Sprintf("60000 %d", writes) {
			t.Errorf("%s: shard s%d has %s, want 60000 %d", what, i, got, writes)
		}
	}
	if got := s.shards[2].Primary().Value("app", "SELECT count(*) FROM rates"); !joined && got != "0" && !strings.Contains(what, "leave") && !strings.Contains(what, "left") && !strings.Contains(what, "without") {
		t.Errorf("%s: the shard that has not joined has %s rows", what, got)
	}
}

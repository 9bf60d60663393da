package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// boundWAL has both proxies allow moves little WAL, by a reload.
func (s *txStage) boundWAL(t *testing.T) {
	t.Helper()
	for _, ps := range s.proxies {
		text, err := os.ReadFile(ps.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(ps.path, []byte(strings.Replace(string(text), "    failover:", "    moves: {max_wal: 16MiB}\n    failover:", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		ps.signal(syscall.SIGHUP)
		ps.logged("configuration reloaded")
	}
}

// writesWAL has a server write more than that, of nobody's rows.
func (s *txStage) writesWAL(shard int) {
	for range 40 {
		s.shards[shard].Primary().Exec("app", "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000))")
	}
}

// TestMoveKeepsWAL has one server of a move die, before the flip and while it is kept: the other keeps no more WAL for it than is allowed.
func TestMoveKeepsWAL(t *testing.T) {
	t.Parallel()
	s := startTxStage(t, 2)
	s.boundWAL(t)
	home := s.shards[0].Primary()
	value := func(sql string) string { return home.Value("app", sql) }
	must(t, s.proxies[0].connect(), "INSERT INTO accounts SELECT n, 1 FROM generate_series(1, 5000) n")
	free := func(what string) {
		t.Helper()
		soon(t, time.Minute, what+": no replication slot is left", func() bool { return value("SELECT count(*) FROM pg_replication_slots") == "0" })
	}
	s.rebalance(t, "start", "--reversible", "--slots", s.slotsOf(t, 0, 2), "--to", "s1")
	soon(t, time.Minute, "changes are followed", func() bool {
		return value("WITH p AS (UPDATE shardproxy.moves SET paused = true WHERE phase = 'following' RETURNING id) SELECT EXISTS (SELECT FROM p)") == "t"
	})
	s.shards[1].Primary().Kill9()
	s.writesWAL(0)
	free("the target is dead")
	s.shards[1].Primary().Start()
	s.ends(t, "the target is back")
	if said := s.rebalance(t, "history"); !strings.Contains(said, "of WAL for the move") {
		t.Error(said)
	}
	s.rebalance(t, "start", "--reversible", "--slots", s.slotsOf(t, 1, 2), "--to", "s0")
	s.kept(t)
	s.shards[1].Primary().Kill9()
	s.writesWAL(0)
	free("the old shard is dead")
	s.shards[1].Primary().Start()
	s.ends(t, "the old shard is back")
	if said := s.rebalance(t, "history"); !strings.Contains(said, notKeptSaid) {
		t.Error(said)
	}
	s.clean(t)
}

const notKeptSaid = "it cannot be rolled back: "

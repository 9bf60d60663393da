package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// kept waits until all moves that are left wait to be completed or rolled back.
func (s *txStage) kept(t *testing.T) {
	t.Helper()
	soon(t, 3*time.Minute, "moves are kept", func() bool {
		return s.shards[0].Primary().Value("app", "SELECT count(*) > 0 AND count(*) = count(*) FILTER (WHERE phase = 'reversing') FROM shardproxy.moves WHERE phase NOT IN ('done', 'aborted') AND kind <> 'leave'") == "t"
	})
}

// owners says how many slots each shard has.
func (s *txStage) owners() string {
	return s.shards[0].Primary().Value("app", "SELECT string_agg(shard || ' ' || n, ', ' ORDER BY shard) FROM (SELECT shard, count(*) n FROM shardproxy.slots GROUP BY shard) x")
}

// keepsTwo empties a shard by two moves at once, both kept: one is completed, the other rolled back.
func (s *txStage) keepsTwo(t *testing.T) {
	t.Helper()
	s.rebalance(t, "start", "--reversible", "--remove", "s2")
	s.kept(t)
	ids := s.shards[0].Primary().Rows("app", "SELECT id FROM shardproxy.moves WHERE phase = 'reversing' ORDER BY id")
	if len(ids) != 2 {
		t.Fatalf("%d moves are kept, want 2: %s", len(ids), s.rebalance(t, "status"))
	}
	stays := s.shards[0].Primary().Value("app", "SELECT cardinality(slots) FROM shardproxy.moves WHERE id = "+ids[1][0])
	s.rebalance(t, "complete", "--move", ids[0][0])
	s.rebalance(t, "rollback", "--move", ids[1][0])
	soon(t, time.Minute, "the moves have ended", func() bool {
		return s.shards[0].Primary().Value("app", "SELECT count(*) FROM shardproxy.moves WHERE phase NOT IN ('done', 'aborted')") == "0"
	})
	if got := s.owners(); !strings.HasSuffix(got, "s2 "+stays) {
		t.Errorf("the slots are on %s; s2 should have %s", got, stays)
	}
	// The leave that was planned finds that its shard has slots again.
	if said := s.rebalance(t, "history"); !strings.Contains(said, "it owns "+stays+" slots") {
		t.Error(said)
	}
}

// TestMoveRollback moves slots so that they can be rolled back, while the bank works: what is written behind the flip is there when they have returned, and
// when they stay. With SHARDPROXY_TEST_MOVES so often, and two at once.
func TestMoveRollback(t *testing.T) {
	t.Parallel()
	s := startTxStage(t, 3)
	b := s.openBank(t, "SET lock_timeout = '10s'")
	b.committed = true
	stop := b.begin(t, 4, 3)
	before := s.owners()
	half := func(shard int) []string {
		return []string{"start", "--reversible", "--slots", s.slotsOf(t, shard, 2), "--to", fmt.Sprintf("s%d", (shard+1)%3)}
	}
	rests := func() {
		select {
		case <-t.Context().Done():
		case <-time.After(time.Second):
		}
	}
	for range testNumber(t, "SHARDPROXY_TEST_MOVES", 1) {
		s.rebalance(t, half(0)...)
		s.kept(t)
		rests()
		if said := s.rebalance(t, "watch"); !strings.Contains(said, "reversing, until complete or rollback") {
			t.Error(said)
		}
		if o := call(t, "", "rebalance", "start", "-c", s.proxies[0].path, "--move-tenant", "accounts.id=7", "--to", "s2"); o.code == 0 {
			t.Error("a plan was stored beside a move that is kept:", o.out)
		}
		if said := s.rebalance(t, "abort"); said != "given up: 0; going on to their end: 0; waiting for complete or rollback: 1\n" {
			t.Error(said)
		}
		if said := s.rebalance(t, "rollback"); said != "to be rolled back: 1; given up: 0; going on to their end: 0\n" {
			t.Error(said)
		}
		t.Log(s.watched(t))
		if got := s.owners(); got != before {
			t.Errorf("rolled back, the slots are on %s, before on %s", got, before)
		}
	}
	if testNumber(t, "SHARDPROXY_TEST_MOVES", 0) > 0 {
		s.keepsTwo(t)
	}
	eventually(t, "nothing is guarded any more", func() bool {
		return s.shards[0].Primary().Value("app", "SELECT guarded FROM shardproxy.epoch") == "f"
	})
	stop()
	s.settled()
	b.judge(t)
	b.seamless(t)
	s.clean(t)
}

// TestMoveRollbackLost takes away what a rollback needs: the move is completed, and history says why.
func TestMoveRollbackLost(t *testing.T) {
	t.Parallel()
	s := startTxStage(t, 2)
	conn := s.proxies[0].connect()
	must(t, conn, "INSERT INTO accounts SELECT n, 10 FROM generate_series(100, 400) n")
	s.rebalance(t, "start", "--reversible", "--slots", s.slotsOf(t, 0, 2), "--to", "s1")
	s.kept(t)
	must(t, conn, "UPDATE accounts SET balance = balance + 1 WHERE id >= 100")
	must(t, conn, "ALTER TABLE accounts ADD COLUMN more int DEFAULT 7")
	must(t, conn, "UPDATE accounts SET balance = balance + 1 WHERE id >= 100")
	soon(t, time.Minute, "the move has ended", func() bool {
		return s.shards[0].Primary().Value("app", "SELECT phase FROM shardproxy.moves") == "done"
	})
	if said := s.rebalance(t, "history"); !strings.Contains(said, "it cannot be rolled back: ") {
		t.Error(said)
	}
	var n, balance, more int64
	err := conn.QueryRow(t.Context(), "SELECT count(*), sum(balance), sum(more) FROM accounts WHERE id >= 100").Scan(&n, &balance, &more)
	if err != nil || n != 301 || balance != 301*12 || more != 301*7 {
		t.Error(n, balance, more, err)
	}
	s.clean(t)
}

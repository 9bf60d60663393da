package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// rebalance runs one of the commands, which must succeed, and returns what it prints.
func (s *txStage) rebalance(t *testing.T, args ...string) string {
	t.Helper()
	o := call(t, "", append([]string{"rebalance", args[0], "-c", s.proxies[0].path}, args[1:]...)...)
	if o.code != 0 {
		t.Fatalf("rebalance %v: %+v", args, o)
	}
	return o.out
}

// watched follows the moves to their end, which may take long on a busy machine, and returns what was said last.
func (s *txStage) watched(t *testing.T) string {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); ; {
		o := call(t, "", "rebalance", "watch", "-c", s.proxies[0].path, "--timeout", "20s")
		if got := s.shards[0].Primary().Value("app", "SELECT count(*) FROM shardproxy.moves WHERE phase = 'aborted'"); got != "0" {
			t.Fatalf("%s moves were given up: %s", got, s.rebalance(t, "history"))
		}
		if o.code == 0 {
			return o.out
		}
		if time.Now().After(end) {
			t.Fatalf("moves do not end: %+v", o)
		}
	}
}

// slotsOf returns slots of a shard, as --slots has them; every n-th.
func (s *txStage) slotsOf(t *testing.T, shard, n int) string {
	t.Helper()
	var slots []string
	for i, row := range s.shards[0].Primary().Rows("app", fmt.Sprintf("SELECT slot FROM shardproxy.slots WHERE shard = 's%d' ORDER BY slot", shard)) {
		if i%n == 0 {
			slots = append(slots, row[0])
		}
	}
	return strings.Join(slots, ",")
}

// clean fails unless no move has left anything.
func (s *txStage) clean(t *testing.T) {
	t.Helper()
	for i, cl := range s.shards {
		for what, sql := range map[string]string{
			"replication slots": "SELECT count(*) FROM pg_replication_slots", "publications": "SELECT count(*) FROM pg_publication", "fences": "SELECT count(*) FROM shardproxy.fences",
			"triggers": "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal", "positions": "SELECT count(*) FROM shardproxy.move_progress",
			"hidden slots": "SELECT bit_count(slots) FROM shardproxy.hidden",
		} {
			if got := cl.Primary().Value("app", sql); got != "0" {
				t.Errorf("shard %d: %s %s are left", i, got, what)
			}
		}
		m := s.shards[0].Primary().Value("app", fmt.Sprintf("SELECT string_agg(CASE WHEN shard = 's%d' THEN '1' ELSE '0' END, '' ORDER BY slot) FROM shardproxy.slots", i))
		for table, key := range map[string]string{"accounts": "id", "ledger": "account", "lists": "k"} {
			if got := cl.Primary().Value("app", fmt.Sprintf("SELECT count(*) FROM %s WHERE get_bit('%s'::varbit, (hashint8extended(%s, 0) & 4095)::int) = 0", table, m, key)); got != "0" {
				t.Errorf("shard %d: %s rows of %s are not its own", i, got, table)
			}
		}
	}
	if got := s.shards[0].Primary().Value("app", "SELECT guarded FROM shardproxy.epoch"); got != "f" {
		t.Error("statements still leave hidden rows out")
	}
	if got := s.shards[0].Primary().Value("app", "SELECT count(*) FROM shardproxy.slots WHERE state <> 'steady'"); got != "0" {
		t.Error(got, "slots are held")
	}
}

// begin has clients at work until stop is called, or the test ends.
func (b *bank) begin(t *testing.T, writers, readers int) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.run(ctx, writers, readers)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// judge fails the test when a total was wrong, or rows are not what clients were told.
func (b *bank) judge(t *testing.T) {
	t.Helper()
	t.Log(b.told())
	for i, bad := range b.wrong {
		if i < 5 {
			t.Error("a wrong total:", bad)
		}
	}
	for _, bad := range b.audit() {
		t.Error(bad)
	}
}

// seamless fails the test when a client has seen an error, or was not told what came of a transaction.
func (b *bank) seamless(t *testing.T) {
	t.Helper()
	for state := range b.states {
		if state == "read failed 40001" {
			continue // of one under REPEATABLE READ that came to rows which had moved
		}
		if strings.Contains(state, "failed") || strings.Contains(state, "unknown") {
			t.Errorf("%s: %d times", state, b.states[state])
		}
	}
}

// pauses pauses moves for a while: they stay where they are, and hold nothing.
func (s *txStage) pauses(t *testing.T) {
	t.Helper()
	if got := s.rebalance(t, "pause"); !strings.HasPrefix(got, "paused: ") || got == "paused: 0\n" {
		t.Errorf("pause says %q", got)
	}
	state := func() string {
		return s.shards[0].Primary().Value("app", "SELECT (SELECT epoch FROM shardproxy.epoch) || ' ' || (SELECT string_agg(phase || ' ' || said, ', ' ORDER BY id) FROM shardproxy.moves WHERE phase NOT IN ('done', 'aborted'))")
	}
	soon(t, time.Minute, "the move rests", func() bool { return strings.Contains(state(), "paused, until") })
	before := state()
	select {
	case <-t.Context().Done():
	case <-time.After(1500 * time.Millisecond):
	}
	if after := state(); after != before {
		t.Errorf("a paused move goes on: %s, before %s", after, before)
	}
	if got := s.rebalance(t, "status"); !strings.Contains(got, "paused") {
		t.Error(got)
	}
	s.rebalance(t, "resume")
}

// TestMoveSlots moves slots between three shards, through two proxies, while the bank works: nothing is lost, nothing counted
// twice, and no client sees an error.
func TestMoveSlots(t *testing.T) {
	t.Parallel()
	s := startTxStage(t, 3)
	// A lock may be waited for as long as its holder waits for slots that are held.
	b := s.openBank(t, "SET lock_timeout = '10s'")
	b.committed = true
	stop := b.begin(t, 4, 3)
	rounds := testNumber(t, "SHARDPROXY_TEST_MOVES", 1)
	var said []string
	for round := range rounds {
		// Without its slots a shard stays; in the last round it leaves.
		emptied := func() []string { return []string{"--slots", s.slotsOf(t, 2, 1), "--to", "s0", "--step-slots", "1000"} }
		if round == rounds-1 {
			emptied = func() []string { return []string{"--remove", "s2", "--step-slots", "1000"} }
		}
		for i, step := range []func() []string{
			func() []string { return []string{"--slots", s.slotsOf(t, 0, 2), "--to", "s1", "--step-slots", "1000"} },
			emptied,
			func() []string { return []string{"--threshold", "20%", "--step-slots", "1000"} },
			func() []string { return []string{"--move-tenant", "accounts.id=7", "--to", "s0"} },
		} {
			said = append(said, s.rebalance(t, append([]string{"start"}, step()...)...))
			if i == 0 {
				s.pauses(t)
			}
			said = append(said, s.watched(t))
		}
	}
	eventually(t, "nothing is guarded any more", func() bool {
		return s.shards[0].Primary().Value("app", "SELECT guarded FROM shardproxy.epoch") == "f"
	})
	stop()
	s.settled()
	t.Log(strings.Join(said, "\n"))
	b.judge(t)
	b.seamless(t)
	s.clean(t)
	if b.slowest > 5*time.Second {
		t.Error("a statement took", b.slowest)
	}
}

// TestMoveSlotsHarm moves slots while proxies are killed, connections cut and a server crashes: every move comes to its end, or is given up
// and leaves nothing.
func TestMoveSlotsHarm(t *testing.T) {
	t.Parallel()
	s := startTxStage(t, 3)
	b := s.openBank(t)
	stop := b.begin(t, 4, 2)
	for round := range testNumber(t, "SHARDPROXY_TEST_MOVES", 1) {
		s.rebalance(t, "start", "--slots", s.slotsOf(t, round%3, 2), "--to", fmt.Sprintf("s%d", (round+1)%3), "--step-slots", "400")
		harm, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		t.Log(s.harm(harm, rand.New(rand.NewPCG(b.seed, uint64(round))), 1, killProxy(), cutWires(), killProxy(), crashServer()))
		cancel()
		soon(t, 3*time.Minute, "no move is left", func() bool {
			return s.shards[0].Primary().Value("app", "SELECT count(*) FROM shardproxy.moves WHERE phase NOT IN ('done', 'aborted')") == "0" &&
				s.shards[0].Primary().Value("app", "SELECT guarded FROM shardproxy.epoch") == "f"
		})
	}
	stop()
	s.settled()
	t.Log(s.rebalance(t, "history"))
	b.judge(t)
	s.clean(t)
}

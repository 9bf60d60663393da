package main

import (
	"fmt"
	"testing"
	"time"
)

// moveCrash is a moment of a move, seen on the servers.
type moveCrash struct {
	name  string
	abort bool // the move is given up first
	// on is where the query is asked, whose answer is t in that moment: the home shard, the source or the target.
	on, sql string
	// end is what is asked of a reversible move once it is kept, "" of one that is not. early is set when the moment is before that.
	end   string
	early bool
}

var moveCrashes = []moveCrash{
	{name: "planned", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE phase = 'planned')"},
	{name: "bits of the target are set", on: "target", sql: "SELECT bit_count(slots) > 0 FROM shardproxy.hidden"},
	{name: "guarded", on: "home", sql: "SELECT guarded FROM shardproxy.epoch"},
	{name: "the replication slot is there", on: "source", sql: "SELECT EXISTS (SELECT FROM pg_replication_slots)"},
	{name: "rows are copied", on: "target", sql: "SELECT EXISTS (SELECT FROM shardproxy.move_progress)"},
	{name: "following", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE phase = 'following')"},
	{name: "a trigger is there", on: "source", sql: "SELECT EXISTS (SELECT FROM pg_trigger WHERE NOT tgisinternal)"},
	{name: "slots are held", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.slots WHERE state = 'held')"},
	{name: "the fence is closed", on: "source", sql: "SELECT EXISTS (SELECT FROM shardproxy.fences WHERE closed)"},
	{name: "rows were compared", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE verified)"},
	{name: "held again", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE verified) AND EXISTS (SELECT FROM shardproxy.slots WHERE state = 'held')"},
	{name: "the flip is prepared", on: "source", sql: "SELECT EXISTS (SELECT FROM pg_prepared_xacts)"},
	{name: "flipped", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE phase = 'flipped')"},
	{name: "released", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE phase = 'purging')"},
	{name: "some rows are purged", on: "source", sql: "SELECT NOT EXISTS (SELECT FROM pg_replication_slots) AND EXISTS (SELECT FROM shardproxy.fences WHERE closed) AND bit_count(slots) > 0 FROM shardproxy.hidden"},
	{name: "bits of the source are cleared", on: "source", sql: "SELECT bit_count(slots) = 0 AND EXISTS (SELECT FROM shardproxy.fences WHERE closed) FROM shardproxy.hidden"},
	{name: "it is to be given up", abort: true, on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE abort AND phase <> 'aborted')"},
	{name: "it is being given up", abort: true, on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE phase = 'aborting')"},
	{name: "a slot for the way back is there", on: "target", sql: "SELECT EXISTS (SELECT FROM pg_replication_slots)", end: "rollback", early: true},
	{name: "flipped, and to be kept", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE phase = 'flipped')", end: "rollback", early: true},
	{name: "kept", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE phase = 'reversing')", end: "complete", early: true},
	{name: "its end is asked for", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE wanted <> '')", end: "rollback"},
	{name: "on its way back", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE back AND phase = 'following')", end: "rollback"},
	{name: "the way back is fenced", on: "target", sql: "SELECT EXISTS (SELECT FROM shardproxy.fences)", end: "rollback"},
	{name: "flipped back", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE back AND phase = 'flipped')", end: "rollback"},
	{name: "purged behind the way back", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE back AND phase = 'purging')", end: "rollback"},
	{name: "completed", on: "home", sql: "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE phase = 'purging')", end: "complete"},
}

// moveKept is t when a move waits to be completed or rolled back.
const moveKept = "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE phase = 'reversing')"

// victims are who dies, or loses its connections, in a moment of a move.
var moveVictims = []struct {
	name string
	harm func(s *txStage, from, to int)
}{
	{"both proxies", func(s *txStage, _, _ int) {
		s.kill(0)
		s.kill(1)
		s.restart(0)
		s.restart(1)
	}},
	{"the source", func(s *txStage, from, _ int) { s.crash(from) }},
	{"the target", func(s *txStage, _, to int) { s.crash(to) }},
	{"all connections", func(s *txStage, _, _ int) {
		for _, wires := range s.wires {
			for _, w := range wires {
				w.KillAll()
			}
		}
	}},
}

// crash has a server die, and come back.
func (s *txStage) crash(shard int) {
	s.shards[shard].Primary().Kill9()
	s.shards[shard].Primary().Start()
}

// TestMoverCrashes harms somebody in one moment of a move after the other: the move comes to its end, with all rows,
// and leaves nothing. SHARDPROXY_TEST_CRASHES is how many moments, spread over all, and with more than there are for one victim after the other; 4 of
// them otherwise.
func TestMoverCrashes(t *testing.T) {
	t.Parallel()
	s := startTxStage(t, 3)
	for i, cl := range s.shards {
		cl.Primary().Exec("app", "TRUNCATE accounts, ledger")
		own := s.shards[0].Primary().Value("app", fmt.Sprintf("SELECT string_agg(CASE WHEN shard = 's%d' THEN '1' ELSE '0' END, '' ORDER BY slot) FROM shardproxy.slots", i))
		cl.Primary().Exec("app", fmt.Sprintf(`INSERT INTO ledger SELECT n %% 7, n / 7, n FROM generate_series(0, 69999) n
			WHERE get_bit('%s'::varbit, (hashint8extended(n / 7, 0) & 4095)::int) = 1`, own))
	}
	rows := func() (all string) {
		n, total := int64(0), int64(0)
		for _, cl := range s.shards {
			var a, b int64
			_, _ = fmt.Sscan(cl.Primary().Value("app", "SELECT (SELECT count(*) || ' ' || coalesce(sum(hashtextextended(l::text, 1) % 1000000007), 0) FROM ledger l)"), &a, &b)
			n, total = n+a, total+b
		}
		return fmt.Sprint(n, " rows, ", total)
	}
	want := rows()
	count := testNumber(t, "SHARDPROXY_TEST_CRASHES", 4)
	every := max(1, len(moveCrashes)/max(count, 1))
	for n := range max(count, 1) {
		c := moveCrashes[n*every%len(moveCrashes)]
		victim := moveVictims[(n+n*every/len(moveCrashes))%len(moveVictims)] // of each moment another one in the next round
		from, to := n%3, (n+1)%3
		on := map[string]int{"home": 0, "source": from, "target": to}[c.on]
		slots := s.slotsOf(t, from, 3)
		s.rebalance(t, "start", "--slots", slots, "--to", fmt.Sprintf("s%d", to), "--step-slots", "10000", fmt.Sprintf("--reversible=%v", c.end != ""))
		askEnd := func() {
			soon(t, 60*time.Second, c.name+": the move is kept", func() bool { return s.shards[0].Primary().Value("app", moveKept) == "t" })
			s.rebalance(t, c.end)
		}
		if c.end != "" && !c.early {
			askEnd()
		}
		if c.abort {
			eventually(t, "rows are copied", func() bool {
				return s.shards[0].Primary().Value("app", "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE phase IN ('copying', 'following'))") == "t"
			})
			s.rebalance(t, "abort")
		}
		seen := false
		for end := time.Now().Add(30 * time.Second); !seen && time.Now().Before(end); {
			seen = s.shards[on].Primary().Value("app", c.sql) == "t"
			if s.shards[0].Primary().Value("app", "SELECT count(*) FROM shardproxy.moves WHERE phase NOT IN ('done', 'aborted')") == "0" {
				break // it was too short
			}
		}
		victim.harm(s, from, to)
		if c.early {
			askEnd()
		}
		soon(t, 60*time.Second, c.name+": the move has ended", func() bool {
			return s.shards[0].Primary().Value("app", "SELECT count(*) FROM shardproxy.moves WHERE phase NOT IN ('done', 'aborted')") == "0" &&
				s.shards[0].Primary().Value("app", "SELECT guarded FROM shardproxy.epoch") == "f"
		})
		s.settled()
		phase := s.shards[0].Primary().Value("app", "SELECT phase || ' ' || said FROM shardproxy.moves ORDER BY id DESC LIMIT 1")
		t.Logf("%s, %s (seen: %v): %s", c.name, victim.name, seen, phase)
		owner := map[string]string{"rollback": fmt.Sprint("s", from), "complete": fmt.Sprint("s", to)}[c.end]
		if got := s.shards[0].Primary().Value("app", "SELECT string_agg(DISTINCT shard, ' ') FROM shardproxy.slots WHERE slot IN ("+slots+")"); owner != "" && got != owner {
			t.Fatalf("%s: %s has the slots, want %s", c.name, got, owner)
		}
		if got := rows(); got != want {
			t.Fatalf("%s: %s, want %s", c.name, got, want)
		}
		s.clean(t)
		if t.Failed() {
			t.Fatal(c.name)
		}
	}
}

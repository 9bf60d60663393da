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
}

var moveCrashes = []moveCrash{
	{"planned", false, "home", "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE phase = 'planned')"},
	{"bits of the target are set", false, "target", "SELECT bit_count(slots) > 0 FROM shardproxy.hidden"},
	{"guarded", false, "home", "SELECT guarded FROM shardproxy.epoch"},
	{"the replication slot is there", false, "source", "SELECT EXISTS (SELECT FROM pg_replication_slots)"},
	{"rows are copied", false, "target", "SELECT EXISTS (SELECT FROM shardproxy.move_progress)"},
	{"following", false, "home", "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE phase = 'following')"},
	{"a trigger is there", false, "source", "SELECT EXISTS (SELECT FROM pg_trigger WHERE NOT tgisinternal)"},
	{"slots are held", false, "home", "SELECT EXISTS (SELECT FROM shardproxy.slots WHERE state = 'held')"},
	{"the fence is closed", false, "source", "SELECT EXISTS (SELECT FROM shardproxy.fences WHERE closed)"},
	{"rows were compared", false, "home", "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE verified)"},
	{"held again", false, "home", "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE verified) AND EXISTS (SELECT FROM shardproxy.slots WHERE state = 'held')"},
	{"the flip is prepared", false, "source", "SELECT EXISTS (SELECT FROM pg_prepared_xacts)"},
	{"flipped", false, "home", "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE phase = 'flipped')"},
	{"released", false, "home", "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE phase = 'purging')"},
	{"some rows are purged", false, "source", "SELECT NOT EXISTS (SELECT FROM pg_replication_slots) AND EXISTS (SELECT FROM shardproxy.fences WHERE closed) AND bit_count(slots) > 0 FROM shardproxy.hidden"},
	{"bits of the source are cleared", false, "source", "SELECT bit_count(slots) = 0 AND EXISTS (SELECT FROM shardproxy.fences WHERE closed) FROM shardproxy.hidden"},
	{"it is to be given up", true, "home", "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE abort AND phase <> 'aborted')"},
	{"it is being given up", true, "home", "SELECT EXISTS (SELECT FROM shardproxy.moves WHERE phase = 'aborting')"},
}

// TestMoverCrashes kills both proxies in one moment of a move after the other: the next one that runs brings the move to its end, with all rows,
// and leaves nothing. SHARDPROXY_TEST_CRASHES is how many moments, spread over all; 4 of them otherwise.
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
	for i := 0; i < len(moveCrashes); i += every {
		c := moveCrashes[i]
		from, to := i/every%3, (i/every+1)%3
		on := map[string]int{"home": 0, "source": from, "target": to}[c.on]
		s.rebalance(t, "start", "--slots", s.slotsOf(t, from, 3), "--to", fmt.Sprintf("s%d", to), "--step-slots", "10000")
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
		s.kill(0)
		s.kill(1)
		s.restart(0)
		s.restart(1)
		soon(t, 60*time.Second, c.name+": the move has ended", func() bool {
			return s.shards[0].Primary().Value("app", "SELECT count(*) FROM shardproxy.moves WHERE phase NOT IN ('done', 'aborted')") == "0" &&
				s.shards[0].Primary().Value("app", "SELECT guarded FROM shardproxy.epoch") == "f"
		})
		s.settled()
		phase := s.shards[0].Primary().Value("app", "SELECT phase || ' ' || said FROM shardproxy.moves ORDER BY id DESC LIMIT 1")
		t.Logf("%s (seen: %v): %s", c.name, seen, phase)
		if got := rows(); got != want {
			t.Fatalf("%s: %s, want %s", c.name, got, want)
		}
		s.clean(t)
		if t.Failed() {
			t.Fatal(c.name)
		}
	}
}

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgcluster"
)

// planLines runs MOVE PLAN or MOVE START, and returns its lines but the last, which has the plan's name.
func planLines(t *testing.T, c *pgx.Conn, sql string) (text, id string) {
	t.Helper()
	rows, err := c.Query(within(t, time.Minute), sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if last, ok := strings.CutPrefix(lines[len(lines)-1], "plan "); ok {
		id, lines = last, lines[:len(lines)-1]
	}
	return strings.Join(lines, "\n") + "\n", id
}

// TestConsolePlans: MOVE PLAN says what shardproxy rebalance plan says, and MOVE START does what start does, to the plan that was shown and no other.
func TestConsolePlans(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	s.connectLoaded()
	console, _ := s.consoleOf()
	home := s.shards[0].Primary()
	refused := func(sql, code, says string) {
		t.Helper()
		_, err := console.Exec(within(t, time.Minute), sql, pgx.QueryExecModeSimpleProtocol)
		e, _ := err.(*pgconn.PgError)
		if e == nil || e.Code != code || !strings.Contains(e.Message+" "+e.Detail, says) || strings.Contains(e.Message+e.Detail, "--") {
			t.Errorf("%s: %+v, want %s and %q", sql, err, code, says)
		}
	}
	slots := home.Rows("app", "SELECT slot FROM shardproxy.slots WHERE shard = 's0' ORDER BY slot LIMIT 2")
	a, b := slots[0][0], slots[1][0]
	before := s.state()
	for _, c := range []struct{ sql, args string }{
		{"MOVE PLAN SLOTS " + a + ", " + b + " TO s1 IN app", "--slots " + a + "," + b + " --to s1"},
		{"MOVE PLAN TENANT 'orders.customer_id=42' TO s0", "--move-tenant orders.customer_id=42 --to s0"},
		{"MOVE PLAN REMOVE s1 BY rows MAX_SLOTS 100 STEP_SLOTS 60", "--remove s1 --by rows --max-slots 100 --step-slots 60"},
		{"MOVE PLAN WEIGHT 's0=3' THRESHOLD '1%' EXACT", "--weight s0=3 --threshold 1% --exact"},
		{"MOVE PLAN", ""},
	} {
		text, _ := planLines(t, console, c.sql)
		if o := s.plans(strings.Fields(c.args)...); text != onConsole().Replace(o.out) || o.out == "" {
			t.Errorf("%s says\n%s\nrebalance plan %s says\n%+v", c.sql, text, c.args, o)
		}
	}
	refused("MOVE PLAN SLOTS 5", "22023", "SLOTS and TENANT need TO")
	refused("MOVE PLAN TO s1", "22023", "TO needs SLOTS or TENANT")
	refused("MOVE PLAN SLOTS 9999 TO s1", "22023", "there is no slot 9999")
	refused("MOVE PLAN REMOVE s7", "22023", "REMOVE s7: there is no such shard")
	refused("MOVE PLAN THRESHOLD much", "22023", "much")
	refused("MOVE PLAN TENANT 'nowhere.id=1' TO s1", "22023", "there is no table nowhere")
	refused("MOVE START ADD 's9=127.0.0.1:1'", "08001", "the configuration has no such shard")
	if after := s.state(); after != before {
		t.Errorf("plans have written: %s, before: %s", after, before)
	}

	_, first := planLines(t, console, "MOVE PLAN SLOTS "+a+" TO s1")
	_, again := planLines(t, console, "MOVE PLAN SLOTS "+a+" TO s1")
	_, other := planLines(t, console, "MOVE PLAN SLOTS "+b+" TO s1")
	_, reversible := planLines(t, console, "MOVE PLAN SLOTS "+a+" TO s1 REVERSIBLE")
	if first == "" || first != again || first == other || first == reversible {
		t.Errorf("plans are called %q, again %q, another %q, reversible %q", first, again, other, reversible)
	}
	refused("MOVE START SLOTS "+a+" TO s1 PLAN '"+other+"'", "55000", "no longer the one")
	text, id := planLines(t, console, "MOVE START SLOTS "+a+" TO s1 PLAN '"+first+"'")
	if id != first || !strings.Contains(text, "moves are stored; one of 1 proxies carries them out") || strings.Contains(text, "nothing was changed") {
		t.Errorf("%s %s", id, text)
	}
	soon(t, time.Minute, "the move has ended", func() bool {
		h := shownBy(t, console, "SHOW MOVE_HISTORY")
		return len(h) == 1 && h[0]["phase"] == "done"
	})
	if owner := home.Value("app", "SELECT shard FROM shardproxy.slots WHERE slot = "+a); owner != "s1" {
		t.Error("the slot is on", owner)
	}
	refused("MOVE START SLOTS "+b+" TO s1 PLAN '"+other+"'", "55000", "no longer the one") // there is another map now
	if text, id := planLines(t, console, "MOVE START SLOTS "+a+" TO s1"); id != "" || !strings.Contains(text, "nothing to do") {
		t.Errorf("what is there already: %s %s", id, text)
	}
	// Something in the way is said, and nothing is begun.
	s.onEachRun("ALTER TABLE orders DROP CONSTRAINT orders_pkey CASCADE")
	if text, _ := planLines(t, console, "MOVE PLAN SLOTS "+b+" TO s1"); !strings.Contains(text, "a plan that cannot be done: something is in the way") {
		t.Error(text)
	}
	refused("MOVE START SLOTS "+b+" TO s1", "55000", "orders")
	if n := len(shownBy(t, console, "SHOW MOVES")); n != 0 {
		t.Errorf("%d moves are there", n)
	}
	for _, said := range []string{`msg="moves ordered" user=app`, "wanted=start", `said="plan ` + first, `msg="console command failed" user=app`} {
		if !strings.Contains(s.logged(), said) {
			t.Errorf("the log lacks %s", said)
		}
	}
	s.shards[1].Primary().Stop()
	refused("MOVE PLAN", "08001", "s1")
	s.shards[1].Primary().Start()
}

// TestConsoleJoins: a shard joins and leaves by orders on the console alone.
func TestConsoleJoins(t *testing.T) {
	t.Parallel()
	s := startSpareStage(t, 3, 2)
	must(t, s.proxies[0].connect(), "INSERT INTO rates SELECT n, 0 FROM generate_series(1, 100) n")
	console := (&proxied{t: t}).connectTo(s.proxies[0].dsnOf("app", pgcluster.AppPassword, "shardproxy"))
	_, id := planLines(t, console, "MOVE PLAN ADD s2 SLOTS 0, 1 TO s2")
	if id == "" || s.members() != "s0 s1" {
		t.Fatalf("plan %q, the shards are %s", id, s.members())
	}
	text, _ := planLines(t, console, "MOVE START ADD s2 SLOTS 0, 1 TO s2 PLAN '"+id+"'")
	if !strings.Contains(text, "the schema") || !strings.Contains(text, "moves are stored") {
		t.Error(text)
	}
	s.ends(t, "it joins")
	if s.members() != "s0 s1 s2" {
		t.Fatalf("the shards are %s", s.members())
	}
	if got := s.shards[2].Primary().Value("app", "SELECT count(*) FROM rates"); got != "100" {
		t.Errorf("%s rows of a reference table are on the shard that joined", got)
	}
	if text, _ := planLines(t, console, "MOVE START REMOVE s2 THRESHOLD '99%'"); !strings.Contains(text, "moves are stored") {
		t.Error(text)
	}
	s.ends(t, "it leaves")
	if s.members() != "s0 s1" {
		t.Errorf("the shards are %s", s.members())
	}
}

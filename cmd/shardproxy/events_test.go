package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"shardproxy/admin"
)

// TestEventLog: the last ones are kept, in their order, and none twice.
func TestEventLog(t *testing.T) {
	t.Parallel()
	l := &eventLog{}
	for n := range 2*eventsKept + 7 {
		l.add(admin.Event{What: fmt.Sprint(n + 1)})
		if n%97 > 0 && n != eventsKept {
			continue
		}
		all := l.list()
		if len(all) != min(n+1, eventsKept) || all[len(all)-1].ID != int64(n+1) || all[0].ID != int64(max(1, n+2-eventsKept)) {
			t.Fatalf("of %d there are %d, from %d to %d", n+1, len(all), all[0].ID, all[len(all)-1].ID)
		}
	}
	all := l.list()
	for i, e := range all {
		if e.What != fmt.Sprint(e.ID) || i > 0 && e.ID != all[i-1].ID+1 {
			t.Fatalf("%+v at %d", e, i)
		}
	}
	var busy sync.WaitGroup
	for range 4 {
		busy.Go(func() {
			for range 100 {
				l.add(admin.Event{})
				l.list()
			}
		})
	}
	busy.Wait()
}

// TestEventHandler: what is an event, and what becomes of its attributes; the log has all, at its own level.
func TestEventHandler(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	events := &eventLog{}
	log := slog.New(&eventHandler{next: slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn}), events: events})
	shard := log.With("database", "shop", "shard", "s0")
	shard.Debug("no event")
	shard.Info("node changed", "node", "a:1", "role", "primary", "why", "it says so", "empty", "")
	log.Warn("client refused", "client", "1.2.3.4:5", "error", "x")
	log.Info("server connection lost", "session", 7)
	log.Error("session panicked", "session", 7, "client", "c")
	log.Info("console command", "client", "c", "console", 1, "command", "pause shop")
	log.WithGroup("g").With("a", 1).Warn("grouped", "b", strings.Repeat("x", 3000))
	var got []string
	for _, e := range events.list() {
		got = append(got, fmt.Sprintf("%s %s|%s|%s|%s|%.60s", e.Level, e.What, e.Database, e.Shard, e.Node, e.Detail))
	}
	want := []string{
		`INFO node changed|shop|s0|a:1|role=primary why="it says so" empty=""`, "ERROR session panicked||||session=7 client=c",
		`INFO console command||||client=c console=1 command="pause shop"`, "WARN grouped||||g.a=1 g.b=" + strings.Repeat("x", 50),
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if n := len(events.list()[3].Detail); n > eventDetailMax+3 {
		t.Error("a detail of", n)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 3 || strings.Contains(out.String(), "node changed") {
		t.Errorf("the log has:\n%s", out.String())
	}
}

// TestConsoleLooks: gates, events, prepared statements and routes are those of the running program.
func TestConsoleLooks(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	c := s.connectLoaded()
	console, _ := s.consoleOf()
	for _, sql := range []string{
		"SELECT * FROM orders WHERE customer_id = 7", "SELECT count(*) FROM orders", "UPDATE products SET name = clock_timestamp()::text", "INSERT INTO customers VALUES (1, 'a'), (2, 'b')",
		"SELECT 'it''s'", "SELECT * FROM nowhere", "nonsense", "VACUUM orders",
	} {
		want := "-"
		rows, err := c.Query(t.Context(), "EXPLAIN (ROUTE) "+sql)
		if err == nil {
			var lines []string
			for rows.Next() {
				v, _ := rows.Values()
				lines = append(lines, fmt.Sprint(v[0]))
			}
			if err = rows.Err(); err == nil {
				want = strings.Join(lines, "\n")
			}
		}
		if err != nil {
			want = sqlState(err)
		}
		var lines []string
		got := ""
		rows, err = console.Query(t.Context(), "EXPLAIN ROUTE '"+strings.ReplaceAll(sql, "'", "''")+"'")
		if err == nil {
			for rows.Next() {
				v, _ := rows.Values()
				lines = append(lines, fmt.Sprint(v[0]))
			}
			err = rows.Err()
			got = strings.Join(lines, "\n")
		}
		if err != nil {
			got = sqlState(err)
		}
		if got != want || got == "" {
			t.Errorf("%s\nthe console says\n%s\na session\n%s", sql, got, want)
		}
	}
	fails(t, console, "EXPLAIN ROUTE 'SELECT 1; SELECT 2'", "42601")
	fails(t, console, "EXPLAIN ROUTE ''", "42601")
	fails(t, console, "EXPLAIN ROUTE 'SELECT 1' IN nobody", "3D000")

	other := s.connect()
	const text = "SELECT name FROM customers WHERE id = $1"
	if _, err := c.Prepare(t.Context(), "one", text); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Prepare(t.Context(), "two", text); err != nil {
		t.Fatal(err)
	}
	prepared := shownBy(t, console, "SHOW PREPARED WHERE query LIKE 'SELECT name FROM customers%'")
	if len(prepared) != 1 || prepared[0]["clients"] != "2" || prepared[0]["database"] != "app" || !strings.HasPrefix(prepared[0]["name"], "_sp_") {
		t.Error(prepared)
	}

	if gates := shownBy(t, console, "SHOW GATES"); len(gates) != 3 || gates[2]["gate"] != "slots" || gates[0]["closed"] != "0" {
		t.Error(gates)
	}
	s.shards[1].Primary().Stop()
	soon(t, 20*time.Second, "the gate of a shard without a primary is closed", func() bool {
		g := shownBy(t, console, "SHOW GATES WHERE shard = 's1'")
		return g[0]["closed"] == "1" && g[0]["reason"] != "-" && g[0]["closed_since"] != "-"
	})
	// A suspicion closes the gate already; the verdict behind it is the event.
	lost := "event = 'shard has no primary, writes are held' AND database = 'app' AND shard = 's1' AND level = 'WARN'"
	soon(t, 20*time.Second, "a primary that is lost is an event", func() bool { return len(shownBy(t, console, "SHOW EVENTS WHERE "+lost)) > 0 })
	s.shards[1].Primary().Start()
	soon(t, 20*time.Second, "the gate is open again", func() bool { return len(shownBy(t, console, "SHOW GATES WHERE closed = 1")) == 0 })
	must(t, console, "RELOAD")
	for what, sql := range map[string]string{
		"a primary that is there": "event = 'shard has a primary' AND shard = 's1' AND node IS NOT NULL",
		"a reload":                "event = 'configuration reloaded'",
		"what operators order":    "event = 'console command' AND detail LIKE '%command=reload%' AND detail LIKE '%user=app%'",
	} {
		if len(shownBy(t, console, "SHOW EVENTS WHERE "+sql)) == 0 {
			t.Errorf("%s is no event: %v", what, shownBy(t, console, "SHOW EVENTS"))
		}
	}
}

package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
)

// TestConsoleSteers: DISABLE, KILL_CLIENT, WAIT_CLOSE and DRAIN do to clients and servers what PgBouncer's do.
func TestConsoleSteers(t *testing.T) {
	t.Parallel()
	px := startProgram(t, pgtest.Start(t, pgtest.Options{}), configText)
	console, _ := px.consoleOf()
	there := px.connect()
	must(t, there, "SELECT 1")
	must(t, console, "DISABLE app")
	if _, err := px.tryConnect(); sqlState(err) != "55000" || !strings.Contains(err.Error(), `database "app" is not currently accepting connections`) {
		t.Error("a new client of a disabled database:", err)
	}
	must(t, there, "SELECT 1")
	if d := shownBy(t, console, "SHOW DATABASES WHERE name = 'app'"); d[0]["disabled"] != "1" || d[0]["paused"] != "0" {
		t.Error(d)
	}
	must(t, console, "RELOAD")
	if _, err := px.tryConnect(); sqlState(err) != "55000" {
		t.Error("behind RELOAD:", err)
	}
	must(t, console, "ENABLE app")
	other := px.connect()

	ids := shownBy(t, console, "SHOW CLIENTS WHERE database = 'app' ORDER BY id")
	if len(ids) != 2 {
		t.Fatal(ids)
	}
	fails(t, console, "KILL_CLIENT 999999", "42704")
	must(t, console, "KILL_CLIENT "+ids[0]["id"])
	fails(t, there, "SELECT 1", "57P01")
	must(t, other, "SELECT 1")

	must(t, other, "BEGIN")
	must(t, other, "SELECT 1")
	must(t, console, "RECONNECT app")
	if n := len(shownBy(t, console, "SHOW SERVERS WHERE close_needed = 1")); n != 1 {
		t.Errorf("%d server connections are to be closed", n)
	}
	waiting, _ := px.consoleOf()
	done := make(chan error, 1)
	go func() {
		_, err := waiting.Exec(within(t, 20*time.Second), "WAIT_CLOSE app")
		done <- err
	}()
	select {
	case err := <-done:
		t.Errorf("WAIT_CLOSE did not wait for a server connection that is to be closed: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	must(t, other, "COMMIT")
	if err := <-done; err != nil {
		t.Error(err)
	}

	ready := func() (int, string) {
		res, err := http.Get("http://" + px.p.state.Load().cfg.Admin.Address + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(body)
	}
	for _, step := range []struct {
		sql  string
		code int
	}{{"SHOW STATE", 200}, {"DRAIN", 503}, {"DRAIN OFF", 200}} {
		must(t, console, step.sql)
		if code, body := ready(); code != step.code || code == 503 && !strings.Contains(body, "an operator has ordered DRAIN") {
			t.Errorf("behind %s: %d %s", step.sql, code, body)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	must(t, px.connect(), "SELECT 1")
	for _, said := range []string{`msg="console command" user=app`, `command="kill_client`, `command="disable app"`, "command=drain"} {
		if !strings.Contains(px.logged(), said) {
			t.Errorf("the log lacks %s", said)
		}
	}
}

// TestConsoleMoves: moves are paused, resumed, given up, rolled back and completed from the console, as by shardproxy rebalance.
func TestConsoleMoves(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	s.connectLoaded()
	console, notices := s.consoleOf()
	home := s.shards[0].Primary()
	said := func(sql, want string) {
		t.Helper()
		*notices = nil
		must(t, console, sql)
		if len(*notices) != 1 || !strings.Contains((*notices)[0].Message, want) {
			t.Errorf("%s says %+v, want %q", sql, *notices, want)
		}
	}
	start := func(args ...string) {
		t.Helper()
		if o := call(t, "", append([]string{"rebalance", "start", "-c", s.path}, args...)...); o.code != 0 {
			t.Fatalf("%+v", o)
		}
	}
	ended := func(n int) (history []map[string]string) {
		t.Helper()
		soon(t, time.Minute, fmt.Sprintf("%d moves have ended", n), func() bool {
			history = shownBy(t, console, "SHOW MOVE_HISTORY ORDER BY id")
			return len(history) == n
		})
		if len(history) != n {
			t.FailNow()
		}
		return history
	}
	slots := home.Rows("app", "SELECT slot FROM shardproxy.slots WHERE shard = 's0' ORDER BY slot LIMIT 3")

	said("MOVE PAUSE", "database app: paused: 0")
	fails(t, console, "MOVE ROLLBACK 1", "55000")
	start("--slots", slots[0][0], "--to", "s1", "--reversible")
	soon(t, time.Minute, "the move can be rolled back", func() bool {
		moves := shownBy(t, console, "SHOW MOVES WHERE phase = 'reversing'")
		return len(moves) == 1 && moves[0]["reversible"] == "1" && moves[0]["wanted"] == "-"
	})
	said("MOVE PAUSE", "paused: 1")
	if moves := shownBy(t, console, "SHOW MOVES"); moves[0]["paused"] != "1" {
		t.Error("what MOVE has done is not shown behind it:", moves)
	}
	said("MOVE RESUME IN app", "resumed: 1")
	said("MOVE ROLLBACK 1", "to be rolled back: 1")
	if h := ended(1)[0]; h["phase"] != "done" || h["back"] != "1" || h["wanted"] != "rollback" {
		t.Error(h)
	}
	if owner := home.Value("app", "SELECT shard FROM shardproxy.slots WHERE slot = "+slots[0][0]); owner != "s0" {
		t.Error("a slot that was rolled back is on", owner)
	}
	start("--slots", slots[1][0], "--to", "s1", "--reversible")
	soon(t, time.Minute, "the move can be completed", func() bool { return len(shownBy(t, console, "SHOW MOVES WHERE phase = 'reversing'")) == 1 })
	said("MOVE COMPLETE", "to be completed: 1")
	if h := ended(2)[1]; h["phase"] != "done" || h["wanted"] != "complete" {
		t.Error(h)
	}
	if owner := home.Value("app", "SELECT shard FROM shardproxy.slots WHERE slot = "+slots[1][0]); owner != "s1" {
		t.Error("a slot whose move was completed is on", owner)
	}
	// A lock of a client keeps a move from its first phases: it is under way when it is given up.
	c := s.connect()
	must(t, c, "BEGIN")
	must(t, c, "INSERT INTO customers SELECT i, 'x' FROM generate_series(1, 50) i")
	start("--slots", slots[2][0], "--to", "s1")
	said("MOVE ABORT", "given up: 1")
	must(t, c, "ROLLBACK")
	if h := ended(3)[2]; h["phase"] != "aborted" || h["abort"] != "1" {
		t.Error(h)
	}
	if !strings.Contains(s.logged(), `msg="moves ordered" user=app`) {
		t.Error("orders to moves are not logged")
	}
	home.Stop()
	began := time.Now()
	fails(t, console, "MOVE PAUSE", "08001")
	if took := time.Since(began); took > 15*time.Second {
		t.Error("MOVE with a home shard that is down took", took)
	}
	home.Start()
}

// TestBanNode: a banned replica gets no reads; one that takes writes cannot be banned.
func TestBanNode(t *testing.T) {
	t.Parallel()
	cl := pgtest.Start(t, pgtest.Options{Replicas: 2})
	px := startProgram(t, cl, configText)
	console, _ := px.consoleOf()
	c := px.connect()
	read := func() map[int]bool {
		seen := map[int]bool{}
		for range 12 {
			seen[serverPort(t, c)] = true
		}
		return seen
	}
	eventually(t, "both replicas are read from", func() bool { return len(read()) == 2 })
	fails(t, console, fmt.Sprintf("BAN NODE '%s'", cl.Primary().Addr()), "55000")
	fails(t, console, "BAN NODE '127.0.0.1:1'", "42704")
	var replicas []*pgtest.Node
	for _, n := range cl.Nodes() {
		if n != cl.Primary() {
			replicas = append(replicas, n)
		}
	}
	must(t, console, fmt.Sprintf("BAN NODE '%s'", replicas[0].Addr()))
	if seen := read(); len(seen) != 1 || seen[replicas[0].Port()] {
		t.Error("with one replica banned, reads went to", seen)
	}
	if n := shownBy(t, console, "SHOW NODES WHERE banned = 1"); len(n) != 1 || n[0]["node"] != replicas[0].Addr() || n[0]["health"] != "up" {
		t.Error(n)
	}
	must(t, console, "RELOAD")
	must(t, console, fmt.Sprintf("BAN NODE '%s' IN app", replicas[1].Addr()))
	if seen := read(); len(seen) != 1 || !seen[cl.Primary().Port()] {
		t.Error("with both replicas banned, reads went to", seen)
	}
	must(t, console, fmt.Sprintf("UNBAN NODE '%s'", replicas[0].Addr()))
	must(t, console, fmt.Sprintf("UNBAN NODE '%s' IN app", replicas[1].Addr()))
	eventually(t, "both replicas are read from again", func() bool { return len(read()) == 2 && !read()[cl.Primary().Port()] })
	if n := shownBy(t, console, "SHOW EVENTS WHERE event LIKE 'node is banned%' AND node IS NOT NULL"); len(n) != 2 {
		t.Error(n)
	}
}

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgcluster"
	"shardproxy/internal/pgtest"
)

// consoleError runs a command of the console that has to fail.
func (px *proxied) consoleError(sql string) *pgconn.PgError {
	px.t.Helper()
	c := px.connectTo(strings.Replace(px.dsn(), "/app?", "/shardproxy?", 1))
	_, err := c.PgConn().Exec(within(px.t, 10*time.Second), sql).ReadAll()
	pe, ok := err.(*pgconn.PgError)
	if !ok {
		px.t.Fatalf("%s: %v", sql, err)
	}
	return pe
}

// TestReloadNamesWhatNeedsARestart: a change of the servers is refused, with
// everything else in the file, and who ordered it is told which setting it is.
func TestReloadNamesWhatNeedsARestart(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{Replicas: 1})
	text := strings.Replace(configText, "server: {", "server: {user: app, password: "+pgcluster.AppPassword+", ", 1)
	px := startProgram(t, cl, text)
	good := px.text()
	second := `, "` + cl.Replicas()[0].Addr() + `"`
	for _, c := range []struct{ old, new, setting string }{
		{second, "", "databases.app.shards[s0].nodes"},
		{"shards: [", `shards: [{name: s1, nodes: ["127.0.0.1:1"]}, `, "databases.app.shards[s1]"},
		{"name: s0", "name: s9", "databases.app.shards[s9]"},
		{"server: {user: app", "server: {user: other", "databases.app.server.user"},
		{"control: {user: postgres", "control: {user: app", "databases.app.server.control.user"},
		{"connect_timeout: 2s", "connect_timeout: 3s", "databases.app.server.connect_timeout"},
		{"connect_timeout: 2s", "connect_timeout: 2s, database: other", "databases.app.server.database"},
		{"connect_timeout: 2s", "connect_timeout: 2s, tls: {mode: disable}", "databases.app.server.tls.mode"},
		{"reads: {", "reads: {max_lag: 5s, ", "databases.app.reads.max_lag"},
	} {
		if !strings.Contains(good, c.old) {
			t.Fatalf("%q is not in\n%s", c.old, good)
		}
		px.write(strings.Replace(good, c.old, c.new, 1) + "log: {level: debug}\n")
		e := px.consoleError("RELOAD")
		want := "need a restart: " + c.setting
		if c.setting == "databases.app.shards[s9]" {
			want = "need a restart: databases.app.shards[s0], databases.app.shards[s9]"
		}
		if e.Code != "F0000" || !strings.Contains(e.Message+e.Detail, want) {
			t.Errorf("%s: %s %s %s", c.new, e.Code, e.Message, e.Detail)
		}
		if px.p.state.Load().cfg.Log.Level == "debug" {
			t.Fatal("part of a refused file is in force")
		}
	}
	px.write(good + "log: {level: debug}\n")
	if err := px.p.reload(); err != nil {
		t.Fatal(err)
	}
}

// TestReloadLogsChanges: what came, what went and what became of what.
func TestReloadLogsChanges(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{})
	text := strings.Replace(configText, "databases:", "  - {name: gone, password: x}\ndatabases:", 1)
	px := startProgram(t, cl, text)
	changed := strings.Replace(px.text(), "{name: gone, password: x}", "{name: come, password: y}", 1)
	px.write(strings.Replace(changed, "admin_users: [app]", "admin_users: [app, come]", 1) + "timeouts: {query: 5s}\n")
	if err := px.p.reload(); err != nil {
		t.Fatal(err)
	}
	log := px.logged()
	for _, want := range []string{
		`msg="configuration changed" removed=users[gone]`, `msg="configuration changed" added=users[come]`,
		`setting=admin.admin_users old=[app] new="[app, come]"`, `setting=timeouts.query old=0 new=5s`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s:\n%s", want, log)
		}
	}
	if strings.Contains(log, "(set)") {
		t.Errorf("the log has words of the program's own:\n%s", log)
	}
}

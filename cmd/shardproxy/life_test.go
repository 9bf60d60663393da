package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
	"shardproxy/proxy"
)

func (px *proxied) text() string {
	px.t.Helper()
	b, err := os.ReadFile(px.path)
	if err != nil {
		px.t.Fatal(err)
	}
	return string(b)
}

func TestReloadIsAllOrNothing(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{})
	px := startProgram(t, cl, configText)
	c := px.connect()
	good := px.text()

	px.write(strings.Replace(good, "name: app,", "name: app, pool_size: -1,", 1) + "log: {level: debug}\n")
	if err := px.p.reload(); err == nil {
		t.Fatal("a bad file was accepted")
	}
	if px.p.state.Load().cfg.Log.Level == "debug" {
		t.Error("part of a bad file is in force")
	}
	px.write(strings.Replace(good, "shards:", "pool: {max_servers: 7}\n    shards:", 1))
	if err := px.p.reload(); err == nil || !strings.Contains(err.Error(), "max_servers") {
		t.Errorf("a setting that needs a restart: %v", err)
	}
	px.write(strings.Replace(good, "shards:", "pool: {size: 3}\n    shards:", 1) + "timeouts: {query: 300ms}\n")
	if err := px.p.reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(within(t, 10*time.Second), "SELECT 1"); err != nil {
		t.Errorf("a session did not outlive the reload: %v", err)
	}
	d := px.connect()
	if _, err := d.Exec(within(t, 10*time.Second), "SELECT pg_sleep(20)"); sqlState(err) != "57014" {
		t.Errorf("the new timeout is not in force: %v", err)
	}
}

func TestShutdownWaitsForTransactions(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{})
	px := startProgram(t, cl, configText)
	idle, busy := px.connect(), px.connect()
	if _, err := busy.Exec(within(t, 10*time.Second), "CREATE TABLE kept (id int)"); err != nil {
		t.Fatal(err)
	}
	tx, err := busy.Begin(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(within(t, 10*time.Second), "INSERT INTO kept VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		px.p.server.Shutdown(within(t, 20*time.Second), proxy.WaitForServers)
		close(done)
	}()
	eventually(t, "the idle client is told", func() bool {
		_, err := idle.Exec(within(t, 10*time.Second), "SELECT 1")
		return err != nil
	})
	if _, err := pgx.Connect(within(t, 10*time.Second), px.dsn()); err == nil {
		t.Error("a new client got in")
	}
	if err := tx.Commit(within(t, 10*time.Second)); err != nil {
		t.Errorf("the transaction could not end: %v", err)
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the shutdown does not end")
	}
	if got := cl.Primary().Value("app", "SELECT count(*) FROM kept"); got != "1" {
		t.Errorf("%s rows", got)
	}
}

func TestAdminListener(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{Replicas: 1})
	px := startProgram(t, cl, strings.Replace(configText, "admin_users: [app], ", "", 1))
	_ = px.connect()
	get := func(path string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(within(t, 10*time.Second), http.MethodGet, "http://"+px.p.http.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		tr := &http.Transport{DisableKeepAlives: true}
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/"} {
		if code, body := get(path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code, _ := get("/debug/pprof/"); code != http.StatusNotFound {
		t.Errorf("profiles are served to everybody: %d", code)
	}
	if _, body := get("/metrics"); !strings.Contains(body, "shardproxy_") {
		t.Error("no metric of ours")
	}
}

func TestConsoleOfTheProgram(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{Replicas: 1})
	px := startProgram(t, cl, configText)
	c, err := pgx.Connect(within(t, 10*time.Second), strings.Replace(px.dsn(), "/app?", "/pgbouncer?", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	for _, cmd := range []string{"SHOW POOLS", "SHOW CLIENTS", "SHOW SERVERS", "SHOW NODES", "SHOW DATABASES", "SHOW CONFIG", "RELOAD", "PAUSE app", "RESUME app"} {
		if _, err := c.Exec(within(t, 10*time.Second), cmd); err != nil {
			t.Errorf("%s: %v", cmd, err)
		}
	}
}

func TestCheckCommand(t *testing.T) {
	path := t.TempDir() + "/c.yaml"
	for _, c := range []struct {
		text, want string
		code       int
	}{
		{"users: [{name: a, password: b}]\ndatabases: {d: {shards: [{name: s, nodes: [\"h:1\"]}]}}\n", "good", 0},
		{"users: [{name: a, password: b}]\ndatabases: {d: {shrads: []}}\n", "c.yaml:2", exitProblems},
		{"users: [{name: a, password: b}]\ndatabases: {d: {shards: [{name: s, nodes: [\"h:1\"]}, {name: t, nodes: [\"h:2\"]}]}}\n", "good", 0},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		cmd := checkCommand()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs([]string{"-c", path})
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		err := cmd.Execute()
		code := 0
		if ee, ok := err.(*exitError); ok {
			code = ee.code
			out.WriteString(ee.msg)
		}
		if code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("exit code %d, want %d; output:\n%s", code, c.code, out.String())
		}
	}
}

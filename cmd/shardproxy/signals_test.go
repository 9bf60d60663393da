package main

import (
	"context"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgcluster"
)

// TestSighup reloads: a bad file changes nothing at all, a good one everything.
func TestSighup(t *testing.T) {
	t.Parallel()
	ps := startProcess(t, processText)
	old := ps.connect()
	good := ps.text()
	const short = "timeouts: {query: 200ms}\n"
	stands := func() {
		t.Helper()
		c := ps.connect()
		defer c.Close(context.Background())
		must(t, old, "SELECT pg_sleep(0.5)")
		must(t, c, "SELECT pg_sleep(0.5)")
	}

	ps.write(strings.Replace(good, "name: app,", "name: app, pool_size: -1, colour: red,", 1) + short)
	ps.signal(syscall.SIGHUP)
	ps.logged("reload failed")
	refusal := strings.Join(lines(ps.printed(), "reload failed"), "\n")
	for _, want := range []string{"level=ERROR", "shardproxy.yaml:5:", "pool_size", "colour"} {
		if !strings.Contains(refusal, want) {
			t.Errorf("the log of a refused reload does not have %q: %s", want, refusal)
		}
	}
	stands()

	ps.write(strings.Replace(good, "connect_timeout: 2s", "connect_timeout: 3s", 1) + short)
	ps.signal(syscall.SIGHUP)
	ps.logged("need a restart: databases.app.server.connect_timeout")
	stands()

	users := "users:\n  - {name: second, password: two, server_user: app, server_password: " + pgcluster.AppPassword + "}\n"
	ps.write(strings.Replace(good, "users:\n", users, 1) + short)
	ps.signal(syscall.SIGHUP)
	ps.logged("configuration reloaded")
	must(t, old, "SELECT 1")
	second := (&proxied{t: t}).connectTo(ps.dsnOf("second", "two", "app"))
	fails(t, second, "SELECT pg_sleep(20)", "57014")
	// Sessions are told before their next statement, not in the middle of one.
	fails(t, ps.connect(), "SELECT pg_sleep(20)", "57014")

	ps.write(good)
	ps.signal(syscall.SIGHUP)
	eventually(t, "the file without the second user is in force", func() bool {
		return len(lines(ps.printed(), "configuration reloaded")) == 2
	})
	if _, err := pgx.Connect(within(t, 10*time.Second), ps.dsnOf("second", "two", "app")); sqlState(err) != "28P01" {
		t.Errorf("a user that the file has no more: %v", err)
	}
	stands()
	ps.runsStill()
}

// inTransaction returns a client whose transaction has written a row.
func (ps *process) inTransaction() (*pgx.Conn, pgx.Tx) {
	ps.t.Helper()
	c := ps.connect()
	must(ps.t, c, "CREATE TABLE IF NOT EXISTS kept (id int)")
	tx, err := c.Begin(within(ps.t, 20*time.Second))
	if err != nil {
		ps.t.Fatal(err)
	}
	must(ps.t, c, "INSERT INTO kept VALUES (1)")
	return c, tx
}

// refused waits until new clients are turned away.
func (ps *process) refused() {
	ps.t.Helper()
	eventually(ps.t, "new clients are refused", func() bool {
		c, err := pgx.Connect(within(ps.t, 10*time.Second), ps.dsn())
		if err == nil {
			_ = c.Close(context.Background())
		}
		return err != nil
	})
	for range 5 {
		if c, err := pgx.Connect(within(ps.t, 10*time.Second), ps.dsn()); err == nil {
			_ = c.Close(context.Background())
			ps.t.Error("a new client got in after one was refused")
		}
	}
}

// TestSigterm ends when the clients have left: the ones there are go on, in
// transactions and after them.
func TestSigterm(t *testing.T) {
	t.Parallel()
	ps := startProcess(t, processText)
	idle := ps.connect()
	busy, tx := ps.inTransaction()
	ps.signal(syscall.SIGTERM)
	ps.refused()
	if code := ps.get("/readyz"); code != 503 {
		t.Errorf("/readyz answers %d while it drains", code)
	}
	if code := ps.get("/livez"); code != 200 {
		t.Errorf("/livez answers %d while it drains", code)
	}
	must(t, idle, "SELECT 1")
	must(t, busy, "INSERT INTO kept VALUES (2)")
	if err := tx.Commit(within(t, 10*time.Second)); err != nil {
		t.Error(err)
	}
	must(t, busy, "INSERT INTO kept VALUES (3)")
	var n int
	if err := idle.QueryRow(within(t, 10*time.Second), "SELECT count(*) FROM kept").Scan(&n); err != nil || n != 3 {
		t.Errorf("%d rows, %v", n, err)
	}
	_ = busy.Close(within(t, 10*time.Second))
	must(t, idle, "SELECT 1")
	ps.runsStill()
	_ = idle.Close(within(t, 10*time.Second))
	ps.endsWithin(10 * time.Second)
}

// TestSigtermIsBounded has a client that does not leave.
func TestSigtermIsBounded(t *testing.T) {
	t.Parallel()
	ps := startProcess(t, processText+"shutdown: {timeout: 1s}\n")
	c, _ := ps.inTransaction()
	begun := time.Now()
	ps.signal(syscall.SIGTERM)
	ps.endsWithin(8 * time.Second)
	if d := time.Since(begun); d < 900*time.Millisecond {
		t.Errorf("it waited %v for its client", d)
	}
	if _, err := c.Exec(within(t, 10*time.Second), "SELECT 1"); sqlState(err) != "57P01" {
		t.Errorf("the client was told %v", err)
	}
}

// TestSigint ends each client when its transaction is over.
func TestSigint(t *testing.T) {
	t.Parallel()
	ps := startProcess(t, processText)
	idle, running := ps.connect(), ps.connect()
	busy, tx := ps.inTransaction()
	listening := ps.connect()
	must(t, listening, "LISTEN something")
	result := make(chan error, 1)
	go func() {
		_, err := running.Exec(context.Background(), "INSERT INTO kept SELECT 4 FROM pg_sleep(2)")
		result <- err
	}()
	eventually(t, "the statement runs", func() bool {
		return len(ps.busy()) == 3 // the transaction, the statement, the one that listens
	})
	ps.signal(syscall.SIGINT)
	for _, c := range []*pgx.Conn{idle, listening} {
		eventually(t, "a client with nothing under way is told", func() bool {
			_, err := c.Exec(within(t, 10*time.Second), "SELECT 1")
			if err != nil && sqlState(err) != "57P01" {
				t.Errorf("it was told %v", err)
			}
			return err != nil
		})
	}
	ps.refused()
	must(t, busy, "INSERT INTO kept VALUES (2)")
	if err := tx.Commit(within(t, 10*time.Second)); err != nil {
		t.Errorf("the transaction could not end: %v", err)
	}
	if _, err := busy.Exec(within(t, 10*time.Second), "SELECT 1"); sqlState(err) != "57P01" {
		t.Errorf("after the transaction: %v", err)
	}
	if err := <-result; err != nil {
		t.Errorf("a statement under way: %v", err)
	}
	ps.endsWithin(10 * time.Second)
	if got := ps.stored(); got != "3" {
		t.Errorf("%s rows of 3", got)
	}
}

// busy returns the server connections on loan.
func (ps *process) busy() [][]string {
	ps.t.Helper()
	var on [][]string
	for _, row := range ps.console("SHOW SERVERS") {
		if row[4] == "active" {
			on = append(on, row)
		}
	}
	return on
}

// stored counts the rows of kept without the proxy.
func (ps *process) stored() string { ps.t.Helper(); return ps.direct("SELECT count(*) FROM kept") }

// TestSigquit ends at once and leaves no transaction behind.
func TestSigquit(t *testing.T) {
	t.Parallel()
	ps := startProcess(t, processText)
	idle := ps.connect()
	busy, _ := ps.inTransaction()
	begun := time.Now()
	ps.signal(syscall.SIGQUIT)
	ps.endsWithin(8 * time.Second)
	if d := time.Since(begun); d > 4*time.Second {
		t.Errorf("it took %v", d)
	}
	for _, c := range []*pgx.Conn{idle, busy} {
		if _, err := c.Exec(within(t, 10*time.Second), "SELECT 1"); sqlState(err) != "57P01" {
			t.Errorf("a client was told %v", err)
		}
	}
	eventually(t, "the server has no session of ours", func() bool {
		return ps.direct("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()") == "0"
	})
	if got := ps.stored(); got != "0" {
		t.Errorf("%s rows of a transaction that nobody committed", got)
	}
}

// TestSecondSignal hardens a shutdown that waits.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		first, second syscall.Signal
	}{
		{"TERM TERM", syscall.SIGTERM, syscall.SIGTERM},
		{"INT INT", syscall.SIGINT, syscall.SIGINT},
		{"TERM INT", syscall.SIGTERM, syscall.SIGINT},
		{"INT QUIT", syscall.SIGINT, syscall.SIGQUIT},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ps := startProcess(t, processText)
			busy, _ := ps.inTransaction()
			ps.signal(c.first)
			ps.refused()
			must(t, busy, "INSERT INTO kept VALUES (2)")
			ps.runsStill()
			ps.signal(c.second)
			ps.endsWithin(8 * time.Second)
			if _, err := busy.Exec(within(t, 10*time.Second), "SELECT 1"); sqlState(err) != "57P01" {
				t.Errorf("the client was told %v", err)
			}
		})
	}
}

// TestSighupWhileDraining still reloads, and does not stop the shutdown.
func TestSighupWhileDraining(t *testing.T) {
	t.Parallel()
	ps := startProcess(t, processText)
	busy, tx := ps.inTransaction()
	ps.signal(syscall.SIGINT)
	ps.refused()
	ps.write(ps.text() + "timeouts: {client_idle: 1h}\n")
	ps.signal(syscall.SIGHUP)
	ps.logged("configuration reloaded")
	ps.refused()
	must(t, busy, "INSERT INTO kept VALUES (2)")
	if err := tx.Commit(within(t, 10*time.Second)); err != nil {
		t.Error(err)
	}
	ps.endsWithin(10 * time.Second)
}

// TestSigusr pauses and resumes.
func TestSigusr(t *testing.T) {
	t.Parallel()
	ps := startProcess(t, processText)
	busy, tx := ps.inTransaction()
	c := ps.connect()
	ps.signal(syscall.SIGUSR1)
	ps.logged("paused by signal")
	eventually(t, "the database is paused", ps.paused)
	must(t, busy, "INSERT INTO kept VALUES (2)") // what is on loan goes on
	if err := tx.Commit(within(t, 10*time.Second)); err != nil {
		t.Error(err)
	}
	result := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "INSERT INTO kept VALUES (3)")
		result <- err
	}()
	eventually(t, "the statement waits", func() bool {
		for _, row := range ps.console("SHOW CLIENTS") {
			if row[4] == "waiting" {
				return true
			}
		}
		return false
	})
	eventually(t, "no server connection is left", func() bool { return len(ps.console("SHOW SERVERS")) == 0 })
	select {
	case err := <-result:
		t.Fatalf("a statement did not wait: %v", err)
	default:
	}
	ps.signal(syscall.SIGUSR2)
	if err := <-result; err != nil {
		t.Error(err)
	}
	eventually(t, "nothing is paused", func() bool { return !ps.paused() })
	if got := ps.stored(); got != "3" {
		t.Errorf("%s rows", got)
	}

	// A paused proxy can be ended: who waits is told.
	ps.signal(syscall.SIGUSR1)
	eventually(t, "the database is paused again", ps.paused)
	go func() {
		_, err := c.Exec(context.Background(), "INSERT INTO kept VALUES (4)")
		result <- err
	}()
	_ = busy.Close(context.Background())
	ps.signal(syscall.SIGQUIT)
	ps.endsWithin(8 * time.Second)
	if err := <-result; sqlState(err) != "57P01" {
		t.Errorf("who waited was told %v", err)
	}
}

// paused reports whether SHOW DATABASES says that the database is.
func (ps *process) paused() bool {
	ps.t.Helper()
	for _, row := range ps.console("SHOW DATABASES") {
		if row[0] == "app" {
			return row[15] == "1"
		}
	}
	ps.t.Fatal("SHOW DATABASES has no such database")
	return false
}

// TestEndsWhileItStarts stops the program when no server answers yet.
func TestEndsWhileItStarts(t *testing.T) {
	t.Parallel()
	// It accepts and says nothing, as a server that was stopped.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ps := newProcess(t, "app", []string{silent.Addr().String()}, processText)
	begun := time.Now()
	ps.start()
	ps.logged("msg=listening")
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("it listened after %v: a silent server held it up", d)
	}
	ps.signal(syscall.SIGTERM)
	ps.endsWithin(8 * time.Second)
}

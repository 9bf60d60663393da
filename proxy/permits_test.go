package proxy_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/proxy"
)

// concurrency has the server bound what its users run at a time, from now on.
func (f *fixture) concurrency(user, database proxy.Concurrent, wait time.Duration) {
	f.configure(func(s *proxy.Settings) {
		s.Concurrency = &proxy.Concurrency{
			User: func(string) proxy.Concurrent { return user }, Database: func(string) proxy.Concurrent { return database }, Wait: wait,
		}
	})
}

func (f *fixture) crowded(kind, by string) (waited, refused int64) {
	for _, l := range f.srv.Crowded() {
		if l.Kind == kind && l.By == by {
			return l.Waited, l.Refused
		}
	}
	f.t.Fatal("not counted:", kind, by)
	return 0, 0
}

// direct is a connection that does not pass the proxy.
func (f *fixture) direct() *pgx.Conn {
	f.t.Helper()
	c, err := pgx.Connect(ctx10(f.t), "postgres://postgres@"+f.nodes[0]+"/"+f.database)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// running is a statement that runs until it is let go.
type running struct {
	done chan error
	gate *pgx.Conn
}

// runs has a client run a statement that waits for an advisory lock, as a read or within an INSERT, and
// returns once it does.
func (f *fixture) runs(c *pgx.Conn, lock int, sql string, args ...any) *running {
	f.t.Helper()
	r := &running{done: make(chan error, 1), gate: f.direct()}
	if _, err := r.gate.Exec(ctx10(f.t), fmt.Sprintf("SELECT pg_advisory_lock(%d)", lock)); err != nil {
		f.t.Fatal(err)
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_, err := c.Exec(ctx, sql, args...)
		r.done <- err
	}()
	waitFor(f.t, func() bool {
		var there bool
		err := r.gate.QueryRow(ctx10(f.t), fmt.Sprintf("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = %d AND NOT granted)", lock)).Scan(&there)
		return err == nil && there
	})
	return r
}

// end lets the statement go and waits for it.
func (r *running) end(t testing.TB) {
	t.Helper()
	if _, err := r.gate.Exec(ctx10(t), "SELECT pg_advisory_unlock_all()"); err != nil {
		t.Fatal(err)
	}
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

// short reports what becomes of a statement within a short wait: nothing, or its SQLSTATE.
func short(t testing.TB, c *pgx.Conn, sql string, mode pgx.QueryExecMode) string {
	t.Helper()
	_, err := c.Exec(ctx10(t), sql, mode)
	if hasState(err, "53400") {
		return "53400"
	}
	if err != nil {
		t.Errorf("%s: %v", sql, err)
	}
	return ""
}

const (
	lockedRead  = "SELECT pg_advisory_xact_lock(%d), 'read'"
	lockedWrite = "INSERT INTO noted SELECT 1 FROM (SELECT pg_advisory_xact_lock(%d)) AS locked"
)

// TestConcurrent: as many statements run at a time as may, the others wait in their order and are refused when
// that takes too long; the session goes on.
func TestConcurrent(t *testing.T) {
	for _, driver := range []proxy.Driver{proxy.DriverAuto, proxy.DriverGoroutine} {
		for _, by := range []string{"user", "database"} {
			f := start(t, fixtureOptions{driver: driver, size: 8})
			bound := proxy.Concurrent{Statements: 2}
			if by == "user" {
				f.concurrency(bound, proxy.Concurrent{Statements: 7}, 10*time.Second)
			} else {
				f.concurrency(proxy.Concurrent{}, bound, 10*time.Second)
			}
			first := f.runs(f.connect(""), 1, fmt.Sprintf(lockedRead, 1))
			var all sync.WaitGroup
			began := time.Now()
			for i := range 5 {
				c := f.connect("")
				all.Go(func() {
					mode := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec}[i%2]
					if _, err := c.Exec(ctx10(t), "SELECT pg_sleep(0.1)", mode); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if took := time.Since(began); took < 500*time.Millisecond || took > 5*time.Second {
				t.Errorf("driver %v, %s: five of 0.1 s beside one took %v", driver, by, took)
			}
			if waited, refused := f.crowded("statements", by); waited != 4 || refused != 0 {
				t.Errorf("driver %v, %s: %d waited, %d refused", driver, by, waited, refused)
			}
			second := f.runs(f.connect(""), 2, fmt.Sprintf(lockedRead, 2))
			if by == "user" {
				f.concurrency(bound, proxy.Concurrent{}, 50*time.Millisecond)
			} else {
				f.concurrency(proxy.Concurrent{}, bound, 50*time.Millisecond)
			}
			c := f.connect("")
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
				_, err := c.Exec(ctx10(t), "SELECT 1", mode)
				if !hasState(err, "53400") || !strings.Contains(err.Error(), "for this "+by) || c.PgConn().TxStatus() != 'I' {
					t.Errorf("driver %v, %s: %v", driver, by, err)
				}
			}
			first.end(t)
			second.end(t)
			if got := short(t, c, "SELECT 1", pgx.QueryExecModeExec); got != "" {
				t.Errorf("driver %v, %s: behind the refusals: %s", driver, by, got)
			}
		}
	}
}

// TestConcurrentKinds: reads do not hold writes up, nor the other way round; a transaction counts from its
// BEGIN to its end, and within it nothing waits.
func TestConcurrentKinds(t *testing.T) {
	for _, driver := range []proxy.Driver{proxy.DriverAuto, proxy.DriverGoroutine} {
		f := start(t, fixtureOptions{driver: driver, size: 8})
		if _, err := f.direct().Exec(ctx10(t), "CREATE TABLE noted (n int); GRANT ALL ON noted TO PUBLIC"); err != nil {
			t.Fatal(err)
		}
		f.learn()
		c := f.connect("")
		if _, err := c.Prepare(ctx10(t), "put", "INSERT INTO noted VALUES ($1)"); err != nil {
			t.Fatal(err)
		}
		modes := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeCacheStatement}
		// try says of each way to run a read and a write whether it is refused.
		try := func(what, read, write string) {
			t.Helper()
			for _, mode := range modes {
				if got := short(t, c, "SELECT count(*) FROM noted", mode); got != read {
					t.Errorf("driver %v, %s, mode %v: a read: %q", driver, what, mode, got)
				}
				if got := short(t, c, "INSERT INTO noted VALUES (2)", mode); got != write {
					t.Errorf("driver %v, %s, mode %v: a write: %q", driver, what, mode, got)
				}
			}
			if _, err := c.Exec(ctx10(t), "put", 3); hasState(err, "53400") != (write != "") {
				t.Errorf("driver %v, %s: a prepared write: %v", driver, what, err)
			}
		}
		f.concurrency(proxy.Concurrent{Reads: 1, Writes: 1}, proxy.Concurrent{}, 20*time.Millisecond)
		try("nothing runs", "", "")
		other := f.connect("")
		write := f.runs(other, 1, fmt.Sprintf(lockedWrite, 1))
		try("a write runs", "", "53400")
		write.end(t)
		for begin, busy := range map[string][2]string{"BEGIN": {"", "53400"}, "BEGIN READ ONLY": {"53400", ""}} {
			tx, err := other.Exec(ctx10(t), begin)
			if err != nil {
				t.Fatal(tx, err)
			}
			try(begin, busy[0], busy[1])
			for range 3 {
				if got := short(t, other, "SELECT 1 FROM noted", pgx.QueryExecModeExec); got != "" {
					t.Error(begin, got)
				}
			}
			if got := short(t, c, begin, pgx.QueryExecModeSimpleProtocol); got != "53400" || c.PgConn().TxStatus() != 'I' {
				t.Errorf("driver %v: a second %s: %q", driver, begin, got)
			}
			if got := short(t, c, "SET application_name = 'is no write'; SHOW application_name", pgx.QueryExecModeSimpleProtocol); got != "" && begin != "BEGIN" {
				t.Error(got)
			}
			if got := short(t, c, "SET application_name = 'alone'", pgx.QueryExecModeSimpleProtocol); got != "" {
				t.Error(got)
			}
			if _, err := other.Exec(ctx10(t), "COMMIT"); err != nil {
				t.Fatal(err)
			}
			try("behind "+begin, "", "")
		}
	}
}

// TestConcurrentWaitEnds: who waits can cancel and be ended, ends with a drain, goes on when the bound is raised or goes, and
// holds nobody up who comes behind it when it has left.
func TestConcurrentWaitEnds(t *testing.T) {
	for _, driver := range []proxy.Driver{proxy.DriverAuto, proxy.DriverGoroutine} {
		f := start(t, fixtureOptions{driver: driver, size: 4})
		one := proxy.Concurrent{Statements: 1}
		f.concurrency(one, proxy.Concurrent{}, time.Minute)
		runs := f.runs(f.connect(""), 1, fmt.Sprintf(lockedRead, 1))
		waiting := int64(0)
		waits := func() (*pgx.Conn, chan error) {
			c, done := f.connect(""), make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				_, err := c.Exec(ctx, "SELECT 1")
				done <- err
			}()
			waiting++
			waitFor(t, func() bool { now, _ := f.crowded("statements", "user"); return now == waiting })
			return c, done
		}
		c, cancelled := waits()
		_, stays := waits()
		if err := c.PgConn().CancelRequest(ctx10(t)); err != nil {
			t.Fatal(err)
		}
		if err := <-cancelled; !hasState(err, "57014") {
			t.Errorf("driver %v: cancelled: %v", driver, err)
		}
		c, killed := waits()
		f.srv.KillClient(idOf(f, c))
		if err := <-killed; !hasState(err, "57P01") {
			t.Errorf("driver %v: killed: %v", driver, err)
		}
		gone, left := waits()
		_ = gone.PgConn().Conn().Close()
		<-left
		f.concurrency(proxy.Concurrent{Statements: 2}, proxy.Concurrent{}, time.Minute)
		if err := <-stays; err != nil {
			t.Errorf("driver %v: the bound was raised: %v", driver, err)
		}
		f.concurrency(one, proxy.Concurrent{}, time.Minute)
		_, stays = waits()
		f.limits(nil)
		if err := <-stays; err != nil {
			t.Errorf("driver %v: the bound was taken away: %v", driver, err)
		}
		f.concurrency(one, proxy.Concurrent{}, time.Minute)
		second := f.runs(f.connect(""), 2, fmt.Sprintf(lockedRead, 2)) // the first is not counted any more
		_, drained := waits()
		go f.srv.Shutdown(context.Background(), proxy.WaitForServers)
		if err := <-drained; !hasState(err, "57P01") {
			t.Errorf("driver %v: drained: %v", driver, err)
		}
		runs.end(t)
		second.end(t)
	}
}

// TestConcurrentPipeline: requests behind one another are one client's: they share its turn.
func TestConcurrentPipeline(t *testing.T) {
	f := start(t, fixtureOptions{})
	f.concurrency(proxy.Concurrent{Statements: 1, Reads: 1}, proxy.Concurrent{Statements: 1}, 10*time.Second)
	c := mustDial(t, f.addr, "app")
	var frames []frame
	for range 3 {
		frames = append(append(frames, fQuery("SELECT 1")), segment("SELECT 2", "SELECT 3")...)
	}
	c.mustSay(t, 6, "SELECT 1", frames...)
	c.mustSay(t, 2, "SELECT 1", append(segment("BEGIN", "SELECT 1"), fQuery("COMMIT"))...)
	c.mustSay(t, 1, "SELECT 1", fParse("", "SELECT 1"), fFlush(), fBind("", ""), fExecute("", 0), fSync())
	if waited, refused := f.crowded("statements", "user"); waited != 0 || refused != 0 {
		t.Error(waited, refused)
	}
}

// TestConcurrentBounds: a transaction that was there before the bound is not held up, and a client that keeps
// its server connection keeps no turn with it.
func TestConcurrentBounds(t *testing.T) {
	f := start(t, fixtureOptions{size: 8, user: func(p *proxy.UserPolicy) { p.Mode = proxy.ModeSession }})
	c, other := f.connect(""), f.connect("")
	if _, err := c.Exec(ctx10(t), "BEGIN"); err != nil {
		t.Fatal(err)
	}
	f.concurrency(proxy.Concurrent{Statements: 1}, proxy.Concurrent{}, 20*time.Millisecond)
	runs := f.runs(other, 1, fmt.Sprintf(lockedRead, 1))
	if got := short(t, c, "SELECT 1", pgx.QueryExecModeExec); got != "" {
		t.Error("in a transaction:", got)
	}
	if got := short(t, c, "COMMIT", pgx.QueryExecModeExec); got != "" {
		t.Error("its end:", got)
	}
	if got := short(t, c, "SELECT 1", pgx.QueryExecModeExec); got != "53400" {
		t.Error("behind it:", got)
	}
	runs.end(t)
	if got := short(t, c, "SELECT 1", pgx.QueryExecModeExec) + short(t, other, "SELECT 1", pgx.QueryExecModeExec); got != "" {
		t.Error("one after the other:", got)
	}
}

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// TestInsertAtOnce has the parts of an INSERT run at once, which others must not notice by more than the time.
func TestInsertAtOnce(t *testing.T) {
	s := startShards(t, 3, "      slow: {key: k}", "      ruled: {key: k}", "      late: {key: k}")
	c := s.connectLoaded()
	must(t, c, "CREATE TABLE slow (k bigint PRIMARY KEY CHECK (pg_sleep(0.7) IS NOT NULL))")
	must(t, c, "CREATE TABLE ruled (k bigint PRIMARY KEY CHECK (pg_sleep(0.7) IS NOT NULL))")
	must(t, c, "CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
	must(t, c, "CREATE TRIGGER seen BEFORE INSERT ON ruled FOR EACH ROW EXECUTE FUNCTION seen()")
	must(t, c, "CREATE TABLE late (k bigint, n int, UNIQUE (k, n) DEFERRABLE INITIALLY DEFERRED)")
	var values []string
	for i := range 60 {
		values = append(values, fmt.Sprintf("(%d, 'x')", i+1))
	}
	must(t, c, "INSERT INTO customers VALUES "+strings.Join(values, ", "))
	r := &deadlockRig{shardedProgram: s}
	r.know()

	t.Run("time", func(t *testing.T) { insertsTogether(t, r, c) })
	t.Run("waits", func(t *testing.T) { insertsWait(t, r, c) })
	t.Run("circle", func(t *testing.T) { insertsInNoCircle(t, r, c) })
	t.Run("lock", func(t *testing.T) { insertsBehindLock(t, r, c) })
	t.Run("deferred", func(t *testing.T) { insertsCheckedLate(t, r, c) })
	t.Run("cancel", func(t *testing.T) { insertsCancelled(t, r, c) })
}

// rows is an INSERT of a row for each shard, of which %d is the first customer there.
func (r *deadlockRig) rows(table, row string) string {
	var rows []string
	for _, ids := range r.keys {
		rows = append(rows, fmt.Sprintf(row, ids[0]))
	}
	return "INSERT INTO " + table + " VALUES " + strings.Join(rows, ", ")
}

// runsOn fails when a statement ends within half a second.
func runsOn(t *testing.T, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		t.Fatal("it did not wait:", err)
	case <-time.After(500 * time.Millisecond):
	}
}

// insertsTogether takes as long as one part, and as long as all where triggers may do what is not rolled back, in a transaction
// that holds locks already, and with ON CONFLICT.
func insertsTogether(t *testing.T, r *deadlockRig, c *pgx.Conn) {
	took := func(sql string) time.Duration {
		began := time.Now()
		must(t, c, sql)
		return time.Since(began)
	}
	if d := took(r.rows("slow", "(%d)")); d > 1900*time.Millisecond {
		t.Errorf("three parts of 0.7 s took %v", d)
	}
	must(t, c, "DELETE FROM slow")
	for what, sql := range map[string]string{
		"triggers":    r.rows("ruled", "(%d)"),
		"ON CONFLICT": r.rows("slow", "(%d)") + " ON CONFLICT DO NOTHING",
	} {
		if d := took(sql); d < 2100*time.Millisecond {
			t.Errorf("with %s three parts of 0.7 s took %v: they ran at once", what, d)
		}
	}
	must(t, c, "DELETE FROM slow")
	must(t, c, "BEGIN")
	if d := took(r.rows("slow", "(%d)")); d < 2100*time.Millisecond {
		t.Errorf("in a transaction three parts of 0.7 s took %v: they ran at once", d)
	}
	must(t, c, "COMMIT")
	if got := one(t, c, "SELECT count(*) FROM slow"); got != "3" {
		t.Error(got)
	}
}

// insertsWait comes behind somebody who has a row of it, on the last shard.
func insertsWait(t *testing.T, r *deadlockRig, c *pgx.Conn) {
	last := pgtest.Connect(t, r.shards[2].Primary().DSN("app", "app"))
	for i, end := range []string{"ROLLBACK", "COMMIT"} {
		must(t, last, "BEGIN")
		must(t, last, fmt.Sprintf("INSERT INTO orders VALUES (%d, %d, 'theirs')", i, r.keys[2][0]))
		done := later(c, r.rows("orders", fmt.Sprintf("(%d, %%d, 'x')", i)))
		r.waiting(2, "INSERT")
		runsOn(t, done)
		must(t, last, end)
		err := <-done
		if want := []string{"", "23505"}[i]; sqlState(err) != want && (want != "" || err != nil) {
			t.Errorf("behind %s: %v", end, err)
		}
		if got, want := one(t, c, fmt.Sprintf("SELECT count(*) FROM orders WHERE id = %d", i)), []string{"3", "1"}[i]; got != want {
			t.Errorf("behind %s: %s rows, want %s", end, got, want)
		}
	}
}

// insertsInNoCircle meets somebody who inserts the same rows in the same order, one after the other.
func insertsInNoCircle(t *testing.T, r *deadlockRig, c *pgx.Conn) {
	x := r.connect()
	row := func(shard int) string {
		return fmt.Sprintf("INSERT INTO orders VALUES (100, %d, 'x')", r.keys[shard][0])
	}
	must(t, x, "BEGIN")
	must(t, x, row(0))
	done := later(c, r.rows("orders", "(100, %d, 'y')"))
	r.waiting(0, "INSERT")
	began := time.Now()
	must(t, x, row(1)) // which the other has inserted by now, and gives up
	must(t, x, row(2))
	if d := time.Since(began); d > 900*time.Millisecond {
		t.Errorf("it took %v, as long as finding a deadlock", d)
	}
	must(t, x, "COMMIT")
	if err := <-done; sqlState(err) != "23505" {
		t.Error(err)
	}
	if got := one(t, c, "SELECT string_agg(note, ' ') FROM orders WHERE id = 100"); got != "x x x" {
		t.Error(got)
	}
}

// insertsBehindLock meets LOCK TABLE, which takes the shards one after the other.
func insertsBehindLock(t *testing.T, r *deadlockRig, c *pgx.Conn) {
	x := r.connect()
	must(t, x, "BEGIN")
	must(t, x, "LOCK TABLE late IN EXCLUSIVE MODE")
	done := later(c, r.rows("late", "(%d, 1)"))
	r.waiting(0, "INSERT")
	runsOn(t, done)
	must(t, x, "COMMIT")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := one(t, c, "SELECT count(*) FROM late"); got != "3" {
		t.Error(got)
	}
}

// insertsCheckedLate waits at the end of its transaction, for longer than a part may.
func insertsCheckedLate(t *testing.T, r *deadlockRig, c *pgx.Conn) {
	last := pgtest.Connect(t, r.shards[2].Primary().DSN("app", "app"))
	for i, setting := range []string{"RESET lock_timeout", "SET lock_timeout = '5s'", "SET lock_timeout = 5000"} {
		must(t, c, setting)
		must(t, last, "BEGIN")
		must(t, last, fmt.Sprintf("INSERT INTO late VALUES (%d, %d)", r.keys[2][0], 10+i))
		done := later(c, r.rows("late", fmt.Sprintf("(%%d, %d)", 10+i)))
		runsOn(t, done)
		must(t, last, "ROLLBACK")
		if err := <-done; err != nil {
			t.Errorf("%s: %v", setting, err)
		}
	}
	must(t, c, "RESET lock_timeout")
}

// insertsCancelled is cancelled while its parts run, and leaves nothing.
func insertsCancelled(t *testing.T, r *deadlockRig, c *pgx.Conn) {
	must(t, c, "DELETE FROM slow")
	began := time.Now()
	done := later(c, r.rows("slow", "(%d), (-%[1]d), (-10%[1]d), (-20%[1]d), (-30%[1]d), (-40%[1]d), (-50%[1]d)"))
	r.waitsFor(0, "wait_event = 'PgSleep'", "INSERT")
	if err := c.PgConn().CancelRequest(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; sqlState(err) != "57014" {
		t.Error(err)
	}
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("cancelled after %v", d)
	}
	if got := one(t, c, "SELECT count(*) FROM slow"); got != "0" {
		t.Errorf("%s rows of an INSERT that was cancelled", got)
	}
}

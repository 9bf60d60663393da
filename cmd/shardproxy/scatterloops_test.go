package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestScatterLoops: a query that joins many gathered rows is finished without nested loops, and what follows in its transaction is planned as
// before, whatever the settings were and however the query ends.
func TestScatterLoops(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	c := s.connectLoaded()
	for i := range s.shards {
		s.direct(i, "CREATE FUNCTION loops() RETURNS text STABLE LANGUAGE sql AS $$SELECT current_setting('enable_nestloop') || ' ' || current_setting('jit')$$")
	}
	must(t, c, "INSERT INTO customers SELECT n, 'x' || n FROM generate_series(1, 500) n")
	const joined = "SELECT max(loops()), count(*)::text, min(1 / (b.id - %d))::text FROM customers a JOIN customers b ON b.name = a.name %s"
	// within runs the join, and returns the settings that it saw.
	within := func(more string, divisor int) string {
		t.Helper()
		var loops, n, min string
		if err := c.QueryRow(within(t, 20*time.Second), fmt.Sprintf(joined, divisor, more), pgx.QueryExecModeExec).Scan(&loops, &n, &min); err != nil {
			t.Fatal(err)
		}
		return loops + ", " + n
	}
	must(t, c, "SET jit = on")
	eventually(t, "the function is known", func() bool {
		_, err := c.Exec(t.Context(), fmt.Sprintf(joined, 0, ""))
		return err == nil
	})
	if got := within("", 0); got != "off off, 500" {
		t.Error("outside of a transaction:", got)
	}
	if got := within("WHERE a.id < 50 AND b.id < 50", 0); got != "on on, 49" {
		t.Error("of few rows:", got)
	}
	shown := func(when, want string) {
		t.Helper()
		if got := one(t, c, "SELECT loops()"); got != want {
			t.Errorf("%s: %s, want %s", when, got, want)
		}
	}
	for i := range 4 {
		shown(fmt.Sprint("after it, ", i), "on on")
	}
	must(t, c, "BEGIN")
	if got := within("", 0); got != "off off, 500" {
		t.Error("in a transaction:", got)
	}
	shown("behind it", "on on")
	must(t, c, "SET LOCAL enable_nestloop = off")
	within("", 0)
	shown("behind a setting of its own", "off on")
	must(t, c, "SET jit = off")
	within("", 0)
	shown("behind two", "off off")
	must(t, c, "SAVEPOINT a")
	fails(t, c, fmt.Sprintf(joined, 7, ""), "22012")
	must(t, c, "ROLLBACK TO a")
	shown("behind one that failed", "off off")
	must(t, c, "COMMIT")
	shown("after the transaction", "on off")
	must(t, c, "SET jit = on")
	must(t, c, "BEGIN")
	must(t, c, "DECLARE k SCROLL CURSOR FOR SELECT a.id, loops() FROM customers a JOIN customers b ON b.name = a.name")
	must(t, c, "DECLARE l CURSOR FOR SELECT a.id, loops() FROM customers a JOIN customers b ON b.name = a.name")
	shown("with cursors open", "on on")
	must(t, c, "FETCH 100 FROM k")
	must(t, c, "FETCH ALL FROM l")
	shown("behind cursors", "on on")
	must(t, c, "ROLLBACK")
	must(t, c, "BEGIN READ ONLY")
	if got := within("", 0); got != "off off, 500" {
		t.Error("in one that reads:", got)
	}
	shown("behind it", "on on")
	must(t, c, "COMMIT")
}

// TestScatterLoopsTime runs a query whose joins a server thinks to find no rows.
func TestScatterLoopsTime(t *testing.T) {
	t.Parallel()
	set := chBenchmark(t)
	b := &both{tables: set.tables, limit: time.Minute}
	b.start(t, 2, set.schema, set.places)
	set.load(b)
	sql := set.queries[7].Constants()
	took := func(sql string) time.Duration {
		began := time.Now()
		if a := ask(t, b.proxy, modes[0], sql, nil); a.err != nil {
			t.Fatal(a.err)
		}
		return time.Since(began)
	}
	took(sql) // the first time shards are asked for the types
	with, without := took(sql), took("/* it asks for no setting */ "+sql)
	t.Logf("%v, with nested loops %v", with, without)
	if with > without/4 {
		t.Errorf("it takes %v, and with nested loops %v", with, without)
	}
}

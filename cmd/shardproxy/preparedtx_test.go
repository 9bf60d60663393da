package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestPreparedTransactions begins and ends transactions by statements that were prepared in
// a request before, or stand in one request with others.
func TestPreparedTransactions(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, "      drawn: {key: id}\nruntime: {driver: "+driver+"}")
			c := s.connectLoaded()
			must(t, c, "CREATE TABLE drawn (id bigserial PRIMARY KEY, note text)")
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
				t.Run(mode.String(), func(t *testing.T) { preparedTransactions(t, s, mode) })
			}
			t.Run("one request", func(t *testing.T) { beginsInRequest(t, s) })
		})
	}
}

func preparedTransactions(t *testing.T, s *shardedProgram, mode pgx.QueryExecMode) {
	c := s.connect()
	try := func(sql string) error {
		rows, err := c.Query(within(t, 10*time.Second), sql, mode)
		if err == nil {
			rows.Close()
			err = rows.Err()
		}
		return err
	}
	run := func(sql string) {
		t.Helper()
		if err := try(sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	count := func(note string) (n int) {
		for _, got := range s.onEach("SELECT count(*)::text FROM drawn WHERE note = '" + note + "'") {
			var one int
			_, _ = fmt.Sscan(got, &one)
			n += one
		}
		return n
	}
	run("DELETE FROM drawn")
	for i := range 4 {
		run("BEGIN")
		for range 4 {
			run("INSERT INTO drawn (note) VALUES ('not')")
		}
		run("ROLLBACK")
		run("BEGIN")
		for range 4 {
			run("INSERT INTO drawn (note) VALUES ('kept')")
		}
		run("SAVEPOINT a")
		for range 4 {
			run("INSERT INTO drawn (note) VALUES ('not')")
		}
		run("ROLLBACK TO a")
		run("COMMIT")
		if kept, not := count("kept"), count("not"); kept != 4*(i+1) || not != 0 {
			t.Fatalf("%d rows of what was committed, %d of what was not", kept, not)
		}
	}
	run("BEGIN")
	for range 4 {
		run("INSERT INTO drawn (note) VALUES ('not')")
	}
	if err := try("SELECT 1/0"); err == nil {
		t.Error("a division by zero succeeds")
	}
	run("COMMIT") // rolls back
	run("SELECT 1")
	if n := count("not"); n != 0 {
		t.Errorf("%d rows of a transaction that failed", n)
	}
	if got := s.onEach("SELECT count(*)::text FROM pg_prepared_xacts"); slices.ContainsFunc(got, func(n string) bool { return n != "0" }) {
		t.Error("left prepared:", got)
	}
}

// beginsInRequest sends BEGIN with a transaction's first statement, which lies on one shard.
func beginsInRequest(t *testing.T, s *shardedProgram) {
	raw := s.connect()
	for round := range 3 {
		for _, name := range []string{"", fmt.Sprint("b", round)} {
			p := raw.PgConn().StartPipeline(within(t, 20*time.Second))
			if name == "" {
				p.SendQueryParams("BEGIN", nil, nil, nil, nil)
			} else {
				p.SendPrepare(name, "BEGIN", nil)
				p.SendQueryPrepared(name, nil, nil, nil)
			}
			p.SendQueryParams("INSERT INTO customers (id, name) VALUES ($1, 'first')", [][]byte{[]byte(fmt.Sprint(1000*round + len(name)))}, nil, nil, nil)
			if err := p.Sync(); err != nil {
				t.Fatal(err)
			}
			if err := p.Close(); err != nil {
				t.Fatalf("BEGIN and a statement: %v", err)
			}
			if got := raw.PgConn().TxStatus(); got != 'T' {
				t.Fatalf("the status is %c", got)
			}
			for i := range 6 {
				must(t, raw, "INSERT INTO customers (id, name) VALUES ($1, 'more')", 1000*round+len(name)+10*(i+1))
			}
			must(t, raw, map[bool]string{true: "COMMIT", false: "ROLLBACK"}[name == ""])
		}
	}
	if got := strings.Join(s.onEach("SELECT (count(*) > 2)::text FROM customers WHERE id >= 0"), " "); got != "true true" {
		t.Error("rows on both shards:", got)
	}
	total := 0
	for _, got := range s.onEach("SELECT count(*)::text FROM customers") {
		var n int
		_, _ = fmt.Sscan(got, &n)
		total += n
	}
	if total != 3*7 {
		t.Errorf("there are %d rows of three transactions", total)
	}
}

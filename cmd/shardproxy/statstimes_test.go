package main

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"shardproxy/internal/pgtest"
)

// TestStatsTimes: the console's times of queries and transactions are those that a client has seen, as far as one in eight tells.
func TestStatsTimes(t *testing.T) {
	t.Parallel()
	px := startProgram(t, pgtest.Start(t, pgtest.Options{}), configText)
	c := px.connect()
	console, _ := px.consoleOf()
	times := func() (query, xact time.Duration) {
		t.Helper()
		rows, err := console.Query(within(t, 10*time.Second), "SHOW STATS_TOTALS WHERE database = 'app'", pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
		all, err := pgx.CollectRows(rows, pgx.RowToMap)
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		read := func(column string) time.Duration {
			us, err := all[0][column].(pgtype.Numeric).Int64Value()
			if err != nil {
				t.Fatal(err)
			}
			return time.Duration(us.Int64) * time.Microsecond
		}
		return read("query_time"), read("xact_time")
	}
	// near fails the test unless one time is about the other: 400 requests of which 50 are timed, give or take a few.
	near := func(what string, got, want time.Duration) {
		t.Helper()
		if got < want*6/10 || got > want*16/10 {
			t.Errorf("%s: %v, want about %v", what, got, want)
		}
	}
	query0, xact0 := times()
	began := time.Now()
	for range 400 {
		must(t, c, "SELECT pg_sleep(0.004)")
	}
	took := time.Since(began)
	query, xact := times()
	near("queries", query-query0, took)
	near("transactions of one query", xact-xact0, took)

	// In blocks the time between the queries is the transaction's.
	query0, xact0 = times()
	began = time.Now()
	idle := time.Duration(0)
	for i := range 200 {
		mode := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec}[i%2]
		must(t, c, "BEGIN", mode)
		must(t, c, "SELECT 1", mode)
		rest := time.Now()
		<-time.After(8 * time.Millisecond)
		idle += time.Since(rest)
		must(t, c, []string{"COMMIT", "ROLLBACK"}[i/2%2], mode)
	}
	took = time.Since(began)
	query, xact = times()
	near("blocks", xact-xact0, took)
	if query -= query0; query > (took-idle)*2 {
		t.Errorf("queries took %v in %v, of which %v were idle", query, took, idle)
	}
}

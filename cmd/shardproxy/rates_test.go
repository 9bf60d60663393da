package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestRatesOverShards: statements of one shard and of several go on at the rate of the configuration, answers of several
// shards pass at the rate of bytes, and a reload changes both for clients that are there.
func TestRatesOverShards(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2, "limits: {rates: {user: {statements: 20, statement_burst: 1}, wait: 30s}}")
	c := s.connectLoaded()
	console, _ := s.consoleOf()
	ctx := within(t, time.Minute)
	took := func(what string, least, most time.Duration, f func()) {
		t.Helper()
		must(t, c, "SELECT 1") // what went before is paid for then
		began := time.Now()
		f()
		if d := time.Since(began); d < least || d > most {
			t.Errorf("%s took %v", what, d)
		}
	}
	took("statements", 450*time.Millisecond, 5*time.Second, func() {
		for i := range 5 {
			must(t, c, fmt.Sprintf("INSERT INTO customers VALUES (%d, 'x')", i))
			must(t, c, "SELECT count(*) FROM customers")
		}
	})
	took("a batch and what is behind it", 450*time.Millisecond, 5*time.Second, func() {
		b := &pgx.Batch{}
		for i := range 10 {
			b.Queue("UPDATE customers SET name = 'y' WHERE id = $1", i)
		}
		if err := c.SendBatch(ctx, b).Close(); err != nil {
			t.Error(err)
		}
		must(t, c, "SELECT 1")
	})
	took("a transaction and what is behind it", 450*time.Millisecond, 5*time.Second, func() {
		must(t, c, "BEGIN")
		for i := range 10 {
			must(t, c, fmt.Sprintf("SELECT * FROM customers WHERE id = %d", i))
		}
		must(t, c, "COMMIT")
		must(t, c, "SELECT 1")
	})
	text, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(text), "limits:")
	s.write(strings.Replace(before, "users:\n  - {name: app, ", "users:\n  - {name: app, rates: {bytes: 1MiB, bytes_burst: 64kB}, ", 1) +
		"\nlimits: {rates: {database: {statements: 1000}}}\n")
	must(t, console, "RELOAD")
	took("more statements than the old rate allows", 0, 4*time.Second, func() {
		for range 120 { // six seconds' worth
			must(t, c, "SELECT 1")
		}
	})
	must(t, c, "INSERT INTO customers SELECT i, repeat('z', 1000) FROM generate_series(100, 999) i")
	took("0.9 MB of two shards", 600*time.Millisecond, 8*time.Second, func() {
		var n int
		rows, err := c.Query(ctx, "SELECT * FROM customers ORDER BY id")
		for ; err == nil && rows.Next(); n++ {
		}
		if err != nil || rows.Err() != nil || n != 905 {
			t.Error(n, err, rows.Err())
		}
	})
	s.write(before)
	must(t, console, "RELOAD")
	took("the same without a rate", 0, 4*time.Second, func() {
		for range 7 { // six seconds' worth
			must(t, c, "SELECT * FROM customers ORDER BY id")
		}
	})
}

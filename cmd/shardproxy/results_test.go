package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestResultSizeOverShards: a result of several shards, in whichever way it comes to be, ends at the size that the configuration lets, and
// what it has written is rolled back; the session goes on, and a reload is for those that log in then.
func TestResultSizeOverShards(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2, "    result_size: 50kB", "limits: {result_size: 1GB}")
	c := s.connectLoaded()
	ctx := within(t, 2*time.Minute)
	must(t, c, "INSERT INTO customers SELECT i, repeat('n', 1000) FROM generate_series(1, 200) i")
	ways := map[string]string{
		"merged":            "SELECT * FROM customers ORDER BY id",
		"concatenated":      "SELECT * FROM customers",
		"groups":            "SELECT name || id % 100, count(*) FROM customers GROUP BY 1",
		"gathered":          "SELECT a.name, b.id FROM customers a JOIN customers b ON b.id = a.id + 1",
		"one shard":         "SELECT repeat(name, 70) FROM customers WHERE id = 7",
		"a reference table": "SELECT repeat(name, 1000) FROM products",
		"RETURNING":         "UPDATE customers SET name = name || 'changed' RETURNING *",
		"COPY":              "COPY customers TO STDOUT",
		"COPY of a query":   "COPY (SELECT name FROM customers) TO STDOUT",
	}
	for _, begin := range []bool{false, true} {
		for what, sql := range ways {
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
				if strings.HasPrefix(what, "COPY") && mode != pgx.QueryExecModeSimpleProtocol {
					continue
				}
				if begin {
					must(t, c, "BEGIN")
				}
				_, err := c.Exec(ctx, sql, mode)
				if sqlState(err) != "54000" || !strings.Contains(err.Error(), "the result takes more bytes") || c.IsClosed() {
					t.Fatalf("%s, %v, in a transaction: %v: %v", what, mode, begin, err)
				}
				status := c.PgConn().TxStatus()
				if begin && status != 'E' || !begin && status != 'I' {
					t.Errorf("%s, %v: status %c", what, mode, status)
				}
				if begin {
					must(t, c, "ROLLBACK")
				}
				must(t, c, "SELECT count(*) FROM customers")
			}
		}
	}
	var n int
	if err := c.QueryRow(ctx, "SELECT count(*) FROM customers WHERE name LIKE '%changed'").Scan(&n); err != nil || n != 0 {
		t.Error("rows that were changed, although the client was told that nothing was:", n, err)
	}
	// In pieces all can be read.
	must(t, c, "BEGIN")
	must(t, c, "DECLARE k CURSOR FOR SELECT * FROM customers ORDER BY id")
	for i := range 5 {
		tag, err := c.Exec(ctx, "FETCH 40 FROM k", pgx.QueryExecModeSimpleProtocol)
		if err != nil || tag.RowsAffected() != 40 {
			t.Error(i, tag, err)
		}
	}
	must(t, c, "COMMIT")
	text, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	console, _ := s.consoleOf()
	for old, now := range map[string]string{"    result_size: 50kB\n": "", "users:\n  - {name: app, ": "users:\n  - {name: app, result_size: 150kB, "} {
		text = []byte(strings.Replace(string(text), old, now, 1))
		s.write(string(text))
	}
	must(t, console, "RELOAD")
	later := s.connect()
	for limit, want := range map[int]string{100: "", 200: "54000"} {
		_, err := later.Exec(ctx, fmt.Sprintf("SELECT * FROM customers WHERE id <= %d", limit), pgx.QueryExecModeSimpleProtocol)
		if sqlState(err) != want {
			t.Errorf("%d rows by the user's own limit: %v", limit, err)
		}
	}
}

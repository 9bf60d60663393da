package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestStatsPrepared counts what clients prepare by a name, what is made of it on servers, and how often it is bound, on one shard and on several.
func TestStatsPrepared(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	must(t, s.connectLoaded(), "INSERT INTO customers SELECT n, 'x' FROM generate_series(0, 9) n")
	console, _ := s.consoleOf()
	counts := func() string {
		results, err := console.PgConn().Exec(within(t, 20*time.Second), "SHOW STATS_TOTALS WHERE database = 'app'").ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for i, f := range results[0].FieldDescriptions {
			if strings.HasSuffix(f.Name, "parse_count") || f.Name == "bind_count" {
				all = append(all, string(results[0].Rows[0][i]))
			}
		}
		return strings.Join(all, " ")
	}
	var parsed, made, bound int
	fmt.Sscan(counts(), &parsed, &made, &bound)
	for _, use := range []struct {
		sql                 string
		args                []any
		parses, made, binds int
	}{
		{"SELECT name FROM customers WHERE id = $1", []any{1}, 1, 2, 3},                                     // described on one shard, run on the other
		{"SELECT name FROM customers WHERE id = $1", []any{1}, 1, 0, 3},                                     // another client, the same servers
		{"SELECT count(*) FROM customers", nil, 1, 1, 3}, {"UPDATE customers SET name = 'y'", nil, 1, 1, 3}, // described on a server
	} {
		c := s.connect()
		for range 3 {
			rows, err := c.Query(within(t, 20*time.Second), use.sql, append([]any{pgx.QueryExecModeCacheStatement}, use.args...)...)
			if err != nil {
				t.Fatal(use.sql, err)
			}
			if rows.Close(); rows.Err() != nil {
				t.Fatal(use.sql, rows.Err())
			}
		}
		var p, m, b int
		fmt.Sscan(counts(), &p, &m, &b)
		if p != parsed+use.parses || b != bound+use.binds || m < made+use.made || m > made+4 { // a server connection may have it already, or be another
			t.Errorf("%s: %d, %d and %d more", use.sql, p-parsed, m-made, b-bound)
		}
		parsed, made, bound = p, m, b
		_ = c.Close(t.Context())
	}
	c := s.connect()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} { // without a name
		if _, err := c.Exec(within(t, 20*time.Second), "SELECT name FROM customers WHERE id = $1", mode, 2); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := counts(), fmt.Sprint(parsed, " ", made, " ", bound); got != want {
		t.Errorf("without names: %s, want %s", got, want)
	}
}

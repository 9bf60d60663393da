package main

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestStatementSizeOverShards: what is too large is refused on one shard, on several and in a batch, which rolls back; a
// transaction over several shards fails of it, and the session goes on.
func TestStatementSizeOverShards(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2, "    statement_size: 64KiB", "limits: {statement_size: 1MiB}")
	c := s.connectLoaded()
	ctx := within(t, time.Minute)
	for i := range 10 {
		must(t, c, "INSERT INTO customers VALUES ($1, 'old')", i)
	}
	long := strings.Repeat("x", 70_000)
	simple := func(sql string) error { _, err := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); return err }
	ways := map[string]func() error{
		"one shard":      func() error { return simple("UPDATE customers SET name = '" + long + "' WHERE id = 3") },
		"several shards": func() error { return simple("UPDATE customers SET name = '" + long + "'") },
		"reads":          func() error { return simple("SELECT count(*) FROM customers WHERE name = '" + long + "'") },
		"script": func() error {
			return simple("UPDATE customers SET name = 'new' WHERE id = 1; UPDATE customers SET name = '" + long + "'")
		},
		"one, bound":     func() error { _, err := c.Exec(ctx, "UPDATE customers SET name = $1 WHERE id = 3", long); return err },
		"several, bound": func() error { _, err := c.Exec(ctx, "UPDATE customers SET name = $1", long); return err },
		"many megabytes": func() error {
			_, err := c.Exec(ctx, "UPDATE customers SET name = $1", strings.Repeat("y", 40_000_000))
			return err
		},
		"text, unnamed": func() error {
			return c.PgConn().ExecParams(ctx, "UPDATE customers SET name = '"+long+"'", nil, nil, nil, nil).Read().Err
		},
		"last of a batch": func() error {
			b := &pgx.Batch{}
			for i := range 10 {
				b.Queue("UPDATE customers SET name = $2 WHERE id = $1", i, "new")
			}
			b.Queue("UPDATE customers SET name = $2 WHERE id = $1", 3, long)
			return c.SendBatch(ctx, b).Close()
		},
	}
	for _, begin := range []string{"", "BEGIN", "BEGIN; UPDATE customers SET name = 'new'"} {
		for name, run := range ways {
			if begin != "" {
				if err := simple(begin); err != nil {
					t.Fatal(err)
				}
			}
			if err := run(); sqlState(err) != "54000" || !strings.Contains(err.Error(), "take more bytes") {
				t.Errorf("%s behind %q: %v", name, begin, err)
			}
			if c.IsClosed() {
				t.Fatalf("%s behind %q has ended the session", name, begin)
			}
			if status := c.PgConn().TxStatus(); begin != "" && status != 'E' {
				t.Errorf("%s behind %q: the transaction is %c", name, begin, status)
			}
			if c.PgConn().TxStatus() != 'I' {
				must(t, c, "ROLLBACK")
			}
		}
	}
	var n int
	if err := c.QueryRow(ctx, "SELECT count(*) FROM customers WHERE name = 'old'").Scan(&n); err != nil || n != 10 {
		t.Error(n, err)
	}
}

package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// TestConcurrentOverShards: so many statements on several shards run at a time as the configuration lets, of a user and of a
// database; statements of one shard pass beside them, a transaction does not wait, and a reload changes the bound for who waits.
func TestConcurrentOverShards(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2, "limits: {concurrent: {user: {several: 1}, wait: 100ms}}")
	c := s.connectLoaded()
	console, _ := s.consoleOf()
	for i := range 20 {
		must(t, c, fmt.Sprintf("INSERT INTO customers VALUES (%d, 'x')", i))
	}
	gate := pgtest.Connect(t, s.shards[1].Primary().DSN("app", "app"))
	lock := func() { must(t, gate, "BEGIN; LOCK customers IN ACCESS EXCLUSIVE MODE") }
	// held runs a statement that a lock on the second shard keeps from ending.
	held := func(conn *pgx.Conn, sql string) chan error {
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
			defer cancel()
			_, err := conn.Exec(ctx, sql)
			done <- err
		}()
		eventually(t, "it waits for the lock", func() bool {
			return s.shards[1].Primary().Value("app", "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'customers'::regclass") != "0"
		})
		return done
	}
	other := s.connect()
	for _, sql := range []string{"SELECT count(*) FROM customers", "UPDATE customers SET name = 'z'"} {
		lock()
		done := held(other, sql)
		for _, crowd := range []string{"SELECT count(*) FROM products, customers", "SELECT id FROM customers ORDER BY id", "UPDATE customers SET name = 'y'", "DELETE FROM customers WHERE name = 'none'"} {
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
				_, err := c.Exec(within(t, 10*time.Second), crowd, mode)
				if sqlState(err) != "53400" || !strings.Contains(err.Error(), "several shards run at once for this user") || c.PgConn().TxStatus() != 'I' {
					t.Errorf("%s beside %s: %v", crowd, sql, err)
				}
			}
		}
		must(t, c, "SELECT * FROM products WHERE id = 1")
		must(t, gate, "COMMIT")
		if err := <-done; err != nil {
			t.Error(sql, err)
		}
		must(t, c, "SELECT count(*) FROM customers")
	}

	// In a transaction it is counted and does not wait; until that has ended others do.
	lock()
	done := held(other, "SELECT count(*) FROM customers")
	must(t, c, "BEGIN")
	must(t, c, "SELECT sum(id) FROM products, generate_series(1, 2)")
	must(t, gate, "COMMIT")
	if err := <-done; err != nil {
		t.Error(err)
	}
	must(t, c, "SELECT count(*) FROM customers")
	if _, err := other.Exec(within(t, 10*time.Second), "SELECT count(*) FROM customers"); sqlState(err) != "53400" {
		t.Error("beside a transaction over several shards:", err)
	}
	must(t, c, "COMMIT")
	must(t, other, "SELECT count(*) FROM customers")

	// A reload raises the bound for who waits, and another database's is not this one's.
	text, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(text), "limits:")
	s.write(before + "\nlimits: {concurrent: {database: {several: 1}, wait: 30s}}\n")
	must(t, console, "RELOAD")
	lock()
	done = held(other, "SELECT count(*) FROM customers")
	waits := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
		defer cancel()
		_, err := c.Exec(ctx, "SELECT count(*) FROM customers WHERE id < 0")
		waits <- err
	}()
	eventually(t, "the second waits", func() bool {
		for _, l := range s.p.server.Crowded() {
			if l.Kind == "several" && l.By == "database" && l.Waited == 1 {
				return true
			}
		}
		return false
	})
	s.write(before + "\nlimits: {concurrent: {database: {several: 2}, wait: 30s}}\n")
	must(t, console, "RELOAD")
	eventually(t, "both run", func() bool {
		return s.shards[1].Primary().Value("app", "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'customers'::regclass") == "2"
	})
	must(t, gate, "COMMIT")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-waits; err != nil {
		t.Error(err)
	}
}

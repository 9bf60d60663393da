package main

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestUserTimeout: a user's own timeouts.query ends whatever it runs, on one shard or on several, alone, in a script, in a
// batch or in a transaction, and says so; the session goes on, and nothing is written.
func TestUserTimeout(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			s := startShards(t, 2, "runtime: {driver: "+driver+"}")
			c := s.connectLoaded()
			for i := range 10 {
				must(t, c, "INSERT INTO customers VALUES ($1, 'old')", i)
			}
			text, err := os.ReadFile(s.path)
			if err != nil {
				t.Fatal(err)
			}
			s.write(strings.Replace(string(text), "- {name: app, ", "- {name: app, timeouts: {query: 400ms}, ", 1))
			console, _ := s.consoleOf()
			must(t, console, "RELOAD")
			c = s.connect()
			simple := func(sql string) error {
				_, err := c.Exec(within(t, 20*time.Second), sql, pgx.QueryExecModeSimpleProtocol)
				return err
			}
			const sleep = "(SELECT pg_sleep(20)) IS NOT NULL"
			ways := map[string]func() error{
				"one shard": func() error { return simple("UPDATE customers SET name = 'new' WHERE id = 3 AND " + sleep) },
				"one, bound": func() error {
					_, err := c.Exec(within(t, 20*time.Second), "SELECT $1::int, pg_sleep(20)", 1)
					return err
				},
				"merged":  func() error { return simple("SELECT id FROM customers WHERE " + sleep + " ORDER BY id") },
				"grouped": func() error { return simple("SELECT count(*) FROM customers WHERE " + sleep) },
				"gathered": func() error {
					return simple("SELECT count(DISTINCT name), max(id) FROM customers a WHERE EXISTS (SELECT FROM customers b WHERE b.name = a.name) AND " + sleep)
				},
				"script": func() error {
					return simple("UPDATE customers SET name = 'new' WHERE id = 1; SELECT count(*) FROM customers WHERE " + sleep)
				},
				"split": func() error {
					return simple("INSERT INTO customers VALUES (11, 'new'), (12, pg_sleep(20)::text), (13, 'new'), (14, 'new'), (15, pg_sleep(20)::text)")
				},
				"batch": func() error {
					b := &pgx.Batch{}
					for i := range 10 {
						b.Queue("UPDATE customers SET name = 'new' WHERE id = $1 AND "+sleep, i)
					}
					return c.SendBatch(within(t, 20*time.Second), b).Close()
				},
			}
			for _, begin := range []string{"", "BEGIN", "BEGIN; UPDATE customers SET name = 'new'"} {
				for name, run := range ways {
					if begin != "" {
						if err := simple(begin); err != nil {
							t.Fatal(err)
						}
					}
					began := time.Now()
					err := run()
					pe := new(pgconn.PgError)
					if took := time.Since(began); !errors.As(err, &pe) || pe.Code != "57014" || !strings.Contains(pe.Message, "query timeout") || took < 400*time.Millisecond || took > 8*time.Second {
						t.Errorf("%s behind %q: %v after %v", name, begin, err, took)
					}
					if c.IsClosed() {
						t.Fatalf("%s behind %q has ended the session", name, begin)
					}
					if c.PgConn().TxStatus() != 'I' {
						must(t, c, "ROLLBACK")
					} else if begin != "" {
						t.Errorf("%s behind %q: the transaction is gone", name, begin)
					}
				}
			}
			holder := s.connect()
			must(t, holder, "BEGIN")
			must(t, holder, "UPDATE customers SET name = 'held' WHERE id = 0")
			must(t, holder, "UPDATE products SET name = 'held' WHERE id = 1")
			for _, sql := range []string{"UPDATE customers SET name = 'new'", "UPDATE products SET name = 'new'"} {
				if err := simple(sql); sqlState(err) != "57014" || !strings.Contains(err.Error(), "query timeout") || c.PgConn().TxStatus() != 'I' {
					t.Errorf("%s, which waits for a lock: %v", sql, err)
				}
			}
			must(t, holder, "ROLLBACK")
			var n int
			if err := c.QueryRow(within(t, 20*time.Second), "SELECT count(*) FROM customers WHERE name = 'old'").Scan(&n); err != nil || n != 10 {
				t.Error(n, err)
			}
		})
	}
}

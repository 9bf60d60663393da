package ormtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const refusedSchema = `
CREATE TABLE customers (id bigint PRIMARY KEY, name text);
CREATE TABLE products (id int PRIMARY KEY, a int, b int);
CREATE TABLE orders (customer_id bigint REFERENCES customers, id bigint, note text, PRIMARY KEY (customer_id, id));
CREATE TABLE order_items (customer_id bigint, order_id bigint, line int, product_id int, PRIMARY KEY (customer_id, order_id, line));
CREATE TABLE single (name text)`

// TestRefused runs what refused.md lists, as far as it is SQL: PostgreSQL runs
// it, the proxy does not. What it runs goes from the list, and its step into
// the application.
func TestRefused(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("refused.md")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var conns []*pgx.Conn
	for _, l := range legs("refused") {
		conn, err := pgx.Connect(ctx, "postgres://"+l.url())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(ctx)
		for _, sql := range strings.Split(refusedSchema, ";") {
			if _, err := conn.Exec(ctx, sql); err != nil {
				t.Fatal(err)
			}
		}
		conns = append(conns, conn)
	}
	for _, r := range []struct {
		number int
		code   string
		sql    []string // the last one is refused
	}{
		{4, "0A000", []string{"SELECT * FROM customers LIMIT 2 FOR UPDATE"}},
	} {
		if !strings.Contains(string(text), fmt.Sprintf("\n| %d |", r.number)) {
			t.Errorf("refused.md has no number %d", r.number)
		}
		for i, conn := range conns {
			err := runAll(ctx, t, conn, r.sql)
			var e *pgconn.PgError
			switch {
			case i == 0 && err != nil:
				t.Errorf("%d: PostgreSQL: %q: %v", r.number, r.sql, err)
			case i == 1 && err == nil:
				t.Errorf("%d: the proxy runs %q now: take it from refused.md, and its step into the application", r.number, r.sql)
			case i == 1 && (!errors.As(err, &e) || e.Code != r.code):
				t.Errorf("%d: %q: %v, want %s", r.number, r.sql, err, r.code)
			}
		}
	}
}

// runAll runs statements as simple queries and returns the error of the last;
// then nothing is left of the transaction and the locks.
func runAll(ctx context.Context, t *testing.T, conn *pgx.Conn, all []string) (err error) {
	for i, sql := range all {
		if _, err = conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil && i < len(all)-1 {
			t.Errorf("%q: %v", sql, err)
		}
	}
	for _, sql := range []string{"ROLLBACK", "SELECT pg_advisory_unlock_all()"} {
		if _, e := conn.PgConn().Exec(ctx, sql).ReadAll(); e != nil {
			t.Errorf("%q: %v", sql, e)
		}
	}
	return err
}

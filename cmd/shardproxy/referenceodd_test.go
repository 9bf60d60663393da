package main

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// sameRows wants a query to give the same on every shard.
func (s *shardedProgram) sameRows(sql string) {
	s.t.Helper()
	if got := s.onEach("SELECT coalesce(string_agg(x::text, ' ' ORDER BY x::text), '') FROM (" + sql + ") x"); got[0] != got[1] {
		s.t.Errorf("%s differs: %q", sql, got)
	}
}

// TestReferenceOdd sends what would give a reference table other rows on each shard, whose rows lie
// in other places there.
func TestReferenceOdd(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	c := s.connectLoaded()
	s.shards[1].Primary().Exec("app", "UPDATE products SET id = id WHERE id < 4; UPDATE products SET id = id WHERE id > 2")
	must(t, c, "CREATE VIEW placed AS SELECT id, ctid::text AS place FROM products")
	eventually(t, "the view is known", func() bool {
		_, err := c.Exec(within(t, time.Second), "SELECT id FROM placed")
		return err == nil
	})
	for _, sql := range []string{
		"DELETE FROM products a USING products b WHERE left(a.name, 7) = left(b.name, 7) AND a.ctid < b.ctid",
		"DELETE FROM products WHERE ctid = '(0,1)'",
		"DELETE FROM products WHERE id = 10 RETURNING ctid",
		"UPDATE products SET name = ctid::text",
		"UPDATE products SET name = xmin::text WHERE id = 4",
		"INSERT INTO products VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = products.ctid::text",
	} {
		fails(t, c, sql, "0A000")
		s.sameRows("SELECT * FROM products")
	}
	must(t, c, "INSERT INTO products VALUES (400, 'ctid')")
	// These rows are read once, and go to all shards.
	must(t, c, "INSERT INTO products SELECT 310, tableoid::text || ctid::text FROM products WHERE id = 1")
	must(t, c, "INSERT INTO products SELECT 320 + id, place FROM placed")
	s.sameRows("SELECT * FROM products")
	must(t, c, "DELETE FROM products a USING products b WHERE left(a.name, 7) = left(b.name, 7) AND a.id < b.id")
	s.sameRows("SELECT * FROM products")
}

// TestFills adds columns, and changes their types, by what may be another value on each shard.
func TestFills(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	c := s.connectLoaded()
	must(t, c, "INSERT INTO customers SELECT i, 'c' || i FROM generate_series(1, 40) i")
	must(t, c, "CREATE DOMAIN chance AS float DEFAULT random()")
	for _, sql := range []string{
		"ALTER TABLE products ALTER name TYPE text USING name || clock_timestamp()::text",
		"ALTER TABLE products ALTER name TYPE text USING name || random()::text",
		`ALTER TABLE "products"add COLUMN r float DEFAULT random()`,
		"ALTER TABLE products/**/add r float DEFAULT random()",
		"ALTER TABLE products ADD r chance",
		"ALTER TABLE products ADD r timestamptz DEFAULT statement_timestamp()",
	} {
		fails(t, c, sql, "0A000")
		s.sameRows("SELECT * FROM products")
	}
	must(t, c, "ALTER TABLE products ADD COLUMN w timestamptz NOT NULL DEFAULT now(); -- the time")
	must(t, c, "ALTER TABLE products ALTER name TYPE text USING name || now()::text, ALTER name SET DEFAULT 'x'")
	s.sameRows("SELECT * FROM products")
	// By the extended protocol, in a transaction, and after something else in it.
	must(t, c, "BEGIN")
	must(t, c, "INSERT INTO customers VALUES (41, 'x'), (42, 'y'), (43, 'z')")
	must(t, c, "ALTER TABLE customers ADD COLUMN w timestamptz DEFAULT $$2020-01-01$$::timestamptz + (now() - current_timestamp) /* then */, ADD v date DEFAULT CURRENT_DATE")
	must(t, c, "ALTER TABLE customers ADD COLUMN u timestamptz DEFAULT now()", pgx.QueryExecModeExec)
	must(t, c, "COMMIT")
	s.sameRows("SELECT DISTINCT w, v, u FROM customers")
	for _, column := range []string{"u", "w", "v"} {
		want := map[string]string{"u": "now()", "w": "('2020-01-01 00:00:00+00'::timestamp with time zone + (now() - CURRENT_TIMESTAMP))", "v": "CURRENT_DATE"}[column]
		for _, got := range s.onEach("SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef JOIN pg_attribute a ON a.attrelid = adrelid AND attnum = adnum WHERE attname = '" +
			column + "' AND adrelid = 'customers'::regclass") {
			if got != want {
				t.Errorf("default of %s: %s, want %s", column, got, want)
			}
		}
	}
}

package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestForbidden sends definitions by which a table could not be written, or not be found, any more.
func TestForbidden(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2, "      mails: {key: k, per_shard_constraints: true}\n      parted: {key: cust}\n      apart: {reference: true}\n    keys: [tenant_id]")
	c := s.connectLoaded()
	must(t, c, "CREATE TABLE ten (tenant_id int, v text, PRIMARY KEY (tenant_id, v))")
	must(t, c, "CREATE TABLE parted (cust int, d date, v text, PRIMARY KEY (cust, d)) PARTITION BY RANGE (d)")
	must(t, c, "CREATE TABLE settings (k text PRIMARY KEY)")
	constraintsJudged(t, c)
	must(t, c, "INSERT INTO orders (id, customer_id) SELECT 1, id FROM customers")
	partitions(t, s, c)
	takenBack(t, s, c)
}

// hinted wants a refusal with words in its hint.
func hinted(t *testing.T, c *pgx.Conn, sql, hint string) {
	t.Helper()
	_, err := c.Exec(within(t, 20*time.Second), sql)
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "0A000" || !strings.Contains(pe.Hint, hint) {
		t.Errorf("%s: %v, want 0A000 with a hint about %q", sql, err, hint)
		if pe != nil {
			t.Log(pe.Hint)
		}
	}
}

func constraintsJudged(t *testing.T, c *pgx.Conn) {
	for _, sql := range []string{
		"CREATE UNIQUE INDEX ON orders (note)",
		"CREATE UNIQUE INDEX ON orders (id, lower(note)) INCLUDE (customer_id)",
		"CREATE UNIQUE INDEX CONCURRENTLY bad ON orders (note)",
		"ALTER TABLE orders ADD CONSTRAINT cu UNIQUE (note)",
		"ALTER TABLE orders ADD COLUMN u uuid UNIQUE",
		"ALTER TABLE orders ADD x int, ADD EXCLUDE USING btree (customer_id WITH =)",
		"CREATE TABLE kids (tenant_id int, email text UNIQUE)",
		"CREATE TABLE kids (email text PRIMARY KEY, tenant_id int)",
		"CREATE TABLE kids (email text, tenant_id int, UNIQUE (email))",
		"ALTER TABLE ten ADD UNIQUE (v)",
		"CREATE TABLE kids (tenant_id int, c bigint REFERENCES customers)",
		"CREATE TABLE kids (v int, tenant_id int, FOREIGN KEY (tenant_id, v) REFERENCES orders (id, customer_id))",
		"ALTER TABLE orders ADD FOREIGN KEY (id) REFERENCES customers",
		"ALTER TABLE orders ADD FOREIGN KEY (id) REFERENCES customers NOT VALID",
		"ALTER TABLE orders ADD COLUMN c bigint REFERENCES customers (id)",
		"CREATE TABLE kids (tenant_id int PRIMARY KEY, parent int REFERENCES kids)",
	} {
		hinted(t, c, sql, "per_shard_constraints")
	}
	hinted(t, c, "ALTER TABLE products ADD COLUMN c bigint REFERENCES customers", "every shard")
	for _, sql := range []string{
		"CREATE UNIQUE INDEX good ON orders (customer_id, note)",
		"CREATE UNIQUE INDEX CONCURRENTLY good2 ON orders (note, customer_id)",
		"CREATE INDEX ON orders (note)",
		"ALTER TABLE orders ADD CONSTRAINT cu UNIQUE USING INDEX good",
		"ALTER TABLE orders ADD COLUMN p bigint REFERENCES products, ADD CHECK (id > 0)",
		"ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers NOT VALID",
		"CREATE TABLE kids (tenant_id int PRIMARY KEY, parent int, FOREIGN KEY (tenant_id) REFERENCES kids)",
		"CREATE TABLE kids2 (LIKE ten INCLUDING ALL)",
		"CREATE TABLE IF NOT EXISTS kids2 (tenant_id int, email text UNIQUE)",
		"CREATE TABLE mails (k int, email text UNIQUE, n serial, PRIMARY KEY (k, n))",
		"CREATE TABLE other (id int PRIMARY KEY, k text REFERENCES settings)",
		"INSERT INTO customers VALUES (1, 'a'), (2, 'b'), (3, 'c')",
		"INSERT INTO kids VALUES (1), (2)",
		"INSERT INTO mails (k, email) VALUES (1, 'a'), (2, 'b')",
		"DROP TABLE kids, kids2, mails",
		"DROP TABLE other",
	} {
		must(t, c, sql)
	}
}

func partitions(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	must(t, c, "CREATE TABLE parted1 PARTITION OF parted FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')")
	must(t, c, "CREATE TABLE parted2 PARTITION OF parted (v DEFAULT 'x') FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY RANGE (d)")
	must(t, c, "CREATE TABLE parted21 PARTITION OF parted2 DEFAULT")
	must(t, c, "INSERT INTO parted (cust, d) SELECT i, '2024-12-31'::date + i % 2 FROM generate_series(1, 20) i")
	if got := one(t, c, "SELECT count(*) FROM parted1") + " " + one(t, c, "SELECT count(*) FROM parted21"); got != "10 10" {
		t.Error(got)
	}
	if got := s.onEach("SELECT (count(*) > 0)::text FROM parted21"); got[0] != "true" || got[1] != "true" {
		t.Error(got)
	}
	hinted(t, c, "CREATE TABLE apart PARTITION OF parted FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')", "needs no rule")
	hinted(t, c, "CREATE TABLE parted3 PARTITION OF parted (UNIQUE (d)) FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')", "per_shard_constraints")
	must(t, c, "DROP TABLE parted1, parted21")
}

// takenBack makes what was made once in the wrong place, and drops what cannot be read.
func takenBack(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	hinted(t, c, "CREATE SCHEMA zed CREATE TABLE zt (tenant_id int) CREATE VIEW zv AS SELECT 1", "by a statement of its own")
	must(t, c, "CREATE SCHEMA zed")
	hinted(t, c, "CREATE TABLE ci (tenant_id float)", "another type")
	hinted(t, c, "CREATE TABLE ci (tenant_id int[])", "another type")
	hinted(t, c, "CREATE TABLE heirs (extra int) INHERITS (ten)", "LIKE")
	hinted(t, c, "CREATE TABLE heirs (tenant_id int, extra int) INHERITS (ten)", "LIKE")
	must(t, c, "CREATE TABLE lone (extra int)")
	must(t, c, "DROP TABLE lone")
	// As they were made before, or past the proxy.
	for i := range s.shards {
		s.direct(i, "CREATE TABLE ci (tenant_id float); CREATE TABLE heirs (extra int) INHERITS (ten)")
	}
	eventually(t, "the tables are known", func() bool {
		_, err := c.Exec(within(t, 20*time.Second), "SELECT * FROM ten")
		return sqlState(err) == "0A000"
	})
	must(t, c, "DROP TABLE ci")
	must(t, c, "DROP TABLE heirs")
	must(t, c, "INSERT INTO ten VALUES (1, 'a')")
	for _, got := range s.onEach("SELECT count(*) FROM pg_class WHERE relname IN ('ci', 'heirs', 'zt')") {
		if got != "0" {
			t.Error(got)
		}
	}
	must(t, c, "CREATE TEMP TABLE temped (tenant_id int, id int PRIMARY KEY)")
}

package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const madeTables = `      plants:   {key: id}
      public.copies: {key: id}
      b.copies: {key: name}
      places:   {key: [a, b]}
      listed:   {key: name, list: {s1: [n01, n02]}, default: s0}
      kinds:    {reference: true}
    keys: [tenant_id]
runtime: {driver: %s}
limits: {gather: 1MiB}`

// TestTablesMade makes tables of the rows of queries that need several shards.
func TestTablesMade(t *testing.T) {
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, fmt.Sprintf(madeTables, driver))
			s.connectLoaded()
			var notices []string
			cfg, err := pgx.ParseConfig(s.dsn())
			if err != nil {
				t.Fatal(err)
			}
			cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
				notices = append(notices, n.Severity+" "+n.Code+" "+n.Message)
			}
			c, err := pgx.ConnectConfig(within(t, 20*time.Second), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close(context.Background())
			must(t, c, "CREATE TYPE mood AS ENUM ('sad', 'glad')")
			must(t, c, "CREATE DOMAIN small AS int CHECK (VALUE < 1000)")
			must(t, c, "CREATE TABLE plants (id bigint PRIMARY KEY, name varchar(8) NOT NULL, n int, m mood, tags text[], d small)")
			must(t, c, "CREATE TABLE alone (id bigint PRIMARY KEY, note text)")
			for i := range 40 {
				must(t, c, fmt.Sprintf("INSERT INTO plants VALUES (%[1]d, 'n%02[1]d', %[1]d, '%[2]s', ARRAY['a', NULL], %[1]d)", i, []string{"sad", "glad"}[i%2]))
			}
			must(t, c, "INSERT INTO alone VALUES (3, 'three')")
			t.Run("told", func(t *testing.T) { madeTold(t, s, c, &notices) })
			t.Run("placed", func(t *testing.T) { madePlaced(t, s, c) })
			t.Run("all or none", func(t *testing.T) { madeAllOrNone(t, s, c) })
			t.Run("names", func(t *testing.T) { madeNames(t, s, c) })
			t.Run("protocol", func(t *testing.T) { madeProtocol(t, s, c) })
			for i, got := range s.onEach("SELECT count(*)::text FROM pg_prepared_xacts") {
				if got != "0" {
					t.Errorf("%s transactions are left prepared on shard %d", got, i)
				}
			}
			if n := (&source{p: s.p}).Databases()[0].Totals.GatherHeld; n != 0 {
				t.Errorf("%d bytes are held", n)
			}
		})
	}
}

// columnsOf are the columns of a table on each shard.
func (s *shardedProgram) columnsOf(table string) string {
	return strings.Join(s.onEach("SELECT coalesce(string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum), '') FROM pg_attribute WHERE attrelid = to_regclass('"+table+"') AND attnum > 0"), "; ")
}

func madeTold(t *testing.T, s *shardedProgram, c *pgx.Conn, notices *[]string) {
	for _, test := range []struct{ sql, tag, notices string }{
		{"CREATE TABLE told AS SELECT * FROM plants", "SELECT 40", ""},
		{"CREATE TABLE IF NOT EXISTS told AS SELECT * FROM plants", "CREATE TABLE AS", `NOTICE 42P07 relation "told" already exists, skipping`},
		{"CREATE TABLE IF NOT EXISTS told2 AS SELECT n FROM plants ORDER BY n LIMIT 3", "SELECT 3", ""},
		{"CREATE TABLE told3 AS SELECT n FROM plants WITH NO DATA", "CREATE TABLE AS", ""},
		{"CREATE TABLE told4 AS SELECT n FROM plants WHERE n < 0", "SELECT 0", ""},
		{"SELECT id, n INTO told5 FROM plants WHERE n < 5", "SELECT 5", ""},
		{"CREATE TABLE told6 AS SELECT id, 1 AS " + strings.Repeat("a", 70) + " FROM plants", "SELECT 40",
			fmt.Sprintf("NOTICE 42622 identifier \"%s\" will be truncated to \"%s\"", strings.Repeat("a", 70), strings.Repeat("a", 63))},
	} {
		*notices = nil
		if tag := must1(t, c, test.sql); tag != test.tag {
			t.Errorf("%s: %s", test.sql, tag)
		}
		if got := strings.Join(*notices, "|"); got != test.notices {
			t.Errorf("%s: %s", test.sql, got)
		}
	}
	if got := s.columnsOf("told"); got != "id bigint, name character varying(8), n integer, m mood, tags text[], d small; " {
		t.Error(got)
	}
	if got := one(t, c, "SELECT string_agg(told::text, ' ' ORDER BY id) FROM told WHERE id < 2"); got != `(0,n00,0,sad,"{a,NULL}",0) (1,n01,1,glad,"{a,NULL}",1)` {
		t.Error(got)
	}
	must(t, c, "SET client_min_messages = error")
	if tag := must1(t, c, "CREATE TABLE IF NOT EXISTS told2 AS SELECT * FROM plants"); tag != "CREATE TABLE AS" {
		t.Error(tag)
	}
	must(t, c, "RESET client_min_messages")
	if got := one(t, c, "SELECT count(*) FROM told2"); got != "3" {
		t.Error("it was there, and has got rows:", got)
	}
	route := asked(t, c, "EXPLAIN (ROUTE) CREATE TABLE told7 AS SELECT max(n) FROM plants")
	for _, want := range []string{"Route: its rows on each of: s0, s1\n  way: groups", "\n  make: CREATE TABLE told7 AS SELECT max(n) FROM plants WITH NO DATA"} {
		if !strings.Contains(route, want) {
			t.Error(route)
		}
	}
	must(t, c, "DROP TABLE told, told2, told3, told4, told5, told6")
}

func madePlaced(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	// A sharded table has each row where its key belongs, a reference table all of them everywhere.
	for _, test := range []struct{ table, sql, counts string }{
		{"copies", "CREATE TABLE copies AS SELECT id, name FROM plants", ""},
		{"copies", "SELECT p.n::int AS id, q.name INTO copies FROM plants p JOIN plants q ON p.n = q.n", ""},
		{"copies", "CREATE TABLE copies (x, id) AS SELECT name, n::smallint FROM plants ORDER BY n LIMIT 20", ""},
		{"places", "CREATE TABLE places AS SELECT name AS a, id AS b FROM plants", ""},
		{"listed", "CREATE TABLE listed AS SELECT name FROM plants", "38 2"},
		{"kinds", "CREATE TABLE kinds AS SELECT m::text, count(*) FROM plants GROUP BY 1", "2 2"},
		{"kinds", "SELECT name INTO kinds FROM products", "10 10"},
		{"tenants", "CREATE TABLE tenants AS SELECT id AS tenant_id, name FROM plants", ""},
	} {
		if tag := must1(t, c, test.sql); !strings.HasPrefix(tag, "SELECT ") {
			t.Errorf("%s: %s", test.sql, tag)
		}
		if n := s.countOn(test.table); test.counts != "" && n != test.counts || strings.HasPrefix(n, "0 ") || strings.HasSuffix(n, " 0") {
			t.Errorf("%s: %s", test.sql, n)
		}
		columns := strings.Split(s.columnsOf(test.table), "; ")
		if columns[0] != columns[1] || columns[0] == "" {
			t.Errorf("%s: %q", test.sql, columns)
		}
		if test.counts == "" { // each row is found by its key
			key := map[string]string{"copies": "id", "tenants": "tenant_id"}[test.table]
			if key != "" {
				eventually(t, "the catalog knows it", func() bool {
					_, err := c.Exec(within(t, time.Second), "SELECT * FROM "+test.table+" WHERE "+key+" = 7")
					return err == nil
				})
				for id := range 20 {
					if got := one(t, c, fmt.Sprintf("SELECT count(*) FROM %s WHERE %s = %d", test.table, key, id)); got != "1" {
						t.Fatalf("%s: %s rows of %d", test.sql, got, id)
					}
				}
			} else if got := one(t, c, "SELECT count(*) FROM places WHERE a = 'n07' AND b = 7"); got != "1" {
				t.Error(got)
			}
		}
		must(t, c, "DROP TABLE "+test.table)
	}
	if tag := must1(t, c, "CREATE TABLE copies AS SELECT id, m, d FROM plants WITH NO DATA"); tag != "CREATE TABLE AS" {
		t.Error(tag)
	}
	if got := s.columnsOf("copies"); got != "id bigint, m mood, d small; id bigint, m mood, d small" {
		t.Error(got)
	}
	if tag := must1(t, c, "INSERT INTO copies SELECT id, m, d FROM plants"); tag != "INSERT 0 40" {
		t.Error(tag)
	}
	fails(t, c, "CREATE TABLE copies AS SELECT id FROM plants", "42P07")
	if tag := must1(t, c, "CREATE TABLE IF NOT EXISTS copies AS SELECT id FROM plants"); tag != "CREATE TABLE AS" {
		t.Error(tag)
	}
	must(t, c, "DROP TABLE copies")
	for sql, code := range map[string]string{
		"CREATE TABLE copies AS SELECT name FROM plants":                                            "0A000", // no key
		"CREATE TABLE copies AS SELECT n::float8 AS id FROM plants":                                 "0A000", // of a type that cannot be one
		"CREATE TABLE copies AS SELECT NULLIF(id, 7) AS id FROM plants":                             "23502",
		"CREATE TABLE kinds AS SELECT a.note FROM alone a, plants":                                  "0A000", // alone is on one shard
		"CREATE TABLE copies AS SELECT id, 1 / (n - 30) AS q FROM plants":                           "22012",
		"CREATE TABLE copies AS SELECT FROM plants":                                                 "0A000",
		"CREATE TEMP TABLE copies AS SELECT id FROM plants":                                         "0A000",
		"CREATE TABLE kinds AS SELECT note FROM alone":                                              "0A000",
		"CREATE MATERIALIZED VIEW copies AS SELECT id FROM plants":                                  "0A000",
		"CREATE MATERIALIZED VIEW seen AS SELECT id FROM plants":                                    "0A000",
		"EXPLAIN ANALYZE CREATE TABLE seen AS SELECT id FROM plants":                                "0A000",
		"CREATE TABLE seen AS SELECT p.id FROM plants p, generate_series(1, 3) WHERE nosuch = p.id": "42703",
	} {
		fails(t, c, sql, code)
	}
	for _, table := range []string{"copies", "kinds", "seen"} {
		if got := s.columnsOf(table); got != "; " {
			t.Error(table, "is there:", got)
		}
	}
}

func madeAllOrNone(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	must(t, c, "BEGIN")
	must(t, c, "INSERT INTO plants (id, name) VALUES (500, 'first')")
	must(t, c, "SAVEPOINT a")
	fails(t, c, "CREATE TABLE kept AS SELECT id, 1 / (n - 30) AS q FROM plants", "22012")
	fails(t, c, "SELECT 1", "25P02")
	must(t, c, "ROLLBACK TO a")
	if tag := must1(t, c, "CREATE TABLE kept AS SELECT id FROM plants WHERE id > 30"); tag != "SELECT 10" {
		t.Error(tag)
	}
	if got := one(t, c, "SELECT count(*) || ' ' || max(id) FROM kept"); got != "10 500" {
		t.Error(got)
	}
	must(t, c, "ROLLBACK TO a")
	fails(t, c, "SELECT * FROM kept", "42P01")
	must(t, c, "ROLLBACK TO a")
	fails(t, c, "CREATE TABLE kept AS SELECT id FROM plants WHERE id > 30", "0A000") // definitions were changed
	must(t, c, "ROLLBACK")
	must(t, c, "BEGIN")
	must(t, c, "INSERT INTO plants (id, name) VALUES (500, 'first')")
	must(t, c, "CREATE TABLE kept AS SELECT id FROM plants WHERE id > 30")
	must(t, c, "INSERT INTO alone SELECT 9, count(*) FROM kept")
	must(t, c, "COMMIT")
	if got := one(t, c, "SELECT count(*) FROM kept") + one(t, c, "SELECT note FROM alone WHERE id = 9"); got != "1010" {
		t.Error(got)
	}
	must(t, c, "BEGIN")
	must(t, c, "CREATE TABLE copies AS SELECT id FROM plants")
	must(t, c, "ROLLBACK")
	if got := s.columnsOf("copies"); got != "; " {
		t.Error("it is there:", got)
	}
	must(t, c, "BEGIN ISOLATION LEVEL REPEATABLE READ")
	must(t, c, "SELECT count(*) FROM plants")
	must(t, c, "CREATE TABLE copies AS SELECT id FROM plants")
	must(t, c, "COMMIT")
	must(t, c, "DROP TABLE copies")
	must(t, c, "BEGIN READ ONLY")
	fails(t, c, "CREATE TABLE copies AS SELECT id FROM plants", "25006")
	must(t, c, "ROLLBACK")
	fails(t, c, "CREATE TABLE huge AS SELECT p.id, repeat('x', 1000) AS x FROM plants p, plants q", "54000")
	fails(t, c, "SELECT p.id, repeat('x', 1000) AS x INTO copies FROM plants p, plants q", "54000")
	must(t, c, "SET shardproxy.cross_shard = refuse")
	fails(t, c, "CREATE TABLE huge AS SELECT id FROM plants", "0A000")
	must(t, c, "SET shardproxy.cross_shard = allow")
	if got := s.columnsOf("huge") + s.columnsOf("copies"); got != "; ; " {
		t.Error("they are there:", got)
	}
	must(t, c, "DROP TABLE kept")
	must(t, c, "DELETE FROM plants WHERE id = 500")
}

func madeNames(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	must(t, c, "CREATE SCHEMA b")
	must(t, c, `CREATE SCHEMA "odd ""'\ one"`)
	// A name that PostgreSQL finds elsewhere first.
	if tag := must1(t, c, "CREATE TABLE pg_class AS SELECT id FROM plants"); tag != "SELECT 40" {
		t.Error(tag)
	}
	if got := one(t, c, "SELECT count(*) FROM public.pg_class"); got != "40" {
		t.Error(got)
	}
	must(t, c, "DROP TABLE public.pg_class")
	must(t, c, `CREATE TABLE "odd ""'\ one"."a ""'\ b" ("c ""'\ d") AS SELECT id FROM plants`)
	if got := one(t, c, `SELECT sum("c ""'\ d")::text FROM "odd ""'\ one"."a ""'\ b"`); got != "780" {
		t.Error(got)
	}
	if tag := must1(t, c, `CREATE TABLE IF NOT EXISTS "odd ""'\ one"."a ""'\ b" AS SELECT id FROM plants`); tag != "CREATE TABLE AS" {
		t.Error(tag)
	}
	must(t, c, `DROP SCHEMA "odd ""'\ one" CASCADE`)
	// The first schema of the path is that of the table, with its rule.
	must(t, c, "SET search_path = b, public")
	must(t, c, "CREATE TABLE copies AS SELECT name, n FROM plants")
	if got := s.columnsOf("b.copies"); got != "name character varying, n integer; name character varying, n integer" && got != "name character varying(8), n integer; name character varying(8), n integer" {
		t.Error(got)
	}
	fails(t, c, "CREATE TABLE plants AS SELECT * FROM plants", "0A000")
	must(t, c, "CREATE TABLE told AS SELECT n FROM plants")
	must(t, c, "SET search_path = \"$user\", public")
	if got := s.countOn("b.copies"); strings.HasPrefix(got, "0 ") || strings.HasSuffix(got, " 0") {
		t.Error(got)
	}
	if got := one(t, c, "SELECT count(*) FROM b.told"); got != "40" {
		t.Error(got)
	}
	must(t, c, "DROP TABLE b.copies")
	must(t, c, "DROP TABLE b.told")
	must(t, c, "DROP SCHEMA b")
}

func madeProtocol(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	const into = "SELECT p.id, $2::text AS t, a.note INTO sent FROM plants p LEFT JOIN alone a ON a.id = p.id WHERE p.n < $1"
	for mode, sql := range map[pgx.QueryExecMode]string{
		pgx.QueryExecModeSimpleProtocol: into,
		pgx.QueryExecModeCacheStatement: "CREATE TABLE sent AS SELECT p.id, $2::text AS t, a.note FROM plants p LEFT JOIN alone a ON a.id = p.id WHERE p.n < $1",
		pgx.QueryExecModeDescribeExec:   into,
		pgx.QueryExecModeExec:           "CREATE TABLE copies AS SELECT p.id, $2::text AS t FROM plants p WHERE p.n < $1",
	} {
		table := "sent"
		if strings.Contains(sql, "copies") {
			table = "copies"
		}
		if tag := must1(t, c, sql, mode, 8, "x"); tag != "SELECT 8" {
			t.Errorf("%v: %s", mode, tag)
		}
		if got := s.countOn(table); table == "sent" && !strings.HasPrefix(got, "8 ERROR") {
			t.Error(mode, got)
		}
		must(t, c, "DROP TABLE "+table)
	}
	results, err := c.PgConn().Exec(within(t, 20*time.Second), "SELECT 1; CREATE TABLE sent AS SELECT id FROM plants; SELECT count(*) FROM sent; DROP TABLE sent").ReadAll()
	if err != nil || len(results) != 4 || results[1].CommandTag.String() != "SELECT 40" || string(results[2].Rows[0][0]) != "40" {
		t.Error(results, err)
	}
	_, err = c.PgConn().Exec(within(t, 20*time.Second), "CREATE TABLE sent AS SELECT id FROM plants; SELECT 1 / 0").ReadAll()
	if sqlState(err) != "22012" || s.columnsOf("sent") != "; " {
		t.Error(err, s.columnsOf("sent"))
	}
	// With what comes before it in front of one Sync it is one transaction.
	batch := &pgconn.Batch{}
	batch.ExecParams("INSERT INTO alone VALUES (1, 'x')", nil, nil, nil, nil)
	batch.ExecParams("CREATE TABLE sent AS SELECT id FROM plants WHERE n < $1::int", [][]byte{[]byte("7")}, nil, nil, nil)
	all, err := c.PgConn().ExecBatch(within(t, 20*time.Second), batch).ReadAll()
	if err != nil || len(all) != 2 || all[1].CommandTag.String() != "SELECT 7" || one(t, c, "SELECT count(*) FROM sent") != "7" {
		t.Error(all, err)
	}
	must(t, c, "DROP TABLE sent")
	must(t, c, "DELETE FROM alone WHERE id <> 3")
}

package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const insertedTables = `      plants:  {key: id}
      parts:   {key: plant}
      serials: {key: id}
      byname:  {key: name}
      kinds:   {reference: true}
runtime: {driver: %s}
limits: {gather: 1MiB}`

// TestInsertGathered inserts rows of queries that need several shards.
func TestInsertGathered(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, fmt.Sprintf(insertedTables, driver))
			c := s.connectLoaded()
			for _, sql := range []string{
				"CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad')", "CREATE TYPE pair AS (a int, b text)", "CREATE DOMAIN small AS int CHECK (VALUE < 1000)",
				"CREATE TABLE plants (id bigint PRIMARY KEY, name text NOT NULL, n int CHECK (n < 100), m mood DEFAULT 'ok', tags text[], p pair, d small)",
				"CREATE TABLE parts (plant int NOT NULL, id int NOT NULL, day date, price numeric(8,2), PRIMARY KEY (plant, id))",
				"CREATE TABLE serials (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text, at timestamptz DEFAULT now(), u uuid DEFAULT gen_random_uuid())",
				"CREATE TABLE byname (name varchar(6) PRIMARY KEY, n int)",
				"CREATE TABLE kinds (id serial PRIMARY KEY, name text, at timestamptz DEFAULT now())",
				"CREATE TABLE alone (id bigint PRIMARY KEY, note text)",
			} {
				must(t, c, sql)
			}
			for i := range 40 {
				must(t, c, fmt.Sprintf("INSERT INTO plants VALUES (%[1]d, 'n%02[1]d', %[1]d, '%[2]s', ARRAY['a', NULL, 'n%02[1]d'], ROW(%[1]d, 'x,\"y'), %[1]d)", i, []string{"sad", "glad"}[i%2]))
			}
			for _, test := range []struct {
				name string
				run  func(*testing.T, *shardedProgram, *pgx.Conn)
			}{{"all or none", insertAllOrNone}, {"draws", insertDraws}, {"types", insertTypes}, {"protocol", insertProtocol}, {"limits", insertLimits}} {
				t.Run(test.name, func(t *testing.T) { test.run(t, s, c) })
			}
		})
	}
}

// countOn returns the number of rows of a table on every shard.
func (s *shardedProgram) countOn(table string) string {
	return strings.Join(s.onEach("SELECT count(*)::text FROM "+table), " ")
}

func insertAllOrNone(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	before := s.countOn("plants")
	for _, begin := range []bool{false, true} {
		if begin {
			must(t, c, "BEGIN")
			must(t, c, "INSERT INTO plants VALUES (500, 'first', 99)")
			must(t, c, "SAVEPOINT a")
		}
		for id := range 10 { // each time a row of another shard fails
			fails(t, c, fmt.Sprintf("INSERT INTO plants (id, name, n) SELECT p.id + 100, q.name, CASE WHEN p.id = %d THEN 100 END FROM plants p JOIN plants q ON p.id + 1 = q.n", id), "23514")
			if begin {
				fails(t, c, "SELECT 1", "25P02")
				must(t, c, "ROLLBACK TO a")
			}
		}
		fails(t, c, "INSERT INTO plants (id, name, n) SELECT p.id + 100, 'x', 1 / (p.id - 7) FROM plants p JOIN plants q ON p.id + 1 = q.n", "22012")
		if begin {
			must(t, c, "ROLLBACK TO a")
		}
		fails(t, c, "INSERT INTO plants (id, name) SELECT NULLIF(p.id, 3), 'x' FROM plants p ORDER BY id LIMIT 9", "23502")
		if begin {
			must(t, c, "ROLLBACK TO a")
			must(t, c, "INSERT INTO plants (id, name) SELECT p.id + 100, 'in' FROM plants p JOIN plants q ON p.id + 1 = q.n")
			if got := one(t, c, "SELECT count(*) FROM plants WHERE name = 'in'"); got != "39" {
				t.Error(got, "rows are seen in the transaction")
			}
			must(t, c, "ROLLBACK")
		}
		if got := s.countOn("plants"); got != before {
			t.Errorf("%s rows, and %s before", got, before)
		}
	}
	if tag := must1(t, c, "INSERT INTO plants (id, name) SELECT max(id) + 1, 'own' FROM plants UNION ALL SELECT max(id) + 2, 'own' FROM plants"); tag != "INSERT 0 2" {
		t.Error(tag)
	}
	if got := one(t, c, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM plants WHERE name = 'own'"); got != "40 41" {
		t.Error("a query saw what was inserted:", got)
	}
	must(t, c, "DELETE FROM plants WHERE name = 'own'")
	for i, got := range s.onEach("SELECT count(*)::text FROM pg_prepared_xacts") {
		if got != "0" {
			t.Errorf("%s transactions are left prepared on shard %d", got, i)
		}
	}
}

// must1 runs a statement and returns its command tag.
func must1(t testing.TB, c *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	tag, err := c.Exec(within(t, 30*time.Second), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return tag.String()
}

func insertDraws(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	rows, err := c.Query(t.Context(), "INSERT INTO serials (note) SELECT name FROM plants ORDER BY name RETURNING id || note")
	if err != nil {
		t.Fatal(err)
	}
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(got) != 40 || got[0] != "1n00" || got[39] != "40n39" {
		t.Error("drawn in another order:", err, got)
	}
	if got := one(t, c, "SELECT lastval()"); got != "40" {
		t.Error("lastval:", got)
	}
	if n := s.countOn("serials"); strings.HasPrefix(n, "0 ") || strings.HasSuffix(n, " 0") {
		t.Error("all on one shard:", n)
	}
	if got := one(t, c, "SELECT count(DISTINCT at) || ' ' || count(DISTINCT u) FROM serials"); got != "1 40" {
		t.Error("times, and identifiers:", got)
	}
	must(t, c, "INSERT INTO kinds (name) SELECT DISTINCT m::text FROM plants ORDER BY 1")
	if all := s.onEach("SELECT string_agg(id || name || at, ' ' ORDER BY id) FROM kinds"); all[0] != all[1] || !strings.HasPrefix(all[0], "1glad") {
		t.Errorf("the copies differ: %q", all)
	}
	fails(t, c, "INSERT INTO kinds (name) SELECT name FROM plants WHERE n > 30 RETURNING ctid", "0A000")
	must(t, c, "DELETE FROM kinds")
	if tag := must1(t, c, "INSERT INTO alone SELECT count(*), string_agg(name, '' ORDER BY id) FROM plants WHERE id < 3"); tag != "INSERT 0 1" {
		t.Error(tag)
	}
	if got := one(t, c, "SELECT id || note FROM alone"); got != "3n00n01n02" {
		t.Error(got)
	}
	must(t, c, "DELETE FROM alone")
	must(t, c, "DELETE FROM serials")
}

func insertTypes(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	must(t, c, "INSERT INTO plants SELECT id * 10.4 + 1000, name, n, m, tags, p, d FROM plants WHERE id < 20 ORDER BY id LIMIT 20")
	for i := range 20 {
		key := int(float64(i)*10.4 + 1000.5)
		if got := one(t, c, "SELECT name || m || tags[3] || (p).b || (p).a || d FROM plants WHERE id = $1", key); got != fmt.Sprintf("n%02d%sn%02dx,\"y%d%d", i, []string{"sad", "glad"}[i%2], i, i, i) {
			t.Errorf("row %d, of key %d, is %s", i, key, got)
		}
	}
	must(t, c, "DELETE FROM plants WHERE id >= 1000")
	must(t, c, "INSERT INTO parts SELECT id, n, '2024-02-29', n / 7.0 FROM plants ORDER BY n")
	if got := one(t, c, "SELECT day || ' ' || price FROM parts WHERE plant = 1"); got != "2024-02-29 0.14" {
		t.Error(got)
	}
	fails(t, c, "INSERT INTO parts (plant, id, day) SELECT max(id), 1000, max(name) FROM plants", "42804")
	fails(t, c, "INSERT INTO parts (plant, id, day) SELECT max(id), 1000, 'x' FROM plants", "22007")
	fails(t, c, "INSERT INTO parts (plant, id) SELECT max(id) + 10000000000, 1000 FROM plants", "22003")
	fails(t, c, "INSERT INTO parts (plant) SELECT max(id) FROM plants", "23502")
	fails(t, c, "INSERT INTO parts (plant, id) SELECT max(id) FROM plants", "42601")
	fails(t, c, "INSERT INTO plants (id, name, d) SELECT 5000, 'x', sum(id) * 100 FROM plants", "23514")
	must(t, c, "INSERT INTO byname SELECT rpad(min(name), 9), count(*) FROM plants")
	if got := one(t, c, "SELECT n FROM byname WHERE name = 'n00   '"); got != "40" {
		t.Error(got)
	}
	fails(t, c, "INSERT INTO byname SELECT rpad(min(name), 9, 'x'), count(*) FROM plants", "22001")
	fails(t, c, "INSERT INTO byname SELECT 'toolong', count(*) FROM plants", "22001")
	must(t, c, "INSERT INTO byname (n, name) SELECT count(*), 'lit' FROM plants")
	if got := one(t, c, "SELECT n FROM byname WHERE name = 'lit'"); got != "40" {
		t.Error(got)
	}
	must(t, c, "DELETE FROM byname")
	must(t, c, "DELETE FROM parts")
	must(t, c, "SET DateStyle = 'German'")
	fails(t, c, "INSERT INTO plants SELECT id + 100, name, n, m, tags, p, d FROM plants ORDER BY id LIMIT 20", "0A000") // composite values travel as text
	must(t, c, "RESET DateStyle")
}

func insertProtocol(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec} {
		for range 2 {
			rows, err := c.Query(within(t, 20*time.Second), `WITH few AS (SELECT id FROM plants WHERE n < $1 ORDER BY id LIMIT 8)
				INSERT INTO parts AS x (id, plant, price) (SELECT 7, id, $2 FROM few ORDER BY id DESC)
				ON CONFLICT (plant, id) DO UPDATE SET price = excluded.price + $3 RETURNING plant, price::float8`, mode, 20, 1.5, 2)
			if err != nil {
				t.Fatal(err)
			}
			var plants []int32
			var plant int32
			var price, sum float64
			_, err = pgx.ForEachRow(rows, []any{&plant, &price}, func() error {
				plants, sum = append(plants, plant), sum+price
				return nil
			})
			if err != nil || rows.CommandTag().String() != "INSERT 0 8" || !slices.Equal(plants, []int32{7, 6, 5, 4, 3, 2, 1, 0}) || sum != 12 && sum != 28 {
				t.Errorf("%v: %v %v %v %v", mode, err, rows.CommandTag(), plants, sum)
			}
		}
		must(t, c, "DELETE FROM parts")
	}
	b := &pgx.Batch{}
	b.Queue("INSERT INTO alone VALUES (1, 'x')")
	b.Queue("INSERT INTO parts (plant, id) SELECT count(*), $1 FROM plants RETURNING plant", 3)
	b.Queue("UPDATE parts SET id = id + 1")
	b.Queue("INSERT INTO alone SELECT sum(plant) + $1, 'y' FROM parts", 1)
	b.Queue("SELECT sum(id)::text FROM alone")
	if said, err := batched(t, c, b); err != nil || strings.Join(said, "|") != "INSERT 0 1|40INSERT 0 1|UPDATE 1|INSERT 0 1|42SELECT 1" {
		t.Error(said, err)
	}
	b = &pgx.Batch{}
	b.Queue("INSERT INTO alone VALUES (2, 'x')")
	b.Queue("INSERT INTO parts (plant, id) SELECT count(*), 4 FROM plants")
	b.Queue("SELECT 1")
	if _, err := batched(t, c, b); sqlState(err) != "23505" {
		t.Error(err)
	}
	if got := one(t, c, "SELECT count(*) FROM alone"); got != "2" {
		t.Error("a batch that failed left rows:", got)
	}
	must(t, c, "DELETE FROM alone; DELETE FROM parts")
	if tag := must1(t, c, "INSERT INTO parts (plant, id) SELECT p.id, 1 FROM plants p JOIN plants q ON p.n = q.n + 100"); tag != "INSERT 0 0" {
		t.Error(tag)
	}
	must(t, c, "BEGIN READ ONLY")
	fails(t, c, "INSERT INTO parts (plant, id) SELECT p.id, 1 FROM plants p JOIN plants q ON p.n = q.n + 100", "25006")
	must(t, c, "ROLLBACK")
}

func insertLimits(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	fails(t, c, "INSERT INTO plants (id, name) SELECT p.id * 100 + q.id + 10000, repeat('x', 1000) FROM plants p, plants q", "54000")
	for range 3 {
		if tag := must1(t, c, "INSERT INTO plants (id, name) SELECT p.id * 100 + q.id + 10000, repeat('x', 300) FROM plants p, plants q"); tag != "INSERT 0 1600" {
			t.Error(tag)
		}
		if got := one(t, c, "SELECT count(*) FROM plants WHERE length(name) = 300"); got != "1600" {
			t.Error(got)
		}
		must(t, c, "DELETE FROM plants WHERE id >= 10000")
	}
	must(t, c, "SET shardproxy.cross_shard = refuse")
	fails(t, c, "INSERT INTO plants (id, name) SELECT max(id) + 1, 'x' FROM plants", "0A000")
	must(t, c, "RESET shardproxy.cross_shard")
	if n := (&source{p: s.p}).Databases()[0].Totals.GatherHeld; n != 0 {
		t.Errorf("%d bytes are held", n)
	}
}

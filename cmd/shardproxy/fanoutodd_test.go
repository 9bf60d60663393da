package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestWritesOverShardsOdd writes rows of several shards where each shard for itself would do
// something else than one server: what is not refused must come to the same.
func TestWritesOverShardsOdd(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, "      added: {key: owner}\n      behind: {key: owner}\n      watched: {key: owner}\n      defaults: {key: owner}\n"+
				"      wide: {key: id}\n      times: {key: id}\nruntime: {driver: "+driver+"}")
			c := s.connectLoaded()
			for _, table := range []string{"added", "behind", "watched"} {
				must(t, c, "CREATE TABLE "+table+" (owner bigint NOT NULL, id bigint, note text, PRIMARY KEY (owner, id))")
			}
			must(t, c, "CREATE TABLE defaults (owner bigint NOT NULL, id bigint, seq bigserial, at timestamptz DEFAULT now(), PRIMARY KEY (owner, id))")
			must(t, c, "CREATE TABLE wide (id bigint PRIMARY KEY, n int, note text, at timestamptz, u uuid)")
			must(t, c, "CREATE TABLE times (id bigint PRIMARY KEY, at timestamptz)")
			for i := range 20 {
				must(t, c, "INSERT INTO customers VALUES ($1, 'x')", i)
				must(t, c, "INSERT INTO wide VALUES ($1, $2, 'old')", i, i)
			}
			for _, test := range []struct {
				name string
				run  func(*testing.T, *shardedProgram, *pgx.Conn)
			}{{"moves of what is not known", oddMoves}, {"computed once", oddValues}, {"times", oddTimes}, {"a temporary table", oddTemporary}, {"batches", oddBatches}} {
				t.Run(test.name, func(t *testing.T) { test.run(t, s, c) })
			}
		})
	}
}

// tried runs a simple query and returns its tag, or "" for an error.
func tried(t *testing.T, c *pgx.Conn, sql string) string {
	t.Helper()
	tag, err := c.Exec(within(t, 20*time.Second), sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return ""
	}
	return tag.String()
}

func oddMoves(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	a, b := s.apart()
	stored := func(table string) string {
		return strings.Join(s.onEach("SELECT coalesce(string_agg("+table+"::text, ';'), '') FROM "+table), ";")
	}
	move := func(table string) string {
		return fmt.Sprintf("UPDATE %s SET owner = %d WHERE owner = %d", table, b, a)
	}
	must(t, c, "INSERT INTO added VALUES ($1, 1, 'x')", a)
	must(t, c, "BEGIN")
	must(t, c, "ALTER TABLE added ADD COLUMN extra text")
	must(t, c, fmt.Sprintf("UPDATE added SET extra = 'precious' WHERE owner = %d", a))
	if said := tried(t, c, move("added")); said != "" && !strings.Contains(one(t, c, fmt.Sprintf("SELECT added::text FROM added WHERE owner = %d", b)), "precious") {
		t.Error("a column that the transaction added:", said)
	}
	must(t, c, "ROLLBACK")

	must(t, c, "INSERT INTO behind VALUES ($1, 1, 'x')", a)
	s.onEach("ALTER TABLE behind ADD COLUMN extra text DEFAULT 'precious'")
	if said := tried(t, c, move("behind")); !strings.Contains(stored("behind"), "precious") {
		t.Error("a column that was added past the proxy:", said, stored("behind"))
	}

	must(t, c, "INSERT INTO watched VALUES ($1, 1, 'kept')", a)
	s.onEach("CREATE FUNCTION leaves_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
	s.onEach("CREATE TRIGGER leaves_out BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION leaves_out()")
	if said := tried(t, c, move("watched")); !strings.Contains(stored("watched"), "kept") {
		t.Error("a trigger that was made past the proxy:", said, stored("watched"))
	}

	for i := range 20 {
		must(t, c, "INSERT INTO defaults VALUES ($1, $1, 0, NULL)", i)
	}
	if said := tried(t, c, fmt.Sprintf("UPDATE defaults SET owner = %d, seq = DEFAULT, at = DEFAULT", b)); said != "" {
		if got := one(t, c, "SELECT (count(DISTINCT seq) = count(*))::text || ' ' || count(DISTINCT at) FROM defaults WHERE owner = $1", b); got != "true 1" {
			t.Error("defaults of rows that move:", said, got)
		}
	}
}

// oneValue fails the test if the shards have different values of a column of wide.
func (s *shardedProgram) oneValue(t *testing.T, sql, column, table string) {
	t.Helper()
	if got := s.onEach("SELECT coalesce(string_agg(DISTINCT " + column + "::text, ','), '') FROM " + table); got[0] != got[1] {
		t.Errorf("%s: %s", sql, got)
	}
}

func oddValues(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	for _, sql := range []string{
		"UPDATE wide SET u = (SELECT gen_random_uuid())",
		"WITH x AS (SELECT gen_random_uuid() AS v) UPDATE wide SET u = x.v FROM x",
		"UPDATE wide SET u = x.v FROM (SELECT gen_random_uuid() AS v) x",
	} {
		if tried(t, c, sql) != "" {
			s.oneValue(t, sql, "u", "wide")
		}
	}
	if sql := "UPDATE wide SET n = current_setting('port')::int"; tried(t, c, sql) != "" {
		s.oneValue(t, sql, "n", "wide")
	}
	// The rows of a reference table lie in another order on one shard.
	s.direct(1, "UPDATE products SET name = name WHERE id = 1")
	for _, sql := range []string{
		"UPDATE wide SET note = (SELECT name FROM products LIMIT 1)",
		"UPDATE wide SET note = (SELECT string_agg(name, ',') FROM products)",
		"UPDATE wide SET note = x.name FROM (SELECT DISTINCT ON (id > 0) name FROM products) x",
		"UPDATE wide SET note = x.name FROM (SELECT name, row_number() OVER () AS n FROM products) x WHERE x.n = 1",
	} {
		if tried(t, c, sql) != "" {
			s.oneValue(t, sql, "note", "wide")
		}
	}
	if sql := "UPDATE products SET name = (SELECT p.name FROM products p LIMIT 1) WHERE id = 9"; tried(t, c, sql) != "" {
		s.oneValue(t, sql, "name", "products WHERE id = 9")
	}
}

func oddTimes(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	for _, sql := range []string{
		"UPDATE wide SET at = $$now$$", "UPDATE wide SET at = E'now'", "UPDATE wide SET at = ('{now}'::timestamptz[])[1]", "UPDATE wide SET at = lower('[now,]'::tstzrange)",
	} {
		if tried(t, c, sql) != "" {
			s.oneValue(t, sql, "at", "wide")
		}
	}
	sql := "UPDATE products SET name = $$now$$::timestamptz::text WHERE id = 9"
	tried(t, c, sql)
	s.oneValue(t, sql, "name", "products WHERE id = 9")
	for _, v := range []string{"'now'", "statement_timestamp()", "now()"} {
		must(t, c, "DELETE FROM times")
		sql := "INSERT INTO times VALUES (1," + v + "),(2," + v + "),(3," + v + "),(4," + v + "),(5," + v + "),(6," + v + ")"
		if tried(t, c, sql) != "" {
			s.oneValue(t, sql, "at", "times")
		}
	}
}

// oddTemporary hides a sharded table on one shard.
func oddTemporary(t *testing.T, s *shardedProgram, _ *pgx.Conn) {
	c := s.connect()
	must(t, c, "SELECT 1 AS id, 2 AS n INTO TEMP wide")
	said := tried(t, c, "UPDATE wide SET n = 4711")
	for i, got := range s.onEach("SELECT count(*)::text FROM public.wide WHERE n = 4711") {
		if got != "0" {
			t.Errorf("%s rows of the real table were written on shard %d: %s", got, i, said)
		}
	}
}

// oddBatches write the same rows at the same time.
func oddBatches(t *testing.T, s *shardedProgram, _ *pgx.Conn) {
	var wait sync.WaitGroup
	for w := range 3 {
		c := s.connect()
		must(t, c, "SET lock_timeout = '5s'")
		wait.Go(func() {
			for range 30 {
				b := &pgx.Batch{}
				b.Queue("UPDATE wide SET n = $1", w)
				b.Queue("UPDATE wide SET note = $1", "b")
				said, err := batched(t, c, b)
				if err != nil && !strings.Contains(err.Error(), "40P01") { // which one server may say too
					t.Error(said, err)
					return
				}
			}
		})
	}
	wait.Wait()
}

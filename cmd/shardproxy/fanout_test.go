package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// TestFanOut writes rows of all shards in one statement.
func TestFanOut(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, "      wide: {key: id}\nruntime: {driver: "+driver+"}")
			c := s.connectLoaded()
			must(t, c, "CREATE TABLE wide (id bigint PRIMARY KEY, n int CHECK (n < 100), note text)")
			for i := range 20 {
				must(t, c, "INSERT INTO wide VALUES ($1, $2, 'old')", i, i)
			}
			for _, test := range []struct {
				name string
				run  func(*testing.T, *shardedProgram, *pgx.Conn)
			}{{"rows", fanOutRows}, {"all or none", fanOutAllOrNone}, {"in a transaction", fanOutInTransaction}, {"in a batch", fanOutInBatch}, {"a lost server", fanOutLost}, {"routes", fanOutRoutes}} {
				t.Run(test.name, func(t *testing.T) { test.run(t, s, c) })
			}
		})
	}
}

// noted says of each shard whether rows there have a note.
func (s *shardedProgram) noted(note string) string {
	return strings.Join(s.onEach("SELECT (count(*) > 0)::text FROM wide WHERE note = '"+note+"'"), " ")
}

func fanOutRows(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
		rows, err := c.Query(within(t, 20*time.Second), "UPDATE wide SET note = 'rows' WHERE n >= $1 RETURNING id", mode, 5)
		if err != nil {
			t.Fatal(err)
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		slices.Sort(ids)
		if err != nil || len(ids) != 15 || ids[0] != 5 || ids[14] != 19 || rows.CommandTag().String() != "UPDATE 15" {
			t.Errorf("%v: %v %v %v", mode, ids, rows.CommandTag(), err)
		}
	}
	if got := s.noted("rows"); got != "true true" {
		t.Error("a note on both shards:", got)
	}
	tag, err := c.Exec(within(t, 20*time.Second), "UPDATE wide SET note = 'some' WHERE id = ANY($1)", []int64{1, 2, 3, 400})
	if err != nil || tag.String() != "UPDATE 3" {
		t.Error("of a list of keys:", tag, err)
	}
	tag, err = c.Exec(within(t, 20*time.Second), "DELETE FROM wide WHERE n > 100")
	if err != nil || tag.String() != "DELETE 0" {
		t.Error("of no row:", tag, err)
	}
}

func fanOutAllOrNone(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	for id := range 20 {
		// Each time another row, on another shard, fails.
		fails(t, c, fmt.Sprintf("UPDATE wide SET n = CASE WHEN id = %d THEN 100 ELSE n END, note = 'partly'", id), "23514")
	}
	if got := s.noted("partly"); got != "false false" {
		t.Error("of statements that failed there is a note:", got)
	}
	fails(t, c, "UPDATE wide SET n = 100 / (id - 7)", "22012")
	must(t, c, "SELECT 1")
	for i, got := range s.onEach("SELECT count(*)::text FROM pg_prepared_xacts") {
		if got != "0" {
			t.Errorf("%s transactions are left prepared on shard %d", got, i)
		}
	}
}

func fanOutInTransaction(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	must(t, c, "BEGIN")
	must(t, c, "UPDATE wide SET note = 'mine' WHERE id = 3")
	must(t, c, "SAVEPOINT a")
	must(t, c, "UPDATE wide SET note = 'all'")
	if got := one(t, c, "SELECT note FROM wide WHERE id = 4"); got != "all" {
		t.Error("within the transaction:", got)
	}
	must(t, c, "ROLLBACK TO a")
	if got := one(t, c, "SELECT note FROM wide WHERE id = 3"); got != "mine" {
		t.Error("behind the savepoint:", got)
	}
	fails(t, c, "UPDATE wide SET n = 100", "23514")
	fails(t, c, "SELECT 1", "25P02")
	must(t, c, "ROLLBACK")
	if got := s.noted("mine") + s.noted("all"); strings.Contains(got, "true") {
		t.Error("of a transaction that was rolled back there is a note:", got)
	}
	must(t, c, "BEGIN")
	must(t, c, "UPDATE wide SET note = 'kept'")
	must(t, c, "COMMIT")
	if got := s.noted("kept"); got != "true true" {
		t.Error("of a transaction that was committed there is a note:", got)
	}
	fails(t, c, "BEGIN READ ONLY; UPDATE wide SET note = 'x'", "25006")
	must(t, c, "ROLLBACK")
	must(t, c, "BEGIN READ ONLY")
	fails(t, c, "UPDATE wide SET note = 'x'", "25006")
	must(t, c, "ROLLBACK")
}

func fanOutInBatch(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	b := &pgx.Batch{}
	b.Queue("UPDATE wide SET note = 'b1' WHERE n < $1", 10)
	b.Queue("SELECT note FROM wide WHERE id = 3")
	b.Queue("DELETE FROM wide WHERE id IN (0, 1) RETURNING note")
	b.Queue("INSERT INTO wide VALUES (0, 0, 'back'), (1, 1, 'back')")
	said, err := batched(t, c, b)
	if want := "UPDATE 10|b1SELECT 1|b1,b1DELETE 2|INSERT 0 2"; err != nil || strings.Join(said, "|") != want {
		t.Errorf("got %q %v, want %q", said, err, want)
	}
	b = &pgx.Batch{}
	b.Queue("UPDATE wide SET note = 'b2'")
	b.Queue("UPDATE wide SET n = 100")
	if said, err = batched(t, c, b); err == nil || strings.Contains(s.noted("b2"), "true") {
		t.Error("a batch that fails:", said, err, s.noted("b2"))
	}
}

func fanOutLost(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	for victim := range 2 {
		direct := pgtest.Connect(t, s.shards[victim].Primary().DSN("app", "postgres"))
		other := pgtest.Connect(t, s.shards[victim].Primary().DSN("app", "postgres"))
		tx, err := direct.Begin(within(t, 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(within(t, 10*time.Second), "SELECT FROM wide FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
		failed := make(chan error, 1)
		lost := s.connect()
		go func() {
			_, err := lost.Exec(within(t, 30*time.Second), "UPDATE wide SET note = 'lost'")
			failed <- err
		}()
		eventually(t, "it waits", func() bool {
			n := 0
			err := other.QueryRow(within(t, 10*time.Second), "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE wide%'").Scan(&n)
			return err == nil && n > 0
		})
		if err := <-failed; err == nil {
			t.Error("the statement is told as done, and its server is gone")
		}
		if err := tx.Rollback(within(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "nothing is prepared", func() bool {
			return !slices.ContainsFunc(s.onEach("SELECT count(*)::text FROM pg_prepared_xacts"), func(n string) bool { return n != "0" })
		})
		if got := s.noted("lost"); got != "false false" {
			t.Error("of a statement that was lost there is a note:", got)
		}
	}
}

func fanOutRoutes(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	for sql, want := range map[string]string{
		"EXPLAIN (ROUTE) UPDATE wide SET note = 'x'":                         "Route: its rows on each of: s0, s1",
		"EXPLAIN (ROUTE) DELETE FROM wide WHERE id IN (1, 2, 3, 4, 5, 6, 7)": "Route: its rows on each of: s1, s0",
		"EXPLAIN (ROUTE) DELETE FROM wide WHERE id = ANY($1)":                "Route: its rows on the shards of any of $1",
		"EXPLAIN (ROUTE) DELETE FROM wide WHERE id IN (1, 1)":                "Route: shard s1",
		"EXPLAIN (ROUTE) UPDATE wide SET note = statement_timestamp()::text": "Route: refused (0A000, function)",
	} {
		results, err := c.PgConn().Exec(within(t, 10*time.Second), sql).ReadAll()
		if err != nil || string(results[0].Rows[0][0]) != want {
			t.Errorf("%s: %q %v, want %q", sql, results[0].Rows, err, want)
		}
	}
	must(t, c, "EXPLAIN UPDATE wide SET note = 'explained'")
	fails(t, c, "EXPLAIN ANALYZE UPDATE wide SET note = 'explained'", "0A000")
	if got := s.noted("explained"); got != "false false" {
		t.Error("EXPLAIN has written:", got)
	}
	fails(t, c, "PREPARE p AS UPDATE wide SET note = 'x'", "0A000")
}

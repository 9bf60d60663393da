package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
)

// TestMoves changes the keys of rows, which then belong to other shards.
func TestMoves(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, "      moved: {key: owner}\n      watched: {key: id}\nruntime: {driver: "+driver+"}")
			c := s.connectLoaded()
			must(t, c, "CREATE TABLE moved (owner bigint NOT NULL, id bigint GENERATED ALWAYS AS IDENTITY, b bytea, j jsonb, a text[], at timestamptz, "+
				"f float8, n numeric, note text, twice bigint GENERATED ALWAYS AS (owner * 2) STORED, PRIMARY KEY (owner, id))")
			must(t, c, "CREATE TABLE watched (id bigint PRIMARY KEY, n int)")
			for i := range 10 {
				must(t, c, "INSERT INTO customers VALUES ($1, 'x')", i)
			}
			for _, test := range []struct {
				name string
				run  func(*testing.T, *shardedProgram, *pgx.Conn)
			}{{"rows", movesRows}, {"many", movesMany}, {"fails", moveFails}, {"in a transaction", movesInTransaction}, {"a lost server", moveLost}, {"watched", movesWatched}} {
				t.Run(test.name, func(t *testing.T) { test.run(t, s, c) })
			}
		})
	}
}

const movedRow = "SELECT owner::text || ' ' || b::text || ' ' || j::text || ' ' || a::text || ' ' || at::text || ' ' || f::text || ' ' || n::text || ' ' || note || ' ' || twice::text FROM moved WHERE owner = $1"

// apart returns two keys whose rows are on different shards.
func (s *shardedProgram) apart() (a, b int) {
	for b = 1; s.shardOf(b) == s.shardOf(0); b++ {
	}
	return 0, b
}

func movesRows(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	a, b := s.apart()
	must(t, c, `INSERT INTO moved (owner, b, j, a, at, f, n, note) VALUES ($1, '\xdeadbeef00', '{"a": [1, null]}', '{x,NULL,"y z"}', '2024-02-29 12:34:56.789012+00', 0.1, 'NaN', E'a\tb\\c''d')`, a)
	before := strings.TrimPrefix(one(t, c, movedRow, a), fmt.Sprint(a))
	from := a
	for i, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec} {
		to := a + b - from
		var owner int
		if err := c.QueryRow(within(t, 10*time.Second), "UPDATE moved SET owner = $1, f = f + 0 WHERE owner = $2 RETURNING owner", mode, to, from).Scan(&owner); err != nil || owner != to {
			t.Fatal(owner, err)
		}
		if n := one(t, c, "SELECT count(*)::text FROM moved WHERE owner = $1", from); n != "0" {
			t.Errorf("%d: %s rows are left", i, n)
		}
		got := strings.TrimPrefix(one(t, c, movedRow, to), fmt.Sprint(to))
		if cut(got) != cut(before) || !strings.HasSuffix(got, fmt.Sprint(" ", 2*to)) {
			t.Errorf("%d: moved %q, it was %q", i, got, before)
		}
		from = to
	}
	if got := strings.Join(s.onEach("SELECT count(*)::text FROM moved"), " "); got != "1 0" && got != "0 1" {
		t.Error("rows on the shards:", got)
	}
	if got := one(t, c, "EXPLAIN (ROUTE) UPDATE moved SET owner = 1 WHERE note = 'x'"); got != "Route: its rows on each of: s0, s1" {
		t.Error(got)
	}
	must(t, c, "DELETE FROM moved")
}

// cut leaves out the last word, which is computed from the key.
func cut(row string) string { return row[:strings.LastIndexByte(row, ' ')] }

func movesMany(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	a, b := s.apart()
	must(t, c, "INSERT INTO moved (owner, id, note) OVERRIDING SYSTEM VALUE SELECT $1::bigint, i, repeat('x', 1000) || i FROM generate_series(1, 3000) i", a)
	tag, err := c.Exec(within(t, 30*time.Second), "UPDATE moved SET owner = $1 WHERE length(note) > 10", b)
	if err != nil || tag.String() != "UPDATE 3000" {
		t.Fatal(tag, err)
	}
	if got := one(t, c, "SELECT count(DISTINCT note)::text FROM moved WHERE owner = $1", b); got != "3000" {
		t.Error("moved:", got)
	}
	must(t, c, "INSERT INTO moved (owner, id, note) OVERRIDING SYSTEM VALUE SELECT $1::bigint, i, repeat('x', 20000) || i FROM generate_series(1, 1000) i", a)
	fails(t, c, fmt.Sprintf("UPDATE moved SET owner = %d WHERE owner = %d", b, a), "54000")
	if got := one(t, c, "SELECT count(*)::text FROM moved WHERE owner = $1", a); got != "1000" {
		t.Error("of what is too much there are", got)
	}
	must(t, c, "DELETE FROM moved")
}

func moveFails(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	a, b := s.apart()
	for _, keys := range [][2]int{{a, b}, {b, a}} {
		must(t, c, "INSERT INTO moved (owner, id, note) OVERRIDING SYSTEM VALUE VALUES ($1, 1, 'stays'), ($2, 1, 'there')", keys[0], keys[1])
		_, err := c.Exec(within(t, 10*time.Second), "UPDATE moved SET owner = $1 WHERE owner = $2", keys[1], keys[0])
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "23505" || pe.ConstraintName != "moved_pkey" {
			t.Error("to where one is:", err)
		}
		must(t, c, "BEGIN")
		must(t, c, "SELECT note FROM moved WHERE owner = $1", keys[1])
		fails(t, c, fmt.Sprintf("UPDATE moved SET owner = %d WHERE owner = %d", keys[1], keys[0]), "23505")
		fails(t, c, fmt.Sprintf("SELECT note FROM moved WHERE owner = %d", keys[1]), "25P02")
		fails(t, c, fmt.Sprintf("SELECT note FROM moved WHERE owner = %d", keys[0]), "25P02")
		must(t, c, "COMMIT")
		if got := one(t, c, "SELECT note FROM moved WHERE owner = $1", keys[0]); got != "stays" {
			t.Error(got)
		}
		must(t, c, "DELETE FROM moved")
	}
}

func movesInTransaction(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	a, b := s.apart()
	must(t, c, "INSERT INTO moved (owner, note) VALUES ($1, 'tx')", a)
	must(t, c, "BEGIN")
	must(t, c, "SAVEPOINT x")
	must(t, c, "UPDATE moved SET owner = $1 WHERE note = 'tx'", b)
	if got := one(t, c, "SELECT note FROM moved WHERE owner = $1", b); got != "tx" {
		t.Error(got)
	}
	must(t, c, "ROLLBACK TO x")
	if got := one(t, c, "SELECT note FROM moved WHERE owner = $1", a); got != "tx" {
		t.Error(got)
	}
	must(t, c, "UPDATE moved SET owner = $1 WHERE owner = $2", b, a)
	must(t, c, "UPDATE moved SET owner = $1 WHERE owner = $2", a, b)
	must(t, c, "UPDATE moved SET owner = $1 WHERE owner = $2", b, a)
	must(t, c, "COMMIT")
	if got := one(t, c, "SELECT note FROM moved WHERE owner = $1", b); got != "tx" {
		t.Error(got)
	}
	must(t, c, "DELETE FROM moved")
	for i, got := range s.onEach("SELECT count(*)::text FROM pg_prepared_xacts") {
		if got != "0" {
			t.Errorf("%s transactions are left prepared on shard %d", got, i)
		}
	}
}

// moveLost loses the server that is to get the row.
func moveLost(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	a, b := s.apart()
	must(t, c, "INSERT INTO moved (owner, id, note) OVERRIDING SYSTEM VALUE VALUES ($1, 7, 'kept')", a)
	at := 0
	if s.shardOf(b) == "s1" {
		at = 1
	}
	direct := pgtest.Connect(t, s.shards[at].Primary().DSN("app", "postgres"))
	tx, err := direct.Begin(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(within(t, 10*time.Second), "INSERT INTO moved (owner, id) OVERRIDING SYSTEM VALUE VALUES ($1, 7)", b); err != nil {
		t.Fatal(err)
	}
	lost, failed := s.connect(), make(chan error, 1)
	go func() {
		_, err := lost.Exec(within(t, 30*time.Second), fmt.Sprintf("UPDATE moved SET owner = %d WHERE owner = %d", b, a))
		failed <- err
	}()
	other := pgtest.Connect(t, s.shards[at].Primary().DSN("app", "postgres"))
	eventually(t, "it waits", func() bool {
		n := 0
		err := other.QueryRow(within(t, 10*time.Second), "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO \"public\".\"moved\"%'").Scan(&n)
		return err == nil && n > 0
	})
	if err := <-failed; err == nil {
		t.Error("the row is told as moved, and the server is gone")
	}
	if err := tx.Rollback(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the row is where it was", func() bool {
		return one(t, c, "SELECT count(*)::text FROM moved WHERE owner = $1 AND note = 'kept'", a) == "1"
	})
	must(t, c, "DELETE FROM moved")
}

// movesWatched refuses where a DELETE and an INSERT are not what an UPDATE is.
func movesWatched(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	a, b := s.apart()
	must(t, c, "CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN NEW; END $$")
	must(t, c, "CREATE TRIGGER watch BEFORE DELETE ON watched FOR EACH ROW EXECUTE FUNCTION watch()")
	eventually(t, "the trigger is known", func() bool {
		_, err := c.Exec(within(t, 10*time.Second), fmt.Sprintf("UPDATE watched SET id = %d WHERE id = %d", b, a))
		var pe *pgconn.PgError
		return errors.As(err, &pe) && pe.Code == "0A000"
	})
	fails(t, c, "UPDATE customers SET id = 1 WHERE id = 2", "0A000")
}

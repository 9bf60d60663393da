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

// TestEndsFromOutside: a transaction that has written on all shards and is ended by somebody else than its client is
// rolled back on all of them, and its rows are free.
func TestEndsFromOutside(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			endsFromOutside(t, startShards(t, 3, "runtime: {driver: "+driver+"}"))
		})
	}
}

func endsFromOutside(t *testing.T, s *shardedProgram) {
	c := s.connectLoaded()
	for i := range 12 {
		must(t, c, "INSERT INTO customers VALUES ($1, 'old')", i)
	}
	text, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	console, _ := s.consoleOf()
	idle := func(timeout string) {
		s.write(strings.Replace(string(text), "- {name: app, ", "- {name: app, timeouts: {idle_in_transaction: "+timeout+"}, ", 1))
		must(t, console, "RELOAD")
	}
	backends := func(shard int, what string) {
		t.Helper()
		s.shards[shard].Primary().Exec("app", "SELECT "+what+"(pid) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle in transaction'")
	}
	const tooLong = "it is idle for too long"
	ends := []struct {
		name string
		end  func(c *pgx.Conn)
		told string // to the client's next statement; "" when there is none
	}{
		{"the client is gone", func(c *pgx.Conn) { _ = c.PgConn().Conn().Close() }, ""},
		{tooLong, func(*pgx.Conn) {
			eventually(t, "ended", func() bool { return s.openParts() == 0 })
		}, "25P03"},
		{"its connection to a parked shard is ended", func(*pgx.Conn) {
			backends(1, "pg_terminate_backend")
			eventually(t, "ended", func() bool { return s.openParts() == 2 })
		}, "57P01"}, // as its server says it
		{"an operator kills the session", func(*pgx.Conn) {
			must(t, console, "KILL app")
			eventually(t, "ended", func() bool { return s.openParts() == 0 })
			must(t, console, "RESUME app")
		}, "57P01"},
	}
	for _, e := range ends {
		t.Run(e.name, func(t *testing.T) {
			idle("1h")
			if e.name == tooLong {
				idle("1s")
			}
			c := s.connect() // who has logged in before keeps the old one
			must(t, c, "BEGIN")
			for i := range 12 {
				must(t, c, "UPDATE customers SET name = 'new' WHERE id = $1", i)
			}
			if n := s.openParts(); n != 3 {
				t.Fatalf("%d parts", n)
			}
			e.end(c)
			if e.told != "" {
				_, err := c.Exec(within(t, 10*time.Second), "COMMIT")
				if got := sqlState(err); got != e.told {
					t.Errorf("the client is told %q: %v, not %q", got, err, e.told)
				}
			}
			eventually(t, "rolled back on all shards", func() bool { return s.openParts() == 0 })
			_ = c.Close(context.Background())
			c = s.connect()
			if got := one(t, c, "SELECT count(*)::text FROM customers WHERE name = 'old'"); got != "12" {
				t.Errorf("%s rows are as they were", got)
			}
			must(t, c, "UPDATE customers SET name = 'old'")
		})
	}
}

// openParts counts the transactions that the clients have open, or prepared, on all shards.
func (s *shardedProgram) openParts() (n int) {
	for _, cl := range s.shards {
		rows := pgtest.Lines(cl.Primary().Rows("app", `SELECT pid::text FROM pg_stat_activity WHERE usename = 'app' AND state LIKE 'idle in transaction%'
			UNION ALL SELECT gid FROM pg_prepared_xacts`))
		n += len(rows)
	}
	return n
}

// TestReadOnlyOfAll: a transaction that may not write may not on any shard, whichever way that was said.
func TestReadOnlyOfAll(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	c := s.connectLoaded()
	for i := range 8 {
		must(t, c, "INSERT INTO customers VALUES ($1, 'old')", i)
	}
	for _, begin := range []string{
		"BEGIN READ ONLY", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY DEFERRABLE", "BEGIN; SET TRANSACTION READ ONLY",
		"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY; BEGIN", "START TRANSACTION READ ONLY, DEFERRABLE",
	} {
		c := s.connect()
		for first := range 8 {
			for _, sql := range strings.Split(begin, "; ") {
				must(t, c, sql)
			}
			if got := one(t, c, fmt.Sprintf("SELECT name FROM customers WHERE id = %d", first)); got != "old" {
				t.Fatal(got)
			}
			other := (first + 1) % 8
			must(t, c, "SAVEPOINT here")
			fails(t, c, fmt.Sprintf("UPDATE customers SET name = 'new' WHERE id = %d", other), "25006")
			fails(t, c, "SELECT 1", "25P02")
			must(t, c, "ROLLBACK TO here")
			fails(t, c, "UPDATE customers SET name = 'new'", "25006")
			must(t, c, "ROLLBACK")
		}
	} // In the words of a setting it is for the shard only that the transaction is on, where it stays.
	must(t, c, "BEGIN")
	must(t, c, "SET LOCAL transaction_read_only = on")
	apart := 0
	for i := range 8 {
		if s.shardOf(i) != s.shardOf(0) {
			apart = i
		}
	}
	must(t, c, "SELECT name FROM customers WHERE id = 0")
	fails(t, c, fmt.Sprintf("UPDATE customers SET name = 'new' WHERE id = %d", apart), "0A000")
	must(t, c, "ROLLBACK")
}

// TestBlocksOfAll: blocks of PL/pgSQL that catch errors, on every shard of a transaction with savepoints, undo what they did
// and nothing else. A trigger that writes to a table with a key is refused where it is seen.
func TestBlocksOfAll(t *testing.T) {
	t.Parallel()
	s := startShardsBlind(t, 3)
	c := s.connectLoaded()
	for i := range 12 {
		must(t, c, "INSERT INTO customers VALUES ($1, 'old')", i)
	}
	for _, cl := range s.shards {
		cl.Primary().Exec("app", `CREATE FUNCTION guarded() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			BEGIN
				INSERT INTO orders VALUES (1, NEW.id, 'undone');
				PERFORM 1 / 0;
			EXCEPTION WHEN division_by_zero THEN NEW.name := NEW.name || '!';
			END;
			IF NEW.name = 'raise!' THEN RAISE 'not this one'; END IF;
			RETURN NEW;
		END $$; CREATE TRIGGER guarded BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION guarded()`)
	}
	update := func(name string, from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			must(t, c, fmt.Sprintf("UPDATE customers SET name = '%s' WHERE id = %d", name, i))
		}
	}
	count := func(name string) string {
		t.Helper()
		return one(t, c, fmt.Sprintf("SELECT count(*)::text FROM customers WHERE name = '%s'", name))
	}
	must(t, c, "BEGIN")
	update("a", 0, 2)
	must(t, c, "SAVEPOINT one")
	update("b", 0, 12) // comes to shards behind the savepoint
	must(t, c, "SAVEPOINT two")
	fails(t, c, "UPDATE customers SET name = 'raise' WHERE id = 7", "P0001")
	fails(t, c, "SELECT 1", "25P02")
	must(t, c, "ROLLBACK TO two")
	if got := count("b!"); got != "12" {
		t.Errorf("behind ROLLBACK TO two: %s", got)
	}
	must(t, c, "ROLLBACK TO one")
	if a, old := count("a!"), count("old"); a != "2" || old != "10" {
		t.Errorf("behind ROLLBACK TO one: %s and %s", a, old)
	}
	update("c", 6, 12)
	must(t, c, "RELEASE one")
	must(t, c, "COMMIT")
	if a, old, changed := count("a!"), count("old"), count("c!"); a != "2" || old != "4" || changed != "6" {
		t.Errorf("behind COMMIT: %s, %s and %s", a, old, changed)
	}
	if got := one(t, c, "SELECT count(*)::text FROM orders"); got != "0" {
		t.Errorf("%s rows of blocks that failed are there", got)
	}
}

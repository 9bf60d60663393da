package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// slowInserts is a table whose rows take 0.3 s each, the keys of which lie on either of two shards, and who may look at the shards.
type slowInserts struct {
	*shardedProgram
	keys [2][]int64
	look [2]*pgx.Conn
}

func startSlowInserts(t *testing.T, more ...string) (*slowInserts, *pgx.Conn) {
	s := &slowInserts{shardedProgram: startShards(t, 2, append([]string{"      slow: {key: k}"}, more...)...)}
	c := s.connectLoaded()
	must(t, c, "CREATE TABLE slow (k bigint PRIMARY KEY CHECK (pg_sleep(0.3) IS NOT NULL))")
	for k := range 40 {
		must(t, c, "INSERT INTO customers VALUES ($1, 'x')", k)
	}
	for i, cl := range s.shards {
		s.look[i] = pgtest.Connect(t, cl.Primary().DSN("app", "postgres"))
		s.keys[i] = ints(t, s.look[i], "SELECT id FROM customers ORDER BY id")
	}
	return s, c
}

// insert inserts five rows on the first shard, and one on the second.
func (s *slowInserts) insert() string {
	var rows []string
	for _, k := range s.keys[0][:5] {
		rows = append(rows, fmt.Sprintf("(%d)", k))
	}
	return fmt.Sprintf("INSERT INTO slow VALUES %s, (%d)", strings.Join(rows, ", "), s.keys[1][0])
}

// backends are the processes that serve the program's clients on a shard.
func (s *slowInserts) backends(t *testing.T, shard int) (pids []int64) {
	t.Helper()
	return ints(t, s.look[shard], "SELECT pid::bigint FROM pg_stat_activity WHERE usename = 'app' ORDER BY 1")
}

// TestInsertAtOnceCancelled cancels an INSERT of which the part on one shard runs, while that on the other is done, would have
// waited, or has failed: it is cancelled, and is not begun again; its connections serve on.
func TestInsertAtOnceCancelled(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		s, c := startSlowInserts(t, "    pool: {size: 1}", runtime)
		for name, other := range map[string]struct{ before, after, state string }{
			"done":         {"", "", "idle in transaction"},
			"would wait":   {"BEGIN; INSERT INTO slow VALUES (%d)", "ROLLBACK", "idle in transaction (aborted)"},
			"has a double": {"INSERT INTO slow VALUES (%d)", "DELETE FROM slow", "idle in transaction (aborted)"},
		} {
			must(t, c, "SELECT * FROM slow")
			served := [2][]int64{s.backends(t, 0), s.backends(t, 1)}
			if other.before != "" {
				must(t, s.look[1], fmt.Sprintf(strings.ReplaceAll(other.before, "(%d)", "(%[1]d)"), s.keys[1][0]), pgx.QueryExecModeSimpleProtocol)
			}
			done := later(c, s.insert())
			s.waitsFor(1, "state = '"+other.state+"'", "INSERT")
			s.waitsFor(0, "wait_event = 'PgSleep'", "INSERT")
			began := time.Now()
			if err := c.PgConn().CancelRequest(within(t, 10*time.Second)); err != nil {
				t.Fatal(err)
			}
			err := <-done
			if took := time.Since(began); sqlState(err) != "57014" || took > time.Second || c.PgConn().TxStatus() != 'I' {
				t.Errorf("the other %s: %v after %v, status %c", name, err, took, c.PgConn().TxStatus())
			}
			if other.after != "" {
				must(t, s.look[1], other.after)
			}
			soon(t, time.Second, "no connection is kept: the other "+name, func() bool { return s.lent() == 0 })
			for i := range s.shards {
				if got := one(t, s.look[i], "SELECT count(*) FROM slow"); got != "0" {
					t.Errorf("the other %s: %s rows on shard %d", name, got, i)
				}
				must(t, c, "SELECT pg_sleep(0.1), * FROM customers WHERE id = $1", s.keys[i][0])
				if now := s.backends(t, i); !slices.Equal(now, served[i]) {
					t.Errorf("the other %s: shard %d is served by %v, it was by %v", name, i, now, served[i])
				}
			}
		}
		must(t, c, s.insert())
	})
}

// TestInsertAtOnceCommitWaits has the commit of an INSERT whose parts ran at once wait, for longer than a part may.
func TestInsertAtOnceCommitWaits(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		s, c := startSlowInserts(t, runtime)
		for i, mode := range []string{"EXCLUSIVE", "ACCESS EXCLUSIVE"} {
			must(t, s.look[0], "BEGIN")
			must(t, s.look[0], "LOCK TABLE shardproxy.commits IN "+mode+" MODE")
			done := later(c, fmt.Sprintf("INSERT INTO orders VALUES (%[1]d, %[2]d, 'x'), (%[1]d, %[3]d, 'y') RETURNING note", i, s.keys[0][0], s.keys[1][0]))
			runsOn(t, done)
			must(t, s.look[0], "COMMIT")
			if err := <-done; err != nil || c.PgConn().TxStatus() != 'I' {
				t.Errorf("%s: %v, status %c", mode, err, c.PgConn().TxStatus())
			}
		}
		if got := one(t, c, "SELECT string_agg(id || note, ' ' ORDER BY id, note) FROM orders"); got != "0x 0y 1x 1y" {
			t.Error(got)
		}
		must(t, c, "SET lock_timeout = '200ms'")
		must(t, s.look[0], "BEGIN")
		must(t, s.look[0], "LOCK TABLE shardproxy.commits IN EXCLUSIVE MODE")
		fails(t, c, fmt.Sprintf("INSERT INTO orders VALUES (7, %d, 'x'), (7, %d, 'y')", s.keys[0][0], s.keys[1][0]), "55P03")
		must(t, s.look[0], "COMMIT")
		soon(t, time.Second, "no connection is kept", func() bool { return s.lent() == 0 })
		if got := one(t, c, "SELECT count(*) FROM orders"); got != "4" {
			t.Error(got, "rows")
		}
		if n := s.prepared(); n != 0 {
			t.Errorf("%d parts are left prepared", n)
		}
	})
}

// TestInsertNotBegunAgain has an INSERT that would wait on one shard, and whose connection to the other is somebody else's when
// it is to begin once more.
func TestInsertNotBegunAgain(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		s, c := startSlowInserts(t, "    pool: {size: 1, wait_timeout: 2s}", runtime)
		must(t, s.look[1], "BEGIN")
		must(t, s.look[1], "INSERT INTO slow VALUES ($1)", s.keys[1][0])
		done := later(c, s.insert())
		s.waitsFor(0, "wait_event = 'PgSleep'", "INSERT")
		held := later(s.connect(), fmt.Sprintf("SELECT pg_sleep(5), count(*) FROM customers WHERE id = %d", s.keys[0][0]))
		if err := <-done; sqlState(err) != "53300" || c.IsClosed() || c.PgConn().TxStatus() != 'I' {
			t.Errorf("%v, status %c", err, c.PgConn().TxStatus())
		}
		must(t, s.look[1], "ROLLBACK")
		if err := <-held; err != nil {
			t.Error(err)
		}
		for i := range s.shards {
			if got := one(t, s.look[i], "SELECT count(*) FROM slow"); got != "0" {
				t.Errorf("%s rows on shard %d", got, i)
			}
		}
		soon(t, time.Second, "no connection is kept", func() bool { return s.lent() == 0 })
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if tag, err := c.Exec(ctx, s.insert()); err != nil || tag.RowsAffected() != 6 {
			t.Error(tag, err)
		}
	})
}

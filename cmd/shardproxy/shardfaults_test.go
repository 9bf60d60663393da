package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
)

// spreadOut begins a transaction that has written on every shard.
func spreadOut(t *testing.T, c *pgx.Conn) {
	t.Helper()
	must(t, c, "BEGIN")
	for i := range 10 {
		must(t, c, "UPDATE orders SET note = 'unsure' WHERE customer_id = $1", i)
	}
}

// lent counts the server connections that sessions hold.
func (s *shardedProgram) lent() (n int) {
	for _, sh := range s.p.state.Load().databases["app"].shards {
		n += sh.pools.Lent()
	}
	return n
}

// TestShardFaults ends transactions over several shards in every way but a good one:
// none of it stays, and no connection is kept.
func TestShardFaults(t *testing.T) {
	s := startShards(t, 2)
	c := s.connectLoaded()
	for i := range 10 {
		must(t, c, "INSERT INTO customers VALUES ($1, 'x')", i)
		must(t, c, "INSERT INTO orders VALUES ($1, $1, 'sure')", i)
	}
	direct := make([]*pgx.Conn, 2)
	for i, cl := range s.shards {
		direct[i] = pgtest.Connect(t, cl.Primary().DSN("app", "postgres"))
	}
	rolledBack := func(what string) {
		t.Helper()
		eventually(t, what+": no connection is kept", func() bool { return s.lent() == 0 })
		for i, got := range s.onEach("SELECT count(*)::text FROM orders WHERE note <> 'sure'") {
			if got != "0" {
				t.Errorf("%s: %s rows are left on shard %d", what, got, i)
			}
		}
		for i, got := range s.onEach("SELECT count(*)::text FROM pg_prepared_xacts") {
			if got != "0" {
				t.Errorf("%s: %s transactions are left prepared on shard %d", what, got, i)
			}
		}
	}
	t.Run("the client goes", func(t *testing.T) {
		c := s.connect()
		spreadOut(t, c)
		_ = c.PgConn().Conn().Close()
		rolledBack("the client went")
	})
	t.Run("the client says goodbye", func(t *testing.T) {
		c := s.connect()
		spreadOut(t, c)
		_ = c.Close(within(t, 10*time.Second))
		rolledBack("the client said goodbye")
	})
	for victim := range 2 {
		t.Run("a server connection breaks", func(t *testing.T) {
			c := s.connect()
			spreadOut(t, c)
			must(t, direct[victim], "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle in transaction'")
			tag, err := c.Exec(within(t, 20*time.Second), "COMMIT")
			if err == nil && tag.String() != "ROLLBACK" {
				t.Error("without one of its servers the answer is", tag)
			}
			if !c.IsClosed() {
				must(t, c, "ROLLBACK")
				must(t, c, "SELECT 1")
			}
			rolledBack("a server connection broke")
		})
	}
	t.Run("a cancelled wait", func(t *testing.T) {
		tx, err := direct[1].Begin(within(t, 10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(within(t, 10*time.Second), "UPDATE products SET name = 'mine' WHERE id = 1"); err != nil {
			t.Fatal(err)
		}
		c := s.connect()
		failed := make(chan error, 1)
		go func() {
			_, err := c.Exec(within(t, 30*time.Second), "UPDATE products SET name = 'yours' WHERE id = 1")
			failed <- err
		}()
		eventually(t, "it waits", func() bool {
			var n int
			err := direct[0].QueryRow(within(t, 10*time.Second), "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'").Scan(&n)
			return err == nil && n > 0
		})
		if err := c.PgConn().CancelRequest(within(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
		var pe *pgconn.PgError
		if err := <-failed; !errors.As(err, &pe) || pe.Code != "57014" {
			t.Error("cancelled:", err)
		}
		if err := tx.Rollback(context.Background()); err != nil {
			t.Fatal(err)
		}
		must(t, c, "SELECT 1")
		rolledBack("a cancelled wait")
		for _, got := range s.onEach("SELECT name FROM products WHERE id = 1") {
			if got != "product 1" {
				t.Error("a cancelled UPDATE left", got)
			}
		}
	})
	t.Run("a shard goes", func(t *testing.T) {
		c := s.connect()
		spreadOut(t, c)
		s.shards[1].Primary().Kill9()
		tag, err := c.Exec(within(t, 20*time.Second), "COMMIT")
		if err == nil && tag.String() != "ROLLBACK" {
			t.Error("without one of its shards the answer is", tag)
		}
		s.shards[1].Primary().Start()
		eventually(t, "nothing is prepared", func() bool {
			for _, got := range s.onEach("SELECT count(*)::text FROM pg_prepared_xacts") {
				if got != "0" {
					return false
				}
			}
			return true
		})
		rolledBack("a shard went")
	})
}

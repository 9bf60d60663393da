package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestBatch sends statements of several shards up to one Sync.
func TestBatch(t *testing.T) {
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, "      accounts: {key: id}\nruntime: {driver: "+driver+"}")
			c := s.connectLoaded()
			must(t, c, "CREATE TABLE accounts (id serial PRIMARY KEY, name text, n int CHECK (n <> 7))")
			_ = s
			for _, test := range []struct {
				name string
				run  func(*testing.T, *shardedProgram, *pgx.Conn)
			}{{"writes", batchWrites}, {"fails", batchFails}, {"in a transaction", batchInTransaction}, {"long", batchLong}} {
				t.Run(test.name, func(t *testing.T) { test.run(t, s, c) })
			}
		})
	}
}

// batched runs a batch and returns what each statement said: rows or its tag, or an error.
func batched(t testing.TB, c interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}, b *pgx.Batch) (said []string, err error) {
	t.Helper()
	r := c.SendBatch(within(t, 20*time.Second), b)
	for range b.QueuedQueries {
		rows, qerr := r.Query()
		if qerr == nil {
			var got []string
			for rows.Next() {
				values, _ := rows.Values()
				got = append(got, fmt.Sprint(values...))
			}
			qerr = rows.Err()
			if qerr == nil {
				said = append(said, strings.Join(got, ",")+rows.CommandTag().String())
			}
		}
		if qerr != nil {
			err = qerr
			break
		}
	}
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	return said, err
}

func batchWrites(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	b := &pgx.Batch{}
	var want []string
	for i := range 20 {
		b.Queue("INSERT INTO customers (id, name) VALUES ($1, $2)", i, fmt.Sprint("c", i))
		want = append(want, "INSERT 0 1")
	}
	for i := range 20 {
		b.Queue("SELECT name FROM customers WHERE id = $1", i)
		want = append(want, fmt.Sprintf("c%dSELECT 1", i))
	}
	b.Queue("UPDATE products SET name = 'x' WHERE id = 3")
	b.Queue("SELECT name FROM products WHERE id = 3")
	b.Queue("INSERT INTO accounts (name) VALUES ('a'), ('b'), ('c') RETURNING name")
	b.Queue("INSERT INTO orders (id, customer_id) VALUES (1, 1), (1, 2), (1, 3) RETURNING customer_id")
	want = append(want, "UPDATE 1", "xSELECT 1", "a,b,cINSERT 0 3", "1,2,3INSERT 0 3")
	said, err := batched(t, c, b)
	if err != nil || strings.Join(said, "|") != strings.Join(want, "|") {
		t.Errorf("%v\n%q\n%q", err, said, want)
	}
	if counts := s.onEach("SELECT count(*) FROM customers"); counts[0] == "0" || counts[1] == "0" {
		t.Errorf("%v", counts)
	}
}

func batchFails(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	for at := range 6 {
		b := &pgx.Batch{}
		for i := range 6 {
			if i == at {
				b.Queue("INSERT INTO accounts (name, n) VALUES ($1, 7)", "bad")
			} else {
				b.Queue("INSERT INTO customers (id, name) VALUES ($1, 'y')", 1000+i)
			}
		}
		said, err := batched(t, c, b)
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "23514" || len(said) != at {
			t.Errorf("at %d: %q, %v", at, said, err)
		}
		if got := s.onEach("SELECT count(*) FROM customers WHERE id >= 1000"); got[0]+got[1] != "00" {
			t.Errorf("what came before the error stays: %v", got)
		}
		must(t, c, "SELECT 1")
	}
	batchRefuses(t, s, c)
	b := &pgx.Batch{}
	b.Queue("INSERT INTO customers (id, name) VALUES (2001, 'y')")
	b.Queue("INSERT INTO customers (id, name) VALUES (2002, 'y')")
	b.Queue("SELECT * FROM customers LIMIT 2 FOR UPDATE")
	if said, err := batched(t, c, b); sqlState(err) != "0A000" {
		t.Errorf("%q, %v", said, err)
	}
	if got := s.onEach("SELECT count(*) FROM customers WHERE id >= 1000"); got[0]+got[1] != "00" {
		t.Errorf("what came before a refusal stays: %v", got)
	}
	must(t, c, "SELECT 1")
}

// batchRefuses has what the proxy itself finds wrong told in its place.
func batchRefuses(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	for _, test := range []struct{ bad, code string }{
		{"INSERT INTO customers (id, name) VALUES ('x', 'y')", "22P02"},
		{"INSERT INTO customers (id, name) VALUES (NULL, 'y')", "23502"},
		{"INSERT INTO customers (name) VALUES ('y')", "0A000"},
		{"selec 1", "42601"},
	} {
		for _, in := range []bool{false, true} {
			if in {
				must(t, c, "BEGIN")
			}
			var said []string
			p := c.PgConn().StartPipeline(within(t, 20*time.Second))
			for _, sql := range []string{"INSERT INTO customers (id, name) VALUES (3001, 'y')", "INSERT INTO customers (id, name) VALUES (3002, 'y')", test.bad, "SELECT 1"} {
				p.SendQueryParams(sql, nil, nil, nil, nil)
			}
			if err := p.Sync(); err != nil {
				t.Fatal(err)
			}
			var failed error
			for failed == nil && len(said) < 5 {
				r, err := p.GetResults()
				if err != nil {
					failed = err
				} else if rr, ok := r.(*pgconn.ResultReader); ok {
					tag, err := rr.Close()
					if failed = err; err == nil {
						said = append(said, tag.String())
					}
				}
			}
			if got := strings.Join(said, ", "); sqlState(failed) != test.code || got != "INSERT 0 1, INSERT 0 1" {
				t.Errorf("%s, in a transaction %v: %s, then %v", test.bad, in, got, failed)
			}
			_ = p.Close()
			if in {
				must(t, c, "ROLLBACK")
			}
		}
	}
	if got := s.onEach("SELECT count(*) FROM customers WHERE id >= 1000"); got[0]+got[1] != "00" {
		t.Errorf("what came before a refusal stays: %v", got)
	}
}

func batchInTransaction(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	tx, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	queue := func(ids ...int) *pgx.Batch {
		b := &pgx.Batch{}
		for _, i := range ids {
			b.Queue("INSERT INTO customers (id, name) VALUES ($1, 'z')", i)
		}
		return b
	}
	if said, err := batched(t, tx, queue(3001, 3002, 3003, 3004)); err != nil || len(said) != 4 {
		t.Fatalf("%q, %v", said, err)
	}
	if _, err := tx.Exec(t.Context(), "SAVEPOINT a"); err != nil {
		t.Fatal(err)
	}
	if said, err := batched(t, tx, queue(3005, 3006, 3007, 3001, 3008)); sqlState(err) != "23505" || len(said) != 3 {
		t.Fatalf("%q, %v", said, err)
	}
	if _, err := tx.Exec(t.Context(), "SELECT 1"); sqlState(err) != "25P02" {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "ROLLBACK TO a"); err != nil {
		t.Fatal(err)
	}
	if said, err := batched(t, tx, queue(3009, 3010, 3011)); err != nil || len(said) != 3 {
		t.Fatalf("%q, %v", said, err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.onEach("SELECT count(*) FROM customers WHERE id BETWEEN 3001 AND 3099"), "+"); got != "3+4" && got != "4+3" && got != "2+5" && got != "5+2" && got != "6+1" && got != "1+6" {
		t.Errorf("%s rows", got)
	}
}

func batchLong(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	b := &pgx.Batch{}
	for i := range 3000 {
		b.Queue("INSERT INTO customers (id, name) VALUES ($1, $2)", 10_000+i, strings.Repeat("n", 100))
	}
	if said, err := batched(t, c, b); err != nil || len(said) != 3000 {
		t.Fatalf("%d, %v", len(said), err)
	}
	b = &pgx.Batch{}
	for i := range 3000 {
		b.Queue("DELETE FROM customers WHERE id = $1", 10_000+i)
	}
	if said, err := batched(t, c, b); err != nil || len(said) != 3000 || said[2999] != "DELETE 1" {
		t.Fatalf("%d, %v", len(said), err)
	}
}

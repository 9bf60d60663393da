package main

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestWriteGathered runs UPDATE and DELETE that need rows of other shards than those they write.
func TestWriteGathered(t *testing.T) {
	s := startShards(t, 2, "      plants: {key: id}\n      wants:  {key: plant}\n      kinds:  {reference: true}")
	c := s.connectLoaded()
	for _, sql := range []string{
		"CREATE TABLE plants (id bigint PRIMARY KEY, name text NOT NULL, n int CHECK (n < 1000))",
		"CREATE TABLE wants (plant bigint, other bigint, PRIMARY KEY (plant, other))",
		"CREATE TABLE kinds (id int PRIMARY KEY, n bigint)",
		"INSERT INTO plants SELECT i, 'p' || i, 0 FROM generate_series(1, 40) i",
		"INSERT INTO wants SELECT i, 41 - i FROM generate_series(1, 40) i",
		"INSERT INTO kinds SELECT i, 0 FROM generate_series(1, 5) i",
	} {
		must(t, c, sql)
	}
	t.Run("all or none", func(t *testing.T) { writeAllOrNone(t, s, c) })
	t.Run("protocol", func(t *testing.T) { writeProtocol(t, s, c) })
	t.Run("at once", func(t *testing.T) { writeAtOnce(t, s, c) })
}

func writeAllOrNone(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	for _, begin := range []bool{false, true} {
		if begin {
			must(t, c, "BEGIN")
			must(t, c, "SAVEPOINT a")
		}
		for id := 1; id <= 12; id++ { // each time a row of another shard fails
			fails(t, c, fmt.Sprintf("UPDATE plants p SET n = CASE WHEN p.id = %d THEN 1000 ELSE 7 END FROM wants w WHERE w.other = p.id", id), "23514")
			if begin {
				fails(t, c, "SELECT 1", "25P02")
				must(t, c, "ROLLBACK TO a")
			}
		}
		if got := one(t, c, "SELECT count(*) FROM plants WHERE n = 7"); got != "0" {
			t.Error(got, "rows are written by statements that failed")
		}
		if begin {
			if tag := must1(t, c, "UPDATE plants p SET n = 7 FROM wants w WHERE w.other = p.id"); tag != "UPDATE 40" {
				t.Error(tag)
			}
			must(t, c, "ROLLBACK")
		}
	}
	if tag := must1(t, c, "UPDATE kinds SET n = (SELECT sum(id) FROM plants) + kinds.id"); tag != "UPDATE 5" {
		t.Error(tag)
	}
	if all := s.onEach("SELECT string_agg(n::text, ' ' ORDER BY id) FROM kinds"); all[0] != "821 822 823 824 825" || all[0] != all[1] {
		t.Errorf("the copies are %q", all)
	}
	must(t, c, "SET default_transaction_isolation = 'serializable'")
	fails(t, c, "UPDATE plants p SET n = 7 FROM wants w WHERE w.other = p.id", "0A000")
	must(t, c, "RESET default_transaction_isolation")
	for i, got := range s.onEach("SELECT count(*)::text FROM pg_prepared_xacts") {
		if got != "0" {
			t.Errorf("%s transactions are left prepared on shard %d", got, i)
		}
	}
}

func writeProtocol(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
		rows, err := c.Query(within(t, 20*time.Second), `WITH w AS (SELECT other FROM wants WHERE plant <= $1)
			UPDATE plants SET n = $2, name = p.name || '!' FROM w JOIN plants p ON p.id = w.other - 1 WHERE plants.id = w.other RETURNING plants.id - p.id`, mode, 5, 3)
		if err != nil {
			t.Fatal(err)
		}
		all, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil || len(all) != 5 || all[0] != 1 || rows.CommandTag().String() != "UPDATE 5" {
			t.Errorf("%v: %v %v %v", mode, err, rows.CommandTag(), all)
		}
	}
	b := &pgx.Batch{}
	b.Queue("INSERT INTO plants VALUES (50, 'last', 1)")
	b.Queue("DELETE FROM plants WHERE id = (SELECT max(id) FROM plants WHERE n < $1) RETURNING id", 100)
	b.Queue("UPDATE plants SET n = 0 WHERE n <> (SELECT min(n) FROM plants)")
	b.Queue("SELECT count(*) FROM plants WHERE n = 0")
	if said, err := batched(t, c, b); err != nil || fmt.Sprint(said) != "[INSERT 0 1 50DELETE 1 UPDATE 5 40SELECT 1]" {
		t.Error(said, err)
	}
}

// writeAtOnce has writers of the same rows meet: none may be lost, and none fails.
func writeAtOnce(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	must(t, c, "UPDATE plants SET n = 0")
	var all sync.WaitGroup
	for i := range 3 {
		own := s.connect()
		all.Go(func() {
			for range 8 {
				texts := []string{"UPDATE plants p SET n = n + 1 FROM wants w WHERE w.other = p.id"}
				if i == 2 {
					texts = []string{"BEGIN", texts[0], "COMMIT"}
				}
				for _, sql := range texts {
					ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
					if _, err := own.Exec(ctx, sql); err != nil {
						t.Errorf("%s: %v", sql, err)
					}
					cancel()
				}
			}
		})
	}
	all.Wait()
	if got := one(t, c, "SELECT min(n) || ' ' || max(n) FROM plants"); got != "24 24" {
		t.Error("writes are lost:", got)
	}
}

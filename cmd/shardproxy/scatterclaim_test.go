package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// claimSchema is a queue, and another whose rows have no key of their own in the condition.
const claimSchema = `
CREATE TABLE jobs (id bigint PRIMARY KEY, prio int NOT NULL, state text NOT NULL DEFAULT 'ready', worker int, done int NOT NULL DEFAULT 0);
CREATE INDEX ON jobs (prio, id) WHERE state = 'ready';
`

const claimTables = "      jobs: {key: id}\n"

// claimShards starts shards with so many jobs.
func claimShards(t *testing.T, shards, jobs int) *shardedProgram {
	t.Helper()
	s := startShards(t, shards, claimTables)
	for _, shard := range s.shards {
		must(t, pgtest.Connect(t, shard.Primary().DSN("app", "app")), claimSchema)
	}
	c := s.connectLoaded()
	eventually(t, "the queue is known", func() bool {
		_, err := c.Exec(context.Background(), "INSERT INTO jobs (id, prio) VALUES (0, 0), (1, 1), (2, 2), (3, 3) ON CONFLICT DO NOTHING")
		return err == nil
	})
	for i := 4; i < jobs; i++ {
		must(t, c, "INSERT INTO jobs (id, prio) VALUES ($1, $2)", i, i%7)
	}
	must(t, c, "UPDATE jobs SET prio = id % 7")
	return s
}

// locked returns the jobs that others cannot lock, on the shards themselves.
func (s *shardedProgram) locked(t *testing.T) (all []int64) {
	t.Helper()
	for _, shard := range s.shards {
		c := pgtest.Connect(t, shard.Primary().DSN("app", "app"))
		must(t, c, "BEGIN")
		free := ints(t, c, "SELECT id FROM jobs ORDER BY id FOR UPDATE SKIP LOCKED")
		for _, id := range ints(t, c, "SELECT id FROM jobs ORDER BY id") {
			if !slices.Contains(free, id) {
				all = append(all, id)
			}
		}
		must(t, c, "ROLLBACK")
		_ = c.Close(context.Background())
	}
	slices.Sort(all)
	return all
}

func inOrder(ids []int64) []int64 {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	return ids
}

// TestScatterClaims locks rows of several shards up to a LIMIT.
func TestScatterClaims(t *testing.T) {
	for _, shards := range []int{2, 4} {
		t.Run(fmt.Sprint(shards), func(t *testing.T) {
			t.Parallel()
			claims(t, claimShards(t, shards, 60))
		})
	}
}

func claims(t *testing.T, s *shardedProgram) {
	a, b := s.connect(), s.connect()
	const first = "SELECT id FROM jobs WHERE state = 'ready' ORDER BY prio, id LIMIT 7 FOR UPDATE SKIP LOCKED"
	must(t, a, "BEGIN")
	must(t, b, "BEGIN")
	got := ints(t, a, first)
	if !slices.Equal(got, []int64{0, 7, 14, 21, 28, 35, 42}) || !slices.Equal(s.locked(t), inOrder(got)) {
		t.Errorf("the first has %v, locked are %v", got, s.locked(t))
	}
	second := ints(t, b, first)
	if !slices.Equal(second, []int64{49, 56, 1, 8, 15, 22, 29}) || !slices.Equal(s.locked(t), inOrder(slices.Concat(got, second))) {
		t.Errorf("the second has %v, locked are %v", second, s.locked(t))
	}
	// One's own rows come again.
	if again := ints(t, a, first); !slices.Equal(again, got) {
		t.Error(again)
	}
	must(t, b, "ROLLBACK")
	if !slices.Equal(s.locked(t), inOrder(got)) {
		t.Errorf("locked are %v", s.locked(t))
	}
	// What is behind a savepoint is given back with it.
	must(t, b, "BEGIN")
	must(t, b, "SAVEPOINT x")
	third := ints(t, b, "SELECT id FROM jobs WHERE state = $1 ORDER BY prio DESC, id DESC LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED", "ready", 3)
	if !slices.Equal(third, []int64{55, 48, 41}) || len(s.locked(t)) != 10 {
		t.Error(third, s.locked(t))
	}
	must(t, b, "ROLLBACK TO x")
	if !slices.Equal(s.locked(t), inOrder(got)) {
		t.Errorf("locked are %v", s.locked(t))
	}
	// Without an order, more than there are, and none.
	if n := ints(t, b, "SELECT id FROM jobs WHERE state = 'ready' LIMIT 20 FOR UPDATE SKIP LOCKED"); len(n) != 20 || len(s.locked(t)) != 27 {
		t.Error(n, s.locked(t))
	}
	if n := ints(t, b, "SELECT id FROM jobs ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED"); len(n) != 53 || !slices.IsSorted(n) || len(s.locked(t)) != 60 {
		t.Error(n, s.locked(t))
	}
	c := s.connect()
	for _, sql := range []string{first, "SELECT id FROM jobs LIMIT 3 FOR UPDATE SKIP LOCKED", "SELECT id FROM jobs ORDER BY id LIMIT 0 FOR UPDATE SKIP LOCKED",
		"SELECT id FROM jobs LIMIT 0 FOR UPDATE SKIP LOCKED"} {
		if n := ints(t, c, sql); len(n) != 0 {
			t.Error(sql, n)
		}
	}
	must(t, b, "ROLLBACK")
	must(t, b, "BEGIN")
	if n := ints(t, b, "SELECT id FROM jobs ORDER BY id LIMIT 0 FOR UPDATE SKIP LOCKED"); len(n) != 0 || !slices.Equal(s.locked(t), inOrder(got)) {
		t.Error(n, s.locked(t))
	}
	if n := ints(t, b, "SELECT id FROM jobs WHERE id > 58 ORDER BY id LIMIT NULL FOR UPDATE SKIP LOCKED"); len(n) != 1 {
		t.Error(n)
	}
	must(t, b, "ROLLBACK")
	// A statement that fails leaves nothing locked but what was.
	must(t, b, "BEGIN")
	fails(t, b, "SELECT 1 / (id - 58) FROM jobs WHERE state = 'ready' ORDER BY prio, id LIMIT 50 FOR UPDATE SKIP LOCKED", "22012")
	must(t, b, "ROLLBACK")
	fails(t, b, "SELECT 1 / (id - 58) FROM jobs WHERE state = 'ready' ORDER BY prio, id LIMIT 50 FOR UPDATE SKIP LOCKED", "22012")
	if !slices.Equal(s.locked(t), inOrder(got)) {
		t.Errorf("locked are %v", s.locked(t))
	}
	// A row that has changed meanwhile, and is not of the condition any more.
	must(t, a, "UPDATE jobs SET state = 'done' WHERE id = ANY ($1)", got)
	must(t, a, "COMMIT")
	if n := ints(t, b, first); !slices.Equal(n, second) {
		t.Error(n)
	}
	for _, sql := range []string{
		"SELECT id FROM jobs ORDER BY prio, id LIMIT 3 FOR UPDATE",
		"SELECT id FROM jobs ORDER BY prio, id LIMIT 3 FOR UPDATE NOWAIT",
		"SELECT id FROM jobs ORDER BY prio, id OFFSET 1 LIMIT 3 FOR UPDATE SKIP LOCKED",
		"SELECT id FROM jobs ORDER BY prio, id FETCH FIRST 3 ROWS WITH TIES FOR UPDATE SKIP LOCKED",
		"SELECT id FROM jobs ORDER BY state, id LIMIT 3 FOR UPDATE SKIP LOCKED",
		"SELECT j.id FROM jobs j JOIN products p ON p.id = j.prio ORDER BY j.id LIMIT 3 FOR UPDATE SKIP LOCKED",
		"DECLARE x CURSOR FOR SELECT id FROM jobs ORDER BY id LIMIT 3 FOR UPDATE SKIP LOCKED",
		"EXPLAIN ANALYZE SELECT id FROM jobs ORDER BY id LIMIT 3 FOR UPDATE SKIP LOCKED",
		"INSERT INTO customers SELECT id, 'x' FROM jobs ORDER BY id LIMIT 3 FOR UPDATE SKIP LOCKED",
		"CREATE TABLE made AS SELECT id FROM jobs ORDER BY id LIMIT 3 FOR UPDATE SKIP LOCKED",
		"COPY (SELECT id FROM jobs LIMIT 3 FOR UPDATE SKIP LOCKED) TO STDOUT",
		"SELECT count(*) FROM (SELECT id FROM jobs ORDER BY id LIMIT 3 FOR UPDATE SKIP LOCKED) x",
	} {
		must(t, b, "BEGIN")
		fails(t, b, sql, "0A000")
		must(t, b, "ROLLBACK")
	}
	must(t, b, "BEGIN READ ONLY")
	fails(t, b, first, "25006")
	must(t, b, "ROLLBACK")
	must(t, b, "EXPLAIN "+first)
	if l := s.locked(t); len(l) != 0 {
		t.Errorf("locked are %v", l)
	}
}

// workers has eight workers take jobs until there are none, each in a transaction of its own, and returns how often each was taken.
func workers(t *testing.T, s *shardedProgram, take func(ctx context.Context, tx pgx.Tx, worker int) ([]int64, error)) {
	t.Helper()
	var mu sync.Mutex
	held, taken := map[int64]int{}, map[int64]int{}
	var wg sync.WaitGroup
	conns := make([]*pgx.Conn, 8)
	for w := range conns {
		conns[w] = s.connect()
	}
	for w, c := range conns {
		wg.Go(func() {
			ctx := within(t, time.Minute)
			for idle := 0; idle < 3; {
				tx, err := c.Begin(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				ids, err := take(ctx, tx, w)
				if err != nil {
					t.Error(err)
					return
				}
				if len(ids) == 0 {
					idle++
				}
				mu.Lock()
				for _, id := range ids {
					if by, ok := held[id]; ok {
						t.Errorf("job %d is %d's and %d's", id, by, w)
					}
					held[id] = w
					taken[id]++
				}
				mu.Unlock()
				_, err = tx.Exec(ctx, "SELECT count(*) FROM jobs WHERE worker = $1", w) // others may come meanwhile
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				for _, id := range ids {
					delete(held, id)
				}
				mu.Unlock()
				if err := tx.Commit(ctx); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	c := s.connect()
	for id, n := range taken {
		if n != 1 {
			t.Errorf("job %d was taken %d times", id, n)
		}
	}
	if n := ints(t, c, "SELECT count(*) FROM jobs WHERE state = 'done' AND done = 1"); n[0] != int64(len(taken)) {
		t.Errorf("%d jobs are done, %d were taken", n[0], len(taken))
	}
	if n := ints(t, c, "SELECT count(*) FROM jobs WHERE state <> 'done' OR done <> 1"); n[0] != 0 {
		t.Errorf("%d jobs are not done", n[0])
	}
}

// TestScatterClaimWorkers has workers lock jobs and do them.
func TestScatterClaimWorkers(t *testing.T) {
	for _, shards := range []int{2, 4} {
		t.Run(fmt.Sprint(shards), func(t *testing.T) {
			t.Parallel()
			workers(t, claimShards(t, shards, 200), func(ctx context.Context, tx pgx.Tx, worker int) ([]int64, error) {
				sql := "SELECT id FROM jobs WHERE state = 'ready' ORDER BY prio, id LIMIT $1 FOR UPDATE SKIP LOCKED"
				if worker%2 == 1 {
					sql = "SELECT id FROM jobs WHERE state = 'ready' LIMIT $1 FOR UPDATE SKIP LOCKED"
				}
				rows, err := tx.Query(ctx, sql, worker%4+1)
				if err != nil {
					return nil, err
				}
				ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
				if err != nil || len(ids) > worker%4+1 {
					return nil, fmt.Errorf("%v: %w", ids, err)
				}
				_, err = tx.Exec(ctx, "UPDATE jobs SET state = 'done', worker = $2, done = done + 1 WHERE id = ANY ($1)", ids, worker)
				return ids, err
			})
		})
	}
}

// TestScatterClaimWrites takes jobs and marks them in one statement.
func TestScatterClaimWrites(t *testing.T) {
	for _, shards := range []int{2, 4} {
		t.Run(fmt.Sprint(shards), func(t *testing.T) {
			t.Parallel()
			claimWrites(t, claimShards(t, shards, 60))
		})
	}
}

func claimWrites(t *testing.T, s *shardedProgram) {
	a, b := s.connect(), s.connect()
	const inner = "SELECT id FROM jobs WHERE state = 'ready' ORDER BY prio, id LIMIT 2 FOR UPDATE SKIP LOCKED"
	var done []int64
	for i, sql := range []string{
		"UPDATE jobs SET state = 'done', done = done + 1 WHERE id IN (" + inner + ") RETURNING id",
		"UPDATE jobs j SET state = 'done', done = done + 1 WHERE j.id = ANY (" + inner + ") RETURNING j.id",
		"UPDATE jobs SET state = 'done', done = done + 1 WHERE id = ANY (ARRAY(" + inner + ")) RETURNING id",
		"WITH c AS (" + inner + ") UPDATE jobs SET state = 'done', done = done + 1 FROM c WHERE jobs.id = c.id RETURNING jobs.id",
		"WITH c (x) AS MATERIALIZED (" + inner + ") UPDATE jobs SET state = 'done', done = done + 1 WHERE id IN (SELECT x FROM c) RETURNING id",
		"UPDATE jobs SET state = 'done', done = done + 1 FROM (" + inner + ") AS c WHERE c.id = jobs.id RETURNING jobs.id",
		"UPDATE jobs SET state = 'done', done = done + 1 WHERE id IN (SELECT id FROM jobs WHERE state = 'ready' LIMIT 2 FOR NO KEY UPDATE SKIP LOCKED) RETURNING id",
		"DELETE FROM jobs USING (" + inner + ") AS c WHERE c.id = jobs.id RETURNING jobs.id",
		"DELETE FROM jobs WHERE id IN (" + inner + ") AND state = 'ready' RETURNING id",
	} {
		must(t, a, "BEGIN")
		must(t, b, "BEGIN")
		got := ints(t, a, sql)
		if len(got) != 2 || !slices.Equal(s.locked(t), inOrder(got)) {
			t.Errorf("%s: %v, locked are %v", sql, got, s.locked(t))
		}
		other := ints(t, b, sql)
		if len(other) != 2 || slices.ContainsFunc(other, func(id int64) bool { return slices.Contains(got, id) }) || len(s.locked(t)) != 4 {
			t.Errorf("%s: %v and %v, locked are %v", sql, got, other, s.locked(t))
		}
		must(t, b, "ROLLBACK")
		if !slices.Equal(s.locked(t), inOrder(got)) {
			t.Errorf("%s: locked are %v", sql, s.locked(t))
		}
		must(t, a, "COMMIT")
		if done = append(done, got...); len(inOrder(done)) != 2*(i+1) {
			t.Error(done)
		}
	}
	if n := ints(t, a, "UPDATE jobs SET state = 'done' WHERE id = (SELECT id FROM jobs WHERE state = $1 ORDER BY prio DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id", "ready"); !slices.Equal(n, []int64{6}) {
		t.Error(n)
	}
	if n := ints(t, a, "UPDATE jobs SET state = 'done' WHERE id IN (SELECT id FROM jobs WHERE state = 'none' ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING id", 3); len(n) != 0 {
		t.Error(n)
	}
	if n := ints(t, a, "SELECT count(*) FROM jobs WHERE state = 'done'"); n[0] != 15 {
		t.Error(n)
	}
	must(t, a, "BEGIN ISOLATION LEVEL REPEATABLE READ")
	if n := ints(t, a, "UPDATE jobs SET state = 'done' WHERE id IN (SELECT id FROM jobs WHERE state = 'ready' ORDER BY id DESC LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id"); !slices.Equal(n, []int64{59}) {
		t.Error(n)
	}
	must(t, a, "ROLLBACK")
	for _, sql := range []string{
		"UPDATE jobs SET state = 'x' WHERE id NOT IN (" + inner + ")",
		"UPDATE jobs SET state = 'x' WHERE prio IN (SELECT prio FROM jobs ORDER BY id LIMIT 2 FOR UPDATE SKIP LOCKED)",
		"UPDATE jobs SET state = 'x' WHERE id IN (SELECT id + 1 FROM jobs ORDER BY id LIMIT 2 FOR UPDATE SKIP LOCKED)",
		"UPDATE jobs SET state = 'x' WHERE id IN (SELECT prio FROM jobs ORDER BY id LIMIT 2 FOR UPDATE SKIP LOCKED)",
		"UPDATE jobs SET state = 'x' WHERE id IN (" + inner + ") OR id = 3",
		"UPDATE jobs SET state = 'x' WHERE id + 1 = (SELECT id FROM jobs ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)",
		"UPDATE jobs SET state = 'x' WHERE id = 1 + (SELECT id FROM jobs ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)",
		"UPDATE jobs SET state = 'x' WHERE id > (SELECT id FROM jobs ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)",
		"UPDATE jobs SET state = 'x' WHERE id = (SELECT id FROM jobs ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) + 1",
		"UPDATE jobs SET state = 'x' WHERE id IN (SELECT id FROM jobs ORDER BY id LIMIT 2 FOR UPDATE)",
		"UPDATE jobs SET state = 'x' WHERE id IN (SELECT id FROM jobs ORDER BY id OFFSET 1 LIMIT 2 FOR UPDATE SKIP LOCKED)",
		"UPDATE jobs SET state = 'x' WHERE id IN (SELECT id FROM jobs ORDER BY state LIMIT 2 FOR UPDATE SKIP LOCKED)",
		"UPDATE jobs SET state = 'x' WHERE id IN (SELECT k.id FROM jobs k WHERE k.prio > jobs.prio ORDER BY id LIMIT 2 FOR UPDATE SKIP LOCKED)",
		"UPDATE jobs SET state = 'x' WHERE id IN (SELECT id FROM customers ORDER BY id LIMIT 2 FOR UPDATE SKIP LOCKED)",
		"UPDATE jobs SET state = (SELECT name FROM customers ORDER BY id LIMIT 1) WHERE id IN (" + inner + ")",
		"UPDATE jobs SET state = 'x' FROM products WHERE products.id = jobs.prio AND jobs.id IN (" + inner + ")",
		"UPDATE jobs SET id = id + 1000 WHERE id IN (" + inner + ")",
		"WITH c AS (" + inner + "), d AS (" + inner + ") UPDATE jobs SET state = 'x' FROM c, d WHERE jobs.id = c.id AND jobs.id = d.id",
		"WITH c AS (" + inner + ") SELECT * FROM c",
		"EXPLAIN ANALYZE UPDATE jobs SET state = 'x' WHERE id IN (" + inner + ")",
	} {
		must(t, a, "BEGIN")
		fails(t, a, sql, "0A000")
		must(t, a, "ROLLBACK")
	}
	must(t, a, "EXPLAIN UPDATE jobs SET state = 'x' WHERE id IN ("+inner+")")
	if l := s.locked(t); len(l) != 0 {
		t.Errorf("locked are %v", l)
	}
}

// TestScatterClaimWriteWorkers has workers take and do jobs in one statement.
func TestScatterClaimWriteWorkers(t *testing.T) {
	for _, shards := range []int{2, 4} {
		t.Run(fmt.Sprint(shards), func(t *testing.T) {
			t.Parallel()
			workers(t, claimShards(t, shards, 200), func(ctx context.Context, tx pgx.Tx, worker int) ([]int64, error) {
				order := ""
				if worker%2 == 1 {
					order = "ORDER BY prio, id"
				}
				rows, err := tx.Query(ctx, "UPDATE jobs SET state = 'done', worker = $1, done = done + 1 WHERE id IN (SELECT id FROM jobs WHERE state = 'ready' "+order+
					" LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING id", worker, worker%4+1)
				if err != nil {
					return nil, err
				}
				ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
				if len(ids) > worker%4+1 {
					t.Error(worker, ids)
				}
				return ids, err
			})
		})
	}
}

// TestScatterClaimAlone has workers take and do jobs in one statement outside of transactions, with others in their way.
func TestScatterClaimAlone(t *testing.T) {
	s := claimShards(t, 2, 200)
	var mu sync.Mutex
	taken := map[int64]int{}
	var wg sync.WaitGroup
	for w := range 8 {
		c := s.connect()
		wg.Go(func() {
			ctx := within(t, time.Minute)
			for idle := 0; idle < 3; {
				if w == 0 { // changes what others look for
					if _, err := c.Exec(ctx, "UPDATE jobs SET prio = (prio + 3) % 7 WHERE id % 5 = 0"); err != nil {
						t.Error(err)
					}
				}
				rows, err := c.Query(ctx, "WITH c AS (SELECT id FROM jobs WHERE state = 'ready' ORDER BY prio, id LIMIT 2 FOR UPDATE SKIP LOCKED) "+
					"UPDATE jobs SET state = 'done', worker = $1, done = done + 1 FROM c WHERE jobs.id = c.id RETURNING jobs.id", w)
				if err != nil {
					t.Error(err)
					return
				}
				ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
				if err != nil || len(ids) > 2 {
					t.Error(ids, err)
					return
				}
				if len(ids) == 0 {
					idle++
				}
				mu.Lock()
				for _, id := range ids {
					taken[id]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	c := s.connect()
	for id, n := range taken {
		if n != 1 {
			t.Errorf("job %d was taken %d times", id, n)
		}
	}
	if n := ints(t, c, "SELECT count(*) FROM jobs WHERE state = 'done' AND done = 1"); n[0] != 200 || len(taken) != 200 {
		t.Errorf("%d jobs are done, %d were taken", n[0], len(taken))
	}
	if l := s.locked(t); len(l) != 0 {
		t.Errorf("locked are %v", l)
	}
}

// TestScatterClaimCancel cancels a statement that locks many rows, one after the other.
func TestScatterClaimCancel(t *testing.T) {
	s := claimShards(t, 2, 10)
	for _, shard := range s.shards {
		must(t, pgtest.Connect(t, shard.Primary().DSN("app", "app")), "INSERT INTO jobs (id, prio) SELECT i, 9 FROM generate_series(1000000, 1010000) i")
	}
	c := s.connect()
	must(t, c, "BEGIN")
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				_ = c.PgConn().CancelRequest(context.Background()) // one of them comes in time
			}
		}
	})
	_, err := c.Exec(within(t, time.Minute), "SELECT id FROM jobs WHERE prio = 9 ORDER BY prio, id LIMIT 20000 FOR UPDATE SKIP LOCKED")
	close(done)
	wg.Wait()
	if sqlState(err) != "57014" {
		t.Error(err)
	}
	_ = c.Close(context.Background())
	eventually(t, "what was locked is free", func() bool { return len(s.locked(t)) == 0 })
	c = s.connect()
	for _, sql := range []string{"SELECT id FROM jobs WHERE id IN ($1, $2) ORDER BY prio LIMIT 3 FOR UPDATE SKIP LOCKED", "SELECT id FROM jobs WHERE id IN ($1, $2) LIMIT 3 FOR UPDATE SKIP LOCKED"} {
		if n := ints(t, c, sql, 2, 3); len(n) != 2 {
			t.Error(sql, n)
		}
		if n := ints(t, c, sql, nil, 3); len(n) != 1 {
			t.Error(sql, n)
		}
		if n := ints(t, c, sql, nil, nil); len(n) != 0 {
			t.Error(sql, n)
		}
	}
}

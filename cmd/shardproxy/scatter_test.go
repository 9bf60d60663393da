package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// scatterPlaces are the tables of the tests of queries over several shards.
const scatterPlaces = "      wide: {key: k}\n      few: {key: k}\n"

// scatterSchema makes them: wide has rows enough for a shard not to get rid of them while
// nobody reads, few has ten on each shard. nap lets the
// shards themselves wait: what is not immutable runs where the rows are
// put together.
const scatterSchema = `
CREATE TABLE wide (k bigint, id bigint, name text, PRIMARY KEY (k, id));
CREATE TABLE few (k bigint, id bigint, n int, PRIMARY KEY (k, id));
CREATE FUNCTION nap(bigint, float8) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep($2); RETURN true; END';
`

// wideRows reads more of each shard than all buffers on its way hold, whose reader has stopped: the kernel's take up
// to 32 MiB a socket.
const wideRows = "SELECT id, repeat(name, 12) FROM wide"

// scattered is the program in front of several shards that have rows: of each table those
// of one key on each shard, whose ids are those that leave the shard's number when divided by
// the number of shards.
type scattered struct {
	*shardedProgram
	keys   []int
	direct []*pgx.Conn // to the shards themselves, as their superuser
	wide   int         // rows on each shard
}

// startScattered starts the program in front of n shards with so many rows of wide on each.
func startScattered(t *testing.T, n, wide int, more ...string) *scattered {
	t.Helper()
	s := &scattered{shardedProgram: startShards(t, n, append([]string{scatterPlaces}, more...)...), wide: wide}
	c := s.connectLoaded()
	if _, err := c.Exec(within(t, 20*time.Second), scatterSchema, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	s.keys = keysOn(t, c, n)
	for i, cl := range s.shards {
		s.direct = append(s.direct, pgtest.Connect(t, cl.Primary().DSN("app", "postgres")))
		fillScattered(t, s.direct[i], s.keys[i], i, n, wide)
	}
	return s
}

// keysOn returns a key on each of n shards.
func keysOn(t *testing.T, c *pgx.Conn, n int) []int {
	t.Helper()
	keys := make([]int, n)
	for k, left := 1, n; left > 0; k++ {
		results, err := c.PgConn().Exec(within(t, 10*time.Second), fmt.Sprintf("EXPLAIN (ROUTE) SELECT FROM wide WHERE k = %d", k)).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		var shard int
		if _, err := fmt.Sscanf(string(results[0].Rows[0][0]), "Route: shard s%d", &shard); err != nil {
			t.Fatalf("%q: %v", results[0].Rows[0][0], err)
		}
		if keys[shard] == 0 {
			keys[shard] = k
			left--
		}
	}
	return keys
}

// fillScattered writes the rows of one shard, on it.
func fillScattered(t *testing.T, direct *pgx.Conn, key, shard, shards, wide int) {
	t.Helper()
	must(t, direct, "INSERT INTO wide SELECT $1, i * $3 + $2, repeat(md5(i::text), 6) FROM generate_series(0, $4::int - 1) i", key, shard, shards, wide)
	must(t, direct, "INSERT INTO few SELECT $1, i * $3 + $2, i * $3 + $2 FROM generate_series(0, 9) i", key, shard, shards)
	must(t, direct, "ANALYZE")
}

// soon fails the test unless it is so within d.
func soon(t *testing.T, d time.Duration, what string, is func() bool) {
	t.Helper()
	for begin := time.Now(); !is(); {
		if time.Since(begin) > d {
			t.Errorf("not within %v: %s", d, what)
			return
		}
		<-time.After(2 * time.Millisecond)
	}
}

// waitOn returns how many backends of the client's role do on a shard what the condition says.
func (s *scattered) waitOn(shard int, condition string) (n int) {
	s.t.Helper()
	err := s.direct[shard].QueryRow(within(s.t, 10*time.Second), "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND "+condition).Scan(&n)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// onAll reports whether so many backends of each shard do what the condition says.
func (s *scattered) onAll(n int, condition string) bool {
	for i := range s.shards {
		if s.waitOn(i, condition) != n {
			return false
		}
	}
	return true
}

// free fails the test unless within a second no connection is lent or waited for, and no server works.
func (s *scattered) free(t *testing.T, after string) {
	t.Helper()
	soon(t, time.Second, "all connections are free after "+after, func() bool {
		for _, sh := range s.p.state.Load().databases["app"].shards {
			for _, stat := range sh.pools.Stats() {
				if stat.Lent > 0 || stat.Waiting > 0 {
					return false
				}
			}
		}
		return s.onAll(0, "state <> 'idle'")
	})
}

// eitherDriver runs a test under either driver, with the same configuration otherwise.
func eitherDriver(t *testing.T, run func(t *testing.T, runtime string)) {
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) { run(t, "runtime: {driver: "+driver+"}") })
	}
}

// ints returns the first column of all rows.
func ints(t *testing.T, c *pgx.Conn, sql string, args ...any) (all []int64) {
	t.Helper()
	rows, err := c.Query(within(t, 30*time.Second), sql, args...)
	if err == nil {
		all, err = pgx.CollectRows(rows, pgx.RowTo[int64])
	}
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return all
}

// TestScatter runs queries over two shards.
func TestScatter(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		s := startScattered(t, 2, 100000, runtime)
		for _, test := range []struct {
			name string
			run  func(*testing.T, *scattered)
		}{
			{"leaves", scatterLeaves}, {"cancel", scatterCancel}, {"errors", scatterErrors}, {"errors in transactions", scatterErrorsInTransaction}, {"timeout", scatterTimeout},
			{"transactions", scatterTransactions}, {"modes", scatterModes}, {"phases", scatterPhases}, {"moment", scatterMoment},
			{"batches", scatterBatches}, {"messages", scatterMessages}, {"formats", scatterFormats}, {"several texts", scatterTexts},
		} {
			t.Run(test.name, func(t *testing.T) {
				test.run(t, s)
				s.free(t, test.name)
			})
		}
	})
}

// connectDirect connects to a shard itself.
func (s *scattered) connectDirect(t *testing.T, shard int) *pgx.Conn {
	t.Helper()
	return pgtest.Connect(s.t, s.shards[shard].Primary().DSN("app", "postgres"))
}

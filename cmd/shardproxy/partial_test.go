package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgcluster"
)

// quickFailover gives nodes up within a second or two, and has nobody wait for long.
const quickFailover = "    failover: {probe_interval: 200ms, probe_timeout: 500ms, fail_after: 2, recover_after: 1, hold_timeout: 500ms}\n"

// partialClient is a client that takes answers that lack shards, and what it was warned of.
type partialClient struct {
	*pgx.Conn
	mu     sync.Mutex
	warned []string
}

// connectPartial connects one.
func (s *scattered) connectPartial(t *testing.T) *partialClient {
	t.Helper()
	cfg, err := pgx.ParseConfig("postgres://app:" + pgcluster.AppPassword + "@" + s.addr + "/app?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	c := &partialClient{}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.warned = append(c.warned, n.Severity+" "+n.Code+" "+n.Detail)
	}
	if !s.p.state.Load().cfg.Databases[0].PartialResults {
		cfg.RuntimeParams["shardproxy.partial_results"] = "on"
	}
	if c.Conn, err = pgx.ConnectConfig(within(t, 20*time.Second), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// lacks fails the test unless the client was just told that the shards are missing; none: that none is.
func (c *partialClient) lacks(t *testing.T, what string, shards ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var want []string
	if len(shards) > 0 {
		want = []string{"WARNING 01000 Missing shards: " + strings.Join(shards, ", ") + "."}
	}
	if !slices.Equal(c.warned, want) {
		t.Errorf("%s: warned of %q, want %q", what, c.warned, want)
	}
	c.warned = nil
}

// partialQueries are answered in every way; those of few count its rows.
var partialQueries = []struct{ name, sql string }{
	{"merge", "SELECT id FROM few"},
	{"order", "SELECT id FROM few ORDER BY id"},
	{"limit", "SELECT id FROM few ORDER BY id LIMIT 100"},
	{"text", "SELECT id FROM few ORDER BY id::text COLLATE \"C\", id"},
	{"join", "SELECT a.id FROM few a JOIN few b ON b.k = a.k AND b.id = a.id"},
	{"gather", "SELECT a.id FROM few a JOIN few b ON b.n = a.n"},
	{"inputs", "SELECT a.id FROM few a JOIN products p ON p.id > 0 AND p.id < 2 WHERE EXISTS (SELECT FROM few b WHERE b.n = a.n)"},
	{"window", "SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) FROM few) x"},
	{"distinct", "SELECT DISTINCT n FROM few"},
	{"groups", "SELECT id FROM few GROUP BY id HAVING count(*) = 1"},
}

// rowsWithout are the ids of few that are not on a shard.
func (s *scattered) rowsWithout(shards ...int) (all []int64) {
	for i := range int64(10 * len(s.shards)) {
		if !slices.Contains(shards, int(i)%len(s.shards)) {
			all = append(all, i)
		}
	}
	return all
}

// answersWithout runs all queries, in both protocols, and expects the rows of all shards but some.
func (s *scattered) answersWithout(t *testing.T, c *partialClient, without ...int) {
	t.Helper()
	var names []string
	for _, i := range without {
		names = append(names, fmt.Sprint("s", i))
	}
	want := s.rowsWithout(without...)
	for _, q := range partialQueries {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheStatement} {
			what := fmt.Sprint(q.name, " ", mode, " without ", names)
			rows, err := c.Query(within(t, 30*time.Second), q.sql, mode)
			var got []int64
			if err == nil {
				got, err = pgx.CollectRows(rows, pgx.RowTo[int64])
			}
			if sorted := slices.Sorted(slices.Values(got)); err != nil || !slices.Equal(sorted, want) {
				t.Errorf("%s: %v %v", what, got, err)
			}
			if rows.CommandTag().RowsAffected() != int64(len(want)) {
				t.Errorf("%s: %s", what, rows.CommandTag())
			}
			c.lacks(t, what, names...)
		}
	}
	var n, sum int64
	if err := c.QueryRow(within(t, 30*time.Second), "SELECT count(*), sum(id) FROM few WHERE id >= $1", 0).Scan(&n, &sum); err != nil || n != int64(len(want)) {
		t.Errorf("%d rows, %d together: %v", n, sum, err)
	}
	c.lacks(t, "aggregates", names...)
}

// TestPartial kills one of three shards, then another, and asks for answers of those that are left.
func TestPartial(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		s := startScattered(t, 3, 100, quickFailover, runtime)
		c := s.connectPartial(t)
		must(t, c.Conn, "CREATE TABLE single (n int)")
		must(t, c.Conn, "INSERT INTO single VALUES (1)")
		s.answersWithout(t, c)
		// Connections that were lost while they were idle are no reason to leave a shard out.
		must(t, s.direct[1], "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
		s.answersWithout(t, c)
		s.shards[1].Primary().Kill9()
		s.answersWithout(t, c, 1)
		partialErrors(t, s, c)
		partialBlocks(t, s, c)
		partialSettings(t, s)
		if n := s.scrape()["shardproxy_partial_answers_total"]; n == nil {
			t.Error("no metric")
		}
		// The home shard as the missing one.
		s.shards[1].Primary().Start()
		s.whole(t, c)
		s.shards[0].Primary().Kill9()
		s.answersWithout(t, c, 0)
		fails(t, c.Conn, "SELECT few.id FROM few, single", "57P03")
		c.lacks(t, "a single table")
		s.shards[1].Primary().Kill9()
		s.answersWithout(t, c, 0, 1)
		s.shards[2].Primary().Kill9()
		fails(t, c.Conn, "SELECT id FROM few", "57P03")
		c.lacks(t, "all shards")
		for _, sh := range s.shards {
			sh.Primary().Start()
		}
		s.whole(t, c)
		s.answersWithout(t, c)
		eventually(t, "nothing is kept", func() bool { return s.lent() == 0 })
	})
}

// whole waits until answers lack nothing.
func (s *scattered) whole(t *testing.T, c *partialClient) {
	t.Helper()
	eventually(t, "all shards are back", func() bool {
		rows, err := c.Query(within(t, 30*time.Second), "SELECT id FROM few")
		if err != nil {
			return false
		}
		all, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		return err == nil && len(all) == 10*len(s.shards)
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warned = nil
}

// partialErrors are what stays an error while shard 1 is missing.
func partialErrors(t *testing.T, s *scattered, c *partialClient) {
	t.Helper()
	for _, test := range []struct{ sql, code string }{
		{fmt.Sprintf("SELECT id FROM few WHERE k = %d", s.keys[1]), "57P03"},
		{"UPDATE few SET n = n", "57P03"},
		{"DELETE FROM few WHERE id < 0", "57P03"},
		{"INSERT INTO few SELECT k, id + 1000, n FROM few", "57P03"},
		{"INSERT INTO single SELECT n FROM few", "57P03"},
		{"SELECT id FROM few FOR UPDATE", "57P03"},
		{"COPY (SELECT id FROM few) TO STDOUT", "57P03"},
		{"SELECT 1 / (n - n) FROM few", "22012"},
		{"SELECT sum(1 / (n - n)) FROM few", "22012"},
		{"SELECT a.id FROM few a JOIN few b ON b.n = 1 / (a.n - a.n)", "22012"},
	} {
		fails(t, c.Conn, test.sql, test.code)
		c.lacks(t, test.sql)
	}
	must(t, c.Conn, "SET shardproxy.partial_results = off")
	for _, q := range partialQueries[:1] {
		fails(t, c.Conn, q.sql, "57P03")
	}
	must(t, c.Conn, "SET shardproxy.partial_results = on")
}

// partialBlocks asks in transactions, while shard 1 is missing.
func partialBlocks(t *testing.T, s *scattered, c *partialClient) {
	t.Helper()
	for _, begin := range []string{"BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN READ ONLY"} {
		must(t, c.Conn, begin)
		s.answersWithout(t, c, 1)
		if _, err := c.Exec(within(t, 30*time.Second), fmt.Sprintf("SELECT id FROM few WHERE k = %d", s.keys[1])); err == nil {
			t.Error("rows of a shard that is not there")
		}
		must(t, c.Conn, "ROLLBACK")
	}
	must(t, c.Conn, "BEGIN")
	must(t, c.Conn, fmt.Sprintf("UPDATE few SET n = n WHERE k = %d", s.keys[0]))
	s.answersWithout(t, c, 1)
	must(t, c.Conn, fmt.Sprintf("UPDATE few SET n = n WHERE k = %d", s.keys[2]))
	must(t, c.Conn, "COMMIT")
	// A transaction that has begun on the shard is lost with it.
	s.shards[1].Primary().Start()
	s.whole(t, c)
	d := s.connectPartial(t)
	must(t, d.Conn, "BEGIN")
	must(t, d.Conn, fmt.Sprintf("UPDATE few SET n = n + 1000 WHERE k = %d", s.keys[1]))
	s.shards[1].Primary().Kill9()
	if _, err := d.Exec(within(t, 30*time.Second), "SELECT id FROM few"); err == nil {
		t.Error("a transaction goes on that has lost its shard")
	}
	d.lacks(t, "a transaction that has lost its shard")
	s.answersWithout(t, c, 1)
}

// partialSettings sets it in every way, while shard 1 is missing.
func partialSettings(t *testing.T, s *scattered) {
	t.Helper()
	c := s.connect()
	const sql = "SELECT id FROM few"
	fails(t, c, sql, "57P03")
	for _, on := range []string{"on", "'on'", "true", "yes", "1"} {
		must(t, c, "SET shardproxy.partial_results = "+on)
		must(t, c, sql)
		must(t, c, "RESET shardproxy.partial_results")
		fails(t, c, sql, "57P03")
	}
	fails(t, c, "SET shardproxy.partial_results = sometimes", "22023")
	must(t, c, "BEGIN")
	must(t, c, "SET LOCAL shardproxy.partial_results = on")
	must(t, c, sql)
	must(t, c, "COMMIT")
	fails(t, c, sql, "57P03")
	must(t, c, "SELECT set_config('shardproxy.partial_results', 'on', false)")
	must(t, c, sql)
	must(t, c, "SET shardproxy.partial_results = off")
	fails(t, c, sql, "57P03")
}

// streaming asks for rows and reads until the first has come.
func (c *partialClient) streaming(t *testing.T, sql string) pgx.Rows {
	t.Helper()
	rows, err := c.Query(within(t, 60*time.Second), sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil || !rows.Next() {
		t.Fatalf("%s: no row: %v", sql, err)
	}
	return rows
}

// TestPartialUnderRows has shards go while a query runs.
func TestPartialUnderRows(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		s := startScattered(t, 3, 50000, "    partial_results: true\n", quickFailover, runtime)
		c := s.connectPartial(t)
		// None of its rows has come, those of others have been given out.
		slow := fmt.Sprintf("SELECT id, name FROM wide WHERE k <> %d OR nap(id, 30)", s.keys[1])
		rows := c.streaming(t, slow)
		go s.shards[1].Primary().Kill9()
		n := 1
		for rows.Next() {
			n++
		}
		if rows.Err() != nil || n != 100000 || rows.CommandTag().RowsAffected() != 100000 {
			t.Errorf("%d rows, %s: %v", n, rows.CommandTag(), rows.Err())
		}
		c.lacks(t, "lost before its first row", "s1")
		s.answersWithout(t, c, 1)
		s.shards[1].Primary().Start()
		s.whole(t, c)
		s.lostInTheMiddle(t, c)
		s.paused(t, c)
		eventually(t, "nothing is kept", func() bool { return s.lent() == 0 })
	})
}

// lostInTheMiddle loses a shard of which rows have been given out.
func (s *scattered) lostInTheMiddle(t *testing.T, c *partialClient) {
	t.Helper()
	for _, sql := range []string{wideRows, wideRows + " ORDER BY id"} {
		d := s.connectPartial(t)
		rows := d.streaming(t, sql)
		eventually(t, "the shard waits for the client to read", func() bool { return s.waitOn(2, "wait_event = 'ClientWrite'") == 1 })
		s.shards[2].Primary().Kill9()
		n := 1
		for rows.Next() {
			n++
		}
		if rows.Err() == nil || n >= 150000 {
			t.Errorf("%s: %d rows and no error", sql, n)
		}
		d.lacks(t, sql)
		s.answersWithout(t, c, 2)
		s.shards[2].Primary().Start()
		s.whole(t, c)
		s.direct[2] = s.connectDirect(t, 2)
	}
}

// paused stops a shard's processes, as a machine that hangs, before a query and while it runs.
func (s *scattered) paused(t *testing.T, c *partialClient) {
	t.Helper()
	node := s.shards[1].Primary()
	for _, sql := range []string{"SELECT id FROM few", "SELECT id FROM few WHERE nap(id, 0.1) ORDER BY id", "SELECT a.id FROM few a JOIN few b ON b.n = a.n WHERE nap(a.id, 0.1)"} {
		for _, running := range []bool{false, true} {
			if running && sql == "SELECT id FROM few" {
				continue
			}
			what := fmt.Sprint(sql, ", running: ", running)
			d := s.connectPartial(t)
			answer := make(chan []int64, 1)
			ask := func() {
				rows, err := d.Query(within(t, 30*time.Second), sql)
				var got []int64
				if err == nil {
					got, err = pgx.CollectRows(rows, pgx.RowTo[int64])
				}
				if err != nil {
					t.Errorf("%s: %v", what, err)
				}
				answer <- got
			}
			began := time.Now()
			if running {
				go ask()
				eventually(t, "the shard works", func() bool { return s.waitOn(2, "wait_event = 'PgSleep'") == 1 })
				node.Pause()
			} else {
				node.Pause()
				go ask()
			}
			got := <-answer
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("%s: %v", what, took)
			} else {
				t.Logf("%s: %v", what, took)
			}
			if sorted := slices.Sorted(slices.Values(got)); !slices.Equal(sorted, s.rowsWithout(1)) {
				t.Errorf("%s: %v", what, got)
			}
			d.lacks(t, what, "s1")
			node.Resume()
			s.whole(t, c)
		}
	}
}

// TestPartialLosses ends server connections of one shard all the time, also those on which a transaction is beginning: answers
// are whole or lack that shard, as they say, and the session goes on.
func TestPartialLosses(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		s := startScattered(t, 3, 100, quickFailover, runtime)
		stop := make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
				must(t, s.direct[1], "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
			}
		})
		whole, part, failed := 0, 0, 0
		c := s.connectPartial(t)
		for begin := time.Now(); time.Since(begin) < 5*time.Second && !c.IsClosed(); {
			q := partialQueries[(whole+part+failed)%len(partialQueries)]
			rows, err := c.Query(within(t, 30*time.Second), q.sql, pgx.QueryExecModeSimpleProtocol)
			var got []int64
			if err == nil {
				got, err = pgx.CollectRows(rows, pgx.RowTo[int64])
			}
			slices.Sort(got)
			switch {
			case err != nil:
				failed++
				if sqlState(err) != "08006" && sqlState(err) != "57P01" {
					t.Errorf("%s: %v", q.name, err)
				}
				c.warned = nil
			case slices.Equal(got, s.rowsWithout()):
				whole++
				c.lacks(t, q.name)
			default:
				part++
				if !slices.Equal(got, s.rowsWithout(1)) {
					t.Errorf("%s: %v", q.name, got)
				}
				c.lacks(t, q.name, "s1")
			}
		}
		close(stop)
		all.Wait()
		t.Logf("%d answers are whole, %d lack the shard, %d failed", whole, part, failed)
		if c.IsClosed() || whole+part == 0 {
			t.Errorf("%d answers are whole, %d lack the shard, %d failed; the session is closed: %v", whole, part, failed, c.IsClosed())
		}
	})
}

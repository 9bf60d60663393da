package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// scatterWays are queries of every way to answer them, all of which show the sum of few's n and the number of its rows.
var scatterWays = []struct{ name, text string }{
	{"merge", "SELECT n FROM few"},
	{"ordered merge", "SELECT n FROM few ORDER BY n DESC, id"},
	{"groups", "SELECT sum(n), count(*) FROM few"},
	{"gather", "SELECT a.n FROM few a JOIN few b ON a.id = b.id + 0"},
	{"one of the ends", "SELECT sum(n) OVER (), count(*) OVER () FROM few LIMIT 1"},
}

// summed returns what a query of scatterWays shows.
func summed(t *testing.T, c *pgx.Conn, sql string) string {
	t.Helper()
	rows, err := c.Query(within(t, 20*time.Second), sql)
	if err != nil {
		t.Fatal(err)
	}
	sum, n := 0, 0
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			t.Fatal(err)
		}
		var v, more int
		if _, err := fmt.Sscan(fmt.Sprint(values[0]), &v); err != nil {
			t.Fatal(err)
		}
		if more = 1; len(values) == 2 {
			_, _ = fmt.Sscan(fmt.Sprint(values[1]), &more) // 0 is seen below
		}
		sum, n = sum+v, n+more
	}
	if rows.Err() != nil {
		t.Fatalf("%s: %v", sql, rows.Err())
	}
	return fmt.Sprintf("%d of %d", sum, n)
}

// allWays fails the test unless all ways show the same.
func (s *scattered) allWays(t *testing.T, c *pgx.Conn, when, want string) {
	t.Helper()
	for _, way := range scatterWays {
		if got := summed(t, c, way.text); got != want {
			t.Errorf("%s, %s: %s, want %s", when, way.name, got, want)
		}
	}
}

// scatterTransactions sees its own writes on both shards, and nobody else's before they are committed.
func scatterTransactions(t *testing.T, s *scattered) {
	c, other := s.connect(), s.connect()
	s.allWays(t, c, "at first", "190 of 20")
	for _, end := range []string{"ROLLBACK", "COMMIT"} {
		must(t, c, "BEGIN")
		must(t, c, "UPDATE few SET n = n + 1000 WHERE k = $1 AND id < 2", s.keys[1])
		s.allWays(t, c, "behind a write on the second shard", "1190 of 20")
		must(t, c, "INSERT INTO few VALUES ($1, 100, 5), ($2, 101, 6)", s.keys[0], s.keys[1])
		s.allWays(t, c, "behind writes on both", "1201 of 22")
		s.allWays(t, other, "elsewhere", "190 of 20")
		must(t, c, "SAVEPOINT a")
		must(t, c, "DELETE FROM few WHERE id > 1")
		s.allWays(t, c, "behind a savepoint", "1001 of 2")
		must(t, c, "ROLLBACK TO a")
		s.allWays(t, c, "behind ROLLBACK TO", "1201 of 22")
		must(t, c, end)
		s.allWays(t, c, "behind "+end, map[string]string{"ROLLBACK": "190 of 20", "COMMIT": "1201 of 22"}[end])
	}
	s.allWays(t, other, "elsewhere in the end", "1201 of 22")
	must(t, c, "DELETE FROM few WHERE id >= 100")
	must(t, c, "UPDATE few SET n = id")

	// As the first statement, and with writes by key behind it.
	for _, way := range scatterWays {
		must(t, c, "BEGIN")
		if got := summed(t, c, way.text); got != "190 of 20" {
			t.Error(way.name, got)
		}
		for i, k := range s.keys {
			must(t, c, "UPDATE few SET n = n + $2 WHERE k = $1 AND id < 2", k, i+1)
		}
		s.allWays(t, c, "behind "+way.name, "193 of 20")
		must(t, c, "COMMIT")
		s.allWays(t, other, "behind COMMIT", "193 of 20")
		must(t, c, "UPDATE few SET n = id")
	}
}

// scatterModes reads in transactions of all modes.
func scatterModes(t *testing.T, s *scattered) {
	c, other := s.connect(), s.connect()
	must(t, c, "BEGIN READ ONLY")
	s.allWays(t, c, "read only", "190 of 20")
	fails(t, c, "UPDATE few SET n = 0", "25006")
	must(t, c, "ROLLBACK")

	for _, begin := range []string{"BEGIN ISOLATION LEVEL REPEATABLE READ", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"} {
		must(t, c, begin)
		s.allWays(t, c, begin, "190 of 20")
		must(t, other, "UPDATE few SET n = n + 1")
		s.allWays(t, other, "elsewhere", "210 of 20")
		s.allWays(t, c, "others' writes", "190 of 20")
		must(t, c, "COMMIT")
		s.allWays(t, c, "behind it", "210 of 20")
		must(t, other, "UPDATE few SET n = id")
	}
	must(t, c, "BEGIN")
	s.allWays(t, c, "read committed", "190 of 20")
	must(t, other, "UPDATE few SET n = n + 1")
	s.allWays(t, c, "others' writes, read committed", "210 of 20")
	must(t, c, "COMMIT")
	must(t, other, "UPDATE few SET n = id")

	for _, first := range []bool{true, false} {
		must(t, c, "BEGIN")
		if !first {
			s.allWays(t, c, "before SET LOCAL", "190 of 20")
		}
		must(t, c, "SET LOCAL work_mem = '77MB'")
		for _, sql := range []string{"SELECT count(*)::text || max(current_setting('work_mem')) || min(current_setting('work_mem')) FROM few",
			"SELECT string_agg(DISTINCT current_setting('work_mem') || (a.n - b.n), '') || count(*) FROM few a JOIN few b ON a.n = b.n"} {
			if got := one(t, c, sql); got != "2077MB77MB" && got != "77MB020" {
				t.Error("SET LOCAL:", got)
			}
		}
		for _, v := range drainedTexts(t, c, "SELECT current_setting('work_mem') FROM few ORDER BY id") {
			if v != "77MB" {
				t.Error("SET LOCAL, merged:", v)
			}
		}
		must(t, c, "COMMIT")
	}
	if got := one(t, c, "SELECT max(current_setting('work_mem')) || min(current_setting('work_mem')) FROM few"); strings.Contains(got, "77MB") {
		t.Error("SET LOCAL stays:", got)
	}
}

// drainedTexts returns the first column of all rows.
func drainedTexts(t *testing.T, c *pgx.Conn, sql string, args ...any) []string {
	t.Helper()
	rows, err := c.Query(within(t, 20*time.Second), sql, args...)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return all
}

// scatterPhases commits in one phase where one shard was written, whatever was read; and in two where two were.
func scatterPhases(t *testing.T, s *scattered) {
	decisions := func() (n int) {
		for _, direct := range s.direct {
			n += int(ints(t, direct, "SELECT count(*) FROM shardproxy.commits")[0])
		}
		return n
	}
	c := s.connect()
	for writes := range 3 {
		before := decisions()
		must(t, c, "BEGIN")
		s.allWays(t, c, "before", "190 of 20")
		for _, k := range s.keys[:writes] {
			must(t, c, "UPDATE few SET n = n WHERE k = $1", k)
			s.allWays(t, c, "between", "190 of 20")
		}
		must(t, c, "COMMIT")
		if got := decisions() - before; got != writes/2 {
			t.Errorf("with writes on %d shards %d commits of two phases", writes, got)
		}
	}
}

// scatterMoment shows that the time of a transaction is one on all shards, in all ways.
func scatterMoment(t *testing.T, s *scattered) {
	c := s.connect()
	texts := []string{
		"SELECT DISTINCT now()::text FROM few", "SELECT now()::text FROM few", "SELECT now()::text FROM few ORDER BY id", "SELECT current_timestamp::text FROM few GROUP BY k",
		"SELECT max(now())::text FROM few UNION SELECT min(now())::text FROM few", "SELECT transaction_timestamp()::text FROM few a JOIN few b ON a.n = b.n",
		"SELECT a.t::text FROM (SELECT id, now() AS t FROM few) a JOIN (SELECT n, now() AS t FROM few) b ON a.id = b.n AND a.t = b.t",
		"SELECT DISTINCT t::text FROM (SELECT now() AS t, n FROM few) x",
	}
	distinct := func(sql string) (v string) {
		t.Helper()
		all := drainedTexts(t, c, sql)
		for _, one := range all {
			if v = all[0]; one != v {
				t.Errorf("%s: %v", sql, all)
				break
			}
		}
		if len(all) == 0 {
			t.Errorf("%s: no rows", sql)
		}
		return v
	}
	last := ""
	for _, sql := range texts {
		v := distinct(sql)
		if v <= last {
			t.Errorf("%s: %s, behind %s", sql, v, last)
		}
		last = v
	}
	must(t, c, "BEGIN")
	began := distinct(texts[0])
	for _, sql := range texts {
		if v := distinct(sql); v != began {
			t.Errorf("%s: %s in a transaction that began at %s", sql, v, began)
		}
	}
	must(t, c, "COMMIT")
	for _, sql := range []string{"SELECT count(*) FROM few WHERE current_date = (now() AT TIME ZONE current_setting('TimeZone'))::date", "SELECT count(*) FROM few WHERE now() - interval '1 day' < current_date + interval '1 day' AND current_date > $1::date",
		"SELECT count(*) FROM few a JOIN few b ON a.n = b.n WHERE current_date > $1::date AND localtimestamp > a.n * interval '1 s' + $1::timestamp"} {
		var args []any
		if strings.Contains(sql, "$1") {
			args = append(args, time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC))
		}
		if got := one(t, c, sql, args...); got != "20" {
			t.Errorf("%s: %s", sql, got)
		}
	}
}

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// scatterFails are queries that fail on one shard, with the rows that come before.
var scatterFails = []struct {
	name, text, shard string
	before            bool // rows come before
}{
	{"rows", "SELECT id, 1 / (id - 5) FROM few", "s1", false},
	{"ordered rows", "SELECT id, 1 / (id - 5) FROM few ORDER BY id", "s1", false},
	{"rows of the other", "SELECT id FROM few WHERE 1 / (id - 4) = 0 OR nap(id, 0)", "s0", false},
	{"groups", "SELECT sum(1 / (id - 5)) FROM few", "s1", false},
	{"inputs", "SELECT a.id FROM few a JOIN few b ON a.n = b.n WHERE 1 / (a.id - 5) > 5", "s1", false},
	{"the end", "SELECT a.id, 1 / (a.n - b.n) FROM few a JOIN few b ON a.n = b.n", "s0", false},
	{"the last rows", "SELECT id, name, 1 / (199997 - id) FROM wide", "s1", true},
	{"the last ordered rows", "SELECT id, name, CASE WHEN id > 199990 THEN 1 / (199998 - id) END FROM wide ORDER BY k, id", "s0", true},
}

// scatterErrors has a shard fail before and behind the first rows.
func scatterErrors(t *testing.T, s *scattered) {
	c := s.connect()
	for _, f := range scatterFails {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheStatement} {
			n, err := drained(t, c, f.text, mode)
			pe, _ := err.(*pgconn.PgError)
			if pe == nil || pe.Code != "22012" || pe.Detail != "Shard "+f.shard+"." || pe.Position != 0 || f.before && n == 0 {
				t.Errorf("%s, %v: %d rows, %v", f.name, mode, n, err)
				if pe != nil {
					t.Logf("%+v", *pe)
				}
			}
			s.goesOn(t, c, false)
		}
	}
}

// drained runs a query and returns how many rows came, and the error.
func drained(t *testing.T, c *pgx.Conn, sql string, args ...any) (n int, err error) {
	t.Helper()
	rows, err := c.Query(within(t, 30*time.Second), sql, args...)
	if err != nil {
		return 0, err
	}
	for rows.Next() {
		n++
	}
	return n, rows.Err()
}

// scatterErrorsInTransaction has the client's transaction fail, and go on behind a savepoint, on all shards.
func scatterErrorsInTransaction(t *testing.T, s *scattered) {
	sums := func(c *pgx.Conn) string {
		var all []string
		for _, k := range s.keys {
			all = append(all, one(t, c, "SELECT sum(n) FROM few WHERE k = $1", k))
		}
		return strings.Join(append(all, one(t, c, "SELECT sum(n) FROM few")), " ")
	}
	for _, f := range scatterFails {
		t.Run(f.name, func(t *testing.T) {
			c := s.connect()
			if _, err := c.Exec(within(t, 10*time.Second), "BEGIN"); err != nil {
				t.Fatal(err)
			}
			_, err := drained(t, c, f.text)
			if sqlState(err) != "22012" {
				t.Error(err)
			}
			s.goesOn(t, c, true)

			must(t, c, "BEGIN")
			must(t, c, "UPDATE few SET n = n + 1000 WHERE k = $1", s.keys[1])
			must(t, c, "SAVEPOINT a")
			must(t, c, "UPDATE few SET n = n + 20000")
			must(t, c, "SAVEPOINT b")
			fails(t, c, f.text, "22012")
			fails(t, c, "SELECT 1", "25P02")
			must(t, c, "ROLLBACK TO SAVEPOINT b")
			if got := sums(c); got != "200090 210100 410190" {
				t.Error("behind the second savepoint:", got)
			}
			fails(t, c, f.text, "22012")
			must(t, c, "ROLLBACK TO SAVEPOINT a")
			if got := sums(c); got != "90 10100 10190" {
				t.Error("behind the first savepoint:", got)
			}
			must(t, c, "UPDATE few SET n = n + 1 WHERE k = $1", s.keys[0])
			if got := sums(c); got != "100 10100 10200" {
				t.Error("behind another write:", got)
			}
			must(t, c, "ROLLBACK")
			if got := sums(c); got != "90 100 190" {
				t.Error("in the end:", got)
			}
		})
	}
	// What a failed transaction is told at its end.
	c := s.connect()
	must(t, c, "BEGIN")
	must(t, c, "UPDATE few SET n = 0")
	fails(t, c, "SELECT sum(1 / (id - 5)) FROM few", "22012")
	if tag, err := c.Exec(within(t, 10*time.Second), "COMMIT"); err != nil || tag.String() != "ROLLBACK" {
		t.Error("COMMIT of a failed transaction:", tag, err)
	}
	if got := sums(c); got != "90 100 190" {
		t.Error("in the end:", got)
	}
}

// scatterTimeout lets the servers end what takes too long.
func scatterTimeout(t *testing.T, s *scattered) {
	for _, in := range []bool{false, true} {
		c := s.connect()
		for _, long := range scatterLong {
			if in {
				must(t, c, "BEGIN")
				must(t, c, "SET LOCAL statement_timeout = '60ms'")
			} else {
				must(t, c, "SET statement_timeout = '60ms'")
			}
			begin := time.Now()
			_, err := c.Exec(within(t, 10*time.Second), long.text)
			pe, _ := err.(*pgconn.PgError)
			if pe == nil || pe.Code != "57014" || !strings.Contains(pe.Message, "statement timeout") || !strings.HasPrefix(pe.Detail, "Shard s") || time.Since(begin) > time.Second {
				t.Errorf("%s, in a transaction %v: after %v %v", long.name, in, time.Since(begin), err)
			}
			if !in {
				must(t, c, "RESET statement_timeout")
			}
			s.goesOn(t, c, in)
		}
	}
}

// TestScatterFaults kills a shard at every stage of a query.
func TestScatterFaults(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		s := startScattered(t, 2, 100000, runtime)
		for victim := range 2 {
			if victim == 0 && runtime != "runtime: {driver: auto}" {
				continue // what differs between the drivers does not between the shards
			}
			t.Run(fmt.Sprint("a connection of ", victim, " ends"), func(t *testing.T) { s.loses(t, victim, false) })
			t.Run(fmt.Sprint("shard ", victim, " is killed"), func(t *testing.T) { s.loses(t, victim, true) })
		}
		t.Run("before", func(t *testing.T) { scatterDiesBefore(t, s) })
	})
}

// loses kills a shard, or the connections to it, while queries run.
func (s *scattered) loses(t *testing.T, victim int, kill bool) {
	type stage struct{ name, text, works string }
	stages := []stage{{"streaming", wideRows, "wait_event = 'ClientWrite'"}, {"merging", wideRows + " ORDER BY id", "wait_event = 'ClientWrite'"}}
	for _, long := range scatterLong {
		if long.shards == 2 {
			stages = append(stages, stage{long.name, strings.ReplaceAll(long.text, "1)", "0.05)"), long.works})
		}
	}
	for i, at := range stages {
		for _, in := range []string{"", "BEGIN; "} {
			if kill && (i != 1 || in != "") && (i != len(stages)-1 || in == "") {
				continue // a kill takes long
			}
			if !kill && i > 1 && (i%2 == 0) != (in == "") {
				continue
			}
			c := speak(t, s.dsn())
			r := (&talker{t, c.conn.Conn}).query(in + at.text)
			s.running(t, at.works, 2)
			if kill {
				s.shards[victim].Primary().Kill9()
			} else {
				must(t, s.direct[victim], "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
			}
			for ok := true; ok; {
				_, ok = r.next()
			}
			if in == "" && i > 1 && r.tag == "SELECT 20" {
				continue // nobody had had a row: it ran again
			}
			if strings.HasPrefix(r.tag, "SELECT") || len(r.err) != 5 || !strings.HasPrefix(r.err, "08") && !strings.HasPrefix(r.err, "57") {
				t.Errorf("%s %s: %q %q", at.name, in, r.tag, r.err)
			}
			_ = c.conn.Conn.Close()
			if kill {
				s.comesBack(t, victim)
			}
			other := s.connect()
			soon(t, 5*time.Second, "queries are answered again", func() bool {
				_, err := other.Exec(within(t, 10*time.Second), "SELECT id FROM few ORDER BY id")
				if err != nil && other.IsClosed() {
					other = s.connect()
				}
				return err == nil
			})
			s.goesOn(t, other, false)
			s.free(t, at.name)
		}
	}
}

// comesBack starts a shard that was killed.
func (s *scattered) comesBack(t *testing.T, victim int) {
	s.shards[victim].Primary().Start()
	s.direct[victim] = s.connectDirect(t, victim)
}

// scatterDiesBefore asks while a shard is away: the query waits for it, as one with a key does.
func scatterDiesBefore(t *testing.T, s *scattered) {
	for _, sql := range []string{fmt.Sprintf("SELECT id FROM few WHERE k = %d", s.keys[1]), "SELECT id FROM few", "SELECT id FROM few ORDER BY id", "SELECT count(*) FROM few", "SELECT a.id FROM few a JOIN few b ON a.id = b.n"} {
		c := s.connect()
		must(t, c, sql) // its server connections are there, and will be found lost
		s.shards[1].Primary().Kill9()
		done := make(chan error, 1)
		go func() {
			n, err := drained(t, c, sql)
			if err == nil && n == 0 {
				err = fmt.Errorf("no rows")
			}
			done <- err
		}()
		select {
		case err := <-done:
			t.Errorf("%s, while its shard is away: %v", sql, err)
			done <- nil
		case <-time.After(300 * time.Millisecond):
		}
		s.comesBack(t, 1)
		if err := <-done; err != nil {
			t.Errorf("%s, once its shard is back: %v", sql, err)
		}
		if c.IsClosed() {
			t.Errorf("%s: the session has ended", sql)
		}
	}
}

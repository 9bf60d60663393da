package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestMoment writes the time of the transaction on several shards: it is one.
func TestMoment(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, "      stamped: {key: id}\n      stampedref: {reference: true}\nruntime: {driver: "+driver+"}")
			c := s.connectLoaded()
			must(t, c, "CREATE TABLE stamped (id bigserial PRIMARY KEY, note text, at timestamptz NOT NULL DEFAULT now(), "+
				"utc timestamp DEFAULT timezone('utc', now()), day date DEFAULT CURRENT_DATE)")
			must(t, c, "CREATE TABLE stampedref (id bigserial PRIMARY KEY, note text, at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP, "+
				"day date DEFAULT (CURRENT_DATE + 1), own timestamptz DEFAULT clock_timestamp())")
			for _, test := range []struct {
				name string
				run  func(*testing.T, *shardedProgram, *pgx.Conn)
			}{{"texts", momentInTexts}, {"defaults", momentInDefaults}, {"copies", momentInCopies}, {"transactions", momentInTransactions}} {
				t.Run(test.name, func(t *testing.T) { test.run(t, s, c) })
			}
		})
	}
}

// times returns the different values of a column of all shards, and how many shards have some.
func (s *shardedProgram) times(column, from string) (all map[string]bool, shards int) {
	all = map[string]bool{}
	for _, got := range s.onEach("SELECT coalesce(string_agg(DISTINCT " + column + "::text, ','), '') FROM " + from) {
		if got != "" {
			shards++
			for _, one := range strings.Split(got, ",") {
				all[one] = true
			}
		}
	}
	return all, shards
}

// oneTime fails the test unless both shards have one time and no other.
func (s *shardedProgram) oneTime(t *testing.T, column, from string) {
	t.Helper()
	if all, shards := s.times(column, from); len(all) != 1 || shards != 2 {
		t.Errorf("%s of %s is %v on %d shards", column, from, all, shards)
	}
}

func momentInTexts(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	for i := range 20 {
		must(t, c, "INSERT INTO stamped (id, note) VALUES ($1, 'texts')", i+1000)
	}
	if all, _ := s.times("at", "stamped WHERE note = 'texts'"); len(all) != 20 {
		t.Errorf("twenty transactions have %d times", len(all))
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
		must(t, c, "UPDATE stamped SET at = now() WHERE note = $1", mode, "texts")
		s.oneTime(t, "at", "stamped WHERE note = 'texts'")
	}
	must(t, c, "UPDATE stamped SET utc = localtimestamp, day = CURRENT_DATE + 1 WHERE id = ANY($1)", []int64{1000, 1001, 1002, 1003, 1004, 1005})
	s.oneTime(t, "utc", "stamped WHERE id BETWEEN 1000 AND 1005")
	var rows []string
	for i := range 10 {
		rows = append(rows, fmt.Sprintf("(%d, 'now()', now())", i+2000))
	}
	must(t, c, "INSERT INTO stamped (id, note, at) VALUES "+strings.Join(rows, ", "))
	s.oneTime(t, "at", "stamped WHERE note = 'now()'")
	s.oneTime(t, "utc", "stamped WHERE note = 'now()'")
	s.oneTime(t, "day", "stamped WHERE note = 'now()'")
	// It is the time of a server, and of now.
	var late float64
	if err := c.QueryRow(within(t, 10*time.Second), "SELECT extract(epoch FROM clock_timestamp() - at)::float8 FROM stamped WHERE id = 2000").Scan(&late); err != nil || late < 0 || late > 30 {
		t.Error("the time is off by", late, err)
	}
	b := &pgx.Batch{}
	b.Queue("UPDATE stamped SET at = now(), note = 'batch' WHERE id IN (1000, 1001, 1002, 1003, 1004, 1005)")
	b.Queue("INSERT INTO stamped (id, note) VALUES (3000, 'batch'), (3001, 'batch'), (3002, 'batch'), (3003, 'batch')")
	if said, err := batched(t, c, b); err != nil {
		t.Fatal(said, err)
	}
	s.oneTime(t, "at", "stamped WHERE note = 'batch'")
	fails(t, c, "UPDATE stamped SET note = 'x' RETURNING now()", "0A000")
}

func momentInDefaults(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	must(t, c, "INSERT INTO stamped (note) VALUES ('drawn'), ('drawn'), ('drawn'), ('drawn'), ('drawn'), ('drawn'), ('drawn'), ('drawn')")
	for _, column := range []string{"at", "utc", "day"} {
		s.oneTime(t, column, "stamped WHERE note = 'drawn'")
	}
	must(t, c, "INSERT INTO stamped (note, at) VALUES ('some', DEFAULT), ('some', DEFAULT), ('some', DEFAULT), ('some', DEFAULT), ('some', DEFAULT), ('some', '2020-01-01')")
	if all, _ := s.times("at", "stamped WHERE note = 'some'"); len(all) != 2 {
		t.Error("with one that was given there are", all)
	}
	var at, utc time.Time
	must(t, c, "SET timezone = 'Asia/Kolkata'")
	if err := c.QueryRow(within(t, 10*time.Second), "INSERT INTO stamped (note) VALUES ('alone') RETURNING at, utc").Scan(&at, &utc); err != nil || time.Since(at).Abs() > time.Minute {
		t.Error("one row:", at, utc, err)
	}
	must(t, c, "RESET timezone")
}

func momentInCopies(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	fails(t, c, "INSERT INTO stampedref (note) VALUES ('own')", "0A000")
	must(t, c, "INSERT INTO stampedref (note, own) VALUES ('ref', NULL), ('ref', NULL)")
	s.oneTime(t, "at", "stampedref WHERE note = 'ref'")
	s.oneTime(t, "day", "stampedref WHERE note = 'ref'")
	must(t, c, "UPDATE stampedref SET at = now(), own = CURRENT_TIMESTAMP WHERE note = 'ref'")
	s.oneTime(t, "at", "stampedref WHERE note = 'ref'")
	s.oneTime(t, "own", "stampedref WHERE note = 'ref'")
	must(t, c, "INSERT INTO stampedref VALUES (77, 'conflict', now(), CURRENT_DATE, now()) ON CONFLICT (id) DO UPDATE SET at = now()")
	must(t, c, "INSERT INTO stampedref VALUES (77, 'conflict', now(), CURRENT_DATE, now()) ON CONFLICT (id) DO UPDATE SET at = excluded.at")
	s.oneTime(t, "at", "stampedref WHERE note = 'conflict'")
	must(t, c, "CREATE VIEW clock AS SELECT now() AS at")
	must(t, c, "INSERT INTO stampedref SELECT 78, 'view', at, at::date, at FROM clock")
	s.oneTime(t, "at", "stampedref WHERE note = 'view'")
	fails(t, c, "UPDATE stampedref SET at = DEFAULT", "0A000")
	fails(t, c, "INSERT INTO stampedref (note, own) VALUES ('x', NULL) RETURNING now()", "0A000")
}

func momentInTransactions(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	must(t, c, "BEGIN")
	must(t, c, "UPDATE stamped SET at = now(), note = 'tx' WHERE id < 1010")
	must(t, c, "SELECT pg_sleep(0.01)")
	must(t, c, "UPDATE stamped SET at = now(), note = 'tx' WHERE id >= 1010")
	must(t, c, "INSERT INTO stampedref (note, own) VALUES ('tx', now())")
	must(t, c, "COMMIT")
	s.oneTime(t, "at", "(SELECT at FROM stamped WHERE note = 'tx' UNION SELECT own FROM stampedref WHERE note = 'tx') x")
}

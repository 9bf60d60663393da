package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// TestScatterStrict cancels late, has one shard fail while others work, and loses connections.
func TestScatterStrict(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		s := startScattered(t, 2, 100, runtime)
		for _, test := range []struct {
			name string
			run  func(*testing.T, *scattered)
		}{{"late cancel", scatterLateCancel}, {"others", scatterCancelsOthers}, {"formats", scatterFormatsMany}, {"lost reads", scatterLostReads}, {"refused first", scatterRefusedFirst}} {
			t.Run(test.name, func(t *testing.T) { test.run(t, s) })
		}
	})
}

// scatterCancelsOthers shows that a shard that fails keeps nobody waiting for the others.
func scatterCancelsOthers(t *testing.T, s *scattered) {
	for _, text := range []string{
		"SELECT id FROM few WHERE CASE WHEN id % 2 = 1 THEN 1 / (id - 5) = 0 ELSE nap(id, 0.3) END",
		"SELECT id FROM few WHERE CASE WHEN id % 2 = 1 THEN 1 / (id - 5) = 0 ELSE nap(id, 0.3) END ORDER BY id",
		"SELECT n, count(*) FROM few WHERE CASE WHEN id % 2 = 1 THEN 1 / (id - 5) = 0 ELSE nap(id, 0.3) END GROUP BY n",
		"SELECT a.id FROM few a JOIN few b ON a.n = b.n WHERE CASE WHEN a.id % 2 = 1 THEN 1 / (a.id - 5) = 0 ELSE nap(a.id, 0.3) END",
	} {
		for _, in := range []bool{false, true} {
			c := s.connect()
			if in {
				must(t, c, "BEGIN")
			}
			begin := time.Now()
			fails(t, c, text, "22012")
			if took := time.Since(begin); took > time.Second {
				t.Errorf("%s: one shard fails at once, the client is told after %v", text, took)
			}
			s.goesOn(t, c, in)
		}
	}
}

// scatterFormatsMany gives a number of formats that is not that of the columns.
func scatterFormatsMany(t *testing.T, s *scattered) {
	c := speak(t, s.dsn())
	for _, text := range []string{"SELECT id, n, k FROM few WHERE id = 7", "SELECT id, n, k FROM few WHERE id = 7 ORDER BY n", "SELECT max(id), max(n), 1 FROM few", "SELECT a.id, b.n, 1 FROM few a JOIN few b ON a.id = b.n WHERE a.id = 7 ORDER BY 2"} {
		for _, formats := range [][]int16{{1, 1}, {0, 0, 0, 0}} {
			b := &pgproto3.Bind{ResultFormatCodes: formats}
			if got := shortErrors(c.say(request([]message{parse("", text), b, execute("")})...)); !strings.Contains(got, "error 08P01") || strings.Contains(got, "row") {
				t.Errorf("%s, %d formats: %s", text, len(formats), got)
			}
		}
	}
}

// scatterLostReads loses a server connection of reads whose rows nobody has had: they run again, as the read with a key does.
func scatterLostReads(t *testing.T, s *scattered) {
	for _, sql := range []string{fmt.Sprintf("SELECT id FROM few WHERE k = %d AND nap(id, 0.05) ORDER BY id", s.keys[1]), "SELECT id FROM few WHERE nap(id, 0.05) ORDER BY id", "SELECT count(*) FROM few WHERE nap(id, 0.05)"} {
		c := s.connect()
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(within(t, 20*time.Second), sql, pgx.QueryExecModeSimpleProtocol)
			done <- err
		}()
		eventually(t, "the second shard works", func() bool {
			if len(done) > 0 {
				t.Fatalf("%s: ended with %v", sql, <-done)
			}
			return s.waitOn(1, "wait_event = 'PgSleep'") == 1
		})
		must(t, s.direct[1], "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
		if err := <-done; err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// scatterRefusedFirst has the first statement of a transaction refused once it has a connection. What comes behind is looked at as if
// nothing had been refused: it is not sent to that connection as it is.
func scatterRefusedFirst(t *testing.T, s *scattered) {
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		c := s.connect()
		must(t, c, "BEGIN ISOLATION LEVEL SERIALIZABLE")
		if _, err := c.Exec(within(t, 10*time.Second), "SELECT count(*) FROM few", mode); sqlState(err) != "0A000" {
			t.Fatal(err)
		}
		results, err := c.PgConn().Exec(within(t, 10*time.Second), "ROLLBACK; SELECT count(*) FROM few").ReadAll()
		if err == nil && string(results[1].Rows[0][0]) != "20" {
			t.Errorf("behind a refusal there are %s rows of 20", results[1].Rows[0][0])
		}
		must(t, c, "ROLLBACK")
		if got := ints(t, c, "SELECT count(*) FROM few"); got[0] != 20 {
			t.Errorf("behind a refusal and ROLLBACK there are %d rows of 20", got[0])
		}
	}
}

// TestScatterGatherMemory orders texts of 7 MiB on a server; the limit of what may be gathered is 16 MiB.
func TestScatterGatherMemory(t *testing.T) {
	s := startScatterProcess(t, 100000, "limits: {gather: 16MiB}\n")
	c := s.talk(t)
	grown := s.measured(t, func() {
		r := c.query("SELECT name FROM narrow ORDER BY name LIMIT 200000")
		for ok := true; ok; {
			_, ok = r.next()
		}
		if r.tag != "SELECT 200000" {
			t.Errorf("%q %q", r.tag, r.err)
		}
	})
	if grown > 64<<20 {
		t.Errorf("%d MiB more", grown>>20)
	}
}

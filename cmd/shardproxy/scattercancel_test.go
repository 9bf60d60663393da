package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// scatterLong are queries that take long, and on how many shards a server then does what works says.
var scatterLong = []struct {
	name, text, works string
	shards            int
}{
	{"rows", "SELECT id FROM few WHERE nap(id, 1)", "wait_event = 'PgSleep'", 2},
	{"ordered rows", "SELECT id FROM few WHERE nap(id, 1) ORDER BY id DESC LIMIT 3", "wait_event = 'PgSleep'", 2},
	{"one shard only", "SELECT id FROM few WHERE CASE WHEN id % 2 = 1 THEN nap(id, 1) ELSE true END", "wait_event = 'PgSleep'", 1},
	{"groups", "SELECT n, count(*) FROM few WHERE nap(id, 1) GROUP BY n", "wait_event = 'PgSleep'", 2},
	{"inputs", "SELECT a.id FROM few a JOIN few b ON a.n = b.id WHERE nap(a.id, 1)", "wait_event = 'PgSleep'", 2},
	{"the end", "SELECT id FROM few WHERE pg_sleep(1) IS NOT NULL", "wait_event = 'PgSleep'", 1},
}

// running waits until a query that takes long runs, for a while.
func (s *scattered) running(t *testing.T, works string, shards int) {
	t.Helper()
	for range 3 {
		soon(t, 3*time.Second, "the shards work", func() bool {
			n := 0
			for i := range s.shards {
				n += s.waitOn(i, works)
			}
			return n >= shards
		})
		<-time.After(20 * time.Millisecond)
	}
}

// scatterCancel cancels queries while shards work, and while rows stream.
func scatterCancel(t *testing.T, s *scattered) {
	for _, long := range scatterLong {
		for _, in := range []string{"", "in a transaction"} {
			t.Run(strings.TrimSpace(long.name+" "+in), func(t *testing.T) {
				c := s.connect()
				if in != "" {
					must(t, c, "BEGIN")
					must(t, c, "UPDATE few SET n = n WHERE k = $1", s.keys[1])
				}
				failed := make(chan error, 1)
				go func() {
					_, err := c.Exec(within(t, 30*time.Second), long.text)
					failed <- err
				}()
				s.running(t, long.works, long.shards)
				begin := time.Now()
				if err := c.PgConn().CancelRequest(within(t, 10*time.Second)); err != nil {
					t.Fatal(err)
				}
				if err := <-failed; sqlState(err) != "57014" || time.Since(begin) > time.Second {
					t.Errorf("after %v: %v", time.Since(begin), err)
				}
				s.goesOn(t, c, in != "")
			})
		}
	}
	for _, sql := range []string{wideRows, wideRows + " ORDER BY id"} {
		for _, in := range []string{"", "in a transaction"} {
			t.Run(strings.TrimSpace(sql+" "+in), func(t *testing.T) { s.cancelsStream(t, sql, in != "") })
		}
	}
}

// goesOn shows that the session does after a failure.
func (s *scattered) goesOn(t *testing.T, c *pgx.Conn, inTransaction bool) {
	t.Helper()
	if inTransaction {
		fails(t, c, "SELECT id FROM few", "25P02")
		fails(t, c, fmt.Sprintf("SELECT id FROM few WHERE k = %d", s.keys[0]), "25P02")
		must(t, c, "ROLLBACK")
	}
	if got := ints(t, c, "SELECT id FROM few ORDER BY id"); len(got) != 20 {
		t.Errorf("behind it there are %v", got)
	}
	for _, k := range s.keys {
		if got := ints(t, c, "SELECT id FROM few WHERE k = $1", k); len(got) != 10 {
			t.Errorf("behind it key %d has %v", k, got)
		}
	}
}

// cancelsStream cancels a query whose rows come.
func (s *scattered) cancelsStream(t *testing.T, sql string, in bool) {
	c := s.connect()
	if in {
		must(t, c, "BEGIN")
	}
	rows, err := c.Query(within(t, 30*time.Second), sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil || !rows.Next() {
		t.Fatal("no row:", err)
	}
	eventually(t, "both shards wait for the client to read", func() bool { return s.onAll(1, "wait_event = 'ClientWrite'") })
	cancelled := make(chan error, 1)
	go func() { cancelled <- c.PgConn().CancelRequest(within(t, 10*time.Second)) }()
	if err := <-cancelled; err != nil {
		t.Fatal(err)
	}
	n := 1
	for rows.Next() {
		n++
	}
	if sqlState(rows.Err()) != "57014" || n == 2*s.wide {
		t.Errorf("%d rows, %v", n, rows.Err())
	}
	s.goesOn(t, c, in)
}

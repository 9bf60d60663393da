package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestOpenQueries looks after queries that are read in pieces: what they hold, and what becomes of it.
func TestOpenQueries(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		s := startScattered(t, 2, 30000, runtime, "limits: {gather: 8MiB}\n")
		for _, test := range []struct {
			name string
			run  func(*testing.T, *scattered)
		}{{"whole", openWhole}, {"leaves", openLeaves}, {"cancel", openCancel}, {"limits", openLimits}, {"server lost", openLost}, {"hold", openHold}, {"conflicts", openConflicts}, {"returns", openReturns}} {
			t.Run(test.name, func(t *testing.T) {
				test.run(t, s)
				s.free(t, test.name)
				if n := held(s); n != 0 {
					t.Errorf("%d bytes are held", n)
				}
			})
		}
	})
}

// held is what the metric of gathered rows says.
func held(s *scattered) int64 {
	return s.p.state.Load().databases["app"].proxy.Totals().GatherHeld
}

// openWhole reads rows in no order in pieces: each once.
func openWhole(t *testing.T, s *scattered) {
	for _, pieces := range []uint32{1000, 7777, 59999, 60000, 60001} {
		c := speak(t, s.dsn())
		c.say(simple("BEGIN"))
		said := c.say(request([]message{parse("", "SELECT id FROM wide"), bind("p", ""), pieceOf("p", pieces)})...)
		var rows []string
		for {
			n := 0
			for _, line := range said {
				if strings.HasPrefix(line, "row ") {
					rows = append(rows, line)
					n++
				}
			}
			last := said[len(said)-2]
			if last == fmt.Sprintf("complete SELECT %d", n) && n < int(pieces) {
				break
			}
			if last != "PortalSuspended" || n != int(pieces) {
				t.Fatalf("a piece of %d rows, asked for %d, ends with %s", n, pieces, last)
			}
			if h := held(s); h > 4<<20 {
				t.Fatalf("%d bytes are held", h)
			}
			said = c.say(request([]message{pieceOf("p", pieces)})...)
		}
		slices.Sort(rows)
		if all := len(rows); all != 60000 || len(slices.Compact(rows)) != all {
			t.Errorf("in pieces of %d: %d rows", pieces, all)
		}
		c.say(simple("COMMIT"))
	}
}

// openLeaves has clients leave between two pieces.
func openLeaves(t *testing.T, s *scattered) {
	for _, sql := range []string{"SELECT id, name FROM wide", "SELECT id, name FROM wide ORDER BY id", "SELECT count(*), n FROM few GROUP BY n"} {
		c := speak(t, s.dsn())
		c.say(simple("BEGIN"))
		c.say(request([]message{parse("", sql), bind("p", ""), pieceOf("p", 5)})...)
		if !s.onAll(1, "state = 'idle in transaction'") {
			t.Error("between two pieces the shards are not idle")
		}
		_ = c.conn.Conn.Close() // in the middle
		s.free(t, sql)
	}
}

// openCancel cancels a piece, which fails the transaction, and one that is not wanted any more.
func openCancel(t *testing.T, s *scattered) {
	for _, sql := range []string{"SELECT id FROM few WHERE nap(id, 5)", "SELECT id FROM few WHERE nap(id, 5) ORDER BY id", "SELECT a.id FROM few a JOIN few b ON a.id = b.id + 0 WHERE nap(a.id, 5) AND a.id > b.n - 1"} {
		c := s.connect()
		must(t, c, "BEGIN")
		go func() {
			<-time.After(200 * time.Millisecond)
			_ = c.PgConn().CancelRequest(within(t, 10*time.Second)) // what comes of it is seen below
		}()
		begin := time.Now()
		if _, err := c.Exec(within(t, 30*time.Second), "DECLARE c NO SCROLL CURSOR FOR "+sql, pgx.QueryExecModeSimpleProtocol); err == nil {
			_, err = c.Exec(within(t, 30*time.Second), "FETCH 5 FROM c", pgx.QueryExecModeSimpleProtocol)
			if sqlState(err) != "57014" {
				t.Errorf("%s: %v", sql, err)
			}
		} else if sqlState(err) != "57014" {
			t.Errorf("%s: %v", sql, err)
		}
		if d := time.Since(begin); d > 4*time.Second {
			t.Errorf("%s: took %v", sql, d)
		}
		fails(t, c, "SELECT 1", "25P02")
		must(t, c, "ROLLBACK")
		_ = c.Close(t.Context())
	}
}

// openLimits has a cursor that would have to hold more than limits.gather.
func openLimits(t *testing.T, s *scattered) {
	c := s.connect()
	must(t, c, "BEGIN")
	must(t, c, "DECLARE c NO SCROLL CURSOR FOR SELECT id, repeat(name, 5000) FROM wide")
	fails(t, c, "FETCH 100 FROM c", "54000")
	must(t, c, "ROLLBACK")
	must(t, c, "BEGIN")
	fails(t, c, "DECLARE c SCROLL CURSOR FOR SELECT id, name FROM wide", "54000")
	must(t, c, "ROLLBACK")
	must(t, c, "BEGIN")
	must(t, c, "DECLARE c NO SCROLL CURSOR FOR SELECT id, repeat(name, 100) FROM wide WHERE id < 3000 ORDER BY id")
	must(t, c, "MOVE ALL IN c")
	must(t, c, "ROLLBACK")
	_ = c.Close(t.Context())
}

// openLost ends a server's connection between two pieces.
func openLost(t *testing.T, s *scattered) {
	c := speak(t, s.dsn())
	c.say(simple("BEGIN"))
	c.say(simple("DECLARE c NO SCROLL CURSOR FOR SELECT id FROM wide ORDER BY id"))
	c.say(simple("FETCH 5 FROM c"))
	must(t, s.direct[1], "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle in transaction'")
	soon(t, 5*time.Second, "the connection has ended", func() bool { return s.waitOn(1, "state = 'idle in transaction'") == 0 })
	said := c.say(simple("FETCH 50000 FROM c"))
	if last := said[len(said)-1]; last != "ended" && last != "ready E" || !slices.ContainsFunc(said, func(line string) bool { return strings.HasPrefix(line, "error ") }) {
		t.Errorf("%.300q", said)
	}
	_ = c.conn.Conn.Close() // it may have ended
}

// holdsTable does what the hint of a refused cursor WITH HOLD says: a table that is not declared is on one shard, whose cursors may be held.
func holdsTable(t *testing.T, c *pgx.Conn) {
	t.Helper()
	var e *pgconn.PgError
	if _, err := c.Exec(t.Context(), "DECLARE c CURSOR WITH HOLD FOR SELECT id FROM few"); !errors.As(err, &e) || !strings.Contains(e.Hint, "CREATE TABLE ... AS") {
		t.Errorf("%v: %+v", err, e)
	}
	must(t, c, "CREATE TABLE fewkept AS SELECT id FROM few")
	must(t, c, "BEGIN")
	must(t, c, "DECLARE kept SCROLL CURSOR WITH HOLD FOR SELECT id FROM fewkept ORDER BY id")
	must(t, c, "COMMIT")
	if got := one(t, c, "FETCH ABSOLUTE 8 FROM kept"); got != "7" {
		t.Error("held:", got)
	}
	must(t, c, "CLOSE kept")
	must(t, c, "DROP TABLE fewkept")
	fails(t, c, "FETCH kept", "34000")
}

// openHold has what cannot be made right.
func openHold(t *testing.T, s *scattered) {
	c := s.connect()
	fails(t, c, "DECLARE c CURSOR WITH HOLD FOR SELECT id FROM few", "0A000")
	holdsTable(t, c)
	must(t, c, "BEGIN")
	fails(t, c, "DECLARE c CURSOR WITH HOLD FOR SELECT id FROM few", "0A000")
	must(t, c, "ROLLBACK")
	must(t, c, "BEGIN")
	fails(t, c, "DECLARE c CURSOR FOR SELECT id FROM few FOR UPDATE", "0A000")
	must(t, c, "ROLLBACK")
	must(t, c, "BEGIN")
	must(t, c, "DECLARE c CURSOR FOR SELECT id FROM few")
	must(t, c, "FETCH c")
	fails(t, c, "DELETE FROM few WHERE CURRENT OF c", "0A000")
	must(t, c, "ROLLBACK")
	_ = c.Close(t.Context())
}

// openReturns has what writes on several shards give as many rows as a limit: nothing is written.
func openReturns(t *testing.T, s *scattered) {
	c := speak(t, s.dsn())
	const text = "UPDATE few SET n = 1000 RETURNING id"
	limited := []message{parse("", text), bind("", ""), pieceOf("", 20)}
	for _, requests := range [][][]message{{request(limited)}, {{simple("BEGIN")}, request(limited), request(extended("SELECT 1")), {simple("COMMIT")}}, {request(extended("SELECT count(*) FROM few"), limited)}} {
		said := ""
		for _, r := range requests {
			said += shortErrors(c.say(r...)) + " | "
		}
		if !strings.Contains(said, "error 0A000") || strings.Contains(said, "COMMIT") {
			t.Error(said)
		}
		if got := shortErrors(c.say(simple("SELECT max(n) AS m FROM few"))); !strings.Contains(got, `row "19"`) {
			t.Error(got)
		}
	}
}

// openConflicts has an open query of many cursors at once, in a transaction that commits on all shards.
func openConflicts(t *testing.T, s *scattered) {
	c := s.connect()
	must(t, c, "BEGIN")
	for i := range 50 {
		must(t, c, fmt.Sprintf("DECLARE c%d NO SCROLL CURSOR FOR SELECT id FROM wide ORDER BY id", i))
		ints(t, c, fmt.Sprintf("FETCH %d FROM c%d", i+1, i))
		must(t, c, fmt.Sprintf("UPDATE few SET n = n WHERE k = %d", s.keys[i%2]))
	}
	for i := range 50 {
		if got := ints(t, c, fmt.Sprintf("FETCH 1 FROM c%d", i)); len(got) != 1 || got[0] != int64(i+1) {
			t.Errorf("cursor %d goes on with %d", i, got)
		}
	}
	must(t, c, "COMMIT")
	_ = c.Close(t.Context())
}

package proxy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/proxy"
)

// TestResultSize: a result that is larger than it may be ends with an error, within little more than it may be, and
// the session goes on: by every protocol, whether the server is still at it or has been done long ago, in a transaction, that
// fails, and outside. What has changed something that cannot be taken back ends the session.
func TestResultSize(t *testing.T) {
	const limit = 100_000
	for _, driver := range []proxy.Driver{proxy.DriverAuto, proxy.DriverGoroutine} {
		f := start(t, fixtureOptions{driver: driver, size: 3, user: func(p *proxy.UserPolicy) { p.ResultMax = limit }})
		if _, err := f.direct().Exec(ctx10(t), "CREATE TABLE noted (n int); GRANT ALL ON noted TO PUBLIC"); err != nil {
			t.Fatal(err)
		}
		f.learn()
		for what, sql := range map[string]string{
			"the server has been done":  "SELECT repeat('x', 1000) FROM generate_series(1, 120)",
			"the server is still at it": "SELECT repeat('x', 1000), pg_sleep(0.05 * (n > 150)::int) FROM generate_series(1, 1000) n",
			"much":                      "SELECT repeat('x', 1000) FROM generate_series(1, 100000)",
			"one row":                   "SELECT repeat('x', 300000)",
			"COPY":                      "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 120)) TO STDOUT",
			"much of COPY":              "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT",
		} {
			for name, frames := range map[string][]frame{"simple": {fQuery(sql)}, "extended": segment(sql)} {
				for _, begin := range []bool{false, true} {
					c := mustDial(t, f.addr, "app")
					if begin {
						c.do(t, "BEGIN; INSERT INTO noted VALUES (1); SAVEPOINT s")
					}
					lines := c.say(1, frames...)
					got, most := strings.Join(lines, " | "), 500_000
					if !contains(lines, `ERROR 54000 "the result takes more bytes`) || contains(lines, `C "`) || len(got) > most || contains(lines, "END") {
						t.Errorf("driver %v, %s, %s, in a transaction: %v: %d bytes end with %.300s", driver, what, name, begin, len(got), got[max(0, len(got)-300):])
						continue
					}
					status := lines[len(lines)-1]
					if !begin && status != `Z "I"` || begin && status != `Z "E"` {
						t.Errorf("driver %v, %s, %s: status %s", driver, what, name, status)
					}
					if begin {
						c.mustAsk(t, "SELECT 1", "25P02")
						c.do(t, "ROLLBACK TO s")
						c.mustAsk(t, "SELECT count(*) FROM noted WHERE n = 1", `\x011"`)
						c.do(t, "ROLLBACK")
					}
					c.mustAsk(t, "SELECT 'goes on'", "goes on")
					_ = c.Close()
				}
			}
		}
		// Below the limit, one after the other, and in pieces of a portal, all comes.
		c := f.connect("")
		for range 3 {
			var n int
			rows, err := c.Query(ctx10(t), "SELECT repeat('x', 1000) FROM generate_series(1, 90)", pgx.QueryExecModeSimpleProtocol)
			for ; err == nil && rows.Next(); n++ {
			}
			if err != nil || rows.Err() != nil || n != 90 {
				t.Error(n, err, rows.Err())
			}
		}
		r := mustDial(t, f.addr, "app")
		r.do(t, "BEGIN; DECLARE c CURSOR FOR SELECT repeat('x', 1000) FROM generate_series(1, 500)")
		for range 10 {
			r.mustAsk(t, "FETCH 50 FROM c", "FETCH 50")
		}
		r.do(t, "COMMIT")
		// What changes something by itself is done, or not: the client is told that it cannot know.
		w := mustDial(t, f.addr, "app")
		w.mustAsk(t, "INSERT INTO noted SELECT n FROM generate_series(2, 121) n RETURNING n, repeat('x', 1000)", `FATAL 54000`)
		w = mustDial(t, f.addr, "app")
		w.mustSay(t, 1, "FATAL 54000", segment("SELECT repeat('x', 1000) FROM generate_series(1, 120)", "SELECT 1")...)
		w = mustDial(t, f.addr, "app")
		w.do(t, "BEGIN")
		w.mustAsk(t, "INSERT INTO noted SELECT n FROM generate_series(200, 320) n RETURNING n, repeat('x', 1000)", `ERROR 54000`)
		w.mustAsk(t, "COMMIT", "ROLLBACK")
		w.mustAsk(t, "SELECT count(*) FROM noted WHERE n >= 200", `\x010"`)
		// Requests behind it have their answers.
		w.mustSay(t, 3, `SELECT 1\x00" | Z "I"`, fQuery("SELECT repeat('x', 1000) FROM generate_series(1, 120)"), fQuery("SELECT 1"), fQuery("SELECT 1"))
		w.mustSay(t, 2, `SELECT 1\x00" | Z "I"`, append(segment("SELECT repeat('x', 1000) FROM generate_series(1, 120)"), segment("SELECT 1")...)...)
		waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 0 })
	}
}

// TestResultCutEarly: an Execute whose Sync comes later is cut, and what is behind it up to the Sync is skipped.
func TestResultCutEarly(t *testing.T) {
	f := start(t, fixtureOptions{user: func(p *proxy.UserPolicy) { p.ResultMax = 70_000 }})
	c := mustDial(t, f.addr, "app")
	c.say(0, append(extended("SELECT repeat('x', 1000) FROM generate_series(1, 80)"), fFlush())...)
	for {
		kind, body, err := c.receive(rawTimeout)
		if err != nil {
			t.Fatal(err)
		}
		if kind == 'E' && strings.Contains(string(body), "C54000") {
			break
		}
	}
	lines := c.say(1, append(extended("SELECT 'skipped'"), fSync())...)
	if fmt.Sprint(lines) != `[Z "I"]` {
		t.Error(lines)
	}
	c.mustAsk(t, "SELECT 'goes on'", "goes on")
}

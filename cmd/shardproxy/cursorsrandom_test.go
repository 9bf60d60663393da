package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// pieceTalk makes up what a client says who reads queries in pieces, and does other things between.
type pieceTalk struct {
	*rand.Rand
	scroll map[string]bool // of cursors
	steps  []string        // what was said, to be shown
}

// pieceQueries have one order each; $1 is a number of rows, roughly.
var pieceQueries = []string{
	"SELECT id, n, name FROM pieces WHERE id < $1 ORDER BY id",
	"SELECT name, id FROM pieces WHERE id < $1 ORDER BY name DESC, id",
	"SELECT id, k FROM pieces WHERE id < $1 ORDER BY n, id LIMIT 30 OFFSET 2",
	"SELECT a.id, b.n FROM pieces a JOIN pieces b ON a.id = b.id + 1 WHERE a.id < $1 ORDER BY 1",
	"SELECT n, count(*), sum(id) FROM pieces WHERE id < $1 GROUP BY n ORDER BY n",
	"SELECT p.id, o.note FROM pieces p LEFT JOIN notes o ON o.k = p.k WHERE p.id < $1 ORDER BY p.id",
	"SELECT id FROM pieces WHERE k = 3 AND id < $1 ORDER BY id",
	"SELECT row_number() OVER (ORDER BY id DESC), id FROM pieces WHERE id < $1 ORDER BY 1",
}

func (r *pieceTalk) pick(of ...string) string { return of[r.IntN(len(of))] }

func (r *pieceTalk) rows() string { return r.pick("0", "1", "7", "40", "120", "200", "1000") }

// query returns a query, with the number of rows in it.
func (r *pieceTalk) query() string {
	return strings.ReplaceAll(r.pick(pieceQueries...), "$1", r.rows())
}

// fetch returns a FETCH or MOVE.
func (r *pieceTalk) fetch(cursor string) string {
	n := r.pick("0", "1", "2", "3", "10", "50", "ALL")
	if !r.scroll[cursor] || r.IntN(3) == 0 {
		return r.pick("FETCH ", "FETCH ", "FETCH ", "MOVE ") + r.pick("", "NEXT ", "FORWARD ", "FORWARD "+n+" ", n+" ", "RELATIVE 2 ", "RELATIVE 1 ", "ABSOLUTE 150 ", "FIRST ") + r.pick("FROM ", "IN ", "") + cursor
	}
	back := r.pick("-1", "-2", "-20")
	return r.pick("FETCH ", "FETCH ", "MOVE ") + r.pick("PRIOR ", "LAST ", "FIRST ", "BACKWARD ", "BACKWARD "+n+" ", "BACKWARD "+back+" ", back+" ", "RELATIVE "+back+" ", "RELATIVE 0 ",
		"ABSOLUTE "+back+" ", "ABSOLUTE 0 ", "ABSOLUTE 17 ", "FORWARD "+back+" ") + r.pick("FROM ", "") + cursor
}

// step makes up the next request; status is that of the transaction.
func (r *pieceTalk) step(status byte) []message {
	said := func(sql string) []message {
		r.steps = append(r.steps, sql)
		return []message{simple(sql)}
	}
	portal, cursor := r.pick("", "", "p", "q"), r.pick("c", "c", "d")
	if status == 'E' && portal == "" {
		portal = "p" // PostgreSQL 15 dies of an Execute there, of what a simple query has left
	}
	if status != 'T' && r.IntN(3) > 0 {
		if status == 'E' {
			return said(r.pick("ROLLBACK", "ROLLBACK", "ROLLBACK TO a", "ROLLBACK TO b", "COMMIT"))
		}
		return said("BEGIN")
	}
	switch n := r.IntN(40); {
	case n < 7:
		return r.bound(portal)
	case n < 15:
		limit := uint32(r.IntN(30))
		r.steps = append(r.steps, fmt.Sprintf("Execute %q %d", portal, limit))
		if all := []message{pieceOf(portal, limit)}; r.IntN(3) == 0 {
			return request(all, []message{pieceOf(portal, limit)})
		} else if r.IntN(3) == 0 {
			return request([]message{describeP(portal)}, all)
		}
		return request([]message{pieceOf(portal, limit)})
	case n < 17:
		r.steps = append(r.steps, fmt.Sprintf("Close %q", portal))
		return request([]message{closes('P', portal)})
	case n < 21:
		scroll := r.IntN(2) == 0
		word := "NO SCROLL"
		if scroll {
			word = "SCROLL"
		}
		if status == 'T' && r.scroll[cursor] != scroll {
			r.scroll[cursor] = scroll
		}
		sql := "DECLARE " + cursor + " " + r.pick("", "BINARY ") + word + " CURSOR FOR " + r.query()
		if r.IntN(3) == 0 {
			r.steps = append(r.steps, "extended: "+sql)
			return request(extended(sql))
		}
		return said(sql)
	case n < 29:
		sql := r.fetch(cursor)
		if r.IntN(3) == 0 {
			r.steps = append(r.steps, "extended: "+sql)
			return request(extended(sql))
		}
		return said(sql)
	case n < 30:
		return said(r.pick("CLOSE "+cursor, "CLOSE ALL"))
	case n < 33:
		return said(r.pick("SAVEPOINT a", "SAVEPOINT b", "ROLLBACK TO a", "ROLLBACK TO b", "RELEASE a"))
	case n < 34:
		return said(r.pick("COMMIT", "ROLLBACK", "SELECT 1/0"))
	case n < 37:
		return said(r.pick("UPDATE pieces SET n = n + 1", "DELETE FROM pieces WHERE id % 11 = 3", fmt.Sprintf("UPDATE pieces SET name = 'x' WHERE k = %d", r.IntN(40)),
			fmt.Sprintf("INSERT INTO pieces SELECT k, id + 1000, n, name FROM pieces WHERE k = %d ON CONFLICT DO NOTHING", r.IntN(40))))
	}
	return said(r.pick("SELECT count(*) FROM pieces", fmt.Sprintf("SELECT id, n FROM pieces WHERE k = %d ORDER BY id", r.IntN(40)), "SELECT id FROM pieces ORDER BY id DESC LIMIT 3"))
}

// bound binds a portal and may execute it.
func (r *pieceTalk) bound(portal string) []message {
	sql, rows, limit := r.pick(pieceQueries...), r.rows(), uint32(r.IntN(20))
	formats := [][]int16{nil, {0}, {1}}[r.IntN(3)]
	r.steps = append(r.steps, fmt.Sprintf("Bind %q to %s with %s, formats %v, Execute %d", portal, sql, rows, formats, limit))
	b := &pgproto3.Bind{DestinationPortal: portal, Parameters: [][]byte{[]byte(rows)}, ResultFormatCodes: formats}
	all := []message{parse("", sql), b}
	if r.IntN(2) == 0 {
		all = append(all, describeP(portal))
	}
	if r.IntN(4) > 0 {
		all = append(all, pieceOf(portal, limit))
	}
	if r.IntN(5) == 0 {
		r.steps = append(r.steps, "and once more")
		all = append(all, pieceOf(portal, limit))
	}
	return request(all)
}

// TestPiecesRandom has clients read queries in pieces at random, of one server and through the program.
// SHARDPROXY_TEST_SEQUENCES is how many times 60 of them, SHARDPROXY_TEST_SEED the first one's seed.
func TestPiecesRandom(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		b := startCursors(t, shardCount(t), runtime)
		refused, said := map[string]int{}, 0
		first := testNumber(t, "SHARDPROXY_TEST_SEED", 1)
		for seed := range 60 * testNumber(t, "SHARDPROXY_TEST_SEQUENCES", 1) {
			r := &pieceTalk{Rand: rand.New(rand.NewPCG(uint64(first+seed), 7)), scroll: map[string]bool{}}
			c, d := speak(t, b.dsn()), speak(t, b.dsnOfAll)
			for range 40 {
				before := c.status
				messages := r.step(before)
				got, want := plainErrors(c.say(messages...)), plainErrors(d.say(messages...))
				said++
				if want[len(want)-1] == "ended" {
					t.Fatalf("seed %d: the server has ended\n%s\n%v\n%v", first+seed, strings.Join(r.steps, "\n"), got, want)
				}
				if i := slices.IndexFunc(got, func(line string) bool { return strings.HasPrefix(line, "error ERROR|0A000") }); i >= 0 {
					refused[got[i]]++
					break
				}
				if before == 'E' && strings.HasPrefix(got[0], "error") && strings.HasPrefix(want[0], "error") && c.status == d.status {
					continue // the portal may be on another shard than what failed, where nobody looks for it
				}
				if strings.HasSuffix(strings.Join(got, ""), `error ERROR|34000|portal "" does not exist`+"ready E") && strings.Join(want, "") != strings.Join(got, "") {
					break // what the unnamed portal has run to its end is forgotten here
				}
				if strings.Join(got, "\n") != strings.Join(want, "\n") {
					t.Fatalf("seed %d:\n%s\nsaid %s\nwant %s", first+seed, strings.Join(r.steps, "\n"), strings.Join(got, " | "), strings.Join(want, " | "))
				}
			}
			_, _ = c.say(simple("ROLLBACK")), d.say(simple("ROLLBACK"))
			_ = c.conn.Conn.Close() // the server may have closed it
			_ = d.conn.Conn.Close()
		}
		t.Logf("%d requests; refused, which ends a sequence: %v", said, refused)
	})
}

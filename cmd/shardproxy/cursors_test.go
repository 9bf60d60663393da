package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Portals with row limits and cursors over several shards, compared message by message with those of one server.

const cursorSchema = `
CREATE TABLE pieces (k bigint, id bigint, n int, name text COLLATE "C", PRIMARY KEY (k, id));
CREATE TABLE notes (k bigint, id bigint, note text, PRIMARY KEY (k, id));
CREATE TABLE plain (id bigint PRIMARY KEY, v text);
`

const cursorPlaces = "      pieces: {key: k}\n      notes: {key: k}\n"

// startCursors starts both sides, with 200 rows of pieces for 40 keys.
func startCursors(t *testing.T, shards int, more ...string) *both {
	b := &both{}
	b.start(t, shards, cursorSchema, cursorPlaces+strings.Join(more, ""))
	eventually(t, "the catalog is there", func() bool {
		_, err := b.proxy.Exec(within(t, 10*time.Second), "SELECT * FROM pieces WHERE k = 0")
		return err == nil
	})
	var rows []string
	for i := range 200 {
		rows = append(rows, fmt.Sprintf("(%d, %d, %d, 'name %d')", i%40, i, i%7, i%23))
	}
	for _, c := range []*pgx.Conn{b.proxy, b.direct} {
		must(t, c, "INSERT INTO pieces VALUES "+strings.Join(rows, ", "))
		must(t, c, "INSERT INTO notes VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c')")
	}
	return b
}

// pieceOf is an Execute with a row limit.
func pieceOf(portal string, rows uint32) message {
	return &pgproto3.Execute{Portal: portal, MaxRows: rows}
}

func describeP(portal string) message {
	return &pgproto3.Describe{ObjectType: 'P', Name: portal}
}

func describeS(name string) message {
	return &pgproto3.Describe{ObjectType: 'S', Name: name}
}

// binds is a Bind of the unnamed statement that asks for formats.
func binds(portal string, formats []int16, values ...string) message {
	b := bind(portal, "", values...).(*pgproto3.Bind)
	b.ResultFormatCodes = formats
	return b
}

// plainErrors leaves of errors what does not name a shard. What is found wrong before anything runs is told
// without the answers to the messages in front of it.
func plainErrors(said []string) (plain []string) {
	for _, line := range said {
		if f := strings.Split(line, "|"); strings.HasPrefix(line, "error ") && len(f) > 3 {
			line = strings.Join(f[:3], "|")
			for n := len(plain); n > 0 && (plain[n-1] == "ParseComplete" || plain[n-1] == "BindComplete"); n-- {
				plain = plain[:n-1]
			}
		}
		plain = append(plain, line)
	}
	return plain
}

const (
	ordered  = "SELECT id, n, name FROM pieces ORDER BY id"
	byName   = "SELECT name, id FROM pieces WHERE id < $1 ORDER BY name DESC, id LIMIT 50 OFFSET 3"
	gathered = "SELECT a.id, b.n FROM pieces a JOIN pieces b ON a.id = b.id + 1 ORDER BY 1"
	grouped  = "SELECT n, count(*), sum(id) FROM pieces GROUP BY n ORDER BY n"
)

// TestPortals reads queries over several shards in pieces.
func TestPortals(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		b := startCursors(t, shardCount(t), runtime)
		q := func(requests ...[]message) [][]message { return requests }
		begin, commit, rollback := []message{simple("BEGIN")}, []message{simple("COMMIT")}, []message{simple("ROLLBACK")}
		sync := request()
		for _, test := range []struct {
			name     string
			requests [][]message
		}{
			{"in its own transaction", q(request([]message{parse("", ordered), bind("", ""), describeP(""), pieceOf("", 7)}))},
			{"several in its own transaction", q(request([]message{parse("", ordered), bind("", ""), describeP(""), pieceOf("", 7), pieceOf("", 5), pieceOf("", 0), pieceOf("", 3)}))},
			{"named, in its own transaction", q(request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 7), describeP("p"), pieceOf("p", 2)}), request([]message{pieceOf("p", 1)}))},
			{"of the past", q(request([]message{parse("", ordered), bind("", ""), pieceOf("", 7)}), request([]message{pieceOf("", 1)}))},
			{"with a flush", q(request([]message{parse("", ordered), bind("", ""), pieceOf("", 7), &pgproto3.Flush{}, pieceOf("", 5)}))},
			{"a limit over all", q(request([]message{parse("", ordered), bind("", ""), pieceOf("", 1000)}))},
			{"a limit of all", q(begin, request([]message{parse("", ordered), bind("", ""), pieceOf("", 200)}), request([]message{pieceOf("", 200)}), commit)},
			{"across requests", q(begin, request([]message{parse("", ordered), bind("p", ""), describeP("p"), pieceOf("p", 50)}), request([]message{pieceOf("p", 50)}), request([]message{pieceOf("p", 50), pieceOf("p", 40)}),
				request([]message{pieceOf("p", 50)}), request([]message{pieceOf("p", 50)}), request([]message{closes('P', "p")}), request([]message{pieceOf("p", 50)}), rollback)},
			{"unnamed across requests", q(begin, request([]message{parse("", ordered), bind("", ""), pieceOf("", 5)}), request([]message{pieceOf("", 5)}), []message{simple("SELECT 1")}, request([]message{pieceOf("", 5)}), rollback)},
			{"unnamed replaced", q(begin, request([]message{parse("", ordered), bind("", ""), pieceOf("", 5)}), request([]message{parse("", "SELECT 7"), bind("", ""), pieceOf("", 5)}), request([]message{pieceOf("", 5)}), rollback)},
			{"unnamed replaced by another", q(begin, request([]message{parse("", ordered), bind("", ""), pieceOf("", 5)}), request([]message{parse("", grouped), bind("", ""), pieceOf("", 2)}), request([]message{pieceOf("", 2)}), rollback)},
			{"bound, then executed", q(begin, request([]message{parse("s", ordered), bind("p", "s"), describeP("p")}), request([]message{pieceOf("p", 3)}), request([]message{describeP("p"), execute("p")}), commit)},
			{"two at once", q(begin, request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 4), parse("", grouped), bind("q", ""), pieceOf("q", 2)}),
				request([]message{pieceOf("p", 2)}), request([]message{pieceOf("q", 2), pieceOf("p", 1), pieceOf("q", 1)}), request([]message{closes('P', "p"), pieceOf("q", 100)}), commit)},
			{"four at once", q(begin, request([]message{parse("a", ordered), bind("p1", "a"), bind("p2", "a"), parse("b", gathered), bind("p3", "b"), bind("p4", "b"), pieceOf("p4", 1)}),
				request([]message{pieceOf("p1", 3), pieceOf("p2", 4), pieceOf("p3", 5), pieceOf("p4", 6)}), request([]message{pieceOf("p4", 3), pieceOf("p3", 4), pieceOf("p2", 5), pieceOf("p1", 0)}), commit)},
			{"merged with a limit", q(begin, request([]message{parse("", byName), bind("p", "", "150"), describeP("p"), pieceOf("p", 20)}), request([]message{pieceOf("p", 20)}), request([]message{pieceOf("p", 20)}), commit)},
			{"gathered", q(begin, request([]message{parse("", gathered), bind("p", ""), describeP("p"), pieceOf("p", 20)}), request([]message{pieceOf("p", 20)}), request([]message{execute("p")}), commit)},
			{"one that is empty", q(begin, request([]message{parse("", ordered[:len(ordered)-11]+" WHERE id < 0 ORDER BY id"), bind("p", ""), describeP("p"), pieceOf("p", 20)}), request([]message{pieceOf("p", 20)}), commit)},
			{"binary", q(begin, request([]message{parse("", ordered), binds("p", []int16{1}), describeP("p"), pieceOf("p", 3)}), request([]message{pieceOf("p", 2), describeP("p")}), commit)},
			{"mixed formats", q(begin, request([]message{parse("", ordered), binds("p", []int16{1, 0, 1}), describeP("p"), pieceOf("p", 3)}), request([]message{pieceOf("p", 2)}), commit)},
			{"too many formats", q(begin, request([]message{parse("", ordered), binds("p", []int16{1, 0}), pieceOf("p", 3)}), rollback)},
			{"a name twice", q(begin, request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 3)}), request([]message{parse("", ordered), bind("p", "")}), sync, rollback)},
			{"a name twice, of one shard", q(begin, request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 3)}), request([]message{parse("", "SELECT id FROM pieces WHERE k = 1"), bind("p", "")}), rollback)},
			{"a name twice, one of one shard first", q(begin, request([]message{parse("", "SELECT id FROM pieces WHERE k = 1 ORDER BY 1"), bind("p", ""), pieceOf("p", 3)}), request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 2)}), rollback)},
			{"beside one of one shard", q(begin, request([]message{parse("", "SELECT id FROM pieces WHERE k = 1 ORDER BY 1"), bind("one", ""), pieceOf("one", 2)}), request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 3)}),
				request([]message{pieceOf("one", 2)}), request([]message{pieceOf("p", 3)}), request([]message{pieceOf("one", 2)}), commit)},
			{"writes between are not seen", q(begin, request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 3)}), []message{simple("UPDATE pieces SET n = -1")}, []message{simple("DELETE FROM pieces WHERE k = 3")},
				request(extended("INSERT INTO pieces VALUES (5, -7, 0, 'new')")), request([]message{pieceOf("p", 3)}), []message{simple("SELECT count(*), sum(n) FROM pieces")}, request([]message{execute("p")}), rollback)},
			{"writes of keys between", q(begin, request([]message{parse("", gathered), bind("p", ""), pieceOf("p", 3)}), []message{simple("UPDATE pieces SET id = -id WHERE k = 3")}, request(extended("SELECT id FROM pieces WHERE k = 3 ORDER BY 1")), request([]message{pieceOf("p", 3)}),
				[]message{simple("DELETE FROM pieces WHERE k = 4")}, request([]message{execute("p")}), rollback)},
			{"an error between", q(begin, request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 3)}), []message{simple("SELECT 1/0")}, request([]message{pieceOf("p", 3)}), request([]message{closes('P', "p")}), []message{simple("SELECT 1")}, rollback, request([]message{pieceOf("p", 3)}))},
			{"savepoint before", q(begin, []message{simple("SAVEPOINT a")}, request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 3)}), request([]message{pieceOf("p", 3)}), []message{simple("ROLLBACK TO a")}, request([]message{pieceOf("p", 3)}), rollback)},
			{"savepoint behind", q(begin, request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 3)}), []message{simple("SAVEPOINT a")}, request([]message{pieceOf("p", 3)}), []message{simple("ROLLBACK TO a")}, request([]message{pieceOf("p", 3)}), commit)},
			{"savepoint behind an error", q(begin, request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 3)}), []message{simple("SAVEPOINT a")}, []message{simple("UPDATE pieces SET n = 1 / (n - 3)")}, []message{simple("ROLLBACK TO a")}, request([]message{pieceOf("p", 3)}), commit)},
			{"savepoint released", q(begin, []message{simple("SAVEPOINT a")}, request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 3)}), []message{simple("RELEASE a")}, request([]message{pieceOf("p", 3)}), []message{simple("SAVEPOINT b")}, []message{simple("ROLLBACK TO b")}, request([]message{pieceOf("p", 3)}), commit)},
			{"savepoints inside each other", q(begin, []message{simple("SAVEPOINT a")}, []message{simple("SAVEPOINT b")}, request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 3)}), []message{simple("RELEASE b")}, []message{simple("ROLLBACK TO a")}, request([]message{pieceOf("p", 3)}), rollback)},
			{"an error in it", q(begin, request([]message{parse("", "SELECT id, 1 / (n - 3) FROM pieces WHERE id % 7 = 3 ORDER BY id"), bind("p", ""), pieceOf("p", 3)}), sync, rollback)},
			{"closed ahead", q(begin, request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 3)}), request([]message{closes('P', "p"), parse("", "SELECT id FROM pieces WHERE k = 2 ORDER BY 1"), bind("p", ""), pieceOf("p", 1)}), request([]message{closes('P', "p")}, extended("COMMIT")))},
			{"closed ahead of a rollback", q(begin, request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 3)}), []message{simple("SELECT 1/0")}, request([]message{closes('P', "p")}, extended("ROLLBACK")))},
			{"begun in the request", q(request(extended("BEGIN"), []message{parse("", ordered), bind("p", ""), describeP("p"), pieceOf("p", 3)}), request([]message{pieceOf("p", 3)}), commit)},
			{"with other statements", q(begin, request(extended("UPDATE pieces SET n = 9 WHERE k = 7"), []message{parse("", ordered), bind("p", ""), pieceOf("p", 9)}, extended("UPDATE pieces SET n = 10 WHERE k = 8"), []message{pieceOf("p", 9)}), rollback)},
			{"a statement that failed before it", q(begin, request(extended("SELECT 1/0"), []message{parse("", ordered), bind("p", ""), pieceOf("p", 9)}), rollback)},
			{"limits of what gives no rows", q(request([]message{parse("", "UPDATE pieces SET n = 77 WHERE id > 150"), bind("", ""), pieceOf("", 1)}), begin, request([]message{parse("", "UPDATE pieces SET n = 78"), bind("", ""), pieceOf("", 1)}),
				request([]message{parse("", "INSERT INTO pieces VALUES (1, 900, 1, ''), (2, 901, 1, ''), (3, 902, 1, '')"), bind("", ""), pieceOf("", 1)}), request([]message{parse("", "DECLARE c CURSOR FOR "+ordered), bind("", ""), pieceOf("", 1)}),
				request([]message{parse("", "MOVE 5 c"), bind("", ""), pieceOf("", 1), parse("", "UPDATE pieces SET n = 79"), bind("", ""), pieceOf("", 1), parse("", "CLOSE c"), bind("", ""), pieceOf("", 1)}), []message{simple("SELECT sum(n) FROM pieces")}, rollback, []message{simple("SELECT sum(n) FROM pieces")})},
			{"a limit over all RETURNING", q(request([]message{parse("", "UPDATE pieces SET n = 77 WHERE id IN (150, 151) RETURNING 1"), bind("", ""), pieceOf("", 3)}), []message{simple("SELECT sum(n) FROM pieces")})},
			{"closed ahead of a simple query", q(begin, request([]message{parse("s", ordered), bind("p", "s"), pieceOf("p", 3)}), request([]message{parse("t", "SELECT id FROM pieces WHERE k = 1 ORDER BY 1"), bind("q", "t"), pieceOf("q", 1)}),
				[]message{closes('P', "p"), simple("UPDATE pieces SET n = 3")}, []message{closes('P', "q"), closes('S', "t"), closes('P', "p"), simple("SELECT count(*) FROM pieces")}, request([]message{parse("t", ordered), bind("q", "t"), pieceOf("q", 2)}),
				[]message{closes('P', "q"), simple("SELECT 1/0")}, []message{closes('P', "q"), closes('S', "s"), simple("ROLLBACK")}, request([]message{bind("p", "s")}), []message{closes('S', "s"), closes('S', "t"), simple("SELECT sum(n) FROM pieces")})},
			{"rows that every shard has", q(begin, request([]message{parse("", "SELECT count(*) FROM pieces WHERE k IN (1, 2, 3)"), bind("", ""), pieceOf("", 1)}), request([]message{parse("", "SELECT id FROM pieces WHERE k IN (1, 2) AND k IN (3, 4) ORDER BY id"), bind("p", ""), pieceOf("p", 5)}),
				request([]message{parse("", "SELECT id FROM pieces WHERE k IN (1, 2, 3) ORDER BY id"), bind("any shard's", ""), pieceOf("any shard's", 5)}), request([]message{pieceOf("any shard's", 5)}), commit)},
			{"inserted rows of a query", q(begin, request([]message{parse("", "INSERT INTO notes SELECT k + 1, id + 5000, name FROM pieces WHERE id < $1"), bind("", "", "9"), describeP(""), pieceOf("", 1)}), request([]message{parse("", "UPDATE pieces SET n = -3 WHERE id IN (SELECT id FROM notes)"), bind("", ""), describeP(""), execute("")}), []message{simple("SELECT count(*) FROM notes")}, rollback)},
			{"FETCH from it", q(begin, request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 3)}), []message{simple("FETCH 2 FROM p")}, request([]message{pieceOf("p", 2)}), []message{simple("FETCH BACKWARD 1 FROM p")}, rollback)},
			{"CLOSE of it", q(begin, request([]message{parse("", ordered), bind("p", ""), pieceOf("p", 3)}), []message{simple("CLOSE p")}, request([]message{pieceOf("p", 2)}), rollback)},
		} {
			t.Run(test.name, func(t *testing.T) { b.sameTalk(t, test.requests) })
		}
	})
}

// sameTalk sends requests to both sides, which must say the same.
func (b *both) sameTalk(t *testing.T, requests [][]message) {
	t.Helper()
	c, d := speak(t, b.dsn()), speak(t, b.dsnOfAll)
	for i, r := range requests {
		got, want := plainErrors(c.say(r...)), plainErrors(d.say(r...))
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Fatalf("request %d of %d\nsaid %s\nwant %s", i+1, len(requests), strings.Join(got, " | "), strings.Join(want, " | "))
		}
	}
	_ = c.conn.Conn.Close() // the server may have closed it
	_ = d.conn.Conn.Close()
}

// TestCursors declares cursors over several shards.
func TestCursors(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		b := startCursors(t, shardCount(t), runtime)
		texts := func(texts ...string) (requests [][]message) {
			for _, text := range texts {
				requests = append(requests, []message{simple(text)})
			}
			return requests
		}
		for _, test := range []struct {
			name     string
			requests [][]message
		}{
			{"forward", texts("BEGIN", "DECLARE c NO SCROLL CURSOR FOR "+ordered, "FETCH c", "FETCH 5 FROM c", "MOVE 10 IN c", "FETCH NEXT c", "FETCH FORWARD 3 FROM c", "FETCH RELATIVE 4 c", "FETCH 0 c", "ROLLBACK")},
			{"to the end", texts("BEGIN", "DECLARE c NO SCROLL CURSOR FOR "+ordered, "MOVE 195 c", "FETCH 10 c", "FETCH 10 c", "FETCH 0 c", "MOVE 0 c", "MOVE ALL c", "FETCH ABSOLUTE 3 c", "COMMIT")},
			{"absolute", texts("BEGIN", "DECLARE c NO SCROLL CURSOR FOR "+ordered, "FETCH FIRST c", "FETCH ABSOLUTE 5 c", "FETCH ABSOLUTE 6 c", "FETCH ABSOLUTE 100 c", "MOVE 0 c", "FETCH ABSOLUTE 100 c", "ROLLBACK")},
			{"absolute 0", texts("BEGIN", "DECLARE c NO SCROLL CURSOR FOR "+ordered, "FETCH ABSOLUTE 0 c", "MOVE BACKWARD ALL IN c", "FETCH BACKWARD 0 c", "MOVE 0 c", "FETCH -0 c", "FETCH 1 c", "MOVE BACKWARD ALL c")},
			{"all", texts("BEGIN", "DECLARE c NO SCROLL CURSOR FOR "+ordered, "FETCH ALL c", "FETCH ALL c", "FETCH FORWARD ALL c", "COMMIT")},
			{"backward", texts("BEGIN", "DECLARE c NO SCROLL CURSOR FOR "+ordered, "FETCH 3 c", "FETCH PRIOR c", "ROLLBACK", "FETCH c")},
			{"last", texts("BEGIN", "DECLARE c NO SCROLL CURSOR FOR "+ordered, "FETCH LAST c", "ROLLBACK")},
			{"backward gathered", texts("BEGIN", "DECLARE c NO SCROLL CURSOR FOR "+gathered, "FETCH 3 c", "MOVE 3 c", "FETCH 3 c", "FETCH BACKWARD 2 c", "ROLLBACK")},
			{"scroll", texts("BEGIN", "DECLARE c SCROLL CURSOR FOR "+ordered, "FETCH LAST c", "FETCH PRIOR c", "FETCH BACKWARD 5 c", "FETCH ABSOLUTE 10 c", "FETCH ABSOLUTE -3 c", "FETCH RELATIVE -2 c", "FETCH 0 c", "MOVE BACKWARD ALL c", "FETCH 3 c", "FETCH -2 c",
				"MOVE ALL c", "FETCH c", "FETCH BACKWARD ALL c", "FETCH FIRST c", "FETCH FORWARD 0 c", "COMMIT")},
			{"scroll gathered", texts("BEGIN", "DECLARE c SCROLL CURSOR FOR "+gathered, "FETCH LAST c", "FETCH PRIOR c", "FETCH BACKWARD 5 c", "FETCH ABSOLUTE 10 c", "MOVE FORWARD 3 c", "FETCH c", "COMMIT")},
			{"insensitive", texts("BEGIN", "DECLARE c INSENSITIVE SCROLL CURSOR WITHOUT HOLD FOR "+grouped, "FETCH LAST c", "UPDATE pieces SET n = 0", "FETCH BACKWARD 9 c", "ROLLBACK")},
			{"binary", texts("BEGIN", "DECLARE c BINARY NO SCROLL CURSOR FOR "+ordered, "FETCH 2 c", "FETCH 2 c", "ROLLBACK")},
			{"binary scroll", texts("BEGIN", "DECLARE c BINARY SCROLL CURSOR FOR "+ordered, "FETCH 2 c", "FETCH PRIOR c", "ROLLBACK")},
			{"closed", texts("BEGIN", "DECLARE c CURSOR FOR "+ordered, "FETCH 2 c", "CLOSE c", "FETCH 2 c", "ROLLBACK")},
			{"closed, and another", texts("BEGIN", "DECLARE c CURSOR FOR "+ordered, "FETCH 2 c", "CLOSE c", "DECLARE c CURSOR FOR "+grouped, "FETCH 2 c", "DECLARE c CURSOR FOR "+ordered, "ROLLBACK")},
			{"all closed", texts("BEGIN", "DECLARE c CURSOR FOR "+ordered, "DECLARE d CURSOR FOR "+grouped, "FETCH 2 c", "CLOSE ALL", "CLOSE ALL", "FETCH 2 d")},
			{"closed twice", texts("BEGIN", "DECLARE c CURSOR FOR "+ordered, "CLOSE c", "CLOSE c")},
			{"outside of a transaction", texts("DECLARE c CURSOR FOR "+ordered, "FETCH c", "SELECT 1")},
			{"several in one text", texts("DECLARE c CURSOR FOR "+ordered+"; FETCH 2 c; FETCH 1 c; CLOSE c; SELECT 1", "FETCH c")},
			{"a transaction in one text", texts("BEGIN; DECLARE c CURSOR FOR "+ordered+"; FETCH 2 c", "FETCH 1 c; FETCH 1 c; UPDATE pieces SET n = 0; FETCH 2 c", "FETCH 1 c; SELECT 1/0; FETCH 1 c", "FETCH 1 c; FETCH 1 c", "ROLLBACK")},
			{"scroll and no scroll", texts("BEGIN", "DECLARE c SCROLL NO SCROLL CURSOR FOR "+ordered, "ROLLBACK")},
			{"sensitive both", texts("BEGIN", "DECLARE c ASENSITIVE INSENSITIVE CURSOR FOR "+ordered, "ROLLBACK")},
			{"unknown", texts("BEGIN", "DECLARE c CURSOR FOR "+ordered, "FETCH d", "ROLLBACK")},
			{"quoted", texts("BEGIN", `DECLARE "C ""1" CURSOR FOR `+ordered, `FETCH 2 "C ""1"`, `CLOSE "C ""1"`, "ROLLBACK")},
			{"savepoints", texts("BEGIN", "DECLARE a NO SCROLL CURSOR FOR "+ordered, "SAVEPOINT s", "DECLARE b CURSOR FOR "+grouped, "FETCH 2 a", "FETCH 2 b", "ROLLBACK TO s", "FETCH 2 a", "SAVEPOINT u", "FETCH 2 b", "ROLLBACK TO u", "FETCH 1 a", "COMMIT")},
			{"closed behind a savepoint", texts("BEGIN", "DECLARE a NO SCROLL CURSOR FOR "+ordered, "SAVEPOINT s", "CLOSE a", "ROLLBACK TO s", "FETCH a", "ROLLBACK")},
			{"an error in it", texts("BEGIN", "SAVEPOINT s", "DECLARE a NO SCROLL CURSOR FOR SELECT 1 / (id - 5) AS q FROM pieces WHERE id < 40 ORDER BY id", "FETCH 1000 a", "FETCH a", "ROLLBACK TO s", "FETCH 1 a", "ROLLBACK")},
			{"failed behind a savepoint", texts("BEGIN", "DECLARE a NO SCROLL CURSOR FOR SELECT 1 / (id - 5) AS q FROM pieces WHERE id < 40 ORDER BY id", "SAVEPOINT s", "FETCH 1000 a", "ROLLBACK TO s", "FETCH 1 a", "ROLLBACK")},
			{"extended", [][]message{{simple("BEGIN")}, request([]message{parse("", "DECLARE c NO SCROLL CURSOR FOR SELECT id, n FROM pieces WHERE id < $1 ORDER BY id"), bind("", "", "50"), describeP(""), execute("")}), request([]message{describeP("c")}),
				request([]message{parse("f", "FETCH 3 FROM c"), describeS("f"), bind("", "f"), describeP(""), execute("")}), request([]message{bind("", "f"), execute("")}), request([]message{parse("", "FETCH 2 c"), binds("", []int16{0, 0}), execute("")}),
				request([]message{parse("", "MOVE 2 c"), describeS(""), bind("", ""), describeP(""), execute("")}), request([]message{pieceOf("c", 2)}), request(extended("CLOSE c")), request(extended("FETCH 1 c")), {simple("ROLLBACK")}}},
			{"extended, all binary", [][]message{{simple("BEGIN")}, request(extended("DECLARE c NO SCROLL CURSOR FOR SELECT id, n FROM pieces ORDER BY id")),
				request([]message{parse("", "FETCH 3 FROM c"), binds("", []int16{1}), describeP(""), execute("")}), request([]message{parse("", "FETCH 3 FROM c"), binds("", []int16{1, 1}), describeP(""), execute("")}), {simple("COMMIT")}}},
			{"extended, scroll, both formats", [][]message{{simple("BEGIN")}, request(extended("DECLARE c SCROLL CURSOR FOR SELECT id, n FROM pieces ORDER BY id")),
				request([]message{parse("", "FETCH 3 FROM c"), binds("", []int16{1}), describeP(""), execute("")}), {simple("FETCH PRIOR c")}, request(extended("FETCH 2 c"), extended("MOVE LAST c"), extended("FETCH PRIOR c")), {simple("COMMIT")}}},
			{"extended, outside", [][]message{request(extended("DECLARE c CURSOR FOR " + ordered)), request(extended("DECLARE c CURSOR FOR "+ordered), extended("FETCH c"))}},
			{"extended, in one request", [][]message{{simple("BEGIN")}, request(extended("DECLARE c NO SCROLL CURSOR FOR "+ordered), extended("FETCH 2 c"), extended("FETCH 2 c"), extended("CLOSE c"), extended("FETCH c")), {simple("ROLLBACK")}}},
			{"extended, with BEGIN", [][]message{request(extended("BEGIN"), extended("DECLARE c NO SCROLL CURSOR FOR "+ordered), extended("FETCH 2 c")), {simple("FETCH 1 c")}, request(extended("CLOSE ALL")), request(extended("COMMIT"))}},
			{"several of one shard each", texts("BEGIN", "DECLARE c CURSOR FOR SELECT id FROM pieces WHERE k = 1 ORDER BY id", "DECLARE d CURSOR FOR SELECT id FROM pieces WHERE k = 2 ORDER BY id", "DECLARE e CURSOR FOR SELECT id FROM pieces WHERE k = 3 ORDER BY id",
				"DECLARE f SCROLL CURSOR FOR "+ordered, "FETCH 1 c", "FETCH 1 d", "FETCH 1 e", "FETCH 1 f", "FETCH 1 c; FETCH 1 d; FETCH 1 e; FETCH 1 f", "UPDATE pieces SET n = 0", "MOVE 1 d", "CLOSE d", "FETCH 1 c", "FETCH 1 d", "ROLLBACK")},
			{"several of one shard each, savepoints", texts("BEGIN", "SELECT count(*) FROM pieces", "SAVEPOINT s", "DECLARE c CURSOR FOR SELECT id FROM pieces WHERE k = 1 ORDER BY id", "DECLARE d CURSOR FOR SELECT id FROM pieces WHERE k = 2 ORDER BY id", "FETCH 1 c", "ROLLBACK TO s",
				"DECLARE c CURSOR FOR SELECT id FROM pieces WHERE k = 3 ORDER BY id", "FETCH 2 c", "DECLARE d CURSOR FOR "+ordered, "FETCH 2 d", "CLOSE ALL", "DECLARE c CURSOR FOR "+ordered, "COMMIT")},
			{"a name of one shard twice", texts("BEGIN", "DECLARE c CURSOR FOR SELECT id FROM pieces WHERE k = 1 ORDER BY id", "SELECT id FROM pieces WHERE k = 2 ORDER BY id LIMIT 1", "SELECT id FROM pieces WHERE k = 3 ORDER BY id LIMIT 1", "DECLARE c CURSOR FOR SELECT id FROM pieces WHERE k = 2", "ROLLBACK")},
			{"extended, of one shard each", [][]message{{simple("BEGIN")}, request(extended("DECLARE c CURSOR FOR SELECT id FROM pieces WHERE k = 1 ORDER BY id")), request(extended("DECLARE d CURSOR FOR SELECT id FROM pieces WHERE k = 2 ORDER BY id")),
				request(extended("FETCH 1 c"), extended("FETCH 1 d"), extended("FETCH 1 c")), request(extended("SELECT id FROM pieces WHERE k = 3 ORDER BY id")), request(extended("FETCH 1 d")), request([]message{pieceOf("c", 1)}), request(extended("CLOSE c")), {simple("COMMIT")}}},
			{"one shard", texts("BEGIN", "DECLARE c CURSOR FOR SELECT id FROM pieces WHERE k = 1 ORDER BY id", "FETCH 2 c", "FETCH BACKWARD 1 c", "CLOSE c", "COMMIT")},
		} {
			t.Run(test.name, func(t *testing.T) { b.sameTalk(t, test.requests) })
		}
	})
}

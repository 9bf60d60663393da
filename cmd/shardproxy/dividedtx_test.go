package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/internal/pgtest"
)

// message is one of a client's.
type message = pgproto3.FrontendMessage

func simple(sql string) message      { return &pgproto3.Query{String: sql} }
func parse(name, sql string) message { return &pgproto3.Parse{Name: name, Query: sql} }
func execute(portal string) message  { return &pgproto3.Execute{Portal: portal} }
func closes(what byte, name string) message {
	return &pgproto3.Close{ObjectType: what, Name: name}
}

func bind(portal, statement string, values ...string) message {
	b := &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: statement}
	for _, v := range values {
		b.Parameters = append(b.Parameters, []byte(v))
	}
	return b
}

// extended is a statement by the extended protocol, without its Sync.
func extended(sql string) []message { return []message{parse("", sql), bind("", ""), execute("")} }

// request joins parts up to a Sync.
func request(parts ...[]message) (all []message) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return append(all, &pgproto3.Sync{})
}

// dividedKeys returns keys of customers on either shard.
func dividedKeys(t *testing.T, s *shardedProgram) (k [2][]string) {
	c := s.connectLoaded()
	for i := range 40 {
		must(t, c, "INSERT INTO customers VALUES ($1, 'x')", i)
	}
	for i, cl := range s.shards {
		rows, err := pgtest.Connect(t, cl.Primary().DSN("app", "app")).Query(within(t, 10*time.Second), "SELECT id::text FROM customers ORDER BY id")
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var v string
			if err := rows.Scan(&v); err != nil {
				t.Fatal(err)
			}
			k[i] = append(k[i], v)
		}
	}
	return k
}

// named counts the customers of a name on each shard.
func (s *shardedProgram) named(name string) string {
	return strings.Join(s.onEach("SELECT count(*)::text FROM customers WHERE name = '"+name+"'"), " ")
}

func renames(name, key string) string {
	return fmt.Sprintf("UPDATE customers SET name = '%s' WHERE id = %s", name, key)
}

// conversation sends requests, goes, and returns what each was told and what is stored then.
func (s *shardedProgram) conversation(t *testing.T, name string, requests ...[]message) (said []string, stored string) {
	t.Helper()
	c := speak(t, s.dsn())
	for _, r := range requests {
		said = append(said, strings.Join(c.say(r...), " | "))
	}
	_ = c.conn.Conn.Close() // the server may have closed it
	eventually(t, "no connection is kept", func() bool { return s.lent() == 0 })
	return said, s.named(name)
}

// TestDividedTransactions ends and divides transactions in every way that the protocol has.
// What is told as committed is stored, on both shards, and nothing else is.
func TestDividedTransactions(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, "      drawn: {key: id}\nruntime: {driver: "+driver+"}")
			k := dividedKeys(t, s)
			must(t, s.connect(), "CREATE TABLE drawn (id bigserial PRIMARY KEY, note text)")
			for _, test := range []struct {
				name string
				run  func(*testing.T, *shardedProgram, [2][]string)
			}{{"ended", dividedEnds}, {"savepoints", dividedSavepoints}, {"names", dividedNames}, {"pipelined", dividedPipelined}, {"closes ahead", dividedCloses}, {"modes", dividedModes}} {
				t.Run(test.name, func(t *testing.T) { test.run(t, s, k) })
			}
		})
	}
}

func dividedEnds(t *testing.T, s *shardedProgram, k [2][]string) {
	k0, k1, k01, k11 := k[0][0], k[1][0], k[0][1], k[1][1]
	begin := []message{simple("BEGIN")}
	first := func(name string) []message { return []message{simple(renames(name, k0))} }
	flush := []message{&pgproto3.Flush{}}
	for _, test := range []struct {
		name, whole string // what is stored when all was committed
		requests    [][]message
	}{
		{"statement and commit", "1 1", [][]message{request(extended(renames("statement and commit", k1)), extended("COMMIT"))}},
		{"commit and statement", "1 1", [][]message{request(extended("COMMIT"), extended(renames("commit and statement", k1)))}},
		{"commit and flush", "1 0", [][]message{request(extended("COMMIT"), flush)}},
		{"savepoint and statement", "1 0", [][]message{request(extended("SAVEPOINT b"), extended(renames("savepoint and statement", k1))), {simple("ROLLBACK TO b")}, {simple("COMMIT")}}},
		{"savepoint in a text", "1 0", [][]message{{simple("SAVEPOINT b;" + renames("savepoint in a text", k1))}, {simple("ROLLBACK TO b")}, {simple("COMMIT")}}},
		{"savepoint and read", "1 0", [][]message{request(extended("SAVEPOINT b"), extended("SELECT id FROM customers WHERE id = "+k1)), {simple("ROLLBACK TO b")}, {simple("COMMIT")}}},
		{"savepoint and read in a text", "1 0", [][]message{{simple("SAVEPOINT b; SELECT id FROM customers WHERE id = " + k1)}, {simple("ROLLBACK TO b")}, {simple("COMMIT")}}},
		{"failed, rollback to and statement", "1 1", [][]message{{simple("SAVEPOINT b")}, {simple("SELECT 1/0")},
			request(extended("ROLLBACK TO b"), extended(renames("failed, rollback to and statement", k1))), {simple("COMMIT")}}},
		{"failed, rollback and statement", "0 1", [][]message{{simple("SELECT 1/0")}, request(extended("ROLLBACK"), extended(renames("failed, rollback and statement", k11)))}},
		{"prepare transaction", "1 0", [][]message{{simple("PREPARE TRANSACTION 'divided'")}, {simple("ROLLBACK PREPARED 'divided'")}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			said, got := s.conversation(t, test.name, append([][]message{begin, first(test.name)}, test.requests...)...)
			if got != test.whole && got != "0 0" {
				t.Errorf("stored %s, want %s or nothing: %q", got, test.whole, said)
			}
			if last := said[len(said)-1]; got == "0 0" && strings.Contains(last, "complete COMMIT") {
				t.Errorf("nothing is stored of what is told as committed: %q", said)
			}
		})
	}
	name := "rollback to behind a flush"
	said, got := s.conversation(t, name, begin, []message{simple("SELECT 1 FROM customers WHERE id = " + k0)}, []message{simple("SELECT 1 FROM customers WHERE id = " + k1)}, []message{simple("SAVEPOINT a")},
		[]message{simple(renames(name, k01))}, []message{simple(renames(name, k11))}, []message{simple("SELECT 1/0 FROM customers WHERE id = " + k1)},
		request([]message{parse("", "ROLLBACK TO a"), &pgproto3.Flush{}, bind("", ""), execute("")}), []message{simple("COMMIT")})
	if got != "0 0" {
		t.Errorf("%s: %s %q", name, got, said)
	}
	must(t, s.connect(), "UPDATE products SET name = 'product 3' WHERE id = 3")
	s.conversation(t, "copies", begin, first("copies"), []message{simple("SELECT 1/0")}, request(extended("ROLLBACK"), extended("UPDATE products SET name = 'once' WHERE id = 3")))
	if all := s.onEach("SELECT name FROM products WHERE id = 3"); all[0] != all[1] {
		t.Error("copies of a reference table:", all)
	}
}

func dividedSavepoints(t *testing.T, s *shardedProgram, k [2][]string) {
	each := func(texts ...string) (all [][]message) {
		for _, sql := range texts {
			all = append(all, []message{simple(sql)})
		}
		return all
	}
	fails := "SELECT 1/0 FROM customers WHERE id = " + k[1][0]
	// The parked part has written, the lease has not.
	said, got := s.conversation(t, "kept", each("BEGIN", renames("kept", k[0][0]), "SELECT 1 FROM customers WHERE id = "+k[1][0], "SAVEPOINT a", fails, "RELEASE a", "ROLLBACK TO a", "COMMIT")...)
	if got != "1 0" {
		t.Errorf("RELEASE in a failed transaction: %s %q", got, said)
	}
	said, got = s.conversation(t, "before", each("BEGIN", renames("before", k[0][0]), renames("before", k[1][0]), "SAVEPOINT a", renames("undone", k[0][1]), renames("undone", k[1][1]), fails, "SAVEPOINT a", "ROLLBACK TO a", "COMMIT")...)
	if got != "1 1" || s.named("undone") != "0 0" {
		t.Errorf("SAVEPOINT in a failed transaction: %s, undone %s %q", got, s.named("undone"), said)
	}
}

func dividedNames(t *testing.T, s *shardedProgram, k [2][]string) {
	byKey := "SELECT id::text FROM customers WHERE id = $1"
	said, _ := s.conversation(t, "none", request([]message{parse("a", byKey), bind("", "a", k[0][0]), execute(""),
		parse("b", "SELECT 'b' || id FROM customers WHERE id = $1"), bind("", "b", k[0][1]), execute(""), bind("", "a", k[1][0]), execute("")}))
	if !strings.Contains(said[0], fmt.Sprintf("row %q", k[1][0])) {
		t.Errorf("the row %s is not found: %q", k[1][0], said)
	}
	insert := []message{parse("a", "INSERT INTO customers VALUES ($1, 'new')"), parse("b", byKey), bind("", "b", k[0][1]), execute("")}
	for i := range 8 {
		insert = append(insert, bind("", "a", fmt.Sprint(1000+i)), execute(""))
	}
	said, _ = s.conversation(t, "new", request(insert))
	c := s.connect()
	for i := range 8 {
		if got := one(t, c, "SELECT count(*)::text FROM customers WHERE id = $1", 1000+i); got != "1" {
			t.Errorf("row %d: %s %q", 1000+i, got, said)
		}
	}
	begun := func(name string) [][]message {
		return [][]message{{simple("BEGIN")}, {simple(renames(name, k[0][0]))}, {simple(renames(name, k[1][0]))}}
	}
	said, got := s.conversation(t, "two names", append(begun("two names"), request([]message{parse("a", "COMMIT"), parse("b", "SELECT 1"), bind("", "a"), execute("")}))...)
	if got != "0 0" && got != "1 1" {
		t.Errorf("COMMIT beside another name: %s %q", got, said)
	}
	closed := append([][]message{request([]message{parse("a", "SELECT 1")})}, begun("closed name")...)
	said, got = s.conversation(t, "closed name", append(closed, request([]message{closes('S', "a"), parse("a", "COMMIT"), parse("b", "SELECT 1"), bind("", "a"), execute("")}))...)
	if got != "0 0" && got != "1 1" {
		t.Errorf("COMMIT by a name that was another's: %s %q", got, said)
	}
	said, got = s.conversation(t, "portal", []message{simple("BEGIN")}, []message{simple(renames("portal", k[0][0]))}, request([]message{parse("c", "COMMIT"), bind("c", "c")}),
		[]message{simple(renames("portal", k[1][0]))}, request(extended(renames("portal", k[0][1])), []message{execute("c")}))
	if got != "0 0" && got != "2 1" {
		t.Errorf("COMMIT by a portal of before: %s %q", got, said)
	}
}

func dividedPipelined(t *testing.T, s *shardedProgram, k [2][]string) {
	pipeline := func(c *scripter, queries ...string) string {
		var all []message
		for _, sql := range queries {
			all = append(all, simple(sql))
		}
		said := c.say(all...)
		for range len(queries) - 1 {
			said = append(said, c.say()...)
		}
		return strings.Join(said, " | ")
	}
	for after := range 2 {
		behind := []string{"SELECT id FROM customers WHERE id = " + k[after][0], "BEGIN", renames("b", k[0][1]), renames("b", k[1][1]), "COMMIT"}
		c := speak(t, s.dsn())
		pipeline(c, "BEGIN", renames("pipe", k[0][0]), renames("pipe", k[1][0]))
		if said := pipeline(c, append([]string{"COMMIT"}, behind...)...); strings.Contains(said, "error") {
			t.Errorf("behind a COMMIT: %s", said)
		}
		if said := pipeline(c, append([]string{"UPDATE products SET name = 'p' WHERE id = 1"}, behind...)...); strings.Contains(said, "error") {
			t.Errorf("behind a write to all shards: %s", said)
		}
	}
	c := speak(t, s.dsn())
	pipeline(c, "INSERT INTO drawn (note) VALUES ('a') RETURNING id")
	var rows []string
	said := pipeline(c, "SELECT pg_sleep(0.2)", "INSERT INTO drawn (note) VALUES ('b') RETURNING id", "SELECT currval('drawn_id_seq')")
	for _, line := range strings.Split(said, " | ") {
		if strings.HasPrefix(line, "row") {
			rows = append(rows, line)
		}
	}
	if len(rows) != 3 || rows[1] != rows[2] {
		t.Errorf("currval behind what draws: %s", said)
	}
}

// dividedCloses commits as drivers do that have statements to close.
func dividedCloses(t *testing.T, s *shardedProgram, k [2][]string) {
	for i, close := range []message{closes('S', "old"), closes('P', "C_1"), closes('S', "")} {
		name := fmt.Sprint("closes ", i)
		said, got := s.conversation(t, name, request([]message{parse("old", "SELECT 2")}), []message{simple("BEGIN")}, []message{simple(renames(name, k[0][0]))}, []message{simple(renames(name, k[1][0]))},
			request([]message{close}, extended("COMMIT")), request([]message{close, closes('S', "other")}, extended("BEGIN"), extended("SELECT id FROM customers WHERE id = "+k[0][0])),
			[]message{simple(renames(name, k[0][1]))}, []message{simple(renames(name, k[1][1]))}, request([]message{close}, extended("COMMIT")), request([]message{bind("", "old"), execute("")}))
		if got != "2 2" {
			t.Errorf("%d: %s %q", i, got, said)
		}
		if last := said[len(said)-1]; strings.Contains(last, "26000") != (i == 0) {
			t.Errorf("%d: a statement that was, or was not, closed: %s", i, last)
		}
	}
}

// dividedModes begins a transaction behind another in one request.
func dividedModes(t *testing.T, s *shardedProgram, k [2][]string) {
	isolation := func(i int) []message {
		return []message{simple("SELECT current_setting('transaction_isolation') FROM customers WHERE id = " + k[i][0])}
	}
	said, _ := s.conversation(t, "none", []message{simple("BEGIN")}, []message{simple("SELECT 1 FROM customers WHERE id = " + k[0][0])},
		request(extended("COMMIT"), extended("BEGIN ISOLATION LEVEL REPEATABLE READ")), isolation(0), isolation(1))
	if strings.Contains(said[4], "read committed") {
		t.Errorf("the other shard has another isolation level: %q", said)
	}
	memory := func(i int) []message {
		return []message{simple("SELECT current_setting('work_mem') FROM customers WHERE id = " + k[i][0])}
	}
	said, _ = s.conversation(t, "none", []message{simple("BEGIN")}, []message{simple("SET LOCAL work_mem = '77MB'")}, []message{simple("SELECT 1 FROM customers WHERE id = " + k[0][0])},
		[]message{simple("COMMIT AND CHAIN")}, memory(0), memory(1))
	if strings.Contains(said[5], "77MB") {
		t.Errorf("a setting of the transaction before: %q", said)
	}
}

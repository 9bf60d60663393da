package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// failedMoves are UPDATEs of the key that fail in one way: where rows are locked, on a row of the first shard or of the last, and
// where a row is to be inserted.
var failedMoves = []string{
	"UPDATE moved SET owner = owner + 1, n = 1 / (owner - %d)",
	"UPDATE moved SET owner = owner + 1, n = 1 / (owner - %d) RETURNING n, note",
	"UPDATE moved SET owner = 500 + n, note = note || 1 / (owner - %d) RETURNING note",
	"UPDATE moved SET owner = 501, n = 1 / (owner - %[1]d) WHERE owner = %[1]d RETURNING n",
	"UPDATE moved SET owner = 500, n = 1 / (owner - %d) WHERE note <> '' RETURNING owner",
	"UPDATE moved SET owner = 500, id = 1 WHERE id + %d >= 0 RETURNING owner, id",
	"UPDATE moved SET owner = owner + 1, id = 7 WHERE 1 / (owner - %d) > 5",
	"UPDATE moved SET owner = NULLIF(owner, %d) RETURNING *",
}

// TestMoveAnswers compares what is said of an UPDATE of the key that fails, and of what comes behind it, with one server.
func TestMoveAnswers(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		b := &both{limit: 4 * time.Second}
		b.start(t, 2, "", "      moved: {key: owner}\n"+runtime)
		for _, sql := range []string{
			"CREATE TABLE moved (owner bigint NOT NULL, id bigint NOT NULL, n bigint, note text, PRIMARY KEY (owner, id))",
			"CREATE TABLE home (id int PRIMARY KEY)",
		} {
			b.onBoth(t, sql)
		}
		eventually(t, "all is known", func() bool {
			return strings.HasPrefix(asked(t, b.proxy, "EXPLAIN (ROUTE) SELECT * FROM moved WHERE owner = 1"), "Route: shard s")
		})
		b.onBoth(t, "INSERT INTO moved SELECT i, i, i, 'x' FROM generate_series(0, 19) i")
		for _, k := range []int{0, 3, 19} {
			for _, sql := range failedMoves {
				b.moveAnswers(t, fmt.Sprintf(sql, k))
			}
		}
	})
}

// moveAnswers compares what either side says of an UPDATE in every way that it can be sent.
func (b *both) moveAnswers(t *testing.T, sql string) {
	describe := &pgproto3.Describe{ObjectType: 'P'}
	named := &pgproto3.Describe{ObjectType: 'S', Name: "a"}
	count := "SELECT count(*), sum(n) FROM moved"
	for name, requests := range map[string][][]message{
		"simple":            {{simple(sql)}},
		"script":            {{simple("INSERT INTO home VALUES (1); " + sql + "; INSERT INTO home VALUES (2)")}},
		"extended":          {request(extended(sql))},
		"described":         {request([]message{parse("", sql), bind("", ""), describe, execute("")})},
		"named":             {request([]message{parse("a", sql), named}), request([]message{bind("", "a"), describe, execute("")}), request([]message{bind("", "a"), execute("")})},
		"named at once":     {request([]message{parse("a", sql), bind("", "a"), describe, execute("")}), request([]message{bind("", "a"), execute("")})},
		"pipeline":          {slices.Concat(request(extended("INSERT INTO home VALUES (1)")), request([]message{parse("", sql), bind("", ""), describe, execute("")}), request(extended("SELECT 1")))},
		"in a transaction":  {{simple("BEGIN")}, request([]message{parse("", sql), bind("", ""), describe, execute("")}), {simple("SELECT 3")}, {simple("COMMIT")}},
		"behind savepoints": {{simple("BEGIN")}, {simple("INSERT INTO moved VALUES (70, 1, 1, '')")}, {simple("SAVEPOINT x")}, {simple(sql)}, {simple("ROLLBACK TO x")}, {simple(count)}, request([]message{parse("", sql), bind("", ""), describe, execute("")}), {simple("ROLLBACK TO x")}, {simple("RELEASE x")}, {simple(count)}, {simple("ROLLBACK")}},
	} {
		proxy, direct := speak(t, b.dsn()), speak(t, b.dsnOfAll)
		for i, r := range append(requests, []message{simple(count)}, []message{simple("SELECT count(*) FROM home")}) {
			for range syncs(r) {
				got, want := proxy.say(r...), direct.say(r...)
				r = nil
				if short := shortErrors(slices.Clone(got)); short != shortErrors(slices.Clone(want)) && short != shortErrors(errorOnly(want)) {
					t.Errorf("%s, %d: %s\nsaid  %s\nwant  %s", name, i, sql, strings.Join(got, " | "), strings.Join(want, " | "))
				}
			}
		}
		for _, c := range []*scripter{proxy, direct} {
			_ = c.conn.Conn.Close() // nothing depends on how it ends
		}
		eventually(t, name+": no connection is kept", func() bool { return (&shardedProgram{proxied: b.proxied}).lent() == 0 })
	}
}

// errorOnly leaves out what is said of the one request that fails before it does.
func errorOnly(said []string) []string {
	at := slices.IndexFunc(said, func(line string) bool { return strings.HasPrefix(line, "error ") })
	from := at
	for from > 0 && !strings.HasPrefix(said[from-1], "complete ") {
		from--
	}
	return slices.Concat(said[:max(from, 0)], said[max(at, 0):])
}

// syncs counts the answers to some messages.
func syncs(messages []message) (n int) {
	for _, m := range messages {
		switch m.(type) {
		case *pgproto3.Sync, *pgproto3.Query:
			n++
		}
	}
	return n
}

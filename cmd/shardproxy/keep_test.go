package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgcluster"
)

// keepsTables has results of these tables kept for an hour: nothing but a change takes them away.
const keepsTables = "    cache: {size: 16MiB, tables: {public.customers: 1h, public.orders: 1h, public.products: 1h, public.items: 1h}, statements: {SELECT count(*) FROM order_items: 1h}}\n"

// startKeeping is startShards with kept results.
func startKeeping(t *testing.T, more ...string) (*shardedProgram, *keptConsole) {
	s := startShards(t, 2, append([]string{keepsTables}, more...)...)
	c := s.connectLoaded()
	must(t, c, "INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(0, 39) n")
	must(t, c, "INSERT INTO orders (id, customer_id, note) SELECT n, n % 40, 'first' FROM generate_series(1, 80) n")
	console, _ := s.consoleOf()
	k := &keptConsole{t: t, Conn: console}
	eventually(t, "results are kept", func() bool { return k.of("state") == "open" })
	return s, k
}

// keptConsole asks what is kept.
type keptConsole struct {
	t *testing.T
	*pgx.Conn
}

func (k *keptConsole) of(column string) string {
	k.t.Helper()
	return shownBy(k.t, k.Conn, "SHOW CACHE")[0][column]
}

func (k *keptConsole) hits() int { n, _ := strconv.Atoi(k.of("hits")); return n }

// keepModes are the ways in which drivers send what they ask.
var keepModes = []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec}

// answerOf returns all of an answer: columns, types, formats' values, tag.
func answerOf(t testing.TB, c *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	rows, err := c.Query(within(t, 20*time.Second), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var b strings.Builder
	for _, f := range rows.FieldDescriptions() {
		fmt.Fprint(&b, f.Name, " ", f.DataTypeOID, " ", f.TypeModifier, "; ")
	}
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		fmt.Fprint(&b, values, "\n")
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return b.String() + rows.CommandTag().String()
}

// TestKeepAnswers asks the same twice, in all ways: the second answer is the first, and no server gave it.
func TestKeepAnswers(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s, k := startKeeping(t, "runtime: {driver: "+driver+"}")
			for _, mode := range keepModes {
				for _, q := range []struct {
					sql  string
					args []any
				}{
					{"SELECT * FROM customers WHERE id = 3", nil},
					{"SELECT name, id FROM customers WHERE id = $1", []any{4}},
					{"SELECT count(*), min(name) FROM customers", nil},
					{"SELECT id FROM customers WHERE id > $1 ORDER BY id DESC LIMIT 7", []any{10}},
					{"SELECT name FROM products WHERE id = $1", []any{2}},
					{"SELECT c.id, o.note FROM customers c JOIN orders o ON o.customer_id = c.id WHERE c.id = $1 ORDER BY o.id", []any{5}},
					{"SELECT c.id, p.name FROM customers c, products p WHERE p.id = c.id % 10 + 1 ORDER BY c.id", nil},
					{"SELECT * FROM customers WHERE id = 100000", nil},
					{"SELECT FROM customers", nil},
					{"SELECT to_char(sum(id), '9999') FROM customers WHERE name LIKE $1", []any{"%1%"}},
					{"SELECT count(*) FROM order_items", nil},
				} {
					a, b := s.connect(), s.connect()
					sql := fmt.Sprintf("%s /* %v */", q.sql, mode)
					for i, c := range []*pgx.Conn{a, a, b, b} { // who prepares asks twice
						before, args := k.hits(), append([]any{mode}, q.args...)
						got := answerOf(t, c, sql, args...)
						first := answerOf(t, c, sql+" -- alone "+fmt.Sprint(i), args...)
						if got != first {
							t.Errorf("%v: %s: kept\n%s\nand by the servers\n%s", mode, sql, got, first)
						}
						// What an earlier request has parsed without a name may mean something else by now.
						if hit := k.hits() - before; hit > 1 || (hit == 0) != (i == 0 && c == a || mode == pgx.QueryExecModeDescribeExec) {
							t.Errorf("%v: %s %v: %d hits when asked a %dth time", mode, sql, q.args, hit, i+1)
						}
					}
					_, _ = a.Close(context.Background()), b.Close(context.Background())
				}
			}
			if k.of("stale") != "0" || k.of("too_large") != "0" {
				t.Errorf("%s stale, %s large", k.of("stale"), k.of("too_large"))
			}
		})
	}
}

// TestKeepNot asks what must not be answered from what is kept: what a server changes without the proxy is seen at once.
func TestKeepNot(t *testing.T) {
	t.Parallel()
	s, k := startKeeping(t)
	for i, cl := range s.shards {
		for _, sql := range []string{
			"CREATE TABLE items (id bigint PRIMARY KEY, at timestamptz DEFAULT '2020-01-01', v int)", "CREATE TABLE unnamed (id bigint PRIMARY KEY)",
			"CREATE VIEW of_today AS SELECT id, CURRENT_DATE FROM items", "CREATE VIEW items_too AS SELECT * FROM items",
			"CREATE FUNCTION peeks(bigint) RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM unnamed'",
			"GRANT ALL ON ALL TABLES IN SCHEMA public TO app",
		} {
			cl.Primary().Exec("app", sql)
		}
		if i == 0 {
			cl.Primary().Exec("app", "INSERT INTO items (id, v) SELECT n, 1 FROM generate_series(1, 10) n")
		}
	}
	c := s.connect()
	eventually(t, "the tables are known", func() bool {
		hits := k.hits()
		must(t, c, "SELECT id FROM items_too")
		must(t, c, "SELECT id FROM items_too")
		return k.hits() > hits
	})
	const plain = "SELECT v, id FROM items WHERE id = 1"
	for _, test := range []struct {
		before, sql string
		kept        bool // as a check of the test itself
	}{
		{"", plain, true}, {"", "SELECT v FROM items_too WHERE id = 1", true}, {"SET work_mem = '5MB'", plain, true},
		{"BEGIN", plain, false}, {"BEGIN ISOLATION LEVEL REPEATABLE READ", plain, false},
		{"", plain + " FOR UPDATE", false}, {"", "SELECT v, now() FROM items WHERE id = 1", false}, {"", "SELECT v, CURRENT_DATE FROM items WHERE id = 1", false},
		{"", "SELECT v FROM items WHERE id = 1 AND at < 'today'", false}, {"", "SELECT v, random() FROM items WHERE id = 1", false},
		{"", "SELECT i.v FROM items i, unnamed", false}, {"", "SELECT v, (SELECT count(*) FROM unnamed) FROM items WHERE id = 1", false},
		{"", "SELECT i.v FROM of_today o JOIN items i ON i.id = o.id WHERE i.id = 1", false},
		{"", "SELECT v, pg_backend_pid() FROM items WHERE id = 1", false}, {"", "SELECT v FROM items TABLESAMPLE system (100) WHERE id = 1", false},
		{"", "SELECT v FROM items WHERE id = 1; SELECT 1", false}, {"", "WITH w AS (UPDATE items SET at = at WHERE id = 2) SELECT v FROM items WHERE id = 1", false},
		{"CREATE TEMP TABLE IF NOT EXISTS mine (v int)", plain, false}, {"SELECT pg_advisory_lock(1)", plain, false},
		{"PREPARE p AS " + plain, "EXECUTE p", false}, {"", "EXPLAIN ANALYZE " + plain, false}, {"", "COPY (" + plain + ") TO STDOUT", false},
	} {
		asks := func() string {
			var b strings.Builder
			results, err := c.PgConn().Exec(within(t, 20*time.Second), test.sql).ReadAll()
			if err != nil {
				t.Fatalf("%s: %v", test.sql, err)
			}
			for _, r := range results {
				fmt.Fprintf(&b, "%q %s", r.Rows, r.CommandTag)
			}
			return b.String()
		}
		c = s.connect()
		if test.before != "" {
			must(t, c, test.before)
		}
		asks()
		before := k.hits()
		asks()
		asks()
		if hits := k.hits() - before; (hits == 2) != test.kept || hits == 1 {
			t.Errorf("%s; %s: %d hits", test.before, test.sql, hits)
		}
		_ = c.Close(context.Background())
	}
	// What was prepared before means another day tomorrow, too.
	for sql, kept := range map[string]bool{"SELECT v FROM items WHERE id = $1": true, "SELECT v, CURRENT_DATE FROM items WHERE id = $1": false, "SELECT v, now() FROM items WHERE id = $1": false,
		"SELECT v FROM items WHERE id = $1 AND at < timestamptz 'today'": false, "SELECT v FROM items WHERE id = $1 AND at < LocalTimestamp": false} {
		c := s.connect()
		hits := k.hits()
		for range 4 {
			answerOf(t, c, sql, pgx.QueryExecModeCacheStatement, 1)
		}
		if got := k.hits() - hits; got != 3 && kept || got != 0 && !kept {
			t.Errorf("%s, prepared: %d hits", sql, got)
		}
	}
	// Who asks, and under which settings, is part of the question.
	a := s.connect()
	must(t, a, "CREATE SCHEMA other")
	must(t, a, "CREATE TABLE other.items (id bigint PRIMARY KEY, v int)")
	must(t, a, "INSERT INTO other.items VALUES (1, 77)")
	for _, set := range []struct{ set, sql, want string }{
		{"RESET ALL", "SELECT v::text FROM items WHERE id = 1", "1"}, {"SET search_path = other", "SELECT v::text FROM items WHERE id = 1", "77"},
		{"RESET ALL", "SELECT v::text FROM items WHERE id = 1", "1"}, {"SET timezone = 'UTC'", "SELECT at::text FROM items WHERE id = 1", "2020-01-01 00:00:00+00"},
		{"SET timezone = 'Asia/Tokyo'", "SELECT at::text FROM items WHERE id = 1", "2020-01-01 09:00:00+09"},
	} {
		for range 2 {
			must(t, a, set.set)
			if got := one(t, a, set.sql); got != set.want && !strings.Contains(set.set, "timezone") {
				t.Errorf("%s: %s is %s", set.set, set.sql, got)
			} else if strings.Contains(set.set, "timezone") && !strings.HasSuffix(got, set.want[len(set.want)-3:]) {
				t.Errorf("%s: %s is %s", set.set, set.sql, got)
			}
		}
	}
}

// TestKeepWrites writes in all ways: once the writer is told, nobody gets what was there before.
func TestKeepWrites(t *testing.T) {
	t.Parallel()
	s, k := startKeeping(t)
	w, r := s.connectLoaded(), s.connect()
	a, b := s.apart()
	one := strconv.Itoa(a)
	all := []string{"SELECT id, name FROM customers ORDER BY id", "SELECT name FROM customers WHERE id = " + one, "SELECT * FROM orders ORDER BY customer_id, id", "SELECT * FROM products ORDER BY id", "SELECT count(*) FROM order_items"}
	asks := func() (got []string) {
		for _, sql := range all {
			got = append(got, answerOf(t, r, sql))
		}
		return got
	}
	truth := func() (got []string) {
		for _, sql := range all {
			got = append(got, answerOf(t, r, sql+" -- "+strconv.Itoa(rand.Int())))
		}
		return got
	}
	copies := func(rows string) func() {
		return func() {
			if _, err := w.PgConn().CopyFrom(within(t, 20*time.Second), strings.NewReader(rows), "COPY orders FROM STDIN"); err != nil {
				t.Fatal(err)
			}
		}
	}
	does := func(all ...string) func() {
		return func() {
			for _, sql := range all {
				must(t, w, sql, pgx.QueryExecModeSimpleProtocol)
			}
		}
	}
	batch := func(all ...string) func() {
		return func() {
			var b pgx.Batch
			for _, sql := range all {
				b.Queue(sql)
			}
			if err := w.SendBatch(within(t, 20*time.Second), &b).Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	up := func(id int) string { return fmt.Sprintf("UPDATE customers SET name = name || 'x' WHERE id = %d", id) }
	for _, test := range []struct {
		what  string
		do    func()
		stays bool // what was kept may stay
	}{
		{"a row", does(up(a)), false}, {"a row, prepared", func() { must(t, w, up(a)) }, false}, {"all rows", does("UPDATE customers SET name = name || 'y'"), false},
		{"rows of two shards", does("BEGIN", up(a), up(b), "COMMIT"), false}, {"one text", does("BEGIN; " + up(a) + "; " + up(b) + "; COMMIT"), false},
		{"two in one text", does(up(a) + "; " + up(b)), false}, {"a batch", batch(up(a), up(b), up(a)), false},
		{"a CTE", does("WITH w AS (UPDATE customers SET name = name || 'c' WHERE id = " + one + " RETURNING id) SELECT * FROM w"), false},
		{"RETURNING", does(up(a) + " RETURNING name"), false}, {"a new row", does("INSERT INTO customers VALUES (1000, 'new')"), false}, {"DELETE", does("DELETE FROM customers WHERE id = 1000"), false},
		{"ON CONFLICT", does("INSERT INTO customers VALUES (" + one + ", 'again') ON CONFLICT (id) DO UPDATE SET name = excluded.name || customers.name"), false},
		{"MERGE", does("MERGE INTO customers c USING (VALUES (" + one + "::bigint)) v (id) ON c.id = v.id AND c.id = " + one + " WHEN MATCHED THEN UPDATE SET name = 'merged'"), false},
		{"COPY", copies(one + "0001\t" + one + "\tcopied\n"), false}, {"COPY to two", copies(fmt.Sprintf("5001\t%d\tc\n5002\t%d\tc\n", a, b)), false},
		{"a reference table", does("UPDATE products SET name = name || 'r' WHERE id = 1"), false},
		{"a statement's own table", does("INSERT INTO order_items SELECT id, customer_id, 1, 1 FROM orders WHERE customer_id = " + one + " LIMIT 1"), false},
		{"savepoints", does("BEGIN", "SAVEPOINT s", up(a), "RELEASE s", up(b), "COMMIT"), false}, {"DDL", does("ALTER TABLE customers ADD COLUMN IF NOT EXISTS extra int DEFAULT 3"), true},
		{"TRUNCATE", does("TRUNCATE order_items"), false}, {"a cursor's writer", does("BEGIN", "DECLARE x CURSOR FOR SELECT 1", up(a), "COMMIT"), false},
		{"taken back", does("BEGIN", up(a), "ROLLBACK"), true}, {"elsewhere", does("CREATE TEMP TABLE t (v int)", "INSERT INTO t VALUES (1)", "DROP TABLE t"), true},
	} {
		asks()
		asks()
		hits := k.hits()
		if asks(); k.hits()-hits != len(all) {
			t.Errorf("before %s: %d hits", test.what, k.hits()-hits)
			t.Log(shownBy(t, k.Conn, "SHOW CACHE"))
		}
		before := truth()
		test.do()
		got, want := asks(), truth()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: kept\n%q, there is\n%q", test.what, got, want)
		}
		if reflect.DeepEqual(before, want) != test.stays {
			t.Errorf("%s: what there is changed: %t", test.what, !reflect.DeepEqual(before, want))
		}
	}
	// Of what is not committed nobody sees anything, and what others ask meanwhile is not kept beyond the end.
	must(t, w, "BEGIN")
	must(t, w, up(a))
	old := asks()
	asks()
	must(t, w, "COMMIT")
	if got, want := asks(), truth(); reflect.DeepEqual(old, want) || !reflect.DeepEqual(got, want) {
		t.Errorf("behind a COMMIT: kept\n%q, there is\n%q", got, want)
	}
	// What only one table has to do with leaves the others.
	asks()
	must(t, w, "UPDATE products SET name = name || 'z' WHERE id = 2")
	hits := k.hits()
	if asks(); k.hits()-hits != len(all)-1 {
		t.Errorf("a write of one table: %d hits of others", k.hits()-hits)
	}
	console, _ := s.consoleOf()
	must(t, console, "RESET CACHE IN app")
	if n := k.of("entries"); n != "0" {
		t.Errorf("%s entries behind RESET CACHE", n)
	}
}

// TestKeepOnce has many ask the same at once: one asks the servers.
func TestKeepOnce(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s, k := startKeeping(t, "runtime: {driver: "+driver+"}")
			const many = 20
			var group sync.WaitGroup
			start := make(chan struct{})
			for range many {
				c := s.connect()
				group.Go(func() {
					<-start
					var n int
					if err := c.QueryRow(within(t, 20*time.Second), "SELECT count(*) FROM products p, generate_series(1, 100000) g WHERE (p.id + g) % 3 = 0", pgx.QueryExecModeExec).Scan(&n); err != nil || n != 333333 {
						t.Errorf("%d, %v", n, err)
					}
				})
			}
			before, waits := k.hits(), k.of("waits")
			close(start)
			group.Wait()
			if k.of("stored") == "0" || k.hits()-before < many*3/4 || k.of("waits") == waits {
				t.Errorf("%d hits, %s waited, %s stored", k.hits()-before, k.of("waits"), k.of("stored"))
			}
			// Who is at it is cancelled: others ask for themselves.
			slow := "SELECT count(*) FROM products p, generate_series(1, 3000000) g WHERE (p.id + g) % 7 = 0"
			first, second := s.connect(), s.connect()
			told := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
				defer cancel()
				_, err := first.Exec(ctx, slow, pgx.QueryExecModeExec)
				told <- err
			}()
			<-time.After(100 * time.Millisecond)
			if got := one(t, second, slow, pgx.QueryExecModeExec); got != "4285713" {
				t.Errorf("%s", got)
			}
			if err := <-told; err == nil {
				t.Error("who was first was not cancelled")
			}
		})
	}
}

// TestKeepProxies writes through one proxy what another keeps.
func TestKeepProxies(t *testing.T) {
	t.Parallel()
	s, k := startKeeping(t)
	other := s.beside()
	other.run()
	r, w := s.connect(), other.connect()
	const sql = "SELECT name FROM customers WHERE id = 7"
	eventually(t, "the other one knows the tables", func() bool { _, err := w.Exec(within(t, 5*time.Second), sql); return err == nil })
	for i := range 10 {
		one(t, r, sql)
		want := fmt.Sprint("name ", i)
		must(t, w, "UPDATE customers SET name = $1 WHERE id = 7", want)
		if got := one(t, w, sql); got != want {
			t.Fatalf("who writes reads %s, wrote %s", got, want)
		}
		began := time.Now()
		for one(t, r, sql) != want {
			if time.Since(began) > 5*time.Second {
				t.Fatalf("%s is not heard of", want)
			}
		}
	}
	// Without the first shard nothing is heard of others: what is kept goes.
	one(t, r, "SELECT name FROM customers WHERE id = 7 -- again")
	s.shards[0].Primary().Kill9()
	eventually(t, "nothing is kept", func() bool { return k.of("state") == "shut" && k.of("entries") == "0" })
	s.shards[0].Primary().Start()
	eventually(t, "results are kept again", func() bool { return k.of("state") == "open" })
	hits := k.hits()
	for range 3 {
		eventually(t, "it is answered", func() bool { _, err := r.Exec(within(t, 5*time.Second), sql); return err == nil })
	}
	if k.hits() == hits {
		t.Error("nothing is kept again")
	}
}

// TestKeepReload turns it on, changes it and turns it off while sessions are there.
func TestKeepReload(t *testing.T) {
	t.Parallel()
	ps := startProcess(t, processText+"    catalog: {refresh: 1s}\n") // it may listen before it knows of the table
	ps.server.Exec(ps.database, "CREATE TABLE menu (id int PRIMARY KEY, dish text); INSERT INTO menu VALUES (1, 'soup'), (2, 'rice'); GRANT ALL ON menu TO "+pgcluster.AppUser)
	c := ps.connect()
	const sql = "SELECT dish FROM menu WHERE id = 1"
	eats := func() string { return one(t, c, sql, pgx.QueryExecModeSimpleProtocol) }
	text, n := ps.text(), 0
	cooks := func() string { // behind the proxy's back
		n++
		dish := fmt.Sprint("dish ", n)
		ps.server.Exec(ps.database, "UPDATE menu SET dish = '"+dish+"' WHERE id = 1")
		return dish
	}
	kept := func(what string, want bool) {
		t.Helper()
		eventually(t, what, func() bool {
			was := eats()
			is := cooks()
			got := eats()
			return (got == was) == want && (got == is) != want
		})
	}
	kept("nothing is kept at first", false)
	for _, step := range []struct {
		conf string
		want bool
	}{
		{"    cache: {size: 1MiB, tables: {public.menu: 1h}}\n", true}, {"    cache: {size: 1MiB, tables: {public.other: 1h}}\n", false},
		{"    cache: {size: 1MiB, statements: {SELECT dish FROM menu WHERE id = 99: 1h}}\n", true}, {"", false},
		{"    cache: {size: 1MiB, tables: {public.menu: 1ms}}\n", false}, {"    cache: {size: 1MiB, entry: 1KiB, tables: {public.menu: 1h}}\n", true},
	} {
		ps.write(text + step.conf)
		ps.console("RELOAD")
		kept(fmt.Sprintf("with %q", step.conf), step.want)
	}
	// A result that is too long is not kept, nor is it held back from anybody.
	must(t, c, "INSERT INTO menu SELECT n, repeat('x', 100) FROM generate_series(10, 60) n")
	for range 3 {
		answerOf(t, c, "SELECT * FROM menu")
	}
	if got := ps.console("SHOW CACHE"); got[0][9] != "3" {
		t.Errorf("too large: %q", got)
	}
	pinned := ps.connect() // which keeps its connection, and prepares in one request what it runs in the next
	must(t, pinned, "SELECT pg_advisory_lock(3)")
	for i := range 3 {
		eats()
		want := fmt.Sprint("of its own ", i)
		must(t, pinned, "UPDATE menu SET dish = $1 WHERE id = 1", pgx.QueryExecModeDescribeExec, want)
		if got := eats(); got != want {
			t.Errorf("behind a write of a session with a connection of its own: %s, want %s", got, want)
		}
	}
	ps.console("RELOAD") // users and rights may be others
	if got := ps.console("SHOW CACHE"); got[0][2] != "0" {
		t.Errorf("entries behind a RELOAD: %q", got)
	}
}

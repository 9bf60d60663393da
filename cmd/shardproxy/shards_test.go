package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgcluster"
	"shardproxy/internal/pgtest"
)

const shardsText = `
listen: {address: "%LISTEN%"}
admin:  {address: "%ADMIN%", admin_users: [app], open: [probes, metrics]}
users:
  - {name: app, password: ` + pgcluster.AppPassword + `}
databases:
  app:
    shards:
%SHARDS%
    server: {control: {user: postgres}, connect_timeout: 2s}
    catalog: {refresh: 1s}
    tables:
      customers:   {key: id}
      orders:      {key: customer_id}
      order_items: {key: customer_id}
      products:    {reference: true}
`

// shardedSchema is made on every shard, as an operator would.
const shardedSchema = `
CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE products (id bigint PRIMARY KEY, name text NOT NULL);
CREATE TABLE orders (id bigint, customer_id bigint REFERENCES customers, note text, PRIMARY KEY (customer_id, id));
CREATE TABLE order_items (order_id bigint, customer_id bigint, product_id bigint REFERENCES products, qty int,
    PRIMARY KEY (customer_id, order_id, product_id), FOREIGN KEY (customer_id, order_id) REFERENCES orders (customer_id, id));
INSERT INTO products SELECT i, 'product ' || i FROM generate_series(1, 10) i;
`

// shardedProgram is the program in front of several shards.
type shardedProgram struct {
	*proxied
	shards []*pgtest.Cluster
}

// startShards makes shards with the schema, their cluster, and the program.
func startShards(t testing.TB, n int, more ...string) *shardedProgram {
	t.Helper()
	return startShardsOf(t, n, pgtest.Options{}, more...)
}

// startShardsOf is startShards with servers of the caller's choice.
func startShardsOf(t testing.TB, n int, o pgtest.Options, more ...string) *shardedProgram {
	t.Helper()
	return startShardsBehind(t, n, o, func(addr string) string { return addr }, more...)
}

// startShardsBehind is startShardsOf with each server known by the address that front gives.
func startShardsBehind(t testing.TB, n int, o pgtest.Options, front func(addr string) string, more ...string) *shardedProgram {
	t.Helper()
	return startShardsBy(t, shardsText, n, o, front, more...)
}

// startShardsBlind is startShards with a program that does not see what is done behind its back.
func startShardsBlind(t testing.TB, n int) *shardedProgram {
	t.Helper()
	text := strings.Replace(shardsText, "catalog: {refresh: 1s}", "catalog: {refresh: 1h}", 1)
	return startShardsBy(t, text, n, pgtest.Options{}, func(addr string) string { return addr })
}

// startShardsBy is startShardsBehind with another configuration.
func startShardsBy(t testing.TB, text string, n int, o pgtest.Options, front func(addr string) string, more ...string) *shardedProgram {
	t.Helper()
	settings := map[string]string{"max_prepared_transactions": "20", "wal_level": "logical"}
	maps.Copy(settings, o.Settings)
	o.Settings = settings
	s := &shardedProgram{proxied: &proxied{t: t, addr: freeAddr(t), path: filepath.Join(t.TempDir(), "shardproxy.yaml")}}
	var list strings.Builder
	for i := range n {
		cl := pgtest.Start(t, o)
		s.shards = append(s.shards, cl)
		fmt.Fprintf(&list, "      - {name: s%d, nodes: [%q]}\n", i, front(cl.Primary().Addr()))
		must(t, pgtest.Connect(t, cl.Primary().DSN("app", "app")), shardedSchema)
	}
	s.write(strings.NewReplacer("%SHARDS%", list.String(), "%LISTEN%", s.addr, "%ADMIN%", freeAddr(t)).Replace(text + strings.Join(more, "\n")))
	c := initCommand()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs([]string{"-c", s.path})
	if err := c.ExecuteContext(within(t, time.Minute)); err != nil {
		t.Fatalf("init: %v\n%s", err, out.String())
	}
	s.run()
	return s
}

// run starts the program with the configuration that is written.
func (px *proxied) run() {
	t := px.t
	t.Helper()
	log, err := os.Create(filepath.Join(filepath.Dir(px.path), "log"))
	if err != nil {
		t.Fatal(err)
	}
	if px.p, err = newProgram(px.path, log); err != nil {
		t.Fatal(err)
	}
	if err := px.p.open(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		px.p.close()
		_ = log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("the proxy's log, last lines:\n%s", b[max(0, len(b)-8000):])
		}
	})
}

// TestShards places rows by their keys and finds them again, and refuses what needs
// more than one shard.
func TestShards(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			placesRows(t, startShards(t, 2, "runtime: {driver: "+driver+"}"))
		})
	}
}

func placesRows(t *testing.T, s *shardedProgram) {
	c := s.connectLoaded()
	for i := range 40 {
		must(t, c, "INSERT INTO customers (id, name) VALUES ($1, $2)", i, fmt.Sprint("customer ", i))
		must(t, c, fmt.Sprintf("INSERT INTO orders (id, customer_id, note) VALUES (%d, %d, 'x')", i, i))
	}
	ctx := within(t, time.Minute)
	sum := 0
	for i, cl := range s.shards {
		direct := pgtest.Connect(t, cl.Primary().DSN("app", "app"))
		var n, misplaced int
		if err := direct.QueryRow(ctx, "SELECT count(*) FROM orders").Scan(&n); err != nil {
			t.Fatal(err)
		}
		err := pgtest.Connect(t, cl.Primary().DSN("postgres", "app")).QueryRow(ctx, "SELECT 0").Scan(&misplaced)
		if err != nil || n < 5 {
			t.Errorf("shard %d has %d rows", i, n)
		}
		sum += n
	}
	if sum != 40 {
		t.Errorf("%d rows on all shards", sum)
	}
	for i := range 40 {
		var name, note string
		err := c.QueryRow(ctx, "SELECT c.name, o.note FROM customers c JOIN orders o ON o.customer_id = c.id WHERE c.id = $1", i).Scan(&name, &note)
		if err != nil || name != fmt.Sprint("customer ", i) || note != "x" {
			t.Errorf("customer %d: %q %q %v", i, name, note, err)
		}
	}
	fails(t, c, "SELECT * FROM orders LIMIT 3 FOR UPDATE", "0A000")
	fails(t, c, "INSERT INTO orders (id) VALUES (1)", "0A000")
	fails(t, c, "UPDATE products SET name = clock_timestamp()::text", "0A000")
	fails(t, c, "SELECT * FROM orders WHERE customer_id = 'abc'", "22P02")
	fails(t, c, "INSERT INTO customers VALUES (NULL, 'x')", "23502")
	must(t, c, "CREATE TABLE migrations (version int)")
	must(t, c, "INSERT INTO migrations VALUES (1)")
	transactionsOfAShard(t, c)
	writesOfSeveral(t, s, c)
	documentedFamilies(t, s)
}

// documentedFamilies are those that only databases of several shards have.
func documentedFamilies(t *testing.T, s *shardedProgram) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	found := s.scrape()
	for name := range found {
		if strings.HasPrefix(name, "shardproxy_twopc_") && !bytes.Contains(page, []byte("| `"+name+"` | ")) {
			t.Errorf("docs/metrics.md lacks %s", name)
		}
	}
	for line := range bytes.Lines(page) {
		name, _, _ := strings.Cut(strings.TrimPrefix(string(line), "| `"), "`")
		if _, ok := found[name]; strings.HasPrefix(name, "shardproxy_twopc_") && !ok {
			t.Errorf("docs/metrics.md has %s, which is not exported", name)
		}
	}
}

// connectLoaded waits until the program knows the schema.
func (s *shardedProgram) connectLoaded() *pgx.Conn {
	s.t.Helper()
	c := s.connect()
	eventually(s.t, "the catalog is there", func() bool {
		_, err := c.Exec(within(s.t, 10*time.Second), "SELECT * FROM customers WHERE id = 0")
		return err == nil
	})
	return c
}

// transactionsOfAShard begins where the first statement belongs.
func transactionsOfAShard(t *testing.T, c *pgx.Conn) {
	ctx := within(t, time.Minute)
	for i := range 10 {
		tx, err := c.Begin(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := tx.Exec(ctx, "UPDATE orders SET note = note || 'y' WHERE customer_id = $1", i); err != nil {
				t.Fatal(err)
			}
		}
		if i%2 == 0 {
			err = tx.Commit(ctx)
		} else {
			err = tx.Rollback(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
		var note string
		if err := c.QueryRow(ctx, "SELECT note FROM orders WHERE customer_id = $1", i).Scan(&note); err != nil {
			t.Fatal(err)
		}
		if want := map[bool]string{true: "xyy", false: "x"}[i%2 == 0]; note != want {
			t.Errorf("order %d: %q, want %q", i, note, want)
		}
	}
	must(t, c, "BEGIN")
	must(t, c, "COMMIT")
	must(t, c, "BEGIN")
	fails(t, c, "SELECT * FROM orders LIMIT 3 FOR UPDATE", "0A000")
	fails(t, c, "SELECT 1", "25P02")
	must(t, c, "ROLLBACK")
	transactionsOfSeveral(t, c)
}

// onEach returns what each shard itself answers.
func (s *shardedProgram) onEach(sql string) (all []string) {
	s.t.Helper()
	for _, cl := range s.shards {
		var v string
		if err := pgtest.Connect(s.t, cl.Primary().DSN("app", "app")).QueryRow(within(s.t, 10*time.Second), sql).Scan(&v); err != nil {
			v = err.Error()
		}
		all = append(all, v)
	}
	return all
}

// writesOfSeveral commit on several shards, and change what all have alike.
func writesOfSeveral(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	ctx := within(t, time.Minute)
	must(t, c, "BEGIN")
	for i := range 10 {
		must(t, c, "UPDATE orders SET note = 'two' WHERE customer_id = $1", i)
	}
	must(t, c, "COMMIT")
	for i := range 10 {
		var note string
		if err := c.QueryRow(ctx, "SELECT note FROM orders WHERE customer_id = $1", i).Scan(&note); err != nil || note != "two" {
			t.Errorf("order %d after two phases: %q %v", i, note, err)
		}
	}
	same := func(sql, want string) {
		t.Helper()
		for i, got := range s.onEach(sql) {
			if got != want {
				t.Errorf("shard %d: %s: %q, want %q", i, sql, got, want)
			}
		}
	}
	must(t, c, "UPDATE products SET name = 'everywhere' WHERE id = 1")
	must(t, c, "UPDATE products SET name = $1 WHERE id = $2", "with parameters", 2)
	must(t, c, "INSERT INTO products VALUES ($1, 'new')", 11)
	same("SELECT string_agg(name, ',' ORDER BY id) FROM products WHERE id IN (1, 2, 11)", "everywhere,with parameters,new")
	fails(t, c, "INSERT INTO products VALUES (11, 'again')", "23505")
	var id int
	if err := c.QueryRow(ctx, "DELETE FROM products WHERE id = 11 RETURNING id").Scan(&id); err != nil || id != 11 {
		t.Errorf("RETURNING: %d %v", id, err)
	}
	must(t, c, "BEGIN")
	must(t, c, "UPDATE products SET name = 'not for long' WHERE id = 3")
	must(t, c, "UPDATE orders SET note = 'three' WHERE customer_id = 1")
	fails(t, c, "INSERT INTO products VALUES (1, 'again')", "23505")
	fails(t, c, "SELECT 1", "25P02")
	must(t, c, "ROLLBACK")
	same("SELECT name FROM products WHERE id = 3", "product 3")
	must(t, c, "BEGIN")
	must(t, c, "UPDATE products SET name = 'for long' WHERE id = 3")
	must(t, c, "UPDATE orders SET note = 'three' WHERE customer_id = 1")
	must(t, c, "COMMIT")
	same("SELECT name FROM products WHERE id = 3", "for long")

	insertsOfSeveral(t, s, c)
	must(t, c, "ALTER TABLE orders ADD COLUMN extra int DEFAULT 7")
	must(t, c, "CREATE INDEX orders_note ON orders (note)")
	must(t, c, "CREATE TYPE mood AS ENUM ('good', 'bad')")
	must(t, c, "CREATE TYPE pair AS (a int, b text)")
	must(t, c, "CREATE VIEW few AS SELECT * FROM orders WHERE note = 'two'")
	same("SELECT (count(extra) > 0)::text FROM orders", "true")
	same("SELECT count(*)::text FROM pg_class WHERE relname IN ('orders_note', 'few')", "2")
	same("SELECT count(*)::text FROM pg_type WHERE typname = 'mood'", "1")
	same("SELECT count(*)::text FROM pg_type WHERE typname = 'pair'", "1")
	same("SELECT count(*)::text FROM pg_prepared_xacts", "0")
	fails(t, c, "ALTER TABLE orders ADD COLUMN extra int", "42701")
	must(t, c, "BEGIN")
	must(t, c, "DROP VIEW few")
	must(t, c, "ALTER TABLE orders DROP COLUMN extra")
	must(t, c, "ROLLBACK")
	same("SELECT (count(extra) > 0)::text FROM orders", "true")
	must(t, c, "SELECT extra FROM few WHERE customer_id = 2")
	must(t, c, "SELECT extra FROM few")
	must(t, c, "BEGIN")
	must(t, c, "CREATE VIEW fewer AS SELECT * FROM few WHERE id < 3")
	fails(t, c, "DROP VIEW fewer", "0A000")
	must(t, c, "ROLLBACK")
}

// transactionsOfSeveral read and write on several shards.
func transactionsOfSeveral(t *testing.T, c *pgx.Conn) {
	ctx := within(t, time.Minute)
	notes := func() (all string) {
		t.Helper()
		for i := range 10 {
			var note string
			if err := c.QueryRow(ctx, "SELECT note FROM orders WHERE customer_id = $1", i).Scan(&note); err != nil {
				t.Fatal(err)
			}
			all += note + " "
		}
		return all
	}
	before := notes()
	// Many read, one writes.
	for _, end := range []string{"ROLLBACK", "COMMIT"} {
		must(t, c, "BEGIN")
		if got := notes(); got != before {
			t.Errorf("in a transaction: %s", got)
		}
		must(t, c, "UPDATE orders SET note = 'z' WHERE customer_id = 3")
		if got := notes(); got == before {
			t.Error("a transaction does not see its own write")
		}
		must(t, c, end)
		if got := notes(); (got == before) != (end == "ROLLBACK") {
			t.Errorf("after %s: %s", end, got)
		}
	}
	// Savepoints hold on all shards, also on those that are reached behind them.
	before = notes()
	must(t, c, "BEGIN")
	must(t, c, "UPDATE orders SET note = 'a' WHERE customer_id = 0")
	must(t, c, "SAVEPOINT one")
	for i := range 10 {
		must(t, c, "UPDATE orders SET note = 'b' WHERE customer_id = $1", i)
	}
	must(t, c, "ROLLBACK TO one")
	want := "a" + before[strings.Index(before, " "):]
	if got := notes(); got != want {
		t.Errorf("behind ROLLBACK TO: %s, want %s", got, want)
	}
	must(t, c, "SAVEPOINT two")
	fails(t, c, "SELECT 1/0", "22012")
	fails(t, c, "SELECT * FROM orders WHERE customer_id = 5", "25P02")
	must(t, c, "ROLLBACK TO two")
	if got := notes(); got != want {
		t.Errorf("behind an error: %s, want %s", got, want)
	}
	must(t, c, "ROLLBACK")
	if got := notes(); got != before {
		t.Errorf("behind ROLLBACK: %s, want %s", got, before)
	}
	fails(t, c, "SELECT 1/0", "22012")
	must(t, c, "BEGIN")
	notes()
	fails(t, c, "RESET search_path", "0A000")
	fails(t, c, "SELECT * FROM orders WHERE customer_id = 5", "25P02")
	must(t, c, "COMMIT")
	if got := notes(); got != before {
		t.Errorf("at the end: %s, want %s", got, before)
	}
}

// insertsOfSeveral inserts rows that belong to several shards by one statement.
func insertsOfSeveral(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	ctx := within(t, time.Minute)
	returned := func(sql string, args ...any) (ids []int) {
		t.Helper()
		rows, err := c.Query(ctx, sql, args...)
		if err != nil {
			t.Fatal(err)
		}
		ids, err = pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			t.Fatal(sql, err)
		}
		return ids
	}
	const rows = "(101, 'a'), (102, 'b'), /* , */ (103, 'c (),'), (104, $$d$$), (105, 'e')"
	if got := fmt.Sprint(returned("INSERT INTO customers (id, name) VALUES " + rows + " RETURNING id")); got != "[101 102 103 104 105]" {
		t.Error("RETURNING:", got)
	}
	got := returned("INSERT INTO customers (name, id) VALUES ($3, $1), ($4, $2), ($3, $5) RETURNING id", 113, 112, "x", "y", 111)
	if fmt.Sprint(got) != "[113 112 111]" {
		t.Error("RETURNING with parameters:", got)
	}
	names := func() (all string) {
		for i := range 20 {
			var name string
			err := c.QueryRow(ctx, "SELECT name FROM customers WHERE id = $1", 100+i).Scan(&name)
			if err == nil {
				all += fmt.Sprint(100+i, "=", name, " ")
			}
		}
		return all
	}
	if got := names(); got != "101=a 102=b 103=c (), 104=d 105=e 111=x 112=y 113=x " {
		t.Error("rows:", got)
	}
	tag, err := c.Exec(ctx, "INSERT INTO customers VALUES (105, 'again'), (106, 'new'), (107, 'new') ON CONFLICT (id) DO UPDATE SET name = excluded.name")
	if err != nil || tag.String() != "INSERT 0 3" {
		t.Error(tag, err)
	}
	before := names()
	fails(t, c, "INSERT INTO customers VALUES (115, 'x'), (116, 'x'), (117, 'x'), (101, 'there')", "23505")
	fails(t, c, "INSERT INTO customers VALUES (115, 'x'), (116, 'x'), (117, 'x'), (NULL, 'none')", "23502")
	if got := names(); got != before {
		t.Errorf("a failed INSERT left %s, want %s", got, before)
	}
	must(t, c, "BEGIN")
	must(t, c, "INSERT INTO customers VALUES (115, 'x'), (116, 'x'), (117, 'x')")
	fails(t, c, "INSERT INTO customers VALUES (118, 'x'), (119, 'x'), (101, 'there')", "23505")
	fails(t, c, "SELECT 1", "25P02")
	must(t, c, "ROLLBACK")
	if got := names(); got != before {
		t.Errorf("a rolled back INSERT left %s, want %s", got, before)
	}
	must(t, c, "DELETE FROM customers WHERE id = 107")
	if s.onEach("SELECT count(*)::text FROM pg_prepared_xacts")[1] != "0" {
		t.Error("transactions are left prepared")
	}
}

package main

import (
	"bytes"
	"context"
	"fmt"
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
admin:  {address: "%ADMIN%", admin_users: [app]}
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
func startShards(t testing.TB, n int) *shardedProgram {
	t.Helper()
	s := &shardedProgram{proxied: &proxied{t: t, addr: freeAddr(t), path: filepath.Join(t.TempDir(), "shardproxy.yaml")}}
	var list strings.Builder
	for i := range n {
		cl := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"max_prepared_transactions": "20", "wal_level": "logical"}})
		s.shards = append(s.shards, cl)
		fmt.Fprintf(&list, "      - {name: s%d, nodes: [%q]}\n", i, cl.Primary().Addr())
		must(t, pgtest.Connect(t, cl.Primary().DSN("app", "app")), shardedSchema)
	}
	s.write(strings.NewReplacer("%SHARDS%", list.String(), "%LISTEN%", s.addr, "%ADMIN%", freeAddr(t)).Replace(shardsText))
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
	s := startShards(t, 2)
	c := s.connect()
	eventually(t, "the catalog is there", func() bool {
		_, err := c.Exec(within(t, 10*time.Second), "SELECT * FROM customers WHERE id = 0")
		return err == nil
	})
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
	fails(t, c, "SELECT count(*) FROM orders", "0A000")
	fails(t, c, "INSERT INTO orders (id) VALUES (1)", "0A000")
	fails(t, c, "UPDATE products SET name = 'x'", "0A000")
	fails(t, c, "SELECT * FROM orders WHERE customer_id = 'abc'", "22P02")
	fails(t, c, "INSERT INTO customers VALUES (NULL, 'x')", "23502")
	must(t, c, "CREATE TABLE migrations (version int)")
	must(t, c, "INSERT INTO migrations VALUES (1)")
	transactionsOfAShard(t, c)
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
	fails(t, c, "SELECT count(*) FROM orders", "0A000")
	fails(t, c, "SELECT 1", "25P02")
	must(t, c, "ROLLBACK")
	must(t, c, "BEGIN")
	must(t, c, "SELECT * FROM orders WHERE customer_id = 1")
	for i := range 10 {
		if _, err := c.Exec(ctx, "SELECT * FROM orders WHERE customer_id = $1", i); err != nil {
			fails(t, c, "SELECT 1", "25P02")
			must(t, c, "ROLLBACK")
			return
		}
	}
	t.Error("a transaction ran on several shards")
}

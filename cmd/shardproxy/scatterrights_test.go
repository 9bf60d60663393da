package main

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/internal/pgcluster"
	"shardproxy/internal/pgtest"
)

// someOrders starts two shards with customers and orders.
func someOrders(t *testing.T) (*shardedProgram, *pgx.Conn) {
	s := startShards(t, 2)
	c := s.connectLoaded()
	for i := range 20 {
		must(t, c, "INSERT INTO customers VALUES ($1, 'c')", i)
		must(t, c, "INSERT INTO orders VALUES ($1, $2, 'x')", i, i)
	}
	return s, c
}

// TestScatterViewOwner reads a view with the rights of its owner.
func TestScatterViewOwner(t *testing.T) {
	s, c := someOrders(t)
	for _, cl := range s.shards {
		root := pgtest.Connect(t, cl.Primary().DSN("app", pgcluster.Superuser))
		must(t, root, "CREATE ROLE lim; GRANT lim TO app; GRANT SELECT ON customers TO lim")
		must(t, pgtest.Connect(t, cl.Primary().DSN("app", "app")), `ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON customers FOR SELECT TO lim USING (id < 3);
CREATE VIEW everyone AS SELECT id, name FROM customers; GRANT SELECT ON everyone TO lim; CREATE VIEW denied AS SELECT id FROM customers;
CREATE VIEW counted AS SELECT name, count(*) FROM customers GROUP BY name; GRANT SELECT ON counted TO lim`)
	}
	eventually(t, "the views are known", func() bool {
		return strings.Contains(asked(t, c, "EXPLAIN (ROUTE) SELECT id FROM denied UNION SELECT id FROM everyone"), "its rows on each of")
	})
	must(t, c, "SET ROLE lim")
	for _, q := range []string{"SELECT count(*) FROM everyone", "SELECT count(*) OVER () FROM everyone LIMIT 1"} {
		var n int
		if err := c.QueryRow(within(t, 10*time.Second), q).Scan(&n); err != nil || n != 20 {
			t.Errorf("%s: %d %v, should be 20", q, n, err)
		}
	}
	fails(t, c, "SELECT count(*) OVER () FROM denied", "42501")
	fails(t, c, "SELECT * FROM counted", "0A000") // which would have to be written out
	must(t, c, "RESET ROLE")
	must(t, c, "SELECT * FROM counted")
}

// TestScatterShape gives no rows of another shape than a client was told.
func TestScatterShape(t *testing.T) {
	s, c := someOrders(t)
	ask := func(msgs ...pgproto3.FrontendMessage) (columns int, code string) {
		f := c.PgConn().Frontend()
		for _, m := range append(msgs, &pgproto3.Sync{}) {
			f.Send(m)
		}
		if err := f.Flush(); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := f.Receive()
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *pgproto3.DataRow:
				columns = len(m.Values)
			case *pgproto3.ErrorResponse:
				code = m.Code
			case *pgproto3.ReadyForQuery:
				return columns, code
			}
		}
	}
	ask(&pgproto3.Parse{Name: "p", Query: "SELECT * FROM orders"}, &pgproto3.Describe{ObjectType: 'S', Name: "p"})
	for _, cl := range s.shards {
		must(t, pgtest.Connect(t, cl.Primary().DSN("app", "app")), "ALTER TABLE orders ADD COLUMN more text")
	}
	if n, code := ask(&pgproto3.Bind{PreparedStatement: "p"}, &pgproto3.Execute{}); code != "0A000" {
		t.Errorf("%d columns, error %q; described with 3", n, code)
	}
}

// TestPolicyOfOtherTables: a policy may read tables whose rows every shard has, and no others: each shard would
// look at its own rows only.
func TestPolicyOfOtherTables(t *testing.T) {
	t.Parallel()
	s, c := someOrders(t)
	policy := func(using string) {
		t.Helper()
		for _, cl := range s.shards {
			must(t, pgtest.Connect(t, cl.Primary().DSN("app", "app")), "DROP POLICY IF EXISTS p ON orders; CREATE POLICY p ON orders USING ("+using+")")
		}
	}
	for _, cl := range s.shards {
		must(t, pgtest.Connect(t, cl.Primary().DSN("app", "app")), "ALTER TABLE orders ENABLE ROW LEVEL SECURITY; ALTER TABLE orders FORCE ROW LEVEL SECURITY")
	}
	answers := func() string {
		_, err := c.Exec(within(t, txBound), "SELECT count(*) FROM orders")
		return sqlState(err)
	}
	policy("EXISTS (SELECT 1 FROM customers k WHERE k.name = orders.note)")
	eventually(t, "a policy that reads a sharded table is refused", func() bool { return answers() == "0A000" })
	policy("EXISTS (SELECT 1 FROM products k WHERE k.id <> orders.id)")
	eventually(t, "one that reads a reference table is not", func() bool { return answers() == "" })
	must(t, c, "SET shardproxy.cross_shard = refuse")
	fails(t, c, "SELECT count(*) FROM orders", "0A000")
	must(t, c, "RESET shardproxy.cross_shard")
	must(t, c, "SELECT count(*) FROM orders")
}

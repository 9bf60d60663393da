package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/internal/pgtest"
	"shardproxy/router"
)

// asked returns the rows of one column that a statement gives, in the simple protocol.
func asked(t *testing.T, c *pgx.Conn, sql string) string {
	t.Helper()
	results, err := c.PgConn().Exec(within(t, 10*time.Second), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var lines []string
	for _, r := range results {
		if got := string(r.FieldDescriptions[0].Name); got != "QUERY PLAN" {
			t.Errorf("column %q", got)
		}
		for _, row := range r.Rows {
			lines = append(lines, string(row[0]))
		}
	}
	return strings.Join(lines, "\n")
}

// askedWith returns the same in the extended protocol.
func askedWith(t *testing.T, c *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	rows, err := c.Query(within(t, 10*time.Second), sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(all, "\n")
}

// shardOf returns the number of the shard that holds a customer.
func (s *shardedProgram) shardOf(id int) string {
	s.t.Helper()
	for i, n := range s.onEach(fmt.Sprint("SELECT count(*)::text FROM customers WHERE id = ", id)) {
		if n == "1" {
			return fmt.Sprint("s", i)
		}
	}
	s.t.Fatalf("customer %d is nowhere", id)
	return ""
}

// TestExplainRoute asks where statements go, and compares with where rows are.
func TestExplainRoute(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) { explainsRoutes(t, startShards(t, 2, "runtime: {driver: "+driver+"}")) })
	}
}

func explainsRoutes(t *testing.T, s *shardedProgram) {
	c := s.connectLoaded()
	for i := range 8 {
		must(t, c, "INSERT INTO customers VALUES ($1, 'x')", i)
	}
	for i := range 8 {
		at := s.shardOf(i)
		sql := fmt.Sprintf("EXPLAIN (ROUTE) SELECT * FROM customers WHERE id = %d", i)
		if got := asked(t, c, sql); !strings.HasPrefix(got, "Route: shard "+at+"\n  public.customers: id = '"+fmt.Sprint(i)+"' (slot ") ||
			!strings.HasSuffix(got, ", shard "+at+")\nNode: primary or replica") {
			t.Errorf("customer %d is on %s: %s", i, at, got)
		}
		if got := askedWith(t, c, "EXPLAIN (ROUTE) SELECT * FROM customers WHERE id = $1", i); !strings.HasPrefix(got, "Route: shard "+at+"\n  public.customers: id = $1 ("+fmt.Sprint(i)+") (slot ") {
			t.Errorf("customer %d is on %s: %s", i, at, got)
		}
		if got, want := asked(t, c, fmt.Sprintf("EXPLAIN DELETE FROM customers WHERE id = %d", i)), "Route: shard "+at+" (public.customers: id)\nDelete on customers"; !strings.HasPrefix(got, want) {
			t.Errorf("EXPLAIN: %s", got)
		}
		if got, want := askedWith(t, c, "EXPLAIN (COSTS OFF) SELECT * FROM customers WHERE id = $1", i), "Route: shard "+at+" (public.customers: id)\n"; !strings.HasPrefix(got, want) || !strings.Contains(got, "customers_pkey") {
			t.Errorf("EXPLAIN: %s", got)
		}
	}
	aboveThePlan(t, s, c)
	routesRefused(t, s, c)
	routesOfEachKind(t, c)
	routesInTransactions(t, s, c)
	routesFrames(t, c)
	routesByFlush(t, s.connect())
	countsRefusals(t, s, c)
}

// aboveThePlan: one row, and below it what the shard itself says.
func aboveThePlan(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	const sql = "EXPLAIN (COSTS OFF) SELECT * FROM orders o JOIN customers c ON c.id = o.customer_id WHERE c.id = 1 ORDER BY o.note"
	direct := asked(t, pgtest.Connect(t, s.shards[0].Primary().DSN("app", "app")), sql)
	for _, got := range []string{asked(t, c, sql), askedWith(t, c, sql), asked(t, c, sql+"; SELECT 1 AS \"QUERY PLAN\"")} {
		head, rest, _ := strings.Cut(got, "\n")
		switch head {
		case "Route: shard " + s.shardOf(1) + " (public.orders: customer_id; public.customers: id)":
		case direct[:strings.Index(direct, "\n")]: // of two commands nothing is said
			if rest = strings.TrimSuffix(got, "\n1"); rest == got {
				t.Error(got)
			}
		default:
			t.Error(got)
		}
		if rest != direct {
			t.Errorf("%s\nthe shard itself: %s", got, direct)
		}
	}
}

// routesRefused: a refusal is an answer, a wrong question an error.
func routesRefused(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	got := asked(t, c, "EXPLAIN (ROUTE) DELETE FROM orders o USING (SELECT id FROM customers LIMIT 3) c WHERE c.id = o.id")
	if !strings.HasPrefix(got, "Route: refused (0A000, unbound_key)\n  this statement cannot be run over several shards: ") || !strings.Contains(got, "\n  Hint: ") {
		t.Error(got)
	}
	if got := askedWith(t, c, "EXPLAIN (ROUTE) DELETE FROM orders o USING (SELECT id FROM customers LIMIT 3) c WHERE c.id = o.id AND note = $1", "x"); !strings.HasPrefix(got, "Route: refused (0A000, unbound_key)\n") {
		t.Error(got)
	}
	if got := asked(t, c, "EXPLAIN (ROUTE) SELECT * FROM orders WHERE customer_id = 'abc'"); !strings.HasPrefix(got, "Route: refused (22P02)\n") {
		t.Error(got)
	}
	var r router.Route
	if err := json.Unmarshal([]byte(asked(t, c, "EXPLAIN (ROUTE, FORMAT JSON) SELECT * FROM customers WHERE id IN (0,1,2,3,4,5,6,7) LIMIT 2 FOR UPDATE")), &r); err != nil {
		t.Error(err)
	}
	if r.Where != "refused" || r.Refusal == nil || r.Refusal.Reason != "several_shards" || len(r.Tables) != 1 || len(r.Tables[0].Shards) != 2 || len(r.Tables[0].Slots) != 8 {
		t.Errorf("%+v", r)
	}
	var e *pgconn.PgError
	for sql, code := range map[string]string{
		"EXPLAIN (ROUTE, ANALYZE) SELECT 1":         "0A000",
		"EXPLAIN (ROUTE, BUFFERS off) SELECT 1":     "0A000",
		"EXPLAIN (ROUTE, FORMAT XML) SELECT 1":      "0A000",
		"EXPLAIN (ROUTE) SELECT 1; SELECT 2":        "0A000",
		"EXPLAIN (ROUTE) EXPLAIN (ROUTE) SELECT 2":  "0A000",
		"EXPLAIN (ROUTE maybe) SELECT 1":            "22023",
		"SELECT 1; EXPLAIN (ROUTE) SELECT 1":        "42601",
		"EXPLAIN (ROUTE, FORMAT JSON) ":             "0A000",
		"EXPLAIN (ROUTE, VERBOSE, COSTS) SELECT $1": "0A000",
	} {
		_, err := c.PgConn().Exec(within(t, 10*time.Second), sql).ReadAll()
		if !errors.As(err, &e) || e.Code != code && !(code != "0A000" && e.Code == "42601") {
			t.Errorf("%s: %v", sql, err)
		} else if code == "0A000" && e.Hint == "" {
			t.Errorf("%s: no hint", sql)
		}
	}
	must(t, c, "SELECT 1")
}

// routesOfEachKind: statements that EXPLAIN itself does not take, too.
func routesOfEachKind(t *testing.T, c *pgx.Conn) {
	for sql, want := range map[string]string{
		"SELECT 1":               "Route: any shard\nNode: primary or replica",
		"SELECT * FROM products": "Route: any shard\nNode: primary or replica",
		"UPDATE products SET name = 'x' WHERE id = 1":   "Route: all shards: s0, s1\nNode: primary (",
		"CREATE INDEX i ON orders (note)":               "Route: all shards: s0, s1\n",
		"SELECT * FROM pg_class":                        "Route: home shard s0\n",
		"SELECT * FROM orders WHERE customer_id = NULL": "Route: any shard: no row has such a key\n",
		"SELECT FROM": "Route: refused (42601, not_understood)\n",
		"INSERT INTO customers VALUES (0,'a'),(1,'b'),(2,'c'),(3,'d'),(4,'e')":  "Route: rows by their keys: s",
		"SELECT * FROM orders WHERE customer_id = $1":                           "Route: the shard of $1\n  public.orders: customer_id = $1\nNode: primary or replica",
		"SELECT * FROM orders o, customers c WHERE o.customer_id=$2 AND c.id=5": "Route: its rows on the shards of $2, '5'\n",
		"SELECT * FROM orders WHERE customer_id = 1 FOR UPDATE":                 "Route: shard s",
	} {
		if got := asked(t, c, "explain (route) "+sql); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", sql, got)
		}
	}
	if got := asked(t, c, "EXPLAIN SELECT 1"); !strings.HasPrefix(got, "Route: any shard, here s") {
		t.Error(got)
	}
	if got := asked(t, c, "EXPLAIN (FORMAT JSON) SELECT * FROM customers WHERE id = 1"); !strings.HasPrefix(got, "[") {
		t.Error(got)
	}
	fails(t, c, "PREPARE p AS SELECT * FROM orders WHERE customer_id = $1", "0A000")
	got := askedWith(t, c, "EXPLAIN (ROUTE) INSERT INTO customers VALUES ($1, $2), ($3, $2), ($4, $2), ($5, $2), ($6, $2)", 1, "x", 2, 3, 4, 5)
	if !strings.HasPrefix(got, "Route: rows by their keys: s") || strings.Count(got, "public.customers: id = $") != 5 {
		t.Error(got)
	}
}

// routesInTransactions: nothing begins, or ends, by asking.
func routesInTransactions(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	leased := func() (n int) {
		for _, i := range s.p.server.Sessions() {
			if i.Lease != nil {
				n++
			}
		}
		return n
	}
	must(t, c, "BEGIN")
	asked(t, c, "EXPLAIN (ROUTE) SELECT * FROM customers WHERE id = 1")
	askedWith(t, c, "EXPLAIN (ROUTE) SELECT name FROM customers WHERE id = $1", 2)
	if n := leased(); n != 0 || c.PgConn().TxStatus() != 'T' {
		t.Errorf("%d server connections, %c", n, c.PgConn().TxStatus())
	}
	must(t, c, "UPDATE customers SET name = 'asked' WHERE id = 1")
	asked(t, c, "EXPLAIN (ROUTE) SELECT * FROM customers WHERE id = 1")
	askedWith(t, c, "EXPLAIN (ROUTE) SELECT name FROM customers WHERE id = $1", 3)
	fails(t, c, "EXPLAIN (ROUTE, ANALYZE) SELECT 1", "0A000")
	fails(t, c, "SELECT 1", "25P02")
	fails(t, c, "EXPLAIN (ROUTE) SELECT 1", "25P02")
	must(t, c, "ROLLBACK")
	must(t, c, "BEGIN")
	fails(t, c, "EXPLAIN (ROUTE, ANALYZE) SELECT 1", "0A000")
	fails(t, c, "SELECT 1", "25P02")
	must(t, c, "ROLLBACK")
	// Behind, and ahead of, another statement up to the same Sync.
	for _, batch := range [][2]string{{"SELECT 1", "EXPLAIN (ROUTE) SELECT 1"}, {"EXPLAIN (ROUTE) SELECT 1", "SELECT 1"}} {
		b := &pgx.Batch{}
		b.Queue(batch[0])
		b.Queue(batch[1])
		var e *pgconn.PgError
		if err := c.SendBatch(within(t, 10*time.Second), b).Close(); !errors.As(err, &e) || e.Code != "0A000" {
			t.Errorf("%v: %v", batch, err)
		}
	}
	must(t, c, "SELECT 1")
}

// routesFrames: what a session that asks for routes only can do with frames.
func routesFrames(t *testing.T, c *pgx.Conn) {
	ctx := within(t, 10*time.Second)
	d, err := c.PgConn().Prepare(ctx, "asks", "EXPLAIN (ROUTE, FORMAT JSON) SELECT * FROM customers WHERE id = $1 AND name = $2", nil)
	if err != nil || fmt.Sprint(d.ParamOIDs) != "[20 0]" || len(d.Fields) != 1 || d.Fields[0].DataTypeOID != 114 {
		t.Fatalf("%+v %v", d, err)
	}
	for range 2 {
		r := c.PgConn().ExecPrepared(ctx, "asks", [][]byte{[]byte("5"), []byte("x")}, nil, nil).Read()
		var route router.Route
		if r.Err != nil || len(r.Rows) != 1 || json.Unmarshal(r.Rows[0][0], &route) != nil || r.CommandTag.String() != "EXPLAIN" {
			t.Fatalf("%+v", r)
		}
		if route.Where != "keyed" || len(route.Shards) != 1 || *route.Tables[0].Key[0].Values[0].Text != "5" {
			t.Errorf("%+v", route)
		}
	}
	if _, err := c.PgConn().Prepare(ctx, "asks", "EXPLAIN (ROUTE) SELECT 1", nil); err == nil {
		t.Error("prepared twice")
	}
	if err := c.PgConn().Deallocate(ctx, "asks"); err != nil {
		t.Error(err)
	}
	if r := c.PgConn().ExecPrepared(ctx, "asks", nil, nil, nil).Read(); r.Err == nil {
		t.Error("closed, it runs")
	}
	fails(t, c, "EXPLAIN (ROUTE, WAL) SELECT 1", "0A000")
	must(t, c, "SELECT 1")
}

// routesByFlush: answers come with a Flush, a row at a time, and beside an error.
func routesByFlush(t *testing.T, c *pgx.Conn) {
	fe := c.PgConn().Frontend()
	talk := func(want string, messages ...pgproto3.FrontendMessage) {
		t.Helper()
		for _, m := range messages {
			fe.Send(m)
		}
		if err := fe.Flush(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for range strings.Fields(want) {
			m, err := fe.Receive()
			if err != nil {
				t.Fatal(got, err)
			}
			got = append(got, strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3."))
		}
		if strings.Join(got, " ") != want {
			t.Fatalf("%s, want %s", got, want)
		}
	}
	if err := c.PgConn().Conn().SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	parse := &pgproto3.Parse{Query: "EXPLAIN (ROUTE) SELECT * FROM customers WHERE id = 1"}
	describe := &pgproto3.Describe{ObjectType: 'S'}
	talk("ParseComplete ParameterDescription RowDescription", parse, describe, &pgproto3.Flush{})
	talk("BindComplete DataRow PortalSuspended", &pgproto3.Bind{}, &pgproto3.Execute{MaxRows: 1}, &pgproto3.Flush{})
	talk("DataRow DataRow CommandComplete CloseComplete CommandComplete ReadyForQuery", &pgproto3.Execute{}, &pgproto3.Close{ObjectType: 'P', Name: "other"}, &pgproto3.Execute{}, &pgproto3.Sync{})
	talk("BindComplete ErrorResponse ReadyForQuery", &pgproto3.Bind{}, &pgproto3.Execute{Portal: "none"}, &pgproto3.Execute{}, &pgproto3.Sync{})
	talk("ParseComplete ErrorResponse ReadyForQuery ReadyForQuery", parse, &pgproto3.Query{String: "SELECT 1"}, &pgproto3.Sync{})
	// One after the other, without waiting.
	talk("RowDescription DataRow DataRow CommandComplete ReadyForQuery ParseComplete BindComplete DataRow CommandComplete ReadyForQuery ParseComplete ReadyForQuery",
		&pgproto3.Query{String: "EXPLAIN (ROUTE) SELECT 1"}, &pgproto3.Parse{Query: "SELECT 1"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}, parse, &pgproto3.Sync{})
	talk("RowDescription DataRow CommandComplete ReadyForQuery RowDescription DataRow DataRow CommandComplete ReadyForQuery",
		&pgproto3.Query{String: "SELECT 1"}, &pgproto3.Query{String: "EXPLAIN (ROUTE) SELECT 1"})
	talk("CloseComplete ErrorResponse ReadyForQuery", &pgproto3.Close{ObjectType: 'S'}, &pgproto3.Bind{}, &pgproto3.Sync{})
	if err := c.PgConn().Conn().SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
}

// countsRefusals: once for each request.
func countsRefusals(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	count := func(reason router.Reason) int64 { return (&source{p: s.p}).Databases()[0].Refusals[reason] }
	unbound, several := count("unbound_key"), count("several_shards")
	const unboundSQL = "DELETE FROM orders o USING (SELECT id FROM customers LIMIT 3) c WHERE c.id = o.id"
	fails(t, c, unboundSQL, "0A000")
	if _, err := c.Exec(within(t, 10*time.Second), unboundSQL+" AND note = $1", "x"); sqlState(err) != "0A000" {
		t.Error(err)
	}
	asked(t, c, "EXPLAIN (ROUTE) "+unboundSQL)
	must(t, c, "BEGIN")
	must(t, c, "SELECT * FROM customers WHERE id = 1")
	fails(t, c, unboundSQL, "0A000")
	must(t, c, "ROLLBACK")
	fails(t, c, "SELECT * FROM customers WHERE id IN (0,1,2,3,4,5,6,7) LIMIT 2 FOR UPDATE", "0A000")
	if u, v := count("unbound_key")-unbound, count("several_shards")-several; u != 3 || v != 1 {
		t.Errorf("%v refused without a key, %v for several shards", u, v)
	}
}

// TestExplainRouteOneShard works where there is nothing to find out.
func TestExplainRouteOneShard(t *testing.T) {
	px := startProgram(t, pgtest.Start(t, pgtest.Options{}), configText)
	c := px.connect()
	eventually(t, "the catalog is there", func() bool {
		return strings.HasSuffix(asked(t, c, "EXPLAIN (ROUTE) SELECT 1"), "\nNode: primary or replica")
	})
	for _, begin := range []string{"", "BEGIN"} {
		if begin != "" {
			must(t, c, "BEGIN")
			must(t, c, "SELECT 1")
		}
		if got := asked(t, c, "EXPLAIN (ROUTE) SELECT 1"); !strings.HasPrefix(got, "Route: shard ") || !strings.HasSuffix(got, ", the only one\nNode: primary or replica") {
			t.Error(got)
		}
		if got := askedWith(t, c, "EXPLAIN (ROUTE) SELECT $1::int", 1); !strings.Contains(got, ", the only one\n") {
			t.Error(got)
		}
	}
	must(t, c, "COMMIT")
	must(t, c, "CREATE TEMP TABLE pins (a int)")
	if got := askedWith(t, c, "EXPLAIN (ROUTE) SELECT * FROM pins WHERE a = $1", 1); !strings.Contains(got, ", the only one\n") {
		t.Error(got)
	}
	fails(t, c, "EXPLAIN (ROUTE, ANALYZE) SELECT 1", "0A000")
	if _, err := c.PgConn().Exec(within(t, 10*time.Second), "EXPLAIN (ROUTE, ANALYZE) SELECT 1").ReadAll(); sqlState(err) != "0A000" {
		t.Error(err)
	}
	must(t, c, "DROP TABLE pins")
	if got := asked(t, c, "EXPLAIN SELECT 1"); !strings.HasPrefix(got, "Result ") {
		t.Error(got)
	}
	for mode, want := range map[pgx.QueryExecMode]string{pgx.QueryExecModeExec: "the only one", pgx.QueryExecModeDescribeExec: "the only one", pgx.QueryExecModeSimpleProtocol: "the only one"} {
		if got := askedWith(t, c, "EXPLAIN (ROUTE) SELECT $1", mode, "x"); !strings.Contains(got, want) {
			t.Errorf("%v: %s", mode, got)
		}
	}
}

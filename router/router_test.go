package router

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"shardproxy/catalog"
	"shardproxy/internal/pgtest"
	"shardproxy/query"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const schemaSQL = `
CREATE SCHEMA other;
CREATE TABLE customers (id bigint PRIMARY KEY, name text);
CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint, total numeric);
CREATE TABLE audited (id int, a int);
CREATE TABLE quiet (id int, a int);
CREATE FUNCTION volatile_fn(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN EXECUTE ''x''; RETURN 1; END';
CREATE FUNCTION counts() RETURNS int LANGUAGE plpgsql AS 'BEGIN UPDATE quiet SET a = 1; RETURN 1; END';
CREATE FUNCTION stable_fn(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION other.lower(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN EXECUTE ''x''; RETURN 1; END';
CREATE FUNCTION whole(customers) RETURNS int LANGUAGE plpgsql AS 'BEGIN EXECUTE ''x''; RETURN 1; END';
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM set_config(''a.b'', ''c'', false); RETURN NEW; END';
CREATE TRIGGER audit BEFORE INSERT ON audited FOR EACH ROW EXECUTE FUNCTION audit();
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.a = 1; RETURN NEW; END';
CREATE TRIGGER touch BEFORE INSERT ON quiet FOR EACH ROW EXECUTE FUNCTION touch();
CREATE VIEW fine AS SELECT * FROM customers;
CREATE VIEW hidden AS SELECT volatile_fn(1);
CREATE UNLOGGED TABLE scratch (a int);
`

// openCatalog makes the schema in a new database and returns a Refresher that
// has loaded it, and a connection to change it.
func openCatalog(t testing.TB) (*catalog.Refresher, *pgx.Conn, chan *catalog.Catalog) {
	t.Helper()
	db := pgtest.Shared(t)
	ctx := context.Background()
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(ctx, db.DSN("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(ctx) })
		return conn
	}
	conn := connect()
	if _, err := conn.Exec(ctx, schemaSQL); err != nil {
		t.Fatal(err)
	}
	changed := make(chan *catalog.Catalog, 16)
	r := catalog.NewRefresher(catalog.Options{Source: connect(), Changed: func(c *catalog.Catalog) { changed <- c }})
	if err := r.Open(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	awaitCatalog(t, changed)
	return r, conn, changed
}

func awaitCatalog(t testing.TB, changed <-chan *catalog.Catalog) {
	t.Helper()
	select {
	case <-changed:
	case <-time.After(30 * time.Second):
		t.Fatal("no catalog was loaded")
	}
}

// describe renders a plan on one line.
func (p *Plan) describe() string {
	var out []string
	if p.Intent == Read {
		out = append(out, "read")
	} else {
		out = append(out, "write")
	}
	for i, n := range []string{"setting", "temp", "advisory", "hold", "prepared", "listen", "seq-read", "seq-write", "unknown", "catalog"} {
		if p.Effects&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	for _, f := range []struct {
		on   bool
		name string
	}{{p.Simple, "simple"}, {p.Exact, "exact"}, {p.Single != nil, "single"}, {p.Statement.Opaque, "opaque"}} {
		if f.on {
			out = append(out, f.name)
		}
	}
	s := strings.Join(out, " ")
	if p.Statement.Hint != query.RouteUnset {
		s += " hint=" + p.Statement.Hint.String()
	}
	if p.Why != "" {
		s += " (" + p.Why + ")"
	}
	return s
}

// TestPlans compares plans with the scripts under testdata/plans: each line of
// input gives one line of output.
func TestPlans(t *testing.T) {
	refresher, _, _ := openCatalog(t)
	datadriven.Walk(t, "testdata/plans", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			opts := Options{Catalog: refresher.Current}
			ctx := Context{NonStandardStrings: d.HasArg("backslash"), UnsafeEncoding: d.HasArg("unsafe")}
			if d.HasArg("no-catalog") {
				opts.Catalog = nil
			}
			for _, a := range d.CmdArgs {
				switch a.Key {
				case "path":
					ctx.SearchPath = strings.Join(a.Vals, ", ")
				case "read-only":
					opts.ReadOnlyFunctions = a.Vals
				}
			}
			r := New(opts)
			var out strings.Builder
			for _, sql := range strings.Split(d.Input, "\n") {
				fmt.Fprintln(&out, r.Plan([]byte(sql), ctx).describe())
			}
			return out.String()
		})
	})
}

func TestSharedAndExactEntries(t *testing.T) {
	r := New(Options{})
	same := func(a, b string) bool {
		return r.Plan([]byte(a), Context{}) == r.Plan([]byte(b), Context{})
	}
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"SELECT 1", "select  2 -- x", true},
		{"SELECT 1", "SELECT '1'", false},
		{"SELECT a.b FROM a", "SELECT A.B from a", true},
		{"SET x = 1", "SET x = 2", false},
		{"SELECT set_config('a.b', 'c', false)", "SELECT set_config('a.b', 'd', false)", false},
		{"SELECT current_setting('a.b')", "SELECT current_setting('wal_level')", false},
		{"EXPLAIN (ANALYZE 0) SELECT 1", "EXPLAIN (ANALYZE 1) SELECT 1", false},
		{"/* shardproxy: route=primary */ SELECT 1", "SELECT 1", false},
		{"SELECT U&'a'", "SELECT U&'b'", false},
	} {
		if got := same(c.a, c.b); got != c.same {
			t.Errorf("%q and %q share a plan: %t", c.a, c.b, got)
		}
	}
	one, two := Context{SearchPath: "a"}, Context{SearchPath: "b"}
	if r.Plan([]byte("SELECT 1"), one) == r.Plan([]byte("SELECT 1"), two) {
		t.Error("two search paths share a plan")
	}
}

// TestNewCatalogNewPlans changes a function and expects the plans to follow,
// without a second parse.
func TestNewCatalogNewPlans(t *testing.T) {
	refresher, conn, changed := openCatalog(t)
	r := New(Options{Catalog: refresher.Current})
	sql := [][]byte{[]byte("SELECT stable_fn(1)"), []byte("SELECT stable_fn($1)"), []byte("EXPLAIN ANALYZE SELECT stable_fn(1)")}
	intents := func() (out []Intent) {
		for _, s := range sql {
			p := r.Plan(s, Context{})
			if again := r.Plan(s, Context{}); again != p {
				t.Errorf("%s was planned twice", s)
			}
			out = append(out, p.Intent)
		}
		return out
	}
	if got := fmt.Sprint(intents()); got != "[1 1 1]" {
		t.Errorf("at first %s", got)
	}
	entries := r.Stats().Entries
	if _, err := conn.Exec(t.Context(), "ALTER FUNCTION stable_fn VOLATILE"); err != nil {
		t.Fatal(err)
	}
	refresher.Poke()
	awaitCatalog(t, changed)
	if got := fmt.Sprint(intents()); got != "[0 0 0]" {
		t.Errorf("then %s", got)
	}
	if s := r.Stats(); s.Entries != entries {
		t.Errorf("outdated plans were kept: %d entries, then %d", entries, s.Entries)
	}
	if p := r.Plan(sql[2], Context{}); !p.Exact || p.Single.End != len(sql[2]) {
		t.Error("the exact plan lost its spans")
	}
}

func TestLargeTexts(t *testing.T) {
	r := New(Options{MaxTextBytes: 100})
	p := r.Plan([]byte("/* shardproxy: route=primary */ SELECT '"+strings.Repeat("x", 100)+"'"), Context{})
	if !p.Statement.Opaque || p.Intent != Write || p.Effects != query.EffectUnknown || p.Statement.Hint != query.RoutePrimary {
		t.Errorf("%s", p.describe())
	}
	if s := r.Stats(); s.Entries != 0 || s.Opaque != 1 {
		t.Errorf("%+v", s)
	}
}

package router

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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
	<-changed
	return r, conn, changed
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

// texts returns the inputs of all scripts and of package query's.
func texts(t testing.TB) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{"testdata/plans/*.txt", "../query/testdata/analyze/*.txt"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, block := range strings.Split(string(b), "\n\n") {
				_, block, _ = strings.Cut(block, "\n")
				sql, _, _ := strings.Cut(block, "\n----")
				out = append(out, sql)
				out = append(out, strings.Split(sql, "\n")...)
			}
		}
	}
	if len(out) < 300 {
		t.Fatalf("only %d texts", len(out))
	}
	return out
}

// otherLiterals returns sql with its literals replaced by others of their kind.
func otherLiterals(sql string, round int) string {
	var n query.Normal
	n.Scan([]byte(sql))
	var out strings.Builder
	last := 0
	for i, l := range n.Literals {
		out.WriteString(sql[last:l.Start])
		last = l.End
		v := round*7 + i
		switch l.Kind {
		case query.LiteralInt:
			fmt.Fprintf(&out, "%d", v)
		case query.LiteralFloat:
			fmt.Fprintf(&out, "%d.5", v)
		case query.LiteralString:
			forms := []string{"'x%d'", "E'it\\'s %d'", "$q$ %d $q$", "'it''s'\n'%d'"}
			fmt.Fprintf(&out, forms[v%len(forms)], v)
		case query.LiteralNational:
			fmt.Fprintf(&out, "N'%d'", v)
		case query.LiteralBits:
			fmt.Fprintf(&out, "B'%b'", v)
		case query.LiteralHexBits:
			fmt.Fprintf(&out, "X'%x'", v)
		}
	}
	out.WriteString(sql[last:])
	return out.String()
}

// ignoreSpans leaves out what a shared plan does not promise.
var ignoreSpans = cmp.Options{
	cmpopts.IgnoreFields(query.Command{}, "Start", "End", "TargetStart", "TargetEnd"),
	cmpopts.IgnoreFields(Plan{}, "Exact"),
}

// TestCacheChangesNothing plans every text with ever other literals, by one
// router that remembers and by one that does not.
func TestCacheChangesNothing(t *testing.T) {
	refresher, _, _ := openCatalog(t)
	cached := New(Options{Catalog: refresher.Current})
	fresh := New(Options{Catalog: refresher.Current, CacheBytes: 1})
	contexts := []Context{{}, {SearchPath: "public"}, {SearchPath: `"$user", other`}, {NonStandardStrings: true}, {UnsafeEncoding: true}}
	for round := range 4 {
		for _, original := range texts(t) {
			sql := original
			if round > 0 {
				sql = otherLiterals(original, round)
			}
			for _, ctx := range contexts {
				for range 2 {
					got, want := cached.Plan([]byte(sql), ctx), fresh.Plan([]byte(sql), ctx)
					if d := cmp.Diff(want, got, ignoreSpans); d != "" {
						t.Fatalf("%q in %+v:\n%s", sql, ctx, d)
					}
					if got.Exact && cmp.Diff(want.Statement, got.Statement) != "" {
						t.Fatalf("%q: exact plan with other spans", sql)
					}
				}
			}
		}
	}
	if s := fresh.Stats(); s.Entries != 0 || s.ExactHits+s.NormalHits != 0 {
		t.Errorf("the router without a cache has one: %+v", s)
	}
	if s := cached.Stats(); s.ExactHits == 0 || s.NormalHits == 0 {
		t.Errorf("the cache was never hit: %+v", s)
	}
}

func TestHitsDoNotAllocate(t *testing.T) {
	refresher, _, _ := openCatalog(t)
	r := New(Options{Catalog: refresher.Current})
	for _, c := range []struct {
		name  string
		texts []string
	}{
		{"exact", []string{"BEGIN", "SELECT name FROM customers WHERE id = $1", "SET work_mem = 64"}},
		{"normal", []string{"SELECT name FROM customers WHERE id = 1", "UPDATE orders SET total = 1.5 WHERE id = 7 -- x"}},
	} {
		ctx := Context{SearchPath: `"$user", public`}
		var sql [][]byte
		for _, s := range c.texts {
			sql = append(sql, []byte(s))
			r.Plan(sql[len(sql)-1], ctx)
		}
		before := r.Stats()
		if a := testing.AllocsPerRun(200, func() {
			for _, s := range sql {
				r.Plan(s, ctx)
			}
		}); a != 0 {
			t.Errorf("%s: %v allocations", c.name, a)
		}
		after := r.Stats()
		hits := after.ExactHits - before.ExactHits
		if c.name == "normal" {
			hits = after.NormalHits - before.NormalHits
		}
		if hits != 201*uint64(len(sql)) || after.Misses != before.Misses {
			t.Errorf("%s: %d hits, %+v", c.name, hits, after)
		}
	}
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
	<-changed
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

func TestCacheIsBounded(t *testing.T) {
	const limit = 256 << 10
	r := New(Options{CacheBytes: limit})
	hot := []byte("SELECT hot FROM t WHERE id = $1")
	for i := range 5000 {
		r.Plan(fmt.Appendf(nil, "SELECT col%d FROM t", i), Context{})
		r.Plan(fmt.Appendf(nil, "SET x = '%s%d'", strings.Repeat("y", i%3000), i), Context{})
		if i%3 == 0 {
			r.Plan(hot, Context{})
		}
		if s := r.Stats(); s.Bytes > s.LimitBytes || s.LimitBytes > limit || s.Bytes < 0 {
			t.Fatalf("after %d: %+v", i, s)
		}
	}
	s := r.Stats()
	if s.Evictions == 0 || s.Entries == 0 || s.Bytes < s.LimitBytes/4 {
		t.Errorf("%+v", s)
	}
	if misses := s.Misses - 10000; misses > 20 {
		t.Errorf("the text in use was planned %d times", misses)
	}
	var bytes, entries int64
	for i := range r.cache.sets {
		for j := range r.cache.sets[i] {
			if e := r.cache.sets[i][j].Load(); e != nil {
				bytes += e.size
				entries++
			}
		}
	}
	if bytes != s.Bytes || entries != s.Entries {
		t.Errorf("books say %d bytes in %d entries, there are %d in %d", s.Bytes, s.Entries, bytes, entries)
	}
}

func TestConcurrentPlans(t *testing.T) {
	r := New(Options{CacheBytes: 64 << 10})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 1500 {
				n := (i*7 + g) % 300
				p := r.Plan(fmt.Appendf(nil, "SELECT c%d FROM t%d WHERE a = %d", n, n, i), Context{})
				if want := fmt.Sprintf("t%d", n); p.Single.Relations[0].Name != want {
					t.Errorf("got the plan of %s for %s", p.Single.Relations[0].Name, want)
				}
			}
		})
	}
	wg.Wait()
	if s := r.Stats(); s.ExactHits+s.NormalHits+s.Misses != 8*1500 {
		t.Errorf("%+v", s)
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

func BenchmarkPlan(b *testing.B) {
	for _, c := range []struct{ name, sql string }{
		{"exact", "SELECT abalance FROM pgbench_accounts WHERE aid = $1"},
		{"normal", "SELECT abalance FROM pgbench_accounts WHERE aid = 4711"},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := New(Options{})
			sql := []byte(c.sql)
			ctx := Context{SearchPath: `"$user", public`}
			b.ReportAllocs()
			for b.Loop() {
				r.Plan(sql, ctx)
			}
		})
	}
}

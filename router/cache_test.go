package router

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"shardproxy/query"
)

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
				out = append(out, strings.Split(sql, "\n")...)
				out = append(out, sql)
			}
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
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
	for round := range 3 {
		for i, original := range texts(t) {
			sql, few := original, contexts
			if round > 0 {
				sql = otherLiterals(original, round)
				few = contexts[(i+round)%len(contexts):][:1]
			}
			for _, ctx := range few {
				for range 2 {
					got, want := cached.Plan([]byte(sql), ctx), fresh.Plan([]byte(sql), ctx)
					if d := cmp.Diff(want, got, ignoreSpans, cmp.Exporter(func(reflect.Type) bool { return true })); d != "" {
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
		}); a != 0 && !raceEnabled { // the race detector makes sync.Pool forget
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
			for i := range 500 {
				n := (i*7 + g) % 300
				p := r.Plan(fmt.Appendf(nil, "SELECT c%d FROM t%d WHERE a = %d", n, n, i), Context{})
				if want := fmt.Sprintf("t%d", n); p.Single.Relations[0].Name != want {
					t.Errorf("got the plan of %s for %s", p.Single.Relations[0].Name, want)
				}
			}
		})
	}
	wg.Wait()
	if s := r.Stats(); s.ExactHits+s.NormalHits+s.Misses != 8*500 {
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

// TestEntriesAreComparedByValue looks up keys that share their hash.
func TestEntriesAreComparedByValue(t *testing.T) {
	c := newCache(1 << 20)
	p := New(Options{}).Plan([]byte("BEGIN"), Context{})
	c.put(&entry{hash: 7, key: "a", ctx: Context{SearchPath: "x"}, plan: p})
	for _, l := range []struct {
		hash  uint64
		key   string
		ctx   Context
		exact bool
		found bool
	}{
		{7, "a", Context{SearchPath: "x"}, false, true},
		{8, "a", Context{SearchPath: "x"}, false, false},
		{7, "b", Context{SearchPath: "x"}, false, false},
		{7, "a", Context{SearchPath: "y"}, false, false},
		{7, "a", Context{SearchPath: "x", NonStandardStrings: true}, false, false},
		{7, "a", Context{SearchPath: "x"}, true, false},
	} {
		if found := c.get(l.hash, []byte(l.key), &l.ctx, l.exact) != nil; found != l.found {
			t.Errorf("%+v: found %t", l, found)
		}
	}
}

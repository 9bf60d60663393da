package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/query"
	"shardproxy/router"
)

// proofStatements are those of the router's own tests, each once.
func proofStatements(t *testing.T) (all []string) {
	t.Helper()
	paths, err := filepath.Glob("../../router/testdata/proof/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	seen := map[string]bool{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		statements := false
		for line := range strings.Lines(string(b)) {
			line = strings.TrimRight(line, "\n")
			switch {
			case line == "----":
				statements = false
			case line == "route" || line == "plan" || line == "proof":
				statements = true
			case statements && line != "" && !seen[line] && len(query.Split([]byte(line))) == 1 && !strings.Contains(line, ";"):
				seen[line] = true
				all = append(all, line)
			}
		}
	}
	return all
}

// TestRouteCommand: what is said without a server is what the proxy says.
func TestRouteCommand(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	c := s.connectLoaded()
	dump := filepath.Join(t.TempDir(), "dump.json")
	o := call(t, "", "catalog", "-c", s.path)
	if o.code != 0 || o.err != "" {
		t.Fatalf("%d %s", o.code, o.err)
	}
	if err := os.WriteFile(dump, []byte(o.out), 0o600); err != nil {
		t.Fatal(err)
	}
	statements := append(proofStatements(t),
		"SELECT * FROM customers WHERE id = 5", "SELECT * FROM customers WHERE id IN (1, 2, 3, 4, 5)", "SELECT count(*) FROM orders",
		"INSERT INTO customers VALUES (1, 'a'), (2, 'b'), (3, 'c')", "DELETE FROM products", "SELECT 1", "COPY orders TO STDOUT",
		"SELECT * FROM orders o JOIN customers c ON c.id = o.customer_id WHERE c.id = $1", "SELECT * FROM customers WHERE id = 'x'")
	if len(statements) < 200 {
		t.Fatalf("only %d statements", len(statements))
	}
	o = call(t, strings.Join(statements, ";\n"), "route", "-c", s.path, "--catalog", dump, "--role", "app", "--json")
	if o.code != 0 || o.err != "" {
		t.Fatalf("%d %s", o.code, o.err)
	}
	printed := strings.Split(strings.TrimSpace(o.out), "\n")
	if len(printed) != len(statements) {
		t.Fatalf("%d statements, %d answers", len(statements), len(printed))
	}
	where := map[string]int{}
	for i, sql := range statements {
		var offline routed
		if err := json.Unmarshal([]byte(printed[i]), &offline); err != nil {
			t.Fatal(err)
		}
		if offline.Line != i+1 || offline.Statement != sql {
			t.Fatalf("line %d %q, want %d %q", offline.Line, offline.Statement, i+1, sql)
		}
		results, err := c.PgConn().Exec(within(t, 10*time.Second), "EXPLAIN (ROUTE, FORMAT JSON) "+sql).ReadAll()
		var e *pgconn.PgError
		if errors.As(err, &e) && e.Hint == "Ask for each statement alone." {
			continue
		}
		var online router.Route
		if err != nil || json.Unmarshal(results[0].Rows[0][0], &online) != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		if d := cmp.Diff(&online, offline.Route); d != "" {
			t.Errorf("%s (-proxy +offline):\n%s", sql, d)
		}
		where[online.Where]++
	}
	for _, w := range []string{"any", "keyed", "home", "all", "rows", "refused"} {
		if where[w] == 0 {
			t.Errorf("no statement of %d is %s: %v", len(statements), w, where)
		}
	}
	routesFiles(t, s, dump)
}

// routesFiles: flags, files and what is wrong with them.
func routesFiles(t *testing.T, s *shardedProgram, dump string) {
	file := filepath.Join(t.TempDir(), "queries.sql")
	if err := os.WriteFile(file, []byte("-- first\nSELECT 1;\n\nSELECT id\nFROM orders LIMIT 2 FOR UPDATE;"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := file + ":2: SELECT 1\n  Route: any shard\n  Node: primary or replica\n" +
		file + ":4: SELECT id FROM orders LIMIT 2 FOR UPDATE\n  Route: refused (0A000, command)\n"
	base := []string{"route", "-c", s.path, "--role", "app", "--catalog"}
	with := func(more ...string) outcome {
		return call(t, "SELECT 1", append(append([]string{}, base...), more...)...)
	}
	if o := with(dump, "-f", file); o.code != 0 || !strings.HasPrefix(o.out, want) {
		t.Errorf("%+v", o)
	}
	if o := with(dump, "-f", file, "--strict"); o.code != 1 || !strings.HasPrefix(o.out, want) || o.err != "shardproxy: 1 statements are refused\n" {
		t.Errorf("%+v", o)
	}
	if o := with(dump, "--strict"); o.code != 0 || o.out != "SELECT 1\n  Route: any shard\n  Node: primary or replica\n" {
		t.Errorf("%+v", o)
	}
	key := "SELECT * FROM customers WHERE id = 5"
	if o := with(dump, "--shard-map", "none", key); o.code != 0 || !strings.Contains(o.out, "Route: the shard of '5'\n") {
		t.Errorf("%+v", o)
	}
	a, b := with(dump, "--shard-map", "proposed", key), with(dump, "--shard-map", "dump", "explain (route) "+key)
	if _, at, _ := strings.Cut(b.out, "\n"); a.code != 0 || !strings.HasPrefix(a.out, key+"\n  Route: shard s") || !strings.HasSuffix(a.out, at) {
		t.Errorf("%+v %+v", a, b)
	}
	text, err := os.ReadFile(dump)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.json")
	for _, c := range []struct{ from, to, want string }{
		{`"catalog":{"version":1`, `"catalog":{"version":9`, "it has version 9, and only 1 is known"},
		{`"database":"app"`, `"database":"other"`, `it is a dump of database "other", not of "app"`},
		{`"slots":{`, `"no":{`, "the dump has no slot map"},
		{`"shards":["s0","s1"]`, `"shards":["s0","s9"]`, "the configuration has s0, s1"},
		{`"owners":[`, `"owners":[7,`, "to shard 7 of 2"},
		{`pg_catalog`, `pg_catalogue`, "it is not as it was written"},
	} {
		changed := strings.Replace(string(text), c.from, c.to, 1)
		if changed == string(text) {
			t.Errorf("no %s in the dump", c.from)
		}
		if err := os.WriteFile(bad, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if o := with(bad); o.code != exitProblems || o.out != "" || !strings.Contains(o.err, c.want) {
			t.Errorf("%s: %+v", c.want, o)
		}
	}
	for _, args := range [][]string{{"route", "-c", s.path, "SELECT 1"}, append(base, dump, "--shard-map", "ring"), append(base, "/nowhere")} {
		if o := call(t, "", args...); o.code != exitProblems || o.err == "" {
			t.Errorf("%q: %+v", args, o)
		}
	}
}

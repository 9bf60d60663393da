package query_test

import (
	"fmt"
	"strings"
	"testing"

	"shardproxy/query"
)

func TestReadExplain(t *testing.T) {
	for _, c := range []struct {
		sql, want string
	}{
		{"EXPLAIN (ROUTE) SELECT 1", "route text [] SELECT 1"},
		{"explain(route)select 1", "route text [] select 1"},
		{"/* a */ EXPLAIN -- b\n ( Route , Format JSON ) /* c */ SELECT 1", "route json [] SELECT 1"},
		{"EXPLAIN (FORMAT 'JSON', ROUTE true) SELECT 1", "route json [] SELECT 1"},
		{`EXPLAIN ("route" on, ANALYZE, buffers off) SELECT 1`, "route text [analyze buffers] SELECT 1"},
		{"EXPLAIN (ROUTE off) SELECT 1", "server text [] SELECT 1"},
		{"EXPLAIN (ROUTE) (SELECT 1)", "route text [] (SELECT 1)"},
		{"EXPLAIN (ROUTE)", "route text [] "},
		{"EXPLAIN SELECT 1", "server text [] SELECT 1"},
		{"EXPLAIN ANALYZE VERBOSE SELECT 1", "server text [analyze verbose] SELECT 1"},
		{"EXPLAIN (FORMAT yaml, COSTS -1) SELECT 1", "server yaml [costs] SELECT 1"},
		{"EXPLAIN (SELECT route FROM t)", "server text [] (SELECT route FROM t)"},
		{"EXPLAIN ((SELECT 1))", "server text [] ((SELECT 1))"},
		{"EXPLAIN (VALUES (1))", "server text [] (VALUES (1))"},
		{"EXPLAIN (ROUTE, ) SELECT 1", ""},
		{"EXPLAIN (ROUTE maybe) SELECT 1", ""},
		{"EXPLAIN (ROUTE", ""},
		{`EXPLAIN ("ROUTE") SELECT 1`, "server text [ROUTE] SELECT 1"},
		{"SELECT 1", ""},
		{"", ""},
	} {
		got := ""
		if o, ok := query.ReadExplain([]byte(c.sql)); ok {
			by := map[bool]string{true: "route", false: "server"}[o.Route]
			got = fmt.Sprint(by, " ", o.Format, " ", o.Others, " ", c.sql[o.Start:])
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.sql, got, c.want)
		}
		if begins := strings.Contains(strings.ToLower(c.sql), "explain"); query.BeginsExplain([]byte(c.sql)) != begins {
			t.Errorf("%s begins with EXPLAIN: %t", c.sql, !begins)
		}
	}
	if n := query.Params([]byte("SELECT $2, '$9' || $1 -- $7")); n != 2 {
		t.Errorf("%d parameters", n)
	}
}

func FuzzReadExplain(f *testing.F) {
	f.Add([]byte("EXPLAIN (ROUTE, FORMAT 'json') SELECT $1"))
	f.Add([]byte(`EXPLAIN ("`))
	f.Add([]byte("EXPLAIN (a '"))
	f.Fuzz(func(t *testing.T, sql []byte) {
		o, ok := query.ReadExplain(sql)
		if ok && (o.Start < 0 || o.Start > len(sql)) {
			t.Errorf("the command begins at %d of %d", o.Start, len(sql))
		}
		if ok && !query.BeginsExplain(sql) {
			t.Error("options without EXPLAIN")
		}
		_ = query.Params(sql)
	})
}

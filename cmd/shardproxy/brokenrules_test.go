package main

import (
	"context"
	"io"
	"strings"
	"testing"
)

// TestBrokenRules starts a proxy with rules by which tables that there are cannot be placed.
func TestBrokenRules(t *testing.T) {
	s := startShards(t, 2)
	for i := range s.shards {
		s.direct(i, "CREATE TABLE ratings (score float, n int); CREATE TABLE regions (region int, n int); CREATE TABLE named (name text COLLATE \"en-x-icu\"); CREATE TABLE fine (id int)")
	}
	for _, test := range []struct{ rule, says string }{
		{"ratings: {key: score}", "the rule of table public.ratings does not do: it has a key, score, of a type or collation that cannot be one"},
		{"ratings: {key: nosuch}", "the rule of table public.ratings does not do: it has no column nosuch"},
		{"regions: {key: region, list: {s0: [1, x], s1: [2]}}", "the rule of table public.regions does not do: it has a placement that its key does not allow"},
		{"fine: {key: id}", ""},
		{"later: {key: id}", ""},
	} {
		other := s.beside("    tables:\n", "    tables:\n      "+test.rule+"\n")
		s.direct(0, "DELETE FROM shardproxy.rules") // the cluster is one that knows of none
		p, err := newProgram(other.path, io.Discard)
		if err != nil {
			t.Fatal(test.rule, err)
		}
		err = p.open(context.Background())
		p.close()
		if (err != nil) != (test.says != "") || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", test.rule, err)
		}
	}
}

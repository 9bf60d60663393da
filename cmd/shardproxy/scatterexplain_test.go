package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestExplainScatter has every way explained: how it goes, and what the shards say.
func TestExplainScatter(t *testing.T) {
	s := startShards(t, 2)
	c := s.connectLoaded()
	for i := range 8 {
		must(t, c, "INSERT INTO customers VALUES ($1, 'x')", i)
		must(t, c, "INSERT INTO orders (id, customer_id) VALUES ($1, $1)", i)
	}
	for _, test := range []struct {
		sql  string
		want []string
	}{
		{"SELECT * FROM orders", []string{"Fan-out: the shards' rows are merged\n", "  Shard s0:\n    Seq Scan on orders", "  Shard s1:\n    Seq Scan on orders"}},
		{"SELECT * FROM orders ORDER BY id DESC LIMIT 3", []string{"merged, in order of 1 keys\n", "    Limit\n"}},
		{"SELECT note, count(*), avg(id) FROM orders GROUP BY note", []string{"groups are put together", "Read 1: SELECT (note), pg_catalog.count(*) , pg_catalog.sum(id) , pg_catalog.count(id) FROM orders GROUP BY 1", "Finish on s0: SELECT \"shardproxy\".c1"}},
		{"SELECT count(DISTINCT note), sum(DISTINCT id) FILTER (WHERE id > 2), count(*), max(DISTINCT id) FROM orders", []string{"groups are put together",
			"Read 1: SELECT (note), (id), pg_catalog.bool_or((id > 2)), pg_catalog.count(*) , pg_catalog.max(id) FROM orders GROUP BY 1, 2",
			`Finish on s0: SELECT pg_catalog.count(DISTINCT "shardproxy".c1) AS "count", pg_catalog.sum(DISTINCT "shardproxy".c2) FILTER (WHERE "shardproxy".c3) AS "sum", coalesce(sum("shardproxy".c4), 0)`}},
		{"SELECT note, stddev(id) FROM orders GROUP BY note", []string{"groups are put together",
			"Read 1: SELECT (note), pg_catalog.sum(id) , pg_catalog.sum((id)::pg_catalog.numeric * (id)::pg_catalog.numeric) , pg_catalog.count(id) FROM orders GROUP BY 1",
			`stddev(sum "shardproxy".c2, squares "shardproxy".c3, count "shardproxy".c4)`}},
		{"SELECT count(DISTINCT 12 / id) FILTER (WHERE id <> 0) FROM orders", []string{"what is read on the shards is finished"}},
		{"SELECT count(DISTINCT o), sum(id) FROM orders o", []string{"what is read on the shards is finished"}},
		{"SELECT count(DISTINCT x), count(DISTINCT q.y) FROM (SELECT id AS x, note AS y FROM orders) q", []string{"groups are put together"}},
		{"SELECT count(DISTINCT (id, note)) FROM orders", []string{"what is read on the shards is finished"}},
		{"SELECT c.id FROM customers c JOIN orders o ON o.id = c.id WHERE o.note = 'x'", []string{"what is read on the shards is finished", "Read 1: SELECT \"c\".\"id\" FROM customers AS \"c\"",
			"Read 2: SELECT \"o\".\"id\", \"o\".\"note\" FROM orders AS \"o\" WHERE (o.note = 'x')", "Finish on s0: SELECT c.id FROM (SELECT * FROM {1}) AS \"c\" JOIN (SELECT * FROM {2}) AS \"o\""}},
	} {
		for _, options := range []string{"(COSTS OFF)", "(ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF)"} {
			got := asked(t, c, "EXPLAIN "+options+" "+test.sql)
			for _, w := range test.want {
				if strings.HasPrefix(options, "(A") {
					w = strings.NewReplacer("Seq Scan on orders", "Seq Scan on orders (actual rows=", "    Limit\n", "    Limit (actual rows=3 ").Replace(w)
				}
				if !strings.Contains(got, w) {
					t.Errorf("EXPLAIN %s %s has no %q:\n%s", options, test.sql, w, got)
				}
			}
		}
		route := asked(t, c, "EXPLAIN (ROUTE) "+test.sql)
		if !strings.HasPrefix(route, "Route: its rows on each of: s0, s1\n  way: ") || !strings.Contains(route, "\n  read 1, fan-out: ") {
			t.Errorf("EXPLAIN (ROUTE) %s:\n%s", test.sql, route)
		}
		if json := asked(t, c, "EXPLAIN (ROUTE, FORMAT json) "+test.sql); !strings.Contains(json, `"scatter": {`) {
			t.Errorf("%s: %s", test.sql, json)
		}
	}
	if got := askedWith(t, c, "EXPLAIN (COSTS OFF) SELECT * FROM orders WHERE id < $1 LIMIT $2", 5, 2); !strings.Contains(got, "Filter: (id < '5'::bigint)") || strings.Count(got, "Limit") != 2 {
		t.Error(got)
	}
	// Of keys that lie on one shard, nothing is said of others.
	two := [2]int{}
	for i := range 8 {
		if s.shardOf(i) == "s1" {
			two[0], two[1] = two[1], i
		}
	}
	if got := asked(t, c, fmt.Sprintf("EXPLAIN SELECT * FROM orders WHERE customer_id IN (%d, %d)", two[0], two[1])); !strings.HasPrefix(got, "Route: shard s1") {
		t.Error(got)
	}
	for sql, code := range map[string]string{
		"EXPLAIN SELECT * FROM orders WHERE nosuch = 1": "42703", "EXPLAIN (ANALYZE) SELECT 1/(id-id) FROM orders": "22012",
		"EXPLAIN (FORMAT nosuch) SELECT * FROM orders": "0A000", "EXPLAIN SELECT * FROM orders LIMIT 2 FOR UPDATE": "0A000",
	} {
		fails(t, c, sql, code)
	}
	if got := one(t, c, "SELECT count(*)::text FROM orders"); got != "8" {
		t.Error(got)
	}
}

// TestExplainGatheredWrites has writes explained that need rows of several shards: what they read, and what
// becomes of it. Nothing is written.
func TestExplainGatheredWrites(t *testing.T) {
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, "runtime: {driver: "+driver+"}")
			c := s.connectLoaded()
			must(t, c, "CREATE TABLE alone (id bigint, note text)")
			for i := range 8 {
				must(t, c, "INSERT INTO customers VALUES ($1, 'x')", i)
				must(t, c, "INSERT INTO orders (id, customer_id) VALUES ($1, $1)", i)
			}
			for sql, want := range map[string][]string{
				"INSERT INTO orders (customer_id, id) SELECT max(id), 9 FROM customers": {"Fan-out: the shards' groups are put together by a server\n", "  Shard s0:\n    Result\n", "  Shard s1:\n    Result\n", "\nFinish on s0: SELECT pg_catalog.max(",
					"\nInsert each row on the shard of its key: INSERT INTO orders (\"customer_id\", \"id\") SELECT * FROM {rows}"},
				"INSERT INTO alone SELECT id, name FROM customers WHERE name = 'y' ORDER BY id": {"Fan-out: the shards' rows are merged, in order of 1 keys\n", "Filter: (name = 'y'::text)", "\nInsert on s0: INSERT INTO alone (\"id\", \"note\") SELECT"},
				"INSERT INTO products SELECT id + 100, name FROM customers":                     {"Fan-out: the shards' rows are merged\n", "\nInsert all rows on each of s0, s1: INSERT INTO products (\"id\", \"name\") SELECT"},
				"UPDATE orders SET note = 'y' WHERE id IN (SELECT id FROM customers)":           {"Fan-out: what is read on the shards is gathered, and they write with it\nRead 1: SELECT", "  Shard s1:\n    Seq Scan on customers", "\nWrite on s0, s1: UPDATE orders SET note = 'y' WHERE id IN (SELECT"},
				"UPDATE orders SET note = 'y'":                                                  {"Fan-out: each shard writes the rows that it has\n  Shard s0:\n    Update on orders\n", "  Shard s1:\n    Update on orders\n"},
				"DELETE FROM orders WHERE id < 3 RETURNING id":                                  {"Fan-out: each shard writes the rows that it has\n  Shard s0:\n    Delete on orders\n", "Filter: (id < 3)"},
				"INSERT INTO orders (customer_id, id) SELECT customer_id, id + 100 FROM orders": {"Fan-out: each shard writes the rows that it has\n  Shard s0:\n    Insert on orders\n"},
				"DELETE FROM alone USING orders WHERE alone.id = orders.id RETURNING alone.id":  {"Read 1: SELECT", "\nWrite on s0: DELETE FROM alone USING ("},
			} {
				got := asked(t, c, "EXPLAIN (COSTS OFF) "+sql)
				for _, w := range want {
					if !strings.Contains(got, w) {
						t.Errorf("EXPLAIN %s has no %q:\n%s", sql, w, got)
					}
				}
				for _, analyze := range []string{"EXPLAIN ANALYZE ", "EXPLAIN (ANALYZE, COSTS OFF) "} {
					fails(t, c, analyze+sql, "0A000")
				}
			}
			if got := askedWith(t, c, "EXPLAIN (COSTS OFF) INSERT INTO orders (customer_id, id, note) SELECT max(id), $1, $2 FROM customers WHERE id < $3", 3, "n", 5); !strings.Contains(got, "(id < '5'::bigint)") {
				t.Error(got)
			}
			must(t, c, "BEGIN READ ONLY")
			asked(t, c, "EXPLAIN UPDATE orders SET note = 'y' WHERE id IN (SELECT id FROM customers)")
			must(t, c, "COMMIT")
			for sql, code := range map[string]string{
				"EXPLAIN UPDATE orders SET nosuch = 1 WHERE id IN (SELECT id FROM customers)": "42703", "EXPLAIN INSERT INTO orders (id, customer_id) SELECT 'x', max(id) FROM customers": "22P02",
				"EXPLAIN UPDATE orders SET customer_id = 1 WHERE id IN (SELECT id FROM customers)": "0A000",
			} {
				fails(t, c, sql, code)
			}
			if got := one(t, c, "SELECT count(note) || ' ' || count(*) FROM orders") + s.countOn("alone"); !strings.HasPrefix(got, "0 80 ERROR") {
				t.Error("something was written:", got)
			}
			if got := s.countOn("products"); got != "10 10" {
				t.Error("something was written:", got)
			}
		})
	}
}

package main

import (
	"strings"
	"testing"
)

// TestScatterIsolation begins transactions over several shards in the ways of pg_dump and of
// careful applications; SERIALIZABLE holds on one server only.
func TestScatterIsolation(t *testing.T) {
	s := startShards(t, 2)
	c := s.connectLoaded()
	for i := range 8 {
		must(t, c, "INSERT INTO customers VALUES ($1, 'x')", i)
	}
	for _, begin := range []string{"BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"} {
		for sql := range strings.SplitSeq(begin, "; ") {
			must(t, c, sql)
		}
		if got := one(t, c, "SELECT count(*)::text FROM customers"); got != "8" {
			t.Error(got)
		}
		other := s.connect()
		must(t, other, "INSERT INTO customers VALUES (100, 'y'), (101, 'y'), (102, 'y'), (103, 'y')")
		if got := one(t, c, "SELECT count(*)::text FROM customers"); got != "8" {
			t.Errorf("%s: %s rows are seen", begin, got)
		}
		if got := one(t, c, "SELECT string_agg(DISTINCT current_setting('transaction_isolation') || current_setting('transaction_read_only'), ',') FROM customers"); got != "repeatable readon" {
			t.Error(got)
		}
		fails(t, c, "INSERT INTO customers VALUES (200, 'y')", "25006")
		must(t, c, "ROLLBACK")
		must(t, other, "DELETE FROM customers WHERE id >= 100")
	}
	must(t, c, "BEGIN")
	must(t, c, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
	must(t, c, "SELECT * FROM customers WHERE id = 1")
	fails(t, c, "SELECT count(*) FROM customers", "0A000")
	must(t, c, "ROLLBACK")
	must(t, c, "SET default_transaction_isolation = 'serializable'")
	fails(t, c, "SELECT count(*) FROM customers", "0A000")
	fails(t, c, "UPDATE customers SET name = 'z'", "0A000")
	must(t, c, "UPDATE customers SET name = 'z' WHERE id = 1")
	must(t, c, "RESET default_transaction_isolation")
	must(t, c, "SELECT count(*) FROM customers")
}

// TestCrossShardSetting allows, warns of and refuses queries over several shards.
func TestCrossShardSetting(t *testing.T) {
	s := startShards(t, 2)
	c := s.connectLoaded()
	must(t, c, "INSERT INTO customers VALUES (1, 'x'), (2, 'x'), (3, 'x'), (4, 'x')")
	must(t, c, "SET shardproxy.cross_shard = refuse")
	fails(t, c, "SELECT count(*) FROM customers", "0A000")
	must(t, c, "SELECT count(*) FROM customers WHERE id = 1")
	must(t, c, "UPDATE customers SET name = 'y'") // a write is no query
	must(t, c, "SET shardproxy.cross_shard = 'warn'")
	w := speak(t, s.dsn())
	w.say(simple("SET shardproxy.cross_shard = warn"))
	for sql, way := range map[string]string{"SELECT id FROM customers": "merge (the shards' rows are parts of the answer)", "SELECT count(*) FROM customers": "groups (it puts rows of all shards into groups)"} {
		if said := strings.Join(w.say(simple(sql)), "\n"); !strings.Contains(said, "Way: "+way+".") {
			t.Errorf("%s:\n%s", sql, said)
		}
	}
	before := (&source{p: s.p}).Databases()[0].Scatters["groups"]
	must(t, c, "SELECT count(*) FROM customers")
	if n := (&source{p: s.p}).Databases()[0].Scatters["groups"]; n != before+1 {
		t.Errorf("%d queries by groups, %d before", n, before)
	}
	must(t, c, "BEGIN")
	must(t, c, "SET LOCAL shardproxy.cross_shard = refuse")
	fails(t, c, "SELECT * FROM customers", "0A000")
	must(t, c, "ROLLBACK")
	must(t, c, "SELECT * FROM customers")
	fails(t, c, "SET shardproxy.cross_shard = often", "22023")
	fails(t, c, "SET shardproxy.nosuch = 1", "42704")
	must(t, c, "SET shardproxy.cross_shard = allow")
	must(t, c, "SELECT * FROM customers")
}

package main

import (
	"testing"
	"time"
)

// sameRows wants a query to give the same on every shard.
func (s *shardedProgram) sameRows(sql string) {
	s.t.Helper()
	if got := s.onEach("SELECT coalesce(string_agg(x::text, ' ' ORDER BY x::text), '') FROM (" + sql + ") x"); got[0] != got[1] {
		s.t.Errorf("%s differs: %q", sql, got)
	}
}

// TestReferenceOdd sends what would give a reference table other rows on each shard, whose rows lie
// in other places there.
func TestReferenceOdd(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	c := s.connectLoaded()
	s.shards[1].Primary().Exec("app", "UPDATE products SET id = id WHERE id < 4; UPDATE products SET id = id WHERE id > 2")
	must(t, c, "CREATE VIEW placed AS SELECT id, ctid::text AS place FROM products")
	eventually(t, "the view is known", func() bool {
		_, err := c.Exec(within(t, time.Second), "SELECT id FROM placed")
		return err == nil
	})
	for _, sql := range []string{
		"DELETE FROM products a USING products b WHERE left(a.name, 7) = left(b.name, 7) AND a.ctid < b.ctid",
		"DELETE FROM products WHERE ctid = '(0,1)'",
		"DELETE FROM products WHERE id = 10 RETURNING ctid",
		"UPDATE products SET name = ctid::text",
		"UPDATE products SET name = xmin::text WHERE id = 4",
		"INSERT INTO products VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET name = products.ctid::text",
	} {
		fails(t, c, sql, "0A000")
		s.sameRows("SELECT * FROM products")
	}
	must(t, c, "INSERT INTO products VALUES (400, 'ctid')")
	// These rows are read once, and go to all shards.
	must(t, c, "INSERT INTO products SELECT 310, tableoid::text || ctid::text FROM products WHERE id = 1")
	must(t, c, "INSERT INTO products SELECT 320 + id, place FROM placed")
	s.sameRows("SELECT * FROM products")
	must(t, c, "DELETE FROM products a USING products b WHERE left(a.name, 7) = left(b.name, 7) AND a.id < b.id")
	s.sameRows("SELECT * FROM products")
}

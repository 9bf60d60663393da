package main

import (
	"fmt"
	"testing"
)

// TestComputedKeys inserts rows whose keys a server computes, and finds each by its key.
func TestComputedKeys(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, "      devices: {key: id}", "runtime: {driver: "+driver+"}")
			c := s.connectLoaded()
			must(t, c, "CREATE TABLE devices (id uuid PRIMARY KEY, label text)")
			for i := range 20 {
				must(t, c, "INSERT INTO devices VALUES (gen_random_uuid(), $1)", fmt.Sprint(i))
			}
			id := one(t, c, "INSERT INTO devices (label, id) VALUES ('last', gen_random_uuid()) RETURNING id::text")
			for _, found := range [][2]string{
				{one(t, c, "SELECT count(DISTINCT id) FROM devices"), "21"},
				{one(t, c, "SELECT label FROM devices WHERE id = $1", id), "last"},
				{one(t, c, "SELECT count(*) FROM devices a WHERE EXISTS (SELECT FROM devices b WHERE b.id = a.id)"), "21"},
			} {
				if found[0] != found[1] {
					t.Errorf("%q, want %q", found[0], found[1])
				}
			}
			for i, shard := range s.shards {
				if n := shard.Primary().Value("app", "SELECT count(*) FROM devices"); n == "0" || n == "21" {
					t.Errorf("%s rows on shard %d", n, i)
				}
			}
			must(t, c, "BEGIN")
			must(t, c, "INSERT INTO devices VALUES (gen_random_uuid(), 'gone')")
			must(t, c, "ROLLBACK")
			if n := one(t, c, "SELECT count(*) FROM devices"); n != "21" {
				t.Errorf("%s rows behind a rollback", n)
			}
		})
	}
}

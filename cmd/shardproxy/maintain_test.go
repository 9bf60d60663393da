package main

import (
	"strings"
	"testing"
)

// TestMaintenance keeps tables in good order on every shard.
func TestMaintenance(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, "runtime: {driver: "+driver+"}")
			c := s.connectLoaded()
			must(t, c, "INSERT INTO customers VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, 'e')")
			known := func() []string {
				return s.onEach("SELECT (last_vacuum IS NOT NULL)::text || (last_analyze IS NOT NULL)::text FROM pg_stat_user_tables WHERE relname = 'customers'")
			}
			must(t, c, "ANALYZE customers")
			eventually(t, "analysed on both", func() bool { return strings.Join(known(), " ") == "falsetrue falsetrue" })
			must(t, c, "VACUUM (ANALYZE) customers, products")
			eventually(t, "vacuumed on both", func() bool { return strings.Join(known(), " ") == "truetrue truetrue" })
			must(t, c, "vacuum")
			must(t, c, "ANALYZE")
			must(t, c, "REINDEX TABLE customers")
			must(t, c, "BEGIN")
			must(t, c, "LOCK TABLE customers IN EXCLUSIVE MODE")
			if got := s.onEach("SELECT count(*) FROM pg_locks WHERE relation = 'customers'::regclass AND mode = 'ExclusiveLock'"); got[0]+got[1] != "11" {
				t.Errorf("locked: %v", got)
			}
			fails(t, c, "VACUUM customers", "25001")
			must(t, c, "ROLLBACK")
			fails(t, c, "REINDEX INDEX customers_pkey", "0A000")
			fails(t, c, "VACUUM nothing", "42P01")
			// A shard that refuses is named, and the session goes on.
			for _, shard := range s.shards[1:] {
				shard.Primary().Exec("app", "ALTER TABLE products OWNER TO postgres; REVOKE ALL ON products FROM app")
			}
			fails(t, c, "REINDEX TABLE products", "42501")
			must(t, c, "SELECT * FROM customers WHERE id = 1")
		})
	}
}

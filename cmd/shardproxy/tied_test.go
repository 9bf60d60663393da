package main

import "testing"

// TestTied: who holds an advisory lock, as migration tools do, changes definitions on all
// shards and keeps the lock.
func TestTied(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, "runtime: {driver: "+driver+"}")
			c := s.connectLoaded()
			must(t, c, "SELECT pg_advisory_lock(42)")
			must(t, c, "CREATE INDEX one ON orders (note)")
			must(t, c, "UPDATE products SET name = 'x' WHERE id = 1")
			fails(t, c, "CREATE INDEX one ON orders (note)", "42P07")
			fails(t, c, "ALTER TABLE products ADD CONSTRAINT long CHECK (length(name) > 100)", "23514")
			must(t, c, "CREATE INDEX two ON orders (note)")
			must(t, c, "CREATE TABLE steps (version int)")
			must(t, c, "INSERT INTO steps VALUES (1)")
			if got := s.onEach("SELECT count(*) FROM pg_indexes WHERE indexname IN ('one', 'two')"); got[0]+got[1] != "22" {
				t.Errorf("indexes: %v", got)
			}
			if got := s.onEach("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid NOT IN (1936744304, 1936744289)"); got[0]+got[1] != "10" {
				t.Errorf("locks: %v", got)
			}
			must(t, c, "SELECT pg_advisory_unlock(42)")
			eventually(t, "nothing is kept", func() bool {
				got := s.onEach("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' OR state = 'active' AND pid <> pg_backend_pid() AND application_name = ''")
				return got[0]+got[1] == "00"
			})
			must(t, c, "SELECT * FROM customers WHERE id = 1")
			must(t, c, "SELECT * FROM customers WHERE id = 2")
		})
	}
}

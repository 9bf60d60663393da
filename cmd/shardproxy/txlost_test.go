package main

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestLostReader commits a transaction when the connection of a shard is gone on which it
// has only read: it is rolled back, and said so.
func TestLostReader(t *testing.T) {
	t.Parallel()
	s := startTxStage(t, 2)
	c := s.proxies[0].connect()
	home, away := s.keys[0][0], s.keys[1][0]
	for name, first := range map[string]int64{"parked": away, "of the session": home} {
		t.Run(name, func(t *testing.T) {
			second, lost := home, 1
			if first == home {
				second, lost = away, 0
			}
			must(t, c, "BEGIN")
			must(t, c, "SELECT * FROM lists WHERE k = $1", first)
			must(t, c, "UPDATE lists SET vals = vals || 1::bigint WHERE k = $1", second)
			s.wires[0][lost].KillAll()
			_, err := c.Exec(within(t, txBound), "COMMIT")
			if said, ok := err.(*pgconn.PgError); !ok || said.Code != "08006" || said.Severity != "ERROR" {
				t.Errorf("COMMIT: %v", err)
			}
			must(t, c, "SELECT 1")
			for _, cl := range s.shards {
				if got := cl.Primary().Value("app", "SELECT count(*) FROM lists WHERE vals <> '{}'"); got != "0" {
					t.Error("what was rolled back is there")
				}
			}
		})
	}
}

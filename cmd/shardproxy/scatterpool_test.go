package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestScatterPoolOfOne has a hundred clients share one connection to each shard.
func TestScatterPoolOfOne(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		const wait = 700 * time.Millisecond
		s := startScattered(t, 2, 100, "    pool: {size: 1, wait_timeout: 30s}\n"+runtime)
		// All take the shards in the same order, and each ends: nobody fails, however many wait.
		t.Run("in order", func(t *testing.T) {
			if all := s.crowd(t, 100, 5, false); len(all) != 1 || all["done"] != 500 {
				t.Errorf("%v", all)
			}
			s.free(t, "the crowd")
		})
		s.write(strings.Replace(s.text(), "wait_timeout: 30s", fmt.Sprintf("wait_timeout: %v", wait), 1))
		if err := s.p.reload(); err != nil {
			t.Fatal(err)
		}
		// Transactions that have begun on either shard lock each other out, and what waits behind them: within the wait
		// timeout one of them gives up.
		t.Run("crosswise", func(t *testing.T) {
			begin := time.Now()
			all := s.crowd(t, 100, 2, true)
			t.Logf("%v in %v", all, time.Since(begin))
			for how := range all {
				if how != "done" && how != "transaction 53300" && how != "alone 53300" {
					t.Errorf("%d times: %s", all[how], how)
				}
			}
			if all["done"] == 0 || time.Since(begin) > 20*time.Second {
				t.Errorf("%v after %v", all, time.Since(begin))
			}
			s.free(t, "the crowd")
		})
	})
}

// crowd has clients run rounds of keyed statements and queries over both shards, and counts what became of them.
func (s *scattered) crowd(t *testing.T, clients, rounds int, crosswise bool) map[string]int {
	var mu sync.Mutex
	all := map[string]int{}
	var wg sync.WaitGroup
	conns := make([]*pgx.Conn, clients)
	for i := range conns {
		conns[i] = s.connect()
	}
	for i, c := range conns {
		wg.Go(func() {
			for round := range rounds {
				how := s.oneOfCrowd(t, c, i+round, crosswise)
				mu.Lock()
				all[how]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return all
}

// oneOfCrowd runs what the nth of a crowd does.
func (s *scattered) oneOfCrowd(t *testing.T, c *pgx.Conn, n int, crosswise bool) string {
	way := scatterWays[n/8%len(scatterWays)].text
	key := func(i int) string { return fmt.Sprintf("SELECT n FROM few WHERE k = %d", s.keys[i%2]) }
	var texts []string
	switch n % 8 {
	case 0, 1:
		texts = []string{key(n)}
	case 2, 3, 4:
		texts = []string{way}
	case 5:
		texts = []string{"BEGIN", way, key(n / 8), "COMMIT"}
	case 6:
		texts = []string{"BEGIN", key(0), way, way, "COMMIT"}
	case 7:
		texts = []string{"BEGIN", way, "COMMIT"}
		if crosswise {
			texts = []string{"BEGIN", key(1), way, "COMMIT"}
		}
	}
	for _, sql := range texts {
		if _, err := drained(t, c, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			how := "alone "
			if len(texts) > 1 {
				how = "transaction "
				if _, err := drained(t, c, "ROLLBACK", pgx.QueryExecModeSimpleProtocol); err != nil {
					return "ROLLBACK: " + err.Error()
				}
			}
			if state := sqlState(err); state != "" {
				return how + state
			}
			return how + err.Error()
		}
	}
	return "done"
}

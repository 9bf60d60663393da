package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestScatterReduced joins few rows with many off the key: only those of the many travel that have partners.
func TestScatterReduced(t *testing.T) {
	t.Parallel()
	s := startScattered(t, 2, 20000)
	c := s.connectLoaded()
	gathered := func(sql, want string) int64 {
		t.Helper()
		before := s.p.state.Load().databases["app"].proxy.Totals().Gathered
		if got := one(t, c, sql); got != want {
			t.Errorf("%s: %s, should be %s", sql, got, want)
		}
		return s.p.state.Load().databases["app"].proxy.Totals().Gathered - before
	}
	const join = "SELECT count(*) FROM wide a JOIN wide b ON b.id = a.id WHERE a.id < 20"
	for _, test := range []struct{ sql, want string }{
		{join, "20"},
		{"SELECT count(*) FROM wide a, wide b WHERE b.id = a.id AND a.id BETWEEN 5000 AND 5009", "10"},
		{"SELECT count(*) FROM wide a JOIN wide b USING (id) WHERE b.id < 20", "20"},
		{"SELECT count(*) FROM wide a LEFT JOIN wide b ON b.id = a.id WHERE a.id < 20", "20"},
		{"SELECT count(*) FROM wide WHERE id IN (SELECT id FROM wide WHERE id < 20)", "20"},
		{"SELECT count(*) FROM (SELECT id FROM wide WHERE id < 20) a JOIN wide b USING (id)", "20"},
		{"SELECT count(*) FROM few f JOIN (SELECT k, id, max(name) FROM wide GROUP BY k, id) b ON b.id = f.n WHERE f.id = 1", "1"},
		{"WITH a AS (SELECT id FROM wide WHERE id < 20) SELECT count(*) FROM a JOIN wide b USING (id) JOIN a x USING (id)", "20"},
		{"SELECT count(*) FROM wide a JOIN wide b ON b.id = a.id JOIN wide c ON c.id = b.id JOIN wide d ON d.id = c.id WHERE a.id < 20", "20"},
		{"SELECT count(*) FROM wide a JOIN wide b ON b.id = a.id WHERE a.id < -1", "0"},
	} {
		if n := gathered(test.sql, test.want); n > 5_000 {
			t.Errorf("%s: %d bytes were gathered", test.sql, n)
		}
		if route := asked(t, c, "EXPLAIN (ROUTE) "+test.sql); !strings.Contains(route, "when these are few, only rows with ") {
			t.Errorf("%s:\n%s", test.sql, route)
		}
		if plan := asked(t, c, "EXPLAIN "+test.sql); !strings.Contains(plan, "when these are few, only rows with ") {
			t.Errorf("%s:\n%s", test.sql, plan)
		}
	}
	if n := gathered("SELECT count(*) FROM wide a JOIN wide b ON b.id = a.id WHERE a.id < 11000", "11000"); n < 400_000 { // are not few
		t.Errorf("%d bytes were gathered", n)
	}
	must(t, c, "BEGIN") // its statements see what others commit between them: both are read at once
	if n := gathered(join, "20"); n < 400_000 {
		t.Errorf("%d bytes were gathered", n)
	}
	must(t, c, "COMMIT")
	must(t, c, "BEGIN ISOLATION LEVEL REPEATABLE READ")
	if n := gathered(join, "20"); n > 5_000 {
		t.Errorf("%d bytes were gathered", n)
	}
	must(t, c, "COMMIT")
}

// TestScatterReducedWhole reads rows by partners that move from one to another all the time, in transactions over two shards: each
// has one at any moment.
func TestScatterReducedWhole(t *testing.T) {
	t.Parallel()
	s := startScattered(t, 2, 0)
	c := s.connectLoaded()
	a, b := s.keys[0], s.keys[1]
	must(t, c, "DELETE FROM few")
	// The marked row of few names by n the only one of wide with a name; both change at once.
	must(t, c, fmt.Sprintf("INSERT INTO few SELECT k, 1000 + i, i FROM unnest(ARRAY[%d, %d]) k, generate_series(1, 50) i", a, b))
	must(t, c, fmt.Sprintf("INSERT INTO wide SELECT k, i, CASE WHEN i = 1 AND k = %d THEN 'is' END FROM unnest(ARRAY[%d, %d]) k, generate_series(1, 50) i", b, a, b))
	must(t, c, fmt.Sprintf("UPDATE few SET id = 0 WHERE k = %d AND n = 1", a))
	done, stopped := make(chan struct{}), make(chan error, 1)
	writer := s.connect()
	go func() {
		at := 1
		for {
			select {
			case <-done:
				stopped <- nil
				return
			default:
			}
			next := at%50 + 1
			for _, sql := range []string{"BEGIN", fmt.Sprintf("UPDATE few SET id = 1000 + n WHERE k = %d AND n = %d", a, at), fmt.Sprintf("UPDATE few SET id = 0 WHERE k = %d AND n = %d", a, next),
				fmt.Sprintf("UPDATE wide SET name = CASE id WHEN %d THEN 'is' END WHERE k = %d AND id IN (%d, %d)", next, b, at, next), "COMMIT"} {
				if _, err := writer.Exec(t.Context(), sql); err != nil {
					stopped <- fmt.Errorf("%s: %w", sql, err)
					return
				}
			}
			at = next
		}
	}()
	wrong := 0
	for range 300 {
		if got := one(t, c, fmt.Sprintf("SELECT coalesce(string_agg(w.name, ''), 'none') FROM few f JOIN wide w ON w.id = f.n AND w.k = f.k + %d WHERE f.id = 0", b-a)); got != "is" {
			wrong++
		}
	}
	close(done)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if wrong > 0 {
		t.Errorf("%d of 300 joins are not of one moment", wrong)
	}
}

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// TestScatterLimit gathers more than limits.gather, and just less.
func TestScatterLimit(t *testing.T) {
	t.Parallel()
	const limit = 4 << 20
	s := startScatterProcess(t, 100000, "limits: {gather: 4MiB}\n")
	c := s.connect()
	// A name takes 36 bytes of an array, and its id, which the text compares once more, twelve of another.
	upto := func(names int) string {
		return fmt.Sprintf("SELECT length(string_agg(name, '' ORDER BY name)) FROM narrow WHERE id < %d", names)
	}
	over := []struct{ sql, input string }{
		{"SELECT count(*) FROM narrow a JOIN narrow b ON a.name = b.name", `FROM narrow`},
		{"SELECT name FROM narrow ORDER BY name OFFSET 199999", "FROM narrow"},
		{"SELECT string_agg(name, '') FROM narrow", "FROM narrow"},
		{"SELECT name, row_number() OVER (ORDER BY name) FROM narrow", "FROM narrow"},
		{"SELECT count(*) FROM (SELECT name FROM narrow WHERE id < 20000) small JOIN narrow large ON small.name = large.name", `"large"`},
	}
	for range 3 { // before it is measured
		must(t, c, upto(1000))
		fails(t, c, over[0].sql, "54000")
	}
	grown := s.measured(t, func() {
		for range 4 {
			for _, o := range over {
				_, err := c.Exec(within(t, 30*time.Second), o.sql)
				pe, _ := err.(*pgconn.PgError)
				if pe == nil || pe.Code != "54000" || !strings.Contains(pe.Detail, o.input) || !strings.Contains(pe.Hint, "limits.gather") || !strings.Contains(pe.Message, fmt.Sprint(limit)) {
					t.Errorf("%s: %v", o.sql, err)
					if pe != nil {
						t.Log(pe.Detail)
					}
				}
			}
			must(t, c, "BEGIN")
			must(t, c, upto(1000))
			fails(t, c, over[0].sql, "54000")
			fails(t, c, "SELECT 1", "25P02")
			must(t, c, "ROLLBACK")
		}
	})
	if grown > 48<<20 {
		t.Errorf("%d MiB more for gathers of %d", grown>>20, limit>>20)
	}
	for i, direct := range s.direct {
		soon(t, time.Second, "no server works any more", func() bool {
			return ints(t, direct, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle'")[0] == 0
		})
		if n := ints(t, direct, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")[0]; n > 3 {
			t.Errorf("%d connections to shard %d", n, i)
		}
	}
	for _, names := range []int{1000, limit / 48 * 95 / 100} {
		if got := one(t, c, upto(names)); got != fmt.Sprint(32*names) {
			t.Errorf("%d names have %s letters", names, got)
		}
	}
	fails(t, c, upto(limit/48+2), "54000")
}

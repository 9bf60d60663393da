package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestScatterLimitMet: when a LIMIT is met nobody waits for shards that have not come to their ends.
func TestScatterLimitMet(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		s := startScattered(t, 2, 50000, runtime)
		c := s.connect()
		slow := fmt.Sprintf("(k = %d OR nap(id, 20))", s.keys[0]) // shard 1 takes for ever
		for _, q := range []struct {
			sql  string
			rows int
		}{
			{"SELECT id, name FROM wide WHERE " + slow + " LIMIT 10", 10},
			{"SELECT id, name FROM wide WHERE " + slow + " OFFSET 5 LIMIT 10", 10},
			{"SELECT id, name FROM wide WHERE " + slow + " LIMIT 20000", 20000}, // more than is sent at once
			// Neither has rows enough to be at its end; these are drained, or cancelled.
			{"SELECT id, name FROM wide ORDER BY id LIMIT 10 OFFSET 40000", 10},
			{"SELECT id, name FROM wide LIMIT 10 OFFSET 40000", 10},
		} {
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
				began := time.Now()
				n, tag := 0, ""
				rows, err := c.Query(within(t, 60*time.Second), q.sql, mode)
				for err == nil && rows.Next() {
					n++
				}
				if err == nil {
					err, tag = rows.Err(), rows.CommandTag().String()
				}
				if took := time.Since(began); err != nil || n != q.rows || tag != fmt.Sprint("SELECT ", n) || took > 10*time.Second {
					t.Errorf("%s: %d rows, %s, after %v: %v", q.sql, n, tag, took, err)
				}
				s.free(t, q.sql)
				s.goesOn(t, c, false)
			}
		}
		// What is set by the session stays.
		must(t, c, "SET application_name = 'kept'")
		must(t, c, "SELECT id, name FROM wide WHERE "+slow+" LIMIT 10")
		if got := one(t, c, "SELECT string_agg(DISTINCT current_setting('application_name'), ',') FROM few"); got != "kept" {
			t.Errorf("application_name is %q", got)
		}
		// An error of a shard whose rows nobody needs is none; that of one whose rows are given is.
		must(t, c, fmt.Sprintf("SELECT id FROM few WHERE k = %d OR nap(id, 0.5) AND 1 / (n - n) = 0 LIMIT 10", s.keys[0]))
		fails(t, c, fmt.Sprintf("SELECT id FROM few WHERE k = %d OR 1 / (n - n) = 0 LIMIT 11", s.keys[0]), "22012")
		// In a transaction the others' ends are waited for, and it goes on.
		must(t, c, "BEGIN")
		must(t, c, "UPDATE few SET n = n WHERE k = $1", s.keys[1])
		must(t, c, fmt.Sprintf("SELECT id FROM few WHERE k = %d OR nap(id, 0.1) LIMIT 5", s.keys[0]))
		must(t, c, "UPDATE few SET n = n WHERE k = $1", s.keys[1])
		must(t, c, "COMMIT")
		s.free(t, "limits")
	})
}

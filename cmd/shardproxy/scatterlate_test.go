package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// scatterLateCancel cancels queries that end at about that time. What a client does once the cancel request has been taken and
// the query has ended is not to fail for it.
func scatterLateCancel(t *testing.T, s *scattered) {
	for _, in := range []string{"", "in a transaction", "at its end"} {
		t.Run(in, func(t *testing.T) {
			var all sync.WaitGroup
			var mu sync.Mutex
			ended := map[string]int{}
			for range 14 {
				c := s.connect()
				all.Go(func() {
					for range 12 {
						first, err := s.lateCancel(t, c, in)
						mu.Lock()
						if ended[first]++; err != nil {
							ended["later "+err.Error()]++
						}
						mu.Unlock()
						if c.IsClosed() {
							t.Error("the session has ended")
							return
						}
					}
				})
			}
			all.Wait()
			t.Logf("%v", ended)
			for how, n := range ended {
				if strings.HasPrefix(how, "later") {
					t.Errorf("a statement behind the cancelled one, %d times: %s", n, how)
				} else if how != "57014" && how != "" {
					t.Errorf("the cancelled statement, %d times: %s", n, how)
				}
			}
		})
	}
}

// lateCancel returns what became of the query that was cancelled, and the error of what came behind it.
func (s *scattered) lateCancel(t *testing.T, c *pgx.Conn, in string) (first string, later error) {
	ctx := within(t, 30*time.Second)
	do := func(sql string) {
		if _, err := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil && later == nil {
			later = fmt.Errorf("%s: %w", sql, err)
		}
	}
	if in != "" {
		do("BEGIN")
	}
	// The proxy looks at requests ten times a second: it ends about when it does.
	sql := fmt.Sprintf("SELECT id FROM few WHERE id < 2 AND nap(id, %.4f)", 0.098+0.005*rand.Float64())
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		done <- err
	}()
	<-time.After(time.Duration(90e6 + rand.Int64N(15e6)))
	if err := c.PgConn().CancelRequest(ctx); err != nil {
		later = err
	}
	err := <-done
	var pe *pgconn.PgError
	if first = sqlState(err); err != nil && !errors.As(err, &pe) {
		first = err.Error()
	}
	if in == "in a transaction" && first == "" {
		for _, k := range s.keys {
			do(fmt.Sprintf("SELECT id FROM few WHERE k = %d AND id < 2 AND pg_sleep(0.01) IS NOT NULL", k))
		}
	}
	switch {
	case in != "" && first != "":
		do("ROLLBACK")
	case in != "":
		do("COMMIT")
	}
	for _, k := range s.keys {
		do(fmt.Sprintf("SELECT id FROM few WHERE k = %d AND id < 2 AND pg_sleep(0.005) IS NOT NULL", k))
	}
	return first, later
}

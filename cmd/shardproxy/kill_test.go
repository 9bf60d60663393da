package main

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// TestKillSeveral ends sessions whose statements run on several shards: they are told that they are ended, not that somebody has cancelled something.
func TestKillSeveral(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	must(t, s.connectLoaded(), "INSERT INTO customers SELECT n, 'x' FROM generate_series(0, 9) n")
	lock := pgtest.Connect(t, s.shards[1].Primary().DSN("app", "app"))
	must(t, lock, "BEGIN")
	must(t, lock, "UPDATE customers SET name = 'locked'")
	console, _ := s.consoleOf()
	for _, sql := range []string{
		"SELECT pg_sleep(20) FROM customers", "SELECT id, pg_sleep(20)::text FROM customers ORDER BY id", "SELECT count(pg_sleep(20)::text) FROM customers",
		"UPDATE customers SET name = 'y'", "INSERT INTO customers SELECT n, pg_sleep(20)::text FROM generate_series(100, 109) n",
		"SELECT pg_sleep(20) FROM customers WHERE id = 1",
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			c := s.connect()
			must(t, c, "SET application_name = 'to be killed'")
			told := make(chan error, 1)
			go func() {
				_, err := c.Exec(context.Background(), sql, mode)
				told <- err
			}()
			eventually(t, "it runs", func() bool {
				rows := shownBy(t, console, "SHOW CLIENTS WHERE application_name = 'to be killed'")
				return len(rows) == 1 && rows[0]["state"] == "active"
			})
			<-time.After(200 * time.Millisecond) // and has reached the shards
			for _, row := range shownBy(t, console, "SHOW CLIENTS WHERE application_name = 'to be killed'") {
				must(t, console, "KILL_CLIENT "+row["id"], pgx.QueryExecModeSimpleProtocol)
			}
			select {
			case err := <-told:
				if sqlState(err) != "57P01" {
					t.Errorf("%s: %v", sql, err)
				}
			case <-time.After(10 * time.Second):
				t.Errorf("%s goes on", sql)
			}
			eventually(t, "the session is over", func() bool { _, err := c.Exec(context.Background(), "SELECT 1"); return err != nil })
		}
	}
}

package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
)

// TestPausedForLong: a statement that waits for RESUME in vain is told so.
func TestPausedForLong(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{})
	px := startProgram(t, cl, strings.Replace(configText, "shards:", "pool: {wait_timeout: 1s}\n    shards:", 1))
	c := px.connect()
	must(t, c, "SELECT 1")
	db := px.p.state.Load().databases["app"]
	if err := db.shards[0].pools.Pause(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Exec(within(t, 10*time.Second), "SELECT 1")
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "57P03" || pe.Severity != "ERROR" || !strings.Contains(pe.Message, "paused") ||
		!strings.Contains(pe.Hint, "RESUME") || strings.Contains(pe.Hint, "size") {
		t.Errorf("%+v", pe)
	}
	db.shards[0].pools.Resume()
	must(t, c, "SELECT 1")
}

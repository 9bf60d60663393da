package main

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// TestShowServers sees connections on loan, idle and being opened, with the
// statements that they hold and the proxy's end.
func TestShowServers(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{})
	px := startProgram(t, cl, configText)
	console := px.connectTo(strings.Replace(px.dsn(), "/app?", "/shardproxy?", 1))
	type row struct{ state, local, link, prepared, application string }
	rows := func() (all []row) {
		res := console.PgConn().Exec(within(t, 10*time.Second), "SHOW SERVERS")
		got, err := res.ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		at := map[string]int{}
		for i, f := range got[0].FieldDescriptions {
			at[f.Name] = i
		}
		for _, r := range got[0].Rows {
			cell := func(name string) string { return string(r[at[name]]) }
			all = append(all, row{cell("state"), cell("local_addr"), cell("link"), cell("prepared_statements"), cell("application_name")})
		}
		return all
	}
	c := px.connectTo(px.dsn() + "&application_name=looked-at")
	tx, err := c.Begin(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Prepare(within(t, 10*time.Second), "one", "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	if got := rows(); len(got) != 1 || got[0].state != "active" || got[0].local != "127.0.0.1" || got[0].link == "" ||
		got[0].prepared != "1" || got[0].application != "looked-at" {
		t.Errorf("on loan: %+v", got)
	}
	if err := tx.Rollback(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is idle", func() bool {
		got := rows()
		return len(got) == 1 && got[0] == row{"idle", "127.0.0.1", "", "1", ""}
	})
	// A server that stands still lets nobody in.
	must(t, c, "BEGIN")
	cl.Primary().Pause()
	go func() {
		if c, err := pgx.Connect(within(t, 20*time.Second), px.dsn()); err == nil {
			_, _ = c.Exec(within(t, 20*time.Second), "SELECT 1") // whatever comes of it
			_ = c.Close(within(t, time.Second))
		}
	}()
	eventually(t, "another is being opened", func() bool {
		for _, r := range rows() {
			if r.state == "new" {
				return true
			}
		}
		return false
	})
	cl.Primary().Resume()
}

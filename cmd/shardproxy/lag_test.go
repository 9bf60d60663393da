package main

import (
	"strings"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
)

// TestLaggingReplica stops a replica's replay: other sessions' reads leave it when
// it is behind by more than they allow, and come back when it has caught up.
func TestLaggingReplica(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{Replicas: 1})
	px := startProgram(t, cl, strings.NewReplacer("reads: {", "reads: {max_lag: 500ms, ",
		"connect_timeout: 2s}", "connect_timeout: 2s}\n    failover: {probe_interval: 100ms}").Replace(configText))
	primary, replica := cl.Primary(), cl.Replicas()[0]
	must(t, px.connect(), "CREATE TABLE ticks (at timestamptz)")
	cl.CatchUp()
	reader := px.connect() // has written nothing
	console := px.connectTo(strings.Replace(px.dsn(), "/app?", "/shardproxy?", 1))
	health := func() string {
		got, err := console.PgConn().Exec(within(t, 10*time.Second), "SHOW NODES").ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range got[0].Rows {
			if string(r[2]) == replica.Addr() {
				return string(r[4]) + ": " + string(r[5])
			}
		}
		return ""
	}
	tick := func() { primary.Exec("app", "INSERT INTO ticks VALUES (now())") }
	eventually(t, "reads run on the replica", func() bool { return serverPort(t, reader) == replica.Port() })

	replica.Exec("app", "SELECT pg_wal_replay_pause()")
	eventually(t, "the replica lags", func() bool { tick(); return strings.HasPrefix(health(), "lagging: is ") })
	for range 10 {
		if port := serverPort(t, reader); port != primary.Port() {
			t.Fatalf("a read ran on the lagging replica")
		}
	}

	replica.Exec("app", "SELECT pg_wal_replay_resume()")
	eventually(t, "it is said to be taken back, or is", func() bool {
		h := health()
		return strings.HasPrefix(h, "lagging: was ") || strings.HasPrefix(h, "up")
	})
	eventually(t, "reads run on the replica again", func() bool { return serverPort(t, reader) == replica.Port() })
}

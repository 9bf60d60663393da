package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// TestServerTLS connects to servers that want encryption in each of the modes,
// and to some that must not be believed.
func TestServerTLS(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{TLS: true, HBA: "hostssl all postgres 127.0.0.1/32 trust\n" +
		"hostssl all app 127.0.0.1/32 scram-sha-256\nhostssl all carla 127.0.0.1/32 cert"})
	stranger := pgtest.Start(t, pgtest.Options{TLS: true}) // another authority
	cl.Primary().Exec("app", "CREATE ROLE carla LOGIN")
	cert, key, err := cl.TLS().Issue("carla")
	if err != nil {
		t.Fatal(err)
	}
	ca, otherCA := cl.TLS().CAFile, stranger.TLS().CAFile
	for _, c := range []struct{ name, tls, user, want string }{
		{"prefer", "mode: prefer", "", "app over TLS"},
		{"allow", "mode: allow", "", "app over TLS"},
		{"require", "mode: require", "", "app over TLS"},
		{"verify-ca", "mode: verify-ca, ca: " + ca, "", "app over TLS"},
		{"verify-full", "mode: verify-full, ca: " + ca, "", "app over TLS"},
		{"client certificate", fmt.Sprintf("mode: verify-full, ca: %s, certificate: %s, key: %s", ca, cert, key), ", server_user: carla", "carla over TLS"},
		{"disable", "mode: disable", "", `SHOW NODES: no encryption`},
		{"verify-ca, another authority", "mode: verify-ca, ca: " + otherCA, "", "SHOW NODES: certificate signed by unknown authority"},
		{"verify-full, another authority", "mode: verify-full, ca: " + otherCA, "", "SHOW NODES: certificate signed by unknown authority"},
		{"without the client certificate", "mode: verify-full, ca: " + ca, ", server_user: carla", "connection requires a valid client certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.NewReplacer("connect_timeout: 2s}", "connect_timeout: 2s, tls: {"+c.tls+"}}\n    failover: {hold_timeout: 1s}",
				"{name: app,", "{name: app"+c.user+",").Replace(configText)
			px := startProgram(t, cl, text)
			if reason, ok := strings.CutPrefix(c.want, "SHOW NODES: "); ok {
				console := px.connectTo(strings.Replace(px.dsn(), "/app?", "/shardproxy?", 1))
				eventually(t, "SHOW NODES says "+reason, func() bool {
					got, err := console.PgConn().Exec(within(t, 10*time.Second), "SHOW NODES").ReadAll()
					return err == nil && len(got[0].Rows) == 1 && strings.Contains(string(got[0].Rows[0][5]), reason)
				})
				return
			}
			got := whoAndHow(t, px)
			if !strings.Contains(got, c.want) {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// whoAndHow says as whom the server knows the client, and over what; or the error.
func whoAndHow(t *testing.T, px *proxied) (who string) {
	t.Helper()
	c, err := pgx.Connect(within(t, 20*time.Second), px.dsn())
	if err != nil {
		return err.Error()
	}
	defer c.Close(within(t, 10*time.Second))
	err = c.QueryRow(within(t, 10*time.Second), `SELECT current_user || CASE WHEN ssl THEN ' over TLS' ELSE ' in the clear' END
		FROM pg_stat_ssl WHERE pid = pg_backend_pid()`).Scan(&who)
	if err != nil {
		return err.Error()
	}
	return who
}

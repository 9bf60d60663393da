package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgcluster"
	"shardproxy/internal/pgtest"
)

// TestVerifierIsNoPassword: a user that auth_query has found gets in, and is
// told why its statements do not, where no login for the servers is configured.
func TestVerifierIsNoPassword(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{})
	cl.Primary().Exec("app", "CREATE ROLE verified LOGIN PASSWORD 'right'")
	px := startProgram(t, cl, configText+"auth: {auth_query: {user: postgres}}\n")
	if log := px.logged(); !strings.Contains(log, "nothing gives the passwords of the users it finds for the servers of app") {
		t.Errorf("no warning in\n%s", log)
	}
	dsn := strings.Replace(px.dsn(), "app:"+pgcluster.AppPassword, "verified:right", 1)
	var pe *pgconn.PgError
	eventually(t, "the server's refusal is passed on", func() bool {
		c, err := pgx.Connect(within(t, 10*time.Second), dsn)
		if err == nil {
			defer c.Close(context.Background())
			_, err = c.Exec(within(t, 10*time.Second), "SELECT 1")
		}
		return errors.As(err, &pe) && pe.Code != "57P03"
	})
	if pe.Code != "28P01" || !strings.Contains(pe.Message, "the server refused the proxy's login") || !strings.Contains(pe.Hint, "server.user") {
		t.Errorf("%+v", pe)
	}
	// With a login for the servers it works.
	own := startProgram(t, cl, strings.Replace(configText, "server: {", "server: {user: app, password: "+pgcluster.AppPassword+", ", 1)+
		"auth: {auth_query: {user: postgres}}\n")
	if log := own.logged(); strings.Contains(log, "nothing gives the passwords") {
		t.Errorf("a warning without cause in\n%s", log)
	}
	c := own.connectTo(strings.Replace(own.dsn(), "app:"+pgcluster.AppPassword, "verified:right", 1))
	must(t, c, "SELECT 1")
}

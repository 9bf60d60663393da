package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgcluster"
	"shardproxy/internal/pgtest"
)

// lookups is a proxy that knows users from the server only.
type lookups struct {
	*process
	db *pgtest.Database
}

// startLookups starts one whose auth_query has these settings.
func startLookups(t *testing.T, settings string) *lookups {
	t.Helper()
	db := pgtest.Shared(t)
	return startLookupsAt(t, db, []*pgtest.Node{db.Node}, settings)
}

func startLookupsAt(t *testing.T, db *pgtest.Database, nodes []*pgtest.Node, settings string) *lookups {
	t.Helper()
	text := strings.Replace(processText, "server: {", "server: {user: app, password: "+pgcluster.AppPassword+", ", 1) +
		"auth: {throttle: {delay: 0}, auth_query: {user: postgres, " + settings + "}}\n"
	l := &lookups{startProcessAt(t, db.Name, nodes, text), db}
	l.logged("shard has a primary")
	return l
}

// role makes a role for the length of the test.
func (l *lookups) role(name, options string) {
	l.t.Helper()
	l.db.Exec("CREATE ROLE " + name + " " + options)
	l.t.Cleanup(func() { l.db.Exec("DROP ROLE IF EXISTS " + name) })
}

// login connects, asks who it is on the server and leaves.
func (l *lookups) login(user, password string) error {
	l.t.Helper()
	c, err := pgx.Connect(within(l.t, 20*time.Second), l.dsnOf(user, password, "app"))
	if err != nil {
		return err
	}
	defer c.Close(context.Background())
	var who string
	if err := c.QueryRow(within(l.t, 20*time.Second), "SELECT session_user").Scan(&who); err != nil || who != "app" {
		return fmt.Errorf("on the server it is %q, %w", who, err)
	}
	return nil
}

// in and out expect a login to succeed, or to fail as one of nobody does.
func (l *lookups) in(user, password string) {
	l.t.Helper()
	if err := l.login(user, password); err != nil {
		l.t.Errorf("%s with %q: %v", user, password, err)
	}
}

func (l *lookups) out(user, password string) {
	l.t.Helper()
	err := l.login(user, password)
	if want := fmt.Sprintf("FATAL: password authentication failed for user %q (SQLSTATE 28P01)", user); err == nil || !strings.Contains(err.Error(), want) {
		l.t.Errorf("%s with %q: %v, want %s", user, password, err, want)
	}
}

// TestUsersFromServer logs users in that no file knows.
func TestUsersFromServer(t *testing.T) {
	t.Parallel()
	l := startLookups(t, "cache_time: 0, cache_miss_time: 0")
	l.role("aq_scram", "LOGIN PASSWORD 'right'")
	l.role("aq_expired", "LOGIN PASSWORD 'right' VALID UNTIL '2001-01-01'")
	l.role("aq_later", "LOGIN PASSWORD 'right' VALID UNTIL '2100-01-01'")
	l.role("aq_forever", "LOGIN PASSWORD 'right' VALID UNTIL 'infinity'")
	l.role("aq_nologin", "NOLOGIN PASSWORD 'right'")
	l.role("aq_none", "LOGIN")
	l.role(`"aq Odd'Näme"`, "LOGIN PASSWORD 'right'")
	for _, user := range []string{"aq_scram", "aq_later", "aq_forever", "aq Odd'Näme"} {
		l.in(user, "right")
		l.out(user, "wrong")
		l.out(user, "")
	}
	// What is the reason, an outsider cannot tell.
	for _, user := range []string{"aq_expired", "aq_nologin", "aq_none", "aq_nobody", "' OR true --"} {
		l.out(user, "right")
	}
	// The file's own users go on, and are not looked up.
	if err := l.login("app", pgcluster.AppPassword); err != nil {
		t.Error(err)
	}
	for user, reason := range map[string]string{"aq_expired": "expired", "aq_scram": "does not match", "aq_nobody": "does not exist"} {
		if len(lines(l.printed(), "client refused.*"+user+".*"+reason)) == 0 {
			t.Errorf("the log does not say %q of %s:\n%s", reason, user, strings.Join(lines(l.printed(), user), "\n"))
		}
	}

	l.db.Exec("ALTER ROLE aq_scram PASSWORD 'changed'")
	l.in("aq_scram", "changed")
	l.out("aq_scram", "right")
	l.db.Exec("ALTER ROLE aq_scram VALID UNTIL '2001-01-01'")
	l.out("aq_scram", "changed")
	l.db.Exec("ALTER ROLE aq_later NOLOGIN")
	l.out("aq_later", "right")
	l.db.Exec("DROP ROLE aq_forever")
	l.out("aq_forever", "right")
	l.db.Exec("CREATE ROLE aq_forever LOGIN PASSWORD 'new'")
	l.in("aq_forever", "new")
}

// TestCachedUsers changes the password of a user whose verifier is remembered:
// the new one works although an hour has not passed.
func TestCachedUsers(t *testing.T) {
	t.Parallel()
	l := startLookups(t, "cache_time: 1h, cache_miss_time: 200ms")
	l.role("ac_changing", "LOGIN PASSWORD 'old'")
	l.in("ac_changing", "old")
	l.db.Exec("ALTER ROLE ac_changing PASSWORD 'new'")
	l.in("ac_changing", "old") // it is remembered
	// A wrong password makes the next attempt ask, once the answer is a second old.
	eventually(t, "the new password works", func() bool { return l.login("ac_changing", "new") == nil })
	l.out("ac_changing", "old")

	l.out("ac_late", "any")
	l.role("ac_late", "LOGIN PASSWORD 'any'")
	eventually(t, "a new user gets in", func() bool { return l.login("ac_late", "any") == nil })

	l.db.Exec("ALTER ROLE ac_changing PASSWORD 'newest'")
	l.in("ac_changing", "new")
	// A reload forgets it all.
	l.write(l.text() + "timeouts: {client_idle: 1h}\n")
	l.signal(syscall.SIGHUP)
	l.logged("configuration reloaded")
	l.out("ac_changing", "new")
	l.in("ac_changing", "newest")
}

// TestOwnLookup uses a function that its owner made for the purpose, under a
// search path that somebody has tampered with.
func TestOwnLookup(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t)
	db.Exec(`CREATE ROLE ao_asker LOGIN PASSWORD 'asks'; CREATE ROLE ao_user LOGIN PASSWORD 'right';
		CREATE SCHEMA lookup;
		CREATE FUNCTION lookup.verifier(name text) RETURNS TABLE (verifier text, until timestamptz) SECURITY DEFINER
			SET search_path = pg_catalog LANGUAGE sql AS 'SELECT rolpassword, rolvaliduntil FROM pg_authid WHERE rolname = $1 AND rolcanlogin';
		REVOKE ALL ON FUNCTION lookup.verifier FROM public;
		GRANT USAGE ON SCHEMA lookup TO ao_asker; GRANT EXECUTE ON FUNCTION lookup.verifier TO ao_asker;
		CREATE SCHEMA trap; GRANT USAGE ON SCHEMA trap TO public;
		CREATE FUNCTION trap.length(text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped'; END $$;
		ALTER ROLE ao_asker SET search_path = trap, pg_catalog`)
	t.Cleanup(func() { db.Exec("DROP OWNED BY ao_asker, ao_user; DROP ROLE ao_asker, ao_user") })
	text := strings.Replace(processText, "server: {", "server: {user: app, password: "+pgcluster.AppPassword+", ", 1) +
		"auth: {throttle: {delay: 0}, auth_query: {user: ao_asker, password: asks, query: 'SELECT * FROM lookup.verifier($1) WHERE length($1) > 0', cache_time: 0}}\n"
	l := &lookups{startProcessAt(t, db.Name, []*pgtest.Node{db.Node}, text), db}
	l.logged("shard has a primary")
	l.in("ao_user", "right")
	l.out("ao_user", "wrong")
	l.out("ao_nobody", "right")
	db.Exec("ALTER ROLE ao_asker NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ao_asker'")
	if err := l.login("ao_user", "right"); sqlState(err) != "57P03" {
		t.Errorf("when nobody can be asked: %v", err)
	}
	if err := l.login("app", pgcluster.AppPassword); err != nil {
		t.Errorf("a user of the file meanwhile: %v", err)
	}
	db.Exec("ALTER ROLE ao_asker LOGIN")
	l.in("ao_user", "right")
}

// TestLookupsFollowThePrimary promotes a replica while the old primary still
// answers: who may log in is what the new one says.
func TestLookupsFollowThePrimary(t *testing.T) {
	t.Parallel()
	cl := pgtest.Start(t, pgtest.Options{Replicas: 1})
	heir := cl.Replicas()[0]
	l := startLookupsAt(t, &pgtest.Database{Node: cl.Primary(), Name: "app"}, cl.Nodes(), "cache_time: 0, cache_miss_time: 0")
	cl.Primary().Exec("app", "CREATE ROLE moved LOGIN PASSWORD 'old'")
	cl.CatchUp()
	l.in("moved", "old")
	heir.Promote()
	eventually(t, "the promoted node is the primary", func() bool {
		for _, row := range l.console("SHOW NODES") {
			if row[2] == heir.Addr() && row[6] == "1" {
				return true
			}
		}
		return false
	})
	heir.Exec("app", "ALTER ROLE moved PASSWORD 'new'")
	eventually(t, "the new password works", func() bool { return l.login("moved", "new") == nil })
	l.out("moved", "old")
}

// TestLookupBeforeTheFirstAnswer logs in while no node has been heard of yet:
// the look-up waits for one as a statement would.
func TestLookupBeforeTheFirstAnswer(t *testing.T) {
	t.Parallel()
	cl := pgtest.Start(t, pgtest.Options{})
	cl.Primary().Exec("app", "CREATE ROLE early LOGIN PASSWORD 'right'")
	cl.Primary().Pause()
	text := strings.Replace(processText, "server: {", "server: {user: app, password: "+pgcluster.AppPassword+", ", 1) +
		"auth: {throttle: {delay: 0}, auth_query: {user: postgres, timeout: 10s}}\n"
	l := &lookups{startProcessAt(t, "app", cl.Nodes(), text), nil}
	result := make(chan error, 1)
	dsn := l.dsnOf("early", "right", "app")
	go func() {
		c, err := pgx.Connect(context.Background(), dsn)
		if err == nil {
			err = c.Close(context.Background())
		}
		result <- err
	}()
	select {
	case err := <-result:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	cl.Primary().Resume()
	if err := <-result; err != nil {
		t.Error(err)
	}
}

package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(orphanVariable) != "" {
		beOrphan()
	}
	goleak.VerifyTestMain(m)
}

// open starts a cluster for one test.
func open(t *testing.T, o Options) *Cluster {
	t.Helper()
	c := New(o)
	if err := c.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// value runs a query for one value as the superuser.
func value[T any](t *testing.T, n *Node, sql string) (v T) {
	t.Helper()
	err := n.withConn(t.Context(), AppDatabase, func(conn *pgx.Conn) error { return conn.QueryRow(t.Context(), sql).Scan(&v) })
	if err != nil {
		t.Fatalf("%s on %s: %v", sql, n.Name(), err)
	}
	return v
}

// execute runs a statement as the superuser.
func execute(t *testing.T, n *Node, sql string) {
	t.Helper()
	err := n.withConn(t.Context(), AppDatabase, func(conn *pgx.Conn) error {
		_, err := conn.Exec(t.Context(), sql)
		return err
	})
	if err != nil {
		t.Fatalf("%s on %s: %v", sql, n.Name(), err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestLifeOfANode also shows that nothing is left after Close.
func TestLifeOfANode(t *testing.T) {
	c := New(Options{Settings: map[string]string{"work_mem": "7MB"}, MaxConnections: 17})
	must(t, c.Open(t.Context()))
	defer c.Close()
	n := c.Primary()
	if got := value[string](t, n, "SELECT current_setting('work_mem') || ' ' || current_setting('max_connections')"); got != "7MB 17" {
		t.Errorf("settings are %s, want 7MB 17", got)
	}
	execute(t, n, "CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
	addr := n.Addr()

	must(t, n.Kill9())
	if n.Running() {
		t.Error("it runs after Kill9")
	}
	if left := serverProcesses(n.dataDir, 0)[1:]; len(left) != 0 {
		t.Errorf("processes %v are left after Kill9", left)
	}
	must(t, n.Start(t.Context()))
	if err := n.Start(t.Context()); err == nil {
		t.Error("a second Start succeeded")
	}
	must(t, n.Restart(t.Context()))
	if n.Addr() != addr {
		t.Errorf("the address changed from %s to %s", addr, n.Addr())
	}
	if got := value[int](t, n, "SELECT count(*) FROM t"); got != 1 {
		t.Errorf("%d rows after a crash and a restart, want 1", got)
	}
	must(t, n.Set(t.Context(), "work_mem", "9MB"))
	if got := value[string](t, n, "SHOW work_mem"); got != "9MB" {
		t.Errorf("work_mem is %s after Set", got)
	}

	must(t, n.Kill9())
	must(t, c.Close())
	must(t, c.Close())
	if _, err := os.Stat(c.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left after Close: %v", err)
	}
	if _, err := c.AddReplica(t.Context(), n); err == nil {
		t.Error("AddReplica on a closed cluster succeeded")
	}
}

func TestPause(t *testing.T) {
	n := open(t, Options{}).Primary()
	conn, err := n.Connect(t.Context(), AppDatabase)
	must(t, err)
	defer conn.Close(context.Background())
	must(t, n.Pause())
	if !n.Running() {
		t.Error("a paused server does not count as running")
	}
	for _, pid := range serverProcesses(n.dataDir, n.pid) {
		if !isStopped(pid) {
			t.Errorf("process %d is not stopped", pid)
		}
	}

	// An open session hangs, and so does a new one, whose connect succeeds.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := pgx.Connect(ctx, n.DSN(AppDatabase, AppUser)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("connecting to a paused server: %v, want a timeout", err)
	}
	answer := make(chan error)
	go func() {
		_, err := conn.Exec(t.Context(), "SELECT 1")
		answer <- err
	}()
	select {
	case err := <-answer:
		t.Fatalf("a paused server answered (%v)", err)
	case <-time.After(100 * time.Millisecond):
	}
	must(t, n.Resume())
	must(t, <-answer)

	must(t, n.Pause())
	must(t, n.Stop(t.Context())) // resumes it first
	if err := n.Pause(); err == nil {
		t.Error("pausing a stopped server succeeded")
	}
}

func TestReplication(t *testing.T) {
	c := open(t, Options{Replicas: 2})
	old, first, second := c.Primary(), c.Replicas()[0], c.Replicas()[1]
	replicated := func(from, to *Node, what string) {
		t.Helper()
		execute(t, from, "CREATE TABLE "+what+" ()")
		lsn, err := from.LSN(t.Context())
		must(t, err)
		must(t, to.WaitReplayed(t.Context(), lsn))
		if !value[bool](t, to, "SELECT to_regclass('"+what+"') IS NOT NULL") {
			t.Errorf("table %s of %s is not on %s", what, from.Name(), to.Name())
		}
	}
	replicated(old, first, "a")
	replicated(old, second, "b")

	must(t, old.Kill9())
	must(t, first.Promote(t.Context()))
	if value[bool](t, first, "SELECT pg_is_in_recovery()") {
		t.Error("in recovery after Promote")
	}
	must(t, second.Follow(t.Context(), first))
	replicated(first, second, "c")
	must(t, old.Rebuild(t.Context(), first))
	replicated(first, old, "d")
	third, err := c.AddReplica(t.Context(), first)
	must(t, err)
	replicated(first, third, "e")
	must(t, first.Restart(t.Context())) // stays a primary
	replicated(first, second, "f")

	ids := map[int64]bool{}
	for _, n := range c.Nodes() {
		id, err := n.SystemIdentifier(t.Context())
		must(t, err)
		ids[id] = true
	}
	if len(ids) != 1 {
		t.Errorf("system identifiers %v within one cluster", ids)
	}
}

// TestClustersDiffer: two clusters must not pass for one.
func TestClustersDiffer(t *testing.T) {
	a, b := open(t, Options{}).Primary(), open(t, Options{}).Primary()
	idA, err := a.SystemIdentifier(t.Context())
	must(t, err)
	idB, err := b.SystemIdentifier(t.Context())
	must(t, err)
	if idA == idB {
		t.Errorf("both have system identifier %d", idA)
	}
	if a.Port() == b.Port() {
		t.Error("both have the same port")
	}
}

func TestAuthentication(t *testing.T) {
	c := open(t, Options{TLS: true, HBA: "hostssl all app 127.0.0.1/32 scram-sha-256\nhostssl all carla 127.0.0.1/32 cert"})
	n := c.Primary()
	execute(t, n, "CREATE ROLE carla LOGIN")
	cert, key, err := c.TLS().Issue("carla")
	must(t, err)
	carla := fmt.Sprintf("%s&sslcert=%s&sslkey=%s", n.DSN(AppDatabase, "carla"), cert, key)
	wrong := strings.Replace(n.DSN(AppDatabase, AppUser), AppPassword, "wrong", 1)
	plain := strings.Replace(n.DSN(AppDatabase, AppUser), "verify-full", "disable", 1)
	for _, test := range []struct{ name, dsn, code string }{
		{"app", n.DSN(AppDatabase, AppUser), ""},
		{"app, wrong password", wrong, "28P01"},
		{"app, no TLS", plain, "28000"},
		{"carla with certificate", carla, ""},
		{"carla without", n.DSN(AppDatabase, "carla"), "28000"},
		{"superuser over TCP", n.DSN(AppDatabase, Superuser), "28000"},
	} {
		conn, err := pgx.Connect(t.Context(), test.dsn)
		var pe *pgconn.PgError
		code := ""
		if errors.As(err, &pe) {
			code = pe.Code
		} else {
			must(t, err)
		}
		if code != test.code {
			t.Errorf("%s: %v, want SQLSTATE %q", test.name, err, test.code)
		}
		if conn != nil {
			must(t, conn.Close(t.Context()))
		}
	}
}

// TestPortTaken: a stranger takes the port between the reservation and the
// first start.
func TestPortTaken(t *testing.T) {
	c := New(Options{})
	defer c.Close()
	template, err := c.prepare(t.Context())
	must(t, err)
	c.primary, err = c.newNode("primary", nil)
	must(t, err)
	must(t, copyTemplate(template, c.primary.dataDir, c.account))
	before := c.primary.Addr()
	stranger, err := net.Listen("tcp", before)
	must(t, err)
	defer stranger.Close()
	must(t, c.primary.Start(t.Context()))
	if c.primary.Addr() == before {
		t.Errorf("it listens on %s, which a stranger has", before)
	}
	// After that the address is known to others and must not change silently.
	must(t, c.primary.Stop(t.Context()))
	second, err := net.Listen("tcp", c.primary.Addr())
	must(t, err)
	defer second.Close()
	if err := c.primary.Start(t.Context()); !errors.Is(err, errPortTaken) {
		t.Errorf("a later start on a taken port: %v", err)
	}
}

func TestOpenFails(t *testing.T) {
	c := New(Options{Settings: map[string]string{"no_such_setting": "1"}})
	err := c.Open(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no_such_setting") {
		t.Errorf("a wrong setting: %v", err)
	}
	if _, err := os.Stat(c.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("test is over")
	cancel(cause)
	c = New(Options{})
	if err := c.Open(ctx); !errors.Is(err, cause) {
		t.Errorf("with an ended context: %v", err)
	}
	if _, err := os.Stat(c.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
}

// TestTemplateOnce: a second folder needs a template of its own, made once
// however many want it.
func TestTemplateOnce(t *testing.T) {
	parent, err := os.MkdirTemp("/tmp", "pgc")
	must(t, err)
	defer os.RemoveAll(parent)
	must(t, os.Chmod(parent, 0o755))
	errs := make(chan error)
	for range 2 {
		go func() {
			c := New(Options{Parent: parent})
			errs <- errors.Join(c.Open(t.Context()), c.Close())
		}()
	}
	must(t, errors.Join(<-errs, <-errs))
	found, err := filepath.Glob(filepath.Join(parent, "*", "*"))
	must(t, err)
	var names []string
	for _, f := range found {
		names = append(names, filepath.Base(f)[:4])
	}
	if got := strings.Join(names, " "); got != "port temp temp" { // ports, template, its lock
		t.Errorf("found %v", found)
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"shardproxy/internal/pgcluster"
	"shardproxy/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// proxied is the whole program in this process, in front of real servers.
type proxied struct {
	t    testing.TB
	p    *program
	addr string
	path string
}

// freeAddr returns an address that was free a moment ago.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range portsOfTests {
		port := 10000 + (os.Getpid()*101+int(givenPorts.Add(1)))%portsOfTests
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// portsOfTests lie below those of the servers, and of outgoing connections: nobody takes one between its being found and being listened on.
const portsOfTests = 10000

// givenPorts counts the ports that tests were given: none is given twice.
var givenPorts atomic.Int64

// startProgram runs the program with the configuration text; %NODES%, %LISTEN%
// and %ADMIN% in it are filled in.
func startProgram(t testing.TB, c *pgtest.Cluster, text string) *proxied {
	t.Helper()
	var nodes []string
	for _, n := range c.Nodes() {
		nodes = append(nodes, fmt.Sprintf("%q", n.Addr()))
	}
	px := &proxied{t: t, addr: freeAddr(t), path: filepath.Join(t.TempDir(), "shardproxy.yaml")}
	text = strings.NewReplacer("%NODES%", strings.Join(nodes, ", "), "%LISTEN%", px.addr, "%ADMIN%", freeAddr(t)).Replace(text)
	px.write(text)
	log, err := os.Create(filepath.Join(filepath.Dir(px.path), "log"))
	if err != nil {
		t.Fatal(err)
	}
	if px.p, err = newProgram(px.path, log); err != nil {
		t.Fatal(err)
	}
	if err := px.p.open(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		px.p.close()
		_ = log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("the proxy's log, last lines:\n%s", b[max(0, len(b)-8000):])
		}
	})
	return px
}

// logged returns what the program has logged.
func (px *proxied) logged() string {
	px.t.Helper()
	b, err := os.ReadFile(filepath.Join(filepath.Dir(px.path), "log"))
	if err != nil {
		px.t.Fatal(err)
	}
	return string(b)
}

func (px *proxied) write(text string) {
	px.t.Helper()
	if err := os.WriteFile(px.path, []byte(text), 0o600); err != nil {
		px.t.Fatal(err)
	}
}

const configText = `
listen: {address: "%LISTEN%"}
admin:  {address: "%ADMIN%", admin_users: [app], open: [probes, metrics]}
users:
  - {name: app, password: ` + pgcluster.AppPassword + `}
databases:
  app:
    shards: [{name: s0, nodes: [%NODES%]}]
    server: {control: {user: postgres}, connect_timeout: 2s}
    reads: {read_only_functions: [inet_server_port]}
`

func (px *proxied) dsn() string {
	return "postgres://app:" + pgcluster.AppPassword + "@" + px.addr + "/app?sslmode=disable"
}

func (px *proxied) connect() *pgx.Conn { return px.connectTo(px.dsn()) }

func (px *proxied) connectTo(dsn string) *pgx.Conn {
	px.t.Helper()
	c, err := pgx.Connect(within(px.t, 20*time.Second), dsn)
	if err != nil {
		px.t.Fatal(err)
	}
	px.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func sqlState(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

// serverPort tells which node answers a read.
func serverPort(t testing.TB, c *pgx.Conn) int {
	t.Helper()
	var port int
	if err := c.QueryRow(within(t, 10*time.Second), "SELECT inet_server_port()").Scan(&port); err != nil {
		t.Fatal(err)
	}
	return port
}

func TestReadsAreSpreadAndSeeOwnWrites(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{Replicas: 2})
	px := startProgram(t, cl, configText)
	c := px.connect()
	eventually(t, "reads run on both replicas and not on the primary", func() bool {
		seen := map[int]bool{}
		for range 12 {
			seen[serverPort(t, c)] = true
		}
		return len(seen) == 2 && !seen[cl.Primary().Port()]
	})
	if _, err := c.Exec(within(t, 10*time.Second), "CREATE TABLE own (id int PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if _, err := c.Exec(within(t, 10*time.Second), "INSERT INTO own VALUES ($1)", i); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := c.QueryRow(within(t, 10*time.Second), "SELECT count(*) FROM own").Scan(&n); err != nil || n != i+1 {
			t.Fatalf("after %d inserts the session sees %d rows (%v)", i+1, n, err)
		}
	}
	eventually(t, "the session reads from replicas again", func() bool { return serverPort(t, c) != cl.Primary().Port() })
	tx, err := c.BeginTx(within(t, 10*time.Second), pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		t.Fatal(err)
	}
	if port := serverPort(t, tx.Conn()); port == cl.Primary().Port() {
		t.Error("a read-only transaction runs on the primary")
	}
	if _, err := tx.Exec(within(t, 10*time.Second), "INSERT INTO own VALUES (-1)"); sqlState(err) != "25006" {
		t.Errorf("a write in a read-only transaction: %v", err)
	}
	_ = tx.Rollback(context.Background())
	readersStayOnReplicas(t, c, cl.Primary().Port())
	for setting, wantPrimary := range map[string]bool{"primary": true, "replica": false} {
		if _, err := c.Exec(within(t, 10*time.Second), "SET shardproxy.route = '"+setting+"'"); err != nil {
			t.Fatal(err)
		}
		if got := serverPort(t, c) == cl.Primary().Port(); got != wantPrimary {
			t.Errorf("route %s: on the primary: %v", setting, got)
		}
	}
	if _, err := c.Exec(within(t, 10*time.Second), "RESET shardproxy.route"); err != nil {
		t.Fatal(err)
	}
	var port int
	if err := c.QueryRow(within(t, 10*time.Second), "/* shardproxy: route=primary */ SELECT inet_server_port()").Scan(&port); err != nil || port != cl.Primary().Port() {
		t.Errorf("the hint was ignored: port %d, %v", port, err)
	}
}

// readersStayOnReplicas: what does not write leaves a session free to read
// everywhere, although the primary runs some of it.
func readersStayOnReplicas(t *testing.T, c *pgx.Conn, primary int) {
	t.Helper()
	const turns = 100
	for name, before := range map[string][]string{
		"read-only transactions": {"BEGIN READ ONLY", "SELECT count(*) FROM own", "COMMIT"},
		"rolled back":            {"BEGIN READ ONLY", "SELECT 1", "ROLLBACK"},
		"empty transactions":     {"BEGIN", "COMMIT"},
		"settings":               {"SET application_name = 'pool'"},
		"settings by function":   {"SELECT set_config('work_mem', '5MB', false)"},
		"notes on the session":   {"SHOW work_mem", "RESET application_name", "SELECT now()"},
	} {
		onPrimary := 0
		for range turns {
			for _, sql := range before {
				must(t, c, sql)
			}
			if serverPort(t, c) == primary {
				onPrimary++
			}
		}
		if onPrimary > turns/10 {
			t.Errorf("behind %s %d of %d reads ran on the primary", name, onPrimary, turns)
		}
	}
}

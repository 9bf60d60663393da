package pgtest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgcluster"
)

// Database is a database of one test on the server that all tests of the
// process share. Its owner is the role "app".
type Database struct {
	Node *Node
	Name string
}

// sharedServer starts the process's server when the first test wants it. It
// ends with the process: there is no last test to end it.
var sharedServer = sync.OnceValues(func() (*pgcluster.Cluster, error) {
	engine := pgcluster.New(Options{MaxConnections: 300})
	ctx, cancel := context.WithTimeout(context.Background(), 2*timeout)
	defer cancel()
	return engine, engine.Open(ctx)
})

// databaseNumber makes names unique within the process.
var databaseNumber atomic.Int64

// Shared returns a new empty database for this test, dropped when it ends.
// The test must not stop the server, change its settings or keep roles.
func Shared(t testing.TB) *Database {
	t.Helper()
	engine, err := sharedServer()
	if err != nil {
		t.Fatal(err)
	}
	d := &Database{
		Node: &Node{Engine: engine.Primary(), t: t},
		Name: fmt.Sprintf("test_%d", databaseNumber.Add(1)),
	}
	d.Node.Exec("postgres", "CREATE DATABASE "+d.Name+" OWNER "+pgcluster.AppUser)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the shared server, last lines:\n%s", tail(d.Node.Engine.LogFile()))
		}
		d.Node.Exec("postgres", "DROP DATABASE "+d.Name+" WITH (FORCE)")
	})
	return d
}

// DSN returns a URL of the database for a user ("app" or "postgres").
func (d *Database) DSN(user string) string { return d.Node.DSN(d.Name, user) }

// Exec runs SQL as the superuser, as Node.Exec does.
func (d *Database) Exec(sql string, args ...any) {
	d.Node.t.Helper()
	d.Node.Exec(d.Name, sql, args...)
}

// Rows runs a query as the superuser, as Node.Rows does.
func (d *Database) Rows(sql string, args ...any) [][]string {
	d.Node.t.Helper()
	return d.Node.Rows(d.Name, sql, args...)
}

// Value returns one value, as Node.Value does.
func (d *Database) Value(sql string, args ...any) string {
	d.Node.t.Helper()
	return d.Node.Value(d.Name, sql, args...)
}

// Connect connects as a user ("app" or "postgres") until the test ends.
func (d *Database) Connect(user string) *pgx.Conn {
	d.Node.t.Helper()
	return Connect(d.Node.t, d.DSN(user))
}

// LoadOrders creates and fills the order-processing schema of testdata/sql,
// owned by the role "app".
func (d *Database) LoadOrders() { d.Node.t.Helper(); d.Node.LoadOrders(d.Name) }

// Lines joins the columns of each row with "|", as psql -At prints them.
func Lines(rows [][]string) []string {
	lines := make([]string, 0, len(rows))
	for _, row := range rows {
		lines = append(lines, strings.Join(row, "|"))
	}
	return lines
}

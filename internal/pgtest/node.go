package pgtest

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgcluster"
	"shardproxy/testdata/sql"
)

// Node is one server of a test. A failing call ends the test, so that calls
// belong on the test's own goroutine; others use Engine and look at errors.
type Node struct {
	// Engine is the server itself, for callers that want errors returned.
	Engine *pgcluster.Node

	t testing.TB
}

// Name returns "primary", "replica1" and so on.
func (n *Node) Name() string { return n.Engine.Name() }

// Addr returns "127.0.0.1:port"; it never changes.
func (n *Node) Addr() string { return n.Engine.Addr() }

// Port returns the TCP port; it never changes.
func (n *Node) Port() int { return n.Engine.Port() }

// DSN returns a URL with the user's password, as pgcluster.Node.DSN does.
func (n *Node) DSN(database, user string) string { return n.Engine.DSN(database, user) }

// Kill9 kills all the server's processes with SIGKILL.
func (n *Node) Kill9() { n.t.Helper(); n.check(n.Engine.Kill9()) }

// Pause stops all the server's processes with SIGSTOP.
func (n *Node) Pause() { n.t.Helper(); n.check(n.Engine.Pause()) }

// Resume lets a paused server go on.
func (n *Node) Resume() { n.t.Helper(); n.check(n.Engine.Resume()) }

// Stop ends the server (fast shutdown).
func (n *Node) Stop() { n.t.Helper(); n.do(n.Engine.Stop) }

// Start starts a stopped or killed server and waits until it accepts
// connections.
func (n *Node) Start() { n.t.Helper(); n.do(n.Engine.Start) }

// Restart is Stop and Start.
func (n *Node) Restart() { n.t.Helper(); n.do(n.Engine.Restart) }

// Promote makes a replica a primary and waits until it accepts writes.
func (n *Node) Promote() { n.t.Helper(); n.do(n.Engine.Promote) }

// Follow makes a running replica stream from another node.
func (n *Node) Follow(primary *Node) {
	n.t.Helper()
	n.do(func(ctx context.Context) error { return n.Engine.Follow(ctx, primary.Engine) })
}

// Rebuild makes the node a new replica of primary, at its old address.
func (n *Node) Rebuild(primary *Node) {
	n.t.Helper()
	n.do(func(ctx context.Context) error { return n.Engine.Rebuild(ctx, primary.Engine) })
}

// Set changes a setting of the running server; an empty value resets it.
func (n *Node) Set(name, value string) {
	n.t.Helper()
	n.do(func(ctx context.Context) error { return n.Engine.Set(ctx, name, value) })
}

// LSN returns the WAL position written (primary) or replayed (replica).
func (n *Node) LSN() (lsn string) {
	n.t.Helper()
	n.do(func(ctx context.Context) (err error) {
		lsn, err = n.Engine.LSN(ctx)
		return err
	})
	return lsn
}

// WaitReplayed waits until the node has replayed up to lsn.
func (n *Node) WaitReplayed(lsn string) {
	n.t.Helper()
	n.do(func(ctx context.Context) error { return n.Engine.WaitReplayed(ctx, lsn) })
}

// Exec runs SQL as the superuser in a database. Without arguments the text
// may hold many statements, which then run as one transaction.
func (n *Node) Exec(database, statements string, args ...any) {
	n.t.Helper()
	n.do(func(ctx context.Context) error {
		return onConn(ctx, n.Engine, database, func(conn *pgx.Conn) error { return exec(ctx, conn, statements, args) })
	})
}

// Rows runs a query as the superuser in a database and returns its rows as
// PostgreSQL prints them; NULL is "NULL".
func (n *Node) Rows(database, statement string, args ...any) (rows [][]string) {
	n.t.Helper()
	n.do(func(ctx context.Context) error {
		return onConn(ctx, n.Engine, database, func(conn *pgx.Conn) (err error) {
			rows, err = query(ctx, conn, statement, args)
			return err
		})
	})
	return rows
}

// Value returns the first column of the only row of a query, as Rows does.
func (n *Node) Value(database, statement string, args ...any) string {
	n.t.Helper()
	rows := n.Rows(database, statement, args...)
	if len(rows) != 1 || len(rows[0]) == 0 {
		n.t.Fatalf("%s on %s: %d rows, want one value", statement, n.Name(), len(rows))
	}
	return rows[0][0]
}

// LoadOrders creates and fills the order-processing schema of testdata/sql in a
// database, owned by the role "app".
func (n *Node) LoadOrders(database string) {
	n.t.Helper()
	const asApp = "SET LOCAL ROLE app;"
	n.Exec(database, asApp+sql.Schema())
	n.Exec(database, asApp+sql.Seed())
}

func (n *Node) check(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *Node) do(f func(context.Context) error) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := f(ctx); err != nil {
		n.t.Fatalf("%s: %v", n.Name(), err)
	}
}

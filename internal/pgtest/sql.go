package pgtest

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgcluster"
)

// Connect connects to a DSN and closes the connection when the test ends.
func Connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { closeConn(conn) })
	return conn
}

// closeConn closes politely but never waits long for a server that is gone.
func closeConn(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout/10)
	defer cancel()
	_ = conn.Close(ctx) // a server that was killed cannot say good-bye
}

// onConn runs f on a connection of its own, as the superuser.
func onConn(ctx context.Context, n *pgcluster.Node, database string, f func(*pgx.Conn) error) error {
	conn, err := n.Connect(ctx, database)
	if err != nil {
		return err
	}
	return errors.Join(f(conn), conn.Close(ctx))
}

func exec(ctx context.Context, conn *pgx.Conn, sql string, args []any) error {
	if len(args) == 0 {
		_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
		return err
	}
	_, err := conn.Exec(ctx, sql, args...)
	return err
}

// query reads all rows in text format.
func query(ctx context.Context, conn *pgx.Conn, sql string, args []any) ([][]string, error) {
	options := append([]any{pgx.QueryResultFormats{pgx.TextFormatCode}}, args...)
	rows, err := conn.Query(ctx, sql, options...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all [][]string
	for rows.Next() {
		var row []string
		for _, raw := range rows.RawValues() {
			if raw == nil {
				row = append(row, "NULL")
			} else {
				row = append(row, string(raw))
			}
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

package metadata

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Acknowledgement says by which versions of the slot map a proxy works.
type Acknowledgement struct {
	// Proxy names the proxy, Host says where it runs.
	Proxy, Host string
	// Epoch is that of the newest map that it knows, 0 before it knows one.
	Epoch int64
	// Writes and Statements are the oldest epochs by which transactions of it work that may have written, and
	// statements of any kind.
	Writes, Statements int64
	// Age is how long ago it was told.
	Age time.Duration
}

// Acknowledge stores on the home shard by what a proxy works. One that serves the cluster has told so before it
// reads the map for the first time. The error is a *Problem. The call may be repeated.
func Acknowledge(ctx context.Context, home *pgx.Conn, a Acknowledgement) error {
	err := within(ctx, home, beginWrite, func(tx pgx.Tx) error {
		_, err := exec(ctx, tx, `INSERT INTO shardproxy.acknowledged (proxy, host, epoch, writes, statements) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (proxy) DO UPDATE SET epoch = excluded.epoch, writes = excluded.writes, statements = excluded.statements, seen_at = clock_timestamp()`,
			a.Proxy, a.Host, a.Epoch, a.Writes, a.Statements)
		return err
	})
	if err != nil {
		return asked("", "acknowledge the slot map", err)
	}
	return nil
}

// Forget takes a proxy away that serves the cluster no more. One that does must not be forgotten: moves would not wait
// for it. found is false when nobody had that name. The error is a *Problem.
func Forget(ctx context.Context, home *pgx.Conn, proxy string) (found bool, err error) {
	err = within(ctx, home, beginWrite, func(tx pgx.Tx) error {
		n, err := exec(ctx, tx, "DELETE FROM shardproxy.acknowledged WHERE proxy = $1", proxy)
		found = n > 0
		return err
	})
	if err != nil {
		return false, asked("", "forget a proxy", err)
	}
	return found, nil
}

// Acknowledged returns what the proxies have told, by their names. The error is a *Problem.
func Acknowledged(ctx context.Context, home *pgx.Conn) (all []Acknowledgement, err error) {
	err = within(ctx, home, beginRead, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT proxy, host, epoch, writes, statements, greatest(0, extract(epoch FROM clock_timestamp() - seen_at) * 1000000)::bigint
			FROM shardproxy.acknowledged ORDER BY host, proxy`, pgx.QueryExecModeExec)
		if err != nil {
			return err
		}
		var a Acknowledgement
		var micros int64
		_, err = pgx.ForEachRow(rows, []any{&a.Proxy, &a.Host, &a.Epoch, &a.Writes, &a.Statements, &micros}, func() error {
			a.Age = time.Duration(micros) * time.Microsecond
			all = append(all, a)
			return nil
		})
		return err
	})
	if err != nil {
		return nil, asked("", "read which proxies serve the cluster", err)
	}
	return all, nil
}

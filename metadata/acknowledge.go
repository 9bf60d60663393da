package metadata

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Locks of sessions that say whose these are: on every shard those of a proxy's pools have that of EnterClass shared, and on the home
// shard the one by which it acknowledges has that of presentClass. The key is Number.
const (
	EnterClass   = 1936744304 // "sp_p"
	presentClass = 1936744289 // "sp_a"
)

// Number is a proxy's number in locks. Two proxies may have the same one: what ends sessions of the one then ends those of the other.
func Number(proxy string) int32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(proxy)) // never fails
	return int32(h.Sum32())
}

// EnterSQL is what each session of a proxy's pools begins with. It gives the epoch that the shard knows: a proxy with an older map must not use
// the session before it has the newer one.
func EnterSQL(proxy string) string {
	return fmt.Sprintf("SELECT shardproxy.enter(%d)", Number(proxy))
}

// Present tells that a proxy is there as long as the session on the home shard is. The error is a *Problem.
func Present(ctx context.Context, home *pgx.Conn, proxy string) error {
	if _, err := home.Exec(ctx, "SELECT pg_catalog.pg_advisory_lock_shared($1, $2)", int32(presentClass), Number(proxy)); err != nil {
		return asked("", "tell that the proxy is there", err)
	}
	return nil
}

// CutOff ends all sessions on a server that a proxy's pools have, and those of the same roles that nobody says to be his: a client may have given the lock
// back. Sessions that began later than before, by the server's clock, are left. It returns how many there were; those are to be gone before the proxy is.
func CutOff(ctx context.Context, conn *pgx.Conn, proxy string, before time.Time) (n int64, err error) {
	err = conn.QueryRow(ctx, `WITH entered AS MATERIALIZED (SELECT pid, objid FROM pg_catalog.pg_locks
			WHERE locktype = 'advisory' AND classid = $1::int8::oid AND objsubid = 2 AND granted AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())),
		gone AS MATERIALIZED (SELECT a.pid FROM pg_catalog.pg_stat_activity a WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.pid <> pg_catalog.pg_backend_pid() AND a.backend_start <= $3
			AND (EXISTS (SELECT FROM entered e WHERE e.pid = a.pid AND e.objid = $2::int8::oid)
				OR a.usename <> current_user AND NOT EXISTS (SELECT FROM entered e WHERE e.pid = a.pid)
					AND a.usename IN (SELECT b.usename FROM pg_catalog.pg_stat_activity b JOIN entered e USING (pid))))
		SELECT count(*) FROM (SELECT pg_catalog.pg_terminate_backend(pid) FROM gone OFFSET 0) x`, int64(EnterClass), int64(uint32(Number(proxy))), before).Scan(&n)
	if err != nil {
		return 0, asked("", "end the sessions of a proxy", err)
	}
	return n, nil
}

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
	// Shards are those of the proxy's configuration.
	Shards []string
	// Present is set while the session is there by which it tells.
	Present bool
}

// Acknowledge stores on the home shard by what a proxy works. One that serves the cluster has told so before it
// reads the map for the first time. fresh is set when nobody waited for it before: it is the first time, or it was forgotten. The error is a *Problem. The call may be repeated.
func Acknowledge(ctx context.Context, home *pgx.Conn, a Acknowledgement) (fresh bool, err error) {
	err = within(ctx, home, beginWrite, func(tx pgx.Tx) error {
		return row(ctx, tx, `INSERT INTO shardproxy.acknowledged (proxy, host, epoch, writes, statements, shards) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (proxy) DO UPDATE SET epoch = excluded.epoch, writes = excluded.writes, statements = excluded.statements, shards = excluded.shards, seen_at = clock_timestamp()
			RETURNING xmax = 0`, // which only a new row has
			a.Proxy, a.Host, a.Epoch, a.Writes, a.Statements, a.Shards).Scan(&fresh)
	})
	if err != nil {
		return false, asked("", "acknowledge the slot map", err)
	}
	return fresh, nil
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

// LastHeard returns when a proxy has told anything last, for ForgetUnheard; "" when there is none of the name. The error is a *Problem.
func LastHeard(ctx context.Context, home *pgx.Conn, proxy string) (when string, err error) {
	err = within(ctx, home, beginRead, func(tx pgx.Tx) error {
		err := row(ctx, tx, "SELECT seen_at::text FROM shardproxy.acknowledged WHERE proxy = $1", proxy).Scan(&when)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	if err != nil {
		return "", asked("", "ask when a proxy has told anything", err)
	}
	return when, nil
}

// ForgetUnheard is Forget of a proxy that has told nothing since then. forgotten is false when it has. The error is a *Problem.
func ForgetUnheard(ctx context.Context, home *pgx.Conn, proxy, since string) (forgotten bool, err error) {
	err = within(ctx, home, beginWrite, func(tx pgx.Tx) error {
		n, err := exec(ctx, tx, "DELETE FROM shardproxy.acknowledged WHERE proxy = $1 AND seen_at = nullif($2::text, '')::timestamptz", proxy, since)
		forgotten = n > 0
		return err
	})
	if err != nil {
		return false, asked("", "forget a proxy", err)
	}
	return forgotten, nil
}

// Acknowledged returns what the proxies have told, by their names. The error is a *Problem.
func Acknowledged(ctx context.Context, home *pgx.Conn) (all []Acknowledgement, err error) {
	err = within(ctx, home, beginRead, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT proxy, host, epoch, writes, statements, coalesce(shards, '{}'), greatest(0, extract(epoch FROM clock_timestamp() - seen_at) * 1000000)::bigint,
				ARRAY(SELECT objid::int8 FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::int8::oid AND objsubid = 2 AND granted
					AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
			FROM shardproxy.acknowledged ORDER BY host, proxy`, pgx.QueryExecModeExec, int64(presentClass))
		if err != nil {
			return err
		}
		var a Acknowledgement
		var micros int64
		var present []int64
		_, err = pgx.ForEachRow(rows, []any{&a.Proxy, &a.Host, &a.Epoch, &a.Writes, &a.Statements, &a.Shards, &micros, &present}, func() error {
			a.Age, a.Present = time.Duration(micros)*time.Microsecond, slices.Contains(present, int64(uint32(Number(a.Proxy))))
			all = append(all, a)
			a.Shards = nil // the next one's are its own
			return nil
		})
		return err
	})
	if err != nil {
		return nil, asked("", "read which proxies serve the cluster", err)
	}
	return all, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A snapshot does not keep tables from being emptied or written anew: whoever reads one later, with
// a snapshot from before TRUNCATE or from before an ALTER TABLE that rewrites it, sees no rows. pg_dump of the
// last shard may begin hours behind the snapshots. So the snapshots' transactions lock all tables, before
// they take their snapshots; LOCK TABLE itself takes none.

// dumpTablesSQL lists the tables that a dump may read.
const dumpTablesSQL = `SELECT c.oid::bigint, format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
	AND has_table_privilege(c.oid, 'SELECT') ORDER BY c.oid`

// snapshotTries is how often the snapshots are taken anew because a table was made or dropped meanwhile.
const snapshotTries = 10

// lockBatch is how many tables one statement locks.
const lockBatch = 500

// errTablesChanged says that the locked tables are not those of the snapshot.
var errTablesChanged = errors.New("tables were made or dropped meanwhile")

// takeSnapshots opens a transaction on each shard, whose snapshot is noted for pg_dump, all of one moment.
func takeSnapshots(ctx context.Context, links *shardLinks, f *dumpFlags, m *manifest) error {
	for try := 1; ; try++ {
		err := trySnapshots(ctx, links, f, m)
		if !errors.Is(err, errTablesChanged) || try == snapshotTries {
			return err
		}
		links.each(func(i int) error {
			_, err := links.all[i].conn.Exec(ctx, "ROLLBACK")
			return err // the next try meets it
		})
	}
}

func trySnapshots(ctx context.Context, links *shardLinks, f *dumpFlags, m *manifest) error {
	home := links.all[0].conn
	var began string
	if err := home.QueryRow(ctx, "SELECT clock_timestamp()::text", pgx.QueryExecModeExec).Scan(&began); err != nil {
		return err
	}
	locked := make([]map[int64]bool, len(links.all))
	failed := links.each(func(i int) (err error) {
		locked[i], err = lockTables(ctx, links.all[i], f.lockWait)
		return err
	})
	if err := errors.Join(failed...); err != nil {
		return err
	}
	errs := make([]error, len(links.all))
	err := links.atOnce(ctx, &f.fence, func(ctx context.Context, i int) error {
		errs[i] = takeSnapshot(ctx, links.all[i], m, i)
		return errs[i]
	})
	if err := errors.Join(errors.Join(errs...), err); err != nil {
		return err
	}
	failed = links.each(func(i int) error { return checkLocked(ctx, links.all[i], locked[i]) })
	if err := errors.Join(failed...); err != nil {
		return err
	}
	err = home.QueryRow(ctx, "SELECT e.epoch, c.schema_version FROM shardproxy.epoch e, shardproxy.cluster c", pgx.QueryExecModeExec).Scan(&m.Epoch, &m.Schema)
	if err == nil {
		m.Warnings, err = definitionsSince(ctx, home, began)
	}
	return err
}

// lockTables begins the transaction and locks the tables of a shard.
func lockTables(ctx context.Context, link *shardLink, wait time.Duration) (map[int64]bool, error) {
	oids, names, err := tablesOf(ctx, link.conn)
	if err != nil {
		return nil, fmt.Errorf("shard %s: list the tables: %w", link.shard, err)
	}
	sql := []string{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", fmt.Sprintf("SET LOCAL lock_timeout = %d", wait.Milliseconds())}
	for begin := 0; begin < len(names); begin += lockBatch {
		sql = append(sql, "LOCK TABLE ONLY "+strings.Join(names[begin:min(begin+lockBatch, len(names))], ", ONLY ")+" IN ACCESS SHARE MODE")
	}
	for _, statement := range append(sql, "SET LOCAL lock_timeout = 0") {
		// A statement by itself: several in one message may have a snapshot in common.
		_, err := link.conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol)
		var said *pgconn.PgError
		switch {
		case err == nil:
		case errors.As(err, &said) && (said.Code == "42P01" || said.Code == "3F000"):
			return nil, fmt.Errorf("shard %s: %w", link.shard, errTablesChanged)
		case errors.As(err, &said) && said.Code == "55P03":
			return nil, fmt.Errorf("shard %s: a table stays locked: see --lock-wait: %w", link.shard, err)
		default:
			return nil, fmt.Errorf("shard %s: lock the tables: %w", link.shard, err)
		}
	}
	locked := map[int64]bool{}
	for _, oid := range oids {
		locked[oid] = true
	}
	return locked, nil
}

func tablesOf(ctx context.Context, conn *pgx.Conn) (oids []int64, names []string, err error) {
	rows, err := conn.Query(ctx, dumpTablesSQL, pgx.QueryExecModeExec)
	if err != nil {
		return nil, nil, err
	}
	var oid int64
	var name string
	_, err = pgx.ForEachRow(rows, []any{&oid, &name}, func() error {
		oids, names = append(oids, oid), append(names, name)
		return nil
	})
	return oids, names, err
}

// takeSnapshot fixes what the transaction sees, in the moment of all shards.
func takeSnapshot(ctx context.Context, link *shardLink, m *manifest, i int) error {
	var at string
	s := &m.Shards[i]
	err := link.conn.QueryRow(ctx, "SELECT pg_export_snapshot(), pg_current_wal_insert_lsn()::text, clock_timestamp()::text", pgx.QueryExecModeExec).Scan(&s.Snapshot, &s.LSN, &at)
	if err != nil {
		return fmt.Errorf("shard %s: take the snapshot: %w", link.shard, err)
	}
	if i == 0 {
		m.At = at
	}
	return nil
}

// checkLocked returns errTablesChanged when the snapshot has a table that is not locked. It may be another
// of the same name.
func checkLocked(ctx context.Context, link *shardLink, locked map[int64]bool) error {
	oids, names, err := tablesOf(ctx, link.conn)
	if err != nil {
		return fmt.Errorf("shard %s: list the tables: %w", link.shard, err)
	}
	for i, oid := range oids {
		if !locked[oid] {
			return fmt.Errorf("shard %s: %s: %w", link.shard, names[i], errTablesChanged)
		}
	}
	return nil
}

// snapshotWatch is how often it is looked whether the snapshots' transactions are still there.
const snapshotWatch = 2 * time.Second

// watchSnapshots calls cancel when a snapshot's transaction is lost, until ctx ends.
func watchSnapshots(ctx context.Context, links *shardLinks, cancel context.CancelCauseFunc) *sync.WaitGroup {
	var all sync.WaitGroup
	for _, link := range links.all {
		all.Go(func() {
			tick := time.NewTicker(snapshotWatch)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				if err := alive(link); err != nil {
					cancel(fmt.Errorf("shard %s: the snapshot's transaction is lost: %w", link.shard, err))
					return
				}
			}
		})
	}
	return &all
}

// aliveTimeout is how long a server may take to say that a transaction is there.
const aliveTimeout = 30 * time.Second

// alive asks whether the transaction is there. It is not ended by the end of the command, for pgx
// would close the connection.
func alive(link *shardLink) error {
	ctx, cancel := context.WithTimeout(context.Background(), aliveTimeout)
	defer cancel()
	_, err := link.conn.Exec(ctx, "SELECT 1", pgx.QueryExecModeSimpleProtocol)
	return err
}

// endSnapshots ends the transactions, which must still be there.
func endSnapshots(links *shardLinks) error {
	return errors.Join(links.each(func(i int) error {
		ctx, cancel := context.WithTimeout(context.Background(), aliveTimeout)
		defer cancel()
		link := links.all[i]
		tag, err := link.conn.Exec(ctx, "COMMIT", pgx.QueryExecModeSimpleProtocol)
		if err == nil && tag.String() != "COMMIT" {
			err = fmt.Errorf("the server answered COMMIT with %s", tag)
		}
		if err != nil {
			return fmt.Errorf("shard %s: the snapshot's transaction is lost: %w", link.shard, err)
		}
		return nil
	})...)
}

package rebalance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// The fence is a trigger on each table of the source, which fires for rows of the move's slots and takes a share lock on the
// move's row in shardproxy.fences.

// fenceTrigger is the name of the trigger for one of i, u and d.
func (r *moving) fenceTrigger(kind string) string {
	return "shardproxy_fence_" + r.move.Name() + "_" + kind
}

// fence makes the triggers. Each takes a lock on its table, for which it waits shortly, so that nobody waits behind it.
func (r *moving) fence(ctx context.Context) error {
	conn, err := r.source.connect(ctx)
	if err != nil {
		return err
	}
	defer carryClose(conn.PgConn())
	if _, err := conn.Exec(ctx, "INSERT INTO shardproxy.fences (move) VALUES ($1) ON CONFLICT DO NOTHING", r.move.Name()); err != nil {
		return fmt.Errorf("shard %s: %w", r.source.Name, err)
	}
	bit := func(t *Table, row string) string {
		return "pg_catalog.get_bit('" + r.bits() + "'::pg_catalog.varbit, " + t.SlotSQL(row+".") + ") OPERATOR(pg_catalog.=) 1"
	}
	for _, t := range r.tables {
		for _, k := range []struct{ kind, on, when string }{
			{"i", "INSERT", bit(t, "new")}, {"u", "UPDATE", bit(t, "new") + " OR " + bit(t, "old")}, {"d", "DELETE", bit(t, "old")},
		} {
			name := r.fenceTrigger(k.kind)
			err := r.shortly(ctx, conn, func(tx pgx.Tx) error {
				var there bool
				if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $1::text::regclass AND tgname = $2)", t.String(), name).Scan(&there); err != nil || there {
					return err
				}
				_, err := tx.Exec(ctx, fmt.Sprintf("CREATE TRIGGER %s AFTER %s ON %s FOR EACH ROW WHEN (%s) EXECUTE FUNCTION shardproxy.fence('%s')",
					name, k.on, t, k.when, r.move.Name()))
				return err
			})
			if err != nil {
				return fmt.Errorf("shard %s: make the fence of %s: %w", r.source.Name, t, err)
			}
		}
	}
	return nil
}

// shortly tries a transaction with a short lock timeout until it gets its locks, more and more seldom: readers queue behind each try.
func (r *moving) shortly(ctx context.Context, conn *pgx.Conn, try func(pgx.Tx) error) error {
	for n := 0; ; n++ {
		err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '100ms'"); err != nil {
				return err
			}
			return try(tx)
		})
		if !carryCode(err, "55P03") && !carryCode(err, "40P01") {
			return err
		}
		if n == 10 {
			r.say(ctx, "waits for locks of tables on shard "+r.source.Name+" that others hold: "+err.Error())
		}
		if err := carrySleep(ctx, min(200*time.Millisecond<<min(n/3, 10), moverBackoff)); err != nil {
			return err
		}
		if err := r.reread(ctx); err != nil {
			return err
		}
	}
}

// unfence takes the triggers away, on whatever tables they are, and then the row.
func (r *moving) unfence(ctx context.Context) error {
	conn, err := r.source.connect(ctx)
	if err != nil {
		return err
	}
	defer carryClose(conn.PgConn())
	rows, err := conn.Query(ctx, "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE tgname = ANY ($1) AND NOT tgisinternal",
		[]string{r.fenceTrigger("i"), r.fenceTrigger("u"), r.fenceTrigger("d")})
	if err != nil {
		return err
	}
	type made struct{ Table, Name string }
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[made])
	if err != nil {
		return err
	}
	for _, t := range all {
		err := r.shortly(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "DROP TRIGGER IF EXISTS "+pgx.Identifier{t.Name}.Sanitize()+" ON "+t.Table)
			return err
		})
		if err != nil {
			return fmt.Errorf("shard %s: take the fence of %s away: %w", r.source.Name, t.Table, err)
		}
	}
	_, err = conn.Exec(ctx, "DELETE FROM shardproxy.fences WHERE move = $1", r.move.Name())
	return err
}

// setFence closes or opens the fence. It waits for those who have written rows of the slots, until the end when there is one: the error is errLate.
func (r *moving) setFence(ctx context.Context, conn *pgx.Conn, closed bool, end time.Time) error {
	wait := int64(0)
	if !end.IsZero() {
		wait = max(time.Until(end).Milliseconds(), 1)
	}
	// What is so already is left as it is: the row is locked by all who write rows of the slots.
	name := "'" + r.move.Name() + "'"
	results, err := conn.PgConn().Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d; UPDATE shardproxy.fences SET closed = %v WHERE move = %s AND closed <> %v; "+
		"SELECT FROM shardproxy.fences WHERE move = %s", wait, closed, name, closed, name)).ReadAll()
	if err == nil && len(results[len(results)-1].Rows) == 0 {
		err = errors.New("its row in shardproxy.fences is gone")
	}
	if carryCode(err, "55P03") {
		return fmt.Errorf("waits for transactions on shard %s that have written rows of the slots%s: %w", r.source.Name, r.writers(ctx), errLate)
	}
	if err != nil {
		return fmt.Errorf("shard %s: the fence: %w", r.source.Name, err)
	}
	return nil
}

// writers names those who hold the fence, for people.
func (r *moving) writers(ctx context.Context) string {
	conn, err := r.source.connect(ctx)
	if err != nil {
		return ""
	}
	defer carryClose(conn.PgConn())
	rows, err := conn.Query(ctx, `SELECT 'process ' || pid || ' (' || state || ', since ' || xact_start || ')' FROM pg_stat_activity
		WHERE datname = current_database() AND backend_xid IS NOT NULL AND xact_start < clock_timestamp() - interval '200 ms' AND pid <> pg_backend_pid()
		UNION ALL SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts WHERE database = current_database() LIMIT 5`)
	if err != nil {
		return ""
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(names) == 0 {
		return ""
	}
	return ": " + strings.Join(names, ", ")
}

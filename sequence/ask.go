package sequence

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/metadata"
	"shardproxy/router"
	"shardproxy/wire"
)

// nextValues draws from the sequence itself, n values or at least so many.
func nextValues(ctx context.Context, conn *pgx.Conn, d *router.Draw, n, least int) ([]int64, error) {
	// A block may not be larger than what is left, or all of that would be lost with it.
	// The name is the catalog's own, quoted.
	rows, err := conn.Query(ctx, fmt.Sprintf(`SELECT pg_catalog.nextval($1::text::regclass) FROM (
		SELECT CASE WHEN q.seqcycle THEN $2::numeric ELSE least($2::numeric, greatest($3::numeric, pg_catalog.floor(
			(CASE WHEN q.seqincrement > 0 THEN q.seqmax ELSE q.seqmin END::numeric - s.last_value) / q.seqincrement))) END AS n
		FROM %s s, pg_catalog.pg_sequence q WHERE q.seqrelid = $1::text::regclass OFFSET 0) x,
		LATERAL pg_catalog.generate_series(1, x.n::int)`, d.Sequence), d.Sequence, n, least)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// mayDraw asks what PostgreSQL asks of who inserts: USAGE or UPDATE of the sequence.
func mayDraw(ctx context.Context, conn *pgx.Conn, role string, d *router.Draw) error {
	var may bool
	err := conn.QueryRow(ctx, "SELECT pg_catalog.has_sequence_privilege($1::name, $2::text::regclass::oid, 'USAGE, UPDATE')", role, d.Sequence).Scan(&may)
	if err != nil || may {
		return err
	}
	return wire.Errorf("42501", "permission denied for sequence %s", d.SequenceName)
}

// moveBeyond moves a sequence that ascends beyond what its column holds on any shard.
// after is set when the primary has changed since the last draw, whose largest value
// is top.
func (a *Allocator) moveBeyond(ctx context.Context, home *pgx.Conn, d *router.Draw, top int64, after bool) error {
	if !d.Ascending {
		return nil
	}
	var last, limit int64
	// The name is the catalog's own, quoted.
	err := home.QueryRow(ctx, fmt.Sprintf(`SELECT s.last_value, q.seqmax FROM %s s, pg_catalog.pg_sequence q WHERE q.seqrelid = $1::text::regclass`,
		d.Sequence), d.Sequence).Scan(&last, &limit)
	if err != nil {
		return err
	}
	// Rows beyond were given their values by somebody else: no failover loses so many.
	highest, err := a.highest(ctx, home, d, last+min(reach, limit-last))
	if err != nil {
		return err
	}
	highest = max(highest, top)
	if highest <= last && !after {
		return nil
	}
	floor := max(highest, last)
	if after {
		floor += min(margin, (limit-floor)/1000)
	}
	a.opts.Logger.Warn("sequence moved: its server may not know of all values that were drawn", "sequence", d.Sequence,
		"stood_at", last, "highest_value", highest, "moved_to", floor, "failover", after)
	_, err = home.Exec(ctx, fmt.Sprintf("SELECT pg_catalog.setval($1::text::regclass, $2) FROM %s WHERE last_value < $2", d.Sequence), d.Sequence, floor)
	return err
}

// highest returns the largest value of the column, up to most, on all shards that can be
// asked; 0 when there is none, or no index that tells.
func (a *Allocator) highest(ctx context.Context, home *pgx.Conn, d *router.Draw, most int64) (highest int64, err error) {
	table := pgx.Identifier{d.Schema, d.Table}.Sanitize()
	var indexed bool
	err = home.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
		JOIN pg_catalog.pg_am m ON m.amname = 'btree' JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid AND c.relam = m.oid
		WHERE i.indrelid = $1::text::regclass AND a.attname = $2 AND i.indisvalid AND i.indpred IS NULL)`, table, d.Column).Scan(&indexed)
	if err != nil || !indexed {
		return 0, err
	}
	sql := fmt.Sprintf("SELECT coalesce(pg_catalog.max(%s), 0)::bigint FROM %s WHERE %[1]s <= $1", pgx.Identifier{d.Column}.Sanitize(), table)
	for i := range a.opts.Shards {
		conn := home
		if i > 0 {
			if conn, err = a.opts.Shards[i].Connect(ctx); errors.Is(err, metadata.ErrSpare) {
				continue
			}
			if err != nil {
				// To refuse all inserts because one shard is away would be worse: what was
				// drawn before is in top, or within the margin.
				a.opts.Logger.Warn("shard not asked for the largest value of a sequence", "shard", a.opts.Shards[i].Name, "sequence", d.Sequence, "error", err)
				continue
			}
		}
		var there int64
		err = conn.QueryRow(ctx, sql, most).Scan(&there)
		if i > 0 {
			_ = conn.Close(ctx) // nothing depends on it
		}
		if locked(err) {
			// Somebody changes the table, perhaps the transaction that draws.
			a.opts.Logger.Warn("shard not asked for the largest value of a sequence", "shard", a.opts.Shards[i].Name, "sequence", d.Sequence, "error", err)
			continue
		}
		if err != nil {
			return 0, err
		}
		highest = max(highest, there)
	}
	return highest, nil
}

// locked reports whether a lock was not to be had in time.
func locked(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "55P03"
}

// told turns an error into what the client is told.
func told(d *router.Draw, err error) error {
	var pe *pgconn.PgError
	var we *wire.Error
	switch {
	case errors.As(err, &we):
		return we
	case errors.As(err, &pe):
		return &wire.Error{Severity: "ERROR", Code: pe.Code, Message: pe.Message, Detail: pe.Detail, Hint: pe.Hint}
	}
	return unreachable(d, err)
}

func unreachable(d *router.Draw, err error) error {
	return wire.Errorf("57P03", "the home shard cannot be asked for values of sequence %s", d.Sequence).
		WithHint("The statement was not executed and may be tried again.").WithCause(err)
}

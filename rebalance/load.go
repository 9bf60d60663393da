package rebalance

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgerrcode"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/shardmap"
)

// Load is what lies in the slots of a cluster: by slot. Rows and bytes are estimates unless they were counted. Bytes are those
// on the servers' disks, indexes and large values included.
type Load struct {
	Rows, Bytes []int64
}

// NewLoad returns the load of n empty slots.
func NewLoad(n int) *Load { return &Load{Rows: make([]int64, n), Bytes: make([]int64, n)} }

// Add adds the load of another shard's slots, which are as many.
func (l *Load) Add(o *Load) {
	for s := range l.Rows {
		l.Rows[s] += o.Rows[s]
		l.Bytes[s] += o.Bytes[s]
	}
}

// ShardLoad is what lies on one shard.
type ShardLoad struct {
	Shard string
	// Load has the shard's own slots; the others are 0.
	Load   *Load
	Tables []TableLoad // in the order that was asked for
	// Blockers are tables that the shard does not have.
	Blockers []*Blocker
	// Notes say what the estimates lack.
	Notes []LoadNote
}

// TableLoad is how large a table is on a shard, stray rows included.
type TableLoad struct {
	Table       *Table
	Rows, Bytes int64
}

// LoadNote is something about the rows of a table on a shard that makes estimates worse, or is odd.
type LoadNote struct {
	Shard, Table string
	Text         string // a clause
	Hint         string // "" for none
}

// LoadOptions say how to look.
type LoadOptions struct {
	// Exact counts rows by slot, which reads all tables. Without it statistics tell: how many rows a table has, and which
	// values of its key are so frequent that their slots have more than others.
	Exact bool
	// LockTimeout is how long a table is waited for that somebody has locked; 0 is 5 s.
	LockTimeout time.Duration
}

// ReadLoad reads from a shard's primary what lies in its slots; own are those that it owns. It writes nothing, and locks tables as
// SELECT does, one at a time. It may be tried again. The error is the server's, with the table's name. Of tables that the control user may not
// read there are no frequent values, and with Exact an error.
func ReadLoad(ctx context.Context, conn *pgx.Conn, shard string, tables []*Table, own *Set, o LoadOptions) (*ShardLoad, error) {
	if o.LockTimeout == 0 {
		o.LockTimeout = 5 * time.Second
	}
	r := &loadReader{conn: conn, own: own, o: o, sum: &ShardLoad{Shard: shard, Load: NewLoad(len(own.in))}}
	r.rows, r.bytes = make([]float64, len(own.in)), make([]float64, len(own.in))
	for _, t := range tables {
		if err := r.table(ctx, t); err != nil {
			return nil, fmt.Errorf("table %s: %w", t, err)
		}
	}
	settleLoad(r.rows, r.sum.Load.Rows)
	settleLoad(r.bytes, r.sum.Load.Bytes)
	return r.sum, nil
}

// loadReader reads one shard's tables.
type loadReader struct {
	conn        *pgx.Conn
	own         *Set
	o           LoadOptions
	rows, bytes []float64 // by slot
	sum         *ShardLoad
}

// settleLoad rounds so that the sum of any first ones is right: a third of a row in each of 1,365 slots is 455 rows.
func settleLoad(from []float64, to []int64) {
	var sum, rounded float64
	for s, x := range from {
		sum += x
		next := math.Round(sum)
		to[s] = int64(next - rounded)
		rounded = next
	}
}

// loadSettings make values print and mean the same on all shards, and nothing be written. Row security would hide rows: it is an error instead.
const loadSettings = `SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL client_encoding = 'UTF8'; SET LOCAL DateStyle = 'ISO, MDY'; SET LOCAL TimeZone = 'UTC';
SET LOCAL row_security = off; SET LOCAL standard_conforming_strings = on; SET LOCAL statement_timeout = 0; SET LOCAL jit = off; SET LOCAL lock_timeout = `

// loadReading runs do in a transaction that writes nothing.
func loadReading(ctx context.Context, conn *pgx.Conn, lockTimeout time.Duration, do func(pgx.Tx) error) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, fmt.Sprint(loadSettings, lockTimeout.Milliseconds()), pgx.QueryExecModeSimpleProtocol)
	if err == nil {
		err = do(tx)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = tx.Rollback(ctx) // nothing was written; what fails has lost the connection
	return err
}

// loadFacts are what the server knows of a table.
type loadFacts struct {
	rows         float64 // estimated; -1 when nothing is known
	bytes        int64
	readable     bool
	hot          []loadHot
	nulls        float64 // part of the rows whose key is NULL
	hasKeyValues bool    // hot and nulls are known
}

// loadHot is a value of a key that many rows have.
type loadHot struct {
	slot shardmap.Slot
	part float64 // of all rows
}

func (r *loadReader) table(ctx context.Context, t *Table) error {
	return loadReading(ctx, r.conn, r.o.LockTimeout, func(tx pgx.Tx) error {
		f, err := readLoadFacts(ctx, tx, t)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			r.sum.Tables = append(r.sum.Tables, TableLoad{Table: t})
			r.sum.Blockers = append(r.sum.Blockers, &Blocker{Table: t.String(), Shard: r.sum.Shard, Reason: "the shard does not have it",
				Hint: "shardproxy check --schema says what the shards do not have alike"})
			return nil
		case err != nil:
			return err
		case r.o.Exact:
			err := r.count(ctx, tx, t, f.bytes)
			var said *pgconn.PgError
			if errors.As(err, &said) && said.Code == pgerrcode.InsufficientPrivilege {
				err = fmt.Errorf("%w: counting reads all rows, so the control user needs GRANT SELECT ON %s, and BYPASSRLS where the table has row security", err, t)
			}
			return err
		}
		return r.estimate(ctx, tx, t, f)
	})
}

// loadFactsSQL: as the planner does, the rows per page of the last ANALYZE and the pages of now; without one, what was counted since the
// server has statistics.
const loadFactsSQL = `SELECT CASE WHEN c.relpages > 0 AND c.reltuples >= 0
		THEN c.reltuples::float8 / c.relpages * (pg_relation_size(c.oid) / current_setting('block_size')::int8)
		WHEN pg_stat_get_live_tuples(c.oid) > 0 THEN pg_stat_get_live_tuples(c.oid)::float8
		WHEN pg_relation_size(c.oid) = 0 THEN 0 ELSE -1 END,
	COALESCE(pg_total_relation_size(c.oid), 0), has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid)
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`

func readLoadFacts(ctx context.Context, tx pgx.Tx, t *Table) (*loadFacts, error) {
	f := &loadFacts{}
	return f, tx.QueryRow(ctx, loadFactsSQL, pgx.QueryExecModeExec, t.Schema, t.Name).Scan(&f.rows, &f.bytes, &f.readable)
}

// readLoadHot reads which values of a key of one column are frequent, by their slots. Of several columns there are statistics for each
// alone, which say nothing of slots.
func readLoadHot(ctx context.Context, tx pgx.Tx, t *Table, f *loadFacts) error {
	key := pgx.Identifier{t.Columns[t.Key[0]].Name}.Sanitize()
	sql := `SELECT s.null_frac::float8, m.part::float8, ` + t.SlotSQL("v.") + `
		FROM pg_stats s LEFT JOIN LATERAL unnest(s.most_common_vals::text::text[], s.most_common_freqs) AS m(val, part) ON true,
		LATERAL (SELECT m.val::` + t.Types[0].String() + ` AS ` + key + `) AS v
		WHERE s.schemaname = $1 AND s.tablename = $2 AND s.attname = $3 AND NOT s.inherited`
	rows, err := tx.Query(ctx, sql, pgx.QueryExecModeExec, t.Schema, t.Name, t.Columns[t.Key[0]].Name)
	if err != nil {
		return err
	}
	var part *float64
	var slot *int32
	_, err = pgx.ForEachRow(rows, []any{&f.nulls, &part, &slot}, func() error {
		f.hasKeyValues = true
		if part != nil && slot != nil {
			f.hot = append(f.hot, loadHot{shardmap.Slot(*slot), *part})
		}
		return nil
	})
	return err
}

// estimate spreads a table's rows over the shard's slots: those of frequent values where they are, the rest evenly.
func (r *loadReader) estimate(ctx context.Context, tx pgx.Tx, t *Table, f *loadFacts) error {
	if f.rows != 0 && len(t.Key) == 1 {
		if err := readLoadHot(ctx, tx, t, f); err != nil {
			return err
		}
	}
	name := t.String()
	switch {
	case f.rows < 0:
		r.note(t, "how many rows it has is not known: it has no statistics yet", "ANALYZE "+name)
	case f.rows == 0 || len(t.Key) > 1 || f.hasKeyValues:
	case !f.readable:
		r.note(t, "which keys have many rows is not known: the control user may not read its statistics", "GRANT SELECT ON "+name+", or use --exact as a role that may read it")
	default:
		r.note(t, "which keys have many rows is not known: its key has no statistics yet", "ANALYZE "+name)
	}
	rows := max(f.rows, 0)
	r.sum.Tables = append(r.sum.Tables, TableLoad{t, int64(math.Round(rows)), f.bytes})
	if r.own.Len() == 0 {
		return nil
	}
	part := map[shardmap.Slot]float64{}
	rest := 1 - f.nulls
	for _, h := range f.hot {
		if r.own.Has(h.slot) { // of another shard's slots there should be none; they count as any
			part[h.slot] += h.part
			rest -= h.part
		}
	}
	even := max(rest, 0) / float64(r.own.Len())
	for _, slot := range r.own.Slots() {
		r.rows[slot] += rows * (part[slot] + even)
		r.bytes[slot] += float64(f.bytes) * (part[slot] + even)
	}
	return nil
}

// count reads a table's rows by slot. Bytes are shared out by what the rows' values have; those that are kept outside of their row are not read.
func (r *loadReader) count(ctx context.Context, tx pgx.Tx, t *Table, bytes int64) error {
	widths := make([]string, len(t.Columns))
	for i := range t.Columns {
		widths[i] = "COALESCE(pg_column_size(" + pgx.Identifier{t.Columns[i].Name}.Sanitize() + "), 0)"
	}
	sql := "SELECT " + t.SlotSQL("") + ", count(*), sum(28 + " + strings.Join(widths, " + ") + ")::float8 FROM ONLY " + t.String() + " GROUP BY 1"
	found, err := tx.Query(ctx, sql, pgx.QueryExecModeExec)
	if err != nil {
		return err
	}
	var slot *int32
	var rows, all, strays, unplaced int64
	var width, total float64
	widthOf, rowsOf := map[shardmap.Slot]float64{}, map[shardmap.Slot]int64{}
	if _, err := pgx.ForEachRow(found, []any{&slot, &rows, &width}, func() error {
		all += rows
		total += width
		switch {
		case slot == nil:
			unplaced += rows
		case !r.own.Has(shardmap.Slot(*slot)):
			strays += rows
		default:
			rowsOf[shardmap.Slot(*slot)], widthOf[shardmap.Slot(*slot)] = rows, width
		}
		return nil
	}); err != nil {
		return err
	}
	for _, slot := range r.own.Slots() {
		r.rows[slot] += float64(rowsOf[slot])
		if total > 0 {
			r.bytes[slot] += float64(bytes) * widthOf[slot] / total
		} else {
			r.bytes[slot] += float64(bytes) / float64(r.own.Len())
		}
	}
	r.sum.Tables = append(r.sum.Tables, TableLoad{t, all, bytes})
	if strays > 0 {
		r.note(t, fmt.Sprintf("%d rows lie in slots of other shards, and are not counted", strays), "")
	}
	if unplaced > 0 {
		r.note(t, fmt.Sprintf("%d rows lie in no slot, for their key is NULL: they do not move", unplaced), "")
	}
	return nil
}

func (r *loadReader) note(t *Table, text, hint string) {
	r.sum.Notes = append(r.sum.Notes, LoadNote{r.sum.Shard, t.String(), text, hint})
}

// SlotOfValue asks a server for the slot of the rows of a table whose key, one column, has a value, given as text as PostgreSQL reads it. The
// error is the server's.
func SlotOfValue(ctx context.Context, conn *pgx.Conn, t *Table, value string) (slot shardmap.Slot, err error) {
	if len(t.Key) != 1 {
		return 0, fmt.Errorf("the key of %s has %d columns", t, len(t.Key))
	}
	key := pgx.Identifier{t.Columns[t.Key[0]].Name}.Sanitize()
	sql := "SELECT " + t.SlotSQL("v.") + " FROM (SELECT $1::text::" + t.Types[0].String() + " AS " + key + ") AS v"
	err = loadReading(ctx, conn, time.Second, func(tx pgx.Tx) error {
		var n int32
		err := tx.QueryRow(ctx, sql, pgx.QueryExecModeExec, value).Scan(&n)
		slot = shardmap.Slot(n)
		return err
	})
	return slot, err
}

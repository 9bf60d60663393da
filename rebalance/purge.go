package rebalance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// PurgeOptions say how gently rows are deleted. The zero value has the defaults.
type PurgeOptions struct {
	// Rows is the most that one transaction deletes; DefaultPurgeRows when 0.
	Rows int
	// Pause is what is waited after each transaction that deleted something.
	Pause time.Duration
	// RowsPerSecond bounds the whole; 0 does not. SetRate changes it.
	RowsPerSecond int64
	// LockTimeout is how long a lock is waited for; DefaultPurgeLock when 0. It is never more than half of the server's
	// deadlock_timeout: so it is never another session that is ended for a deadlock.
	LockTimeout time.Duration
}

// Defaults of PurgeOptions.
const (
	DefaultPurgeRows = 1000
	DefaultPurgeLock = 100 * time.Millisecond
)

// Purge deletes the rows of slots from one server, piece by piece. One goroutine runs it; Progress and SetRate may be
// called by others.
type Purge struct {
	tables  []*Table
	slots   *Set
	options PurgeOptions

	rate    atomic.Int64
	deleted []atomic.Int64 // by table
	table   atomic.Int64   // the one at work
	block   atomic.Int64   // of that table: up to which it has been purged
	blocks  atomic.Int64
	retries atomic.Int64
}

// PurgeProgress is how far a Purge is.
type PurgeProgress struct {
	// Deleted is how many rows have been, Tables the same by table. A transaction whose end was not heard of is not counted.
	Deleted int64   `json:"deleted"`
	Tables  []int64 `json:"tables"`
	// Done is how many tables have none of the rows left.
	Done int `json:"tables_done"`
	// Block and Blocks are the place in the table that is at work, and its size, in the server's blocks.
	Block  int64 `json:"block"`
	Blocks int64 `json:"blocks"`
	// Retries is how often a lock was not given.
	Retries int64 `json:"retries"`
}

// NewPurge returns a Purge of the rows of slots in tables, which are purged in this order.
func NewPurge(tables []*Table, slots *Set, o PurgeOptions) *Purge {
	o.Rows, o.LockTimeout = cmp.Or(o.Rows, DefaultPurgeRows), cmp.Or(o.LockTimeout, DefaultPurgeLock)
	p := &Purge{tables: tables, slots: slots, options: o, deleted: make([]atomic.Int64, len(tables))}
	p.rate.Store(o.RowsPerSecond)
	return p
}

// SetRate changes how many rows are deleted in a second at most; 0 is no bound.
func (p *Purge) SetRate(rows int64) { p.rate.Store(rows) }

// Progress returns how far it is.
func (p *Purge) Progress() PurgeProgress {
	out := PurgeProgress{Done: int(p.table.Load()), Block: p.block.Load(), Blocks: p.blocks.Load(), Retries: p.retries.Load()}
	for i := range p.deleted {
		n := p.deleted[i].Load()
		out.Tables = append(out.Tables, n)
		out.Deleted += n
	}
	return out
}

// Run deletes until no row of the slots is left, which it looks for at the end. It may be called again after an error, also
// with another connection, and goes on where it was; the connection may be closed after one, as when ctx has ended. A row
// is deleted only by a statement that finds it in the slots itself, whatever was done to it meanwhile. Triggers, rules and what foreign
// keys do to other rows do not happen (session_replication_role is replica): the error is a *Blocker when the role may not
// have that so, or a table has triggers or rules that are enabled nevertheless. Locks that are held
// elsewhere are tried for until ctx ends.
func (p *Purge) Run(ctx context.Context, conn *pgx.Conn) error {
	if conn.PgConn().TxStatus() != 'I' {
		return errors.New("purge: the connection is in a transaction")
	}
	if int(p.table.Load()) == len(p.tables) {
		p.table.Store(0)
		p.block.Store(0)
	}
	r := &purgeRun{Purge: p, conn: conn}
	if err := r.prepare(ctx); err != nil {
		return err
	}
	for int(p.table.Load()) < len(p.tables) {
		t := p.tables[p.table.Load()]
		if err := r.guard(ctx, t); err != nil {
			return err
		}
		if err := r.purge(ctx, t, &p.deleted[p.table.Load()]); err != nil {
			return fmt.Errorf("purge %s: %w", t, err)
		}
		p.block.Store(0)
		p.table.Add(1)
	}
	return nil
}

// purgeRun is a Purge over one connection.
type purgeRun struct {
	*Purge
	conn      *pgx.Conn
	version   int // server_version_num
	blockSize int64
	begin     string // what each transaction begins with
}

// purgeBegin has a place for the lock timeout in milliseconds.
const purgeBegin = `BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL session_replication_role = replica; SET LOCAL row_security = off;
SET LOCAL statement_timeout = 0; SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL lock_timeout = %d; `

// prepare asks the server what must be known of it, and whether the role may do what it has to.
func (r *purgeRun) prepare(ctx context.Context) error {
	var deadlock int64
	err := r.conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int4, current_setting('block_size')::int8,
		(SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout')`, pgx.QueryExecModeExec).Scan(&r.version, &r.blockSize, &deadlock)
	if err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	r.begin = fmt.Sprintf(purgeBegin, max(min(r.options.LockTimeout.Milliseconds(), deadlock/2), 1))
	_, err = r.transaction(ctx, "SELECT 1")
	if b := replicationRoleBlocker(err); b != nil {
		return b
	}
	return err
}

// replicationRoleBlocker is what an error means that came when session_replication_role was set, nil for other errors.
func replicationRoleBlocker(err error) *Blocker {
	if purgeCode(err) != "42501" || !strings.Contains(err.Error(), "session_replication_role") {
		return nil
	}
	return &Blocker{Reason: "the control user may not set session_replication_role: triggers and foreign keys would act on rows that move",
		Hint: "GRANT SET ON PARAMETER session_replication_role to it (PostgreSQL 15 and later), or use a superuser"}
}

// purgeCode returns the SQLSTATE of a server's error, "" for others.
func purgeCode(err error) string {
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return said.Code
	}
	return ""
}

// firesOnReplicaSQL lists what acts on a table's rows though session_replication_role is replica. shardproxy's own
// triggers are to.
const firesOnReplicaSQL = `
SELECT 'trigger ' || pg_catalog.quote_ident(g.tgname) || CASE g.tgenabled WHEN 'A' THEN ' (ENABLE ALWAYS)' ELSE ' (ENABLE REPLICA)' END
  FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_proc f ON f.oid = g.tgfoid JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
 WHERE g.tgrelid = pg_catalog.to_regclass($1) AND g.tgenabled IN ('A', 'R') AND n.nspname <> 'shardproxy'
UNION ALL
SELECT 'rule ' || pg_catalog.quote_ident(u.rulename) || CASE u.ev_enabled WHEN 'A' THEN ' (ENABLE ALWAYS)' ELSE ' (ENABLE REPLICA)' END
  FROM pg_catalog.pg_rewrite u WHERE u.ev_class = pg_catalog.to_regclass($1) AND u.ev_enabled IN ('A', 'R')
ORDER BY 1`

// firesOnReplica returns a blocker for each trigger and rule that would act on rows that are carried over.
func firesOnReplica(ctx context.Context, conn *pgx.Conn, shard string, t *Table) (all []*Blocker, err error) {
	rows, err := conn.Query(ctx, firesOnReplicaSQL, pgx.QueryExecModeExec, t.String())
	if err != nil {
		return nil, err
	}
	var what string
	_, err = pgx.ForEachRow(rows, []any{&what}, func() error {
		kind, rest, _ := strings.Cut(what, " ")
		name, _, _ := strings.Cut(rest, " (ENABLE ")
		all = append(all, &Blocker{Table: t.String(), Shard: shard, Reason: what + " would act on rows that are only carried over, a second time",
			Hint: "ALTER TABLE " + t.String() + " ENABLE " + strings.ToUpper(kind) + " " + name + ", or disable it, while slots move"})
		return nil
	})
	return all, err
}

// guard refuses a table on which something would act.
func (r *purgeRun) guard(ctx context.Context, t *Table) error {
	found, err := firesOnReplica(ctx, r.conn, "", t)
	switch {
	case err != nil:
		return fmt.Errorf("purge %s: %w", t, err)
	case len(found) > 0:
		return found[0]
	}
	return nil
}

// transaction runs one statement in a transaction of its own, in one round trip, and returns its result. After an
// error there is no transaction.
func (r *purgeRun) transaction(ctx context.Context, sql string) (*pgconn.Result, error) {
	results, err := r.conn.PgConn().Exec(ctx, r.begin+sql+"; COMMIT").ReadAll()
	if err != nil {
		if !r.conn.IsClosed() && r.conn.PgConn().TxStatus() != 'I' {
			_ = r.conn.PgConn().Exec(ctx, "ROLLBACK").Close() // what fails has lost the connection
		}
		return nil, err
	}
	return results[len(results)-2], nil
}

// The pieces of a table that one transaction looks at, in blocks.
const (
	purgeFirst = 16
	purgeMost  = 4096
)

// purgePauses are the waits for locks that are not given, doubled from one to the other.
const purgePauseFirst, purgePauseMost = 20 * time.Millisecond, 2 * time.Second

// purge deletes the rows of one table, over and over until none is left: rows may be locked, or be written anew.
func (r *purgeRun) purge(ctx context.Context, t *Table, deleted *atomic.Int64) error {
	pause := purgePauseFirst
	for {
		before := deleted.Load()
		if err := r.pass(ctx, t, deleted); err != nil {
			return err
		}
		left, err := r.retried(ctx, func() (*pgconn.Result, error) {
			return r.transaction(ctx, fmt.Sprintf("SELECT EXISTS (SELECT FROM ONLY %s AS t WHERE %s)", t, r.in(t, "t.")))
		})
		if err != nil || string(left.Rows[0][0]) == "f" {
			return err
		}
		r.block.Store(0)
		if deleted.Load() > before {
			pause = purgePauseFirst
			continue
		}
		if err := carrySleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, purgePauseMost)
	}
}

// in is the condition that a row is one of the slots.
func (r *purgeRun) in(t *Table, prefix string) string {
	return t.SlotSQL(prefix) + " OPERATOR(pg_catalog.=) ANY (" + r.slots.ArraySQL() + ")"
}

// pass goes over the table once, from where it was.
func (r *purgeRun) pass(ctx context.Context, t *Table, deleted *atomic.Int64) error {
	var bytes int64
	if err := r.conn.QueryRow(ctx, "SELECT pg_catalog.pg_relation_size($1::pg_catalog.regclass)", pgx.QueryExecModeExec, t.String()).Scan(&bytes); err != nil {
		return err
	}
	r.blocks.Store(bytes / r.blockSize)
	span := int64(purgeFirst)
	for r.block.Load() < r.blocks.Load() {
		began := time.Now()
		n, err := r.piece(ctx, t, r.block.Load(), r.block.Load()+span)
		if err != nil {
			return err
		}
		deleted.Add(n)
		if n < int64(r.options.Rows) {
			r.block.Store(min(r.block.Load()+span, r.blocks.Load()))
		}
		switch {
		case n == int64(r.options.Rows):
			span = max(span/2, 1)
		case n < int64(r.options.Rows)/2:
			span = min(span*2, purgeMost)
		}
		if n == 0 {
			continue
		}
		wait := r.options.Pause
		if rate := r.rate.Load(); rate > 0 {
			wait = max(wait, time.Duration(n)*time.Second/time.Duration(rate)-time.Since(began))
		}
		if err := carrySleep(ctx, wait); err != nil {
			return err
		}
	}
	return nil
}

// piece deletes rows of some blocks, up to the number that one transaction may delete. When a lock is not
// given, rows that are locked are left out: the next pass finds them.
func (r *purgeRun) piece(ctx context.Context, t *Table, from, to int64) (int64, error) {
	skip := ""
	result, err := r.retried(ctx, func() (*pgconn.Result, error) {
		result, err := r.transaction(ctx, r.deleteSQL(t, from, to, skip))
		skip = " FOR UPDATE SKIP LOCKED"
		return result, err
	})
	if err != nil {
		return 0, err
	}
	return result.CommandTag.RowsAffected(), nil
}

// deleteSQL has the condition twice: rows may have changed between being found and being locked, and then the outer
// one is asked again for what they have become.
func (r *purgeRun) deleteSQL(t *Table, from, to int64, locking string) string {
	blocks := fmt.Sprintf("s.ctid OPERATOR(pg_catalog.>=) '(%d,0)'::pg_catalog.tid AND s.ctid OPERATOR(pg_catalog.<) '(%d,0)'::pg_catalog.tid", from, to)
	if r.version < 140000 { // which would read the whole table for a range
		blocks = fmt.Sprintf(`s.ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT pg_catalog.format('(%%s,%%s)', b, i)::pg_catalog.tid
			FROM pg_catalog.generate_series(%d, %d) AS b, pg_catalog.generate_series(1, %d) AS i))`, from, min(to, r.blocks.Load())-1, r.blockSize/28)
	}
	return fmt.Sprintf(`DELETE FROM ONLY %s AS t WHERE t.ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT s.ctid FROM ONLY %s AS s WHERE %s AND %s LIMIT %s%s)) AND %s`,
		t, t, blocks, r.in(t, "s."), strconv.Itoa(r.options.Rows), locking, r.in(t, "t."))
}

// retried does something again as long as locks are not given.
func (r *purgeRun) retried(ctx context.Context, f func() (*pgconn.Result, error)) (*pgconn.Result, error) {
	for pause := purgePauseFirst; ; pause = min(2*pause, purgePauseMost) {
		result, err := f()
		if code := purgeCode(err); code != "55P03" && code != "40P01" {
			return result, err
		}
		r.retries.Add(1)
		if err := carrySleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

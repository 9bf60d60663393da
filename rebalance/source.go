package rebalance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// CarryOptions say what a Carry carries, and between which servers.
type CarryOptions struct {
	// Move names the move. Replication slot and publication are named after it: it must be the only one of this name on the source's server.
	Move   string
	Tables []*Table
	Slots  *Set
	// Source and Target connect to the two shards, Replication to the source with the parameter replication=database. They are not shared
	// with anybody, and closed by the Carry.
	Source, Target func(context.Context) (*pgx.Conn, error)
	Replication    func(context.Context) (*pgconn.PgConn, error)
	// Wait bounds each wait for others: for a lock, for older transactions, for a session that is to end. 0 means 30 s.
	Wait time.Duration
	// Throttle bounds Copy; nil does not.
	Throttle *Throttle
}

// Carry carries the rows of one move from one shard to another: Prepare, Copy, then Follow as often as it takes, then Clean. One
// of these runs at a time; what others may call meanwhile says so. It keeps nothing that a later Carry of
// the same move needs: what must last is on the target, and in the Origin.
type Carry struct {
	o        CarryOptions
	object   string // name of slot, publication and sessions
	counts   carryCounts
	position carryPosition
	walPage  atomic.Int64 // the source's WAL block size
}

// NewCarry returns a Carry. It connects to nothing.
func NewCarry(o CarryOptions) *Carry {
	if o.Wait == 0 {
		o.Wait = 30 * time.Second
	}
	if o.Throttle == nil {
		o.Throttle = &Throttle{}
	}
	return &Carry{o: o, object: MoveObject(o.Move)}
}

// MoveObject returns the name of a move's replication slot, publication and sessions: letters, digits and underscores, 63 bytes at most.
func MoveObject(move string) string {
	const prefix, longest = "shardproxy_move_", 63
	plain := strings.Trim(move, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
	if plain && len(prefix+move) <= longest {
		return prefix + move
	}
	hash := sha256.Sum256([]byte(move))
	return prefix + hex.EncodeToString(hash[:16]) + "_x" // no plain name has an underscore
}

// Origin is where a move's changes begin: what Follow must be given, whoever calls it and when.
type Origin struct {
	// System and Timeline are the source's when the slot was made; a source that has failed over has another timeline.
	System   string `json:"system"`
	Timeline int32  `json:"timeline"`
	LSN      LSN    `json:"lsn"`
}

// Snapshot is the state of the source at an Origin. It is kept as long as its connection: until Close.
type Snapshot struct {
	Origin Origin
	name   string
	files  []uint32 // the tables' files when they were published
	conn   *pgconn.PgConn
}

// Close ends the snapshot. The replication slot stays. It may be called twice.
func (s *Snapshot) Close() { carryClose(s.conn) }

// carryClose ends a connection, and waits until nothing of it runs.
func carryClose(conn *pgconn.PgConn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_ = conn.Close(ctx) // a connection that is lost cannot say good-bye
	select {
	case <-conn.CleanupDone():
	case <-ctx.Done():
	}
}

// carrySession is a connection to a shard whose texts read as they are written on the other.
type carrySession struct {
	*pgx.Conn
	version int // server_version_num
}

func (s *carrySession) close() {
	if s != nil {
		carryClose(s.PgConn())
	}
}

// carrySettings make texts of values the same on both servers, and keep limits for applications away.
const carrySettings = `SET search_path = pg_catalog, pg_temp; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC';
SET extra_float_digits = 3; SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET xmloption = 'content'; SET array_nulls = on;
SET quote_all_identifiers = off; SET row_security = off; SET standard_conforming_strings = on;
SET default_transaction_read_only = off; SET default_transaction_isolation = 'read committed'; SET default_transaction_deferrable = off;
SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name IN
	('lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout', 'transaction_timeout');`

// carryPrepare gives a new connection, of either kind, its settings.
func (c *Carry) carryPrepare(ctx context.Context, conn *pgconn.PgConn) error {
	// Without conversion: a key is hashed in the server's encoding, and what is read is written by its bytes.
	encoding := conn.ParameterStatus("server_encoding")
	own := "SET client_encoding = '" + encoding + "'; SET application_name = '" + c.object + "'"
	// A message of its own: the limit holds for the whole of the message that changes it.
	_, err := conn.Exec(ctx, "SET statement_timeout = 0").ReadAll()
	if err == nil {
		_, err = conn.Exec(ctx, carrySettings+own).ReadAll()
	}
	if err != nil {
		return fmt.Errorf("set up a session of move %s: %w", c.o.Move, err)
	}
	return nil
}

func (c *Carry) open(ctx context.Context, connect func(context.Context) (*pgx.Conn, error)) (*carrySession, error) {
	conn, err := connect(ctx)
	if err != nil {
		return nil, err
	}
	s := &carrySession{Conn: conn}
	if err = c.carryPrepare(ctx, conn.PgConn()); err == nil {
		err = s.QueryRow(ctx, "SELECT current_setting('server_version_num')::int4").Scan(&s.version)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (c *Carry) openSource(ctx context.Context) (*carrySession, error) {
	s, err := c.open(ctx, c.o.Source)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	var page int64
	if err := s.QueryRow(ctx, "SELECT current_setting('wal_block_size')::int8").Scan(&page); err != nil {
		s.close()
		return nil, fmt.Errorf("source: %w", err)
	}
	c.walPage.Store(page)
	return s, nil
}

func (c *Carry) openReplication(ctx context.Context) (*pgconn.PgConn, pglogrepl.IdentifySystemResult, error) {
	conn, err := c.o.Replication(ctx)
	if err != nil {
		return nil, pglogrepl.IdentifySystemResult{}, fmt.Errorf("source: %w", carryRefusal(err, "", "", "replication is refused"))
	}
	system, err := pglogrepl.IdentifySystem(ctx, conn)
	if err == nil {
		err = c.carryPrepare(ctx, conn)
	}
	if err != nil {
		carryClose(conn)
		return nil, system, fmt.Errorf("source: %w", err)
	}
	return conn, system, nil
}

// carryCode reports whether an error is a server's of this SQLSTATE.
func carryCode(err error, code string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == code
}

// Prepare publishes the tables on the source, and makes the replication slot from which changes are followed and the snapshot that is
// copied. Application's sessions do not wait for it. It waits for the transactions that are under way on the
// source, within the bound: the error, Delayed, then names them. The caller closes the snapshot. When it fails, and before it
// is tried again, Clean takes away what is left.
func (c *Carry) Prepare(ctx context.Context) (*Snapshot, error) {
	source, err := c.openSource(ctx)
	if err != nil {
		return nil, err
	}
	defer source.close()
	facts, err := c.publish(ctx, source)
	if err != nil {
		return nil, err
	}
	conn, system, err := c.openReplication(ctx)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{conn: conn, Origin: Origin{System: system.SystemID, Timeline: system.Timeline}}
	for _, f := range facts {
		s.files = append(s.files, f.file)
	}
	if err := c.makeSlot(ctx, source, s); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// publish makes the publication, and returns what the tables were at that moment.
func (c *Carry) publish(ctx context.Context, source *carrySession) (facts []*carryFacts, err error) {
	names := make([]string, len(c.o.Tables))
	for i, t := range c.o.Tables {
		names[i] = t.String()
	}
	err = c.persist(ctx, func() error {
		return pgx.BeginFunc(ctx, source, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '200ms'"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "CREATE PUBLICATION "+c.object+" FOR TABLE "+strings.Join(names, ", ")+
				" WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = false)")
			if err != nil {
				return err
			}
			// Under the lock that publishing took nobody changes a definition. An UPDATE of a table that is published
			// and has no identity would fail in the application.
			facts, err = c.readFacts(ctx, tx)
			return err
		})
	})
	if carryCode(err, "42710") {
		return nil, &CarryError{Cause: LeftOver, Reason: "a publication " + c.object + " is there", Hint: "Clean takes it away", Err: err}
	}
	return facts, carryRefusal(err, "", "", "publish the tables")
}

// persist tries something that takes locks with a short timeout, again and again, so that nobody waits behind it for long.
func (c *Carry) persist(ctx context.Context, try func() error) error {
	for end := time.Now().Add(c.o.Wait); ; {
		err := try()
		if !carryCode(err, "55P03") && !carryCode(err, "40P01") || time.Now().After(end) {
			return err
		}
		if err := carrySleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// carrySleep waits, or until ctx ends, which is its error.
func carrySleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// makeSlot makes the replication slot. Until it is complete it goes with its connection.
func (c *Carry) makeSlot(ctx context.Context, source *carrySession, s *Snapshot) error {
	bounded, cancel := context.WithTimeout(ctx, c.o.Wait)
	defer cancel()
	delayed := make(chan []string, 1)
	go func() { // looks shortly before the end who is waited for
		defer close(delayed)
		if carrySleep(bounded, c.o.Wait*4/5) == nil {
			names, _ := carryBlockers(bounded, source, s.conn.PID()) // the wait itself is reported in any case
			delayed <- names
		}
	}()
	made, err := pglogrepl.CreateReplicationSlot(bounded, s.conn, c.object, "pgoutput",
		pglogrepl.CreateReplicationSlotOptions{Mode: pglogrepl.LogicalReplication, SnapshotAction: "EXPORT_SNAPSHOT"})
	timedOut := err != nil && bounded.Err() != nil
	if !timedOut {
		cancel()
	}
	names := <-delayed
	switch {
	case err == nil:
	case timedOut && ctx.Err() == nil:
		return &CarryError{
			Cause: Delayed, Reason: fmt.Sprintf("the replication slot was not made within %s: older transactions are under way: %s", c.o.Wait, strings.Join(names, "; ")),
			Hint: "end them, or try again when they have ended",
		}
	case carryCode(err, "42710"):
		return &CarryError{Cause: LeftOver, Reason: "a replication slot " + c.object + " is there", Hint: "Clean takes it away", Err: err}
	case carryCode(err, "55000"):
		return &CarryError{Cause: Denied, Reason: "the source makes no replication slot", Hint: "set wal_level = logical and restart the source", Err: err}
	case carryCode(err, "53400"):
		return &CarryError{Cause: Denied, Reason: "the source has no replication slot left", Hint: "raise max_replication_slots, or drop unused slots", Err: err}
	default:
		return carryRefusal(err, "", "", "make the replication slot")
	}
	if s.Origin.LSN, err = pglogrepl.ParseLSN(made.ConsistentPoint); err != nil {
		return err
	}
	s.name = made.SnapshotName
	return nil
}

// carryBlockers names the transactions that a walsender waits for.
func carryBlockers(ctx context.Context, source *carrySession, walsender uint32) (names []string, err error) {
	rows, err := source.Query(ctx, `
SELECT coalesce('prepared transaction ' || quote_literal(p.gid) || ' of ' || p.prepared,
       'process ' || h.pid || ' (' || coalesce(a.application_name, '?') || ', ' || coalesce(a.state, '?') || ') since ' || coalesce(a.xact_start::text, '?'))
FROM pg_locks w JOIN pg_locks h ON h.locktype = 'transactionid' AND h.transactionid = w.transactionid AND h.granted
LEFT JOIN pg_stat_activity a ON a.pid = h.pid LEFT JOIN pg_prepared_xacts p ON p.transaction = h.transactionid
WHERE w.pid = $1 AND w.locktype = 'transactionid' AND NOT w.granted`, int32(walsender))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// Clean takes away what Prepare made on the source: it ends whoever reads the replication slot, drops the slot and the publication. What is not
// there is no error. It may be called at any time, by whoever knows the move's name.
func (c *Carry) Clean(ctx context.Context) error {
	source, err := c.openSource(ctx)
	if err != nil {
		return err
	}
	defer source.close()
	if err := c.dropSlot(ctx, source); err != nil {
		return err
	}
	err = c.persist(ctx, func() error {
		return pgx.BeginFunc(ctx, source, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '200ms'"); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "DROP PUBLICATION IF EXISTS "+c.object)
			return err
		})
	})
	return carryRefusal(err, "", "", "drop the publication")
}

func (c *Carry) dropSlot(ctx context.Context, source *carrySession) error {
	for end := time.Now().Add(c.o.Wait); ; {
		if err := c.freeSlot(ctx, source); err != nil {
			return err
		}
		_, err := source.Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND database = current_database()", c.object)
		switch {
		case err == nil || carryCode(err, "42704"):
			return nil
		case !carryCode(err, "55006") || time.Now().After(end): // 55006: somebody reads it again
			return carryRefusal(err, "", "", "drop the replication slot")
		}
	}
}

// freeSlot ends whoever reads the slot, and waits until it is free.
func (c *Carry) freeSlot(ctx context.Context, source *carrySession) error {
	return c.end(ctx, source, "SELECT active_pid FROM pg_replication_slots WHERE slot_name = $1 AND database = current_database() AND active_pid IS NOT NULL")
}

// endOthers ends other sessions of this move in the session's database: those of a mover that does not know that it has been replaced.
func (c *Carry) endOthers(ctx context.Context, s *carrySession) error {
	return c.end(ctx, s, "SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database() AND pid <> pg_backend_pid()")
}

// end ends the processes that the query names, and waits until it names none.
func (c *Carry) end(ctx context.Context, s *carrySession, query string) error {
	for end := time.Now().Add(c.o.Wait); ; {
		rows, err := s.Query(ctx, "WITH p (pid) AS MATERIALIZED ("+query+"), e AS MATERIALIZED (SELECT pid, pg_terminate_backend(pid) FROM p) SELECT pid FROM e", c.object)
		if err != nil {
			return carryRefusal(err, "", "", "end older sessions of the move")
		}
		pids, err := pgx.CollectRows(rows, pgx.RowTo[int32])
		switch {
		case err != nil:
			return carryRefusal(err, "", "", "end older sessions of the move")
		case len(pids) == 0:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("processes %v of move %s do not end", pids, c.o.Move)
		}
		if err := carrySleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// SourceEnd returns a position of the source behind every transaction that has committed before the call, asynchronous ones too: what WaitFor is to be given.
func (c *Carry) SourceEnd(ctx context.Context, source *pgx.Conn) (LSN, error) {
	// A commit that is flushed flushes all before it. This is one transaction, and one round trip.
	const emit = "SET LOCAL synchronous_commit = local; SELECT pg_catalog.pg_logical_emit_message(true, 'shardproxy', '')"
	if err := execSimple(ctx, source, emit); err != nil {
		return 0, err
	}
	var text string
	if err := source.QueryRow(ctx, "SELECT pg_catalog.pg_current_wal_flush_lsn()::text").Scan(&text); err != nil {
		return 0, err
	}
	return pglogrepl.ParseLSN(text)
}

// carryFacts are what a server says of a table now.
type carryFacts struct {
	table    *Table
	oid      uint32
	file     uint32
	kind     string // relkind
	logged   bool
	identity string // relreplident
	columns  []carryColumn
	key      []string // the primary key's columns; nil without one that names rows
	equal    []string // its operators, as SQL
	blocks   int64
	bytes    int64

	// Of the target, for Follow: the condition that a row is of the moving slots, and the statements by kind and columns that are left out.
	guard      string
	statements map[string]*applyStatement
}

type carryColumn struct {
	name     string
	kind     uint32 // the type's OID
	modifier int32
	sql      string
	always   bool // GENERATED ALWAYS AS IDENTITY
}

const carryFactsSQL = `
SELECT w.o - 1, c.oid, c.relkind::text, c.relpersistence = 'p', c.relreplident::text, coalesce(pg_relation_filenode(c.oid), 0),
       pg_relation_size(c.oid) / current_setting('block_size')::int8, pg_table_size(c.oid), a.attname::text, a.atttypid, a.atttypmod, format_type(a.atttypid, a.atttypmod), a.attidentity = 'a'
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY w (s, t, o)
JOIN pg_namespace n ON n.nspname = w.s JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.t
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
ORDER BY w.o, a.attnum`

const carryKeysSQL = `
SELECT i.indrelid, a.attname::text, format('OPERATOR(%I.%s)', n.nspname, op.oprname)
FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY k (number, o)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
JOIN pg_opclass oc ON oc.oid = i.indclass[k.o - 1]
JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype AND ao.amopstrategy = 3
JOIN pg_operator op ON op.oid = ao.amopopr JOIN pg_namespace n ON n.oid = op.oprnamespace
WHERE i.indrelid = ANY ($1::oid[]) AND i.indisprimary AND i.indimmediate AND i.indisvalid AND i.indisready AND k.o <= i.indnkeyatts
ORDER BY i.indrelid, k.o`

// carryQuerier is a connection or a transaction.
type carryQuerier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// readFacts returns the facts of all tables, in their order. It fails with Redefined when one is not what the Table says.
func (c *Carry) readFacts(ctx context.Context, q carryQuerier) ([]*carryFacts, error) {
	schemas, names := make([]string, len(c.o.Tables)), make([]string, len(c.o.Tables))
	facts, byOID := make([]*carryFacts, len(c.o.Tables)), map[uint32]*carryFacts{}
	for i, t := range c.o.Tables {
		schemas[i], names[i], facts[i] = t.Schema, t.Name, &carryFacts{table: t}
	}
	rows, err := q.Query(ctx, carryFactsSQL, schemas, names)
	if err != nil {
		return nil, err
	}
	var at int
	var one carryFacts
	var column carryColumn
	_, err = pgx.ForEachRow(rows, []any{&at, &one.oid, &one.kind, &one.logged, &one.identity, &one.file, &one.blocks, &one.bytes,
		&column.name, &column.kind, &column.modifier, &column.sql, &column.always}, func() error {
		f := facts[at]
		one.table, one.columns = f.table, append(f.columns, column)
		*f = one
		byOID[f.oid] = f
		return nil
	})
	if err != nil {
		return nil, err
	}
	oids := make([]uint32, 0, len(byOID))
	for oid := range byOID {
		oids = append(oids, oid)
	}
	if rows, err = q.Query(ctx, carryKeysSQL, oids); err != nil {
		return nil, err
	}
	var oid uint32
	var name, operator string
	_, err = pgx.ForEachRow(rows, []any{&oid, &name, &operator}, func() error {
		f := byOID[oid]
		f.key, f.equal = append(f.key, name), append(f.equal, operator)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, f := range facts {
		if reason := f.unlike(); reason != "" {
			return nil, carryRedefined(f.table, reason)
		}
	}
	return facts, nil
}

func carryRedefined(t *Table, reason string) error {
	return &CarryError{Cause: Redefined, Table: t.String(), Reason: reason, Hint: "end the move, and begin it anew when the tables are alike on both shards"}
}

// unlike says in what the table differs from the Table, "" in nothing.
func (f *carryFacts) unlike() string {
	names := make([]string, len(f.table.Identity))
	for i, at := range f.table.Identity {
		names[i] = f.table.Columns[at].Name
	}
	switch {
	case f.oid == 0:
		return "there is no such table"
	case f.kind != "r":
		return "it is not an ordinary table or a partition"
	case !f.logged:
		return "it is unlogged: its changes cannot be followed"
	case f.identity != "d" && f.identity != "f":
		return "its replica identity is not its primary key: publishing it would have UPDATE and DELETE fail"
	case len(f.key) == 0:
		return "it has no primary key that is checked at once: publishing it would have UPDATE and DELETE fail"
	case !slices.Equal(f.key, names):
		return "its primary key is another: " + strings.Join(f.key, ", ")
	case len(f.columns) != len(f.table.Columns):
		return "it has " + strconv.Itoa(len(f.columns)) + " stored columns, not " + strconv.Itoa(len(f.table.Columns))
	}
	for i, c := range f.columns {
		if want := f.table.Columns[i]; c.name != want.Name || c.sql != want.Type {
			return fmt.Sprintf("its column %s %s is now %s %s", want.Name, want.Type, c.name, c.sql)
		}
	}
	return ""
}

// Check fails with Redefined when a table of the source, or what is published, is not what the move was begun with. Changes
// are seen by Follow when a row of the table changes; before rows are given to another owner, ask here, while nobody can change a definition.
func (c *Carry) Check(ctx context.Context, source *pgx.Conn) error {
	return pgx.BeginTxFunc(ctx, source, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL search_path = pg_catalog, pg_temp"); err != nil {
			return err
		}
		facts, err := c.readFacts(ctx, tx)
		if err != nil {
			return err
		}
		return c.checkPublished(ctx, tx, facts)
	})
}

func (c *Carry) checkPublished(ctx context.Context, q carryQuerier, facts []*carryFacts) error {
	rows, err := q.Query(ctx, `SELECT r.prrelid FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
		WHERE p.pubname = $1 AND p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND NOT p.pubviaroot`, c.object)
	if err != nil {
		return err
	}
	published, err := pgx.CollectRows(rows, pgx.RowTo[uint32])
	if err != nil {
		return err
	}
	for _, f := range facts {
		if !slices.Contains(published, f.oid) {
			return carryRedefined(f.table, "it is not, or no longer, in the publication "+c.object)
		}
	}
	return nil
}

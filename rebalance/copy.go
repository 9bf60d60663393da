package rebalance

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// copyPartBytes is how much of a table, as it lies on the source's disk, is one piece: small enough that several workers end at about the same time.
	copyPartBytes = 64 << 20
	// copyBufferBytes is how much is passed from one connection to the other at once.
	copyBufferBytes = 64 << 10
	// clearBlocks is how many pages' rows are deleted by one statement.
	clearBlocks = 64
)

// HasSQL returns a condition that is true for slots of the set: slot is an SQL expression. It costs the same however many they are.
func (s *Set) HasSQL(slot string) string {
	bits := make([]byte, (len(s.in)+7)/8)
	for _, slot := range s.slots {
		bits[slot/8] |= 1 << (slot % 8) // as get_bit numbers them
	}
	return `pg_catalog.get_bit('\x` + hex.EncodeToString(bits) + `'::pg_catalog.bytea, ` + slot + ") OPERATOR(pg_catalog.=) 1"
}

// openTarget opens a session that writes rows as they are: no trigger fires, no foreign key is checked. It ends other sessions of this move when alone is set.
func (c *Carry) openTarget(ctx context.Context, alone bool) (s *carrySession, err error) {
	if s, err = c.open(ctx, c.o.Target); err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	defer func() {
		if err != nil {
			s.close()
			s, err = nil, fmt.Errorf("target: %w", err)
		}
	}()
	_, err = s.Exec(ctx, "SET session_replication_role = replica")
	if carryCode(err, "42501") {
		user := s.Config().User
		return nil, &CarryError{
			Cause: Denied, Reason: "the role " + user + " may not set session_replication_role: triggers and foreign keys would act on rows that are carried over",
			Hint: "PostgreSQL 15 and later: GRANT SET ON PARAMETER session_replication_role TO " + pgx.Identifier{user}.Sanitize() + "; before, use a superuser", Err: err,
		}
	}
	if err == nil { // what is confirmed to the source must last
		_, err = s.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false)
			WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')`)
	}
	if err == nil && alone {
		err = c.endOthers(ctx, s)
	}
	return s, err
}

// targetFacts are readFacts of the target, and that its constraints hold there.
func (c *Carry) targetFacts(ctx context.Context, target *carrySession) ([]*carryFacts, error) {
	facts, err := c.readFacts(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	for _, f := range facts {
		keys := make([]string, len(f.table.Key))
		for i, at := range f.table.Key {
			keys[i] = f.table.Columns[at].Name
		}
		var names []string
		// PostgreSQL checks deferrable constraints by a trigger, which does not fire for rows that are carried over.
		err := target.QueryRow(ctx, `SELECT coalesce(array_agg(conname::text), '{}') FROM pg_constraint o WHERE conrelid = $1 AND condeferrable AND
			(contype = 'x' OR contype IN ('u', 'p') AND NOT $2::text[] <@ (SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = $1 AND attnum = ANY (o.conkey)))`,
			f.oid, keys).Scan(&names)
		if err != nil {
			return nil, err
		}
		if len(names) > 0 {
			return nil, &CarryError{
				Cause: Refused, Table: f.table.String(), Constraint: names[0], Hint: "make the constraint NOT DEFERRABLE, or give it the sharding key's columns",
				Reason: "a deferrable constraint that lacks the sharding key is not checked for rows that are carried over",
			}
		}
	}
	return facts, nil
}

// sameEncoding fails unless texts have the same bytes on both servers.
func sameEncoding(source, target *carrySession) error {
	s, t := source.PgConn().ParameterStatus("server_encoding"), target.PgConn().ParameterStatus("server_encoding")
	if s != t {
		return &CarryError{Cause: Redefined, Reason: "the shards' databases have different encodings: " + s + " and " + t, Hint: "make the target with the source's encoding"}
	}
	return nil
}

// copyPart is a range of a table's pages; to is 0 for all that follow.
type copyPart struct {
	facts    *carryFacts
	binary   bool
	from, to int64
}

// copier is one Copy.
type copier struct {
	*Carry
	snapshot *Snapshot
	parts    []copyPart
	next     atomic.Int64
}

// Copy copies the rows of the slots from the snapshot, by so many workers, each with two connections. When it ends without error the target
// knows, and Follow can begin; when not, ClearTarget must be called, and a new snapshot be made.
func (c *Carry) Copy(ctx context.Context, snapshot *Snapshot, workers int) error {
	source, err := c.openSource(ctx)
	if err != nil {
		return err
	}
	defer source.close()
	target, err := c.openTarget(ctx, true)
	if err != nil {
		return err
	}
	defer target.close()
	if err := sameEncoding(source, target); err != nil {
		return err
	}
	if _, err := c.targetFacts(ctx, target); err != nil {
		return err
	}
	if err := c.notBegun(ctx, target); err != nil {
		return err
	}
	lead, err := c.openSnapshot(ctx, snapshot)
	if err != nil {
		return err
	}
	defer lead.close()
	k := &copier{Carry: c, snapshot: snapshot}
	if err := k.plan(ctx, source, lead); err != nil {
		return err
	}
	if err := k.run(ctx, max(workers, 1)); err != nil {
		return err
	}
	_, err = target.Exec(ctx, "INSERT INTO shardproxy.move_progress (move, lsn) VALUES ($1, $2::pg_lsn)", c.o.Move, snapshot.Origin.LSN.String())
	return carryRefusal(err, "shardproxy.move_progress", "", "write down that the copy is complete")
}

// Forget takes the position from the target, when the move has ended.
func (c *Carry) Forget(ctx context.Context) error {
	target, err := c.openTarget(ctx, true)
	if err != nil {
		return err
	}
	defer target.close()
	_, err = target.Exec(ctx, "DELETE FROM shardproxy.move_progress WHERE move = $1", c.o.Move)
	return err
}

func (c *Carry) notBegun(ctx context.Context, target *carrySession) error {
	var begun bool
	err := target.QueryRow(ctx, "SELECT EXISTS (SELECT FROM shardproxy.move_progress WHERE move = $1)", c.o.Move).Scan(&begun)
	if err == nil && begun {
		return &CarryError{Cause: LeftOver, Reason: "the target has the rows of an earlier copy of move " + c.o.Move, Hint: "ClearTarget deletes them"}
	}
	return err
}

// openSnapshot opens a session on the source in the snapshot.
func (c *Carry) openSnapshot(ctx context.Context, snapshot *Snapshot) (*carrySession, error) {
	s, err := c.openSource(ctx)
	if err != nil {
		return nil, err
	}
	// One text: nothing may come between.
	_, err = s.PgConn().Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '"+snapshot.name+"'").ReadAll()
	if err != nil {
		s.close()
		return nil, fmt.Errorf("take over the snapshot: %w", err)
	}
	return s, nil
}

// plan locks the tables' definitions, looks that nobody has changed one since they were published, and cuts the tables into parts.
func (k *copier) plan(ctx context.Context, source, lead *carrySession) error {
	for _, t := range k.o.Tables {
		if _, err := lead.Exec(ctx, "LOCK TABLE "+t.String()+" IN ACCESS SHARE MODE"); err != nil {
			return carryRefusal(err, t.String(), "", "lock the table")
		}
	}
	facts, err := k.readFacts(ctx, source)
	if err != nil {
		return err
	}
	if err := k.checkPublished(ctx, source, facts); err != nil {
		return err
	}
	for i, f := range facts {
		// In a rewritten file the snapshot's rows may be missing: some rewrites drop what older snapshots would see.
		if i < len(k.snapshot.files) && f.file != k.snapshot.files[i] {
			return carryRedefined(f.table, "it was truncated or rewritten while the copy began")
		}
		binary, err := copyBinary(ctx, source, f)
		if err != nil {
			return err
		}
		k.parts = append(k.parts, copyParts(f, binary, source.version)...)
	}
	slices.SortStableFunc(k.parts, func(a, b copyPart) int { return int(b.to - b.from - (a.to - a.from)) })
	k.counts.parts.Store(int64(len(k.parts)))
	k.counts.partsDone.Store(0)
	return nil
}

// copyParts cuts a table. The last part has no end: the table may grow before it is read, though not by rows of the snapshot.
func copyParts(f *carryFacts, binary bool, version int) (parts []copyPart) {
	blocks := f.blocks
	if f.bytes > copyPartBytes {
		blocks = max(f.blocks*copyPartBytes/f.bytes, 1)
	}
	if version < 140000 { // it would read the whole table for each
		blocks = f.blocks
	}
	for from := int64(0); ; from += blocks {
		if blocks == 0 || from+blocks >= f.blocks {
			return append(parts, copyPart{facts: f, binary: binary, from: from})
		}
		parts = append(parts, copyPart{facts: f, binary: binary, from: from, to: from + blocks})
	}
}

// copyBinary reports whether the binary forms of the table's values mean the same on every server: not those that hold OIDs of
// types or of other objects, nor those that PostgreSQL itself does not know. Texts always do.
func copyBinary(ctx context.Context, source *carrySession, f *carryFacts) (binary bool, err error) {
	kinds := make([]uint32, len(f.columns))
	for i, c := range f.columns {
		kinds[i] = c.kind
	}
	const firstUserOID = 16384
	err = source.QueryRow(ctx, `
WITH RECURSIVE parts (oid, inside) AS (
	SELECT unnest($1::oid[]), false
	UNION
	SELECT part, p.inside OR t.typtype <> 'd' FROM parts p JOIN pg_type t ON t.oid = p.oid
	LEFT JOIN pg_range r ON r.rngtypid = t.oid
	CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem), (r.rngsubtype)) v (part)
	WHERE part <> 0)
SELECT bool_and(CASE
	WHEN t.typtype = 'd' THEN true
	WHEN t.typtype = 'e' THEN NOT p.inside
	WHEN t.typtype IN ('b', 'r') THEN t.oid < $2 AND t.typsend <> 0 AND t.typreceive <> 0 AND t.typname !~ '^reg'
	ELSE false END)
FROM parts p JOIN pg_type t ON t.oid = p.oid`, kinds, firstUserOID).Scan(&binary)
	return binary, err
}

// run works on the parts until all are copied, or the first error.
func (k *copier) run(ctx context.Context, workers int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, min(workers, len(k.parts)))
	var first sync.Once
	var failed error
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			if errs[i] = k.work(ctx); errs[i] != nil {
				first.Do(func() { failed = errs[i] })
				cancel()
			}
		})
	}
	wg.Wait()
	return failed
}

func (k *copier) work(ctx context.Context) error {
	source, err := k.openSnapshot(ctx, k.snapshot)
	if err != nil {
		return err
	}
	defer source.close()
	target, err := k.openTarget(ctx, false)
	if err != nil {
		return err
	}
	defer target.close()
	for {
		i := int(k.next.Add(1)) - 1
		if i >= len(k.parts) {
			return nil
		}
		if err := k.copyPart(ctx, source, target, k.parts[i]); err != nil {
			return err
		}
		k.counts.partsDone.Add(1)
	}
}

// sql returns the two COPY statements of a part.
func (p copyPart) sql(slots *Set) (out, in string) {
	t := p.facts.table
	all := make([]int, len(t.Columns))
	for i := range all {
		all[i] = i
	}
	columns, format := t.ColumnList(all, ""), ""
	if p.binary {
		format = " WITH (FORMAT binary)"
	}
	where := slots.HasSQL(t.SlotSQL(""))
	if p.from > 0 {
		where += fmt.Sprintf(" AND ctid >= '(%d,0)'", p.from)
	}
	if p.to > 0 {
		where += fmt.Sprintf(" AND ctid < '(%d,0)'", p.to)
	}
	return "COPY (SELECT " + columns + " FROM ONLY " + t.String() + " WHERE " + where + ") TO STDOUT" + format,
		"COPY " + t.String() + " (" + columns + ") FROM STDIN" + format
}

// copyPart copies a part in one transaction of the target.
func (k *copier) copyPart(ctx context.Context, source, target *carrySession, p copyPart) error {
	out, in := p.sql(k.o.Slots)
	r, w := io.Pipe()
	type result struct {
		tag pgconn.CommandTag
		err error
	}
	written := make(chan result, 1)
	go func() {
		tag, err := target.PgConn().CopyFrom(ctx, r, in)
		r.CloseWithError(errCopyEnded) // so that the reader stops
		written <- result{tag, err}
	}()
	meter := &copyMeter{Carry: k.Carry, ctx: ctx, to: bufio.NewWriterSize(w, copyBufferBytes)}
	tag, err := source.PgConn().CopyTo(ctx, meter, out)
	if err == nil {
		err = meter.to.Flush()
	}
	w.CloseWithError(err) // nil ends the rows; an error makes the target's COPY fail
	wrote := <-written
	k.counts.copiedRows.Add(tag.RowsAffected() - meter.rows)
	table := p.facts.table.String()
	switch {
	case wrote.err != nil && (err == nil || errors.Is(err, errCopyEnded)):
		return fmt.Errorf("target: %w", carryRefusal(wrote.err, table, "", "copy rows to"))
	case err != nil:
		return fmt.Errorf("source: %w", carryRefusal(err, table, "", "copy rows from"))
	case wrote.tag.RowsAffected() != tag.RowsAffected():
		return &CarryError{
			Cause: Refused, Table: table, Reason: fmt.Sprintf("the target took %d of %d rows", wrote.tag.RowsAffected(), tag.RowsAffected()),
			Hint: "a trigger that is ENABLE ALWAYS or REPLICA, or a rule, keeps rows away",
		}
	}
	return nil
}

var errCopyEnded = errors.New("the target's COPY has ended")

// copyMeter counts what passes: the server sends each row in a message of its own.
type copyMeter struct {
	*Carry
	ctx  context.Context
	to   *bufio.Writer
	rows int64
	owed int
}

func (m *copyMeter) Write(b []byte) (int, error) {
	m.rows++
	m.counts.copiedRows.Add(1)
	m.counts.copiedBytes.Add(int64(len(b)))
	if m.owed += len(b); m.owed >= copyBufferBytes {
		if err := m.o.Throttle.take(m.ctx, m.owed); err != nil {
			return 0, err
		}
		m.owed = 0
	}
	return m.to.Write(b)
}

// ClearTarget deletes the rows of the slots from the target, in small pieces, and what it knows of an earlier copy: before rows are copied
// anew, and when a move is given up. It must not be called for slots that the target owns.
func (c *Carry) ClearTarget(ctx context.Context) error {
	target, err := c.openTarget(ctx, true)
	if err != nil {
		return err
	}
	defer target.close()
	// First: nobody may follow from a copy that is no longer whole.
	if _, err := target.Exec(ctx, "DELETE FROM shardproxy.move_progress WHERE move = $1", c.o.Move); err != nil {
		return carryRefusal(err, "shardproxy.move_progress", "", "forget the copy")
	}
	for _, t := range c.o.Tables {
		if err := c.clear(ctx, target, t); err != nil {
			return fmt.Errorf("target: %w", carryRefusal(err, t.String(), "", "delete rows of"))
		}
	}
	return nil
}

func (c *Carry) clear(ctx context.Context, target *carrySession, t *Table) error {
	var blocks, size int64
	err := target.QueryRow(ctx, "SELECT pg_relation_size($1::regclass) / current_setting('block_size')::int8, current_setting('block_size')::int8", t.String()).Scan(&blocks, &size)
	if err != nil {
		return err
	}
	mine := c.o.Slots.HasSQL(t.SlotSQL(""))
	for from := int64(0); from < blocks; from += clearBlocks {
		where := fmt.Sprintf("ctid >= '(%d,0)' AND ctid < '(%d,0)'", from, from+clearBlocks)
		if target.version < 140000 {
			where = clearTIDs(from, size)
		}
		sql := "DELETE FROM ONLY " + t.String() + " WHERE " + where + " AND " + mine
		err := c.persist(ctx, func() error {
			tag, err := target.Exec(ctx, sql)
			c.counts.cleared.Add(tag.RowsAffected())
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// clearTIDs names all row pointers of a range of pages: PostgreSQL 13 finds rows by these, and would read the whole table for a range.
func clearTIDs(from, pageBytes int64) string {
	const leastTupleBytes = 28 // line pointer and header
	var b strings.Builder
	fmt.Fprintf(&b, "ctid = ANY (ARRAY(SELECT ('(' || b || ',' || i || ')')::tid FROM generate_series(%d, %d) b, generate_series(1, %d) i))",
		from, from+clearBlocks-1, pageBytes/leastTupleBytes)
	return b.String()
}

package rebalance

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// applyKind is what a step does on the target.
type applyKind byte

const (
	applyInsert applyKind = 'i'
	applyUpdate applyKind = 'u'
	applyUpsert applyKind = 'p' // update the row, or insert it when it is not there
	applyDelete applyKind = 'd'
)

// applyStep is one statement on the target.
type applyStep struct {
	facts *carryFacts
	kind  applyKind
	row   *streamRow // of all but a delete
	id    [][]byte   // the primary key of the row that is updated or deleted
	// expected: the row is on the target, or must be put there.
	expected bool
	// unplaced: the row is inserted only when its key, which was not sent, says that it is here.
	unplaced bool
	xid      uint32 // the source's transaction
}

// applySide says whether a row is one of the moving slots.
type applySide byte

const (
	sideUnknown applySide = iota
	sideHere
	sideElsewhere
)

// applySteps returns what a change means for the target, in the order in which it is to be done. What the target holds of the moving
// slots is what the source held before the change: that decides where the change itself does not tell the old slot.
func applySteps(f *carryFacts, slots *Set, c streamChange) (steps []applyStep, err error) {
	t := f.table
	if c.kind == 'I' {
		switch side, err := applySideOf(t, slots, c.row); {
		case err != nil || side == sideElsewhere:
			return nil, err
		case len(c.row.unsent) > 0:
			return nil, applyUnproven(t, c.row)
		}
		return []applyStep{{facts: f, kind: applyInsert, row: c.row, xid: c.xid}}, nil
	}
	was := sideUnknown
	if c.old != nil && (c.was == 'O' || t.keyed()) {
		if was, err = applySideOf(t, slots, c.old); err != nil {
			return nil, err
		}
	}
	if c.kind == 'D' {
		id, err := applyIdentity(t, c.old)
		if err != nil || was == sideElsewhere {
			return nil, err
		}
		return []applyStep{{facts: f, kind: applyDelete, id: id, xid: c.xid}}, nil
	}
	applyFill(t, &c)
	id, err := applyIdentity(t, c.row)
	if err != nil {
		return nil, err
	}
	oldID := id
	if c.old != nil {
		if oldID, err = applyIdentity(t, c.old); err != nil {
			return nil, err
		}
	}
	is, err := applySideOf(t, slots, c.row)
	if err != nil {
		return nil, err
	}
	if c.old == nil && t.keyed() { // the identity is unchanged, and the key with it
		was = is
	}
	return applyMoved(f, &c, was, is, oldID, id), nil
}

// applyMoved returns the steps of an UPDATE.
func applyMoved(f *carryFacts, c *streamChange, was, is applySide, oldID, id [][]byte) (steps []applyStep) {
	renamed := !slices.EqualFunc(oldID, id, bytes.Equal)
	remove := applyStep{facts: f, kind: applyDelete, id: oldID, xid: c.xid}
	insert := applyStep{facts: f, kind: applyInsert, row: c.row, unplaced: is == sideUnknown, xid: c.xid}
	switch {
	case is == sideElsewhere:
		if was != sideElsewhere {
			steps = append(steps, remove)
		}
	case was == sideElsewhere:
		steps = append(steps, insert)
	case renamed:
		// Values that were not sent are not taken from the target's row, but read from the source: they may have been read there for another row
		// that had the old name by then.
		steps = append(steps, remove, insert)
	case was == sideUnknown && is == sideHere && len(c.row.unsent) == 0:
		steps = append(steps, applyStep{facts: f, kind: applyUpsert, row: c.row, id: id, xid: c.xid})
	default: // a key that was not sent is unchanged: the row is here already, or stays elsewhere
		steps = append(steps, applyStep{facts: f, kind: applyUpdate, row: c.row, id: id, expected: is == sideHere, xid: c.xid})
	}
	return steps
}

// keyed reports whether the primary key holds the sharding key, so that it alone says which slot a row is in.
func (t *Table) keyed() bool {
	for _, at := range t.Key {
		if !slices.Contains(t.Identity, at) {
			return false
		}
	}
	return true
}

// applySideOf says where a row belongs; unknown when its key was not sent.
func applySideOf(t *Table, slots *Set, row *streamRow) (applySide, error) {
	key := make([][]byte, len(t.Key))
	for i, at := range t.Key {
		if slices.Contains(row.unsent, at) {
			return sideUnknown, nil
		}
		key[i] = row.values[at]
	}
	slot, ok, err := t.Slot(key)
	switch {
	case err != nil:
		return 0, &CarryError{Cause: Unproven, Table: t.String(), Row: applyRowName(t, row), Reason: "its slot cannot be told", Hint: "end the move", Err: err}
	case ok && slots.Has(slot):
		return sideHere, nil
	}
	return sideElsewhere, nil
}

// applyFill takes values that were not sent from what was sent of the old row.
func applyFill(t *Table, c *streamChange) {
	if c.old == nil {
		return
	}
	c.row.unsent = slices.DeleteFunc(c.row.unsent, func(at int) bool {
		known := c.was == 'O' && !slices.Contains(c.old.unsent, at) || slices.Contains(t.Identity, at) && c.old.values[at] != nil
		if known {
			c.row.values[at] = c.old.values[at]
		}
		return known
	})
}

// applyIdentity returns the values of the primary key.
func applyIdentity(t *Table, row *streamRow) ([][]byte, error) {
	id := make([][]byte, len(t.Identity))
	for i, at := range t.Identity {
		if id[i] = row.values[at]; id[i] == nil {
			return nil, applyUnproven(t, row)
		}
	}
	return id, nil
}

func applyUnproven(t *Table, row *streamRow) error {
	return &CarryError{
		Cause: Unproven, Table: t.String(), Row: applyRowName(t, row), Reason: "the source has not sent all that names the row",
		Hint: "end the move; ALTER TABLE " + t.String() + " REPLICA IDENTITY FULL, or update the source's PostgreSQL, and begin it anew",
	}
}

// applyRowName names a row by its primary key for people.
func applyRowName(t *Table, row *streamRow) string {
	values := make([]string, len(t.Identity))
	for i, at := range t.Identity {
		values[i] = string(row.values[at])
	}
	return "(" + t.ColumnList(t.Identity, "") + ")=(" + strings.Join(values, ", ") + ")"
}

// named names the row of a step.
func (s *applyStep) named() string {
	if s.row != nil {
		return applyRowName(s.facts.table, s.row)
	}
	row := &streamRow{values: make([][]byte, len(s.facts.columns))}
	for i, at := range s.facts.table.Identity {
		row.values[at] = s.id[i]
	}
	return applyRowName(s.facts.table, row)
}

const (
	// applyStatements bounds the prepared statements of a session: one for each table, kind and set of columns that were sent.
	applyStatements = 500
	// storeEvery is how often a position that no row came with is written down on the target.
	storeEvery = time.Second
)

// applier writes to the target. It is used by one goroutine.
type applier struct {
	*Carry
	target   *carrySession
	source   *carrySession // nil until a value is to be read there
	facts    map[*Table]*carryFacts
	prepared map[*applyStatement]string // their names
	stored   LSN                        // as the target has it
	reached  LSN                        // what has been applied
	written  time.Time
	open     bool // a transaction is open on the target
	saved    bool // it has a savepoint
	pending  int64
	count    int
}

// run applies pieces until the channel closes or something fails.
func (a *applier) run(ctx context.Context, in <-chan *streamPiece) error {
	store := time.NewTicker(storeEvery)
	defer store.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p := <-in:
			if err := a.apply(ctx, p); err != nil {
				return err
			}
		case <-store.C: // or the source keeps its WAL while it rests
			if a.open || a.reached <= a.stored || time.Since(a.written) < storeEvery/2 {
				continue
			}
			if _, err := a.batch(ctx, nil); err != nil {
				return err
			}
			if err := a.commit(ctx, a.reached); err != nil {
				return err
			}
		}
	}
}

// apply applies a piece. The target's transaction ends where one of the source does.
func (a *applier) apply(ctx context.Context, p *streamPiece) error {
	a.pending += p.transactions
	steps := p.steps
	for len(steps) > 0 {
		// What needs the source is done alone, the rest together.
		n := slices.IndexFunc(steps, func(s applyStep) bool { return s.kind == applyInsert && len(s.row.unsent) > 0 })
		var err error
		switch {
		case n == 0:
			n = 1
			err = a.insertFetched(ctx, &steps[0])
		case n < 0:
			n = len(steps)
			fallthrough
		default:
			err = a.together(ctx, steps[:n])
		}
		if err != nil {
			return err
		}
		steps = steps[n:]
	}
	switch {
	case p.open:
		return nil
	case a.open:
		return a.commit(ctx, p.end)
	}
	a.reached = p.end
	a.position.setApplied(p.end)
	return nil
}

// commit writes the position down with the rows.
func (a *applier) commit(ctx context.Context, end LSN) error {
	_, err := a.target.PgConn().Exec(ctx, "UPDATE shardproxy.move_progress SET lsn = '"+end.String()+"' WHERE move = "+quoteLiteral(a.o.Move)+"; COMMIT").ReadAll()
	if err != nil {
		return fmt.Errorf("target: %w", carryRefusal(err, "", "", "commit"))
	}
	a.open, a.saved, a.stored, a.reached, a.written = false, false, end, end, time.Now()
	a.position.stored.Store(uint64(end))
	a.position.setApplied(end)
	a.counts.transactions.Add(a.pending)
	a.pending = 0
	return nil
}

func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// together sends the steps at once. Where a row is not there that must be, they are taken back and done one after the other.
func (a *applier) together(ctx context.Context, steps []applyStep) error {
	rows, err := a.batch(ctx, steps)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(steps, func(s applyStep) bool { return s.expected }) {
		return nil
	}
	missing := false
	for i := range steps {
		missing = missing || steps[i].expected && rows[i] == 0
	}
	if !missing {
		return nil
	}
	if _, err := a.target.PgConn().Exec(ctx, "ROLLBACK TO s").ReadAll(); err != nil {
		return fmt.Errorf("target: %w", err)
	}
	for i := range steps {
		rows, err := a.batch(ctx, steps[i:i+1])
		if err != nil {
			return err
		}
		if s := &steps[i]; s.expected && rows[0] == 0 {
			if s.facts.table.keyed() {
				a.counts.missing.Add(1)
			}
			insert := *s
			insert.kind, insert.expected = applyInsert, false
			if err := a.insertFetched(ctx, &insert); err != nil {
				return err
			}
		}
	}
	return nil
}

// batch sends the steps in one go, and returns how many rows each has met. It begins the target's transaction: the position's row is locked by it, and
// is as it was left, or another follower has gone on.
func (a *applier) batch(ctx context.Context, steps []applyStep) (met []int64, err error) {
	for i := range steps {
		if err := a.prepare(ctx, &steps[i]); err != nil {
			return nil, err
		}
	}
	batch, before, begun := &pgconn.Batch{}, 0, a.open
	add := func(sql string, values ...[]byte) {
		batch.ExecParams(sql, values, nil, nil, nil)
		before++
	}
	if !a.open {
		add("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
		add("SELECT FROM shardproxy.move_progress WHERE move = $1 AND lsn = $2::pg_lsn FOR UPDATE", []byte(a.o.Move), []byte(a.stored.String()))
	}
	if slices.ContainsFunc(steps, func(s applyStep) bool { return s.expected }) {
		if a.saved {
			add("RELEASE s")
		}
		add("SAVEPOINT s")
		a.saved = true
	}
	for i := range steps {
		statement := steps[i].statement(a.facts)
		batch.ExecPrepared(a.prepared[statement], steps[i].values(statement), nil, nil)
	}
	a.open = true
	results := a.target.PgConn().ExecBatch(ctx, batch)
	done := 0
	for results.NextResult() {
		tag, err := results.ResultReader().Close()
		if err != nil {
			break
		}
		if !begun && done == 1 && tag.RowsAffected() != 1 {
			_ = results.Close() // the transaction ends with the connection
			return nil, a.overtaken()
		}
		if done >= before {
			met = append(met, tag.RowsAffected())
		}
		done++
	}
	if err := results.Close(); err != nil {
		table, row := "", ""
		if i := len(met); done >= before && i < len(steps) {
			table, row = steps[i].facts.table.String(), steps[i].named()
		}
		return nil, fmt.Errorf("target: %w", carryRefusal(err, table, row, "apply a change"))
	}
	if len(met) != len(steps) {
		return nil, fmt.Errorf("target: %d answers to %d statements", len(met), len(steps))
	}
	return met, nil
}

func (a *applier) overtaken() error {
	return &CarryError{Cause: Overtaken, Reason: "another follower has carried move " + a.o.Move + " on", Hint: "one follower of a move is enough: this one has ended"}
}

// prepare has the step's statement prepared.
func (a *applier) prepare(ctx context.Context, s *applyStep) error {
	statement := s.statement(a.facts)
	if a.prepared[statement] != "" {
		return nil
	}
	if len(a.prepared) >= applyStatements {
		for old, name := range a.prepared {
			delete(a.prepared, old)
			if err := a.target.PgConn().Deallocate(ctx, name); err != nil {
				return fmt.Errorf("target: %w", err)
			}
		}
	}
	a.count++
	name := fmt.Sprintf("carry%d", a.count)
	if _, err := a.target.PgConn().Prepare(ctx, name, statement.sql, nil); err != nil {
		return fmt.Errorf("target: %w", carryRefusal(err, s.facts.table.String(), s.named(), "apply a change"))
	}
	a.prepared[statement] = name
	return nil
}

// insertFetched inserts a row some of whose values were not sent. They are read from the source as they are now: what has happened to the row meanwhile
// comes again. When the row is not there any more, nothing is to be done, for the same reason.
func (a *applier) insertFetched(ctx context.Context, s *applyStep) error {
	if len(s.row.unsent) > 0 {
		row, err := a.fetch(ctx, s)
		if err != nil || row == nil {
			return err
		}
		insert := *s
		insert.row, s = row, &insert
		if s.unplaced {
			side, err := applySideOf(s.facts.table, a.o.Slots, row)
			if err != nil || side != sideHere {
				return err
			}
		}
	}
	_, err := a.batch(ctx, []applyStep{*s})
	return err
}

// fetch returns the row of a step with the values that were not sent; nil when the source has it no longer.
func (a *applier) fetch(ctx context.Context, s *applyStep) (*streamRow, error) {
	if a.source == nil {
		source, err := a.openSource(ctx)
		if err != nil {
			return nil, err
		}
		a.source = source
	}
	if err := a.visible(ctx, s.xid); err != nil {
		return nil, err
	}
	t := s.facts.table
	id, err := applyIdentity(t, s.row)
	if err != nil {
		return nil, err
	}
	sql := "SELECT " + t.ColumnList(s.row.unsent, "") + " FROM ONLY " + t.String() + " WHERE " + s.facts.identifies(0)
	result := a.source.PgConn().ExecParams(ctx, sql, id, nil, nil, nil).Read()
	if result.Err != nil {
		return nil, fmt.Errorf("source: %w", carryRefusal(result.Err, t.String(), s.named(), "read a row"))
	}
	a.counts.fetched.Add(1)
	if len(result.Rows) != 1 {
		return nil, nil
	}
	row := &streamRow{values: slices.Clone(s.row.values)}
	for i, at := range s.row.unsent {
		row.values[at] = result.Rows[0][i]
	}
	return row, nil
}

// visible waits until the source's sessions see what a transaction has written. Its changes are streamed when its commit is in the WAL, which is
// a moment before, and much longer where commits wait for a standby.
func (a *applier) visible(ctx context.Context, xid uint32) error {
	for {
		var next uint64
		if err := a.source.QueryRow(ctx, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8").Scan(&next); err != nil {
			return fmt.Errorf("source: %w", err)
		}
		var status *string
		whole := applyEpoch(next, xid)
		err := a.source.QueryRow(ctx, "SELECT pg_xact_status($1::text::xid8)", fmt.Sprint(whole)).Scan(&status)
		switch {
		case carryCode(err, "22023"): // in the future: not even begun, as far as this session can see
		case err != nil:
			return fmt.Errorf("source: %w", err)
		case status == nil || *status == "committed":
			return nil
		}
		if err := carrySleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// applyEpoch returns the transaction id of 64 bits that is nearest to next.
func applyEpoch(next uint64, xid uint32) uint64 {
	whole := next&^0xffffffff | uint64(xid)
	switch {
	case whole > next && whole-next > 1<<31 && whole >= 1<<32:
		whole -= 1 << 32
	case whole < next && next-whole > 1<<31:
		whole += 1 << 32
	}
	return whole
}

// identifies is the condition that names a row by its primary key; its parameters are numbered from behind first. The operators are those of
// the key's index, whatever search_path says.
func (f *carryFacts) identifies(first int) string {
	terms := make([]string, len(f.table.Identity))
	for i, at := range f.table.Identity {
		c := f.table.Columns[at]
		terms[i] = fmt.Sprintf("%s %s $%d::%s", pgx.Identifier{c.Name}.Sanitize(), f.equal[i], first+i+1, c.Type)
	}
	return strings.Join(terms, " AND ")
}

// applyStatement is a statement as SQL. Its parameters are the row's values at places, then the primary key that is looked for.
type applyStatement struct {
	sql    string
	places []int
}

// statement returns the step's statement, facts being the target's. Equal statements are the same.
func (s *applyStep) statement(facts map[*Table]*carryFacts) *applyStatement {
	f := facts[s.facts.table]
	key := string(s.kind)
	if s.row != nil && len(s.row.unsent) > 0 {
		key += fmt.Sprint(s.row.unsent)
	}
	if f.statements[key] == nil {
		f.statements[key] = s.compose(f)
	}
	return f.statements[key]
}

// values returns the parameters of the step's statement.
func (s *applyStep) values(statement *applyStatement) [][]byte {
	values := make([][]byte, 0, len(statement.places)+len(s.id))
	for _, at := range statement.places {
		values = append(values, s.row.values[at])
	}
	if s.kind == applyInsert {
		return values
	}
	return append(values, s.id...)
}

func (s *applyStep) compose(f *carryFacts) *applyStatement {
	t, guard := f.table, ""
	if !t.keyed() { // a row of another slot may have the same primary key
		guard = " AND " + f.guard
	}
	if s.kind == applyDelete {
		return &applyStatement{sql: "DELETE FROM ONLY " + t.String() + " WHERE " + f.identifies(0) + guard}
	}
	var places []int
	var values, sets []string
	for at, c := range t.Columns {
		// The primary key that is looked for is the new one too. An identity that is always generated takes no value in an UPDATE.
		fixed := slices.Contains(t.Identity, at) || f.columns[at].always
		if slices.Contains(s.row.unsent, at) || s.kind == applyUpdate && fixed {
			continue
		}
		places = append(places, at)
		value := fmt.Sprintf("$%d::%s", len(places), c.Type)
		values = append(values, value)
		if !fixed {
			sets = append(sets, pgx.Identifier{c.Name}.Sanitize()+" = "+value)
		}
	}
	where := " WHERE " + f.identifies(len(places)) + guard
	insert := "INSERT INTO " + t.String() + " (" + t.ColumnList(places, "") + ") OVERRIDING SYSTEM VALUE "
	update := "UPDATE ONLY " + t.String() + " SET " + strings.Join(sets, ", ") + where
	if len(sets) == 0 { // nothing but the primary key: look whether it is there
		update = "SELECT FROM ONLY " + t.String() + where + " FOR UPDATE"
	}
	sql := update
	switch {
	case s.kind == applyInsert:
		sql = insert + "VALUES (" + strings.Join(values, ", ") + ")"
	case s.kind == applyUpsert:
		if len(sets) > 0 {
			update += " RETURNING 1"
		}
		sql = "WITH u AS (" + update + ") " + insert + "SELECT " + strings.Join(values, ", ") + " WHERE NOT EXISTS (SELECT FROM u)"
	}
	return &applyStatement{sql: sql, places: places}
}

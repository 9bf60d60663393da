package rebalance

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/shardmap"
)

// CompareOptions say how to compare. The zero value has the defaults.
type CompareOptions struct {
	// Rows is how many differing rows are named for each table; DefaultCompareRows when 0, none when below.
	Rows int
	// ChunkRows is how many rows of slots that differ a server sorts at a time to find those rows, about; it
	// bounds its disk, not memory here. DefaultCompareChunk when 0.
	ChunkRows int
}

// Defaults of CompareOptions.
const (
	DefaultCompareRows  = 20
	DefaultCompareChunk = 200_000
)

// Comparison is what Compare found.
type Comparison struct {
	// Tables are in the order they were given in.
	Tables []TableComparison `json:"tables"`
}

// TableComparison is how the rows of one table differ.
type TableComparison struct {
	Table string `json:"table"`
	// Source and Target are how many rows of the slots there are.
	Source int64 `json:"source_rows"`
	Target int64 `json:"target_rows"`
	// Slots are those that differ, ascending.
	Slots []SlotDifference `json:"slots,omitempty"`
	// Rows are the first that differ, in no order that means anything; More is set when there are others.
	Rows []RowDifference `json:"rows,omitempty"`
	More bool            `json:"more,omitempty"`
}

// SlotDifference is a slot whose rows differ, and how many it has.
type SlotDifference struct {
	Slot   shardmap.Slot `json:"slot"`
	Source int64         `json:"source_rows"`
	Target int64         `json:"target_rows"`
}

// DifferenceKind says how a row differs, seen from the source.
type DifferenceKind string

// The kinds of differences.
const (
	RowMissing   DifferenceKind = "missing"   // the target lacks it
	RowExtra     DifferenceKind = "extra"     // only the target has it
	RowDifferent DifferenceKind = "different" // both have the primary key, with other values
)

// RowDifference names a row that differs.
type RowDifference struct {
	Kind DifferenceKind `json:"kind"`
	// Key is the primary key, columns and values, cut off behind 1,000 characters of values.
	Key string `json:"key"`
	// Columns are those whose values differ, of RowDifferent only.
	Columns []string `json:"columns,omitempty"`
}

// Equal reports whether no row differs.
func (c *Comparison) Equal() bool {
	return !slices.ContainsFunc(c.Tables, func(t TableComparison) bool { return len(t.Slots) > 0 })
}

// String says it in lines for people, the last without its end.
func (c *Comparison) String() string {
	lines := make([]string, len(c.Tables))
	for i := range c.Tables {
		lines[i] = c.Tables[i].String()
	}
	return strings.Join(lines, "\n")
}

// String says it in lines for people, the last without its end.
func (t *TableComparison) String() string {
	if len(t.Slots) == 0 {
		return t.Table + ": " + counted(t.Source, "row") + ", equal"
	}
	lines := []string{fmt.Sprintf("%s: %s on the source, %d on the target; other rows in %s", t.Table, counted(t.Source, "row"), t.Target, counted(int64(len(t.Slots)), "slot"))}
	for i, s := range t.Slots {
		if i == DefaultCompareRows {
			lines = append(lines, fmt.Sprintf("  and %d slots more", len(t.Slots)-i))
			break
		}
		lines = append(lines, fmt.Sprintf("  slot %d: %s on the source, %d on the target", s.Slot, counted(s.Source, "row"), s.Target))
	}
	for _, r := range t.Rows {
		line := fmt.Sprintf("  %s: %s", r.Kind, r.Key)
		if len(r.Columns) > 0 {
			line += ", in " + strings.Join(r.Columns, ", ")
		}
		lines = append(lines, line)
	}
	if t.More {
		lines = append(lines, "  and more rows")
	}
	return strings.Join(lines, "\n")
}

// counted is a number of things.
func counted(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// Compare compares the rows of slots on two servers, both of which work at the same time: what each column prints, so
// that 1.0 and 1.00, 0 and -0, NULL and an empty text are different. The caller has made the positions equal: a connection
// in a transaction, which must be REPEATABLE READ or SERIALIZABLE, is asked within it, and the transaction goes on; one
// without is given a transaction of its own. Rows whose key is NULL lie in no slot and are not compared. Memory is bounded by the
// number of slots and of rows to be named; a table is read once, and twice or three times more where it differs.
//
// An error means that nothing is known; the connections may be closed then. Repeating is safe.
func Compare(ctx context.Context, source, target *pgx.Conn, tables []*Table, slots *Set, o CompareOptions) (*Comparison, error) {
	o.Rows, o.ChunkRows = max(cmp.Or(o.Rows, DefaultCompareRows), 0), cmp.Or(o.ChunkRows, DefaultCompareChunk)
	c := &comparer{options: o, sides: [2]*compareSide{{name: "source", conn: source}, {name: "target", conn: target}}}
	defer c.both(context.WithoutCancel(ctx), (*compareSide).end) //nolint:errcheck // it has none
	if err := c.both(ctx, (*compareSide).begin); err != nil {
		return nil, err
	}
	out := &Comparison{}
	for _, t := range tables {
		one, err := c.table(ctx, t, slots)
		if err != nil {
			return nil, fmt.Errorf("compare %s: %w", t, err)
		}
		out.Tables = append(out.Tables, *one)
	}
	return out, nil
}

// comparer compares over two connections.
type comparer struct {
	options CompareOptions
	sides   [2]*compareSide // source, target
}

// compareSide is one of the servers.
type compareSide struct {
	name string
	conn *pgx.Conn
	open bool // begin has made a savepoint
	own  bool // the transaction is Compare's
}

// both does something on both servers at once. The error is the first; it ends the other, too.
func (c *comparer) both(ctx context.Context, f func(*compareSide, context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for _, s := range c.sides {
		group.Go(func() {
			if err := f(s, ctx); err != nil {
				cancel(fmt.Errorf("%s: %w", s.name, err))
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// compareSettings make values print alike, whatever the server, the database or the role has set, and names mean
// PostgreSQL's own. That policies would hide rows is an error and no difference.
const compareSettings = `SAVEPOINT shardproxy_compare; SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL DateStyle = 'ISO, MDY'; SET LOCAL TimeZone = 'UTC';
SET LOCAL IntervalStyle = 'postgres'; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL lc_monetary = 'C'; SET LOCAL client_encoding = 'UTF8';
SET LOCAL standard_conforming_strings = on; SET LOCAL quote_all_identifiers = off; SET LOCAL row_security = off; SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL jit = off`

func (s *compareSide) begin(ctx context.Context) error {
	switch s.conn.PgConn().TxStatus() {
	case 'I':
		if err := s.exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
			return err
		}
		s.own = true
	case 'T':
	default:
		return errors.New("the transaction has failed before")
	}
	s.open = true
	if err := s.exec(ctx, compareSettings); err != nil {
		return err
	}
	var version int
	var isolation string
	err := s.conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int4, current_setting('transaction_isolation')", pgx.QueryExecModeExec).
		Scan(&version, &isolation)
	if err == nil && isolation != "repeatable read" && isolation != "serializable" {
		err = fmt.Errorf("the transaction is %s: its statements would see the rows of different moments", strings.ToUpper(isolation))
	}
	if err == nil && version >= 170000 {
		err = s.exec(ctx, "SET LOCAL transaction_timeout = 0")
	}
	return err
}

// compareEnd is how long the end of a transaction is waited for.
const compareEnd = 5 * time.Second

// end leaves the connection as it was, also after an error. One that does not answer is closed by it. What
// the other side does is not to be ended by an error, so that there is none.
func (s *compareSide) end(ctx context.Context) error {
	if !s.own && !s.open || s.conn.IsClosed() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, compareEnd)
	defer cancel()
	sql := "ROLLBACK TO SAVEPOINT shardproxy_compare; RELEASE SAVEPOINT shardproxy_compare"
	if s.own {
		sql = "ROLLBACK"
	}
	_ = s.exec(ctx, sql)
	return nil
}

func (s *compareSide) exec(ctx context.Context, sql string) error {
	return s.conn.PgConn().Exec(ctx, sql).Close()
}

// compareTally is how many rows there are, and two sums of their hashes, which do not depend on the order.
// Of other rows both sums are equal in one of 2^128 cases.
type compareTally struct {
	rows int64
	sums [2]string
}

// compareTallies are by slot or by another number.
type compareTallies map[int]compareTally

// compareText is the values at some places of a row as one text. NULL prints as nothing and an empty text as two
// quotes, and what has commas, quotes or parentheses is quoted: no two rows have the same.
func compareText(t *Table, places []int, prefix string) string {
	all := make([]string, len(places))
	for i, at := range places {
		all[i] = t.ColumnList(places[i:i+1], prefix)
		if t.Columns[at].Type == "xml" {
			all[i] += "::pg_catalog.text" // XML prints without its declaration
		}
	}
	return "(ROW(" + strings.Join(all, ", ") + `)::pg_catalog.text COLLATE pg_catalog."C")`
}

// compareAll are the places of all columns.
func compareAll(t *Table) []int {
	all := make([]int, len(t.Columns))
	for i := range all {
		all[i] = i
	}
	return all
}

// compareIn is the condition that a number is one of some.
func compareIn[N shardmap.Slot | int](sql string, numbers []N) string {
	texts := make([]string, len(numbers))
	for i, n := range numbers {
		texts[i] = strconv.Itoa(int(n))
	}
	return sql + " OPERATOR(pg_catalog.=) ANY ('{" + strings.Join(texts, ",") + "}'::pg_catalog.int4[])"
}

// tallies asks for the sums of rows by a number. OFFSET keeps the row's text from being made for each hash anew,
// and the planner from guessing many groups, which it would sort.
func (s *compareSide) tallies(ctx context.Context, t *Table, number, where string) (compareTallies, error) {
	rows, err := s.conn.Query(ctx, fmt.Sprintf(`SELECT x.n, pg_catalog.count(*), pg_catalog.sum(pg_catalog.hashtextextended(x.r, 1))::pg_catalog.text,
		pg_catalog.sum(pg_catalog.hashtextextended(x.r, 2))::pg_catalog.text
		FROM (SELECT %s AS n, %s AS r FROM ONLY %s AS t WHERE %s OFFSET 0) AS x GROUP BY x.n`, number, compareText(t, compareAll(t), "t."), t, where), pgx.QueryExecModeExec)
	if err != nil {
		return nil, err
	}
	all := compareTallies{}
	var n int
	var one compareTally
	_, err = pgx.ForEachRow(rows, []any{&n, &one.rows, &one.sums[0], &one.sums[1]}, func() error {
		all[n] = one
		return nil
	})
	return all, err
}

// differ returns the numbers for which two servers have other rows, ascending.
func (a compareTallies) differ(b compareTallies) []int {
	found := map[int]bool{}
	for n, one := range a {
		found[n] = one != b[n]
	}
	for n, one := range b {
		found[n] = one != a[n]
	}
	maps.DeleteFunc(found, func(_ int, differs bool) bool { return !differs })
	return slices.Sorted(maps.Keys(found))
}

// rows is how many rows there are, of some numbers.
func (a compareTallies) rows(numbers []int) (n int64) {
	for _, number := range numbers {
		n += a[number].rows
	}
	return n
}

// talliesOfBoth asks both servers.
func (c *comparer) talliesOfBoth(ctx context.Context, t *Table, number, where string) (all [2]compareTallies, err error) {
	err = c.both(ctx, func(s *compareSide, ctx context.Context) error {
		found, err := s.tallies(ctx, t, number, where)
		if s == c.sides[0] {
			all[0] = found
		} else {
			all[1] = found
		}
		return err
	})
	return all, err
}

// table compares one table.
func (c *comparer) table(ctx context.Context, t *Table, slots *Set) (*TableComparison, error) {
	out := &TableComparison{Table: t.String()}
	slot := t.SlotSQL("t.")
	all, err := c.talliesOfBoth(ctx, t, slot, compareIn(slot, slots.Slots()))
	if err != nil {
		return nil, err
	}
	out.Source, out.Target = all[0].rows(slices.Collect(maps.Keys(all[0]))), all[1].rows(slices.Collect(maps.Keys(all[1])))
	differ := all[0].differ(all[1])
	for _, n := range differ {
		out.Slots = append(out.Slots, SlotDifference{Slot: shardmap.Slot(n), Source: all[0][n].rows, Target: all[1][n].rows})
	}
	if len(differ) == 0 {
		return out, nil
	}
	return out, c.name(ctx, t, out, differ, max(all[0].rows(differ), all[1].rows(differ)))
}

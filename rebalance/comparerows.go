package rebalance

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Rows that differ are found by walking over the rows of both servers in the order of a hash of their primary key.
// Where there are too many to sort, they are first divided by that hash into buckets, whose sums are compared as those of
// the slots were; only buckets that differ are walked, some at a time.

// compareBuckets is the most buckets that rows are divided into.
const compareBuckets = 4096

// name finds rows that differ in some slots, of which the fuller server has so many.
func (c *comparer) name(ctx context.Context, t *Table, out *TableComparison, slots []int, rows int64) error {
	where := compareIn(t.SlotSQL("t."), slots)
	if c.options.Rows == 0 {
		out.More = true
		return nil
	}
	if rows <= int64(c.options.ChunkRows) {
		return c.walk(ctx, t, out, where)
	}
	buckets := 2
	for buckets < compareBuckets && rows/int64(buckets) > int64(c.options.ChunkRows)/16 {
		buckets *= 2
	}
	bucket := fmt.Sprintf("((pg_catalog.hashtextextended(%s, 3) OPERATOR(pg_catalog.>>) 32) OPERATOR(pg_catalog.&) %d)::pg_catalog.int4",
		compareText(t, t.Identity, "t."), buckets-1)
	all, err := c.talliesOfBoth(ctx, t, bucket, where)
	if err != nil {
		return err
	}
	differ := all[0].differ(all[1])
	for len(differ) > 0 {
		n := c.some(all, differ)
		if err := c.walk(ctx, t, out, where+" AND "+compareIn(bucket, differ[:n])); err != nil {
			return err
		}
		if differ = differ[n:]; len(out.Rows) == c.options.Rows {
			out.More = out.More || len(differ) > 0
			break
		}
	}
	return nil
}

// some is how many buckets are walked at once: one at least.
func (c *comparer) some(all [2]compareTallies, buckets []int) (n int) {
	for n = 1; n < len(buckets) && max(all[0].rows(buckets[:n+1]), all[1].rows(buckets[:n+1])) <= int64(c.options.ChunkRows); n++ {
	}
	return n
}

// comparedRow is what of a row comes over: hashes.
type comparedRow struct {
	key, row [2]int64
	shown    string // the key, cut off
	tid      string // where this version of it lies; it stays there while the transaction's snapshot is held
}

// compareCursor walks over rows in the order of their keys' hashes.
type compareCursor struct {
	side *compareSide
	rows []comparedRow // not yet walked over
	end  bool          // the server has no more
}

// compareFetch is how many rows are fetched at a time.
const compareFetch = 1000

func (k *compareCursor) open(ctx context.Context, t *Table, where string) error {
	err := k.side.exec(ctx, fmt.Sprintf(`DECLARE shardproxy_compare NO SCROLL CURSOR FOR
		SELECT pg_catalog.hashtextextended(x.k, 1) AS a, pg_catalog.hashtextextended(x.k, 2) AS b, pg_catalog.hashtextextended(x.r, 1), pg_catalog.hashtextextended(x.r, 2),
		pg_catalog.left(x.k, 1000), x.c::pg_catalog.text FROM (SELECT %s AS k, %s AS r, t.ctid AS c FROM ONLY %s AS t WHERE %s OFFSET 0) AS x ORDER BY a, b`,
		compareText(t, t.Identity, "t."), compareText(t, compareAll(t), "t."), t, where))
	if err != nil {
		return err
	}
	return k.fill(ctx)
}

// fill fetches rows when there are none left.
func (k *compareCursor) fill(ctx context.Context) error {
	if len(k.rows) > 0 || k.end {
		return nil
	}
	rows, err := k.side.conn.Query(ctx, fmt.Sprintf("FETCH %d FROM shardproxy_compare", compareFetch), pgx.QueryExecModeExec)
	if err != nil {
		return err
	}
	k.rows, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r comparedRow, err error) {
		err = row.Scan(&r.key[0], &r.key[1], &r.row[0], &r.row[1], &r.shown, &r.tid)
		return r, err
	})
	k.end = len(k.rows) < compareFetch
	return err
}

// next goes behind the first row.
func (k *compareCursor) next(ctx context.Context) error {
	k.rows = k.rows[1:]
	if err := k.fill(ctx); err != nil {
		return fmt.Errorf("%s: %w", k.side.name, err)
	}
	return nil
}

// differentRow is a row that both have, and where.
type differentRow struct {
	at   int       // in TableComparison.Rows
	tids [2]string // source, target
}

// walk adds rows that differ, as long as there is room for them.
func (c *comparer) walk(ctx context.Context, t *Table, out *TableComparison, where string) error {
	source, target := &compareCursor{side: c.sides[0]}, &compareCursor{side: c.sides[1]}
	err := c.both(ctx, func(s *compareSide, ctx context.Context) error {
		if s == source.side {
			return source.open(ctx, t, where)
		}
		return target.open(ctx, t, where)
	})
	if err != nil {
		return err
	}
	var different []differentRow
	add := func(kind DifferenceKind, row comparedRow) {
		if len(out.Rows) == c.options.Rows {
			out.More = true
			return
		}
		out.Rows = append(out.Rows, RowDifference{Kind: kind, Key: "(" + t.ColumnList(t.Identity, "") + ") = " + row.shown})
	}
	for !out.More && len(source.rows)+len(target.rows) > 0 {
		var order int
		switch {
		case len(target.rows) == 0:
			order = -1
		case len(source.rows) == 0:
			order = 1
		default:
			order = slices.Compare(source.rows[0].key[:], target.rows[0].key[:])
		}
		if order < 0 {
			add(RowMissing, source.rows[0])
		} else if order > 0 {
			add(RowExtra, target.rows[0])
		} else if source.rows[0].row != target.rows[0].row {
			if add(RowDifferent, source.rows[0]); !out.More {
				different = append(different, differentRow{len(out.Rows) - 1, [2]string{source.rows[0].tid, target.rows[0].tid}})
			}
		}
		if order <= 0 {
			err = source.next(ctx)
		}
		if order >= 0 {
			err = cmp.Or(err, target.next(ctx))
		}
		if err != nil {
			return err
		}
	}
	if err := c.both(ctx, func(s *compareSide, ctx context.Context) error { return s.exec(ctx, "CLOSE shardproxy_compare") }); err != nil {
		return err
	}
	return c.columns(ctx, t, out, different)
}

// columns finds out which columns of rows differ.
func (c *comparer) columns(ctx context.Context, t *Table, out *TableComparison, rows []differentRow) error {
	if len(rows) == 0 {
		return nil
	}
	var found [2]map[string][]int64
	err := c.both(ctx, func(s *compareSide, ctx context.Context) (err error) {
		i := slices.Index(c.sides[:], s)
		tids := make([]string, len(rows))
		for at, row := range rows {
			tids[at] = row.tids[i]
		}
		found[i], err = s.hashes(ctx, t, tids)
		return err
	})
	if err != nil {
		return err
	}
	for _, row := range rows {
		source, target := found[0][row.tids[0]], found[1][row.tids[1]]
		if source == nil || target == nil {
			return fmt.Errorf("the row %s is no longer where it was", out.Rows[row.at].Key)
		}
		for i := range t.Columns {
			if source[i] != target[i] {
				out.Rows[row.at].Columns = append(out.Rows[row.at].Columns, t.ColumnList([]int{i}, ""))
			}
		}
	}
	return nil
}

// hashes returns the hashes of the columns of some rows.
func (s *compareSide) hashes(ctx context.Context, t *Table, tids []string) (map[string][]int64, error) {
	columns := make([]string, len(t.Columns))
	for i := range columns {
		columns[i] = "pg_catalog.hashtextextended(" + compareText(t, []int{i}, "t.") + ", 1)"
	}
	rows, err := s.conn.Query(ctx, fmt.Sprintf(`SELECT t.ctid::pg_catalog.text, ARRAY[%s] FROM ONLY %s AS t WHERE t.ctid OPERATOR(pg_catalog.=) ANY ('{"%s"}'::pg_catalog.tid[])`,
		strings.Join(columns, ", "), t, strings.Join(tids, `","`)), pgx.QueryExecModeExec)
	if err != nil {
		return nil, err
	}
	all := map[string][]int64{}
	var tid string
	var hashes []int64
	_, err = pgx.ForEachRow(rows, []any{&tid, &hashes}, func() error {
		all[tid] = slices.Clone(hashes)
		return nil
	})
	return all, err
}

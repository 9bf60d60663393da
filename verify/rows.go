package verify

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// storedRow is a row as it comes from a shard; of a table without a key, all rows
// that are alike.
type storedRow struct {
	order int64  // the key's hash, by which rows come
	key   string // of a table without a key, the whole row
	count int64
	hash  int64 // of the whole row
	text  string
}

// before compares by the order in which rows come. Whose turn it is does not depend
// on what a collation is on a server.
func (r *storedRow) before(o *storedRow) bool {
	return r.order < o.order || r.order == o.order && r.key < o.key
}

// shownBytes bounds what is kept of a row, in characters.
const shownBytes = 1000

// sorted returns the rows of a range in an order that all shards share. PostgreSQL
// sorts, on its disk if need be.
func (t *table) sorted(ctx context.Context, s *Session, r keyRange) (pgx.Rows, error) {
	row := rowText("t", t.columns)
	if len(t.key) == 0 {
		return s.rows(ctx, fmt.Sprintf(`SELECT hashtextextended(r, 0), r, n, 0::bigint, left(r, %d) FROM
			(SELECT %s AS r, count(*) AS n FROM %s GROUP BY 1) AS x ORDER BY 1, 2`, shownBytes, row, t.from("t")))
	}
	return s.rows(ctx, fmt.Sprintf(`SELECT hashtextextended(k, 0), k, 1::bigint, hashtextextended(r, 1), left(r, %d) FROM
		(SELECT %s AS k, %s AS r FROM %s WHERE %s) AS x ORDER BY 1, 2`, shownBytes, rowText("t", t.key), row, t.from("t"), t.within("t", []keyRange{r})))
}

// cursor walks over rows.
type cursor struct {
	rows pgx.Rows
	row  storedRow
	more bool
}

func (c *cursor) next() error {
	if c.more = c.rows.Next(); !c.more {
		return c.rows.Err()
	}
	return c.rows.Scan(&c.row.order, &c.row.key, &c.row.count, &c.row.hash, &c.row.text)
}

// rowsOf compares the rows of a range on the source with those on another shard.
func (c *Checker) rowsOf(ctx context.Context, t *table, r keyRange, shard int, into *ShardResult) error {
	var sides [2]*cursor
	for i, s := range []*Session{c.sessions[c.source], c.sessions[shard]} {
		rows, err := t.sorted(ctx, s, r)
		if err != nil {
			return fmt.Errorf("shard %s: %w", s.Shard, err)
		}
		defer rows.Close()
		sides[i] = &cursor{rows: rows}
		if err := sides[i].next(); err != nil {
			return fmt.Errorf("shard %s: %w", s.Shard, err)
		}
	}
	source, other := sides[0], sides[1]
	for source.more || other.more {
		var err error
		switch {
		case !other.more || source.more && source.row.before(&other.row):
			into.add(c.opts.Rows, RowResult{Kind: Missing, Key: t.keyOf(&source.row), Source: source.row.text}, source.row.count)
			err = source.next()
		case !source.more || other.row.before(&source.row):
			into.add(c.opts.Rows, RowResult{Kind: Extra, Key: t.keyOf(&other.row), Here: other.row.text}, other.row.count)
			err = other.next()
		default:
			t.both(&source.row, &other.row, c.opts.Rows, into)
			if err = source.next(); err == nil {
				err = other.next()
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// both compares two rows of one key.
func (t *table) both(source, other *storedRow, limit int, into *ShardResult) {
	switch n := source.count - other.count; {
	case n > 0:
		into.add(limit, RowResult{Kind: Missing, Source: source.text}, n)
	case n < 0:
		into.add(limit, RowResult{Kind: Extra, Here: other.text}, -n)
	case source.hash != other.hash:
		into.add(limit, RowResult{Kind: Different, Key: t.keyOf(source), Source: source.text, Here: other.text}, 1)
	}
}

// keyOf is a row's key as it is shown, "" without one.
func (t *table) keyOf(r *storedRow) string {
	if len(t.key) == 0 {
		return ""
	}
	names := make([]string, len(t.key))
	for i, c := range t.key {
		names[i] = quoted(c.name)
	}
	return "(" + strings.Join(names, ", ") + ") = " + r.key
}

package verify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
)

// next returns the range of the key that holds the next n rows of a session's
// copy, behind another one; last is set when there are no more.
func (t *table) next(ctx context.Context, s *Session, lo []string, n int) (r keyRange, last bool, err error) {
	texts := make([]string, len(t.key))
	for i, c := range t.key {
		texts[i] = "t." + quoted(c.name) + "::pg_catalog.text"
	}
	rows, err := s.rows(ctx, fmt.Sprintf("SELECT ARRAY[%s] FROM %s WHERE %s ORDER BY %s OFFSET %d LIMIT 1",
		strings.Join(texts, ", "), t.from("t"), t.within("t", []keyRange{{lo: lo}}), list("t", t.key), n-1))
	if err != nil {
		return keyRange{}, false, err
	}
	hi, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[[]string])
	if errors.Is(err, pgx.ErrNoRows) {
		return keyRange{lo: lo}, true, nil
	}
	return keyRange{lo: lo, hi: hi}, false, err
}

// tally is what a session has in some ranges: a count, and the sum of the rows'
// hashes, which does not depend on their order.
type tally struct {
	rows int64
	sum  string
}

func (t *table) tally(ctx context.Context, s *Session, ranges []keyRange) (p tally, err error) {
	err = s.row(ctx, fmt.Sprintf("SELECT count(*), coalesce(sum(hashtextextended(%s, 0)), 0)::text FROM %s WHERE %s",
		rowText("t", t.columns), t.from("t"), t.within("t", ranges))).Scan(&p.rows, &p.sum)
	return p, err
}

// tallies asks all sessions at once.
func (c *Checker) tallies(ctx context.Context, t *table, ranges []keyRange) ([]tally, error) {
	all := make([]tally, len(c.sessions))
	err := c.each(func(i int, s *Session) (err error) {
		all[i], err = t.tally(ctx, s, ranges)
		return err
	})
	return all, err
}

// each calls f for all sessions at once. The error is the first of them, by session.
func (c *Checker) each(f func(i int, s *Session) error) error {
	errs := make([]error, len(c.sessions))
	var group sync.WaitGroup
	for i, s := range c.sessions {
		group.Go(func() { errs[i] = f(i, s) })
	}
	group.Wait()
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("shard %s: %w", c.sessions[i].Shard, err)
		}
	}
	return nil
}

// same reports whether all have what the source has.
func (c *Checker) same(all []tally) bool {
	for _, p := range all {
		if p != all[c.source] {
			return false
		}
	}
	return true
}

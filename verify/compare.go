package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"shardproxy/catalog"
	"shardproxy/config"
)

// Options say how to compare. Rules is required.
type Options struct {
	// Rules say which tables are reference tables.
	Rules *config.Database
	// Source is the shard whose copies are right, the first session's when empty.
	Source string
	// Rows is how many differing rows are kept for each table and shard.
	Rows int
	// ChunkRows is how many rows are compared at a time; DefaultChunkRows when 0.
	ChunkRows int
	// Hold bounds how long a lock is held for one piece of a comparison, except
	// that a piece which was begun is brought to its end. DefaultHold when 0.
	Hold time.Duration
	// LockWait bounds how long locks are tried for; DefaultLockWait when 0.
	LockWait time.Duration
	// Logger hears of what takes long; slog.Default when nil.
	Logger *slog.Logger
}

// Defaults of Options.
const (
	DefaultChunkRows = 10000
	DefaultHold      = 2 * time.Second
	DefaultLockWait  = 30 * time.Second
)

// Checker compares reference tables over sessions, the home shard's first.
type Checker struct {
	opts     Options
	sessions []*Session
	source   int
}

// New returns a Checker of sessions that stay the caller's to close. The error is
// that no session is the source's, or that the sessions are of several clusters.
func New(sessions []*Session, o Options) (*Checker, error) {
	o.ChunkRows, o.Hold, o.LockWait = cmp.Or(o.ChunkRows, DefaultChunkRows), cmp.Or(o.Hold, DefaultHold), cmp.Or(o.LockWait, DefaultLockWait)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	c := &Checker{opts: o, sessions: sessions}
	if len(sessions) == 0 {
		return nil, errors.New("no shard can be asked")
	}
	if o.Source != "" {
		if c.source = slices.IndexFunc(sessions, func(s *Session) bool { return s.Shard == o.Source }); c.source < 0 {
			return nil, fmt.Errorf("shard %q, whose copies are to be the right ones, cannot be asked", o.Source)
		}
	}
	for _, s := range sessions {
		if s.Cluster != sessions[0].Cluster {
			return nil, fmt.Errorf("shards %s and %s are not of one cluster", sessions[0].Shard, s.Shard)
		}
	}
	return c, nil
}

// Tables returns the names of the reference tables that the source has, schema and
// name, sorted. Partitions are part of their table.
func (c *Checker) Tables() (names [][2]string) {
	for _, t := range c.sessions[c.source].Catalog.Tables() {
		if t.Root == nil && placeOf(c.opts.Rules, t).kind == reference {
			names = append(names, [2]string{t.Schema, t.Name})
		}
	}
	slices.SortFunc(names, func(a, b [2]string) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	return names
}

// Compare compares the copies of one reference table. What could not be compared is
// the result's Problem; an error is one of ctx.
func (c *Checker) Compare(ctx context.Context, schema, name string) (*TableResult, error) {
	out := &TableResult{Schema: schema, Name: name}
	for i, s := range c.sessions {
		if i != c.source {
			out.Shards = append(out.Shards, ShardResult{Shard: s.Shard})
		}
	}
	err := c.prepare(out)
	if err == nil {
		err = c.compare(ctx, out)
	}
	if err != nil {
		out.Problem = Told(err)
	}
	return out, ctx.Err()
}

// prepare finds the table on all shards.
func (c *Checker) prepare(out *TableResult) error {
	for _, i := range c.sourceFirst() {
		s := c.sessions[i]
		t, res := s.Catalog.Table(out.Schema, out.Name, s.Catalog.SystemPath())
		if res != catalog.Resolved {
			return fmt.Errorf("shard %s does not have it", s.Shard)
		}
		here := newTable(s.Catalog, t)
		switch {
		case len(here.columns) == 0:
			return fmt.Errorf("it has no columns on shard %s", s.Shard)
		case i == c.source:
			out.table = here
		case !out.table.alike(here):
			return fmt.Errorf("shard %s has other columns or another primary key than shard %s: see check --schema", s.Shard, c.sessions[c.source].Shard)
		}
	}
	return nil
}

func (c *Checker) sourceFirst() []int {
	order := []int{c.source}
	for i := range c.sessions {
		if i != c.source {
			order = append(order, i)
		}
	}
	return order
}

// compare looks without locks first, which finds all that differs and what only
// seems to; then it looks at that again under locks.
func (c *Checker) compare(ctx context.Context, out *TableResult) error {
	var suspects []keyRange
	err := c.chunks(ctx, out.table, func(r keyRange, all []tally) error {
		out.Rows += all[c.source].rows
		if c.same(all) {
			return nil
		}
		again, err := c.tallies(ctx, out.table, []keyRange{r})
		if err == nil && !c.same(again) {
			suspects = append(suspects, r)
		}
		return err
	})
	for err == nil && len(suspects) > 0 {
		suspects, err = c.confirm(ctx, out, suspects)
	}
	return err
}

// chunks calls f for all ranges of a table with what the shards have in them.
func (c *Checker) chunks(ctx context.Context, t *table, f func(keyRange, []tally) error) error {
	var lo []string
	for last := false; !last; {
		r := keyRange{}
		last = true
		if t.ranges {
			var err error
			if r, last, err = t.next(ctx, c.sessions[c.source], lo, c.opts.ChunkRows); err != nil {
				return fmt.Errorf("shard %s: %w", c.sessions[c.source].Shard, err)
			}
		}
		all, err := c.tallies(ctx, t, []keyRange{r})
		if err == nil {
			err = f(r, all)
		}
		if err != nil {
			return err
		}
		lo = r.hi
	}
	return nil
}

// confirm looks at ranges under locks that keep writers out, and returns those for
// which there was no time.
func (c *Checker) confirm(ctx context.Context, out *TableResult, suspects []keyRange) ([]keyRange, error) {
	if err := c.lock(ctx, "SHARE", []*table{out.table}); err != nil {
		return nil, err
	}
	defer c.rollback(ctx)
	began := time.Now()
	for n := 0; len(suspects) > 0 && (n == 0 || time.Since(began) < c.opts.Hold); n++ {
		r := suspects[0]
		suspects = suspects[1:]
		all, err := c.tallies(ctx, out.table, []keyRange{r})
		if err != nil {
			return nil, err
		}
		if c.same(all) {
			continue
		}
		out.ranges = append(out.ranges, r)
		to := 0
		for i := range c.sessions {
			if i == c.source {
				continue
			}
			if all[i] != all[c.source] {
				if err := c.rowsOf(ctx, out.table, r, i, &out.Shards[to]); err != nil {
					return nil, err
				}
			}
			to++
		}
	}
	return suspects, nil
}

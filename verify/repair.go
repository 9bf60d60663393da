package verify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"shardproxy/catalog"
)

// Commit commits the transactions of sessions on all of them or on none. An error
// means that nothing was committed, or, if it says so, that it is not known.
type Commit func(ctx context.Context, sessions []*Session) error

// Repair makes the copies on the other shards what the source has, in one
// transaction over all shards, by results that Compare returned. Writers of these
// tables wait until it ends. What is done is noted in the results, from what
// is there when the locks are held. On an error nothing is changed unless it is
// one of commit; Told says it with what the server adds.
func (c *Checker) Repair(ctx context.Context, results []*TableResult, commit Commit) error {
	r := &repair{Checker: c, suffix: strings.ToLower(rand.Text())}
	for _, res := range results {
		if res.Problem == "" && res.Differs() {
			r.jobs = append(r.jobs, &job{TableResult: res, ranges: merged(res.ranges), stage: quoted("shardproxy", fmt.Sprintf("repair_%d_%s", len(r.jobs), r.suffix))})
		}
	}
	if len(r.jobs) == 0 {
		return nil
	}
	r.sort()
	tables := make([]*table, len(r.jobs))
	for i, j := range r.jobs {
		tables[i] = j.table
	}
	if err := c.lock(ctx, "SHARE ROW EXCLUSIVE", tables); err != nil {
		return err
	}
	ended := false
	defer func() {
		if !ended {
			c.rollback(ctx)
		}
	}()
	if err := r.run(ctx); err != nil {
		r.forget()
		return err
	}
	written := r.written()
	err := commit(ctx, written)
	ended = true
	for _, s := range c.sessions {
		if !slices.Contains(written, s) {
			s.rollback(ctx)
		}
	}
	if err != nil {
		r.forget()
	}
	return err
}

// repair is the mending of some tables.
type repair struct {
	*Checker
	suffix string
	jobs   []*job // a table that is referred to before those that refer to it
}

// job is the mending of one table.
type job struct {
	*TableResult
	ranges  []keyRange
	stage   string // the table, on each target, that holds the source's rows
	targets []int  // sessions
}

// sort puts tables before those that refer to them, as far as that can be.
func (r *repair) sort() {
	of := map[*catalog.Table]*job{}
	s := r.sessions[r.source]
	for _, j := range r.jobs {
		t, _ := s.Catalog.Table(j.Schema, j.Name, s.Catalog.SystemPath())
		of[t] = j
	}
	var order []*job
	seen := map[*catalog.Table]bool{}
	var visit func(t *catalog.Table)
	visit = func(t *catalog.Table) {
		if seen[t] {
			return
		}
		seen[t] = true
		for _, fk := range t.ForeignKeys {
			visit(fk.References)
		}
		if of[t] != nil {
			order = append(order, of[t])
		}
	}
	for _, j := range r.jobs {
		t, _ := s.Catalog.Table(j.Schema, j.Name, s.Catalog.SystemPath())
		visit(t)
	}
	r.jobs = order
}

// run does all but the commit: rows go from the tables that refer to others first,
// and come to them last.
func (r *repair) run(ctx context.Context) error {
	for _, j := range r.jobs {
		for i := range j.Shards {
			if j.Shards[i].Differs() {
				j.targets = append(j.targets, r.session(j.Shards[i].Shard))
				j.Shards[i].Repaired = &Repaired{}
			}
		}
		if err := r.bring(ctx, j); err != nil {
			return fmt.Errorf("table %s: %w", j.table.sql(), err)
		}
	}
	// From here on triggers run: they see the search_path that is usual there.
	if err := r.each(func(_ int, s *Session) error { return s.exec(ctx, "SET LOCAL search_path TO DEFAULT") }); err != nil {
		return err
	}
	for _, j := range slices.Backward(r.jobs) {
		if err := r.onTargets(j, func(s *Session, did *Repaired) (err error) { return r.remove(ctx, j, s, did) }); err != nil {
			return err
		}
	}
	for _, j := range r.jobs {
		if err := r.onTargets(j, func(s *Session, did *Repaired) error { return r.put(ctx, j, s, did) }); err != nil {
			return err
		}
	}
	if err := r.each(func(_ int, s *Session) error { return s.exec(ctx, "SET LOCAL search_path = pg_catalog") }); err != nil {
		return err
	}
	return r.check(ctx)
}

func (r *repair) session(shard string) int {
	return slices.IndexFunc(r.sessions, func(s *Session) bool { return s.Shard == shard })
}

// onTargets calls f for all targets at once.
func (r *repair) onTargets(j *job, f func(s *Session, did *Repaired) error) error {
	return r.each(func(i int, s *Session) error {
		if !slices.Contains(j.targets, i) {
			return nil
		}
		if err := f(s, j.did(s.Shard)); err != nil {
			return fmt.Errorf("table %s: %w", j.table.sql(), err)
		}
		return nil
	})
}

func (j *job) did(shard string) *Repaired {
	return j.Shards[slices.IndexFunc(j.Shards, func(s ShardResult) bool { return s.Shard == shard })].Repaired
}

// check compares once more what was written, and clears away.
func (r *repair) check(ctx context.Context) error {
	for _, j := range r.jobs {
		all, err := r.tallies(ctx, j.table, j.ranges)
		if err != nil {
			return err
		}
		for _, i := range j.targets {
			if all[i] != all[r.source] {
				return fmt.Errorf("table %s on shard %s does not become what it is on shard %s: is there a trigger, a rule or a generated column that makes something else of the rows?",
					j.table.sql(), r.sessions[i].Shard, r.sessions[r.source].Shard)
			}
			if err := r.sessions[i].exec(ctx, "DROP TABLE "+j.stage); err != nil {
				return fmt.Errorf("shard %s: %w", r.sessions[i].Shard, err)
			}
		}
	}
	return nil
}

// written returns the sessions that have something to commit.
func (r *repair) written() (all []*Session) {
	for i, s := range r.sessions {
		if slices.ContainsFunc(r.jobs, func(j *job) bool { return slices.Contains(j.targets, i) }) {
			all = append(all, s)
		}
	}
	return all
}

// forget takes back what the results say.
func (r *repair) forget() {
	for _, j := range r.jobs {
		for i := range j.Shards {
			j.Shards[i].Repaired = nil
		}
	}
}

// ErrInTheWay is wrapped by Repair's errors that a person has to look into: rows on
// other tables depend on what a repair would change.
var ErrInTheWay = errors.New("rows of other tables are in the way")

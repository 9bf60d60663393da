package twopc

import (
	"context"
	"errors"
)

const (
	sweepBatch     = 10_000
	tombstoneTimes = 24
)

// Rows that nobody can need any more. A decision: no shard has a part left, and
// none can get one, for all were there before it was made. A tombstone: besides,
// every transaction that was running when it was written has ended, so that no
// late coordinator is left for it to stop. A batch at a time, so that no
// transaction is long; what another sweep is at is left to it.
const sweepSQL = `DELETE FROM shardproxy.commits WHERE ctid = ANY (ARRAY(
	SELECT ctid FROM shardproxy.commits
	 WHERE CASE WHEN committed THEN decided_at < clock_timestamp() - $1::float8 * interval '1 second'
	            ELSE decided_at < clock_timestamp() - $2::float8 * interval '1 second' AND xid < pg_snapshot_xmin(pg_current_snapshot()) END
	   AND NOT gid = ANY ($3::text[])
	 LIMIT $4::int FOR UPDATE SKIP LOCKED))`

// sweepPartsSQL deletes what no snapshot can need that is younger than the rows are kept.
const sweepPartsSQL = `DELETE FROM shardproxy.parts WHERE ctid = ANY (ARRAY(
	SELECT ctid FROM shardproxy.parts WHERE made_at < clock_timestamp() - $1::float8 * interval '1 second' LIMIT $2::int FOR UPDATE SKIP LOCKED))`

// sweep deletes old rows, if every shard can be asked what it has prepared.
// The connections are new: a former primary may lack what the primary has.
func (r *Resolver) sweep(ctx context.Context) {
	sessions, errs, lists := make([]*session, len(r.opts.Shards)), make([]error, len(r.opts.Shards)), make([][]*part, len(r.opts.Shards))
	each(r.everyShard(), func(i int) {
		if sessions[i], errs[i] = r.connect(ctx, i); errs[i] == nil {
			lists[i], errs[i] = sessions[i].list(ctx, r.opts.Cluster, i)
		}
	})
	defer func() {
		for _, s := range sessions {
			if s != nil {
				s.close()
			}
		}
	}()
	err := errors.Join(notSpare(errs)...)
	needed := []string{}
	for _, list := range lists {
		for _, p := range list {
			needed = append(needed, p.gid)
		}
	}
	if err == nil {
		each(r.everyShard(), func(i int) {
			if sessions[i] != nil {
				errs[i] = r.remove(ctx, sessions[i], needed)
			}
		})
		err = errors.Join(errs...)
	}
	if err != nil && ctx.Err() == nil {
		r.opts.Logger.Warn("cannot remove old decisions of transactions over several shards", "error", err)
	}
}

// remove deletes a shard's old rows but for those that are needed.
func (r *Resolver) remove(ctx context.Context, s *session, needed []string) error {
	keep := r.opts.Keep
	for n := int64(sweepBatch); n == sweepBatch; {
		var err error
		if n, _, err = s.exec(ctx, sweepPartsSQL, keep.Seconds(), sweepBatch); err != nil {
			return err
		}
	}
	for {
		n, _, err := s.exec(ctx, sweepSQL, keep.Seconds(), (tombstoneTimes * keep).Seconds(), needed, sweepBatch)
		if err != nil {
			return err
		}
		r.mu.Lock()
		r.stats.Removed += uint64(n)
		r.mu.Unlock()
		if n < sweepBatch {
			return nil
		}
	}
}

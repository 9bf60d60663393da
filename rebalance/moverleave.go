package rebalance

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/metadata"
)

// leaving does what belongs to the phase of a shard that leaves. It owns no slots any more: with the flip the map does not have it, and writes
// of what all shards have wait until every proxy knows. What it still has prepared is finished before anybody is told that
// its server may be shut down.
func (r *moving) leaving(ctx context.Context, blockers []*Blocker) error {
	switch r.move.Phase {
	case metadata.MovePlanned:
		return r.leavePlanned(ctx, blockers)
	case metadata.MoveFollowing:
		return r.followNone(ctx)
	case metadata.MoveFlipped:
		return r.joined(ctx)
	case metadata.MovePurging:
		return r.left(ctx)
	case metadata.MoveAborting:
		if err := r.unhold(ctx); err != nil {
			return err
		}
		return r.to(ctx, metadata.MoveAborted, r.move.Said)
	}
	return fmt.Errorf("phase %q is none of a shard that leaves", r.move.Phase)
}

func (r *moving) leavePlanned(ctx context.Context, blockers []*Blocker) error {
	now, _, err := metadata.Load(ctx, r.home)
	if err != nil {
		return err
	}
	if n := len(now.SlotsOf(r.source.Name)); n > 0 {
		blockers = append(blockers, &Blocker{Shard: r.source.Name, Reason: fmt.Sprintf("it owns %d slots", n), Hint: "move them away first"})
	}
	home, err := r.m.o.Shards[0].connect(ctx)
	if err != nil {
		return err
	}
	defer carryClose(home.PgConn())
	c, err := r.m.o.Shards[0].catalog(ctx, home)
	if err != nil {
		return err
	}
	if blockers = append(blockers, r.m.o.Stays(c, r.source.Name)...); len(blockers) > 0 {
		return r.to(ctx, metadata.MoveAborted, (&PreflightReport{Blockers: blockers}).String())
	}
	return r.to(ctx, metadata.MoveFollowing, "")
}

// left waits for transactions that have written on the shard, and until none of their parts is in doubt there or waits for what
// it has decided.
func (r *moving) left(ctx context.Context) error {
	if r.move.Abort {
		return r.to(ctx, metadata.MoveDone, "what is prepared was not waited for: it was given up")
	}
	if err := r.spread(ctx); err != nil {
		return err
	}
	now, _, err := metadata.Load(ctx, r.home)
	if err != nil {
		return err
	}
	err = r.await(ctx, time.Time{}, "transactions that began before the shard left", func(a *metadata.Acknowledgement) bool { return a.Writes >= now.Epoch() })
	if err != nil {
		return err
	}
	shards := []*MoverShard{r.source}
	for i := range r.m.o.Shards {
		if s := &r.m.o.Shards[i]; slices.Contains(now.Shards(), s.Name) {
			shards = append(shards, s)
		}
	}
	for _, s := range shards {
		if err := r.finished(ctx, s); err != nil {
			return err
		}
	}
	return r.to(ctx, metadata.MoveDone, "")
}

// finished waits until no transaction is prepared on a shard that is now.
func (r *moving) finished(ctx context.Context, s *MoverShard) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer carryClose(conn.PgConn())
	ask := func(among []string) ([]string, error) {
		rows, err := conn.Query(ctx, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND ($1::text[] IS NULL OR gid = ANY ($1))", among)
		if err != nil {
			return nil, err
		}
		return pgx.CollectRows(rows, pgx.RowTo[string])
	}
	gids, err := ask(nil)
	for begin := time.Now(); err == nil && len(gids) > 0; gids, err = ask(gids) {
		if time.Since(begin) > moverTell {
			r.say(ctx, fmt.Sprintf("waits for %d prepared transactions on shard %s, as %s", len(gids), s.Name, gids[0]))
		}
		if err := carrySleep(ctx, moverWatch); err != nil {
			return err
		}
		if err := r.reread(ctx); err != nil || r.move.Abort {
			return err
		}
	}
	return err
}

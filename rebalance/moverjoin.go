package rebalance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"shardproxy/metadata"
)

// joining does what belongs to the phase of a shard that joins. Its server has the schema, and is marked as the shard that it is to be; what is
// to come are the rows of the tables that every shard has whole. They are copied and followed as those of a slot are, and with the flip
// the map has the shard.
func (r *moving) joining(ctx context.Context, blockers []*Blocker) error {
	switch r.move.Phase {
	case metadata.MovePlanned:
		return r.joinPlanned(ctx, blockers)
	case metadata.MoveCopying:
		return r.copying(ctx)
	case metadata.MoveFollowing:
		return r.following(ctx)
	case metadata.MoveFlipped:
		return r.joined(ctx)
	case metadata.MovePurging:
		return r.joinCleaned(ctx)
	case metadata.MoveAborting:
		return r.aborting(ctx)
	}
	return fmt.Errorf("phase %q is none of a shard that joins", r.move.Phase)
}

// joinPlanned waits until every proxy can reach the shard, and looks for what is in the way.
func (r *moving) joinPlanned(ctx context.Context, blockers []*Blocker) error {
	name := r.target.Name
	err := r.await(ctx, time.Time{}, "the configuration to name shard "+name, r.knownTo)
	if err != nil {
		return err
	}
	now, _, err := metadata.Load(ctx, r.home)
	if err != nil {
		return err
	}
	conn, err := r.target.connect(ctx)
	if err != nil {
		return err
	}
	defer carryClose(conn.PgConn())
	want := *r.cluster
	want.Shard = name
	if _, err := metadata.RaiseEpoch(ctx, conn, &want, now.Epoch()); err != nil {
		if errors.Is(err, metadata.ErrUnreachable) {
			return err
		}
		return r.to(ctx, metadata.MoveAborted, err.Error())
	}
	if err := metadata.SetMaker(ctx, conn, r.move.Maker); err != nil {
		return err
	}
	differs, err := r.m.o.Differences(ctx, name)
	if err != nil {
		return err
	}
	if differs != "" {
		return r.to(ctx, metadata.MoveAborted, "its definitions are not those of shard "+r.source.Name+": "+differs)
	}
	return r.preflight(ctx, blockers, metadata.MoveCopying)
}

// knownTo reports whether a proxy can reach the shard that joins.
func (r *moving) knownTo(a *metadata.Acknowledgement) bool {
	return r.move.Kind != metadata.MoveJoin || slices.Contains(a.Shards, r.target.Name)
}

// joined lets writes go on once all proxies know which shards there are now. Statements that began before are not waited for: one of them may wait
// for a transaction that waits until writes go on.
func (r *moving) joined(ctx context.Context) error {
	now, _, err := metadata.Load(ctx, r.home)
	if err != nil {
		return err
	}
	err = r.await(ctx, time.Time{}, "the shards that there are now to be known", func(a *metadata.Acknowledgement) bool { return a.Epoch >= now.Epoch() })
	if err != nil {
		return err
	}
	// The fence of one that joins is on the home shard, which is written on. There may be none, as for one that leaves.
	home := r.m.o.Shards[0]
	conn, err := home.connect(ctx)
	if err != nil {
		return err
	}
	defer carryClose(conn.PgConn())
	if err := execSimple(ctx, conn, "UPDATE shardproxy.fences SET closed = false WHERE closed AND move = '"+r.move.Name()+"'"); err != nil {
		return fmt.Errorf("shard %s: the fence: %w", home.Name, err)
	}
	if err := r.unhold(ctx); err != nil {
		return err
	}
	return r.to(ctx, metadata.MovePurging, "")
}

// spread tells all shards the newest map. Nobody waits for it: a shard may be away.
func (r *moving) spread(ctx context.Context) error {
	now, c, err := metadata.Load(ctx, r.home)
	if err != nil {
		return err
	}
	return metadata.SpreadEpoch(ctx, c, r.m.shards(now), now.Epoch())
}

// joinCleaned takes away what the move has made.
func (r *moving) joinCleaned(ctx context.Context) error {
	if err := r.spread(ctx); err != nil {
		return err
	}
	if err := r.carry.Clean(ctx); err != nil {
		return err
	}
	if err := r.unfence(ctx); err != nil {
		return err
	}
	if err := r.carry.Forget(ctx); err != nil {
		return err
	}
	return r.to(ctx, metadata.MoveDone, "")
}

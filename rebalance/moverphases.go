package rebalance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/metadata"
)

// step does what belongs to the phase of the move, and ends with another one stored. Every step can be repeated from its
// beginning, by whoever comes next.
func (r *moving) step(ctx context.Context, blockers []*Blocker) error {
	switch r.move.Phase {
	case metadata.MovePlanned:
		return r.planned(ctx, blockers)
	case metadata.MoveHiding:
		return r.hiding(ctx)
	case metadata.MoveCopying:
		return r.copying(ctx)
	case metadata.MoveFollowing:
		return r.following(ctx)
	case metadata.MoveFlipped:
		return r.releasing(ctx)
	case metadata.MovePurging:
		return r.purging(ctx)
	case metadata.MoveAborting:
		return r.aborting(ctx)
	}
	return fmt.Errorf("phase %q is not known", r.move.Phase)
}

// planned looks for what is in the way.
func (r *moving) planned(ctx context.Context, blockers []*Blocker) error {
	report := &PreflightReport{Blockers: blockers}
	if may, err := r.mayCutOff(ctx); err != nil {
		return err
	} else if !may {
		blockers = append(blockers, &Blocker{Shard: r.m.o.Shards[0].Name, Reason: "the control user may not end sessions of others, as those of a proxy that is gone",
			Hint: "GRANT pg_signal_backend TO it, on all shards"})
		report.Blockers = blockers
	}
	if len(blockers) == 0 {
		sides := make([]*PreflightSide, 2)
		for i, s := range []*MoverShard{r.source, r.target} {
			conn, err := s.connect(ctx)
			if err != nil {
				return err
			}
			defer carryClose(conn.PgConn())
			c, err := s.catalog(ctx, conn)
			if err != nil {
				return err
			}
			sides[i] = &PreflightSide{Shard: s.Name, Conn: conn, Catalog: c}
		}
		var err error
		if report, err = Preflight(ctx, sides[0], sides[1], r.tables, r.slots, PreflightOptions{}); err != nil {
			return err
		}
	}
	if len(report.Blockers) > 0 {
		return r.to(ctx, metadata.MoveAborted, (&PreflightReport{Blockers: report.Blockers}).String())
	}
	return r.to(ctx, metadata.MoveHiding, "")
}

// mayCutOff reports whether the control user may end sessions.
func (r *moving) mayCutOff(ctx context.Context) (may bool, err error) {
	err = r.home.QueryRow(ctx, "SELECT rolsuper OR pg_has_role('pg_signal_backend', 'USAGE') FROM pg_roles WHERE rolname = current_user").Scan(&may)
	return may, err
}

// hiding has everybody leave out what comes to the target.
func (r *moving) hiding(ctx context.Context) error {
	if err := r.hide(ctx, r.target, true); err != nil {
		return err
	}
	guarded, err := r.m.guard(ctx, r.home, true)
	if err != nil {
		return err
	}
	err = r.await(ctx, time.Time{}, "statements that began before rows are hidden", func(a *metadata.Acknowledgement) bool { return a.Statements >= guarded.Epoch() })
	if err != nil {
		return err
	}
	return r.to(ctx, metadata.MoveCopying, "")
}

// copying carries the rows over that are there.
func (r *moving) copying(ctx context.Context) error {
	if err := r.hide(ctx, r.target, true); err != nil { // a target that has failed over may have lost it
		return err
	}
	var origin Origin
	err := r.watched(ctx, func() { r.move.Copied = r.carry.Counts().CopiedRows }, func(ctx context.Context) error {
		if err := r.carry.Clean(ctx); err != nil {
			return err
		}
		if err := r.carry.ClearTarget(ctx); err != nil {
			return err
		}
		snapshot, err := r.carry.Prepare(ctx)
		if err != nil {
			return err
		}
		defer snapshot.Close()
		origin = snapshot.Origin
		return r.carry.Copy(ctx, snapshot, r.m.o.Workers)
	})
	if err != nil {
		return err
	}
	if r.move.Origin, err = json.Marshal(origin); err != nil {
		return err
	}
	return r.to(ctx, metadata.MoveFollowing, "")
}

// following carries changes over until the target owns the slots.
func (r *moving) following(ctx context.Context) error {
	var origin Origin
	if err := json.Unmarshal(r.move.Origin, &origin); err != nil {
		return fmt.Errorf("where the changes begin: %w", err)
	}
	source, err := r.source.connect(ctx)
	if err != nil {
		return err
	}
	defer carryClose(source.PgConn())
	if err := r.fence(ctx); err != nil {
		return err
	}
	if err := r.release(ctx, source); err != nil { // what a mover before has held
		return err
	}
	inner, cancel := context.WithCancel(ctx)
	followed := make(chan error, 1)
	go func() {
		followed <- r.carry.Follow(inner, origin)
		cancel()
	}()
	err = r.takeOver(inner, source)
	cancel()
	stream := <-followed
	switch {
	case err == nil || r.move.Phase.Flipped():
		return err
	case ctx.Err() == nil && stream != nil && !errors.Is(stream, context.Canceled):
		return stream // which is why the rest failed
	}
	return err
}

// takeOver compares the rows of both sides, and then has the target own the slots.
func (r *moving) takeOver(ctx context.Context, source *pgx.Conn) error {
	if !r.move.Verified {
		if err := r.verify(ctx, source); err != nil {
			return err
		}
	}
	defer r.disconnect()
	return r.heldAgain(ctx, source, r.flip)
}

// sameTables makes sure that no table has come whose rows would not be carried over. What comes later changes what definitions
// returns; while writes are held nobody can make any through a proxy.
func (r *moving) sameTables(ctx context.Context, source *pgx.Conn) (err error) {
	if r.defined, err = definitions(ctx, source); err != nil {
		return err
	}
	c, err := r.source.catalog(ctx, source)
	if err != nil {
		return err
	}
	tables, blockers := r.m.o.Tables(c, r.slots, r.total)
	if len(blockers) > 0 {
		return &CarryError{Cause: Redefined, Table: blockers[0].Table, Reason: "a definition has changed: " + blockers[0].Reason, Hint: blockers[0].Hint}
	}
	known := map[string]bool{}
	for _, t := range r.tables {
		known[t.String()] = true
	}
	for _, t := range tables {
		if !known[t.String()] {
			return &CarryError{Cause: Redefined, Table: t.String(), Reason: "the table was made while its slots move", Hint: "start the move again"}
		}
		delete(known, t.String())
	}
	for name := range known {
		return &CarryError{Cause: Redefined, Table: name, Reason: "the table was dropped or renamed while its slots move", Hint: "start the move again"}
	}
	return nil
}

// definitions returns what changes whenever a table is made, dropped or altered.
func definitions(ctx context.Context, conn *pgx.Conn) (is string, err error) {
	err = conn.QueryRow(ctx, `SELECT count(*) || ' ' || coalesce(sum(hashint8extended(oid::int8, xmin::text::int8)), 0)
		FROM pg_class WHERE relkind IN ('r', 'p') AND relpersistence <> 't'`).Scan(&is)
	return is, err
}

// verify compares the rows of both sides. Both are seen as they are while writes are held, and read when these go on.
func (r *moving) verify(ctx context.Context, source *pgx.Conn) error {
	a, err := r.source.connect(ctx)
	if err != nil {
		return err
	}
	defer carryClose(a.PgConn())
	b, err := r.target.connect(ctx)
	if err != nil {
		return err
	}
	defer carryClose(b.PgConn())
	err = r.heldAgain(ctx, source, func(ctx context.Context, _ *pgx.Conn, _ time.Time) error {
		for _, conn := range []*pgx.Conn{a, b} {
			if _, err := conn.Exec(ctx, "ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var found *Comparison
	err = r.watched(ctx, func() {}, func(ctx context.Context) (err error) {
		found, err = Compare(ctx, a, b, r.tables, r.slots, CompareOptions{})
		return err
	})
	if err != nil {
		return err
	}
	if !found.Equal() {
		return &CarryError{Cause: Unequal, Reason: "the rows of both shards differ: " + found.String(), Hint: "this is a fault of the move, or somebody else wrote to the target"}
	}
	r.move.Verified = true
	return r.to(ctx, r.move.Phase, "the rows of both shards are equal")
}

// releasing lets writes go to the target once all proxies know that it owns the slots.
func (r *moving) releasing(ctx context.Context) error {
	// Parts of the flip may be in doubt, which is waited for, or lost with a server that has failed over.
	if err := r.hide(ctx, r.source, true); err != nil {
		return err
	}
	if err := r.hide(ctx, r.target, false); err != nil {
		return err
	}
	now, _, err := metadata.Load(ctx, r.home)
	if err != nil {
		return err
	}
	if err := r.await(ctx, time.Time{}, "the new owner of the slots to be known", func(a *metadata.Acknowledgement) bool { return a.Epoch >= now.Epoch() }); err != nil {
		return err
	}
	if _, err := r.held(ctx, false); err != nil {
		return err
	}
	if !r.flipped.IsZero() {
		r.move.HeldMs = int(time.Since(r.flipped).Milliseconds())
	}
	return r.to(ctx, metadata.MovePurging, "")
}

// purging deletes the rows of the source, which nobody reads any more, and what the move has made.
func (r *moving) purging(ctx context.Context) error {
	if err := r.carry.Clean(ctx); err != nil { // first: nobody may follow the deletes
		return err
	}
	now, _, err := metadata.Load(ctx, r.home)
	if err != nil {
		return err
	}
	err = r.await(ctx, time.Time{}, "statements that began before the slots had their new owner", func(a *metadata.Acknowledgement) bool { return a.Statements >= now.Epoch() })
	if err != nil {
		return err
	}
	if err := r.hide(ctx, r.source, true); err != nil { // the source may have failed over since the flip
		return err
	}
	conn, err := r.source.connect(ctx)
	if err != nil {
		return err
	}
	defer carryClose(conn.PgConn())
	purge := NewPurge(r.tables, r.slots, PurgeOptions{RowsPerSecond: r.m.o.PurgeRows})
	before := r.move.Purged
	err = r.watched(ctx, func() { r.move.Purged = before + purge.Progress().Deleted }, func(ctx context.Context) error { return purge.Run(ctx, conn) })
	if err != nil {
		return err
	}
	if err := r.hide(ctx, r.source, false); err != nil {
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

// aborting takes everything away that the move has made.
func (r *moving) aborting(ctx context.Context) error {
	if _, err := r.held(ctx, false); err != nil {
		return err
	}
	if err := r.unfence(ctx); err != nil {
		return err
	}
	if err := r.carry.Clean(ctx); err != nil {
		return err
	}
	if err := r.carry.ClearTarget(ctx); err != nil {
		return err
	}
	if err := r.hide(ctx, r.target, false); err != nil {
		return err
	}
	return r.to(ctx, metadata.MoveAborted, r.move.Said)
}

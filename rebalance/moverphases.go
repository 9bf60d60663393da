package rebalance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/metadata"
	"shardproxy/shardmap"
)

// step does what belongs to the phase of the move, and ends with another one stored. Every step can be repeated from its
// beginning, by whoever comes next.
func (r *moving) step(ctx context.Context, blockers []*Blocker) error {
	switch r.move.Kind {
	case metadata.MoveJoin:
		return r.joining(ctx, blockers)
	case metadata.MoveLeave:
		return r.leaving(ctx, blockers)
	}
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
	case metadata.MoveReversing:
		if r.move.Wanted == metadata.WantRollback {
			return r.turnBack(ctx)
		}
		return r.to(ctx, metadata.MovePurging, "")
	case metadata.MovePurging:
		return r.purging(ctx)
	case metadata.MoveAborting:
		if r.move.Back {
			return r.turnForth(ctx)
		}
		return r.aborting(ctx)
	}
	return fmt.Errorf("phase %q is not known", r.move.Phase)
}

// planned looks for what is in the way.
func (r *moving) planned(ctx context.Context, blockers []*Blocker) error {
	now, _, err := metadata.Load(ctx, r.home)
	if err != nil {
		return err
	}
	if !slices.Contains(now.Shards(), r.target.Name) { // it was to join before
		return r.to(ctx, metadata.MoveAborted, "shard "+r.target.Name+" has not joined the cluster")
	}
	return r.preflight(ctx, blockers, metadata.MoveHiding)
}

// preflight looks at both shards, and goes on to another phase, or gives the move up.
func (r *moving) preflight(ctx context.Context, blockers []*Blocker, next metadata.MovePhase) error {
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
	return r.to(ctx, next, "")
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
	guarded, err := r.guard(ctx)
	if err != nil {
		return err
	}
	err = r.await(ctx, time.Time{}, "statements that began before rows are hidden", func(a *metadata.Acknowledgement) bool { return a.Statements >= guarded.Epoch() })
	if err != nil {
		return err
	}
	return r.to(ctx, metadata.MoveCopying, "")
}

// guard has statements over several shards leave hidden rows out, from the returned map on.
func (r *moving) guard(ctx context.Context) (*shardmap.Map, error) {
	if err := r.alone(ctx); err != nil {
		return nil, err
	}
	defer r.share()
	return r.m.guard(ctx, r.home, true)
}

// copying carries the rows over that are there.
func (r *moving) copying(ctx context.Context) error {
	if r.move.Kind == metadata.MoveSlots {
		if err := r.hide(ctx, r.target, true); err != nil { // a target that has failed over may have lost it
			return err
		}
	}
	if r.empty() {
		return r.to(ctx, metadata.MoveFollowing, "")
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
	if r.empty() {
		return r.followNone(ctx)
	}
	origin, err := originOf(r.move.Origin)
	if err != nil {
		return err
	}
	source, err := r.source.connect(ctx)
	if err != nil {
		return err
	}
	defer carryClose(source.PgConn())
	if err := r.fence(ctx); err != nil {
		return err
	}
	if err := r.releaseAlone(ctx, source); err != nil { // what a mover before has held
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

// empty reports whether there is no table of which rows are to be carried.
func (r *moving) empty() bool { return len(r.tables) == 0 }

// followNone is following where nothing is to be carried. The definitions of a shard that leaves are asked of the home shard: its own server
// may be lost.
func (r *moving) followNone(ctx context.Context) error {
	from := r.source
	if r.move.Kind == metadata.MoveLeave {
		from = &r.m.o.Shards[0]
	}
	source, err := from.connect(ctx)
	if err != nil {
		return err
	}
	defer carryClose(source.PgConn())
	if err := r.releaseAlone(ctx, source); err != nil { // what a mover before has held
		return err
	}
	return r.takeOver(ctx, source)
}

// check makes sure that what is carried is all that there is.
func (r *moving) check(ctx context.Context, source *pgx.Conn) error {
	if r.empty() {
		return nil
	}
	return r.carry.Check(ctx, source)
}

// takeOver compares the rows of both sides, and then has the target own the slots.
func (r *moving) takeOver(ctx context.Context, source *pgx.Conn) error {
	if !r.move.Verified && !r.empty() {
		if err := r.verify(ctx, source); err != nil {
			return err
		}
	}
	if r.reverse != nil && !r.empty() {
		if err := r.prepareReverse(ctx); err != nil {
			return err
		}
	}
	defer r.disconnect()
	return r.heldAgain(ctx, source, r.flip)
}

// sameTables makes sure that no table has come whose rows would not be carried over. What comes later changes what definitions
// returns; while writes are held nobody can make any through a proxy.
func (r *moving) sameTables(ctx context.Context, source *pgx.Conn) (err error) {
	if r.defined, err = r.definitions(ctx, source); err != nil {
		return err
	}
	if r.move.Kind == metadata.MoveJoin {
		differs, err := r.m.o.Differences(ctx, r.target.Name)
		if err != nil {
			return err
		}
		if differs != "" {
			return &CarryError{Cause: Redefined, Reason: "definitions have changed: " + differs, Hint: "start it again"}
		}
	}
	c, err := r.source.catalog(ctx, source)
	if err != nil {
		return err
	}
	tables, blockers := r.movable(c)
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

// tableDefinitions returns what changes whenever a table is made, dropped or altered.
const tableDefinitions = `SELECT count(*) || ' ' || coalesce(sum(hashint8extended(oid::int8, xmin::text::int8)), 0)
	FROM pg_class WHERE relkind IN ('r', 'p') AND relpersistence <> 't'`

// allDefinitions returns what changes whenever anything is defined that a shard which joins must have as well. Temporary tables are none of it.
const allDefinitions = `WITH kept AS MATERIALIZED (SELECT oid, xmin FROM pg_class WHERE relpersistence <> 't'), made (class, oid, part, xmin) AS (
		SELECT 1, oid::int8, 0, xmin FROM kept
		UNION ALL SELECT 2, attrelid::int8, attnum, a.xmin FROM pg_attribute a JOIN kept ON kept.oid = attrelid
		UNION ALL SELECT 3, d.oid::int8, 0, d.xmin FROM pg_attrdef d JOIN kept ON kept.oid = adrelid
		UNION ALL SELECT 4, c.oid::int8, 0, c.xmin FROM pg_constraint c LEFT JOIN kept ON kept.oid = conrelid WHERE conrelid = 0 OR kept.oid IS NOT NULL
		UNION ALL SELECT 5, i.indexrelid::int8, 0, i.xmin FROM pg_index i JOIN kept ON kept.oid = indexrelid
		UNION ALL SELECT 6, t.oid::int8, 0, t.xmin FROM pg_trigger t JOIN kept ON kept.oid = tgrelid
		UNION ALL SELECT 7, r.oid::int8, 0, r.xmin FROM pg_rewrite r JOIN kept ON kept.oid = ev_class
		UNION ALL SELECT 8, p.oid::int8, 0, p.xmin FROM pg_policy p
		UNION ALL SELECT 9, p.oid::int8, 0, p.xmin FROM pg_proc p
		UNION ALL SELECT 10, t.oid::int8, 0, t.xmin FROM pg_type t LEFT JOIN kept ON kept.oid = typrelid WHERE typelem = 0 AND (typrelid = 0 OR kept.oid IS NOT NULL)
		UNION ALL SELECT 11, oid::int8, 0, xmin FROM pg_enum
		UNION ALL SELECT 12, oid::int8, 0, xmin FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
		UNION ALL SELECT 13, oid::int8, 0, xmin FROM pg_extension
		UNION ALL SELECT 14, oid::int8, 0, xmin FROM pg_collation
		UNION ALL SELECT 15, oid::int8, 0, xmin FROM pg_operator
		UNION ALL SELECT 16, oid::int8, 0, xmin FROM pg_cast
		UNION ALL SELECT 17, oid::int8, 0, xmin FROM pg_default_acl
		UNION ALL SELECT 18, oid::int8, 0, xmin FROM pg_statistic_ext
		UNION ALL SELECT 19, oid::int8, 0, xmin FROM pg_event_trigger)
	SELECT count(*) || ' ' || coalesce(sum(hashint8extended(oid, class * 65536 + part) # hashint8extended(xmin::text::int8, class)), 0) FROM made`

// definitions returns what changes whenever something is defined that the move depends on.
func (r *moving) definitions(ctx context.Context, conn *pgx.Conn) (is string, err error) {
	sql := tableDefinitions
	if r.move.Kind == metadata.MoveJoin {
		sql = allDefinitions
	}
	err = conn.QueryRow(ctx, sql).Scan(&is)
	return is, err
}

// defines makes sure that nothing has been defined since it was looked at; the error is errLate.
func (r *moving) defines(ctx context.Context, source *pgx.Conn) error {
	now, err := r.definitions(ctx, source)
	if err == nil && now != r.defined {
		err = fmt.Errorf("waits for tables and others that are being made or changed: %w", errLate)
	}
	return err
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
	if err := r.alone(ctx); err != nil { // as whoever has flipped is
		return err
	}
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
	if err := r.unhold(ctx); err != nil {
		return err
	}
	if !r.flipped.IsZero() {
		r.move.HeldMs = int(time.Since(r.flipped).Milliseconds())
	}
	if r.reverse == nil {
		return r.to(ctx, metadata.MovePurging, "")
	}
	// Its own stream is needed no more. The fence stays closed: the source is not to be written on by others.
	if err := r.carry.Clean(ctx); err != nil {
		return err
	}
	if err := r.carry.Forget(ctx); err != nil {
		return err
	}
	return r.to(ctx, metadata.MoveReversing, "")
}

// purging deletes the rows of the source, which nobody reads any more, and what the move has made.
func (r *moving) purging(ctx context.Context) error {
	if r.reverse != nil { // what is followed would come back behind the purge
		if err := r.reverse.Clean(ctx); err != nil {
			return err
		}
		if err := r.reverse.Forget(ctx); err != nil {
			return err
		}
	}
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
	purge := NewPurge(r.tables, r.slots, PurgeOptions{RowsPerSecond: r.m.limits().PurgeRows})
	r.purge.Store(purge)
	defer r.purge.Store(nil)
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

// lostWait is how long is waited for a server that may be lost.
const lostWait = 15 * time.Second

// within does something that must not wait for long.
func within(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, lostWait)
	defer cancel()
	return do(ctx)
}

// aborting takes everything away that the move has made.
func (r *moving) aborting(ctx context.Context) error {
	if err := r.unhold(ctx); err != nil {
		return err
	}
	// One of the servers may be lost: what keeps WAL on the other must not wait for it.
	cleaned := within(ctx, r.carry.Clean)
	if r.reverse != nil {
		cleaned = errors.Join(cleaned, within(ctx, r.reverse.Clean))
	}
	if cleaned != nil {
		return cleaned
	}
	if err := r.unfence(ctx); err != nil {
		return err
	}
	said := r.move.Said
	if err := r.carry.ClearTarget(ctx); err != nil {
		lost := r.lost(ctx)
		if lost == nil {
			return err
		}
		said += "; rows may be left on shard " + r.target.Name + ": " + lost.Error()
	}
	if r.move.Kind == metadata.MoveSlots {
		if err := r.hide(ctx, r.target, false); err != nil {
			return err
		}
	}
	return r.to(ctx, metadata.MoveAborted, said)
}

// lost says why the server of a shard that was to join cannot be reached; nil when it can. It keeps nobody from going on: a shard with rows cannot
// join.
func (r *moving) lost(ctx context.Context) error {
	if r.move.Kind != metadata.MoveJoin || r.home.IsClosed() {
		return nil
	}
	conn, err := r.target.connect(ctx)
	if err == nil {
		carryClose(conn.PgConn())
	}
	return err
}

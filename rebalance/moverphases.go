package rebalance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/catalog"
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
			defer moverClose(conn)
			c, err := catalog.LoadTables(ctx, conn)
			if err != nil {
				return fmt.Errorf("shard %s: read the catalog: %w", s.Name, err)
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
	epoch, err := r.m.guard(ctx, r.home, true)
	if err != nil {
		return err
	}
	err = r.await(ctx, time.Time{}, "statements that began before rows are hidden", func(a *metadata.Acknowledgement) bool { return a.Statements >= epoch })
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
	defer moverClose(source)
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
	c, err := catalog.LoadTables(ctx, source)
	if err != nil {
		return fmt.Errorf("shard %s: read the catalog: %w", r.source.Name, err)
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

// flipShards are those of the flip: the home shard, which decides, and both of the move.
func (r *moving) flipShards() []*MoverShard {
	all := []*MoverShard{&r.m.o.Shards[0]}
	for _, s := range []*MoverShard{r.source, r.target} {
		if s.Name != all[0].Name {
			all = append(all, s)
		}
	}
	return all
}

// prepare connects for the flip, so that nobody waits for that while writes are held.
func (r *moving) prepare(ctx context.Context) error {
	if r.conns == nil {
		r.conns = map[string]*pgx.Conn{}
	}
	for _, s := range r.flipShards() {
		if c := r.conns[s.Name]; c != nil && !c.IsClosed() && c.PgConn().TxStatus() == 'I' {
			continue
		}
		conn, err := s.connect(ctx)
		if err != nil {
			return err
		}
		r.conns[s.Name] = conn
	}
	return nil
}

func (r *moving) disconnect() {
	for _, c := range r.conns {
		moverClose(c)
	}
	r.conns = nil
}

// caughtUp waits until the last changes take next to no time.
func (r *moving) caughtUp(ctx context.Context, source *pgx.Conn) error {
	for told := time.Now(); ; {
		begin := time.Now()
		end, err := r.carry.SourceEnd(ctx, source)
		if err != nil {
			return err
		}
		if err := r.carry.WaitFor(ctx, end); err != nil {
			return err
		}
		if time.Since(begin) < moverCaught {
			return nil
		}
		if time.Since(told) > moverTell {
			told = time.Now()
			r.say(ctx, fmt.Sprintf("carries changes over, %.1f s behind", time.Since(begin).Seconds()))
		}
		if err := r.reread(ctx); err != nil {
			return err
		}
	}
}

// heldAgain does something while writes are held, as often as it takes.
func (r *moving) heldAgain(ctx context.Context, source *pgx.Conn, what func(context.Context, *pgx.Conn, time.Time) error) error {
	for pause := moverWatch; ; pause = min(2*pause, moverBackoff) {
		if err := r.caughtUp(ctx, source); err != nil {
			return err
		}
		if err := r.reread(ctx); err != nil {
			return err
		}
		if err := r.prepare(ctx); err != nil {
			return err
		}
		if err := r.m.cutAbsent(ctx, r.home); err != nil {
			return err
		}
		if err := r.sameTables(ctx, source); err != nil {
			return err
		}
		err := r.hold(ctx, source, what)
		if !errors.Is(err, errLate) {
			return err
		}
		r.say(ctx, fmt.Sprintf("writes were held for %s in vain, and will be again: %v", r.m.o.HoldLimit, err))
		for end := time.Now().Add(pause); time.Now().Before(end); {
			if err := carrySleep(ctx, min(pause, moverWatch)); err != nil {
				return err
			}
			if err := r.reread(ctx); err != nil {
				return err
			}
		}
	}
}

// hold holds writes of the slots, has the last changes carried over, does something, and releases the writes unless the target owns the slots
// then. The error is errLate when that takes longer than the limit.
func (r *moving) hold(ctx context.Context, source *pgx.Conn, what func(context.Context, *pgx.Conn, time.Time) error) (err error) {
	epoch, err := r.held(ctx, true)
	if err != nil {
		return err
	}
	begin := time.Now() // the proxies hear of it now
	end := begin.Add(r.m.o.HoldLimit)
	r.flipped = begin
	took := []any{"move", r.move.ID}
	lap := func(what string) { took = append(took, what, time.Since(begin).Round(time.Millisecond)) }
	defer func() {
		lap("done")
		r.m.o.Logger.Info("writes were held", append(took, "error", err)...)
		if r.move.Phase.Flipped() || r.home.IsClosed() {
			return // the next mover releases them
		}
		if released := r.release(ctx, source); err == nil || errors.Is(err, errLate) && released != nil {
			err = released
		}
		r.move.HeldMs = int(time.Since(begin).Milliseconds())
	}()
	if err := r.prepareFlip(ctx); err != nil {
		return err
	}
	err = r.await(ctx, end, "statements and transactions that write", func(a *metadata.Acknowledgement) bool { return a.Writes >= epoch })
	if err != nil {
		return err
	}
	lap("acknowledged")
	if err := r.setFence(ctx, source, true, end); err != nil {
		return err
	}
	lap("fence")
	last, err := r.carry.SourceEnd(ctx, source)
	if err != nil {
		return err
	}
	bounded, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	if err := r.carry.WaitFor(bounded, last); err != nil {
		if ctx.Err() == nil {
			err = fmt.Errorf("waits for the last changes: %w", errLate)
		}
		return err
	}
	lap("applied")
	return what(ctx, source, end)
}

// releaseLimit bounds what releases writes.
const releaseLimit = 10 * time.Second

// release opens the fence and lets writes go on. It does so too when the move does not go on; where the fence cannot be opened, who
// comes to it is refused, and does not wait.
func (r *moving) release(ctx context.Context, source *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	opened := r.setFence(ctx, source, false, time.Time{})
	_, err := r.held(ctx, false)
	return errors.Join(opened, err)
}

// verify compares the rows of both sides. Both are seen as they are while writes are held, and read when these go on.
func (r *moving) verify(ctx context.Context, source *pgx.Conn) error {
	a, err := r.source.connect(ctx)
	if err != nil {
		return err
	}
	defer moverClose(a)
	b, err := r.target.connect(ctx)
	if err != nil {
		return err
	}
	defer moverClose(b)
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

// flipLimit is for how long the flip may go beyond the limit of the hold, until its decision.
const flipLimit = 2 * time.Second

// flip has the target own the slots. It is the point of no return.
func (r *moving) flip(ctx context.Context, source *pgx.Conn, end time.Time) error {
	if err := r.carry.Check(ctx, source); err != nil {
		return err
	}
	ctx, cancel := context.WithDeadline(ctx, end.Add(flipLimit))
	defer cancel()
	if now, err := definitions(ctx, source); err != nil || now != r.defined {
		if err == nil {
			err = fmt.Errorf("waits for tables that are being made or changed: %w", errLate)
		}
		return err
	}
	parts, err := r.flipParts(ctx)
	if err == nil && time.Now().After(end) {
		err = fmt.Errorf("waits for its own transaction: %w", errLate)
	}
	if err != nil {
		r.disconnect() // takes back what is open
		r.move.Phase = metadata.MoveFollowing
		return err
	}
	unknown, err := r.m.o.Commit(ctx, parts)
	if err == nil {
		return nil // the phase is stored
	}
	r.move.Phase = metadata.MoveFollowing
	if !unknown {
		return fmt.Errorf("flip: %w", err)
	}
	// Whoever commits still has the row: this waits for it.
	ok, again := metadata.AdvanceMove(ctx, r.home, metadata.MoveFollowing, r.move)
	switch {
	case again != nil:
		return fmt.Errorf("flip: %w; what came of it: %w", err, again)
	case ok:
		return fmt.Errorf("flip: %w", err)
	}
	r.move.Phase = metadata.MoveFlipped
	return nil
}

// prepareFlip makes the map of the flip, so that nothing has to be read for it.
func (r *moving) prepareFlip(ctx context.Context) (err error) {
	if r.now, r.cluster, err = metadata.Load(ctx, r.home); err == nil {
		r.next, err = metadata.Flipped(r.now, r.move)
	}
	return err
}

// flipParts opens the transaction that flips on the home shard, which decides, and on both shards of the move.
func (r *moving) flipParts(ctx context.Context) (parts []FlipPart, err error) {
	const begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
	for i, s := range r.flipShards() {
		conn := r.conns[s.Name]
		parts = append(parts, FlipPart{Shard: s.Name, Conn: conn})
		tx, err := conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: begin})
		if err == nil && i == 0 {
			r.move.HeldMs = int(time.Since(r.flipped).Milliseconds())
			err = metadata.FlipIn(ctx, tx, r.cluster, r.now, r.next, r.move)
		}
		if err == nil && s.Name == r.source.Name {
			if _, err = conn.Exec(ctx, r.hideSQL(true)); err == nil {
				err = r.stillClosed(ctx, conn)
			}
		}
		if err == nil && s.Name == r.target.Name {
			_, err = conn.Exec(ctx, r.hideSQL(false))
		}
		if err != nil {
			return nil, fmt.Errorf("shard %s: %w", s.Name, err)
		}
	}
	return parts, nil
}

// stillClosed makes sure that nobody else has opened the fence: another mover may believe that it is alone.
func (r *moving) stillClosed(ctx context.Context, source *pgx.Conn) error {
	var closed bool
	err := source.QueryRow(ctx, "SELECT closed FROM shardproxy.fences WHERE move = $1 FOR UPDATE", r.move.Name()).Scan(&closed)
	if err == nil && !closed {
		err = errOvertaken
	}
	return err
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
	conn, err := r.source.connect(ctx)
	if err != nil {
		return err
	}
	defer moverClose(conn)
	if err := r.hides(ctx, conn); err != nil {
		return err
	}
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

// hides makes sure that the source hides the slots: its part of the flip may have been in doubt.
func (r *moving) hides(ctx context.Context, conn *pgx.Conn) error {
	for {
		var all bool
		err := conn.QueryRow(ctx, "SELECT slots & '"+r.bits()+"'::bit varying = '"+r.bits()+"'::bit varying FROM shardproxy.hidden").Scan(&all)
		if err != nil || all {
			return err
		}
		r.say(ctx, "waits for the flip to be finished on shard "+r.source.Name)
		if err := carrySleep(ctx, moverWatch); err != nil {
			return err
		}
	}
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

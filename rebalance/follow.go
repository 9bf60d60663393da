package rebalance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Follow carries the source's changes over, from where the target is, until the context ends or something fails. It ends other followers of the same move.
// When it fails with anything but a CarryError it may be called again, and goes on: no change is lost, none comes twice.
func (c *Carry) Follow(ctx context.Context, origin Origin) error {
	target, err := c.openTarget(ctx, true)
	if err != nil {
		return err
	}
	defer target.close()
	source, err := c.openSource(ctx)
	if err != nil {
		return err
	}
	defer source.close()
	if err := sameEncoding(source, target); err != nil {
		return err
	}
	start, err := c.begun(ctx, target)
	if err != nil {
		return err
	}
	conn, system, err := c.openReplication(ctx)
	if err != nil {
		return err
	}
	defer carryClose(conn)
	if system.SystemID != origin.System || system.Timeline != origin.Timeline {
		return slotLost(fmt.Sprintf("the source has failed over, or is another server: system %s on timeline %d, not %s on %d",
			system.SystemID, system.Timeline, origin.System, origin.Timeline), nil)
	}
	if err := c.holds(ctx, source, start); err != nil {
		return err
	}
	a := &applier{Carry: c, target: target, prepared: map[*applyStatement]string{}, stored: start, written: time.Now()}
	defer func() { a.source.close() }()
	s := &streamer{Carry: c, conn: conn, relations: map[uint32]*streamRelation{}, start: start}
	if s.facts, err = c.readFacts(ctx, source); err == nil {
		err = c.checkPublished(ctx, source, s.facts)
	}
	if err == nil {
		a.facts, err = c.applyFacts(ctx, target)
	}
	if err != nil {
		return err
	}
	c.position.stored.Store(uint64(start))
	c.position.setReceived(start)
	c.position.setApplied(start)
	err = pglogrepl.StartReplication(ctx, conn, c.object, start, pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication, PluginArgs: []string{"proto_version '1'", "publication_names '" + c.object + "'"},
	})
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return s.lost(refused)
	}
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	return followBoth(ctx, s, a)
}

// followBoth reads and applies until one of the two fails, and returns that error.
func followBoth(ctx context.Context, s *streamer, a *applier) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pieces := make(chan *streamPiece)
	s.out = pieces
	read := make(chan error, 1)
	go func() {
		read <- s.read(ctx)
		cancel()
	}()
	applied := a.run(ctx, pieces)
	ended := ctx.Err() != nil
	cancel()
	streamed := <-read
	if ended && streamed != nil && !errors.Is(streamed, context.Canceled) {
		return streamed
	}
	return applied
}

// begun returns the position that the target has. It waits for a transaction of another follower.
func (c *Carry) begun(ctx context.Context, target *carrySession) (LSN, error) {
	var text string
	err := target.QueryRow(ctx, "SELECT lsn::text FROM shardproxy.move_progress WHERE move = $1 FOR UPDATE", c.o.Move).Scan(&text)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, &CarryError{
			Cause: NotCopied, Reason: "the target does not know of a complete copy of move " + c.o.Move,
			Hint: "copy again; when it was complete, the target has lost what it had committed",
		}
	}
	if err != nil {
		return 0, fmt.Errorf("target: %w", carryRefusal(err, "shardproxy.move_progress", "", "read the position"))
	}
	return pglogrepl.ParseLSN(text)
}

// holds fails unless the slot has all from start on. It ends whoever reads it.
func (c *Carry) holds(ctx context.Context, source *carrySession, start LSN) error {
	if err := c.freeSlot(ctx, source); err != nil {
		return err
	}
	var plugin, status string
	var confirmed *string
	err := source.QueryRow(ctx, `SELECT plugin::text, coalesce(wal_status, ''), confirmed_flush_lsn::text FROM pg_replication_slots
		WHERE slot_name = $1 AND database = current_database()`, c.object).Scan(&plugin, &status, &confirmed)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return slotLost("the source has no replication slot "+c.object, nil)
	case err != nil:
		return fmt.Errorf("source: %w", err)
	case plugin != "pgoutput":
		return slotLost("the replication slot "+c.object+" is of the plug-in "+plugin, nil)
	case status == "lost" || confirmed == nil:
		return slotLost("the source has removed WAL that the replication slot "+c.object+" needs (max_slot_wal_keep_size)", nil)
	}
	lsn, err := pglogrepl.ParseLSN(*confirmed)
	if err == nil && lsn > start {
		return slotLost(fmt.Sprintf("the target is at %s, and the replication slot holds only what comes behind %s: the target has lost what it had committed", start, lsn), nil)
	}
	return err
}

// applyFacts are the target's facts, with what statements need.
func (c *Carry) applyFacts(ctx context.Context, target *carrySession) (map[*Table]*carryFacts, error) {
	facts, err := c.targetFacts(ctx, target)
	if err != nil {
		return nil, err
	}
	byTable := make(map[*Table]*carryFacts, len(facts))
	for _, f := range facts {
		f.guard = c.o.Slots.HasSQL(f.table.SlotSQL(""))
		f.statements = map[string]*applyStatement{}
		byTable[f.table] = f
	}
	return byTable, nil
}

package rebalance

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"shardproxy/metadata"
	"shardproxy/shardmap"
)

// flipLimit is for how long the flip may go beyond its end, until its decision.
const flipLimit = 2 * time.Second

// flip stores what the move is for: the target owns the slots, or the map has another shard, or one less. It is the point of no return, which is not gone to after the end.
func (r *moving) flip(ctx context.Context, source *pgx.Conn, end time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, end.Add(flipLimit))
	defer cancel()
	parts, err := r.flipParts(ctx, source)
	if err == nil && time.Now().After(end) {
		err = fmt.Errorf("waits for its own transaction: %w", errLate)
	}
	if err != nil {
		r.disconnect() // takes back what is open
		r.move.Phase = metadata.MoveFollowing
		return err
	}
	return r.commitFlip(ctx, parts)
}

// commitFlip commits what FlipIn has stored, the first part, and the others.
func (r *moving) commitFlip(ctx context.Context, parts []FlipPart) error {
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

// flipParts opens the transaction that flips on its shards, the first of which decides, all at once, and looks meanwhile
// whether the tables are those whose rows have been carried over.
func (r *moving) flipParts(ctx context.Context, source *pgx.Conn) (parts []FlipPart, err error) {
	next, err := metadata.Flipped(r.now, r.move)
	if err != nil {
		return nil, err
	}
	back := ""
	if r.reverse != nil && !r.empty() {
		if back, err = r.reverseBegins(ctx, r.conns[r.target.Name]); err != nil {
			return nil, err
		}
	}
	var all errgroup.Group
	all.Go(func() error {
		if err := r.defines(ctx, source); err != nil {
			return err
		}
		return r.check(ctx, source)
	})
	for i, s := range r.flipShards() {
		conn := r.conns[s.Name]
		parts = append(parts, FlipPart{Shard: s.Name, Conn: conn})
		all.Go(func() error {
			if err := r.flipPart(ctx, s, conn, i == 0, next, back); err != nil {
				return fmt.Errorf("shard %s: %w", s.Name, err)
			}
			return nil
		})
	}
	return parts, all.Wait()
}

// flipBegin begins the parts of a flip.
const flipBegin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"

// flipPart opens a shard's part of the transaction that flips; back is what the source stores so that changes can be streamed back, "" when they are not.
func (r *moving) flipPart(ctx context.Context, s *MoverShard, conn *pgx.Conn, home bool, next *shardmap.Map, back string) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: flipBegin})
	if err == nil && home {
		r.move.HeldMs = int(time.Since(r.flipped).Milliseconds())
		err = metadata.FlipIn(ctx, tx, r.cluster, r.now, next, r.move)
	}
	slots := r.move.Kind == metadata.MoveSlots
	if err == nil && slots && s.Name == r.source.Name {
		err = execSimple(ctx, conn, r.hideSQL(true)+"; "+back)
	}
	if err == nil && !r.empty() && s.Name == r.source.Name {
		err = r.stillClosed(ctx, conn)
	}
	if err == nil && slots && s.Name == r.target.Name {
		err = execSimple(ctx, conn, r.hideSQL(false))
	}
	return err
}

// execSimple runs statements in one round trip: as the simple protocol has it, in a transaction of their own unless one is open.
func execSimple(ctx context.Context, conn *pgx.Conn, sql string) error {
	return conn.PgConn().Exec(ctx, sql).Close()
}

// stillClosed makes sure that nobody else has opened the fence: another mover may believe that it is alone.
func (r *moving) stillClosed(ctx context.Context, source *pgx.Conn) error {
	var closed bool
	err := source.QueryRow(ctx, "SELECT closed FROM shardproxy.fences WHERE move = $1 FOR UPDATE", pgx.QueryExecModeExec, r.move.Name()).Scan(&closed)
	if err == nil && !closed {
		err = errOvertaken
	}
	return err
}

// flipShards are those of the flip: the home shard, which decides, and where slots move both of the move.
func (r *moving) flipShards() []*MoverShard {
	all := []*MoverShard{&r.m.o.Shards[0]}
	if r.move.Kind != metadata.MoveSlots {
		return all
	}
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
		carryClose(c.PgConn())
	}
	r.conns = nil
}

package rebalance

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"shardproxy/metadata"
)

// turn carries out what there is, if nobody else does. The connection is kept while there is nothing, and left with
// the lock that it has when a move has failed: somebody else may fare better.
func (m *Mover) turn(ctx context.Context) (err error) {
	if m.o.Yields != nil && m.o.Yields() {
		return nil // no move was under way when it began to
	}
	if m.home == nil || m.home.IsClosed() {
		if m.home, err = m.o.Shards[0].connect(ctx); err != nil {
			return err
		}
		clear(m.away) // they may have lost the home shard as this one has
	}
	locked := false
	defer func() {
		if err != nil || locked {
			m.leave()
		}
	}()
	moves, err := metadata.Moves(ctx, m.home, false)
	if err != nil {
		return err
	}
	if len(moves) == 0 {
		if guarded, err := m.guarded(ctx, m.home); err != nil || !guarded {
			return err
		}
	}
	if locked, err = metadata.TryMover(ctx, m.home); err != nil || !locked {
		return err
	}
	return m.lead(ctx)
}

// leave closes the connection, and gives up the lock.
func (m *Mover) leave() {
	if m.home != nil {
		carryClose(m.home.PgConn())
		m.home = nil
	}
}

// moverWork is one move that is being carried out by a goroutine.
type moverWork struct {
	move *metadata.Move // the goroutine's, until it has ended
	err  error
}

// moverAgain is after how long a move that has failed is tried again while others go on.
const moverAgain = 3 * time.Second

// lead has moves carried out until none is left, or nothing goes on. It is called with the lock.
func (m *Mover) lead(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	at, ended := map[int64]*moverWork{}, make(chan *moverWork)
	defer func() {
		cancel()
		for range at {
			<-ended
		}
	}()
	failed, told := map[int64]time.Time{}, map[int64]string{}
	for {
		moves, err := metadata.Moves(ctx, m.home, false)
		if err != nil {
			return err
		}
		if len(moves) == 0 && len(at) == 0 {
			return m.unguard(ctx, m.home)
		}
		if err := m.tellWaiting(ctx, moves); err != nil {
			return err
		}
		for _, move := range m.next(moves, at, failed) {
			own := *move
			w := &moverWork{move: &own}
			at[move.ID] = w
			go func() {
				w.err = m.work(ctx, w.move)
				ended <- w
			}()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(moverWatch):
		case w := <-ended:
			delete(at, w.move.ID)
			if w.err == nil {
				continue
			}
			err := fmt.Errorf("move %d, %s: %w", w.move.ID, w.move.Phase, w.err)
			if !busy(moves, at) {
				return err
			}
			if told[w.move.ID] != err.Error() {
				told[w.move.ID] = err.Error()
				m.o.Logger.Warn("a move does not go on, and is tried again", "error", err)
			}
			failed[w.move.ID] = time.Now()
		}
	}
}

// kept reports whether nothing is to be done for a move but to stream changes back.
func kept(m *metadata.Move) bool {
	return m.Phase == metadata.MoveReversing && m.Wanted == ""
}

// busy reports whether a move is being carried out that is not only kept.
func busy(moves []*metadata.Move, at map[int64]*moverWork) bool {
	for _, move := range moves {
		if at[move.ID] != nil && !kept(move) {
			return true
		}
	}
	return false
}

// moverSoon is after how long a move that has failed is tried again whose slots are held.
const moverSoon = 500 * time.Millisecond

// next returns the moves that are to be begun now: those that are kept, those that have flipped, for writes of their slots are held, and of the others as many as may
// go on at once, each from another shard or to another; first those that have begun before, which may hold writes. Shards join and leave alone, after what is before them and before
// what is behind. at are those that go on, failed those that did not, and when.
func (m *Mover) next(moves []*metadata.Move, at map[int64]*moverWork, failed map[int64]time.Time) (begin []*metadata.Move) {
	type pair struct{ source, target string }
	n, used := 0, map[pair]bool{}
	var ready []*metadata.Move
	barred, alone := false, false
	for _, move := range moves {
		goes, since := at[move.ID] != nil, time.Since(failed[move.ID])
		switch {
		case goes && !kept(move):
			n++
			used[pair{move.Source, move.Target}] = true
			alone = alone || move.Kind != metadata.MoveSlots
		case goes:
		case kept(move) && since >= moverAgain, move.Phase == metadata.MoveFlipped && since >= moverSoon:
			begin = append(begin, move)
		case kept(move), move.Phase == metadata.MoveFlipped:
		case !barred:
			ready = append(ready, move)
		}
		barred = barred || move.Kind != metadata.MoveSlots
	}
	for _, move := range begin {
		if !kept(move) {
			n++
			used[pair{move.Source, move.Target}] = true
		}
	}
	if alone {
		return begin
	}
	slices.SortStableFunc(ready, func(a, b *metadata.Move) int { return cmp.Compare(rank(a), rank(b)) })
	for _, move := range ready {
		between := pair{move.Source, move.Target}
		if n >= m.limits().Moves || used[between] || move.Kind != metadata.MoveSlots && (n > 0 || leavesKept(move, moves)) {
			continue
		}
		n++
		used[between] = true
		if time.Since(failed[move.ID]) >= moverAgain { // else it keeps its place
			begin = append(begin, move)
		}
	}
	return begin
}

// rank is 0 for moves that may have writes held already.
func rank(m *metadata.Move) int {
	if m.Phase == metadata.MoveFollowing || m.Phase == metadata.MoveAborting {
		return 0
	}
	return 1
}

// leavesKept reports whether a shard is to leave that has rows which are kept.
func leavesKept(leave *metadata.Move, moves []*metadata.Move) bool {
	for _, move := range moves {
		if leave.Kind == metadata.MoveLeave && move.Phase == metadata.MoveReversing && (move.Source == leave.Source || move.Target == leave.Source) {
			return true
		}
	}
	return false
}

// tellWaiting says of a shard that is to leave why it does not.
func (m *Mover) tellWaiting(ctx context.Context, moves []*metadata.Move) error {
	const waits = "waits until moves of its slots are completed or rolled back"
	for _, move := range moves {
		if move.Phase != metadata.MovePlanned || move.Said == waits || !leavesKept(move, moves) {
			continue
		}
		move.Said = waits
		if _, err := metadata.AdvanceMove(ctx, m.home, metadata.MovePlanned, move); err != nil {
			return err
		}
	}
	return nil
}

// work carries out one move, over a connection that is its own.
func (m *Mover) work(ctx context.Context, move *metadata.Move) error {
	home, err := m.o.Shards[0].connect(ctx)
	if err != nil {
		return err
	}
	defer carryClose(home.PgConn())
	if err := metadata.WorkFor(ctx, home, m.home.PgConn().PID()); err != nil {
		return err
	}
	return m.carryOut(ctx, home, move)
}

// alone has nobody else of this Mover change the slot map, or count on it, until share is called.
func (r *moving) alone(ctx context.Context) error {
	if r.mine {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case r.m.maps <- struct{}{}:
		r.mine = true
		return nil
	}
}

// share lets others change the slot map.
func (r *moving) share() {
	if r.mine {
		<-r.m.maps
		r.mine = false
	}
}

package rebalance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/metadata"
)

// A reversible move is kept behind its flip: what is written on the target is streamed back to the source, whose rows stay hidden. Rolled back it goes the
// same way as it came, from following on, with source and target swapped.

// originOf reads where a stream begins, as it is stored.
func originOf(stored json.RawMessage) (origin Origin, err error) {
	if err = json.Unmarshal(stored, &origin); err != nil {
		err = fmt.Errorf("where the changes begin: %w", err)
	}
	return origin, err
}

// prepareReverse makes the replication slot on the target, from which its changes are streamed back. Where they begin is known with the flip.
func (r *moving) prepareReverse(ctx context.Context) error {
	var origin Origin
	err := r.watched(ctx, func() {}, func(ctx context.Context) error {
		if err := r.reverse.Clean(ctx); err != nil {
			return err
		}
		snapshot, err := r.reverse.Prepare(ctx)
		if err != nil {
			return fmt.Errorf("the stream back: %w", err)
		}
		defer snapshot.Close()
		origin = snapshot.Origin
		return nil
	})
	if err != nil {
		return err
	}
	r.move.Reverse, err = json.Marshal(origin)
	return err
}

// reverseBegins has changes be streamed back from now on, while nobody writes rows of the slots: it returns what the source is to store with the flip.
func (r *moving) reverseBegins(ctx context.Context, target *pgx.Conn) (sql string, err error) {
	origin, err := originOf(r.move.Reverse)
	if err != nil {
		return "", err
	}
	if origin.LSN, err = r.reverse.SourceEnd(ctx, target); err != nil {
		return "", fmt.Errorf("shard %s: %w", r.target.Name, err)
	}
	if r.move.Reverse, err = json.Marshal(origin); err != nil {
		return "", err
	}
	return fmt.Sprintf("INSERT INTO shardproxy.move_progress (move, lsn) VALUES ('%s', '%s') ON CONFLICT (move) DO UPDATE SET lsn = excluded.lsn",
		r.move.ReverseName(), origin.LSN), nil
}

// errKept says that a move is to be kept no more.
var errKept = errors.New("something else is wanted")

// saidBehind stands between why a move cannot be rolled back and what is said besides.
const saidBehind = " | "

// notKept is what is said of a move that could not be rolled back, before why.
const notKept = "it cannot be rolled back: "

// keep streams the target's changes back to the source, until something is wanted of the move. When that cannot be done, the move is completed.
func (r *moving) keep(ctx context.Context) error {
	for pause := moverWatch; r.move.Wanted == ""; pause = min(2*pause, moverBackoff) {
		err := r.streamBack(ctx)
		var lasting *CarryError
		switch {
		case errors.Is(err, errKept):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case r.home.IsClosed() || errors.Is(err, errOvertaken):
			return err
		case errors.As(err, &lasting) && lasting.Cause != Overtaken:
			return r.to(ctx, metadata.MovePurging, notKept+lasting.Error())
		}
		r.say(ctx, fmt.Sprintf("changes are not streamed back: %v", err))
		if err := carrySleep(ctx, pause); err != nil {
			return err
		}
		if err := r.reread(ctx); errors.As(err, &lasting) {
			return r.to(ctx, metadata.MovePurging, notKept+lasting.Error())
		} else if err != nil {
			return err
		}
	}
	return nil
}

// dropKept takes away what keeps WAL for a way back that is not wanted any more, before anything is asked of the source, which may be lost.
func (r *moving) dropKept(ctx context.Context) error {
	m := r.move
	if !m.Reversible || m.Back || m.Phase != metadata.MovePurging && (m.Phase != metadata.MoveReversing || m.Wanted != metadata.WantComplete) {
		return nil
	}
	stream := NewCarry(CarryOptions{Move: m.ReverseName(), Source: r.target.Connect})
	return within(ctx, stream.Clean)
}

// streamBack follows the target until that fails, or something is wanted, which is errKept.
func (r *moving) streamBack(ctx context.Context) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	followed := make(chan error, 1)
	if !r.empty() {
		origin, err := originOf(r.move.Reverse)
		if err != nil {
			return err
		}
		go func() { followed <- r.reverse.Follow(inner, origin) }()
	}
	tick := time.NewTicker(moverWatch)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
		case err := <-followed:
			return err
		case <-tick.C:
		}
		err := r.reread(ctx)
		if err == nil && r.move.Wanted != "" {
			err = errKept
		}
		if err != nil {
			cancel()
			if !r.empty() {
				<-followed
			}
			return err
		}
		if r.reverse.Position().Applied > 0 || r.empty() {
			r.say(ctx, "")
		}
	}
}

// errTurned says that a move's row is another now, and is to be read anew.
var errTurned = errors.New("the move goes another way")

// turnBack begins the way back. Rows of the slots may be written on the source from now on, by the stream.
func (r *moving) turnBack(ctx context.Context) error {
	if r.move.Reverse == nil && !r.empty() {
		return r.to(ctx, metadata.MovePurging, notKept+"nothing was streamed back")
	}
	if err := r.unfence(ctx); err != nil {
		return err
	}
	return turned(metadata.TurnBack(ctx, r.home, r.move))
}

// turned says that the row is another now, unless it is not.
func turned(ok bool, err error) error {
	switch {
	case err != nil:
		return err
	case !ok:
		return errOvertaken
	}
	return errTurned
}

// turnForth gives the way back up: the shard that the slots have moved to keeps them.
func (r *moving) turnForth(ctx context.Context) error {
	if err := r.unhold(ctx); err != nil {
		return err
	}
	if err := r.unfence(ctx); err != nil {
		return err
	}
	return turned(metadata.TurnForth(ctx, r.home, r.move, notKept+strings.TrimPrefix(r.move.Said, notKept)))
}

package metadata

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Ends says of how many moves something was asked.
type Ends struct {
	// Aborted are given up, or will never begin. GoOn go on to their end. Kept wait for CompleteMoves or RollBackMoves.
	Aborted, GoOn, Kept int64
	// Wanted are reversible ones of which was asked what is wanted now.
	Wanted int64
}

// What may be given up: on its way back a move goes to its end, unless it is completed.
const abortable = "NOT back AND phase IN ('planned', 'hiding', 'copying', 'following', 'aborting')"

// AbortMoves has all moves given up that have not gone so far that only going on is right; those that have not begun never will. A shard that has left and whose
// server is lost is not asked any more what it has prepared. The error is a *Problem.
func AbortMoves(ctx context.Context, home *pgx.Conn) (n Ends, err error) {
	err = ending(ctx, home, "abort the moves", &n, func(tx pgx.Tx) error {
		n.Aborted, err = exec(ctx, tx, "UPDATE shardproxy.moves SET abort = true, changed_at = clock_timestamp() WHERE "+abortable+" OR kind = 'leave' AND phase = 'purging'")
		return err
	})
	return n, err
}

// CompleteMoves has the sources of reversible moves give up their rows; only of the moves with these ids if there are any. One that is on its way back and whose
// slots have not changed their owner yet stays as it is: the shard that the slots are on keeps them. The error is a *Problem.
func CompleteMoves(ctx context.Context, home *pgx.Conn, ids []int64) (n Ends, err error) {
	err = ending(ctx, home, "complete the moves", &n, func(tx pgx.Tx) error {
		if n.Wanted, err = want(ctx, tx, ids, WantComplete); err != nil {
			return err
		}
		kept, err := exec(ctx, tx, "UPDATE shardproxy.moves SET abort = true, changed_at = clock_timestamp() WHERE back AND phase = 'following' AND "+amongThese, ids)
		n.Wanted += kept
		return err
	})
	return n, err
}

// RollBackMoves has the slots of reversible moves return to their sources, with all that was written since; only of the moves with these ids if there are any. Of those whose
// slots have not changed their owner it does what AbortMoves does. The error is a *Problem.
func RollBackMoves(ctx context.Context, home *pgx.Conn, ids []int64) (n Ends, err error) {
	err = ending(ctx, home, "roll back the moves", &n, func(tx pgx.Tx) error {
		if n.Wanted, err = want(ctx, tx, ids, WantRollback); err != nil {
			return err
		}
		n.Aborted, err = exec(ctx, tx, "UPDATE shardproxy.moves SET abort = true, changed_at = clock_timestamp() WHERE "+abortable+" AND "+amongThese, ids)
		return err
	})
	return n, err
}

// amongThese is about the ids in $1, or all when there are none.
const amongThese = "(cardinality($1::int8[]) = 0 OR id = ANY ($1::int8[]))"

func want(ctx context.Context, tx pgx.Tx, ids []int64, what Wanted) (int64, error) {
	return exec(ctx, tx, "UPDATE shardproxy.moves SET wanted = $2::text, changed_at = clock_timestamp() WHERE reversible AND NOT back AND phase IN ('flipped', 'reversing') AND "+amongThese, ids, string(what))
}

// ending asks something of moves, and counts those that it did not concern.
func ending(ctx context.Context, home *pgx.Conn, doing string, n *Ends, ask func(pgx.Tx) error) error {
	err := within(ctx, home, beginWrite, func(tx pgx.Tx) error {
		if err := ask(tx); err != nil {
			return err
		}
		return row(ctx, tx, `SELECT count(*) FILTER (WHERE phase IN ('flipped', 'purging') AND NOT abort AND NOT (reversible AND wanted = '' AND phase = 'flipped') OR back AND phase = 'following' AND NOT abort),
			count(*) FILTER (WHERE phase = 'reversing' AND wanted = '' OR reversible AND NOT back AND wanted = '' AND phase = 'flipped') FROM shardproxy.moves`).Scan(&n.GoOn, &n.Kept)
	})
	if err != nil {
		return asked("", doing, err)
	}
	return nil
}

// TurnBack begins the way back of a move that is reversing and is to be rolled back: source and target are swapped, and it follows from where its
// stream back began. ok is false when it is in another state. The error is a *Problem.
func TurnBack(ctx context.Context, home *pgx.Conn, m *Move) (ok bool, err error) {
	return storeMove(ctx, home, "begin the way back of a move", func(tx pgx.Tx) (bool, error) {
		n, err := exec(ctx, tx, `UPDATE shardproxy.moves SET source = target, target = source, origin = reverse, reverse = NULL, back = true, verified = false, phase = 'following', copied = 0,
			said = '', changed_at = clock_timestamp() WHERE id = $1 AND phase = 'reversing' AND wanted = 'rollback'`, m.ID)
		return n == 1, err
	})
}

// TurnForth gives the way back of a move up before its slots have changed their owner: source and target are again what they were, and the source gives up its rows.
// ok is false when it is in another state. The error is a *Problem.
func TurnForth(ctx context.Context, home *pgx.Conn, m *Move, said string) (ok bool, err error) {
	return storeMove(ctx, home, "give up the way back of a move", func(tx pgx.Tx) (bool, error) {
		n, err := exec(ctx, tx, `UPDATE shardproxy.moves SET source = target, target = source, origin = NULL, back = false, verified = true, abort = false, wanted = 'complete', phase = 'purging',
			said = $2, changed_at = clock_timestamp() WHERE id = $1 AND phase = 'aborting' AND back`, m.ID, said)
		return n == 1, err
	})
}

// Advisory locks on the home shard, of sessions.
const (
	moverLock = 3 // whoever says which moves are carried out
	moverWork = 4 // shared by those who carry one out for it
)

// TryMover takes, for the session, the lock of whoever carries moves out, unless somebody has it or still works for one who had it. The error is a *Problem.
func TryMover(ctx context.Context, home *pgx.Conn) (taken bool, err error) {
	err = within(ctx, home, beginRead, func(tx pgx.Tx) error {
		if err := row(ctx, tx, "SELECT pg_try_advisory_lock($1, $2)", int32(lockClass), int32(moverLock)).Scan(&taken); err != nil || !taken {
			return err
		}
		// The lock of those who work is only looked at: it ends with the transaction.
		if err := row(ctx, tx, "SELECT pg_try_advisory_xact_lock($1, $2)", int32(lockClass), int32(moverWork)).Scan(&taken); err != nil || taken {
			return err
		}
		_, err := exec(ctx, tx, "SELECT pg_advisory_unlock($1, $2)", int32(lockClass), int32(moverLock))
		return err
	})
	if err != nil {
		return false, asked("", "take the lock of who moves slots", err)
	}
	return taken, nil
}

// WorkFor has a session carry out a move for the one with this process number, which must have the lock of TryMover: as long as the session is there nobody
// else gets that. The error is a *Problem, ErrConflict when the lock is somebody else's.
func WorkFor(ctx context.Context, conn *pgx.Conn, pid uint32) error {
	err := within(ctx, conn, beginRead, func(tx pgx.Tx) error {
		if _, err := exec(ctx, tx, "SELECT pg_advisory_lock_shared($1, $2)", int32(lockClass), int32(moverWork)); err != nil {
			return err
		}
		var has bool
		err := row(ctx, tx, `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid::int8 = $1 AND objid::int8 = $2 AND objsubid = 2 AND granted AND pid = $3
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`, int64(lockClass), int64(moverLock), int32(pid)).Scan(&has)
		if err == nil && !has {
			err = &Problem{Kind: ErrConflict, Reason: fmt.Sprintf("the session with process number %d does not carry moves out any more", pid), Hint: "take the lock again"}
		}
		return err
	})
	if err != nil {
		return asked("", "work for who moves slots", err)
	}
	return nil
}

package metadata

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/shardmap"
)

// MovePhase is how far a move has come.
type MovePhase string

// The phases, in their order; package rebalance says what is done in each.
const (
	MovePlanned   MovePhase = "planned"
	MoveHiding    MovePhase = "hiding"
	MoveCopying   MovePhase = "copying"
	MoveFollowing MovePhase = "following"
	MoveFlipped   MovePhase = "flipped"
	MoveReversing MovePhase = "reversing"
	MovePurging   MovePhase = "purging"
	MoveDone      MovePhase = "done"
	MoveAborting  MovePhase = "aborting"
	MoveAborted   MovePhase = "aborted"
)

// Ended reports whether nothing more is to be done.
func (p MovePhase) Ended() bool { return p == MoveDone || p == MoveAborted }

// Flipped reports whether the target owns the slots.
func (p MovePhase) Flipped() bool {
	return p == MoveFlipped || p == MoveReversing || p == MovePurging || p == MoveDone
}

// Wanted is what is to become of a reversible move.
type Wanted string

// What can be wanted. Without any, changes of the target are streamed back to the source.
const (
	WantComplete Wanted = "complete" // the source gives up its rows
	WantRollback Wanted = "rollback" // the source gets the slots back
)

// MoveKind is what a move does.
type MoveKind string

// The kinds of moves.
const (
	MoveSlots MoveKind = "slots" // slots go from the source to the target
	MoveJoin  MoveKind = "join"  // the target becomes a shard; the source is the home shard
	MoveLeave MoveKind = "leave" // the source is no shard any more; the target is the home shard
)

// Move is slots that change their shard, or a shard that joins or leaves.
type Move struct {
	ID             int64
	Kind           MoveKind
	Slots          []shardmap.Slot
	Source, Target string
	Phase          MovePhase
	// Rows is about how many rows it carries, 0 for not known.
	Rows int64
	// Paused is set while no further phase is to be begun, and no writes are to be held.
	Paused bool
	// Reversible is set when the source is kept as the target is behind the flip, until something is Wanted.
	Reversible bool
	Wanted     Wanted
	// Reverse is where the target's changes begin then, as JSON; nil before the flip.
	Reverse json.RawMessage
	// Back is set when it is, or was, rolled back: Source and Target are those of the way back then.
	Back bool
	// Maker is the number in unique ids of a shard that joins.
	Maker int
	// Abort is set when it is to be given up; it has no effect once the target owns the slots.
	Abort bool
	// Verified is set when the rows of both sides were compared and equal.
	Verified bool
	// Origin is where its changes begin, as JSON; nil before it is known.
	Origin json.RawMessage
	// Copied and Purged are rows, HeldMs is for how long its writes were held last.
	Copied, Purged int64
	HeldMs         int
	// Said is what it waits for, or why it failed.
	Said               string
	PlannedAt, Changed time.Time
}

// Name is the move's name in replication slots, triggers and fences, on its way back another one.
func (m *Move) Name() string {
	if m.Back {
		return m.ReverseName()
	}
	return fmt.Sprintf("m%d", m.ID)
}

// ReverseName is the name of the stream from the target to the source.
func (m *Move) ReverseName() string { return fmt.Sprintf("m%dr", m.ID) }

const selectMoves = `SELECT id, kind, coalesce(maker, 0), rows, paused, reversible, wanted, reverse::text, back, slots, source, target, phase, abort, verified, origin::text, copied, purged, held_ms, said,
	(extract(epoch FROM planned_at) * 1000000)::bigint, (extract(epoch FROM changed_at) * 1000000)::bigint FROM shardproxy.moves`

func readMoves(ctx context.Context, tx pgx.Tx, where string, args ...any) (all []*Move, err error) {
	rows, err := tx.Query(ctx, selectMoves+where+" ORDER BY id", append([]any{pgx.QueryExecModeExec}, args...)...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (*Move, error) {
		m := &Move{}
		var slots []int32
		var origin, reverse *string
		var planned, changed int64
		err := r.Scan(&m.ID, &m.Kind, &m.Maker, &m.Rows, &m.Paused, &m.Reversible, &m.Wanted, &reverse, &m.Back, &slots, &m.Source, &m.Target, &m.Phase, &m.Abort, &m.Verified, &origin, &m.Copied, &m.Purged, &m.HeldMs, &m.Said, &planned, &changed)
		for _, s := range slots {
			m.Slots = append(m.Slots, shardmap.Slot(s))
		}
		if origin != nil {
			m.Origin = json.RawMessage(*origin)
		}
		if reverse != nil {
			m.Reverse = json.RawMessage(*reverse)
		}
		m.PlannedAt, m.Changed = time.UnixMicro(planned), time.UnixMicro(changed)
		return m, err
	})
}

// Moves returns the moves that have not ended, in their order; with ended, these too, the last 100 moves in all. The error is a *Problem.
func Moves(ctx context.Context, home *pgx.Conn, ended bool) (all []*Move, err error) {
	where := " WHERE phase NOT IN ('done', 'aborted')"
	if ended {
		where = " WHERE id > (SELECT coalesce(max(id), 0) - 100 FROM shardproxy.moves)"
	}
	err = within(ctx, home, beginRead, func(tx pgx.Tx) error {
		all, err = readMoves(ctx, tx, where)
		return err
	})
	if err != nil {
		return nil, asked("", "read the moves", err)
	}
	return all, nil
}

// PlanMoves stores moves, in their order, on top of a map of this epoch. The error is a *Problem: ErrConflict when there is another map, or when
// moves are under way or to come.
func PlanMoves(ctx context.Context, home *pgx.Conn, epoch int64, moves []Move) error {
	err := within(ctx, home, beginWrite, func(tx pgx.Tx) error {
		if err := lockEpoch(ctx, tx); err != nil {
			return err
		}
		current, _, err := loadIn(ctx, tx, Version)
		if err != nil {
			return err
		}
		if current.Epoch() != epoch {
			cause := &ConflictError{From: epoch, Found: current.Epoch()}
			return &Problem{Kind: ErrConflict, Cause: cause, Reason: cause.Error(), Hint: "plan again"}
		}
		if err := noMoves(ctx, tx); err != nil {
			return err
		}
		known := current.Shards()
		for i := range moves {
			if err := insertMove(ctx, tx, current, known, &moves[i]); err != nil {
				return err
			}
			if moves[i].Kind == MoveJoin {
				known = append(known, moves[i].Target)
			}
		}
		return nil
	})
	if err != nil {
		return asked("", "store the moves", err)
	}
	return nil
}

// noMoves returns a Problem while moves are under way or to come. Who has the lock of the epoch keeps others from planning any.
func noMoves(ctx context.Context, tx pgx.Tx) error {
	under, err := readMoves(ctx, tx, " WHERE phase NOT IN ('done', 'aborted')")
	if err == nil && len(under) > 0 {
		err = &Problem{Kind: ErrConflict, Reason: fmt.Sprintf("%d moves are under way or to come", len(under)), Hint: "wait for their end, or abort them"}
	}
	return err
}

// insertMove stores one move. Slots may be planned to go to any known shard, as one that is to join before is.
func insertMove(ctx context.Context, tx pgx.Tx, current *shardmap.Map, known []string, m *Move) error {
	home := current.Shards()[0]
	refused := func(format string, args ...any) error {
		return &Problem{Kind: ErrInvalid, Reason: fmt.Sprintf(format, args...), Hint: "plan again"}
	}
	slots := make([]int32, len(m.Slots))
	switch m.Kind {
	case MoveJoin:
		if slices.Contains(known, m.Target) || m.Source != home {
			return refused("shard %q cannot join", m.Target)
		}
	case MoveLeave:
		if !slices.Contains(current.Shards(), m.Source) || m.Source == home || m.Target != home {
			return refused("shard %q cannot leave", m.Source)
		}
	default:
		m.Kind = MoveSlots
		for n, s := range m.Slots {
			slots[n] = int32(s)
			if int(s) >= current.Slots() || current.Owner(s) != m.Source || !slices.Contains(known, m.Target) {
				return refused("slot %d cannot move from %q to %q", s, m.Source, m.Target)
			}
		}
	}
	_, err := exec(ctx, tx, `INSERT INTO shardproxy.moves (kind, slots, source, target, rows, reversible, phase, maker)
		SELECT $1::text, $2::int4[], $3::text, $4::text, $5::int8, $6::boolean, 'planned', CASE $1::text
			WHEN 'join' THEN 1 + greatest((SELECT max(position) FROM shardproxy.shards), (SELECT max(maker) FROM shardproxy.moves))
			WHEN 'leave' THEN (SELECT position FROM shardproxy.shards WHERE name = $3::text) END`, string(m.Kind), slots, m.Source, m.Target, m.Rows, m.Reversible && m.Kind == MoveSlots)
	return err
}

// PauseMoves has no move begin another phase, or hold writes, or lets them go on. It returns how many moves that concerns. The error is a *Problem.
func PauseMoves(ctx context.Context, home *pgx.Conn, paused bool) (n int64, err error) {
	err = within(ctx, home, beginWrite, func(tx pgx.Tx) error {
		n, err = exec(ctx, tx, "UPDATE shardproxy.moves SET paused = $1 WHERE phase NOT IN ('done', 'aborted')", paused)
		return err
	})
	if err != nil {
		return 0, asked("", "pause the moves", err)
	}
	return n, nil
}

// AdvanceMove stores a move as m says, if it is in the phase from. ok is false when it is not: somebody else has advanced it. The error
// is a *Problem; ErrOutcome: read and see.
func AdvanceMove(ctx context.Context, home *pgx.Conn, from MovePhase, m *Move) (ok bool, err error) {
	return storeMove(ctx, home, "store the phase of a move", func(tx pgx.Tx) (bool, error) { return advance(ctx, tx, from, m) })
}

// storeMove changes the row of a move in a transaction of its own, unless it is in another state than store wants.
func storeMove(ctx context.Context, home *pgx.Conn, doing string, store func(pgx.Tx) (bool, error)) (ok bool, err error) {
	err = within(ctx, home, beginWrite, func(tx pgx.Tx) error {
		ok, err = store(tx)
		return err
	})
	if err != nil {
		return false, asked("", doing, err)
	}
	return ok, nil
}

func advance(ctx context.Context, tx pgx.Tx, from MovePhase, m *Move) (bool, error) {
	n, err := exec(ctx, tx, `UPDATE shardproxy.moves SET phase = $3, verified = $4, origin = $5::jsonb, reverse = $6::jsonb, copied = $7, purged = $8, held_ms = $9, said = $10, changed_at = clock_timestamp()
		WHERE id = $1 AND phase = $2 AND ($3 <> 'flipped' OR NOT abort)`, m.ID, string(from), string(m.Phase), m.Verified, jsonText(m.Origin), jsonText(m.Reverse), m.Copied, m.Purged,
		int32(m.HeldMs), m.Said)
	return n == 1, err
}

// jsonText returns JSON as a parameter, nil for NULL.
func jsonText(of json.RawMessage) *string {
	if of == nil {
		return nil
	}
	text := string(of)
	return &text
}

// Flipped returns what comes of a move, of the map now: the target owns its slots, which are held in now; or it is a shard; or the source is
// none any more. For both of these now must be closed.
func Flipped(now *shardmap.Map, m *Move) (*shardmap.Map, error) {
	switch m.Kind {
	case MoveJoin:
		return joined(now, m)
	case MoveLeave:
		return left(now, m)
	}
	rows := now.Rows()
	for _, s := range m.Slots {
		if rows[s].Shard != m.Source || !rows[s].Held {
			return nil, &Problem{Kind: ErrConflict, Reason: fmt.Sprintf("slot %d is of shard %q, held: %v", s, rows[s].Shard, rows[s].Held), Hint: "read the map again"}
		}
		rows[s].Shard = m.Target
	}
	return now.Next(rows)
}

func joined(now *shardmap.Map, m *Move) (*shardmap.Map, error) {
	if !now.Closed() || slices.Contains(now.Shards(), m.Target) {
		return nil, &Problem{Kind: ErrConflict, Reason: fmt.Sprintf("shard %q is in the map, or this is not closed", m.Target), Hint: "read the map again"}
	}
	return now.With(m.Target)
}

func left(now *shardmap.Map, m *Move) (*shardmap.Map, error) {
	if owned := len(now.SlotsOf(m.Source)); owned > 0 || !now.Closed() {
		return nil, &Problem{Kind: ErrConflict, Reason: fmt.Sprintf("shard %q owns %d slots, or writes go on", m.Source, owned), Hint: "move them away first"}
	}
	return now.Without(m.Source)
}

// FlipIn stores within an open transaction on the home shard what comes of a move: next, by Flipped of the map now, which must be the
// stored one. It is followed by a commit over several shards: until that has decided, nothing holds, and the part on the home shard, which notifies, must be
// the one that decides: it cannot be prepared. m.Phase becomes MoveFlipped. The transaction must be READ COMMITTED. The error is a *Problem.
func FlipIn(ctx context.Context, tx pgx.Tx, c *Cluster, now, next *shardmap.Map, m *Move) error {
	m.Phase = MoveFlipped
	err := func() error {
		if err := lockEpoch(ctx, tx); err != nil {
			return err
		}
		epoch, err := readEpoch(ctx, tx)
		if err != nil {
			return err
		}
		if epoch != now.Epoch() {
			cause := &ConflictError{From: now.Epoch(), Found: epoch}
			return &Problem{Kind: ErrConflict, Cause: cause, Reason: cause.Error(), Hint: "read the map again"}
		}
		if err := writeChange(ctx, tx, now, next); err != nil {
			return err
		}
		ok, err := advance(ctx, tx, MoveFollowing, m)
		if err == nil && !ok {
			err = &Problem{Kind: ErrConflict, Reason: "the move is in another phase", Hint: "read it again"}
		}
		if err == nil {
			_, err = exec(ctx, tx, "SELECT pg_notify($1, $2)", Channel, fmt.Sprintf("%s %d", c.ID, next.Epoch()))
		}
		return err
	}()
	if err != nil {
		return asked("", "flip slots", err)
	}
	return nil
}

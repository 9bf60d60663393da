package metadata

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"shardproxy/shardmap"
)

// Change replaces the stored map of epoch from by next, whose epoch must be
// from + 1, on the home shard's primary, in one transaction: it writes the
// slots that differ, the shards that come or go, whether it is guarded or closed and the epoch, and announces it
// on Channel. Shards that stay keep their position, new ones come behind. It
// moves no rows and tells no other shard; call SpreadEpoch after it.
//
// The error is a *Problem: ErrConflict when the stored epoch is not from
// (nothing was written), ErrOutcome when the connection broke during COMMIT
// (Load and see), ErrInvalid when next cannot follow, and those of Load.
func Change(ctx context.Context, home *pgx.Conn, from int64, next *shardmap.Map) error {
	err := within(ctx, home, beginWrite, func(tx pgx.Tx) error { return changeIn(ctx, tx, from, next) })
	if err != nil {
		return asked("", "change the slot map", err)
	}
	return nil
}

// changeIn is Change within a transaction. The epoch's row lock makes changes
// follow each other; what is read after it is what the one before has left.
func changeIn(ctx context.Context, tx pgx.Tx, from int64, next *shardmap.Map) error {
	if err := lockEpoch(ctx, tx); err != nil {
		return err
	}
	current, c, err := loadIn(ctx, tx, Version)
	if err != nil {
		return err
	}
	if current.Epoch() != from {
		cause := &ConflictError{From: from, Found: current.Epoch()}
		return &Problem{Kind: ErrConflict, Cause: cause, Reason: cause.Error(), Hint: "read the map again and decide anew"}
	}
	if err := follows(c, current, next); err != nil {
		return &Problem{Kind: ErrInvalid, Cause: err, Reason: err.Error(), Hint: "make the new map from the stored one"}
	}
	if err := writeChange(ctx, tx, current, next); err != nil {
		return err
	}
	_, err = exec(ctx, tx, "SELECT pg_notify($1, $2)", Channel, fmt.Sprintf("%s %d", c.ID, next.Epoch()))
	return err
}

// lockEpoch waits for its turn. Without the table, or without a row in it,
// there is nothing to wait for, and nothing to change.
func lockEpoch(ctx context.Context, tx pgx.Tx) error {
	var there bool
	if err := row(ctx, tx, "SELECT to_regclass('shardproxy.epoch') IS NOT NULL").Scan(&there); err != nil || !there {
		return err
	}
	_, err := exec(ctx, tx, "SELECT 1 FROM shardproxy.epoch FOR UPDATE")
	return err
}

// follows says why next cannot follow current, or nil.
func follows(c *Cluster, current, next *shardmap.Map) error {
	switch {
	case next.Epoch() != current.Epoch()+1:
		return fmt.Errorf("epoch %d cannot follow epoch %d", next.Epoch(), current.Epoch())
	case next.Slots() != current.Slots():
		return fmt.Errorf("a map of %d slots cannot follow one of %d", next.Slots(), current.Slots())
	case !slices.Contains(next.Shards(), c.Home):
		return fmt.Errorf("the home shard %q cannot leave the map", c.Home)
	}
	return nil
}

// writeChange writes what differs and the epoch.
func writeChange(ctx context.Context, tx pgx.Tx, current, next *shardmap.Map) error {
	d := current.Diff(next)
	if len(d.Added) > 0 {
		_, err := exec(ctx, tx, `INSERT INTO shardproxy.shards (name, position)
			SELECT name, n + (SELECT max(position) FROM shardproxy.shards) FROM unnest($1::text[]) WITH ORDINALITY AS s (name, n)`, d.Added)
		if err != nil {
			return err
		}
	}
	var slots []int32
	var olds, news []string
	for _, m := range d.Moves {
		for _, s := range m.Slots {
			slots, olds, news = append(slots, int32(s)), append(olds, m.From), append(news, m.To)
		}
	}
	if len(slots) > 0 {
		n, err := exec(ctx, tx, `UPDATE shardproxy.slots AS s SET shard = v.new
			FROM unnest($1::int[], $2::text[], $3::text[]) AS v (slot, old, new)
			WHERE s.slot = v.slot AND s.shard = v.old`, slots, olds, news)
		if err == nil && n != int64(len(slots)) {
			err = &Problem{Kind: ErrInconsistent, Reason: fmt.Sprintf("%d slots were changed by hand meanwhile", int64(len(slots))-n), Hint: hintRestore}
		}
		if err != nil {
			return err
		}
	}
	if !current.SameStates(next) {
		if err := writeStates(ctx, tx, next); err != nil {
			return err
		}
	}
	if len(d.Removed) > 0 {
		if _, err := exec(ctx, tx, "DELETE FROM shardproxy.shards WHERE name = ANY ($1::text[])", d.Removed); err != nil {
			return err
		}
	}
	_, err := exec(ctx, tx, "UPDATE shardproxy.epoch SET epoch = $1, changed_at = now(), guarded = $2, closed = $3", next.Epoch(), next.Guarded(), next.Closed())
	return err
}

// writeStates writes which slots are held.
func writeStates(ctx context.Context, tx pgx.Tx, next *shardmap.Map) error {
	list := []int32{}
	for s := range next.Slots() {
		if next.Held(shardmap.Slot(s)) {
			list = append(list, int32(s))
		}
	}
	_, err := exec(ctx, tx, `UPDATE shardproxy.slots SET state = CASE WHEN slot = ANY ($1::int[]) THEN $2 ELSE $3 END
		WHERE (state = $2) <> (slot = ANY ($1::int[]))`, list, held, steady)
	return err
}

// RaiseEpoch tells one shard, which is not the home shard, that there is an
// epoch, through a connection to its primary. It never lowers what is stored,
// and returns that. want is the row that the shard must have; its
// SchemaVersion and CreatedAt do not count. The error is a *Problem.
func RaiseEpoch(ctx context.Context, conn *pgx.Conn, want *Cluster, epoch int64) (stored int64, err error) {
	if want.Shard == want.Home {
		return 0, &Problem{Shard: want.Shard, Kind: ErrInvalid, Reason: "the home shard's epoch changes with its map only", Hint: "use Change"}
	}
	err = within(ctx, conn, beginWrite, func(tx pgx.Tx) error {
		c, err := readCluster(ctx, tx)
		if err != nil {
			return err
		}
		if err := c.mustBe(want); err != nil {
			return err
		}
		_, err = exec(ctx, tx, `INSERT INTO shardproxy.epoch AS e (epoch) VALUES ($1)
			ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch, changed_at = now() WHERE e.epoch < excluded.epoch`, epoch)
		if err != nil {
			return err
		}
		stored, err = readEpoch(ctx, tx)
		return err
	})
	if err != nil {
		p := *asked("", "store the epoch", err)
		p.Shard = want.Shard
		return 0, &p
	}
	return stored, nil
}

// mustBe returns a Problem unless the row is there, is the wanted shard's and
// of this program's version.
func (c *Cluster) mustBe(want *Cluster) error {
	if c == nil {
		return notInitialised(want.Shard, "the server has no shardproxy cluster")
	}
	if err := c.sameAs(want); err != nil {
		return err
	}
	return c.checkVersion(Version)
}

// SpreadEpoch tells all shards but the home shard an epoch, at once, through
// connections of its own. Shards that know it, or a newer one, stay as they
// are. c is any shard's row. The error joins one *Problem for each shard that
// was not told; calling again is safe.
func SpreadEpoch(ctx context.Context, c *Cluster, shards []Shard, epoch int64) error {
	failures := make([]error, len(shards))
	var group sync.WaitGroup
	for i, s := range shards {
		if s.Name != c.Home {
			group.Go(func() { failures[i] = spreadTo(ctx, c, s, epoch) })
		}
	}
	group.Wait()
	return errors.Join(failures...)
}

func spreadTo(ctx context.Context, c *Cluster, s Shard, epoch int64) error {
	conn, err := s.Connect(ctx)
	if err != nil {
		return asked(s.Name, "connect", err)
	}
	defer closeConn(conn)
	want := *c
	want.Shard = s.Name
	_, err = RaiseEpoch(ctx, conn, &want, epoch)
	return err
}

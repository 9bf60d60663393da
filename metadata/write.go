package metadata

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"shardproxy/shardmap"
)

// writer carries Init out. The order is that of the design page: the home
// shard's row, the other shards' rows, the map, the epochs.
type writer struct {
	report  *Report
	view    *view
	way     []step
	options Options
}

func (w *writer) run(ctx context.Context) error {
	w.report.Cluster = w.view.identity
	for i := range w.options.Shards {
		if err := w.claim(ctx, i); err != nil {
			return err
		}
	}
	if err := w.storeMap(ctx); err != nil {
		return err
	}
	if err := w.storeRules(ctx); err != nil {
		return err
	}
	for i := range w.options.Shards {
		if err := w.number(ctx, i); err != nil {
			return err
		}
	}
	for i := 1; i < len(w.options.Shards); i++ {
		if err := w.epoch(ctx, i); err != nil {
			return err
		}
	}
	return w.final(ctx)
}

// did notes a step; "" is none.
func (w *writer) did(i int, what string) {
	if what != "" {
		w.report.Steps = append(w.report.Steps, Step{w.options.Shards[i].Name, what})
	}
}

// failed names the shard of an error and says that Init can be run again.
func (w *writer) failed(i int, doing string, err error) error {
	p := *asked("", doing, err)
	p.Shard = w.options.Shards[i].Name
	p.Hint += "; then run \"shardproxy init\" again, it goes on where it ended"
	return &p
}

// claim makes or upgrades one shard's schema and row.
func (w *writer) claim(ctx context.Context, i int) error {
	want := w.view.identity
	want.Shard = w.options.Shards[i].Name
	if w.options.DryRun {
		w.did(i, wouldClaim(w.view.judge.all[i].row, &want, w.way))
		return nil
	}
	did, err := claim(ctx, w.view.conns[i], &want, w.way)
	if err != nil {
		return w.failed(i, "make the schema shardproxy", err)
	}
	w.did(i, did)
	return nil
}

// storeMap stores the first map on the home shard unless there is one.
func (w *writer) storeMap(ctx context.Context) error {
	if w.report.Map = w.view.judge.stored; w.report.Map != nil {
		return nil
	}
	m, err := w.options.propose(w.view.identity.Slots)
	if err != nil {
		return w.failed(0, "propose a slot map", err)
	}
	if !w.options.DryRun {
		err := within(ctx, w.view.conns[0], beginWrite, func(tx pgx.Tx) error { return insertMap(ctx, tx, m) })
		if err != nil {
			return w.failed(0, "store the slot map", err)
		}
	}
	w.report.Map = m
	w.did(0, fmt.Sprintf("stored the slot map, %d slots on %d shards, epoch %d", m.Slots(), len(m.Shards()), m.Epoch()))
	return nil
}

// insertMap writes a first map. Nobody else does: Init holds the lock of its
// turn, and a map that is there already fails on the primary keys.
func insertMap(ctx context.Context, tx pgx.Tx, m *shardmap.Map) error {
	names := m.Shards()
	_, err := exec(ctx, tx, `INSERT INTO shardproxy.shards (name, position)
		SELECT name, n - 1 FROM unnest($1::text[]) WITH ORDINALITY AS s (name, n)`, names)
	if err != nil {
		return err
	}
	owners := make([]int32, m.Slots())
	for s := range owners {
		owners[s] = int32(m.OwnerIndex(shardmap.Slot(s)))
	}
	_, err = exec(ctx, tx, `INSERT INTO shardproxy.slots (slot, shard)
		SELECT n - 1, ($2::text[])[owner + 1] FROM unnest($1::int[]) WITH ORDINALITY AS s (owner, n)`, owners, names)
	if err != nil {
		return err
	}
	_, err = exec(ctx, tx, "INSERT INTO shardproxy.epoch (epoch) VALUES ($1)", m.Epoch())
	return err
}

// epoch tells a shard that is not the home shard the map's epoch.
func (w *writer) epoch(ctx context.Context, i int) error {
	epoch := w.report.Map.Epoch()
	if w.view.judge.all[i].epoch >= epoch {
		return nil
	}
	if !w.options.DryRun {
		want := w.view.identity
		want.Shard = w.options.Shards[i].Name
		if _, err := RaiseEpoch(ctx, w.view.conns[i], &want, epoch); err != nil {
			return w.failed(i, "store the epoch", err)
		}
	}
	w.did(i, fmt.Sprintf("stored epoch %d", epoch))
	return nil
}

// final reads what holds now. What was written must be what is read.
func (w *writer) final(ctx context.Context) error {
	if w.options.DryRun {
		return nil
	}
	m, c, err := load(ctx, w.view.conns[0], w.way[len(w.way)-1].version)
	if err != nil {
		return w.failed(0, "read the slot map", err)
	}
	w.report.Map, w.report.Cluster = m, *c
	return nil
}

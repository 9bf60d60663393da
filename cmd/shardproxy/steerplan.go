package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"shardproxy/admin"
	"shardproxy/metadata"
	"shardproxy/wire"
)

// PlanMoves implements admin.Steerer.
func (s *source) PlanMoves(ctx context.Context, o admin.PlanOrder, start bool) (*admin.Plan, error) {
	db, err := s.find(o.Database)
	if err != nil {
		return nil, err
	}
	if db.cluster == nil {
		return nil, wire.Errorf("55000", "database %s has one shard: nothing moves", o.Database)
	}
	f, err := orderedFlags(o.Options)
	if err != nil {
		return nil, planError(ctx, false, err)
	}
	cfg := s.p.state.Load().cfg
	conf := cfg.Database(o.Database)
	if conf == nil { // a reload has taken it away meanwhile
		return nil, admin.ErrUnknownDatabase
	}
	p, links, err := f.plan(ctx, cfg, conf)
	if links != nil {
		defer links.close()
	}
	if err != nil {
		return nil, planError(ctx, false, err)
	}
	r := p.report()
	r.starts = start && len(p.moves()) > 0
	a := r.shown(p)
	switch {
	case !start:
		return a, nil
	case a.Blocked:
		return nil, inTheWay(a)
	case o.Plan != "" && o.Plan != a.ID:
		return nil, wire.Errorf("55000", "that plan is no longer the one there would be").
			WithDetail("Slots have moved meanwhile, or what lies in them has changed.").WithHint("Have a look at the plan there is now.")
	case !r.starts:
		return a, nil
	}
	var said strings.Builder
	if err := p.start(ctx, cfg, links.all[0].conn, &said); err != nil {
		return nil, planError(ctx, true, err)
	}
	a.Text += onConsole().Replace(said.String())
	a.Started = true
	db.cluster.looks.refresh(ctx)
	return a, nil
}

// orderedFlags are the flags of rebalance start that options of an order stand for.
func orderedFlags(options []admin.PlanOption) (*planFlags, error) {
	f := newPlanFlags()
	c := &cobra.Command{}
	f.flags(c)
	f.startFlags(c)
	names, values := admin.PlanOptions()
	known := map[string]bool{}
	for _, name := range names {
		known[name] = true
	}
	for _, o := range options {
		if !known[o.Name] {
			return nil, fmt.Errorf("there is no option %q", o.Name)
		}
		flag, value := strings.ReplaceAll(o.Name, "_", "-"), o.Value
		if flag == "tenant" {
			flag = "move-tenant"
		}
		if !values[o.Name] {
			value = "true"
		}
		if err := c.Flags().Set(flag, value); err != nil {
			return nil, err
		}
	}
	return f, f.sensible(c)
}

// onConsole has texts that speak of flags speak of options.
func onConsole() *strings.Replacer {
	names, _ := admin.PlanOptions()
	pairs := []string{"--move-tenant", "TENANT", " (--json)", "", " (--rate)", ""}
	for _, name := range names {
		pairs = append(pairs, "--"+strings.ReplaceAll(name, "_", "-"), strings.ToUpper(name))
	}
	return strings.NewReplacer(pairs...)
}

// shown is the plan as the console and the dashboard have it.
func (r *planReport) shown(p *planned) *admin.Plan {
	a := &admin.Plan{
		Database: r.Database, Epoch: r.Epoch, Blocked: r.Blocked, Slots: r.Moved.Slots, Rows: r.Moved.Rows, Bytes: r.Moved.Bytes, Seconds: r.EstimatedSeconds,
		Shards: []admin.PlannedShard{}, Moves: []admin.PlannedMove{}, Blockers: []admin.PlanBlocker{}, Text: onConsole().Replace(r.text()),
	}
	for _, s := range r.Shards {
		a.Shards = append(a.Shards, admin.PlannedShard{Name: s.Name, State: s.State, SlotsNow: s.Now.Slots, SlotsThen: s.Then.Slots, BytesNow: s.Now.Bytes, BytesThen: s.Then.Bytes})
	}
	moves := p.moves()
	for _, m := range moves {
		a.Moves = append(a.Moves, admin.PlannedMove{Kind: string(m.Kind), Source: m.Source, Target: m.Target, Slots: len(m.Slots), Rows: m.Rows})
	}
	if r.Blocked { // what is in the way of no move is no news
		for _, b := range r.Blockers {
			a.Blockers = append(a.Blockers, admin.PlanBlocker{Shard: b.Shard, Table: b.Table, Reason: b.Reason, Hint: b.Hint})
		}
	}
	if len(moves) > 0 {
		a.ID = planID(r.Database, r.Epoch, moves)
	}
	return a
}

// planID tells one plan from another: by the slot map and the moves, not by how much there is to carry.
func planID(database string, epoch int64, moves []metadata.Move) string {
	h := sha256.New()
	e := json.NewEncoder(h)
	_ = e.Encode([]any{database, epoch}) // a hash takes all
	for _, m := range moves {
		_ = e.Encode([]any{m.Kind, m.Source, m.Target, m.Slots, m.Reversible})
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// inTheWay is the answer when a plan that cannot be done was to be begun.
func inTheWay(a *admin.Plan) error {
	var all []string
	for _, b := range a.Blockers {
		var at []string
		for _, of := range []string{b.Shard, b.Table} {
			if of != "" {
				at = append(at, of)
			}
		}
		all = append(all, strings.TrimPrefix(strings.Join(at, ", ")+": "+b.Reason, ": "))
	}
	return wire.Errorf("55000", "something is in the way of these moves; nothing was changed").WithDetail("%s", strings.Join(all, "\n")).
		WithHint("MOVE PLAN with the same options says more.")
}

// planError says to the client why there is no plan, or why it was not begun; planned is set when there was a plan.
func planError(ctx context.Context, planned bool, err error) error {
	var said *wire.Error
	var p *metadata.Problem
	var exit *exitError
	text := onConsole().Replace(err.Error())
	switch {
	case errors.As(err, &said):
		return said
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, metadata.ErrOutcome):
		return wire.Errorf("08007", "it is not known whether the moves were stored").WithDetail("%s", text).WithHint("See SHOW MOVES before you order it again.")
	case errors.As(err, &p) && !errors.Is(err, metadata.ErrUnreachable):
		return wire.Errorf("55000", "%s", p.Reason).WithHint("%s", p.Hint)
	case errors.As(err, &exit) && exit.code == exitProblems:
		return wire.Errorf("08001", "not all shards can be asked, or made ready").WithDetail("%s", text)
	}
	if planned {
		return wire.Errorf("55000", "%s", text)
	}
	return wire.Errorf("22023", "%s", text)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/metadata"
	"shardproxy/rebalance"
	"shardproxy/router"
	"shardproxy/shardmap"
)

// ruleChange replaces the rules by which a cluster places rows with those of the configuration.
type ruleChange struct {
	cfg  *config.Config
	conf *config.Database // the configuration's
	was  *config.Database // as the cluster has it
	home *pgx.Conn
	out  io.Writer
}

// unruled says why init --rules may not change the rules, and what helps.
func unruled(reason, hint string) error {
	return &metadata.Problem{Kind: metadata.ErrMismatch, Reason: reason, Hint: hint}
}

// changeRules stores the configuration's rules where the cluster has others. Proxies may serve it meanwhile, unless there are tables that are placed otherwise then:
// of these every row must lie where the new rules have it, and no proxy may serve the cluster.
func changeRules(ctx context.Context, cfg *config.Config, conf *config.Database, out io.Writer, dry bool) error {
	home, err := linkTo(ctx, conf.Shards[0].Name, primaryOf(cfg, conf, 0))
	if err != nil {
		return err
	}
	defer endConn(home)
	r := &ruleChange{cfg: cfg, conf: conf, home: home, out: out}
	m, c, err := metadata.Load(ctx, home)
	if errors.Is(err, metadata.ErrNotInitialised) || errors.Is(err, metadata.ErrVersion) {
		return nil // init itself stores them
	}
	if err != nil {
		return err
	}
	if c.Rules == "" || c.Rules == conf.Rules() && !m.Closed() {
		return nil
	}
	if r.was, err = conf.WithRules(c.Rules); err != nil {
		return unruled(err.Error(), "use the version of shardproxy that stored them, or a newer one")
	}
	for _, d := range metadata.RulesDiffer(conf.Rules(), c.Rules) {
		fmt.Fprintln(out, d)
	}
	moves, err := metadata.Moves(ctx, home, false)
	if err != nil {
		return err
	}
	if len(moves) > 0 {
		return unruled(fmt.Sprintf("%d moves of slots are under way or to come", len(moves)), "wait for their end, or abort them")
	}
	if dry {
		_, err := r.judge(ctx, m)
		return err
	}
	return r.run(ctx, m, c)
}

// run has definitions wait in all proxies while it compares and stores.
func (r *ruleChange) run(ctx context.Context, m *shardmap.Map, c *metadata.Cluster) (err error) {
	closed := m.Close(m.Epoch()+1, true)
	if err := metadata.Change(ctx, r.home, m.Epoch(), closed); err != nil {
		return err
	}
	opened, stored := closed.Close(closed.Epoch()+1, false), false
	defer func() {
		if !stored {
			err = errors.Join(err, r.reopen(context.WithoutCancel(ctx), closed, opened))
		}
	}()
	if err := r.await(ctx, closed.Epoch()); err != nil {
		return err
	}
	elsewhere, err := r.judge(ctx, closed)
	if err != nil {
		return err
	}
	if err := metadata.StoreRules(ctx, r.home, closed.Epoch(), opened, r.conf.Rules(), elsewhere); err != nil {
		return err
	}
	stored = true
	fmt.Fprintf(r.out, "shard %q: stored the rules by which rows are placed, epoch %d\n", r.conf.Shards[0].Name, opened.Epoch())
	return metadata.SpreadEpoch(ctx, c, clusterOptions(r.conf, func(i int) metadata.Connect { return primaryOf(r.cfg, r.conf, i) }).Shards, opened.Epoch())
}

// reopen has definitions wait no more. It has a connection of its own: whoever ends a command ends what its connections do.
func (r *ruleChange) reopen(ctx context.Context, closed, opened *shardmap.Map) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	home, err := primaryOf(r.cfg, r.conf, 0)(ctx)
	if err == nil {
		defer endConn(home)
		err = metadata.Change(ctx, home, closed.Epoch(), opened)
	}
	if errors.Is(err, metadata.ErrConflict) { // what the end of a connection has hidden was done
		if now, _, failed := metadata.Load(ctx, home); failed == nil && !now.Closed() {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("definitions still wait in the proxies, run init --rules again: %w", err)
	}
	return nil
}

// await waits until no definition is under way in any proxy.
func (r *ruleChange) await(ctx context.Context, epoch int64) error {
	var late []string
	for {
		all, err := metadata.Acknowledged(ctx, r.home)
		switch {
		case err != nil && ctx.Err() != nil && len(late) > 0:
			return errWaited(late)
		case err != nil:
			return err
		}
		late = nil
		for _, a := range all {
			if a.Writes < epoch || a.Statements < epoch {
				late = append(late, fmt.Sprintf("%s (%s)", a.Proxy, a.Host))
			}
		}
		if len(late) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return errWaited(late)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func errWaited(late []string) error {
	return unruled("transactions that began before have not ended in proxy "+strings.Join(late, ", "),
		"end them; a proxy that is gone for good is taken away with \"shardproxy rebalance forget\"")
}

// judge reports whether there are tables that the new rules place otherwise. The error is one when rows of them lie elsewhere by the new ones.
func (r *ruleChange) judge(ctx context.Context, m *shardmap.Map) (elsewhere bool, err error) {
	c, err := catalog.LoadTables(ctx, r.home)
	if err != nil {
		return false, err
	}
	all := router.PlacedOtherwise(r.was, r.conf, c)
	if len(all) == 0 {
		return false, nil
	}
	var names []string
	for _, t := range all {
		names = append(names, sqlName(t.Table))
	}
	fmt.Fprintln(r.out, "placed otherwise: "+strings.Join(names, ", "))
	for i, name := range m.Shards() {
		at := slices.IndexFunc(r.conf.Shards, func(s config.Shard) bool { return s.Name == name })
		if at < 0 {
			return true, unruled("the configuration lacks shard "+name, "add it")
		}
		conn, err := linkTo(ctx, name, primaryOf(r.cfg, r.conf, at))
		if err != nil {
			return true, err
		}
		defer endConn(conn)
		for j := range all {
			if err := judgeTable(ctx, conn, m, i, &all[j]); err != nil {
				return true, fmt.Errorf("shard %s: %w", name, err)
			}
		}
	}
	return true, nil
}

// judgeTable returns an error when the shard has rows of a table that by the new rules are not its own. Of tables that are placed neither by hash nor on the home shard
// it must have none.
func judgeTable(ctx context.Context, conn *pgx.Conn, m *shardmap.Map, shard int, t *router.Replaced) error {
	name, elsewhere := sqlName(t.Table), "true"
	switch {
	case t.Table.Kind == catalog.KindSequence:
		return unruled("sequence "+name+" would be on another shard", "make it anew under the new rules")
	case t.Single && shard == 0:
		return nil
	case len(t.Key) > 0:
		slot := slotSQL(t.SlottedTable, m.Slots())
		if slot == "" {
			return unruled("table "+name+" has no key by its new rule", "mend the rule")
		}
		own := rebalance.NewSet(m.SlotsOf(m.Shards()[shard]), m.Slots())
		if elsewhere = "NOT coalesce(" + own.HasSQL(slot) + ", false)"; len(own.Slots()) == m.Slots() {
			elsewhere = "false"
		}
	}
	var there bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", pgx.QueryExecModeExec, name).Scan(&there); err != nil {
		return err
	}
	switch {
	case !there && t.Single:
		return nil
	case !there:
		return unruled("table "+name+" is not there, and would be on all shards", "make it there as it is on the home shard, or make it anew under the new rules")
	}
	has, err := hasRow(ctx, conn, t.Table, elsewhere)
	if err == nil && has {
		err = unruled("table "+name+" has rows that would not be found there by the new rules", "take its rows out, change the rules, and bring them in again through a proxy")
	}
	return err
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	dry  bool
}

// errUnruled is what init --rules ends with when it may not change the rules.
type errUnruled struct{ reason, hint string }

func (e *errUnruled) Error() string { return e.reason + " (" + e.hint + ")" }

// changeRules stores the configuration's rules where the cluster has others. Proxies may serve it meanwhile, unless there are tables that are placed otherwise then:
// of these every row must lie where the new rules have it, and no proxy may serve the cluster.
func changeRules(ctx context.Context, cfg *config.Config, conf *config.Database, out io.Writer, dry bool) error {
	home, err := primaryOf(cfg, conf, 0)(ctx)
	if err != nil {
		return fmt.Errorf("shard %s: %w", conf.Shards[0].Name, err)
	}
	defer endConn(home)
	if _, err := home.Exec(ctx, linkSetup); err != nil {
		return fmt.Errorf("shard %s: %w", conf.Shards[0].Name, err)
	}
	r := &ruleChange{cfg: cfg, conf: conf, home: home, out: out, dry: dry}
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
		return &errUnruled{err.Error(), "use the version of shardproxy that stored them, or a newer one"}
	}
	for _, d := range metadata.RulesDiffer(conf.Rules(), c.Rules) {
		fmt.Fprintln(out, d)
	}
	moves, err := metadata.Moves(ctx, home, false)
	if err != nil {
		return err
	}
	if len(moves) > 0 {
		return &errUnruled{fmt.Sprintf("%d moves of slots are under way or to come", len(moves)), "wait for their end, or abort them"}
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
	return &errUnruled{"transactions that began before have not ended in proxy " + strings.Join(late, ", "),
		"end them; a proxy that is gone for good is taken away with \"shardproxy rebalance forget\""}
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
		names = append(names, sqlName(t))
	}
	fmt.Fprintln(r.out, "placed otherwise: "+strings.Join(names, ", "))
	slotted := map[string]router.SlottedTable{}
	for _, t := range router.SlottedTables(r.conf, c).Tables {
		slotted[sqlName(t.Table)] = t
	}
	for i, name := range m.Shards() {
		at := shardIndex(r.conf, name)
		if at < 0 {
			return true, &errUnruled{"the configuration lacks shard " + name, "add it"}
		}
		conn, err := primaryOf(r.cfg, r.conf, at)(ctx)
		if err != nil {
			return true, fmt.Errorf("shard %s: %w", name, err)
		}
		defer endConn(conn)
		for _, t := range all {
			if err := r.judgeTable(ctx, conn, m, i, t, router.Single(r.conf, c, t), slotted[sqlName(t)]); err != nil {
				return true, fmt.Errorf("shard %s: %w", name, err)
			}
		}
	}
	return true, nil
}

func shardIndex(conf *config.Database, name string) int {
	for i := range conf.Shards {
		if conf.Shards[i].Name == name {
			return i
		}
	}
	return -1
}

// judgeTable returns an error when the shard has rows of a table that by the new rules are not its own. Of tables that are placed neither by hash nor on the home shard
// it must have none.
func (r *ruleChange) judgeTable(ctx context.Context, conn *pgx.Conn, m *shardmap.Map, shard int, t *catalog.Table, single bool, by router.SlottedTable) error {
	if t.Kind == catalog.KindSequence {
		return &errUnruled{"sequence " + sqlName(t) + " would be on another shard", "make it anew under the new rules"}
	}
	where := ""
	switch {
	case by.Table != nil:
		own, slot := rebalance.NewSet(m.SlotsOf(m.Shards()[shard]), m.Slots()), slotSQL(by, m.Slots())
		if slot == "" {
			return &errUnruled{"table " + sqlName(t) + " has no key by its new rule", "mend the rule"}
		}
		if len(own.Slots()) < m.Slots() {
			where = " WHERE NOT coalesce(" + own.HasSQL(slot) + ", false)"
		} else {
			where = " WHERE false"
		}
	case shard == 0 && single:
		return nil
	}
	var there, has bool
	err := conn.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", pgx.QueryExecModeExec, sqlName(t)).Scan(&there)
	if err != nil {
		return err
	}
	if !there && single {
		return nil
	}
	if !there {
		return &errUnruled{"table " + sqlName(t) + " is not there, and would be on all shards", "make it there as it is on the home shard, or make it anew under the new rules"}
	}
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM ONLY "+sqlName(t)+where+")").Scan(&has); err != nil {
		return err
	}
	if has {
		return &errUnruled{"table " + sqlName(t) + " has rows that would not be found there by the new rules", "take its rows out, change the rules, and bring them in again through a proxy"}
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/metadata"
	"shardproxy/rebalance"
	"shardproxy/router"
	"shardproxy/shardmap"
	"shardproxy/twopc"
	"shardproxy/verify"
)

// move carries moves of slots out, or waits until another proxy does no more; while it yields, others are to.
func (c *cluster) move(ctx context.Context, id string, yields func() bool) {
	o := rebalance.MoverOptions{Logger: c.log, Limits: c.moverLimits, Yields: yields,
		Tables: moverTables(&c.db.conf), Everywhere: moverEverywhere(&c.db.conf), Stays: moverStays(&c.db.conf), Differences: c.differences}
	for _, sh := range c.db.shards {
		o.Shards = append(o.Shards, rebalance.MoverShard{Name: sh.conf.Name, Connect: sh.connect, Replication: sh.replication})
	}
	o.Commit = func(ctx context.Context, parts []rebalance.FlipPart) (unknown bool, err error) {
		all := make([]twopc.Part, len(parts))
		for i, p := range parts {
			all[i] = twopc.Part{Shard: p.Shard, Conn: commitConn{p.Conn}}
		}
		outcome, err := twopc.Commit(ctx, twopc.Options{Cluster: id, Resolver: c.twoPhase.Load(), Logger: c.log}, all)
		if outcome == twopc.Committed {
			return false, nil
		}
		if err == nil {
			err = errors.New("the commit was " + outcome.String())
		}
		return outcome == twopc.Unknown, err
	}
	rebalance.NewMover(o).Run(ctx)
}

// moverLimits are what moves may take by the configuration in force.
func (c *cluster) moverLimits() rebalance.MoverLimits {
	m := c.moves.Load()
	return rebalance.MoverLimits{
		Moves: m.AtOnce, HoldLimit: m.HoldLimit, CopyRate: int64(m.CopyRate), PurgeRows: int64(m.PurgeRows),
		MaxLag: int64(m.MaxLag), MaxActive: m.MaxActive, MaxWAL: int64(m.MaxWAL),
	}
}

// moverTables finds the tables that lie in slots, and what keeps slots from moving.
func moverTables(conf *config.Database) func(*catalog.Catalog, *rebalance.Set, int) ([]*rebalance.Table, []*rebalance.Blocker) {
	return func(c *catalog.Catalog, moving *rebalance.Set, slots int) (tables []*rebalance.Table, blockers []*rebalance.Blocker) {
		of := router.SlottedTables(conf, c)
		for _, t := range of.Tables {
			switch table, b := movable(t, slots); {
			case b != nil:
				blockers = append(blockers, b)
			default:
				tables = append(tables, table)
			}
		}
		blockers = append(blockers, placeless(of)...)
		for _, s := range of.Schemas {
			if s.Shard == "" && moving.Has(shardmap.SlotOf(s.Hash, slots)) {
				blockers = append(blockers, &rebalance.Blocker{Reason: "schema " + s.Name + " lies in one of the slots as a whole", Hint: "leave that slot where it is"})
			}
		}
		return tables, blockers
	}
}

// movable returns a table that lies in slots as one to be moved, or what keeps it from moving.
func movable(t router.SlottedTable, slots int) (*rebalance.Table, *rebalance.Blocker) {
	table, err := rebalance.NewTable(t.Table, t.Key, slots)
	var b *rebalance.Blocker
	if err != nil && !errors.As(err, &b) {
		b = &rebalance.Blocker{Table: sqlName(t.Table), Reason: err.Error()}
	}
	return table, b
}

// placeless are the tables of which nobody can say where their rows are, as what keeps any slot from moving.
func placeless(of *router.Slotted) (blockers []*rebalance.Blocker) {
	for _, u := range of.Unknown {
		blockers = append(blockers, &rebalance.Blocker{Table: sqlName(u.Table), Reason: "it cannot be said where its rows are: it " + u.Why, Hint: "mend its rule"})
	}
	return blockers
}

// moverEverywhere finds the tables that every shard has whole.
func moverEverywhere(conf *config.Database) func(*catalog.Catalog) ([]*rebalance.Table, []*rebalance.Blocker) {
	return func(c *catalog.Catalog) (tables []*rebalance.Table, blockers []*rebalance.Blocker) {
		of := router.SlottedTables(conf, c)
		for _, t := range of.Everywhere {
			switch table, b := movable(router.SlottedTable{Table: t}, 1); {
			case b != nil:
				blockers = append(blockers, b)
			default:
				tables = append(tables, table)
			}
		}
		return tables, append(blockers, placeless(of)...)
	}
}

// moverStays says what keeps a shard from leaving.
func moverStays(conf *config.Database) func(*catalog.Catalog, string) []*rebalance.Blocker {
	return func(c *catalog.Catalog, shard string) []*rebalance.Blocker {
		return staysOn(router.SlottedTables(conf, c), shard)
	}
}

// differences says how the definitions of a shard of the configuration differ from those of the home shard.
func (c *cluster) differences(ctx context.Context, name string) (string, error) {
	home, other := c.db.shards[0], c.db.shards[slices.Index(c.names(), name)]
	var sessions [2]*verify.Session
	for i, sh := range [...]*shard{home, other} {
		s, err := verify.Open(ctx, sh.conf.Name, sh.connect)
		if err != nil {
			return "", fmt.Errorf("shard %s: %s", sh.conf.Name, verify.Told(err))
		}
		defer s.Close()
		sessions[i] = s
	}
	var differ []string
	var found *schemaDiffers
	switch err := copiedSchema(ctx, &c.db.conf, sessions[0], sessions[1]); {
	case errors.As(err, &found):
		for _, f := range found.Findings {
			if !strings.Contains(f.Message, "shardproxy_fence_") { // that is made by the move itself
				differ = append(differ, f.Message)
			}
		}
	case err != nil:
		return "", err
	}
	privileges, err := unlikePrivileges(ctx, home, other)
	if err != nil {
		return "", err
	}
	differ = append(differ, privileges...)
	if n := len(differ) - maxDiffer; n > 0 {
		differ = append(differ[:maxDiffer], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(differ, "; "), nil
}

// maxDiffer is how many differences are told of.
const maxDiffer = 5

// commitConn is a connection of the control user as twopc takes it.
type commitConn struct{ conn *pgx.Conn }

// Exec implements twopc.Conn.
func (c commitConn) Exec(ctx context.Context, sql string) error {
	return metadata.Said(c.conn.PgConn().Exec(ctx, sql).Close())
}

// replication connects to the shard's primary for replication.
func (sh *shard) replication(ctx context.Context) (*pgconn.PgConn, error) {
	n, err := sh.await(ctx, sh.monitor.Primary)
	if err != nil {
		return nil, err
	}
	cfg, err := sh.db.control(sh.conf.Nodes[n])
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["replication"] = "database"
	return pgconn.ConnectConfig(ctx, cfg)
}

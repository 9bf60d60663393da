package main

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/rebalance"
	"shardproxy/router"
	"shardproxy/shardmap"
	"shardproxy/twopc"
	"shardproxy/wire"
)

// What a move may take of its shards, so that applications do not feel it.
const (
	moveBytesPerSecond = 50 << 20
	purgeRowsPerSecond = 20_000
)

// move carries moves of slots out, or waits until another proxy does no more.
func (c *cluster) move(ctx context.Context, id string) {
	t := &rebalance.Throttle{}
	t.SetRate(moveBytesPerSecond)
	o := rebalance.MoverOptions{Logger: c.log, Throttle: t, PurgeRows: purgeRowsPerSecond, Tables: moverTables(&c.db.conf)}
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

// moverTables finds the tables that lie in slots, and what keeps slots from moving.
func moverTables(conf *config.Database) func(*catalog.Catalog, *rebalance.Set, int) ([]*rebalance.Table, []*rebalance.Blocker) {
	return func(c *catalog.Catalog, moving *rebalance.Set, slots int) (tables []*rebalance.Table, blockers []*rebalance.Blocker) {
		of := router.SlottedTables(conf, c)
		for _, t := range of.Tables {
			table, err := rebalance.NewTable(t.Table, t.Key, slots)
			var b *rebalance.Blocker
			switch {
			case err == nil:
				tables = append(tables, table)
			case errors.As(err, &b):
				blockers = append(blockers, b)
			default:
				blockers = append(blockers, &rebalance.Blocker{Table: sqlName(t.Table), Reason: err.Error()})
			}
		}
		for _, u := range of.Unknown {
			blockers = append(blockers, &rebalance.Blocker{Table: sqlName(u.Table), Reason: "it cannot be said where its rows are: it " + u.Why, Hint: "mend its rule"})
		}
		for _, s := range of.Schemas {
			if s.Shard == "" && moving.Has(shardmap.SlotOf(s.Hash, slots)) {
				blockers = append(blockers, &rebalance.Blocker{Reason: "schema " + s.Name + " lies in one of the slots as a whole", Hint: "leave that slot where it is"})
			}
		}
		return tables, blockers
	}
}

// commitConn is a connection of the control user as twopc takes it.
type commitConn struct{ conn *pgx.Conn }

// Exec implements twopc.Conn.
func (c commitConn) Exec(ctx context.Context, sql string) error {
	err := c.conn.PgConn().Exec(ctx, sql).Close()
	var said *pgconn.PgError
	if errors.As(err, &said) {
		return &wire.Error{Severity: said.SeverityUnlocalized, Code: said.Code, Message: said.Message, Detail: said.Detail, Hint: said.Hint, Where: said.Where}
	}
	return err
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

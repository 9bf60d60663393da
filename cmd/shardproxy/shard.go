package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/config"
	"shardproxy/failover"
	"shardproxy/gate"
	"shardproxy/metadata"
	"shardproxy/pool"
	"shardproxy/proxy"
)

// shard is everything that serves one shard of a database.
type shard struct {
	db      *database
	conf    config.Shard
	gate    *gate.Gate
	monitor *failover.Monitor
	pools   *pool.Pools
	proxy   *proxy.Shard
	banned  atomic.Uint64   // nodes that operators keep reads away from: bit i is node i
	primary failover.NodeID // the last there was; of nodesChanged alone
	voice   *time.Timer     // see awaitVoice; of nodesChanged alone
}

// newShard makes the parts of a shard and starts nothing.
func newShard(cfg *config.Config, db *database, conf config.Shard, ids *atomic.Uint64) (*shard, error) {
	sh := &shard{db: db, conf: conf, primary: failover.NoNode}
	d, dbConf := db.deps, &db.conf
	sh.gate = gate.New(gateOptions(&dbConf.Failover))
	nodes := make([]failover.NodeConfig, len(conf.Nodes))
	for i, a := range conf.Nodes {
		nodes[i] = failover.NodeConfig{Address: a}
	}
	var err error
	sh.monitor, err = failover.New(failover.Options{
		Database: dbConf.Name, Shard: conf.Name, Nodes: nodes, Gate: sh.gate, Logger: d.log, Registerer: d.registry,
		Prober: plainProber{failover.NewPgProber(failover.ProberOptions{
			Nodes:  len(nodes),
			Config: func(n failover.NodeID) (*pgconn.Config, error) { return db.control(conf.Nodes[n]) },
		}), cfg.ControlLogin(dbConf).User},
		Interval: dbConf.Failover.ProbeInterval, ProbeTimeout: dbConf.Failover.ProbeTimeout,
		Rules: failover.Rules{
			FailAfter: dbConf.Failover.FailAfter, RecoverAfter: dbConf.Failover.RecoverAfter,
			MaxLag: dbConf.Reads.MaxLag, MaxLagBytes: uint64(dbConf.Reads.MaxLagBytes),
		},
		OnChange: sh.nodesChanged,
	})
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", dbConf.Name, err)
	}
	log := d.log.With("database", dbConf.Name)
	if len(dbConf.Shards) > 1 {
		log = log.With("shard", conf.Name)
	}
	o := pool.Options{
		Nodes: conf.Nodes, Target: target(dbConf), Buffers: d.buffers, Logger: log, MaxServers: dbConf.Pool.MaxServers, IDs: ids,
		OnDialError: func(node int, err error) { sh.monitor.Suspect(failover.NodeID(node), err) },
	}
	if len(dbConf.Shards) > 1 {
		o.AskSearchPath, o.Enter = true, metadata.EnterSQL(db.self)
		o.Entered = func(ctx context.Context, answer string) error { return db.cluster.entered(ctx, answer) }
	}
	sh.pools = pool.New(o)
	sh.proxy = &proxy.Shard{Name: conf.Name, Pools: sh.pools, Nodes: nodesOf{sh.monitor, &sh.banned}, Gate: sh.gate}
	return sh, nil
}

// target is the template of a database's server connections.
func target(conf *config.Database) pool.Target {
	return pool.Target{
		Database: conf.Server.Database, ConnectTimeout: conf.Server.ConnectTimeout,
		TLS: pool.TLS{Mode: conf.Server.TLS.Mode, CA: conf.Server.TLS.CA, Certificate: conf.Server.TLS.Certificate, Key: conf.Server.TLS.Key},
	}
}

// open starts the parts.
func (sh *shard) open(ctx context.Context) error {
	if err := sh.monitor.Open(ctx); err != nil {
		return err
	}
	sh.pools.Open()
	return nil
}

// stopWatching ends what may act on the pools.
func (sh *shard) stopWatching() {
	sh.monitor.Close()
	if sh.voice != nil {
		sh.voice.Stop()
	}
}

// close ends the rest.
func (sh *shard) close() {
	sh.gate.Shutdown()
	sh.pools.Close()
}

// nodesChanged makes pool and sessions follow the monitor: connections to a
// node that changed its role end when they come back, those to a node that is
// down or was succeeded as primary end at once.
func (sh *shard) nodesChanged(before, after *failover.Snapshot) {
	for i, n := range after.Nodes {
		was := before.Nodes[i]
		if n.Role != was.Role && was.Role != failover.RoleUnknown {
			sh.pools.Retire(i)
		}
		switch {
		case n.Health == was.Health:
		case n.Health == failover.Up:
			sh.pools.Wake(i)
		case n.Health == failover.Down:
			sh.pools.Retire(i)
			if n.Role == failover.RoleReplica {
				sh.db.deps.abandon(sh.db.proxy, sh.proxy, i)
			} else if !n.SilentSince.IsZero() {
				sh.awaitVoice(n)
			}
		}
	}
	if after.Primary == failover.NoNode || after.Primary == sh.primary {
		return
	}
	if old := sh.primary; old != failover.NoNode {
		sh.pools.Retire(int(old))
		sh.db.deps.abandon(sh.db.proxy, sh.proxy, int(old))
		sh.db.succeeded(sh)
	}
	sh.primary = after.Primary
}

// awaitVoice gives a silent primary the hold timeout, as long as new statements
// wait for one; then those that it was sent are given up too. One that refuses
// to be probed, as in a shutdown that waits for its clients, may still answer
// them.
func (sh *shard) awaitVoice(n failover.NodeStatus) {
	if sh.voice != nil {
		sh.voice.Stop()
	}
	sh.voice = time.AfterFunc(sh.db.conf.Failover.HoldTimeout, func() {
		now := sh.monitor.Nodes()[n.ID]
		if now.Health == failover.Down && now.SilentSince.Equal(n.SilentSince) {
			sh.db.deps.log.Warn("silent primary given up, who waits for it is told", "database", sh.db.conf.Name, "node", n.Address)
			sh.db.deps.abandon(sh.db.proxy, sh.proxy, int(n.ID))
		}
	})
}

// someNode returns the primary, or while there is none a replica. Without
// either it waits until ctx ends: nothing may be known yet.
func (sh *shard) someNode(ctx context.Context) (failover.NodeID, error) {
	return sh.await(ctx, func() (failover.NodeID, bool) {
		if n, ok := sh.monitor.Primary(); ok {
			return n, true
		}
		return sh.monitor.PickRead(0, false, failover.NodeSet(sh.banned.Load()))
	})
}

func (sh *shard) await(ctx context.Context, find func() (failover.NodeID, bool)) (failover.NodeID, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if n, ok := find(); ok {
			return n, nil
		}
		select {
		case <-ctx.Done():
			return failover.NoNode, errors.New("no node of the database is reachable")
		case <-tick.C:
		}
	}
}

// connect logs the control user in to the primary.
func (sh *shard) connect(ctx context.Context) (*pgx.Conn, error) {
	n, err := sh.await(ctx, sh.monitor.Primary)
	if err != nil {
		return nil, err
	}
	return sh.db.connect(ctx, sh.conf.Nodes[n])
}

// nodesOf is a monitor as sessions see it.
type nodesOf struct {
	m      *failover.Monitor
	banned *atomic.Uint64
}

func (n nodesOf) Primary() (int, bool) {
	id, ok := n.m.Primary()
	return int(id), ok
}

func (n nodesOf) PickRead(mark uint64, consistent bool, exclude uint64) (int, bool) {
	id, ok := n.m.PickRead(failover.Mark(mark), consistent, failover.NodeSet(exclude|n.banned.Load()))
	return int(id), ok
}

func (n nodesOf) Mark() uint64                { return uint64(n.m.Mark()) }
func (n nodesOf) Want()                       { n.m.Want() }
func (n nodesOf) Suspect(node int, err error) { n.m.Suspect(failover.NodeID(node), err) }

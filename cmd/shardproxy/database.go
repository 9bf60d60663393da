package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/failover"
	"shardproxy/gate"
	"shardproxy/pool"
	"shardproxy/proxy"
	"shardproxy/router"
	"shardproxy/wire"
)

// database is everything that serves one logical database.
type database struct {
	conf    config.Database
	pools   *pool.Pools
	gate    *gate.Gate
	monitor *failover.Monitor
	catalog *catalog.Refresher
	router  *router.Router
	proxy   *proxy.Database
	stop    context.CancelFunc
	deps    databaseDeps
	primary failover.NodeID // the last there was; of nodesChanged alone
	voice   *time.Timer     // see awaitVoice; of nodesChanged alone
}

// databaseDeps are what databases share.
type databaseDeps struct {
	log      *slog.Logger
	registry prometheus.Registerer
	buffers  *wire.Buffers
	// abandon ends the leases on a node.
	abandon func(db *proxy.Database, node int)
	// succeeded says that there is another primary than before.
	succeeded func()
}

// newDatabase makes the parts of a database and starts nothing.
func newDatabase(cfg *config.Config, conf *config.Database, d databaseDeps) (*database, error) {
	shard := conf.Shards[0]
	log := d.log.With("database", conf.Name)
	target := pool.Target{
		Database: conf.Server.Database, ConnectTimeout: conf.Server.ConnectTimeout,
		TLS: pool.TLS{Mode: conf.Server.TLS.Mode, CA: conf.Server.TLS.CA, Certificate: conf.Server.TLS.Certificate, Key: conf.Server.TLS.Key},
	}
	login := cfg.ControlLogin(conf)
	control := func(address string) (*pgconn.Config, error) {
		t := target
		t.Address, t.User, t.Password = address, login.User, login.Password.Reveal()
		return t.Config()
	}
	db := &database{conf: *conf, deps: d, primary: failover.NoNode}
	db.gate = gate.New(gateOptions(&conf.Failover))
	nodes := make([]failover.NodeConfig, len(shard.Nodes))
	for i, a := range shard.Nodes {
		nodes[i] = failover.NodeConfig{Address: a}
	}
	var err error
	db.monitor, err = failover.New(failover.Options{
		Database: conf.Name, Shard: shard.Name, Nodes: nodes, Gate: db.gate, Logger: d.log, Registerer: d.registry,
		Prober: plainProber{failover.NewPgProber(failover.ProberOptions{
			Nodes:  len(nodes),
			Config: func(n failover.NodeID) (*pgconn.Config, error) { return control(shard.Nodes[n]) },
		}), login.User},
		Interval: conf.Failover.ProbeInterval, ProbeTimeout: conf.Failover.ProbeTimeout,
		Rules: failover.Rules{
			FailAfter: conf.Failover.FailAfter, RecoverAfter: conf.Failover.RecoverAfter,
			MaxLag: conf.Reads.MaxLag, MaxLagBytes: uint64(conf.Reads.MaxLagBytes),
		},
		OnChange: db.nodesChanged,
	})
	if err != nil {
		return nil, fmt.Errorf("database %s: %w", conf.Name, err)
	}
	db.pools = pool.New(pool.Options{
		Nodes: shard.Nodes, Target: target, Buffers: d.buffers, Logger: log, MaxServers: conf.Pool.MaxServers,
		OnDialError: func(node int, err error) { db.monitor.Suspect(failover.NodeID(node), err) },
	})
	db.catalog = catalog.NewRefresher(catalog.Options{
		Source: catalogSource{db: db, control: control, nodes: shard.Nodes}, Interval: conf.Catalog.Refresh, Logger: log,
		Changed: func(*catalog.Catalog) { db.proxy.SchemaChanged() },
	})
	db.router = router.New(router.Options{
		Catalog: db.catalog.Current, ReadOnlyFunctions: conf.Reads.ReadOnlyFunctions,
		CacheBytes: int64(cfg.Limits.PlanCache), MaxTextBytes: int(cfg.Limits.ParsedStatement),
	})
	db.proxy = &proxy.Database{
		Name: conf.Name, Shard: shard.Name, Pools: db.pools, Statements: pool.NewStatements(),
		Nodes: nodesOf{db.monitor}, Gate: db.gate, Planner: db.router, Refresh: db.catalog.Poke,
	}
	db.proxy.SetPolicy(databasePolicy(cfg, conf))
	return db, nil
}

// gateOptions returns the bounds of the gate, for which 0 is no bound but its
// default: where nothing shall wait, it waits for a nanosecond.
func gateOptions(f *config.Failover) gate.Options {
	opt := gate.Options{HoldTimeout: max(f.HoldTimeout, 1), MaxHeld: f.HoldStatements}
	if f.HoldStatements == 0 {
		opt.HoldTimeout = 1
	}
	return opt
}

func databasePolicy(cfg *config.Config, conf *config.Database) proxy.DatabasePolicy {
	maxClients := conf.Pool.MaxClients
	if maxClients == 0 {
		maxClients = cfg.Limits.MaxClientsPerDatabase
	}
	wait := conf.Pool.WaitTimeout
	if wait == 0 {
		wait = 100 * 365 * 24 * time.Hour // no bound
	}
	return proxy.DatabasePolicy{
		Consistent: conf.Reads.Consistency == config.ConsistencySession, Split: conf.Reads.Split,
		WaitTimeout: wait, MaxClients: maxClients,
		ParsedMax: int(cfg.Limits.ParsedStatement), MessageMax: int(cfg.Limits.MessageSize),
		SessionStatements: cfg.Limits.SessionStatements, SessionStatementBytes: int(cfg.Limits.SessionStatementBytes),
	}
}

// open starts the parts.
func (db *database) open(ctx context.Context) error {
	ctx, db.stop = context.WithCancel(ctx)
	if err := db.monitor.Open(ctx); err != nil {
		return err
	}
	db.pools.Open()
	return db.catalog.Open(ctx)
}

// close ends the parts; its sessions have ended before.
func (db *database) close() {
	if db.stop != nil {
		db.stop()
	}
	_ = db.catalog.Close() // never fails
	db.monitor.Close()
	if db.voice != nil {
		db.voice.Stop()
	}
	db.gate.Shutdown()
	db.pools.Close()
}

// nodesChanged makes pool and sessions follow the monitor: connections to a
// node that changed its role end when they come back, those to a node that is
// down or was succeeded as primary end at once.
func (db *database) nodesChanged(before, after *failover.Snapshot) {
	for i, n := range after.Nodes {
		was := before.Nodes[i]
		if n.Role != was.Role && was.Role != failover.RoleUnknown {
			db.pools.Retire(i)
		}
		switch {
		case n.Health == was.Health:
		case n.Health == failover.Up:
			db.pools.Wake(i)
		case n.Health == failover.Down:
			db.pools.Retire(i)
			if n.Role == failover.RoleReplica {
				db.deps.abandon(db.proxy, i)
			} else if !n.SilentSince.IsZero() {
				db.awaitVoice(n)
			}
		}
	}
	if after.Primary == failover.NoNode || after.Primary == db.primary {
		return
	}
	if old := db.primary; old != failover.NoNode {
		db.pools.Retire(int(old))
		db.deps.abandon(db.proxy, int(old))
		db.deps.succeeded()
	}
	db.primary = after.Primary
}

// awaitVoice gives a silent primary the hold timeout, as long as new statements
// wait for one; then those that it was sent are given up too. One that refuses
// to be probed, as in a shutdown that waits for its clients, may still answer
// them.
func (db *database) awaitVoice(n failover.NodeStatus) {
	if db.voice != nil {
		db.voice.Stop()
	}
	db.voice = time.AfterFunc(db.conf.Failover.HoldTimeout, func() {
		now := db.monitor.Nodes()[n.ID]
		if now.Health == failover.Down && now.SilentSince.Equal(n.SilentSince) {
			db.deps.log.Warn("silent primary given up, who waits for it is told", "database", db.conf.Name, "node", n.Address)
			db.deps.abandon(db.proxy, int(n.ID))
		}
	})
}

// someNode returns the primary, or while there is none a replica. Without
// either it waits until ctx ends: nothing may be known yet.
func (db *database) someNode(ctx context.Context) (failover.NodeID, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if n, ok := db.monitor.Primary(); ok {
			return n, nil
		}
		if n, ok := db.monitor.PickRead(0, false, 0); ok {
			return n, nil
		}
		select {
		case <-ctx.Done():
			return failover.NoNode, errors.New("no node of the database is reachable")
		case <-tick.C:
		}
	}
}

// nodesOf is a monitor as sessions see it.
type nodesOf struct{ m *failover.Monitor }

func (n nodesOf) Primary() (int, bool) {
	id, ok := n.m.Primary()
	return int(id), ok
}

func (n nodesOf) PickRead(mark uint64, consistent bool, exclude uint64) (int, bool) {
	id, ok := n.m.PickRead(failover.Mark(mark), consistent, failover.NodeSet(exclude))
	return int(id), ok
}

func (n nodesOf) Mark() uint64                { return uint64(n.m.Mark()) }
func (n nodesOf) Want()                       { n.m.Want() }
func (n nodesOf) Suspect(node int, err error) { n.m.Suspect(failover.NodeID(node), err) }

// catalogSource reads the catalog over a connection of its own, from the
// primary or, without one, from whatever node answers.
type catalogSource struct {
	db      *database
	control func(address string) (*pgconn.Config, error)
	nodes   []string
}

// BeginTx implements catalog.Querier.
func (s catalogSource) BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error) {
	order := make([]string, 0, len(s.nodes)+1)
	if p, ok := s.db.monitor.Primary(); ok {
		order = append(order, s.nodes[p])
	}
	var last error
	for _, address := range append(order, s.nodes...) {
		tx, err := s.begin(ctx, address, o)
		if err == nil {
			return tx, nil
		}
		last = err
	}
	return nil, last
}

func (s catalogSource) begin(ctx context.Context, address string, o pgx.TxOptions) (pgx.Tx, error) {
	pc, err := s.control(address)
	if err != nil {
		return nil, err
	}
	cfg, err := pgx.ParseConfig("")
	if err != nil {
		return nil, err
	}
	cfg.Config = *pc
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	tx, err := conn.BeginTx(ctx, o)
	if err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return closingTx{Tx: tx, conn: conn}, nil
}

// closingTx ends its connection with the transaction.
type closingTx struct {
	pgx.Tx
	conn *pgx.Conn
}

func (t closingTx) Commit(ctx context.Context) error {
	defer t.conn.Close(ctx)
	return t.Tx.Commit(ctx)
}

func (t closingTx) Rollback(ctx context.Context) error {
	defer t.conn.Close(ctx)
	return t.Tx.Rollback(ctx)
}

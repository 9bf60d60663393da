package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/gate"
	"shardproxy/pool"
	"shardproxy/proxy"
	"shardproxy/router"
	"shardproxy/twopc"
	"shardproxy/wire"
)

// database is everything that serves one logical database.
type database struct {
	conf    config.Database
	shards  []*shard // in the order of the file; the first is the home shard
	catalog *catalog.Refresher
	router  *router.Router
	proxy   *proxy.Database
	cluster *cluster // nil in a database of one shard
	control func(address string) (*pgconn.Config, error)
	stop    context.CancelFunc
	deps    databaseDeps
	self    string // names this proxy, as it serves the database, to others
	kept    keptResults
}

// databaseDeps are what databases share.
type databaseDeps struct {
	log      *slog.Logger
	registry prometheus.Registerer
	buffers  *wire.Buffers
	// abandon ends the leases on a node.
	abandon func(db *proxy.Database, shard *proxy.Shard, node int)
	// endDeadlock cancels a statement that is a deadlock's victim.
	endDeadlock func(db *proxy.Database, v twopc.Victim) bool
	// kept is proxy.Server.Kept.
	kept func(db *proxy.Database, now int64) (writes, statements int64)
	// succeeded says that there is another primary than before.
	succeeded func()
	// serverIDs numbers the server connections of the process.
	serverIDs *atomic.Uint64
}

// newDatabase makes the parts of a database and starts nothing.
func newDatabase(cfg *config.Config, conf *config.Database, d databaseDeps) (*database, error) {
	login := cfg.ControlLogin(conf)
	db := &database{conf: *conf, deps: d, self: rand.Text()}
	db.control = func(address string) (*pgconn.Config, error) {
		t := target(conf)
		t.Address, t.User, t.Password = address, login.User, login.Password.Reveal()
		return t.Config()
	}
	db.proxy = &proxy.Database{Name: conf.Name, Statements: pool.NewStatements()}
	for _, sc := range conf.Shards {
		sh, err := newShard(cfg, db, sc, d.serverIDs)
		if err != nil {
			return nil, err
		}
		db.shards = append(db.shards, sh)
		db.proxy.Shards = append(db.proxy.Shards, sh.proxy)
	}
	db.catalog = catalog.NewRefresher(catalog.Options{
		Source: catalogSource{db: db, shard: db.shards[0]}, Tables: len(conf.Shards) > 1, Interval: conf.Catalog.Refresh, Logger: d.log.With("database", conf.Name),
		Changed: func(*catalog.Catalog) { db.proxy.SchemaChanged() },
	})
	db.proxy.CountStatements(cfg.Limits.Statements, time.Now())
	opts := router.Options{
		Tally:   db.proxy.Tally,
		Catalog: db.catalog.Current, ReadOnlyFunctions: conf.Reads.ReadOnlyFunctions,
		CacheBytes: int64(cfg.Limits.PlanCache), MaxTextBytes: int(cfg.Limits.ParsedStatement),
	}
	if len(conf.Shards) > 1 {
		if err := poolsTransactions(cfg, conf); err != nil {
			return nil, err
		}
		db.cluster = newCluster(db)
		db.proxy.Fence = db.cluster
		db.proxy.Owners, db.proxy.TwoPhase, db.proxy.Draws, db.proxy.Journal = db.cluster.owners, db.cluster, db.cluster.draws, db.cluster
		db.proxy.News, db.proxy.Announce = db.cluster.news, db.cluster.announce
		db.proxy.Slots = db.cluster.slots
		db.proxy.Since = db.cluster.since.Load
		db.proxy.Unlike = db.cluster.unlike.Load
		db.proxy.Deadlocks = db.cluster
		opts.Rules = &db.conf
		db.proxy.Refreshed = func() {
			ctx, cancel := context.WithTimeout(context.Background(), refreshTimeout)
			defer cancel()
			if err := db.catalog.Sync(ctx); err != nil {
				d.log.Warn("a change of the schema is not known yet", "database", conf.Name, "error", err)
			}
		}
	}
	db.router = router.New(opts)
	db.proxy.Planner, db.proxy.Refresh = db.router, db.catalog.Poke
	db.proxy.SetPolicy(databasePolicy(cfg, conf))
	db.block(conf)
	return db, nil
}

// refreshTimeout bounds how long a command that changed the schema waits until the
// change is known.
const refreshTimeout = 10 * time.Second

// poolsTransactions refuses pool mode session for several shards: a session there
// has no server of its own.
func poolsTransactions(cfg *config.Config, conf *config.Database) error {
	refused := conf.Pool.Mode == config.PoolSession
	for i := range cfg.Users {
		refused = refused || userPolicy(cfg, conf.Name, cfg.Users[i].Name).Mode == proxy.ModeSession
	}
	if refused {
		return fmt.Errorf("database %s: pool mode session needs a database of one shard; use transaction", conf.Name)
	}
	return nil
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

func breakerOf(b *config.Breaker) gate.BreakerOptions {
	return gate.BreakerOptions{Share: float64(b.Percent) / 100, Least: b.Least, Window: b.Window, OpenFor: b.OpenFor, OpenMax: b.OpenMax}
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
	queries := conf.CrossShardQueries
	if queries == 0 {
		queries = max(conf.Pool.Size/2, 1)
	}
	return proxy.DatabasePolicy{
		SlowStatement: cfg.Log.SlowStatement, HotKeys: conf.HotKeys, Breaker: breakerOf(&conf.Breaker), ScatterMax: queries, PartialResults: conf.PartialResults,
		Consistent: conf.Reads.Consistency == config.ConsistencySession, Split: conf.Reads.Split,
		WaitTimeout: wait, MaxClients: maxClients,
		ParsedMax: int(cfg.Limits.ParsedStatement), MessageMax: int(cfg.Limits.MessageSize), GatherMax: int64(cfg.Limits.Gather),
		SessionStatements: cfg.Limits.SessionStatements, SessionStatementBytes: int(cfg.Limits.SessionStatementBytes),
	}
}

// open starts the parts. The error of a database of several shards is what its
// configuration and its servers disagree on.
func (db *database) open(ctx context.Context) error {
	ctx, db.stop = context.WithCancel(ctx)
	for _, sh := range db.shards {
		if err := sh.open(ctx); err != nil {
			return err
		}
	}
	if db.cluster != nil {
		if err := db.cluster.open(ctx); err != nil {
			return fmt.Errorf("database %s: %w", db.conf.Name, err)
		}
	}
	policy := *db.proxy.Policy()
	policy.Cache = db.keep(&db.conf.Cache)
	db.proxy.SetPolicy(policy)
	if err := db.catalog.Open(ctx); err != nil || db.cluster == nil || db.cluster.owners() == nil {
		return err
	}
	return db.rulesHold(ctx)
}

// rulesHold returns an error when tables that there are have rules by which they cannot be placed. What is not known yet, as long
// as no server answers, is told to clients.
func (db *database) rulesHold(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := db.catalog.Sync(ctx); err != nil || db.catalog.Current() == nil {
		return nil // it is read again until it can be
	}
	var all []error
	for _, t := range router.BrokenRules(&db.conf, db.catalog.Current()) {
		all = append(all, fmt.Errorf("database %s: the rule of table %s.%s does not do: it %s", db.conf.Name, t.Table.Schema, t.Table.Name, t.Why))
	}
	return errors.Join(all...)
}

// close ends the parts; its sessions have ended before.
func (db *database) close() {
	if db.stop != nil {
		db.stop()
	}
	db.keepNothing()
	_ = db.catalog.Close() // never fails
	if db.cluster != nil {
		db.cluster.close()
	}
	for _, sh := range db.shards {
		sh.stopWatching()
	}
	for _, sh := range db.shards {
		sh.close()
	}
}

// succeeded notes that a shard has another primary than before.
func (db *database) succeeded(sh *shard) {
	if sh == db.shards[0] {
		db.deps.succeeded()
		if db.cluster != nil {
			db.cluster.reconnect()
		}
	}
}

// pause lends no more server connections and waits until all have come back.
func (db *database) pause(ctx context.Context) error {
	errs := make([]error, len(db.shards))
	var all sync.WaitGroup
	for i, sh := range db.shards {
		all.Go(func() { errs[i] = sh.pools.Pause(ctx) })
	}
	all.Wait()
	return cmp.Or(errs...)
}

func (db *database) paused() bool {
	for _, sh := range db.shards {
		if !sh.pools.Paused() {
			return false
		}
	}
	return true
}

func (db *database) resume() {
	for _, sh := range db.shards {
		sh.pools.Resume()
	}
}

// reconnect makes every server connection end when it comes back.
func (db *database) reconnect() {
	for _, sh := range db.shards {
		for i := range sh.conf.Nodes {
			sh.pools.Retire(i)
		}
	}
}

// connect logs the control user in to a node.
func (db *database) connect(ctx context.Context, address string) (*pgx.Conn, error) {
	pc, err := db.control(address)
	if err != nil {
		return nil, err
	}
	cfg, err := pgx.ParseConfig("")
	if err != nil {
		return nil, err
	}
	cfg.Config = *pc
	return pgx.ConnectConfig(ctx, cfg)
}

// catalogSource reads the catalog over a connection of its own, from the
// primary or, without one, from whatever node answers.
type catalogSource struct {
	db    *database
	shard *shard
}

// BeginTx implements catalog.Querier.
func (s catalogSource) BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error) {
	nodes := s.shard.conf.Nodes
	order := make([]string, 0, len(nodes)+1)
	if p, ok := s.shard.monitor.Primary(); ok {
		order = append(order, nodes[p])
	}
	var last error
	for _, address := range append(order, nodes...) {
		tx, err := s.begin(ctx, address, o)
		if err == nil {
			return tx, nil
		}
		last = err
	}
	return nil, last
}

func (s catalogSource) begin(ctx context.Context, address string, o pgx.TxOptions) (pgx.Tx, error) {
	conn, err := s.db.connect(ctx, address)
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

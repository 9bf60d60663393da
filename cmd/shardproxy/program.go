package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"shardproxy/admin"
	"shardproxy/audit"
	"shardproxy/auth"
	"shardproxy/config"
	"shardproxy/pool"
	"shardproxy/proxy"
	"shardproxy/twopc"
	"shardproxy/wire"
)

// program is the running proxy: the parts and how they are joined.
type program struct {
	path     string
	log      *slog.Logger
	events   *eventLog
	level    *slog.LevelVar
	registry *prometheus.Registry
	buffers  *wire.Buffers
	started  time.Time

	auth    *auth.Authenticator
	querier *auth.ServerQuerier
	resets  sync.WaitGroup
	tidying sync.WaitGroup
	tracer  tracer // guarded by mu, like state's changes
	audit   *audit.Log
	stop    context.CancelFunc // of tidying; nil until opened
	certs   *auth.Certificates // nil without TLS
	server  *proxy.Server
	console *admin.Console
	http    *admin.Server      // nil without an address
	unwait  context.CancelFunc // of the wait for that address; nil without one

	// mu serialises reloads; what it guards is read through state.
	mu       sync.Mutex
	state    atomic.Pointer[state]
	reloads  atomic.Int64
	failures atomic.Int64
	problem  atomic.Pointer[string]
	shutdown chan proxy.ShutdownMode
	ready    atomic.Bool
	drained  atomic.Bool // an operator wants no new clients sent here
	// serverIDs numbers the server connections.
	serverIDs atomic.Uint64
}

// state is the configuration in force and what was made of it. It is replaced
// whole.
type state struct {
	cfg       *config.Config
	loadedAt  time.Time
	databases map[string]*database
}

// newProgram reads the configuration and makes every part; it starts nothing.
func newProgram(path string, logTo io.Writer) (*program, error) {
	cfg, err := load(path)
	if err != nil {
		return nil, err
	}
	p := &program{
		path: path, level: &slog.LevelVar{}, registry: prometheus.NewRegistry(), buffers: &wire.Buffers{},
		started: time.Now(), shutdown: make(chan proxy.ShutdownMode, 8),
	}
	p.setLevel(cfg)
	p.events = &eventLog{}
	p.log = slog.New(&eventHandler{next: newLogger(cfg, logTo, p.level).Handler(), events: p.events})
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, w := range cfg.Warnings() {
		p.log.Warn("configuration", "problem", w.String())
	}
	if err := p.build(cfg); err != nil {
		return nil, err
	}
	return p, nil
}

func newLogger(cfg *config.Config, w io.Writer, level *slog.LevelVar) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

func (p *program) setLevel(cfg *config.Config) {
	var l slog.Level
	if l.UnmarshalText([]byte(cfg.Log.Level)) == nil { // the file has been checked
		p.level.Set(l)
	}
}

func (p *program) build(cfg *config.Config) error {
	st := &state{cfg: cfg, loadedAt: time.Now(), databases: map[string]*database{}}
	for i := range cfg.Databases {
		db, err := newDatabase(cfg, &cfg.Databases[i], p.deps())
		if err != nil {
			return err
		}
		st.databases[db.conf.Name] = db
	}
	p.state.Store(st)
	p.querier = auth.NewServerQuerier(p.dialForAuth, 0)
	var err error
	if p.auth, err = auth.New(auth.Options{Config: cfg, Querier: p.querier, Secret: cfg.Auth.Secret, Registerer: p.registry}); err != nil {
		return err
	}
	to, err := p.tracerFor(cfg)
	if err != nil {
		return err
	}
	p.useTracer(cfg, to)
	p.audit = audit.New(p.log)
	if err := p.audit.Use(auditOf(cfg)); err != nil {
		return err
	}
	if t := cfg.Listen.TLS; t != nil && t.Mode != config.TLSDisable {
		p.certs, err = auth.NewCertificates(auth.CertificateOptions{TLS: *t, Logger: p.log, Registerer: p.registry})
		if err != nil {
			return err
		}
	}
	src := &source{p: p}
	p.console, err = admin.NewConsole(admin.ConsoleOptions{
		Source: src, Steerer: src, Configuration: src, Logger: p.log, Registerer: p.registry, Version: buildVersion(), Audit: p.audit,
	})
	if err != nil {
		return err
	}
	var peers *proxy.Peers
	if dir := cfg.Listen.Peers(); dir != "" {
		peers = proxy.NewPeers(dir, p.log)
	}
	p.server = proxy.New(proxy.Options{
		Peers: peers, Audit: p.audit, Auth: p.auth, Console: p.console, Logger: p.log, Buffers: p.buffers,
		Driver: drivers()[cfg.Runtime.Driver], Loops: cfg.Runtime.Loops, PlainWait: cfg.Runtime.Wait == config.WaitPlain,
	}, p.settings(st))
	err = p.registry.Register(admin.NewCollector(admin.MetricsOptions{Source: src, Version: buildVersion()}))
	if err != nil || cfg.Admin.Address == "" {
		return err
	}
	p.http, err = admin.New(admin.Options{
		Address: cfg.Admin.Address, Source: src, Gatherer: p.registry, Console: p.console, Logger: p.log, Version: buildVersion(),
		Audit: p.audit, Pprof: cfg.Admin.Pprof, Settings: func() *config.Admin { return &p.state.Load().cfg.Admin }, Logins: p.auth, Steerer: src, TLS: p.adminTLS(cfg),
	})
	if err != nil {
		return err
	}
	return nil
}

// drivers are what the words of runtime.driver mean.
func drivers() map[string]proxy.Driver {
	return map[string]proxy.Driver{
		config.DriverAuto: proxy.DriverAuto, config.DriverLoop: proxy.DriverLoop, config.DriverGoroutine: proxy.DriverGoroutine,
	}
}

func (p *program) deps() databaseDeps {
	return databaseDeps{log: p.log, registry: p.registry, buffers: p.buffers, serverIDs: &p.serverIDs, abandon: func(db *proxy.Database, shard *proxy.Shard, node int) {
		p.server.Abandon(db, shard, node)
	}, endDeadlock: func(db *proxy.Database, v twopc.Victim) bool {
		return p.server.EndDeadlock(db, v)
	}, kept: func(db *proxy.Database, now int64) (writes, statements int64) {
		return p.server.Kept(db, now)
	}, succeeded: func() {
		// It takes leave of the old primary, which may not answer.
		p.resets.Go(p.querier.Reset)
	}}
}

// settings says to the server what the state means for it.
func (p *program) settings(st *state) *proxy.Settings {
	cfg := st.cfg
	s := &proxy.Settings{
		StartupMax: int(cfg.Limits.StartupPacket), LoginTimeout: cfg.Timeouts.Login, MaxClients: cfg.Limits.MaxClients,
		Databases:    map[string]*proxy.Database{},
		Policy:       func(db, user string) proxy.UserPolicy { return userPolicy(cfg, db, user) },
		ConsoleNames: map[string]bool{config.ConsoleDatabase: true, config.ConsoleAlias: true},
	}
	for name, db := range st.databases {
		s.Databases[name] = db.proxy
	}
	if cfg.HasRates() {
		s.Rates = &proxy.Rates{
			User:     func(name string) proxy.Rate { return rateOf(cfg.UserRate(name)) },
			Database: func(name string) proxy.Rate { return rateOf(cfg.DatabaseRate(name)) },
			Address:  rateOf(cfg.Limits.Rates.Address), Wait: cfg.Limits.Rates.Wait, MaxAddresses: cfg.Limits.Rates.MaxAddresses,
		}
	}
	if cfg.HasConcurrency() {
		s.Concurrency = &proxy.Concurrency{
			User:     func(name string) proxy.Concurrent { return proxy.Concurrent(cfg.UserConcurrent(name)) },
			Database: func(name string) proxy.Concurrent { return proxy.Concurrent(cfg.DatabaseConcurrent(name)) },
			Wait:     cfg.Limits.Concurrent.Wait,
		}
	}
	if p.certs != nil {
		s.TLS = p.certs.Current
		s.RequireTLS = cfg.Listen.TLS != nil && cfg.Listen.TLS.Mode == config.TLSRequire
	}
	return s
}

func rateOf(r config.Rate) proxy.Rate {
	return proxy.Rate{
		Statements: r.Statements, StatementBurst: r.StatementBurst, Logins: r.Logins, LoginBurst: r.LoginBurst,
		Bytes: int64(r.Bytes), BytesBurst: int64(r.BytesBurst),
	}
}

// userPolicy is what the user may take of the database.
func userPolicy(cfg *config.Config, database, user string) proxy.UserPolicy {
	u := cfg.User(user)
	if u == nil {
		u = &config.User{Name: user}
	}
	t := u.Timeouts.Or(cfg.Timeouts)
	p := proxy.UserPolicy{
		MaxClients: u.MaxClients,
		Timeouts:   proxy.Timeouts{Query: t.Query, IdleInTransaction: t.IdleInTransaction, ClientIdle: t.ClientIdle},
	}
	if p.MaxClients == 0 {
		p.MaxClients = cfg.Limits.MaxClientsPerUser
	}
	db := cfg.Database(database)
	if db == nil {
		return p
	}
	cross := db.CrossShard
	if u.CrossShard != "" {
		cross = u.CrossShard
	}
	p.CrossShard = map[config.CrossShard]proxy.CrossShard{
		config.CrossShardWarn: proxy.CrossShardWarn, config.CrossShardRefuse: proxy.CrossShardRefuse,
	}[cross] // allowed otherwise
	snapshot := db.Snapshot
	if u.Snapshot != "" {
		snapshot = u.Snapshot
	}
	p.Snapshots = map[config.Snapshot]proxy.Snapshots{
		config.SnapshotTransaction: proxy.SnapshotTransaction, config.SnapshotOff: proxy.SnapshotOff,
	}[snapshot] // statement otherwise
	mode := db.Pool.Mode
	if u.PoolMode != "" {
		mode = u.PoolMode
	}
	p.Mode = map[config.PoolMode]proxy.Mode{
		config.PoolTransaction: proxy.ModeTransaction, config.PoolSession: proxy.ModeSession, config.PoolStatement: proxy.ModeStatement,
	}[mode]
	p.StatementMax = int(cmp.Or(u.StatementSize, db.StatementSize, cfg.Limits.StatementSize))
	p.ResultMax = int64(cmp.Or(u.ResultSize, db.ResultSize, cfg.Limits.ResultSize))
	p.Pool = poolPolicy(&db.Pool, u)
	return p
}

func poolPolicy(c *config.Pool, u *config.User) pool.Policy {
	p := pool.Policy{
		Size: c.Size, Min: c.Min, Reserve: c.Reserve, ReserveAfter: c.ReserveAfter, MaxDialing: c.MaxDialing,
		MaxWaiting: c.MaxWaiting, MaxServers: u.MaxServers, IdleTimeout: c.IdleTimeout, LifeTime: c.LifeTime,
		PreparedStatements: c.PreparedStatements,
	}
	if u.PoolSize > 0 {
		p.Size = u.PoolSize
	}
	return p
}

// dialForAuth logs in to the primary of the database as the user of auth_query.
func (p *program) dialForAuth(ctx context.Context, name string) (*pgconn.PgConn, error) {
	st := p.state.Load()
	q := st.cfg.Auth.AuthQuery
	db := st.databases[name]
	if q == nil || db == nil {
		return nil, fmt.Errorf("no database %q to ask", name)
	}
	home := db.shards[0]
	node, err := home.someNode(ctx)
	if err != nil {
		return nil, err
	}
	t := target(&db.conf)
	t.Address, t.User, t.Password = home.conf.Nodes[node], q.User, q.Password.Reveal()
	cfg, err := t.Config()
	if err != nil {
		return nil, err
	}
	return pgconn.ConnectConfig(ctx, cfg)
}

// open starts every part and listens.
func (p *program) open(ctx context.Context) error {
	st := p.state.Load()
	for _, db := range st.databases {
		if err := db.open(ctx); err != nil {
			return err
		}
	}
	if p.certs != nil {
		if err := p.certs.Open(ctx); err != nil {
			return err
		}
	}
	if err := p.server.OpenPeers(); err != nil {
		return err
	}
	listeners, err := listen(&st.cfg.Listen)
	if err != nil {
		return err
	}
	tidyCtx, stop := context.WithCancel(context.Background())
	p.stop = stop
	if p.http != nil {
		if err := p.openAdmin(ctx, tidyCtx); err != nil {
			for _, l := range listeners {
				_ = l.Close() // the first error is the one to report
			}
			return err
		}
	}
	p.begins("program", "start "+buildVersion())
	p.server.Open(listeners...)
	p.tidying.Go(func() { tidy(tidyCtx) })
	p.tidying.Go(func() { p.endPeriods(tidyCtx) })
	p.ready.Store(true)
	for _, l := range listeners {
		p.log.Info("listening", "address", l.Addr().String())
	}
	return nil
}

// close ends every part, sessions first.
func (p *program) close() {
	p.ready.Store(false)
	p.server.Close()
	if p.stop != nil {
		p.stop() // nobody waits for the admin address any more
	}
	if p.http != nil {
		p.http.Close()
	}
	for _, db := range p.state.Load().databases {
		db.close()
	}
	if p.certs != nil {
		_ = p.certs.Close() // never fails
	}
	p.closeTracer()
	p.closeAudit()
	p.tidying.Wait()
	p.resets.Wait()
	_ = p.querier.Close() // its connections may be gone already
}

package main

import (
	"context"
	"errors"
	"time"

	"shardproxy/admin"
	"shardproxy/config"
	"shardproxy/gate"
	"shardproxy/pool"
	"shardproxy/proxy"
	"shardproxy/router"
	"shardproxy/twopc"
	"shardproxy/wire"
)

// source shows and steers the program for admin.
type source struct{ p *program }

// Process implements admin.Source.
func (s *source) Process() admin.Process {
	st := s.p.state.Load()
	pr := admin.Process{
		Started: s.p.started, Listening: s.p.ready.Load(), LoggingIn: s.p.server.LoggingIn(), Draining: s.p.server.Draining(), Drained: s.p.drained.Load(),
		MaxClients: st.cfg.Limits.MaxClients, MaxClientsPerUser: st.cfg.Limits.MaxClientsPerUser, Totals: s.p.server.Totals(), Peers: s.p.server.Peers(), Limited: s.p.server.Limited(), Crowded: s.p.server.Crowded(), ConfiguredAt: st.loadedAt,
		Audit: s.p.audit.Counts(),
		Spans: s.p.tracer.counts.Spans(), SpansDropped: s.p.tracer.counts.Dropped(), SpanFailures: s.p.tracer.counts.Failures(),
		Reloads: s.p.reloads.Load(), ReloadFailures: s.p.failures.Load(),
	}
	if e := s.p.problem.Load(); e != nil {
		pr.ReloadError = *e
	}
	return pr
}

// Settings implements admin.Configuration.
func (s *source) Settings() []config.Setting { return s.p.state.Load().cfg.Settings() }

// each calls f for the databases in the order of the file.
func (s *source) each(f func(*database, *config.Database)) {
	st := s.p.state.Load()
	for i := range st.cfg.Databases {
		conf := &st.cfg.Databases[i]
		f(st.databases[conf.Name], conf)
	}
}

// eachShard calls f for all shards of all databases.
func (s *source) eachShard(f func(*shard, *config.Database)) {
	s.each(func(db *database, conf *config.Database) {
		for _, sh := range db.shards {
			f(sh, conf)
		}
	})
}

// resolver returns what finishes the database's transactions over several shards, nil while there is none.
func (db *database) resolver() *twopc.Resolver {
	if db.cluster == nil {
		return nil
	}
	return db.cluster.twoPhase.Load()
}

// EndDoubt implements admin.Steerer.
func (s *source) EndDoubt(ctx context.Context, by, name string, commit, force bool) error {
	var all []*twopc.Resolver
	s.each(func(db *database, _ *config.Database) {
		if r := db.resolver(); r != nil {
			all = append(all, r)
		}
	})
	var err error = wire.Errorf("55000", "no database of several shards is served")
	for _, r := range all {
		var said *wire.Error
		if err = r.EndByHand(ctx, by, name, commit, force); err == nil || !errors.As(err, &said) || said.Code != "22023" {
			return err // it is of this one's cluster
		}
	}
	return err
}

func shardsOf(db *database) (all []admin.Shard) {
	for i, sh := range db.shards {
		all = append(all, admin.Shard{Name: sh.conf.Name, Nodes: sh.monitor.Snapshot(), Banned: sh.banned.Load(), Gate: sh.gate.Stats(),
			Breaker: db.proxy.Shards[i].Breaker.Status()})
	}
	return all
}

// poolTotals adds up the counters of the shards' pools.
func (db *database) poolTotals() (sum pool.Totals) {
	for _, sh := range db.shards {
		sum = sum.Plus(sh.pools.Totals())
	}
	return sum
}

// Databases implements admin.Source.
func (s *source) Databases() []admin.Database {
	var all []admin.Database
	s.each(func(db *database, conf *config.Database) {
		pol := db.proxy.Policy()
		var tables func() []router.PlacedTable
		var known func() *admin.Cluster
		hotSlots, hotKeys := db.proxy.HotSlots, db.proxy.HotKeys
		var held *gate.Stats
		if db.cluster != nil {
			tables, known = db.router.Tables, db.cluster.shown
			st := db.cluster.slots.Stats()
			held = &st
		} else {
			hotSlots, hotKeys = nil, nil
		}
		slow, unlogged := db.proxy.SlowStatements()
		statements := db.proxy.Tally.All
		if db.proxy.Tally == nil {
			statements = nil
		}
		var doubts []twopc.Doubt
		if r := db.resolver(); r != nil {
			doubts = r.Stats().Doubts
		}
		all = append(all, admin.Database{
			HotSlots: hotSlots, HotKeys: hotKeys, Errors: db.proxy.ErrorCounts(), Slow: slow, SlowUnlogged: unlogged, Plans: db.router.Plans, Statements: statements, StatementState: db.proxy.Tally.State(), Tables: tables, Cluster: known, Doubts: doubts, Slots: held, Prepared: db.proxy.Statements.List, Blocks: db.proxy.Blocks(), Route: db.explain,
			Name: conf.Name, ServerName: conf.Server.Database, ServerUser: conf.Server.User,
			Pool: poolPolicy(&conf.Pool, &config.User{}), Mode: string(conf.Pool.Mode),
			MaxServers: conf.Pool.MaxServers, MaxClients: pol.MaxClients, Clients: db.proxy.Clients(),
			Paused: db.paused(), Disabled: db.proxy.Disabled(), Totals: db.proxy.Totals(), Refusals: db.proxy.Refusals(), Scatters: db.proxy.Scatters(), Cache: db.keptStats(), Asked: db.proxy.Asked(), PoolTotals: db.poolTotals(), Shards: shardsOf(db),
		})
	})
	return all
}

// Pools implements admin.Source.
func (s *source) Pools() []admin.Pool {
	var all []admin.Pool
	st := s.p.state.Load()
	s.each(func(db *database, conf *config.Database) {
		for _, sh := range db.shards {
			for _, ps := range sh.pools.Stats() {
				mode := userPolicy(st.cfg, conf.Name, ps.User).Mode
				all = append(all, admin.Pool{Database: conf.Name, Shard: sh.conf.Name, Mode: modeName(mode), Stat: ps})
			}
		}
	})
	return all
}

func modeName(m proxy.Mode) string {
	return [...]string{string(config.PoolTransaction), string(config.PoolSession), string(config.PoolStatement)}[m]
}

// Clients implements admin.Source.
func (s *source) Clients() []admin.Client {
	var all []admin.Client
	for _, i := range s.p.server.Sessions() {
		c := admin.Client{
			ID: i.ID, PID: i.PID, User: i.User, Database: i.Database, ApplicationName: i.ApplicationName,
			State: admin.ClientState(i.Phase), Addr: i.Addr, LocalAddr: i.LocalAddr, Connected: i.Connected,
			Since: i.Since, TLS: i.TLS, Pinned: i.Pinned,
		}
		if i.Lease != nil {
			c.Server, c.ServerPID = i.Lease.ID, i.Lease.PID
		}
		all = append(all, c)
	}
	return all
}

// Events implements admin.Source.
func (s *source) Events() []admin.Event { return s.p.events.list() }

// Users implements admin.Source.
func (s *source) Users() []admin.User {
	cfg := s.p.state.Load().cfg
	all := make([]admin.User, len(cfg.Users))
	for i := range cfg.Users {
		u := &cfg.Users[i]
		all[i] = admin.User{Name: u.Name, PoolSize: u.PoolSize, Mode: string(u.PoolMode), MaxServers: u.MaxServers, MaxClients: u.MaxClients}
		if u.MaxClients == 0 {
			all[i].MaxClients = cfg.Limits.MaxClientsPerUser
		}
	}
	return all
}

// Servers implements admin.Source.
func (s *source) Servers() []admin.ServerConn {
	lent := map[uint64]proxy.SessionInfo{}
	for _, i := range s.p.server.Sessions() {
		if i.Lease != nil {
			lent[i.Lease.ID] = i
		}
	}
	states := map[pool.ServerState]admin.ServerState{
		pool.ServerIdle: admin.ServerIdle, pool.ServerLent: admin.ServerActive, pool.ServerParked: admin.ServerParked,
	}
	var all []admin.ServerConn
	s.eachShard(func(sh *shard, conf *config.Database) {
		for _, i := range sh.pools.Servers() {
			sv := admin.ServerConn{
				ID: i.ID, PID: i.PID, User: i.User, Database: conf.Name, Node: i.Address, LocalAddr: i.LocalAddr,
				State: states[i.State], Created: i.Created, Used: i.Used, Prepared: i.Prepared, Closing: i.Retired,
				Client: lent[i.ID].ID, ApplicationName: lent[i.ID].ApplicationName,
			}
			if i.TLS {
				sv.TLS = "on"
			}
			all = append(all, sv)
		}
		for _, st := range sh.pools.Stats() {
			for range st.Dialling {
				all = append(all, admin.ServerConn{User: st.User, Database: conf.Name, Node: st.Address, State: admin.ServerLogin})
			}
		}
	})
	return all
}

// Reload implements admin.Steerer.
func (s *source) Reload(context.Context) error { return s.p.reload() }

func (s *source) find(name string) (*database, error) {
	db := s.p.state.Load().databases[name]
	if db == nil {
		return nil, admin.ErrUnknownDatabase
	}
	return db, nil
}

// Pause implements admin.Steerer.
func (s *source) Pause(ctx context.Context, name string) error {
	db, err := s.find(name)
	if err != nil {
		return err
	}
	err = db.pause(ctx)
	if errors.Is(err, pool.ErrResumed) {
		return admin.ErrResumed
	}
	return err
}

// Resume implements admin.Steerer.
func (s *source) Resume(name string) error {
	db, err := s.find(name)
	if err == nil {
		db.resume()
	}
	return err
}

// Kill implements admin.Steerer.
func (s *source) Kill(name string) (int, error) {
	db, err := s.find(name)
	if err != nil {
		return 0, err
	}
	now, cancel := context.WithDeadline(context.Background(), time.Now())
	defer cancel()
	_ = db.pause(now) // only stops lending: its wait ends at once
	n := s.p.server.Kill(name)
	db.reconnect()
	return n, nil
}

// Reconnect implements admin.Steerer.
func (s *source) Reconnect(name string) error {
	db, err := s.find(name)
	if err == nil {
		db.reconnect()
	}
	return err
}

// Shutdown implements admin.Steerer.
func (s *source) Shutdown(mode proxy.ShutdownMode) {
	select {
	case s.p.shutdown <- mode:
	default: // eight are waiting already
	}
}

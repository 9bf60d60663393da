package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"shardproxy/config"
	"shardproxy/pool"
)

// reload reads the file again and puts all of it in force, or nothing. What
// needs a restart makes it fail, so that the file never claims what does not hold.
func (p *program) reload() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.reloadLocked()
	text := ""
	if err != nil {
		p.failures.Add(1)
		text = err.Error()
		p.log.Error("reload failed, the old configuration stays in force", "error", err)
	} else {
		p.reloads.Add(1)
		p.log.Info("configuration reloaded")
	}
	p.problem.Store(&text)
	return err
}

func (p *program) reloadLocked() error {
	old := p.state.Load()
	cfg, err := load(p.path)
	if err != nil {
		return err
	}
	changes := config.Diff(old.cfg, cfg)
	if err := needsRestart(changes); err != nil {
		return err
	}
	commitAuth, err := p.auth.Prepare(cfg)
	if err != nil {
		return err
	}
	commitTLS := func() {}
	if t := cfg.Listen.TLS; p.certs != nil && t != nil && t.Mode != config.TLSDisable {
		if commitTLS, err = p.certs.Prepare(*t); err != nil {
			return err
		}
	}
	to, err := p.tracerFor(cfg)
	if err != nil {
		return err
	}
	next, fresh, err := p.nextState(old, cfg)
	if err != nil {
		p.dropTracer(to)
		return err
	}
	for _, db := range fresh {
		if err := db.open(context.Background()); err != nil {
			p.dropTracer(to)
			for _, f := range fresh {
				f.close()
			}
			return err
		}
	}
	if err := p.audit.Use(auditOf(cfg)); err != nil {
		p.dropTracer(to)
		for _, f := range fresh {
			f.close()
		}
		return err
	}
	// Nothing can fail from here on.
	commitAuth()
	commitTLS()
	p.setLevel(cfg)
	p.state.Store(next)
	p.server.Configure(p.settings(next))
	p.querier.Reset()
	p.retire(old, next)
	p.useTracer(cfg, to)
	p.tellExposures()
	for _, c := range changes {
		p.logChange(c)
	}
	return nil
}

// logChange logs one change; of a whole section or element only that it came
// or went.
func (p *program) logChange(c config.Change) {
	switch {
	case c.Added():
		p.log.Info("configuration changed", "added", c.Path)
	case c.Removed():
		p.log.Info("configuration changed", "removed", c.Path)
	default:
		p.log.Info("configuration changed", "setting", c.Path, "old", c.Old, "new", c.New)
	}
}

// needsRestart refuses changes that only a restart can apply.
func needsRestart(changes []config.Change) error {
	var paths []string
	for _, c := range changes {
		if c.Restart {
			paths = append(paths, c.Path)
		}
	}
	if len(paths) > 0 {
		return fmt.Errorf("these settings need a restart: %s", strings.Join(paths, ", "))
	}
	return nil
}

// nextState keeps the databases there are and makes the new ones. That the
// servers of a kept one have not changed, needsRestart has made sure of.
func (p *program) nextState(old *state, cfg *config.Config) (next *state, fresh []*database, err error) {
	next = &state{cfg: cfg, loadedAt: time.Now(), databases: map[string]*database{}}
	for i := range cfg.Databases {
		conf := &cfg.Databases[i]
		if have := old.databases[conf.Name]; have != nil {
			next.databases[conf.Name] = have
			continue
		}
		db, err := newDatabase(cfg, conf, p.deps())
		if err != nil {
			return nil, nil, err
		}
		next.databases[conf.Name] = db
		fresh = append(fresh, db)
	}
	return next, fresh, nil
}

// retire gives kept databases their new limits and ends those that went.
func (p *program) retire(old, next *state) {
	for name, db := range next.databases {
		conf := next.cfg.Database(name)
		policy := databasePolicy(next.cfg, conf)
		policy.Cache, policy.Tracing = db.keep(&conf.Cache), db.proxy.Policy().Tracing // until there is another
		db.proxy.SetPolicy(policy)
		db.block(conf)
		if db.cluster != nil {
			db.cluster.moves.Store(&conf.Moves)
		}
		for _, sh := range db.shards {
			sh.pools.SetPolicies(func(user string) pool.Policy { return userPolicy(next.cfg, name, user).Pool })
		}
	}
	for name, db := range old.databases {
		if next.databases[name] == nil {
			p.server.Kill(name)
			go db.close()
		}
	}
}

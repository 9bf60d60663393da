package main

import (
	"context"
	"fmt"
	"reflect"
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
	cfg, err := config.Load(p.path, config.Options{})
	if err != nil {
		return err
	}
	if err := supported(cfg); err != nil {
		return err
	}
	changes := config.Diff(old.cfg, cfg)
	if err := needsRestart(old.cfg, cfg, changes); err != nil {
		return err
	}
	commitAuth, err := p.auth.Prepare(cfg)
	if err != nil {
		return err
	}
	commitTLS := func() {}
	if p.certs != nil && cfg.Listen.TLS != nil {
		if commitTLS, err = p.certs.Prepare(*cfg.Listen.TLS); err != nil {
			return err
		}
	}
	next, fresh, err := p.nextState(old, cfg)
	if err != nil {
		return err
	}
	for _, db := range fresh {
		if err := db.open(context.Background()); err != nil {
			for _, f := range fresh {
				f.close()
			}
			return err
		}
	}
	// Nothing can fail from here on.
	commitAuth()
	commitTLS()
	p.setLevel(cfg)
	p.state.Store(next)
	p.server.Configure(p.settings(next))
	p.retire(old, next)
	for _, c := range changes {
		p.log.Info("configuration changed", "setting", c.Path, "old", c.Old, "new", c.New)
	}
	return nil
}

// needsRestart refuses changes that only a restart can apply.
func needsRestart(old, next *config.Config, changes []config.Change) error {
	var paths []string
	for _, c := range changes {
		// A database that comes or goes, or whose servers change, is replaced whole.
		if c.Restart && !strings.HasPrefix(c.Path, "databases.") {
			paths = append(paths, c.Path)
		}
	}
	usesTLS := func(c *config.Config) bool { return c.Listen.TLS != nil && c.Listen.TLS.Mode != config.TLSDisable }
	if usesTLS(old) != usesTLS(next) {
		paths = append(paths, "listen.tls.mode")
	}
	if len(paths) > 0 {
		return fmt.Errorf("these settings need a restart: %s", strings.Join(paths, ", "))
	}
	return nil
}

// nextState keeps the databases whose servers are the same, and makes the others.
func (p *program) nextState(old *state, cfg *config.Config) (next *state, fresh []*database, err error) {
	next = &state{cfg: cfg, loadedAt: time.Now(), databases: map[string]*database{}}
	for i := range cfg.Databases {
		conf := &cfg.Databases[i]
		have := old.databases[conf.Name]
		if have != nil && sameServers(old.cfg, cfg, &have.conf, conf) {
			next.databases[conf.Name] = have
			continue
		}
		if have != nil {
			return nil, nil, fmt.Errorf("databases.%s: a change of its servers, catalog or failover settings needs a restart", conf.Name)
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

// sameServers reports whether a database can go on with its parts: only pool
// limits, timeouts and the read policy may differ.
func sameServers(oldCfg, newCfg *config.Config, a, b *config.Database) bool {
	x, y := *a, *b
	x.Pool, y.Pool = config.Pool{}, config.Pool{}
	x.Reads.Split, y.Reads.Split = false, false
	x.Reads.Consistency, y.Reads.Consistency = "", ""
	return reflect.DeepEqual(x, y) && oldCfg.ControlLogin(a) == newCfg.ControlLogin(b) &&
		oldCfg.Limits.PlanCache == newCfg.Limits.PlanCache && oldCfg.Limits.ParsedStatement == newCfg.Limits.ParsedStatement
}

// retire gives kept databases their new limits and ends those that went.
func (p *program) retire(old, next *state) {
	for name, db := range next.databases {
		conf := next.cfg.Database(name)
		db.proxy.SetPolicy(databasePolicy(next.cfg, conf))
		db.pools.SetPolicies(func(user string) pool.Policy { return userPolicy(next.cfg, name, user).Pool })
	}
	for name, db := range old.databases {
		if next.databases[name] == nil {
			p.server.Kill(name)
			go db.close()
		}
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/cache"
	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/proxy"
)

// keptResults are the results of a database that the program keeps.
type keptResults struct {
	conf    config.Cache // that the rest was made by
	cache   *cache.Cache // nil while none are kept
	notices *cache.Notices
}

// cachedStatements returns the statements whose results are to be kept, by fingerprint.
func cachedStatements(conf *config.Database) (map[uint64]time.Duration, error) {
	all := map[uint64]time.Duration{}
	for _, st := range conf.Cache.Statements {
		one, err := proxy.Blockable(st.Name)
		if err != nil {
			return nil, fmt.Errorf("databases.%s.cache.statements[%q]: %w", conf.Name, st.Name, err)
		}
		all[one.Fingerprint] = st.For
	}
	return all, nil
}

// keep has results kept as a configuration says, and returns where; nil for none. What is there is dropped: users and their rights may be others now.
func (db *database) keep(conf *config.Cache) *cache.Cache {
	k := &db.kept
	if k.cache != nil && reflect.DeepEqual(k.conf, *conf) {
		k.cache.Clear()
		return k.cache
	}
	db.keepNothing()
	if k.conf = *conf; !conf.On() {
		return nil
	}
	o := cache.Options{Bytes: int64(conf.Size), Entry: int64(conf.Entry), Tables: map[string]time.Duration{}}
	for i := range conf.Tables {
		o.Tables[catalog.TableName(conf.Tables[i].TableName())] = conf.Tables[i].For
	}
	o.Statements, _ = cachedStatements(&config.Database{Cache: *conf}) // load has made sure
	var notices *cache.Notices
	o.Touched = func(tables []string, all bool) { notices.Tell(tables, all) }
	k.cache = cache.New(o)
	notices = cache.Listen(cache.NoticesOptions{
		Connect: db.meets, Self: db.self, Cache: k.cache, Logger: db.deps.log.With("database", db.conf.Name),
	})
	k.notices = notices
	return k.cache
}

// keepNothing ends what keep began.
func (db *database) keepNothing() {
	if db.kept.notices != nil {
		db.kept.notices.Close()
	}
	db.kept = keptResults{}
}

// ResetCache implements admin.Steerer.
func (s *source) ResetCache(name string) error {
	db, err := s.find(name)
	if err == nil {
		db.distrusts()
	}
	return err
}

// keptStats are those of the database's kept results; nil while none are kept.
func (db *database) keptStats() *cache.Stats {
	c := db.proxy.Policy().Cache
	if c == nil {
		return nil
	}
	st := c.Stats()
	return &st
}

// meets connects to where all proxies of the database meet: the primary of the first shard.
func (db *database) meets(ctx context.Context) (*pgx.Conn, error) {
	sh := db.shards[0]
	p, ok := sh.monitor.Primary()
	if !ok {
		return nil, errors.New("the first shard has no primary")
	}
	return db.connect(ctx, sh.conf.Nodes[p])
}

// distrusts drops what is kept: somebody has finished what a proxy had left.
func (db *database) distrusts() {
	if c := db.proxy.Policy().Cache; c != nil {
		c.Touch(nil, true)
	}
}

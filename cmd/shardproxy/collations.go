package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"shardproxy/catalog"
)

// followCollations finds out now and then whether the shards order text alike. While they do not, no query relies on what
// a shard says comes first. Of a shard that cannot be asked what was known stays.
func (c *cluster) followCollations(ctx context.Context) {
	known := make([]map[string]string, len(c.db.shards))
	said := ""
	tick := time.NewTicker(max(c.db.conf.Catalog.Refresh, time.Second))
	defer tick.Stop()
	for {
		for i := range known {
			if c.spare(i) {
				known[i] = map[string]string{} // it orders nothing
				continue
			}
			c.askCollations(ctx, i, known)
		}
		if said = c.judgeCollations(known, said); ctx.Err() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// askCollations asks one shard.
func (c *cluster) askCollations(ctx context.Context, i int, known []map[string]string) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	conn, err := c.db.shards[i].connect(ctx)
	if err == nil {
		var found map[string]string
		if found, err = catalog.Collations(ctx, conn); err == nil {
			known[i] = found
		}
		_ = conn.Close(ctx) // nothing depends on it
	}
	if err != nil && ctx.Err() == nil {
		c.log.Debug("shard not asked for its collations", "shard", c.db.conf.Shards[i].Name, "error", err)
	}
}

// judgeCollations compares what is known, and tells when that is something else than what was said last.
func (c *cluster) judgeCollations(known []map[string]string, said string) string {
	var unlike []string
	whole := true
	for i := range known {
		whole = whole && known[i] != nil
		for j := range i {
			for _, name := range catalog.Unlike(known[j], known[i]) {
				unlike = append(unlike, name+" on "+c.db.conf.Shards[j].Name+" and "+c.db.conf.Shards[i].Name)
			}
		}
	}
	slices.Sort(unlike)
	now := strings.Join(unlike, ", ")
	switch {
	case now != "":
		c.unlike.Store(true)
	case whole:
		c.unlike.Store(false)
	}
	switch {
	case now == said:
	case now == "":
		c.log.Info("the shards order text alike again")
	default:
		c.log.Warn("shards order text otherwise than each other: queries with LIMIT, min or max over several shards read more rows", "collations", now)
	}
	return now
}

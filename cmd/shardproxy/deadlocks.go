package main

import (
	"context"
	"time"

	"shardproxy/twopc"
)

// detect looks for deadlocks over several shards, from now on.
func (c *cluster) detect(id string) {
	o := twopc.DetectorOptions{
		Cluster: id, Logger: c.log,
		Cancel: func(v twopc.Victim) bool { return c.db.deps.endDeadlock(c.db.proxy, v) },
	}
	for i, sh := range c.db.shards {
		o.Shards = append(o.Shards, twopc.Shard{Name: sh.conf.Name, Connect: c.reach(i)})
	}
	d, err := twopc.NewDetector(o)
	if err == nil {
		err = d.Open(context.Background())
	}
	if err != nil {
		c.log.Error("deadlocks over several shards are not looked for: lock_timeout ends them", "error", err)
		return
	}
	c.detector.Store(d)
}

// After implements proxy.Deadlocks.
func (c *cluster) After() time.Duration {
	if d := c.detector.Load(); d != nil {
		return d.After()
	}
	return twopc.DefaultDeadlockTimeout
}

// Hunt implements proxy.Deadlocks. Before the cluster is known nothing runs on several
// shards that could commit.
func (c *cluster) Hunt(suspects []twopc.Suspect) {
	if d := c.detector.Load(); d != nil {
		d.Hunt(suspects)
	}
}

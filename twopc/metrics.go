package twopc

import (
	"github.com/prometheus/client_golang/prometheus"
)

// collector gives the resolver's figures at each scrape.
type collector struct {
	resolver *Resolver

	commits, resolved, tombstones, removed *prometheus.Desc
	reachable, preparedParts, inDoubt, age *prometheus.Desc
	failures, durations                    *prometheus.Desc
}

func newCollector(r *Resolver) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("shardproxy_twopc_"+name, help, labels, prometheus.Labels{"database": r.opts.Database})
	}
	return &collector{
		resolver:      r,
		commits:       desc("commits_total", "Transactions that wrote on several shards, by outcome (committed, rolled_back, unknown).", "outcome"),
		durations:     desc("commit_duration_seconds", "Time that commits of transactions which wrote on several shards took, by outcome.", "outcome"),
		resolved:      desc("resolved_total", "Prepared transactions that recovery finished, by outcome (committed, rolled_back).", "outcome"),
		tombstones:    desc("tombstones_total", "Transactions that recovery kept from committing."),
		removed:       desc("removed_total", "Old decisions that were deleted."),
		reachable:     desc("shard_reachable", "1 if the shard could be asked for prepared transactions in the last round, else 0.", "shard"),
		preparedParts: desc("prepared", "Prepared transactions of the cluster on the shard, those being committed included.", "shard"),
		inDoubt:       desc("in_doubt", "Prepared transactions whose coordinator is gone and which could not be finished yet.", "shard"),
		age:           desc("in_doubt_oldest_seconds", "Age of the oldest transaction in doubt, in seconds; 0 when there is none.", "shard"),
		failures:      desc("look_failures_total", "Rounds in which the shard could not be asked.", "shard"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.commits, c.resolved, c.tombstones, c.removed, c.reachable, c.preparedParts, c.inDoubt, c.age, c.failures, c.durations} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.resolver.Stats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	count(c.commits, s.Commits[Committed], "committed")
	count(c.commits, s.Commits[RolledBack], "rolled_back")
	count(c.commits, s.Commits[Unknown], "unknown")
	for outcome, word := range map[Outcome]string{Committed: "committed", RolledBack: "rolled_back", Unknown: "unknown"} {
		n, sum, buckets := c.resolver.durations[outcome].Counts().Cumulative()
		ch <- prometheus.MustNewConstHistogram(c.durations, n, sum, buckets, word)
	}
	count(c.resolved, s.Committed, "committed")
	count(c.resolved, s.RolledBack, "rolled_back")
	count(c.tombstones, s.Tombstones)
	count(c.removed, s.Removed)
	for _, one := range s.Shards {
		reachable := 0.0
		if one.Err == nil && !one.Looked.IsZero() {
			reachable = 1
		}
		gauge(c.reachable, reachable, one.Shard)
		gauge(c.preparedParts, float64(one.Prepared), one.Shard)
		gauge(c.inDoubt, float64(one.InDoubt), one.Shard)
		gauge(c.age, one.Oldest.Seconds(), one.Shard)
		count(c.failures, one.Failures, one.Shard)
	}
}

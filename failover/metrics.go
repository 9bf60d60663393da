package failover

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// collector gives the monitor's figures at each scrape.
type collector struct {
	monitor *Monitor

	up, role, primary, lagBytes, lagSeconds, timeline *prometheus.Desc
	roleChanges, healthChanges, probeFailures         *prometheus.Desc
	samples                                           *prometheus.Desc
	held, closures, holds, holdSeconds, holdDuration  *prometheus.Desc
	probeSeconds                                      *prometheus.HistogramVec

	mu       sync.Mutex
	counters []nodeCounters
}

// nodeCounters only grow.
type nodeCounters struct{ roles, healths, failures float64 }

func newCollector(m *Monitor) *collector {
	shard := prometheus.Labels{"database": m.opts.Database, "shard": m.opts.Shard}
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("shardproxy_"+name, help, labels, shard)
	}
	return &collector{
		monitor:       m,
		counters:      make([]nodeCounters, len(m.opts.Nodes)),
		up:            desc("node_up", "1 if the node is used (health up), else 0.", "node"),
		role:          desc("node_role", "1 for the role the node last said it has.", "node", "role"),
		primary:       desc("shard_primary", "1 if the shard has a primary, else 0."),
		lagBytes:      desc("node_lag_bytes", "WAL the replica has not replayed, in bytes.", "node"),
		lagSeconds:    desc("node_lag_seconds", "Bound on the age of the replica's data, in seconds.", "node"),
		timeline:      desc("node_timeline", "Timeline the node was last seen on.", "node"),
		roleChanges:   desc("node_role_changes_total", "Times the node's role was seen to change.", "node"),
		healthChanges: desc("node_health_changes_total", "Times the verdict on the node changed.", "node"),
		probeFailures: desc("node_probe_failures_total", "Probes that were not answered.", "node"),
		samples:       desc("shard_lsn_samples_total", "Samples of the primary's write position begun."),
		held:          desc("shard_held", "Statements waiting at the shard's gate now."),
		closures:      desc("shard_gate_closures_total", "Times the shard's gate was closed."),
		holds:         desc("shard_holds_total", "Statements that have waited at the shard's gate, by outcome.", "outcome"),
		holdSeconds:   desc("shard_hold_seconds_total", "Time statements have waited at the shard's gate."),
		holdDuration:  desc("shard_hold_duration_seconds", "Times that statements have waited at the shard's gate, whatever came of it."),
		probeSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "shardproxy_node_probe_seconds", Help: "Time a node took to answer a probe.", ConstLabels: shard,
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1},
		}, []string{"node"}),
	}
}

func (c *collector) probed(a answer) {
	address := c.monitor.opts.Nodes[a.node].Address
	if a.err == nil {
		c.probeSeconds.WithLabelValues(address).Observe(a.ended.Sub(a.began).Seconds())
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counters[a.node].failures++
}

func (c *collector) changed(before, after *Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range after.Nodes {
		b, a := &before.Nodes[i], &after.Nodes[i]
		if b.Role != a.Role && b.Role != RoleUnknown {
			c.counters[i].roles++
		}
		if b.Health != a.Health && b.Health != Unknown {
			c.counters[i].healths++
		}
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.up, c.role, c.primary, c.lagBytes, c.lagSeconds, c.timeline, c.roleChanges, c.healthChanges,
		c.probeFailures, c.samples, c.held, c.closures, c.holds, c.holdSeconds, c.holdDuration,
	} {
		ch <- d
	}
	c.probeSeconds.Describe(ch)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	snap := c.monitor.Snapshot()
	c.mu.Lock()
	for i := range snap.Nodes {
		n, k := &snap.Nodes[i], c.counters[i]
		gauge(c.up, truth(n.Health == Up), n.Address)
		for _, r := range []Role{RolePrimary, RoleReplica} {
			gauge(c.role, truth(n.Role == r), n.Address, r.String())
		}
		if n.Lag.Known {
			gauge(c.lagBytes, float64(n.Lag.Bytes), n.Address)
			gauge(c.lagSeconds, n.Lag.Time.Seconds(), n.Address)
		}
		gauge(c.timeline, float64(n.Timeline), n.Address)
		count(c.roleChanges, k.roles, n.Address)
		count(c.healthChanges, k.healths, n.Address)
		count(c.probeFailures, k.failures, n.Address)
	}
	c.mu.Unlock()
	gauge(c.primary, truth(snap.Primary != NoNode))
	count(c.samples, float64(c.monitor.started.Load()-noSample))
	g := c.monitor.gate.Stats()
	gauge(c.held, float64(g.HeldNow))
	count(c.closures, float64(g.Totals.Closures))
	count(c.holds, float64(g.Totals.Released), "released")
	count(c.holds, float64(g.Totals.TimedOut), "timed_out")
	count(c.holds, float64(g.Totals.Evicted), "evicted")
	count(c.holds, float64(g.Totals.Cancelled), "cancelled")
	count(c.holds, float64(g.Totals.Refused), "refused")
	count(c.holdSeconds, g.Totals.HeldTime.Seconds())
	n, sum, buckets := g.Holds.Cumulative()
	ch <- prometheus.MustNewConstHistogram(c.holdDuration, n, sum, buckets)
	c.probeSeconds.Collect(ch)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

package metadata

import "github.com/prometheus/client_golang/prometheus"

// watchCollector gives a Watcher's figures at each scrape.
type watchCollector struct {
	watcher                       *Watcher
	confirmed, failures, outruled *prometheus.Desc
}

func newWatchCollector(w *Watcher) *watchCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("shardproxy_slot_map_"+name, help, nil, prometheus.Labels{"database": w.opts.Database})
	}
	return &watchCollector{
		watcher:   w,
		confirmed: desc("confirmed_timestamp_seconds", "When the home shard was last asked whether there is a newer slot map and answered, in seconds since 1970; 0 when never."),
		failures:  desc("failures_total", "Times that the home shard could not be asked for the slot map, or was not believed."),
		outruled:  desc("rules_differ", "1 while the cluster has other rules for tables than this proxy, which serves only what both place alike; 0 otherwise."),
	}
}

// Describe implements prometheus.Collector.
func (c *watchCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.confirmed
	ch <- c.failures
	ch <- c.outruled
}

// Collect implements prometheus.Collector.
func (c *watchCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.watcher.Stats()
	confirmed := 0.0
	if !s.Confirmed.IsZero() {
		confirmed = float64(s.Confirmed.UnixMilli()) / 1000
	}
	ch <- prometheus.MustNewConstMetric(c.confirmed, prometheus.GaugeValue, confirmed)
	ch <- prometheus.MustNewConstMetric(c.failures, prometheus.CounterValue, float64(s.Failures))
	differ := 0.0
	if c.watcher.RulesDiffer() {
		differ = 1
	}
	ch <- prometheus.MustNewConstMetric(c.outruled, prometheus.GaugeValue, differ)
}

package twopc

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// fenceFigures are a fence's counters.
type fenceFigures struct {
	opened, refused atomic.Uint64
	held            atomic.Int64 // nanoseconds from the first try to the end
}

// count counts a window that has ended, or could not be opened.
func (f *Fence) count(what *atomic.Uint64, began time.Time) {
	what.Add(1)
	f.figures.held.Add(int64(time.Since(began)))
}

// fenceCollector gives a fence's figures at each scrape.
type fenceCollector struct {
	fence         *Fence
	windows, held *prometheus.Desc
}

func newFenceCollector(f *Fence) *fenceCollector {
	labels := prometheus.Labels{"database": f.opts.Database}
	return &fenceCollector{
		fence:   f,
		windows: prometheus.NewDesc("shardproxy_fence_windows_total", "Windows in which snapshots of several shards were taken, by result (opened, refused).", []string{"result"}, labels),
		held:    prometheus.NewDesc("shardproxy_fence_seconds_total", "Time that it took to open and to close these windows, in seconds: commits over several shards wait for a part of it.", nil, labels),
	}
}

// Describe implements prometheus.Collector.
func (c *fenceCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.windows
	ch <- c.held
}

// Collect implements prometheus.Collector.
func (c *fenceCollector) Collect(ch chan<- prometheus.Metric) {
	f := &c.fence.figures
	ch <- prometheus.MustNewConstMetric(c.windows, prometheus.CounterValue, float64(f.opened.Load()), "opened")
	ch <- prometheus.MustNewConstMetric(c.windows, prometheus.CounterValue, float64(f.refused.Load()), "refused")
	ch <- prometheus.MustNewConstMetric(c.held, prometheus.CounterValue, time.Duration(f.held.Load()).Seconds())
}

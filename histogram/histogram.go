// Package histogram counts durations in buckets, for metrics. It refuses to know what is measured, and labels: whoever
// measures has one Durations for each set of them. Observing takes no lock and no memory. What is exported of it:
// docs/metrics.md.
package histogram

import (
	"sync/atomic"
	"time"
)

// bounds are the upper ends of the buckets; what is longer than the last is in one of its own.
var bounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second,
	10 * time.Second, 30 * time.Second,
}

// Durations counts durations. The zero value is ready; it must not be copied. All methods may be called from any
// goroutine.
type Durations struct {
	counts [len(bounds) + 1]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

// Observe counts a duration; a negative one counts as 0.
func (d *Durations) Observe(t time.Duration) {
	t = max(t, 0)
	i := 0
	for i < len(bounds) && t > bounds[i] {
		i++
	}
	d.counts[i].Add(1)
	d.sum.Add(int64(t))
}

// Counts is what a Durations has counted at about one moment.
type Counts struct {
	counts [len(bounds) + 1]uint64
	sum    time.Duration
}

// Counts returns what was counted.
func (d *Durations) Counts() (c Counts) {
	// The sum first: it is then never of more than is counted, but for what is counted meanwhile.
	c.sum = time.Duration(d.sum.Load())
	for i := range d.counts {
		c.counts[i] = d.counts[i].Load()
	}
	return c
}

// Plus adds up what was counted at several places.
func (c Counts) Plus(o Counts) Counts {
	c.sum += o.sum
	for i, n := range o.counts {
		c.counts[i] += n
	}
	return c
}

// Minus returns what was counted since o was; it is all of c when o has more, for the counting began anew.
func (c Counts) Minus(o Counts) Counts {
	d := c
	d.sum -= o.sum
	for i, n := range o.counts {
		if n > c.counts[i] {
			return c
		}
		d.counts[i] -= n
	}
	return d
}

// Quantile returns about the time that the part q of all did not exceed, from 0 to 1, as Prometheus' histogram_quantile estimates it; ok
// is false when there were none. What is longer than the last bound is taken for that.
func (c Counts) Quantile(q float64) (t time.Duration, ok bool) {
	all := uint64(0)
	for _, n := range c.counts {
		all += n
	}
	if all == 0 {
		return 0, false
	}
	rank, seen, from := q*float64(all), 0.0, time.Duration(0)
	for i, bound := range bounds {
		n := float64(c.counts[i])
		if n > 0 && seen+n >= rank {
			return from + time.Duration(float64(bound-from)*max(rank-seen, 0)/n), true
		}
		seen, from = seen+n, bound
	}
	return from, true
}

// Cumulative returns what Prometheus exports of a histogram: how many there were, their sum in seconds, and how many
// were not longer than each bound in seconds. The map is the caller's.
func (c Counts) Cumulative() (count uint64, sum float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(bounds))
	for i, n := range c.counts {
		count += n
		if i < len(bounds) {
			buckets[bounds[i].Seconds()] = count
		}
	}
	return count, c.sum.Seconds(), buckets
}

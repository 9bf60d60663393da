package histogram

import (
	"sync"
	"testing"
	"time"
)

func TestBounds(t *testing.T) {
	var d Durations
	for _, o := range []time.Duration{-time.Second, 0, 100 * time.Microsecond, 100*time.Microsecond + 1, time.Second, 30 * time.Second, time.Minute} {
		d.Observe(o)
	}
	count, sum, buckets := d.Counts().Cumulative()
	if count != 7 || sum != 91.000200001 {
		t.Errorf("%d in %v s", count, sum)
	}
	for bound, want := range map[float64]uint64{0.0001: 3, 0.00025: 4, 0.5: 4, 1: 5, 10: 5, 30: 6} {
		if got, ok := buckets[bound]; !ok || got != want {
			t.Errorf("up to %v s: %d, want %d", bound, got, want)
		}
	}
	if len(buckets) != len(bounds) {
		t.Errorf("%d buckets", len(buckets))
	}
	for i := 1; i < len(bounds); i++ {
		if bounds[i] <= bounds[i-1] {
			t.Errorf("bound %d does not ascend", i)
		}
	}
	if count, sum, _ := d.Counts().Plus(d.Counts()).Cumulative(); count != 14 || sum != 182.000400002 {
		t.Errorf("twice: %d in %v s", count, sum)
	}
}

func TestQuantile(t *testing.T) {
	var d Durations
	if _, ok := d.Counts().Quantile(0.5); ok {
		t.Error("of none")
	}
	for range 90 {
		d.Observe(150 * time.Microsecond)
	}
	before := d.Counts()
	for range 10 {
		d.Observe(4 * time.Millisecond)
	}
	c := d.Counts()
	for q, want := range map[float64]time.Duration{0: 100 * time.Microsecond, 0.45: 175 * time.Microsecond, 0.9: 250 * time.Microsecond, 0.95: 3750 * time.Microsecond, 1: 5 * time.Millisecond} {
		if got, ok := c.Quantile(q); !ok || got != want {
			t.Errorf("%v: %v, want %v", q, got, want)
		}
	}
	if got, _ := c.Minus(before).Quantile(0); got != 2500*time.Microsecond {
		t.Error(got)
	}
	if n, _, _ := before.Minus(c).Cumulative(); n != 90 {
		t.Errorf("%d since a restart", n)
	}
	d.Observe(time.Hour)
	if got, _ := d.Counts().Minus(c).Quantile(0.5); got != 30*time.Second {
		t.Error(got)
	}
}

func TestObserveAtOnce(t *testing.T) {
	var d Durations
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 1000 {
				d.Observe(time.Millisecond)
			}
		})
	}
	group.Wait()
	if count, sum, _ := d.Counts().Cumulative(); count != 8000 || sum != 8 {
		t.Errorf("%d in %v s", count, sum)
	}
	if n := testing.AllocsPerRun(100, func() { d.Observe(time.Millisecond) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	var d Durations
	for b.Loop() {
		d.Observe(300 * time.Microsecond)
	}
}

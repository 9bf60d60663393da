package admin

import (
	"sync"
	"time"
)

// StatsPeriod is how long the period is that averages are of, as PgBouncer's stats_period is by default.
const StatsPeriod = time.Minute

// periods keep the counters as they were when the last two periods ended: averages are of what has been counted since the older, that is
// over one period at least, and two at most.
type periods struct {
	mu           sync.Mutex
	older, newer reading
}

// reading is the counters of all databases at a time.
type reading struct {
	at time.Time // zero: when the process started, when all were 0
	of map[string][]any
}

// EndPeriod ends a period of the averages. The program calls it each StatsPeriod.
func (c *Console) EndPeriod() {
	r := reading{at: c.opt.Clock(), of: map[string][]any{}}
	for _, d := range c.opt.Source.Databases() {
		r.of[d.Name] = totalsOf(&d)
	}
	c.periods.mu.Lock()
	defer c.periods.mu.Unlock()
	c.periods.older, c.periods.newer = c.periods.newer, r
}

// since returns what averages begin with: when that was, and the counters then.
func (c *Console) since() reading {
	c.periods.mu.Lock()
	r := c.periods.older
	c.periods.mu.Unlock()
	if r.at.IsZero() {
		r.at = c.opt.Source.Process().Started
	}
	return r
}

// The columns of totalsOf that are not counted in themselves.
const (
	columnAssigned = 0
	columnXactTime = 5
	columnXacts    = 1
	columnQueryAge = 6
	columnQueries  = 2
	columnWaitTime = 7
	// bouncerTotals is how many of the columns PgBouncer has; the others are ours.
	bouncerTotals = 11
)

// averagesOf returns PgBouncer's averages, in the order of totalsOf: a second's counts, and the microseconds that each transaction, statement
// and wait took. nil is NULL, for what is not measured.
func averagesOf(now, then []any, took time.Duration) []any {
	if len(then) > 0 && fell(now, then) {
		then = nil // a database that went, and came again
	}
	delta := func(i int) any {
		n, known := now[i].(int64)
		if !known {
			return nil
		}
		if len(then) > i {
			was, _ := then[i].(int64)
			n -= was
		}
		return n
	}
	each := map[int]int{columnXactTime: columnXacts, columnQueryAge: columnQueries, columnWaitTime: columnAssigned}
	all := make([]any, bouncerTotals)
	for i := range all {
		n, known := delta(i).(int64)
		if !known {
			continue
		}
		if by, timed := each[i]; timed {
			if times, _ := delta(by).(int64); times > 0 {
				n /= times
			} else {
				n = 0
			}
		} else if took > 0 {
			n = int64(float64(n) / took.Seconds())
		} else {
			n = 0
		}
		all[i] = n
	}
	return all
}

// fell reports whether any counter is less than it was.
func fell(now, then []any) bool {
	for i := range min(len(now), len(then)) {
		a, _ := now[i].(int64)
		b, _ := then[i].(int64)
		if a < b {
			return true
		}
	}
	return false
}

// average returns the averages of a database.
func (c *Console) average(d *Database, from reading) []any {
	return averagesOf(totalsOf(d), from.of[d.Name], c.opt.Clock().Sub(from.at))
}

package listappend

import (
	"cmp"
	"math"
	"slices"
)

// relation is why one transaction comes before another.
type relation uint8

const (
	ww       relation = 1 << iota // the second appended behind the first
	wr                            // the second read what the first had appended
	rw                            // the second appended behind what the first had read
	process                       // the second is the same client's next
	realtime                      // the second began after the first had ended

	orders = process | realtime
)

func (r relation) String() string {
	return map[relation]string{ww: "ww", wr: "wr", rw: "rw", process: "process", realtime: "realtime"}[r]
}

// edge leads from one transaction to another that is later.
type edge struct {
	from, to int32
	why      relation
	key      int64
}

func (c *checker) edge(from, to int32, why relation, key int64) {
	if from != to {
		c.edges = append(c.edges, edge{from, to, why, key})
	}
}

// dependencies finds the edges that follow from what was read and written. Values that
// no list has are behind all that a list has: an edge to their transactions stands for a
// path over those that nobody saw, none of which is an anti-dependency but its first.
func (c *checker) dependencies() {
	for _, k := range c.read {
		for i := range k.by {
			if i > 0 {
				if from := c.lastBefore(k, int32(i)); from >= 0 && c.counts(k.by[i]) {
					c.edge(from, k.by[i], ww, k.key)
				}
			}
		}
		if from := c.lastBefore(k, int32(len(k.by))); from >= 0 {
			for _, to := range k.unseen {
				c.edge(from, to, ww, k.key)
			}
		}
	}
	for _, v := range c.views {
		if from := c.lastBefore(v.of, v.seen); from >= 0 {
			c.edge(from, v.txn, wr, v.of.key)
		}
		next := v.seen
		for next < int32(len(v.of.by)) && !c.counts(v.of.by[next]) {
			next++
		}
		if next < int32(len(v.of.by)) {
			c.edge(v.txn, v.of.by[next], rw, v.of.key)
			continue
		}
		for _, to := range v.of.unseen {
			c.edge(v.txn, to, rw, v.of.key)
		}
	}
	slices.SortFunc(c.edges, func(a, b edge) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to), cmp.Compare(a.why, b.why), cmp.Compare(a.key, b.key))
	})
	c.edges = slices.CompactFunc(c.edges, func(a, b edge) bool { return a.from == b.from && a.to == b.to && a.why == b.why })
	c.report.Edges = len(c.edges)
}

// counts reports whether a transaction is part of the graph.
func (c *checker) counts(t int32) bool { return t >= 0 && c.committed[t] }

// lastBefore returns who appended the last value before a place, or -1.
func (c *checker) lastBefore(k *versions, place int32) int32 {
	for place--; place >= 0; place-- {
		if c.counts(k.by[place]) {
			return k.by[place]
		}
	}
	return -1
}

// processOrder adds that the transactions of each client follow each other.
func (c *checker) processOrder() {
	last := map[int]int32{}
	for _, t := range c.byBegin() {
		if from, has := last[c.h[t].Process]; has {
			c.edge(from, t, process, 0)
		}
		if c.h[t].Outcome != Unknown { // that may be carried out whenever it likes
			last[c.h[t].Process] = t
		}
	}
}

// byBegin returns the committed transactions in the order in which they began.
func (c *checker) byBegin() (all []int32) {
	for i := range c.h {
		if c.committed[i] {
			all = append(all, int32(i))
		}
	}
	slices.SortStableFunc(all, func(a, b int32) int { return cmp.Compare(c.h[a].Begin, c.h[b].Begin) })
	return all
}

// realtimeOrder adds edges from each transaction to those that began after its end, but
// for those that follow from others: as many as transactions ran at once for each.
func (c *checker) realtimeOrder() {
	begins := c.byBegin()
	ends := slices.Clone(begins)
	slices.SortStableFunc(ends, func(a, b int32) int { return cmp.Compare(c.ended(a), c.ended(b)) })
	// The frontier are those that have ended, but for those behind whose end another of
	// them began.
	var frontier []int32
	next := 0
	for _, t := range begins {
		for next < len(ends) && c.ended(ends[next]) < c.h[t].Begin {
			done := ends[next]
			next++
			frontier = slices.DeleteFunc(frontier, func(f int32) bool { return c.ended(f) < c.h[done].Begin })
			frontier = append(frontier, done)
		}
		for _, f := range frontier {
			c.edge(f, t, realtime, 0)
		}
	}
}

// ended is when a transaction was known to have ended; one of unknown outcome never was.
func (c *checker) ended(t int32) int64 {
	if c.h[t].Outcome == Unknown || c.h[t].End == 0 {
		return math.MaxInt64
	}
	return c.h[t].End
}

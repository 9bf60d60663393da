package twopc

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// The pure core of the search for deadlocks whose locks lie on several shards: what
// the shards say becomes one graph of who waits for whom. Nothing here asks or acts.
// See docs/design/deadlocks.md.

// look is what one shard says of who waits there. Times are microseconds of its clock.
type look struct {
	shard string
	// now is when it was asked; timeout is its deadlock_timeout.
	now, timeout int64
	waits        []waiting
	holds        []holding
}

// waiting is a process that waits for a lock.
type waiting struct {
	pid   int32
	since int64
	by    []blocker
	mode  string
	what  string // the lock, in PostgreSQL's words
}

// blocker is a process, or with pid 0 a prepared transaction, that is waited for.
type blocker struct {
	pid  int32
	vxid string // of what is prepared
	gid  string
}

// holding is the lock of a mark, held by a process or, with pid 0, by what is prepared.
type holding struct {
	pid   int32
	vxid  string // of what is prepared
	mark  Mark
	began int64 // its transaction
}

// party is what waits or is waited for: a transaction with a mark, wherever, or a
// process of one shard whose transaction has none.
type party struct {
	mark  Mark
	shard string
	pid   int32
}

// edge is one party that waits for another on a shard.
type edge struct {
	from, to  party
	shard     string
	pid       int32 // of the one that waits
	since     int64
	by        blocker
	mode      string
	what      string
	remaining int64 // until the shard has looked for a deadlock of its own; 0 or less when it has
}

// graceMicros is how long a server is given to end a deadlock of its own that it has found.
const graceMicros = 20_000

// same reports whether both are one and the same wait.
func (e *edge) same(o *edge) bool {
	return e.from == o.from && e.to == o.to && e.shard == o.shard && e.pid == o.pid && e.since == o.since
}

// about is what is known of a transaction with a mark.
type about struct {
	began int64 // the latest of its parts
	// commits is set when it is being committed: what it runs must not be cancelled.
	commits bool
}

// graph is who waits for whom on all shards.
type graph struct {
	edges []edge
	about map[Mark]about
}

// holder names who holds a mark on a shard.
type holder struct {
	pid  int32
	vxid string
}

// newGraph merges what the shards say.
func newGraph(looks []look) graph {
	g := graph{about: map[Mark]about{}}
	for i := range looks {
		g.add(&looks[i])
	}
	return g
}

// add adds what one shard says.
func (g *graph) add(l *look) {
	marks := marksOf(l.holds)
	for _, h := range l.holds {
		m := marks[holder{h.pid, h.vxid}]
		if m == 0 {
			continue
		}
		a := g.about[m]
		a.began = max(a.began, h.began)
		a.commits = a.commits || h.mark == committing || h.pid == 0
		g.about[m] = a
	}
	named := func(h holder) party {
		if m := marks[h]; m != 0 {
			return party{mark: m}
		}
		return party{shard: l.shard, pid: h.pid}
	}
	for _, w := range l.waits {
		from := named(holder{pid: w.pid})
		for _, b := range w.by {
			to := named(holder{b.pid, b.vxid})
			if to == from || to.mark == 0 && to.pid == 0 {
				continue // what is prepared, and no part of ours, waits for nobody
			}
			g.edges = append(g.edges, edge{from: from, to: to, shard: l.shard, pid: w.pid, since: w.since, by: b,
				mode: w.mode, what: w.what, remaining: w.since + l.timeout + graceMicros - l.now})
		}
	}
}

// marksOf returns who has which mark. A mark that two hold on one shard, or one of
// two that one holds, is nobody's: transactions do not do that, but any role may take
// such locks.
func marksOf(holds []holding) map[holder]Mark {
	marks := map[holder]Mark{}
	holders := map[Mark]int{}
	twice := map[holder]bool{}
	for _, h := range holds {
		if h.mark == committing {
			continue
		}
		at := holder{h.pid, h.vxid}
		twice[at] = twice[at] || marks[at] != 0
		marks[at] = h.mark
		holders[h.mark]++
	}
	for at, m := range marks {
		if twice[at] || holders[m] > 1 {
			delete(marks, at)
		}
	}
	return marks
}

// confirmed is the graph of the waits of g that were there before already, the very
// same ones: as every shard was asked before and once more after that, all of them have
// lasted at one and the same moment. Those are left out of which the shard itself may yet
// find that they are a deadlock.
func (g *graph) confirmed(before *graph) graph {
	c := graph{about: g.about}
	for i := range g.edges {
		e := &g.edges[i]
		if e.remaining <= 0 && slices.ContainsFunc(before.edges, func(o edge) bool { return o.same(e) }) {
			c.edges = append(c.edges, *e)
		}
	}
	return c
}

// deadlock is a cycle over several shards, and who is to end it.
type deadlock struct {
	victim Mark
	// cycle begins with the victim's wait; each waits for the one of the next.
	cycle []edge
}

// remaining is how long it takes until the shards have looked for deadlocks of their own
// among the waits, in microseconds.
func (d *deadlock) remaining() int64 {
	return slices.MaxFunc(d.cycle, func(a, b edge) int { return cmp.Compare(a.remaining, b.remaining) }).remaining
}

// deadlocks returns the deadlocks over several shards. Whoever sees the same graph chooses
// the same victims: of those that wait in a circle the transaction that began last, by the
// latest of its parts, that is not being committed. A circle within one shard is that
// server's business; one of transactions that are all being committed has no victim.
func (g *graph) deadlocks() (all []deadlock) {
	gone := map[party]bool{}
	for {
		found := false
		for _, circle := range circles(g.edges, gone) {
			victim, ok := g.youngest(circle)
			if !ok {
				for _, e := range circle {
					gone[e.from] = true // nothing can be done
				}
				continue
			}
			found, gone[party{mark: victim}] = true, true
			all = append(all, deadlock{victim: victim, cycle: shortest(circle, party{mark: victim})})
		}
		if !found {
			return all
		}
	}
}

// youngest returns the transaction of the circle that is to end.
func (g *graph) youngest(circle []edge) (victim Mark, ok bool) {
	for _, e := range circle {
		m := e.from.mark
		a := g.about[m]
		if m == 0 || a.commits {
			continue
		}
		if best := g.about[victim]; !ok || a.began > best.began || a.began == best.began && m > victim {
			victim, ok = m, true
		}
	}
	return victim, ok
}

// circles returns the waits of each strongly connected component that has waits on
// several shards, without the parties that are gone.
func circles(edges []edge, gone map[party]bool) (all [][]edge) {
	next := map[party][]party{}
	for _, e := range edges {
		if !gone[e.from] && !gone[e.to] {
			next[e.from] = append(next[e.from], e.to)
		}
	}
	c := components(next)
	by := map[int][]edge{}
	for _, e := range edges {
		if n := c[e.from]; n != 0 && n == c[e.to] && !gone[e.from] && !gone[e.to] {
			by[n] = append(by[n], e)
		}
	}
	for n := range len(c) + 1 {
		circle := by[n]
		if len(circle) > 0 && slices.ContainsFunc(circle, func(e edge) bool { return e.shard != circle[0].shard }) {
			all = append(all, circle)
		}
	}
	return all
}

// components numbers the strongly connected components from 1 on (Tarjan's algorithm,
// with a stack of its own: who waits may be many).
func components(next map[party][]party) map[party]int {
	type frame struct {
		at   party
		next int
	}
	order, low, number := map[party]int{}, map[party]int{}, map[party]int{}
	var open []party
	count := 0
	for root := range next {
		if order[root] != 0 {
			continue
		}
		frames := []frame{{at: root}}
		for len(frames) > 0 {
			f := &frames[len(frames)-1]
			at := f.at
			if order[at] == 0 {
				order[at] = len(order) + 1
				low[at] = order[at]
				open = append(open, at)
			}
			if f.next < len(next[at]) {
				to := next[at][f.next]
				f.next++
				switch {
				case order[to] == 0:
					frames = append(frames, frame{at: to})
				case number[to] == 0:
					low[at] = min(low[at], order[to])
				}
				continue
			}
			if low[at] == order[at] {
				count++
				for {
					last := open[len(open)-1]
					open = open[:len(open)-1]
					number[last] = count
					if last == at {
						break
					}
				}
			}
			frames = frames[:len(frames)-1]
			if len(frames) > 0 {
				up := frames[len(frames)-1].at
				low[up] = min(low[up], low[at])
			}
		}
	}
	return number
}

// shortest returns a shortest way from a party back to itself.
func shortest(circle []edge, from party) []edge {
	came := map[party]int{} // by which of circle
	queue := []party{from}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for i := range circle {
			e := &circle[i]
			if e.from != at {
				continue
			}
			if e.to == from {
				way := []edge{*e}
				for at != from {
					back := circle[came[at]]
					way, at = append(way, back), back.from
				}
				slices.Reverse(way)
				return way
			}
			if _, seen := came[e.to]; !seen {
				came[e.to] = i
				queue = append(queue, e.to)
			}
		}
	}
	return nil
}

// detail says who waits for what, in PostgreSQL's words: a line for each wait. It names
// processes, transactions and locks, and nothing of what anybody runs.
func (d *deadlock) detail() string {
	var b strings.Builder
	for i := range d.cycle {
		e := &d.cycle[i]
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "Shard %s: %s waits for %s on %s; blocked by ", e.shard, processOf(e.from, e.pid), e.mode, e.what)
		switch {
		case e.by.pid != 0:
			b.WriteString(processOf(e.to, e.by.pid))
		default:
			fmt.Fprintf(&b, "prepared transaction %s of transaction %s", e.by.gid, e.to.mark)
		}
		b.WriteByte('.')
	}
	return b.String()
}

func processOf(p party, pid int32) string {
	if p.mark == 0 {
		return fmt.Sprintf("process %d", pid)
	}
	return fmt.Sprintf("process %d of transaction %s", pid, p.mark)
}

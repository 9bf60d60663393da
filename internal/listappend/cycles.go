package listappend

import (
	"fmt"
	"slices"
	"strings"
)

// tries bounds how many cycles of a knot are looked at to find the gravest, and steps
// how far they are followed, all in all. The first of each knot is always found.
const (
	tries = 2000
	steps = 50_000_000
)

// seeker looks for the cycles that an order brings: of Data all, else only those
// with an edge of the order.
type seeker struct {
	*checker
	order Order
	steps int
}

// search looks for cycles of all kinds.
func (c *checker) search(o Order) {
	s := &seeker{checker: c, order: o}
	s.plain(ww | orders)
	s.plain(ww | wr | orders)
	s.skews()
	s.writeSkews()
}

// graph makes the digraph of the edges of some relations.
func (s *seeker) graph(of relation) *digraph {
	var ways []way
	for i, e := range s.edges {
		if e.why&of != 0 {
			ways = append(ways, way{e.from, e.to, int32(i)})
		}
	}
	return newDigraph(len(s.h), ways)
}

// plain looks for cycles without anti-dependencies: of appends (G0), or with at least
// one read (G1c). The edges that make the kind and the order are tried one by one.
func (s *seeker) plain(of relation) {
	g := s.graph(of)
	component, knots := g.components()
	if len(knots) == 0 {
		return
	}
	want := relation(ww)
	if of&wr != 0 {
		want = wr
	}
	kind := map[relation]Kind{ww: WriteCycle, wr: Circular}[want]
	f := newFinder(g, component)
	s.eachInKnot(f, knots, want, func(e edge, i int32) (done bool) {
		back := f.path(e.to, e.from, -1)
		if back == nil {
			return false
		}
		return s.found(append([]int32{i}, back...), kind)
	})
}

// eachInKnot calls f for the edges of a relation inside of each knot, until it says that
// it has found what it was looking for there, or it has tried enough.
func (s *seeker) eachInKnot(in *finder, knots [][]int32, why relation, f func(e edge, i int32) bool) {
	for _, knot := range knots {
		left := tries
		slices.Sort(knot)
	knot:
		for _, v := range knot {
			for place := in.first[v]; place < in.first[v+1]; place++ {
				i := in.edge[place]
				if in.of[in.to[place]] != in.of[v] || s.edges[i].why&why == 0 {
					continue
				}
				done := f(s.edges[i], i)
				left--
				s.steps += in.steps
				in.steps = 0
				if done || left <= 0 || s.steps > steps {
					break knot
				}
			}
		}
	}
}

// skews looks for cycles with anti-dependencies, no two in a row: those that no
// snapshot isolation has (Cerone, Gotsman). Each transaction stands there twice, the
// second time as reached by an anti-dependency, from where no other leads on. So a knot
// is such a cycle.
func (s *seeker) skews() {
	n := int32(len(s.h))
	var ways []way
	for i, e := range s.edges {
		if e.why == rw {
			ways = append(ways, way{e.from, e.to + n, int32(i)})
		} else {
			ways = append(ways, way{e.from, e.to, int32(i)}, way{e.from + n, e.to, int32(i)})
		}
	}
	g := newDigraph(int(2*n), ways)
	component, knots := g.components()
	if len(knots) == 0 {
		return
	}
	ways = slices.DeleteFunc(ways, func(w way) bool { return s.edges[w.edge].why == rw })
	all, plain := newFinder(g, component), newFinder(newDigraph(int(2*n), ways), component)
	for _, knot := range knots {
		single := false
		s.eachInKnot(all, [][]int32{knot}, rw, func(e edge, i int32) bool {
			if back := plain.path(e.to+n, e.from, -1); back != nil {
				single = s.found(append([]int32{i}, back...), ReadSkew)
			}
			s.steps += plain.steps
			plain.steps = 0
			return single
		})
		s.eachInKnot(all, [][]int32{knot}, rw, func(e edge, i int32) bool {
			cycle := s.simple(append([]int32{i}, all.path(e.to+n, e.from, -1)...))
			kind, _ := s.judge(cycle)
			return (kind == LongFork || kind == Nonadjacent || kind == ReadSkew && !single) && s.found(cycle, kind)
		})
	}
}

// writeSkews looks for cycles with anti-dependencies in a row.
func (s *seeker) writeSkews() {
	g := s.graph(ww | wr | rw | orders)
	component, knots := g.components()
	if len(knots) == 0 {
		return
	}
	f := newFinder(g, component)
	s.eachInKnot(f, knots, rw, func(e edge, i int32) bool {
		for place := f.first[e.to]; place < f.first[e.to+1]; place++ {
			j := f.edge[place]
			next := s.edges[j]
			switch {
			case next.why != rw || component[next.to] != component[e.to]:
			case next.to == e.from:
				if s.found([]int32{i, j}, WriteSkew) {
					return true
				}
			default:
				if back := f.path(next.to, e.from, e.to); back != nil && s.found(append([]int32{i, j}, back...), WriteSkew) {
					return true
				}
			}
		}
		return false
	})
}

// simple returns a cycle of a closed walk that visits no transaction twice and has
// no two anti-dependencies in a row either. Where a walk comes back to a transaction it is
// taken apart there; the part that is entered or left by no anti-dependency is kept.
func (s *seeker) simple(walk []int32) []int32 {
	for {
		at := map[int32]int{}
		twice := false
		for i, e := range walk {
			v := s.edges[e].from
			first, has := at[v]
			if !has {
				at[v] = i
				continue
			}
			inner := slices.Clone(walk[first:i])
			outer := append(slices.Clone(walk[:first]), walk[i:]...)
			if s.adjacent(inner) {
				inner = outer
			}
			walk, twice = inner, true
			break
		}
		if !twice {
			return walk
		}
	}
}

// adjacent reports whether a cycle has two anti-dependencies in a row.
func (s *seeker) adjacent(cycle []int32) bool {
	for i, e := range cycle {
		if next := cycle[(i+1)%len(cycle)]; s.edges[e].why == rw && s.edges[next].why == rw && len(cycle) > 1 {
			return true
		}
	}
	return false
}

// judge says what a cycle is.
func (s *seeker) judge(cycle []int32) (Kind, Order) {
	count := map[relation]int{}
	for _, e := range cycle {
		count[s.edges[e].why]++
	}
	o := Data
	switch {
	case count[realtime] > 0:
		o = Realtime
	case count[process] > 0:
		o = Process
	}
	switch {
	case count[rw] == 0 && count[wr] == 0:
		return WriteCycle, o
	case count[rw] == 0:
		return Circular, o
	case count[rw] == 1:
		return ReadSkew, o
	case s.adjacent(cycle):
		return WriteSkew, o
	case len(cycle) == 4 && count[rw] == 2 && count[wr] == 2:
		return LongFork, o
	}
	return Nonadjacent, o
}

// found reports a cycle if it is of the kind and the order that are looked for.
func (s *seeker) found(cycle []int32, want Kind) bool {
	kind, o := s.judge(cycle)
	if kind != want || o != s.order {
		return false
	}
	a := Anomaly{Kind: kind, Order: o}
	var text strings.Builder
	for _, i := range cycle {
		e := s.edges[i]
		a.Txns = append(a.Txns, int(e.from))
		fmt.Fprintf(&text, "T%d -%v", e.from, e.why)
		if e.why&orders == 0 {
			fmt.Fprintf(&text, " of key %d", e.key)
		}
		text.WriteString("-> ")
	}
	fmt.Fprintf(&text, "T%d", s.edges[cycle[0]].from)
	a.Detail = text.String()
	s.report.add(a)
	return true
}

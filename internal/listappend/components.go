package listappend

// digraph is a graph for searching: vertices are numbers, and each way out of one
// names the edge it stands for.
type digraph struct {
	first []int32 // of each vertex, its first in to; one more at the end
	to    []int32
	edge  []int32
}

// way is an edge of a digraph.
type way struct{ from, to, edge int32 }

func newDigraph(vertices int, ways []way) *digraph {
	g := &digraph{first: make([]int32, vertices+1), to: make([]int32, len(ways)), edge: make([]int32, len(ways))}
	for _, w := range ways {
		g.first[w.from+1]++
	}
	for v := range vertices {
		g.first[v+1] += g.first[v]
	}
	next := append([]int32(nil), g.first...)
	for _, w := range ways {
		g.to[next[w.from]], g.edge[next[w.from]] = w.to, w.edge
		next[w.from]++
	}
	return g
}

// components returns the strongly connected component of each vertex (Tarjan's
// algorithm, without recursion), and the vertices of those that have several.
func (g *digraph) components() (of []int32, knots [][]int32) {
	n := len(g.first) - 1
	of = make([]int32, n)
	index, low := make([]int32, n), make([]int32, n) // index 0: not visited
	var stack, calls []int32
	onStack := make([]bool, n)
	next := append([]int32(nil), g.first[:n]...)
	var visited, found int32
	for root := range int32(n) {
		if index[root] != 0 {
			continue
		}
		calls = append(calls, root)
		for len(calls) > 0 {
			v := calls[len(calls)-1]
			if index[v] == 0 {
				visited++
				index[v], low[v] = visited, visited
				stack = append(stack, v)
				onStack[v] = true
			}
			if next[v] < g.first[v+1] {
				to := g.to[next[v]]
				next[v]++
				switch {
				case index[to] == 0:
					calls = append(calls, to)
				case onStack[to]:
					low[v] = min(low[v], index[to])
				}
				continue
			}
			calls = calls[:len(calls)-1]
			if len(calls) > 0 {
				caller := calls[len(calls)-1]
				low[caller] = min(low[caller], low[v])
			}
			if low[v] != index[v] {
				continue
			}
			at := len(stack) - 1
			for stack[at] != v {
				at--
			}
			for _, member := range stack[at:] {
				onStack[member] = false
				of[member] = found
			}
			if len(stack)-at > 1 {
				knots = append(knots, append([]int32(nil), stack[at:]...))
			}
			stack = stack[:at]
			found++
		}
	}
	return of, knots
}

// finder finds shortest paths inside of components. It counts what it costs.
type finder struct {
	*digraph
	of    []int32
	came  []int32 // by which place of digraph.to, of this round's vertices
	round []int32
	now   int32
	queue []int32
	steps int
}

func newFinder(g *digraph, of []int32) *finder {
	return &finder{digraph: g, of: of, came: make([]int32, len(of)), round: make([]int32, len(of))}
}

// path returns the edges of a shortest path inside of the component of both, not over
// the vertex avoid; nil when there is none, or from is to.
func (f *finder) path(from, to, avoid int32) []int32 {
	if from == to {
		return nil
	}
	f.now++
	f.queue = append(f.queue[:0], from)
	f.round[from] = f.now
	for head := 0; head < len(f.queue); head++ {
		v := f.queue[head]
		for i := f.first[v]; i < f.first[v+1]; i++ {
			f.steps++
			next := f.to[i]
			if f.round[next] == f.now || next == avoid || f.of[next] != f.of[from] {
				continue
			}
			f.round[next], f.came[next] = f.now, i
			if next == to {
				return f.trace(from, to)
			}
			f.queue = append(f.queue, next)
		}
	}
	return nil
}

// trace goes back the way that path came.
func (f *finder) trace(from, to int32) (edges []int32) {
	for v := to; v != from; {
		i := f.came[v]
		edges = append(edges, f.edge[i])
		v = f.source(i)
	}
	for i, j := 0, len(edges)-1; i < j; i, j = i+1, j-1 {
		edges[i], edges[j] = edges[j], edges[i]
	}
	return edges
}

// source returns the vertex that a place of to belongs to.
func (f *finder) source(place int32) int32 {
	lo, hi := 0, len(f.first)-2
	for lo < hi {
		mid := (lo + hi + 1) / 2
		if f.first[mid] <= place {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return int32(lo)
}

package router

import (
	"regexp"
	"slices"

	"shardproxy/query"
)

// A join needs of a table only the rows that have partners. Where an input is read whole and is joined with one
// that has conditions of its own, that one is read first, and when it turns out to have few rows the values of its
// column travel to the shards of the other, which give the rows that meet one of them.

// Reduction says that of an input only rows matter whose value in a column is one of those that a column of an
// input has which is read in an earlier step.
type Reduction struct {
	Column       string // of the input, as SQL
	By, ByColumn int    // the other input, and its column, from 0
}

// reducing finds out which inputs reduce which.
type reducing struct {
	blocks []*block       // that inputs were gathered of
	tables map[*node]int  // the input of a table in FROM
	units  map[*block]int // the input of a whole query inside, whose rows are those of the shards
	narrow map[int]bool   // inputs with conditions of their own
}

// maxSteps bounds in how many steps inputs are read: each is a round trip.
const maxSteps = 4

// keyPair is an equality of columns that rows of input a must meet to matter.
type keyPair struct {
	a       int
	aColumn string
	b       int
	bColumn int // from 0
}

// reduce puts the inputs in steps, and notes by what those of later ones are reduced.
func (g *gatherer) reduce() {
	var pairs []keyPair
	for _, b := range g.reducing.blocks {
		for _, n := range b.nodes {
			if from, ok := g.readFor(n); ok && n.leaf.with == nil && (n.leaf.rel != nil || len(n.leaf.ref.Columns) == 0) { // a query's own names
				pairs = append(pairs, g.pairsOf(b, n, from)...)
			}
		}
	}
	if len(pairs) == 0 {
		return
	}
	g.stepsOf(pairs)
	for _, p := range pairs {
		in, by := &g.out.Inputs[p.a], &g.out.Inputs[p.b]
		if r := (Reduction{Column: quoteName(p.aColumn), By: p.b, ByColumn: p.bColumn}); by.Step < in.Step && !slices.Contains(in.Reductions, r) {
			in.Reductions = append(in.Reductions, r)
		}
	}
	for i := range g.out.Inputs {
		if in := &g.out.Inputs[i]; len(in.Reductions) == 0 {
			in.Step = 0
		}
		g.out.Steps = max(g.out.Steps, g.out.Inputs[i].Step+1)
	}
}

// readFor is the input that is read for an item of FROM.
type readFor struct {
	input int
	// columns are the names of its columns, "" for one that cannot be compared on its own.
	columns []string
}

// readFor finds that of a table, or of a query that is gathered whole.
func (g *gatherer) readFor(n *node) (from readFor, ok bool) {
	if n == nil || n.leaf == nil || n.join != nil {
		return from, false
	}
	if from.input, ok = g.reducing.tables[n]; ok {
		for _, c := range g.out.Inputs[from.input].Columns {
			if c.Collate != "" || c.Cast != "" {
				c.Name = ""
			}
			from.columns = append(from.columns, c.Name)
		}
		return from, true
	}
	of := n.leaf.inner
	if n.leaf.with != nil {
		of = n.leaf.with.block
	}
	from.input, ok = g.reducing.units[of]
	from.columns = n.leaf.names
	return from, ok && of != nil && n.leaf.sure
}

// column is the place of a column, -1 for none.
func (r *readFor) column(name string) int {
	at := slices.Index(r.columns, name)
	if at < 0 || name == "" || slices.Contains(r.columns[at+1:], name) {
		return -1
	}
	return at
}

// stepsOf gives the inputs their steps: first what is on one shard or on none in particular and has conditions, what is reduced by
// that, what by that, and then the same from what else has conditions.
func (g *gatherer) stepsOf(pairs []keyPair) {
	const none = -1
	for i := range g.out.Inputs {
		g.out.Inputs[i].Step = none
	}
	spread := func(first func(i int) bool) {
		var queue []int
		for i := range g.out.Inputs {
			if g.out.Inputs[i].Step == none && first(i) {
				g.out.Inputs[i].Step = 0
				queue = append(queue, i)
			}
		}
		for ; len(queue) > 0; queue = queue[1:] {
			by := queue[0]
			for _, p := range pairs {
				if in := &g.out.Inputs[p.a]; p.b == by && in.Step == none {
					in.Step = min(g.out.Inputs[by].Step+1, maxSteps-1)
					queue = append(queue, p.a)
				}
			}
		}
	}
	spread(func(i int) bool {
		p := g.out.Inputs[i].Plan
		return !p.FansOut() && (g.reducing.narrow[i] || p.Where == Keyed)
	})
	spread(func(i int) bool { return g.reducing.narrow[i] })
	spread(func(int) bool { return true })
}

// equals is a conjunct that says that two columns are equal, and nothing else.
var equals = regexp.MustCompile(`^[ \t\r\n(]*(?:` + columnPattern + `)[ \t\r\n]*=[ \t\r\n]*(?:` + columnPattern + `)[ \t\r\n)]*$`)

const (
	namePattern   = `(?:[A-Za-z_][A-Za-z_0-9$]*|"[^"]+")`
	columnPattern = `(?:` + namePattern + `\.)?` + namePattern
)

// pairsOf are the equalities without which a row of n makes no difference.
func (g *gatherer) pairsOf(b *block, n *node, from readFor) (out []keyPair) {
	if w := b.scope.Where; w != nil && n.preserved() {
		out = append(g.pairsIn(out, b, n, nil, w), g.pairsWithQueries(b, n)...)
	}
	for side, j := n, n.parent; j != nil; side, j = j, j.parent {
		if !joinDrops(j, side) || !preservedBelow(n, j) {
			continue
		}
		if on := j.join.On; on != nil {
			out = g.pairsIn(out, b, n, j, on)
		}
		if side == n {
			out = g.pairsUsing(out, n, j)
		}
	}
	out = slices.DeleteFunc(out, func(p keyPair) bool { return from.column(p.aColumn) < 0 })
	for i := range out {
		out[i].a = from.input
	}
	return out
}

// pairsIn appends those of a clause: that of a join, which sees what is joined by it only, or WHERE, which sees all.
func (g *gatherer) pairsIn(out []keyPair, b *block, n, join *node, c *query.Condition) []keyPair {
	if !c.Span.Located() || int(c.Span.End) > len(g.sql) {
		return out
	}
	for _, k := range query.Conjuncts(g.sql[c.Span.Start:c.Span.End], g.opts) {
		if !k.Plain || len(k.Columns) != 2 || !equals.MatchString(k.Text) {
			continue
		}
		for i := range k.Columns {
			own, other := &k.Columns[i], &k.Columns[1-i]
			if !g.ownColumn(b, n, own) {
				continue
			}
			for _, o := range b.nodes {
				if o == n || join != nil && !o.below(join) {
					continue
				}
				if by, ok := g.readFor(o); ok && by.column(other.Name) >= 0 && g.ownColumn(b, o, other) {
					out = append(out, keyPair{aColumn: own.Name, b: by.input, bColumn: by.column(other.Name)})
				}
			}
		}
	}
	return out
}

// below reports whether a node stands in a join.
func (n *node) below(join *node) bool {
	for ; n != nil; n = n.parent {
		if n == join {
			return true
		}
	}
	return false
}

// pairsUsing appends those of a join USING of two items of FROM.
func (g *gatherer) pairsUsing(out []keyPair, n, j *node) []keyPair {
	o := j.left
	if o == n {
		o = j.right
	}
	by, ok := g.readFor(o)
	if !ok {
		return out
	}
	for _, name := range j.join.Using {
		if slices.Contains(n.leaf.names, name) && by.column(name) >= 0 {
			out = append(out, keyPair{aColumn: name, b: by.input, bColumn: by.column(name)})
		}
	}
	return out
}

// pairsWithQueries are those of x IN (SELECT ...), where the query is gathered whole.
func (g *gatherer) pairsWithQueries(b *block, n *node) (out []keyPair) {
	for i := range b.links {
		l := b.links[i].link
		by, ok := g.reducing.units[b.links[i].block]
		if !ok || !l.Conjunct || l.Clause != query.ClauseWhere || l.Kind != query.SublinkAny || l.Op.Schema != "" || l.Op.Name != "=" || len(l.Test) != 1 {
			continue
		}
		if v := &l.Test[0]; v.Kind == query.ValueColumn && v.Detail == nil && g.ownColumn(b, n, v.Column) {
			out = append(out, keyPair{aColumn: v.Column.Name, b: by})
		}
	}
	return out
}

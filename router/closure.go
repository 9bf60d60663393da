package router

import (
	"slices"

	"shardproxy/query"
)

// holding returns the facts that hold whenever a row of the leaf makes a
// difference to what the block gives; of none, those that hold for every row that
// passes the block's conditions. given holds around the block.
//
// A part of a join is present when its row is no extension by NULLs. The leaf is;
// so are the items of FROM. Presence goes up, from a part to the join, and down to
// the sides that the join does not extend. The condition of a join holds when both
// its sides are present; what it states may make more parts present, for it is not
// true for NULLs.
func (p *prover) holding(b *block, of *leaf, given []fact) []fact {
	p.resolve(b)
	h := holder{p: p, b: b, present: map[*node]bool{}, done: map[*node]bool{}, facts: slices.Clip(given)}
	for _, n := range b.roots {
		h.mark(n)
	}
	for _, n := range b.nodes {
		if of != nil && n.leaf == of {
			h.mark(n)
		}
	}
	h.take(b.where)
	h.strict(given)
	for h.more() {
	}
	return h.facts
}

type holder struct {
	p             *prover
	b             *block
	present, done map[*node]bool
	facts         []fact
}

func (h *holder) mark(n *node) {
	if n == nil || h.present[n] {
		return
	}
	h.present[n] = true
	h.mark(n.parent)
	if n.join == nil {
		return
	}
	switch n.join.Kind {
	case query.JoinInner:
		h.mark(n.left)
		h.mark(n.right)
	case query.JoinLeft:
		h.mark(n.left)
	case query.JoinRight:
		h.mark(n.right)
	}
}

// more takes the conditions that have come to hold; false when there are none.
func (h *holder) more() (any bool) {
	for _, n := range h.b.nodes {
		if h.done[n] || !h.present[n] || n.join != nil && !(h.present[n.left] && h.present[n.right]) {
			continue
		}
		h.done[n], any = true, true
		if n.join != nil {
			h.take(n.facts)
		} else {
			h.take(h.p.leafFacts(n.leaf, h.facts))
		}
	}
	return any
}

func (h *holder) take(facts []fact) {
	h.facts = append(h.facts, facts...)
	h.strict(facts)
}

// strict marks what is present because a fact is not true for NULLs.
func (h *holder) strict(facts []fact) {
	for _, f := range facts {
		if !f.strict {
			continue
		}
		for _, c := range [...]col{f.a, f.b} {
			if c.leaf == nil {
				continue
			}
			for _, n := range h.b.nodes {
				if n.leaf == c.leaf {
					h.mark(n)
				}
			}
		}
	}
}

// leafFacts is what a query in FROM says of the rows that it gives.
func (p *prover) leafFacts(l *leaf, _ []fact) []fact {
	switch {
	case l.inner != nil:
		return p.exports(l.inner, l)
	case l.with != nil && l.with.block != nil && !l.with.open && !l.with.cte.Recursive:
		return p.exports(l.with.block, l)
	}
	return nil
}

// exports returns what holds for every row that a block gives, of the columns of l
// that stand for its outputs. Nothing of the block's own comes out.
func (p *prover) exports(b *block, l *leaf) (out []fact) {
	if b.scope.Kind == query.ScopeSet {
		return p.exportsOfSet(b, l)
	}
	if b.scope.Kind == query.ScopeValues || len(b.outputs) == 0 || b.scope.Target != nil {
		return nil
	}
	c := newClasses(p.holding(b, nil, nil))
	for i, o := range b.outputs {
		if o.col.leaf == nil {
			continue
		}
		if values := c.values(o.col); values != nil {
			out = append(out, fact{a: col{l, i}, values: values, strict: true})
		}
		if l == nil {
			continue
		}
		for j := range i {
			if other := b.outputs[j].col; other.leaf != nil && c.same(o.col, other) {
				out = append(out, fact{a: col{l, i}, b: col{l, j}, strict: o.col != other && c.strict(o.col)})
			}
		}
		for outer := range c.members(o.col) {
			if b.outside(outer.leaf) {
				out = append(out, fact{a: col{l, i}, b: outer, strict: true})
			}
		}
	}
	return out
}

// outside reports whether a leaf belongs to a block around b.
func (b *block) outside(l *leaf) bool {
	for o := b.outer; o != nil; o = o.outer {
		for _, n := range o.nodes {
			if n.leaf == l {
				return true
			}
		}
	}
	return false
}

func (p *prover) exportsOfSet(b *block, l *leaf) (out []fact) {
	if b.left == nil || b.right == nil {
		return nil
	}
	left, right := p.exports(b.left, l), p.exports(b.right, l)
	if b.scope.Set.Kind == query.SetExcept {
		return keepValues(left)
	}
	if b.scope.Set.Kind == query.SetIntersect {
		return keepValues(append(left, right...))
	}
	for _, x := range left {
		for _, y := range right {
			if x.a == y.a && x.b.leaf == nil && y.b.leaf == nil {
				out = append(out, fact{a: x.a, values: slices.Concat(x.values, y.values), strict: true})
				break
			}
		}
	}
	return out
}

func keepValues(facts []fact) []fact {
	return slices.DeleteFunc(facts, func(f fact) bool { return f.b.leaf != nil })
}

// classes are the columns that equal each other, with the values they are bound to.
type classes struct {
	parent map[col]col
	bound  map[col][][]value // by each member, as the facts say it
	sound  map[col]bool      // members of facts that are not true for NULL
}

func newClasses(facts []fact) *classes {
	c := &classes{parent: map[col]col{}, bound: map[col][][]value{}, sound: map[col]bool{}}
	for _, f := range facts {
		if f.b.leaf != nil {
			c.join(f.a, f.b)
		}
	}
	for _, f := range facts {
		if f.b.leaf == nil {
			r := c.root(f.a)
			c.bound[r] = append(c.bound[r], f.values)
		}
		if f.strict {
			c.sound[c.root(f.a)] = true
		}
	}
	return c
}

func (c *classes) root(x col) col {
	for {
		y, ok := c.parent[x]
		if !ok || y == x {
			return x
		}
		x = y
	}
}

func (c *classes) join(a, b col) {
	for _, x := range [...]col{a, b} {
		if _, ok := c.parent[x]; !ok {
			c.parent[x] = x
		}
	}
	if a, b = c.root(a), c.root(b); a != b {
		c.parent[a] = b
	}
}

func (c *classes) same(a, b col) bool { return a == b || c.root(a) == c.root(b) }

func (c *classes) strict(a col) bool { return c.sound[c.root(a)] }

// members calls yield for the columns known to equal x, itself left out.
func (c *classes) members(x col) func(yield func(col) bool) {
	return func(yield func(col) bool) {
		r := c.root(x)
		for m := range c.parent {
			if m != x && c.root(m) == r && !yield(m) {
				return
			}
		}
	}
}

// values returns the least list of values that the column is one of, nil when it is
// not bound.
func (c *classes) values(x col) []value { return narrowest(c.bound[c.root(x)]) }

// cost orders lists: a single value before several, those before arrays, whose
// length nobody knows.
func cost(list []value) int {
	n := len(list)
	for _, v := range list {
		if v.array {
			n += 1 << 20
		}
	}
	return n
}

package router

import (
	"slices"

	"shardproxy/query"
	"shardproxy/shardmap"
)

// fact is one thing that holds for the rows that matter: a equals b or, without a
// leaf of b, is one of values.
type fact struct {
	a, b   col
	values []value
	// strict is set when the fact is not true for a NULL on any side.
	strict bool
}

// resolve turns the conditions of a block into facts, once.
func (p *prover) resolve(b *block) {
	if b.ready {
		return
	}
	b.ready = true
	s := b.scope
	if s.Kind == query.ScopeMerge {
		b.nodes[len(b.nodes)-1].facts = p.facts(b, s.Where)
		return
	}
	b.where, b.never = p.facts(b, s.Where), isNever(s.Where)
	for _, n := range b.nodes {
		if n.join == nil {
			continue
		}
		for _, f := range p.facts(b, n.join.On) {
			// A condition sees what it joins; a name of what stands right of it is another's.
			if b.under(f.a.leaf, n) && (f.b.leaf == nil || b.under(f.b.leaf, n)) {
				n.facts = append(n.facts, f)
			}
		}
		n.facts = slices.DeleteFunc(n.facts, func(f fact) bool { return f.b.leaf != nil && !p.colocate(f.a, f.b) })
	}
	for _, l := range b.links {
		b.where = append(b.where, p.semiJoin(b, l)...)
	}
}

// semiJoin is what "column IN (SELECT ...)" states of the column, or of each of several,
// when all that the query gives is known to be one of some values.
func (p *prover) semiJoin(b *block, l sublink) (out []fact) {
	if !l.positive() {
		return nil
	}
	var exports []fact
	for i := range l.link.Test {
		c, ok := l.tests(b, i)
		if !ok || p.keyOf(c) == 0 {
			continue
		}
		if exports == nil {
			exports = p.exports(l.block, nil)
		}
		for _, f := range exports {
			if f.b.leaf == nil && f.a.i == i && p.comparable(c, f.values) {
				out = append(out, fact{a: c, values: f.values, strict: true})
				break
			}
		}
	}
	return out
}

// positive reports whether the sublink says that a column, or a row of some, is in its
// query, for every row that passes the clause WHERE.
func (l sublink) positive() bool {
	k := l.link
	return k.Kind == query.SublinkAny && k.Op.Name == "=" && k.Op.Schema == "" && k.Conjunct && k.Clause == query.ClauseWhere
}

// tests returns the column that a positive sublink compares with its query's output of a
// number; false when it compares another expression.
func (l sublink) tests(b *block, i int) (col, bool) {
	t := &l.link.Test[i]
	if t.Kind != query.ValueColumn || t.Column == nil || len(t.Casts()) > 0 || t.Collation() != nil {
		return col{}, false
	}
	return b.find(t.Column)
}

// comparable reports whether values that were meant for other columns mean the same
// in comparison with this one.
func (p *prover) comparable(c col, values []value) bool {
	k := p.keyOf(c)
	return k != 0 && !slices.ContainsFunc(values, func(v value) bool {
		return v.some(func(of *value) bool { return !of.as.Colocates(k) })
	})
}

// facts reads a condition. What it cannot read states nothing.
func (p *prover) facts(b *block, c *query.Condition) (out []fact) {
	if c == nil {
		return nil
	}
	for i := range c.Facts {
		out = p.fact(out, b, &c.Facts[i])
	}
	return out
}

func (p *prover) fact(out []fact, b *block, f *query.Fact) []fact {
	if f.Collation != nil {
		return out
	}
	switch f.Kind {
	case query.FactEqual:
		return p.equality(out, b, f)
	case query.FactIn:
		return p.member(out, b, f.Op, f.Column, f.Values)
	case query.FactAny:
		return p.anyOf(out, b, f)
	case query.FactTuples:
		for i := range f.Columns {
			list := make([]query.Value, len(f.Tuples))
			for j, t := range f.Tuples {
				if i >= len(t) {
					return out
				}
				list[j] = t[i]
			}
			out = p.member(out, b, f.Op, &f.Columns[i], list)
		}
	case query.FactCompare:
		return p.comparison(out, b, f)
	case query.FactOr:
		return p.either(out, b, f)
	case query.FactNull:
		return p.null(out, b, f)
	}
	return out
}

// null reads column IS NULL, of a column of a key: no row has such a key. Where a join may
// extend the table by NULLs it says that there is no row, and states nothing of those that are.
func (p *prover) null(out []fact, b *block, f *query.Fact) []fact {
	c, ok := b.find(f.Column)
	if !ok || c.leaf.rel == nil || c.leaf.rel.kind != kindSharded || !slices.Contains(c.leaf.rel.key, c.i) {
		return out
	}
	for _, n := range b.nodes {
		if n.leaf == c.leaf && n.join == nil && n.preserved() {
			return append(out, fact{a: c, values: []value{{source: fromNull, index: -1, typmod: -1, as: c.leaf.rel.columns[c.i].key}}})
		}
	}
	return out
}

// isNever reports whether a condition has a conjunct that no row passes.
func isNever(c *query.Condition) bool {
	return c != nil && slices.ContainsFunc(c.Facts, func(f query.Fact) bool {
		return f.Kind == query.FactConstant &&
			(f.Value.Kind == query.ValueNull || f.Value.Kind == query.ValueBool && !f.Value.Bool)
	})
}

// equality reads column = value and column = column.
func (p *prover) equality(out []fact, b *block, f *query.Fact) []fact {
	a, ok := b.find(f.Column)
	if !ok {
		return out
	}
	ak := p.keyOf(a)
	if f.Value.Kind == query.ValueColumn {
		if f.Value.Column == nil || f.Value.Detail != nil {
			return out
		}
		c, ok := b.find(f.Value.Column)
		if !ok || ak == 0 || !p.colocate(a, c) || !p.relations.equal(f.Op, ak, p.keyOf(c)) {
			return out
		}
		return append(out, fact{a: a, b: c, strict: !f.NullSafe})
	}
	if ak == 0 || !p.relations.equal(f.Op, ak, ak) {
		return out
	}
	v, ok := p.value(b, &f.Value, ak)
	if !ok || f.NullSafe && v.source == fromNull {
		return out
	}
	return append(out, fact{a: a, values: []value{v}, strict: true})
}

// member reads column IN (values).
func (p *prover) member(out []fact, b *block, op query.Name, c *query.Column, list []query.Value) []fact {
	a, ok := b.find(c)
	if !ok || op.Name != "=" {
		return out
	}
	k := p.keyOf(a)
	if k == 0 || !p.relations.equal(op, k, k) {
		return out
	}
	values := make([]value, 0, len(list))
	for i := range list {
		v, ok := p.value(b, &list[i], k)
		if !ok {
			return out
		}
		values = append(values, v)
	}
	return append(out, fact{a: a, values: values, strict: true})
}

// anyOf reads column = ANY (array).
func (p *prover) anyOf(out []fact, b *block, f *query.Fact) []fact {
	if f.Value.Kind == query.ValueArray && len(f.Value.Casts()) == 0 {
		return p.member(out, b, f.Op, f.Column, f.Value.Elements())
	}
	a, ok := b.find(f.Column)
	if !ok || f.Op.Name != "=" || f.Value.Detail != nil && (len(f.Value.Casts()) > 0 || f.Value.Collation() != nil) {
		return out
	}
	k := p.keyOf(a)
	if k == 0 || !p.relations.equal(f.Op, k, k) {
		return out
	}
	v, ok := p.value(b, &f.Value, k)
	if !ok || v.source != fromParam && v.source != fromLiteral && v.source != fromNull {
		return out
	}
	v.array = true
	return append(out, fact{a: a, values: []value{v}, strict: true})
}

// either reads OR: a column that every branch binds is one of all their values.
func (p *prover) either(out []fact, b *block, f *query.Fact) []fact {
	var common []fact
	for i, branch := range f.Branches {
		facts := p.branch(b, branch)
		if i == 0 {
			common = facts
			continue
		}
		var both []fact
		for _, c := range common {
			if at := slices.IndexFunc(facts, func(o fact) bool { return o.a == c.a }); at >= 0 {
				o := facts[at]
				both = append(both, fact{a: c.a, values: slices.Concat(c.values, o.values), strict: c.strict && o.strict})
			}
		}
		common = both
	}
	return append(out, common...)
}

// branch returns what a branch of OR binds columns to, each once.
func (p *prover) branch(b *block, branch []query.Fact) (out []fact) {
	var facts []fact
	for j := range branch {
		facts = p.fact(facts, b, &branch[j])
	}
	for i, f := range facts {
		if f.b.leaf != nil || slices.ContainsFunc(facts[:i], func(o fact) bool { return o.b.leaf == nil && o.a == f.a }) {
			continue
		}
		var lists [][]value
		for _, o := range facts[i:] {
			if o.b.leaf == nil && o.a == f.a {
				lists, f.strict = append(lists, o.values), f.strict || o.strict
			}
		}
		f.values = narrowest(lists)
		out = append(out, f)
	}
	return out
}

// keyOf returns the key type of a column's values, 0 when they have none.
func (p *prover) keyOf(c col) shardmap.KeyType {
	// A query that came to its own columns would never end.
	if p.typing++; p.typing > maxBlocks {
		return 0
	}
	defer func() { p.typing-- }()
	switch l := c.leaf; {
	case l == nil:
		return 0
	case l.inner != nil:
		return p.outputType(l.inner, c.i)
	case l.rel != nil:
		if c.i < len(l.rel.columns) {
			return l.rel.columns[c.i].key
		}
	case l.with != nil && l.with.block != nil && !l.with.open && !l.with.cte.Recursive:
		return p.outputType(l.with.block, c.i)
	}
	return 0
}

// outputType returns the key type of what a block gives out in one place.
func (p *prover) outputType(b *block, i int) shardmap.KeyType {
	if b.scope.Kind == query.ScopeSet {
		if b.left == nil || b.right == nil {
			return 0
		}
		l, r := p.outputType(b.left, i), p.outputType(b.right, i)
		if l == 0 || r == 0 || !l.Colocates(r) {
			return 0
		}
		return l
	}
	if i >= len(b.outputs) {
		return 0
	}
	return p.keyOf(b.outputs[i].col)
}

func (p *prover) colocate(a, b col) bool {
	x, y := p.keyOf(a), p.keyOf(b)
	return x != 0 && y != 0 && x.Colocates(y)
}

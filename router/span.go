package router

import (
	"slices"

	"shardproxy/query"
	"shardproxy/shardmap"
)

// Comparisons of a key with <, <=, > and >=, and so BETWEEN, bind it to the keys between bounds.
// That says where rows lie only of tables that are placed by ranges of their key; of others it
// states nothing. A bound that cannot be read states nothing either: unlike a value of the key it
// is one of many ways to say less, and PostgreSQL finds what is wrong with it.

// span is the keys for which all limits hold.
type span struct{ limits []limit }

// limit is one comparison with a key.
type limit struct {
	of value
	// upper is set for < and <=, included for <= and >=.
	upper, included bool
}

// comparison reads column < value and its like.
func (p *prover) comparison(out []fact, b *block, f *query.Fact) []fact {
	if f.Value.Kind == query.ValueColumn {
		return out
	}
	a, ok := b.find(f.Column)
	if !ok {
		return out
	}
	k := p.keyOf(a)
	if k == 0 || !p.relations.orders(f.Op, k) || k == shardmap.Text && !p.bytewise(a) {
		return out
	}
	v, ok := p.value(b, &f.Value, k)
	if !ok {
		return out
	}
	within := &span{[]limit{{
		of:       v,
		upper:    f.Compare == query.CompareLess || f.Compare == query.CompareLessEqual,
		included: f.Compare == query.CompareLessEqual || f.Compare == query.CompareGreaterEqual,
	}}}
	return append(out, fact{a: a, values: []value{{source: fromSpan, index: -1, typmod: -1, as: k, within: within}}, strict: true})
}

// bytewise reports whether a column of text is surely compared by its bytes.
func (p *prover) bytewise(c col) bool {
	// A query that came to its own columns would never end.
	if p.typing++; p.typing > maxBlocks {
		return false
	}
	defer func() { p.typing-- }()
	switch l := c.leaf; {
	case l == nil:
		return false
	case l.inner != nil:
		return p.bytewiseOutput(l.inner, c.i)
	case l.rel != nil:
		return c.i < len(l.rel.columns) && l.rel.columns[c.i].bytewise
	case l.with != nil && l.with.block != nil && !l.with.open && !l.with.cte.Recursive:
		return p.bytewiseOutput(l.with.block, c.i)
	}
	return false
}

// bytewiseOutput is bytewise for what a block gives out in one place.
func (p *prover) bytewiseOutput(b *block, i int) bool {
	if b.scope.Kind == query.ScopeSet {
		return b.left != nil && b.right != nil && p.bytewiseOutput(b.left, i) && p.bytewiseOutput(b.right, i)
	}
	return i < len(b.outputs) && !b.outputs[i].collated && p.bytewise(b.outputs[i].col)
}

// narrowest returns the least that several lists say together, each of which says that a column
// is one of its values: one of them, within all the spans that are a list of their own. It is nil
// when there are none.
func narrowest(lists [][]value) []value {
	var points, mixed []value
	var all value
	var within []limit
	for _, list := range lists {
		switch {
		case len(list) == 1 && list[0].source == fromSpan:
			all, within = list[0], list[0].within.with(within)
		case hasSpan(list):
			if mixed == nil || len(list) < len(mixed) {
				mixed = list
			}
		case points == nil || cost(list) < cost(points):
			points = list
		}
	}
	best := points
	switch {
	case points == nil && mixed == nil && len(within) > 0:
		all.within = &span{within}
		return []value{all}
	case points == nil:
		best = mixed
	case len(points) == 1 && !points[0].array:
		return points // nothing says more
	}
	if len(within) == 0 {
		return best
	}
	also, narrowed := &span{within}, make([]value, len(best))
	for i := range best {
		narrowed[i] = best[i].inside(also)
	}
	return narrowed
}

// maxLimits bounds the limits of one span: with fewer it only says less.
const maxLimits = 64

// with returns the limits of both, each once.
func (s *span) with(limits []limit) []limit {
	for _, b := range s.limits {
		if len(limits) < maxLimits && !slices.ContainsFunc(limits, b.same) {
			limits = append(limits[:len(limits):len(limits)], b)
		}
	}
	return limits
}

// inside returns the value where it is within a span too.
func (v value) inside(s *span) value {
	if v.within != nil {
		s = &span{s.with(v.within.limits)}
	}
	v.within = s
	return v
}

// hasSpan reports whether a list has spans, not single values and arrays only.
func hasSpan(list []value) bool {
	return slices.ContainsFunc(list, func(v value) bool { return v.source == fromSpan })
}

// withoutSpans returns a list of values without the spans that they are within.
func withoutSpans(list []value) []value {
	if !slices.ContainsFunc(list, func(v value) bool { return v.within != nil }) {
		return list
	}
	out := slices.Clone(list)
	for i := range out {
		out[i].within = nil
	}
	return out
}

// operator is the comparison as SQL, with the key on its left.
func (b limit) operator() string {
	op := ">"
	if b.upper {
		op = "<"
	}
	if b.included {
		op += "="
	}
	return op
}

func (b limit) same(o limit) bool {
	return b.upper == o.upper && b.included == o.included && b.of.same(o.of)
}

// same reports whether two values are the same in every execution.
func (v value) same(o value) bool {
	a, b := v.within, o.within
	if v.within, o.within = nil, nil; v != o {
		return false
	}
	return a == b || a != nil && b != nil && slices.EqualFunc(a.limits, b.limits, limit.same)
}

// each calls yield for the value and those that bound it.
func (v *value) each(yield func(*value)) {
	yield(v)
	if v.within != nil {
		for i := range v.within.limits {
			yield(&v.within.limits[i].of)
		}
	}
}

// some reports whether it is so of the value or of one that bounds it.
func (v *value) some(is func(*value) bool) (some bool) {
	v.each(func(of *value) { some = some || is(of) })
	return some
}

// spanKeys are the keys of the span that is looked at, and the shards on which they may be.
type spanKeys struct {
	shardmap.Span
	touched []string
}

// limit finds the keys that a span leaves with the values of this execution.
func (v *Values) limit(of *span, k shardmap.KeyType) {
	if v.keys == nil {
		v.keys = &spanKeys{}
	}
	v.keys.Reset()
	for i := range of.limits {
		b := &of.limits[i]
		r, err := v.read(&b.of)
		if err == nil && r.null {
			v.keys.None()
		}
		if err != nil || r.null || v.check(&b.of, &r) != nil {
			continue
		}
		at := shardmap.Value{Type: r.typed, Data: r.data, Format: r.f}
		if b.upper {
			_ = v.keys.Below(k, at, b.included) // see the head of this file
		} else {
			_ = v.keys.Above(k, at, b.included)
		}
	}
}

// bind finds the keys of a span, unless they are those that were found last.
func (l *locator) bind(g *Group, of *span) {
	if l.within != of {
		l.values.limit(of, g.placement.types[0])
		l.within = of
	}
}

// span goes through the shards that may hold keys of a span.
func (l *locator) span(g *Group, of *span) error {
	l.bind(g, of)
	keys := l.values.keys
	keys.touched = g.placement.ranges.Touched(keys.touched[:0], &keys.Span)
	for _, shard := range keys.touched {
		if err := l.found(g, l.owners.named(shard)); err != nil {
			return err
		}
	}
	return nil
}

// anywhere goes through all shards of a table: a value beside a span that cannot be read, or that
// no shard is named for, states nothing, as a bound does.
func (l *locator) anywhere(g *Group) error {
	for _, shard := range g.placement.ranges.Shards() {
		if err := l.found(g, l.owners.named(shard)); err != nil {
			return err
		}
	}
	return nil
}

// outside reports whether a value is surely not in the span that it is within.
func (l *locator) outside(k shardmap.KeyType, v shardmap.Value) bool {
	inside, err := l.values.keys.Holds(k, v)
	return err == nil && !inside
}

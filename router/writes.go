package router

import (
	"slices"

	"shardproxy/query"
)

// writes proves what a writing command does to the keys of its target.
func (p *prover) writes(b *block, given []fact, nothing bool) {
	s := b.scope
	switch s.Kind {
	case query.ScopeInsert:
		p.insert(b, given, nothing)
	case query.ScopeUpdate:
		if r := p.target(b); r != nil && s.Update != nil {
			p.keeps(r, s.Update.Set)
		}
	case query.ScopeMerge:
		p.merge(b)
	}
}

// target returns the sharded table that is written, nil for others.
func (p *prover) target(b *block) *relation {
	for _, n := range b.nodes {
		if n.leaf != nil && n.leaf.ref == b.scope.Target && n.leaf.rel != nil && n.leaf.rel.kind == kindSharded {
			return n.leaf.rel
		}
	}
	return nil
}

// keeps refuses assignments to the columns of a key.
func (p *prover) keeps(r *relation, set []query.Assignment) {
	for i := range set {
		if r.isKey(set[i].Column.Name) {
			p.refuse(reasonKeyChange, "column "+set[i].Column.Name+" is part of the key of "+r.String()+
				": a row with another key may belong to another shard")
		}
	}
}

func (r *relation) isKey(column string) bool {
	return slices.ContainsFunc(r.key, func(k int) bool { return r.columns[k].name == column })
}

func (p *prover) merge(b *block) {
	r := p.target(b)
	if r == nil {
		return
	}
	for i := range b.scope.Merge.When {
		w := &b.scope.Merge.When[i]
		p.keeps(r, w.Set)
		if w.Action == query.MergeInsert {
			p.insertRow(b, r, w.Columns, w.HasColumns, w.Values)
		}
	}
}

// insert proves where the rows of an INSERT go.
func (p *prover) insert(b *block, given []fact, nothing bool) {
	s := b.scope
	l := &leaf{ref: s.Target, rel: p.relations.find(s.Target.Schema, s.Target.Name)}
	if l.rel == nil || s.Target.Catalog != "" {
		l.rel = &relation{kind: kindSingle, schema: s.Target.Schema, name: s.Target.Name}
	}
	p.note(l)
	if b.right != nil {
		p.block(b.right, given, nothing)
	}
	if l.rel.kind != kindSharded {
		return
	}
	if c := s.Insert.Conflict; c != nil {
		p.keeps(l.rel, c.Set)
	}
	p.draws(l.rel, s.Insert)
	if len(l.rel.key) == 0 {
		p.add(Group{table: l.rel.String(), placement: l.rel.placement})
		return
	}
	src := s.Insert.Source
	switch {
	case src == nil:
		p.refuse(reasonNoKey, "INSERT into "+l.rel.String()+" gives no key")
	case src.Kind == query.ScopeValues:
		sp := &split{conflict: s.Insert.Conflict != nil}
		for i := range src.Rows {
			p.insertRow(b, l.rel, s.Insert.Columns, s.Insert.HasColumns, src.Rows[i].Values)
			sp.rows, sp.groups = append(sp.rows, src.Rows[i].Span), append(sp.groups, int32(len(p.groups)-1))
		}
		if b.outer == nil && len(src.Rows) > 1 && src.Select == nil {
			p.split = sp
		}
	default:
		p.insertQuery(b, l.rel, given)
	}
}

// draws refuses an INSERT whose rows get values from a sequence: each shard has one
// of its own.
func (p *prover) draws(r *relation, in *query.Insert) {
	for i, c := range r.columns {
		if !c.drawn || len(r.key) == 0 {
			continue
		}
		if !given(in, i, c.name) {
			p.refuse(reasonSequence, "column "+c.name+" of "+r.String()+" draws from a sequence, of which each shard has its own")
			return
		}
	}
}

// given reports whether every row of an INSERT has a value for the column at a place.
func given(in *query.Insert, at int, name string) bool {
	if in.HasColumns {
		at = slices.IndexFunc(in.Columns, func(t query.TargetColumn) bool { return t.Name == name })
	}
	if at < 0 || in.Source == nil || in.Overriding == "user" {
		return false
	}
	return in.Source.Kind != query.ScopeValues || !slices.ContainsFunc(in.Source.Rows, func(row query.Row) bool {
		return at >= len(row.Values) || row.Values[at].Kind == query.ValueDefault
	})
}

// keyPlaces returns where in a list of columns the key's columns are, nil when one is
// missing.
func (p *prover) keyPlaces(r *relation, columns []query.TargetColumn, listed bool) []int {
	places := make([]int, 0, len(r.key))
	for _, k := range r.key {
		at := k
		if listed {
			at = slices.IndexFunc(columns, func(c query.TargetColumn) bool { return c.Name == r.columns[k].name && !c.Part })
		}
		if at < 0 {
			p.refuse(reasonNoKey, "INSERT into "+r.String()+" gives no value for "+r.columns[k].name+", which places the row")
			return nil
		}
		places = append(places, at)
	}
	return places
}

// insertRow proves where one row of values goes.
func (p *prover) insertRow(b *block, r *relation, columns []query.TargetColumn, listed bool, row []query.Value) {
	places := p.keyPlaces(r, columns, listed)
	if places == nil {
		return
	}
	g := Group{table: r.String(), placement: r.placement}
	for i, at := range places {
		c := r.columns[r.key[i]]
		if at >= len(row) || row[at].Kind == query.ValueDefault {
			p.refuse(reasonNoKey, "INSERT into "+r.String()+" leaves "+c.name+", which places the row, to its default")
			return
		}
		v, ok := p.value(b, &row[at], c.key)
		if !ok {
			p.refuse(reasonValue, "the value of "+c.name+", which places the row, is not a constant or a parameter of its type")
			return
		}
		v.assigned, v.typmod = true, c.typmod
		g.columns = append(g.columns, []value{v})
	}
	if len(p.groups) > 0 && p.groups[len(p.groups)-1].same(&g) {
		return
	}
	p.groups = append(p.groups, g)
}

// insertQuery proves where the rows of a query go: its outputs must bind the key.
func (p *prover) insertQuery(b *block, r *relation, given []fact) {
	places := p.keyPlaces(r, b.scope.Insert.Columns, b.scope.Insert.HasColumns)
	if places == nil || b.right == nil {
		return
	}
	l := &leaf{inner: b.right}
	facts := p.exports(b.right, l)
	c := newClasses(facts)
	g := Group{table: r.String(), placement: r.placement}
	for i, at := range places {
		k := r.columns[r.key[i]]
		values := c.values(col{l, at})
		if values == nil || !p.comparable(col{l, at}, values) || k.key == 0 || !p.keyOf(col{l, at}).Colocates(k.key) || k.typmod >= 0 {
			p.refuse(reasonUnbound, "the rows that go into "+r.String()+" may belong on any shard")
			return
		}
		g.columns = append(g.columns, values)
	}
	p.add(g)
}

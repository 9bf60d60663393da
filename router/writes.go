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
		if r := p.target(b); r != nil && s.Update != nil && !(p.moving && b.outer == nil && r.kind == kindSharded && r.moves == "" && p.movesTo(b, r, s.Update.Set)) {
			p.keeps(b, r, s.Update.Set)
		}
	case query.ScopeMerge:
		p.merge(b)
	}
}

// target returns the table on several shards that is written, nil for others.
func (p *prover) target(b *block) *relation {
	for _, n := range b.nodes {
		if n.leaf != nil && n.leaf.ref == b.scope.Target && n.leaf.rel != nil &&
			(n.leaf.rel.kind == kindSharded || n.leaf.rel.kind == kindReference) {
			return n.leaf.rel
		}
	}
	return nil
}

// keeps refuses assignments by which a row may come to belong to another shard, and of
// defaults that each shard would make for itself.
func (p *prover) keeps(b *block, r *relation, set []query.Assignment) {
	for i := range set {
		a := &set[i]
		if a.Value.Kind == query.ValueDefault {
			p.keepsDefault(r, a.Column.Name)
		}
		if !r.isKey(a.Column.Name) {
			continue
		}
		p.kept = r.moves
		if !p.staysThere(b, r, a) {
			why := "column " + a.Column.Name + " is part of the key of " + r.String() + ": a row with another key may belong to another shard"
			if r.moves != "" {
				why += ", and cannot be moved: " + r.moves
			}
			p.refuse(reasonKeyChange, why)
		}
	}
}

// staysThere reports whether an assignment to a key's column leaves the row where it is:
// the value of the row that an INSERT gave, which was placed by it, or one whose shard
// must be that of all else.
func (p *prover) staysThere(b *block, r *relation, a *query.Assignment) bool {
	v := &a.Value
	if c := v.Column; v.Kind == query.ValueColumn && c != nil && b.scope.Kind == query.ScopeInsert {
		return c.Schema == "" && c.Table == "excluded" && c.Name == a.Column.Name
	}
	if len(r.key) != 1 || a.Column.Part || v.Kind != query.ValueLiteral && v.Kind != query.ValueParam {
		return false
	}
	k := r.columns[r.key[0]]
	to, ok := p.value(b, v, k.key)
	if !ok {
		return false
	}
	to.assigned, to.typmod = true, k.typmod
	p.add(Group{table: r.String(), placement: r.placement, columns: [][]value{{to}}})
	return true
}

// keepsDefault refuses SET column = DEFAULT where the default is drawn, or may be another
// on each shard.
func (p *prover) keepsDefault(r *relation, column string) {
	for _, c := range r.columns {
		switch {
		case c.name != column:
		case c.drawn:
			p.refuse(reasonSequence, drawsOwn(r, column))
		case p.anchors && c.unsteady:
			p.refuse(reasonFunction, "the default of "+column+" may be another on each shard")
		case r.kind == kindReference && (c.unsteady || c.draw != nil):
			p.refuse(reasonReference, r.String()+" is on every shard, and the default of "+column+" may be another on each")
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
		p.keeps(b, r, w.Set)
		if w.Action == query.MergeInsert && r.kind == kindSharded {
			p.mergeRow(b, r, w)
		}
	}
}

// mergeRow proves where a row goes that MERGE inserts.
func (p *prover) mergeRow(b *block, r *relation, w *query.MergeWhen) {
	in := &query.Insert{Columns: w.Columns, HasColumns: w.HasColumns, Overriding: w.Overriding}
	in.Source = &query.Scope{Kind: query.ScopeValues, Rows: []query.Row{{Values: w.Values}}}
	if len(r.key) == 0 {
		p.drawsThere = true
		if why := drawsElsewhere(r, p.givenIn(in)); why != "" {
			p.refuse(reasonSequence, why)
		}
		return // it is where its target is
	}
	for i, c := range r.columns {
		if c.drawn && !given(in, i, c.name) {
			p.refuse(reasonSequence, drawsOwn(r, c.name))
			return
		}
	}
	p.insertRow(b, r, in, w.Values, &split{})
}

func drawsOwn(r *relation, column string) string {
	if at := slices.IndexFunc(r.columns, func(c relationColumn) bool { return c.name == column }); at >= 0 && r.columns[at].volatile {
		return "the default of column " + column + " of " + r.String() + " is volatile: it may be what another shard has too"
	}
	return "column " + column + " of " + r.String() + " draws from a sequence, of which each shard has its own"
}

// insert proves where the rows of an INSERT go.
func (p *prover) insert(b *block, given []fact, nothing bool) {
	s := b.scope
	l := &leaf{ref: s.Target, rel: p.relations.find(s.Target.Schema, s.Target.Name)}
	if l.rel == nil || s.Target.Catalog != "" {
		l.rel = &relation{kind: kindSingle, schema: s.Target.Schema, name: s.Target.Name}
	}
	p.note(l)
	if l.rel.kind == kindSharded && len(l.rel.key) == 0 {
		p.drawsThere = true
		if why := drawsElsewhere(l.rel, p.givenIn(s.Insert)); why != "" {
			p.refuse(reasonSequence, why)
		}
	}
	if b.right != nil {
		p.block(b.right, given, nothing)
	}
	if c := s.Insert.Conflict; c != nil && l.rel.kind == kindReference {
		p.keeps(b, l.rel, c.Set)
	}
	if l.rel.kind == kindReference {
		sp := &split{everywhere: true, conflict: s.Insert.Conflict != nil}
		p.draws(b, l.rel, sp)
		if len(sp.draws) > 0 {
			p.split = sp
		}
		return
	}
	if l.rel.kind != kindSharded {
		return
	}
	if c := s.Insert.Conflict; c != nil {
		p.keeps(b, l.rel, c.Set)
	}
	if len(l.rel.key) == 0 {
		p.add(Group{table: l.rel.String(), placement: l.rel.placement})
		return
	}
	sp := &split{conflict: s.Insert.Conflict != nil, defers: l.rel.defers}
	// Rows that others write too are waited for, and what triggers do elsewhere is not rolled back.
	sp.inTurn = sp.conflict || l.rel.triggers
	p.draws(b, l.rel, sp)
	src := s.Insert.Source
	switch {
	case src == nil:
		if p.keyPlaces(l.rel, nil, true, sp) != nil {
			p.insertRow(b, l.rel, s.Insert, nil, sp)
			sp.groups = append(sp.groups, int32(len(p.groups)-1))
		}
	case src.Kind == query.ScopeValues:
		rows := make([]query.Span, 0, len(src.Rows))
		for i := range src.Rows {
			p.insertRow(b, l.rel, s.Insert, src.Rows[i].Values, sp)
			rows, sp.groups = append(rows, src.Rows[i].Span), append(sp.groups, int32(len(p.groups)-1))
		}
		sp.rows = rows
		if b.outer == nil && len(src.Rows) > 1 && src.Select == nil && !sp.leavesMoment(l.rel, s.Insert) {
			p.split = sp
		}
	default:
		p.insertQuery(b, l.rel, given)
		if p.anchors {
			p.leavesToShards(l.rel, s.Insert)
		}
	}
}

// leavesToShards refuses to leave to each shard what may differ among them.
func (p *prover) leavesToShards(r *relation, in *query.Insert) {
	for i, c := range r.columns {
		if c.unsteady && !given(in, i, c.name) {
			p.refuse(reasonFunction, "the default of "+c.name+" may be another on each shard")
		}
	}
}

// draws finds out what an INSERT draws: each shard has sequences of its own, and so the
// values are drawn before it runs, where its text lists the rows. Any other is refused.
func (p *prover) draws(b *block, r *relation, sp *split) {
	in := b.scope.Insert
	listed := b.outer == nil && (in.Source == nil || in.Source.Kind == query.ScopeValues && in.Source.Select == nil)
	if !listed || !p.drawn(r, in, sp) {
		sp.draws = nil
	}
	for i, c := range r.columns {
		if !c.drawn && c.draw == nil || given(in, i, c.name) {
			continue
		}
		covered := slices.ContainsFunc(sp.draws, func(d Draw) bool { return d.Column == c.name })
		if covered {
			p.split, p.draw = sp, drawsOwn(r, c.name)
			continue
		}
		if c.drawn {
			p.refuse(reasonSequence, drawsOwn(r, c.name))
			return
		}
	}
	if i := slices.IndexFunc(sp.draws, func(d Draw) bool { return d.Sequence != "" }); i >= 0 && p.split == nil {
		p.split, p.draw = sp, drawsOwn(r, sp.draws[i].Column) // nextval is called in its rows
	}
	if i := slices.IndexFunc(sp.draws, func(d Draw) bool { return d.Unique }); i >= 0 {
		p.split, p.draw = sp, "column "+sp.draws[i].Column+" of "+r.String()+" has an id that is made for all shards"
	}
}

// leavesMoment reports whether each shard would take its own time for a column.
func (sp *split) leavesMoment(r *relation, in *query.Insert) bool {
	for i, c := range r.columns {
		if c.moment != "" && !given(in, i, c.name) && !sp.fills(c.name) {
			return true
		}
	}
	return false
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

func (p *prover) givenIn(in *query.Insert) func(int, string) bool {
	return func(i int, name string) bool { return given(in, i, name) }
}

// keyPlaces returns where in a list of columns the key's columns are, nil when one is
// missing; -1 for one that is drawn.
func (p *prover) keyPlaces(r *relation, columns []query.TargetColumn, listed bool, sp *split) []int {
	places := make([]int, 0, len(r.key))
	for _, k := range r.key {
		at := k
		if listed {
			at = slices.IndexFunc(columns, func(c query.TargetColumn) bool { return c.Name == r.columns[k].name && !c.Part })
		}
		if at < 0 && (sp == nil || sp.drawNumber(r.columns[k].name) < 0) {
			p.refuse(reasonNoKey, "INSERT into "+r.String()+" gives no value for "+r.columns[k].name+", which places the row")
			return nil
		}
		places = append(places, at)
	}
	return places
}

// insertRow proves where one row of values goes.
func (p *prover) insertRow(b *block, r *relation, in *query.Insert, row []query.Value, sp *split) {
	places := p.keyPlaces(r, in.Columns, in.HasColumns || in.Source == nil, sp)
	if places == nil {
		return
	}
	g := Group{table: r.String(), placement: r.placement}
	for i, at := range places {
		c := r.columns[r.key[i]]
		if n := sp.drawNumber(c.name); n >= 0 && (at < 0 || at >= len(row) || p.isDrawn(&row[at], &sp.draws[n])) {
			g.columns = append(g.columns, []value{{source: fromDraw, index: int32(n), as: c.key, assigned: true, typmod: c.typmod}})
			continue
		}
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
	places := p.keyPlaces(r, b.scope.Insert.Columns, b.scope.Insert.HasColumns, nil)
	if places == nil || b.right == nil {
		return
	}
	l := &leaf{inner: b.right}
	facts := p.exports(b.right, l)
	c := newClasses(facts)
	g := Group{table: r.String(), placement: r.placement}
	for i, at := range places {
		k := r.columns[r.key[i]]
		if v, ok := p.constantOutput(b.right, at, k); ok {
			g.columns = append(g.columns, []value{v})
			continue
		}
		// Keys of a span may have no shard that new rows could go to.
		values := withoutSpans(c.values(col{l, at}))
		if values == nil || hasSpan(values) || !p.comparable(col{l, at}, values) || k.key == 0 || !p.keyOf(col{l, at}).Colocates(k.key) || k.typmod >= 0 {
			p.refuse(reasonUnbound, "the rows that go into "+r.String()+" may belong on any shard")
			return
		}
		g.columns = append(g.columns, values)
	}
	p.add(g)
}

// constantOutput returns the value that a column of all rows of a query has. It is
// stored as it stands there: PostgreSQL gives it the type of the column that it is for.
func (p *prover) constantOutput(b *block, at int, k relationColumn) (value, bool) {
	s := b.scope
	if s.Kind != query.ScopeSelect || s.Select != nil && (s.Select.Distinct || len(s.Select.DistinctOn) > 0 || s.Select.Grouped) || k.key == 0 {
		return value{}, false
	}
	if at >= len(s.Outputs) || slices.ContainsFunc(s.Outputs[:at+1], func(o query.Output) bool { return o.Star }) {
		return value{}, false
	}
	out := &s.Outputs[at].Value
	if out.Kind != query.ValueLiteral && out.Kind != query.ValueParam {
		return value{}, false
	}
	v, ok := p.value(b, out, k.key)
	v.assigned, v.typmod = true, k.typmod
	return v, ok
}

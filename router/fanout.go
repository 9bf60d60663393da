package router

import (
	"errors"
	"slices"

	"shardproxy/query"
	"shardproxy/shardmap"
	"shardproxy/wire"
)

// An UPDATE, DELETE or INSERT ... SELECT whose key is not bound fans out: every shard runs
// it on the rows that it has. That is right when, for each row of the target alone (of an
// INSERT, of one table that the query reads), all else that the statement needs of sharded
// tables has the key of that row. So the proof is done once more, with that table's key
// bound to that of "the row at hand", and every use of a sharded table must come out bound
// to just that.

// mayFanOut reports whether commands are one that writes rows where they are, and nothing else.
func mayFanOut(shapes []*query.Shape) bool {
	if len(shapes) != 1 || shapes[0].Kind != query.ShapeQuery || shapes[0].Scope == nil {
		return false
	}
	s := shapes[0].Scope
	return (s.Kind == query.ScopeUpdate || s.Kind == query.ScopeDelete || insertsQuery(s)) && s.CurrentOf == "" &&
		!slices.ContainsFunc(s.With, func(c *query.CTE) bool { return c.Writes })
}

// insertsQuery reports whether a command inserts the rows of a query, in no order that the
// client could see.
func insertsQuery(s *query.Scope) bool {
	if s.Kind != query.ScopeInsert || s.Insert.Source == nil || s.Insert.Source.Kind != query.ScopeSelect {
		return false
	}
	sel := s.Insert.Source.Select
	return sel == nil || len(sel.OrderBy) == 0 || len(s.Outputs) == 0
}

// fanOut finds out whether a write, of which out is known, may run on several
// shards. prove proves it, with the target's key anchored, and with its rows moving, or not.
func fanOut(out routed, shapes []*query.Shape, c *query.Command, prove func(anchors, moving bool) *prover) routed {
	refused := out.where == Refused
	if refused && out.refusal.Reason != reasonUnbound && out.refusal.Reason != reasonKeyChange || !refused && out.where != Keyed {
		return out
	}
	if shapes[0].Scope.Kind == query.ScopeUpdate && (refused || len(out.groups) > 1) {
		if moved, ok := moves(shapes, c, prove); ok {
			return moved
		}
	}
	if !refused && oneValue(out.groups) {
		return out
	}
	q := prove(true, false)
	ok, why := q.fansOut(c)
	switch {
	case ok && refused:
		return routed{where: FanOut, fansOut: true, moment: q.moment}
	case refused && q.refusal != nil && q.refusal.Reason == reasonKeyChange:
		out.refusal = q.refusal // the key would not help
	case why != "" && refused:
		out.refusal = &Refusal{Reason: reasonFunction, Why: why, Hint: reasonUnbound.hint()}
	default:
		out.fansOut, out.moment = ok, ok && q.moment
	}
	return out
}

// moves finds out whether an UPDATE may run on several shards and move its rows.
func moves(shapes []*query.Shape, c *query.Command, prove func(anchors, moving bool) *prover) (out routed, ok bool) {
	q := prove(true, true)
	if q.move == nil {
		return out, false
	}
	if ok, _ := q.fansOut(c); !ok {
		return out, false
	}
	p := prove(false, true)
	out = p.routed(shapes)
	if out.where == Refused {
		if out.refusal.Reason != reasonUnbound {
			return out, false
		}
		out = routed{where: FanOut}
		p.settle(p.sql)
	}
	if p.move.each && (out.where != Keyed || !oneValue(out.groups)) {
		// On one server each row is compared with those that are still to be changed.
		if at := slices.IndexFunc(c.Functions, ofEachRow); at >= 0 {
			return routed{where: Refused, refusal: &Refusal{Reason: reasonFunction, Why: "rows of several keys get new ones, and it calls " + c.Functions[at].Name +
				", whose result may be another each time", Hint: "Change the rows of one key at a time."}}, true
		}
		if p.move.several = true; p.move.unknown != "" {
			return routed{where: Refused, refusal: &Refusal{Reason: reasonKeyChange, Why: "rows of several keys get new ones, and " + p.move.unknown +
				" compares them by what is not known", Hint: "Change the rows of one key at a time."}}, true
		}
	}
	out.fansOut, out.moment, out.move = true, q.moment, p.move
	return out, true
}

// oneValue reports whether all groups have one value for each column of their keys.
func oneValue(groups []Group) bool {
	return !slices.ContainsFunc(groups, func(g Group) bool {
		return slices.ContainsFunc(g.columns, func(c []value) bool { return len(c) > 1 || len(c) == 1 && (c[0].array || c[0].source == fromSpan) })
	})
}

// anchor binds the key of the statement's target to that of the row at hand; of an INSERT,
// and of a query, that of a table that rows are taken from.
func (p *prover) anchor(b *block) {
	asked := b.scope.Kind == query.ScopeSelect // and not inserted from
	if b.scope.Kind == query.ScopeInsert {
		if b = b.right; b == nil {
			return
		}
	}
	p.resolve(b)
	for _, n := range b.nodes {
		if n.leaf == nil || n.join != nil || n.leaf.rel == nil || n.leaf.rel.kind != kindSharded || p.anchored != nil {
			continue
		}
		switch target := b.scope.Target; {
		case target != nil && n.leaf.ref != target,
			target == nil && !n.preserved(),
			target == nil && asked && !p.divides(b, n.leaf, true),
			target == nil && !asked && !p.passesKey(b, n.leaf):
			continue
		}
		p.anchorTo(b, n.leaf)
	}
	if p.anchored == nil && asked {
		p.anchorInside(b, true)
	}
}

// anchorTo binds the key of a table.
func (p *prover) anchorTo(b *block, l *leaf) {
	p.anchored = l.rel
	for i, k := range l.rel.key {
		v := value{source: fromRow, index: int32(i), as: l.rel.columns[k].key, typmod: -1}
		b.where = append([]fact{{a: col{l, k}, values: []value{v}, strict: true}}, b.where...)
	}
}

// anchorInside anchors a table in a view, or another query in FROM, when what is around it only
// takes its rows one by one.
func (p *prover) anchorInside(b *block, top bool) {
	if b.scope.Kind != query.ScopeSelect || !p.divides(b, nil, top) {
		return
	}
	for _, n := range b.nodes {
		if n.leaf == nil || n.join != nil || n.leaf.inner == nil || n.leaf.inner.lateral || !n.preserved() || p.anchored != nil {
			continue
		}
		inner := n.leaf.inner
		p.resolve(inner)
		for _, m := range inner.nodes {
			if p.anchored == nil && m.leaf != nil && m.join == nil && m.leaf.rel != nil && m.leaf.rel.kind == kindSharded && m.preserved() && p.divides(inner, m.leaf, false) {
				p.anchorTo(inner, m.leaf)
			}
		}
		if p.anchored == nil {
			p.anchorInside(inner, false)
		}
	}
}

// preserved reports whether no join extends the rows of an item of FROM by NULLs: such a row
// has no key, and each shard would make it.
func (n *node) preserved() bool { return preservedBelow(n, nil) }

// passesKey reports whether what a query gives of the rows of one key of a table is the
// same whether it reads the others or not.
func (p *prover) passesKey(b *block, l *leaf) bool {
	return !slices.ContainsFunc(l.rel.key, func(k int) bool { return !p.passes(b, col{l, k}) })
}

// fansOut reports whether each shard may run the command on the rows that it has; why
// says what stands against it, "" when that is nothing in particular. The proof was done with
// the target's key anchored.
func (p *prover) fansOut(c *query.Command) (ok bool, why string) {
	if where, _ := p.decide(); where != Keyed || p.anchored == nil || len(p.anchored.key) == 0 {
		return false, ""
	}
	for i := range p.groups {
		g := &p.groups[i]
		if !g.placement.colocated(p.anchored.placement) || len(g.columns) != len(p.anchored.key) {
			return false, ""
		}
		for at, column := range g.columns {
			if slices.ContainsFunc(column, func(v value) bool { return v.source != fromRow || int(v.index) != at }) {
				return false, ""
			}
		}
	}
	if why := p.mayDiffer(c, p.plainRows); why != "" {
		return false, "it would run on every shard, and " + why
	}
	if word := query.SystemColumn(p.sql[c.Start:c.End]); word != "" {
		return false, "it would run on every shard, and rows of several may have the same " + word
	}
	return true, ""
}

// colocated reports whether rows with equal keys are on the same shard, whatever the map.
func (p *Placement) colocated(o *Placement) bool {
	if p == o {
		return true
	}
	if len(p.types) == 0 || len(o.types) == 0 { // all rows of a schema are in one place
		return len(p.types) == len(o.types) && p.fixed == o.fixed && (p.fixed != "" || p.schema == o.schema)
	}
	return p.list == nil && o.list == nil && p.ranges == nil && o.ranges == nil &&
		slices.EqualFunc(p.types, o.types, shardmap.KeyType.Colocates)
}

// plainRows reports whether all that a command computes is computed for each row: there
// is no query inside that may be computed once.
func plainRows(s *query.Scope) bool {
	if s.Insert != nil && s.Insert.Source != nil && !plainRows(s.Insert.Source) {
		return false
	}
	return len(s.With) == 0 && len(s.Sublinks) == 0 && !slices.ContainsFunc(s.From, func(r *query.Reference) bool { return r.Kind != query.ReferenceTable })
}

// ofEachRow reports whether a function of PostgreSQL's own gives another value for each
// row anyhow.
func ofEachRow(f query.Name) bool {
	switch f.Name {
	case "random", "gen_random_uuid", "clock_timestamp", "timeofday":
		return f.Schema == "" || f.Schema == "pg_catalog"
	}
	return false
}

// ofSettings reports whether the result of a function of PostgreSQL's own depends on
// nothing but its arguments and settings of the session, which are the same on every shard.
func ofSettings(f query.Name) bool {
	switch f.Name {
	case "to_char", "to_date", "to_timestamp", "to_number", "date_trunc", "date_part", "extract", "timezone", "make_timestamptz",
		"concat", "concat_ws", "format", "quote_literal", "quote_nullable", "array_to_string", "string_to_array",
		"to_json", "to_jsonb", "row_to_json", "array_to_json", "json_build_object", "json_build_array",
		"jsonb_build_object", "jsonb_build_array", "current_setting":
		return f.Schema == "" || f.Schema == "pg_catalog"
	}
	return false
}

// FansOut reports whether the plan's statement may run on several shards, each on the
// rows that it has: on all of them if Where is FanOut, or else on those of its keys.
func (p *Plan) FansOut() bool { return p.fansOut }

// Shards returns the shards of a plan that fans out, in order.
func (p *Plan) Shards(o *Owners, v *Values) ([]int, error) {
	if p.Where == FanOut {
		return slices.Clone(o.all), nil
	}
	tr := &gather{}
	l := locator{owners: o, values: v, shard: AnyShard, all: tr}
	for i := range p.groups {
		if err := l.group(&p.groups[i]); err != nil {
			return nil, err
		}
	}
	slices.Sort(tr.shards)
	return tr.shards, nil
}

// gather takes all shards that a locator finds.
type gather struct{ shards []int }

func (g *gather) add(shard int) {
	if !slices.Contains(g.shards, shard) {
		g.shards = append(g.shards, shard)
	}
}

// OnSeveral reports whether a statement was refused because its keys lie on several shards.
func OnSeveral(err error) bool {
	e := new(wire.Error)
	return errors.As(err, &e) && ReasonOf(e) == reasonSeveral
}

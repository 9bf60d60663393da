package router

import (
	"slices"
	"strings"

	"shardproxy/catalog"
	"shardproxy/query"
)

// An UPDATE or DELETE that looks at rows of other shards than those it writes: what it reads is
// gathered as a query's tables are, and the text runs with that on every shard that has rows of its
// target. The target stays the table itself.

// Written says where the text runs that writes.
type Written struct {
	// Home is set when that is the home shard, Everywhere when all have the same rows.
	Home, Everywhere bool
	// Lock is what keeps others from writing rows of the target.
	Lock string
}

// written takes an UPDATE or DELETE apart.
func (g *gatherer) written(a *alone) (*Scatter, *Refusal) {
	s := a.shape.Scope
	if refusal := g.mayCall(&a.st.Commands[0]); refusal != nil {
		return nil, refusal
	}
	p := &prover{relations: g.rel, withs: map[*query.CTE]*with{}, params: map[int32]paramUse{}, sql: g.sql}
	b := p.build(s, nil, &text{literals: a.literals})
	if p.refusal != nil {
		return nil, p.refusal
	}
	target := slices.IndexFunc(b.nodes, func(n *node) bool { return n.leaf != nil && n.leaf.ref == s.Target })
	if target < 0 || s.CurrentOf != "" {
		return nil, &Refusal{Reason: reasonUnknown, Why: "its target is not known"}
	}
	name := s.Target.NameSpan
	if !name.Located() || int(name.End) > len(g.sql) {
		return nil, &Refusal{Reason: reasonUnknown, Why: "where its target stands in the text is not certain"}
	}
	only := ""
	if s.Target.Only {
		only = "ONLY "
	}
	w := &Written{Lock: "LOCK TABLE " + only + g.sql[name.Start:name.End] + " IN SHARE ROW EXCLUSIVE MODE"}
	switch rel := b.nodes[target].leaf.rel; {
	case rel == nil:
		return nil, &Refusal{Reason: reasonUnknown, Why: "its target is not known"}
	case rel.kind == kindSingle:
		if t, res := g.rel.catalog.Table(s.Target.Schema, s.Target.Name, g.rel.path); res != catalog.Resolved || t == nil {
			return nil, &Refusal{Reason: reasonUnknown, Why: "its target is not known"}
		}
		w.Home = true
	case rel.kind == kindReference:
		if w.Everywhere = true; s.Kind == query.ScopeUpdate && len(s.From) > 0 {
			return nil, &Refusal{Reason: reasonReference, Why: rel.String() + " is on every shard, and UPDATE ... FROM may take another row on each shard"}
		}
	case rel.kind != kindSharded:
		return nil, &Refusal{Reason: reasonView, Why: "rows of " + rel.String() + " are written, and others are read on several shards"}
	}
	k, refusal := g.claiming(b)
	if refusal != nil {
		return nil, refusal
	}
	var claim *block
	if k != nil {
		claim = k.block
	}
	if refusal := insideForbidden(s, claim); refusal != nil {
		return nil, refusal
	}
	if !w.Home && picksInside(b, claim) {
		return nil, &Refusal{Reason: reasonUnbound, Why: "a query in it takes some rows of several, and each shard may take others"}
	}
	for _, f := range a.st.Commands[0].Functions {
		if !w.Home && ofOrder(f) {
			return nil, &Refusal{Reason: reasonFunction, Why: "it calls " + f.Name + ", which gives rows in an order that may differ from shard to shard"}
		}
	}
	g.o.NoGroups = true
	g.out = &Scatter{Write: w, Why: "rows of other shards are needed for what it writes"}
	if k != nil {
		if refusal := g.claimedFor(b, b.nodes[target], k); refusal != nil {
			return nil, refusal
		}
	}
	out, refusal := g.takenApart(a, b)
	if refusal != nil || out.Write != w {
		return out, refusal // a view was written out, and the text begun anew
	}
	if k != nil && len(out.Inputs) > 1 {
		return nil, &Refusal{Reason: reasonCommand, Why: "a query inside locks rows, and rows of other tables are read besides",
			Hint: "Lock the rows in a statement of their own, and write them by their keys."}
	}
	if refusal = g.writes(out); refusal == nil && g.ctx.HiddenSlots > 0 {
		refusal = g.guardTarget(b, b.nodes[target])
	}
	return out, refusal
}

// insideForbidden is forbidden for what is inside a command that writes, but for the locks of one query.
func insideForbidden(s *query.Scope, claim *block) *Refusal {
	inside := *s
	inside.Kind = query.ScopeSelect
	if claim == nil {
		return forbidden(&inside)
	}
	return forbiddenBut(&inside, claim.scope)
}

// picksInside reports whether a query inside, but for one that runs once, takes some rows of those that it reads.
func picksInside(b, once *block) bool {
	if b == nil || b == once {
		return false
	}
	if sel := b.scope.Select; sel != nil && (sel.Limited() || sel.Windows || len(sel.DistinctOn) > 0) {
		return true
	}
	return slices.ContainsFunc(b.nodes, func(n *node) bool {
		return n.leaf != nil && n.join == nil && n.leaf.rel == nil && picksInside(n.leaf.inner, once)
	}) ||
		slices.ContainsFunc(b.links, func(l sublink) bool {
			return l.block != once && (l.link.Kind == query.SublinkArray || picksInside(l.block, once))
		}) ||
		slices.ContainsFunc(b.with, func(w *with) bool { return picksInside(w.block, once) }) || picksInside(b.left, once) || picksInside(b.right, once)
}

// writes proves that the text that is left may run where the rows of its target are.
func (g *gatherer) writes(s *Scatter) *Refusal {
	var proof strings.Builder
	for _, p := range s.Final {
		switch p.Kind {
		case PieceText:
			proof.WriteString(p.Text)
		case PieceRows:
			proof.WriteString("SELECT " + nullsFor(&s.Inputs[p.Input]))
		case PieceRecords:
			proof.WriteString("(SELECT " + nullsFor(&s.Inputs[p.Input]) + ")")
		default:
			return &Refusal{Reason: reasonUnknown, Why: "what is left of it is not understood"}
		}
	}
	var n query.Normal
	sql := proof.String()
	st, shapes := n.AnalyzeShapes(sql, g.opts)
	if st.Opaque || len(shapes) != 1 || shapes[0].Kind != query.ShapeQuery {
		return &Refusal{Reason: reasonUnknown, Why: "what is left of it is not understood"}
	}
	found := route(g.rel, st, shapes, sql, n.Literals)
	switch {
	case found.refusal != nil:
		return found.refusal
	case found.where == FanOut && found.fansOut && found.move == nil, found.where == Keyed && found.move == nil && (found.fansOut || oneValue(found.groups)):
		if !s.Write.Home && !s.Write.Everywhere {
			return nil
		}
	case found.where == All && s.Write.Everywhere, found.where == Home && s.Write.Home:
		return nil
	}
	if found.move != nil {
		return &Refusal{Reason: reasonKeyChange, Why: "rows get another key, and rows of other shards are read for that", Hint: "Read them first, and give the keys as values."}
	}
	return &Refusal{Reason: reasonUnbound, Why: "where its rows are is not certain"}
}

// nullsFor is a target list that stands for that of an input.
func nullsFor(in *Input) string {
	if len(in.Columns) == 0 {
		return "NULL"
	}
	list := make([]string, len(in.Columns))
	for i, c := range in.Columns {
		list[i] = "NULL AS " + quoteName(c.Name)
	}
	return strings.Join(list, ", ")
}

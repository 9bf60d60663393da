package router

import (
	"slices"

	"shardproxy/query"
)

// prover finds out where the rows lie that one command needs.
type prover struct {
	relations relations
	withs     map[*query.CTE]*with
	params    map[int32]paramUse
	deep      int
	typing    int // depth of keyOf
	// lateral and seen are those of the next block.
	lateral bool
	seen    int
	groups  []Group
	uses    [kindUnknown + 1]string // a relation of each kind that is used
	written [kindUnknown + 1]string
	refusal *Refusal
	// all is what a command defines, or changes, on every shard; ends is set when one
	// beside it is about the session.
	all string
	// allReference is set when a reference table is among it.
	allReference bool
	ends         bool
	newViews     string
	// split are the rows of an INSERT that is the whole command, each with its group.
	// draw is why it cannot run otherwise; "" when it can.
	split *split
	draw  string
	// sql is the text of all commands. each is set for a command that runs on one shard
	// after the other, in no transaction; journalled, for one whose course is noted.
	sql              string
	each, journalled bool
	// calls are where the functions of the command at hand are called.
	calls routedCalls
	// copies is set for a COPY FROM STDIN that is cut into rows.
	copies *CopyIn
	// anchors is set to prove that a command fans out; anchored is then its target.
	anchors   bool
	anchored  *relation
	plainRows bool
	// merges is set when the rows that shards give are put in order, and cut off, by others.
	merges bool
	// moving is set to prove that an UPDATE is right but for rows that it moves; move is then
	// where to.
	moving bool
	move   *move
	// kept says why rows whose key changes cannot be moved.
	kept string
	// moment is set when what would run on several shards has what stands for the time of
	// the transaction. unsteadyView says why a view in it may differ.
	moment       bool
	ofStatement  bool // it has the time of the statement
	unsteadyView string
	// exact is set when the proof looked at literals; drawsThere when rows go into a table that its schema places.
	exact, drawsThere bool
	// fills is set for a definition that fills columns with the time of the transaction.
	fills *filling
	// picks is the reference table of which a query inside takes some rows.
	picks string
	// temporary is set when the command makes a temporary table.
	temporary bool
	// locks is set when rows are locked against other lockers.
	locks bool
}

// refuse notes why the command cannot run; the first reason counts.
func (p *prover) refuse(reason Reason, why string) {
	if p.refusal == nil {
		p.refusal = &Refusal{Reason: reason, Why: why}
	}
}

// command proves a command that has a scope.
func (p *prover) command(s *query.Scope, t *text) {
	b := p.build(s, nil, t)
	if p.anchors {
		p.plainRows = plainRows(s)
		p.anchor(b)
	}
	p.block(b, nil, false)
	if p.split != nil && (len(s.With) > 0 || len(b.links) > 0 || b.right != nil && len(b.right.links) > 0) {
		p.split = nil // what else it reads may be on one of the shards only
	}
}

// block proves that every sharded table in a block, and inside it, is bound to
// values of its key. given is what holds around it. Of a block that gives no row
// nothing is needed.
func (p *prover) block(b *block, given []fact, nothing bool) {
	if p.refusal != nil {
		return
	}
	p.resolve(b)
	if name := picksFrom(b); name != "" {
		p.picks = name
	}
	s := b.scope
	nothing = nothing || b.never && (s.Kind == query.ScopeSelect || s.Kind == query.ScopeUpdate || s.Kind == query.ScopeDelete)
	if s.CurrentOf != "" {
		p.refuse(reasonUnknown, "WHERE CURRENT OF: where the cursor stands is not known")
	}
	if s.Select != nil && slices.ContainsFunc(s.Select.Locks, func(l query.Lock) bool { return l.Strength == "update" || l.Strength == "no key update" }) {
		p.locks = true
	}
	if s.Select != nil && s.Select.Into != nil {
		p.uses[kindSystem] = "the new table " + s.Select.Into.Name
		if r := p.relations.find(s.Select.Into.Schema, s.Select.Into.Name); r != nil && !p.temporary && (r.declared || r.kind == kindSharded || r.kind == kindReference) {
			p.refuse(reasonCommand, "the new table "+r.String()+" would be on several shards")
		}
	}
	if s.Kind == query.ScopeSet {
		for _, side := range []*block{b.left, b.right} {
			p.block(side, slices.Concat(given, p.relink(given, b, side)), nothing)
		}
	}
	for _, n := range b.nodes {
		if n.leaf != nil && n.join == nil {
			p.leaf(b, n.leaf, given, nothing)
		}
	}
	for _, l := range b.links {
		p.sublink(b, l, given, nothing)
	}
	p.writes(b, given, nothing)
	for _, w := range slices.Backward(b.with) {
		p.with(w, nothing)
	}
}

// leaf proves one item of FROM.
func (p *prover) leaf(b *block, l *leaf, given []fact, nothing bool) {
	switch {
	case l.inner != nil:
		facts := p.holding(b, l, given)
		p.block(l.inner, slices.Concat(facts, p.links(l, l.inner)), nothing)
	case l.with != nil:
		p.use(b, l, given)
	case l.rel != nil:
		p.table(b, l, given, nothing)
	}
}

// table proves a use of a table.
func (p *prover) table(b *block, l *leaf, given []fact, nothing bool) {
	p.note(l)
	if l.rel.kind != kindSharded || nothing {
		return
	}
	if len(l.rel.key) == 0 { // its schema says where it is
		p.add(Group{table: l.rel.String(), placement: l.rel.placement})
		return
	}
	g, ok := p.group(l, newClasses(p.holding(b, l, given)))
	if !ok {
		p.refuse(reasonUnbound, "the rows of "+l.rel.String()+" may lie on any shard")
		return
	}
	p.add(g)
}

// note says that a table is used.
func (p *prover) note(l *leaf) {
	r := l.rel
	p.uses[r.kind] = r.String()
	if r.kind == kindUnknown {
		p.refuse(reasonUnknown, r.String()+" "+r.why)
	}
	if l.ref.Written {
		p.written[r.kind] = r.String()
		if r.writes != "" {
			if p.refusal == nil {
				p.refusal = &Refusal{Reason: reasonConstraint, Why: "rows of " + r.String() + " cannot be written: " + r.writes, Hint: r.writable}
			}
		}
		if r.kind == kindView {
			p.refuse(reasonView, "rows are written through the view "+r.String())
		}
	}
}

// group finds the values that a table's key is bound to.
func (p *prover) group(l *leaf, c *classes) (Group, bool) {
	g := Group{table: l.rel.String(), placement: l.rel.placement}
	for _, k := range l.rel.key {
		values := c.values(col{l, k})
		if l.rel.placement.ranges == nil {
			if hasSpan(values) {
				values = nil
			}
			values = withoutSpans(values)
		}
		if values == nil {
			return g, false
		}
		g.columns = append(g.columns, values)
	}
	return g, len(g.columns) > 0
}

// add adds a group unless there is one that says the same.
func (p *prover) add(g Group) {
	if !slices.ContainsFunc(p.groups, func(o Group) bool { return g.same(&o) }) {
		p.groups = append(p.groups, g)
	}
}

// links ties the columns of an item of FROM to what they are inside, as far as a
// condition on them may be applied there.
func (p *prover) links(l *leaf, b *block) (out []fact) {
	if b.scope.Kind == query.ScopeSet {
		return nil // see relink
	}
	for i, o := range b.outputs {
		if o.col.leaf != nil && p.passes(b, o.col) {
			// Not strict: a row that an outer join has extended is given out too.
			out = append(out, fact{a: col{l, i}, b: o.col})
		}
	}
	return out
}

// relink turns what is given of the leaf that stands for a set operation into what
// holds in one of its branches.
func (p *prover) relink(given []fact, set, side *block) (out []fact) {
	if set.leaf == nil || set.scope.Select.Limited() {
		return nil
	}
	if side.scope.Kind == query.ScopeSet {
		side.leaf = set.leaf
		return nil
	}
	return p.links(set.leaf, side)
}

// passes reports whether a condition on an output may be applied to the rows that
// the output is made from: rows that do not meet it make no others.
func (p *prover) passes(b *block, c col) bool {
	s := b.scope
	if s.Kind != query.ScopeSelect || s.Target != nil {
		return false
	}
	for i := range s.Outputs {
		if e := s.Outputs[i].Value.Expr(); e != nil {
			for _, f := range e.Calls {
				if p.relations.returnsSet(f.Name) {
					return false
				}
			}
		}
	}
	sel := s.Select
	switch {
	case sel == nil:
		return true
	case sel.Limited() || sel.Windows || sel.GroupingSets:
		return false
	case len(sel.DistinctOn) > 0: // whose names may be those of outputs
		return false
	case sel.Grouped && !b.holds(sel.GroupBy, c):
		return false
	}
	return true
}

// holds reports whether a column is one of a list of expressions.
func (b *block) holds(list []query.Value, c col) bool {
	return slices.ContainsFunc(list, func(v query.Value) bool {
		if v.Kind != query.ValueColumn || v.Column == nil {
			return false
		}
		found, ok := b.find(v.Column)
		return ok && found == c
	})
}

// sublink proves a subquery in an expression.
func (p *prover) sublink(b *block, l sublink, given []fact, nothing bool) {
	if l.link.Kind == query.SublinkArray { // in the order in which its rows come
		l.block.each(func(inside *leaf) {
			if inside.rel.kind == kindReference {
				p.picks = inside.rel.String()
			}
		})
	}
	var facts []fact
	switch l.link.Clause {
	case query.ClauseTargets, query.ClauseDistinct, query.ClauseWhere, query.ClauseGroup, query.ClauseHaving,
		query.ClauseWindow, query.ClauseOrder, query.ClauseSet:
		if b.scope.Kind != query.ScopeMerge {
			facts = p.holding(b, nil, given)
		}
	}
	if l.positive() && b.scope.Kind != query.ScopeMerge && len(l.block.outputs) == len(l.link.Test) && l.block.scope.Kind == query.ScopeSelect {
		for i := range l.link.Test {
			c, ok := l.tests(b, i)
			if o := l.block.outputs[i].col; ok && o.leaf != nil && p.passes(l.block, o) && p.colocate(c, o) {
				facts = append(slices.Clip(facts), fact{a: c, b: o, strict: true})
			}
		}
	}
	// In a block that gives no row no expression is computed, but for those of an
	// aggregate, which gives one row of none.
	p.block(l.block, facts, false)
}

// use notes what one use of a WITH query needs of it.
func (p *prover) use(b *block, l *leaf, given []fact) {
	c := newClasses(p.holding(b, l, given))
	needs := make([][]value, len(l.names))
	for i := range needs {
		needs[i] = c.values(col{l, i})
	}
	l.with.uses = append(l.with.uses, needs)
}

// with proves a WITH query. All that its uses need is needed.
func (p *prover) with(w *with, nothing bool) {
	if w.block == nil {
		return
	}
	var facts []fact
	if !w.cte.Recursive && !w.cte.Writes && w.block.scope.Kind == query.ScopeSelect && len(w.uses) == w.cte.Uses {
		for i, o := range w.block.outputs {
			if o.col.leaf == nil || !p.passes(w.block, o.col) {
				continue
			}
			if values, ok := w.needs(i); ok {
				facts = append(facts, fact{a: o.col, values: values, strict: true})
			}
		}
	}
	// One that is never used is not run unless it writes, and might be.
	p.block(w.block, facts, nothing && !w.cte.Writes)
}

// needs returns the values that the uses need in one place.
func (w *with) needs(i int) (out []value, ok bool) {
	for _, u := range w.uses {
		if i >= len(u) || u[i] == nil {
			return nil, false
		}
		out = append(out, u[i]...)
	}
	return out, len(w.uses) > 0
}

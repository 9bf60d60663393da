package router

import (
	"slices"
	"strings"

	"shardproxy/catalog"
	"shardproxy/query"
	"shardproxy/shardmap"
	"shardproxy/wire"
)

// While slots move, a shard may hold rows that are not its own. Statements that run on several shards leave them out: every
// sharded table in them gets a condition that reads, in the statement's own snapshot, which slots the shard
// hides. Where the rows of a table are all seen, the condition joins those of WHERE, and the table stays what it is: its
// row type, its system columns, what its primary key determines. Elsewhere, within outer joins, a query takes the table's place.

// hiddenBits are the bits of the slots that a shard hides. Without its row there are none, and get_bit fails.
const hiddenBits = "COALESCE((SELECT h.slots FROM shardproxy.hidden h), B'')"

// Guard returns a text, which runs on several shards, as one that leaves out the rows that a shard hides. The
// error is a *wire.Error, for a text in which that cannot be done.
func (r *Router) Guard(sql string, ctx Context) (string, error) {
	c := r.opts.Catalog()
	if c == nil || !c.HasTables() {
		return "", (&Refusal{Reason: reasonLoading, Why: "the catalog is not loaded yet"}).Error()
	}
	g := &gatherer{r: r, ctx: ctx, rel: newSchema(r.boundTo(c), ctx), opts: r.options([]byte(sql), ctx)}
	out, refusal := g.guard(sql)
	if refusal != nil {
		return "", refusal.Error()
	}
	return out, nil
}

// unguarded is a refusal of what runs on several shards while they may hold rows that are not theirs.
func unguarded(why string) *Refusal {
	return &Refusal{Reason: reasonMoving, Why: why + ", and shards hold rows that are not theirs while slots move", Hint: "Try again when the move has ended."}
}

// KeyMoves is the refusal of an UPDATE that would take rows to another shard by their key while shards hold rows that are not
// theirs: which of those of the new key came by it could not be told.
func KeyMoves() *wire.Error {
	return unguarded("rows would change their shard by an UPDATE of the key").Error()
}

// guards are the places of one text where conditions go.
type guards struct {
	g     *gatherer
	sql   string
	edits []edit
	// conjuncts are the conditions that join a WHERE, by the scope that it is of, in their order.
	conjuncts map[*query.Scope][]string
	scopes    []*query.Scope
	refusal   *Refusal
}

// guard is Guard for what the text of one statement, a query or a COPY TO, reads.
func (g *gatherer) guard(sql string) (string, *Refusal) {
	edits, refusal := g.guardEdits(sql)
	if refusal != nil || len(edits) == 0 {
		return sql, refusal
	}
	var out strings.Builder
	at := 0
	for _, e := range sortedEdits(edits) {
		if e.at.Start < at {
			return "", unguarded("where its tables stand in the text is not certain")
		}
		out.WriteString(sql[at:e.at.Start])
		for _, p := range e.pieces {
			out.WriteString(p.Text)
		}
		at = e.at.End
	}
	out.WriteString(sql[at:])
	var n query.Normal
	if st, shapes := n.AnalyzeShapes(out.String(), g.opts); st.Opaque || len(shapes) != 1 || len(st.Commands) != 1 {
		return "", unguarded("the text cannot be given a condition")
	}
	return out.String(), nil
}

// sortedEdits puts edits in the order of their places: at one place, what is put in comes first.
func sortedEdits(edits []edit) []edit {
	slices.SortStableFunc(edits, func(x, y edit) int {
		if x.at.Start != y.at.Start {
			return x.at.Start - y.at.Start
		}
		return x.at.End - y.at.End
	})
	return edits
}

// guardEdits are the edits that guard makes.
func (g *gatherer) guardEdits(sql string) ([]edit, *Refusal) {
	var n query.Normal
	st, shapes := n.AnalyzeShapes(sql, g.opts)
	if st.Opaque || len(shapes) != 1 {
		return nil, unguarded("the text is not understood")
	}
	gs := &guards{g: g, sql: sql, conjuncts: map[*query.Scope][]string{}}
	scope := shapes[0].Scope
	switch shapes[0].Kind {
	case query.ShapeQuery:
	case query.ShapeCopy:
		if c := shapes[0].Copy; c.Table != nil {
			gs.copied(c)
			return gs.edits, gs.refusal
		}
		scope = shapes[0].Copy.Query
	default:
		return nil, unguarded("it is no query")
	}
	p := &prover{relations: g.rel, withs: map[*query.CTE]*with{}, params: map[int32]paramUse{}, sql: sql}
	gs.block(p.build(scope, nil, &text{literals: n.Literals}))
	if p.refusal != nil {
		return nil, p.refusal
	}
	gs.wheres()
	return gs.edits, gs.refusal
}

// refuse keeps the first refusal.
func (gs *guards) refuse(why string) {
	if gs.refusal == nil {
		gs.refusal = unguarded(why)
	}
}

// block guards what a query reads, and the queries inside it.
func (gs *guards) block(b *block) {
	if b == nil || gs.refusal != nil {
		return
	}
	if b.scope.Kind == query.ScopeMerge {
		gs.refuse("it is a MERGE")
		return
	}
	for _, n := range b.nodes {
		switch {
		case n.leaf == nil || n.join != nil:
		case n.leaf.rel != nil:
			gs.leaf(b, n)
		default:
			gs.block(n.leaf.inner)
		}
	}
	for _, l := range b.links {
		gs.block(l.block)
	}
	for _, w := range b.with {
		gs.block(w.block)
	}
	gs.block(b.left)
	gs.block(b.right)
}

// leaf guards one use of a relation.
func (gs *guards) leaf(b *block, n *node) {
	l := n.leaf
	switch {
	case l.rel.kind == kindView && gs.viewHides(l.rel):
		gs.refuse("it reads the view " + l.rel.String())
		return
	case l.rel.kind != kindSharded || !l.rel.placement.hashed():
		return
	case !l.ref.Span.Located() || !l.ref.NameSpan.Located() || int(l.ref.Span.End) > len(gs.sql) || !l.sure:
		gs.refuse("where its tables stand in the text is not certain")
		return
	case l.ref.Sample != nil:
		gs.refuse("it has a TABLESAMPLE")
		return
	}
	name := gs.sql[l.ref.NameSpan.Start:l.ref.NameSpan.End]
	alias := l.ref.Alias
	if alias == "" {
		alias = l.ref.Name
	}
	if gs.joinsWhere(b, n) {
		if len(gs.conjuncts[b.scope]) == 0 {
			gs.scopes = append(gs.scopes, b.scope)
		}
		gs.conjuncts[b.scope] = append(gs.conjuncts[b.scope], gs.condition(l, quoteName(alias)+".", l.names))
		return
	}
	if b.scope.Target != nil && l.ref == b.scope.Target {
		gs.refuse("where a condition may stand in the text is not certain")
		return
	}
	if gs.wholeRow(b, l, alias) {
		gs.refuse("it names " + name + " as a whole, or more than its columns, within an outer join")
		return
	}
	names := make([]string, len(l.rel.columns))
	for i, c := range l.rel.columns {
		names[i] = c.name
	}
	only := ""
	if l.ref.Only {
		only = "ONLY "
	}
	in := "(SELECT * FROM " + only + name + " WHERE " + gs.condition(l, "", names) + ") AS " + quoteName(alias) + columnList(l.ref.Columns)
	gs.edits = append(gs.edits, edit{query.Place{Start: int(l.ref.Span.Start), End: int(l.ref.Span.End)}, []Piece{{Text: in}}})
}

// hashed reports whether rows of the table lie in slots by their keys.
func (p *Placement) hashed() bool { return p.list == nil && p.ranges == nil && len(p.types) > 0 }

// viewHides reports whether a view reads tables whose rows lie in slots.
func (gs *guards) viewHides(r *relation) (hides bool) {
	if r.query == nil || r.view == nil {
		return true
	}
	p := &prover{relations: gs.g.rel, withs: map[*query.CTE]*with{}, params: map[int32]paramUse{}}
	p.build(r.query, nil, &text{r.view.literals, r.view.sql}).each(func(l *leaf) {
		hides = hides || l.rel.kind == kindUnknown || l.rel.kind == kindSharded && l.rel.placement.hashed()
	})
	return hides
}

// joinsWhere reports whether a condition of a table may stand in the WHERE of its query.
func (gs *guards) joinsWhere(b *block, n *node) bool {
	s := b.scope
	switch s.Kind {
	case query.ScopeSelect, query.ScopeUpdate, query.ScopeDelete:
	default:
		return false
	}
	if !n.preserved() || n.leaf.hidden || s.CurrentOf != "" || len(s.From) == 0 && s.Target == nil {
		return false
	}
	_, ok := gs.wherePlace(s)
	return ok
}

// wherePlace is where a WHERE may be put into a scope that has none.
func (gs *guards) wherePlace(s *query.Scope) (at int, ok bool) {
	if s.Where != nil {
		return 0, s.Where.Span.Located() && int(s.Where.Span.End) <= len(gs.sql)
	}
	last := s.Target
	switch {
	case len(s.From) > 0:
		last = s.From[len(s.From)-1]
	case s.Update != nil:
		at = int(s.Update.SetSpan.End)
		return at, s.Update.SetSpan.Located() && at <= len(gs.sql)
	}
	if !last.Span.Located() || int(last.Span.End) > len(gs.sql) || endsWithTable(strings.TrimRight(gs.sql[:last.Span.Start], " \t\r\n")) {
		return 0, false
	}
	return int(last.Span.End), true
}

// wheres puts the conditions into the text.
func (gs *guards) wheres() {
	insert := func(at int, text string) {
		gs.edits = append(gs.edits, edit{query.Place{Start: at, End: at}, []Piece{{Text: text}}})
	}
	for _, s := range gs.scopes {
		all := strings.Join(gs.conjuncts[s], " AND ")
		if s.Where == nil {
			at, _ := gs.wherePlace(s)
			insert(at, " WHERE "+all+" ")
			continue
		}
		insert(int(s.Where.Span.Start), "(")
		insert(int(s.Where.Span.End), ") AND "+all+" ")
	}
}

// condition leaves out the rows of a table that a shard hides; names are those of the columns behind prefix.
func (gs *guards) condition(l *leaf, prefix string, names []string) string {
	columns := make([]string, len(l.rel.key))
	for i, k := range l.rel.key {
		columns[i] = prefix + quoteName(names[k])
	}
	bit := "pg_catalog.get_bit(" + hiddenBits + ", " + shardmap.SlotSQL(l.rel.placement.types, columns, gs.g.ctx.HiddenSlots) + ")"
	return "COALESCE(" + bit + ", 0) OPERATOR(pg_catalog.=) 0" // a row whose key is NULL is in no slot, and stays where it is
}

// wholeRow reports whether a text may name what a query in the place of a table does not give: the table's row, system
// columns, columns by the table's schema.
func (gs *guards) wholeRow(b *block, l *leaf, alias string) (is bool) {
	if query.SystemColumn(gs.sql) != "" {
		return true
	}
	see := func(c *query.Column) {
		is = is || c.Table == "" && c.Name == alias && !slices.Contains(l.names, alias) || c.Schema != "" && c.Table == alias
	}
	var walk func(b *block)
	walk = func(b *block) {
		if b == nil {
			return
		}
		b.scope.EachColumn(see)
		for _, n := range b.nodes {
			if n.leaf != nil && n.join == nil && n.leaf.rel == nil {
				walk(n.leaf.inner)
			}
		}
		for _, k := range b.links {
			walk(k.block)
		}
		for _, w := range b.with {
			walk(w.block)
		}
		walk(b.left)
		walk(b.right)
	}
	walk(b)
	return is
}

// copied makes a COPY of a table one of a query.
func (gs *guards) copied(c *query.Copy) {
	ref := c.Table
	rel := gs.g.rel.find(ref.Schema, ref.Name)
	if rel == nil || rel.kind != kindSharded || !rel.placement.hashed() {
		return
	}
	t, res := gs.g.rel.catalog.Table(ref.Schema, ref.Name, gs.g.rel.path)
	if res != catalog.Resolved || t == nil || !ref.NameSpan.Located() || int(ref.NameSpan.End) > len(gs.sql) {
		gs.refuse("where its table stands in the text is not certain")
		return
	}
	if t.Kind == catalog.KindPartitioned {
		return // the server says that it cannot be copied
	}
	names := make([]string, len(rel.columns))
	var list []string
	for i, col := range rel.columns {
		names[i] = col.name
		if !c.HasColumns && !col.generated {
			list = append(list, quoteName(col.name))
		}
	}
	for _, name := range c.Columns {
		list = append(list, quoteName(name))
	}
	end := int(ref.NameSpan.End)
	if c.HasColumns {
		closing := strings.IndexByte(gs.sql[end:], ')')
		if closing < 0 || strings.ContainsAny(gs.sql[end:end+closing], `"'-/*`) {
			gs.refuse("where its columns stand in the text is not certain")
			return
		}
		end += closing + 1
	}
	text := "(SELECT " + strings.Join(list, ", ") + " FROM ONLY " + quoteName(rel.schema) + "." + quoteName(rel.name) +
		" WHERE " + gs.condition(&leaf{rel: rel}, "", names) + ")"
	gs.edits = append(gs.edits, edit{query.Place{Start: int(ref.NameSpan.Start), End: end}, []Piece{{Text: text}}})
}

// guardTarget makes what is left of an UPDATE or DELETE leave out hidden rows of its target.
func (g *gatherer) guardTarget(b *block, target *node) *Refusal {
	gs := &guards{g: g, sql: g.sql, conjuncts: map[*query.Scope][]string{}}
	gs.leaf(b, target)
	if gs.wheres(); gs.refusal != nil {
		return gs.refusal
	}
	g.edits = append(g.edits, gs.edits...)
	return g.final()
}

// guardAll guards the texts of a Scatter that run on several shards.
func (g *gatherer) guardAll(s *Scatter) *Refusal {
	if s.Merge != nil && (s.Merge.Plan == nil || s.Merge.Plan.Where != Keyed || s.Merge.Plan.fansOut) {
		before, refusal := g.guard(s.Merge.Before)
		if refusal != nil {
			return refusal
		}
		s.Merge.Before = before
	}
	for i := range s.Inputs {
		if p := s.Inputs[i].Plan; p.Where == Keyed && !p.fansOut {
			continue // it is on the shard of its key: who reads it looks whether that has changed
		}
		text, refusal := g.guard(s.Inputs[i].Text)
		if refusal != nil {
			return refusal
		}
		s.Inputs[i].Text = text
	}
	return nil
}

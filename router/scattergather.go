package router

import (
	"slices"
	"strings"

	"shardproxy/query"
)

// What cannot be merged is gathered: the text stays as it is but for the tables, and the
// queries inside it, that are read on the shards; in their place stand the rows that were read.
// Every table is read there, also those that a server has alone, so that all rows of one
// shard are of one moment.

// maxViews bounds the views that are written out in one text, those inside them counted.
const maxViews = 32

// gathered takes the text apart.
func (g *gatherer) gathered(a *alone) (*Scatter, *Refusal) {
	p := &prover{relations: g.rel, withs: map[*query.CTE]*with{}, params: map[int32]paramUse{}, sql: g.sql}
	b := p.build(a.shape.Scope, nil, &text{literals: a.literals})
	if p.refusal != nil {
		return nil, p.refusal
	}
	return g.takenApart(a, b)
}

// takenApart puts what is gathered in the places of what is read.
func (g *gatherer) takenApart(a *alone, b *block) (*Scatter, *Refusal) {
	if word := query.SystemColumn(g.sql); word != "" {
		return nil, &Refusal{Reason: reasonUnbound, Why: "rows of several shards meet in it, and rows of several may have the same " + word}
	}
	g.mentions = map[string]bool{}
	mention(a.shape.Scope, g.mentions)
	if sql, view, alias, ok := g.viewWritten(b); view != "" {
		if g.views++; !ok || g.views > maxViews {
			return nil, &Refusal{Reason: reasonView, Why: "the query of the view " + view + " cannot be put in its place"}
		}
		if refusal := g.untypedRow(a, alias); refusal != nil {
			return nil, refusal
		}
		g.out, g.edits = nil, nil
		return g.scatter(sql)
	}
	g.plain, g.runs = g.plainCollations(b), running(b)
	g.reducing = reducing{tables: map[*node]int{}, units: map[*block]int{}, narrow: map[int]bool{}}
	if refusal := g.parts(b); refusal != nil {
		return nil, refusal
	}
	if refusal := g.final(); refusal != nil {
		return nil, refusal
	}
	g.reduce()
	g.out.Views = g.inlined
	for i := range g.out.Inputs {
		g.out.Home = g.out.Home || g.out.Inputs[i].Plan.Where == Home
	}
	return g.out, nil
}

// final makes the text that is left of its edits.
func (g *gatherer) final() *Refusal {
	g.out.Final = nil
	at := 0
	for _, e := range sortedEdits(g.edits) {
		if e.at.Start < at || !e.at.There() {
			return &Refusal{Reason: reasonUnknown, Why: "where its tables stand in the text is not certain"}
		}
		g.out.Final = append(append(g.out.Final, Piece{Text: g.sql[at:e.at.Start]}), e.pieces...)
		at = e.at.End
	}
	g.out.Final = append(g.out.Final, Piece{Text: g.sql[at:]})
	return nil
}

// mention notes the names of columns in a scope and inside it.
func mention(s *query.Scope, names map[string]bool) {
	if s == nil {
		return
	}
	s.EachColumn(func(c *query.Column) {
		if names[c.Name] = true; c.Star {
			names[starOf(c.Table)], names[rowOf(c.Table)] = true, true
		}
	})
	for i := range s.Outputs {
		if q := s.Outputs[i].Qualifier; s.Outputs[i].Star && len(q) > 0 {
			names[starOf(q[len(q)-1])] = true
		}
	}
	var items func(r *query.Reference)
	items = func(r *query.Reference) {
		mention(r.Scope, names)
		if r.Join != nil {
			for _, name := range r.Join.Using {
				names[name] = true
			}
			items(r.Join.Left)
			items(r.Join.Right)
		}
	}
	for _, r := range s.From {
		items(r)
	}
	for _, c := range s.With {
		mention(c.Scope, names)
	}
	for _, l := range s.Sublinks {
		mention(l.Scope, names)
	}
	if s.Set != nil {
		mention(s.Set.Left, names)
		mention(s.Set.Right, names)
	}
}

// viewWritten writes the query of the first view in the text out in its place. alias is what it is called there.
func (g *gatherer) viewWritten(b *block) (sql, view, alias string, ok bool) {
	b.each(func(l *leaf) {
		if view != "" || l.rel.kind != kindView || l.ref.Written || g.givesParts(l) {
			return
		}
		view = l.rel.String()
		at := l.ref.Span
		alias = l.ref.Alias
		if ok = at.Located() && l.rel.view.unsteady == "" && g.onClientText(b, l); !ok {
			return
		}
		if alias == "" {
			alias = l.ref.Name
		}
		inner := strings.TrimRight(strings.TrimSpace(string(l.rel.view.sql)), ";")
		g.inlined = append(g.inlined, quoteName(l.rel.schema)+"."+quoteName(l.rel.name))
		sql = g.sql[:at.Start] + "(" + inner + ") AS " + quoteName(alias) + columnList(l.ref.Columns) + g.sql[at.End:]
	})
	return sql, view, alias, ok
}

// givesParts reports whether the shards' rows of a view are parts of it: it is read as a table
// is, with its owner's rights. A view cannot be told to leave out what a shard hides.
func (g *gatherer) givesParts(l *leaf) bool {
	if g.ctx.HiddenSlots > 0 || l.rel.columns == nil || !l.ref.NameSpan.Located() || int(l.ref.NameSpan.End) > len(g.sql) {
		return false
	}
	a, ok := g.prove("SELECT * FROM "+g.sql[l.ref.NameSpan.Start:l.ref.NameSpan.End], false)
	return ok && a.divides()
}

// onClientText reports whether a leaf stands in the text itself, and not in a view.
func (g *gatherer) onClientText(b *block, l *leaf) bool {
	return l.ref.Span.Located() && int(l.ref.Span.End) <= len(g.sql) &&
		strings.Contains(g.sql[l.ref.Span.Start:l.ref.Span.End], g.sql[l.ref.NameSpan.Start:l.ref.NameSpan.End])
}

func columnList(names []string) string {
	if len(names) == 0 {
		return ""
	}
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quoteName(n)
	}
	return "(" + strings.Join(quoted, ", ") + ")"
}

func quoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// scope gathers what a query inside the text needs.
func (g *gatherer) scope(b *block) *Refusal {
	if b == nil || b == g.claim || !reads(b) || g.unit(b) {
		return nil
	}
	return g.parts(b)
}

// parts gathers the tables of a query, and what the queries inside it need.
func (g *gatherer) parts(b *block) *Refusal {
	g.reducing.blocks = append(g.reducing.blocks, b)
	for _, n := range b.nodes {
		if n.leaf == nil || n.join != nil || b.scope.Target != nil && n.leaf.ref == b.scope.Target {
			continue
		}
		var refusal *Refusal
		switch l := n.leaf; {
		case l.inner != nil && l.rel == nil:
			refusal = g.scope(l.inner)
		case l.rel != nil:
			refusal = g.table(b, n)
		}
		if refusal != nil {
			return refusal
		}
	}
	for _, l := range b.links {
		if refusal := g.scope(l.block); refusal != nil {
			return refusal
		}
	}
	for _, w := range b.with {
		take := g.scope
		if !g.runs[w] {
			if g.out.Write == nil {
				g.leaves(w)
				continue
			}
			take = g.parts // what is left is proven once more
		}
		if refusal := take(w.block); refusal != nil {
			return refusal
		}
	}
	for _, side := range []*block{b.left, b.right} {
		take := g.scope
		if side != nil && g.untyped(side.scope) {
			take = g.parts // the other side gives its outputs their types
		}
		if side == nil {
			continue
		}
		if refusal := take(side); refusal != nil {
			return refusal
		}
	}
	return nil
}

// untyped reports whether an output of a query is a string or NULL without a type.
func (g *gatherer) untyped(s *query.Scope) bool {
	return slices.ContainsFunc(s.Outputs, func(o query.Output) bool {
		v := &o.Value
		if len(v.Casts()) > 0 || v.Kind != query.ValueLiteral && v.Kind != query.ValueNull {
			return false
		}
		return v.Kind == query.ValueNull || !v.Span.Located() || !strings.ContainsAny(g.sql[v.Span.Start:v.Span.Start+1], "0123456789.-+")
	})
}

// reads reports whether a query reads tables.
func reads(b *block) (any bool) {
	b.each(func(l *leaf) { any = any || l.rel.kind != kindSystem })
	return any
}

// unit gathers what a whole query inside the text gives, when its shards give it in parts
// and it sees nothing of what is around it.
func (g *gatherer) unit(b *block) bool {
	s := b.scope
	if !g.plain || !s.Span.Located() || s.Kind != query.ScopeSelect || len(s.Outputs) == 0 || s.Select != nil && len(s.Select.OrderBy) > 0 || !g.closed(b, b) || !g.surelyPlanned(b) {
		return false
	}
	place := query.Place{Start: int(s.Span.Start), End: int(s.Span.End)}
	sql := place.In(g.sql)
	a, ok := g.prove(sql, false)
	if !ok || a.found.refusal != nil && a.found.refusal.Reason != reasonUnbound && a.found.refusal.Reason != reasonMixed {
		return false
	}
	n := len(g.out.Inputs)
	if a.divides() {
		g.out.Inputs = append(g.out.Inputs, Input{Text: sql, Proof: sql, Plan: a.plan})
		g.reducing.units[b], g.reducing.narrow[n] = n, s.Where != nil || s.Having != nil
		g.edits = append(g.edits, edit{place, []Piece{{Kind: PieceRows, Input: n}}})
		return true
	}
	if g.o.NoGroups {
		return false
	}
	block, outline := g.outlined(&a, sql)
	if outline == nil {
		return false
	}
	if slices.ContainsFunc(outline.Targets, func(t query.Target) bool { return t.Name == "" }) {
		return false // what is around it may name it
	}
	input, final, ok := g.groups(sql, block, outline)
	if !ok {
		return false
	}
	for i := range final {
		final[i].Input = n
	}
	g.out.Inputs, g.out.Grouped = append(g.out.Inputs, input), true
	g.edits = append(g.edits, edit{place, final})
	return true
}

// closed reports whether every name in a query surely means something inside top.
func (g *gatherer) closed(top, b *block) bool {
	sure := true
	if b.scope.Kind != query.ScopeSet && b.scope.Kind != query.ScopeValues {
		b.scope.EachColumn(func(c *query.Column) {
			if c.Star {
				sure = sure && g.isInside(top, b, c)
				return
			}
			if found, ok := b.find(c); ok {
				sure = sure && within(top, found.leaf)
				return
			}
			sure = sure && c.Table == "" && slices.ContainsFunc(b.scope.Outputs, func(o query.Output) bool { return o.Name == c.Name && o.Alias })
		})
	}
	inside := func(o *block) {
		if o != nil {
			sure = sure && g.closed(top, o)
		}
	}
	for _, n := range b.nodes {
		if n.leaf == nil || n.join != nil {
			continue
		}
		if n.leaf.with != nil && !holdsWith(top, n.leaf.with) {
			return false // of a WITH around it
		}
		if n.leaf.rel == nil || n.leaf.rel.view == nil {
			inside(n.leaf.inner)
		}
	}
	for _, l := range b.links {
		inside(l.block)
	}
	for _, w := range b.with {
		inside(w.block)
	}
	inside(b.left)
	inside(b.right)
	return sure
}

// isInside reports whether the table of t.* is one of a block inside top.
func (g *gatherer) isInside(top, b *block, c *query.Column) bool {
	for ; b != nil; b = b.outer {
		if n, doubt := b.named(c); n != nil {
			return !doubt
		}
		if b == top {
			return false
		}
	}
	return false
}

// within reports whether a leaf stands in a block or inside it.
func within(b *block, l *leaf) bool {
	if b == nil {
		return false
	}
	for _, n := range b.nodes {
		if n.leaf == l || n.leaf != nil && n.join == nil && within(n.leaf.inner, l) {
			return true
		}
	}
	return slices.ContainsFunc(b.links, func(k sublink) bool { return within(k.block, l) }) ||
		slices.ContainsFunc(b.with, func(w *with) bool { return within(w.block, l) }) || within(b.left, l) || within(b.right, l)
}

// holdsWith reports whether a WITH query is defined in a block or inside it.
func holdsWith(b *block, w *with) bool {
	if b == nil {
		return false
	}
	for _, n := range b.nodes {
		if n.leaf != nil && n.join == nil && holdsWith(n.leaf.inner, w) {
			return true
		}
	}
	return slices.ContainsFunc(b.links, func(k sublink) bool { return holdsWith(k.block, w) }) ||
		slices.ContainsFunc(b.with, func(o *with) bool { return o == w || holdsWith(o.block, w) }) || holdsWith(b.left, w) || holdsWith(b.right, w)
}

// table gathers the rows of one table in FROM that may matter.
func (g *gatherer) table(b *block, n *node) *Refusal {
	l := n.leaf
	switch {
	case l.rel.kind == kindSystem:
		return &Refusal{Reason: reasonMixed, Why: "every server has a " + l.rel.String() + " of its own, and rows of several shards are read"}
	case l.rel.kind == kindUnknown:
		return &Refusal{Reason: reasonUnknown, Why: l.rel.String() + " " + l.rel.why}
	case l.rel.columns == nil || !l.ref.Span.Located() || !l.ref.NameSpan.Located() || !g.onClientText(b, l):
		return &Refusal{Reason: reasonUnknown, Why: "the columns of " + l.rel.String() + ", or its place in the text, are not known"}
	}
	alias := l.ref.Alias
	if alias == "" {
		alias = l.ref.Name
	}
	in := Input{}
	list := make([]string, 0, len(l.rel.columns))
	all := g.needsAll(b, l, alias) || inNamedJoin(n)
	for i, c := range l.rel.columns {
		if all || g.mentions[l.names[i]] {
			list = append(list, quoteName(alias)+"."+quoteName(l.names[i]))
			in.Columns = append(in.Columns, InputColumn{Name: l.names[i], Collate: c.collate, Cast: c.domain})
		}
	}
	if len(list) == 0 {
		list, in.Columns = []string{"1"}, []InputColumn{{Name: nameless}}
	}
	in.Text = "SELECT " + strings.Join(list, ", ") + " FROM "
	if l.ref.Only {
		in.Text += "ONLY "
	}
	in.Text += g.sql[l.ref.NameSpan.Start:l.ref.NameSpan.End] + " AS " + quoteName(alias) + columnList(l.ref.Columns)
	filter := g.filter(b, n)
	if filter != "" {
		in.Text += " WHERE " + filter
	}
	in.Proof = in.Text
	a, ok := g.prove(in.Text, false)
	if !ok || !a.divides() {
		why := "the rows of " + l.rel.String() + " cannot be read on their own"
		if ok && a.found.refusal != nil {
			why = a.found.refusal.Why
		}
		return &Refusal{Reason: reasonUnbound, Why: why}
	}
	in.Plan = a.plan
	k := len(g.out.Inputs)
	g.out.Inputs = append(g.out.Inputs, in)
	g.reducing.tables[n], g.reducing.narrow[k] = k, filter != ""
	place := query.Place{Start: int(l.ref.Span.Start), End: int(l.ref.Span.End)}
	open := "("
	if before := strings.TrimRight(g.sql[:place.Start], " \t\r\n"); endsWithTable(before) {
		place.Start, open = len(before)-len("table"), "SELECT * FROM ("
	}
	if g.rowIsMeant(alias) && in.Columns[0].Name != nameless {
		g.edits = append(g.edits, edit{place, []Piece{{Text: strings.TrimSuffix(open, "(")}, {Kind: PieceRecords, Input: k, Text: quoteName(l.rel.schema) + "." + quoteName(l.rel.name)},
			{Text: " AS " + quoteName(alias) + columnList(l.ref.Columns)}}})
		return nil
	}
	g.edits = append(g.edits, edit{place, []Piece{{Text: open}, {Kind: PieceRows, Input: k}, {Text: ") AS " + quoteName(alias)}}})
	return nil
}

// endsWithTable reports whether the command TABLE is the last word of a text.
func endsWithTable(text string) bool {
	before, ok := strings.CutSuffix(strings.ToLower(text), "table")
	return ok && (before == "" || strings.ContainsAny(before[len(before)-1:], " \t\r\n()"))
}

// inNamedJoin reports whether a table stands in a join with an alias, whose columns may be
// named in other ways, by their places or all at once.
func inNamedJoin(n *node) bool {
	for j := n.parent; j != nil; j = j.parent {
		if j.leaf != nil {
			return true
		}
	}
	return false
}

// needsAll reports whether all columns of a table may be needed, and in their order.
func (g *gatherer) needsAll(b *block, l *leaf, alias string) bool {
	if g.mentions[alias] || b.scope.Outputs == nil && b.scope.Target == nil { // the row as a whole; TABLE
		return true
	}
	for at := b; at != nil; at = at.outer {
		if slices.ContainsFunc(at.scope.Outputs, func(o query.Output) bool { return o.Star }) {
			return true
		}
	}
	natural := false
	for _, n := range b.nodes {
		natural = natural || n.join != nil && n.join.Natural
	}
	return natural || l.hidden || g.mentions[starOf(alias)] || len(l.ref.Columns) > 0
}

// starOf is how t.* stands among the names of columns.
func starOf(table string) string { return table + "\x00*" }

// filter are the conditions around a table that it can meet alone: a row that does not
// meet them makes no difference.
func (g *gatherer) filter(b *block, n *node) string {
	var out []string
	if w := b.scope.Where; w != nil && n.preserved() {
		out = g.conditions(out, b, n, w)
	}
	for from, j := n, n.parent; j != nil; from, j = j, j.parent {
		if on := j.join.On; on != nil && joinDrops(j, from) && preservedBelow(n, j) {
			out = g.conditions(out, b, n, on)
		}
	}
	return strings.Join(out, " AND ")
}

// joinDrops reports whether a row of one side that does not meet the join's condition
// makes no difference.
func joinDrops(j, side *node) bool {
	switch j.join.Kind {
	case query.JoinInner:
		return true
	case query.JoinLeft:
		return side == j.right
	case query.JoinRight:
		return side == j.left
	}
	return false
}

// preservedBelow is preserved, up to a join.
func preservedBelow(n, top *node) bool {
	for ; n.parent != top; n = n.parent {
		switch j := n.parent; {
		case j.join.Kind == query.JoinLeft && j.left != n, j.join.Kind == query.JoinRight && j.right != n,
			j.join.Kind != query.JoinInner && j.join.Kind != query.JoinLeft && j.join.Kind != query.JoinRight:
			return false
		}
	}
	return true
}

// conditions appends those of a clause that are about one table alone.
func (g *gatherer) conditions(out []string, b *block, n *node, c *query.Condition) []string {
	if !c.Span.Located() || int(c.Span.End) > len(g.sql) {
		return out
	}
	for _, k := range query.Conjuncts(g.sql[c.Span.Start:c.Span.End], g.opts) {
		if !k.Plain || len(k.Columns) == 0 || !g.steady(k.Text) {
			continue
		}
		own := true
		for i := range k.Columns {
			own = own && g.ownColumn(b, n, &k.Columns[i])
		}
		if own {
			out = append(out, "("+k.Text+")")
		}
	}
	return out
}

// ownColumn reports whether a name surely means a column of one table in FROM.
func (g *gatherer) ownColumn(b *block, n *node, c *query.Column) bool {
	if c.Star || c.Catalog != "" || c.Schema != "" || !slices.Contains(n.leaf.names, c.Name) || n.leaf.hidden {
		return false
	}
	if c.Table != "" {
		named, doubt := b.named(c)
		return !doubt && named == n
	}
	for _, j := range b.nodes {
		if j.join != nil && (j.join.Natural || slices.Contains(j.join.Using, c.Name)) {
			return false
		}
	}
	return true
}

// steady reports whether a condition is the same on every shard.
func (g *gatherer) steady(condition string) bool {
	st := query.Analyze("SELECT 1 WHERE "+condition, g.opts)
	if st.Opaque || len(st.Commands) != 1 || len(st.Commands[0].SettingsRead) > 0 {
		return false
	}
	return !slices.ContainsFunc(st.Commands[0].Functions, func(f query.Name) bool {
		return !g.rel.immutable(f) && !ofSettings(f) && !(query.StandsForMoment(f) && g.rel.builtin(f.Name))
	})
}

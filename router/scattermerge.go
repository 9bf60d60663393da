package router

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"shardproxy/catalog"
	"shardproxy/query"
)

// scatter finds the way.
func (g *gatherer) scatter(sql string) (*Scatter, *Refusal) {
	g.sql, g.opts = sql, g.r.options([]byte(sql), g.ctx)
	if s, refusal, is := g.copyOut(sql); is {
		return s, refusal
	}
	if s, refusal, is := g.makes(sql); is {
		return s, refusal
	}
	whole, ok := g.prove(sql, true)
	if !ok {
		return nil, &Refusal{Reason: reasonUnknown, Why: "the text is not understood"}
	}
	if g.o.Explains && g.writesEach(&whole) {
		return &Scatter{Merge: &Merge{Before: sql, Proof: sql, Plan: whole.plan}, Each: true}, nil
	}
	if whole.shape.Scope.Kind == query.ScopeInsert {
		return g.inserted(sql)
	}
	if k := whole.shape.Scope.Kind; k == query.ScopeUpdate || k == query.ScopeDelete {
		return g.written(&whole)
	}
	if refusal := g.allowed(&whole); refusal != nil {
		return nil, refusal
	}
	g.out = &Scatter{}
	if where := whole.found.where; where == Home || where == Anywhere {
		g.out.Merge = &Merge{Before: sql, Proof: sql, Plan: whole.plan} // one server has all that it needs
		return g.out, nil
	}
	block, outline := g.outlined(&whole, sql)
	if g.ctx.HiddenSlots > 0 {
		if text, view, alias, ok := g.viewWritten(block); view != "" {
			if g.views++; !ok || g.views > maxViews {
				return nil, unguarded("the query of the view " + view + " cannot be put in its place")
			}
			g.mentions = map[string]bool{}
			if mention(whole.shape.Scope, g.mentions); g.rowIsMeant(alias) {
				return nil, unguarded("it names rows of the view " + view + " as a whole, which would be of another type")
			}
			g.out, g.edits = nil, nil
			return g.scatter(text)
		}
	}
	why := "rows of different keys meet in it"
	if whole.divides() {
		if why = "it has an order or a LIMIT that cannot be followed in its text"; outline != nil && !g.o.NoMerge && g.merge(&whole, block, outline) {
			return g.out, g.claimed(&whole, block)
		}
		if len(g.locks(whole.shape.Scope)) > 0 {
			return nil, &Refusal{Reason: reasonCommand, Why: "rows of several shards are locked, in an order that a server is to find", Hint: "Leave out ORDER BY."}
		}
		if outline != nil && g.ranked(&whole, block, outline) {
			g.out.Why = "the order of its rows is a server's to find"
			return g.out, nil
		}
	}
	if len(g.locks(whole.shape.Scope)) > 0 {
		return nil, &Refusal{Reason: reasonCommand, Why: "rows of several shards are locked, and what the shards give is no part of the answer"}
	}
	if outline != nil && !g.o.NoGroups {
		if input, final, ok := g.groups(sql, block, outline); ok {
			g.out.Inputs, g.out.Final, g.out.Grouped = []Input{input}, final, true
			g.out.Why = "it puts rows of all shards into groups"
			return g.out, nil
		}
	}
	g.out.Why = why
	return g.gathered(&whole)
}

// outlined reads the relations, and the outline, of a text that stands alone; nil where it has
// none.
func (g *gatherer) outlined(a *alone, sql string) (*block, *query.Outline) {
	p := &prover{relations: g.rel, withs: map[*query.CTE]*with{}, params: map[int32]paramUse{}, sql: sql}
	b := p.build(a.shape.Scope, nil, &text{literals: a.literals})
	o, ok := query.ReadOutline(sql, g.opts, func(name string) (is, known bool) {
		is = slices.ContainsFunc(b.columns, func(v visible) bool { return v.name == name })
		return is, is || b.complete
	})
	if !ok {
		o = nil
	}
	return b, o
}

// allowed refuses what can run on no several shards, however it is taken apart.
func (g *gatherer) allowed(a *alone) *Refusal {
	c := &a.st.Commands[0]
	if f := a.found.refusal; f != nil && f.Reason != reasonUnbound && f.Reason != reasonMixed {
		return f
	}
	if a.shape.Scope.Unknown != nil {
		return &Refusal{Reason: reasonUnknown, Why: "not understood: " + a.shape.Scope.Unknown[0]}
	}
	if refusal := g.mayCall(c); refusal != nil {
		return refusal
	}
	s := *a.shape.Scope
	if len(g.locks(&s)) > 0 {
		sel := *s.Select
		if sel.Limited() && !g.claims(&sel) {
			return &Refusal{Reason: reasonCommand, Why: "rows of several shards are locked, and each shard would lock as many as LIMIT says",
				Hint: "Lock with SKIP LOCKED and without OFFSET, leave out LIMIT, or choose the keys first and lock these."}
		}
		sel.Locks = nil
		s.Select = &sel
	}
	return forbidden(&s)
}

// locks are those of a query at the top of a text.
func (g *gatherer) locks(s *query.Scope) []query.Lock {
	if s.Kind != query.ScopeSelect || s.Select == nil {
		return nil
	}
	return s.Select.Locks
}

// mayCall refuses functions that cannot be called where rows of several shards are read.
func (g *gatherer) mayCall(c *query.Command) *Refusal {
	for _, f := range c.Functions {
		switch {
		case f.Name == "unnest" && f.Schema == "":
		case ofOneServer(f.Name):
			return &Refusal{Reason: reasonFunction, Why: "it calls " + f.Name + " and reads rows of several shards"}
		case g.rel.placed(f) != nil:
			return &Refusal{Reason: reasonFunction, Why: "it calls " + f.Name + ", which runs on the shard of its arguments"}
		default:
			if why := g.rel.reaches(f); why != "" {
				return &Refusal{Reason: reasonFunction, Why: why}
			}
		}
	}
	return nil
}

// forbidden finds what a query on several shards must not have, inside it too.
func forbidden(s *query.Scope) (r *Refusal) { return forbiddenBut(s, nil) }

// forbiddenBut is forbidden for what may have one query that locks rows.
func forbiddenBut(s, locks *query.Scope) (r *Refusal) {
	refuse := func(why string) { r = &Refusal{Reason: reasonCommand, Why: why} }
	switch {
	case s.Kind == query.ScopeInsert || s.Kind == query.ScopeUpdate || s.Kind == query.ScopeDelete || s.Kind == query.ScopeMerge:
		refuse("a WITH query writes, and rows of several shards are read")
	case s.Select != nil && len(s.Select.Locks) > 0 && s != locks:
		refuse("rows of several shards are locked")
	case s.Select != nil && s.Select.Into != nil:
		refuse("a table is made of rows of several shards")
	}
	inside := func(o *query.Scope) {
		if r == nil && o != nil {
			r = forbiddenBut(o, locks)
		}
	}
	for _, c := range s.With {
		inside(c.Scope)
	}
	var items func(list []*query.Reference)
	items = func(list []*query.Reference) {
		for _, ref := range list {
			if ref.Sample != nil && r == nil {
				refuse("TABLESAMPLE takes other rows on each shard")
			}
			inside(ref.Scope)
			if ref.Join != nil {
				items([]*query.Reference{ref.Join.Left, ref.Join.Right})
			}
		}
	}
	items(s.From)
	for _, l := range s.Sublinks {
		inside(l.Scope)
	}
	if s.Set != nil {
		inside(s.Set.Left)
		inside(s.Set.Right)
	}
	return r
}

// merge makes the text that every shard runs; false when its order, or its LIMIT, is of a
// kind that is not followed.
func (g *gatherer) merge(a *alone, b *block, o *query.Outline) bool {
	m := &Merge{Proof: g.sql, Plan: a.plan}
	sel := a.shape.Scope.Select
	if sel != nil {
		var ok, also bool
		m.Limit, ok = g.bound(a, sel.Limit, sel.FetchOne)
		m.Offset, also = g.bound(a, sel.Offset, false)
		if !ok || !also || sel.WithTies {
			return false
		}
	}
	for i := range o.SortKeys {
		k := &o.SortKeys[i]
		if k.Using || k.Star || !g.repeats(k.Expr.In(g.sql)) {
			return false
		}
		key := Key{Descending: k.Descending, NullsFirst: k.NullsFirst}
		if k.Column != nil {
			if c, ok := b.find(k.Column); ok && c.leaf.rel != nil && c.i < len(c.leaf.rel.columns) {
				key.Bytewise = c.leaf.rel.columns[c.i].bytewise && !g.o.Unlike
			}
		}
		m.Keys = append(m.Keys, key)
	}
	if len(m.Keys) > 0 && !o.List.There() {
		return false
	}
	m.Before, m.After = g.cutLimit(o, hiddenKeys(g.sql, o))
	g.out.Merge = m
	return true
}

// hiddenKeys are the expressions of ORDER BY as columns behind a target list.
func hiddenKeys(sql string, o *query.Outline) string {
	var list strings.Builder
	for i := range o.SortKeys {
		fmt.Fprintf(&list, `, (%s) AS "shardproxy.%d"`, o.SortKeys[i].Expr.In(sql), i+1)
	}
	return list.String()
}

// cutLimit returns the text without its LIMIT and OFFSET, cut where a LIMIT may stand, with more
// behind its target list.
func (g *gatherer) cutLimit(o *query.Outline, more string) (before, after string) {
	at, cuts := len(g.sql), []query.Place{}
	for _, p := range []query.Place{o.Limit, o.Offset} {
		if p.There() {
			cuts, at = append(cuts, p), min(at, p.Start)
		}
	}
	if len(cuts) == 0 {
		for _, p := range []query.Place{o.List, o.From, o.Where, o.Group, o.Having, o.Order} {
			if p.There() {
				before = g.sql[:p.End]
			}
		}
		at = len(before)
	}
	slices.SortFunc(cuts, func(a, b query.Place) int { return a.Start - b.Start })
	var rest strings.Builder
	from := at
	for _, c := range cuts {
		rest.WriteString(g.sql[from:max(from, c.Start)])
		from = c.End
	}
	rest.WriteString(" " + g.sql[from:])
	before = g.sql[:at]
	if more != "" {
		before = g.sql[:o.List.End] + more + " " + g.sql[o.List.End:at]
	}
	return before, rest.String()
}

// bound reads a LIMIT or OFFSET that is a number or a parameter.
func (g *gatherer) bound(a *alone, v *query.Value, one bool) (Bound, bool) {
	switch {
	case one:
		return Bound{Set: true, Value: 1}, true
	case v == nil || v.Kind == query.ValueNull && len(v.Casts()) == 0:
		return Bound{}, true
	case len(v.Casts()) > 0 || v.Negative:
		return Bound{}, false
	case v.Kind == query.ValueParam:
		return Bound{Set: true, Param: int(v.Param)}, true
	case v.Kind == query.ValueLiteral && v.Literal >= 0 && int(v.Literal) < len(a.literals):
		text, ok := query.LiteralText(nil, []byte(g.sql), a.literals[v.Literal], false)
		n, err := strconv.ParseInt(string(text), 10, 64)
		return Bound{Set: true, Value: n}, ok && err == nil
	}
	return Bound{}, false
}

// repeats reports whether an expression gives the same when it is computed twice.
func (g *gatherer) repeats(expr string) bool {
	st := query.Analyze("SELECT "+expr, g.opts)
	if st.Opaque || len(st.Commands) != 1 {
		return false
	}
	return !slices.ContainsFunc(st.Commands[0].Functions, func(f query.Name) bool {
		return !g.rel.immutable(f) && !ofSettings(f) && !query.StandsForMoment(f) && !g.rel.aggregate(f)
	})
}

// ranked has a server put the rows in order that the shards give: false when it may find
// another order than that of the text.
func (g *gatherer) ranked(a *alone, b *block, o *query.Outline) bool {
	sel := a.shape.Scope.Select
	if sel == nil || len(o.SortKeys) == 0 || !o.List.There() || !g.plainCollations(b) {
		return false
	}
	order := make([]string, len(o.SortKeys))
	for i := range o.SortKeys {
		k := &o.SortKeys[i]
		if k.Using || k.Star || !g.repeats(k.Expr.In(g.sql)) {
			return false
		}
		order[i] = `"shardproxy".s` + strconv.Itoa(i+1) + direction(k)
	}
	if sel.WithTies {
		return false
	}
	before, after := g.cutLimit(o, hiddenKeys(g.sql, o))
	limit := ""
	if (o.Limit.There() || sel.FetchOne) && !g.o.Unlike {
		limit = " LIMIT least((" + bare(g.sql, o.Limit, sel.FetchOne) + ")::pg_catalog.int8::pg_catalog.numeric + coalesce((" +
			bare(g.sql, o.Offset, false) + ")::pg_catalog.int8, 0), 9223372036854775807)::pg_catalog.int8"
	}
	if strings.Contains(limit, "\x00") {
		return false
	}
	g.out.Inputs = []Input{{Text: before + limit + after, Proof: g.sql, Plan: a.plan}}
	g.out.Final = []Piece{
		{Text: "SELECT "}, {Kind: PieceVisible, Column: len(o.SortKeys)}, {Text: " FROM "}, {Kind: PieceParts, Column: len(o.SortKeys)},
		{Text: " ORDER BY " + strings.Join(order, ", ") + " " + o.Limit.In(g.sql) + " " + o.Offset.In(g.sql)},
	}
	return true
}

// direction is how a key orders, as SQL.
func direction(k *query.SortKey) string {
	out := " ASC"
	if k.Descending {
		out = " DESC"
	}
	if k.NullsFirst {
		return out + " NULLS FIRST"
	}
	return out + " NULLS LAST"
}

// bare is the number of a LIMIT or OFFSET clause, NULL without one; with a zero byte when it is
// written in another form.
func bare(sql string, clause query.Place, one bool) string {
	if !clause.There() {
		return "NULL"
	}
	text := clause.In(sql)
	word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	switch {
	case one:
		return "1"
	case strings.EqualFold(word, "limit"), strings.EqualFold(word, "offset"):
		if rest = strings.TrimSpace(rest); strings.EqualFold(rest, "all") {
			return "NULL"
		}
		lower := strings.ToLower(rest)
		if strings.HasSuffix(lower, " rows") || strings.HasSuffix(lower, " row") {
			return "\x00"
		}
		return rest
	}
	return "\x00"
}

// castsOddly reports whether the text names a type that may bring a collation of its own.
func (g *gatherer) castsOddly() bool {
	st := query.Analyze(g.sql, g.opts)
	if st.Opaque || len(st.Commands) != 1 {
		return true
	}
	return slices.ContainsFunc(st.Commands[0].Types, func(n query.Name) bool {
		t, res := g.rel.catalog.TypeOf(n.Schema, n.Name, g.rel.path)
		return n.Name == "name" || res == catalog.Resolved && t.OID >= firstOwnType || res != catalog.Resolved && n.Schema != "pg_catalog"
	})
}

// firstOwnType is the first OID of types that are not PostgreSQL's own.
const firstOwnType = 16384

// plainCollations reports whether all text that a block reads is compared as the database
// does: then so is all that is made of it.
func (g *gatherer) plainCollations(b *block) bool {
	if strings.Contains(strings.ToLower(g.sql), "collat") || g.castsOddly() {
		return false
	}
	plain := true
	b.each(func(l *leaf) {
		if l.rel == nil || l.rel.kind == kindUnknown || l.rel.kind == kindSystem {
			plain = false
			return
		}
		for i := range l.rel.columns {
			plain = plain && l.rel.columns[i].collate == ""
		}
		if l.rel.view != nil {
			plain = plain && !strings.Contains(strings.ToLower(string(l.rel.view.sql)), "collat")
		}
	})
	return plain
}

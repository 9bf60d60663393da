package query

import pg "github.com/pganalyze/pg_query_go/v6"

// cursor follows the items of FROM through the text. Below 0 it has lost them.
type cursor struct {
	at, hi int
	first  bool
}

// fromList reads FROM, USING and the like.
func (c *scoper) fromList(list []*pg.Node, r region) {
	if len(list) == 0 {
		return
	}
	c.clause = ClauseFrom
	cur := &cursor{at: r.lo, hi: r.hi, first: true}
	for _, n := range list {
		c.s.From = append(c.s.From, c.fromItem(n, cur, false))
	}
}

// next moves the cursor to the item behind the next JOIN or comma.
func (cur *cursor) next(t *shapeText) {
	if cur.first || cur.at < 0 {
		cur.first = false
		return
	}
	for i := cur.at; i < cur.hi; i = t.skip(i) {
		if t.kind(i) == tokComma || t.is(i, "join") && !t.point(i-1) {
			cur.at = i + 1
			return
		}
	}
	cur.at = -1
}

// fromItem reads one item of FROM.
func (c *scoper) fromItem(n *pg.Node, cur *cursor, nullable bool) *Reference {
	if j, ok := n.GetNode().(*pg.Node_JoinExpr); ok {
		return c.joinItem(j.JoinExpr, cur, nullable)
	}
	cur.next(c.sh.text)
	var r *Reference
	switch x := n.GetNode().(type) {
	case *pg.Node_RangeVar:
		r = c.table(x.RangeVar, cur)
	case *pg.Node_RangeTableSample:
		r = c.sample(x.RangeTableSample, cur)
	case *pg.Node_RangeSubselect:
		r = c.subquery(x.RangeSubselect, cur)
	case *pg.Node_RangeFunction:
		r = c.function(x.RangeFunction, cur)
	case *pg.Node_RangeTableFunc:
		r = &Reference{Kind: ReferenceFunction, Lateral: x.RangeTableFunc.Lateral, Function: &Expr{}}
		c.xmlOrJSON(r.Function, x.RangeTableFunc)
		for _, col := range x.RangeTableFunc.Columns {
			r.Columns, r.Definitions = append(r.Columns, col.GetRangeTableFuncCol().GetColname()), true
		}
		c.call(r, x.RangeTableFunc.Alias, cur)
	case *pg.Node_JsonTable:
		r = &Reference{Kind: ReferenceFunction, Lateral: x.JsonTable.Lateral, Function: &Expr{}}
		c.xmlOrJSON(r.Function, x.JsonTable)
		c.call(r, x.JsonTable.Alias, cur)
	default:
		c.unexpected(n, "FROM")
		return &Reference{}
	}
	r.Nullable = nullable
	return r
}

// joinItem reads a join and both of its sides.
func (c *scoper) joinItem(x *pg.JoinExpr, cur *cursor, nullable bool) *Reference {
	t := c.sh.text
	j := &Join{Natural: x.IsNatural, Using: names(x.UsingClause), UsingAlias: x.JoinUsingAlias.GetAliasname()}
	switch x.Jointype {
	case pg.JoinType_JOIN_INNER:
		j.Kind = JoinInner
	case pg.JoinType_JOIN_LEFT:
		j.Kind = JoinLeft
	case pg.JoinType_JOIN_RIGHT:
		j.Kind = JoinRight
	case pg.JoinType_JOIN_FULL:
		j.Kind = JoinFull
	default:
		c.unknown("a join of type %s", x.Jointype)
	}
	inner := c.join
	j.Left = c.fromItem(x.Larg, cur, nullable || j.Kind == JoinRight || j.Kind == JoinFull)
	j.Right = c.fromItem(x.Rarg, cur, nullable || j.Kind == JoinLeft || j.Kind == JoinFull)
	if x.Quals != nil {
		c.join = j
		j.On = c.condition(x.Quals, ClauseOn, cur.condition(t))
		c.join = inner
	}
	return &Reference{Kind: ReferenceJoin, Join: j, Alias: x.Alias.GetAliasname(), Columns: names(x.Alias.GetColnames()), Nullable: nullable}
}

// condition returns the ON condition behind the cursor, and moves it there.
func (cur *cursor) condition(t *shapeText) region {
	if cur.at < 0 {
		return nowhere
	}
	for i := cur.at; i < cur.hi; i = t.skip(i) {
		switch {
		case t.is(i, "on") && !t.label(i):
			r := region{i + 1, t.onEnd(i+1, cur.hi)}
			cur.at = r.hi
			return r
		case t.kind(i) == tokComma || t.is(i, "join"):
			cur.at = -1
			return nowhere
		}
	}
	cur.at = -1
	return nowhere
}

// tableNamed reads the name of a table.
func (sh *shaper) tableNamed(x *pg.RangeVar) *Reference {
	t := sh.text
	r := &Reference{Kind: ReferenceTable, Catalog: x.GetCatalogname(), Schema: x.GetSchemaname(), Name: x.GetRelname(), Only: !x.GetInh()}
	if a := x.GetAlias(); a != nil {
		r.Alias, r.Columns = a.Aliasname, names(a.Colnames)
	}
	if i := t.at(x.GetLocation()); i >= 0 {
		if t.kind(i) == tokUQuoted {
			return r
		}
		last := t.name(i)
		if t.operator(last, "*") { // a name, a point is never before it: t.* is no table
			last = -1
		}
		r.NameSpan = t.span(i, last)
	}
	return r
}

// table reads a table or a WITH query's name.
func (c *scoper) table(x *pg.RangeVar, cur *cursor) *Reference {
	r := c.sh.tableNamed(x)
	if r.Schema == "" && r.Catalog == "" {
		if cte := c.env.find(r.Name); cte != nil {
			c.useCTE(r, cte)
		}
	}
	c.tableSpan(r, x.Alias, cur)
	return r
}

// useCTE notes that r stands for a WITH query.
func (c *scoper) useCTE(r *Reference, cte *CTE) {
	r.Kind, r.CTE = ReferenceCTE, cte
	cte.Uses++
	if cte.Scope != nil {
		return
	}
	for _, b := range c.sh.building {
		if b == cte {
			cte.Recursive = true
			return
		}
	}
	cte.Forward = true
}

// tableSpan finds the item of a table: ONLY, name, star, alias.
func (c *scoper) tableSpan(r *Reference, alias *pg.Alias, cur *cursor) {
	t := c.sh.text
	if !r.NameSpan.Located() {
		cur.at = -1
		return
	}
	first, last := int(r.NameSpan.First), int(r.NameSpan.Last)
	for t.opens(first-1) && t.is(first-2, "only") && t.pair(first-1) == last+1 {
		first, last = first-1, last+1
	}
	if t.is(first-1, "only") {
		first--
	}
	if t.operator(last+1, "*") {
		last++
	}
	c.aliasSpan(r, alias, cur, first, last)
}

// aliasSpan takes in the alias behind an item, and moves the cursor behind it.
func (c *scoper) aliasSpan(r *Reference, alias *pg.Alias, cur *cursor, first, last int) {
	t := c.sh.text
	if alias != nil {
		i := last + 1
		if t.is(i, "as") {
			i++
		}
		if k := t.kind(i); k != tokWord && k != tokQuoted {
			cur.at = -1
			return
		}
		last = i
		if len(alias.Colnames) > 0 || r.Definitions {
			if p := t.pair(i + 1); t.opens(i+1) && p > 0 {
				last = p
			}
		}
	}
	if cur.at >= 0 {
		cur.at = last + 1
	}
	r.Span = t.span(first, last)
}

// sample reads a table with TABLESAMPLE.
func (c *scoper) sample(x *pg.RangeTableSample, cur *cursor) *Reference {
	rel := x.Relation.GetRangeVar()
	if rel == nil {
		c.unexpected(x.Relation, "TABLESAMPLE")
		return &Reference{}
	}
	r := c.table(rel, cur)
	r.Sample = &Expr{Calls: []Call{{Name: qualified(x.Method, len(x.Args))}}}
	c.bags(r.Sample, x.Args)
	c.bag(r.Sample, x.Repeatable)
	t, i := c.sh.text, int(r.Span.Last)+1
	if !r.Span.Located() || !t.is(i, "tablesample") {
		r.Span = Span{}
		return r
	}
	last := t.pair(t.name(i+1) + 1)
	if t.is(last+1, "repeatable") {
		last = t.pair(last + 2)
	}
	r.Span = t.span(int(r.Span.First), last)
	cur.at = last + 1
	return r
}

// itemStart skips the parentheses of joins and LATERAL at the cursor.
func (cur *cursor) itemStart(t *shapeText) (first, i int) {
	if cur.at < 0 {
		return -1, -1
	}
	first = cur.at
	for i = cur.at; t.opens(i) || t.is(i, "lateral"); i++ {
		if t.is(i, "lateral") {
			first = i
		}
	}
	return first, i
}

// subquery reads (SELECT ...) alias.
func (c *scoper) subquery(x *pg.RangeSubselect, cur *cursor) *Reference {
	t := c.sh.text
	r := &Reference{Kind: ReferenceSubquery, Lateral: x.Lateral, Alias: x.Alias.GetAliasname(), Columns: names(x.Alias.GetColnames())}
	body := nowhere
	first, i := cur.itemStart(t)
	if t.is(i, "select", "values", "with", "table") {
		if open, last := t.subqueryGroup(i); open >= 0 {
			body = t.group(open)
			if !t.is(first, "lateral") || first != open-1 {
				first = open
			}
			c.aliasSpan(r, x.Alias, cur, first, last)
		}
	}
	if !body.known() {
		cur.at = -1
	}
	r.Scope = c.sh.query(x.Subquery, body, c.env)
	return r
}

// function reads f(...) and ROWS FROM (...).
func (c *scoper) function(x *pg.RangeFunction, cur *cursor) *Reference {
	r := &Reference{Kind: ReferenceFunction, Lateral: x.Lateral, Ordinality: x.Ordinality, Function: &Expr{}, Definitions: len(x.Coldeflist) > 0}
	for _, f := range x.Functions {
		items := f.GetList().GetItems()
		if len(items) == 0 {
			c.unexpected(f, "FROM")
			continue
		}
		for _, item := range items { // the call, and its column definitions
			if item.GetNode() != nil {
				c.bag(r.Function, item)
			}
			r.Definitions = r.Definitions || item.GetList() != nil
		}
	}
	for _, d := range x.Coldeflist {
		c.bag(r.Function, d)
		r.Columns = append(r.Columns, d.GetColumnDef().GetColname())
	}
	c.call(r, x.Alias, cur)
	return r
}

// call finds the place of a call in FROM and reads its alias.
func (c *scoper) call(r *Reference, alias *pg.Alias, cur *cursor) {
	t := c.sh.text
	if alias != nil {
		r.Alias = alias.Aliasname
		for i, name := range names(alias.Colnames) { // they rename the first of those defined
			if i < len(r.Columns) {
				r.Columns[i] = name
			} else {
				r.Columns = append(r.Columns, name)
			}
		}
	}
	first, i := cur.itemStart(t)
	if !t.is(first, "lateral") {
		first = i
	}
	last := t.name(i)
	if t.is(i, "rows") && t.is(i+1, "from") || t.collationFor(i) {
		last = i + 1
	}
	if last < 0 {
		cur.at = -1
		return
	}
	last = t.modifiersEnd(last)
	if r.Ordinality {
		last += 2
	}
	if alias == nil && r.Definitions { // AS (a int, b text)
		if t.is(last+1, "as") && t.opens(last+2) {
			last = t.pair(last + 2)
		}
	}
	c.aliasSpan(r, alias, cur, first, last)
}

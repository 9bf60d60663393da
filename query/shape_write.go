package query

import pg "github.com/pganalyze/pg_query_go/v6"

// target reads the table that a command writes to; no WITH query can stand for it.
func (c *scoper) target(x *pg.RangeVar) {
	r := c.sh.tableNamed(x)
	r.Written = true
	cur := &cursor{at: -1}
	c.tableSpan(r, x.GetAlias(), cur)
	c.s.Target = r
}

// behindTarget returns the token behind the target and its alias.
func (c *scoper) behindTarget() int {
	if !c.s.Target.Span.Located() {
		return -1
	}
	return int(c.s.Target.Span.Last) + 1
}

func (c *scoper) returning(list []*pg.Node, m marks) {
	c.s.Outputs, c.s.ReturningSpan = c.outputs(list, m.behind(c.sh.text, "returning"), ClauseReturning)
}

// insert reads INSERT.
func (c *scoper) insert(n *pg.InsertStmt, r region) {
	t := c.sh.text
	c.s.Kind = ScopeInsert
	r = c.with(n.WithClause, r)
	c.target(n.Relation)
	in := &Insert{Overriding: overriding(n.Override), HasColumns: len(n.Cols) > 0}
	c.s.Insert = in
	i := c.behindTarget()
	if in.HasColumns {
		c.clause = ClauseOther
		in.Columns = c.targetColumns(n.Cols)
		if t.opens(i) && t.pair(i) > 0 {
			in.ColumnsSpan = t.span(i, t.pair(i))
			i = t.skip(i)
		} else {
			i = -1
		}
	}
	if in.Overriding != "" && i >= 0 {
		i += 3 // OVERRIDING SYSTEM VALUE
	}
	in.TargetSpan = c.s.Target.Span
	rest := nowhere
	if i >= 0 && r.known() && i < r.hi {
		rest = region{i, r.hi}
	}
	if n.SelectStmt == nil && rest.known() && t.is(i, "default") && t.is(i+1, "values") {
		in.DefaultSpan = t.span(i, i+1)
	}
	source, m := c.insertClauses(n, rest)
	if n.SelectStmt != nil {
		in.Source = c.sh.query(n.SelectStmt, source, c.env)
	}
	if n.OnConflictClause != nil {
		in.Conflict = c.conflict(n.OnConflictClause, m)
	}
	c.returning(n.ReturningList, m)
}

// insertClauses tells the rows of an INSERT from what follows them.
func (c *scoper) insertClauses(n *pg.InsertStmt, r region) (source region, m marks) {
	t := c.sh.text
	if !r.known() {
		return nowhere, nil
	}
	source = r
	tail := r
	if x := n.OnConflictClause; x != nil {
		i := t.at(x.Location)
		if i < r.lo || i >= r.hi || !t.is(i, "on") {
			return nowhere, nil
		}
		source.hi, tail.lo = i, i
	}
	m = t.clauses(tail, "returning")
	if _, at := m.find("returning"); at >= 0 && n.OnConflictClause == nil {
		source.hi = at
	}
	return source, m
}

func overriding(k pg.OverridingKind) string {
	switch k {
	case pg.OverridingKind_OVERRIDING_USER_VALUE:
		return "user"
	case pg.OverridingKind_OVERRIDING_SYSTEM_VALUE:
		return "system"
	}
	return ""
}

// targetColumns reads a list of columns that are written to.
func (c *scoper) targetColumns(list []*pg.Node) []TargetColumn {
	out := make([]TargetColumn, 0, len(list))
	for _, n := range list {
		x := n.GetResTarget()
		if x == nil {
			c.unexpected(n, "a column list")
			continue
		}
		out = append(out, c.targetColumn(x))
	}
	return out
}

func (c *scoper) targetColumn(x *pg.ResTarget) TargetColumn {
	t := c.sh.text
	col := TargetColumn{Name: x.Name, Part: len(x.Indirection) > 0}
	if i := t.at(x.Location); t.kind(i) == tokWord || t.kind(i) == tokQuoted {
		col.Span = t.span(i, i)
	}
	if col.Part {
		c.other(x.Indirection...)
	}
	return col
}

// rows reads the rows of VALUES.
func (c *scoper) rows(lists []*pg.Node, r region) {
	t := c.sh.text
	c.clause = ClauseValues
	groups := t.split(r)
	c.s.Rows = make([]Row, len(lists))
	for i, n := range lists {
		list := n.GetList()
		if list == nil {
			c.unexpected(n, "VALUES")
			continue
		}
		row := &c.s.Rows[i]
		row.Values = c.rowValues(list.Items)
		if len(groups) != len(lists) || !t.opens(groups[i].lo) || t.pair(groups[i].lo) != groups[i].hi-1 {
			continue
		}
		row.Span = t.spanOf(groups[i])
		c.fillItems(row.Values, t.group(groups[i].lo))
	}
}

// rowValues reads what a row gives to columns one by one.
func (c *scoper) rowValues(list []*pg.Node) []Value {
	if starred(list) {
		c.unknown("a star in VALUES")
	}
	return c.values(list)
}

// fillItems gives the values of a list their places, as far as they have none.
func (c *scoper) fillItems(values []Value, r region) {
	missing := false
	for i := range values {
		missing = missing || !values[i].Span.Located()
	}
	if !missing {
		return
	}
	if items := c.sh.text.split(r); len(items) == len(values) {
		for i := range values {
			c.fill(&values[i], items[i])
		}
	}
}

// conflict reads ON CONFLICT.
func (c *scoper) conflict(x *pg.OnConflictClause, m marks) *Conflict {
	t := c.sh.text
	k := &Conflict{Update: x.Action == pg.OnConflictAction_ONCONFLICT_UPDATE}
	first := t.at(x.Location)
	c.clause = ClauseConflict
	if in := x.Infer; in != nil {
		k.Constraint = in.Conname
		c.inference(k, in)
		k.Inference = c.condition(in.WhereClause, ClauseConflict, nowhere)
	}
	set, where := nowhere, nowhere
	if first >= 0 {
		r := region{first, c.clauseEnd(first, m)}
		k.Span = t.spanOf(r)
		if do := t.find(r, "do"); do >= 0 && k.Update {
			parts := t.clauses(region{do, r.hi}, "set", "where")
			set, where = parts.behind(t, "set"), parts.behind(t, "where")
		}
	}
	k.Set = c.assignments(x.TargetList, set, ClauseConflict)
	k.Where = c.condition(x.WhereClause, ClauseConflict, where)
	return k
}

// clauseEnd returns the token behind a clause that ends with the scope or RETURNING.
func (c *scoper) clauseEnd(first int, m marks) int {
	if _, at := m.find("returning"); at > first {
		return at
	}
	if c.s.Span.Located() {
		return int(c.s.Span.Last) + 1
	}
	return -1
}

// inference reads the list of ON CONFLICT (...).
func (c *scoper) inference(k *Conflict, in *pg.InferClause) {
	for _, n := range in.IndexElems {
		x := n.GetIndexElem()
		if x == nil {
			c.unexpected(n, "ON CONFLICT")
			continue
		}
		if x.Name != "" && len(x.Collation)+len(x.Opclass)+len(x.Opclassopts) == 0 {
			k.Columns = append(k.Columns, x.Name)
			continue
		}
		k.Expressions = true
		if x.Expr != nil {
			c.other(x.Expr)
		}
	}
}

// assignments reads a SET list.
func (c *scoper) assignments(list []*pg.Node, r region, clause Clause) []Assignment {
	if len(list) == 0 {
		return nil
	}
	c.clause = clause
	out := make([]Assignment, 0, len(list))
	items := c.sh.text.split(r)
	var source multiSource
	item := -1
	for _, n := range list {
		x := n.GetResTarget()
		if x == nil {
			c.unexpected(n, "SET")
			continue
		}
		a := Assignment{Column: c.targetColumn(x)}
		multi := x.Val.GetMultiAssignRef()
		if multi == nil || multi.Colno == 1 {
			item++
		}
		at := nowhere
		if item < len(items) {
			at = c.sh.text.behindEquals(items[item])
		}
		switch {
		case multi == nil:
			a.Value = c.value(x.Val)
			c.fill(&a.Value, at)
		default:
			if multi.Colno == 1 {
				source = c.multi(multi, at)
			}
			source.give(&a, int(multi.Colno))
		}
		out = append(out, a)
	}
	return out
}

// multiSource is what several columns get: the fields of a row, or one
// expression for all.
type multiSource struct {
	fields []Value
	whole  Value
}

func (c *scoper) multi(x *pg.MultiAssignRef, at region) multiSource {
	row := x.Source.GetRowExpr()
	if row == nil || len(row.Args) != int(x.Ncolumns) || starred(row.Args) {
		v := c.value(x.Source)
		c.fill(&v, at)
		return multiSource{whole: v}
	}
	values := c.values(row.Args)
	if c.sh.text.is(at.lo, "row") {
		at.lo++
	}
	c.fillItems(values, c.sh.text.group(at.lo))
	return multiSource{fields: values}
}

// give sets what the column of a number, counted from 1, gets.
func (s *multiSource) give(a *Assignment, number int) {
	if number <= len(s.fields) {
		a.Value = s.fields[number-1]
		return
	}
	a.Value, a.Field = s.whole, number
}

// behindEquals returns what follows the = of an item of SET.
func (t *shapeText) behindEquals(r region) region {
	for i := r.lo; r.known() && i < r.hi; i = t.skip(i) {
		if t.operator(i, "=") {
			return region{i + 1, r.hi}
		}
	}
	return nowhere
}

// update reads UPDATE.
func (c *scoper) update(n *pg.UpdateStmt, r region) {
	t := c.sh.text
	c.s.Kind = ScopeUpdate
	r = c.with(n.WithClause, r)
	c.target(n.Relation)
	m := t.clauses(r, "set", "from", "where", "returning")
	c.fromList(n.FromClause, m.behind(t, "from"))
	set := m.behind(t, "set")
	c.s.Update = &Update{Set: c.assignments(n.TargetList, set, ClauseSet), SetSpan: t.spanOf(set)}
	c.s.Where, c.s.WhereSpan = c.condition(n.WhereClause, ClauseWhere, m.behind(t, "where")), m.span(t, "where")
	c.returning(n.ReturningList, m)
}

// delete reads DELETE.
func (c *scoper) delete(n *pg.DeleteStmt, r region) {
	t := c.sh.text
	c.s.Kind = ScopeDelete
	r = c.with(n.WithClause, r)
	c.target(n.Relation)
	m := t.clauses(r, "using", "where", "returning")
	c.fromList(n.UsingClause, m.behind(t, "using"))
	c.s.Where, c.s.WhereSpan = c.condition(n.WhereClause, ClauseWhere, m.behind(t, "where")), m.span(t, "where")
	c.returning(n.ReturningList, m)
}

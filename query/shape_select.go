package query

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// selectStmt reads SELECT, VALUES, TABLE and set operations.
func (c *scoper) selectStmt(n *pg.SelectStmt, r region) {
	t := c.sh.text
	if n.WithClause != nil && r.known() && !t.is(r.lo, "with") {
		r = nowhere
	}
	r = t.bare(c.with(n.WithClause, r))
	switch {
	case n.Op == pg.SetOperation_SETOP_UNION || n.Op == pg.SetOperation_SETOP_INTERSECT || n.Op == pg.SetOperation_SETOP_EXCEPT:
		c.setOperation(n, r)
	case n.Larg != nil || n.Rarg != nil || n.Op != pg.SetOperation_SETOP_NONE:
		c.unexpected(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: n}}, "a set operation")
	case len(n.ValuesLists) > 0:
		c.s.Kind = ScopeValues
		m := t.selectClauses(r)
		c.rows(n.ValuesLists, m.behind(t, "values"))
		c.tail(n, m)
	default:
		c.s.Kind = ScopeSelect
		c.selectBody(n, t.selectClauses(r))
	}
}

// setOperation reads UNION, INTERSECT and EXCEPT.
func (c *scoper) setOperation(n *pg.SelectStmt, r region) {
	t := c.sh.text
	c.s.Kind = ScopeSet
	set := &SetOperation{All: n.All}
	word := ""
	switch n.Op {
	case pg.SetOperation_SETOP_UNION:
		set.Kind, word = SetUnion, "union"
	case pg.SetOperation_SETOP_INTERSECT:
		set.Kind, word = SetIntersect, "intersect"
	default:
		set.Kind, word = SetExcept, "except"
	}
	op, arms, tail := t.setOperator(r)
	left, right := nowhere, nowhere
	if op >= 0 && t.is(op, word) {
		left, right = region{arms.lo, op}, region{op + 1, arms.hi}
		if t.is(right.lo, "all", "distinct") {
			right.lo++
		}
	}
	set.Left = c.sh.selectQuery(n.Larg, left, c.env)
	set.Right = c.sh.selectQuery(n.Rarg, right, c.env)
	c.s.Set = set
	if len(n.TargetList)+len(n.FromClause)+len(n.GroupClause)+len(n.DistinctClause)+len(n.WindowClause)+len(n.ValuesLists) > 0 ||
		n.WhereClause != nil || n.HavingClause != nil || n.IntoClause != nil {
		c.unexpected(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: n}}, "a set operation")
	}
	c.tail(n, t.selectClauses(tail))
}

// selectBody reads a plain SELECT.
func (c *scoper) selectBody(n *pg.SelectStmt, m marks) {
	t := c.sh.text
	from := m.behind(t, "from")
	if !from.known() {
		from = m.behind(t, "table")
	}
	c.fromList(n.FromClause, from)
	c.distinct(n.DistinctClause)
	c.s.Outputs, c.s.Targets = c.outputs(n.TargetList, t.targets(m.behind(t, "select")), ClauseTargets)
	if n.IntoClause != nil {
		c.into(n.IntoClause)
	}
	c.s.Where, c.s.WhereSpan = c.condition(n.WhereClause, ClauseWhere, m.behind(t, "where")), m.span(t, "where")
	c.group(n, m)
	c.windows(n.WindowClause)
	c.tail(n, m)
}

// targets cuts DISTINCT and its like off a target list.
func (t *shapeText) targets(r region) region {
	if !r.known() {
		return r
	}
	switch {
	case t.is(r.lo, "all") && r.lo+1 < r.hi:
		r.lo++
	case t.is(r.lo, "distinct"):
		r.lo++
		if t.is(r.lo, "on") && t.opens(r.lo+1) {
			r.lo = t.skip(r.lo + 1)
		}
	}
	return r
}

func (c *scoper) distinct(list []*pg.Node) {
	if len(list) == 0 {
		return
	}
	p := c.s.parts()
	if len(list) == 1 && list[0].GetNode() == nil {
		p.Distinct = true
		return
	}
	c.clause = ClauseDistinct
	p.DistinctOn = c.values(list)
}

// outputs reads a target or RETURNING list.
func (c *scoper) outputs(list []*pg.Node, r region, clause Clause) ([]Output, Span) {
	if len(list) == 0 {
		return nil, Span{}
	}
	t := c.sh.text
	c.clause = clause
	items := t.split(r)
	out := make([]Output, 0, len(list))
	for i, n := range list {
		target := n.GetResTarget()
		if target == nil {
			c.unexpected(n, "a target list")
			continue
		}
		if len(target.Indirection) > 0 {
			c.unknown("an output with subscripts")
		}
		o := c.output(target)
		if len(items) == len(list) && items[i].known() && t.at(target.Location) == items[i].lo {
			o.Span = t.spanOf(items[i])
			c.locate(&o.Value, target, items[i])
		}
		out = append(out, o)
	}
	if len(items) != len(list) {
		return out, Span{}
	}
	return out, t.spanOf(r)
}

// locate gives a value the place of a list item when it has none, the item
// has no alias and is nothing but the value.
func (c *scoper) locate(v *Value, target *pg.ResTarget, item region) {
	if v.Kind != ValueColumn && !v.Span.Located() && target.Name == "" {
		v.Span = c.sh.text.spanOf(item)
	}
}

func (c *scoper) output(target *pg.ResTarget) Output {
	if ref := target.Val.GetColumnRef(); ref != nil && ref.Fields[len(ref.Fields)-1].GetAStar() != nil {
		return Output{Star: true, Qualifier: names(ref.Fields[:len(ref.Fields)-1]), Value: Value{Literal: -1}}
	}
	if starred([]*pg.Node{target.Val}) {
		return Output{Star: true, Value: c.value(target.Val)}
	}
	o := Output{Name: target.Name, Alias: target.Name != "", Value: c.value(target.Val)}
	if !o.Alias {
		o.Name = columnName(target.Val)
	}
	return o
}

// group reads GROUP BY and HAVING.
func (c *scoper) group(n *pg.SelectStmt, m marks) {
	t := c.sh.text
	if len(n.GroupClause) > 0 {
		p := c.s.parts()
		p.Grouped = true
		c.clause = ClauseGroup
		c.groupItems(p, n.GroupClause)
		p.GroupSpan = m.span(t, "group")
	}
	if n.HavingClause != nil {
		p := c.s.parts()
		c.s.Having = c.condition(n.HavingClause, ClauseHaving, m.behind(t, "having"))
		p.HavingSpan = m.span(t, "having")
	}
}

func (c *scoper) groupItems(p *SelectParts, list []*pg.Node) {
	for _, n := range list {
		set := n.GetGroupingSet()
		if set == nil {
			if row := n.GetRowExpr(); row != nil && row.RowFormat == pg.CoercionForm_COERCE_IMPLICIT_CAST {
				c.groupItems(p, row.Args) // (a, b) in a grouping set; a record elsewhere groups alike
				continue
			}
			p.GroupBy = append(p.GroupBy, c.value(n))
			continue
		}
		p.GroupingSets = true
		c.groupItems(p, set.Content)
	}
}

func (c *scoper) windows(list []*pg.Node) {
	for _, n := range list {
		w := n.GetWindowDef()
		if w == nil {
			c.unexpected(n, "a WINDOW clause")
			continue
		}
		p := c.s.parts()
		p.Windows = true
		c.clause = ClauseWindow
		p.WindowKeys = append(p.WindowKeys, c.values(w.PartitionClause)...)
		for _, o := range w.OrderClause {
			p.WindowKeys = append(p.WindowKeys, c.value(o))
		}
		for _, o := range []*pg.Node{w.StartOffset, w.EndOffset} {
			if o != nil {
				p.WindowKeys = append(p.WindowKeys, c.value(o))
			}
		}
	}
}

// tail reads what may follow any query: ORDER BY, LIMIT, FOR UPDATE.
func (c *scoper) tail(n *pg.SelectStmt, m marks) {
	t := c.sh.text
	if len(n.SortClause) > 0 {
		p := c.s.parts()
		c.clause = ClauseOrder
		for _, s := range n.SortClause {
			p.OrderBy = append(p.OrderBy, c.order(s))
		}
		p.OrderSpan = m.span(t, "order")
	}
	c.limit(n, m)
	for _, l := range n.LockingClause {
		c.lock(l)
	}
	if len(n.LockingClause) > 0 {
		if _, at := m.find("for"); at >= 0 {
			c.s.Select.LockSpan = t.span(at, m[len(m)-1].end-1)
			if m[len(m)-1].word != "for" {
				c.s.Select.LockSpan = Span{} // LIMIT behind it
			}
		}
	}
}

func (c *scoper) order(n *pg.Node) Order {
	s := n.GetSortBy()
	if s == nil {
		c.unexpected(n, "ORDER BY")
		return Order{}
	}
	o := Order{Value: c.value(s.Node), Descending: s.SortbyDir == pg.SortByDir_SORTBY_DESC}
	o.NullsFirst = o.Descending
	switch s.SortbyNulls {
	case pg.SortByNulls_SORTBY_NULLS_FIRST:
		o.NullsFirst = true
	case pg.SortByNulls_SORTBY_NULLS_LAST:
		o.NullsFirst = false
	}
	if len(s.UseOp) > 0 {
		o.Using = qualified(s.UseOp, 2)
	}
	return o
}

func (c *scoper) limit(n *pg.SelectStmt, m marks) {
	if n.LimitCount == nil && n.LimitOffset == nil {
		return
	}
	t, p := c.sh.text, c.s.parts()
	c.clause = ClauseLimit
	p.WithTies = n.LimitOption == pg.LimitOption_LIMIT_OPTION_WITH_TIES
	fetch, _ := m.find("fetch")
	if k := n.LimitCount.GetAConst(); k != nil && k.Location < 0 {
		p.FetchOne = true
	} else {
		p.Limit = c.valuePointer(n.LimitCount)
	}
	p.Offset = c.valuePointer(n.LimitOffset)
	p.LimitSpan, p.OffsetSpan = m.span(t, "limit"), m.span(t, "offset")
	if fetch.known() {
		p.LimitSpan = m.span(t, "fetch")
	} else {
		c.fill(p.Limit, m.behind(t, "limit"))
	}
	if p.Limit != nil && t.is(int(p.Limit.Span.First), "all") {
		p.Limit.Span = Span{} // a word that is no value
	}
	if offset := m.behind(t, "offset"); offset.known() && !t.is(offset.hi-1, "row", "rows") {
		c.fill(p.Offset, offset)
	}
}

// fill gives a value the place of its clause when it has none of its own.
func (c *scoper) fill(v *Value, r region) {
	if v != nil && !v.Span.Located() {
		v.Span = c.sh.text.spanOf(r)
	}
}

func (c *scoper) lock(n *pg.Node) {
	x := n.GetLockingClause()
	if x == nil {
		c.unexpected(n, "a locking clause")
		return
	}
	l := Lock{Strength: "update"}
	switch x.Strength {
	case pg.LockClauseStrength_LCS_FORNOKEYUPDATE:
		l.Strength = "no key update"
	case pg.LockClauseStrength_LCS_FORSHARE:
		l.Strength = "share"
	case pg.LockClauseStrength_LCS_FORKEYSHARE:
		l.Strength = "key share"
	}
	switch x.WaitPolicy {
	case pg.LockWaitPolicy_LockWaitSkip:
		l.Wait = "skip locked"
	case pg.LockWaitPolicy_LockWaitError:
		l.Wait = "nowait"
	}
	for _, r := range x.LockedRels {
		l.Of = append(l.Of, r.GetRangeVar().GetRelname())
	}
	p := c.s.parts()
	p.Locks = append(p.Locks, l)
}

// into reads the table that SELECT INTO makes.
func (c *scoper) into(n *pg.IntoClause) {
	c.s.parts().Into = c.sh.made(n)
}

// made reads the table that CREATE TABLE AS or SELECT INTO makes.
func (sh *shaper) made(n *pg.IntoClause) *Reference {
	r := sh.tableNamed(n.GetRel())
	r.Written, r.Columns = true, names(n.GetColNames())
	return r
}

package query

import pg "github.com/pganalyze/pg_query_go/v6"

// merge reads MERGE.
func (c *scoper) merge(n *pg.MergeStmt, r region) {
	t := c.sh.text
	c.s.Kind = ScopeMerge
	r = c.with(n.WithClause, r)
	c.target(n.Relation)
	m := t.clauses(r, "returning")
	end := r.hi
	if _, at := m.find("returning"); at >= 0 {
		end = at
	}
	using, on, whens := t.mergeParts(region{r.lo, end})
	if n.SourceRelation != nil {
		c.fromList([]*pg.Node{n.SourceRelation}, using)
	}
	c.s.Where = c.condition(n.JoinCondition, ClauseOn, on)
	if on.known() {
		c.s.WhereSpan = t.span(on.lo-1, on.hi-1)
	}
	c.s.Merge = &Merge{}
	for i, w := range n.MergeWhenClauses {
		x := w.GetMergeWhenClause()
		if x == nil {
			c.unexpected(w, "MERGE")
			continue
		}
		at := nowhere
		if len(whens) == len(n.MergeWhenClauses) {
			at = whens[i]
		}
		c.s.Merge.When = append(c.s.Merge.When, c.when(x, at))
	}
	c.returning(n.ReturningList, m)
}

// mergeParts finds the source, the condition and the WHEN clauses of a MERGE.
func (t *shapeText) mergeParts(r region) (using, on region, whens []region) {
	using = nowhere
	lastOn := -1
	for i := r.lo; r.known() && i < r.hi; i = t.skip(i) {
		switch {
		case t.label(i):
		case t.is(i, "case"):
			if e := t.caseExtent(t.toks[i].start); e.ok() {
				i = e.last
			}
		case t.is(i, "using") && using.lo < 0:
			using = region{i + 1, r.hi}
		case t.is(i, "on") && len(whens) == 0:
			lastOn = i
		case t.is(i, "when"):
			if len(whens) > 0 {
				whens[len(whens)-1].hi = i
			}
			whens = append(whens, region{i, r.hi})
		}
	}
	if using.lo < 0 || lastOn < using.lo || len(whens) == 0 {
		return nowhere, nowhere, nil
	}
	using.hi = lastOn
	return using, region{lastOn + 1, whens[0].lo}, whens
}

// when reads one WHEN clause.
func (c *scoper) when(x *pg.MergeWhenClause, r region) MergeWhen {
	t := c.sh.text
	w := MergeWhen{Overriding: overriding(x.Override)}
	switch x.MatchKind {
	case pg.MergeMatchKind_MERGE_WHEN_MATCHED:
		w.Match = MergeMatched
	case pg.MergeMatchKind_MERGE_WHEN_NOT_MATCHED_BY_SOURCE:
		w.Match = MergeNotMatchedBySource
	case pg.MergeMatchKind_MERGE_WHEN_NOT_MATCHED_BY_TARGET:
		w.Match = MergeNotMatchedByTarget
	default:
		c.unknown("a WHEN of kind %s", x.MatchKind)
	}
	then := t.thenOf(r)
	condition, action := nowhere, nowhere
	if then >= 0 {
		action = region{then + 1, r.hi}
		if and := t.find(region{r.lo, then}, "and"); and >= 0 {
			condition = region{and + 1, then}
		}
	}
	w.Condition = c.condition(x.Condition, ClauseWhen, condition)
	switch x.CommandType {
	case pg.CmdType_CMD_NOTHING:
		w.Action = MergeNothing
	case pg.CmdType_CMD_DELETE:
		w.Action = MergeDelete
	case pg.CmdType_CMD_UPDATE:
		w.Action = MergeUpdate
		m := t.clauses(action, "set")
		w.Set = c.assignments(x.TargetList, m.behind(t, "set"), ClauseSet)
	case pg.CmdType_CMD_INSERT:
		c.whenInsert(&w, x, action)
	default:
		c.unknown("a WHEN with command %s", x.CommandType)
	}
	return w
}

// whenInsert reads the INSERT of a WHEN.
func (c *scoper) whenInsert(w *MergeWhen, x *pg.MergeWhenClause, r region) {
	t := c.sh.text
	w.Action, w.HasColumns = MergeInsert, len(x.TargetList) > 0
	c.clause = ClauseValues
	if w.HasColumns {
		w.Columns = c.targetColumns(x.TargetList)
	}
	w.Values = c.rowValues(x.Values)
	at := t.find(r, "values")
	if at < 0 || !t.opens(at+1) || t.pair(at+1) < 0 {
		return
	}
	w.ValuesSpan = t.span(at+1, t.pair(at+1))
	c.fillItems(w.Values, t.group(at+1))
}

// thenOf finds the THEN of a WHEN clause, outside of CASE.
func (t *shapeText) thenOf(r region) int {
	for i := r.lo; r.known() && i < r.hi; i = t.skip(i) {
		if t.is(i, "case") {
			if e := t.caseExtent(t.toks[i].start); e.ok() {
				i = e.last
			}
			continue
		}
		if t.is(i, "then") && !t.point(i-1) {
			return i
		}
	}
	return -1
}

package query

import pg "github.com/pganalyze/pg_query_go/v6"

// extent is the run of tokens of an expression, without parentheses around it.
// It is only given when it is exact.
type extent struct{ first, last int }

var noExtent = extent{-1, -1}

func (e extent) ok() bool { return e.first >= 0 && e.last >= e.first }

func (t *shapeText) extentSpan(e extent) Span {
	if !e.ok() {
		return Span{}
	}
	return t.span(e.first, e.last)
}

// extent locates an expression. The tree knows where tokens start; ends are
// read from the text, and each piece must touch the next.
func (t *shapeText) extent(n *pg.Node) extent {
	switch x := n.GetNode().(type) {
	case *pg.Node_AConst:
		return t.constantExtent(t.at(x.AConst.Location))
	case *pg.Node_ParamRef:
		return t.single(x.ParamRef.Location)
	case *pg.Node_SetToDefault:
		return t.single(x.SetToDefault.Location)
	case *pg.Node_ColumnRef:
		return t.columnExtent(x.ColumnRef)
	case *pg.Node_TypeCast:
		return t.castExtent(x.TypeCast)
	case *pg.Node_CollateClause:
		return t.collateExtent(x.CollateClause)
	case *pg.Node_FuncCall:
		return t.callExtent(x.FuncCall)
	case *pg.Node_AExpr:
		return t.operatorExtent(x.AExpr)
	case *pg.Node_AArrayExpr:
		return t.keywordGroup(x.AArrayExpr.Location, "array")
	case *pg.Node_CoalesceExpr:
		return t.keywordGroup(x.CoalesceExpr.Location, "coalesce")
	case *pg.Node_MinMaxExpr:
		return t.keywordGroup(x.MinMaxExpr.Location, "greatest", "least")
	case *pg.Node_RowExpr:
		return t.rowExtent(x.RowExpr.Location)
	case *pg.Node_SubLink:
		return t.sublinkExtent(x.SubLink)
	case *pg.Node_CaseExpr:
		return t.caseExtent(x.CaseExpr.Location)
	case *pg.Node_SqlvalueFunction:
		return t.valueFunctionExtent(x.SqlvalueFunction.Location)
	}
	return noExtent
}

func (t *shapeText) single(location int32) extent {
	i := t.at(location)
	return extent{i, i}
}

// constantExtent reads a constant and the signs in front of it: the grammar
// folds them into the number and gives the first sign's place.
func (t *shapeText) constantExtent(i int) extent {
	if i < 0 || !t.operator(i, "-") {
		if k := t.kind(i); k == tokUString || k == tokBad || k == tokEnd {
			return noExtent
		}
		return extent{i, i}
	}
	last := i
	for t.operator(last, "-") || t.opens(last) {
		last++
	}
	if k := t.kind(last); k != tokInt && k != tokFloat {
		return noExtent
	}
	return t.closeOpened(extent{i, last})
}

// closeOpened takes in the closing parentheses of those that e opens.
func (t *shapeText) closeOpened(e extent) extent {
	for i := e.last; i >= e.first; i-- {
		if t.opens(i) && t.pair(i) > e.last {
			if t.pair(i) != e.last+1 {
				return noExtent
			}
			e.last = t.pair(i)
		}
	}
	return e
}

func (t *shapeText) columnExtent(c *pg.ColumnRef) extent {
	i := t.at(c.Location)
	last := t.name(i)
	if last < 0 || last-i != 2*(len(c.Fields)-1) {
		return noExtent
	}
	return extent{i, last}
}

// wrapLeft widens an operand by the parentheses between it and the token next,
// which follows it.
func (t *shapeText) wrapLeft(e extent, next int) extent {
	for e.ok() && e.last+1 < next {
		if !t.closes(e.last+1) || !t.opens(e.first-1) || t.pair(e.first-1) != e.last+1 {
			return noExtent
		}
		e = extent{e.first - 1, e.last + 1}
	}
	if e.last+1 != next {
		return noExtent
	}
	return e
}

// wrapRight widens an operand by the parentheses between it and the token
// before it.
func (t *shapeText) wrapRight(e extent, before int) extent {
	for e.ok() && e.first-1 > before {
		if !t.opens(e.first-1) || t.pair(e.first-1) != e.last+1 {
			return noExtent
		}
		e = extent{e.first - 1, e.last + 1}
	}
	if e.first-1 != before {
		return noExtent
	}
	return e
}

// castExtent reads value::type, CAST(value AS type) and type 'value'.
func (t *shapeText) castExtent(c *pg.TypeCast) extent {
	if c.Location >= 0 {
		i := t.at(c.Location)
		if t.is(i, "cast") {
			return t.groupAfter(i, i+1)
		}
		if !t.operator(i, "::") {
			return noExtent
		}
		e := t.wrapLeft(t.extent(c.Arg), i)
		end := t.typeEnd(t.at(c.TypeName.GetLocation()))
		if !e.ok() || t.at(c.TypeName.GetLocation()) != i+1 || end < 0 {
			return noExtent
		}
		return extent{e.first, end}
	}
	e, first := t.extent(c.Arg), t.at(c.TypeName.GetLocation())
	if first >= 0 && e == (extent{first, first}) && t.kind(first) == tokNational {
		return e
	}
	if !e.ok() || first < 0 || first >= e.first {
		return noExtent
	}
	if last := c.TypeName.Names; last[len(last)-1].GetString_().GetSval() == "interval" {
		e.last = t.fieldsEnd(e.last)
	} else if t.typeEnd(first)+1 != e.first && !t.opens(t.name(first)+1) {
		return noExtent
	}
	return extent{first, e.last}
}

// groupAfter returns the extent from first to the end of the parentheses (or
// brackets) that open at i.
func (t *shapeText) groupAfter(first, i int) extent {
	if t.kind(i) != tokOpen || t.pair(i) < 0 {
		return noExtent
	}
	return extent{first, t.pair(i)}
}

// typeEnd returns the last token of the type name that begins at i, -1 when it
// is of a form that is not followed.
func (t *shapeText) typeEnd(i int) int {
	last := t.name(i)
	if last < 0 || t.is(i, "setof") {
		return -1
	}
	switch {
	case last > i: // qualified: no further words
	case t.is(i, "double"):
		last++
	case t.is(i, "national"):
		last++
		fallthrough
	case t.is(i, "character", "char", "nchar", "bit"):
		if t.is(last+1, "varying") {
			last++
		}
	case t.is(i, "interval"):
		return t.dimensionsEnd(t.fieldsEnd(t.modifiersEnd(last)))
	case t.is(i, "timestamp", "time"):
		last = t.modifiersEnd(last)
		if t.is(last+1, "with", "without") && t.is(last+2, "time") {
			last += 3
		}
		return t.dimensionsEnd(last)
	}
	if t.operator(last+1, "%") {
		return -1
	}
	return t.dimensionsEnd(t.modifiersEnd(last))
}

func (t *shapeText) modifiersEnd(last int) int {
	if t.opens(last+1) && t.pair(last+1) > 0 {
		return t.pair(last + 1)
	}
	return last
}

func (t *shapeText) dimensionsEnd(last int) int {
	if t.is(last+1, "array") {
		last++
	}
	for t.brackets(last+1) && t.pair(last+1) > 0 {
		last = t.pair(last + 1)
	}
	return last
}

// fieldsEnd takes in the fields of an interval behind last.
func (t *shapeText) fieldsEnd(last int) int {
	for t.is(last+1, "year", "month", "day", "hour", "minute", "second", "to") {
		last++
		if t.is(last, "second") {
			last = t.modifiersEnd(last)
		}
	}
	return last
}

func (t *shapeText) collateExtent(c *pg.CollateClause) extent {
	i := t.at(c.Location)
	if !t.is(i, "collate") {
		return noExtent
	}
	e, last := t.wrapLeft(t.extent(c.Arg), i), t.name(i+1)
	if !e.ok() || last < 0 {
		return noExtent
	}
	return extent{e.first, last}
}

// callExtent reads name(...), also the special forms that are a name with
// parentheses; what may follow those is not read.
func (t *shapeText) callExtent(c *pg.FuncCall) extent {
	if c.AggFilter != nil || c.Over != nil || c.AggWithinGroup {
		return noExtent
	}
	return t.callHead(c)
}

// callHead is a call without what may stand behind its parentheses.
func (t *shapeText) callHead(c *pg.FuncCall) extent {
	i := t.at(c.Location)
	last := t.name(i)
	if t.collationFor(i) {
		last++
	}
	if last < 0 {
		return noExtent
	}
	if t.is(i, "at", "overlaps", "is") {
		return noExtent // operators that the grammar turns into calls
	}
	return t.groupAfter(i, last+1)
}

// operatorExtent reads left op right and op right.
func (t *shapeText) operatorExtent(x *pg.A_Expr) extent {
	if x.Kind != pg.A_Expr_Kind_AEXPR_OP {
		return noExtent
	}
	i := t.at(x.Location)
	last := i
	switch {
	case t.is(i, "operator"):
		last = t.groupAfter(i, i+1).last
	case t.kind(i) != tokOp:
		return noExtent
	}
	right := t.extent(x.Rexpr)
	if last < 0 || !right.ok() {
		return noExtent
	}
	right = t.wrapRight(right, last)
	if x.Lexpr == nil {
		return extent{i, right.last}
	}
	left := t.extent(x.Lexpr)
	if !left.ok() || !right.ok() {
		return noExtent
	}
	if left = t.wrapLeft(left, i); !left.ok() {
		return noExtent
	}
	return extent{left.first, right.last}
}

// keywordGroup reads a keyword and its parentheses.
func (t *shapeText) keywordGroup(location int32, words ...string) extent {
	i := t.at(location)
	if t.is(i, words...) {
		return t.groupAfter(i, i+1)
	}
	return noExtent // an array within an array
}

// rowExtent reads ROW(...) and (a, b).
func (t *shapeText) rowExtent(location int32) extent {
	i := t.at(location)
	if t.is(i, "row") {
		return t.groupAfter(i, i+1)
	}
	if t.opens(i) {
		return t.groupAfter(i, i)
	}
	return noExtent
}

// caseExtent reads CASE ... END.
func (t *shapeText) caseExtent(location int32) extent {
	i := t.at(location)
	if !t.is(i, "case") {
		return noExtent
	}
	open := 0
	for last := i; last < len(t.toks); last = t.skip(last) {
		switch {
		case t.point(last-1) || t.kind(last) == tokClose:
			if t.kind(last) == tokClose {
				return noExtent
			}
		case t.is(last, "case"):
			open++
		case t.is(last, "end"):
			if open--; open == 0 {
				return extent{i, last}
			}
		}
	}
	return noExtent
}

// valueFunctionExtent reads CURRENT_DATE, CURRENT_TIMESTAMP(3) and the like.
func (t *shapeText) valueFunctionExtent(location int32) extent {
	i := t.at(location)
	if t.kind(i) != tokWord {
		return noExtent
	}
	return extent{i, t.modifiersEnd(i)}
}

// sublinkExtent reads (SELECT ...), EXISTS (...) and ARRAY(...).
func (t *shapeText) sublinkExtent(x *pg.SubLink) extent {
	i := t.at(x.Location)
	switch x.SubLinkType {
	case pg.SubLinkType_EXPR_SUBLINK:
		if t.opens(i) {
			return t.groupAfter(i, i)
		}
	case pg.SubLinkType_EXISTS_SUBLINK, pg.SubLinkType_ARRAY_SUBLINK:
		if t.is(i, "exists", "array") && t.opens(i+1) {
			return t.groupAfter(i, i+1)
		}
	}
	return noExtent
}

// collationFor says whether COLLATION FOR begins at i.
func (t *shapeText) collationFor(i int) bool { return t.is(i, "collation") && t.is(i+1, "for") }

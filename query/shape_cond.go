package query

import pg "github.com/pganalyze/pg_query_go/v6"

// condition reads a clause; nil for none.
func (c *scoper) condition(n *pg.Node, clause Clause, r region) *Condition {
	if n == nil {
		return nil
	}
	clauseWas, conjunctWas := c.clause, c.conjunct
	c.clause, c.conjunct = clause, true
	cond := &Condition{Facts: c.facts(nil, n, false), Span: c.sh.text.spanOf(r)}
	c.clause, c.conjunct = clauseWas, conjunctWas
	return cond
}

// facts appends the conjuncts of n, or of NOT n. Only what PostgreSQL's
// three-valued logic makes equal for the rows that pass is taken apart.
func (c *scoper) facts(out []Fact, n *pg.Node, not bool) []Fact {
	switch x := n.GetNode().(type) {
	case *pg.Node_BoolExpr:
		return c.boolFacts(out, x.BoolExpr, not)
	case *pg.Node_AExpr:
		return c.operatorFacts(out, n, x.AExpr, not)
	case *pg.Node_ColumnRef:
		v := c.value(n)
		if v.Kind != ValueColumn {
			return append(out, c.unknownFact(&v))
		}
		is := Value{Kind: ValueBool, Bool: !not, Literal: -1}
		return append(out, Fact{Kind: FactEqual, Op: Name{Name: "=", Args: 2}, Column: v.Column, Value: is})
	case *pg.Node_NullTest:
		return append(out, c.nullFact(n, x.NullTest, not))
	case *pg.Node_BooleanTest:
		return c.booleanFacts(out, n, x.BooleanTest, not)
	case *pg.Node_AConst:
		v := c.constant(x.AConst)
		if v.Kind == ValueBool || v.Kind == ValueNull {
			v.Bool = v.Kind == ValueBool && v.Bool != not
			return append(out, Fact{Kind: FactConstant, Value: v})
		}
		return append(out, c.unknownFact(&v))
	case *pg.Node_SubLink:
		before := len(c.s.Sublinks)
		v := c.value(n)
		if !not && len(c.s.Sublinks) > before {
			// The last one is this one: those in its test come before it.
			c.s.Sublinks[len(c.s.Sublinks)-1].Conjunct = c.conjunct
		}
		return append(out, c.unknownFact(&v))
	}
	v := c.value(n)
	return append(out, c.unknownFact(&v))
}

// boolFacts takes AND, OR and NOT.
func (c *scoper) boolFacts(out []Fact, x *pg.BoolExpr, not bool) []Fact {
	switch {
	case x.Boolop == pg.BoolExprType_NOT_EXPR:
		return c.facts(out, x.Args[0], !not)
	case (x.Boolop == pg.BoolExprType_AND_EXPR) != not:
		for _, a := range x.Args {
			out = c.facts(out, a, not)
		}
		return out
	}
	was := c.conjunct
	c.conjunct = false
	or := Fact{Kind: FactOr, Branches: make([][]Fact, 0, len(x.Args))}
	for _, a := range x.Args {
		or.Branches = append(or.Branches, c.facts(nil, a, not))
	}
	c.conjunct = was
	return append(out, or)
}

func (c *scoper) nullFact(n *pg.Node, x *pg.NullTest, not bool) Fact {
	v := c.value(x.Arg)
	if v.Kind == ValueColumn && !not {
		// NOT (a IS NULL) is not a IS NOT NULL when a is a row.
		f := Fact{Kind: FactNull, Column: v.Column, Collation: v.Collation()}
		if x.Nulltesttype == pg.NullTestType_IS_NOT_NULL {
			f.Kind = FactNotNull
		}
		return f
	}
	return c.unknownFact(&v)
}

// booleanFacts takes IS TRUE and its like. Only those that are true for exactly
// the rows that pass their argument, or its negation, are taken apart.
func (c *scoper) booleanFacts(out []Fact, n *pg.Node, x *pg.BooleanTest, not bool) []Fact {
	switch test := x.Booltesttype; {
	case !not && test == pg.BoolTestType_IS_TRUE, not && test == pg.BoolTestType_IS_NOT_TRUE:
		return c.facts(out, x.Arg, false)
	case !not && test == pg.BoolTestType_IS_FALSE, not && test == pg.BoolTestType_IS_NOT_FALSE:
		return c.facts(out, x.Arg, true)
	case !not && test == pg.BoolTestType_IS_UNKNOWN && x.Arg.GetColumnRef() != nil:
		return append(out, c.nullFact(n, &pg.NullTest{Arg: x.Arg, Nulltesttype: pg.NullTestType_IS_NULL}, false))
	}
	v := c.value(x.Arg)
	return append(out, c.unknownFact(&v))
}

// unknownFact keeps what values consist of.
func (c *scoper) unknownFact(values ...*Value) Fact {
	e := &Expr{}
	for _, v := range values {
		c.absorb(e, v)
	}
	return Fact{Kind: FactUnknown, Expr: e}
}

// operatorFacts takes comparisons.
func (c *scoper) operatorFacts(out []Fact, n *pg.Node, x *pg.A_Expr, not bool) []Fact {
	op := qualified(x.Name, 2)
	switch x.Kind {
	case pg.A_Expr_Kind_AEXPR_OP:
		if !not && x.Lexpr != nil && (op.Name == "=" || ordering(op.Name) != 0) {
			return c.compareFacts(out, op, x.Lexpr, x.Rexpr, false)
		}
	case pg.A_Expr_Kind_AEXPR_NOT_DISTINCT:
		if !not {
			return c.compareFacts(out, op, x.Lexpr, x.Rexpr, true)
		}
	case pg.A_Expr_Kind_AEXPR_DISTINCT:
		if not {
			return c.compareFacts(out, op, x.Lexpr, x.Rexpr, true)
		}
	case pg.A_Expr_Kind_AEXPR_OP_ANY:
		if !not && op.Name == "=" {
			return append(out, c.anyFact(op, x))
		}
	case pg.A_Expr_Kind_AEXPR_IN:
		if !not && op.Name == "=" {
			return append(out, c.inFact(op, x))
		}
	case pg.A_Expr_Kind_AEXPR_BETWEEN:
		if !not && len(x.Rexpr.GetList().GetItems()) == 2 {
			return c.betweenFacts(out, x)
		}
	}
	v := c.value(n)
	return append(out, c.unknownFact(&v))
}

// ordering returns what an ordering operator says; 0 for any other.
func ordering(op string) Compare {
	switch op {
	case "<":
		return CompareLess
	case "<=":
		return CompareLessEqual
	case ">":
		return CompareGreater
	case ">=":
		return CompareGreaterEqual
	}
	return 0
}

// compareFacts takes left op right; rows are compared field by field where op is equality.
func (c *scoper) compareFacts(out []Fact, op Name, left, right *pg.Node, nullSafe bool) []Fact {
	l, r := left.GetRowExpr(), right.GetRowExpr()
	if l == nil && r == nil {
		lv, rv := c.value(left), c.value(right)
		return append(out, c.compareFact(op, &lv, &rv, nullSafe))
	}
	if l == nil || r == nil || len(l.Args) != len(r.Args) || op.Name != "=" || nests(l.Args) || nests(r.Args) {
		lv, rv := c.value(left), c.value(right)
		f := c.unknownFact(&lv, &rv)
		addName(&f.Expr.Operators, op)
		return append(out, f)
	}
	for i := range l.Args {
		lv, rv := c.value(l.Args[i]), c.value(r.Args[i])
		out = append(out, c.compareFact(op, &lv, &rv, nullSafe))
	}
	return out
}

// nests says whether rows stand in a row, which are compared by another
// operator, or stars, which stand for several fields.
func nests(list []*pg.Node) bool {
	for _, n := range list {
		if n.GetRowExpr() != nil {
			return true
		}
	}
	return starred(list)
}

// starred says whether one of the expressions is t.* or (r).*, which a list of
// expressions takes for as many as there are columns.
func starred(list []*pg.Node) bool {
	for _, n := range list {
		fields := n.GetColumnRef().GetFields()
		if len(fields) == 0 {
			fields = n.GetAIndirection().GetIndirection()
		}
		if len(fields) > 0 && fields[len(fields)-1].GetAStar() != nil {
			return true
		}
	}
	return false
}

// compareFact takes left op right when one of them is a column.
func (c *scoper) compareFact(op Name, left, right *Value, nullSafe bool) Fact {
	f := Fact{Kind: FactEqual, Op: op, NullSafe: nullSafe, Compare: ordering(op.Name)}
	if f.Compare != 0 {
		f.Kind = FactCompare
	}
	switch {
	case left.Kind == ValueColumn:
		f.Column, f.Collation, f.Value = left.Column, left.Collation(), *right
	case right.Kind == ValueColumn:
		f.Column, f.Collation, f.Value, f.Swapped = right.Column, right.Collation(), *left, true
		f.Compare = f.Compare.mirrored()
	default:
		f = c.unknownFact(left, right)
		addName(&f.Expr.Operators, op)
	}
	return f
}

// mirrored is the comparison with its sides exchanged.
func (c Compare) mirrored() Compare {
	switch c {
	case CompareLess:
		return CompareGreater
	case CompareLessEqual:
		return CompareGreaterEqual
	case CompareGreater:
		return CompareLess
	case CompareGreaterEqual:
		return CompareLessEqual
	}
	return c
}

// betweenFacts takes BETWEEN, which is >= and <= by PostgreSQL's own grammar.
func (c *scoper) betweenFacts(out []Fact, x *pg.A_Expr) []Fact {
	bounds := x.Rexpr.GetList().GetItems()
	v, low, high := c.value(x.Lexpr), c.value(bounds[0]), c.value(bounds[1])
	from := c.compareFact(Name{Name: ">=", Args: 2}, &v, &low, false)
	to := c.compareFact(Name{Name: "<=", Args: 2}, &v, &high, false)
	if x.Lexpr.GetRowExpr() != nil {
		from, to = c.unknownFact(&v, &low), c.unknownFact(&v, &high)
	}
	return append(out, from, to)
}

// anyFact takes left = ANY (array).
func (c *scoper) anyFact(op Name, x *pg.A_Expr) Fact {
	l, r := c.value(x.Lexpr), c.value(x.Rexpr)
	if l.Kind != ValueColumn || !r.fixed() {
		f := c.unknownFact(&l, &r)
		addName(&f.Expr.Operators, op)
		return f
	}
	return Fact{Kind: FactAny, Op: op, Column: l.Column, Collation: l.Collation(), Value: r}
}

// inFact takes left IN (list).
func (c *scoper) inFact(op Name, x *pg.A_Expr) Fact {
	items := x.Rexpr.GetList().GetItems()
	if row := x.Lexpr.GetRowExpr(); row != nil {
		return c.tuplesFact(op, x, row, items)
	}
	l, list := c.value(x.Lexpr), c.values(items)
	fixed, column := true, l.Kind == ValueColumn
	for i := range list {
		fixed = fixed && list[i].fixed() && list[i].Kind != ValueRow
		column = column || list[i].Kind == ValueColumn
	}
	if l.Kind == ValueColumn && fixed {
		return Fact{Kind: FactIn, Op: op, Column: l.Column, Collation: l.Collation(), Values: list}
	}
	if l.Kind == ValueExpr || l.Kind == ValueRow || !column {
		return c.unknownIn(op, &l, list)
	}
	or := Fact{Kind: FactOr}
	for i := range list {
		or.Branches = append(or.Branches, []Fact{c.compareFact(op, &l, &list[i], false)})
	}
	return or
}

func (c *scoper) unknownIn(op Name, l *Value, list []Value) Fact {
	f := c.unknownFact(l)
	for i := range list {
		c.absorb(f.Expr, &list[i])
	}
	addName(&f.Expr.Operators, op)
	return f
}

// tuplesFact takes (columns) IN (rows).
func (c *scoper) tuplesFact(op Name, x *pg.A_Expr, row *pg.RowExpr, items []*pg.Node) Fact {
	left := c.values(row.Args)
	f := Fact{Kind: FactTuples, Op: op}
	for i := range left {
		if left[i].Kind == ValueColumn && left[i].Collation() == nil {
			f.Columns = append(f.Columns, *left[i].Column)
		}
	}
	good := len(f.Columns) == len(left) // a star is none
	var all []Value
	for _, item := range items {
		r := item.GetRowExpr()
		if r == nil || len(r.Args) != len(left) || starred(r.Args) {
			all = append(all, c.value(item))
			good = false
			continue
		}
		values := c.values(r.Args)
		for i := range values {
			good = good && values[i].fixed() && values[i].Kind != ValueRow
		}
		f.Tuples = append(f.Tuples, values)
	}
	if good && len(items) > 0 {
		return f
	}
	u := c.unknownFact()
	for _, list := range append([][]Value{left, all}, f.Tuples...) {
		for i := range list {
			c.absorb(u.Expr, &list[i])
		}
	}
	addName(&u.Expr.Operators, op)
	return u
}

package query

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// bag takes an expression apart into e.
func (c *scoper) bag(e *Expr, n *pg.Node) {
	if n == nil {
		return
	}
	switch x := n.Node.(type) {
	case *pg.Node_ColumnRef:
		e.Columns = append(e.Columns, c.column(x.ColumnRef))
	case *pg.Node_AConst:
		if v := c.constant(x.AConst); v.Kind == ValueLiteral {
			e.Values = append(e.Values, v)
		}
	case *pg.Node_ParamRef:
		e.Values = append(e.Values, c.value(n))
	case *pg.Node_AExpr:
		c.operators(e, x.AExpr)
		c.bag(e, x.AExpr.Lexpr)
		c.bag(e, x.AExpr.Rexpr)
	case *pg.Node_BoolExpr:
		c.bags(e, x.BoolExpr.Args)
	case *pg.Node_FuncCall:
		c.callBag(e, x.FuncCall)
	case *pg.Node_TypeCast:
		c.bag(e, x.TypeCast.Arg)
		c.typeBag(e, x.TypeCast.TypeName)
	case *pg.Node_CollateClause:
		c.bag(e, x.CollateClause.Arg)
	case *pg.Node_SubLink:
		c.sublink(e, x.SubLink, n)
	case *pg.Node_List:
		c.bags(e, x.List.Items)
	case *pg.Node_RowExpr:
		c.bags(e, x.RowExpr.Args)
	case *pg.Node_AArrayExpr:
		c.bags(e, x.AArrayExpr.Elements)
	case *pg.Node_CaseExpr:
		if x.CaseExpr.Arg != nil {
			addName(&e.Operators, Name{Name: "=", Args: 2})
		}
		c.bag(e, x.CaseExpr.Arg)
		c.bags(e, x.CaseExpr.Args)
		c.bag(e, x.CaseExpr.Defresult)
	case *pg.Node_CaseWhen:
		c.bag(e, x.CaseWhen.Expr)
		c.bag(e, x.CaseWhen.Result)
	case *pg.Node_CoalesceExpr:
		c.bags(e, x.CoalesceExpr.Args)
	case *pg.Node_NullTest:
		c.bag(e, x.NullTest.Arg)
	case *pg.Node_BooleanTest:
		c.bag(e, x.BooleanTest.Arg)
	case *pg.Node_AIndirection:
		c.bag(e, x.AIndirection.Arg)
		c.bags(e, x.AIndirection.Indirection)
	case *pg.Node_AIndices:
		c.bag(e, x.AIndices.Lidx)
		c.bag(e, x.AIndices.Uidx)
	case *pg.Node_String_, *pg.Node_AStar, *pg.Node_SetToDefault:
	default:
		c.rareBag(e, n)
	}
}

func (c *scoper) bags(e *Expr, list []*pg.Node) {
	for _, n := range list {
		c.bag(e, n)
	}
}

// rareBag takes the expressions that are seldom seen; anything that is none
// makes the scope unknown.
func (c *scoper) rareBag(e *Expr, n *pg.Node) {
	switch x := n.Node.(type) {
	case *pg.Node_MinMaxExpr:
		addName(&e.Operators, Name{Name: "<", Args: 2})
		addName(&e.Operators, Name{Name: ">", Args: 2})
		c.bags(e, x.MinMaxExpr.Args)
	case *pg.Node_SqlvalueFunction:
		e.Session = append(e.Session, c.sh.wordAt(x.SqlvalueFunction.Location))
	case *pg.Node_MergeSupportFunc:
		e.Session = append(e.Session, "merge_action")
	case *pg.Node_NamedArgExpr:
		c.bag(e, x.NamedArgExpr.Arg)
	case *pg.Node_GroupingFunc:
		c.s.parts().Aggregates = true
		e.Calls = append(e.Calls, Call{Name: Name{Name: "grouping", Args: len(x.GroupingFunc.Args)}, Star: true})
		c.bags(e, x.GroupingFunc.Args)
	case *pg.Node_GroupingSet:
		c.s.parts().GroupingSets = true
		c.bags(e, x.GroupingSet.Content)
	case *pg.Node_SortBy:
		if len(x.SortBy.UseOp) > 0 {
			addName(&e.Operators, qualified(x.SortBy.UseOp, 2))
		}
		c.bag(e, x.SortBy.Node)
	case *pg.Node_ResTarget: // named arguments of XMLFOREST and the like
		c.bag(e, x.ResTarget.Val)
		c.bags(e, x.ResTarget.Indirection)
	case *pg.Node_TypeName:
		c.typeBag(e, x.TypeName)
	case *pg.Node_CurrentOfExpr:
		c.s.CurrentOf = x.CurrentOfExpr.CursorName
	case *pg.Node_MultiAssignRef:
		c.bag(e, x.MultiAssignRef.Source)
	case *pg.Node_XmlExpr, *pg.Node_XmlSerialize, *pg.Node_JsonValueExpr, *pg.Node_JsonFormat,
		*pg.Node_JsonReturning, *pg.Node_JsonOutput, *pg.Node_JsonArgument, *pg.Node_JsonBehavior,
		*pg.Node_JsonObjectConstructor, *pg.Node_JsonArrayConstructor, *pg.Node_JsonKeyValue,
		*pg.Node_JsonObjectAgg, *pg.Node_JsonArrayAgg, *pg.Node_JsonAggConstructor,
		*pg.Node_JsonIsPredicate, *pg.Node_JsonParseExpr, *pg.Node_JsonScalarExpr,
		*pg.Node_JsonSerializeExpr, *pg.Node_JsonFuncExpr, *pg.Node_JsonTable, *pg.Node_JsonTableColumn,
		*pg.Node_JsonTablePathSpec, *pg.Node_RangeTableFunc, *pg.Node_RangeTableFuncCol, *pg.Node_ColumnDef:
		c.xmlOrJSON(e, message(n))
	case *pg.Node_JsonArrayQueryConstructor:
		c.arrayQuery(e, x.JsonArrayQueryConstructor)
	default:
		c.unexpected(n, "an expression")
	}
}

// xmlOrJSON takes the expressions of SQL/XML and SQL/JSON, field by field.
func (c *scoper) xmlOrJSON(e *Expr, m proto.Message) {
	if x, ok := m.(*pg.JsonAggConstructor); ok {
		c.aggregateJSON(e, x)
	} else if word := callWord(m); word != "" {
		e.Calls = append(e.Calls, Call{Name: Name{Name: word, Args: -1}})
	}
	r := m.ProtoReflect()
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if fd.Kind() != protoreflect.MessageKind || !r.Has(fd) {
			continue
		}
		if !fd.IsList() {
			c.bagField(e, r.Get(fd).Message().Interface())
			continue
		}
		list := r.Get(fd).List()
		for j := range list.Len() {
			c.bagField(e, list.Get(j).Message().Interface())
		}
	}
}

func (c *scoper) bagField(e *Expr, m proto.Message) {
	switch x := m.(type) {
	case *pg.Node:
		c.bag(e, x)
	case *pg.WindowDef:
		c.window(e, x)
	case *pg.TypeName:
		c.typeBag(e, x)
	case *pg.Alias:
	case *pg.CollateClause:
		c.bag(e, x.Arg)
	case *pg.JsonValueExpr, *pg.JsonFormat, *pg.JsonReturning, *pg.JsonOutput, *pg.JsonBehavior,
		*pg.JsonKeyValue, *pg.JsonAggConstructor, *pg.JsonTablePathSpec:
		c.xmlOrJSON(e, m)
	default:
		c.unknown("%s in an expression", m.ProtoReflect().Descriptor().Name())
	}
}

// callWord names what an expression of SQL/XML or SQL/JSON calls.
func callWord(m proto.Message) string {
	switch m.(type) {
	case *pg.XmlExpr:
		return "xml"
	case *pg.XmlSerialize:
		return "xmlserialize"
	case *pg.JsonObjectConstructor:
		return "json_object"
	case *pg.JsonArrayConstructor:
		return "json_array"
	case *pg.JsonParseExpr:
		return "json"
	case *pg.JsonScalarExpr:
		return "json_scalar"
	case *pg.JsonSerializeExpr:
		return "json_serialize"
	case *pg.JsonFuncExpr:
		return "json_query"
	case *pg.JsonIsPredicate:
		return "is json"
	}
	return ""
}

func (c *scoper) aggregateJSON(e *Expr, x *pg.JsonAggConstructor) {
	call := Call{Name: Name{Name: "json_agg", Args: -1}, Star: true, Over: x.Over != nil,
		Filtered: x.AggFilter != nil, Ordered: len(x.AggOrder) > 0}
	e.Calls = append(e.Calls, call)
	c.noteCall(&call)
}

// arrayQuery takes JSON_ARRAY(SELECT ...), a sublink that the grammar has not made one yet.
func (c *scoper) arrayQuery(e *Expr, x *pg.JsonArrayQueryConstructor) {
	if x.Output != nil {
		c.xmlOrJSON(e, x.Output)
	}
	if x.Format != nil {
		c.xmlOrJSON(e, x.Format)
	}
	c.addSublink(e, &Sublink{Kind: SublinkArray}, x.Query, -1) // other words may follow the query
}

// callBag takes a function call.
func (c *scoper) callBag(e *Expr, x *pg.FuncCall) {
	call := Call{
		Name: qualified(x.Funcname, callArgs(x)), Star: x.AggStar, Distinct: x.AggDistinct,
		Ordered: len(x.AggOrder) > 0, Filtered: x.AggFilter != nil, Within: x.AggWithinGroup, Over: x.Over != nil,
	}
	call.Args = c.callValues(x)
	e.Calls = append(e.Calls, call)
	c.noteCall(&call)
	c.bags(e, x.Args)
	c.bags(e, x.AggOrder)
	c.bag(e, x.AggFilter)
	if x.Over != nil {
		c.window(e, x.Over)
	}
}

// callValues returns the arguments of a call, nil when some stand by name.
func (c *scoper) callValues(x *pg.FuncCall) []Value {
	if x.FuncVariadic || len(x.Args) == 0 {
		return nil
	}
	out := make([]Value, len(x.Args))
	for i, n := range x.Args {
		bare := n
		if cast := n.GetTypeCast(); cast != nil {
			bare = cast.Arg
		}
		switch {
		case n.GetNamedArgExpr() != nil:
			return nil
		case bare.GetAConst() != nil || bare.GetParamRef() != nil:
			out[i] = c.value(n)
		default:
			out[i] = Value{Kind: ValueExpr, Literal: -1}
		}
	}
	return out
}

// noteCall tells the scope of what the syntax of a call proves.
func (c *scoper) noteCall(call *Call) {
	if call.aggregate() {
		c.s.parts().Aggregates = true
	}
	if call.Over {
		c.s.parts().Windows = true
	}
}

func (c *scoper) window(e *Expr, w *pg.WindowDef) {
	c.bags(e, w.PartitionClause)
	c.bags(e, w.OrderClause)
	c.bag(e, w.StartOffset)
	c.bag(e, w.EndOffset)
}

// operators notes the operators that an A_Expr stands for.
func (c *scoper) operators(e *Expr, x *pg.A_Expr) {
	w := walker{}
	w.operatorExpr(x)
	for _, n := range w.operators.list {
		addName(&e.Operators, n)
	}
}

// typeBag notes a type and what its modifiers consist of.
func (c *scoper) typeBag(e *Expr, t *pg.TypeName) {
	if t == nil {
		return
	}
	addName(&e.Types, c.sh.typeNamed(t))
	c.bags(e, t.Typmods)
}

// absorb takes a value that stands alone into e.
func (c *scoper) absorb(e *Expr, v *Value) {
	switch v.Kind {
	case ValueColumn:
		e.Columns = append(e.Columns, *v.Column)
	case ValueLiteral, ValueParam:
		bare := *v
		if bare.Detail != nil {
			bare.Span, bare.Detail = bare.Detail.Bare, nil
		}
		e.Values = append(e.Values, bare)
	}
	if v.Detail == nil {
		return
	}
	for i := range v.Detail.Elements {
		c.absorb(e, &v.Detail.Elements[i])
	}
	for _, t := range v.Detail.Casts {
		addName(&e.Types, t.Name)
		for i := range t.Modifiers {
			c.absorb(e, &t.Modifiers[i])
		}
	}
	if x := v.Detail.Expr; x != nil {
		e.Columns = append(e.Columns, x.Columns...)
		e.Values = append(e.Values, x.Values...)
		e.Calls = append(e.Calls, x.Calls...)
		e.Session = append(e.Session, x.Session...)
		e.Sublinks = append(e.Sublinks, x.Sublinks...)
		for _, n := range x.Operators {
			addName(&e.Operators, n)
		}
		for _, n := range x.Types {
			addName(&e.Types, n)
		}
	}
}

// addName adds a name once.
func addName(list *[]Name, n Name) {
	for _, have := range *list {
		if have == n {
			return
		}
	}
	*list = append(*list, n)
}

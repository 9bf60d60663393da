package query

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Grouping is what the target list, HAVING and ORDER BY of a grouped SELECT consist of: keys
// of its groups, and aggregates.
type Grouping struct {
	// Parts are the places where a key or an aggregate stands, in their order in the text.
	Parts      []GroupPart
	Aggregates []AggregateCall
	// Distinct are the different arguments of aggregates with DISTINCT.
	Distinct []DistinctArgument
}

// GroupPart is one place.
type GroupPart struct {
	Place
	// Key or Aggregate is its number, from 0; the other is -1. Output is set instead, from 1,
	// where ORDER BY names an output.
	Key, Aggregate, Output int
}

// AggregateCall is one aggregate.
type AggregateCall struct {
	// Call is all of it, with its FILTER; Args what stands in its parentheses, Filter the
	// FILTER with its keyword and Where the condition in it.
	Call, Args, Filter, Where Place
	Name                      Name
	Star                      bool
	// Plain is set when it has neither ORDER BY, VARIADIC, WITHIN GROUP nor arguments by name. Untyped is set when
	// an argument is a literal or a parameter, whose type may be the aggregate's to say.
	Plain, Untyped bool
	// Distinct is set for DISTINCT, which is not in Args. Argument is the number of what it is about
	// in Grouping.Distinct, from 0; -1 when that is no value that could be had as a column.
	Distinct bool
	Argument int
}

// DistinctArgument is the only argument of an aggregate with DISTINCT. Column is set when it is one, or looks like one: a
// table's name means its rows.
type DistinctArgument struct {
	Place
	Column *Column
	node   *pg.Node
}

// GroupByTargets makes the targets of a SELECT DISTINCT its keys.
func (o *Outline) GroupByTargets() {
	for i := range o.Targets {
		o.keys, o.GroupKeys = append(o.keys, o.Targets[i].node), append(o.GroupKeys, o.Targets[i].Expr)
	}
}

// TakeApart reads the expressions of a grouped SELECT. aggregate says whether a function is
// one; same whether two names mean the same column. ok is false when anything but keys and
// aggregates makes them, or cannot be located exactly.
func (o *Outline) TakeApart(aggregate func(Name) bool, same func(a, b *Column) bool) (g *Grouping, ok bool) {
	if o.GroupingSets || o.Window || o.DistinctOn {
		return nil, false
	}
	a := &apart{o: o, aggregate: aggregate, same: same, g: &Grouping{}}
	for i := range o.Targets {
		t := &o.Targets[i]
		if t.Star || !a.whole(t.node, t.Expr) {
			return nil, false
		}
	}
	if o.Having.There() && !a.node(o.tree.HavingClause) {
		return nil, false
	}
	for i := range o.SortKeys {
		k := &o.SortKeys[i]
		switch {
		case k.Using:
			return nil, false
		case k.Output > 0:
			a.g.Parts = append(a.g.Parts, GroupPart{Place: k.Item, Key: -1, Aggregate: -1, Output: k.Output})
		case !a.whole(k.node, k.Item):
			return nil, false
		}
	}
	return a.g, true
}

// apart takes expressions apart.
type apart struct {
	o         *Outline
	aggregate func(Name) bool
	same      func(a, b *Column) bool
	g         *Grouping
}

// whole takes an expression whose place is known.
func (a *apart) whole(n *pg.Node, at Place) bool {
	if key := a.key(n); key >= 0 {
		a.g.Parts = append(a.g.Parts, GroupPart{Place: at, Key: key, Aggregate: -1})
		return true
	}
	return a.node(n)
}

// untyped reports whether an expression may have no type of its own.
func untyped(n *pg.Node) bool { return n.GetAConst() != nil || n.GetParamRef() != nil }

// key returns the key that an expression is, -1 for none.
func (a *apart) key(n *pg.Node) int {
	if untyped(n) {
		return -1
	}
	for i, k := range a.o.keys {
		x, y := n.GetColumnRef(), k.GetColumnRef()
		if x != nil && y != nil {
			if p, q := columnOf(x), columnOf(y); p != nil && q != nil && (*p == *q || a.same(p, q)) {
				return i
			}
			continue
		}
		if x == nil && y == nil && equalTrees(n, k) {
			return i
		}
	}
	return -1
}

// equalTrees reports whether two expressions are written alike.
func equalTrees(a, b *pg.Node) bool {
	x, y := proto.Clone(a), proto.Clone(b)
	clearLocations(x.ProtoReflect())
	clearLocations(y.ProtoReflect())
	return proto.Equal(x, y)
}

// node takes an expression, and what is inside it.
func (a *apart) node(n *pg.Node) bool {
	t := a.o.text
	if key := a.key(n); key >= 0 {
		e := t.extent(n)
		if !e.ok() {
			return false
		}
		a.g.Parts = append(a.g.Parts, GroupPart{Place: t.place(region{e.first, e.last + 1}), Key: key, Aggregate: -1})
		return true
	}
	switch x := n.GetNode().(type) {
	case *pg.Node_ColumnRef, *pg.Node_SubLink, *pg.Node_GroupingFunc, *pg.Node_JsonArrayAgg, *pg.Node_JsonObjectAgg:
		return false
	case *pg.Node_FuncCall:
		if x.FuncCall.Over == nil && a.aggregate(qualified(x.FuncCall.Funcname, callArgs(x.FuncCall))) {
			return a.call(x.FuncCall)
		}
	}
	return a.inside(n.ProtoReflect())
}

// inside takes all expressions in a node.
func (a *apart) inside(m protoreflect.Message) bool {
	ok := true
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() != protoreflect.MessageKind {
			return true
		}
		if !fd.IsList() {
			ok = ok && a.message(v.Message())
			return ok
		}
		for i := range v.List().Len() {
			ok = ok && a.message(v.List().Get(i).Message())
		}
		return ok
	})
	return ok
}

func (a *apart) message(m protoreflect.Message) bool {
	if n, is := m.Interface().(*pg.Node); is {
		return a.node(n)
	}
	return a.inside(m)
}

// call takes an aggregate.
func (a *apart) call(x *pg.FuncCall) bool {
	t := a.o.text
	e := t.callHead(x)
	if !e.ok() {
		return false
	}
	open := t.name(t.at(x.Location)) + 1
	if !t.opens(open) || t.pair(open) != e.last {
		return false
	}
	c := AggregateCall{
		Name: qualified(x.Funcname, callArgs(x)), Star: x.AggStar,
		Plain:    len(x.AggOrder) == 0 && !x.AggWithinGroup && !x.FuncVariadic,
		Distinct: x.AggDistinct, Argument: -1,
	}
	args := region{open + 1, e.last}
	if t.is(args.lo, "distinct", "all") {
		args.lo++
	}
	c.Args = t.place(args)
	if x.AggDistinct && len(x.Args) == 1 {
		c.Argument = a.distinct(x.Args[0], c.Args)
	}
	for _, arg := range x.Args {
		c.Plain, c.Untyped = c.Plain && arg.GetNamedArgExpr() == nil, c.Untyped || untyped(arg)
	}
	last := e.last
	if x.AggFilter != nil {
		if !t.is(last+1, "filter") || !t.opens(last+2) || t.pair(last+2) < 0 {
			return false
		}
		if !t.is(last+3, "where") {
			return false
		}
		c.Filter = t.place(region{last + 1, t.pair(last+2) + 1})
		c.Where = t.place(region{last + 4, t.pair(last + 2)})
		last = t.pair(last + 2)
	}
	if t.is(last+1, "within", "over", "filter", "ignore", "respect") {
		return false
	}
	c.Call = t.place(region{e.first, last + 1})
	a.g.Parts = append(a.g.Parts, GroupPart{Place: c.Call, Key: -1, Aggregate: len(a.g.Aggregates)})
	a.g.Aggregates = append(a.g.Aggregates, c)
	return true
}

// distinct returns the number of an aggregate's DISTINCT argument, -1 when it is none whose values could be had as a
// column: what has no type of its own gets another there, and rows without a type cannot be sent.
func (a *apart) distinct(n *pg.Node, at Place) int {
	x := n.GetColumnRef()
	if untyped(n) || n.GetRowExpr() != nil || x != nil && (starred([]*pg.Node{n}) || columnOf(x) == nil) {
		return -1
	}
	for i, d := range a.g.Distinct {
		y := d.node.GetColumnRef()
		if x != nil && y != nil && a.same(columnOf(x), columnOf(y)) || equalTrees(n, d.node) {
			return i
		}
	}
	d := DistinctArgument{Place: at, node: n}
	if x != nil {
		d.Column = columnOf(x)
	}
	a.g.Distinct = append(a.g.Distinct, d)
	return len(a.g.Distinct) - 1
}

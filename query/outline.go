package query

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// Place is a piece of a text by its byte positions; the zero Place is absent.
type Place struct{ Start, End int }

// In returns the piece of the text, "" for an absent one.
func (p Place) In(sql string) string { return sql[p.Start:p.End] }

// There reports whether the piece is there.
func (p Place) There() bool { return p.End > 0 }

// Outline is what a text, which is one plain SELECT, consists of. Its places are those of
// the text that it was made from.
type Outline struct {
	// Select is the keyword; what stands before it is WITH.
	Select Place
	// Distinct is set for SELECT DISTINCT, DistinctOn for DISTINCT ON.
	Distinct, DistinctOn bool
	// List is the whole target list.
	List    Place
	Targets []Target
	// From and Where are the clauses without their keywords.
	From, Where Place
	// Group is the clause without GROUP BY; GroupKeys are its expressions, those of the target
	// list where it names these. GroupingSets is set when it is more than a list of them.
	Group        Place
	GroupKeys    []Place
	GroupingSets bool
	// Having, Order, Limit and Offset are the clauses with their keywords; Locks and Window are
	// set when there are such.
	Having, Order, Limit, Offset Place
	Locks, Window                bool
	SortKeys                     []SortKey

	tree *pg.SelectStmt
	text *shapeText
	keys []*pg.Node // of GroupKeys
	// starred is set when a star stands in the target list: which output has which number is
	// not known then.
	starred bool
}

// Target is one item of the target list.
type Target struct {
	// Expr is the item without its alias, Item with it.
	Expr, Item Place
	// Name is the alias or else the name that PostgreSQL gives it, "" when that is not certain.
	Name string
	// Star is set for *, t.* and the like.
	Star bool
	node *pg.Node
}

// SortKey is one item of ORDER BY.
type SortKey struct {
	// Expr is what rows are ordered by: the expression of an output where the item names one.
	Expr Place
	// Item is the expression as it stands in ORDER BY.
	Item Place
	// Output is the number of the output that the item names, from 1; 0 for none.
	Output                 int
	Descending, NullsFirst bool
	// Using is set for ORDER BY ... USING.
	Using bool
	// Column is set when the expression is a column, Star when it is t.* or the like.
	Column *Column
	Star   bool
	node   *pg.Node
}

// ReadOutline reads a text. column says whether a bare name is that of a column of FROM, as
// far as that is known: GROUP BY takes it for one before it takes it for an output. ok is false
// when the text is not one plain SELECT, or a part of it cannot be located exactly.
func ReadOutline(sql string, opts Options, column func(name string) (is, known bool)) (o *Outline, ok bool) {
	var n Normal
	st := n.analyze(sql, opts, func(tree *pg.ParseResult, commands []Command) {
		if len(commands) == 1 {
			t := newShapeText([]byte(sql), n.Literals)
			o, ok = outline(tree.Stmts[0].Stmt.GetSelectStmt(), t, t.inside(commands[0].Start, commands[0].End), column)
		}
	})
	return o, ok && !st.Opaque
}

func outline(n *pg.SelectStmt, t *shapeText, r region, column func(string) (is, known bool)) (*Outline, bool) {
	if n == nil || n.Op != pg.SetOperation_SETOP_NONE || len(n.ValuesLists) > 0 || n.IntoClause != nil {
		return nil, false
	}
	o := &Outline{tree: n, text: t}
	sel := t.find(r, "select")
	if sel < 0 {
		return nil, false
	}
	for i := r.lo; i < sel; i = t.skip(i) {
		if n.WithClause == nil {
			return nil, false // parentheses around it
		}
	}
	m := t.selectClauses(region{sel, r.hi})
	o.Select = t.place(region{sel, sel + 1})
	for _, l := range n.DistinctClause {
		o.Distinct, o.DistinctOn = l.GetNode() == nil, l.GetNode() != nil
	}
	o.Locks, o.Window = len(n.LockingClause) > 0, len(n.WindowClause) > 0
	list := t.targets(m.behind(t, "select"))
	o.List = t.place(list)
	o.From, o.Where = t.place(m.behind(t, "from")), t.place(m.behind(t, "where"))
	o.Group = t.place(m.behind(t, "group"))
	for _, clause := range [...]struct {
		word string
		at   *Place
	}{{"having", &o.Having}, {"order", &o.Order}, {"limit", &o.Limit}, {"fetch", &o.Limit}, {"offset", &o.Offset}} {
		if found, at := m.find(clause.word); found.known() {
			*clause.at = t.place(region{at, found.hi})
		}
	}
	whole := o.From.There() == (len(n.FromClause) > 0) && o.Where.There() == (n.WhereClause != nil) &&
		o.Group.There() == (len(n.GroupClause) > 0) && o.Having.There() == (n.HavingClause != nil) &&
		o.Order.There() == (len(n.SortClause) > 0) && o.Limit.There() == (n.LimitCount != nil) && o.Offset.There() == (n.LimitOffset != nil)
	if !whole || !o.targets(list) || !o.group(m.behind(t, "group"), column) || !o.order(m.behind(t, "order")) {
		return nil, false
	}
	return o, true
}

// place is a region by its byte positions.
func (t *shapeText) place(r region) Place {
	s := t.spanOf(r)
	return Place{int(s.Start), int(s.End)}
}

func (o *Outline) targets(list region) bool {
	items := o.text.split(list)
	if len(items) != len(o.tree.TargetList) {
		return len(o.tree.TargetList) == 0 && !list.known()
	}
	for i, n := range o.tree.TargetList {
		x := n.GetResTarget()
		if x == nil {
			return false
		}
		item := items[i]
		t := Target{Item: o.text.place(item), Name: x.Name, node: x.Val, Star: starred([]*pg.Node{x.Val})}
		if x.Name == "" {
			t.Name = columnName(x.Val)
		} else if item.hi--; o.text.is(item.hi-1, "as") && !o.text.point(item.hi-2) {
			item.hi--
		}
		o.starred = o.starred || t.Star
		if t.Expr = o.text.place(item); !t.Expr.There() {
			return false
		}
		o.Targets = append(o.Targets, t)
	}
	return true
}

// output returns the target that an item of GROUP BY or ORDER BY means by its number; 0 for
// none, -1 when it cannot be told.
func (o *Outline) output(n *pg.Node) int {
	k := n.GetAConst()
	if k == nil || k.GetIval() == nil {
		return 0
	}
	i := int(k.GetIval().GetIval())
	if o.starred || i < 1 || i > len(o.Targets) {
		return -1
	}
	return i
}

// named returns the target with a name; 0 for none, -1 for several.
func (o *Outline) named(n *pg.Node) int {
	ref := n.GetColumnRef()
	if ref == nil || len(ref.Fields) != 1 || ref.Fields[0].GetString_() == nil {
		return 0
	}
	found := 0
	for i := range o.Targets {
		switch name := o.Targets[i].Name; {
		case o.Targets[i].Star:
		case name == "":
			return -1 // it may be this one
		case name != ref.Fields[0].GetString_().GetSval():
		case found > 0:
			return -1
		default:
			found = i + 1
		}
	}
	return found
}

// group reads GROUP BY.
func (o *Outline) group(r region, column func(string) (is, known bool)) bool {
	items := o.text.split(r)
	if len(items) != len(o.tree.GroupClause) {
		return len(o.tree.GroupClause) == 0
	}
	o.GroupingSets = o.tree.GroupDistinct
	for i, n := range o.tree.GroupClause {
		if n.GetGroupingSet() != nil || n.GetRowExpr() != nil {
			o.GroupingSets = true
			return true
		}
		key, place := n, o.text.place(items[i])
		at := o.output(n)
		if at == 0 {
			if at = o.named(n); at != 0 {
				is, known := column(n.GetColumnRef().Fields[0].GetString_().GetSval())
				switch {
				case is:
					at = 0
				case !known:
					at = -1
				}
			}
		}
		switch {
		case at < 0:
			return false
		case at > 0:
			key, place = o.Targets[at-1].node, o.Targets[at-1].Expr
		}
		o.keys, o.GroupKeys = append(o.keys, key), append(o.GroupKeys, place)
	}
	return true
}

// order reads ORDER BY.
func (o *Outline) order(r region) bool {
	items := o.text.split(r)
	if len(items) != len(o.tree.SortClause) {
		return len(o.tree.SortClause) == 0
	}
	t := o.text
	for i, n := range o.tree.SortClause {
		s := n.GetSortBy()
		if s == nil {
			return false
		}
		item := items[i]
		if t.is(item.hi-1, "first", "last") && t.is(item.hi-2, "nulls") {
			item.hi -= 2
		}
		if t.is(item.hi-1, "asc", "desc") && !t.label(item.hi-1) {
			item.hi--
		}
		k := SortKey{Using: len(s.UseOp) > 0, node: s.Node, Descending: s.SortbyDir == pg.SortByDir_SORTBY_DESC}
		k.NullsFirst = k.Descending
		switch s.SortbyNulls {
		case pg.SortByNulls_SORTBY_NULLS_FIRST:
			k.NullsFirst = true
		case pg.SortByNulls_SORTBY_NULLS_LAST:
			k.NullsFirst = false
		}
		if k.Item = t.place(item); !k.Item.There() {
			return false
		}
		k.Expr = k.Item
		if k.Output = o.output(s.Node); k.Output == 0 {
			k.Output = o.named(s.Node)
		}
		if k.Output < 0 {
			return false
		}
		if k.Output > 0 {
			k.Expr, k.node = o.Targets[k.Output-1].Expr, o.Targets[k.Output-1].node
		}
		k.Star = starred([]*pg.Node{k.node})
		if ref := k.node.GetColumnRef(); ref != nil && !k.Star {
			k.Column = columnOf(ref)
		}
		o.SortKeys = append(o.SortKeys, k)
	}
	return true
}

// columnOf reads a column's name.
func columnOf(x *pg.ColumnRef) *Column {
	parts := names(x.Fields)
	var c Column
	into := [...]*string{&c.Catalog, &c.Schema, &c.Table, &c.Name}
	if len(parts) > len(into) {
		return nil
	}
	for i, p := range parts {
		*into[len(into)-len(parts)+i] = p
	}
	return &c
}

package query

import pg "github.com/pganalyze/pg_query_go/v6"

// column reads a column as written.
func (c *scoper) column(x *pg.ColumnRef) Column {
	var col Column
	col.Span = c.sh.text.extentSpan(c.sh.text.columnExtent(x))
	parts := make([]string, 0, 4)
	for _, f := range x.Fields {
		if f.GetAStar() != nil {
			col.Star = true
			continue
		}
		parts = append(parts, f.GetString_().GetSval())
	}
	if col.Star {
		parts = append(parts, "")
	}
	switch n := len(parts); {
	case n > 4 || n == 0:
		c.unknown("a column name of %d parts", n)
	default:
		into := [...]*string{&col.Catalog, &col.Schema, &col.Table, &col.Name}
		for i, p := range parts {
			*into[4-n+i] = p
		}
	}
	return col
}

// constant reads a constant. One that the grammar made of a keyword is a
// ValueConstant.
func (c *scoper) constant(x *pg.A_Const) Value {
	t := c.sh.text
	i := t.at(x.Location)
	v := Value{Literal: -1, Span: t.extentSpan(t.constantExtent(i))}
	if x.Isnull {
		v.Kind = ValueNull
		return v
	}
	if b, ok := x.Val.(*pg.A_Const_Boolval); ok {
		v.Kind, v.Bool = ValueBool, b.Boolval.GetBoolval()
		return v
	}
	for i >= 0 && (t.operator(i, "-") || t.opens(i)) {
		if !t.opens(i) {
			v.Negative = !v.Negative
		}
		i++
	}
	if v.Literal = t.literal(i); v.Literal >= 0 || t.kind(i) == tokUString {
		v.Kind = ValueLiteral
		return v
	}
	return Value{Kind: ValueConstant, Literal: -1, Detail: &Detail{Expr: &Expr{}}}
}

// value reads an expression that stands where a value may.
func (c *scoper) value(n *pg.Node) Value {
	t := c.sh.text
	switch x := n.GetNode().(type) {
	case *pg.Node_AConst:
		return c.constant(x.AConst)
	case *pg.Node_ParamRef:
		return Value{Kind: ValueParam, Literal: -1, Param: x.ParamRef.Number, Span: t.extentSpan(t.extent(n))}
	case *pg.Node_ColumnRef:
		col := c.column(x.ColumnRef)
		if col.Star {
			return c.expression(n, &Expr{Columns: []Column{col}})
		}
		return Value{Kind: ValueColumn, Literal: -1, Column: &col, Span: col.Span}
	case *pg.Node_SetToDefault:
		return Value{Kind: ValueDefault, Literal: -1, Span: t.extentSpan(t.extent(n))}
	case *pg.Node_TypeCast:
		return c.cast(n, x.TypeCast)
	case *pg.Node_CollateClause:
		return c.collate(n, x.CollateClause)
	case *pg.Node_AArrayExpr:
		return c.elements(n, ValueArray, x.AArrayExpr.Elements)
	case *pg.Node_RowExpr:
		return c.elements(n, ValueRow, x.RowExpr.Args)
	case nil:
		c.unknown("an empty expression")
		return Value{Literal: -1}
	}
	e := &Expr{}
	c.bag(e, n)
	return c.expression(n, e)
}

// valuePointer is value, nil for no node.
func (c *scoper) valuePointer(n *pg.Node) *Value {
	if n == nil {
		return nil
	}
	v := c.value(n)
	return &v
}

func (c *scoper) values(list []*pg.Node) []Value {
	if len(list) == 0 {
		return nil
	}
	out := make([]Value, len(list))
	for i, n := range list {
		out[i] = c.value(n)
	}
	return out
}

// expression makes a value of n, which has been taken apart into e.
func (c *scoper) expression(n *pg.Node, e *Expr) Value {
	v := Value{Kind: ValueExpr, Literal: -1, Span: c.sh.text.extentSpan(c.sh.text.extent(n)), Detail: &Detail{Expr: e}}
	if len(e.Columns) > 0 || len(e.Sublinks) > 0 || n.GetMultiAssignRef() != nil {
		return v
	}
	for i := range e.Calls {
		if call := &e.Calls[i]; call.aggregate() || call.Over {
			return v
		}
	}
	v.Kind = ValueConstant
	return v
}

// cast adds a cast to what is a value without; a column with a cast is an
// expression.
func (c *scoper) cast(n *pg.Node, x *pg.TypeCast) Value {
	v := c.value(x.Arg)
	typ := c.typeName(x.TypeName)
	plain := v.fixed() && v.Kind != ValueConstant && v.Collation() == nil
	if !plain || typ.Odd {
		e := &Expr{}
		c.absorb(e, &v)
		c.absorb(e, &Value{Detail: &Detail{Casts: []Type{typ}}})
		return c.expression(n, e)
	}
	if v.Detail == nil {
		v.Detail = &Detail{Bare: v.Span}
	}
	v.Detail.Casts = append(v.Detail.Casts, typ)
	v.Span = c.sh.text.extentSpan(c.sh.text.extent(n))
	return v
}

// typeName reads a type.
func (c *scoper) typeName(t *pg.TypeName) Type {
	typ := Type{Name: c.sh.typeNamed(t), Odd: t.GetSetof() || t.GetPctType(), Dimensions: len(t.GetArrayBounds())}
	typ.Odd = typ.Odd || typ.Name.Name == "float"
	for _, m := range t.GetTypmods() {
		v := c.value(m)
		if typ.Name.Name == "interval" && v.Kind == ValueConstant {
			typ.Fields = true // a number that stands for words
			continue
		}
		typ.Modifiers = append(typ.Modifiers, v)
	}
	return typ
}

// typeNamed returns a type's name. The grammar makes float4 or float8 of
// float(n), by a literal: that one stays float.
func (sh *shaper) typeNamed(t *pg.TypeName) Name {
	name := qualified(t.GetNames(), 0)
	if name.Name == "float4" || name.Name == "float8" {
		if i := sh.text.at(t.GetLocation()); sh.text.is(i, "float") && sh.text.opens(i+1) {
			return Name{Name: "float"}
		}
	}
	return name
}

// collate adds a collation to a value or column.
func (c *scoper) collate(n *pg.Node, x *pg.CollateClause) Value {
	v := c.value(x.Arg)
	name := qualified(x.Collname, 0)
	if v.Kind == ValueExpr || v.Kind == ValueConstant || v.Collation() != nil {
		e := &Expr{}
		c.absorb(e, &v)
		return c.expression(n, e)
	}
	if v.Detail == nil {
		v.Detail = &Detail{Bare: v.Span}
	}
	v.Detail.Collation = &name
	v.Span = c.sh.text.extentSpan(c.sh.text.extent(n))
	return v
}

// elements reads an array or a row; one with columns is an expression.
func (c *scoper) elements(n *pg.Node, kind ValueKind, list []*pg.Node) Value {
	values := c.values(list)
	for i := range values {
		if !values[i].fixed() {
			e := &Expr{}
			for j := range values {
				c.absorb(e, &values[j])
			}
			return c.expression(n, e)
		}
	}
	span := c.sh.text.extentSpan(c.sh.text.extent(n))
	return Value{Kind: kind, Literal: -1, Span: span, Detail: &Detail{Elements: values, Bare: span}}
}

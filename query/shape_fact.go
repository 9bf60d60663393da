package query

// Condition is one clause: all of its facts hold for the rows that pass it.
type Condition struct {
	Facts []Fact
	// Span is the condition without its keyword.
	Span Span
}

// FactKind says what a fact states.
type FactKind uint8

// The kinds of facts.
const (
	// FactUnknown: all that is known is in Expr.
	FactUnknown FactKind = iota
	// FactEqual: Column = Value (or, with NullSafe, IS NOT DISTINCT FROM). The
	// value may be another column.
	FactEqual
	// FactIn: Column is one of Values, none of which has columns. PostgreSQL
	// compares all of them by one type.
	FactIn
	// FactAny: Column = ANY (Value): an array, a literal or a parameter.
	FactAny
	// FactTuples: (Columns) is one of Tuples.
	FactTuples
	// FactCompare: Column Compare Value.
	FactCompare
	// FactNull and FactNotNull: Column IS [NOT] NULL.
	FactNull
	FactNotNull
	// FactOr: one of Branches holds; in a branch all do.
	FactOr
	// FactConstant: Value is true, false or NULL.
	FactConstant
)

// Compare is an ordering operator, as seen from the column.
type Compare uint8

// The comparisons.
const (
	CompareLess Compare = iota + 1
	CompareLessEqual
	CompareGreater
	CompareGreaterEqual
)

// Fact is one conjunct of a condition.
type Fact struct {
	Kind FactKind
	// NullSafe is set for IS NOT DISTINCT FROM.
	NullSafe bool
	// Swapped is set when the text has the column on the right.
	Swapped bool
	Compare Compare
	// Op is the operator as written; its schema is set for OPERATOR(schema.=).
	Op     Name
	Column *Column
	// Collation is what COLLATE says of the column; that of Value is in Value.
	Collation *Name
	Value     Value
	Values    []Value
	Columns   []Column
	Tuples    [][]Value
	Branches  [][]Fact
	Expr      *Expr
}

// ValueKind says what a value is.
type ValueKind uint8

// The kinds of values.
const (
	// ValueExpr is any other expression: it has columns, a sublink, or calls
	// that are aggregates or window functions by their syntax.
	ValueExpr ValueKind = iota
	ValueColumn
	ValueLiteral
	ValueParam
	ValueNull
	ValueBool
	ValueDefault
	// ValueArray is ARRAY[...] without columns, ValueRow a row without columns.
	ValueArray
	ValueRow
	// ValueConstant is an expression without columns and sublinks. What it calls
	// may be volatile, give sets, or be an aggregate: only the catalog knows.
	ValueConstant
)

// Value is one value of an expression, or the column or expression in its place.
type Value struct {
	Kind ValueKind
	// Negative is set when signs before the literal turn it.
	Negative bool
	// Bool is the value of a ValueBool.
	Bool bool
	// Literal is the index in Normal.Literals of a ValueLiteral; -1 when the
	// text is one that Normal.Scan does not vouch for (U&'...').
	Literal int32
	// Param is the number of a ValueParam.
	Param int32
	// Span is the value with its casts, COLLATE and sign; parentheses around it may be in it or not.
	Span   Span
	Column *Column
	// Detail is nil when there is none.
	Detail *Detail
}

// Detail is what few values have.
type Detail struct {
	// Casts are applied to the value, the first one first.
	Casts []Type
	// Collation is what an outermost COLLATE says.
	Collation *Name
	// Elements are those of a ValueArray or ValueRow.
	Elements []Value
	// Expr is what a ValueConstant or ValueExpr consists of.
	Expr *Expr
	// Bare is the span of the value without casts and COLLATE.
	Bare Span
}

// Casts returns the casts that are applied to the value, the first one first.
func (v *Value) Casts() []Type {
	if v.Detail == nil {
		return nil
	}
	return v.Detail.Casts
}

// Elements returns the elements of an array or row.
func (v *Value) Elements() []Value {
	if v.Detail == nil {
		return nil
	}
	return v.Detail.Elements
}

// Expr returns what a ValueConstant or ValueExpr consists of, nil for others.
func (v *Value) Expr() *Expr {
	if v.Detail == nil {
		return nil
	}
	return v.Detail.Expr
}

// Collation returns what COLLATE says of the value, nil without.
func (v *Value) Collation() *Name {
	if v.Detail == nil {
		return nil
	}
	return v.Detail.Collation
}

// fixed says whether the value has no columns and no sublinks.
func (v *Value) fixed() bool {
	return v.Kind != ValueExpr && v.Kind != ValueColumn && v.Kind != ValueDefault
}

// Type is a type as a cast names it.
type Type struct {
	Name Name
	// Modifiers are those in parentheses; a modifier that is no literal is a
	// ValueConstant or ValueExpr.
	Modifiers []Value
	// Dimensions counts the array's.
	Dimensions int
	// Fields is set for an interval that names its fields (INTERVAL '1' DAY).
	Fields bool
	// Odd is set for SETOF, %TYPE, and float(n), which is one of two types.
	Odd bool
}

// Column is a column as written. A name without a table may also be a
// reference's whole row.
type Column struct {
	Catalog, Schema, Table, Name string
	// Star is set for t.* within an expression; Table is then t.
	Star bool
	Span Span
}

// Expr is what an expression consists of, in no order.
type Expr struct {
	// Columns may belong to this scope or to one around it. Those inside
	// sublinks are not listed.
	Columns []Column
	// Values are its literals and parameters.
	Values    []Value
	Calls     []Call
	Operators []Name
	Types     []Name
	// Session holds the words that stand for the time, the user or the like
	// (current_date, current_user).
	Session []string
	// Sublinks are indexes of Scope.Sublinks.
	Sublinks []int
}

// Call is a function call.
type Call struct {
	Name Name
	// Args are the arguments where all stand by position: those that are constants or
	// parameters, perhaps cast; others are a ValueExpr of which nothing is known here.
	Args []Value
	// Star is f(*); Distinct, Ordered, Filtered and Within (WITHIN GROUP) are set
	// for aggregates; Over for window functions.
	Star, Distinct, Ordered, Filtered, Within, Over bool
}

// aggregate says whether the syntax proves an aggregate.
func (c *Call) aggregate() bool {
	return !c.Over && (c.Star || c.Distinct || c.Ordered || c.Filtered || c.Within)
}

package query

// ScopeKind says what a scope is.
type ScopeKind uint8

// The kinds of scopes.
const (
	ScopeUnknown ScopeKind = iota // see Scope.Unknown; its references are all that its tree names
	ScopeSelect
	ScopeSet    // UNION, INTERSECT, EXCEPT
	ScopeValues // VALUES, also of an INSERT
	ScopeInsert
	ScopeUpdate
	ScopeDelete
	ScopeMerge
)

// Scope is one level of a query: names in its expressions are looked up in its
// own references first, then in those of the scopes around it.
type Scope struct {
	Kind ScopeKind
	// Span is the scope's text without parentheses around it.
	Span Span
	// With holds the CTEs of the scope's WITH clause, in order.
	With []*CTE

	// Target is the table that INSERT, UPDATE, DELETE and MERGE write.
	Target *Reference
	// From holds the items of FROM, of USING in a DELETE, and the source of a
	// MERGE; joins are trees.
	From []*Reference
	// Where is the WHERE clause; for a MERGE its ON.
	Where  *Condition
	Having *Condition

	// Outputs are the target list, or what RETURNING gives. Targets is the span of the whole list.
	Outputs []Output
	Targets Span

	Select *SelectParts  // of ScopeSelect, and the tail of ScopeSet and ScopeValues; may be nil when there is nothing
	Set    *SetOperation // of ScopeSet
	Rows   []Row         // of ScopeValues
	Insert *Insert       // of ScopeInsert
	Update *Update       // of ScopeUpdate
	Merge  *Merge        // of ScopeMerge
	// CurrentOf is the cursor of WHERE CURRENT OF.
	CurrentOf string

	// Sublinks holds the subqueries in the scope's expressions, wherever they
	// stand. Expr.Sublinks are indexes of it.
	Sublinks []*Sublink

	// Other is what stands in places that have no field of their own: subscripts
	// of written columns, expressions and classes of ON CONFLICT, marks of CYCLE.
	Other *Expr

	// WhereSpan is the whole clause with its keyword, WHERE or (for MERGE) ON.
	WhereSpan Span
	// ReturningSpan is the list behind RETURNING.
	ReturningSpan Span
	// Unknown holds the reasons, in words, why the scope does not say all.
	Unknown []string
}

// SelectParts is what shapes the rows of a scope besides its conditions.
type SelectParts struct {
	Distinct bool
	// DistinctOn holds the expressions of DISTINCT ON.
	DistinctOn []Value
	// GroupBy holds the expressions of GROUP BY, those of grouping sets too. A
	// literal integer is the number of an output. A bare name is a column of a
	// reference before it is the name of an output.
	GroupBy []Value
	// GroupingSets is set for GROUPING SETS, ROLLUP and CUBE: not every group
	// is made by all of GroupBy.
	GroupingSets bool
	// Grouped is set when there is a GROUP BY, also GROUP BY ().
	Grouped bool
	// Aggregates is set when the syntax proves an aggregate: agg(*), DISTINCT,
	// ORDER BY, FILTER without OVER, WITHIN GROUP, GROUPING. Other aggregates
	// are calls that only the catalog knows.
	Aggregates bool
	// Windows is set for OVER and for a WINDOW clause.
	Windows bool
	// WindowKeys holds the expressions of PARTITION BY, ORDER BY and the frames of WINDOW.
	WindowKeys []Value
	// OrderBy holds the sort keys. A literal integer is the number of an
	// output; a bare name is an output before it is a column.
	OrderBy []Order
	// Limit and Offset are nil when absent. LIMIT ALL is a NULL.
	Limit, Offset *Value
	// FetchOne is set for FETCH FIRST ROW without a number.
	FetchOne bool
	// WithTies is set for FETCH ... WITH TIES.
	WithTies bool
	Locks    []Lock
	// Into is the table that SELECT INTO makes.
	Into *Reference
	// Spans of the clauses with their keywords, as far as they are there.
	GroupSpan, HavingSpan, OrderSpan, LimitSpan, OffsetSpan, LockSpan Span
}

// Limited says whether the scope may leave rows out by their number.
func (p *SelectParts) Limited() bool {
	return p != nil && (p.Limit != nil || p.Offset != nil || p.FetchOne)
}

// Order is one sort key.
type Order struct {
	Value Value
	// Descending and NullsFirst are the direction in effect, defaults applied.
	Descending, NullsFirst bool
	// Using is the operator of ORDER BY ... USING; Name is empty without.
	Using Name
}

// Lock is one FOR UPDATE, SHARE ... clause.
type Lock struct {
	// Strength is "update", "no key update", "share" or "key share".
	Strength string
	// Of names the references that are locked; all when empty.
	Of []string
	// Wait is "", "skip locked" or "nowait".
	Wait string
}

// SetKind is the operator of a set operation.
type SetKind uint8

// The set operations.
const (
	SetUnion SetKind = iota + 1
	SetIntersect
	SetExcept
)

// SetOperation is a UNION, INTERSECT or EXCEPT of two scopes.
type SetOperation struct {
	Kind        SetKind
	All         bool
	Left, Right *Scope
}

// Row is one row of VALUES.
type Row struct {
	// Span is the row with its parentheses.
	Span   Span
	Values []Value
}

// Output is one column, or a star, of what a scope gives.
type Output struct {
	// Name is the column's name as PostgreSQL gives it. It is empty for a star, and where
	// the name of an expression is not certain.
	Name string
	// Alias is set when the text gives the name.
	Alias bool
	// Star is set for *, t.* and (r).*; Qualifier then holds the names before the
	// star. For an expression before it Value is what it consists of.
	Star      bool
	Qualifier []string
	// Value is a ValueColumn when the output is that column unchanged, save for
	// its collation.
	Value Value
	// Span is the whole item with its alias.
	Span Span
}

// CTE is one query of a WITH clause.
type CTE struct {
	Name    string
	Columns []string
	Scope   *Scope
	// Recursive is set when the query refers to itself.
	Recursive bool
	// Forward is set when it is referred to before it stands (WITH RECURSIVE only).
	Forward bool
	// Materialized and NotMaterialized are what the text asks for.
	Materialized, NotMaterialized bool
	// Writes is set when its own command is an INSERT, UPDATE, DELETE or MERGE.
	Writes bool
	// Search and Cycle are set when those clauses add columns.
	Search, Cycle bool
	// Uses counts the references to it, its own included.
	Uses int
	Span Span
}

// SublinkKind says how a subquery in an expression is used.
type SublinkKind uint8

// The kinds of sublinks.
const (
	SublinkExists SublinkKind = iota + 1
	SublinkAny                // IN (...), op ANY (...)
	SublinkAll                // op ALL (...)
	SublinkScalar             // (...) as one value, or as a row
	SublinkArray              // ARRAY(...)
)

// Sublink is a subquery in an expression.
type Sublink struct {
	Kind SublinkKind
	// Op is the operator of ANY and ALL ("=" for IN); Test what stands left of
	// it: the fields of a row, but a row with stars as one value.
	Op   Name
	Test []Value
	// Clause says where it stands; Join is the join when it is in an ON.
	Clause Clause
	Join   *Join
	// Conjunct is set when the sublink as a whole is one of the conjuncts of
	// its clause, not negated and not under OR.
	Conjunct bool
	Scope    *Scope
	// Span is the subquery with its parentheses.
	Span Span
}

// Clause names a part of a scope.
type Clause uint8

// The clauses.
const (
	ClauseTargets Clause = iota + 1
	ClauseDistinct
	ClauseFrom // arguments of functions, TABLESAMPLE
	ClauseOn   // of a join
	ClauseWhere
	ClauseGroup
	ClauseHaving
	ClauseWindow
	ClauseOrder
	ClauseLimit
	ClauseValues
	ClauseSet // of UPDATE, of MERGE
	ClauseConflict
	ClauseReturning
	ClauseWhen  // of MERGE
	ClauseOther // the columns of an INSERT, options
)

package query

// ReferenceKind says what an item of FROM is.
type ReferenceKind uint8

// The kinds of references.
const (
	ReferenceUnknown  ReferenceKind = iota // see Scope.Unknown
	ReferenceTable                         // a table, a view, or anything else with such a name
	ReferenceCTE                           // a use of a WITH query
	ReferenceSubquery                      // (SELECT ...), (VALUES ...)
	ReferenceFunction                      // f(...), ROWS FROM, XMLTABLE, JSON_TABLE
	ReferenceJoin
)

// Reference is one item of FROM or the target of a write.
type Reference struct {
	Kind ReferenceKind
	// Catalog, Schema and Name are the table's name, as written after case folding.
	Catalog, Schema, Name string
	// NameSpan is the name with its schema, without ONLY, star and alias.
	NameSpan Span
	// Alias is the name by which columns are qualified when it is not empty. On
	// a join it hides the names of what is joined.
	Alias string
	// Columns renames the first columns.
	Columns []string
	Only    bool
	// Lateral is set when the text says so; functions see what stands left of
	// them without.
	Lateral bool
	// Sample is TABLESAMPLE's arguments.
	Sample *Expr
	// Scope is a subquery's.
	Scope *Scope
	// CTE is the WITH query that the name stands for.
	CTE *CTE
	// Function holds everything in the function call; Ordinality and
	// Definitions (a column definition list) add to or name the columns.
	Function                *Expr
	Ordinality, Definitions bool
	Join                    *Join
	// Written is set for the target of a write.
	Written bool
	// Nullable is set when an outer join around it may extend it with NULLs.
	Nullable bool
	// Span is the whole item with its alias and sample.
	Span Span
}

// JoinKind is the type of a join.
type JoinKind uint8

// The joins. CROSS JOIN is an inner join without a condition.
const (
	JoinInner JoinKind = iota + 1
	JoinLeft
	JoinRight
	JoinFull
)

// Join joins two references.
type Join struct {
	Kind        JoinKind
	Left, Right *Reference
	// On is nil when there is none.
	On      *Condition
	Natural bool
	Using   []string
	// UsingAlias names the merged columns; it hides nothing.
	UsingAlias string
}

// Copy is what a COPY states.
type Copy struct {
	From bool
	// Table is nil when a query is copied.
	Table *Reference
	// Columns is the column list, HasColumns whether there is one.
	Columns    []string
	HasColumns bool
	Query      *Scope
	// File is set for a file or program on the server instead of the client's
	// stream; Program tells which.
	File, Program bool
	Options       []CopyOption
	// Where is the condition of COPY FROM.
	Where *Condition
}

// CopyOption is one option: names and plain values in lower case as PostgreSQL
// keeps them, lists as written.
type CopyOption struct {
	Name  string
	Value string
	List  []string
	// HasValue tells FORMAT csv from a bare HEADER.
	HasValue bool
	// Star is set for FORCE_QUOTE *.
	Star bool
	// Literal is the index in Normal.Literals when the value is one, else -1.
	Literal int32
}

// Insert is what an INSERT states besides its target and RETURNING.
type Insert struct {
	Columns []TargetColumn
	// HasColumns tells whether there is a column list; ColumnsSpan is it with parentheses.
	HasColumns  bool
	ColumnsSpan Span
	// TargetSpan is the table's name with its alias, DefaultSpan DEFAULT VALUES.
	TargetSpan, DefaultSpan Span
	// Source gives the rows: a ScopeValues, any other query, or nil for DEFAULT VALUES.
	Source *Scope
	// Overriding is "", "user" or "system".
	Overriding string
	Conflict   *Conflict
}

// TargetColumn is a column that is written to.
type TargetColumn struct {
	Name string
	// Part is set when only an element or a field of it is.
	Part bool
	Span Span
}

// Conflict is ON CONFLICT.
type Conflict struct {
	// Update is set for DO UPDATE.
	Update bool
	// Constraint is what ON CONSTRAINT names; Columns holds the plain columns
	// of the inference list, Expressions whether it holds anything else (or
	// collations, operator classes).
	Constraint  string
	Columns     []string
	Expressions bool
	// Inference is the WHERE behind the inference list.
	Inference *Condition
	Set       []Assignment
	Where     *Condition
	Span      Span
}

// Assignment is one column = value of SET.
type Assignment struct {
	Column TargetColumn
	// Value is what it gets; for one of several columns that get a subquery's or
	// a row's fields, the expression as a whole, with Field counted from 1.
	Value Value
	Field int
}

// Update is the SET list of an UPDATE.
type Update struct {
	Set []Assignment
	// SetSpan is the list without the keyword.
	SetSpan Span
}

// MergeMatch is for which rows a WHEN of MERGE is.
type MergeMatch uint8

// The kinds of WHEN.
const (
	MergeMatched MergeMatch = iota + 1
	MergeNotMatchedBySource
	MergeNotMatchedByTarget
)

// MergeAction is what a WHEN of MERGE does.
type MergeAction uint8

// The actions.
const (
	MergeNothing MergeAction = iota + 1
	MergeInsert
	MergeUpdate
	MergeDelete
)

// Merge holds the WHEN clauses of a MERGE.
type Merge struct{ When []MergeWhen }

// MergeWhen is one WHEN clause.
type MergeWhen struct {
	Match     MergeMatch
	Condition *Condition
	Action    MergeAction
	// Columns, HasColumns, Overriding and Values are an INSERT's; no values means DEFAULT VALUES.
	Columns    []TargetColumn
	HasColumns bool
	Overriding string
	Values     []Value
	ValuesSpan Span
	Set        []Assignment
}

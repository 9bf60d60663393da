package catalog

// TableKind says what a relation is.
type TableKind uint8

// The kinds of relations.
const (
	// KindOther is what is no table though it has a table's name: an index, a
	// composite type, a TOAST table. Nothing else is known of it.
	KindOther TableKind = iota
	KindTable
	KindPartitioned // without rows of its own; may itself be a partition
	KindPartition   // a leaf; Root says of what
	KindView
	KindMaterialized
	KindForeign
	KindSequence
)

// String returns the kind in PostgreSQL's words.
func (k TableKind) String() string {
	return [...]string{"other relation", "table", "partitioned table", "partition", "view", "materialized view",
		"foreign table", "sequence"}[k]
}

// Table is one relation. It and all it points to belong to the snapshot and
// must not be changed.
type Table struct {
	OID          uint32
	Schema, Name string
	Kind         TableKind
	// Unlogged is set for UNLOGGED; temporary relations are in no catalog.
	Unlogged bool
	// System is set for what initdb made: only Columns are known then.
	System bool
	// Columns are in their order, those dropped left out. A sequence has none here.
	Columns []Column
	// Indexes are all, those of constraints too, in the order of their names.
	Indexes []Index
	// ForeignKeys are those of this table, ReferencedBy those of any table that
	// point to it. Copies that partitions inherit are marked.
	ForeignKeys  []*ForeignKey
	ReferencedBy []*ForeignKey
	Checks       []Check
	Triggers     []Trigger
	Rules        []Rule
	Policies     []Policy
	// RowSecurity is set when policies are in force, ForceRowSecurity when for
	// the owner too.
	RowSecurity, ForceRowSecurity bool
	// ReplicaIdentity is the key by which replication names a row.
	ReplicaIdentity ReplicaIdentity
	// Parents are what it inherits from or is a partition of, Children what
	// inherits from it, directly.
	Parents, Children []*Table
	// Root is the topmost partitioned table of a partition, nil for others.
	Root *Table
	// PartitionBy is a partitioned table's key (LIST (k)), PartitionBound that of
	// a partition (FOR VALUES IN (1)); as SQL.
	PartitionBy, PartitionBound string
	// View is set for views and materialised views that initdb did not make.
	View     *View
	Sequence *Sequence
}

// Column finds a column by its name, nil when there is none. System columns
// (ctid, tableoid, ...) are not listed.
func (t *Table) Column(name string) *Column {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return &t.Columns[i]
		}
	}
	return nil
}

// columnNumbered finds a column by pg_attribute's number.
func (t *Table) columnNumbered(number int16) *Column {
	for i := range t.Columns {
		if t.Columns[i].Number == number {
			return &t.Columns[i]
		}
	}
	return nil
}

// PrimaryKey returns the index of the primary key, nil without one.
func (t *Table) PrimaryKey() *Index {
	for i := range t.Indexes {
		if t.Indexes[i].Primary {
			return &t.Indexes[i]
		}
	}
	return nil
}

// Column is one column of a relation.
type Column struct {
	Name string
	// Number is pg_attribute's: it has gaps where columns were dropped.
	Number int16
	// Type is the declared type; Base what a domain is made of in the end, Type
	// for others.
	Type, Base uint32
	// Modifier is pg_attribute's typmod, of a domain the domain's; -1 without one.
	Modifier int32
	// TypeName is the declared type with its modifier as SQL: numeric(10,2).
	TypeName string
	// Collation is nil when the type has none.
	Collation *Collation
	// NotNull is set for a column that is NOT NULL itself or by its domain.
	NotNull bool
	Default Default
}

// DefaultCollation is the OID of the collation that stands for the database's own.
const DefaultCollation = 100

// Collation is how a column's values are compared.
type Collation struct {
	OID          uint32
	Schema, Name string
	// Deterministic says that only strings of the same bytes are equal.
	Deterministic bool
	// Bytewise says that strings are ordered by their bytes: C, POSIX and the
	// like. Only when that is certain.
	Bytewise bool
	// Version is that of the library's rules when it was made, "" if the library
	// tells none.
	Version string
}

// DefaultKind says what a column gets that an INSERT leaves out.
type DefaultKind uint8

// The kinds of defaults.
const (
	NoDefault       DefaultKind = iota // NULL
	DefaultConstant                    // Value
	DefaultSequence                    // nextval of Sequence
	DefaultIdentity                    // nextval of Sequence; GENERATED AS IDENTITY
	DefaultGenerated
	DefaultExpression
)

// Volatility is a function's or an expression's, as declared. The values are ordered.
type Volatility uint8

// The volatilities.
const (
	Immutable Volatility = iota
	Stable
	Volatile
)

// String returns v as CREATE FUNCTION has it, in lower case.
func (v Volatility) String() string {
	return [...]string{"immutable", "stable", "volatile"}[v]
}

// Default is what a column gets that an INSERT leaves out.
type Default struct {
	Kind DefaultKind
	// Value is a constant's in the text format of the column's type, before a
	// modifier of the column cuts or rounds it. A constant of another type that
	// PostgreSQL would convert is an expression instead.
	Value string
	// Expression is the SQL, names qualified but those of pg_catalog; of an
	// identity column "".
	Expression string
	// Volatility is that of the expression's worst part.
	Volatility Volatility
	// Sequence is the one that nextval draws from.
	Sequence *Table
	// Always is set for GENERATED ALWAYS: a value must not be given, unless
	// OVERRIDING says so for an identity column. Virtual: it is not stored.
	Always, Virtual bool
	// OfDomain is set when the column's domain has the default, not the column.
	OfDomain bool
}

// Index is an index, and the constraint that it enforces.
type Index struct {
	OID    uint32
	Name   string
	Method string
	// Unique, Primary and Exclusion say what it enforces.
	Unique, Primary, Exclusion bool
	// Constraint is set when a constraint of this name stands on it.
	Constraint bool
	// Deferrable: rows are not compared at once, and ON CONFLICT cannot use it.
	Deferrable bool
	// NullsNotDistinct: two NULLs are equal.
	NullsNotDistinct bool
	// Valid is false after a failed CREATE INDEX CONCURRENTLY: it proves nothing.
	Valid bool
	// Keys are the column numbers of its key, 0 for an expression; Included
	// those that it only carries.
	Keys, Included []int16
	// Partial is set when it has a WHERE.
	Partial bool
	// Ordinary says that all keys are columns, compared by the default operators
	// of their types and by their own collation.
	Ordinary bool
	// Definition is the CREATE INDEX; ConstraintDefinition, of a constraint, what
	// ALTER TABLE ADD has, with the operators of an exclusion constraint.
	Definition, ConstraintDefinition string
}

// Action is what a foreign key does to the rows that refer.
type Action uint8

// The actions.
const (
	NoAction Action = iota
	Restrict
	Cascade
	SetNull
	SetDefault
)

// ForeignKey is a foreign key constraint.
type ForeignKey struct {
	OID        uint32
	Name       string
	Table      *Table
	References *Table
	// Columns and ReferencedColumns are column numbers, pair by pair.
	Columns, ReferencedColumns []int16
	OnUpdate, OnDelete         Action
	// Full is MATCH FULL.
	Full bool
	// Deferrable, Deferred and Validated are the constraint's.
	Deferrable, Deferred, Validated bool
	// Inherited is set for a copy that a partition or a partitioned target made.
	Inherited bool
	// Definition is the constraint as ALTER TABLE ADD has it.
	Definition string
}

// Check is a CHECK constraint.
type Check struct {
	Name       string
	Validated  bool
	Definition string
}

// Trigger is a trigger that somebody made; those of foreign keys are not listed.
type Trigger struct {
	Name string
	// Constraint is set for CREATE CONSTRAINT TRIGGER.
	Constraint bool
	// Row is FOR EACH ROW. Before and Instead say when; neither is AFTER.
	Row, Before, Instead bool
	// Insert, Update, Delete and Truncate say on what.
	Insert, Update, Delete, Truncate bool
	// Deferred is set for INITIALLY DEFERRED.
	Deferred bool
	// Enabled is pg_trigger's: 'O', 'D' (disabled), 'R' (on replicas only), 'A' (always).
	Enabled byte
	// Function is the OID of what it calls; see Catalog.CallableByOID.
	Function uint32
	// Inherited is set for the copy on a partition.
	Inherited bool
	// Definition is the CREATE TRIGGER, "" of one that was dropped while the catalog was read.
	Definition string
	fence      bool
}

// Fence reports whether the trigger is one that a move of slots has made on its source, for the time of the move.
func (t *Trigger) Fence() bool { return t.fence }

// Rule is a rewrite rule; the one that makes a view is not listed.
type Rule struct {
	Name string
	// Event is SELECT, INSERT, UPDATE or DELETE.
	Event      string
	Instead    bool
	Enabled    byte
	Definition string
}

// Policy is a row security policy.
type Policy struct {
	Name string
	// Command is ALL, SELECT, INSERT, UPDATE or DELETE.
	Command    string
	Permissive bool
	// Roles are the roles' names, sorted; "public" stands for all.
	Roles []string
	// Using and Check are SQL, "" when absent.
	Using, Check string
}

// ReplicaIdentity is what identifies a row for logical replication.
type ReplicaIdentity byte

// The replica identities, as pg_class has them.
const (
	IdentityDefault ReplicaIdentity = 'd' // the primary key
	IdentityNothing ReplicaIdentity = 'n'
	IdentityFull    ReplicaIdentity = 'f'
	IdentityIndex   ReplicaIdentity = 'i' // an index; it is marked nowhere else
)

// View is what a view shows.
type View struct {
	// Definition is the SELECT, fully parenthesised. Names without a schema are
	// those of pg_catalog: read it under Catalog.SystemPath. Empty when it was
	// dropped while the snapshot was taken.
	Definition string
	// CheckOption is "", "local" or "cascaded".
	CheckOption string
	// SecurityInvoker: the tables' privileges and policies are those of whoever
	// asks. SecurityBarrier: conditions from outside must not come first.
	SecurityInvoker, SecurityBarrier bool
	// Insertable, Updatable and Deletable say what PostgreSQL allows without a
	// rule or trigger: it writes to the one table under the view.
	Insertable, Updatable, Deletable bool
}

// Sequence is what a sequence was made with; its value is not in the catalog.
type Sequence struct {
	Type                               uint32
	Start, Increment, Min, Max, Cached int64
	Cycle                              bool
	// Owner and OwnerColumn are the table and column number it belongs to, nil
	// and 0 without; Identity when the column is GENERATED AS IDENTITY.
	Owner       *Table
	OwnerColumn int16
	Identity    bool
}

package catalog

import (
	"slices"

	"github.com/jackc/pgx/v5"
)

// NamedType is a type that has a name of its own: not the row type of a table.
type NamedType struct {
	OID          uint32
	Schema, Name string
	// Kind is pg_type's: 'b' base, 'c' composite, 'd' domain, 'e' enum, 'p'
	// pseudo, 'r' range, 'm' multirange. Category is pg_type's typcategory.
	Kind, Category byte
	// Element is that of an array type, 0 for others.
	Element uint32
	// Base is what a domain is made of in the end, OID itself for others.
	// Modifier is the domain's, -1 without one.
	Base     uint32
	Modifier int32
	// NotNull is set for a domain that is, or whose domain is, NOT NULL.
	NotNull   bool
	Collation *Collation
	// Default is what a column of a domain gets that has none itself.
	Default Default
	// Parts are a domain's CHECK constraints, an enum's labels, a composite
	// type's columns or a range's subtype, as SQL.
	Parts []string

	over             uint32 // what a domain is made of directly
	overName         string // the same as SQL
	expression, tree string // the default, while loading
}

// Domain says whether t is a domain.
func (t *NamedType) Domain() bool { return t.Kind == 'd' }

func (r *tableReader) namedType(row pgx.CollectableRow) error {
	var (
		t                          NamedType
		kind, category             string
		collation                  uint32
		overName, expression, tree *string
	)
	if err := row.Scan(&t.OID, &t.Schema, &t.Name, &kind, &t.over, &t.Modifier, &t.Element, &collation, &t.NotNull,
		&category, &overName, &expression, &tree, &t.Parts); err != nil {
		return err
	}
	t.Schema, t.Name = r.intern(t.Schema), r.intern(t.Name)
	t.Kind, t.Category = kind[0], category[0]
	t.Base, t.Collation = t.OID, r.c.collations[collation]
	t.overName, t.expression, t.tree = text(overName), text(expression), text(tree)
	r.c.namedTypes[t.Name] = append(r.c.namedTypes[t.Name], &t)
	r.c.typesByOID[t.OID] = &t
	return nil
}

// settleTypes follows domains to their ends. A modifier is that of the first
// domain on the way that has one.
func (r *tableReader) settleTypes() {
	for _, t := range r.c.typesByOID {
		if !t.Domain() {
			continue
		}
		own := *t
		for at := t; at != nil && at.Domain(); at = r.c.typesByOID[at.over] {
			own.Base, own.NotNull = at.over, own.NotNull || at.NotNull
			if own.Modifier < 0 {
				own.Modifier = at.Modifier
			}
		}
		t.Base, t.NotNull, t.Modifier = own.Base, own.NotNull, own.Modifier
		if t.expression != "" {
			t.Default = r.describeDefault(t.expression, t.tree, t.Base, nil)
			t.Default.OfDomain = t.Default.Kind != NoDefault
		}
		t.expression, t.tree = "", ""
	}
}

// TypeOf finds a type by its name as PostgreSQL does; an empty schema means the
// search path. The names that only SQL's grammar knows (integer, timestamp with
// time zone) must be given as the grammar stores them (int4, timestamptz). Row
// types of tables, and arrays of them, are not known here.
func (c *Catalog) TypeOf(schema, name string, path Path) (*NamedType, Resolution) {
	find := func(schema string) (*NamedType, bool) {
		i := slices.IndexFunc(c.namedTypes[name], func(t *NamedType) bool { return t.Schema == schema })
		if i >= 0 {
			return c.namedTypes[name][i], true
		}
		// A table's row type is in the way of another schema's type.
		for _, t := range c.tables[name] {
			if t.Schema == schema && t.Kind != KindSequence {
				return &NamedType{Schema: schema, Name: name, Kind: 'c', Category: 'C'}, true
			}
		}
		return nil, false
	}
	switch {
	case schema == "pg_temp":
		return nil, Temporary
	case !c.HasTables() || schema == "" && !path.known:
		return nil, Ambiguous
	case schema != "":
		if t, ok := find(schema); ok {
			return t, Resolved
		}
		return nil, NotFound
	}
	return resolve(c, path, find)
}

// TypeByOID returns a type, nil for one that is not known here.
func (c *Catalog) TypeByOID(oid uint32) *NamedType { return c.typesByOID[oid] }

// BaseOf returns what a domain is made of in the end, and oid itself for
// another type. A type that the snapshot does not have is 0.
func (c *Catalog) BaseOf(oid uint32) uint32 {
	if t := c.typesByOID[oid]; t != nil {
		return t.Base
	}
	return 0
}

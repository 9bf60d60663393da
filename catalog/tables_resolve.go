package catalog

import (
	"slices"
	"strings"
)

// Resolution says what a name was found to mean.
type Resolution uint8

// The resolutions.
const (
	// NotFound: nothing of that name is in reach. PostgreSQL would say so too,
	// unless the catalog is older than the thing.
	NotFound Resolution = iota
	// Resolved: PostgreSQL finds this one, or reports an error; see Catalog.Table
	// for temporary tables.
	Resolved
	// Ambiguous: the search path is not known, or whether a schema counts
	// depends on a role that is not known.
	Ambiguous
	// Temporary: the name says that it is one of the session's own.
	Temporary
)

// String returns the resolution's name.
func (r Resolution) String() string {
	return [...]string{"not found", "resolved", "ambiguous", "temporary"}[r]
}

// pathStep is a schema of a search path, in order.
type pathStep struct {
	schema string
	// maybe is set when the path may be without it: $user of an unknown role.
	maybe bool
}

// schemaUsage says who may look into a schema: PostgreSQL leaves schemas out of
// a search path that the role has no USAGE on.
type schemaUsage struct {
	everyone bool
	// roles are who may; known is false when there were too many to ask for.
	roles []string
	known bool
}

// PathFor is like Path for a session whose current role is known: $user stands
// for the schema named like it, and schemas that it may not look into are left
// out as PostgreSQL does. After SET ROLE that is the new role.
func (c *Catalog) PathFor(value, role string) Path {
	names, ok := SplitNames(value)
	if !ok {
		return Path{}
	}
	p := Path{known: true, schemas: []string{"pg_catalog"}, role: role}
	for _, n := range names {
		if n == "$user" {
			n = role
		}
		p.schemas = append(p.schemas, n)
	}
	p.steps = pathSteps(names, []pathStep{{schema: role}})
	return p
}

// SystemPath is the search path under which definitions of this package are
// to be read.
func (c *Catalog) SystemPath() Path { return c.Path("pg_catalog") }

// userSteps are what $user may stand for when the role is not known.
func (c *Catalog) userSteps() []pathStep {
	steps := make([]pathStep, len(c.roleSchemas))
	for i, name := range c.roleSchemas {
		steps[i] = pathStep{schema: name, maybe: true}
	}
	return steps
}

// pathSteps puts pg_catalog first unless the path names it.
func pathSteps(names []string, user []pathStep) []pathStep {
	steps := make([]pathStep, 0, len(names)+1)
	if !slices.Contains(names, "pg_catalog") {
		steps = append(steps, pathStep{schema: "pg_catalog"})
	}
	for _, n := range names {
		if n == "$user" {
			steps = append(steps, user...)
			continue
		}
		steps = append(steps, pathStep{schema: n})
	}
	return steps
}

// standing says whether a step surely counts, may count, or does not.
func (c *Catalog) standing(s pathStep, role string) (sure, possible bool) {
	u, ok := c.usage[s.schema]
	switch {
	case !ok: // a schema that the catalog does not know holds nothing that it knows
		return !s.maybe, true
	case u.everyone:
		return !s.maybe, true
	case role == "" || !u.known:
		return false, true
	}
	can := slices.Contains(u.roles, role)
	return can && !s.maybe, can
}

// resolve walks a search path as PostgreSQL does. The first candidate counts
// when its schema surely does; else a second one makes the name ambiguous.
func resolve[T any](c *Catalog, path Path, find func(schema string) (T, bool)) (first T, r Resolution) {
	var firstIn string
	for _, s := range path.steps {
		sure, possible := c.standing(s, path.role)
		if !possible || r == Resolved && s.schema == firstIn {
			continue
		}
		t, ok := find(s.schema)
		switch {
		case !ok:
		case r == Resolved:
			var none T
			return none, Ambiguous
		case sure:
			return t, Resolved
		default:
			first, firstIn, r = t, s.schema, Resolved
		}
	}
	return first, r
}

// Table finds a relation by its name as PostgreSQL does; an empty schema means
// the search path, and with an unknown one a name without schema is ambiguous.
// In a snapshot without tables every name is. The Table is nil unless Resolved.
//
// Temporary tables are in no catalog. A session that has made any finds them
// before all others (unless its search path names pg_temp later); who asks for
// such a session must know them.
func (c *Catalog) Table(schema, name string, path Path) (*Table, Resolution) {
	switch {
	case schema == "pg_temp" || strings.HasPrefix(schema, "pg_temp_"):
		return nil, Temporary
	case !c.HasTables():
		return nil, Ambiguous
	case schema != "":
		t, ok := c.relationIn(schema, name)
		if !ok {
			return nil, NotFound
		}
		return t, Resolved
	case !path.known:
		return nil, Ambiguous
	}
	return resolve(c, path, func(schema string) (*Table, bool) { return c.relationIn(schema, name) })
}

// TableByOID returns a relation, nil for one that the snapshot does not have.
func (c *Catalog) TableByOID(oid uint32) *Table { return c.tablesByOID[oid] }

// Tables returns the relations that initdb did not make, ordered by schema and name.
// The slice must not be changed.
func (c *Catalog) Tables() []*Table { return c.userTables }

// HasTables says whether the snapshot was loaded with tables.
func (c *Catalog) HasTables() bool { return c.tablesByOID != nil }

// otherRelation is an index or a composite type.
type otherRelation struct {
	schema string
	oid    uint32
}

// relationIn finds a relation in one schema.
func (c *Catalog) relationIn(schema, name string) (*Table, bool) {
	for _, t := range c.tables[name] {
		if t.Schema == schema {
			return t, true
		}
	}
	for _, o := range c.others[name] {
		if o.schema == schema {
			return &Table{OID: o.oid, Schema: schema, Name: name, System: o.oid < firstUserOID}, true
		}
	}
	if schema == "pg_toast" && strings.HasPrefix(name, "pg_toast_") {
		return &Table{Schema: schema, Name: name}, true
	}
	return nil, false
}

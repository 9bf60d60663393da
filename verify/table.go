package verify

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"shardproxy/catalog"
)

// table is a reference table as it is compared, and its SQL.
type table struct {
	schema, name string
	only         string // "ONLY " for a table that is no partitioned one
	columns      []column
	key          []column // of the primary key, none without
	ranges       bool     // the key can be asked for by ranges
}

// column is a column of a table.
type column struct {
	name, typeName string
	own            bool // its type is PostgreSQL's own, or an enum
	generated      bool
	always         bool // GENERATED ALWAYS AS IDENTITY
}

// newTable takes what is needed from a catalog.
func newTable(c *catalog.Catalog, t *catalog.Table) *table {
	out := &table{schema: t.Schema, name: t.Name, only: "ONLY "}
	if t.Kind == catalog.KindPartitioned {
		out.only = ""
	}
	numbers := map[int16]column{}
	for i := range t.Columns {
		of := &t.Columns[i]
		named := c.TypeByOID(of.Base)
		col := column{name: of.Name, typeName: of.TypeName,
			own:       of.Base < firstUserOID || named != nil && named.Kind == 'e',
			generated: of.Default.Kind == catalog.DefaultGenerated,
			always:    of.Default.Kind == catalog.DefaultIdentity && of.Default.Always}
		numbers[of.Number] = col
		out.columns = append(out.columns, col)
	}
	if pk := t.PrimaryKey(); pk != nil && pk.Valid {
		out.ranges = true
		for _, n := range pk.Keys {
			out.key = append(out.key, numbers[n])
			out.ranges = out.ranges && numbers[n].own
		}
	}
	return out
}

// firstUserOID is the first OID of what was made after initdb.
const firstUserOID = 16384

// alike reports whether rows of both can be compared: the same columns, in any
// order, and the same key.
func (t *table) alike(o *table) bool {
	if len(t.columns) != len(o.columns) || t.only != o.only {
		return false
	}
	for _, c := range t.columns {
		if !slices.ContainsFunc(o.columns, func(d column) bool { return d.name == c.name && d.typeName == c.typeName }) {
			return false
		}
	}
	return slices.EqualFunc(t.key, o.key, func(a, b column) bool { return a.name == b.name })
}

func quoted(names ...string) string { return pgx.Identifier(names).Sanitize() }

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func (t *table) sql() string { return quoted(t.schema, t.name) }

// from is the table in FROM, by an alias.
func (t *table) from(alias string) string { return t.only + t.sql() + " AS " + alias }

// list names columns, of an alias unless that is "".
func list(alias string, columns []column) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = quoted(c.name)
		if alias != "" {
			names[i] = alias + "." + names[i]
		}
	}
	return strings.Join(names, ", ")
}

// rowText is columns as one text.
func rowText(alias string, columns []column) string {
	return "(ROW(" + list(alias, columns) + `)::pg_catalog.text COLLATE pg_catalog."C")`
}

// writable are the columns that an INSERT may give.
func (t *table) writable() []column {
	return slices.DeleteFunc(slices.Clone(t.columns), func(c column) bool { return c.generated })
}

// matches compares the keys of two aliases.
func (t *table) matches(a, b string) string {
	if !t.ranges {
		return rowText(a, t.key) + " OPERATOR(pg_catalog.=) " + rowText(b, t.key)
	}
	var all []string
	for _, c := range t.key {
		all = append(all, fmt.Sprintf("%s.%s OPERATOR(pg_catalog.=) %[3]s.%[2]s", a, quoted(c.name), b))
	}
	return strings.Join(all, " AND ")
}

// keyRange is the keys after lo, up to and with hi; nil is no bound.
type keyRange struct{ lo, hi []string }

// within is the condition that rows of an alias are in one of some ranges.
func (t *table) within(alias string, ranges []keyRange) string {
	var all []string
	for _, r := range ranges {
		var one []string
		if r.lo != nil {
			one = append(one, t.bound(alias, ">", r.lo))
		}
		if r.hi != nil {
			one = append(one, t.bound(alias, "<=", r.hi))
		}
		if len(one) == 0 {
			return "true"
		}
		all = append(all, "("+strings.Join(one, " AND ")+")")
	}
	if len(all) == 0 {
		return "false"
	}
	return "(" + strings.Join(all, " OR ") + ")"
}

func (t *table) bound(alias, operator string, values []string) string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = literal(v) + "::" + t.key[i].typeName
	}
	return fmt.Sprintf("ROW(%s) OPERATOR(pg_catalog.%s) ROW(%s)", list(alias, t.key), operator, strings.Join(all, ", "))
}

// maxRanges bounds the text of a condition.
const maxRanges = 200

// merged joins ranges that touch, in the order of the key; of too many it makes one
// that has them all.
func merged(ranges []keyRange) (out []keyRange) {
	for _, r := range ranges {
		if n := len(out); n > 0 && out[n-1].hi != nil && r.lo != nil && slices.Equal(out[n-1].hi, r.lo) {
			out[n-1].hi = r.hi
			continue
		}
		out = append(out, r)
	}
	if len(out) > maxRanges {
		return []keyRange{{}}
	}
	return out
}

package catalog

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Difference is one thing that two databases do not have alike.
type Difference struct {
	// Kind is what kind of thing it is: extension, type, function, or a
	// TableKind's name; column, index, ... of such a thing stand in Part.
	Kind string
	// Schema and Name are the thing's; of a function Name has its argument types.
	Schema, Name string
	// Part is what of it differs, "" for the whole: "column note", "index orders_pkey",
	// "row security".
	Part string
	// How says in what, of a part that both have: "type", "default", ...; "" when
	// one has none.
	How string
	// A and B are what each has, as SQL or words; "" where it is missing.
	A, B string
}

// String says it in one line.
func (d Difference) String() string {
	what := d.Kind + " "
	if d.Schema != "" {
		what += d.Schema + "."
	}
	what += d.Name
	if d.Part != "" {
		what += ", " + d.Part
	}
	if d.How != "" {
		what += ", " + d.How
	}
	has := func(s string) string {
		if s == "" {
			return "nothing"
		}
		return s
	}
	return fmt.Sprintf("%s: %s / %s", what, has(d.A), has(d.B))
}

// Differ compares the schemas of two databases that were loaded with tables: all
// that somebody made outside the schemas in except. The order is stable, by
// kind, schema, name and part. OIDs, columns that were dropped, the names of
// sequences that serve a column, grants, owners and comments make no difference.
func Differ(a, b *Catalog, except ...string) []Difference {
	d := &differ{}
	left, right := describe(a, except), describe(b, except)
	for _, key := range unionKeys(left, right) {
		d.thing(key, left[key], right[key])
	}
	return d.found
}

// thingKey names something that a database has.
type thingKey struct {
	rank         int // types first, for tables need them
	schema, name string
}

// thing is something that a database has, in a form that can be compared.
type thing struct {
	kind string
	// facts are what it is as a whole, in a fixed order.
	facts []fact
	// order names the columns as SELECT * gives them.
	order string
	parts map[partKey][]fact
}

// partKey names a part: "column", "note".
type partKey struct {
	rank       int
	kind, name string
}

// fact is one quality.
type fact struct{ how, value string }

// differ gathers differences.
type differ struct{ found []Difference }

func (d *differ) thing(key thingKey, a, b *thing) {
	one := a
	if one == nil {
		one = b
	}
	out := Difference{Kind: one.kind, Schema: key.schema, Name: key.name}
	switch {
	case a == nil:
		out.B = "there"
		d.found = append(d.found, out)
		return
	case b == nil:
		out.A = "there"
		d.found = append(d.found, out)
		return
	}
	d.facts(out, a.facts, b.facts)
	if a.order != b.order && sameColumns(a, b) {
		out.How, out.A, out.B = "order of columns", a.order, b.order
		d.found = append(d.found, out)
	}
	for _, part := range unionKeys(a.parts, b.parts) {
		at := out
		at.Part = part.kind + " " + part.name
		left, right := a.parts[part], b.parts[part]
		switch {
		case left == nil:
			at.B = summary(right)
			d.found = append(d.found, at)
		case right == nil:
			at.A = summary(left)
			d.found = append(d.found, at)
		default:
			d.facts(at, left, right)
		}
	}
}

// sameColumns says whether both have columns of the same names.
func sameColumns(a, b *thing) bool {
	columns := func(t *thing) (names []string) {
		for k := range t.parts {
			if k.kind == "column" {
				names = append(names, k.name)
			}
		}
		slices.Sort(names)
		return names
	}
	return slices.Equal(columns(a), columns(b))
}

// facts compares two lists of the same qualities.
func (d *differ) facts(at Difference, a, b []fact) {
	for i := range a {
		if !SameSQL(a[i].value, b[i].value) {
			at.How, at.A, at.B = a[i].how, a[i].value, b[i].value
			d.found = append(d.found, at)
		}
	}
}

// summary is what is told of a part that one side lacks: its first quality.
func summary(facts []fact) string {
	if len(facts) == 0 || facts[0].value == "" {
		return "there"
	}
	return facts[0].value
}

// comparable keys of things and parts are sorted by their fields.
type sortable interface {
	comparable
	compare() (rank int, texts [2]string)
}

func (k thingKey) compare() (int, [2]string) { return k.rank, [2]string{k.schema, k.name} }
func (k partKey) compare() (int, [2]string)  { return k.rank, [2]string{k.kind, k.name} }

// unionKeys returns the keys of both maps in order.
func unionKeys[K sortable, V any](a, b map[K]V) []K {
	keys := make([]K, 0, max(len(a), len(b)))
	for k := range a {
		keys = append(keys, k)
	}
	for k := range b {
		if _, both := a[k]; !both {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(x, y K) int {
		xr, xt := x.compare()
		yr, yt := y.compare()
		return cmp.Or(cmp.Compare(xr, yr), strings.Compare(xt[0], yt[0]), strings.Compare(xt[1], yt[1]))
	})
	return keys
}

package proxy

import (
	"fmt"
	"slices"
	"strings"

	"shardproxy/exec"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// Inputs of which few rows may have partners are read behind those that say which: see router.Reduction. Both are read in one
// snapshot, or a row that came between would be taken for one without partners.

// Of an input that has more different values than this, or bytes of them, no other is reduced: to look each of them up
// would take longer than to read the other.
const (
	reduceValues = 10_000
	reduceBytes  = 256 << 10
)

// inSteps reports whether a transaction of the query's own is to have one snapshot.
func (c *scattering) inSteps() bool {
	return c.written == nil && c.into == nil && c.way.Steps > 1 && !c.atOnce
}

// notAtOneMoment has all inputs be read at once when a transaction of the query's own could not begin on all shards at one
// moment, for a primary has changed.
func (c *scattering) notAtOneMoment(e *wire.Error) bool {
	if e == nil || e.Code != "40001" || !c.inSteps() {
		return false
	}
	c.atOnce = true
	return true
}

// steps is in how many steps the inputs are read.
func (c *scattering) steps() int {
	if !c.oneSnapshot || c.claiming() {
		return 1
	}
	return max(c.way.Steps, 1)
}

// reducer writes the statements that read the inputs of one step.
type reducer struct {
	c           *scattering
	inputs      []gathered
	step, steps int
	// values are those of columns that were read, each once, nil when they are too many.
	values map[arrayPlace]*exec.Arrays
	// places are the arrays that a statement names, types their types.
	types  []uint32
	places []arrayPlace
}

// on is the statement for one shard; not ok when it has no input, or what is wrong with it is noted. With several
// inputs each row has the number of its own, and that one's columns; the others are NULL.
func (r *reducer) on(shard int) (part router.Part, ok bool) {
	r.types, r.places = nil, nil
	if len(r.inputs) == 1 {
		if !slices.Contains(r.inputs[0].shards, shard) {
			return part, false
		}
		return r.part(r.inputs[0].input.Text)
	}
	var b strings.Builder
	any := false
	// The first branch gives no row: it says what types the columns have, also those of tables that
	// this shard does not have.
	b.WriteString("SELECT -1")
	for i := range r.inputs {
		for _, col := range r.inputs[i].about.columns {
			b.WriteString(", NULL::" + r.c.types[col.typ].name)
		}
	}
	b.WriteString(" WHERE false")
	for i := range r.inputs {
		if !slices.Contains(r.inputs[i].shards, shard) || r.steps > 1 && r.inputs[i].input.Step != r.step {
			continue
		}
		any = true
		fmt.Fprintf(&b, " UNION ALL SELECT %d", i)
		for j := range r.inputs {
			switch columns := len(r.inputs[j].about.columns); {
			case j == i && columns > 0:
				b.WriteString(", q.*")
			case j != i:
				b.WriteString(strings.Repeat(", NULL", columns))
			}
		}
		fmt.Fprintf(&b, " FROM (%s\n) q", r.text(i))
	}
	if !any {
		return part, false
	}
	return r.part(b.String())
}

// text is that of an input for the shards.
func (r *reducer) text(i int) string {
	in := r.inputs[i].input
	var conditions []string
	for _, by := range in.Reductions {
		other := &r.inputs[by.By]
		t := r.c.types[other.about.columns[by.ByColumn].typ]
		if r.steps == 1 || t.array == 0 || t.cast != "" {
			continue
		}
		if values := r.valuesOf(arrayPlace{other.arrays, by.ByColumn}); values != nil {
			conditions = append(conditions, fmt.Sprintf("r.%s IN (SELECT pg_catalog.unnest($%d))", by.Column, r.param(values, t.array)))
		}
	}
	if len(conditions) == 0 {
		return in.Text
	}
	return "SELECT * FROM (" + in.Text + "\n) r WHERE " + strings.Join(conditions, " AND ")
}

// valuesOf are the values of a column, nil when they are too many.
func (r *reducer) valuesOf(column arrayPlace) *exec.Arrays {
	values, known := r.values[column]
	if !known {
		values, _ = column.arrays.Distinct(column.column, reduceValues, reduceBytes)
		r.values[column] = values
	}
	return values
}

// param is the number of an array's parameter, behind those of the client.
func (r *reducer) param(values *exec.Arrays, typ uint32) int {
	n, at := len(r.c.describedAs.params), arrayPlace{arrays: values}
	if i := slices.Index(r.places, at); i >= 0 {
		return n + i + 1
	}
	r.types, r.places = append(r.types, typ), append(r.places, at)
	return n + len(r.places)
}

// part is a text with the client's parameters, and the arrays that it names.
func (r *reducer) part(text string) (part router.Part, ok bool) {
	if len(r.places) == 0 {
		return r.c.part(text)
	}
	all := []byte(text)
	if m := r.c.values.Moment; m != "" {
		all, _ = query.ReplaceMoment(nil, all, m)
	}
	return r.c.withArrays(all, r.types, r.places, 2)
}

// withArrays is a text, with its Bind up to the result formats, that has the client's parameters and arrays behind them. There is room for
// more bytes behind. Not ok is noted.
func (c *scattering) withArrays(text []byte, types []uint32, places []arrayPlace, more int) (part router.Part, ok bool) {
	params := c.describedAs.params
	all, formats, size := make([]int, len(params)), make([]uint16, len(places)), more
	for i := range all {
		all[i] = i + 1
	}
	for i, p := range places {
		formats[i] = 1 // binary
		size += p.arrays.ParamSize(p.column)
	}
	part = router.Part{Text: text, Types: slices.Concat(params, types)}
	part.Bind, ok = c.values.WithParams(size, all, len(places), formats, func(dst []byte, i int) []byte {
		return places[i].arrays.AppendParam(dst, places[i].column)
	})
	if !ok {
		c.fail(wire.Errorf("08P01", "the parameters of Bind are not those of the statement"), nil, -1)
	}
	return part, ok
}

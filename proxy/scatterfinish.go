package proxy

import (
	"fmt"
	"strings"

	"shardproxy/exec"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/shardmap"
	"shardproxy/wire"
)

// finishing is the text that finishes the query over what was gathered; not ok when it cannot be,
// which is noted.
func (c *scattering) finishing(inputs []gathered) (part router.Part, ok bool) {
	f := finisher{c: c, inputs: inputs, types: c.types, params: len(c.describedAs.params)}
	text := f.text()
	if c.err != nil {
		return part, false
	}
	if part, ok = c.withArrays(text, f.arrays, f.places, len(c.asks.formats)); ok {
		part.Bind = append(part.Bind, c.asks.formats...)
	}
	return part, ok
}

// finish runs the text that finishes the query.
func (c *scattering) finish(inputs []gathered) {
	part, ok := c.finishing(inputs)
	if !ok {
		return
	}
	if c.joinsMuch(inputs) {
		back := c.withoutLoops()
		if c.err != nil {
			return
		}
		defer back()
	}
	c.release(inputs) // for it is in Bind now
	if c.opening != nil {
		c.openFinal(&part)
		return
	}
	tail := append(describePortal(), executeClose()...)
	first := c.shards[0]
	sources := c.start(func(shard *scatterShard) []byte {
		if shard != first {
			return nil
		}
		return partFrames(&part, true, tail)
	}, nil)
	if c.err != nil {
		return
	}
	c.streamFinal(sources)
}

// streamFinal gives the client the rows of the text that finishes the query.
func (c *scattering) streamFinal(sources []exec.Source) {
	var wrong *wire.Error
	columns := columnsFor(c.describedAs.body, len(c.describedAs.columns), c.asks.formats)
	checked := false
	rows, err := exec.Merge(sources, exec.MergeOptions{Limit: -1}, func(frames []byte) error {
		if wrong != nil || !checked {
			return errUnwanted
		}
		return c.send(frames)
	}, func(_ int, frame []byte) {
		switch frame[0] {
		case wire.MsgRowDescription:
			checked = true
			if wrong = c.sameColumns(readColumns(frame[5:frameSize(frame)])); wrong == nil {
				c.s.client.SetOutput(c.head(c.s.client.Output(), columns))
			}
		case wire.MsgNoData:
			checked = true
			c.s.client.SetOutput(c.head(c.s.client.Output(), columns))
		}
	})
	c.rows = rows
	if wrong != nil {
		c.fail(wrong, nil, -1)
	}
	if err != nil && c.gone == nil {
		c.endStreams(err)
		if !c.sentHead && wrong == nil {
			c.notItsOwn()
		}
	}
}

// sameColumns checks that the rows have the types that the client was told.
func (c *scattering) sameColumns(have []rowColumn) *wire.Error {
	if sameTypes(have, c.describedAs.columns) {
		return nil
	}
	return wire.Errorf("0A000", "this statement cannot be run over several shards: its columns would have other types")
}

// finisher writes the text that finishes a query.
type finisher struct {
	c      *scattering
	inputs []gathered
	types  map[uint32]typeOf
	params int
	arrays []uint32 // their types
	places []arrayPlace
	first  map[int]int // the first array of each input
}

// arrayPlace is one array.
type arrayPlace struct {
	arrays *exec.Arrays
	column int
}

func (f *finisher) text() []byte {
	f.first = map[int]int{}
	var out []byte
	for _, p := range f.c.way.Final {
		switch p.Kind {
		case router.PieceText:
			text := []byte(p.Text)
			if m := f.c.values.Moment; m != "" {
				text, _ = query.ReplaceMoment(nil, text, m)
			}
			out = append(out, text...)
		case router.PieceRows:
			out = f.rows(out, p.Input)
		case router.PieceRecords:
			out = f.records(out, p.Input, p.Text)
		case router.PieceParts:
			out = f.parts(out, p.Input, p.Column)
		case router.PieceVisible:
			out = f.visible(out, p.Input, p.Column)
		case router.PieceSum:
			out = f.sum(out, p.Input, p.Column)
		case router.PieceMean:
			out = f.mean(out, p.Input, p.Column)
		case router.PieceVariance:
			out = append(out, variance(p.Text, p.Column)...)
		}
	}
	return out
}

// unnest appends the arrays of an input as a row source.
func (f *finisher) unnest(out []byte, input int) []byte {
	g := &f.inputs[input]
	first, seen := f.first[input]
	if !seen {
		first = len(f.arrays)
		f.first[input] = first
		for j, col := range g.about.columns {
			t := f.types[col.typ]
			f.arrays = append(f.arrays, t.array)
			f.places = append(f.places, arrayPlace{g.arrays, j})
		}
	}
	out = append(out, "ROWS FROM ("...)
	for j := range g.about.columns {
		if j > 0 {
			out = append(out, ", "...)
		}
		out = fmt.Appendf(out, "pg_catalog.unnest($%d)", f.params+first+j+1)
	}
	return append(out, ')')
}

// column appends a column of an input as it was read.
func (f *finisher) column(out []byte, input, j int) []byte {
	g := &f.inputs[input]
	out = fmt.Appendf(out, "u.c%d", j+1)
	cast := f.types[g.about.columns[j].typ].cast
	if j < len(g.input.Columns) && g.input.Columns[j].Cast != "" {
		cast = g.input.Columns[j].Cast
	}
	if cast != "" {
		out = append(append(out, "::"...), cast...)
	}
	if j < len(g.input.Columns) && g.input.Columns[j].Collate != "" {
		out = append(append(out, " COLLATE "...), g.input.Columns[j].Collate...)
	}
	return out
}

// list appends the names of an input's columns in its row source.
func (f *finisher) list(out []byte, input int) []byte {
	out = append(out, " AS u("...)
	for j := range f.inputs[input].about.columns {
		if j > 0 {
			out = append(out, ", "...)
		}
		out = fmt.Appendf(out, "c%d", j+1)
	}
	return append(out, ')')
}

// rows is a query that gives the rows of an input under their names.
func (f *finisher) rows(out []byte, input int) []byte {
	g := &f.inputs[input]
	out = append(out, "SELECT "...)
	for j := range g.about.columns {
		if j > 0 {
			out = append(out, ", "...)
		}
		name := g.about.columns[j].name
		if j < len(g.input.Columns) {
			name = g.input.Columns[j].Name
		}
		out = append(f.column(out, input, j), " AS "...)
		out = append(out, `"`+strings.ReplaceAll(name, `"`, `""`)+`"`...)
	}
	return f.list(f.unnest(append(out, " FROM "...), input), input)
}

// records are the rows of an input as values of a type, in FROM. Its columns are all that the type has, in their order.
func (f *finisher) records(out []byte, input int, typ string) []byte {
	out = append(out, "pg_catalog.unnest(ARRAY(SELECT ROW("...)
	for j := range f.inputs[input].about.columns {
		if j > 0 {
			out = append(out, ", "...)
		}
		out = f.column(out, input, j)
	}
	out = append(append(append(out, ")::"...), typ...), " FROM "...)
	return append(f.list(f.unnest(out, input), input), "))"...)
}

// parts are the rows of an input in FROM; the last of its columns are called s1, ...
func (f *finisher) parts(out []byte, input, hidden int) []byte {
	columns := len(f.inputs[input].about.columns)
	out = append(out, "(SELECT "...)
	for j := range columns {
		if j > 0 {
			out = append(out, ", "...)
		}
		out = append(f.column(out, input, j), " AS "...)
		if j < columns-hidden {
			out = fmt.Appendf(out, "c%d", j+1)
		} else {
			out = fmt.Appendf(out, "s%d", j-(columns-hidden)+1)
		}
	}
	return append(f.list(f.unnest(append(out, " FROM "...), input), input), `) AS "shardproxy"`...)
}

// visible are the columns of an input but for the last.
func (f *finisher) visible(out []byte, input, hidden int) []byte {
	for j := range len(f.inputs[input].about.columns) - hidden {
		if j > 0 {
			out = append(out, ", "...)
		}
		out = fmt.Appendf(out, `"shardproxy".c%d`, j+1)
	}
	return out
}

// sum is the sum of a column: of integers it is the type that the parts have.
func (f *finisher) sum(out []byte, input, column int) []byte {
	out = append(out, '(')
	out = fmt.Appendf(out, `pg_catalog.sum("shardproxy".c%d))`, column)
	if f.typ(input, column) == shardmap.Int8.OID() {
		out = append(out, "::pg_catalog.int8"...)
	}
	return out
}

// mean is a sum by the number of what was summed up.
func (f *finisher) mean(out []byte, input, column int) []byte {
	return fmt.Appendf(out, `(pg_catalog.sum("shardproxy".c%d) / nullif(pg_catalog.sum("shardproxy".c%d), 0))`, column, column+1)
}

// float4OID is the type real, of which sums are less exact than means.
const float4OID = 700

func (f *finisher) typ(input, column int) uint32 { return f.inputs[input].about.columns[column-1].typ }

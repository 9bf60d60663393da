package proxy

import (
	"encoding/binary"
	"fmt"
	"strings"

	"shardproxy/exec"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/shardmap"
	"shardproxy/wire"
)

// gathered are the rows of one input.
type gathered struct {
	input  *router.Input
	about  description
	arrays *exec.Arrays
	first  int // its first column in what the shards give
	shards []int
}

// gather reads the inputs and has the first shard finish the query.
func (c *scattering) gather() {
	if c.moment(); c.err != nil {
		return
	}
	about, ok := c.describeAll()
	if !ok {
		return
	}
	if c.lessExact(about) {
		c.again(router.ScatterOptions{NoMerge: c.options.NoMerge, NoGroups: true})
		return
	}
	inputs, ok := c.prepareInputs(about)
	if !ok {
		return
	}
	defer c.release(inputs)
	if len(inputs) > 0 && !c.read(inputs) {
		if c.stale {
			c.afresh(c.gather)
		}
		return
	}
	c.finish(inputs)
}

// describeAll finds out what servers say of the client's text and of the inputs, and how these
// travel.
func (c *scattering) describeAll() (about []description, ok bool) {
	key := c.knownKey()
	if known := c.s.db.known.get(key); known != nil && !c.asked {
		c.cached, c.describedAs, c.types = true, known.client, known.types
		return known.inputs, c.takesParams()
	}
	if !c.describeClient() {
		return nil, false
	}
	parts := make([]router.Part, len(c.way.Inputs))
	for i := range c.way.Inputs {
		var ok bool
		if parts[i], ok = c.part(c.way.Inputs[i].Text); !ok {
			return nil, false
		}
	}
	about = c.describe(parts...)
	if c.err != nil {
		c.notItsOwn()
		return nil, false
	}
	if c.types = c.arrayTypes(about); c.err != nil {
		return nil, false
	}
	c.cached = false
	c.s.db.known.put(key, &scatterKnown{client: c.describedAs, inputs: about, types: c.types})
	return about, true
}

// describeClient asks what the client's text gives, and takes.
func (c *scattering) describeClient() bool {
	v := &c.values
	moment := v.Moment
	v.Moment = ""
	text := router.Part{Text: []byte(c.text), Types: v.Types}
	d := c.describe(text)
	v.Moment = moment
	if c.err != nil {
		return false
	}
	c.describedAs = d[0]
	return c.takesParams()
}

// takesParams checks that the client's parameters are those that its text takes, and notes their
// types.
func (c *scattering) takesParams() bool {
	v := &c.values
	if n := len(c.describedAs.params); n != v.Count() {
		c.fail(wire.Errorf("08P01", "bind message supplies %d parameters, but prepared statement \"\" requires %d", v.Count(), n), nil, -1)
		return false
	}
	for i, t := range c.describedAs.params {
		if t >= firstOwnOID {
			c.fail(wire.Errorf("0A000", "parameter $%d is of a type that is not PostgreSQL's own, and each shard may know it by another number", i+1).
				WithHint("Cast the parameter from text: $%d::text::its_type.", i+1), nil, -1)
			return false
		}
	}
	v.Types = append(v.Types[:0], c.describedAs.params...)
	return true
}

// notItsOwn turns the error of a text that the client did not write into a refusal: that of
// its own was found right.
func (c *scattering) notItsOwn() {
	if c.raw == nil || !strings.HasPrefix(c.err.Code, "42") {
		return
	}
	c.err = wire.Errorf("0A000", "this statement cannot be run over several shards: %s", c.err.Message).
		WithDetail("The part of it that a server is asked for fails: %s", c.err.Message).
		WithHint("Give the key of every sharded table, or write the statement in another way.")
	c.raw = nil
}

// release gives back what was gathered.
func (c *scattering) release(inputs []gathered) {
	for i := range inputs {
		inputs[i].arrays.Release()
	}
	c.s.db.stats.gatherHeld.Add(-c.held)
	c.held = 0
}

// lessExact reports whether parts of an aggregate would be less exact than the whole.
func (c *scattering) lessExact(about []description) bool {
	for _, p := range c.way.Final {
		if p.Kind == router.PieceMean && about[p.Input].columns[p.Column-1].typ == float4OID {
			return true
		}
	}
	return false
}

// prepareInputs makes the arrays for the rows.
func (c *scattering) prepareInputs(about []description) ([]gathered, bool) {
	owners := c.s.db.Owners()
	c.budget = exec.NewBudget(c.s.db.Policy().GatherMax)
	inputs := make([]gathered, len(about))
	first := 1
	for i := range inputs {
		g := &inputs[i]
		*g = gathered{input: &c.way.Inputs[i], about: about[i], first: first}
		first += len(g.about.columns)
		columns := make([]exec.ArrayColumn, len(g.about.columns))
		for j, col := range g.about.columns {
			t := c.types[col.typ]
			if t.array == 0 {
				c.fail(wire.Errorf("0A000", "this statement cannot be run over several shards: values of column \"%s\" cannot be sent to another server", col.name), nil, -1)
				return nil, false
			}
			columns[j] = exec.ArrayColumn{Element: col.typ, Binary: true}
			if t.cast != "" {
				columns[j].Element = textOID
			}
		}
		g.arrays = exec.NewArrays(columns, c.budget)
		var err error
		if g.shards, err = c.shardsOf(g.input.Plan, g.input.Proof, owners); err != nil {
			c.fail(wire.AsError(err), nil, -1)
			return nil, false
		}
		if len(g.shards) == 0 { // none has rows of it, or all have the same
			g.shards = []int{c.shards[0].index}
		}
	}
	return inputs, true
}

// read reads the inputs, those of each shard in one statement: its rows are of one moment.
func (c *scattering) read(inputs []gathered) bool {
	numbered := len(inputs) > 1
	sources := c.start(func(shard *scatterShard) []byte {
		text, formats := c.inputsOn(inputs, shard.index, numbered)
		if text == "" {
			return nil
		}
		part, ok := c.part(text)
		if !ok {
			return nil
		}
		part.Bind = append(part.Bind, formats...)
		tail := wire.AppendFrame(nil, wire.MsgDescribe, []byte("P\x00"))
		tail = wire.AppendFrame(tail, wire.MsgExecute, make([]byte, 5))
		return partFrames(&part, true, wire.AppendEmpty(tail, wire.MsgSync))
	})
	if c.err != nil {
		return false
	}
	c.expected = nil
	if numbered {
		c.expected = append(c.expected, rowColumn{typ: shardmap.Int4.OID()})
	}
	for i := range inputs {
		c.expected = append(c.expected, inputs[i].about.columns...)
	}
	var failed error
	agree := true
	_, err := exec.Merge(sources, exec.MergeOptions{Limit: -1}, func(frames []byte) error {
		if !agree {
			return errStale
		}
		for len(frames) > 0 && failed == nil {
			size := frameSize(frames)
			failed = c.take(inputs, numbered, frames[5:size])
			frames = frames[size:]
		}
		return failed
	}, func(_ int, frame []byte) {
		if frame[0] == wire.MsgRowDescription && agree {
			agree = c.agrees(frame[5:])
		}
	})
	if !agree {
		c.endStreams()
		return false
	}
	if failed != nil {
		c.fail(c.tooMuch(inputs, failed), nil, -1)
		return false
	}
	if err != nil {
		c.endStreams()
		c.fail(wire.AsError(err), nil, -1)
		return false
	}
	c.endStreams()
	c.held = c.budget.Used()
	c.s.db.stats.gathered.Add(c.held)
	c.s.db.stats.gatherHeld.Add(c.held)
	return c.err == nil
}

// take takes one row.
func (c *scattering) take(inputs []gathered, numbered bool, row []byte) error {
	if !numbered {
		return inputs[0].arrays.Add(row, 0)
	}
	if len(row) < 10 || binary.BigEndian.Uint32(row[2:]) != 4 {
		return wire.Errorf("08P01", "a row of no input")
	}
	i := int(binary.BigEndian.Uint32(row[6:]))
	if i >= len(inputs) {
		return wire.Errorf("08P01", "a row of no input")
	}
	return inputs[i].arrays.Add(row, inputs[i].first)
}

// tooMuch says which input is too large.
func (c *scattering) tooMuch(inputs []gathered, err error) *wire.Error {
	if e := wire.AsError(err); e.Code != "XX000" {
		return e
	}
	largest := &inputs[0]
	for i := range inputs {
		if inputs[i].arrays.Rows() > largest.arrays.Rows() {
			largest = &inputs[i]
		}
	}
	return wire.Errorf("54000", "the rows that are gathered from several shards are more than %d bytes", c.s.db.Policy().GatherMax).
		WithDetail("The largest input, with %d rows so far: %s", largest.arrays.Rows(), shortened(largest.input.Text)).
		WithHint("Narrow the statement, give it a key, or raise limits.gather.").WithCause(err)
}

func shortened(text string) string {
	if len(text) > 300 {
		return text[:300] + "..."
	}
	return text
}

// inputsOn is the statement for one shard, "" for none, and its result formats. With several
// inputs each row has the number of its own, and that one's columns; the others are NULL.
func (c *scattering) inputsOn(inputs []gathered, shard int, numbered bool) (text string, formats []byte) {
	if !numbered {
		return inputs[0].input.Text, c.inputFormats(inputs)
	}
	var b strings.Builder
	any := false
	// The first branch gives no row: it says what types the columns have.
	b.WriteString("SELECT -1")
	for i := range inputs {
		if len(inputs[i].about.columns) > 0 {
			fmt.Fprintf(&b, ", q%d.*", i)
		}
	}
	for i := range inputs {
		word := ", "
		if i == 0 {
			word = " FROM "
		}
		fmt.Fprintf(&b, "%s(SELECT * FROM (%s\n) r WHERE false) q%d", word, inputs[i].input.Text, i)
	}
	b.WriteString(" WHERE false")
	for i := range inputs {
		if !contains(inputs[i].shards, shard) {
			continue
		}
		any = true
		fmt.Fprintf(&b, " UNION ALL SELECT %d", i)
		for j := range inputs {
			switch {
			case j == i && len(inputs[j].about.columns) > 0:
				b.WriteString(", q.*")
			case j != i:
				b.WriteString(strings.Repeat(", NULL", len(inputs[j].about.columns)))
			}
		}
		fmt.Fprintf(&b, " FROM (%s\n) q", inputs[i].input.Text)
	}
	if !any {
		return "", nil
	}
	return b.String(), c.inputFormats(inputs)
}

func contains(list []int, n int) bool {
	for _, x := range list {
		if x == n {
			return true
		}
	}
	return false
}

// inputFormats are the result formats of what the shards give.
func (c *scattering) inputFormats(inputs []gathered) (out []byte) {
	var list []uint16
	if len(inputs) > 1 {
		list = append(list, 1)
	}
	for i := range inputs {
		for _, col := range inputs[i].about.columns {
			t := c.types[col.typ]
			f := uint16(0)
			if t.cast == "" {
				f = 1
			}
			list = append(list, f)
		}
	}
	out = binary.BigEndian.AppendUint16(out, uint16(len(list)))
	for _, f := range list {
		out = binary.BigEndian.AppendUint16(out, f)
	}
	return out
}

// finish runs the text that finishes the query over what was gathered.
func (c *scattering) finish(inputs []gathered) {
	v := &c.values
	f := finisher{c: c, inputs: inputs, types: c.types, params: len(c.describedAs.params)}
	text := f.text()
	if c.err != nil {
		return
	}
	part := router.Part{Text: text, Types: append([]uint32(nil), c.describedAs.params...)}
	part.Types = append(part.Types, f.arrays...)
	all := make([]int, f.params)
	for i := range all {
		all[i] = i + 1
	}
	bind, ok := v.WithParams(all, len(f.arrays), f.formats(), func(dst []byte, i int) []byte {
		return f.places[i].arrays.AppendParam(dst, f.places[i].column)
	})
	if !ok {
		c.fail(wire.Errorf("08P01", "the parameters of Bind are not those of the statement"), nil, -1)
		return
	}
	part.Bind = append(bind, c.asks.formats...)
	tail := wire.AppendFrame(nil, wire.MsgDescribe, []byte("P\x00"))
	tail = wire.AppendEmpty(wire.AppendFrame(tail, wire.MsgExecute, make([]byte, 5)), wire.MsgSync)
	first := c.shards[0]
	sources := c.start(func(shard *scatterShard) []byte {
		if shard != first {
			return nil
		}
		return partFrames(&part, true, tail)
	})
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
		c.endStreams()
		if !c.sentHead {
			c.notItsOwn()
		}
		if wrong == nil {
			c.fail(wire.AsError(err), nil, -1)
		}
	}
}

// sameColumns checks that the rows have the types that the client was told.
func (c *scattering) sameColumns(have []rowColumn) *wire.Error {
	want := c.describedAs.columns
	same := len(have) == len(want)
	for i := range want {
		same = same && have[i].typ == want[i].typ
	}
	if same {
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
		case router.PieceParts:
			out = f.parts(out, p.Input, p.Column)
		case router.PieceVisible:
			out = f.visible(out, p.Input, p.Column)
		case router.PieceSum:
			out = f.sum(out, p.Input, p.Column)
		case router.PieceMean:
			out = f.mean(out, p.Input, p.Column)
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
	if cast := f.types[g.about.columns[j].typ].cast; cast != "" {
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

// formats are those of the arrays: binary.
func (f *finisher) formats() []uint16 {
	out := make([]uint16, len(f.places))
	for i := range out {
		out[i] = 1
	}
	return out
}

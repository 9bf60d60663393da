package proxy

import (
	"encoding/binary"
	"slices"
	"strings"

	"shardproxy/exec"
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
	if c.moment(); c.err != nil || c.written != nil && !c.written.steady() {
		return
	}
	about, ok := c.describeAll()
	if !ok {
		return
	}
	ungrouped := router.ScatterOptions{NoMerge: c.options.NoMerge, NoGroups: true}
	if c.notTogether(about) {
		c.otherwise(ungrouped)
		return
	}
	inputs, ok := c.prepareInputs(about)
	if !ok || !c.formatsFit(len(c.describedAs.columns)) || !c.asTold(c.describedAs.body) || !c.ownsViews() {
		return
	}
	defer c.release(inputs)
	read := c.read
	if c.claiming() {
		read = c.readClaimed
	}
	c.watchScales(inputs)
	if len(inputs) > 0 && !read(inputs) {
		if c.stale {
			c.afresh(c.gather)
		}
		return
	}
	if c.tooFine {
		c.release(inputs)
		c.otherwise(ungrouped)
		return
	}
	if c.written != nil {
		c.written.prepare(inputs)
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
	if c.written != nil {
		travelsByName(c.types)
	}
	c.knows(key, &scatterKnown{client: c.describedAs, inputs: about, types: c.types})
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

// ownsViews checks that the views whose queries were written out are the role's own: those
// of others read with their owner's rights.
func (c *scattering) ownsViews() bool {
	if len(c.way.Views) == 0 {
		return true
	}
	names := make([]string, len(c.way.Views))
	for i, v := range c.way.Views {
		names[i] = "'" + strings.ReplaceAll(v, "'", "''") + "'::pg_catalog.regclass"
	}
	a := c.ask(wire.AppendQuery(nil, `SELECT pg_catalog.bool_and(pg_catalog.pg_get_userbyid(relowner) = current_user
AND pg_catalog.has_table_privilege(oid, 'SELECT')) FROM pg_catalog.pg_class WHERE oid IN (`+strings.Join(names, ", ")+")"))
	if c.err != nil {
		return false
	}
	if !says(a.Frames, "t") {
		c.fail(wire.Errorf("0A000", "this statement cannot be run over several shards: the query of a view that belongs to another role would have to be put in its place").
			WithDetail("Views: %s.", strings.Join(c.way.Views, ", ")).WithHint("Query its tables, or have the view belong to the role."), nil, -1)
		return false
	}
	return true
}

// steadyText checks that values are what they were when they have been written as text and read
// again.
func (c *scattering) steadyText() bool {
	a := c.ask(wire.AppendQuery(nil, `SELECT pg_catalog.current_setting('extra_float_digits')::pg_catalog.int4 > 0 AND pg_catalog.current_setting('DateStyle') LIKE 'ISO%'
AND pg_catalog.current_setting('IntervalStyle') = 'postgres' AND pg_catalog.current_setting('array_nulls')::pg_catalog.bool`))
	if c.err != nil {
		return false
	}
	if !says(a.Frames, "t") {
		c.fail(wire.Errorf("0A000", "this statement cannot be run over several shards: arrays, or composite values, travel as text, which the session's settings change").
			WithHint("Set extra_float_digits to 1, DateStyle to ISO, IntervalStyle to postgres and array_nulls to on."), nil, -1)
		return false
	}
	return true
}

// says reports whether an answer is one row of one column with a text.
func says(frames []byte, text string) bool {
	_, rows, _ := cutRows(frames)
	if len(rows) != 1 {
		return false
	}
	f := rowFields(rows[0][5:])
	return len(f) == 1 && string(f[0]) == text
}

// haveMoved reports whether an input that was read on the shard of its key alone may have been read there too late: the key has another owner by now.
// Writes go to a new owner when all proxies know it, so that what was read before this one did is all there is.
func (c *scattering) haveMoved(inputs []gathered) bool {
	now := c.s.db.Owners()
	if c.owners == nil || now == nil || now.Epoch() == c.owners.Epoch() {
		return false
	}
	for i := range inputs {
		p := inputs[i].input.Plan
		if p.Where != router.Keyed || p.FansOut() {
			continue
		}
		shards, err := c.shardsOf(p, inputs[i].input.Proof, now)
		if err != nil || !slices.Equal(shards, inputs[i].shards) {
			return true
		}
	}
	return false
}

// prepareInputs makes the arrays for the rows.
func (c *scattering) prepareInputs(about []description) ([]gathered, bool) {
	c.budget = exec.NewBudget(c.s.db.Policy().GatherMax)
	inputs := make([]gathered, len(about))
	first, asText := 1, false
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
				columns[j].Element, asText = textOID, true
			}
		}
		g.arrays = exec.NewArrays(columns, c.budget)
		var err error
		if g.shards, err = c.shardsOf(g.input.Plan, g.input.Proof, c.owners); err != nil {
			c.fail(wire.AsError(err), nil, -1)
			return nil, false
		}
		if of := g.shards; len(of) > 0 {
			if g.shards = c.present(of); len(g.shards) == 0 {
				c.fail(c.missing[0].why, nil, -1)
				return nil, false
			}
		}
		if len(g.shards) == 0 { // none has rows of it, or all have the same
			g.shards = []int{c.shards[0].index}
		}
	}
	return inputs, !asText || c.steadyText()
}

// read reads the inputs, step by step.
func (c *scattering) read(inputs []gathered) bool {
	steps := c.steps()
	for step := range steps {
		r := reducer{c: c, inputs: inputs, step: step, steps: steps, values: map[arrayPlace]*exec.Arrays{}}
		if !c.readStep(&r) {
			return false
		}
	}
	if c.haveMoved(inputs) {
		c.fail(errMoved, nil, -1)
		return false
	}
	c.held = c.budget.Used()
	c.s.db.stats.gathered.Add(c.held)
	c.s.db.stats.gatherHeld.Add(c.held)
	return true
}

// readStep reads the inputs of one step, those of each shard in one statement: its rows are of one moment.
func (c *scattering) readStep(r *reducer) bool {
	inputs, numbered := r.inputs, len(r.inputs) > 1
	sources := c.start(func(shard *scatterShard) []byte {
		part, ok := r.on(shard.index)
		if !ok {
			return nil
		}
		part.Bind = append(part.Bind, c.inputFormats(inputs)...)
		return partFrames(&part, true, describePortal())
	}, executeClose())
	if c.err != nil {
		return false
	}
	c.gathering, c.expected = true, nil
	defer func() { c.gathering = false }()
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
		c.endStreams(nil)
		return false
	}
	if failed != nil {
		c.fail(c.tooMuch(inputs, failed), nil, -1)
		return false
	}
	if err != nil {
		c.endStreams(err)
		return false
	}
	c.endStreams(nil)
	return c.err == nil
}

// take takes one row.
func (c *scattering) take(inputs []gathered, numbered bool, row []byte) error {
	if !numbered {
		c.lookAtScales(0, 0, row)
		return inputs[0].arrays.Add(row, 0)
	}
	if len(row) < 10 || binary.BigEndian.Uint32(row[2:]) != 4 {
		return wire.Errorf("08P01", "a row of no input")
	}
	i := int(binary.BigEndian.Uint32(row[6:]))
	if i >= len(inputs) {
		return wire.Errorf("08P01", "a row of no input")
	}
	c.lookAtScales(i, inputs[i].first, row)
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

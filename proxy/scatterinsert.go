package proxy

import (
	"encoding/binary"
	"fmt"

	"shardproxy/exec"
	"shardproxy/pool"
	"shardproxy/router"
	"shardproxy/wire"
)

// The rows of an INSERT ... SELECT that no shard can run on its own are read as those of any other
// query, and kept, within limits.gather, until all have come: what is inserted is not seen by the
// query. Then each shard gets those that belong there in one INSERT, whose rows are arrays as
// those of gathered inputs are. What the values become in the table's columns, and whether
// they may, is for the servers to say.

// inserting is what becomes of the rows of such a query.
type inserting struct {
	c  *scattering
	of *router.Insertion
	// asks are what the client asks for, promised the result that it was told before.
	asks     clientAsks
	promised *string
	// reads is set while the query runs.
	reads bool
	// columns are those of the query, returns says what the client's text gives.
	columns []rowColumn
	types   map[uint32]typeOf
	returns description
	// making is set for a table that is made for the rows.
	making *making
	// keys are the values of the key's columns that are not placed as they are; nil for others.
	keys   [][][]byte
	rows   [][]byte // bodies of DataRows
	block  []byte   // the rows that came last
	budget int64    // what is left, in bytes
	shards []int    // of the rows, see router.Insertion
	drawn  [][]byte // of each row, one behind the other
	answer []byte   // what the client gets
}

// insertBlock is how much memory is taken for rows at once, in bytes; rowOverhead is what one
// takes besides.
const (
	insertBlock = 256 << 10
	rowOverhead = 32
)

// read finds out what is to be inserted, and reads it.
func (i *inserting) read() {
	c := i.c
	i.asks = c.asks
	defer func() { c.asks, i.reads = i.asks, false }()
	if i.making != nil && !i.making.make() {
		return
	}
	if c.moment(); c.err != nil || !i.describe() {
		return
	}
	i.drop()
	c.promised, i.reads = nil, true
	if c.way.Merge != nil {
		c.merge()
	} else {
		c.gather()
	}
	c.held = c.s.db.Policy().GatherMax - i.budget
	c.s.db.stats.gathered.Add(c.held)
	c.s.db.stats.gatherHeld.Add(c.held)
	if c.err == nil && c.gone == nil && len(i.rows) > 0 {
		i.castKeys()
	}
}

// describe asks what the client's text takes and gives, and what its query gives.
func (i *inserting) describe() bool {
	c := i.c
	d := c.describe(router.Part{Text: []byte(c.source), Types: c.values.Types})
	if c.err != nil {
		return false
	}
	i.returns, c.describedAs, c.promised = d[0], d[0], i.promised
	if !c.takesParams() || i.returns.body != nil && (!c.formatsFit(len(i.returns.columns)) || !c.asTold(i.returns.body)) {
		return false
	}
	q := c.describe(router.Part{Text: []byte(c.text), Types: c.values.Types})
	if c.err != nil {
		c.notItsOwn()
		return false
	}
	if i.columns = q[0].columns; len(i.columns) != len(i.of.Columns) {
		c.fail(wire.Errorf("0A000", "this statement cannot be run over several shards: its query gives %d columns, and not the %d that were known", len(i.columns), len(i.of.Columns)), nil, -1)
		return false
	}
	if i.making != nil && !i.making.gives(i.columns) {
		return false
	}
	if i.types = c.arrayTypes(q); c.err != nil {
		return false
	}
	// The rows go to shards that may know a type by another number.
	asText := false
	formats := binary.BigEndian.AppendUint16(nil, uint16(len(i.columns)))
	for _, col := range i.columns {
		if i.types[col.typ].array == 0 {
			c.fail(wire.Errorf("0A000", "this statement cannot be run over several shards: values of column \"%s\" cannot be sent to another server", col.name), nil, -1)
			return false
		}
		f := uint16(1)
		if i.travelsAsText(col.typ) {
			f, asText = 0, true
		}
		formats = binary.BigEndian.AppendUint16(formats, f)
	}
	c.asks = clientAsks{simple: false, formats: formats}
	return !asText || c.steadyText()
}

// travelsAsText reports whether the values of a type are sent as text.
func (i *inserting) travelsAsText(typ uint32) bool {
	return typ >= firstOwnOID || i.types[typ].cast != ""
}

// likeTypes reports whether columns have the same types but for those that each server numbers anew:
// their values travel as text, and are read by the type's name.
func (i *inserting) likeTypes(have, known []rowColumn) bool {
	like := len(have) == len(known) && len(have) >= len(i.columns) && i.c.way.Merge != nil
	for j := range have {
		like = like && (have[j].typ == known[j].typ || j < len(i.columns) && have[j].typ >= firstOwnOID && known[j].typ >= firstOwnOID)
	}
	return like
}

// element is how a column of the query is sent.
func (i *inserting) element(j int) exec.ArrayColumn {
	if typ := i.columns[j].typ; !i.travelsAsText(typ) {
		return exec.ArrayColumn{Element: typ, Binary: true}
	}
	return exec.ArrayColumn{Element: textOID, Binary: true}
}

// arrayOf is the type of the array of a column.
func (i *inserting) arrayOf(j int) uint32 {
	if typ := i.columns[j].typ; !i.travelsAsText(typ) {
		return i.types[typ].array
	}
	return textArray
}

// drop forgets what was read.
func (i *inserting) drop() {
	i.release()
	i.budget = i.c.s.db.Policy().GatherMax
}

// release says that nothing is held any more.
func (i *inserting) release() {
	c := i.c
	i.rows, i.block, i.keys, i.drawn = nil, nil, nil, nil
	c.s.db.stats.gatherHeld.Add(-c.held)
	c.held = 0
}

// take keeps rows.
func (i *inserting) take(frames []byte) error {
	for len(frames) > 0 {
		size := frameSize(frames)
		row := frames[5:size]
		if i.budget -= int64(len(row) + rowOverhead); i.budget < 0 {
			return wire.Errorf("54000", "the rows that are gathered from several shards are more than %d bytes", i.c.s.db.Policy().GatherMax).
				WithDetail("They are those that are inserted, %d so far.", len(i.rows)).
				WithHint("Insert them in several statements, or raise limits.gather.")
		}
		if len(row) > cap(i.block)-len(i.block) {
			i.block = make([]byte, 0, max(insertBlock, len(row)))
		}
		at := len(i.block)
		i.block = append(i.block, row...)
		i.rows = append(i.rows, i.block[at:len(i.block):len(i.block)])
		frames = frames[size:]
	}
	return nil
}

// castKeys has a server say what the values of the key become in the key's columns.
func (i *inserting) castKeys() {
	c := i.c
	i.keys = make([][][]byte, len(i.of.Keys))
	for n := range i.of.Keys {
		k := &i.of.Keys[n]
		if k.Plain(i.columns[k.Column].typ) && !i.travelsAsText(i.columns[k.Column].typ) {
			continue
		}
		arrays := exec.NewArrays([]exec.ArrayColumn{i.element(k.Column)}, exec.NewBudget(c.s.db.Policy().GatherMax))
		for _, row := range i.rows {
			if err := arrays.Add(row, k.Column); err != nil {
				c.fail(i.tooMuch(err), nil, -1)
				return
			}
		}
		text := fmt.Sprintf("SELECT (%s)::%s::pg_catalog.text FROM pg_catalog.unnest($1) AS u(c1)", i.value(k.Column, "u.c1"), k.Type)
		part := router.Part{Text: []byte(text), Types: []uint32{i.arrayOf(k.Column)}, Bind: i.bind(1, arrays, nil)}
		execute := wire.AppendFrame(nil, wire.MsgExecute, make([]byte, 5))
		a, err := c.shards[0].lease.Run(c.s.server.ctx, partFrames(&part, true, wire.AppendEmpty(execute, wire.MsgSync)),
			pool.RunOptions{Keep: int(min(c.s.db.Policy().GatherMax, 1<<30))})
		if err != nil {
			c.shards[0].answer, c.shards[0].err = a, err
			c.fail(wire.AsError(err), withoutPosition(a.Error), 0)
			return
		}
		_, rows, _ := cutRows(a.Frames)
		if len(rows) != len(i.rows) {
			c.fail(wire.Errorf("XX000", "a server gave %d keys for %d rows", len(rows), len(i.rows)), nil, -1)
			return
		}
		for _, row := range rows {
			f := rowFields(row[5:])
			if len(f) != 1 {
				c.fail(wire.Errorf("08P01", "a row of no key"), nil, -1)
				return
			}
			i.keys[n] = append(i.keys[n], f[0])
		}
	}
}

// value is a column of the query where it is read from its array.
func (i *inserting) value(j int, from string) string {
	col := &i.of.Columns[j]
	switch typ := i.columns[j].typ; {
	case col.Literal && col.As != "" && typ == textOID:
		return from + "::" + col.As
	case i.travelsAsText(typ):
		return from + "::" + i.types[typ].name
	}
	return from
}

// bind is the parameters of a text with the columns of arrays as its only ones; formats are those of
// its result.
func (i *inserting) bind(columns int, arrays *exec.Arrays, formats []byte) (out []byte) {
	out = binary.BigEndian.AppendUint16(out, uint16(columns))
	for range columns {
		out = binary.BigEndian.AppendUint16(out, 1)
	}
	out = binary.BigEndian.AppendUint16(out, uint16(columns))
	for j := range columns {
		out = arrays.AppendParam(out, j)
	}
	if formats == nil {
		formats = []byte{0, 0}
	}
	return append(out, formats...)
}

func (i *inserting) tooMuch(err error) *wire.Error {
	if e := wire.AsError(err); e.Code != "XX000" {
		return e
	}
	return wire.Errorf("54000", "the rows that are gathered from several shards are more than %d bytes", i.c.s.db.Policy().GatherMax).
		WithDetail("They are those that are inserted, %d.", len(i.rows)).
		WithHint("Insert them in several statements, or raise limits.gather.").WithCause(err)
}

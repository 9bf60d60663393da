package proxy

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"shardproxy/exec"
	"shardproxy/pool"
	"shardproxy/router"
	"shardproxy/wire"
)

// put inserts the rows; what fails is in the query's error then. An error ends the session.
func (i *inserting) put(p *router.Plan) error {
	s := i.c.s
	if e := i.draw(); e != nil {
		return i.failed(nil, pool.Answer{}, e)
	}
	var e *wire.Error
	s.task.aside(func() { e = i.place() })
	if e != nil {
		return i.failed(nil, pool.Answer{}, e)
	}
	targets := i.targets()
	s.tallyAlso(targets)
	answers := make([]pool.Answer, len(targets))
	numbers := make([][]int, len(targets))
	for n, shard := range targets {
		var frames []byte
		s.task.aside(func() { frames, numbers[n], e = i.part(shard) })
		if e != nil {
			return i.failed(nil, pool.Answer{}, e)
		}
		l, wrote := s.partOn(shard)
		*wrote = true
		a, err := s.runOn(l, frames, answerMax)
		if answers[n] = a; err != nil {
			s.goTo(shard)
			return i.failed(l, a, err)
		}
		if i.of.Everywhere && a.Tag != answers[0].Tag {
			return i.failed(nil, pool.Answer{}, wire.Errorf("55000", "shards gave different results: %s on %s, %s on %s", answers[0].Tag, s.db.Shards[targets[0]].Name,
				a.Tag, s.db.Shards[shard].Name).WithHint("The copies of the table differ."))
		}
	}
	s.notesDrawing(p)
	if e := i.join(answers, numbers); e != nil {
		return i.failed(nil, pool.Answer{}, e)
	}
	return nil
}

// failed notes why the rows were not inserted, and makes the transaction fail.
func (i *inserting) failed(l *pool.Server, a pool.Answer, err error) error {
	c := i.c
	if l == nil {
		l = c.s.lease
	}
	if a.Error != nil {
		a.Error = withoutPosition(a.Error)
	}
	e := c.s.allFailed(l, a, err)
	if c.fail(e, a.Error, -1); e.IsFatal() {
		return e
	}
	return nil
}

// draw draws what the rows leave to sequences, and to chance.
func (i *inserting) draw() *wire.Error {
	draws, n := i.of.Draws, len(i.rows)
	i.drawn = make([][]byte, n*len(draws))
	for j := range draws {
		d := &draws[j]
		if d.OfMoment() || n == 0 {
			continue
		}
		if d.OfChance() {
			for row := range n {
				i.drawn[row*len(draws)+j] = randomUUID().text()
			}
			continue
		}
		for row := 0; row < n; {
			values, e := i.c.s.drawValues(d, min(n-row, copyDrawMax))
			if e != nil {
				return e
			}
			for _, v := range values {
				i.drawn[row*len(draws)+j] = strconv.AppendInt(nil, v, 10)
				row++
			}
			if row == n && !d.Unique {
				i.c.s.recalls().drew(d.Sequence, values[len(values)-1])
			}
		}
	}
	return nil
}

// place finds the shards of the rows.
func (i *inserting) place() *wire.Error {
	c := i.c
	if i.shards = nil; i.of.Everywhere || i.of.Home {
		return nil
	}
	owners := c.s.db.Owners()
	if owners == nil {
		return errNoOwners()
	}
	v := router.Values{OtherEncoding: !c.s.serverEncoding()}
	head := binary.BigEndian.AppendUint16(nil, uint16(len(i.of.Keys)))
	for n := range i.of.Keys {
		f := uint16(1)
		typ := i.columns[i.of.Keys[n].Column].typ
		if i.keys != nil && i.keys[n] != nil {
			f, typ = 0, 0
		}
		head = binary.BigEndian.AppendUint16(head, f)
		v.Types = append(v.Types, typ)
	}
	head = binary.BigEndian.AppendUint16(head, uint16(len(i.of.Keys)))
	draws := len(i.of.Draws)
	var body []byte
	i.shards = make([]int, len(i.rows))
	for row := range i.rows {
		fields := rowFields(i.rows[row])
		if len(fields) != len(i.columns) {
			return wire.Errorf("08P01", "a row of another query")
		}
		body = append(body[:0], head...)
		for n := range i.of.Keys {
			value := fields[i.of.Keys[n].Column]
			if i.keys != nil && i.keys[n] != nil {
				value = i.keys[n][row]
			}
			body = appendField(body, value)
		}
		if !v.Bind(body) {
			return wire.Errorf("08P01", "a row of no key")
		}
		shard, err := i.of.Shard(owners, &v, i.drawn[row*draws:(row+1)*draws])
		if err != nil {
			return wire.AsError(err)
		}
		i.shards[row] = shard
	}
	return nil
}

// appendField appends a value with its length, as rows and Bind have it.
func appendField(dst, value []byte) []byte {
	if value == nil {
		return binary.BigEndian.AppendUint32(dst, 0xffffffff)
	}
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(value))), value...)
}

// targets are the shards that get rows, in order; without rows one server says whether there
// might be any.
func (i *inserting) targets() (all []int) {
	switch {
	case i.of.Everywhere:
		return i.c.s.allShards()
	case !i.of.Home:
		all = slices.Compact(slices.Sorted(slices.Values(i.shards)))
	}
	if len(all) == 0 {
		all = []int{0}
	}
	return all
}

// part is the request for one shard, and the numbers of its rows.
func (i *inserting) part(shard int) (frames []byte, numbers []int, e *wire.Error) {
	c := i.c
	for row := range i.rows {
		if i.shards == nil || i.shards[row] == shard {
			numbers = append(numbers, row)
		}
	}
	arrays, types, values := i.arrays()
	defer arrays.Release()
	draws := len(i.of.Draws)
	var added []byte
	for _, row := range numbers {
		body := i.rows[row]
		if draws > 0 {
			added = append(added[:0], body...)
			for j := range draws {
				if d := &i.of.Draws[j]; !d.OfMoment() {
					added = appendField(added, i.drawn[row*draws+j])
				}
			}
			binary.BigEndian.PutUint16(added, uint16(len(types)))
			body = added
		}
		if err := arrays.Add(body, 0); err != nil {
			return nil, nil, i.tooMuch(err)
		}
	}
	part := router.Part{Types: append(slices.Clone(c.values.Types), types...)}
	part.Text = []byte(i.of.Text(i.rowSource(values, len(types)), c.values.Moment))
	all := make([]int, len(c.values.Types))
	for n := range all {
		all[n] = n + 1
	}
	formats := make([]uint16, len(types))
	size := len(i.asks.formats)
	for j := range types {
		formats[j] = 1
		size += arrays.ParamSize(j)
	}
	bind, ok := c.values.WithParams(size, all, len(types), formats, func(dst []byte, j int) []byte { return arrays.AppendParam(dst, j) })
	if !ok {
		return nil, nil, wire.Errorf("08P01", "the parameters of Bind are not those of the statement")
	}
	part.Bind = append(bind, i.asks.formats...)
	tail := append(describePortal(), executeSync()...)
	return partFrames(&part, true, tail), numbers, nil
}

// arrays makes the arrays for the rows, with what is drawn behind them; values are what stands
// for each column in the text.
func (i *inserting) arrays() (arrays *exec.Arrays, types []uint32, values []string) {
	var columns []exec.ArrayColumn
	for j := range i.columns {
		columns, types = append(columns, i.element(j)), append(types, i.arrayOf(j))
		values = append(values, i.value(j, fmt.Sprintf("u.c%d", j+1)))
	}
	for j := range i.of.Draws {
		d := &i.of.Draws[j]
		if d.OfMoment() {
			values = append(values, d.Default(i.c.values.Moment))
			continue
		}
		columns, types = append(columns, exec.ArrayColumn{Element: textOID, Binary: true}), append(types, textArray)
		as := "pg_catalog.int8"
		switch {
		case d.OfChance() && d.Text:
			as = "pg_catalog.text"
		case d.OfChance():
			as = "pg_catalog.uuid"
		}
		values = append(values, fmt.Sprintf("u.c%d::%s", len(types), as))
	}
	return exec.NewArrays(columns, exec.NewBudget(1<<40)), types, values // the rows are bounded, and so are these
}

// rowSource is the query that gives the rows of arrays.
func (i *inserting) rowSource(values []string, arrays int) string {
	first := len(i.c.values.Types)
	calls, names := make([]string, arrays), make([]string, arrays)
	for j := range calls {
		calls[j] = fmt.Sprintf("pg_catalog.unnest($%d)", first+j+1)
		names[j] = fmt.Sprintf("c%d", j+1)
	}
	return "SELECT " + strings.Join(values, ", ") + " FROM ROWS FROM (" + strings.Join(calls, ", ") + ") AS u(" + strings.Join(names, ", ") + ")"
}

// join makes the answer of those of the shards.
func (i *inserting) join(answers []pool.Answer, numbers [][]int) *wire.Error {
	total := 0
	var notices []byte
	var rows [][]byte
	inserted := make(map[int][]byte)
	for n := range answers {
		_, count, ok := answers[n].Count()
		if !ok {
			return wire.Errorf("XX000", "a shard answered %q to an INSERT", answers[n].Tag)
		}
		head, mine, _ := cutRows(answers[n].Frames)
		if notices = append(notices, newNotices(head, notices)...); i.of.Everywhere && n > 0 {
			continue
		}
		total += count
		rows = append(rows, mine...)
		if len(mine) != len(numbers[n]) {
			inserted = nil
		}
		for at, row := range mine {
			if inserted != nil {
				inserted[numbers[n][at]] = row
			}
		}
	}
	if inserted == nil && i.of.Ordered && len(answers) > 1 && !i.of.Everywhere && len(rows) > 0 {
		return wire.Errorf("0A000", "rows were left out, and the order of the others in RETURNING is not known").
			WithHint("Leave out RETURNING, ON CONFLICT or ORDER BY.")
	}
	out := writeHead(&i.asks, &i.returns)
	for row := range i.rows {
		out = append(out, inserted[row]...)
	}
	if inserted == nil {
		out = append(out, slices.Concat(rows...)...)
	}
	i.c.notices = append(i.c.notices, notices...)
	i.answer = wire.AppendCommandComplete(out, i.tag(total))
	return nil
}

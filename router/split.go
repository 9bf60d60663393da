package router

import (
	"encoding/binary"
	"slices"

	"shardproxy/query"
	"shardproxy/shardmap"
)

// split is an INSERT of rows that may go to several shards, or whose values are drawn.
type split struct {
	// rows are the places of the rows in the text; defaults is set when the only one is
	// DEFAULT VALUES.
	rows     []query.Span
	defaults bool
	// groups[i] is the group of row i in the plan. everywhere is set instead when all
	// rows go to all shards.
	groups     []int32
	everywhere bool
	// conflict is set for ON CONFLICT, which may leave rows out of RETURNING.
	conflict bool
	// defers is set when something is checked at the end of the transaction, inTurn when the shards
	// must take turns.
	defers, inTurn bool

	// draws are the columns that are drawn, drawnAt their places among those of a row.
	draws   []Draw
	drawnAt []int
	// list is the column list, behind the table's name. names goes to the end of the
	// list, or becomes it; override says that OVERRIDING SYSTEM VALUE follows.
	list, behind query.Span
	names        string
	override     bool
	// replaced are, for each row and each draw, the DEFAULT in its place; absent
	// where the row has no such column, or a value.
	replaced []query.Span
}

// drawNumber returns which draw a column is, -1 for none.
func (sp *split) drawNumber(column string) int {
	return slices.IndexFunc(sp.draws, func(d Draw) bool { return d.Column == column && d.moment == "" })
}

// fills reports whether a column's value is written into the rows.
func (sp *split) fills(column string) bool {
	return slices.ContainsFunc(sp.draws, func(d Draw) bool { return d.Column == column })
}

// Splits reports whether the plan's rows may be sent to several shards; see Rows.
func (p *Plan) Splits() bool { return p.split != nil && !p.split.everywhere }

// MayOmit reports whether a row that is inserted may not be returned.
func (p *Plan) MayOmit() bool { return p.split != nil && p.split.conflict }

// MayRunAtOnce reports whether the parts of a plan that splits may run at once and, when one of
// them cannot, be rolled back and run once more, one after the other: it leaves nothing behind then,
// and waits for others only where they write rows that it cannot insert.
func (p *Plan) MayRunAtOnce() bool {
	return p.Splits() && !p.split.inTurn && p.Effects == 0
}

// Defers reports whether something about the rows of a plan that splits may be checked at the end of the
// transaction.
func (p *Plan) Defers() bool { return p.split.defers }

// Rows returns the shard of each row of a plan that splits.
func (p *Plan) Rows(o *Owners, v *Values) ([]int, error) {
	shards := make([]int, len(p.split.rows))
	draws := len(p.split.draws)
	for i, g := range p.split.groups {
		if len(v.Drawn) >= (i+1)*draws {
			v.drawn = v.Drawn[i*draws : (i+1)*draws]
		}
		l := locator{owners: o, values: v, shard: AnyShard}
		if err := l.group(&p.groups[g]); err != nil {
			return nil, err
		}
		shards[i] = max(l.shard, 0)
	}
	return shards, nil
}

// Part is what one shard gets of a statement whose rows are split.
type Part struct {
	// Text is the statement with the shard's rows.
	Text []byte
	// Types are its parameters' types, as many as were declared; Bind is the body of
	// Bind behind the names. Both are empty for a simple query.
	Types []uint32
	Bind  []byte
	// Rows are the numbers of its rows in the statement.
	Rows []int
}

// Part cuts a statement down to the rows of one shard, those of which shards says so;
// all of them when it is nil. text is the client's, n a scanner of the caller's; v has
// the values, and the result formats stand behind them. ok is false when the text is
// not the plan's, or not all is drawn.
func (p *Plan) Part(text []byte, n *query.Normal, v *Values, shards []int, shard int) (part Part, ok bool) {
	sp, ok := p.split.locate(text, n)
	if !ok || len(v.Drawn) < len(sp.rows)*len(sp.draws) {
		return part, false
	}
	r := renumberer{seen: map[int]int{}, moment: v.Moment}
	part.Text = sp.head(&r, text)
	for i := range sp.rows {
		if shards != nil && shards[i] != shard {
			continue
		}
		if len(part.Rows) > 0 {
			part.Text = append(part.Text, ", "...)
		}
		part.Text = sp.row(part.Text, &r, text, v, i)
		part.Rows = append(part.Rows, i)
	}
	part.Text = r.append(part.Text, text[sp.rows[len(sp.rows)-1].End:])
	if v.params == nil {
		return part, len(r.old) == 0
	}
	for _, old := range r.old {
		part.Types = append(part.Types, v.declared(old))
	}
	part.Bind, ok = v.pick(r.old)
	return part, ok
}

// locate returns the split with its places in a text.
func (sp *split) locate(text []byte, n *query.Normal) (*split, bool) {
	out := *sp
	out.rows, out.replaced = slices.Clone(sp.rows), slices.Clone(sp.replaced)
	spans := []*query.Span{&out.list, &out.behind}
	for _, list := range [][]query.Span{out.rows, out.replaced} {
		for i := range list {
			spans = append(spans, &list[i])
		}
	}
	ok := n.Locate(text, spans) && int(out.rows[len(out.rows)-1].End) <= len(text)
	return &out, ok
}

// head writes what stands before the rows, with the names of what is drawn.
func (sp *split) head(r *renumberer, text []byte) []byte {
	first := sp.rows[0].Start
	if len(sp.draws) == 0 {
		return r.append(nil, text[:first])
	}
	var out []byte
	at := sp.behind.End
	switch {
	case !sp.list.Located():
		out = append(r.append(out, text[:at]), " ("+sp.names+")"...)
	case sp.names != "":
		at = sp.list.End
		out = append(r.append(out, text[:at-1]), ", "+sp.names+")"...)
	default:
		at = sp.list.End
		out = r.append(out, text[:at])
	}
	if sp.override {
		out = append(out, " OVERRIDING SYSTEM VALUE"...)
	}
	out = r.append(out, text[at:first])
	if sp.defaults {
		out = append(out, " VALUES "...)
	}
	return out
}

// row writes one row with what was drawn for it.
func (sp *split) row(out []byte, r *renumberer, text []byte, v *Values, i int) []byte {
	span := sp.rows[i]
	if len(sp.draws) == 0 {
		return r.append(out, text[span.Start:span.End])
	}
	drawn := v.Drawn[i*len(sp.draws):]
	at, opened := span.Start, !sp.defaults
	for j := range sp.draws {
		if !sp.draws[j].missing {
			if in := sp.replaced[i*len(sp.draws)+j]; in.Located() {
				out = sp.drawnValue(r.append(out, text[at:in.Start]), j, drawn[j], v.Moment)
				at = in.End
			}
		}
	}
	if !sp.defaults {
		out = r.append(out, text[at:span.End-1])
	}
	for j := range sp.draws {
		if !sp.draws[j].missing {
			continue
		}
		if opened {
			out = append(out, ", "...)
		} else {
			out, opened = append(out, '('), true
		}
		out = sp.drawnValue(out, j, drawn[j], v.Moment)
	}
	return append(out, ')')
}

func (sp *split) drawnValue(out []byte, draw int, v []byte, moment string) []byte {
	if of := sp.draws[draw].moment; of != "" {
		if moment == "" {
			return append(out, "DEFAULT"...)
		}
		out, _ = query.ReplaceMoment(append(out, '('), []byte(of), moment)
		return append(out, ')')
	}
	if d := &sp.draws[draw]; d.Sequence != "" || d.Unique {
		return append(out, v...)
	}
	return append(append(append(out, '\''), v...), '\'')
}

// renumberer numbers the parameters of a text's pieces anew, in the order in which
// they are met.
type renumberer struct {
	seen map[int]int
	old  []int
	// moment is what stands in for the time of the transaction, "" to leave it.
	moment string
}

func (r *renumberer) append(dst, piece []byte) []byte {
	if r.moment != "" {
		piece, _ = query.ReplaceMoment(nil, piece, r.moment)
	}
	return query.Renumber(dst, piece, func(n int) int {
		if _, ok := r.seen[n]; !ok {
			r.old = append(r.old, n)
			r.seen[n] = len(r.old)
		}
		return r.seen[n]
	})
}

// Restate returns a text that has some of the client's parameters, with these numbered anew and
// with its own Bind up to the result formats; the time of the transaction is written into it
// when v.Moment is set. ok is false when Bind does not have them.
func (v *Values) Restate(text []byte) (part Part, ok bool) {
	r := renumberer{seen: map[int]int{}, moment: v.Moment}
	part.Text = r.append(nil, text)
	for _, old := range r.old {
		part.Types = append(part.Types, v.declared(old))
	}
	part.Bind, ok = v.pickOnly(r.old)
	return part, ok
}

// ResultFormats returns the result formats of Bind as they stand there.
func (v *Values) ResultFormats() ([]byte, bool) {
	b, ok := v.end()
	return b, ok && len(b) >= 2 && len(b) == 2+2*int(binary.BigEndian.Uint16(b))
}

// Param returns the value of a parameter, counted from 1, nil for NULL, and whether it is in
// binary format. ok is false when there is none of that number.
func (v *Values) Param(n int) (data []byte, binaryFormat, ok bool) {
	data, f, ok := v.param(n)
	return data, f == shardmap.BinaryFormat, ok
}

// Count returns the number of parameters of Bind.
func (v *Values) Count() int { return v.count }

// DeclaredType returns the type of a parameter, 0 when it is not known.
func (v *Values) DeclaredType(n int) uint32 { return v.declared(n) }

// WithParams writes formats and values of some parameters and of more behind them, as Bind has
// them; add appends one of those with its length. size is what these take, in bytes. ok is false when there are too few, or
// more in all than Bind can have.
func (v *Values) WithParams(size int, numbers []int, more int, formats []uint16, add func(dst []byte, i int) []byte) ([]byte, bool) {
	first, ok := v.pickOnly(numbers)
	total := len(numbers) + more
	if !ok || total > 65535 {
		return nil, false
	}
	n := 2 * len(numbers)
	out := make([]byte, 0, size+len(first)+2*more+16)
	out = binary.BigEndian.AppendUint16(out, uint16(total))
	out = append(out, first[2:2+n]...)
	for _, f := range formats {
		out = binary.BigEndian.AppendUint16(out, f)
	}
	out = binary.BigEndian.AppendUint16(out, uint16(total))
	out = append(out, first[2+n+2:]...)
	for i := range more {
		out = add(out, i)
	}
	return out, true
}

// pick writes formats and values of some parameters, and the result formats, as Bind
// has them.
func (v *Values) pick(numbers []int) ([]byte, bool) {
	out, ok := v.pickOnly(numbers)
	if !ok {
		return nil, false
	}
	end, ok := v.end()
	if !ok {
		return nil, false
	}
	return append(out, end...), true
}

// pickOnly writes formats and values of some parameters, as Bind has them.
func (v *Values) pickOnly(numbers []int) ([]byte, bool) {
	out := binary.BigEndian.AppendUint16(nil, uint16(len(numbers)))
	for _, n := range numbers {
		_, f, ok := v.param(n)
		if !ok {
			return nil, false
		}
		out = binary.BigEndian.AppendUint16(out, uint16(f))
	}
	out = binary.BigEndian.AppendUint16(out, uint16(len(numbers)))
	for _, n := range numbers {
		data, _, _ := v.param(n)
		if data == nil {
			out = binary.BigEndian.AppendUint32(out, 0xffffffff)
			continue
		}
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(data))), data...)
	}
	return out, true
}

// end returns what stands behind the parameters.
func (v *Values) end() ([]byte, bool) {
	at := int32(0)
	for range v.count {
		size, ok := v.size(at)
		if !ok {
			return nil, false
		}
		at += 4 + max(size, 0)
	}
	return v.params[at:], true
}

// WithText returns a Bind's body behind the names, whose values these are, for a statement that returns one more column, of
// type text. ok is false when it is malformed.
func (v *Values) WithText(bind []byte) (out []byte, ok bool) {
	end, ok := v.ResultFormats()
	if !ok {
		return nil, false
	}
	n := binary.BigEndian.Uint16(end)
	if n <= 1 {
		return bind, true // one format is that of all columns, and a text is the same in any
	}
	out = append(out, bind[:len(bind)-len(end)]...)
	out = binary.BigEndian.AppendUint16(out, n+1)
	return append(append(out, end[2:]...), 0, 0), true
}

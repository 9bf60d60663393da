package router

import (
	"encoding/binary"
	"slices"

	"shardproxy/query"
)

// split is an INSERT of rows that may go to several shards.
type split struct {
	// rows are the places of the rows in the text.
	rows []query.Span
	// groups[i] is the group of row i in the plan.
	groups []int32
	// conflict is set for ON CONFLICT, which may leave rows out of RETURNING.
	conflict bool
}

// Splits reports whether the plan's rows may be sent to several shards; see Rows.
func (p *Plan) Splits() bool { return p.split != nil }

// MayOmit reports whether a row that is inserted may not be returned.
func (p *Plan) MayOmit() bool { return p.split != nil && p.split.conflict }

// Rows returns the shard of each row of a plan that splits.
func (p *Plan) Rows(o *Owners, v *Values) ([]int, error) {
	shards := make([]int, len(p.split.rows))
	for i, g := range p.split.groups {
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

// Part cuts a statement down to the rows of one shard. text is the client's, n a
// scanner of the caller's; v has the values, and the result formats stand behind them.
// ok is false when the text is not the plan's.
func (p *Plan) Part(text []byte, n *query.Normal, v *Values, shards []int, shard int) (part Part, ok bool) {
	rows := slices.Clone(p.split.rows)
	spans := make([]*query.Span, len(rows))
	for i := range rows {
		spans[i] = &rows[i]
	}
	if !n.Locate(text, spans) || int(rows[len(rows)-1].End) > len(text) {
		return part, false
	}
	r := renumberer{seen: map[int]int{}}
	part.Text = r.append(nil, text[:rows[0].Start])
	for i := range rows {
		if shards[i] != shard {
			continue
		}
		if len(part.Rows) > 0 {
			part.Text = append(part.Text, ", "...)
		}
		part.Text = r.append(part.Text, text[rows[i].Start:rows[i].End])
		part.Rows = append(part.Rows, i)
	}
	part.Text = r.append(part.Text, text[rows[len(rows)-1].End:])
	if v.params == nil {
		return part, len(r.old) == 0
	}
	for _, old := range r.old {
		part.Types = append(part.Types, v.declared(old))
	}
	part.Bind, ok = v.pick(r.old)
	return part, ok
}

// renumberer numbers the parameters of a text's pieces anew, in the order in which
// they are met.
type renumberer struct {
	seen map[int]int
	old  []int
}

func (r *renumberer) append(dst, piece []byte) []byte {
	return query.Renumber(dst, piece, func(n int) int {
		if _, ok := r.seen[n]; !ok {
			r.old = append(r.old, n)
			r.seen[n] = len(r.old)
		}
		return r.seen[n]
	})
}

// pick writes formats and values of some parameters, and the result formats, as Bind
// has them.
func (v *Values) pick(numbers []int) ([]byte, bool) {
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
	end, ok := v.end()
	if !ok {
		return nil, false
	}
	return append(out, end...), true
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

package proxy

import (
	"encoding/binary"
	"strconv"
	"strings"
	"sync"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// description is what a server says of a text.
type description struct {
	params  []uint32
	columns []rowColumn
	body    []byte // of its RowDescription; nil when it gives no rows
}

// rowColumn is one column of a RowDescription.
type rowColumn struct {
	name string
	typ  uint32
}

// describe asks the first shard for texts, whose parameters have the types, all at once;
// an error is in c.err.
func (c *scattering) describe(parts ...router.Part) []description {
	var frames []byte
	for i := range parts {
		frames = wire.AppendParse(frames, "", parseRest(&parts[i]))
		frames = wire.AppendFrame(frames, wire.MsgDescribe, []byte("S\x00"))
	}
	a := c.ask(wire.AppendEmpty(frames, wire.MsgSync))
	if c.err != nil {
		return nil
	}
	out := make([]description, 0, len(parts))
	for b := a.Frames; len(b) > 0; b = b[frameSize(b):] {
		body := b[5:frameSize(b)]
		switch b[0] {
		case wire.MsgParameterDescription:
			out = append(out, description{params: readTypes(body)})
		case wire.MsgRowDescription:
			d := &out[len(out)-1]
			d.body, d.columns = body, readColumns(body)
		}
	}
	if len(out) != len(parts) {
		c.fail(wire.Errorf("XX000", "a server did not describe what it was asked for"), nil, -1)
		return nil
	}
	return out
}

// ask runs frames on the first shard.
func (c *scattering) ask(frames []byte) pool.Answer {
	first := c.shards[0]
	a, err := first.lease.Run(c.s.server.ctx, frames, pool.RunOptions{Keep: answerMax})
	if err != nil {
		first.answer, first.err = a, err
		c.fail(wire.AsError(err), a.Error, 0)
	}
	return a
}

func readTypes(body []byte) (types []uint32) {
	if len(body) < 2 {
		return nil
	}
	for b := body[2:]; len(b) >= 4; b = b[4:] {
		types = append(types, binary.BigEndian.Uint32(b))
	}
	return types
}

// readColumns reads the body of a RowDescription.
func readColumns(body []byte) (columns []rowColumn) {
	if len(body) < 2 {
		return nil
	}
	for b := body[2:]; len(b) > 0; b = b[18:] {
		name, rest, ok := wire.CString(b)
		if !ok || len(rest) < 18 {
			return nil
		}
		columns = append(columns, rowColumn{name: string(name), typ: binary.BigEndian.Uint32(rest[6:])})
		b = rest
	}
	return columns
}

// columnsFor is the body of a RowDescription with the first columns of another, in the client's
// formats.
func columnsFor(body []byte, columns int, formats []byte) []byte {
	out := binary.BigEndian.AppendUint16(nil, uint16(columns))
	n := int(binary.BigEndian.Uint16(formats))
	b := body[2:]
	for i := range columns {
		name, rest, ok := wire.CString(b)
		if !ok || len(rest) < 18 {
			return body
		}
		out = append(append(append(out, name...), 0), rest[:16]...)
		f := uint16(0)
		switch {
		case n == 1:
			f = binary.BigEndian.Uint16(formats[2:])
		case i < n:
			f = binary.BigEndian.Uint16(formats[2+2*i:])
		}
		out = binary.BigEndian.AppendUint16(out, f)
		b = rest[18:]
	}
	return out
}

// part writes a text with its parameters numbered anew.
func (c *scattering) part(text string) (router.Part, bool) {
	part, ok := c.values.Restate([]byte(text))
	if !ok {
		c.fail(wire.Errorf("08P01", "bind message supplies %d parameters, and the statement needs others", c.values.Count()), nil, -1)
	}
	return part, ok
}

// typeOf is what the proxy must know of a type to send its values in arrays.
type typeOf struct {
	array uint32
	// cast is set when the values are sent as text, and read as this type.
	cast string
	// name is the type's as SQL.
	name string
}

// textArray is the type of arrays of text, textOID that of their elements.
const (
	textArray = 1009
	textOID   = 25
)

// firstOwnOID is the first that is not PostgreSQL's own: others mean the same on every server.
const firstOwnOID = 16384

// knownTypes are PostgreSQL's own types as far as they were asked for.
type knownTypes struct {
	mu sync.Mutex
	of map[uint32]typeOf
}

// arrayTypes finds out how the columns of the inputs are sent; an error is in c.err.
func (c *scattering) arrayTypes(inputs []description) map[uint32]typeOf {
	out := map[uint32]typeOf{}
	var ask []string
	known := &c.s.db.types
	known.mu.Lock()
	for i := range inputs {
		for _, col := range inputs[i].columns {
			if _, seen := out[col.typ]; seen {
				continue
			}
			t, ok := known.of[col.typ]
			if out[col.typ] = t; !ok {
				ask = append(ask, strconv.FormatUint(uint64(col.typ), 10))
			}
		}
	}
	known.mu.Unlock()
	if len(ask) == 0 {
		return out
	}
	// Arrays of arrays are one array, and rows are taken apart: both travel as text.
	a := c.ask(wire.AppendQuery(nil, `SELECT oid::pg_catalog.int8, typarray::pg_catalog.int8, typcategory = 'A' AND typelem <> 0 AND typarray = 0 OR typtype = 'c',
typsend <> 0 AND typreceive <> 0 AND (oid < 16384 OR typtype = 'e'), pg_catalog.format_type(oid, NULL)
FROM pg_catalog.pg_type WHERE oid IN (`+strings.Join(ask, ", ")+")"))
	if c.err != nil {
		return nil
	}
	_, rows, _ := cutRows(a.Frames)
	known.mu.Lock()
	defer known.mu.Unlock()
	for _, row := range rows {
		f := rowFields(row[5:])
		if len(f) != 5 {
			continue
		}
		oid, _ := strconv.ParseUint(string(f[0]), 10, 32)
		array, _ := strconv.ParseUint(string(f[1]), 10, 32)
		t := typeOf{array: uint32(array), name: string(f[4])}
		switch {
		case oid == recordOID || oid == recordArray:
			t.array = 0 // no server can read one
		case array == 0 && string(f[2]) != "t": // a pseudo-type: it has no values that could travel
		case string(f[3]) != "t" || string(f[2]) == "t":
			t.array, t.cast = textArray, string(f[4])
		}
		if out[uint32(oid)] = t; oid < firstOwnOID {
			if known.of == nil {
				known.of = map[uint32]typeOf{}
			}
			known.of[uint32(oid)] = t
		}
	}
	return out
}

// rowFields reads the body of a DataRow.
func rowFields(body []byte) (fields [][]byte) {
	if len(body) < 2 {
		return nil
	}
	for b := body[2:]; len(b) >= 4; {
		n := int(int32(binary.BigEndian.Uint32(b)))
		if b = b[4:]; n < 0 {
			fields = append(fields, nil)
			continue
		}
		if n > len(b) {
			return nil
		}
		fields, b = append(fields, b[:n]), b[n:]
	}
	return fields
}

// moment finds out the time of the transaction when a text needs it; an error is in c.err.
func (c *scattering) moment() {
	s := c.s
	needed := query.HasMoment([]byte(c.text)) || c.into != nil && c.into.of.Moment
	if m := c.way.Merge; m != nil {
		needed = needed || query.HasMoment([]byte(m.Before+" "+m.After))
	}
	for i := range c.way.Inputs {
		needed = needed || query.HasMoment([]byte(c.way.Inputs[i].Text))
	}
	for _, p := range c.way.Final {
		needed = needed || query.HasMoment([]byte(p.Text))
	}
	if !needed {
		return
	}
	if s.spread.moment == "" {
		a := c.ask(wire.AppendQuery(nil, momentSQL))
		if c.err != nil {
			return
		}
		_, rows, _ := cutRows(a.Frames)
		if len(rows) != 1 || len(rows[0]) != 5+2+4+momentSize {
			c.fail(wire.Errorf("XX000", "a server does not tell the time of the transaction"), nil, -1)
			return
		}
		s.spread.moment = string(rows[0][5+2+4:])
	}
	c.values.Moment = s.spread.moment
}

package router

import (
	"bytes"
	"encoding/binary"

	"shardproxy/query"
	"shardproxy/shardmap"
)

// elements goes through the elements of an array, which PostgreSQL compares one by
// one. NULLs equal nothing.
func (l *locator) elements(g *Group, i int, row shardmap.RowHash, val *value, r read) error {
	if r.f == shardmap.BinaryFormat {
		return l.binaryElements(g, i, row, val, r)
	}
	if val.source == fromLiteral && val.literal != query.LiteralString {
		return unproven("it is no array")
	}
	b := bytes.TrimSpace(r.data)
	if i+1 < len(g.columns) {
		b = bytes.Clone(b) // other values are read meanwhile
	}
	if len(b) < 2 || b[0] != '{' || b[len(b)-1] != '}' {
		return unproven("it is no plain array")
	}
	b = bytes.TrimSpace(b[1 : len(b)-1])
	var element []byte
	for len(b) > 0 {
		rest, quoted, ok := arrayElement(&element, b)
		if !ok {
			return unproven("it is no plain array")
		}
		if quoted || !bytes.EqualFold(element, []byte("null")) {
			if err := l.value(g, i, row, val, read{data: element, typed: r.typed}); err != nil {
				return err
			}
		}
		if b = bytes.TrimLeft(rest, " \t\n\r\v\f"); len(b) == 0 {
			return nil
		}
		if b = bytes.TrimLeft(b[1:], " \t\n\r\v\f"); len(b) == 0 {
			return unproven("it is no plain array")
		}
	}
	return nil
}

// arrayElement reads the first element of b into dst; rest begins with the comma
// behind it, if there is one.
func arrayElement(dst *[]byte, b []byte) (rest []byte, quoted, ok bool) {
	e := (*dst)[:0]
	if b[0] == '"' {
		for i := 1; i < len(b); i++ {
			switch b[i] {
			case '\\':
				if i++; i == len(b) {
					return nil, true, false
				}
				e = append(e, b[i])
			case '"':
				*dst = e
				rest = bytes.TrimLeft(b[i+1:], " \t\n\r\v\f")
				return rest, true, len(rest) == 0 || rest[0] == ','
			default:
				e = append(e, b[i])
			}
		}
		return nil, true, false
	}
	i := bytes.IndexAny(b, `,"\{}`)
	if i < 0 {
		i = len(b)
	} else if b[i] != ',' {
		return nil, false, false
	}
	*dst = append(e, bytes.TrimSpace(b[:i])...)
	return b[i:], false, len(*dst) > 0
}

// binaryElements reads an array as array_send writes it: dimensions, whether there
// are NULLs, the elements' type, then for each dimension its length and lower bound.
func (l *locator) binaryElements(g *Group, i int, row shardmap.RowHash, val *value, r read) error {
	b := r.data
	if len(b) < 12 {
		return unproven("it is no array")
	}
	dimensions, oid := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[8:])
	if dimensions == 0 {
		return nil
	}
	if dimensions != 1 || len(b) < 20 {
		return unproven("it is an array of several dimensions")
	}
	typed, err := shardmap.KeyTypeOf(oid, true)
	if err != nil || !typed.Colocates(val.as) {
		return unproven("it is an array of another type")
	}
	count := binary.BigEndian.Uint32(b[12:])
	b = b[20:]
	for range count {
		if len(b) < 4 {
			return unproven("it is no array")
		}
		size := int32(binary.BigEndian.Uint32(b))
		b = b[4:]
		if size < 0 {
			continue
		}
		if int(size) > len(b) {
			return unproven("it is no array")
		}
		if err := l.value(g, i, row, val, read{data: b[:size], f: shardmap.BinaryFormat, typed: typed}); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

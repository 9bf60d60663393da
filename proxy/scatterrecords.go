package proxy

import (
	"encoding/binary"
	"strconv"

	"shardproxy/wire"
)

// A row in binary format has the numbers of its columns' types inside, and so have arrays. Types that users make have numbers of
// each server's own. Rows of several shards with different ones would not be of one type for the client, who asks one server what
// they mean, and for the proxy they look alike: the type of an anonymous row is the same everywhere.

// recordOID is the type of rows that have no type of their own, recordArray that of their arrays.
const (
	recordOID   = 2249
	recordArray = 2287
)

// recordCheck compares the numbers of types inside of values that several shards give. One goroutine uses it.
type recordCheck struct {
	columns []int             // those that may have some inside
	seen    map[string]uint32 // by the place inside
}

// checksRecords returns a check for the columns of a result of several shards, in formats as Bind has them; nil when none is needed.
func checksRecords(of []rowColumn, formats []byte) *recordCheck {
	var k *recordCheck
	asks := clientAsks{formats: formats}
	for i := range of {
		if t := of[i].typ; t != recordOID && t != recordArray && t < firstOwnOID || asks.isText(i) {
			continue
		}
		if k == nil {
			k = &recordCheck{seen: map[string]uint32{}}
		}
		k.columns = append(k.columns, i)
	}
	return k
}

// frames looks into DataRow messages.
func (k *recordCheck) frames(frames []byte) *wire.Error {
	if k == nil {
		return nil
	}
	for b := frames; len(b) > 0; b = b[frameSize(b):] {
		fields := rowFields(b[5:frameSize(b)])
		for _, i := range k.columns {
			if i < len(fields) && !k.value(strconv.Itoa(i), fields[i]) {
				return wire.Errorf("0A000", "this statement cannot be run over several shards: rows in binary format hold the numbers of types, which differ from shard to shard").
					WithHint("Ask for results in text format, cast the row to text, or select its columns.")
			}
		}
	}
	return nil
}

// value notes the numbers in a value, and reports whether they are those that were there before. What is neither a row
// nor an array has none.
func (k *recordCheck) value(place string, v []byte) bool {
	if types, values, ok := recordParts(v); ok {
		for i, t := range types {
			if !k.part(place+"."+strconv.Itoa(i), t, values[i]) {
				return false
			}
		}
		return true
	}
	if t, values, ok := arrayParts(v); ok {
		for _, e := range values {
			if !k.part(place+"[]", t, e) {
				return false
			}
		}
	}
	return true
}

func (k *recordCheck) part(place string, t uint32, v []byte) bool {
	if t < firstOwnOID {
		return t != recordOID && t != recordArray || k.value(place, v)
	}
	if before, ok := k.seen[place]; ok && before != t {
		return false
	}
	k.seen[place] = t
	return k.value(place, v)
}

// recordParts takes a row in binary format apart; not ok for what is none.
func recordParts(v []byte) (types []uint32, values [][]byte, ok bool) {
	if len(v) < 4 || binary.BigEndian.Uint32(v) > 1664 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint32(v))
	v = v[4:]
	for range n {
		if len(v) < 8 {
			return nil, nil, false
		}
		t := binary.BigEndian.Uint32(v)
		var e []byte
		if e, v, ok = nextPart(v[4:]); !ok {
			return nil, nil, false
		}
		types, values = append(types, t), append(values, e)
	}
	return types, values, len(v) == 0
}

// arrayParts takes an array in binary format apart; not ok for what is none.
func arrayParts(v []byte) (t uint32, values [][]byte, ok bool) {
	if len(v) < 12 || binary.BigEndian.Uint32(v) > 6 || binary.BigEndian.Uint32(v[4:]) > 1 {
		return 0, nil, false
	}
	t = binary.BigEndian.Uint32(v[8:])
	dimensions := int(binary.BigEndian.Uint32(v))
	if v = v[12:]; len(v) < 8*dimensions {
		return 0, nil, false
	}
	for v = v[8*dimensions:]; len(v) > 0; {
		var e []byte
		if e, v, ok = nextPart(v); !ok {
			return 0, nil, false
		}
		values = append(values, e)
	}
	return t, values, true
}

// nextPart takes a value with its length off.
func nextPart(v []byte) (e, rest []byte, ok bool) {
	if len(v) < 4 {
		return nil, nil, false
	}
	n := int(int32(binary.BigEndian.Uint32(v)))
	if v = v[4:]; n == -1 {
		return nil, v, true
	}
	if n < 0 || n > len(v) {
		return nil, nil, false
	}
	return v[:n], v[n:], true
}

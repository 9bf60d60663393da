package router

import (
	"encoding/binary"

	"shardproxy/query"
	"shardproxy/shardmap"
	"shardproxy/wire"
)

// Values gives a plan the values of one execution. It borrows all its parts.
type Values struct {
	// Text is the client's text, and Literals those of it. Only plans that are
	// shared by texts with other literals look at them.
	Text     []byte
	Literals []query.Literal
	// Types are the parameters' types as the client declared them; 0, or none, where
	// it has not.
	Types []uint32
	// Described are the types as a server described them; they count where Types says
	// nothing.
	Described []uint32
	// Drawn are the values of the plan's draws, as texts: those of its first row, then
	// of the next. Nothing but digits and hyphens is in them.
	Drawn [][]byte
	// Moment is what stands in for the time of the transaction where a text is rewritten
	// for several shards; "" leaves it to the shard.
	Moment string
	// Sample takes the slots of the keys; nil: nobody wants them.
	Sample *Sample
	// Held is set when a key lies in a slot that is held.
	Held bool
	// OtherEncoding is set when the client's encoding is not the servers'.
	OtherEncoding bool
	// Standard is set when backslashes in plain strings stand for themselves.
	Standard bool

	// formats and params are those of Bind.
	formats []byte
	params  []byte
	count   int
	drawn   [][]byte // of the row that is looked at
	// drawnFormat is that of drawn.
	drawnFormat shardmap.Format
	at          []int32 // where each parameter begins, for many
	scratch     []byte
	keys        *spanKeys // nil until a span is looked at
}

// Forget drops all values and what v borrows, and keeps storage of its own of up to
// so many bytes.
func (v *Values) Forget(keepBytes int) {
	scratch, at := v.scratch[:0], v.at[:0]
	types := v.Types[:0]
	keys := v.keys
	*v = Values{}
	if keys != nil && keys.Kept()+16*cap(keys.touched) <= keepBytes {
		v.keys = keys
	}
	if cap(scratch) <= keepBytes {
		v.scratch = scratch
	}
	if cap(at) <= keepBytes/4 {
		v.at = at
	}
	if cap(types) <= keepBytes/4 {
		v.Types = types
	}
}

// Bind takes the parameters of a Bind message, whose body begins behind the names of
// portal and statement. It returns false when the message is malformed.
func (v *Values) Bind(body []byte) bool {
	v.formats, v.params, v.count, v.at = nil, nil, 0, v.at[:0]
	if len(body) < 2 {
		return false
	}
	n := int(binary.BigEndian.Uint16(body))
	if len(body) < 2+2*n+2 {
		return false
	}
	v.formats = body[2 : 2+2*n]
	v.count = int(binary.BigEndian.Uint16(body[2+2*n:]))
	v.params = body[2+2*n+2:]
	return true
}

// param returns a parameter, counted from 1; nil for NULL. ok is false when the
// message has none of that number.
func (v *Values) param(n int) (data []byte, f shardmap.Format, ok bool) {
	if n < 1 || n > v.count {
		return nil, 0, false
	}
	switch len(v.formats) / 2 {
	case 0:
	case 1:
		f = shardmap.Format(binary.BigEndian.Uint16(v.formats))
	default:
		if 2*n > len(v.formats) {
			return nil, 0, false
		}
		f = shardmap.Format(binary.BigEndian.Uint16(v.formats[2*n-2:]))
	}
	if len(v.at) == 0 {
		v.at = append(v.at, 0)
	}
	for len(v.at) < n {
		last := v.at[len(v.at)-1]
		size, ok := v.size(last)
		if !ok {
			return nil, 0, false
		}
		v.at = append(v.at, last+4+max(size, 0))
	}
	at := v.at[n-1]
	size, ok := v.size(at)
	if !ok {
		return nil, 0, false
	}
	if size < 0 {
		return nil, f, true
	}
	return v.params[at+4 : at+4+size : at+4+size], f, true
}

// size reads the length of the parameter at a place, -1 for NULL.
func (v *Values) size(at int32) (int32, bool) {
	if int(at)+4 > len(v.params) {
		return 0, false
	}
	size := int32(binary.BigEndian.Uint32(v.params[at:]))
	return size, size < 0 || int(at)+4+int(size) <= len(v.params)
}

func (v *Values) declared(n int) uint32 {
	if n >= 1 && n <= len(v.Types) && v.Types[n-1] != 0 {
		return v.Types[n-1]
	}
	if n >= 1 && n <= len(v.Described) {
		return v.Described[n-1]
	}
	return 0
}

// read is a value as it is at one execution.
type read struct {
	null  bool
	data  []byte
	f     shardmap.Format
	typed shardmap.KeyType // what data is read as
}

// read finds a value. An error is a refusal.
func (v *Values) read(val *value) (read, error) {
	t := val.as
	if val.cast != 0 {
		t = val.cast
	}
	switch val.source {
	case fromNull:
		return read{null: true}, nil
	case fromPlan:
		v.scratch = append(v.scratch[:0], val.fixed...)
		return read{data: v.scratch, typed: t}, nil
	case fromDraw:
		if int(val.index) >= len(v.drawn) {
			return read{}, unproven("it was not drawn")
		}
		d := v.drawn[val.index]
		return read{null: d == nil, data: d, f: v.drawnFormat, typed: t}, nil
	case fromLiteral:
		return v.literal(val, t)
	}
	return v.bound(val, t)
}

func (v *Values) literal(val *value, t shardmap.KeyType) (read, error) {
	if int(val.index) >= len(v.Literals) {
		return read{}, unproven("the literal cannot be found")
	}
	v.scratch = v.scratch[:0]
	if val.negative {
		v.scratch = append(v.scratch, '-')
	}
	text, ok := query.LiteralText(v.scratch, v.Text, v.Literals[val.index], v.Standard)
	if !ok {
		return read{}, unproven("it is a literal of a rare form")
	}
	v.scratch = text
	if val.literal == query.LiteralInt && t != shardmap.Numeric {
		t = shardmap.Int8 // a number beyond the column's type equals none of its values
	}
	return read{data: text, typed: t}, nil
}

// OIDs of types that a parameter may be declared as.
const (
	oidText    = 25
	oidUnknown = 705
	oidVarchar = 1043
	oidUUID    = 2950
)

func (v *Values) bound(val *value, t shardmap.KeyType) (read, error) {
	data, f, ok := v.param(int(val.index))
	if !ok {
		return read{}, unproven("there is no such parameter")
	}
	if data == nil {
		return read{null: true}, nil
	}
	r := read{data: data, f: f, typed: t}
	if val.array {
		return r, nil // its elements tell their type, or are read as text
	}
	switch oid := v.declared(int(val.index)); oid {
	case 0, oidUnknown:
		switch {
		case !val.sure:
			// Another place may decide the type, and with it what the value means.
			return read{}, unproven("the parameter's type is not declared")
		case f == shardmap.TextFormat:
		case t <= shardmap.Int8:
			// Of these the server takes the first that it meets, and the length tells.
			r.typed = integerOf(len(data), t)
		}
	case oidText, oidVarchar:
		if t != shardmap.Text && val.cast == 0 {
			return read{}, unproven("the parameter is text")
		}
		r.f = shardmap.TextFormat // both formats are the bytes
	default:
		k, err := shardmap.KeyTypeOf(oid, true)
		if err != nil || !k.Colocates(t) {
			return read{}, unproven("the parameter has another type")
		}
		r.typed = k
	}
	return r, nil
}

// integerOf returns the integer type of a length in bytes.
func integerOf(size int, otherwise shardmap.KeyType) shardmap.KeyType {
	switch size {
	case 2:
		return shardmap.Int2
	case 4:
		return shardmap.Int4
	case 8:
		return shardmap.Int8
	}
	return otherwise
}

// check refuses what is stored otherwise than it is given.
func (v *Values) check(val *value, r *read) error {
	if v.OtherEncoding && r.typed == shardmap.Text && nonASCII(r.data) {
		return unproven("it has characters that the server converts")
	}
	if !val.assigned {
		return nil
	}
	if val.source == fromLiteral && val.literal == query.LiteralInt && val.as < shardmap.Int8 {
		r.typed = val.as // out of range is an error here
	}
	if val.typmod >= 0 {
		return val.as.Unchanged(val.typmod, r.data, r.f)
	}
	return nil
}

func nonASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

func unproven(why string) *wire.Error {
	return wire.Errorf("0A000", "the value of the key cannot be understood: %s", why).WithHint("%s", reasonValue.hint()).WithCause(because(reasonValue))
}

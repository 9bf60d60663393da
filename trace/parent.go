package trace

import (
	"bytes"
	"encoding/hex"
)

// Context says which span of which trace another belongs to. The zero value is none.
type Context struct {
	Trace   [16]byte
	Span    [8]byte
	Sampled bool
}

// Valid reports whether c is a context: neither of its parts is all zeros.
func (c Context) Valid() bool { return c.Trace != [16]byte{} && c.Span != [8]byte{} }

// parentKey is how sqlcommenter names W3C's traceparent in an SQL comment: /*traceparent='00-...-...-01'*/. The
// value has nothing that it would have to write otherwise.
var parentKey = []byte("traceparent='")

// parentSize is the size of a traceparent of version 00: W3C Trace Context, section 3.2.
const parentSize = 55

// Parent returns the context that a statement's text has in a comment, of the last that has one; the zero value when
// none has. What stands in a string that looks like a comment is taken for one: it can do no harm but
// to the trace.
func Parent(sql []byte) (c Context) {
	at := bytes.LastIndex(sql, parentKey)
	if at < 0 || bytes.LastIndex(sql[:at], []byte("/*")) < 0 || !bytes.Contains(sql[at:], []byte("*/")) {
		return Context{}
	}
	value := sql[at+len(parentKey):]
	if len(value) <= parentSize || value[parentSize] != '\'' {
		return Context{}
	}
	return parse(value[:parentSize])
}

// parse reads a traceparent. A version that is not known may have more behind what version 00 has, which we would not get.
func parse(v []byte) (c Context) {
	var flags [1]byte
	if v[0] != '0' || v[1] != '0' || v[2] != '-' || v[35] != '-' || v[52] != '-' || bytes.ContainsAny(v, "ABCDEF") {
		return Context{}
	}
	for _, part := range []struct{ to, from []byte }{{c.Trace[:], v[3:35]}, {c.Span[:], v[36:52]}, {flags[:], v[53:55]}} {
		if _, err := hex.Decode(part.to, part.from); err != nil {
			return Context{}
		}
	}
	if c.Sampled = flags[0]&1 != 0; !c.Valid() {
		return Context{}
	}
	return c
}

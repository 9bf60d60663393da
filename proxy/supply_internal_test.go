package proxy

import (
	"bytes"
	"encoding/binary"
	"testing"

	"shardproxy/router"
	"shardproxy/wire"
)

// FuzzAppendParams gives further parameters to what Binds have behind the names: a
// reader of such messages finds the client's own as they were, and those.
func FuzzAppendParams(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0}, int64(7))
	f.Add([]byte{0, 1, 0, 1, 0, 1, 0, 0, 0, 1, 'x', 0, 1, 0, 1}, int64(-7))
	f.Add([]byte{0, 2, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 'x', 0, 0}, int64(1)<<40)
	f.Fuzz(func(t *testing.T, body []byte, number int64) {
		out, ok := appendParams(body, []int64{number, number})
		if !ok {
			return
		}
		var before, after router.Values
		if !before.Bind(body) || !after.Bind(out) {
			t.Fatalf("%q became %q", body, out)
		}
		at := 2 + 2*int(binary.BigEndian.Uint16(body))
		count := int(binary.BigEndian.Uint16(body[at:]))
		at = 2 + 2*int(binary.BigEndian.Uint16(out))
		if now := int(binary.BigEndian.Uint16(out[at:])); count < 65534 && now != count+2 {
			t.Fatalf("%d parameters became %d", count, now)
		}
		if len(out) < len(body)+2*5 {
			t.Fatalf("%q became %q", body, out)
		}
	})
}

// TestWithoutSupplied takes parameters out of a description.
func TestWithoutSupplied(t *testing.T) {
	frame := wire.AppendFrame(nil, wire.MsgParameterDescription, []byte{0, 3, 0, 0, 0, 23, 0, 0, 0, 25, 0, 0, 0, 20})
	want := wire.AppendFrame(nil, wire.MsgParameterDescription, []byte{0, 2, 0, 0, 0, 23, 0, 0, 0, 25})
	all := append(append(bytes.Clone(want), frame...), want...)
	if got := withoutSuppliedIn(all[len(want):len(want)+len(frame)], 1); !bytes.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := withoutSupplied(bytes.Clone(frame), 1); !bytes.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := withoutSupplied(bytes.Clone(frame), 4); !bytes.Equal(got, frame) {
		t.Errorf("%q", got)
	}
}

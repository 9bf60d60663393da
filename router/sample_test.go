package router

import (
	"testing"

	"shardproxy/shardmap"
)

func TestSampleKeys(t *testing.T) {
	uuid := []byte{0xa0, 0xee, 0xbc, 0x99, 0x9c, 0x0b, 0x4e, 0xf8, 0xbb, 0x6d, 0x6b, 0xb9, 0xbd, 0x38, 0x0a, 0x11}
	for _, c := range []struct {
		typ    shardmap.KeyType
		format shardmap.Format
		data   string
		want   string
	}{
		{shardmap.Int8, shardmap.TextFormat, "007", "7"},
		{shardmap.Int8, shardmap.BinaryFormat, "\xff\xff\xff\xff\xff\xff\xff\xfe", "-2"},
		{shardmap.Int4, shardmap.BinaryFormat, "\x00\x00\x01\x00", "256"},
		{shardmap.Int2, shardmap.BinaryFormat, "\xff\xff", "-1"},
		{shardmap.Text, shardmap.TextFormat, "tenant", "tenant"},
		{shardmap.Text, shardmap.BinaryFormat, "tenant", "tenant"},
		{shardmap.UUID, shardmap.BinaryFormat, string(uuid), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{shardmap.Date, shardmap.BinaryFormat, "\x00\x01\x02\x03", `\x00010203`},
		{shardmap.Text, shardmap.TextFormat, string(make([]byte, 65)), ""},
	} {
		var s Sample
		s.WithKeys = true
		s.note(5, 4096, shardmap.Value{Type: c.typ, Data: []byte(c.data), Format: c.format}, 1)
		s.note(5, 4096, shardmap.Value{}, 1) // is there already
		if got := string(s.Key(0)); got != c.want || s.Count != 1 || s.Slots[0] != 5 || s.Of != 4096 {
			t.Errorf("%v %q: %q, %+v", c.typ, c.data, got, s)
		}
	}
	var s Sample
	for i := range 2 * sampleMax {
		s.note(shardmap.Slot(i), 4096, shardmap.Value{Type: shardmap.Text, Data: []byte("secret")}, 1)
	}
	if s.Count != sampleMax || len(s.Key(0)) > 0 {
		t.Errorf("%+v", s)
	}
	s.WithKeys = true
	if s.Reset(); s.Count != 0 {
		t.Error("not reset")
	}
	if s.note(1, 4096, shardmap.Value{Type: shardmap.Text, Data: []byte("secret")}, 2); len(s.Key(0)) > 0 {
		t.Error("a part of a key is no key")
	}
}

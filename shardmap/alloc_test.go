package shardmap

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// sample is one value of a type in both formats.
type sample struct {
	name         string
	key          KeyType
	text, binary []byte
}

func samples() []sample {
	be64 := func(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }
	uuid := "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
	u, err := parseUUID([]byte(uuid))
	if err != nil {
		panic(err)
	}
	return []sample{
		{"int4", Int4, []byte("-123456789"), binary.BigEndian.AppendUint32(nil, 7)},
		{"int8", Int8, []byte("1234567890123"), be64(5)},
		{"text", Text, []byte("customer-1234567"), []byte("customer-1234567")},
		{"text1000", Text, []byte(strings.Repeat("ä", 500)), []byte(strings.Repeat("x", 1000))},
		{"uuid", UUID, []byte(uuid), u[:]},
		{"date", Date, []byte("2024-02-29"), binary.BigEndian.AppendUint32(nil, 8825)},
		{"timestamp", Timestamp, []byte("2024-02-29 12:34:56.789"), be64(762525296789000)},
		{"timestamptz", Timestamptz, []byte("2024-02-29 12:34:56.789+02"), be64(762525296789000)},
		{"bytea", Bytea, []byte(`\x00112233445566778899aabbccddeeff`), bytes.Repeat([]byte{7}, 16)},
		{"byteaEscape", Bytea, []byte(`abc\\def\001ghijklmnop`), []byte("x")},
		{"bool", Bool, []byte("true"), []byte{1}},
		{"numeric", Numeric, []byte("-12345.6789"), []byte{0, 2, 0, 0, 0, 0, 0, 2, 0, 9, 0x13, 0x88}},
	}
}

// TestAllocations holds what the hot path costs: nothing.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		return
	}
	list, err := NewList(UUID, threeShards(), []ListEntry{{"s1", []string{"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}}}, "s0")
	if err != nil {
		t.Fatal(err)
	}
	ranges, err := NewRanges(Int8, threeShards(), []RangeEntry{{"s1", bound("0"), nil}}, RangeOptions{Default: "s0"})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Propose(members(4), DefaultSlots)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, f func() error) {
		t.Helper()
		if err := f(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if got := testing.AllocsPerRun(100, func() { _ = f() }); got != 0 {
			t.Errorf("%s: %v allocations", what, got)
		}
	}
	for _, s := range samples() {
		check(s.name+" text", func() error { _, err := s.key.HashText(s.text); return err })
		check(s.name+" binary", func() error { _, err := s.key.Hash(s.binary, BinaryFormat); return err })
		check(s.name+" typmod", func() error { return s.key.Unchanged(-1, s.text, TextFormat) })
	}
	number, uuid := samples()[1], samples()[4]
	check("owner", func() error {
		h, err := number.key.HashText(number.text)
		_ = m.Owner(m.SlotOf(RowHash(0).Add(h).AddNull().Sum()))
		return err
	})
	check("list", func() error { _, err := list.Place(Value{UUID, uuid.text, TextFormat}); return err })
	check("ranges", func() error { _, err := ranges.Place(Value{Int8, number.binary, BinaryFormat}); return err })
	var span Span
	var touched []string
	check("span", func() error {
		span.Reset()
		err := span.Above(Int8, Value{Int8, number.binary, BinaryFormat}, false)
		touched = ranges.Touched(touched[:0], &span)
		return err
	})
	schema := strings.Repeat("s", 63)
	check("schema", func() error { _ = SchemaHash(schema); return nil })
}

func BenchmarkHash(b *testing.B) {
	for _, s := range samples() {
		for _, f := range []struct {
			name   string
			format Format
			data   []byte
		}{{"text", TextFormat, s.text}, {"binary", BinaryFormat, s.binary}} {
			b.Run(s.name+"/"+f.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.key.Hash(f.data, f.format); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkOwner(b *testing.B) {
	m, err := Propose(members(8), DefaultSlots)
	if err != nil {
		b.Fatal(err)
	}
	for n := uint64(0); b.Loop(); n++ {
		_ = m.OwnerIndex(m.SlotOf(n))
	}
}

func BenchmarkPlace(b *testing.B) {
	var list ListEntry
	var entries []RangeEntry
	for _, text := range []string{"10", "20", "30", "40", "50", "60", "70", "80"} {
		list.Values = append(list.Values, text)
		entries = append(entries, RangeEntry{"s1", bound(text + "0"), bound(text + "9")})
	}
	list.Shard = "s0"
	l, err := NewList(Int8, threeShards(), []ListEntry{list}, "s2")
	if err != nil {
		b.Fatal(err)
	}
	r, err := NewRanges(Int8, threeShards(), entries, RangeOptions{Default: "s2"})
	if err != nil {
		b.Fatal(err)
	}
	for name, place := range map[string]func(Value) (string, error){"list": l.Place, "ranges": r.Place} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			v := textValue(Int8, "405")
			for b.Loop() {
				if _, err := place(v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkProposeChange(b *testing.B) {
	m, err := Propose(members(8), DefaultSlots)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := ProposeChange(m, members(9)); err != nil {
			b.Fatal(err)
		}
	}
}

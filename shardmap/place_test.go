package shardmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"shardproxy/internal/pgtest"
)

func threeShards() []string { return []string{"s0", "s1", "s2"} }

func textValue(k KeyType, s string) Value { return Value{Type: k, Data: []byte(s)} }

func bound(s string) *string { return &s }

func TestList(t *testing.T) {
	l, err := NewList(Int8, threeShards(), []ListEntry{{"s1", []string{"1", "+02", " 3 "}}, {"s0", []string{"-9223372036854775808"}}, {"s2", nil}}, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Shards(); !slices.Equal(got, []string{"s0", "s1"}) {
		t.Errorf("shards %v", got)
	}
	binaryTwo := Value{Int4, binary.BigEndian.AppendUint32(nil, 2), BinaryFormat}
	for _, test := range []struct {
		v    Value
		want string
	}{
		{textValue(Int8, "2"), "s1"}, {textValue(Int2, "0003"), "s1"}, {binaryTwo, "s1"}, {textValue(Int8, "-9223372036854775808"), "s0"},
	} {
		if got, err := l.Place(test.v); got != test.want || err != nil {
			t.Errorf("%+v: %s, %v", test.v, got, err)
		}
	}
	var unplaced *UnplacedError
	if _, err := l.Place(textValue(Int8, "4")); !errors.As(err, &unplaced) || unplaced.Text != "4" || unplaced.Type != Int8 {
		t.Errorf("a value that is not listed: %v", err)
	}
	if _, err := l.Place(Value{Int2, []byte{0, 9}, BinaryFormat}); !errors.As(err, &unplaced) || unplaced.Text != "" {
		t.Errorf("a binary value that is not listed: %v", err)
	}
	if _, err := l.Place(textValue(Text, "1")); !errors.Is(err, ErrUnproven) {
		t.Errorf("a text for an integer key: %v", err)
	}
	var refused *ValueError
	if _, err := l.Place(textValue(Int8, "x")); !errors.As(err, &refused) {
		t.Errorf("no integer: %v", err)
	}
	l, err = NewList(Text, threeShards(), []ListEntry{{"s1", []string{"de", ""}}}, "s2")
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{"de": "s1", "": "s1", "DE": "s2", strings.Repeat("long", 50): "s2"} {
		if got, err := l.Place(textValue(Text, value)); got != want || err != nil {
			t.Errorf("%q: %s, %v", value, got, err)
		}
	}
	if got := l.Shards(); !slices.Equal(got, []string{"s1", "s2"}) {
		t.Errorf("shards %v", got)
	}
}

// problemsOf returns what is wrong, each cut off at a semicolon or colon.
func problemsOf(err error) []string {
	var e *PlacementError
	if !errors.As(err, &e) {
		return nil
	}
	return e.Problems
}

func TestListProblems(t *testing.T) {
	_, err := NewList(Numeric, threeShards(), []ListEntry{{"s0", []string{"1", "x", "1_0"}}, {"s9", []string{"2"}}, {"s1", []string{"1.00", "2"}}}, "s8")
	want := []string{`invalid input syntax for type numeric: "x"`, `value "1_0" does not mean the same numeric`, `"s9" is no shard`,
		`value "1.00" is listed twice: for "s0" and for "s1"`, `value "2" is listed twice: for an unknown shard and for "s1"`, `"s8" is no shard`}
	expectProblems(t, err, want)
	_, err = NewList(Int4, threeShards(), nil, "")
	expectProblems(t, err, []string{"the list is empty and has no default"})
	_, err = NewList(0, threeShards(), nil, "s0")
	expectProblems(t, err, []string{"no key type"})
	if _, err := NewList(Int4, threeShards(), nil, "s0"); err != nil {
		t.Errorf("only a default: %v", err)
	}
}

func expectProblems(t *testing.T, err error, want []string) {
	t.Helper()
	got := problemsOf(err)
	ok := len(got) == len(want)
	for i := range min(len(got), len(want)) {
		ok = ok && strings.HasPrefix(got[i], want[i])
	}
	if !ok {
		t.Errorf("problems\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRanges(t *testing.T) {
	p, err := NewRanges(Int4, threeShards(), []RangeEntry{
		{"s1", bound("100"), bound("200")}, {"s0", nil, bound("100")}, {"s2", bound("300"), nil},
	}, RangeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]string{"-2147483648": "s0", "99": "s0", "100": "s1", "199": "s1", "200": "", "299": "", "300": "s2", "2147483647": "s2"} {
		got, err := p.Place(textValue(Int4, value))
		var unplaced *UnplacedError
		if got != want || (want == "") != errors.As(err, &unplaced) {
			t.Errorf("%s: %q, %v", value, got, err)
		}
	}
	if _, err := p.Place(textValue(Date, "2024-01-01")); !errors.Is(err, ErrUnproven) {
		t.Errorf("a date for an integer key: %v", err)
	}
	if got, err := p.Place(Value{Int8, binary.BigEndian.AppendUint64(nil, 2), BinaryFormat}); got != "s0" || err != nil {
		t.Errorf("binary: %s, %v", got, err)
	}
}

func TestRangeProblems(t *testing.T) {
	_, err := NewRanges(Date, threeShards(), []RangeEntry{
		{"s0", bound("2024-01-01"), bound("2024-06-01")}, {"s1", bound("2024-05-31"), bound("2024-07-01")}, {"s2", bound("2024-06-01"), nil},
		{"s9", bound("2030-01-01"), bound("2029-01-01")}, {"s0", bound("today"), bound("x")}, {"s1", bound("2025-01-01"), bound("2025-01-01")},
	}, RangeOptions{Default: "s7"})
	expectProblems(t, err, []string{`"s9" is no shard`, `range ["2030-01-01", "2029-01-01") of "s9" is empty`, `value "today" does not mean`, `value "x" does not mean`,
		`range ["2025-01-01", "2025-01-01") of "s1" is empty`, `"s7" is no shard`, `range ["2024-05-31", "2024-07-01") of "s1" overlaps range ["2024-01-01", "2024-06-01") of "s0"`,
		`range ["2024-06-01", unbounded) of "s2" overlaps range ["2024-05-31", "2024-07-01") of "s1"`})
	_, err = NewRanges(Int4, threeShards(), []RangeEntry{{"s0", nil, nil}, {"s1", nil, bound("5")}, {"s2", bound("7"), bound("9")}}, RangeOptions{})
	expectProblems(t, err, []string{`range [unbounded, "5") of "s1" overlaps range [unbounded, unbounded) of "s0"`, `range ["7", "9") of "s2" overlaps range [unbounded, unbounded) of "s0"`})
	_, err = NewRanges(Int4, threeShards(), nil, RangeOptions{})
	expectProblems(t, err, []string{"there are no ranges and no default"})
	_, err = NewRanges(Text, threeShards(), []RangeEntry{{"s0", nil, bound("")}}, RangeOptions{})
	expectProblems(t, err, []string{`range [unbounded, "") of "s0" is empty`})
}

// TestSpans compares the shards that a span may touch with those of every
// single value in it.
func TestSpans(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 5))
	const values = 24
	for range 2000 {
		// Cut 0..values at random places and give some pieces to shards.
		var entries []RangeEntry
		at := random.IntN(4)
		for at < values {
			end := at + 1 + random.IntN(6)
			e := RangeEntry{threeShards()[random.IntN(3)], bound(fmt.Sprint(at)), bound(fmt.Sprint(end))}
			if at == 0 && random.IntN(2) == 0 {
				e.From = nil
			}
			if end >= values && random.IntN(2) == 0 {
				e.To = nil
			}
			if random.IntN(4) > 0 {
				entries = append(entries, e)
			}
			at = end + random.IntN(2)*random.IntN(4)
		}
		if len(entries) == 0 {
			entries = []RangeEntry{{"s1", bound("1000"), nil}}
		}
		random.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		options := RangeOptions{Default: []string{"", "s2"}[random.IntN(2)]}
		p, err := NewRanges(Int4, threeShards(), entries, options)
		if err != nil {
			t.Fatal(err)
		}
		lo, hi, included := random.IntN(values+4)-2, random.IntN(values+4)-2, random.IntN(2) == 0
		loIncluded := random.IntN(2) == 0
		got := p.Touched(nil, spanOf(t, Int4, fmt.Sprint(lo), fmt.Sprint(hi), loIncluded, included))
		slices.Sort(got)
		var want []string
		for v := lo; v < hi || included && v == hi; v++ {
			if v == lo && !loIncluded {
				continue
			}
			if shard, err := p.Place(textValue(Int4, fmt.Sprint(v))); err == nil {
				want = append(want, shard)
			}
		}
		slices.Sort(want)
		want = slices.Compact(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%v: %d to %d (%v, %v) touches %v, want %v", entries, lo, hi, loIncluded, included, got, want)
		}
	}
}

// spanOf returns the span between two texts, "" for no bound.
func spanOf(t *testing.T, k KeyType, lo, hi string, loIncluded, hiIncluded bool) *Span {
	t.Helper()
	s := &Span{}
	if lo != "" {
		if err := s.Above(k, textValue(k, lo), loIncluded); err != nil {
			t.Fatal(err)
		}
	}
	if hi != "" {
		if err := s.Below(k, textValue(k, hi), hiIncluded); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestSpanBounds(t *testing.T) {
	entries := []RangeEntry{{"s0", nil, bound("g")}, {"s1", bound("g"), bound("p")}, {"s0", bound("p"), bound("t")}}
	for _, test := range []struct {
		lo, hi                 string
		loIncluded, hiIncluded bool
		byBytes                bool
		want                   []string
	}{
		{"", "", true, false, true, []string{"s0", "s1", "s2"}},
		{"h", "i", true, false, true, []string{"s1"}},
		{"h", "i", true, false, false, []string{"s0", "s1", "s2"}},
		{"a", "g", true, false, true, []string{"s0"}},
		{"a", "g", true, true, true, []string{"s0", "s1"}},
		{"s", "", true, false, true, []string{"s0", "s2"}},
		{"t", "", true, false, true, []string{"s2"}},
		{"", "b", true, false, true, []string{"s0"}},
		{"i", "h", true, false, true, nil},
		{"i", "i", true, false, true, nil},
		{"i", "i", true, true, true, []string{"s1"}},
		{"i", "i", false, true, true, nil},
		{"i", "i", false, true, false, []string{"s0", "s1", "s2"}},
		{"f~", "g", false, false, true, []string{"s0"}},
		{"i", "z", true, false, true, []string{"s0", "s1", "s2"}},
	} {
		p, err := NewRanges(Text, threeShards(), entries, RangeOptions{Default: "s2", TextByBytes: test.byBytes})
		if err != nil {
			t.Fatal(err)
		}
		got := p.Touched(nil, spanOf(t, Text, test.lo, test.hi, test.loIncluded, test.hiIncluded))
		if slices.Sort(got); !slices.Equal(got, test.want) {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

// TestSpanNarrows: of several bounds the narrowest count, NULL leaves nothing, and what
// cannot be read changes nothing.
func TestSpanNarrows(t *testing.T) {
	s := spanOf(t, Int8, "5", "20", true, false)
	for _, err := range []error{
		s.Above(Int8, textValue(Int2, "3"), true), s.Above(Int8, textValue(Int8, "7"), false), s.Above(Int8, textValue(Int8, "7"), true),
		s.Below(Int8, textValue(Int8, "30"), true), s.Below(Int8, textValue(Int4, "15"), true), s.Below(Int8, textValue(Int8, "9223372036854775807"), true),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if s.Above(Int8, textValue(Int8, "x"), true) == nil || s.Below(Int8, textValue(Text, "9"), true) == nil || s.Above(Date, textValue(Date, "today"), true) == nil {
		t.Error("what is no key was read")
	}
	for v, want := range map[string]bool{"7": false, "8": true, "15": true, "16": false} {
		if got, err := s.Holds(Int8, textValue(Int8, v)); got != want || err != nil {
			t.Errorf("%s: %t, %v", v, got, err)
		}
	}
	if _, err := s.Holds(Int8, textValue(Int8, "x")); err == nil || s.Empty() {
		t.Error("x is in the span, or nothing is")
	}
	s.None()
	if got, err := s.Holds(Int8, textValue(Int8, "8")); got || err != nil || !s.Empty() {
		t.Error("something is in the span of NULL", err)
	}
	s.Reset()
	if got, err := s.Holds(Int8, textValue(Int8, "-8")); !got || err != nil || s.Empty() {
		t.Error("not all is in the span of all", err)
	}
	if err := s.Above(Int8, textValue(Int8, "9223372036854775807"), false); err != nil || !s.Empty() {
		t.Error("something is above the greatest", err)
	}
}

// TestSpanOrder: of every type, a span holds what is in order with its bounds, which TestSortKeys
// says PostgreSQL's order is.
func TestSpanOrder(t *testing.T) {
	for _, typ := range sqlTypes() {
		random := rand.New(rand.NewPCG(11, uint64(typ.key)))
		texts := slices.Clone(typ.edges)
		for len(texts) < 60 {
			texts = append(texts, typ.random(random))
		}
		keys := make([][]byte, len(texts))
		for i, text := range texts {
			var err error
			if keys[i], err = typ.key.AppendSortKey(nil, []byte(text), TextFormat); err != nil {
				t.Fatal(err)
			}
		}
		for i, text := range texts {
			for _, included := range []bool{true, false} {
				above, below := spanOf(t, typ.key, "", "", true, true), &Span{}
				if err := errors.Join(above.Above(typ.key, textValue(typ.key, text), included), below.Below(typ.key, textValue(typ.key, text), included)); err != nil {
					t.Fatal(err)
				}
				for j, other := range texts {
					order := bytes.Compare(keys[j], keys[i])
					is, err1 := above.Holds(typ.key, textValue(typ.key, other))
					under, err2 := below.Holds(typ.key, textValue(typ.key, other))
					if err := errors.Join(err1, err2); err != nil || is != (order > 0 || included && order == 0) || under != (order < 0 || included && order == 0) {
						t.Fatalf("%s: %q and the bound %q, included %t: %t %t, %v", typ.name, other, text, included, is, under, err)
					}
				}
			}
		}
	}
}

// TestSpanWithoutGaps shows that the default is not asked for what ranges hold.
func TestSpanWithoutGaps(t *testing.T) {
	p, err := NewRanges(Int4, threeShards(), []RangeEntry{{"s0", nil, bound("5")}, {"s1", bound("5"), nil}}, RangeOptions{Default: "s2"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		lo, hi   string
		included bool
	}{{}, {lo: "3"}, {hi: "9"}, {"3", "9", false}, {"3", "9", true}} {
		if got := p.Touched(nil, spanOf(t, Int4, test.lo, test.hi, true, test.included)); !slices.Equal(got, []string{"s0", "s1"}) {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

// TestSortKeys lets PostgreSQL sort values of each type and expects the order
// of the sort keys, in both formats.
func TestSortKeys(t *testing.T) {
	conn := pgtest.Shared(t).Connect("postgres").PgConn()
	for _, typ := range sqlTypes() {
		random := rand.New(rand.NewPCG(9, uint64(typ.key)))
		texts := slices.Clone(typ.edges)
		for len(texts) < 2000 {
			texts = append(texts, typ.random(random))
		}
		if typ.key == Numeric {
			texts = append(texts, "-1", "-1.00000001", "-1.0000", "-1.5", "1.00000001", "-10000", "-10000.0001", "-0.0001")
		}
		collate := ""
		if typ.key == Text {
			collate = ` COLLATE "C"`
		}
		query := fmt.Sprintf("SELECT v, v, rank() OVER (ORDER BY v%s) FROM (SELECT x::%s AS v FROM unnest($1::text[]) x) s ORDER BY 3", collate, typ.name)
		var before []byte
		var rank uint64
		runArray(t, conn, query, texts, []int16{0, 1, 1}, func(i int, row [][]byte) {
			key, err1 := typ.key.AppendSortKey(nil, row[0], TextFormat)
			same, err2 := typ.key.AppendSortKey([]byte("x"), row[1], BinaryFormat)
			if err := errors.Join(err1, err2); err != nil || !bytes.Equal(key, same[1:]) {
				t.Fatalf("%s %s: %x and %x, %v", typ.name, row[0], key, same, err)
			}
			order, now := bytes.Compare(before, key), binary.BigEndian.Uint64(row[2])
			if i > 0 && (order > 0 || (order == 0) != (now == rank)) {
				t.Fatalf("%s %s (%x) after %x: PostgreSQL sorts otherwise", typ.name, row[0], key, before)
			}
			before, rank = key, now
		})
	}
}

package exec_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"shardproxy/exec"
)

// TestDistinct compares what is left of a column with what a map leaves, also of values that lie in several chunks.
func TestDistinct(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		a := exec.NewArrays([]exec.ArrayColumn{{Element: 25, Binary: true}, {Element: 17, Binary: true}}, exec.NewBudget(1<<30))
		want, size := map[string]bool{}, 0
		var order []string
		for range r.IntN(2000) {
			v := bytes.Repeat([]byte{byte(r.IntN(4))}, r.IntN(1+r.IntN(3000)))
			row := binary.BigEndian.AppendUint16(nil, 2)
			row = append(binary.BigEndian.AppendUint32(row, 1), 'x')
			if r.IntN(5) == 0 {
				row = binary.BigEndian.AppendUint32(row, 0xffffffff)
			} else {
				row = append(binary.BigEndian.AppendUint32(row, uint32(len(v))), v...)
				if !want[string(v)] {
					want[string(v)] = true
					order = append(order, string(v))
					size += 4 + len(v)
				}
			}
			if err := a.Add(row, 0); err != nil {
				t.Fatal(err)
			}
		}
		var expected []byte
		for _, v := range order {
			expected = append(binary.BigEndian.AppendUint32(expected, uint32(len(v))), v...)
		}
		values, ok := a.Distinct(1, len(order), size)
		if !ok || values.Rows() != len(order) {
			t.Fatalf("%d values, should be %d (%t)", values.Rows(), len(order), ok)
		}
		if got := values.AppendParam(nil, 0); len(order) > 0 && !bytes.Equal(got[24:], expected) {
			t.Fatal("the values are not those that came")
		}
		if len(order) == 0 {
			continue
		}
		for _, less := range [][2]int{{len(order) - 1, size}, {len(order), size - 1}} {
			if _, ok := a.Distinct(1, less[0], less[1]); ok {
				t.Errorf("%d values of %d bytes in %v", len(order), size, less)
			}
		}
	}
	a := exec.NewArrays([]exec.ArrayColumn{{Element: 25}}, exec.NewBudget(1<<20))
	if _, ok := a.Distinct(0, 10, 10); ok {
		t.Error("of text")
	}
}

// BenchmarkDistinct looks at a million values of which few are different.
func BenchmarkDistinct(b *testing.B) {
	a := exec.NewArrays([]exec.ArrayColumn{{Element: 20, Binary: true}}, exec.NewBudget(1<<30))
	for i := range 1_000_000 {
		row := binary.BigEndian.AppendUint16(nil, 1)
		row = binary.BigEndian.AppendUint32(row, 8)
		if err := a.Add(binary.BigEndian.AppendUint64(row, uint64(i%1000)), 0); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if v, ok := a.Distinct(0, 10_000, 256<<10); !ok || v.Rows() != 1000 {
			b.Fatal(fmt.Sprint(v, ok))
		}
	}
}

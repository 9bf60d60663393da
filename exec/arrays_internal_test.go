package exec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"shardproxy/wire"
)

// TestArraysTooLarge has arrays that say to be nearly as large as may be.
func TestArraysTooLarge(t *testing.T) {
	body := []byte{0, 1, 0, 0, 0, 2, 'a', '"'}
	for _, c := range []struct {
		binary       bool
		length, rows int
		fits         bool
	}{
		{true, valueMax - arrayHeader - 6, 1, true},
		{true, valueMax - arrayHeader - 5, 1, false},
		{false, valueMax - arrayHeader - 6, 1, true}, // "a\"",
		{false, valueMax - arrayHeader - 5, 1, false},
		{true, 0, elementsMax - 1, true},
		{true, 0, elementsMax, false},
	} {
		budget := NewBudget(1 << 30)
		a := NewArrays([]ArrayColumn{{Element: 25, Binary: c.binary}}, budget)
		a.columns[0].elements.length, a.rows = c.length, c.rows
		err := a.Add(body, 0)
		var we *wire.Error
		if c.fits && err != nil || !c.fits && (!errors.As(err, &we) || we.Code != "54000" || a.rows != c.rows || budget.Used() != 0) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestArraysAccount holds the budget against what is there, for values of all kinds and sizes.
func TestArraysAccount(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	budget := NewBudget(1 << 30)
	a := NewArrays([]ArrayColumn{{Element: 25, Binary: true}, {Element: 25}}, budget)
	for range 3000 {
		v := bytes.Repeat([]byte(`a"\`), r.IntN(8))
		if r.IntN(50) == 0 {
			v = bytes.Repeat([]byte(`\`), r.IntN(50000))
		}
		field := append(binary.BigEndian.AppendUint32(nil, uint32(len(v))), v...)
		if r.IntN(5) == 0 {
			field = []byte{255, 255, 255, 255}
		}
		if err := a.Add(append(append([]byte{0, 2}, field...), field...), 0); err != nil {
			t.Fatal(err)
		}
		var held, used int
		for _, c := range a.columns {
			for _, chunk := range c.elements.all {
				held += cap(chunk)
				used += len(chunk)
			}
			used -= c.elements.length
		}
		if int64(held) != budget.Used() || used != 0 {
			t.Fatalf("%d bytes held, %d said; length wrong by %d", held, budget.Used(), used)
		}
	}
}

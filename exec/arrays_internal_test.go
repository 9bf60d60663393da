package exec

import (
	"errors"
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

package rebalance

import (
	"strconv"
	"strings"

	"shardproxy/shardmap"
)

// Set is a set of slots. It is immutable.
type Set struct {
	slots []shardmap.Slot // ascending
	in    []bool
}

// NewSet returns the set of these slots, of n that there are. Slots that are not below n are left out.
func NewSet(slots []shardmap.Slot, n int) *Set {
	s := &Set{in: make([]bool, n)}
	for _, slot := range slots {
		if int(slot) < n {
			s.in[slot] = true
		}
	}
	for slot, in := range s.in {
		if in {
			s.slots = append(s.slots, shardmap.Slot(slot))
		}
	}
	return s
}

// Has reports whether a slot is in the set.
func (s *Set) Has(slot shardmap.Slot) bool { return int(slot) < len(s.in) && s.in[slot] }

// Slots returns the slots, ascending. They belong to the set.
func (s *Set) Slots() []shardmap.Slot { return s.slots }

// Len is how many slots are in the set.
func (s *Set) Len() int { return len(s.slots) }

// ArraySQL returns the slots as an SQL array of int4: for = ANY (...).
func (s *Set) ArraySQL() string {
	var b strings.Builder
	b.WriteString("'{")
	for i, slot := range s.slots {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(int(slot)))
	}
	b.WriteString("}'::pg_catalog.int4[]")
	return b.String()
}

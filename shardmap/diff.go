package shardmap

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Move is slots that one map gives to one shard and another map to another.
type Move struct {
	From, To string
	Slots    []Slot // ascending
}

// Diff is how two maps differ. The order of the shards' names does not count.
type Diff struct {
	// FromEpoch and ToEpoch are the maps' epochs.
	FromEpoch, ToEpoch int64
	// FromSlots and ToSlots are the numbers of slots; when they differ, Moves
	// is empty, because no slot of one is a slot of the other.
	FromSlots, ToSlots int
	// Added and Removed are names in only one of the maps, sorted.
	Added, Removed []string
	// Moves are sorted by From and To.
	Moves []Move
}

// Equal reports whether two maps have the same shards and give every slot to
// the same one. Epochs and the order of the names do not count.
func (m *Map) Equal(other *Map) bool { return m.Diff(other).SamePlacement() }

// Diff returns what changes from m to another map.
func (m *Map) Diff(to *Map) Diff {
	d := Diff{FromEpoch: m.epoch, ToEpoch: to.epoch, FromSlots: len(m.owner), ToSlots: len(to.owner)}
	d.Added = without(to.shards, m.shards)
	d.Removed = without(m.shards, to.shards)
	if d.FromSlots != d.ToSlots {
		return d
	}
	moves := map[[2]string][]Slot{}
	for s := range m.owner {
		if a, b := m.Owner(Slot(s)), to.Owner(Slot(s)); a != b {
			moves[[2]string{a, b}] = append(moves[[2]string{a, b}], Slot(s))
		}
	}
	for pair, slots := range moves {
		d.Moves = append(d.Moves, Move{pair[0], pair[1], slots})
	}
	slices.SortFunc(d.Moves, func(a, b Move) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	return d
}

// without returns the names of a that are not in b, sorted.
func without(a, b []string) []string {
	var names []string
	for _, name := range a {
		if !slices.Contains(b, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// SamePlacement reports whether nothing but the epoch may differ.
func (d Diff) SamePlacement() bool {
	return d.FromSlots == d.ToSlots && len(d.Added) == 0 && len(d.Removed) == 0 && len(d.Moves) == 0
}

// Moved returns how many slots change their shard.
func (d Diff) Moved() (n int) {
	for _, m := range d.Moves {
		n += len(m.Slots)
	}
	return n
}

// String says in one line how the maps differ; "" when they are the same in
// all, epoch included.
func (d Diff) String() string {
	var parts []string
	if d.FromEpoch != d.ToEpoch {
		parts = append(parts, fmt.Sprintf("epoch %d becomes %d", d.FromEpoch, d.ToEpoch))
	}
	if d.FromSlots != d.ToSlots {
		parts = append(parts, fmt.Sprintf("%d slots become %d", d.FromSlots, d.ToSlots))
	}
	for _, name := range d.Added {
		parts = append(parts, fmt.Sprintf("shard %q is new", name))
	}
	for _, name := range d.Removed {
		parts = append(parts, fmt.Sprintf("shard %q is gone", name))
	}
	for _, m := range d.Moves {
		list := make([]int64, len(m.Slots))
		for i, s := range m.Slots {
			list[i] = int64(s)
		}
		parts = append(parts, fmt.Sprintf("%s from %q to %q", slotList(list), m.From, m.To))
	}
	return strings.Join(parts, "; ")
}

package shardmap

import (
	"fmt"
	"slices"
	"strings"
)

// Map says which shard owns each slot under one epoch. It never changes: a new
// placement is a new Map with a higher epoch.
type Map struct {
	epoch   int64
	shards  []string // distinct, in the order given
	owner   []uint16 // by slot: index into shards
	held    []bool   // by slot; nil when none is
	guarded bool
	closed  bool
}

// Row is one row of the stored table of slots.
type Row struct {
	Slot  int64  // as stored, perhaps out of bounds
	Shard string // the owner's name
	// Held is set when writes of the slot wait.
	Held bool
}

// MapError says everything that is wrong with rows that should make a map.
type MapError struct {
	// Problems are whole clauses, one for each kind and shard, in a fixed order.
	Problems []string
}

func (e *MapError) Error() string { return "slot map: " + strings.Join(e.Problems, "; ") }

// NewMap makes a map of n slots from the rows of the stored table, in any
// order. shards are the names that may own slots, in the order that OwnerIndex
// refers to; one may own none. The error is a *MapError that names all problems.
func NewMap(epoch int64, n int, shards []string, rows []Row) (*Map, error) {
	b := builder{unknown: map[string][]int64{}}
	b.checkShards(shards)
	if err := CheckSlots(n); err != nil {
		b.add("%v", err)
		return nil, &MapError{b.problems}
	}
	index := make(map[string]int, len(shards))
	for i, name := range shards {
		index[name] = i
	}
	owner := make([]uint16, n)
	seen := make([]int, n)
	var held []bool
	var outside []int64
	for _, row := range rows {
		if row.Slot < 0 || row.Slot >= int64(n) {
			outside = append(outside, row.Slot)
			continue
		}
		seen[row.Slot]++
		if row.Held {
			if held == nil {
				held = make([]bool, n)
			}
			held[row.Slot] = true
		}
		if i, ok := index[row.Shard]; ok {
			owner[row.Slot] = uint16(i)
		} else {
			b.unknown[row.Shard] = append(b.unknown[row.Shard], row.Slot)
		}
	}
	b.checkRows(n, seen, outside)
	if len(b.problems) > 0 {
		return nil, &MapError{b.problems}
	}
	return &Map{epoch: epoch, shards: slices.Clone(shards), owner: owner, held: held}, nil
}

// builder collects what is wrong.
type builder struct {
	problems []string
	unknown  map[string][]int64 // slots by the name of an owner that is no shard
}

func (b *builder) add(format string, args ...any) {
	b.problems = append(b.problems, fmt.Sprintf(format, args...))
}

func (b *builder) checkShards(shards []string) {
	if len(shards) == 0 {
		b.add("no shards")
	}
	if len(shards) > MaxSlots {
		b.add("%d shards, more than %d", len(shards), MaxSlots)
	}
	seen := make(map[string]bool, len(shards))
	for _, name := range shards {
		switch {
		case name == "":
			b.add("a shard has no name")
		case seen[name]:
			b.add("shard %q is named twice", name)
		}
		seen[name] = true
	}
}

func (b *builder) checkRows(n int, seen []int, outside []int64) {
	var missing, twice []int64
	for slot, count := range seen {
		switch {
		case count == 0:
			missing = append(missing, int64(slot))
		case count > 1:
			twice = append(twice, int64(slot))
		}
	}
	if len(missing) > 0 {
		b.add("%s without an owner", slotList(missing))
	}
	if len(twice) > 0 {
		b.add("%s stored more than once", slotList(twice))
	}
	if len(outside) > 0 {
		b.add("%s out of bounds: the slots are 0 to %d", slotList(outside), n-1)
	}
	names := make([]string, 0, len(b.unknown))
	for name := range b.unknown {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		b.add("%s owned by %q, which is no shard", slotList(b.unknown[name]), name)
	}
}

// maxListed is how many ranges a list of slots spells out.
const maxListed = 10

// slotList prints slots, sorted and each once, as "slots 1-3, 7 (4 slots)".
func slotList(list []int64) string {
	list = slices.Clone(list)
	slices.Sort(list)
	list = slices.Compact(list)
	var ranges []string
	for i := 0; i < len(list); {
		end := i
		for end+1 < len(list) && list[end+1] == list[end]+1 {
			end++
		}
		if len(ranges) == maxListed {
			ranges = append(ranges, "...")
			break
		}
		if end == i {
			ranges = append(ranges, fmt.Sprint(list[i]))
		} else {
			ranges = append(ranges, fmt.Sprintf("%d-%d", list[i], list[end]))
		}
		i = end + 1
	}
	if len(list) == 1 {
		return "slot " + ranges[0]
	}
	return fmt.Sprintf("slots %s (%d slots)", strings.Join(ranges, ", "), len(list))
}

// Epoch returns the map's version.
func (m *Map) Epoch() int64 { return m.epoch }

// Guarded reports whether shards may hold rows that they do not own: a statement that runs on several
// shards must leave these out. Moves make a map so, and make it not so again.
func (m *Map) Guarded() bool { return m.guarded }

// Guard returns the map with the same owners that has this epoch, guarded or not.
func (m *Map) Guard(epoch int64, guarded bool) *Map {
	next := *m // what it points to never changes
	next.epoch, next.guarded = epoch, guarded
	return &next
}

// Closed reports whether writes that concern all shards wait: those of what all have alike, and definitions. A shard that joins or
// leaves makes a map so, and makes it not so again.
func (m *Map) Closed() bool { return m.closed }

// Close returns the map with the same owners that has this epoch, closed or not.
func (m *Map) Close(epoch int64, closed bool) *Map {
	next := *m // what it points to never changes
	next.epoch, next.closed = epoch, closed
	return &next
}

// Next returns the map of the next epoch with these rows: of as many slots, of the same shards, guarded and closed or not as this one. The
// error is a *MapError.
func (m *Map) Next(rows []Row) (*Map, error) { return m.next(m.shards, rows) }

// With returns the map of the next epoch to which a shard has come that owns nothing. The error is a *MapError.
func (m *Map) With(shard string) (*Map, error) {
	return m.next(append(m.Shards(), shard), m.Rows())
}

// Without returns the map of the next epoch from which a shard has gone, which must own nothing. The error is a *MapError.
func (m *Map) Without(shard string) (*Map, error) {
	return m.next(slices.DeleteFunc(m.Shards(), func(s string) bool { return s == shard }), m.Rows())
}

func (m *Map) next(shards []string, rows []Row) (*Map, error) {
	next, err := NewMap(m.epoch+1, len(m.owner), shards, rows)
	if err != nil {
		return nil, err
	}
	next.guarded, next.closed = m.guarded, m.closed
	return next, nil
}

// Holding reports whether any write waits: of a slot that is held, or of what concerns all shards.
func (m *Map) Holding() bool { return m.held != nil || m.closed }

// Held reports whether writes of a slot wait. It panics when the map has no such slot.
func (m *Map) Held(s Slot) bool { return m.held != nil && m.held[s] }

// SameStates reports whether two maps of as many slots hold the same ones, and are both guarded and closed or not.
func (m *Map) SameStates(other *Map) bool {
	if m.guarded != other.guarded || m.closed != other.closed || (m.held == nil) != (other.held == nil) {
		return false
	}
	return slices.Equal(m.held, other.held)
}

// Slots returns the number of slots.
func (m *Map) Slots() int { return len(m.owner) }

// Shards returns a copy of the shards' names in the order that OwnerIndex
// refers to.
func (m *Map) Shards() []string { return slices.Clone(m.shards) }

// SlotOf returns the slot of a hash.
func (m *Map) SlotOf(hash uint64) Slot { return SlotOf(hash, len(m.owner)) }

// Owner returns the name of a slot's shard. It panics when the map has no such
// slot.
func (m *Map) Owner(s Slot) string { return m.shards[m.owner[s]] }

// OwnerIndex returns the place of a slot's shard in Shards. It panics when the
// map has no such slot.
func (m *Map) OwnerIndex(s Slot) int { return int(m.owner[s]) }

// SlotsOf returns the slots that a shard owns, ascending; none when it is not
// in the map.
func (m *Map) SlotsOf(shard string) []Slot {
	at := slices.Index(m.shards, shard)
	var slots []Slot
	for s, o := range m.owner {
		if int(o) == at {
			slots = append(slots, Slot(s))
		}
	}
	return slots
}

// Counts returns how many slots each shard owns, in the order of Shards.
func (m *Map) Counts() []int {
	counts := make([]int, len(m.shards))
	for _, o := range m.owner {
		counts[o]++
	}
	return counts
}

// Rows returns the map as rows of the stored table, by slot.
func (m *Map) Rows() []Row {
	rows := make([]Row, len(m.owner))
	for s := range m.owner {
		rows[s] = Row{Slot: int64(s), Shard: m.Owner(Slot(s)), Held: m.Held(Slot(s))}
	}
	return rows
}

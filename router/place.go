package router

import (
	"slices"

	"shardproxy/shardmap"
)

// Placement says how the rows of a sharded table, or of all tables of a schema, are
// placed. It is immutable.
type Placement struct {
	// types are those of the key's columns, in order; none for a schema's.
	types []shardmap.KeyType
	// names are those of the key's columns.
	names []string
	// list and ranges are nil for tables that are placed by hash.
	list   *shardmap.List
	ranges *shardmap.Ranges
	// fixed is the schema's shard, "" when its name decides.
	fixed string
	// entries are those of the list or the ranges, as text.
	entries []string
	// schema is the hash of the schema's name.
	schema uint64
}

// Owners says which shard owns which slot. It is immutable.
type Owners struct {
	slots  *shardmap.Map
	index  []int // of the map's shards in the configuration
	all    []int // these, in order
	shards []string
	since  int64 // the epoch since which any slot is held
}

// NewOwners returns the owners by a slot map; shards are those of the configuration,
// in its order. ok is false when the map names another one.
func NewOwners(m *shardmap.Map, shards []string) (o *Owners, ok bool) {
	o = &Owners{slots: m, shards: shards}
	for _, name := range m.Shards() {
		i := slices.Index(shards, name)
		if i < 0 {
			return nil, false
		}
		o.index = append(o.index, i)
	}
	o.all = slices.Sorted(slices.Values(o.index))
	return o, true
}

// Epoch is the slot map's, 0 without one.
func (o *Owners) Epoch() int64 {
	if o == nil {
		return 0
	}
	return o.slots.Epoch()
}

// Map returns the slot map that they are by, nil without one.
func (o *Owners) Map() *shardmap.Map {
	if o == nil {
		return nil
	}
	return o.slots
}

// After notes what the owners were before these, nil for none known. It must be called before anybody else has them.
func (o *Owners) After(before *Owners) {
	if o.since = o.Epoch(); before.Holding() {
		o.since = before.since
	}
}

// All returns the places in the configuration of the shards of the slot map, in order: a shard that has not joined yet, or has left, is
// none. The caller must not change it.
func (o *Owners) All() []int {
	if o == nil {
		return nil
	}
	return o.all
}

// Closed reports whether writes that concern all shards wait.
func (o *Owners) Closed() bool { return o != nil && o.slots.Closed() }

// HeldSince is the epoch since which slots have been held; it means nothing unless Holding.
func (o *Owners) HeldSince() int64 { return o.since }

// Holding reports whether any slot is held.
func (o *Owners) Holding() bool { return o != nil && o.slots.Holding() }

// HiddenSlots is what a Context has of it: the number of slots while shards may hold rows that are not theirs, else 0.
func (o *Owners) HiddenSlots() int {
	if o == nil || !o.slots.Guarded() {
		return 0
	}
	return o.slots.Slots()
}

// Of returns the place in the configuration of the shard that owns a hash.
func (o *Owners) Of(hash uint64) int { return o.OfSlot(o.slots.SlotOf(hash)) }

// OfSlot returns the place in the configuration of the shard that owns a slot.
func (o *Owners) OfSlot(slot shardmap.Slot) int { return o.index[o.slots.OwnerIndex(slot)] }

// named returns the place of a shard by its name, -1 when there is none.
func (o *Owners) named(shard string) int { return slices.Index(o.shards, shard) }

// Group is one use of a sharded table: its key's columns, and the values that each
// is one of. It is immutable.
type Group struct {
	table     string
	placement *Placement
	columns   [][]value
}

func (g *Group) same(o *Group) bool {
	return g.placement == o.placement && slices.EqualFunc(g.columns, o.columns, func(a, b []value) bool { return slices.EqualFunc(a, b, value.same) })
}

package router

import (
	"slices"
	"strings"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/shardmap"
)

// Slotted says what lies in the slots of a database, and what of its sharded tables does not. Its parts are in the order
// of their names.
type Slotted struct {
	// Tables have rows that lie in slots by the hash of their keys: tables and partitions, and whatever else a rule makes such
	// (materialised views, foreign partitions). A partitioned table has no rows of its own and is not among them.
	Tables []SlottedTable
	// Everywhere are tables that every shard has whole: reference tables and their partitions.
	Everywhere []*catalog.Table
	// Fixed are tables whose rows lie where the configuration says, by list or by range.
	Fixed []FixedTable
	// Schemas are placed as a whole, and have tables or sequences.
	Schemas []PlacedSchema
	// Unknown are tables of which it cannot be said where their rows are.
	Unknown []UnknownTable
}

// SlottedTable is a table that is placed by hash.
type SlottedTable struct {
	Table *catalog.Table
	Key   []string // names of columns, in the order in which they are hashed
}

// FixedTable is a table whose rows do not lie in slots.
type FixedTable struct {
	Table *catalog.Table
	By    string   // list or range
	On    []string // the shards that its rule names, sorted
}

// PlacedSchema is a schema that is placed as a whole.
type PlacedSchema struct {
	Name string
	// Hash is that of its name, Shard where it is. "": it lies in the slot of the hash.
	Hash  uint64
	Shard string
}

// UnknownTable is a table that has a rule which does not do.
type UnknownTable struct {
	Table *catalog.Table
	Why   string // a clause that begins with a verb
}

// SlottedTables returns how the rules place the tables of a catalog that knows them.
func SlottedTables(rules *config.Database, c *catalog.Catalog) *Slotted {
	b, s := newBound(rules, c), &Slotted{}
	schemas := map[string]string{} // the shards by the names
	for _, t := range c.Tables() {
		if !holdsPlacedRows(t) {
			continue
		}
		b.slotted(s, t, schemas)
	}
	for name, shard := range schemas {
		s.Schemas = append(s.Schemas, PlacedSchema{name, shardmap.SchemaHash(name), shard})
	}
	slices.SortFunc(s.Tables, func(a, b SlottedTable) int { return byName(a.Table, b.Table) })
	slices.SortFunc(s.Everywhere, byName)
	slices.SortFunc(s.Fixed, func(a, b FixedTable) int { return byName(a.Table, b.Table) })
	slices.SortFunc(s.Unknown, func(a, b UnknownTable) int { return byName(a.Table, b.Table) })
	slices.SortFunc(s.Schemas, func(a, b PlacedSchema) int { return strings.Compare(a.Name, b.Name) })
	return s
}

// BrokenRules returns the tables of a catalog whose own rules place nothing, in the order of their names: a key that there is not, or
// whose type cannot be one, or values that are none of the key's.
func BrokenRules(rules *config.Database, c *catalog.Catalog) (broken []UnknownTable) {
	b := newBound(rules, c)
	for _, t := range c.Tables() {
		if rules.TableRule(t.Schema, t.Name) == nil || t.Kind == catalog.KindView {
			continue
		}
		if r := b.placedAlone(t); r.kind == kindUnknown {
			broken = append(broken, UnknownTable{t, r.why})
		}
	}
	slices.SortFunc(broken, func(x, y UnknownTable) int { return byName(x.Table, y.Table) })
	return broken
}

func byName(a, b *catalog.Table) int {
	return slices.Compare([]string{a.Schema, a.Name}, []string{b.Schema, b.Name})
}

// holdsPlacedRows reports whether a relation has rows, or values, that a rule may place.
func holdsPlacedRows(t *catalog.Table) bool {
	switch t.Kind {
	case catalog.KindTable, catalog.KindPartition, catalog.KindMaterialized, catalog.KindSequence:
		return !t.System
	case catalog.KindForeign:
		return t.Root != nil // others are on the home shard
	}
	return false
}

// slotted adds a table.
func (b *bound) slotted(s *Slotted, t *catalog.Table, schemas map[string]string) {
	r := b.placedAlone(t)
	switch {
	case t.Kind == catalog.KindSequence && b.rules.SchemaRule(t.Schema) == nil:
		// It belongs to the home shard.
	case t.Kind != catalog.KindSequence && r.kind == kindUnknown:
		s.Unknown = append(s.Unknown, UnknownTable{t, r.why})
	case t.Root != nil && b.apart(t):
		s.Unknown = append(s.Unknown, UnknownTable{t, "is a partition with a rule that places rows elsewhere than the table's"})
	case r.kind == kindReference && (t.Kind == catalog.KindTable || t.Kind == catalog.KindPartition):
		s.Everywhere = append(s.Everywhere, t)
	case r.kind != kindSharded:
	case r.placement.list != nil:
		s.Fixed = append(s.Fixed, FixedTable{t, "list", b.named(t)})
	case r.placement.ranges != nil:
		s.Fixed = append(s.Fixed, FixedTable{t, "range", b.named(t)})
	case len(r.key) == 0:
		schemas[ruledBy(t).Schema] = r.placement.fixed
	default:
		s.Tables = append(s.Tables, SlottedTable{t, r.placement.names})
	}
}

// ruledBy is the table whose schema decides where a table's rows are.
func ruledBy(t *catalog.Table) *catalog.Table {
	if t.Root != nil {
		return t.Root
	}
	return t
}

// named returns the shards that the rule of a table names.
func (b *bound) named(t *catalog.Table) (names []string) {
	rule := b.rules.TableRule(t.Schema, t.Name)
	if rule == nil {
		rule = b.rules.TableRule(ruledBy(t).Schema, ruledBy(t).Name)
	}
	for _, e := range rule.List {
		names = append(names, e.Name)
	}
	for _, e := range rule.Range {
		names = append(names, e.Shard)
	}
	if rule.Default != "" {
		names = append(names, rule.Default)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

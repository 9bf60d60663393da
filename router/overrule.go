package router

import (
	"slices"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/query"
)

// overrule is what the cluster says of the rules. nil: nothing.
type overrule struct {
	rules *config.Database // nil: they are the router's own
	turn  uint64           // counts
}

func (o *overrule) differs() bool { return o != nil && o.rules != nil }

// Overrule tells which rules the cluster has where they are others than the router's; nil: they are the same. From then on statements
// that name a table which both do not place alike are refused, and so are definitions. It may be called from any goroutine, but one call at
// a time.
func (r *Router) Overrule(rules *config.Database) {
	was := r.over.Load()
	if !was.differs() && rules == nil {
		return
	}
	next := &overrule{rules: rules, turn: 1}
	if was != nil {
		next.turn = was.turn + 1
	}
	r.over.Store(next)
}

// turnShift is above all versions of catalogs that there will be.
const turnShift = 40

// version is that of plans under a catalog, and under what the cluster says of the rules.
func (r *Router) version(c *catalog.Catalog) uint64 {
	if o := r.over.Load(); o != nil {
		return c.Version() + o.turn<<turnShift
	}
	return c.Version()
}

// defines reports whether a statement may change definitions.
func (p *Plan) defines() bool {
	return slices.ContainsFunc(p.Statement.Commands, func(c query.Command) bool { return c.Effects&query.EffectCatalog != 0 })
}

// Replaced is a table that new rules place otherwise than old ones.
type Replaced struct {
	SlottedTable // by the new rules; without a key when they do not place it by hash
	// Single is set when the new rules leave it on the home shard.
	Single bool
}

// PlacedOtherwise returns the tables of a catalog whose rows two sets of rules do not place alike, in the order of their names.
func PlacedOtherwise(old, new *config.Database, c *catalog.Catalog) (all []Replaced) {
	was, will := newBound(old, c), newBound(new, c)
	for _, t := range c.Tables() {
		if !holdsPlacedRows(t) || t.Schema == config.ConsoleDatabase {
			continue
		}
		r := will.placedAlone(t)
		if samePlace(was.placedAlone(t), r) {
			continue
		}
		one, s := Replaced{SlottedTable: SlottedTable{Table: t}, Single: r.kind == kindSingle}, &Slotted{}
		if will.slotted(s, t, map[string]string{}); len(s.Tables) > 0 {
			one.SlottedTable = s.Tables[0]
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Replaced) int { return byName(a.Table, b.Table) })
	return all
}

package router

import (
	"slices"

	"shardproxy/catalog"
	"shardproxy/config"
)

// unwritable says why rows of a table on several shards cannot be written rightly:
// what one server would check or do, shards that each have a part of the rows do
// not. "" when nothing stands in the way. hint is what may help.
func (b *bound) unwritable(r *relation, t *catalog.Table, rule *config.Table) (why, hint string) {
	perShard := rule != nil && rule.PerShardConstraints
	if r.kind == kindSharded && len(r.key) > 0 && !perShard {
		if why := uniqueWithoutKey(r, t); why != "" {
			return why, reasonConstraint.hint()
		}
	}
	if !perShard {
		if why := b.foreignKeys(r, t); why != "" {
			if r.kind == kindReference {
				return why, "Drop the foreign key: a table that is on every shard cannot refer to rows of which each is on one."
			}
			return why, reasonConstraint.hint()
		}
	}
	for i := range t.Triggers {
		if why := b.trigger(&t.Triggers[i]); why != "" {
			return why, "Drop or disable the trigger, or have its function use no tables but reference tables."
		}
	}
	if slices.ContainsFunc(t.Rules, func(r catalog.Rule) bool { return r.Enabled != 'D' }) {
		return "it has rewrite rules", "Drop or disable the rules; what they do belongs into the statements."
	}
	return "", ""
}

// uniqueWithoutKey finds what must be unique over all shards and is compared on each
// alone.
func uniqueWithoutKey(r *relation, t *catalog.Table) string {
	for i := range t.Indexes {
		x := &t.Indexes[i]
		if !x.Unique && !x.Exclusion {
			continue
		}
		for _, k := range r.key {
			number := t.Columns[k].Number
			if !slices.Contains(x.Keys, number) || x.Exclusion {
				return "its " + word(x) + " " + x.Name + " does not have the key, so that each shard checks its own rows only"
			}
		}
	}
	return ""
}

func word(x *catalog.Index) string {
	switch {
	case x.Primary:
		return "primary key"
	case x.Exclusion:
		return "exclusion constraint"
	}
	return "unique index"
}

// foreignKeys finds rows that refer to rows which may be on another shard.
func (b *bound) foreignKeys(r *relation, t *catalog.Table) string {
	for _, fk := range t.ForeignKeys {
		if why := b.follows(fk, r, b.kindOnly(fk.References)); why != "" {
			return why
		}
	}
	for _, fk := range t.ReferencedBy {
		if fk.Table == t {
			continue
		}
		if why := b.follows(fk, b.kindOnly(fk.Table), r); why != "" {
			return why
		}
	}
	return ""
}

// kindOnly is relation without what depends on the tables that refer to it.
func (b *bound) kindOnly(t *catalog.Table) *relation {
	if r := b.relations[t]; r != nil {
		return r
	}
	r := &relation{schema: t.Schema, name: t.Name}
	for i := range t.Columns {
		r.columns = append(r.columns, b.bindColumn(t, &t.Columns[i]))
	}
	b.placeOnly(r, t)
	return r
}

// follows says why the rows of a foreign key may be apart.
func (b *bound) follows(fk *catalog.ForeignKey, from, to *relation) string {
	name := "foreign key " + fk.Name + " of " + from.String()
	switch {
	case to.kind == kindReference && from.kind != kindUnknown:
		return ""
	case from.kind == kindSingle && to.kind == kindSingle:
		return ""
	case from.kind != kindSharded || to.kind != kindSharded:
		return name + " refers to rows of " + to.String() + ", which are elsewhere"
	case len(to.key) == 0 || len(from.key) == 0:
		if len(to.key) == len(from.key) && from.colocates(to) {
			return ""
		}
		return name + " refers to rows of " + to.String() + ", which may be elsewhere"
	}
	if !from.colocates(to) {
		return name + " refers to rows of " + to.String() + ", which are placed otherwise"
	}
	for i := range to.key {
		toNumber, fromNumber := fk.References.Columns[to.key[i]].Number, fk.Table.Columns[from.key[i]].Number
		at := slices.Index(fk.ReferencedColumns, toNumber)
		if at < 0 || fk.Columns[at] != fromNumber {
			return name + " does not have the key of both tables, so that the rows may be on different shards"
		}
	}
	return ""
}

// colocates reports whether equal keys of both tables are on one shard.
func (r *relation) colocates(o *relation) bool {
	return r.placement != nil && o.placement != nil && r.placement.colocated(o.placement)
}

// trigger says why a trigger does not do on a shard what it would do on one server.
func (b *bound) trigger(t *catalog.Trigger) string {
	if t.Fence() {
		return "" // it looks whether the row's slot is on its way
	}
	f := b.catalog.CallableByOID(t.Function)
	if t.Enabled == 'D' || t.Enabled == 'R' {
		return ""
	}
	if f == nil {
		return "what its trigger " + t.Name + " does is not known"
	}
	reached := b.catalog.Reaches(f)
	if !reached.Known {
		return "what its trigger " + t.Name + " does is not known"
	}
	for _, o := range reached.Tables {
		if o.Kind == catalog.KindSequence || b.kindOnly(o).kind != kindReference {
			return "its trigger " + t.Name + " may read or write " + o.Schema + "." + o.Name
		}
	}
	return ""
}

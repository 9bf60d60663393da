package verify

import (
	"fmt"
	"slices"

	"shardproxy/catalog"
	"shardproxy/shardmap"
)

// placement finds what keeps the rules from holding under the home shard's schema. The
// router refuses the statements concerned; here it is said at once.
func (c *schemaChecker) placement() {
	all := c.home.Catalog.Tables()
	for i := range c.rules.Tables {
		rule := &c.rules.Tables[i]
		if !slices.ContainsFunc(all, func(t *catalog.Table) bool { return holdsRows(t) && c.rules.TableRule(t.Schema, t.Name) == rule }) {
			c.add(Finding{Severity: Fault, Kind: "table", Name: rule.Name, Message: fmt.Sprintf("table %s has a rule in the configuration and is not on %s", rule.Name, c.home.Shard)})
		}
	}
	for _, t := range all {
		if t.Root != nil || t.Schema == ownSchema {
			continue
		}
		p, before := placeOf(c.rules, t), len(c.found)
		if p.kind == sharded && c.keyFits(t, p) && holdsRows(t) {
			c.uniques(t, p)
		}
		if p.kind != bySchema {
			c.foreignKeys(t, p)
		}
		if p.perShard && len(c.found) == before {
			c.note(t, "per_shard_constraints", "all of its constraints hold over all shards without it")
		}
	}
}

// fault adds a fault of a table.
func (c *schemaChecker) fault(t *catalog.Table, part string, format string, args ...any) {
	f := Finding{Severity: Fault, Kind: t.Kind.String(), Schema: t.Schema, Name: t.Name, Part: part,
		Message: t.Schema + "." + t.Name + ", " + part + ": " + fmt.Sprintf(format, args...)}
	c.add(f)
}

// perShard adds that a constraint holds on each shard only, and why: a fault, or a note when the table's rule accepts it.
func (c *schemaChecker) perShard(t *catalog.Table, p place, part, why string) {
	if !p.perShard {
		c.fault(t, part, "%s; writes are refused", why)
		return
	}
	c.note(t, part, "%s, as per_shard_constraints accepts", why)
}

// note adds a note of a table.
func (c *schemaChecker) note(t *catalog.Table, part string, format string, args ...any) {
	c.fault(t, part, format, args...)
	c.found[len(c.found)-1].Severity = Note
}

// keyFits reports whether the columns of a key are there and may be a key.
func (c *schemaChecker) keyFits(t *catalog.Table, p place) bool {
	fits := true
	for _, name := range p.key {
		col := t.Column(name)
		if col == nil {
			c.fault(t, "column "+name, "it is to be the key, and is missing")
			fits = false
			continue
		}
		if _, err := shardmap.KeyTypeOf(col.Base, deterministic(col)); err != nil {
			c.fault(t, "column "+name, "it is to be the key, and cannot be one: %v", err)
			fits = false
		}
	}
	return fits
}

func deterministic(col *catalog.Column) bool {
	return col.Collation == nil || col.Collation.Deterministic
}

// uniques finds what must be unique over all shards and is compared on each alone.
func (c *schemaChecker) uniques(t *catalog.Table, p place) {
	for i := range t.Indexes {
		x := &t.Indexes[i]
		if !x.Unique && !x.Exclusion {
			continue
		}
		word := "unique index"
		switch {
		case x.Primary:
			word = "primary key"
		case x.Exclusion:
			word = "exclusion constraint"
		}
		for _, name := range p.key {
			if x.Exclusion || !slices.Contains(x.Keys, t.Column(name).Number) {
				c.perShard(t, p, word+" "+x.Name, "it does not have the key column "+name+", so that each shard checks its own rows only")
				break
			}
		}
	}
}

// foreignKeys finds rows that refer to rows which may be on another shard.
func (c *schemaChecker) foreignKeys(t *catalog.Table, p place) {
	for _, fk := range t.ForeignKeys {
		if fk.Inherited {
			continue
		}
		to := placeOf(c.rules, fk.References)
		if why := apart(fk, p, to); why != "" {
			c.perShard(t, p, "foreign key "+fk.Name, "it refers to "+fk.References.Schema+"."+fk.References.Name+", "+why)
		}
	}
}

// apart says why the rows of a foreign key may be on different shards, "" when they
// are not.
func apart(fk *catalog.ForeignKey, from, to place) string {
	switch {
	case to.kind == reference || from.kind == single && to.kind == single:
		return ""
	case from.kind != sharded || to.kind != sharded:
		return fmt.Sprintf("a %s, from a %s: the rows are elsewhere", to.kind, from.kind)
	case fk.Table == fk.References:
	case listed(from) || listed(to):
		return "of which one is placed by list or range"
	}
	if len(from.key) != len(to.key) {
		return "whose key has other columns"
	}
	for i := range to.key {
		a, b := fk.Table.Column(from.key[i]), fk.References.Column(to.key[i])
		if a == nil || b == nil {
			return "" // told as a fault of the key
		}
		ka, errA := shardmap.KeyTypeOf(a.Base, deterministic(a))
		kb, errB := shardmap.KeyTypeOf(b.Base, deterministic(b))
		if errA != nil || errB != nil {
			return ""
		}
		if !ka.Colocates(kb) {
			return fmt.Sprintf("whose key is of type %s, not %s, and placed otherwise", b.TypeName, a.TypeName)
		}
		if at := slices.Index(fk.ReferencedColumns, b.Number); at < 0 || fk.Columns[at] != a.Number {
			return "and does not have the key of both tables, so that the rows may be on different shards"
		}
	}
	return ""
}

func listed(p place) bool { return p.rule != nil && len(p.rule.List)+len(p.rule.Range) > 0 }

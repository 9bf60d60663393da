package router

import (
	"slices"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/query"
)

// Which rule a table has follows from its name, its schema and its columns. A definition that changes
// these may give it another rule: the rows would stay where they are, and be looked for elsewhere.

// keyed implements relations.
func (s schema) keyed(d *query.Definition) bool {
	in := []string{d.Table.Schema}
	if d.Table.Schema == "" {
		in = s.names
	}
	for _, n := range in {
		if s.rules.TableRule(n, d.Table.Name) != nil {
			return false
		}
	}
	has := slices.Clone(d.Added)
	for _, of := range d.Like {
		if t, res := s.catalog.Table(of.Schema, of.Name, s.path); res == catalog.Resolved {
			for i := range t.Columns {
				has = append(has, t.Columns[i].Name)
			}
		}
	}
	return slices.ContainsFunc(has, func(column string) bool { return slices.Contains(s.rules.Keys, config.Identifier(column)) })
}

// displaced implements relations.
func (s schema) displaced(d *query.Definition) string {
	if d.Creates {
		return ""
	}
	if d.OfSchema != "" {
		for _, t := range s.catalog.Tables() {
			if t.Schema == d.OfSchema && s.elsewhere(t, func(c *catalog.Table) { c.Schema = d.NewSchema }) {
				return s.displacedBy(t, "the schema's new name")
			}
		}
		return ""
	}
	t, res := s.catalog.Table(d.Table.Schema, d.Table.Name, s.path)
	if res != catalog.Resolved {
		return ""
	}
	for i, names := range [][]query.Name{d.Attached, d.Detached} {
		for _, n := range names {
			part, res := s.catalog.Table(n.Schema, n.Name, s.path)
			if res != catalog.Resolved {
				continue
			}
			root, by := t, "the table that it is to be a partition of"
			if t.Root != nil {
				root = t.Root
			}
			if i == 1 {
				root, by = nil, "its own name"
			}
			if s.elsewhere(part, func(c *catalog.Table) { c.Root = root }) {
				return s.displacedBy(part, by)
			}
		}
	}
	if s.elsewhere(t, func(c *catalog.Table) { s.alter(c, d) }) {
		return s.displacedBy(t, "what it would be then")
	}
	return ""
}

func (s schema) displacedBy(t *catalog.Table, by string) string {
	return "the rows of " + t.Schema + "." + t.Name + " would be looked for elsewhere than where they are, by the rule for " + by
}

// alter does to a table's columns and names what a definition does.
func (s schema) alter(c *catalog.Table, d *query.Definition) {
	if d.NewName != "" {
		c.Name = d.NewName
	}
	if d.NewSchema != "" {
		c.Schema = d.NewSchema
	}
	c.Columns = slices.DeleteFunc(slices.Clone(c.Columns), func(col catalog.Column) bool { return slices.Contains(d.Dropped, col.Name) })
	for i := range c.Columns {
		col := &c.Columns[i]
		if to, ok := d.Retyped[col.Name]; ok {
			col.Base = 0 // which no key has
			if named, res := s.catalog.TypeOf(to.Schema, to.Name, s.path); res == catalog.Resolved && !named.Domain() {
				col.Base = named.OID
			}
		}
		if to, ok := d.Renamed[col.Name]; ok {
			col.Name = to
		}
	}
	for _, name := range d.Added {
		if c.Column(name) == nil {
			c.Columns = append(c.Columns, catalog.Column{Name: name})
		}
	}
}

// elsewhere reports whether a table's rows would belong elsewhere after a change of it.
func (s schema) elsewhere(t *catalog.Table, change func(*catalog.Table)) bool {
	switch t.Kind {
	case catalog.KindTable, catalog.KindPartitioned, catalog.KindMaterialized:
	default:
		return false
	}
	if t.System {
		return false
	}
	after := *t
	change(&after)
	was, is := s.placedAlone(t), s.placedAlone(&after)
	if was.kind != kindSharded || is.kind != kindSharded {
		return was.kind != is.kind
	}
	if !slices.Equal(was.placement.rule(), is.placement.rule()) || len(was.key) != len(is.key) {
		return true
	}
	for i := range was.key {
		if t.Columns[was.key[i]].Number != after.Columns[is.key[i]].Number {
			return true
		}
	}
	return false
}

// placedAlone is a table's relation as far as its own rule goes.
func (b *bound) placedAlone(t *catalog.Table) *relation {
	r := &relation{schema: t.Schema, name: t.Name}
	for i := range t.Columns {
		r.columns = append(r.columns, b.bindColumn(t, &t.Columns[i]))
	}
	b.placeOnly(r, t)
	return r
}

// apart reports whether a partition, or one of a table's, has a rule that places its rows elsewhere
// than the table does: whoever names it would not find what was written by the other name.
func (b *bound) apart(t *catalog.Table) bool {
	if t.Root != nil {
		return b.rules.TableRule(t.Schema, t.Name) != nil && !samePlace(b.placedAlone(t), b.placedAlone(t.Root))
	}
	return slices.ContainsFunc(t.Children, func(c *catalog.Table) bool { return c.Root != nil && (b.apart(c) || b.apartBelow(c)) })
}

func (b *bound) apartBelow(t *catalog.Table) bool {
	return slices.ContainsFunc(t.Children, func(c *catalog.Table) bool { return b.apart(c) || b.apartBelow(c) })
}

func samePlace(a, b *relation) bool {
	return a.kind == b.kind && (a.kind != kindSharded || slices.Equal(a.placement.rule(), b.placement.rule()) && slices.Equal(a.placement.names, b.placement.names))
}

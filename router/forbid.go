package router

import (
	"slices"
	"strings"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/query"
)

// A definition is judged by the table that would come of it: one whose rows could not be written, or not even
// be found, is refused, and not only what is sent to that table then. What the catalog does not know, as what
// the same transaction has made, is left to be judged when it is used.

// forbidden implements relations.
func (s schema) forbidden(d *query.Definition) *Refusal {
	switch {
	case d.Elements:
		return &Refusal{Reason: reasonCommand, Why: "CREATE SCHEMA makes tables or the like that may be on other shards than the schema",
			Hint: "Make the schema, and then each of them by a statement of its own."}
	case d.Drops || d.OfSchema != "":
		return nil
	}
	m := &making{schema: s, d: d, unsure: map[string]bool{}}
	if !m.known() {
		return nil
	}
	m.r = &relation{schema: m.after.Schema, name: m.after.Name}
	for i := range m.after.Columns {
		m.r.columns = append(m.r.columns, s.bindColumn(&m.after, &m.after.Columns[i]))
	}
	rule := s.placeOnly(m.r, &m.after)
	switch {
	case m.inherits():
		return &Refusal{Reason: reasonCommand, Why: m.r.String() + " would inherit from another table, and one of them is on several shards: neither could be read then",
			Hint: "CREATE TABLE ... (LIKE ...) makes a table of its own; tables can be partitioned."}
	case d.PartitionOf.Name != "" && s.rules.TableRule(m.after.Schema, m.after.Name) != nil && !samePlace(m.r, s.placedAlone(m.after.Root)):
		return &Refusal{Reason: reasonCommand, Why: m.r.String() + " would be a partition with a rule that places rows elsewhere than the table's",
			Hint: "A partition needs no rule: it is where its table is."}
	case m.r.kind == kindUnknown && d.Creates && (rule == nil || len(rule.Range) == 0) && !m.keyUnsure():
		return &Refusal{Reason: reasonCommand, Why: m.r.String() + " " + m.r.why,
			Hint: "Give the key's column another type, or the table a rule of its own."}
	case rule != nil && rule.PerShardConstraints, m.r.kind != kindSharded && m.r.kind != kindReference:
		return nil
	}
	return m.constrained()
}

// making is a table that a definition makes or changes.
type making struct {
	schema
	d *query.Definition
	// after is what it would be, with no constraints but those that the definition adds.
	after catalog.Table
	// old is what it is, nil for a new one.
	old *catalog.Table
	r   *relation
	// unsure are the columns whose types are not known.
	unsure map[string]bool
}

// known fills in what the table would be; false when that is not known.
func (m *making) known() bool {
	t, res := m.catalog.Table(m.d.Table.Schema, m.d.Table.Name, m.path)
	if !m.d.Creates {
		if res != catalog.Resolved || t.System || t.Kind != catalog.KindTable && t.Kind != catalog.KindPartitioned && t.Kind != catalog.KindPartition {
			return false
		}
		m.old, m.after = t, *t
		m.alter(&m.after, m.d)
		m.after.Columns = slices.Clone(m.after.Columns)
		m.after.Indexes, m.after.ForeignKeys = nil, nil
		m.number()
		return true
	}
	if len(m.names) == 0 && m.d.Table.Schema == "" {
		return false // where it would be is not known
	}
	m.after = catalog.Table{Schema: m.d.Table.Schema, Name: m.d.Table.Name, Kind: catalog.KindTable}
	if m.after.Schema == "" {
		m.after.Schema = m.placeOf(m.after.Name)
	}
	if res == catalog.Resolved && t.Schema == m.after.Schema {
		return false // it is there
	}
	of := m.d.Like
	if m.d.PartitionOf.Name != "" {
		of = []query.Name{m.d.PartitionOf}
	}
	for _, n := range of {
		t, res := m.catalog.Table(n.Schema, n.Name, m.path)
		if res != catalog.Resolved || len(t.Columns) == 0 {
			return false
		}
		m.after.Columns = append(m.after.Columns, t.Columns...)
		if m.d.PartitionOf.Name != "" {
			m.after.Kind, m.after.Root = catalog.KindPartition, t
			if t.Root != nil {
				m.after.Root = t.Root
			}
		}
	}
	for i := range m.after.Columns {
		m.after.Columns[i].Number = 0
	}
	for i := range m.d.Columns {
		if c := &m.d.Columns[i]; m.after.Column(c.Name) == nil {
			m.after.Columns = append(m.after.Columns, m.column(c))
		}
	}
	m.number()
	return true
}

// placeOf returns the schema of the path where a table would be made: the first with a rule for it, or else the
// first that is known to exist.
func (m *making) placeOf(name string) string {
	at := slices.IndexFunc(m.names, func(n string) bool { return m.rules.SchemaRule(n) != nil || m.rules.TableRule(n, name) != nil })
	if at < 0 {
		at = slices.IndexFunc(m.names, func(n string) bool {
			return n == "public" || slices.ContainsFunc(m.catalog.Tables(), func(t *catalog.Table) bool { return t.Schema == n })
		})
	}
	return m.names[max(at, 0)]
}

// number gives new columns numbers that no other has.
func (m *making) number() {
	var last int16
	for i := range m.after.Columns {
		last = max(last, m.after.Columns[i].Number)
	}
	for i := range m.after.Columns {
		if c := &m.after.Columns[i]; c.Number == 0 {
			last++
			c.Number = last
		}
	}
}

// column is a column as far as a key must know it.
func (m *making) column(c *query.DefinedColumn) catalog.Column {
	out := catalog.Column{Name: c.Name, Modifier: -1}
	name := c.Type
	if name.Schema == "" {
		switch name.Name {
		case "smallserial", "serial2":
			name.Name = "int2"
		case "serial", "serial4":
			name.Name = "int4"
		case "bigserial", "serial8":
			name.Name = "int8"
		}
	}
	t, res := m.catalog.TypeOf(name.Schema, name.Name, m.path)
	switch {
	case c.Collated, res != catalog.Resolved, t.OID == 0 && !c.Array:
		m.unsure[c.Name] = true
	case !c.Array:
		out.Type, out.Base, out.Collation = t.OID, t.Base, t.Collation
	}
	return out
}

// keyUnsure reports whether the type of a column that may place the rows is not known.
func (m *making) keyUnsure() bool {
	rule := m.rules.TableRule(m.after.Schema, m.after.Name)
	for name := range m.unsure {
		for _, k := range m.rules.Keys {
			if rule == nil && string(k) == name {
				return true
			}
		}
		if rule != nil && slices.ContainsFunc(rule.Key, func(k config.Identifier) bool { return string(k) == name }) {
			return true
		}
	}
	return false
}

// inherits reports whether the table would share rows with one while either is on several shards.
func (m *making) inherits() bool {
	return slices.ContainsFunc(m.d.Inherits, func(n query.Name) bool {
		t, res := m.catalog.Table(n.Schema, n.Name, m.path)
		return res == catalog.Resolved && (m.r.kind != kindSingle || m.placedAlone(t).kind != kindSingle)
	})
}

// constrained judges the constraints that the definition adds.
func (m *making) constrained() *Refusal {
	for i := range m.d.Constraints {
		k := &m.d.Constraints[i]
		if k.References.Name != "" {
			if why := m.refers(k); why != "" {
				hint := reasonConstraint.hint()
				if m.r.kind == kindReference {
					hint = "A table that is on every shard cannot refer to rows of which each is on one."
				}
				return m.unwritten(why, hint)
			}
			continue
		}
		x := catalog.Index{Name: k.Name, Unique: k.Unique, Primary: k.Primary, Exclusion: k.Exclusion}
		if x.Keys = m.numbers(k.Columns); k.Index != "" && m.old != nil {
			if at := slices.IndexFunc(m.old.Indexes, func(o catalog.Index) bool { return o.Name == k.Index }); at >= 0 {
				x.Keys = m.old.Indexes[at].Keys
			}
		}
		if x.Name == "" {
			x.Name = "(" + strings.Join(k.Columns, ", ") + ")"
		}
		m.after.Indexes = append(m.after.Indexes, x)
	}
	m.indexesOf()
	if m.r.kind != kindSharded || len(m.r.key) == 0 {
		return nil
	}
	if why := uniqueWithoutKey(m.r, &m.after); why != "" {
		return m.unwritten(why, "Put "+strings.Join(m.r.placement.names, ", ")+" into it; or per_shard_constraints in the table's rule accepts constraints that hold on each shard alone.")
	}
	return nil
}

func (m *making) unwritten(why, hint string) *Refusal {
	return &Refusal{Reason: reasonConstraint, Why: "rows of " + m.r.String() + " could not be written then: " + why, Hint: hint}
}

// indexesOf adds the indexes that LIKE copies.
func (m *making) indexesOf() {
	for _, n := range m.d.LikeIndexes {
		t, res := m.catalog.Table(n.Schema, n.Name, m.path)
		if res != catalog.Resolved {
			continue
		}
		for _, x := range t.Indexes {
			names := make([]string, len(x.Keys))
			for i, number := range x.Keys {
				if at := slices.IndexFunc(t.Columns, func(c catalog.Column) bool { return c.Number == number }); at >= 0 {
					names[i] = t.Columns[at].Name
				}
			}
			x.Keys = m.numbers(names)
			m.after.Indexes = append(m.after.Indexes, x)
		}
	}
}

// numbers are those of columns, 0 for what is none.
func (m *making) numbers(names []string) []int16 { return numbersOf(&m.after, names) }

func numbersOf(t *catalog.Table, names []string) []int16 {
	all := make([]int16, len(names))
	for i, n := range names {
		if c := t.Column(n); c != nil {
			all[i] = c.Number
		}
	}
	return all
}

// refers says why rows that a foreign key refers to may be elsewhere.
func (m *making) refers(k *query.Constraint) string {
	to, r, key := &m.after, m.r, k.Referenced
	if n := k.References; n.Name != m.d.Table.Name || n.Schema != m.d.Table.Schema {
		t, res := m.catalog.Table(n.Schema, n.Name, m.path)
		if res != catalog.Resolved {
			return ""
		}
		to, r = t, m.placedAlone(t)
	}
	if r.kind != kindSharded && r.kind != kindReference {
		return "" // tables of the home shard are not of the same statement
	}
	fk := &catalog.ForeignKey{Name: k.Name, Table: &m.after, References: to, Columns: m.numbers(k.Columns), ReferencedColumns: numbersOf(to, key)}
	if fk.Name == "" {
		fk.Name = "(" + strings.Join(k.Columns, ", ") + ")"
	}
	if len(key) == 0 {
		fk.ReferencedColumns = m.primaryKey(to)
	}
	if len(fk.ReferencedColumns) != len(fk.Columns) {
		return "" // the server says so
	}
	return m.follows(fk, m.r, r)
}

// primaryKey are the columns of a table's primary key, which may be one that the definition adds.
func (m *making) primaryKey(t *catalog.Table) []int16 {
	if t == &m.after {
		for i := range m.d.Constraints {
			if k := &m.d.Constraints[i]; k.Primary {
				return m.numbers(k.Columns)
			}
		}
		if t = m.old; t == nil {
			return nil
		}
	}
	if x := t.PrimaryKey(); x != nil {
		return x.Keys
	}
	return nil
}

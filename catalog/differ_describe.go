package catalog

import (
	"fmt"
	"slices"
	"strings"
)

// The order in which things and their parts are told.
const (
	rankExtension = iota
	rankType
	rankSequence
	rankTable
	rankFunction
)

// describe lists what a database has.
func describe(c *Catalog, except []string) map[thingKey]*thing {
	out := map[thingKey]*thing{}
	skip := func(schema string) bool {
		return schema == "pg_catalog" || schema == "information_schema" || slices.Contains(except, schema)
	}
	for name, version := range c.extensions {
		out[thingKey{rankExtension, "", name}] = &thing{kind: "extension", facts: []fact{{"version", version}}}
	}
	for _, t := range c.typesByOID {
		if t.OID >= firstUserOID && !skip(t.Schema) && !c.members[nodeID{nodeType, t.OID}] && t.Element == 0 && t.Kind != 'm' {
			out[thingKey{rankType, t.Schema, t.Name}] = c.describeType(t)
		}
	}
	for _, t := range c.userTables {
		if skip(t.Schema) || c.members[nodeID{nodeRead, t.OID}] || t.Sequence != nil && t.Sequence.Owner != nil {
			continue // an owned sequence is part of its column
		}
		rank := rankTable
		if t.Kind == KindSequence {
			rank = rankSequence
		}
		out[thingKey{rank, t.Schema, t.Name}] = c.describeTable(t)
	}
	for _, f := range c.callsByOID {
		if f.OID >= firstUserOID && !skip(f.Schema) && !c.members[nodeID{nodeFunction, f.OID}] {
			out[thingKey{rankFunction, f.Schema, f.Name + "(" + c.typeList(f.Arguments) + ")"}] = c.describeCallable(f)
		}
	}
	return out
}

// typeList names types by schema and name.
func (c *Catalog) typeList(oids []uint32) string {
	names := make([]string, len(oids))
	for i, oid := range oids {
		names[i] = c.typeText(oid)
	}
	return strings.Join(names, ", ")
}

func (c *Catalog) typeText(oid uint32) string {
	t := c.typesByOID[oid]
	switch {
	case t == nil:
		return "row type"
	case t.Element != 0 && strings.HasPrefix(t.Name, "_"):
		return c.typeText(t.Element) + "[]"
	case t.Schema == "pg_catalog":
		return t.Name
	}
	return t.Schema + "." + t.Name
}

func (c *Catalog) describeType(t *NamedType) *thing {
	kinds := map[byte]string{'b': "base type", 'c': "composite type", 'd': "domain", 'e': "enum", 'r': "range type", 'p': "pseudo-type"}
	return &thing{kind: "type", facts: []fact{
		{"kind", kinds[t.Kind]},
		{"base type", t.overName},
		{"not null", yes(t.NotNull)},
		{"collation", collationText(t.Collation)},
		{"default", t.Default.Expression},
		{"definition", strings.Join(t.Parts, "; ")},
	}}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func collationText(l *Collation) string {
	if l == nil {
		return ""
	}
	s := l.Schema + "." + l.Name
	if !l.Deterministic {
		s += " not deterministic"
	}
	if l.Bytewise {
		s += " by bytes"
	}
	if l.Version != "" {
		s += " version " + l.Version
	}
	return s
}

func (c *Catalog) describeCallable(f *Callable) *thing {
	kinds := map[CallKind]string{CallFunction: "function", CallProcedure: "procedure", CallAggregate: "aggregate", CallWindow: "window function"}
	return &thing{kind: "function", facts: []fact{
		{"kind", kinds[f.Kind]},
		{"result", c.typeText(f.Returns)},
		{"returns a set", yes(f.ReturnsSet)},
		{"language", f.Language},
		{"volatility", f.Volatility.String()},
		{"strict", yes(f.Strict)},
		{"security definer", yes(f.SecurityDefiner)},
		{"other attributes", f.attributes},
		{"body", f.Body},
	}}
}

func (c *Catalog) describeTable(t *Table) *thing {
	out := &thing{kind: t.Kind.String(), order: columnOrder(t), parts: map[partKey][]fact{}}
	out.facts = []fact{
		{"kind", t.Kind.String()},
		{"unlogged", yes(t.Unlogged)},
		{"row security", rowSecurityText(t)},
		{"replica identity", string(rune(t.ReplicaIdentity))},
		{"parents", tableNames(t.Parents)},
		{"partition key", t.PartitionBy},
		{"partition bound", t.PartitionBound},
		{"sequence", c.sequenceText(t.Sequence)},
		{"view", viewText(t.View)},
	}
	for i := range t.Columns {
		out.parts[partKey{0, "column", t.Columns[i].Name}] = c.describeColumn(&t.Columns[i])
	}
	add := func(rank int, kind, name, definition string, more ...fact) {
		out.parts[partKey{rank, kind, name}] = append([]fact{{"definition", definition}}, more...)
	}
	for _, k := range t.Checks {
		add(1, "constraint", k.Name, k.Definition, fact{"validated", yes(k.Validated)})
	}
	for _, k := range t.ForeignKeys {
		if !k.Inherited { // a copy is as its parent's
			add(1, "constraint", k.Name, k.Definition, fact{"validated", yes(k.Validated)})
		}
	}
	for i := range t.Indexes {
		x := &t.Indexes[i]
		add(2, "index", x.Name, x.Definition, fact{"constraint", x.ConstraintDefinition}, fact{"valid", yes(x.Valid)})
	}
	for _, g := range t.Triggers {
		if g.Fence() {
			continue // the other shard has none
		}
		add(3, "trigger", g.Name, g.Definition, fact{"enabled", string(rune(g.Enabled))})
	}
	for _, u := range t.Rules {
		add(4, "rule", u.Name, u.Definition, fact{"enabled", string(rune(u.Enabled))})
	}
	for _, p := range t.Policies {
		add(5, "policy", p.Name, fmt.Sprintf("FOR %s TO %s USING (%s) WITH CHECK (%s)",
			p.Command, strings.Join(p.Roles, ", "), p.Using, p.Check), fact{"permissive", yes(p.Permissive)})
	}
	return out
}

func rowSecurityText(t *Table) string {
	switch {
	case t.ForceRowSecurity && t.RowSecurity:
		return "forced"
	case t.RowSecurity:
		return "enabled"
	case t.ForceRowSecurity:
		return "disabled, would be forced"
	}
	return "disabled"
}

func tableNames(tables []*Table) string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.Schema + "." + t.Name
	}
	return strings.Join(names, ", ")
}

// columnOrder is what SELECT * and an INSERT without a column list depend on.
func columnOrder(t *Table) string {
	names := make([]string, len(t.Columns))
	for i := range t.Columns {
		names[i] = t.Columns[i].Name
	}
	return strings.Join(names, ", ")
}

func viewText(v *View) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%s [check option %q, security invoker %s, security barrier %s]",
		v.Definition, v.CheckOption, yes(v.SecurityInvoker), yes(v.SecurityBarrier))
}

func (c *Catalog) sequenceText(s *Sequence) string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("AS %s START %d INCREMENT %d MINVALUE %d MAXVALUE %d CACHE %d cycle %s",
		c.typeText(s.Type), s.Start, s.Increment, s.Min, s.Max, s.Cached, yes(s.Cycle))
}

func (c *Catalog) describeColumn(col *Column) []fact {
	return []fact{
		{"type", col.TypeName},
		{"not null", yes(col.NotNull)},
		{"collation", collationText(col.Collation)},
		{"default", c.defaultText(col.Default)},
	}
}

// defaultText is a default without the name of a sequence that serves it.
func (c *Catalog) defaultText(d Default) string {
	switch d.Kind {
	case NoDefault:
		return ""
	case DefaultSequence:
		if d.Sequence.Sequence == nil || d.Sequence.Sequence.Owner == nil {
			return d.Expression
		}
		return "nextval of its sequence " + c.sequenceText(d.Sequence.Sequence)
	case DefaultIdentity:
		return "identity" + alwaysText(d) + " " + c.sequenceText(d.Sequence.Sequence)
	case DefaultGenerated:
		if d.Virtual {
			return "virtual " + d.Expression
		}
		return "generated " + d.Expression
	}
	if d.OfDomain {
		return "of its domain"
	}
	return d.Expression
}

func alwaysText(d Default) string {
	if d.Always {
		return " always"
	}
	return ""
}

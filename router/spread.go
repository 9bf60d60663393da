package router

import (
	"bytes"
	"slices"
	"strings"

	"shardproxy/query"
)

// definition decides where a command runs that is no query: on all shards if what it
// names is there, or would be; else on the home shard.
func (p *prover) definition(sh *query.Shape, c *query.Command) {
	names, tables := c.Relations, sh.Tables
	p.newViews = AddViews(p.newViews, makesViews(sh, p.sql[c.Start:c.End]))
	if sh.Kind == query.ShapeCreateView || sh.What() == "the command CompositeTypeStmt" {
		names, tables = nil, nil // it is where what it reads is
	}
	if sh.What() == "the command DoStmt" {
		p.refuse(reasonFunction, "what DO runs may read any table")
	}
	for _, t := range tables {
		names = append(names[:len(names):len(names)], query.Name{Schema: t.Schema, Name: t.Name})
	}
	names = append(names[:len(names):len(names)], sh.Indexes...)
	if x := sh.Concurrent; x != nil && x.Kind == query.ConcurrentReindexIndex {
		// Where the index is, the journal looks up.
		names, p.all = nil, "the index "+x.Object.Name
	}
	if sh.Inner != nil && sh.Inner.Scope != nil {
		// What a definition reads need not be bound to a key.
		p.build(sh.Inner.Scope, nil, &text{}).each(func(l *leaf) {
			names = append(names[:len(names):len(names)], query.Name{Schema: l.ref.Schema, Name: l.ref.Name})
		})
	}
	named, keyed := false, false
	if d := sh.Definition; d != nil {
		keyed = d.Creates && c.Effects&(query.EffectTemp|query.EffectCatalog) != query.EffectTemp && p.relations.keyed(d)
		if keyed {
			p.newViews = AddViews(p.newViews, madeTable(d.Table.Name))
		}
		if why := p.relations.displaced(d); why != "" {
			p.refuse(reasonCommand, why)
			if p.refusal.Why == why {
				p.refusal.Hint = "Make a new table, or schema, with that name and those columns, and copy the rows into it."
			}
			return
		}
		if temporary := c.Effects&(query.EffectTemp|query.EffectCatalog) == query.EffectTemp; !temporary && p.refusal == nil {
			if p.refusal = p.relations.forbidden(d); p.refusal != nil {
				return
			}
		}
	}
	for _, n := range names {
		r := p.relations.find(n.Schema, n.Name)
		if sh.What() == "the command ReindexStmt" && slices.Contains(strings.Fields(strings.ToLower(p.sql[c.Start:c.End])), "index") {
			p.refuse(reasonCommand, "of which table "+n.Name+" is an index is not looked up: use REINDEX TABLE")
		}
		named = true
		switch of := p.relations.indexed(n.Schema, n.Name); {
		case of != nil && (r == nil || r.kind == kindSingle):
			r = of
		case slices.ContainsFunc(sh.Indexes, func(x query.Name) bool { return x.Schema == n.Schema && x.Name == n.Name }):
			// It may have been made just now, on whichever shards: where it is not, that is an error.
			p.all = "the index " + n.Name
			continue
		case r == nil:
			r = &relation{kind: kindSingle, schema: n.Schema, name: n.Name}
		}
		switch {
		case (keyed || p.follows(sh.Definition)) && r.kind == kindSingle && n == sh.Definition.Table:
			p.all = n.Name
		case sh.Definition != nil && sh.Definition.Drops && r.dropsAll:
			p.all = r.String()
		case sh.Definition != nil && sh.Definition.Drops && r.dropsHome:
			p.uses[kindSingle] = r.String()
		case r.declared, r.kind == kindSharded, r.kind == kindReference, r.kind == kindView && p.viewSpread(r):
			p.all, p.allReference = r.String(), p.allReference || r.kind == kindReference
		case r.kind == kindUnknown:
			p.refuse(reasonUnknown, r.String()+" "+r.why)
		default:
			p.uses[kindSingle] = r.String()
		}
	}
	switch {
	case !named && c.Kind == query.KindDDL:
		p.all = "what " + strings.TrimPrefix(sh.What(), "the command ") + " makes or changes"
	case !named:
		p.uses[kindSystem] = "the command"
	}
	if p.all != "" && c.Effects&(query.EffectTemp|query.EffectCatalog) == query.EffectTemp {
		p.refuse(reasonCommand, "temporary objects belong to the home shard, and "+p.all+" is on several")
	}
	how := maintains(sh, p.sql[c.Start:c.End])
	if how == onEach && !named && c.Kind != query.KindDDL {
		p.all = "what " + strings.TrimPrefix(sh.What(), "the command ") + " is about"
		p.uses[kindSystem] = ""
	}
	if p.all != "" && how == onEach {
		p.each = true
	}
	if p.all != "" {
		if why := p.fillsColumn(sh, c); why != "" {
			p.refuse(reasonReference, why)
		}
	}
	if sh.Concurrent != nil {
		p.concurrently(sh.Concurrent)
	}
	if p.all != "" && c.Kind != query.KindDDL && sh.Kind != query.ShapeTruncate && how == noMaintenance {
		p.refuse(reasonCommand, "a command that is no query, on "+p.all+", which is on several shards")
	}
}

// follows reports whether a definition makes a partition of a table that is on several shards: it is
// where that is.
func (p *prover) follows(d *query.Definition) bool {
	if d == nil || d.PartitionOf.Name == "" {
		return false
	}
	r := p.relations.find(d.PartitionOf.Schema, d.PartitionOf.Name)
	return r != nil && (r.declared || r.kind == kindSharded || r.kind == kindReference)
}

// viewSpread reports whether a view reads what is on several shards, or no table at all: such a one is on all.
func (p *prover) viewSpread(r *relation) bool {
	q := &prover{relations: p.relations, withs: map[*query.CTE]*with{}, params: map[int32]paramUse{}}
	q.build(r.query, nil, &text{r.view.literals, r.view.sql}).each(q.note)
	return q.uses[kindSharded] != "" || q.uses[kindReference] != "" || q.uses[kindUnknown] != "" || q.uses[kindSingle] == "" && q.uses[kindSystem] == ""
}

// each calls f for every table in a block and inside it.
func (b *block) each(f func(*leaf)) {
	if b == nil {
		return
	}
	for _, n := range b.nodes {
		switch {
		case n.leaf == nil || n.join != nil:
		case n.leaf.inner != nil:
			if n.leaf.rel != nil {
				f(n.leaf)
			}
			n.leaf.inner.each(f)
		case n.leaf.rel != nil:
			f(n.leaf)
		}
	}
	for _, l := range b.links {
		l.block.each(f)
	}
	for _, w := range b.with {
		w.block.each(f)
	}
	b.left.each(f)
	b.right.each(f)
}

// unsteady says why a write to a reference table may come out differently on each
// shard; "" when it surely does not.
func (p *prover) unsteady(c *query.Command, sh *query.Shape) string {
	if why := p.mayDiffer(c, false); why != "" {
		return "it " + why
	}
	if word := query.SystemColumn(p.sql[c.Start:c.End]); word != "" {
		return "the same row may have another " + word + " on each"
	}
	if sh.Scope == nil {
		return ""
	}
	switch s := sh.Scope; s.Kind {
	case query.ScopeInsert:
		if src := s.Insert.Source; src != nil && (src.Select.Limited() || src.Select != nil && (len(src.Select.DistinctOn) > 0 || src.Select.Windows)) {
			return "which rows it inserts may differ from shard to shard"
		}
		return p.unsteadyDefaults(s)
	case query.ScopeUpdate:
		if len(s.From) > 0 {
			return "UPDATE ... FROM may take another row on each shard"
		}
	case query.ScopeMerge:
		return "MERGE may take another row on each shard"
	}
	return ""
}

// unsteadyDefaults looks at the columns that an INSERT leaves out.
func (p *prover) unsteadyDefaults(s *query.Scope) string {
	r := p.relations.find(s.Target.Schema, s.Target.Name)
	if r == nil {
		return ""
	}
	for i, c := range r.columns {
		if c.draw != nil && p.draw != "" || c.moment != "" && p.split != nil && p.split.fills(c.name) {
			continue // drawn for all, or refused
		}
		if c.drawn || c.unsteady {
			if !given(s.Insert, i, c.name) {
				return "column " + c.name + " has a default whose value may differ from shard to shard"
			}
		}
	}
	return ""
}

// moment reports whether a text is one that date and time types, arrays and ranges of them
// read as the time of the moment.
func moment(text []byte) bool {
	word := func(w string) bool { return w == "now" || w == "today" || w == "tomorrow" || w == "yesterday" }
	lower := strings.TrimSpace(strings.ToLower(string(text)))
	if lower != "" && strings.ContainsRune("{[(", rune(lower[0])) {
		return slices.ContainsFunc(strings.FieldsFunc(lower, func(r rune) bool { return strings.ContainsRune("{}[](), \t\"\\", r) }), word)
	}
	// What may stand beside it is a time of the day.
	fields := strings.Fields(lower)
	return len(fields) > 0 && len(fields) < 4 && slices.ContainsFunc(fields, word) &&
		!slices.ContainsFunc(fields, func(f string) bool { return !word(f) && f != "allballs" && !strings.Contains(f, ":") })
}

// SteadyValues reports whether the values of an execution on all shards mean the same
// on each: no text among them stands for the time of the moment.
func (v *Values) SteadyValues() bool {
	for _, l := range v.Literals {
		if l.Kind != query.LiteralString {
			continue
		}
		text, ok := query.LiteralText(nil, v.Text, l, v.Standard)
		if !ok { // of a form with escapes, which may hide it
			text = bytes.Trim(v.Text[l.Start:l.End], "eEuU&'")
		}
		if moment(text) {
			return false
		}
	}
	for n := 1; n <= v.count; n++ {
		if data, _, ok := v.param(n); ok && moment(data) {
			return false
		}
	}
	return true
}

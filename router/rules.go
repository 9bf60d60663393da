package router

import (
	"fmt"
	"slices"
	"sync"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/query"
	"shardproxy/shardmap"
)

// bound is a database's rules as they hold under one catalog. It is safe for
// concurrent use.
type bound struct {
	rules   *config.Database
	catalog *catalog.Catalog
	// cluster are the rules that the cluster has when they are others; nil: it has these.
	cluster *bound
	over    *overrule // that it is by

	mu        sync.Mutex
	relations map[*catalog.Table]*relation
}

func newBound(rules *config.Database, c *catalog.Catalog) *bound {
	return &bound{rules: rules, catalog: c, relations: map[*catalog.Table]*relation{}}
}

// relation returns what the proof must know of a table.
func (b *bound) relation(t *catalog.Table) *relation {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.relationLocked(t)
}

func (b *bound) relationLocked(t *catalog.Table) *relation {
	if r := b.relations[t]; r != nil {
		return r
	}
	r := b.bind(t)
	b.relations[t] = r
	return r
}

// bind applies the rules to a table.
func (b *bound) bind(t *catalog.Table) *relation {
	r := &relation{schema: t.Schema, name: t.Name}
	for i := range t.Columns {
		r.columns = append(r.columns, b.bindColumn(t, &t.Columns[i]))
	}
	switch {
	case t.System:
		r.kind = kindSystem
	case t.Kind == catalog.KindView:
		b.view(r, t)
	case t.Kind == catalog.KindSequence && b.rules.SchemaRule(t.Schema) != nil:
		b.placeOnly(r, t)
	case t.Kind == catalog.KindSequence, t.Kind == catalog.KindForeign, t.Kind == catalog.KindOther:
		r.kind = kindSingle
	default:
		b.place(r, t)
	}
	return r
}

func (b *bound) bindColumn(t *catalog.Table, c *catalog.Column) relationColumn {
	out := relationColumn{name: c.Name, typmod: c.Modifier, draw: drawOf(t, c)}
	deterministic := c.Collation == nil || c.Collation.Deterministic
	if k, err := shardmap.KeyTypeOf(c.Base, deterministic); err == nil {
		out.key = k
	}
	if c.Type != c.Base {
		out.domain = c.TypeName
	}
	if l := c.Collation; l != nil {
		if out.bytewise = l.Bytewise; l.OID != catalog.DefaultCollation {
			out.collate = quoteName(l.Schema) + "." + quoteName(l.Name)
		}
	}
	switch c.Default.Kind {
	case catalog.DefaultSequence, catalog.DefaultIdentity:
		out.drawn = true
	case catalog.DefaultGenerated:
		out.generated = true
	case catalog.DefaultExpression:
		out.unsteady = c.Default.Volatility != catalog.Immutable
		out.moment = b.momentOf(c)
		// What else a volatile expression does is not known: it may draw.
		out.drawn = c.Default.Volatility == catalog.Volatile && !drawsNothing(c)
		out.volatile = out.drawn
	}
	return out
}

// place decides which kind of table it is, and what keeps it from being used.
func (b *bound) place(r *relation, t *catalog.Table) {
	rule := b.placeOnly(r, t)
	alone := r.kind
	b.relations[t] = r // for foreign keys of the table to itself, and in circles
	switch {
	case t.Kind == catalog.KindMaterialized && r.kind == kindSingle:
		b.materialised(r, t)
	case r.kind == kindSingle && b.familyRuled(t),
		r.kind != kindSingle && t.Root == nil && t.Kind == catalog.KindTable && len(t.Parents)+len(t.Children) > 0:
		r.unknown("inherits from, or is inherited by, other tables, of which one is on several shards")
	case b.apart(t):
		r.unknown("is a partition, or has one, with a rule that places rows elsewhere than the table's")
	}
	if r.kind == kindSharded || r.kind == kindReference {
		r.writes, r.writable = b.unwritable(r, t, rule)
		r.moves = b.unmovable(t)
		r.defers, r.triggers, r.compared = defers(t), triggers(t), comparedAtOnce(t)
		if !b.policiesKnown(t) {
			r.unknown("has row security policies that read other tables")
		}
	}
	if r.kind == kindUnknown {
		r.dropsAll, r.dropsHome = alone != kindSingle, alone == kindSingle
	}
}

// defers reports whether something about the rows of a table may be checked at the end of a
// transaction.
func defers(t *catalog.Table) bool {
	return slices.ContainsFunc(t.Indexes, func(x catalog.Index) bool { return x.Deferrable }) ||
		slices.ContainsFunc(t.ForeignKeys, func(k *catalog.ForeignKey) bool { return k.Deferrable }) ||
		slices.ContainsFunc(t.Children, defers)
}

// triggers reports whether triggers see rows that are inserted into a table.
func triggers(t *catalog.Table) bool {
	return slices.ContainsFunc(t.Triggers, func(g catalog.Trigger) bool { return g.Insert && g.Enabled != 'D' && !g.Fence() }) ||
		slices.ContainsFunc(t.Children, triggers)
}

// placeOnly decides which kind of table it is, and returns its rule, nil for none.
func (b *bound) placeOnly(r *relation, t *catalog.Table) *config.Table {
	rule := b.placeBy(r, t)
	if b.cluster != nil {
		there := &relation{schema: r.schema, name: r.name, columns: r.columns}
		if b.cluster.placeBy(there, t); !samePlace(r, there) {
			r.unknown("is placed otherwise by the rules that the cluster has now than by those of this proxy")
		}
	}
	return rule
}

// placeBy is placeOnly by these rules alone.
func (b *bound) placeBy(r *relation, t *catalog.Table) *config.Table {
	ruled := t
	if t.Root != nil {
		ruled = t.Root // whoever names it reads and writes rows of its partitions
	}
	rule := b.rules.TableRule(t.Schema, t.Name)
	if rule == nil {
		rule = b.rules.TableRule(ruled.Schema, ruled.Name)
		r.borrowed = rule != nil && b.rules.SchemaRule(t.Schema) == nil
	}
	switch schema := b.rules.SchemaRule(ruled.Schema); {
	case schema != nil:
		r.borrowed = r.borrowed || t.Schema != ruled.Schema
		r.kind, r.placement = kindSharded, &Placement{schema: shardmap.SchemaHash(ruled.Schema)}
		if schema.Shard != config.SchemaByHash {
			r.placement.fixed = schema.Shard
		}
	case rule == nil:
		if c := slices.IndexFunc(b.rules.Keys, func(k config.Identifier) bool { return t.Column(string(k)) != nil }); c >= 0 {
			b.shard(r, &config.Table{Key: b.rules.Keys[c : c+1]})
		}
	case rule.Reference:
		r.kind = kindReference
	case !rule.Single:
		b.shard(r, rule)
	}
	return rule
}

// unknown makes the relation one that nothing can be said of.
func (r *relation) unknown(why string) { r.kind, r.why = kindUnknown, why }

// familyRuled reports whether one of the tables that share rows with t is on
// several shards.
func (b *bound) familyRuled(t *catalog.Table) bool {
	if t.Root != nil || t.Kind == catalog.KindPartitioned {
		return slices.ContainsFunc(t.Children, func(c *catalog.Table) bool { return b.ruled(c) || b.familyRuled(c) })
	}
	return slices.ContainsFunc(slices.Concat(t.Parents, t.Children), b.ruled)
}

func (b *bound) ruled(t *catalog.Table) bool { return b.kindOnly(t).kind != kindSingle }

// shard places a table by its key.
func (b *bound) shard(r *relation, rule *config.Table) {
	r.kind, r.placement = kindSharded, &Placement{}
	for _, name := range rule.Key {
		i := slices.IndexFunc(r.columns, func(c relationColumn) bool { return c.name == string(name) })
		if i < 0 {
			r.unknown("has no column " + string(name) + ", which is to be its key")
			return
		}
		if r.columns[i].key == 0 {
			r.unknown("has a key, " + string(name) + ", of a type or collation that cannot be one")
			return
		}
		r.key = append(r.key, i)
		r.placement.types = append(r.placement.types, r.columns[i].key)
		r.placement.names = append(r.placement.names, r.columns[i].name)
	}
	var err error
	switch {
	case len(rule.List) > 0:
		r.placement.entries = listEntries(rule)
		r.placement.list, err = listOf(r.placement.types[0], rule, b.rules)
	case len(rule.Range) > 0:
		r.placement.entries = rangeEntries(rule)
		r.placement.ranges, err = rangesOf(r.placement.types[0], r.columns[r.key[0]].bytewise, rule, b.rules)
	}
	if err != nil {
		r.unknown("has a placement that its key does not allow: " + err.Error())
	}
}

func shardNames(rules *config.Database) (names []string) {
	for i := range rules.Shards {
		names = append(names, rules.Shards[i].Name)
	}
	return names
}

func listOf(k shardmap.KeyType, rule *config.Table, rules *config.Database) (*shardmap.List, error) {
	var entries []shardmap.ListEntry
	for i := range rule.List {
		entries = append(entries, shardmap.ListEntry{Shard: rule.List[i].Name, Values: rule.List[i].Values})
	}
	return shardmap.NewList(k, shardNames(rules), entries, rule.Default)
}

// rangesOf makes the ranges of a key; byBytes is set when its column orders text by bytes.
func rangesOf(k shardmap.KeyType, byBytes bool, rule *config.Table, rules *config.Database) (*shardmap.Ranges, error) {
	var entries []shardmap.RangeEntry
	for _, e := range rule.Range {
		entries = append(entries, shardmap.RangeEntry{Shard: e.Shard, From: e.From, To: e.To})
	}
	return shardmap.NewRanges(k, shardNames(rules), entries, shardmap.RangeOptions{Default: rule.Default, TextByBytes: byBytes})
}

// view reads a view's query, which stands in its place.
func (b *bound) view(r *relation, t *catalog.Table) {
	r.kind = kindView
	if t.View == nil || t.View.Definition == "" || len(t.Rules) > 0 {
		r.unknown("is a view whose query is not known")
		return
	}
	var n query.Normal
	sql := []byte(t.View.Definition)
	if !n.Scan(sql) {
		r.unknown("is a view whose query is not understood")
		return
	}
	st, shapes := n.AnalyzeShapes(t.View.Definition, query.Options{})
	if st.Opaque || len(shapes) != 1 || shapes[0].Kind != query.ShapeQuery {
		r.unknown("is a view whose query is not understood")
		return
	}
	r.query = shapes[0].Scope
	r.view = &viewText{sql, slices.Clone(n.Literals), b.viewMayDiffer(&st.Commands[0], t.View.Definition)}
	for i := range st.Commands[0].Functions {
		f := st.Commands[0].Functions[i]
		if why := b.reaches(f, b.catalog.SystemPath()); why != "" {
			r.unknown("calls what may read tables of several shards: " + why)
		}
	}
}

// materialised says what the rows of a materialised view are made from.
func (b *bound) materialised(r *relation, t *catalog.Table) {
	if t.View == nil || t.View.Definition == "" {
		r.unknown("is a materialised view whose query is not known")
		return
	}
	st := query.Analyze(t.View.Definition, query.Options{})
	if st.Opaque || len(st.Commands) != 1 {
		r.unknown("is a materialised view whose query is not understood")
		return
	}
	for _, name := range st.Commands[0].Relations {
		of, res := b.catalog.Table(name.Schema, name.Name, b.catalog.SystemPath())
		if res == catalog.Resolved && of != t && b.spread(of, map[*catalog.Table]bool{t: true}) {
			r.unknown("is made from rows of " + of.Schema + "." + of.Name + ", which is on several shards")
			return
		}
	}
}

// spread reports whether a table, or what a view reads, is on several shards.
func (b *bound) spread(t *catalog.Table, seen map[*catalog.Table]bool) bool {
	if seen[t] || t.System {
		return false
	}
	seen[t] = true
	if t.Kind != catalog.KindView {
		k := b.relationLocked(t).kind
		return k == kindSharded || k == kindUnknown
	}
	return slices.ContainsFunc(b.catalog.ReadReaches(t).Tables, func(o *catalog.Table) bool { return b.spread(o, seen) })
}

// policiesKnown reports whether the policies of a table read nothing but its own rows, and those of
// reference tables, which every shard has.
func (b *bound) policiesKnown(t *catalog.Table) bool {
	if !t.RowSecurity {
		return true
	}
	reached := b.catalog.ReadReaches(t)
	return reached.Known && !slices.ContainsFunc(reached.Tables, func(o *catalog.Table) bool {
		rule := b.rules.TableRule(o.Schema, o.Name)
		return o != t && o.Root != t && t.Root != o && (rule == nil || !rule.Reference)
	})
}

// reaches says why a function may read or write rows that are elsewhere.
func (b *bound) reaches(f query.Name, path catalog.Path) string {
	reached := b.catalog.CallReaches(f.Schema, f.Name, f.Args, path)
	if !reached.Known {
		return fmt.Sprintf("function %s may read any table", f.Name)
	}
	if len(reached.Tables) == 0 {
		return ""
	}
	t := reached.Tables[0]
	return fmt.Sprintf("function %s may use %s.%s", f.Name, t.Schema, t.Name)
}

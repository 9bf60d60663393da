package router

import (
	"slices"

	"shardproxy/catalog"
	"shardproxy/query"
)

// now() is the time at which a transaction began, and the parts of one on several shards
// do not begin at the same time. So what stands for it in a statement on several shards
// is replaced by one time for all of them, and a column's default that is made of it is
// written into the rows.

// Moment reports whether a statement on several shards has what stands for the time of the
// transaction, which Values.Moment is to give.
func (p *Plan) Moment() bool {
	return p.moment || p.split != nil && slices.ContainsFunc(p.split.draws, func(d Draw) bool { return d.moment != "" })
}

// mayDiffer says why the result of what a command calls may differ from shard to shard, ""
// when it does not. What stands for the time of the transaction is noted.
func (p *prover) mayDiffer(c *query.Command, eachRow bool) string {
	for _, f := range c.Functions {
		switch {
		case query.StandsForMoment(f) && p.relations.builtin(f.Name):
			p.moment = true
		case p.uses[kindReference] != "" && ofOrder(f):
			return "calls " + f.Name + " of rows of " + p.uses[kindReference] + ", whose order may differ from shard to shard"
		case f.Schema == "shardproxy" && f.Name == "unique_id" && p.uniqueDrawn(c), f.Name == "nextval" && p.allDrawn(c, f.Name):
		case !p.relations.immutable(f) && !ofSettings(f) && !(eachRow && ofEachRow(f)):
			return "calls " + f.Name + ", whose result may differ from shard to shard"
		}
	}
	for _, name := range c.SettingsRead {
		if name == "" || catalog.LocalSetting(name) {
			return "reads setting " + name + ", which belongs to the node"
		}
	}
	p.moment = p.moment || query.HasMoment([]byte(p.sql[c.Start:c.End]))
	if p.picks != "" {
		return "takes some rows of " + p.picks + ", and each shard may take others"
	}
	return p.unsteadyView
}

// ofOrder reports whether an aggregate of PostgreSQL's own gives its rows in the order in
// which they come.
func ofOrder(f query.Name) bool {
	switch f.Name {
	case "array_agg", "string_agg", "xmlagg", "json_agg", "jsonb_agg", "json_object_agg", "jsonb_object_agg":
		return true
	}
	return false
}

// picksFrom names the reference table of which a query inside another takes some rows, "" for
// none: each shard has them in an order of its own.
func picksFrom(b *block) (name string) {
	sel := b.scope.Select
	if sel == nil || !sel.Limited() && !sel.Windows && len(sel.DistinctOn) == 0 {
		return ""
	}
	b.each(func(l *leaf) {
		if l.rel.kind == kindReference {
			name = l.rel.String()
		}
	})
	return name
}

// replaces reports whether all that stands for the time of the transaction in a text is
// known, and can be replaced.
func (r *Router) replaces(m *miss) bool {
	if m.ctx.NonStandardStrings || m.ctx.UnsafeEncoding {
		return false
	}
	text, found := query.ReplaceMoment(nil, m.sql, "2000-01-01 00:00:00.000000+00")
	if found.Returned {
		return false
	}
	st := query.Analyze(string(text), r.options(text, m.ctx))
	return !st.Opaque && !slices.ContainsFunc(st.Commands, func(c query.Command) bool {
		return slices.ContainsFunc(c.Functions, query.StandsForMoment)
	})
}

// momentOf returns a column's default that gives the same on every shard once the time of
// the transaction is given; "" for any other.
func (b *bound) momentOf(c *catalog.Column) string {
	d := &c.Default
	if d.Kind != catalog.DefaultExpression || d.Volatility != catalog.Stable || !query.HasMoment([]byte(d.Expression)) {
		return ""
	}
	st := query.Analyze("SELECT "+d.Expression, query.Options{})
	if st.Opaque || len(st.Commands) != 1 || len(st.Commands[0].Relations) > 0 {
		return ""
	}
	for _, f := range st.Commands[0].Functions {
		if !(query.StandsForMoment(f) && b.catalog.Builtin(f.Name)) && !ofSettings(f) &&
			b.catalog.CallVolatility(f.Schema, f.Name, f.Args, b.catalog.SystemPath()) != catalog.Immutable {
			return ""
		}
	}
	return d.Expression
}

// viewMayDiffer says why what a view gives may differ from shard to shard though the rows
// that it reads do not; "" when it does not.
func (b *bound) viewMayDiffer(c *query.Command, sql string) string {
	for _, f := range c.Functions {
		if !ofSettings(f) && b.catalog.CallVolatility(f.Schema, f.Name, f.Args, b.catalog.SystemPath()) != catalog.Immutable {
			return "reads a view that calls " + f.Name + ", whose result may differ from shard to shard"
		}
	}
	if query.HasMoment([]byte(sql)) {
		return "reads a view that has the time of the transaction, which differs from shard to shard"
	}
	if word := query.SystemColumn(sql); word != "" {
		return "reads a view that has " + word + ", which differs from shard to shard"
	}
	return ""
}

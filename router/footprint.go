package router

import (
	"shardproxy/catalog"
	"shardproxy/query"
)

// Footprint is what a text has to do with tables, by the catalog under which it was planned. Names are as catalog.TableName makes
// them. It is immutable.
type Footprint struct {
	// Reads are the tables on which the result of a query hangs, Named those of them that it is about, as of catalog.Reach; only with Steady set.
	Reads, Named []string
	// Steady is set for one query that gives the same rows as long as these tables, definitions and the session's settings are as they are,
	// but for what its literals and SQL's own words for the time of day may mean.
	Steady bool
	// Writes are the tables that may be written to; with WritesAny set any may be.
	Writes    []string
	WritesAny bool
}

// footprint says what the commands of a plan have to do with tables.
func (j *judge) footprint(p *Plan) (f Footprint) {
	if p.Statement.Opaque || j.catalog == nil {
		f.WritesAny = p.MayWrite
		return f
	}
	if c := p.Single; c != nil && c.Kind == query.KindSelect && p.Intent == Read && p.Effects == 0 && j.steady(c) {
		r := catalog.Reach{}
		for _, n := range c.Relations {
			r = r.With(j.catalog.Reads(n.Schema, n.Name, j.path))
		}
		if f.Steady = !r.Any && len(r.Tables) > 0; f.Steady {
			f.Reads, f.Named = r.Tables, r.Named
		}
	}
	if !p.MayWrite {
		return f
	}
	touched := catalog.Reach{}
	for i := range p.Statement.Commands {
		touched = touched.With(j.touches(&p.Statement.Commands[i]))
	}
	f.Writes, f.WritesAny = touched.Tables, touched.Any
	return f
}

// steady reports whether all that a query calls gives the same again.
func (j *judge) steady(c *query.Command) bool {
	for _, n := range c.Functions {
		if !j.catalog.Steady(n.Schema, n.Name, n.Args, j.path) {
			return false
		}
	}
	for _, n := range c.Operators {
		if !j.catalog.SteadyOperator(n.Schema, n.Name, j.path) {
			return false
		}
	}
	for _, a := range c.Attributes {
		if !j.catalog.SteadyAttribute(a) {
			return false
		}
	}
	return true
}

// touches says which tables a command may write to. Of what only reads and calls, the functions say it.
func (j *judge) touches(c *query.Command) (r catalog.Reach) {
	switch {
	case ofSession(c.Kind) || onlySets(c):
		return r
	case c.Kind != query.KindSelect && c.Kind != query.KindDML && c.Kind != query.KindCopyFrom && c.Kind != query.KindCopyTo,
		c.Effects&(query.EffectUnknown|query.EffectCatalog) != 0:
		r.Any = true
		return r
	}
	for _, n := range c.Writes {
		r = r.With(j.catalog.Touches(n.Schema, n.Name, j.path))
	}
	for _, n := range c.Functions {
		r = r.With(j.catalog.Calls(n.Schema, n.Name, n.Args, j.path))
	}
	for _, n := range c.Operators {
		r.Any = r.Any || j.catalog.Operator(n.Schema, n.Name, j.path).Fitness > catalog.Local
	}
	for _, n := range c.Types {
		r.Any = r.Any || j.catalog.Type(n.Schema, n.Name, j.path).Fitness > catalog.Local
	}
	for _, a := range c.Attributes {
		r.Any = r.Any || j.catalog.Attribute(a).Fitness > catalog.Local
	}
	for _, n := range c.Relations {
		// Views that are read may call what writes.
		r.Any = r.Any || j.catalog.Read(n.Schema, n.Name, j.path).Fitness > catalog.Local
	}
	return r
}

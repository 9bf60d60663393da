package router

import (
	"strings"

	"shardproxy/catalog"
	"shardproxy/query"
)

// judge makes plans. It is what a plan depends on besides the text.
type judge struct {
	catalog *catalog.Catalog // nil: none is loaded yet
	path    catalog.Path
	// tempFirst is set when unqualified names may be made in pg_temp.
	tempFirst bool
	readOnly  map[string]struct{}
}

// newJudge reads the context once for a whole statement.
func newJudge(c *catalog.Catalog, ctx Context, readOnly map[string]struct{}) *judge {
	j := &judge{catalog: c, readOnly: readOnly}
	if ctx.SearchPath == "" {
		return j
	}
	names, ok := catalog.SplitNames(ctx.SearchPath)
	j.tempFirst = !ok || len(names) > 0 && strings.HasPrefix(names[0], "pg_temp")
	if c != nil {
		j.path = c.Path(ctx.SearchPath)
	}
	return j
}

// plan judges a whole statement. It never fails.
func (j *judge) plan(st *query.Statement) *Plan {
	p := &Plan{Statement: st, Intent: Read, Simple: true}
	if st.Opaque {
		p.Intent, p.MayWrite, p.Simple, p.Effects = Write, true, false, query.EffectUnknown
		p.Why = "the text could not be understood"
		p.Footprint.WritesAny = true
		return p
	}
	for i := range st.Commands {
		c := &st.Commands[i]
		effects, writes, why := j.command(c)
		p.Effects |= effects
		p.MayWrite = p.MayWrite || writes
		if why != "" {
			p.Intent = Write
			if p.Why == "" {
				p.Why = why
			}
		}
		p.Simple = p.Simple && effects == 0 && simple(c.Kind)
		if effects&(query.EffectSetting|query.EffectUnknown) != 0 || c.Kind == query.KindCommit || c.Kind == query.KindRollback ||
			c.Kind == query.KindRollbackTo || c.Kind == query.KindDiscard {
			// The commands behind it may find their names elsewhere.
			j.path, j.tempFirst = catalog.Path{}, true
		}
	}
	if len(st.Commands) == 1 {
		p.Single = &st.Commands[0]
	}
	p.Footprint = j.footprint(p)
	return p
}

// command returns a command's effects, whether it may write rows, and why it is
// not a read; "" when it is.
func (j *judge) command(c *query.Command) (effects query.Effect, writes bool, why string) {
	v := j.references(c)
	effects, writes = c.Effects, !ofSession(c.Kind) && !onlySets(c) && (!c.Reads || v.Fitness > catalog.Local)
	if v.Fitness == catalog.Unsafe {
		effects |= query.EffectUnknown
	}
	if v.Asks&catalog.AsksSequences != 0 {
		effects |= query.EffectSequenceRead
	}
	if v.Asks&catalog.AsksPrepared != 0 {
		effects |= query.EffectPreparedRead
	}
	if j.writesUnknown(c) {
		// Its defaults may draw from a sequence, and ask for what was drawn.
		effects |= query.EffectSequenceWrite
	}
	if c.Kind == query.KindDDL && j.tempFirst {
		effects |= query.EffectTemp
	}
	switch {
	case !canRead(c.Kind):
		return effects, writes, "is not a query"
	case c.Effects != 0:
		return effects, writes, "changes or depends on the state of its session"
	case !c.Reads:
		return effects, writes, "writes or locks rows"
	case v.Fitness != catalog.Anywhere:
		return effects, writes, v.Why
	}
	return effects, writes, j.localSetting(c)
}

// writesUnknown reports whether a command writes to a relation that the catalog
// does not know: one that has just been made.
func (j *judge) writesUnknown(c *query.Command) bool {
	for _, n := range c.Writes {
		if j.catalog == nil || !j.catalog.Write(n.Schema, n.Name, j.path).Found {
			return true
		}
	}
	return false
}

// localSetting says why a command that shows settings must not run on a
// replica; "" when it may.
func (j *judge) localSetting(c *query.Command) string {
	if c.Kind == query.KindShow && catalog.LocalSetting(c.Target) {
		return "shows setting " + c.Target + ", which belongs to the node"
	}
	for _, name := range c.SettingsRead {
		if name == "" {
			return "reads a setting whose name is not constant"
		}
		if catalog.LocalSetting(name) {
			return "reads setting " + name + ", which belongs to the node"
		}
	}
	return ""
}

// canRead lists the commands that may be a read.
func canRead(k query.Kind) bool {
	switch k {
	case query.KindSelect, query.KindExplain, query.KindShow, query.KindCopyTo:
		return true
	}
	return false
}

// ofSession lists the commands that leave all rows as they are, whatever they
// name: at most they end, or prepare, what others have begun.
func ofSession(k query.Kind) bool {
	switch k {
	case query.KindBegin, query.KindCommit, query.KindRollback, query.KindSavepoint, query.KindRelease,
		query.KindRollbackTo, query.KindSetTransaction, query.KindSet, query.KindReset, query.KindShow,
		query.KindPrepare, query.KindDeallocate, query.KindFetch, query.KindClose, query.KindListen,
		query.KindUnlisten, query.KindDiscard:
		return true
	}
	return false
}

// onlySets reports whether a query does nothing but call set_config, in a way that
// c.Settings tells all of.
func onlySets(c *query.Command) bool {
	return c.Kind == query.KindSelect && c.Effects == query.EffectSetting &&
		len(c.Relations) == 0 && len(c.Functions) == 1 && c.Functions[0].Name == "set_config"
}

// simple lists the commands that a session need not look at when they have no
// effects.
func simple(k query.Kind) bool {
	switch k {
	case query.KindOther, query.KindSelect, query.KindDML, query.KindExplain, query.KindShow,
		query.KindCopyTo, query.KindCopyFrom, query.KindNotify:
		return true
	}
	return false
}

// references returns the worst verdict on all that a command refers to.
func (j *judge) references(c *query.Command) catalog.Verdict {
	if j.catalog == nil {
		return withoutCatalog(c)
	}
	worst := catalog.Verdict{Fitness: catalog.Anywhere}
	note := func(v catalog.Verdict) {
		asks := worst.Asks | v.Asks
		if v.Fitness > worst.Fitness {
			worst = v
		}
		worst.Asks = asks
	}
	for _, n := range c.Functions {
		if !j.declaredReadOnly(n) && !j.setsSeen(c, n) {
			note(j.catalog.Function(n.Schema, n.Name, n.Args, j.path))
		}
	}
	for _, n := range c.Operators {
		note(j.catalog.Operator(n.Schema, n.Name, j.path))
	}
	for _, n := range c.Types {
		note(j.catalog.Type(n.Schema, n.Name, j.path))
	}
	for _, a := range c.Attributes {
		note(j.catalog.Attribute(a))
	}
	if c.Kind == query.KindDDL {
		note(j.catalog.Command())
	}
	for _, n := range c.Relations {
		note(j.catalog.Read(n.Schema, n.Name, j.path))
	}
	for _, n := range c.Writes {
		note(j.catalog.Write(n.Schema, n.Name, j.path))
	}
	return worst
}

// setsSeen says whether a function is set_config and all that the command sets by
// it stands in c.Settings.
func (j *judge) setsSeen(c *query.Command, n query.Name) bool {
	return n.Name == "set_config" && onlySets(c) && j.catalog.Builtin(n.Name)
}

// declaredReadOnly says whether the operator declared a function harmless.
func (j *judge) declaredReadOnly(n query.Name) bool {
	if len(j.readOnly) == 0 {
		return false
	}
	_, ok := j.readOnly[n.Name]
	if !ok && n.Schema != "" {
		_, ok = j.readOnly[n.Schema+"."+n.Name]
	}
	return ok
}

// withoutCatalog is the verdict while no catalog is loaded: nothing is a read,
// and whatever is not PostgreSQL's own by its name may change the session.
func withoutCatalog(c *query.Command) catalog.Verdict {
	v := catalog.Verdict{Fitness: catalog.Writes, Why: "the catalog is not loaded yet"}
	for _, names := range [][]query.Name{c.Functions, c.Relations} {
		for _, n := range names {
			if n.Schema != "pg_catalog" && n.Schema != "information_schema" {
				v.Fitness = catalog.Unsafe
			}
		}
	}
	return v
}

package router

import (
	"slices"
	"strings"

	"shardproxy/query"
)

// route finds out where a statement runs whose commands have these shapes. literals
// are those of its text.
func route(rel relations, st *query.Statement, shapes []*query.Shape, sql string, literals []query.Literal) routed {
	prove := func(anchors, moving bool) *prover {
		p := &prover{relations: rel, withs: map[*query.CTE]*with{}, params: map[int32]paramUse{}, sql: sql, anchors: anchors, moving: moving}
		p.commands(st, shapes, literals)
		return p
	}
	out := prove(false, false).routed(shapes)
	if mayFanOut(shapes) {
		return fanOut(out, shapes, &st.Commands[0], prove)
	}
	return out
}

// commands proves all commands of a statement.
func (p *prover) commands(st *query.Statement, shapes []*query.Shape, literals []query.Literal) {
	if st.Opaque || len(shapes) != len(st.Commands) {
		p.refuse(reasonUnknown, "the text is not understood")
		p.refusal.Syntax = st.Syntax
	}
	for i, sh := range shapes {
		c := &st.Commands[i]
		p.shape(sh, &text{literals: literals}, c)
		if c.Kind != query.KindDDL || sh.Kind != query.ShapeOther && sh.Kind != query.ShapeCreateView {
			p.calls = routedCalls{shape: sh, text: &text{literals: literals}}
			p.functions(c) // those of a definition are not called
		}
		if p.written[kindReference] != "" && p.refusal == nil {
			if why := p.unsteady(c, sh); why != "" {
				p.refuse(reasonReference, p.written[kindReference]+" is on every shard, and "+why)
			}
		}
		p.ends = p.ends || c.Kind != query.KindSelect && ofSession(c.Kind)
	}
	if p.all == "" && p.written[kindReference] == "" {
		p.ends = false
	}
	if p.ends {
		p.refuse(reasonCommand, "what runs on all shards cannot be sent together with commands of the session")
	}
}

// routed is where the commands run.
func (p *prover) routed(shapes []*query.Shape) routed {
	out := routed{exact: p.exact, drawsThere: p.drawsThere}
	out.where, out.refusal = p.decide()
	if out.where == All {
		out.newViews = p.newViews
	}
	if (out.where == Keyed || out.where == All) && len(shapes) == 1 && shapes[0].Kind == query.ShapeQuery && p.split != nil && p.splits() {
		out.split = p.split
	}
	if out.moment = p.moment && out.where == All; out.moment && p.fills != nil {
		if out.fills = p.fills; len(shapes) > 1 {
			p.refuse(reasonCommand, "a definition by which rows get the time of the transaction is to be sent alone")
			out.where, out.refusal = Refused, p.refusal
		}
	}
	if out.split != nil && out.where == Keyed {
		if out.moment = query.HasMoment([]byte(p.sql)); p.ofStatement {
			out.split = nil // each shard's would begin at its own time
		}
	}
	if p.draw != "" && out.refusal == nil && (out.split == nil || len(out.split.draws) == 0) {
		p.refuse(reasonSequence, p.draw)
		out.where, out.refusal = Refused, p.refusal
	}
	out.each, out.journalled = p.each && out.where == All, p.journalled && out.where == All
	if (out.each || out.journalled) && len(shapes) > 1 {
		p.refuse(reasonCommand, "what runs on one shard after the other is to be sent alone")
		out.where, out.refusal = Refused, p.refusal
	}
	if p.copies != nil && out.refusal == nil {
		// All of them may get rows.
		if out.where, out.copies = All, p.copies; len(shapes) != 1 || shapes[0].Kind != query.ShapeCopy {
			p.refuse(reasonCommand, "COPY into "+p.copies.Table+", which is on several shards, is to be sent alone")
			out.where, out.refusal = Refused, p.refusal
		}
	}
	if out.where == Keyed {
		out.groups = p.groups
		p.settle(p.sql)
		out.kept = p.kept
	}
	return out
}

// routed is where a statement runs.
type routed struct {
	where      Where
	refusal    *Refusal
	groups     []Group
	newViews   string
	split      *split
	copies     *CopyIn
	each       bool
	fansOut    bool
	moment     bool
	fills      *filling
	move       *move
	kept       string
	journalled bool
	// exact is set when the plan is for the very text, drawsThere when a server draws for rows of a schema.
	exact, drawsThere bool
}

// splits reports whether the rows of an INSERT are all that the command needs of
// several shards, and where they stand is known.
func (p *prover) splits() bool {
	of := map[int32]bool{}
	for _, g := range p.split.groups {
		of[g] = true
	}
	return len(of) == len(p.groups) && !slices.ContainsFunc(p.split.rows, func(s query.Span) bool { return !s.Located() })
}

// shape proves one command.
func (p *prover) shape(sh *query.Shape, t *text, c *query.Command) {
	p.temporary = c.Effects&query.EffectTemp != 0
	switch sh.Kind {
	case query.ShapeQuery:
		p.command(sh.Scope, t)
	case query.ShapeExplain, query.ShapeDeclare:
		p.shape(sh.Inner, t, c)
		if sh.Kind == query.ShapeExplain && sh.Analyze && p.written[kindReference] != "" {
			p.refuse(reasonCommand, "EXPLAIN ANALYZE of a write to "+p.written[kindReference]+", which is on every shard")
		}
	case query.ShapePrepare:
		p.shape(sh.Inner, t, c)
		if p.written[kindReference] != "" {
			p.refuse(reasonCommand, "PREPARE of a write to "+p.written[kindReference]+", which is on every shard")
		}
		if p.uses[kindSharded] != "" {
			p.refuse(reasonCommand, "PREPARE of a statement on the sharded table "+p.uses[kindSharded])
			if p.refusal.Hint == "" && p.refusal.Reason == reasonCommand {
				p.refusal.Hint = "Prepare it by the extended protocol, as drivers do: each shard gets what it lacks."
			}
		}
	case query.ShapeExecute:
		p.uses[kindSystem] = "a prepared statement" // see ShapePrepare
	case query.ShapeTransaction:
	case query.ShapeCopy:
		p.copy(sh, t)
	case query.ShapeCreateAs, query.ShapeRefresh:
		p.other(sh, t, c)
	default:
		p.definition(sh, c)
	}
	for _, l := range sh.Sublinks {
		p.command(l.Scope, t)
	}
}

// copy proves a COPY.
func (p *prover) copy(sh *query.Shape, t *text) {
	c := sh.Copy
	if c.Query != nil {
		p.command(c.Query, t)
		return
	}
	l := p.mentioned(c.Table)
	switch k := l.rel.kind; {
	case k == kindSharded && len(l.rel.key) == 0:
		if c.From {
			p.drawsThere = true
			given := func(_ int, name string) bool { return !c.HasColumns || slices.Contains(c.Columns, name) }
			if why := drawsElsewhere(l.rel, given); why != "" {
				p.refuse(reasonSequence, why)
			}
		}
		p.add(Group{table: l.rel.String(), placement: l.rel.placement})
	case (k == kindSharded || k == kindReference) && c.From && !c.File:
		p.copyIn(c, l.rel)
	case k == kindSharded || k == kindReference && c.From:
		p.refuse(reasonCommand, "COPY of "+p.uses[k]+", which is on several shards")
	}
}

// other deals with the commands that are no queries: on tables of the home shard they
// run there.
func (p *prover) other(sh *query.Shape, t *text, c *query.Command) {
	if sh.Inner != nil {
		p.shape(sh.Inner, t, c)
	}
	p.uses[kindSystem] = "the command"
	for _, r := range sh.Tables {
		switch k := p.mention(r); k {
		case kindSharded, kindReference:
			p.refuse(reasonCommand, "a command on "+p.uses[k]+", which is on several shards")
		}
	}
}

// mention notes a table that a command names.
func (p *prover) mention(r *query.Reference) kind { return p.mentioned(r).rel.kind }

func (p *prover) mentioned(r *query.Reference) *leaf {
	l := &leaf{ref: r, rel: p.relations.find(r.Schema, r.Name)}
	if l.rel == nil {
		l.rel = &relation{kind: kindSingle, schema: r.Schema, name: r.Name}
	}
	p.note(l)
	return l
}

// functions notes what the command calls, and what it does besides its tables.
func (p *prover) functions(c *query.Command) {
	switch c.Kind {
	case query.KindListen, query.KindUnlisten, query.KindNotify, query.KindPrepareTx:
		p.uses[kindSystem] = "the command"
	}
	for _, f := range c.Functions {
		p.ofStatement = p.ofStatement || f.Name == "statement_timestamp"
		if f.Name == "unnest" && (f.Schema == "" || f.Schema == "pg_catalog") && f.Args > 1 {
			f.Args = 1 // PostgreSQL takes it for several calls with one each
		}
		if f.Name == "nextval" && p.allDrawn(c, f.Name) || p.sequenceCall(c, f) {
			continue
		}
		if ofOneServer(f.Name) {
			p.uses[kindSystem] = "what " + f.Name + " is about"
			continue
		}
		if p.placedCall(c, f) {
			continue
		}
		if why := p.relations.reaches(f); why != "" {
			p.refuse(reasonFunction, why)
		}
	}
}

// ofOneServer reports whether a function of PostgreSQL's own is about what all
// sessions must find in one place: locks, sequences, large objects, transactions,
// channels, the catalog.
func ofOneServer(name string) bool {
	for _, prefix := range [...]string{"pg_advisory_", "pg_try_advisory_", "lo_", "txid_", "pg_current_xact_id", "pg_stat_", "pg_logical_", "pg_replication_"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	switch name {
	case "nextval", "currval", "setval", "lastval", "pg_notify", "loread", "lowrite", "pg_export_snapshot", "pg_xact_status",
		"pg_sequence_last_value", "pg_get_serial_sequence":
		return true
	}
	return strings.HasSuffix(name, "_to_xml") || strings.HasSuffix(name, "_to_xmlschema") || strings.HasSuffix(name, "_to_xml_and_xmlschema")
}

// settle marks the parameters whose type the comparisons with keys decide.
func (p *prover) settle(sql string) {
	if len(p.params) == 0 {
		return
	}
	uses := query.CountParams([]byte(sql))
	groups := p.groups
	if p.move != nil {
		groups = append(groups[:len(groups):len(groups)], p.move.to)
	}
	for i := range groups {
		for _, column := range groups[i].columns {
			for j := range column {
				column[j].each(func(v *value) {
					if v.source == fromParam {
						u := p.params[v.index]
						v.sure = !u.mixed && u.n == uses[v.index]
					}
				})
			}
		}
	}
}

// paramUse counts the comparisons that a parameter is in.
type paramUse struct {
	n     int
	of    value
	mixed bool
}

// used counts a comparison.
func (p *prover) used(v value) {
	t := v.as
	if v.cast != 0 {
		t = v.cast
	}
	u := p.params[v.index]
	if u.n == 0 {
		u.of.as = t
	}
	u.n++
	u.mixed = u.mixed || !u.of.as.Colocates(t)
	p.params[v.index] = u
}

package router

import (
	"slices"

	"shardproxy/query"
)

// place adds to a plan where it runs. literals are those of the text it is made for.
func (r *Router) place(p *Plan, m *miss, shapes []*query.Shape, literals []query.Literal) {
	if m.catalog == nil || !m.catalog.HasTables() {
		if !p.ofSession() {
			p.Where, p.Refusal = Refused, &Refusal{Reason: reasonLoading, Why: "the catalog is not loaded yet"}
		}
		return
	}
	b := r.boundTo(m.catalog)
	if b.cluster != nil && p.defines() {
		p.Where, p.Refusal = Refused, &Refusal{Reason: reasonCommand, Why: "the cluster has other rules for tables now than this proxy: it defines nothing",
			Hint: "Start the proxy with the rules of the cluster."}
		return
	}
	found := route(newSchema(b, m.ctx), p.Statement, shapes, string(m.sql), literals)
	r.scatter(p, m, shapes, &found)
	if m.ctx.Altered && (found.move != nil || inserts(shapes) && (found.where == Keyed || found.where == All || found.where == FanOut)) {
		found.where, found.refusal = Refused, &Refusal{Reason: reasonCommand,
			Why: "definitions were changed in this transaction, and what an INSERT, a COPY or a move of rows must know of them is known when it is committed"}
	}
	if found.moment && !r.replaces(m) {
		if found.where == Keyed {
			found.split, found.fansOut = nil, false // on one shard it is right
			if found.move != nil {
				found.move, found.where, found.refusal = nil, Refused, &Refusal{Reason: reasonKeyChange, Why: "rows would move, and it has the time of the transaction where that cannot be given to all shards alike"}
			}
		} else {
			found.where, found.refusal = Refused, &Refusal{Reason: reasonFunction,
				Why: "it has the time of the transaction where that cannot be given to all shards alike", Hint: "Give the time itself."}
		}
		found.moment = false
	}
	if found.where == Refused {
		found.moment, found.move, found.journalled = false, nil, false
		found.split, found.copies, found.each, found.fansOut, found.fills = nil, nil, false, false, nil
	}
	p.Where, p.Refusal, p.groups, p.NewViews = found.where, found.refusal, found.groups, found.newViews
	p.split, p.CopyIn, p.Each, p.fansOut, p.moment, p.move, p.kept = found.split, found.copies, found.each, found.fansOut, found.moment, found.move, found.kept
	p.fills = found.fills
	p.Journalled, p.drawsThere, p.Exact = found.journalled, found.drawsThere, p.Exact || found.exact
	groups := p.groups
	if p.move != nil {
		groups = append(groups[:len(groups):len(groups)], p.move.to)
	}
	for i := range groups {
		for _, column := range groups[i].columns {
			for j := range column {
				p.literals = p.literals || column[j].some(func(v *value) bool { return v.source == fromLiteral })
			}
		}
	}
}

// refuseLong refuses a text that is too long to be read, in a database of several shards.
func (r *Router) refuseLong(p *Plan) {
	if r.opts.Rules != nil {
		p.Where, p.Refusal = Refused, &Refusal{Reason: reasonUnknown, Why: "the text is too long to be understood"}
	}
}

// ofSession reports whether a statement is about nothing but its session.
func (p *Plan) ofSession() bool {
	if p.Statement.Opaque {
		return false
	}
	for i := range p.Statement.Commands {
		c := &p.Statement.Commands[i]
		if !ofSession(c.Kind) || c.Kind == query.KindPrepare {
			return false
		}
	}
	return true
}

// inserts reports whether a command may insert rows.
func inserts(shapes []*query.Shape) bool {
	return slices.ContainsFunc(shapes, func(sh *query.Shape) bool {
		if sh.Kind == query.ShapeCopy {
			return sh.Copy.From
		}
		s := sh.Scope
		return s != nil && (s.Kind == query.ScopeInsert || s.Kind == query.ScopeMerge || len(s.With) > 0)
	})
}

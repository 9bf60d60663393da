package router

import (
	"fmt"
	"slices"
	"strings"

	"shardproxy/query"
)

// RouteScatter is how a query over several shards is answered.
type RouteScatter struct {
	// Way is "each" (a write that every shard runs on its rows), "merge" (the shards' rows are the answer), "rank" (the same, but a server puts them in
	// order), "groups" (a server puts the shards' groups together) or "gather" (what is read on the
	// shards is finished by a server).
	Way string `json:"way"`
	// Why is why the rows are not merged.
	Why string `json:"why,omitempty"`
	// Reads are the queries for the shards.
	Reads []RouteRead `json:"reads"`
	// Finish is what a server runs over what was read, which stands there as {1}, {2}.
	Finish string `json:"finish,omitempty"`
	// Insert is how the rows are inserted on the shards of their keys; "" for a query of the client's.
	Insert string `json:"insert,omitempty"`
	// Make is how the table is made that gets the rows; "" when none is.
	Make string `json:"make,omitempty"`
}

// RouteRead is one query for the shards.
type RouteRead struct {
	Text string `json:"text"`
	// Where is "keyed", "fan-out" (every shard), "home" or "any".
	Where string `json:"where"`
	// Reduced says of which rows it is enough, where what is read before it turns out to have few: "customer" in "id" of read 1.
	Reduced []string `json:"reduced,omitempty"`
}

// scatterExplained is scatter for the EXPLAIN of a write, which is sql.
func (r *Router) scatterExplained(p *Plan, m *miss, sh *query.Shape, sql string, found *routed) {
	var n query.Normal
	st, shapes := n.AnalyzeShapes(sql, r.options(m.sql, m.ctx))
	if st.Opaque || len(shapes) != 1 || shapes[0].Kind != query.ShapeQuery || found.where != Refused {
		return
	}
	var alone Plan
	of := route(newSchema(r.boundTo(m.catalog), m.ctx), st, shapes, sql, n.Literals)
	switch shapes[0].Scope.Kind {
	case query.ScopeInsert:
		r.scatterInto(&alone, m, sql, &of)
	case query.ScopeUpdate, query.ScopeDelete:
		r.scatterWrite(&alone, m, sql, &of)
	}
	switch each := of.writesEach(shapes[0].Scope); {
	case !each && (of.where != FanOut || !alone.scatters):
	case sh.Analyze && each:
		found.refusal = &Refusal{Reason: reasonCommand, Why: "EXPLAIN ANALYZE would run a write on several shards", Hint: "EXPLAIN it without ANALYZE."}
	case sh.Analyze:
		found.refusal = &Refusal{Reason: reasonCommand, Why: "EXPLAIN ANALYZE would run a write that needs rows of several shards, of which no server runs the whole",
			Hint: "EXPLAIN it without ANALYZE, or its query with it."}
	default:
		found.where, found.refusal, p.scatters = FanOut, nil, true
	}
}

// writesEach reports whether it was found of a write that every shard runs on the rows that it has.
func (found *routed) writesEach(s *query.Scope) bool {
	return s.Kind != query.ScopeSelect && found.refusal == nil && found.move == nil && found.fansOut && (found.where == FanOut || found.where == Keyed)
}

// writesEach reports whether a text is such a write, whose plan it has then.
func (g *gatherer) writesEach(a *alone) bool {
	of := route(g.rel, a.st, []*query.Shape{a.shape}, g.sql, a.literals)
	if !of.writesEach(a.shape.Scope) {
		return false
	}
	a.plan = &Plan{Statement: a.st, Where: of.where, groups: of.groups, fansOut: true, Exact: true}
	return true
}

// Way returns how the query is answered, in a word: see RouteScatter.Way.
func (s *Scatter) Way() string {
	switch {
	case s.Each:
		return "each"
	case s.Merge != nil:
		return "merge"
	case slices.ContainsFunc(s.Final, func(p Piece) bool { return p.Kind == PieceParts && p.Column > 0 }):
		return "rank"
	case s.Grouped && len(s.Inputs) == 1:
		return "groups"
	}
	return "gather"
}

// Because says in a few words how the query is answered, and why not in a cheaper way.
func (s *Scatter) Because() string {
	if s.Each {
		return s.Way() + " (every shard writes the rows that it has)"
	}
	if s.Why == "" {
		return s.Way() + " (the shards' rows are parts of the answer)"
	}
	return s.Way() + " (" + s.Why + ")"
}

// Explain returns what people are told of it.
func (s *Scatter) Explain() *RouteScatter {
	r := &RouteScatter{Way: s.Way(), Why: s.Why}
	if s.Into != nil {
		r.Insert = strings.TrimSpace(s.Into.Text("SELECT * FROM {rows}", ""))
	}
	if s.Make != nil {
		r.Make = s.Make.Create
	}
	if m := s.Merge; m != nil {
		text := strings.TrimSpace(m.Before)
		if m.Limit.Set {
			text += " LIMIT " + m.Limit.String() + m.Offset.plus()
		}
		r.Reads = []RouteRead{{Text: strings.TrimSpace(text + m.After), Where: m.Plan.Where.String()}}
		return r
	}
	for i := range s.Inputs {
		r.Reads = append(r.Reads, RouteRead{Text: s.Inputs[i].Text, Where: s.Inputs[i].Plan.Where.String(), Reduced: s.reduced(i)})
	}
	var b strings.Builder
	for _, p := range s.Final {
		switch p.Kind {
		case PieceText:
			b.WriteString(p.Text)
		case PieceRows:
			fmt.Fprintf(&b, "SELECT * FROM {%d}", p.Input+1)
		case PieceRecords:
			fmt.Fprintf(&b, "{%d}", p.Input+1)
		case PieceParts:
			fmt.Fprintf(&b, `{%d} AS "shardproxy"`, p.Input+1)
		case PieceVisible:
			b.WriteString(`"shardproxy".*`)
		case PieceSum:
			b.WriteString("sum(" + part(p.Column) + ")")
		case PieceMean:
			b.WriteString("sum(" + part(p.Column) + ") / sum(" + part(p.Column+1) + ")")
		case PieceVariance:
			fmt.Fprintf(&b, "%s(sum %s, squares %s, count %s)", p.Text, part(p.Column), part(p.Column+1), part(p.Column+2))
		}
	}
	r.Finish = strings.TrimSpace(b.String())
	return r
}

// reduced says by what an input is reduced.
func (s *Scatter) reduced(input int) (out []string) {
	for _, by := range s.Inputs[input].Reductions {
		column := fmt.Sprintf("column %d", by.ByColumn+1)
		if of := s.Inputs[by.By].Columns; of != nil {
			column = quoteName(of[by.ByColumn].Name)
		}
		out = append(out, fmt.Sprintf("%s in %s of read %d", by.Column, column, by.By+1))
	}
	return out
}

// After is what is said behind a read's text: by what it is reduced, "" when it is not.
func (r *RouteRead) After() string {
	if len(r.Reduced) == 0 {
		return ""
	}
	return "; when these are few, only rows with " + strings.Join(r.Reduced, " and ")
}

// String is the number, or the parameter that gives it.
func (b Bound) String() string {
	if b.Param > 0 {
		return fmt.Sprintf("$%d", b.Param)
	}
	return fmt.Sprint(b.Value)
}

// plus is what a shard gives besides the LIMIT.
func (b Bound) plus() string {
	if !b.Set {
		return ""
	}
	return " + " + b.String()
}

// lines are those of a Route.
func (r *RouteScatter) lines() []string {
	head := "  way: " + r.Way
	if r.Why != "" {
		head += " (" + r.Why + ")"
	}
	out := []string{head}
	for i, read := range r.Reads {
		out = append(out, oneLine(fmt.Sprintf("  read %d, %s: %s%s", i+1, read.Where, read.Text, read.After())))
	}
	if r.Finish != "" {
		out = append(out, oneLine("  finish: "+r.Finish))
	}
	if r.Make != "" {
		out = append(out, oneLine("  make: "+r.Make))
	}
	if r.Insert != "" {
		out = append(out, oneLine("  insert: "+r.Insert))
	}
	return out
}

package router

import (
	"slices"
	"strconv"
	"strings"

	"shardproxy/query"
)

// A query with groups, or aggregates, over rows that its shards could give one by one: each
// shard makes the groups of its own rows, with aggregates that can be put together, and a
// server puts them together.
//
// Aggregates with DISTINCT need every value once. The shards group by their arguments as well, so that each value comes
// once from each shard, and the server that puts the groups together takes the different ones of these. There are never
// more such groups than rows, however many arguments there are: gathering would send all of the rows.

// groups makes the query for the shards, and the text that puts together what they give.
// b and o are those of sql.
func (g *gatherer) groups(sql string, b *block, o *query.Outline) (in Input, final []Piece, ok bool) {
	if !o.From.There() || !g.plainCollations(b) {
		return in, nil, false
	}
	if o.Distinct && !o.Group.There() && !o.Having.There() && !g.calls(o, sql) {
		o.GroupByTargets()
	} else if !o.Group.There() && !o.Having.There() && !g.calls(o, sql) {
		return in, nil, false
	}
	parts, ok := o.TakeApart(g.rel.aggregate, func(x, y *query.Column) bool {
		p, ok := b.find(x)
		q, also := b.find(y)
		return ok && also && p == q
	})
	if !ok {
		return in, nil, false
	}
	w := &grouping{g: g, b: b, sql: sql, o: o, parts: parts}
	if !w.columns() {
		return in, nil, false
	}
	in, ok = w.input()
	return in, w.final(), ok
}

// calls reports whether a target list, HAVING or ORDER BY calls an aggregate.
func (g *gatherer) calls(o *query.Outline, sql string) bool {
	found := false
	text := sql[:o.Select.Start] + "SELECT " + o.List.In(sql) + " FROM x " + o.Having.In(sql) + " " + o.Order.In(sql)
	st := query.Analyze(text, g.opts)
	if st.Opaque || len(st.Commands) != 1 {
		return true
	}
	for _, f := range st.Commands[0].Functions {
		found = found || g.rel.aggregate(f)
	}
	return found
}

// grouping is a grouped query that is being taken apart.
type grouping struct {
	g     *gatherer
	b     *block
	sql   string
	o     *query.Outline
	parts *query.Grouping
	// list are the columns that a shard gives, proof the same without aggregates.
	list, proof []string
	keys        int   // how many of the list the shards group by: those of the text, and DISTINCT arguments
	distinct    []int // of each DISTINCT argument its column, from 1; 0 when it is not needed
	at          []int // of each aggregate's first column, from 1; 0 for none
}

// columns finds out what each shard gives; false for an aggregate that cannot be put together.
func (w *grouping) columns() bool {
	for _, k := range w.o.GroupKeys {
		w.key(k.In(w.sql))
	}
	w.distinct = make([]int, len(w.parts.Distinct))
	for i := range w.parts.Aggregates {
		a := &w.parts.Aggregates[i]
		if !a.Plain || a.Name.Schema != "" && a.Name.Schema != "pg_catalog" || !w.g.rel.builtin(a.Name.Name) {
			return false
		}
		if needsValues(a) && !w.values(a) {
			return false
		}
	}
	w.keys = len(w.list)
	for i := range w.parts.Aggregates {
		a := &w.parts.Aggregates[i]
		before := len(w.list)
		if !w.aggregate(a) {
			return false
		}
		if w.at = append(w.at, 0); len(w.list) > before {
			w.at[i] = before + 1
		}
		if !a.Star {
			w.proof = append(w.proof, a.Args.In(w.sql))
		}
		if a.Filter.There() {
			w.proof = append(w.proof, "("+a.Where.In(w.sql)+")")
		}
	}
	return len(w.list) > 0
}

// key adds an expression that the shards group by.
func (w *grouping) key(expr string) {
	expr = "(" + expr + ")"
	w.list, w.proof = append(w.list, expr), append(w.proof, expr)
}

// needsValues reports whether DISTINCT makes a difference to an aggregate.
func needsValues(a *query.AggregateCall) bool {
	if !a.Distinct {
		return false
	}
	switch a.Name.Name {
	case "min", "max", "bool_and", "bool_or", "every", "bit_and", "bit_or":
		return false
	}
	return true
}

// values adds the argument of an aggregate with DISTINCT to what the shards group by. PostgreSQL does not compute the argument
// for rows that a FILTER leaves out, and so it may be an error there: only a column never is.
func (w *grouping) values(a *query.AggregateCall) bool {
	switch a.Name.Name {
	case "count", "sum", "avg", "bit_xor", "var_pop", "var_samp", "variance", "stddev_pop", "stddev_samp", "stddev":
	default:
		return false
	}
	if a.Argument < 0 {
		return false
	}
	c := w.parts.Distinct[a.Argument].Column
	if c == nil && a.Filter.There() {
		return false
	}
	if c != nil {
		if _, ok := w.b.find(c); !ok { // whole rows perhaps, which would travel as text
			return false
		}
	}
	if w.distinct[a.Argument] > 0 {
		return true
	}
	arg := w.parts.Distinct[a.Argument].In(w.sql)
	if !w.g.steady(arg) { // each aggregate computes it for itself
		return false
	}
	w.key(arg)
	w.distinct[a.Argument] = len(w.list)
	return true
}

// aggregate adds the parts of an aggregate; false when it has none.
func (w *grouping) aggregate(a *query.AggregateCall) bool {
	args, filter := a.Args.In(w.sql), a.Filter.In(w.sql)
	add := func(name, args string) {
		w.list = append(w.list, "pg_catalog."+name+"("+args+") "+filter)
	}
	if needsValues(a) {
		if filter != "" {
			w.list = append(w.list, "pg_catalog.bool_or(("+a.Where.In(w.sql)+"))")
		}
		return true
	}
	switch name := a.Name.Name; name {
	case "min", "max":
		if w.g.o.Unlike {
			return false // of text perhaps
		}
		add(name, args)
	case "count", "sum", "bool_and", "bool_or", "every", "bit_and", "bit_or", "bit_xor":
		add(name, args)
	case "avg":
		if a.Untyped {
			return false // sum may take it for another type
		}
		add("sum", args)
		add("count", args)
	case "var_pop", "var_samp", "variance", "stddev_pop", "stddev_samp", "stddev":
		switch {
		case a.Star || a.Untyped:
			return false
		case !w.g.steady(args): // what is computed twice must be the same
			return false
		case w.o.Distinct && w.o.Order.There(): // PostgreSQL does not see that both are the same
			return false
		}
		x := "(" + args + ")::pg_catalog.numeric"
		add("sum", args)
		add("sum", x+" * "+x)
		add("count", args)
	default:
		return false
	}
	return true
}

// input is the query for the shards; false when it is not proven that they have its rows.
func (w *grouping) input() (in Input, ok bool) {
	behind := " FROM " + w.o.From.In(w.sql)
	if w.o.Where.There() {
		behind += " WHERE " + w.o.Where.In(w.sql)
	}
	with := w.sql[:w.o.Select.Start]
	in.Proof = with + "SELECT 1"
	for _, p := range w.proof {
		in.Proof += ", " + p
	}
	in.Proof += behind
	core, ok := w.g.prove(in.Proof, false)
	if !ok || !core.divides() || core.found.where != FanOut && core.found.where != Keyed {
		return in, false
	}
	in.Plan = core.plan
	in.Text = with + "SELECT " + strings.Join(w.list, ", ") + behind
	for i := range w.keys {
		if i == 0 {
			in.Text += " GROUP BY 1"
			continue
		}
		in.Text += ", " + strconv.Itoa(i+1)
	}
	return in, true
}

// final is the text that puts the groups together.
func (w *grouping) final() []Piece {
	o := w.o
	out := []Piece{{Text: w.sql[o.Select.Start:o.List.Start]}}
	for i, t := range o.Targets {
		if i > 0 {
			out = append(out, Piece{Text: ", "})
		}
		out = append(out, w.edited(t.Expr)...)
		if t.Name != "" {
			out = append(out, Piece{Text: " AS " + quoteName(t.Name)})
		}
	}
	out = append(out, Piece{Text: " FROM "}, Piece{Kind: PieceParts})
	for i := range o.GroupKeys {
		word := ", "
		if i == 0 {
			word = " GROUP BY "
		}
		out = append(out, Piece{Text: word + part(i+1)})
	}
	for _, clause := range []query.Place{o.Having, o.Order, o.Limit, o.Offset} {
		if clause.There() {
			out = append(append(out, Piece{Text: " "}), w.edited(clause)...)
		}
	}
	return out
}

// part names a column of what the shards give.
func part(i int) string { return `"shardproxy".c` + strconv.Itoa(i) }

// edited is a clause with its keys and aggregates replaced.
func (w *grouping) edited(clause query.Place) (out []Piece) {
	at := clause.Start
	parts := slices.Clone(w.parts.Parts)
	slices.SortFunc(parts, func(a, b query.GroupPart) int { return a.Start - b.Start })
	for _, p := range parts {
		if p.Start < clause.Start || p.End > clause.End {
			continue
		}
		out = append(out, Piece{Text: w.sql[at:p.Start]})
		at = p.End
		switch {
		case p.Output > 0:
			out = append(out, Piece{Text: strconv.Itoa(p.Output)})
		case p.Key >= 0:
			out = append(out, Piece{Text: part(p.Key + 1)})
		default:
			out = append(out, w.together(p.Aggregate)...)
		}
	}
	return append(out, Piece{Text: w.sql[at:clause.End]})
}

// together puts the parts of an aggregate together.
func (w *grouping) together(i int) []Piece {
	a := &w.parts.Aggregates[i]
	if needsValues(a) {
		text := "pg_catalog." + a.Name.Name + "(DISTINCT " + part(w.distinct[a.Argument]) + ")"
		if a.Filter.There() {
			text += " FILTER (WHERE " + part(w.at[i]) + ")"
		}
		return []Piece{{Text: text}}
	}
	switch name := a.Name.Name; name {
	case "count":
		sum := Piece{Kind: PieceSum, Column: w.at[i]}
		if w.keys > len(w.o.GroupKeys) { // of no rows the shards give no groups
			return []Piece{{Text: "coalesce("}, sum, {Text: ", 0)"}}
		}
		return []Piece{sum}
	case "sum":
		return []Piece{{Kind: PieceSum, Column: w.at[i]}}
	case "avg":
		return []Piece{{Kind: PieceMean, Column: w.at[i]}}
	case "var_pop", "var_samp", "variance", "stddev_pop", "stddev_samp", "stddev":
		return []Piece{{Kind: PieceVariance, Column: w.at[i], Text: name}}
	default:
		return []Piece{{Text: "pg_catalog." + name + "(" + part(w.at[i]) + ")"}}
	}
}

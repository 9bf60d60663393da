package query

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// String renders the shape, one line per clause, without the text's literals.
func (s *Shape) String() string { return s.Format("") }

// Format is String with the literals and expressions of sql, which must be the text
// that the shape was made from.
func (s *Shape) Format(sql string) string {
	p := &shapePrinter{sql: sql}
	p.shape(s)
	return p.out.String()
}

// shapePrinter writes a shape as indented lines.
type shapePrinter struct {
	sql   string
	depth int
	out   strings.Builder
}

func (p *shapePrinter) line(format string, a ...any) {
	for range p.depth {
		p.out.WriteString("  ")
	}
	fmt.Fprintf(&p.out, format, a...)
	p.out.WriteByte('\n')
}

func (p *shapePrinter) nested(f func()) {
	p.depth++
	f()
	p.depth--
}

// String returns the kind in words.
func (k ShapeKind) String() string {
	return [...]string{"other", "query", "explain", "prepare", "declare", "create as", "create view", "refresh",
		"copy", "truncate", "execute", "transaction"}[k]
}

// String returns the kind in words.
func (k ScopeKind) String() string {
	return [...]string{"unknown", "select", "set", "values", "insert", "update", "delete", "merge"}[k]
}

// String returns the operator in lower case.
func (k SetKind) String() string {
	return [...]string{"?", "union", "intersect", "except"}[k]
}

// String returns the kind in words.
func (k SublinkKind) String() string {
	return [...]string{"?", "exists", "any", "all", "scalar", "array"}[k]
}

// String returns the type of the join in lower case.
func (k JoinKind) String() string {
	return [...]string{"?", "inner", "left", "right", "full"}[k]
}

// String returns the words of the WHEN clause.
func (k MergeMatch) String() string {
	return [...]string{"?", "matched", "not matched by source", "not matched"}[k]
}

// String returns the action in lower case.
func (k MergeAction) String() string {
	return [...]string{"?", "nothing", "insert", "update", "delete"}[k]
}

// String returns a word for the clause.
func (c Clause) String() string {
	return [...]string{"?", "targets", "distinct", "from", "on", "where", "group", "having", "window", "order", "limit",
		"values", "set", "conflict", "returning", "when", "other"}[c]
}

// String returns the operator.
func (c Compare) String() string {
	return [...]string{"?", "<", "<=", ">", ">="}[c]
}

func (p *shapePrinter) shape(s *Shape) {
	if s.Kind != ShapeQuery {
		p.line("%s%s", s.Kind, flag(s.Analyze, " analyze"))
	}
	for _, u := range s.Unknown {
		p.line("unknown: %s", u)
	}
	for _, t := range s.Tables {
		p.line("table: %s", p.reference(t))
	}
	if s.Copy != nil {
		p.copy(s.Copy)
	}
	if len(s.Arguments) > 0 {
		p.line("arguments: %s", p.values(s.Arguments))
	}
	p.sublinks(s.Sublinks)
	if s.Scope != nil {
		p.scope(s.Scope)
	}
	if s.Inner != nil {
		p.nested(func() { p.shape(s.Inner) })
	}
}

func (p *shapePrinter) copy(k *Copy) {
	direction := "to"
	if k.From {
		direction = "from"
	}
	p.line("%s%s%s", direction, flag(k.File, " file"), flag(k.Program, " program"))
	if k.Table != nil {
		p.line("table: %s", p.reference(k.Table))
	}
	if k.HasColumns {
		p.line("columns: %s", strings.Join(k.Columns, " "))
	}
	for _, o := range k.Options {
		value := ""
		if o.HasValue {
			value = fmt.Sprintf(" %q", o.Value)
		}
		p.line("option: %s%s%s%s", o.Name, value, flag(o.Star, " *"), flag(o.List != nil, fmt.Sprint(" ", o.List)))
	}
	p.condition("where", k.Where)
	if k.Query != nil {
		p.nested(func() { p.scope(k.Query) })
	}
}

func (p *shapePrinter) scope(s *Scope) {
	p.line("%s", s.Kind)
	for _, u := range s.Unknown {
		p.line("unknown: %s", u)
	}
	for _, cte := range s.With {
		p.line("with %s%s%s%s%s%s%s%s uses %d", cte.Name, columns(cte.Columns), flag(cte.Recursive, " recursive"),
			flag(cte.Forward, " forward"), flag(cte.Materialized, " materialized"), flag(cte.NotMaterialized, " not materialized"),
			flag(cte.Writes, " writes"), flag(cte.Search, " search")+flag(cte.Cycle, " cycle"), cte.Uses)
		p.nested(func() { p.scope(cte.Scope) })
	}
	if s.Target != nil {
		p.line("target: %s", p.reference(s.Target))
	}
	for _, r := range s.From {
		p.from(r)
	}
	p.condition("where", s.Where)
	if s.CurrentOf != "" {
		p.line("current of: %s", s.CurrentOf)
	}
	p.writes(s)
	if s.Set != nil {
		p.line("%s%s", s.Set.Kind, flag(s.Set.All, " all"))
		p.nested(func() { p.scope(s.Set.Left); p.scope(s.Set.Right) })
	}
	for _, r := range s.Rows {
		p.line("row: %s", p.values(r.Values))
	}
	if len(s.Outputs) > 0 {
		p.line("outputs: %s", p.outputs(s.Outputs))
	}
	if s.Select != nil {
		p.parts(s.Select)
	}
	p.condition("having", s.Having)
	if s.Other != nil {
		p.line("other: %s", p.expr(s.Other))
	}
	p.sublinks(s.Sublinks)
}

func (p *shapePrinter) parts(k *SelectParts) {
	if k.Distinct || k.DistinctOn != nil {
		p.line("distinct %s", p.values(k.DistinctOn))
	}
	if k.Grouped {
		p.line("group%s: %s", flag(k.GroupingSets, " sets"), p.values(k.GroupBy))
	}
	if k.Aggregates || k.Windows {
		p.line("has%s%s %s", flag(k.Aggregates, " aggregates"), flag(k.Windows, " windows"), p.values(k.WindowKeys))
	}
	for _, o := range k.OrderBy {
		p.line("order: %s%s%s%s", p.value(&o.Value), flag(o.Descending, " desc"),
			flag(o.NullsFirst != o.Descending, " nulls reversed"), flag(o.Using.Name != "", " using "+name(o.Using)))
	}
	if k.Limited() || k.WithTies {
		p.line("limit: %s offset: %s%s%s", p.optional(k.Limit), p.optional(k.Offset), flag(k.FetchOne, " one"), flag(k.WithTies, " ties"))
	}
	for _, l := range k.Locks {
		p.line("lock: %s %s %s", l.Strength, strings.Join(l.Of, ","), l.Wait)
	}
	if k.Into != nil {
		p.line("into: %s", p.reference(k.Into))
	}
}

func (p *shapePrinter) optional(v *Value) string {
	if v == nil {
		return "-"
	}
	return p.value(v)
}

func (p *shapePrinter) sublinks(list []*Sublink) {
	for i, s := range list {
		test := ""
		if s.Test != nil {
			test = fmt.Sprintf(" %s %s", p.values(s.Test), name(s.Op))
		}
		p.line("sublink %d: %s in %s%s%s", i, s.Kind, s.Clause, flag(s.Conjunct, " conjunct"), test)
		p.nested(func() { p.scope(s.Scope) })
	}
}

func flag(on bool, text string) string {
	if on {
		return text
	}
	return ""
}

func columns(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return "(" + strings.Join(list, " ") + ")"
}

func name(n Name) string {
	if n.Schema != "" {
		return n.Schema + "." + n.Name
	}
	return n.Name
}

func (p *shapePrinter) from(r *Reference) {
	p.line("from: %s", p.reference(r))
	p.nested(func() {
		if r.Scope != nil {
			p.scope(r.Scope)
		}
		if j := r.Join; j != nil {
			p.from(j.Left)
			p.from(j.Right)
			p.condition("on", j.On)
		}
	})
}

// reference renders a reference but for what is nested in it.
func (p *shapePrinter) reference(r *Reference) string {
	var parts []string
	add := func(on bool, text string) {
		if on {
			parts = append(parts, text)
		}
	}
	switch r.Kind {
	case ReferenceUnknown:
		add(true, "unknown")
	case ReferenceTable:
		full := Name{Schema: r.Schema, Name: r.Name}
		add(r.Catalog != "", r.Catalog+"."+name(full))
		add(r.Catalog == "", name(full))
	case ReferenceCTE:
		add(true, "with "+r.CTE.Name)
	case ReferenceSubquery:
		add(true, "subquery")
	case ReferenceFunction:
		add(true, "function "+p.expr(r.Function))
	case ReferenceJoin:
		add(true, r.Join.Kind.String()+" join")
		add(r.Join.Natural, "natural")
		add(r.Join.Using != nil, "using"+columns(r.Join.Using))
		add(r.Join.UsingAlias != "", "as "+r.Join.UsingAlias)
	}
	add(r.Alias != "" || r.Columns != nil, "as "+r.Alias+columns(r.Columns))
	add(r.Only, "only")
	add(r.Lateral, "lateral")
	add(r.Ordinality, "ordinality")
	add(r.Definitions, "definitions")
	add(r.Written, "written")
	add(r.Nullable, "nullable")
	if r.Sample != nil {
		parts = append(parts, "sample "+p.expr(r.Sample))
	}
	return strings.Join(parts, " ")
}

func (p *shapePrinter) outputs(list []Output) string {
	out := make([]string, len(list))
	for i, o := range list {
		switch {
		case o.Star && o.Value.Expr() != nil:
			out[i] = p.value(&o.Value) + ".*"
		case o.Star:
			out[i] = strings.Join(slices.Concat(o.Qualifier, []string{"*"}), ".")
		case o.Value.Kind == ValueColumn && !o.Alias:
			out[i] = p.value(&o.Value)
		default:
			out[i] = strconv.Quote(o.Name) + "=" + p.value(&o.Value)
		}
	}
	return strings.Join(out, ", ")
}

// What names a command that has no kind of its own, in words; "" for others.
func (s *Shape) What() string {
	if s.Kind != ShapeOther || len(s.Unknown) == 0 {
		return ""
	}
	return s.Unknown[0]
}

package query

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// spanCheck compares pieces of texts, put into a small command, with what the
// shape of the whole says of them.
type spanCheck struct {
	t            *testing.T
	sql          string
	located, all map[string]int
	missing      map[string]string
}

var sublinkNumber = regexp.MustCompile(`sublink \d+`)

func (k *spanCheck) normal(s string) string {
	return sublinkNumber.ReplaceAllString(comparableShape(s), "sublink")
}

// same checks that the piece, behind prefix, is what render gives of it; want
// is what the whole says.
func (k *spanCheck) same(what string, span Span, prefix string, want func(*shapePrinter), pick func(*shapePrinter, *Scope)) {
	k.t.Helper()
	k.all[what]++
	if !span.Located() {
		k.missing[what] = k.sql
		return
	}
	k.located[what]++
	text := k.sql[span.Start:span.End]
	whole := &shapePrinter{sql: k.sql}
	want(whole)
	if prefix == "WITH " {
		text += " SELECT 1"
	}
	st, shapes := AnalyzeShapes(prefix+text, Options{})
	if st.Opaque || len(shapes) != 1 || shapes[0].Scope == nil {
		k.t.Errorf("%.300q: %s: %q does not stand behind %q", k.sql, what, text, prefix)
		return
	}
	part := &shapePrinter{sql: prefix + text}
	pick(part, shapes[0].Scope)
	if got, want := k.normal(part.out.String()), k.normal(whole.out.String()); got != want {
		k.t.Errorf("%.300q: %s %q says\n%s\nthe whole says\n%s", k.sql, what, text, got, want)
	}
}

func (k *spanCheck) condition(c *Condition) {
	if c != nil {
		k.same("condition", c.Span, "SELECT WHERE ", func(p *shapePrinter) { p.condition("", c) },
			func(p *shapePrinter, s *Scope) { p.condition("", s.Where) })
	}
}

func (k *spanCheck) value(v *Value) {
	if v.Kind == ValueExpr && v.Detail == nil {
		return // no value: a fact of another kind, a star
	}
	if e := v.Expr(); e != nil && len(e.Columns) == 1 && e.Columns[0].Star {
		return
	}
	if v.Kind == ValueDefault || v.Kind == ValueBool && v.Span == (Span{}) {
		return
	}
	k.same("value "+fmt.Sprint(v.Kind), v.Span, "SELECT ", func(p *shapePrinter) { p.line("%s", p.value(v)) },
		func(p *shapePrinter, s *Scope) {
			if len(s.Outputs) == 1 {
				p.line("%s", p.value(&s.Outputs[0].Value))
			}
		})
}

func (k *spanCheck) scope(s *Scope) {
	if !s.Span.Located() {
		return
	}
	if s.CurrentOf == "" {
		k.condition(s.Where)
	}
	k.condition(s.Having)
	outputs := func(p *shapePrinter) { p.line("%s", p.outputs(s.Outputs)) }
	pickOutputs := func(p *shapePrinter, s *Scope) { p.line("%s", p.outputs(s.Outputs)) }
	table := len(s.Outputs) == 1 && s.Outputs[0].Star && !s.Outputs[0].Span.Located()
	switch {
	case len(s.Outputs) == 0 || table:
	case s.Kind == ScopeSelect:
		k.same("targets", s.Targets, "SELECT ", outputs, pickOutputs)
	default:
		k.same("returning", s.ReturningSpan, "SELECT ", outputs, pickOutputs)
	}
	for i := range s.Outputs {
		if o := s.Outputs[i : i+1]; !table {
			k.same("output", o[0].Span, "SELECT ", func(p *shapePrinter) { p.line("%s", p.outputs(o)) }, pickOutputs)
		}
	}
	for i := range s.Rows {
		k.same("row", s.Rows[i].Span, "VALUES ", func(p *shapePrinter) { p.line("%s", p.values(s.Rows[i].Values)) },
			func(p *shapePrinter, s *Scope) { p.line("%s", p.values(s.Rows[0].Values)) })
	}
	if s.Select != nil {
		k.parts(s.Select)
	}
	if s.Update != nil {
		k.same("set", s.Update.SetSpan, "UPDATE t SET ", func(p *shapePrinter) { p.assignments(s.Update.Set) },
			func(p *shapePrinter, s *Scope) { p.assignments(s.Update.Set) })
	}
	if s.Insert != nil && s.Insert.Conflict != nil {
		c := s.Insert.Conflict
		k.same("conflict", c.Span, "INSERT INTO t DEFAULT VALUES ", func(p *shapePrinter) { p.conflict(c) },
			func(p *shapePrinter, s *Scope) { p.conflict(s.Insert.Conflict) })
		k.condition(c.Where)
	}
	for _, l := range s.Sublinks {
		k.same("sublink", l.Span, "SELECT ", func(p *shapePrinter) { p.scope(l.Scope) },
			func(p *shapePrinter, s *Scope) { p.scope(s.Sublinks[0].Scope) })
	}
	for _, cte := range s.With {
		k.same("with", cte.Span, "WITH ", func(p *shapePrinter) { p.scope(cte.Scope) },
			func(p *shapePrinter, s *Scope) { p.scope(s.With[0].Scope) })
	}
	if s.Merge != nil {
		for _, w := range s.Merge.When {
			k.condition(w.Condition)
			if len(w.Values) > 0 {
				k.same("merge values", w.ValuesSpan, "VALUES ", func(p *shapePrinter) { p.line("%s", p.values(w.Values)) },
					func(p *shapePrinter, s *Scope) { p.line("%s", p.values(s.Rows[0].Values)) })
			}
		}
	}
}

func (k *spanCheck) parts(s *SelectParts) {
	orders := func(list []Order) func(*shapePrinter) {
		return func(p *shapePrinter) {
			for _, o := range list {
				p.parts(&SelectParts{OrderBy: []Order{o}})
			}
		}
	}
	part := func(s *Scope) *SelectParts { return s.parts() }
	if len(s.OrderBy) > 0 {
		k.same("order", s.OrderSpan, "SELECT ", orders(s.OrderBy), func(p *shapePrinter, s *Scope) { orders(part(s).OrderBy)(p) })
	}
	if s.Limit != nil || s.FetchOne {
		k.same("limit", s.LimitSpan, "SELECT 1 ORDER BY 1 ", func(p *shapePrinter) { p.line("%s %t", p.optional(s.Limit), s.FetchOne) },
			func(p *shapePrinter, s *Scope) { p.line("%s %t", p.optional(part(s).Limit), part(s).FetchOne) })
	}
	if s.Offset != nil {
		k.same("offset", s.OffsetSpan, "SELECT ", func(p *shapePrinter) { p.line("%s", p.optional(s.Offset)) },
			func(p *shapePrinter, s *Scope) { p.line("%s", p.optional(part(s).Offset)) })
	}
	if s.Grouped {
		k.same("group", s.GroupSpan, "SELECT ", func(p *shapePrinter) { p.line("%s", p.values(s.GroupBy)) },
			func(p *shapePrinter, s *Scope) { p.line("%s", p.values(part(s).GroupBy)) })
	}
}

func (k *spanCheck) reference(r *Reference) {
	switch {
	case r.Kind == ReferenceJoin:
		k.condition(r.Join.On)
		return
	case !r.Span.Located() && !r.NameSpan.Located() && r.Kind == ReferenceTable:
		return // not read from a text of its own
	case r.Written || r.Kind == ReferenceUnknown:
		return
	}
	k.same("reference "+fmt.Sprint(r.Kind), r.Span, "SELECT FROM ",
		func(p *shapePrinter) {
			c := *r
			c.Nullable = false
			p.line("%s", strings.TrimPrefix(p.reference(&c), "with "))
			if r.Scope != nil {
				p.scope(r.Scope)
			}
		},
		func(p *shapePrinter, s *Scope) {
			p.line("%s", p.reference(s.From[0]))
			if s.From[0].Scope != nil {
				p.scope(s.From[0].Scope)
			}
		})
}

func newSpanCheck(t *testing.T) *spanCheck {
	return &spanCheck{t: t, located: map[string]int{}, all: map[string]int{}, missing: map[string]string{}}
}

// text checks all spans of one text.
func (k *spanCheck) text(p *parsed) {
	k.sql = p.sql
	for _, s := range p.shapes {
		f := collect(s)
		for _, scope := range f.scopes {
			k.scope(scope)
		}
		for _, r := range f.refs {
			k.reference(r)
		}
		for _, v := range f.values {
			k.value(v)
		}
	}
}

// TestEverySpanIsLocated wants all spans of the texts in testdata/shape/spans.txt.
func TestEverySpanIsLocated(t *testing.T) {
	for _, sql := range scriptTexts(t, "testdata/shape/spans.txt") {
		p := parseShapes(t, sql)
		if p == nil {
			t.Errorf("%q is opaque", sql)
			continue
		}
		k := newSpanCheck(t)
		k.text(p)
		for what, n := range k.all {
			if k.located[what] != n {
				t.Errorf("%q: %s: %d of %d located", sql, what, k.located[what], n)
			}
		}
		for _, s := range p.shapes {
			for _, scope := range collect(s).scopes {
				if !scope.Span.Located() {
					t.Errorf("%q: a scope is not located", sql)
					continue
				}
				tx := newShapeText([]byte(sql), p.normal.Literals)
				if r := (region{int(scope.Span.First), int(scope.Span.Last) + 1}); tx.bare(r) != r {
					t.Errorf("%q: a scope's span has parentheses around it", sql)
				}
			}
		}
	}
}

// TestClauseSpansAreExact checks the spans of clauses, rows, references and values.
func TestClauseSpansAreExact(t *testing.T) {
	k := newSpanCheck(t)
	seen := map[string]bool{}
	for _, sql := range shapeCorpus(t) {
		p := parseShapes(t, sql)
		if p == nil || seen[string(p.normal.Key)] || len(sql) > 5000 {
			continue
		}
		seen[string(p.normal.Key)] = true
		k.text(p)
	}
	for what, n := range k.all {
		if n-k.located[what] > n*3/100+4 && what != "value 0" && what != "value 7" && what != "value 9" { // expressions within others
			t.Errorf("%s: only %d of %d located", what, k.located[what], n)
		}
		t.Logf("%s: %d of %d located, not in %.150q", what, k.located[what], n, k.missing[what])
	}
}

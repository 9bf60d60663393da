package query

import (
	"fmt"
	"strings"
)

// writes renders what a writing scope has of its own.
func (p *shapePrinter) writes(s *Scope) {
	if in := s.Insert; in != nil {
		p.line("insert%s%s", flag(in.HasColumns, " "+targetColumns(in.Columns)), flag(in.Overriding != "", " overriding "+in.Overriding))
		if in.Source == nil {
			p.line("default values")
		} else {
			p.nested(func() { p.scope(in.Source) })
		}
		p.conflict(in.Conflict)
	}
	if s.Update != nil {
		p.assignments(s.Update.Set)
	}
	if s.Merge == nil {
		return
	}
	for _, w := range s.Merge.When {
		p.line("when %s: %s", w.Match, w.Action)
		p.nested(func() {
			p.condition("and", w.Condition)
			p.assignments(w.Set)
			if w.Action == MergeInsert {
				p.line("insert%s%s values %s", flag(w.HasColumns, " "+targetColumns(w.Columns)),
					flag(w.Overriding != "", " overriding "+w.Overriding), p.values(w.Values))
			}
		})
	}
}

func (p *shapePrinter) conflict(k *Conflict) {
	if k == nil {
		return
	}
	action := "nothing"
	if k.Update {
		action = "update"
	}
	p.line("conflict %s%s%s: %s", columns(k.Columns), flag(k.Expressions, " expressions"), flag(k.Constraint != "", " constraint "+k.Constraint), action)
	p.nested(func() {
		p.condition("inference", k.Inference)
		p.assignments(k.Set)
		p.condition("where", k.Where)
	})
}

func (p *shapePrinter) assignments(list []Assignment) {
	for _, a := range list {
		p.line("set %s = %s%s", targetColumns([]TargetColumn{a.Column}), p.value(&a.Value), flag(a.Field > 0, fmt.Sprintf(" field %d", a.Field)))
	}
}

func targetColumns(list []TargetColumn) string {
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = c.Name + flag(c.Part, "[part]")
	}
	return strings.Join(out, " ")
}

func (p *shapePrinter) condition(word string, c *Condition) {
	if c == nil {
		return
	}
	for i := range c.Facts {
		p.line("%s: %s", word, p.fact(&c.Facts[i]))
	}
}

func (p *shapePrinter) fact(f *Fact) string {
	op := name(f.Op)
	left := ""
	if f.Column != nil {
		left = column(f.Column) + collation(f.Collation)
	}
	swapped := flag(f.Swapped, " swapped")
	switch f.Kind {
	case FactEqual:
		return fmt.Sprintf("%s %s %s%s%s", left, op, p.value(&f.Value), swapped, flag(f.NullSafe, " null-safe"))
	case FactCompare:
		return fmt.Sprintf("%s %s %s%s", left, flag(f.Op.Schema != "", f.Op.Schema+".")+f.Compare.String(), p.value(&f.Value), swapped)
	case FactIn:
		return fmt.Sprintf("%s in(%s) %s", left, op, p.values(f.Values))
	case FactAny:
		return fmt.Sprintf("%s any(%s) %s", left, op, p.value(&f.Value))
	case FactTuples:
		return p.tuples(f)
	case FactNull:
		return left + " is null"
	case FactNotNull:
		return left + " is not null"
	case FactConstant:
		return "constant " + p.value(&f.Value)
	case FactOr:
		return p.branches(f.Branches)
	}
	return "unknown " + p.expr(f.Expr)
}

func (p *shapePrinter) tuples(f *Fact) string {
	left := make([]string, len(f.Columns))
	for i := range f.Columns {
		left[i] = column(&f.Columns[i])
	}
	rows := make([]string, len(f.Tuples))
	for i, t := range f.Tuples {
		rows[i] = p.values(t)
	}
	return fmt.Sprintf("(%s) in(%s) %s", strings.Join(left, ", "), name(f.Op), strings.Join(rows, " "))
}

func (p *shapePrinter) branches(branches [][]Fact) string {
	out := make([]string, len(branches))
	for i, b := range branches {
		facts := make([]string, len(b))
		for j := range b {
			facts[j] = p.fact(&b[j])
		}
		out[i] = "[" + strings.Join(facts, " and ") + "]"
	}
	return strings.Join(out, " or ")
}

func column(c *Column) string {
	parts := make([]string, 0, 4)
	for _, s := range []string{c.Catalog, c.Schema, c.Table, c.Name} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	if c.Star {
		parts = append(parts, "*")
	}
	return strings.Join(parts, ".")
}

func collation(n *Name) string {
	if n == nil {
		return ""
	}
	return fmt.Sprintf(" collate %q", name(*n))
}

func (p *shapePrinter) values(list []Value) string {
	out := make([]string, len(list))
	for i := range list {
		out[i] = p.value(&list[i])
	}
	return "(" + strings.Join(out, ", ") + ")"
}

func (p *shapePrinter) value(v *Value) string {
	out := p.bareValue(v)
	for _, t := range v.Casts() {
		out += "::" + name(t.Name) + strings.Repeat("[]", t.Dimensions) + flag(t.Fields, " fields")
		if t.Modifiers != nil {
			out += p.values(t.Modifiers)
		}
	}
	return out + collation(v.Collation())
}

func (p *shapePrinter) bareValue(v *Value) string {
	switch v.Kind {
	case ValueColumn:
		return column(v.Column)
	case ValueLiteral:
		return flag(v.Negative, "-") + fmt.Sprintf("#%d", v.Literal)
	case ValueParam:
		return fmt.Sprintf("$%d", v.Param)
	case ValueNull:
		return "null"
	case ValueBool:
		return fmt.Sprint(v.Bool)
	case ValueDefault:
		return "default"
	case ValueArray:
		return "array" + p.values(v.Elements())
	case ValueRow:
		return "row" + p.values(v.Elements())
	case ValueConstant:
		return "constant" + p.text(v.Span) + p.expr(v.Expr())
	}
	return "expr" + p.text(v.Span) + p.expr(v.Expr())
}

// text renders a piece of the text, nothing when it is not known.
func (p *shapePrinter) text(s Span) string {
	if !s.Located() || int(s.End) > len(p.sql) {
		return ""
	}
	return fmt.Sprintf("`%s`", p.sql[s.Start:s.End])
}

// expr renders what an expression consists of.
func (p *shapePrinter) expr(e *Expr) string {
	var parts []string
	if e == nil {
		return "{}"
	}
	for i := range e.Columns {
		parts = append(parts, column(&e.Columns[i]))
	}
	for i := range e.Values {
		parts = append(parts, p.value(&e.Values[i]))
	}
	for _, c := range e.Calls {
		parts = append(parts, fmt.Sprintf("%s/%d%s", name(c.Name), c.Name.Args, callFlags(c)))
	}
	for _, n := range e.Operators {
		parts = append(parts, "op "+name(n))
	}
	for _, n := range e.Types {
		parts = append(parts, "type "+name(n))
	}
	parts = append(parts, e.Session...)
	for _, i := range e.Sublinks {
		parts = append(parts, fmt.Sprintf("sublink %d", i))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func callFlags(c Call) string {
	return flag(c.Star, " star") + flag(c.Distinct, " distinct") + flag(c.Ordered, " ordered") +
		flag(c.Filtered, " filtered") + flag(c.Within, " within") + flag(c.Over, " over")
}

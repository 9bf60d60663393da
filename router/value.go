package router

import (
	"shardproxy/query"
	"shardproxy/shardmap"
)

// source says where a value comes from at execution.
type source uint8

const (
	fromNull    source = iota // it is NULL: nothing equals it
	fromLiteral               // a literal of the client's text
	fromParam                 // a parameter of Bind
	fromPlan                  // the plan itself: a keyword, a literal of a view
	fromDraw                  // what was drawn for the row
	fromRow                   // the key of the row at hand: see prover.anchor
	fromSpan                  // all values that are within
)

// value is where a key's value comes from. It belongs to a plan, and holds nothing
// of one text.
type value struct {
	source source
	// array is set when it is an array of values.
	array bool
	// negative turns the sign of a number.
	negative bool
	// sure is set when nothing but comparisons with columns of as, or of a type that
	// has the same representation, decides a parameter's type.
	sure bool
	// literal is the kind of literal.
	literal query.LiteralKind
	// index is a literal's place in the text, a parameter's number, a draw's, or that of
	// a column of the key.
	index int32
	// as is the type of the column it is compared with, or assigned to.
	as shardmap.KeyType
	// cast is the type that the text casts it to; 0 without.
	cast shardmap.KeyType
	// assigned is set when the value is stored in the column, whose typmod may
	// change it.
	assigned bool
	typmod   int32
	// fixed is the value's text, fromPlan.
	fixed string
	// within is the span outside of which the value does not count, nil for none. Only values
	// of tables that are placed by ranges have one in a plan.
	within *span
}

// value reads a value that is compared with a column of key type k. ok is false when
// it is not known how PostgreSQL reads it.
func (p *prover) value(b *block, v *query.Value, k shardmap.KeyType) (value, bool) {
	out := value{as: k, index: -1, typmod: -1}
	if v.Collation() != nil {
		return out, false
	}
	casts := v.Casts()
	if len(casts) > 1 {
		return out, false
	}
	if len(casts) == 1 {
		out.cast = p.relations.keyType(&casts[0])
		if out.cast == 0 || !out.cast.Colocates(k) {
			return out, false
		}
	}
	switch v.Kind {
	case query.ValueNull:
		return out, len(casts) == 0
	case query.ValueBool:
		if k != shardmap.Bool || out.cast != 0 {
			return out, false
		}
		out.source, out.fixed = fromPlan, "false"
		if v.Bool {
			out.fixed = "true"
		}
		return out, true
	case query.ValueParam:
		if v.Negative || b.text.fixed != nil {
			return out, false
		}
		out.source, out.index = fromParam, v.Param
		p.used(out)
		return out, true
	case query.ValueLiteral:
		if v.Literal < 0 || int(v.Literal) >= len(b.text.literals) {
			return out, false
		}
		out.source, out.index, out.negative = fromLiteral, v.Literal, v.Negative
		out.literal = b.text.literals[v.Literal].Kind
		if !readable(out, k) {
			return out, false
		}
		if b.text.fixed != nil {
			return fixedValue(out, b.text)
		}
		return out, true
	}
	return out, false
}

// readable reports whether a literal of the kind is read by the type's own input, or
// as a number that means the same.
func readable(v value, k shardmap.KeyType) bool {
	t := k
	if v.cast != 0 {
		t = v.cast
	}
	switch v.literal {
	case query.LiteralString:
		return !v.negative
	case query.LiteralInt:
		return t <= shardmap.Int8 || t == shardmap.Numeric && v.cast == 0
	case query.LiteralFloat:
		return t == shardmap.Numeric && v.cast == 0
	}
	return false
}

// fixedValue takes the text of a view's literal into the plan.
func fixedValue(v value, t *text) (value, bool) {
	text, ok := query.LiteralText(nil, t.fixed, t.literals[v.index], false)
	if !ok {
		return v, false
	}
	v.source, v.fixed = fromPlan, string(text)
	if v.negative {
		v.fixed, v.negative = "-"+v.fixed, false
	}
	return v, true
}

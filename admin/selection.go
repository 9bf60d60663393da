package admin

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"shardproxy/wire"
)

// selection is what may stand behind SHOW and a name: WHERE, ORDER BY, LIMIT and OFFSET, with PostgreSQL's meaning. It is only read here;
// bind says whether it fits the columns of a table.
type selection struct {
	where  *condition // nil: all rows
	order  []sortKey
	limit  int64 // -1: none
	offset int64
}

// condition is a node of WHERE.
type condition struct {
	op          conditionOp
	left, right *condition // and, or; left alone: not
	a, b        operand    // of the others; b is unused for IS NULL
	compare     string     // =, <>, <, <=, >, >=
	fold        bool       // ILIKE
}

type conditionOp uint8

const (
	opAnd conditionOp = iota
	opOr
	opNot
	opCompare
	opLike
	opIsNull
)

// operand is a column or a constant.
type operand struct {
	kind operandKind
	text string   // the column's name, or the string
	num  *big.Rat // of a number
}

type operandKind uint8

const (
	isColumn operandKind = iota
	isNumber
	isString
	isNull
)

type sortKey struct {
	column     string
	place      int // from 1, in place of a name; 0 for a name
	desc       bool
	nullsFirst bool
}

// maxNesting bounds parentheses and NOT in a WHERE.
const maxNesting = 64

// selection reads what is left; nil is nothing.
func (p *parser) selection() (*selection, *wire.Error) {
	if len(p.rest) == 0 {
		return nil, nil
	}
	s := &selection{limit: -1}
	var err *wire.Error
	if p.accept("where") {
		if s.where, err = p.or(0); err != nil {
			return nil, err
		}
	}
	if p.accept("order") {
		if !p.accept("by") {
			return nil, p.unexpected()
		}
		if s.order, err = p.sortKeys(); err != nil {
			return nil, err
		}
	}
	if err := p.bounds(s); err != nil {
		return nil, err
	}
	if len(p.rest) > 0 {
		return nil, p.unexpected()
	}
	return s, nil
}

// unexpected says where reading has ended.
func (p *parser) unexpected() *wire.Error {
	e := wire.Errorf("42601", "syntax error at end of input")
	if len(p.rest) > 0 {
		text := strings.ToValidUTF8(p.rest[0].text, "?")
		if len(text) > 60 {
			text = strings.ToValidUTF8(text[:60], "") + "..."
		}
		e = wire.Errorf("42601", "syntax error at or near \"%s\"", text)
	}
	return e.WithHint("SHOW name [WHERE condition] [ORDER BY column [ASC | DESC], ...] [LIMIT n] [OFFSET n]")
}

func (p *parser) or(depth int) (*condition, *wire.Error) {
	left, err := p.and(depth)
	for err == nil && p.accept("or") {
		var right *condition
		if right, err = p.and(depth); err == nil {
			left = &condition{op: opOr, left: left, right: right}
		}
	}
	return left, err
}

func (p *parser) and(depth int) (*condition, *wire.Error) {
	left, err := p.not(depth)
	for err == nil && p.accept("and") {
		var right *condition
		if right, err = p.not(depth); err == nil {
			left = &condition{op: opAnd, left: left, right: right}
		}
	}
	return left, err
}

func (p *parser) not(depth int) (*condition, *wire.Error) {
	switch {
	case depth > maxNesting:
		return nil, wire.Errorf("54001", "the condition nests too deep").WithDetail("The limit is %d.", maxNesting)
	case p.accept("not"):
		c, err := p.not(depth + 1)
		return negate(c, true), err
	case p.acceptKind(tokenOpen):
		c, err := p.or(depth + 1)
		if err == nil && !p.acceptKind(tokenClose) {
			err = p.unexpected()
		}
		return c, err
	}
	return p.predicate()
}

func negate(c *condition, negated bool) *condition {
	if !negated {
		return c
	}
	return &condition{op: opNot, left: c}
}

func (p *parser) acceptKind(k tokenKind) bool {
	if len(p.rest) == 0 || p.rest[0].kind != k {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// predicate reads one comparison, or what stands for several.
func (p *parser) predicate() (*condition, *wire.Error) {
	a, err := p.operand()
	if err != nil {
		return nil, err
	}
	if len(p.rest) > 0 && (p.rest[0].kind == tokenEquals || p.rest[0].kind == tokenOperator) {
		t, _ := p.next()
		b, err := p.operand()
		return &condition{op: opCompare, compare: strings.Replace(t.text, "!=", "<>", 1), a: a, b: b}, err
	}
	if p.accept("is") {
		negated := p.accept("not")
		if !p.accept("null") {
			return nil, p.unexpected()
		}
		return negate(&condition{op: opIsNull, a: a}, negated), nil
	}
	negated := p.accept("not")
	switch {
	case p.accept("in"):
		c, err := p.list(a)
		return negate(c, negated), err
	case p.accept("between"):
		c, err := p.between(a)
		return negate(c, negated), err
	case p.accept("like"):
		b, err := p.operand()
		return negate(&condition{op: opLike, a: a, b: b}, negated), err
	case p.accept("ilike"):
		b, err := p.operand()
		return negate(&condition{op: opLike, a: a, b: b, fold: true}, negated), err
	}
	return nil, p.unexpected()
}

// list reads (x, y) of IN: a = x OR a = y.
func (p *parser) list(a operand) (*condition, *wire.Error) {
	if !p.acceptKind(tokenOpen) {
		return nil, p.unexpected()
	}
	var c *condition
	for {
		b, err := p.operand()
		if err != nil {
			return nil, err
		}
		next := &condition{op: opCompare, compare: "=", a: a, b: b}
		if c == nil {
			c = next
		} else {
			c = &condition{op: opOr, left: c, right: next}
		}
		if !p.acceptKind(tokenComma) {
			break
		}
	}
	if !p.acceptKind(tokenClose) {
		return nil, p.unexpected()
	}
	return c, nil
}

func (p *parser) between(a operand) (*condition, *wire.Error) {
	from, err := p.operand()
	if err != nil {
		return nil, err
	}
	if !p.accept("and") {
		return nil, p.unexpected()
	}
	to, err := p.operand()
	return &condition{op: opAnd, left: &condition{op: opCompare, compare: ">=", a: a, b: from}, right: &condition{op: opCompare, compare: "<=", a: a, b: to}}, err
}

// reserved words are no columns unless they are quoted.
func reserved(t token) bool {
	for _, w := range []string{"and", "or", "not", "in", "is", "like", "ilike", "between", "null", "where", "order", "by", "asc", "desc", "limit", "offset"} {
		if t.is(w) {
			return true
		}
	}
	return false
}

func (p *parser) operand() (operand, *wire.Error) {
	if len(p.rest) == 0 {
		return operand{}, p.unexpected()
	}
	t := p.rest[0]
	var o operand
	switch n, isNum := number(t.text); {
	case t.kind == tokenString:
		o = operand{kind: isString, text: t.text}
	case t.kind == tokenQuoted:
		o = operand{text: t.text}
	case t.is("null"):
		o = operand{kind: isNull}
	case t.kind != tokenWord || reserved(t):
		return o, p.unexpected()
	case isNum:
		o = operand{kind: isNumber, num: n}
	default:
		o = operand{text: strings.ToLower(t.text)}
	}
	p.rest = p.rest[1:]
	return o, nil
}

// number reads digits with a sign and a point; nothing else is a number here.
func number(s string) (*big.Rat, bool) {
	digits := strings.TrimLeft(s, "+-")
	if len(s)-len(digits) > 1 || strings.Trim(digits, "0123456789") != "" && strings.Trim(digits, "0123456789") != "." || strings.Trim(digits, ".") == "" {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}

func (p *parser) sortKeys() (keys []sortKey, err *wire.Error) {
	for {
		o, err := p.operand()
		if err != nil {
			return nil, err
		}
		k := sortKey{column: o.text}
		switch {
		case o.kind == isNumber && o.num.IsInt() && o.num.Num().IsInt64() && o.num.Sign() > 0:
			k.place = int(min(o.num.Num().Int64(), 1<<31-1))
		case o.kind != isColumn:
			return nil, wire.Errorf("42601", "ORDER BY takes columns, or their places from 1")
		}
		if !p.accept("asc") {
			k.desc = p.accept("desc")
		}
		k.nullsFirst = k.desc
		if p.accept("nulls") {
			if k.nullsFirst = p.accept("first"); !k.nullsFirst && !p.accept("last") {
				return nil, p.unexpected()
			}
		}
		keys = append(keys, k)
		if !p.acceptKind(tokenComma) {
			return keys, nil
		}
	}
}

// bounds reads LIMIT and OFFSET, each once, in any order.
func (p *parser) bounds(s *selection) *wire.Error {
	for limited, moved := false, false; ; {
		var err *wire.Error
		switch {
		case !limited && p.accept("limit"):
			limited = true
			if p.accept("all", "null") {
				continue
			}
			if s.limit, err = p.count(); s.limit < 0 {
				err = wire.Errorf("2201W", "LIMIT must not be negative")
			}
		case !moved && p.accept("offset"):
			moved = true
			if s.offset, err = p.count(); s.offset < 0 {
				err = wire.Errorf("2201X", "OFFSET must not be negative")
			}
			p.accept("rows", "row")
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// count reads a whole number.
func (p *parser) count() (int64, *wire.Error) {
	if len(p.rest) == 0 || p.rest[0].kind != tokenWord {
		return 0, p.unexpected()
	}
	n, err := strconv.ParseInt(p.rest[0].text, 10, 64)
	if err != nil {
		return 0, p.unexpected()
	}
	p.rest = p.rest[1:]
	return n, nil
}

// String returns the selection as it may be read again.
func (s *selection) String() string {
	var parts []string
	if s.where != nil {
		parts = append(parts, "WHERE "+s.where.String())
	}
	for i, k := range s.order {
		word := "ORDER BY "
		if i > 0 {
			word = ", "
		}
		name := quoteName(k.column)
		if k.place > 0 {
			name = strconv.Itoa(k.place)
		}
		parts = append(parts, word+name+map[bool]string{true: " DESC", false: " ASC"}[k.desc]+map[bool]string{true: " NULLS FIRST", false: " NULLS LAST"}[k.nullsFirst])
	}
	if s.limit >= 0 {
		parts = append(parts, fmt.Sprintf("LIMIT %d", s.limit))
	}
	if s.offset > 0 {
		parts = append(parts, fmt.Sprintf("OFFSET %d", s.offset))
	}
	return strings.Join(parts, " ")
}

func quoteName(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// String returns the condition with all its parentheses.
func (c *condition) String() string {
	switch c.op {
	case opAnd:
		return "(" + c.left.String() + " AND " + c.right.String() + ")"
	case opOr:
		return "(" + c.left.String() + " OR " + c.right.String() + ")"
	case opNot:
		return "(NOT " + c.left.String() + ")"
	case opLike:
		return c.a.String() + map[bool]string{true: " ILIKE ", false: " LIKE "}[c.fold] + c.b.String()
	case opIsNull:
		return c.a.String() + " IS NULL"
	}
	return c.a.String() + " " + c.compare + " " + c.b.String()
}

// String returns the operand as SQL.
func (o operand) String() string {
	switch o.kind {
	case isNumber:
		if o.num.IsInt() {
			return o.num.Num().String()
		}
		places, _ := o.num.FloatPrec() // it was read from digits: exact
		return o.num.FloatString(places)
	case isString:
		return "'" + strings.ReplaceAll(o.text, "'", "''") + "'"
	case isNull:
		return "NULL"
	}
	return quoteName(o.text)
}

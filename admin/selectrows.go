package admin

import (
	"cmp"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgtype"

	"shardproxy/wire"
)

// truth is SQL's.
type truth uint8

const (
	no truth = iota
	unknown
	yes
)

func truthOf(b bool) truth {
	if b {
		return yes
	}
	return no
}

// chooser picks, sorts and cuts rows of a table.
type chooser struct {
	where  func(row []any) truth // nil: all
	order  []func(a, b []any) int
	limit  int64 // -1: none
	offset int64
}

// bind fits a selection to the columns of a table. The errors are PostgreSQL's: 42703 for a column that is not there, 42883 for a text
// that is compared with a number, 22P02 for a string that is no number.
func (s *selection) bind(columns []column) (*chooser, *wire.Error) {
	c := &chooser{limit: s.limit, offset: s.offset}
	if s.where != nil {
		var err *wire.Error
		if c.where, err = s.where.bind(columns); err != nil {
			return nil, err
		}
	}
	for _, k := range s.order {
		at := k.place - 1
		switch {
		case k.place > len(columns):
			return nil, wire.Errorf("42P10", "ORDER BY position %d is not in select list", k.place)
		case k.place == 0:
			var err *wire.Error
			if at, err = place(columns, k.column); err != nil {
				return nil, err
			}
		}
		c.order = append(c.order, k.sorts(at))
	}
	return c, nil
}

func place(columns []column, name string) (int, *wire.Error) {
	for i, c := range columns {
		if c.name == name {
			return i, nil
		}
	}
	return 0, wire.Errorf("42703", "column \"%s\" does not exist", strings.ToValidUTF8(name, "?"))
}

// sorts compares rows by one column. Text is ordered by its bytes.
func (k sortKey) sorts(at int) func(a, b []any) int {
	return func(a, b []any) int {
		x, y := a[at], b[at]
		switch {
		case x == nil && y == nil:
			return 0
		case x == nil || y == nil:
			if (x == nil) == k.nullsFirst {
				return -1
			}
			return 1
		}
		n := compareValues(x, y)
		if k.desc {
			return -n
		}
		return n
	}
}

// compareValues compares two values of one type that are not NULL.
func compareValues(x, y any) int {
	if s, is := x.(string); is {
		return cmp.Compare(shownText(s), shownText(y.(string)))
	}
	return cmp.Compare(x.(int64), y.(int64))
}

// shownText is a text as clients see it.
func shownText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// choose returns the rows that are wanted, in their order. It may change the order of those that it is given.
func (c *chooser) choose(rows [][]any) [][]any {
	if c.where != nil {
		rows = slices.DeleteFunc(rows, func(row []any) bool { return c.where(row) != yes })
	}
	if len(c.order) > 0 {
		slices.SortStableFunc(rows, func(a, b []any) int {
			for _, by := range c.order {
				if n := by(a, b); n != 0 {
					return n
				}
			}
			return 0
		})
	}
	rows = rows[min(c.offset, int64(len(rows))):]
	if c.limit >= 0 {
		rows = rows[:min(c.limit, int64(len(rows)))]
	}
	return rows
}

func (c *condition) bind(columns []column) (func([]any) truth, *wire.Error) {
	switch c.op {
	case opAnd, opOr:
		left, err := c.left.bind(columns)
		if err != nil {
			return nil, err
		}
		right, err := c.right.bind(columns)
		if c.op == opAnd {
			return func(row []any) truth { return min(left(row), right(row)) }, err
		}
		return func(row []any) truth { return max(left(row), right(row)) }, err
	case opNot:
		of, err := c.left.bind(columns)
		return func(row []any) truth { return yes - of(row) }, err
	case opIsNull:
		v, err := c.a.bind(columns)
		if err != nil {
			return nil, err
		}
		return func(row []any) truth { return truthOf(v.of(row) == nil) }, nil
	case opLike:
		return c.bindLike(columns)
	}
	return c.bindCompare(columns)
}

// value is a bound operand.
type value struct {
	of    func(row []any) any // nil, string, int64 or *big.Rat
	class class
}

// class is the type of a value, as far as it matters here.
type class uint8

const (
	classAny    class = iota // a string whose type is not said yet, or NULL
	classText                // a column
	classNumber              // a column or a number
)

func (o operand) bind(columns []column) (value, *wire.Error) {
	constant := func(v any, k class) value { return value{func([]any) any { return v }, k} }
	switch o.kind {
	case isNull:
		return constant(nil, classAny), nil
	case isString:
		return constant(o.text, classAny), nil
	case isNumber:
		return constant(plainNumber(o.num), classNumber), nil
	}
	at, err := place(columns, o.text)
	if err != nil {
		return value{}, err
	}
	v := value{func(row []any) any { return row[at] }, classNumber}
	if columns[at].typ.oid == pgtype.TextOID {
		v.class = classText
		v.of = func(row []any) any {
			if s, is := row[at].(string); is {
				return shownText(s)
			}
			return nil
		}
	}
	return v, nil
}

// plainNumber is the number as columns have it, where it can be.
func plainNumber(n *big.Rat) any {
	if n.IsInt() && n.Num().IsInt64() {
		return n.Num().Int64()
	}
	return n
}

// alike makes two operands comparable: a string takes the type of what it is compared with.
func (c *condition) alike(columns []column) (a, b value, err *wire.Error) {
	if a, err = c.a.bind(columns); err != nil {
		return a, b, err
	}
	if b, err = c.b.bind(columns); err != nil {
		return a, b, err
	}
	switch {
	case a.class != b.class && a.class != classAny && b.class != classAny:
		names := [...]string{classText: "text", classNumber: "bigint"}
		return a, b, wire.Errorf("42883", "operator does not exist: %s %s %s", names[a.class], c.compare, names[b.class]).
			WithHint("Texts are compared with strings in single quotes, numbers with numbers.")
	case a.class == classNumber:
		b, err = c.b.asNumber(b)
	case b.class == classNumber:
		a, err = c.a.asNumber(a)
	}
	return a, b, err
}

// asNumber reads a string as a number.
func (o operand) asNumber(v value) (value, *wire.Error) {
	if o.kind != isString {
		return v, nil
	}
	n, ok := number(strings.TrimSpace(o.text))
	if !ok {
		return v, wire.Errorf("22P02", "invalid input syntax for type bigint: \"%s\"", shownText(o.text))
	}
	is := plainNumber(n)
	return value{func([]any) any { return is }, classNumber}, nil
}

func (c *condition) bindCompare(columns []column) (func([]any) truth, *wire.Error) {
	a, b, err := c.alike(columns)
	if err != nil {
		return nil, err
	}
	holds := map[string]func(int) bool{
		"=": func(n int) bool { return n == 0 }, "<>": func(n int) bool { return n != 0 },
		"<": func(n int) bool { return n < 0 }, "<=": func(n int) bool { return n <= 0 },
		">": func(n int) bool { return n > 0 }, ">=": func(n int) bool { return n >= 0 },
	}[c.compare]
	return func(row []any) truth {
		x, y := a.of(row), b.of(row)
		if x == nil || y == nil {
			return unknown
		}
		return truthOf(holds(compareNumbers(x, y)))
	}, nil
}

// compareNumbers is compareValues where a number may be a fraction.
func compareNumbers(x, y any) int {
	rat := func(v any) *big.Rat {
		if n, is := v.(int64); is {
			return new(big.Rat).SetInt64(n)
		}
		return v.(*big.Rat)
	}
	_, left := x.(*big.Rat)
	_, right := y.(*big.Rat)
	if left || right {
		return rat(x).Cmp(rat(y))
	}
	return compareValues(x, y)
}

func (c *condition) bindLike(columns []column) (func([]any) truth, *wire.Error) {
	operator := map[bool]string{true: "~~*", false: "~~"}[c.fold]
	a, err := c.a.bind(columns)
	if err != nil {
		return nil, err
	}
	b, err := c.b.bind(columns)
	switch {
	case err != nil:
		return nil, err
	case a.class == classNumber || b.class == classNumber:
		return nil, wire.Errorf("42883", "operator does not exist: bigint %s text", operator).WithHint("LIKE compares texts.")
	case c.b.kind == isColumn:
		return nil, wire.Errorf("0A000", "the pattern of LIKE must be a string")
	case c.b.kind == isString && badPattern(c.b.text):
		return nil, wire.Errorf("22025", "LIKE pattern must not end with escape character")
	}
	pattern := shownText(c.b.text)
	if c.fold {
		pattern = strings.ToLower(pattern)
	}
	return func(row []any) truth {
		x, _ := a.of(row).(string)
		if a.of(row) == nil || c.b.kind == isNull {
			return unknown
		}
		if c.fold {
			x = strings.ToLower(x)
		}
		return truthOf(like(x, pattern))
	}, nil
}

// badPattern reports whether a pattern ends with a backslash that escapes nothing.
func badPattern(p string) bool {
	n := len(p) - len(strings.TrimRight(p, `\`))
	return n%2 == 1
}

// like matches as LIKE does: % any text, _ one character, \ takes the next as it is. It takes time by the product of the lengths at most.
func like(s, pattern string) bool {
	back, from := -1, 0 // behind the last %, and the place in s that it was tried at
	i, j := 0, 0
	for i < len(s) {
		r, n := utf8.DecodeRuneInString(s[i:])
		if j < len(pattern) && pattern[j] == '%' {
			j++
			back, from = j, i
			continue
		}
		if j < len(pattern) {
			if pattern[j] == '_' {
				i, j = i+n, j+1
				continue
			}
			at := j
			if pattern[at] == '\\' && at+1 < len(pattern) {
				at++
			}
			if p, m := utf8.DecodeRuneInString(pattern[at:]); p == r {
				i, j = i+n, at+m
				continue
			}
		}
		if back < 0 {
			return false
		}
		_, n = utf8.DecodeRuneInString(s[from:])
		from += n
		i, j = from, back
	}
	return strings.Trim(pattern[j:], "%") == ""
}

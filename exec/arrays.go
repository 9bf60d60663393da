package exec

import (
	"encoding/binary"
	"errors"

	"shardproxy/wire"
)

// Limits of a PostgreSQL value: its bytes (MaxAllocSize), and an array's elements (MaxArraySize).
const (
	valueMax    = 1<<30 - 1
	elementsMax = valueMax / 8
)

// arrayHeader is the size of the header of an array of one dimension in binary format: dimensions, flag,
// type, length, lower bound.
const arrayHeader = 20

// oidBox is the type whose arrays in text have semicolons between the elements.
const oidBox = 603

// ErrBudget says that a Budget is spent.
var ErrBudget = errors.New("exec: the memory budget is spent")

// ArrayColumn says how a column of rows becomes an array.
type ArrayColumn struct {
	// Element is the OID of the column's type. It must be no array, for PostgreSQL would
	// make one array of all: such a column travels as text, and is cast where it is read.
	Element uint32
	// Binary: the column's values are in binary format, and so is the array, which is sent with format
	// code 1. Otherwise both are text, in an encoding whose characters of several bytes hold
	// none of ASCII's (not SJIS, BIG5, GBK, UHC, GB18030 or JOHAB), and of a type whose arrays are
	// delimited by a comma, or box.
	Binary bool
}

// Budget bounds what several Arrays hold, in bytes: of what is allocated, not only of what is
// used. One goroutine uses it.
type Budget struct{ limit, used int64 }

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Used returns how many bytes are held.
func (b *Budget) Used() int64 { return b.used }

// Arrays collects rows, to send them as one array for each column. One goroutine uses it.
type Arrays struct {
	columns []arrayColumn
	rows    int
	budget  *Budget
	held    int64
}

// arrayColumn is what is collected of a column.
type arrayColumn struct {
	ArrayColumn
	elements chunks
	nulls    bool
}

// NewArrays returns what collects rows of the columns within the budget.
func NewArrays(columns []ArrayColumn, budget *Budget) *Arrays {
	a := &Arrays{columns: make([]arrayColumn, len(columns)), budget: budget}
	for i, c := range columns {
		a.columns[i].ArrayColumn = c
	}
	return a
}

// Rows returns how many rows were added.
func (a *Arrays) Rows() int { return a.rows }

// Release gives all that is held back to the budget; no rows are left.
func (a *Arrays) Release() {
	for i := range a.columns {
		a.columns[i].elements, a.columns[i].nulls = chunks{}, false
	}
	a.budget.used -= a.held
	a.rows, a.held = 0, 0
}

// Add copies the fields first, first+1, ... of a DataRow, given as its body behind type and length. When
// it returns an error nothing was added: ErrBudget, or a *wire.Error: 54000 when an array
// would be larger than PostgreSQL takes, 08P01 when the row is not well-formed or has too few fields.
func (a *Arrays) Add(row []byte, first int) error {
	fields, ok := skipFields(row, first, len(a.columns))
	if !ok {
		return wire.Errorf("08P01", "lost synchronization with the server").WithDetail("A row is not well-formed.")
	}
	if a.rows == elementsMax {
		return errArrayTooLarge()
	}
	var more int64
	at := fields
	for i := range a.columns {
		c := &a.columns[i]
		var v []byte
		v, at, _ = nextField(at)
		n := c.size(v)
		if c.elements.length+n > valueMax-arrayHeader {
			return errArrayTooLarge()
		}
		more += int64(c.elements.needs(n))
	}
	if more > a.budget.limit-a.budget.used {
		return ErrBudget
	}
	a.budget.used += more
	a.held += more
	for i := range a.columns {
		var v []byte
		v, fields, _ = nextField(fields)
		a.columns[i].add(v)
	}
	a.rows++
	return nil
}

func errArrayTooLarge() *wire.Error {
	return wire.Errorf("54000", "the rows of one statement that travel between shards are too many for one array").
		WithDetail("A value of PostgreSQL has less than 1 GiB, and an array at most %d elements.", elementsMax)
}

// skipFields returns what follows the first fields of a row that has at least count more.
func skipFields(row []byte, first, count int) ([]byte, bool) {
	if len(row) < 2 || first < 0 || int(binary.BigEndian.Uint16(row)) < first+count {
		return nil, false
	}
	fields, ok := row[2:], true
	for i := 0; i < first && ok; i++ {
		_, fields, ok = nextField(fields)
	}
	rest := fields
	for i := 0; i < count && ok; i++ {
		_, rest, ok = nextField(rest)
	}
	return fields, ok
}

// nextField takes a field off a row; v is nil when it is NULL.
func nextField(row []byte) (v, rest []byte, ok bool) {
	if len(row) < 4 {
		return nil, nil, false
	}
	n := int(int32(binary.BigEndian.Uint32(row)))
	rest = row[4:]
	if n == -1 {
		return nil, rest, true
	}
	if n < 0 || n > len(rest) {
		return nil, nil, false
	}
	return rest[:n], rest[n:], true
}

// size returns how many bytes an element takes in the array; in text with the delimiter
// behind it.
func (c *arrayColumn) size(v []byte) int {
	switch {
	case c.Binary:
		return 4 + len(v)
	case v == nil:
		return len("NULL,")
	}
	n := len(v) + len(`"",`)
	for _, b := range v {
		if b == '"' || b == '\\' {
			n++
		}
	}
	return n
}

// add appends an element.
func (c *arrayColumn) add(v []byte) {
	e := &c.elements
	if v == nil {
		c.nulls = true
	}
	switch {
	case c.Binary && v == nil:
		e.append([]byte{0xff, 0xff, 0xff, 0xff})
	case c.Binary:
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(v)))
		e.append(n[:])
		e.append(v)
	case v == nil:
		e.append([]byte("NULL"))
		e.appendByte(c.delimiter())
	default:
		e.appendByte('"')
		for from := 0; len(v) > 0; {
			to := from
			for to < len(v) && v[to] != '"' && v[to] != '\\' {
				to++
			}
			e.append(v[:to])
			if v = v[to:]; len(v) > 0 {
				e.appendByte('\\')
				from = 1 // the character itself, which is no end now
			}
		}
		e.appendByte('"')
		e.appendByte(c.delimiter())
	}
}

func (c *arrayColumn) delimiter() byte {
	if c.Element == oidBox {
		return ';'
	}
	return ','
}

// ParamSize returns how many bytes AppendParam appends.
func (a *Arrays) ParamSize(column int) int {
	c := &a.columns[column]
	switch {
	case !c.Binary:
		return 4 + len("{}") + max(0, c.elements.length-1)
	case a.rows == 0:
		return 4 + arrayHeader - 8
	}
	return 4 + arrayHeader + c.elements.length
}

// AppendParam appends one array to dst as Bind has a parameter: length and bytes. The array
// is in binary format when the column is. A Bind as a whole, too, must be of less than 1 GiB.
func (a *Arrays) AppendParam(dst []byte, column int) []byte {
	c := &a.columns[column]
	dst = binary.BigEndian.AppendUint32(dst, uint32(a.ParamSize(column)-4))
	if !c.Binary {
		dst = append(dst, '{')
		dst = c.elements.appendTo(dst)
		if c.elements.length > 0 {
			dst = dst[:len(dst)-1] // the last delimiter
		}
		return append(dst, '}')
	}
	var dimensions, flags uint32
	if a.rows > 0 {
		dimensions = 1
	}
	if c.nulls {
		flags = 1
	}
	dst = binary.BigEndian.AppendUint32(dst, dimensions)
	dst = binary.BigEndian.AppendUint32(dst, flags)
	dst = binary.BigEndian.AppendUint32(dst, c.Element)
	if a.rows > 0 {
		dst = binary.BigEndian.AppendUint32(dst, uint32(a.rows))
		dst = binary.BigEndian.AppendUint32(dst, 1)
	}
	return c.elements.appendTo(dst)
}

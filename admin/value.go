package admin

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"
)

// columnType is the PostgreSQL type of a column.
type columnType struct {
	name string
	oid  uint32
	size int16 // as pg_type.typlen has it
}

// column is one column of a SHOW with what docs/console.md says of it.
type column struct {
	name string
	typ  columnType
	doc  string
}

func textColumn(name, doc string) column {
	return column{name, columnType{"text", pgtype.TextOID, -1}, doc}
}
func int4Column(name, doc string) column {
	return column{name, columnType{"int4", pgtype.Int4OID, 4}, doc}
}
func int8Column(name, doc string) column {
	return column{name, columnType{"int8", pgtype.Int8OID, 8}, doc}
}
func numericColumn(name, doc string) column {
	return column{name, columnType{"numeric", pgtype.NumericOID, -1}, doc}
}

// fields returns the columns as RowDescription has them. formats is empty, one
// code for all, or one for each column.
func fields(columns []column, formats []int16) []pgproto3.FieldDescription {
	fds := make([]pgproto3.FieldDescription, len(columns))
	for i, c := range columns {
		fds[i] = pgproto3.FieldDescription{
			Name: []byte(c.name), DataTypeOID: c.typ.oid, DataTypeSize: c.typ.size, TypeModifier: -1,
			Format: formatOf(formats, i),
		}
	}
	return fds
}

func formatOf(formats []int16, i int) int16 {
	switch len(formats) {
	case 0:
		return pgproto3.TextFormat
	case 1:
		return formats[0]
	}
	return formats[i]
}

// encodeRow returns the values of a DataRow.
func encodeRow(columns []column, row []any, formats []int16) [][]byte {
	out := make([][]byte, len(columns))
	for i, v := range row {
		out[i] = encode(columns[i], v, formatOf(formats, i))
	}
	return out
}

// encode returns a value in the text or binary format of the column's type
// (PostgreSQL source: the types' send functions), nil for NULL. A value is nil
// (NULL), a string in a text column, or an int64 in the others.
func encode(c column, v any, format int16) []byte {
	if v == nil {
		return nil
	}
	if c.typ.oid == pgtype.TextOID {
		// Names come from clients and servers, in whatever encoding. Not nil when
		// empty: that would be NULL.
		return append([]byte{}, strings.ToValidUTF8(v.(string), "\uFFFD")...)
	}
	n := v.(int64)
	if format == pgproto3.TextFormat {
		return strconv.AppendInt(nil, n, 10)
	}
	switch c.typ.oid {
	case pgtype.Int4OID:
		return binary.BigEndian.AppendUint32(nil, uint32(int32(n)))
	case pgtype.Int8OID:
		return binary.BigEndian.AppendUint64(nil, uint64(n))
	case pgtype.NumericOID:
		return binaryNumeric(n)
	}
	panic(fmt.Sprintf("admin: column %s has a type that cannot be encoded", c.name))
}

// binaryNumeric returns n as numeric_send does: count of digits, weight of the
// first, sign, scale, digits to the base of 10,000.
func binaryNumeric(n int64) []byte {
	sign, u := uint16(0), uint64(n)
	if n < 0 {
		sign, u = 0x4000, -u
	}
	var digits []uint16 // the last first
	for ; u > 0; u /= 10000 {
		digits = append(digits, uint16(u%10000))
	}
	weight := max(len(digits)-1, 0)
	b := binary.BigEndian.AppendUint16(nil, uint16(len(digits)))
	b = binary.BigEndian.AppendUint16(b, uint16(weight))
	b = binary.BigEndian.AppendUint16(b, sign)
	b = binary.BigEndian.AppendUint16(b, 0)
	for i := len(digits) - 1; i >= 0; i-- {
		b = binary.BigEndian.AppendUint16(b, digits[i])
	}
	return b
}

// timestamp returns the moment as PgBouncer prints it, always in UTC; nil for none.
func timestamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02 15:04:05 MST")
}

// orNull returns s, or nil when it is empty.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// splitWait returns a wait as PgBouncer does: whole seconds, and the microseconds
// beyond them.
func splitWait(d time.Duration) (seconds, micros int64) {
	d = max(d, 0)
	return int64(d / time.Second), int64(d % time.Second / time.Microsecond)
}

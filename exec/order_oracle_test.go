package exec_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/exec"
	"shardproxy/internal/pgtest"
)

// orderedType is a type, values that are hard, and how to make more.
type orderedType struct {
	sql    string
	oid    uint32
	values []string
	more   func(r *rand.Rand) string
}

func integers(bits int) func(*rand.Rand) string {
	return func(r *rand.Rand) string {
		v := int64(r.Uint64()) >> (64 - bits) >> r.IntN(bits)
		return fmt.Sprint(v)
	}
}

func unsigned(bits int) func(*rand.Rand) string {
	return func(r *rand.Rand) string { return fmt.Sprint(r.Uint64() >> (64 - bits) >> r.IntN(bits)) }
}

// texts are of few letters, so that prefixes are common, of all lengths around eight.
func texts(letters string) func(*rand.Rand) string {
	all := []rune(letters)
	return func(r *rand.Rand) string {
		var b strings.Builder
		for range r.IntN(12) {
			b.WriteRune(all[r.IntN(len(all))])
		}
		return b.String()
	}
}

func bytesOf(n int, separator string) func(*rand.Rand) string {
	return func(r *rand.Rand) string {
		var parts []string
		for range n {
			parts = append(parts, fmt.Sprintf("%02x", []byte{0, 1, 0x7f, 0x80, 0xff, byte(r.Uint32())}[r.IntN(6)]))
		}
		return strings.Join(parts, separator)
	}
}

func decimals(r *rand.Rand) string {
	s := fmt.Sprint(r.Uint64() >> r.IntN(64))
	switch r.IntN(5) {
	case 0:
		s += "." + fmt.Sprint(r.Uint64()>>r.IntN(64))
	case 1:
		s += "." + fmt.Sprint(r.IntN(100)) + strings.Repeat("0", r.IntN(10))
	case 2:
		s += fmt.Sprintf("e%d", r.IntN(400)-200)
	case 3: // equal up to the last of many digits
		s = "123456789012345678901234567890.12345678901234567890" + fmt.Sprint(r.IntN(5))
	}
	return []string{"", "-"}[r.IntN(2)] + s
}

func floats(r *rand.Rand) string {
	if r.IntN(2) == 0 {
		return fmt.Sprint(r.IntN(20) - 10)
	}
	return fmt.Sprintf("%g", (r.Float64()-0.5)*math.Pow(10, float64(r.IntN(60)-30)))
}

func networks(r *rand.Rand) string {
	few := func() int { return []int{0, 1, 10, 127, 128, 255}[r.IntN(6)] }
	if r.IntN(2) == 0 {
		return fmt.Sprintf("%d.%d.%d.%d/%d", few(), few(), few(), few(), r.IntN(33))
	}
	return fmt.Sprintf("%x:%x::%x/%d", few()<<8, few(), few(), r.IntN(129))
}

// cidrs are networks without bits behind the mask.
func cidrs(r *rand.Rand) string {
	bits := r.IntN(33)
	a := uint32(r.Uint64()) & 0xff80ff01 & uint32(math.MaxUint32<<(32-bits))
	return fmt.Sprintf("%d.%d.%d.%d/%d", a>>24, a>>16&255, a>>8&255, a&255, bits)
}

func bitStrings(r *rand.Rand) string {
	var b strings.Builder
	for range r.IntN(20) {
		b.WriteByte("0001"[r.IntN(4)])
	}
	return b.String()
}

func intervals(r *rand.Rand) string {
	switch r.IntN(3) {
	case 0:
		return fmt.Sprintf("%d months %d days %d hours", r.IntN(4)-2, r.IntN(90)-45, r.IntN(80)-40)
	case 1:
		return fmt.Sprintf("%d months %d days %d microseconds", int32(r.Uint32()), int32(r.Uint32()), int64(r.Uint64())>>1)
	}
	return fmt.Sprintf("%d microseconds", int64(r.Uint64())>>r.IntN(64)>>1)
}

func timetzs(r *rand.Rand) string {
	return fmt.Sprintf("%02d:%02d:00%+03d:%02d", r.IntN(24), r.IntN(2)*30, r.IntN(31)-15, r.IntN(2)*30)
}

var orderedTypes = []orderedType{
	{"boolean", 16, []string{"t", "f"}, nil},
	{"smallint", 21, []string{"-32768", "32767", "0", "-1"}, integers(16)},
	{"integer", 23, []string{"-2147483648", "2147483647", "0", "-1"}, integers(32)},
	{"bigint", 20, []string{"-9223372036854775808", "9223372036854775807", "0", "-1"}, integers(64)},
	{"oid", 26, []string{"0", "4294967295", "2147483648", "2147483647"}, unsigned(32)},
	{"xid8", 5069, []string{"0", "18446744073709551615", "9223372036854775808"}, unsigned(64)},
	{"money", 790, []string{"-92233720368547758.08", "92233720368547758.07", "0", "-0.01"}, func(r *rand.Rand) string { return fmt.Sprintf("%d.%02d", r.IntN(1000)-500, r.IntN(100)) }},
	{"real", 700, []string{"NaN", "Infinity", "-Infinity", "0", "-0", "1e-45", "-1e-45", "3.4e38", "-3.4e38"}, floats},
	{"double precision", 701, []string{"NaN", "Infinity", "-Infinity", "0", "-0", "4.9e-324", "-4.9e-324", "1.7e308", "-1.7e308"}, floats},
	{"numeric", 1700, []string{"NaN", "Infinity", "-Infinity", "0", "0.000", "-0", "1", "1.0", "1.0000000000", "-1", "-1.00", "10000", "10000.0", "9999.9999", "0.0001", "0.00010", "0.00009999",
		"1e131071", "-1e131071", "1e-16383", "-1e-16383", "1e131000", "99999999999999999999999999999999999999999", "100000000000000000000000000000000000000000", "1234567890123", "1234567890123.0001", "-1234567890123.0001"}, decimals},
	{"date", 1082, []string{"infinity", "-infinity", "2000-01-01", "4713-01-01 BC", "5874897-12-31"}, func(r *rand.Rand) string {
		return fmt.Sprintf("%04d-%02d-%02d", 1+r.IntN(3000), 1+r.IntN(12), 1+r.IntN(28))
	}},
	{"timestamp", 1114, []string{"infinity", "-infinity", "2000-01-01", "4713-01-01 BC", "294276-12-31 23:59:59.999999", "1999-12-31 23:59:59.999999"}, func(r *rand.Rand) string {
		return fmt.Sprintf("%04d-01-%02d %02d:00:00.%06d", 1+r.IntN(3000), 1+r.IntN(28), r.IntN(24), r.IntN(1000000))
	}},
	{"timestamptz", 1184, []string{"infinity", "-infinity", "2000-01-01 00:00+00", "2000-01-01 01:00+01"}, func(r *rand.Rand) string {
		return fmt.Sprintf("2000-01-%02d %02d:00:00%+03d", 1+r.IntN(3), r.IntN(24), r.IntN(28)-14)
	}},
	{"time", 1083, []string{"00:00", "24:00", "23:59:59.999999"}, func(r *rand.Rand) string {
		return fmt.Sprintf("%02d:%02d:00.%06d", r.IntN(24), r.IntN(60), r.IntN(1000000))
	}},
	{"timetz", 1266, []string{"00:00+00", "24:00-15:59:59", "00:00+15:59:59", "12:00+00", "13:00+01", "11:00-01"}, timetzs},
	{"interval", 1186, []string{"0", "1 month", "30 days", "720 hours", "29 days 24 hours", "-1 month", "-30 days", "1 day -1 microsecond", "178000000 years", "-178000000 years", "1 month -30 days",
		"-178956970 years -8 months -2147483648 days -9223372036854775808 microseconds", "178956970 years 7 months 2147483647 days 9223372036854775807 microseconds"}, intervals},
	{"uuid", 2950, []string{"00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"}, bytesOf(16, "")},
	{"bytea", 17, []string{"", `\x00`, `\x0000`, `\xff`, `\x0000000000000000`, `\x000000000000000000`}, func(r *rand.Rand) string { return `\x` + bytesOf(r.IntN(12), "")(r) }},
	{`"char"`, 18, []string{"", "a", "A", "~", "é"}, texts(" aZ~é")},
	{`text COLLATE "C"`, 25, []string{"", " ", "a ", "a", "A", "é", "z", "日本", "\U0001F600", "\uFFFD", "aaaaaaaa", "aaaaaaaaa"}, texts("aAbé \x01")},
	{`varchar COLLATE "C"`, 1043, []string{"", "a ", "a"}, texts("aAbé \x01")},
	{`name`, 19, []string{"", "a ", "a", "A", "_"}, texts("aAbé ")},
	{`bpchar COLLATE "C"`, 1042, []string{"", " ", "a", "a ", "a  ", "a b", "a\x01", "a\x01 "}, texts("a  \x01b")},
	{`char(10) COLLATE "C"`, 1042, []string{"", "a", "a\x01"}, texts("a \x01b")},
	{"macaddr", 829, nil, bytesOf(6, ":")},
	{"macaddr8", 774, nil, bytesOf(8, ":")},
	{"inet", 869, []string{"0.0.0.0/0", "255.255.255.255", "::", "::/0", "10.0.0.0/8", "10.0.0.1/8", "10.0.0.1", "10.0.0.0/9"}, networks},
	{"cidr", 650, []string{"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/9", "10.0.0.0/32", "::/0", "ff00::/8"}, cidrs},
	{"pg_lsn", 3220, []string{"0/0", "FFFFFFFF/FFFFFFFF", "80000000/0"}, func(r *rand.Rand) string { return fmt.Sprintf("%X/%X", r.Uint32()>>r.IntN(32), r.Uint32()) }},
	{"varbit", 1562, []string{"", "0", "00", "00000000", "000000000", "1", "10000000"}, bitStrings},
	{"bit(11)", 1560, []string{"00000000000", "11111111111"}, func(r *rand.Rand) string { return fmt.Sprintf("%011b", r.IntN(2048)&r.IntN(2048)) }},
	{"tid", 27, []string{"(0,0)", "(4294967295,65535)", "(2147483648,1)"}, func(r *rand.Rand) string {
		return fmt.Sprintf("(%d,%d)", r.Uint32()>>r.IntN(32), r.IntN(65536)>>r.IntN(16))
	}},
}

// TestOrderLikeServer has the server order values and compares each pair of them.
func TestOrderLikeServer(t *testing.T) {
	d := pgtest.Shared(t)
	conn := d.Connect("postgres")
	for _, ty := range orderedTypes {
		t.Run(ty.sql, func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(ty.oid), 7))
			values := ty.values
			for range 150 {
				if ty.more != nil {
					values = append(values, ty.more(r))
				}
			}
			testOrder(t, conn, ty, values)
		})
	}
}

func testOrder(t *testing.T, conn *pgx.Conn, ty orderedType, values []string) {
	ctx := t.Context()
	plain := strings.TrimSuffix(ty.sql, ` COLLATE "C"`)
	sql := fmt.Sprintf("DROP TABLE IF EXISTS v; CREATE TEMP TABLE v (x %s)", ty.sql)
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		t.Fatal(err)
	}
	for _, v := range values { // one by one: a few are out of range, which is no harm
		_, err := conn.Exec(ctx, "INSERT INTO v SELECT $1::text::"+plain, pgx.QueryExecModeExec, v)
		if err != nil && (ty.more == nil || !strings.Contains(err.Error(), "range")) {
			t.Fatalf("%q: %v", v, err)
		}
	}
	if _, err := conn.Exec(ctx, "INSERT INTO v VALUES (NULL), (NULL)"); err != nil {
		t.Fatal(err)
	}
	for _, o := range []exec.Order{{}, {NullsFirst: true}, {Descending: true}, {Descending: true, NullsFirst: true}} {
		o.Type, o.Bytewise = ty.oid, strings.Contains(ty.sql, "COLLATE") || ty.oid == 19
		order := "ASC NULLS LAST"
		switch {
		case o.Descending && o.NullsFirst:
			order = "DESC NULLS FIRST"
		case o.Descending:
			order = "DESC NULLS LAST"
		case o.NullsFirst:
			order = "ASC NULLS FIRST"
		}
		if !o.Comparable() {
			t.Fatalf("%s is not comparable", ty.sql)
		}
		res := conn.PgConn().ExecParams(ctx, "SELECT x, dense_rank() OVER w, x::text AS shown FROM v WINDOW w AS (ORDER BY x "+order+") ORDER BY v.x "+order, nil, nil, nil, []int16{1, 0, 0}).Read()
		if res.Err != nil {
			t.Fatal(res.Err)
		}
		if oid := res.FieldDescriptions[0].DataTypeOID; oid != ty.oid {
			t.Fatalf("the type is %d", oid)
		}
		if len(res.Rows) < len(values)/2 {
			t.Fatalf("only %d values of %d", len(res.Rows), len(values))
		}
		for i, a := range res.Rows {
			for j, b := range res.Rows {
				c, err := o.Compare(a[0], b[0])
				want := 0
				if !bytes.Equal(a[1], b[1]) {
					want = i - j
				}
				if err != nil || (c < 0) != (want < 0) || (c > 0) != (want > 0) {
					t.Fatalf("%s %s: %q against %q (%s, %s): %d, not %d: %v", ty.sql, order, a[2], b[2], hex.EncodeToString(a[0]), hex.EncodeToString(b[0]), c, want, err)
				}
			}
		}
	}
}

func TestOrderNotComparable(t *testing.T) {
	for _, oid := range []uint32{0, 25, 1043, 1042, 19, 114, 3802, 1007, 3904, 600, 16500} {
		if (exec.Order{Type: oid}).Comparable() {
			t.Errorf("type %d is comparable without a collation", oid)
		}
	}
	for _, oid := range []uint32{114, 3802, 1009, 3904, 600, 16500} {
		if (exec.Order{Type: oid, Bytewise: true}).Comparable() {
			t.Errorf("type %d is comparable", oid)
		}
	}
}

// TestOrderNaN has NaNs that PostgreSQL does not make itself, but reads.
func TestOrderNaN(t *testing.T) {
	o := exec.Order{Type: 701}
	for _, nan := range []uint64{0x7ff8000000000000, 0xfff8000000000000, 0x7ff8000000000001, 0xffffffffffffffff} {
		v := int8Value(int64(nan))
		for other, want := range map[uint64]int{0x7ff8000000000000: 0, 0x7ff0000000000000: 1, 0xfff0000000000000: 1, 0: 1} {
			if c, err := o.Compare(v, int8Value(int64(other))); c != want || err != nil {
				t.Errorf("%x against %x: %d, %v", nan, other, c, err)
			}
		}
	}
}

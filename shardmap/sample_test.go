package shardmap

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
)

// sqlType describes a key type to the tests against PostgreSQL.
type sqlType struct {
	key KeyType
	// name is the SQL type's.
	name string
	// hash is the documented SQL of a value's hash; %s is the value.
	hash string
	// random makes the text of a value.
	random func(r *rand.Rand) string
	// edges are texts that every run contains.
	edges []string
}

// anyHash is the hash of a key of any type from PostgreSQL 14 on.
const anyHash = "hash_record_extended(ROW(%s), 0)"

// sqlTypes lists all key types; a text column and a varchar column are one.
func sqlTypes() []sqlType {
	integer := func(width int) func(*rand.Rand) string {
		return func(r *rand.Rand) string {
			// All magnitudes, not only the large ones.
			v := int64(r.Uint64()) >> (64 - 8*width) >> r.IntN(8*width)
			return fmt.Sprint(v)
		}
	}
	const intHash = "hashint8extended(%s, 0)"
	return []sqlType{
		{Int2, "int2", intHash, integer(2), ints(math.MinInt16, math.MaxInt16)},
		{Int4, "int4", intHash, integer(4), ints(math.MinInt32, math.MaxInt32)},
		{Int8, "int8", intHash, integer(8), append(ints(math.MinInt64, math.MaxInt64), ints(math.MinInt32, math.MaxInt32)...)},
		{Text, "text", "hashtextextended(%s, 0)", randomString, []string{"", " ", "a", "abcdefghijk", "abcdefghijkl", "abcdefghijklm", "ß", "日本語", "\U0001f600", "e\u0301", "007", "NULL", "\t\n"}},
		{Text, "varchar", "hashtextextended(%s, 0)", randomString, []string{"", "x"}},
		{UUID, "uuid", "uuid_hash_extended(%s, 0)", randomUUID, []string{strings.Repeat("0", 32), strings.Repeat("f", 32)}},
		{Date, "date", anyHash, randomDate, []string{"2000-01-01", "1999-12-31", "2000-02-29", "1900-02-28", "0001-01-01", "0001-12-31 BC", "4713-01-01 BC", "5874896-12-31", "infinity", "-infinity"}},
		{Timestamp, "timestamp", "timestamp_hash_extended(%s, 0)", randomTimestamp, []string{"2000-01-01 00:00:00", "1999-12-31 23:59:59.999999", "294275-12-31 23:59:59.999999", "4713-01-01 00:00:00 BC", "infinity", "-infinity"}},
		{Timestamptz, "timestamptz", "timestamp_hash_extended(%s AT TIME ZONE 'UTC', 0)", randomTimestamptz, []string{"2000-01-01 00:00:00Z", "2000-01-01 00:00:00+15:59:59", "294275-12-31 23:59:59.999999+00", "4713-01-01 00:00:00+00 BC", "infinity", "-infinity"}},
		{Bytea, "bytea", anyHash, randomBytea, []string{"", `\x`, `\x00`, `\xff`, "abc", `\\`, `\000`, `a\\b\377`}},
		{Bool, "bool", anyHash, func(r *rand.Rand) string { return []string{"t", "f"}[r.IntN(2)] }, []string{"true", "FALSE", "on", "of", "1", "0", " yes "}},
		{Numeric, "numeric", "hash_numeric_extended(%s, 0)", randomNumeric, []string{"0", "-0", "0.000", "1", "1.0", "1.00", "10000", "1e4", "9999", "0.0001", "0.00001", "1e-20", "NaN", "Infinity", "-inf", "100000000000000000000", "1e990", "1e-990", "-12345.678900"}},
	}
}

func ints(lowest, highest int64) []string {
	var texts []string
	for _, v := range []int64{lowest, lowest + 1, -256, -2, -1, 0, 1, 2, 255, highest - 1, highest} {
		texts = append(texts, fmt.Sprint(v))
	}
	return texts
}

func randomString(r *rand.Rand) string {
	alphabets := []string{"abcdefghijklmnopqrstuvwxyz0123456789-_", "aäßé日本語\U0001f600 ", "\x01\t\"'\\%"}
	letters := []rune(alphabets[r.IntN(len(alphabets))])
	var b strings.Builder
	for range r.IntN(40) {
		b.WriteRune(letters[r.IntN(len(letters))])
	}
	return b.String()
}

func randomUUID(r *rand.Rand) string {
	digits := fmt.Sprintf("%016x%016x", r.Uint64(), r.Uint64())
	if r.IntN(3) == 0 {
		digits = strings.ToUpper(digits)
	}
	switch r.IntN(4) {
	case 0:
		return digits
	case 1:
		return "{" + digits + "}"
	}
	return digits[:8] + "-" + digits[8:12] + "-" + digits[12:16] + "-" + digits[16:20] + "-" + digits[20:]
}

// randomDay prints days near now, near the borders of eras, or anywhere up to a
// year.
func randomDay(r *rand.Rand, lastYear int) (day, era string) {
	year := 1900 + r.IntN(200)
	switch r.IntN(4) {
	case 0:
		year = 1 + r.IntN(lastYear)
	case 1:
		year, era = 1+r.IntN(4713), " BC"
	}
	astronomical := year
	if era != "" {
		astronomical = 1 - year
	}
	month := 1 + r.IntN(12)
	return fmt.Sprintf("%04d-%02d-%02d", year, month, 1+r.IntN(daysIn(astronomical, month))), era
}

func randomDate(r *rand.Rand) string {
	day, era := randomDay(r, lastDateYear)
	return day + era
}

func randomClock(r *rand.Rand) string {
	s := fmt.Sprintf("%c%02d:%02d", " T"[r.IntN(2)], r.IntN(24), r.IntN(60))
	if r.IntN(5) > 0 {
		s += fmt.Sprintf(":%02d", r.IntN(60))
		if digits := r.IntN(7); digits > 0 {
			s += fmt.Sprintf(".%0*d", digits, r.IntN(int(math.Pow10(digits))))
		}
	}
	return s
}

func randomTimestamp(r *rand.Rand) string {
	day, era := randomDay(r, lastStampYear)
	if r.IntN(8) == 0 {
		return day + era
	}
	zone := ""
	if r.IntN(8) == 0 {
		zone = randomOffset(r)
	}
	return day + randomClock(r) + zone + era
}

func randomOffset(r *rand.Rand) string {
	sign := "+-"[r.IntN(2)]
	hour, minute, second := r.IntN(16), r.IntN(60), r.IntN(60)
	return []string{
		"Z",
		fmt.Sprintf("%c%02d", sign, hour),
		fmt.Sprintf("%c%02d%02d", sign, hour, minute),
		fmt.Sprintf("%c%02d:%02d", sign, hour, minute),
		fmt.Sprintf("%c%02d:%02d:%02d", sign, hour, minute, second),
	}[r.IntN(5)]
}

func randomTimestamptz(r *rand.Rand) string {
	day, era := randomDay(r, lastStampYear)
	return day + randomClock(r) + randomOffset(r) + era
}

func randomBytea(r *rand.Rand) string {
	var b strings.Builder
	hex := r.IntN(2) == 0
	if hex {
		b.WriteString(`\x`)
	}
	for range r.IntN(40) {
		c := byte(r.Uint32())
		switch {
		case hex:
			fmt.Fprintf(&b, "%02x", c)
		case c == '\\':
			b.WriteString(`\\`)
		case c < ' ' || c >= 0x7f || r.IntN(9) == 0:
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func randomNumeric(r *rand.Rand) string {
	digits := func(n int) string {
		b := make([]byte, r.IntN(n))
		for i := range b {
			// Many zeros: the groups that are stripped or stand in the middle.
			if r.IntN(2) == 0 {
				b[i] = '0' + byte(r.IntN(10))
			} else {
				b[i] = '0'
			}
		}
		return string(b)
	}
	s := []string{"", "-", "+"}[r.IntN(3)] + digits(20) + "0"
	if r.IntN(2) == 0 {
		s += "." + digits(20)
	}
	if r.IntN(4) == 0 {
		s += fmt.Sprintf("e%d", r.IntN(60)-30)
	}
	return s
}

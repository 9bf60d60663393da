package main

import (
	_ "embed"
	"fmt"
)

// Tables with values of all types, of which statements over all shards make use.

//go:embed testdata/diff/values.sql
var valuesSchema string

const valuesPlaces = `      facts:        {key: k}
      sums:         {key: k}
      shapes:       {key: k}
      nothing:      {key: k}
      huge:         {key: k}
      '"Odd Table"': {key: '"Key"'}
      side.visits:  {key: k}
      links:        {key: k}
      names:        {reference: true}
`

var valuesTables = []comparedTable{
	{"facts", 'k'}, {"sums", 'k'}, {"shapes", 'k'}, {"nothing", 'k'}, {"huge", 'k'}, {`"Odd Table"`, 'k'}, {"side.visits", 'k'}, {"links", 'k'}, {"names", 'r'},
}

// Values for the columns of facts, one for each row in turn.
var (
	oddTexts = []string{"'a'", "'B'", "'b'", "'ä'", "'a b'", "'a-b'", "NULL", "''", "' '", "'ß'", "'z'", `E'tab\t'`, `E'new\nline'`, `'back\slash'`, `'"quoted"'`,
		"'{brace,NULL}'", "'日本'", "'🐘'", "'NULL'", "'it''s'", "'%_'", "'A'", "'é'", `E'e\u0301'`}
	oddNumbers = []string{"0", "1.10", "-0.0001", "NULL", "1e20", "123456789012345678901234567890.123456789", "2.5", "-2.50", "1.1", "0.00", "100", "1e-10"}
	oddBytes   = []string{`'\x'`, `'\x00'`, `'\xff00'`, "NULL", `'\x6162'`, `'\x5c78'`}
	oddSpans   = []string{"'1 day'", "'24 hours'", "'1 month'", "'30 days'", "NULL", "'-1 year 2 days'", "'0'"}
)

// valuesRows gives the rows of the tables as statements with the kind of their table.
func valuesRows(put func(kind byte, format string, args ...any)) {
	turn := func(list []string, i int) string { return list[i%len(list)] }
	for i := range 60 {
		k := i*i%23 + 1
		put('k', "facts VALUES (%d, %d, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, '%s', %s, %s, %s, %s, %s, %s)", k, i,
			null(i, 7, fmt.Sprint(i%5-2)), null(i, 6, fmt.Sprint(i*37%11)), null(i, 9, fmt.Sprint(int64(i)*1_000_000_007%9_999_999_999)),
			turn(oddNumbers, i), null(i, 8, fmt.Sprintf("%d.%03d", i%13-6, i*77%1000)), null(i, 10, fmt.Sprintf("%d.25", i%6)), null(i, 11, fmt.Sprintf("%d.5", i*3%17-8)),
			null(i, 5, fmt.Sprint(i%2 == 0)), turn(oddTexts, i), turn(oddTexts, i*5%24), null(i, 4, fmt.Sprintf("'v%d'", i%6)), turn([]string{"x", "y ", "  z", ""}, i),
			null(i, 9, fmt.Sprintf("date '2024-02-27' + %d", i%5)), null(i, 7, fmt.Sprintf("timestamp '2024-01-01 00:00' + interval '%d hours'", i*5%48)),
			fmt.Sprintf("'2024-03-31 0%d:30:00+0%d'", i%4, i%3), turn(oddSpans, i), null(i, 6, fmt.Sprintf("'%08d-0000-4000-8000-00000000000%d'", i*13%7, i%10)), turn(oddBytes, i))
	}
	for i := range 90 { // all of its text has the database's collation, so that its groups are made on the shards
		put('k', "sums VALUES (%d, %d, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, '%s', %s, %s, %s, %s)", i*i%29+1, i,
			null(i, 7, fmt.Sprint(i%5-2)), null(i, 6, fmt.Sprint(i*37%11)), null(i, 9, fmt.Sprint(int64(i%40)*1_000_000_007%9_999_999_999)),
			turn(oddNumbers, i*7), null(i, 8, fmt.Sprintf("%d.%03d", i%13-6, i%4*77)), null(i, 10, fmt.Sprintf("%d.25", i%6)), null(i, 11, fmt.Sprintf("%d.5", i*3%17-8)),
			null(i, 5, fmt.Sprint(i%2 == 0)), turn(oddTexts, i*5), null(i, 4, fmt.Sprintf("'v%d'", i%6)), turn([]string{"x", "y ", "  z", ""}, i),
			null(i, 9, fmt.Sprintf("date '2024-02-27' + %d", i%5)), null(i, 7, fmt.Sprintf("timestamp '2024-01-01 00:00' + interval '%d hours'", i*5%48)),
			fmt.Sprintf("'2024-03-31 0%d:30:00+0%d'", i%4, i%3), turn(oddSpans, i))
	}
	for i := range 16 {
		put('k', "shapes VALUES (%d, %s, %s, %s, %s, B'%04b', B'%b', %s, %s, %s, '%02d:30', '%d.50', %d)", i+1,
			turn([]string{"'{1,2,3}'", "'{}'", "NULL", "'{3,NULL}'", "'{{1,2},{3,4}}'"}, i), turn([]string{`'{a,"b c",NULL}'`, `'{"\"q\"","back\\slash"}'`, "NULL", "'{}'"}, i),
			turn([]string{`'{"a": 1, "a": 2}'`, "'[1, 2, null]'", "NULL", `'"x"'`}, i), turn([]string{`'{"a": {"b": [1, 2]}, "n": 1.50}'`, "'[]'", "NULL", "'null'", `'{"a": 5}'`}, i), i, i+1,
			turn([]string{"'10.0.0.1'", "'10.0.0.0/8'", "'::1'", "NULL"}, i), turn([]string{"'sad'", "'happy'", "'ok'", "NULL"}, i), turn([]string{"'[1,5)'", "'empty'", "'(,3]'", "NULL"}, i), i, i*3%7, i*11%5)
	}
	for i, v := range []string{"9223372036854775807, 2147483647, 1e308, 'NaN', '178000000 years'", "9223372036854775806, 2147483646, 1e308, 'Infinity', '1 day'",
		"-9223372036854775808, -2147483648, 'NaN', '-Infinity', NULL", "1, 1, '-0', 1e100, '-1 day'", "NULL, NULL, 'Infinity', NULL, '100000000 years'", "0, 0, '-Infinity', 0, '1 second'"} {
		put('k', "huge VALUES (%d, %s)", i+1, v)
	}
	for i := range 8 {
		put('k', `"Odd Table" VALUES (%d, %s, %s, %d.50)`, i+1, turn(oddTexts, i*2), null(i, 4, fmt.Sprint(i%3)), i%4)
		put('k', "side.visits VALUES (%d, 's%d')", i%5+1, i)
		put('r', "names VALUES (%d, %s)", i, null(i, 6, fmt.Sprintf("'name %d'", i%5)))
		for j := range i%3 + 1 {
			put('k', "links VALUES (%d, %d)", i+1, (i*3+j*5)%11+1)
		}
	}
}

package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Tables whose rows are placed by ranges of their key, and conditions on ranges of it.

const rangesSchema = `
CREATE SCHEMA other;
CREATE FUNCTION other.odd(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 % 2 = 1';
CREATE OPERATOR other.< (LEFTARG = int, RIGHTARG = int, FUNCTION = other.odd);
CREATE TABLE big (k bigint PRIMARY KEY, n int, note text);
CREATE TABLE small (k int PRIMARY KEY, n int, note text);
CREATE TABLE days (k date PRIMARY KEY, n int, note text);
CREATE TABLE words (k text COLLATE "C" PRIMARY KEY, n int, note text);
CREATE TABLE tongues (k text COLLATE "und-x-icu" PRIMARY KEY, n int, note text);
CREATE TABLE amounts (k numeric PRIMARY KEY, n int, note text);
CREATE VIEW v_big AS SELECT k, n, note FROM big;
CREATE VIEW v_small AS SELECT k, n, note FROM small;
CREATE VIEW v_days AS SELECT k, n, note FROM days;
CREATE VIEW v_words AS SELECT k COLLATE "und-x-icu" AS k, n, note FROM words;
CREATE VIEW v_tongues AS SELECT k COLLATE "C" AS k, n, note FROM tongues;
CREATE VIEW v_amounts AS SELECT k, n, note FROM amounts;
`

const rangesPlaces = `      big:     {key: k, range: [{shard: s0, to: 100}, {shard: s1, from: 100, to: 200}, {shard: s2, from: 200}]}
      small:   {key: k, range: [{shard: s1, to: 50}, {shard: s0, from: 50, to: 120}, {shard: s1, from: 150, to: 220}], default: s2}
      days:    {key: k, range: [{shard: s0, to: "2024-02-01"}, {shard: s1, from: "2024-02-01", to: "2024-03-01"}, {shard: s2, from: "2024-03-01"}]}
      words:   {key: k, range: [{shard: s0, to: h}, {shard: s1, from: h, to: p}, {shard: s2, from: p}]}
      tongues: {key: k, range: [{shard: s0, to: h}, {shard: s1, from: h, to: p}, {shard: s2, from: p}]}
      amounts: {key: k, range: [{shard: s0, to: 0}, {shard: s1, from: 0, to: "Infinity"}, {shard: s2, from: "Infinity"}]}
`

// rangedTable is one of the tables: all is a query of all keys that conditions may mean, and
// owner the shard of one as SQL; "" where keys are dense, and a range of them has no end.
type rangedTable struct {
	name, cast, all, owner string
	random                 func(*rand.Rand) string // a value without quotes
	odd                    []string                // values that are read in their own way, or not at all
	numbers                bool                    // literals may stand without quotes
}

func rangedTables() []rangedTable {
	number := func(r *rand.Rand) string {
		if r.IntN(2) == 0 {
			return fmt.Sprint(pickOf(r, 50, 100, 120, 150, 200, 220) + r.IntN(3) - 1) // where ranges begin
		}
		return fmt.Sprint(r.IntN(330) - 15)
	}
	word := func(r *rand.Rand) string {
		letters := "aAbhHiopPqzäÄ"
		all := []rune(letters)
		return string([]rune{all[r.IntN(len(all))], all[r.IntN(len(all))]}[:1+r.IntN(2)])
	}
	return []rangedTable{
		{"big", "bigint", "SELECT k::bigint FROM generate_series(-20, 320) k", "CASE WHEN k < 100 THEN 's0' WHEN k < 200 THEN 's1' ELSE 's2' END",
			number, []string{"9223372036854775807", "x", "99999999999999999999", " 150 "}, true},
		{"small", "int", "SELECT k::int FROM generate_series(-20, 320) k",
			"CASE WHEN k < 50 THEN 's1' WHEN k < 120 THEN 's0' WHEN k < 150 THEN 's2' WHEN k < 220 THEN 's1' ELSE 's2' END",
			number, []string{"2147483647", "2147483648", "-2147483649", "1.5"}, true},
		{"days", "date", "SELECT date '2023-12-20' + i AS k FROM generate_series(0, 110) i",
			"CASE WHEN k < '2024-02-01' THEN 's0' WHEN k < '2024-03-01' THEN 's1' ELSE 's2' END",
			func(r *rand.Rand) string {
				if r.IntN(2) == 0 {
					return pickOf(r, "2024-01-31", "2024-02-01", "2024-02-29", "2024-03-01")
				}
				return time.Date(2023, 12, 25+r.IntN(100), 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
			}, []string{"infinity", "-infinity", "Feb 3 2024", "2024-02-30"}, false},
		{"words", "text", "", "", word, []string{"", "hh'h"}, false},
		{"tongues", "text", "", "", word, []string{"", "ss"}, false},
		{"amounts", "numeric", "", "", func(r *rand.Rand) string { return fmt.Sprintf("%.2f", float64(r.IntN(4000)-2000)/16) },
			[]string{"NaN", "Infinity", "-Infinity", "1e3", "0.00"}, true},
	}
}

// spans makes conditions on ranges of keys.
type spans struct {
	*rand.Rand
	of    *rangedTable
	args  []any
	tight bool // each shard that the route has is one that keys of the condition may be on
	lists int  // of values, or unions
}

func pickOf[T any](r *rand.Rand, all ...T) T { return all[r.IntN(len(all))] }

// value is one that a key is compared with.
func (s *spans) value() string {
	text := s.of.random(s.Rand)
	switch s.IntN(30) {
	case 0:
		text, s.tight = pickOf(s.Rand, s.of.odd...), false
	case 1:
		s.tight = false // keys of a span of NULL are none, which the whole of it says
		return "NULL"
	case 2:
		if s.of.numbers {
			s.tight = false
			return text + pickOf(s.Rand, "::numeric", "::float8", " + 1")
		}
	}
	quoted := "'" + strings.ReplaceAll(text, "'", "''") + "'"
	switch s.IntN(6) {
	case 0:
		s.args = append(s.args, text)
		return fmt.Sprintf("$%d::%s", len(s.args), s.of.cast)
	case 5:
		var arg any = text
		if n, err := strconv.Atoi(text); err == nil && s.of.cast == "bigint" {
			arg = pickOf(s.Rand, any(int64(n)), any(int32(n)))
		} else if err == nil && s.of.cast == "int" {
			arg = int32(n)
		} else {
			s.tight = false // the parameter is text
		}
		s.args = append(s.args, arg)
		return fmt.Sprintf("$%d", len(s.args))
	case 1:
		return quoted + "::" + s.of.cast
	case 2:
		if s.of.numbers && s.tight {
			return text
		}
	}
	return quoted
}

// one is a condition on a column.
func (s *spans) one(k string) string {
	switch s.IntN(8) {
	case 0, 1, 2:
		return fmt.Sprintf("%s BETWEEN %s AND %s", k, s.value(), s.value())
	case 3:
		return fmt.Sprintf("%s %s %s", s.value(), pickOf(s.Rand, "<", "<=", ">", ">="), k)
	case 4:
		s.lists++
		return fmt.Sprintf("%s IN (%s, %s, %s)", k, s.value(), s.value(), s.value())
	case 5:
		if s.IntN(4) == 0 {
			s.tight = false
			return fmt.Sprintf(pickOf(s.Rand, "%s NOT BETWEEN %s AND %s", "%s BETWEEN SYMMETRIC %s AND %s", "NOT (%s < %s OR %[1]s > %[3]s)"), k, s.value(), s.value())
		}
	}
	return fmt.Sprintf("%s %s %s", k, pickOf(s.Rand, "<", "<=", ">", ">="), s.value())
}

// condition is one of several parts.
func (s *spans) condition(k string) string {
	var all []string
	for range 1 + s.IntN(3) {
		if s.IntN(4) > 0 {
			all = append(all, s.one(k))
			continue
		}
		s.lists++
		or := s.one(k) + " OR " + s.one(k)
		if s.IntN(2) == 0 {
			or += " AND " + s.one(k)
		}
		all = append(all, "("+or+")")
	}
	s.tight = s.tight && s.lists < 2 // of two lists the shorter is looked at
	return strings.Join(all, " AND ")
}

// statement is a text with a condition, which it returns too.
func (s *spans) statement() (st statement, condition string, writes bool) {
	t, k := s.of.name, "k"
	if s.IntN(4) == 0 {
		k = "a.k"
	}
	c := s.condition(k)
	st.args = s.args
	switch s.IntN(14) {
	case 0, 1:
		st.sql, writes = "UPDATE "+t+" a SET n = n + 1 WHERE "+c, true
	case 2:
		st.sql, writes = "DELETE FROM "+t+" a WHERE "+c+" RETURNING k, n", true
	case 3:
		st.sql, writes = "SELECT k, n FROM "+t+" a WHERE "+c+" FOR UPDATE", true
	case 4:
		st.sql = "SELECT count(*), sum(n), min(k) FROM " + t + " a WHERE " + c
	case 5:
		st.sql, st.ordered = "SELECT k, n FROM "+t+" a WHERE "+c+" ORDER BY n DESC, k LIMIT 5", true
	case 6:
		st.sql = "SELECT * FROM (SELECT k, n FROM " + t + ") AS a (k, m) WHERE " + c
	case 7:
		st.sql = "WITH w AS (SELECT * FROM " + t + ") SELECT k FROM w a WHERE " + c
	case 8:
		st.sql = "SELECT k FROM " + t + " a WHERE " + c + " UNION ALL SELECT n::" + s.of.cast + " FROM " + t + " a WHERE " + c
		if s.of.name == "days" {
			st.sql = "SELECT k FROM " + t + " a WHERE " + c + " UNION ALL SELECT k + 1 FROM " + t + " a WHERE " + c
		}
	case 9:
		st.sql = "SELECT a.k, b.n FROM " + t + " a JOIN (SELECT k AS j, n FROM " + t + ") b ON b.j = a.k WHERE " + c
		if s.IntN(2) == 0 {
			st.sql = strings.Replace(st.sql, "JOIN", "LEFT JOIN", 1)
		}
	case 10:
		st.sql = "SELECT k, n FROM v_" + t + " a WHERE " + c
	case 11:
		if s.of.cast == "text" {
			st.sql = "SELECT k, n FROM v_" + t + " a WHERE " + c
			break
		}
		st.sql = "SELECT n % 3, count(*) FROM " + t + " a WHERE " + c + " GROUP BY 1"
	default:
		st.sql = "SELECT k, n, note FROM " + t + " a WHERE " + c
	}
	return st, c, writes
}

// shards returns the shards that keys may be on for which a condition holds, as one server has
// it; false when it fails.
func (s *spans) shards(t *testing.T, c *pgx.Conn, condition string) (string, bool) {
	t.Helper()
	o := ask(t, c, modes[1], "SELECT DISTINCT "+s.of.owner+" FROM ("+s.of.all+") a WHERE "+condition+" ORDER BY 1", s.args)
	var all []string
	for _, row := range o.cells {
		all = append(all, strings.Trim(row[0], `"`))
	}
	return strings.Join(all, ", "), o.err == nil
}

// routeOf returns the shards that EXPLAIN (ROUTE) names; "" for any.
func routeOf(t *testing.T, c *pgx.Conn, st *statement) string {
	t.Helper()
	o := ask(t, c, modes[1], "EXPLAIN (ROUTE) "+st.sql, st.args)
	if o.err != nil {
		t.Fatalf("%s: %v", st.line, o.err)
	}
	first := strings.Trim(o.cells[0][0], `"`)
	for _, begin := range []string{"Route: shard ", "Route: its rows on each of: "} {
		if rest, ok := strings.CutPrefix(first, begin); ok {
			all := strings.Split(rest, ", ")
			slices.Sort(all)
			return strings.Join(all, ", ")
		}
	}
	if strings.HasPrefix(first, "Route: any shard") {
		return ""
	}
	return first
}

// TestRanges compares conditions on ranges of keys with one server's answers, and the shards
// that are asked with those that may have such keys. SHARDPROXY_TEST_SPANS is how many.
func TestRanges(t *testing.T) {
	b := &both{limit: 20 * time.Second}
	tables := rangedTables()
	for i := range tables {
		b.tables = append(b.tables, comparedTable{tables[i].name, 'k'})
	}
	b.start(t, 3, rangesSchema, rangesPlaces)
	eventually(t, "the catalog is there", func() bool {
		_, err := b.proxy.Exec(within(t, 10*time.Second), "SELECT * FROM big WHERE k = 0")
		return err == nil
	})
	r := rand.New(rand.NewPCG(uint64(testNumber(t, "SHARDPROXY_TEST_SEED", 1)), 7))
	b.fillRanges(r, tables)
	b.oddRanges(t)
	n, routes := counts{}, map[string]int{}
	for i := range testNumber(t, "SHARDPROXY_TEST_SPANS", 600) {
		s := &spans{Rand: r, of: &tables[r.IntN(len(tables))], tight: true}
		st, condition, writes := s.statement()
		m := modes[r.IntN(len(modes))]
		st.line = fmt.Sprintf("statement %d, args %v: %s", i, st.args, st.sql)
		n.all++
		got := b.one(t, &st, m, writes, writes && strings.HasPrefix(st.sql, "UPDATE") && r.IntN(2) == 0)
		if n.add(t, got, &st, writes); got != nil && got.refused() != "" && testing.Verbose() {
			t.Logf("refused: %s: %s", st.line, got.refused())
		}
		want, ok := "", false
		if s.tight && s.of.owner != "" {
			want, ok = s.shards(t, b.direct, condition)
		}
		if !ok {
			continue
		}
		route := routeOf(t, b.proxy, &st)
		if routes[strings.ReplaceAll(route, "s", "")]++; route != want {
			t.Errorf("%s: goes to %q, its keys are on %q", st.line, route, want)
		}
	}
	t.Logf("%d statements: %d equal, %d of them errors, %d refused, %d writes; %v; routes %v", n.all, n.equal, n.errors, n.refused, n.writes, n.codes, routes)
	if n.refused > n.all/20 || n.errors > n.all/5 || routes["0"]+routes["1"]+routes["2"] < n.all/50 {
		t.Error("too many are refused, fail, or run on several shards")
	}
	t.Run("copy", func(t *testing.T) { b.copiesRanges(t) })
	t.Run("cursors", func(t *testing.T) { b.readsRanges(t) })
}

// oddRanges compares conditions that order keys otherwise than ranges do.
func (b *both) oddRanges(t *testing.T) {
	for _, sql := range []string{
		"SELECT count(*) FROM v_words WHERE k < 'P'", "SELECT count(*) FROM (SELECT k COLLATE \"und-x-icu\" AS k FROM words) w WHERE k < 'P'",
		"SELECT count(*) FROM words WHERE k COLLATE \"und-x-icu\" < 'P'", "SELECT count(*) FROM words WHERE k < 'P' COLLATE \"und-x-icu\"",
		"SELECT count(*) FROM tongues WHERE k < 'P'", "SELECT count(*) FROM v_tongues WHERE k < 'P'", "SELECT count(*) FROM words WHERE k < 'P'",
		"SELECT count(*) FROM words a JOIN tongues b ON b.k COLLATE \"C\" = a.k WHERE b.k < 'P'",
		"SELECT count(*) FROM small WHERE k OPERATOR(other.<) 40", "SELECT count(*) FROM small WHERE k OPERATOR(pg_catalog.<) 40",
		"SELECT count(*) FROM amounts WHERE k > 'Infinity'", "SELECT count(*) FROM amounts WHERE k < 'NaN'", "SELECT count(*) FROM amounts WHERE k <= '-Infinity'",
		"SELECT count(*) FROM big WHERE k < 149.5 AND k > 100", "SELECT count(*) FROM big WHERE k > 9223372036854775808",
		"SELECT count(*) FROM big WHERE k < 100 OR k = '1x'", "SELECT count(*) FROM days WHERE k < '2024-01-10' OR k = 'Feb 3 2024'",
		"UPDATE big SET k = 1000 WHERE k BETWEEN 100 AND 101 AND k < 101", "DELETE FROM big WHERE k > 5 AND k < 6",
	} {
		for _, m := range modes[:3] {
			st := statement{sql: sql, line: sql}
			got := b.one(t, &st, m, !strings.HasPrefix(sql, "SELECT"), false)
			if st.wrong != "" || got.refused() != "" {
				t.Error(st.wrong, sql, got.refused())
			}
		}
	}
}

// fillRanges writes the rows of both sides.
func (b *both) fillRanges(r *rand.Rand, tables []rangedTable) {
	for i := range tables {
		keys := map[string]bool{}
		for range 200 {
			keys[tables[i].random(r)] = true
		}
		var rows []string
		for k := range keys {
			rows = append(rows, fmt.Sprintf("('%s', %d, 'note')", k, r.IntN(50)))
		}
		if tables[i].name == "amounts" {
			rows = append(rows, "('NaN', 1, '')", "('Infinity', 2, '')", "('-Infinity', 3, '')")
		}
		sql := "INSERT INTO " + tables[i].name + " VALUES " + strings.Join(rows, ", ") + " ON CONFLICT DO NOTHING"
		must(b.t, b.owner, sql)
		must(b.t, b.proxy, sql)
	}
	b.alike("the rows at the start")
	b.save()
}

// copiesRanges compares COPY TO STDOUT.
func (b *both) copiesRanges(t *testing.T) {
	for _, sql := range []string{
		"COPY (SELECT * FROM big WHERE k BETWEEN 120 AND 150) TO STDOUT", "COPY (SELECT * FROM big WHERE k >= 120) TO STDOUT (FORMAT csv, HEADER)",
		"COPY (SELECT * FROM big WHERE k > 7 AND k < 3) TO STDOUT (FORMAT csv, HEADER)", "COPY (SELECT * FROM days WHERE k < '2024-01-15') TO STDOUT",
	} {
		var sides [2][]string
		for i, c := range []*pgx.Conn{b.direct, b.proxy} {
			var out bytes.Buffer
			if _, err := c.PgConn().CopyTo(within(t, 20*time.Second), &out, sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			sides[i] = strings.Split(out.String(), "\n")
			slices.Sort(sides[i])
		}
		if !slices.Equal(sides[0], sides[1]) {
			t.Errorf("%s: %q, want %q", sql, sides[1], sides[0])
		}
	}
}

// readsRanges reads a range of one shard by a cursor, beside a write of another range.
func (b *both) readsRanges(t *testing.T) {
	for _, c := range []*pgx.Conn{b.direct, b.proxy} {
		must(t, c, "BEGIN")
		must(t, c, "DECLARE c CURSOR FOR SELECT k FROM big WHERE k BETWEEN 100 AND 199 ORDER BY k")
		must(t, c, "UPDATE big SET n = 0 WHERE k >= 200")
	}
	got, want := ask(t, b.proxy, modes[0], "FETCH 10 FROM c", nil), ask(t, b.direct, modes[0], "FETCH 10 FROM c", nil)
	if d := difference(&got, &want, true); d != "" || len(want.rows) != 10 {
		t.Error(d, len(want.rows))
	}
	b.onBoth(t, "COMMIT")
	b.alike("a cursor")
}

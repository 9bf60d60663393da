package rebalance

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/catalog"
	"shardproxy/internal/pgtest"
	"shardproxy/shardmap"
)

const compareSlots = 64

// comparePair is two databases with the same tables.
type comparePair struct {
	t      testing.TB
	dbs    [2]*pgtest.Database
	conns  [2]*pgx.Conn
	tables []*Table
	all    *Set
}

// newComparePair runs SQL on two databases and returns them with tables whose key is k.
func newComparePair(t testing.TB, sql string, names ...string) *comparePair {
	t.Helper()
	p := &comparePair{t: t, all: NewSet(compareEverySlot(), compareSlots)}
	for i := range p.dbs {
		p.dbs[i] = pgtest.Shared(t)
		p.dbs[i].Exec(sql)
		p.conns[i] = p.dbs[i].Connect("postgres")
	}
	c, err := catalog.LoadTables(t.Context(), p.conns[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		of, res := c.Table("public", name, c.SystemPath())
		if res != catalog.Resolved {
			t.Fatal(name, res)
		}
		table, err := NewTable(of, []string{"k"}, compareSlots)
		if err != nil {
			t.Fatal(err)
		}
		p.tables = append(p.tables, table)
	}
	return p
}

func compareEverySlot() []shardmap.Slot {
	all := make([]shardmap.Slot, compareSlots)
	for i := range all {
		all[i] = shardmap.Slot(i)
	}
	return all
}

// compare compares; an error is fatal. It leaves no transaction.
func (p *comparePair) compare(slots *Set, o CompareOptions) *Comparison {
	p.t.Helper()
	c, err := Compare(p.t.Context(), p.conns[0], p.conns[1], p.tables, slots, o)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, conn := range p.conns {
		if status := conn.PgConn().TxStatus(); status != 'I' {
			p.t.Fatalf("the connection's transaction is %c", status)
		}
	}
	return c
}

// comparedRows says the rows in short, sorted.
func comparedRows(c *Comparison) string {
	var all []string
	for _, t := range c.Tables {
		for _, r := range t.Rows {
			all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s", r.Kind, r.Key, strings.Join(r.Columns, ","))))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

const compareTypes = `
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, v text, w text, g text GENERATED ALWAYS AS ('g' || v) STORED);
INSERT INTO t (id, k, v, w) SELECT i, i / 3, 'v' || i, 'w' || i FROM generate_series(1, 40) i`

// TestCompareTypes changes one value of each type in the smallest way that there is, and back. The databases print values
// in different ways.
func TestCompareTypes(t *testing.T) {
	p := newComparePair(t, compareTypes, "t")
	for i, settings := range []string{
		"DateStyle = 'SQL, DMY'; TimeZone = 'Asia/Kolkata'; IntervalStyle = 'iso_8601'; extra_float_digits = -15; bytea_output = 'escape'; search_path = pg_catalog; lc_monetary = 'C'",
		"DateStyle = 'German'; TimeZone = 'America/New_York'; IntervalStyle = 'sql_standard'; extra_float_digits = 0; bytea_output = 'hex'; quote_all_identifiers = on",
	} {
		for _, one := range strings.Split(settings, "; ") {
			p.dbs[i].Exec("ALTER DATABASE " + p.dbs[i].Name + " SET " + one)
		}
		p.conns[i] = p.dbs[i].Connect("postgres")
	}
	for _, test := range []struct{ typ, a, b string }{
		{"bool", "true", "false"},
		{"int2", "1", "2"}, {"int4", "1", "-1"}, {"int8", "9223372036854775806", "9223372036854775807"},
		{"numeric", "1.0", "1.00"}, {"numeric", "0.12345678901234567890123456789", "0.12345678901234567890123456788"}, {"numeric", "NaN", "Infinity"},
		{"float4", "0.1", "0.10000001"}, {"float8", "0.1", "0.10000000000000002"}, {"float8", "0", "-0"}, {"float8", "5e-324", "1e-323"}, {"float8", "NaN", "Infinity"},
		{"text", "", "NULL"}, {"text", "a", "a "}, {"text", "a", "A"}, {"text", "NULL", "NULL text"}, {"text", "\u00e9", "e\u0301"},
		{"varchar(9)", "(", "\""}, {"char(5)", "a", "b"}, {"\"char\"", "a", "b"}, {"name", "a", "b"},
		{"bytea", `\x00ff`, `\x00fe`}, {"bytea", `\x`, "NULL"}, {"bytea", `\x00`, `\x`},
		{"date", "2024-02-03", "2024-03-02"}, {"date", "infinity", "-infinity"}, {"date", "0044-03-15 BC", "0044-03-15"},
		{"time", "12:00:00", "12:00:00.000001"}, {"timetz", "12:00:00+00", "13:00:00+01"},
		{"timestamp", "2024-02-03 04:05:06.000001", "2024-02-03 04:05:06"}, {"timestamptz", "2024-11-03 01:30:00-04", "2024-11-03 01:30:00-05"},
		{"interval", "1 day", "24 hours"}, {"interval", "30 days", "1 month"}, {"interval", "1 microsecond", "-1 microsecond"},
		{"uuid", "00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000001"},
		{"json", `{"a":1}`, `{"a": 1}`}, {"jsonb", `{"a":1.0}`, `{"a":1.00}`}, {"jsonb", "null", "NULL"}, {"jsonpath", "$.a", "$.b"},
		{"xml", "<a/>", "<a></a>"}, {"xml", `<?xml version="1.0"?><a/>`, "<a/>"},
		{"inet", "10.0.0.1/24", "10.0.0.1"}, {"cidr", "10.0.0.0/24", "10.0.0.0/25"}, {"macaddr", "08:00:2b:01:02:03", "08:00:2b:01:02:02"}, {"macaddr8", "08:00:2b:01:02:03:04:05", "08:00:2b:01:02:03:04:04"},
		{"bit(8)", "00000000", "00000001"}, {"varbit", "0", "00"},
		{"point", "(1,2)", "(2,1)"}, {"point", "(0.1,0)", "(0.10000000000000002,0)"}, {"line", "{1,2,3}", "{1,2,4}"}, {"lseg", "((1,2),(3,4))", "((3,4),(1,2))"},
		{"box", "((1,1),(0,0))", "((2,1),(0,0))"}, {"path", "((0,0),(1,1))", "[(0,0),(1,1)]"}, {"polygon", "((0,0),(1,1))", "((1,1),(0,0))"}, {"circle", "<(0,0),1>", "<(0,0),2>"},
		{"money", "1.00", "1.01"}, {"int4range", "[1,5)", "[1,6)"}, {"int4range", "empty", "NULL"}, {"numrange", "[1,2]", "[1,2)"}, {"int4multirange", "{[1,2),[4,5)}", "{[1,5)}"},
		{"tsvector", "a:1 b:2", "a:1 b:3"}, {"tsquery", "a & b", "a | b"}, {"pg_lsn", "0/0", "0/1"}, {"regclass", "t", "pg_class"},
		{"int[]", "{1,2}", "{2,1}"}, {"int[]", "{}", "NULL"}, {"int[]", "{NULL}", "{}"}, {"int[]", "[0:1]={1,2}", "{1,2}"}, {"text[]", `{NULL}`, `{"NULL"}`}, {"text[]", `{a,b}`, `{"a,b"}`}, {"text[]", "{}", `{""}`},
		{"float8[]", "{0.1}", "{0.10000000000000002}"}, {"timestamptz[]", "{2024-01-01 00:00:00+00}", "{2024-01-01 00:00:00.000001+00}"}, {"bytea[]", `{"\\x00"}`, `{"\\x01"}`},
		{"mood", "sad", "ok"}, {"pair", "(1,)", `(1,"")`}, {"pair", "(,)", "NULL"}, {"pair[]", `{"(1,a)"}`, `{"(1,b)"}`}, {"positive", "1", "2"},
	} {
		t.Run(test.typ+" "+test.a+" "+test.b, func(t *testing.T) {
			p.t = t
			value := func(text string) string {
				if text == "NULL" {
					return text
				}
				return "'" + strings.ReplaceAll(text, "'", "''") + "'::public_or_not"
			}
			typed := func(text string) string {
				typ := test.typ
				if strings.HasPrefix(typ, "mood") || strings.HasPrefix(typ, "pair") || typ == "positive" {
					typ = "public." + typ
				}
				return strings.ReplaceAll(value(text), "public_or_not", typ)
			}
			for i, db := range p.dbs {
				db.Node.Exec(db.Name, "SET LOCAL search_path = public; SET LOCAL DateStyle = ISO; ALTER TABLE t DROP COLUMN IF EXISTS x; ALTER TABLE t ADD x "+test.typ+
					"; UPDATE t SET x = "+typed(test.a)+strings.Repeat("; UPDATE t SET w = w WHERE id = 5", i))
			}
			p.tables = compareReload(t, p.conns[0], "t")
			if c := p.compare(p.all, CompareOptions{}); !c.Equal() || c.Tables[0].Source != 40 || c.Tables[0].Target != 40 {
				t.Fatalf("rows that are equal:\n%s", c)
			}
			p.dbs[1].Exec("UPDATE public.t SET x = " + typed(test.b) + " WHERE id = 7")
			c := p.compare(p.all, CompareOptions{})
			if got := comparedRows(c); got != `different ("id") = (7) "x"` || len(c.Tables[0].Slots) != 1 || c.Tables[0].More {
				t.Errorf("%s and %s:\n%s", test.a, test.b, c)
			}
		})
	}
}

// compareReload returns tables as they are now.
func compareReload(t testing.TB, conn *pgx.Conn, names ...string) (all []*Table) {
	t.Helper()
	c, err := catalog.LoadTables(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		of, _ := c.Table("public", name, c.SystemPath())
		table, err := NewTable(of, []string{"k"}, compareSlots)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, table)
	}
	return all
}

// TestCompareRows seeds differences of whole rows, and names them whether rows are divided into buckets or not.
func TestCompareRows(t *testing.T) {
	for _, test := range []struct{ name, source, target, want string }{
		{"missing", "", "DELETE FROM t WHERE id = 9", `missing ("id") = (9)`},
		{"extra", "", "INSERT INTO t (id, k) VALUES (99, 5)", `extra ("id") = (99)`},
		{"swapped between rows of one slot", "", "UPDATE t SET v = CASE id WHEN 6 THEN 'v7' ELSE 'v6' END WHERE id IN (6, 7)", `different ("id") = (6) "v"; different ("id") = (7) "v"`},
		{"swapped between columns", "", "UPDATE t SET v = w, w = v WHERE id = 3", `different ("id") = (3) "v","w"`},
		{"moved over the border of columns", "UPDATE t SET v = 'ab', w = 'c' WHERE id = 3", "UPDATE t SET v = 'a', w = 'bc' WHERE id = 3", `different ("id") = (3) "v","w"`},
		{"a separator in a value", "UPDATE t SET v = 'a,b', w = 'c' WHERE id = 3", "UPDATE t SET v = 'a', w = 'b,c' WHERE id = 3", `different ("id") = (3) "v","w"`},
		{"a null moved", "UPDATE t SET v = NULL, w = '' WHERE id = 3", "UPDATE t SET v = '', w = NULL WHERE id = 3", `different ("id") = (3) "v","w"`},
		{"keys exchanged", "", "UPDATE t SET id = 1000 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = 1000", `different ("id") = (1) "v","w"; different ("id") = (2) "v","w"`},
		{"another slot", "", "UPDATE t SET k = 1000 WHERE id = 4", `different ("id") = (4) "k"`},
		{"no slot is no row", "", "ALTER TABLE t ALTER k DROP NOT NULL; INSERT INTO t (id) VALUES (50)", ""},
		{"several", "DELETE FROM t WHERE id = 1", "DELETE FROM t WHERE id = 2; UPDATE t SET v = '' WHERE id = 30", `different ("id") = (30) "v"; extra ("id") = (1); missing ("id") = (2)`},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newComparePair(t, compareTypes, "t")
			for i, sql := range []string{test.source, test.target} {
				if sql != "" {
					p.dbs[i].Exec(sql)
				}
			}
			for _, chunk := range []int{0, 1, 8} {
				c := p.compare(p.all, CompareOptions{ChunkRows: chunk})
				if got := comparedRows(c); got != test.want || c.Equal() != (test.want == "") {
					t.Errorf("in pieces of %d: %s\nwant %s\n%s", chunk, got, test.want, c)
				}
			}
		})
	}
}

// TestComparePartitions doubles a row on the target: it lies on two partitions. Partitions are tables.
func TestComparePartitions(t *testing.T) {
	p := newComparePair(t, `CREATE TABLE t (id int, k int NOT NULL, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
		CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100); CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (100) TO (200);
		INSERT INTO t SELECT i, i FROM generate_series(1, 199) i`, "t1", "t2")
	if c := p.compare(p.all, CompareOptions{}); !c.Equal() {
		t.Fatal(c)
	}
	p.dbs[1].Exec("ALTER TABLE t DETACH PARTITION t2; INSERT INTO t2 VALUES (7, 7)")
	c := p.compare(p.all, CompareOptions{})
	if got := comparedRows(c); got != `extra ("id", "k") = (7,7)` || c.Tables[1].Target != 101 || len(c.Tables[0].Slots) != 0 {
		t.Errorf("%s\n%s", got, c)
	}
}

// TestCompareBounds: only the slots given count, no more rows are named than wanted, and more are told of.
func TestCompareBounds(t *testing.T) {
	p := newComparePair(t, "CREATE TABLE t (id int PRIMARY KEY, k int, v text); INSERT INTO t SELECT i, i, i FROM generate_series(1, 5000) i", "t")
	p.dbs[1].Exec("UPDATE t SET v = 'x' WHERE id % 2 = 0")
	if c := p.compare(p.all, CompareOptions{}); len(c.Tables[0].Rows) != DefaultCompareRows || !c.Tables[0].More {
		t.Errorf("%d rows: %s", len(c.Tables[0].Rows), c)
	}
	for _, chunk := range []int{100, 10000} {
		if c := p.compare(p.all, CompareOptions{Rows: 2500, ChunkRows: chunk}); len(c.Tables[0].Rows) != 2500 || c.Tables[0].More {
			t.Errorf("in pieces of %d: %d rows, more: %v", chunk, len(c.Tables[0].Rows), c.Tables[0].More)
		}
		if c := p.compare(p.all, CompareOptions{Rows: 2499, ChunkRows: chunk}); len(c.Tables[0].Rows) != 2499 || !c.Tables[0].More {
			t.Errorf("in pieces of %d: %d rows, more: %v", chunk, len(c.Tables[0].Rows), c.Tables[0].More)
		}
	}
	for rows := 1; rows < 6; rows++ { // the last one is found at the end of what is looked at together
		if c := p.compare(p.all, CompareOptions{Rows: rows, ChunkRows: 1}); len(c.Tables[0].Rows) != rows || !c.Tables[0].More {
			t.Errorf("%d rows, more: %v, want %d and more", len(c.Tables[0].Rows), c.Tables[0].More, rows)
		}
	}
	if c := p.compare(p.all, CompareOptions{Rows: -1}); len(c.Tables[0].Rows) != 0 || !c.Tables[0].More || c.Equal() {
		t.Error(c)
	}
	two, _ := shardmap.Int4.HashText([]byte("2"))
	p.dbs[1].Exec("UPDATE t SET v = id WHERE id <> 2")
	slot := shardmap.SlotOf(two, compareSlots)
	if c := p.compare(NewSet([]shardmap.Slot{slot}, compareSlots), CompareOptions{}); comparedRows(c) != `different ("id") = (2) "v"` || c.Tables[0].Slots[0].Slot != slot {
		t.Error(c)
	}
	if c := p.compare(NewSet([]shardmap.Slot{slot ^ 1}, compareSlots), CompareOptions{}); !c.Equal() || c.Tables[0].Source == 0 || c.Tables[0].Source > 300 {
		t.Error(c)
	}
}

// TestCompareWithin compares in transactions of the caller, which see no later rows and have their settings afterwards.
func TestCompareWithin(t *testing.T) {
	p := newComparePair(t, compareTypes, "t")
	for _, conn := range p.conns {
		if _, err := conn.Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL DateStyle = 'German'; SELECT 1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.conns[1].Exec(t.Context(), "SELECT count(*) FROM t"); err != nil {
		t.Fatal(err)
	}
	p.dbs[1].Exec("DELETE FROM t WHERE id = 3")
	c, err := Compare(t.Context(), p.conns[0], p.conns[1], p.tables, p.all, CompareOptions{})
	if err != nil || !c.Equal() {
		t.Error(err, c)
	}
	p.tables[0].Name = "gone"
	if _, err = Compare(t.Context(), p.conns[0], p.conns[1], p.tables, p.all, CompareOptions{}); err == nil || !strings.Contains(err.Error(), `compare "public"."gone": `) {
		t.Error("a table that is not there:", err)
	}
	p.tables[0].Name = "t"
	for _, conn := range p.conns {
		var style string
		if conn.IsClosed() {
			continue // by the error of the other one
		}
		if err := conn.QueryRow(t.Context(), "SHOW DateStyle").Scan(&style); err != nil || !strings.HasPrefix(style, "German") {
			t.Error(style, err)
		}
	}
	// Transactions whose statements see different rows.
	for i := range p.conns {
		p.conns[i] = p.dbs[i].Connect("postgres")
		if _, err := p.conns[i].Exec(t.Context(), "BEGIN"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err = Compare(t.Context(), p.conns[0], p.conns[1], p.tables, p.all, CompareOptions{}); err == nil || !strings.Contains(err.Error(), "READ COMMITTED") {
		t.Error("read committed:", err)
	}
}

// TestCompareEnds: a caller who ends it, and a server that ends one connection, are not waited for.
func TestCompareEnds(t *testing.T) {
	p := newComparePair(t, "CREATE TABLE t (id int PRIMARY KEY, k int)", "t")
	blocker := p.dbs[1].Connect("postgres")
	if _, err := blocker.Exec(t.Context(), "BEGIN; LOCK TABLE t"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Compare(ctx, p.conns[0], p.conns[1], p.tables, p.all, CompareOptions{}); err == nil || ctx.Err() == nil {
		t.Error("it ended early:", err)
	}
	p.conns = [2]*pgx.Conn{p.dbs[0].Connect("postgres"), p.dbs[1].Connect("postgres")}
	p.dbs[0].Exec("ALTER TABLE t RENAME TO u")
	if _, err := Compare(t.Context(), p.conns[0], p.conns[1], p.tables, p.all, CompareOptions{}); err == nil || !strings.Contains(err.Error(), "source: ") {
		t.Error("the source failed, the target waits:", err)
	}
}

// TestCompareSaid pins the text and the JSON.
func TestCompareSaid(t *testing.T) {
	c := &Comparison{Tables: []TableComparison{
		{Table: `"public"."a"`, Source: 3, Target: 3},
		{Table: `"public"."b"`, Source: 3, Target: 2, Slots: []SlotDifference{{17, 3, 2}}, More: true,
			Rows: []RowDifference{{Kind: RowMissing, Key: "(id) = (1)"}, {RowDifferent, "(id) = (2)", []string{"v", "w"}}}},
	}}
	want := `"public"."a": 3 rows, equal
"public"."b": 3 rows on the source, 2 on the target; other rows in 1 slot
  slot 17: 3 rows on the source, 2 on the target
  missing: (id) = (1)
  different: (id) = (2), in v, w
  and more rows`
	if got := c.String(); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	said, err := json.Marshal(c.Tables[1])
	if want := `{"table":"\"public\".\"b\"","source_rows":3,"target_rows":2,"slots":[{"slot":17,"source_rows":3,"target_rows":2}],"rows":[{"kind":"missing","key":"(id) = (1)"},{"kind":"different","key":"(id) = (2)","columns":["v","w"]}],"more":true}`; err != nil || string(said) != want {
		t.Errorf("%s\nwant\n%s\n%v", said, want, err)
	}
}

// BenchmarkCompare compares a table of a million rows of five columns, on two databases of one server.
func BenchmarkCompare(b *testing.B) {
	const n = 1_000_000
	p := newComparePair(b, fmt.Sprintf(`CREATE TABLE t (id bigint PRIMARY KEY, k bigint NOT NULL, total numeric(10,2), at timestamptz, note text);
		INSERT INTO t SELECT i, i, i / 7.0, '2024-01-01'::timestamptz + i * interval '1 second', 'note of row ' || i FROM generate_series(1, %d) i`, n), "t")
	for i := range p.dbs {
		p.dbs[i].Exec("VACUUM ANALYZE t")
	}
	for _, one := range []struct{ name, change, want string }{
		{"equal", "", ""},
		{"one row differs", "UPDATE t SET total = total + 0.01 WHERE id = 4711", `different ("id") = (4711) "total"`},
	} {
		b.Run(one.name, func(b *testing.B) {
			if one.change != "" {
				p.dbs[1].Exec(one.change)
			}
			for b.Loop() {
				if got := comparedRows(p.compare(p.all, CompareOptions{})); got != one.want {
					b.Fatal(got)
				}
			}
			b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

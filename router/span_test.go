package router

import (
	"context"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/internal/pgtest"
	"shardproxy/query"
	"shardproxy/shardmap"
)

const rangedSchema = `
CREATE SCHEMA other;
CREATE FUNCTION other.odd(bigint, bigint) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
CREATE OPERATOR other.< (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = other.odd);
CREATE TABLE big (k bigint PRIMARY KEY, n int);
CREATE TABLE small (k int PRIMARY KEY, n bigint);
CREATE TABLE days (k date PRIMARY KEY, n int);
CREATE TABLE moments (k timestamptz PRIMARY KEY, n int);
CREATE TABLE amounts (k numeric PRIMARY KEY, n int);
CREATE TABLE words (k text COLLATE "C" PRIMARY KEY, n int);
CREATE TABLE tongues (k varchar(20) COLLATE "und-x-icu" PRIMARY KEY, n int);
CREATE TABLE ids (k uuid PRIMARY KEY, n int);
CREATE TABLE gaps (k bigint PRIMARY KEY, n int);
CREATE TABLE hashed (k bigint PRIMARY KEY, n int);
CREATE VIEW spelt AS SELECT k COLLATE "und-x-icu" AS k, n FROM words;
`

const rangedConfig = `listen: {address: "127.0.0.1:1"}
users: [{name: app, password: x}]
databases:
  app:
    shards: [{name: s0, nodes: ["127.0.0.1:2"]}, {name: s1, nodes: ["127.0.0.1:3"]}, {name: s2, nodes: ["127.0.0.1:4"]}]
    tables:
      big:     {key: k, range: [{shard: s0, to: 100}, {shard: s1, from: 100, to: 200}, {shard: s2, from: 200}]}
      small:   {key: k, range: [{shard: s0, to: 100}, {shard: s1, from: 100, to: 200}, {shard: s2, from: 200}]}
      days:    {key: k, range: [{shard: s0, to: "2024-01-01"}, {shard: s1, from: "2024-01-01", to: "2025-01-01"}, {shard: s2, from: "2025-01-01"}]}
      moments: {key: k, range: [{shard: s0, to: "2024-01-01 00:00:00Z"}, {shard: s1, from: "2024-01-01 00:00:00Z"}]}
      amounts: {key: k, range: [{shard: s0, to: 0}, {shard: s1, from: 0, to: "Infinity"}, {shard: s2, from: "Infinity"}]}
      words:   {key: k, range: [{shard: s0, to: h}, {shard: s1, from: h, to: p}, {shard: s2, from: p}]}
      tongues: {key: k, range: [{shard: s0, to: h}, {shard: s1, from: h, to: p}, {shard: s2, from: p}]}
      ids:     {key: k, range: [{shard: s0, to: "80000000-0000-0000-0000-000000000000"}, {shard: s1, from: "80000000-0000-0000-0000-000000000000"}]}
      gaps:    {key: k, range: [{shard: s0, from: 0, to: 10}, {shard: s1, from: 20, to: 30}], default: s2}
      hashed:  {key: k}
`

// rangedRouter routes over three shards by a catalog that a server made.
func rangedRouter(tb testing.TB) (*Router, *Owners) {
	tb.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, pgtest.Shared(tb).DSN("postgres"))
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, rangedSchema); err != nil {
		tb.Fatal(err)
	}
	snapshot, err := catalog.LoadTables(ctx, conn)
	if err != nil {
		tb.Fatal(err)
	}
	parsed, err := config.Parse([]byte(rangedConfig), "ranged.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	shards := []string{"s0", "s1", "s2"}
	rows := make([]shardmap.Row, 4096)
	for i := range rows {
		rows[i] = shardmap.Row{Slot: int64(i), Shard: shards[i%3]}
	}
	m, err := shardmap.NewMap(1, len(rows), shards, rows)
	if err != nil {
		tb.Fatal(err)
	}
	owners, ok := NewOwners(m, shards)
	if !ok {
		tb.Fatal("the map names other shards")
	}
	return New(Options{Catalog: func() *catalog.Catalog { return snapshot }, Rules: &parsed.Databases[0]}), owners
}

// textBind is the body of Bind, behind the names, with parameters in text; "NULL" is NULL.
func textBind(params ...string) []byte {
	b := []byte{0, 0, 0, byte(len(params))}
	for _, p := range params {
		if p == "NULL" {
			b = append(b, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...)
	}
	return append(b, 0, 0)
}

// spanCase is a statement and the shards on which its rows may be.
type spanCase struct {
	sql    string
	params []byte
	types  []uint32
	shards string // "all": its keys state nothing
}

func spanCases() []spanCase {
	four := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	eight := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	const of = "SELECT n FROM "
	return []spanCase{
		{of + "big WHERE k BETWEEN 100 AND 199", nil, nil, "s1"},
		{of + "big WHERE k BETWEEN 100 AND 200", nil, nil, "s1 s2"},
		{of + "big WHERE k BETWEEN 99 AND 199", nil, nil, "s0 s1"},
		{of + "big WHERE k > 99 AND k < 200", nil, nil, "s1"},
		{of + "big WHERE 99 < k AND 200 > k", nil, nil, "s1"},
		{of + "big WHERE k >= 200", nil, nil, "s2"},
		{of + "big WHERE k > -5", nil, nil, "s0 s1 s2"},
		{of + "big WHERE k < -5", nil, nil, "s0"},
		{of + "big WHERE k BETWEEN 7 AND 3", nil, nil, ""},
		{of + "big WHERE k > 5 AND k < 6", nil, nil, ""},
		{of + "big WHERE k > 9223372036854775807", nil, nil, ""},
		{of + "big WHERE k > 9223372036854775808", nil, nil, "s0 s1 s2"},
		{of + "big WHERE k > '9223372036854775808'", nil, nil, "s0 s1 s2"},
		{of + "big WHERE k > 'x' AND k < 5", nil, nil, "s0"},
		{of + "big WHERE k > E'\\x35' AND k < 100", nil, nil, "s0"},
		{of + "big WHERE k > 1e2", nil, nil, "all"},
		{of + "big WHERE k < NULL", nil, nil, ""},
		{of + "big WHERE k < 5 OR k > 200", nil, nil, "s0 s2"},
		{of + "big WHERE k < 5 OR k = 'x'", nil, nil, "s0 s1 s2"},
		{of + "big WHERE k < 5 OR k = $1", textBind("7"), []uint32{1700}, "s0 s1 s2"},
		{of + "big WHERE k < 5 OR k = ANY($1)", textBind("{7,{}"), nil, "s0 s1 s2"},
		{of + "days WHERE k = 'yesterday' OR k < '2024-01-01'", nil, nil, "s0 s1 s2"},
		{of + "gaps WHERE k = 15 OR k BETWEEN 3 AND 4", nil, nil, "s0 s2"},
		{of + "big WHERE k = 150 OR k > 200", nil, nil, "s1 s2"},
		{of + "big WHERE k IN (5, 150, 250) AND k > 100", nil, nil, "s1 s2"},
		{of + "big WHERE k IN (5, 150, 250) AND k > 300", nil, nil, ""},
		{of + "big WHERE k = ANY('{5,150,250}') AND k < 200 AND k > 5", nil, nil, "s1"},
		{of + "big WHERE (k < 5 OR k > 200) AND k < 100", nil, nil, "s0"},
		{of + "big WHERE k NOT BETWEEN 5 AND 7", nil, nil, "all"},
		{of + "big WHERE k BETWEEN SYMMETRIC 7 AND 5", nil, nil, "all"},
		{of + "big WHERE k < 5.0", nil, nil, "all"},
		{of + "big WHERE k < 5::numeric", nil, nil, "all"},
		{of + "big WHERE k < 5::smallint", nil, nil, "s0"},
		{of + "big WHERE k OPERATOR(pg_catalog.<) 5", nil, nil, "s0"},
		{of + "big WHERE k OPERATOR(other.<) 5", nil, nil, "all"},
		{of + "big WHERE k BETWEEN $1 AND $2", textBind("100", "150"), nil, "s1"},
		{of + "big WHERE k BETWEEN $1 AND $2", textBind("100", "NULL"), nil, ""},
		{of + "big WHERE k BETWEEN $1 AND $2", bindOf(four(100), four(150)), nil, "s1"},
		{of + "big WHERE k BETWEEN $1 AND $2", bindOf(eight(100), eight(150)), []uint32{20, 20}, "s1"},
		{of + "big WHERE k BETWEEN $1 AND $2", textBind("100", "150"), []uint32{23, 21}, "s1"},
		{of + "big WHERE k >= $1 AND k < 200", textBind("100"), []uint32{1700}, "s0 s1"},
		{of + "big WHERE k >= $1 AND k < 200", textBind("100"), []uint32{25}, "s0 s1"},
		{of + "big WHERE k >= $1 AND k < 200 AND n::text = $1", textBind("100"), nil, "s0 s1"},
		{of + "big WHERE k = ANY($1) AND k < $2", textBind("{5,150,250}", "200"), nil, "s0 s1"},
		{of + "small WHERE k > 5000000000", nil, nil, "s2"},
		{of + "small WHERE k > '5000000000' AND k < 5", nil, nil, "s0"},
		{of + "small WHERE k < $1", bindOf(eight(5)), []uint32{20}, "s0"},
		{of + "big JOIN small USING (k) WHERE k < 7", nil, nil, "s0"},
		{of + "days WHERE k >= '2024-01-01' AND k < '2025-01-01'", nil, nil, "s1"},
		{of + "days WHERE k > DATE '2023-12-31' AND k <= '2024-12-31'::date", nil, nil, "s1"},
		{of + "days WHERE k >= '2024-01-01'::timestamp", nil, nil, "all"},
		{of + "days WHERE k >= 'yesterday' AND k < '2024-01-01'", nil, nil, "s0"},
		{of + "days WHERE k > '2025-01-01' AND k <= 'infinity'", nil, nil, "s2"},
		{of + "days WHERE k < 'infinity'", nil, nil, "s0 s1 s2"},
		{of + "days WHERE k < $1", bindOf(four(0)), []uint32{1082}, "s0"},
		{of + "moments WHERE k >= '2024-01-01 00:00:00+00'", nil, nil, "s1"},
		{of + "moments WHERE k >= '2024-01-01 00:00:00+02'", nil, nil, "s0 s1"},
		{of + "moments WHERE k >= '2024-06-01 00:00:00'", nil, nil, "s0 s1"},
		{of + "moments WHERE k >= '2024-06-01'::date", nil, nil, "all"},
		{of + "amounts WHERE k < 0.00", nil, nil, "s0"},
		{of + "amounts WHERE k >= 0 AND k < 1e3", nil, nil, "s1"},
		{of + "amounts WHERE k > 'Infinity'", nil, nil, "s2"},
		{of + "amounts WHERE k < 'NaN'", nil, nil, "s0 s1 s2"},
		{of + "amounts WHERE k >= $1", textBind("NaN"), nil, "s2"},
		{of + "amounts WHERE k >= $1", bindOf(four(7)), []uint32{23}, "s0 s1 s2"},
		{of + "words WHERE k >= 'h' AND k < 'i'", nil, nil, "s1"},
		{of + "words WHERE k > 'A' AND k < 'a'", nil, nil, "s0"},
		{of + "words WHERE k > 'h' COLLATE \"C\"", nil, nil, "all"},
		{of + "words WHERE k < 'b' COLLATE \"und-x-icu\"", nil, nil, "all"},
		{of + "words WHERE k COLLATE \"und-x-icu\" < 'b'", nil, nil, "all"},
		{of + "words WHERE k LIKE 'b%'", nil, nil, "all"},
		{of + "spelt WHERE k < 'b'", nil, nil, "all"},
		{of + "spelt WHERE k = 'b'", nil, nil, "s0"},
		{of + "tongues WHERE k < 'b'", nil, nil, "all"},
		{of + "tongues WHERE k = 'b'", nil, nil, "s0"},
		{of + "words JOIN tongues USING (k) WHERE words.k < 'b'", nil, nil, "s0 s1 s2"}, // spans of tongues are not by bytes
		{of + "words JOIN tongues USING (k) WHERE tongues.k < 'b'", nil, nil, "all"},
		{of + "ids WHERE k >= '80000000000000000000000000000000'", nil, nil, "s1"},
		{of + "ids WHERE k > '7FFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF'", nil, nil, "s1"},
		{of + "gaps WHERE k BETWEEN 0 AND 9", nil, nil, "s0"},
		{of + "gaps WHERE k BETWEEN 0 AND 10", nil, nil, "s0 s2"},
		{of + "gaps WHERE k BETWEEN 12 AND 13", nil, nil, "s2"},
		{of + "gaps WHERE k < 0", nil, nil, "s2"},
		{of + "hashed WHERE k BETWEEN 5 AND 5", nil, nil, "all"},
		{of + "hashed WHERE k = 5 AND k > 7", nil, nil, "one"},
	}
}

// TestSpansFindShards: the shards of a span are those that may have its keys, and what is no
// proven bound states nothing.
func TestSpansFindShards(t *testing.T) {
	r, owners := rangedRouter(t)
	var n query.Normal
	for _, c := range spanCases() {
		p := r.Plan([]byte(c.sql), Context{SearchPath: `"$user", public`})
		n.Scan([]byte(c.sql))
		v := &Values{Text: []byte(c.sql), Literals: n.Literals, Types: c.types}
		if c.params != nil && !v.Bind(c.params) {
			t.Fatal("a bad Bind")
		}
		got := p.Where.String()
		if p.Where == Keyed {
			shards, err := p.Shards(owners, v)
			var names []string
			for _, i := range shards {
				names = append(names, owners.shards[i])
			}
			if got = strings.Join(names, " "); err != nil {
				got += err.Error()
			}
		}
		switch {
		case p.Where == Keyed && c.shards == "one":
			got = "one"
		case p.Where == FanOut:
			got = "all"
		}
		if got != c.shards {
			t.Errorf("%s: %q, want %q", c.sql, got, c.shards)
		}
	}
}

// TestSpansArePlannedOnce: a plan has no value in it, and no second statement of a form allocates.
func TestSpansArePlannedOnce(t *testing.T) {
	r, owners := rangedRouter(t)
	var k keyedScratch
	for _, form := range []struct {
		sql  string
		bind func(string, string) []byte
	}{
		{"SELECT n FROM big WHERE k BETWEEN %1 AND %2", nil},
		{"UPDATE big SET n = 1 WHERE k >= %1 AND %2 >= k AND k < 1000", nil},
		{"SELECT n FROM big WHERE k >= '%1' AND k <= '%2'", nil},
		{"SELECT n FROM big WHERE k IN (%1, %2) AND k >= %1", nil},
		{"DELETE FROM big WHERE k BETWEEN $1 AND $2", func(a, b string) []byte { return textBind(a, b) }},
		{"SELECT n FROM words WHERE k BETWEEN 'h%1' AND 'h%2'", nil},
	} {
		for i, pair := range [][2]string{{"120", "130"}, {"20", "30"}, {"220", "230"}, {"150", "160"}} {
			sql := []byte(strings.NewReplacer("%1", pair[0], "%2", pair[1]).Replace(form.sql))
			var bind []byte
			if form.bind != nil {
				bind = form.bind(pair[0], pair[1])
			}
			want := []int{1, 0, 2, 1}[i]
			if strings.Contains(form.sql, "words") {
				want = 1
			}
			before := r.Stats().Misses
			if got, err := k.shardOf(r, owners, sql, bind); err != nil || got != want {
				t.Errorf("%s: shard %d, want %d, %v", sql, got, want, err)
			}
			if misses := r.Stats().Misses - before; i > 0 && misses != 0 {
				t.Errorf("%s: planned %d times", sql, misses)
			}
			if a := testing.AllocsPerRun(100, func() { _, _ = k.shardOf(r, owners, sql, bind) }); a != 0 && !raceEnabled {
				t.Errorf("%s: %v allocations", sql, a)
			}
		}
	}
}

// TestSpansAreShown: what a span is, and where its keys are, is told as keys are.
func TestSpansAreShown(t *testing.T) {
	r, owners := rangedRouter(t)
	var n query.Normal
	for _, c := range []struct {
		sql    string
		params []byte
		want   string
	}{
		{"UPDATE big SET n = 1 WHERE k BETWEEN 120 AND 130", nil, "Route: shard s1|  public.big: k >= '120' and <= '130' (by range, shard s1)"},
		{"UPDATE big SET n = 1 WHERE k > 120", nil, "Route: its rows on each of: s1, s2|  public.big: k > '120' (by range, shards s1 s2)"},
		{"UPDATE big SET n = 1 WHERE k BETWEEN 7 AND 3", nil, "Route: any shard: no row has such a key|  public.big: k >= '7' and <= '3' (by range)"},
		{"UPDATE big SET n = 1 WHERE k < NULL", nil, "Route: any shard: no row has such a key|  public.big: k < NULL (by range)"},
		{"UPDATE big SET n = 1 WHERE k > $1", nil, "Route: its rows on the shards of $1|  public.big: k > $1 (by range)"},
		{"UPDATE big SET n = 1 WHERE k > $1", textBind("200"), "Route: shard s2|  public.big: k > $1 (200) (by range, shard s2)"},
		{"UPDATE big SET n = 1 WHERE k = 5 OR k BETWEEN $1 AND 7", textBind("6"), "Route: shard s0|  public.big: k = one of '5', (>= $1 (6) and <= '7') (by range, shard s0)"},
		{"UPDATE big SET n = 1 WHERE k IN (5, 150) AND k > 100", nil, "Route: shard s1|  public.big: k = one of '5' if > '100', '150' if > '100' (by range, shard s1)"},
		{"MERGE INTO big USING (SELECT k FROM small WHERE k < 150) s ON s.k = big.k WHEN MATCHED THEN DELETE", nil,
			"Route: refused (0A000, several_shards)|  this statement cannot be run over several shards: its keys lie on several shards, of public.small|  Hint: Send one statement for each key.|" +
				"  public.small: k < '150' (by range, shards s0 s1)|  public.big: k < '150' (by range, shards s0 s1)"},
	} {
		p := r.Plan([]byte(c.sql), Context{SearchPath: `"$user", public`})
		n.Scan([]byte(c.sql))
		v := &Values{Text: []byte(c.sql), Literals: n.Literals}
		if c.params != nil && !v.Bind(c.params) {
			t.Fatal("a bad Bind")
		}
		lines := p.Route(RouteInput{Shards: owners.shards, Owners: owners, Values: v}).Lines()
		if got := strings.TrimSuffix(strings.Join(lines, "|"), "|Node: primary (writes or locks rows)"); !strings.HasPrefix(got, c.want) || strings.Count(got, "|")-strings.Count(c.want, "|") > 1 {
			t.Errorf("%s:\n%s\nwant\n%s", c.sql, strings.ReplaceAll(got, "|", "\n"), strings.ReplaceAll(c.want, "|", "\n"))
		}
	}
	p := r.Plan([]byte("SELECT n FROM big WHERE k > $1"), Context{SearchPath: `"$user", public`})
	if got := p.ParamType(1); got != 20 {
		t.Errorf("the type of a bound is %d", got)
	}
}

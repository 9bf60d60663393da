package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/jackc/pgx/v5"

	"shardproxy/internal/chbench"
	"shardproxy/internal/queryset"
	"shardproxy/internal/tpch"
)

// The queries of known benchmarks give through the program what they give on one server,
// or are refused. The golden files keep which are refused, and why; they are rewritten by
// "go test ./cmd/shardproxy -run 'TestTPCH|TestCHBench' -rewrite", and "-v" shows how long
// each query took.

// TestTPCH runs the queries of TPC-H on one, two and four shards. SHARDPROXY_TEST_SCALE
// is the scale, 0.002 if it is not set.
func TestTPCH(t *testing.T) {
	t.Parallel()
	scale := 0.002
	if text := os.Getenv("SHARDPROXY_TEST_SCALE"); text != "" {
		var err error
		if scale, err = strconv.ParseFloat(text, 64); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := tpch.New(scale)
	if err != nil {
		t.Fatal(err)
	}
	set := benchmark{schema: tpch.Schema(), write: rows.Write}
	for _, table := range tpch.Tables() {
		set.add(table.Name, table.Key)
	}
	if set.queries, err = tpch.Queries(); err != nil {
		t.Fatal(err)
	}
	set.golden(t, "testdata/tpch.txt")
}

// TestCHBench runs the queries of CH-benCHmark, whose rows are placed by warehouses, on
// one, two and four shards.
func TestCHBench(t *testing.T) {
	t.Parallel()
	set := chBenchmark(t)
	set.golden(t, "testdata/chbench.txt")
}

// chBenchmark is CH-benCHmark's.
func chBenchmark(t *testing.T) (set benchmark) {
	t.Helper()
	set = benchmark{schema: chbench.Schema(), write: chbench.Write}
	for _, table := range chbench.Tables() {
		set.add(table.Name, table.Key)
	}
	var err error
	if set.queries, err = chbench.Queries(); err != nil {
		t.Fatal(err)
	}
	return set
}

// benchmark is tables with their rows and queries over them.
type benchmark struct {
	schema  string
	places  string // in the configuration
	tables  []comparedTable
	write   func(w io.Writer, table string) (rows int, err error)
	queries []queryset.Query
	wrong   []string
}

// add adds a table, sharded by a key or on every shard.
func (s *benchmark) add(name, key string) {
	if key == "" {
		s.tables = append(s.tables, comparedTable{name, 'r'})
		s.places += fmt.Sprintf("      %s: {reference: true}\n", name)
		return
	}
	s.tables = append(s.tables, comparedTable{name, 'k'})
	s.places += fmt.Sprintf("      %s: {key: %s}\n", name, key)
}

// golden runs the queries on each number of shards that the file has. What is wrong is
// told at the end, so that all is seen.
func (s *benchmark) golden(t *testing.T, path string) {
	defer func() {
		for _, w := range s.wrong {
			t.Error(w)
		}
	}()
	datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) (said string) {
		var shards int
		d.ScanArgs(t, "n", &shards)
		t.Run(fmt.Sprint(shards), func(t *testing.T) { said = s.on(t, shards) })
		return said
	})
}

// on runs the queries on shards, and returns what became of each.
func (s *benchmark) on(t *testing.T, shards int) string {
	b := &both{tables: s.tables, limit: 20 * time.Second}
	b.start(t, shards, s.schema, s.places)
	s.load(b)
	var out, shown strings.Builder
	equal := 0
	for _, q := range s.queries {
		said, one, proxy := s.compare(t, b, q)
		fmt.Fprintf(&out, "%s %s\n", q.Name, said)
		fmt.Fprintf(&shown, "\n%8s %8.1f ms on one server, %8.1f ms through the proxy, %s", q.Name, ms(one), ms(proxy), said)
		if said == "equal" {
			equal++
		}
	}
	t.Logf("%d shards, %d of %d equal%s", shards, equal, len(s.queries), shown.String())
	fmt.Fprintf(&out, "%d of %d equal\n", equal, len(s.queries))
	return out.String()
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// load copies the rows to both sides, through the program to all shards.
func (s *benchmark) load(b *both) {
	t := b.t
	eventually(t, "the catalog is there", func() bool {
		_, err := b.proxy.Exec(within(t, 10*time.Second), "SELECT FROM "+s.tables[0].name+" LIMIT 0")
		return err == nil
	})
	for _, table := range s.tables {
		var rows bytes.Buffer
		n, err := s.write(&rows, table.name)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []*pgx.Conn{b.owner, b.proxy} {
			tag, err := c.PgConn().CopyFrom(within(t, time.Minute), bytes.NewReader(rows.Bytes()), "COPY "+table.name+" FROM STDIN")
			if err != nil || tag.RowsAffected() != int64(n) {
				t.Fatalf("%s: %d rows copied of %d: %v", table.name, tag.RowsAffected(), n, err)
			}
		}
	}
	b.alike("the rows at the start")
	for _, c := range append(b.shards, b.owner) {
		for _, table := range s.tables {
			must(t, c, "ANALYZE "+table.name)
		}
	}
}

// compare runs a query on both sides in every way, and returns what became of it and how
// long both sides took for its text.
func (s *benchmark) compare(t *testing.T, b *both, q queryset.Query) (said string, one, proxy time.Duration) {
	parameters, args := q.Parameters()
	ways := []struct {
		name string
		mode mode
		sql  string
		args []any
	}{
		{"simple", modes[0], q.Constants(), nil},
		{"prepared", modes[2], q.Constants(), nil},
		{"parameters", modes[2], parameters, args},
		{"parameters in text", modes[4], parameters, args},
	}
	if len(args) == 0 {
		ways = ways[:2]
	}
	var why []string // not equal, by way
	for i, w := range ways {
		start := time.Now()
		want := ask(t, b.direct, w.mode, w.sql, w.args)
		asked := time.Now()
		got := ask(t, b.proxy, w.mode, w.sql, w.args)
		if i == 0 {
			one, proxy = asked.Sub(start), time.Since(asked)
		}
		if want.err != nil {
			t.Fatalf("%s, %s: one server answers %v", q.Name, w.name, want.err)
		}
		if r := got.refused(); r != "" {
			why = append(why, "refused: "+r)
		} else if d := differs(q, &got, &want); d != "" {
			s.wrong = append(s.wrong, fmt.Sprintf("%s over %d shards, %s: %s\n%s\n%v", q.Name, len(b.shards), w.name, d, w.sql, w.args))
			return "wrong", one, proxy
		} else {
			why = append(why, "equal")
		}
	}
	said = why[0]
	for i, w := range ways {
		if why[i] != why[0] {
			said += fmt.Sprintf("; %s %s", w.name, why[i])
		}
	}
	return said, one, proxy
}

// differs compares two answers as far as the query says how its rows are ordered.
func differs(q queryset.Query, got, want *answer) string {
	g, w := *got, *want
	g.rows, w.rows = nil, nil
	if d := difference(&g, &w, true); d != "" {
		return d
	}
	return q.Difference(got.cells, want.cells)
}

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const shownTables = `      regions:     {key: country, list: {s0: [de, fr], s1: [us]}}
      stores:      {key: land, list: {s1: [us], s0: [fr, de]}}
      elsewhere:   {key: country, list: {s0: [de], s1: [us, fr]}}
      events:      {key: at, range: [{shard: s0, to: "2020-01-01"}, {shard: s1, from: "2020-01-01"}]}
      readings:    {key: [device, day]}
      devices:     {key: id}
      wrong:       {key: missing}
    schemas: {tenant_a: s1, tenant_b: hash}
`

// TestShowTables: where all tables are is told as the golden file has it.
func TestShowTables(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2, strings.TrimSuffix(shownTables, "\n"))
	c := s.connectLoaded()
	for _, sql := range []string{
		"CREATE TABLE regions (country text PRIMARY KEY, name text)", "CREATE TABLE stores (land varchar(2), name text)",
		"CREATE TABLE elsewhere (country text)", "CREATE TABLE events (at date, what text)",
		"CREATE TABLE readings (device uuid, day date, value float8) PARTITION BY RANGE (day)",
		"CREATE TABLE devices (id uuid PRIMARY KEY)", "CREATE TABLE notes (id serial, t text)", "CREATE VIEW named AS SELECT name FROM products",
		"CREATE SCHEMA tenant_a", "CREATE SCHEMA tenant_b", "CREATE TABLE tenant_a.things (id int)", "CREATE TABLE tenant_a.others (id int)",
		"CREATE TABLE tenant_b.things (id int)",
	} {
		must(t, c, sql)
	}
	for i := range s.shards { // for one that its rule does not fit cannot be made through the proxy
		s.direct(i, "CREATE TABLE readings_old PARTITION OF readings FOR VALUES FROM ('2000-01-01') TO ('2020-01-01')")
		s.direct(i, "CREATE TABLE wrong (id int)")
	}
	console := s.connectTo(strings.Replace(s.dsn(), "/app?", "/shardproxy?", 1))
	var got string
	eventually(t, "table wrong is known", func() bool {
		got = shownText(t, console)
		return strings.Contains(got, "wrong")
	})
	want, err := os.ReadFile("testdata/show_tables.txt")
	if err != nil || got != string(want) {
		t.Errorf("%v\ngot:\n%s\nwant:\n%s", err, got, want)
	}
}

// shownText is SHOW TABLES as lines.
func shownText(t *testing.T, console *pgx.Conn) string {
	t.Helper()
	rows, err := console.Query(within(t, 10*time.Second), "SHOW TABLES", pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var out strings.Builder
	for _, f := range rows.FieldDescriptions() {
		fmt.Fprint(&out, f.Name, " | ")
	}
	for rows.Next() {
		values, err := rows.Values()
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("\n")
		for _, v := range values {
			if v == nil {
				v = "-"
			}
			fmt.Fprint(&out, v, " | ")
		}
	}
	return strings.TrimSuffix(strings.ReplaceAll(out.String(), " | \n", "\n"), " | ") + "\n"
}

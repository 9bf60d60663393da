package main

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.yaml.in/yaml/v3"

	"shardproxy/internal/pgtest"
)

// TestExplainDocuments has queries over several shards explained in the formats that tools read: what each shard says of its
// part is in the document as it says it, and the three formats say the same.
func TestExplainDocuments(t *testing.T) {
	s := startShards(t, 2)
	c := s.connectLoaded()
	for i := range 8 {
		must(t, c, "INSERT INTO customers VALUES ($1, 'x')", i)
		must(t, c, "INSERT INTO orders (id, customer_id) VALUES ($1, $1)", i)
	}
	for _, test := range []struct {
		sql, way string
		plans    int
	}{
		{"SELECT * FROM orders WHERE note IS DISTINCT FROM E'a\\n  </Plan>\\n]\"\\\\ & é'", "merge", 2},
		{"SELECT * FROM orders ORDER BY id DESC LIMIT 3", "merge", 2},
		{"SELECT note, count(*), avg(id) FROM orders GROUP BY note", "groups", 2},
		{"SELECT c.id FROM customers c JOIN orders o ON o.id = c.id WHERE o.note = 'x\ty'", "gather", 4},
		{"INSERT INTO orders (customer_id, id) SELECT max(id), 9 FROM customers", "groups", 2},
		{"UPDATE orders SET note = 'y' WHERE id IN (SELECT id FROM customers)", "gather", 2},
	} {
		all := []string{"(FORMAT %s)", "(FORMAT %s, COSTS OFF)", "(VERBOSE, Format %s)", "(SETTINGS, COSTS OFF, FORMAT '%s')", "(FORMAT text, BUFFERS, FORMAT %s)"}
		if strings.HasPrefix(test.sql, "SELECT") {
			all = append(all, "(ANALYZE, TIMING OFF, SUMMARY OFF, FORMAT %s)", "(ANALYZE, VERBOSE, COSTS OFF, TIMING OFF, SUMMARY OFF, FORMAT %s)")
		}
		for _, options := range all {
			said := func(format string) string {
				return asked(t, c, fmt.Sprintf("EXPLAIN "+options+" ", format)+test.sql)
			}
			inJSON := said("json")
			want := leavesOfJSON(t, inJSON)
			for format, got := range map[string][]string{"YAML": leavesOfYAML(t, said("yaml")), "XML": leavesOfXML(t, said("xml"))} {
				if !slices.Equal(got, want) {
					t.Errorf("EXPLAIN %s %s:\n%s\nJSON has\n%s", fmt.Sprintf(options, format), test.sql, strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}
			plan := planIn(t, inJSON)["Plan"].(map[string]any)
			if plan["Node Type"] != "Custom Scan" || plan["Custom Plan Provider"] != "shardproxy" || plan["Way"] != test.way || len(plan["Plans"].([]any)) != test.plans {
				t.Errorf("EXPLAIN %s %s:\n%s", options, test.sql, inJSON)
			}
		}
	}
	documentsOfShards(t, s, c)
	documentsOnTheWire(t, c)
	for sql, code := range map[string]string{
		"EXPLAIN (FORMAT json) SELECT nosuch FROM orders": "42703", "EXPLAIN (FORMAT xml, ANALYZE) SELECT 1/(id-id) FROM orders": "22012",
		"EXPLAIN (FORMAT json) SELECT * FROM orders LIMIT 2 FOR UPDATE": "0A000", "EXPLAIN (FORMAT nosuch) SELECT * FROM orders": "0A000",
		"EXPLAIN (FORMAT json, ANALYZE) UPDATE orders SET note = 'y' WHERE id IN (SELECT id FROM customers)": "0A000",
	} {
		fails(t, c, sql, code)
	}
	if got := one(t, c, "SELECT count(note) || ' ' || count(*) FROM orders"); got != "0 8" {
		t.Error("something was written:", got)
	}
	// A character whose last byte is a backslash.
	must(t, c, "SET client_encoding = 'SJIS'")
	if _, err := c.PgConn().Exec(t.Context(), "EXPLAIN (FORMAT json) SELECT * FROM orders WHERE note = '\x95\x5c'").ReadAll(); sqlState(err) != "0A000" {
		t.Error(err)
	}
	asked(t, c, "EXPLAIN (FORMAT json) SELECT * FROM orders")
}

// documentsOfShards compares with what the shards say themselves, and adds up.
func documentsOfShards(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	const sql = "EXPLAIN (FORMAT json) SELECT * FROM orders WHERE note IS NULL"
	whole := planIn(t, asked(t, c, sql))["Plan"].(map[string]any)
	cost, rows := 0.0, 0.0
	for i, below := range whole["Plans"].([]any) {
		got := maps.Clone(below.(map[string]any))
		for name, want := range map[string]any{"Shard": fmt.Sprint("s", i), "Parent Relationship": "Member"} {
			if got[name] != want {
				t.Errorf("%s of shard %d: %v", name, i, got[name])
			}
			delete(got, name)
		}
		there := asked(t, pgtest.Connect(t, s.shards[i].Primary().DSN("app", "app")), sql)
		want := planIn(t, there)["Plan"].(map[string]any)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("shard %d: %v, and says itself %v", i, got, want)
		}
		cost, rows = cost+want["Total Cost"].(float64), rows+want["Plan Rows"].(float64)
	}
	if got := whole["Total Cost"].(float64); got < cost-0.01 || got > cost+0.01 || whole["Plan Rows"] != rows || rows == 0 {
		t.Errorf("cost %v of %v, rows %v of %v", got, cost, whole["Plan Rows"], rows)
	}
	// What stands beside a shard's plan stands in it.
	d := planIn(t, asked(t, c, "EXPLAIN (ANALYZE, FORMAT json) SELECT * FROM orders"))
	whole = d["Plan"].(map[string]any)
	for _, name := range []string{"Planning Time", "Execution Time"} {
		total := 0.0
		for _, below := range whole["Plans"].([]any) {
			total += below.(map[string]any)[name].(float64)
		}
		if got := d[name].(float64); got < total-0.001 || got > total+0.001 || total == 0 {
			t.Errorf("%s %v of %v", name, got, total)
		}
	}
	if whole["Actual Rows"] != 8.0 || whole["Actual Loops"] != 1.0 || len(d["Triggers"].([]any)) != 0 {
		t.Error(d)
	}
}

// documentsOnTheWire: one row, of PostgreSQL's type, in every protocol and format.
func documentsOnTheWire(t *testing.T, c *pgx.Conn) {
	for format, oid := range map[string]uint32{"json": 114, "yaml": 25, "xml": 142} {
		sql := "EXPLAIN (COSTS OFF, FORMAT " + format + ") SELECT * FROM orders"
		simple, err := c.PgConn().Exec(within(t, 10*time.Second), sql).ReadAll()
		if err != nil || len(simple) != 1 || len(simple[0].Rows) != 1 || simple[0].FieldDescriptions[0].DataTypeOID != oid || simple[0].CommandTag.String() != "EXPLAIN" {
			t.Fatal(format, simple, err)
		}
		for as := range int16(2) {
			r := c.PgConn().ExecParams(within(t, 10*time.Second), sql+" WHERE id <> $1", [][]byte{[]byte("77")}, nil, nil, []int16{as}).Read()
			if r.Err != nil || len(r.Rows) != 1 || r.FieldDescriptions[0].DataTypeOID != oid || r.FieldDescriptions[0].Format != as || !strings.Contains(string(r.Rows[0][0]), "'77'") {
				t.Fatalf("%s %d: %+v", format, as, r)
			}
		}
		d, err := c.PgConn().Prepare(within(t, 10*time.Second), format, sql, nil)
		if err != nil || len(d.Fields) != 1 || d.Fields[0].DataTypeOID != oid {
			t.Fatal(format, d, err)
		}
		if r := c.PgConn().ExecPrepared(within(t, 10*time.Second), format, nil, nil, nil).Read(); r.Err != nil || string(r.Rows[0][0]) != string(simple[0].Rows[0][0]) {
			t.Errorf("%s: %+v", format, r)
		}
	}
}

// planIn returns what a document in JSON has of its only statement.
func planIn(t *testing.T, document string) map[string]any {
	t.Helper()
	var all []map[string]any
	if err := json.Unmarshal([]byte(document), &all); err != nil || len(all) != 1 {
		t.Fatalf("%v:\n%s", err, document)
	}
	return all[0]
}

// The leaves of a document are its values with their names, sorted; those of lists are called Item.

func leavesOfJSON(t *testing.T, document string) (all []string) {
	d := json.NewDecoder(strings.NewReader(document))
	d.UseNumber()
	var of any
	if err := d.Decode(&of); err != nil {
		t.Fatalf("%v:\n%s", err, document)
	}
	var walk func(name string, v any)
	walk = func(name string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, v := range v {
				walk(name, v)
			}
		case []any:
			for _, v := range v {
				walk("Item", v)
			}
		default:
			all = append(all, name+"="+fmt.Sprint(v))
		}
	}
	walk("", of)
	slices.Sort(all)
	return all
}

func leavesOfYAML(t *testing.T, document string) (all []string) {
	var of yaml.Node
	if err := yaml.Unmarshal([]byte(document), &of); err != nil {
		t.Fatalf("%v:\n%s", err, document)
	}
	var walk func(name string, n *yaml.Node)
	walk = func(name string, n *yaml.Node) {
		switch {
		case n.Kind == yaml.MappingNode:
			for i := 0; i < len(n.Content); i += 2 {
				walk(n.Content[i].Value, n.Content[i+1])
			}
		case n.Kind == yaml.ScalarNode && n.Tag != "!!null":
			all = append(all, name+"="+n.Value)
		default:
			for _, in := range n.Content {
				walk("Item", in)
			}
		}
	}
	walk("", &of)
	slices.Sort(all)
	return all
}

func leavesOfXML(t *testing.T, document string) (all []string) {
	d := xml.NewDecoder(strings.NewReader(document))
	name, text, leaf := "", "", false
	for {
		token, err := d.Token()
		switch token := token.(type) {
		case xml.StartElement:
			name, text, leaf = strings.ReplaceAll(token.Name.Local, "-", " "), "", true
		case xml.CharData:
			text += string(token)
		case xml.EndElement:
			if leaf && strings.TrimSpace(text) != "" {
				all = append(all, name+"="+text)
			}
			leaf = false
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v:\n%s", err, document)
		}
	}
	slices.Sort(all)
	return all
}

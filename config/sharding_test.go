package config

import (
	"testing"

	"shardproxy/shardmap"

	"github.com/google/go-cmp/cmp"
)

func TestIdentifier(t *testing.T) {
	for _, c := range []struct {
		in, want, out string
	}{
		{"id", "id", "id"},
		{"AZ", "az", "az"},
		{"Tenant_ID", "tenant_id", "tenant_id"},
		{`"Tenant ID"`, "Tenant ID", `"Tenant ID"`},
		{`"id"`, "id", "id"},
		{`"a""b"`, `a"b`, `"a""b"`},
		{`"a.b"`, "a.b", `"a.b"`},
		{"_a$1", "_a$1", "_a$1"},
		{"ÄÖ", "ÄÖ", `"ÄÖ"`}, // PostgreSQL folds ASCII letters only
		{`"1"`, "1", `"1"`},
	} {
		got, err := parseIdentifier(c.in)
		if string(got) != c.want || err != nil || got.String() != c.out {
			t.Errorf("%s: %q (%s), %v", c.in, string(got), got, err)
		}
		if again, err := parseIdentifier(got.String()); err != nil || again != got {
			t.Errorf("%s is printed as %s: %q, %v", c.in, got, string(again), err)
		}
	}
	if s := Identifier("").String(); s != "" {
		t.Errorf("no name is printed as %s", s)
	}
	for _, in := range []string{"", `"`, `""`, "1", "a.b", "a b", "a-b", `"a"b`, "a\n", "$1", "*"} {
		if got, err := parseIdentifier(in); err == nil {
			t.Errorf("%q: %q", in, string(got))
		}
	}
}

// TestRules asks which rules hold.
func TestRules(t *testing.T) {
	db := mustParse(t, `
users: [{name: app, password: pw}]
databases:
  shop:
    shards: [{name: s0, nodes: a}, {name: s1, nodes: b}]
    tables:
      Orders: {key: ID}
      '"Orders"': {key: '"ID"'}
      sales.items: {key: [a, b]}
      other.items: {reference: true}
    schemas: {tenant_*: hash, tenant_a: s1, tenant_a*: s0, t*: s1, '"T"*': hash}
    functions:
      get_order: {argument: 1, table: orders}
      sales.get_item: {argument: [2, 1], table: sales.items}
`).Database("shop")
	for schema, want := range map[string]string{
		"tenant_a": "tenant_a", "tenant_ab": "tenant_a*", "tenant_b": "tenant_*", "tenant_": "tenant_*", "tenants": "t*", "t": "t*",
		"T": `"T"*`, "Tenant_a": `"T"*`, "public": "", "": "", "x_tenant_a": "", "pg_temp_3": "", "shardproxy": "",
	} {
		got := ""
		if s := db.SchemaRule(schema); s != nil {
			got = s.Name
		}
		if got != want {
			t.Errorf("schema %s: %q, want %q", schema, got, want)
		}
	}
	for _, c := range []struct{ schema, name, want, function string }{
		{"public", "orders", "Orders", ""},
		{"sales", "orders", "Orders", ""},
		{"public", "Orders", `"Orders"`, ""},
		{"tenant_a", "orders", "", ""},
		{"pg_temp_3", "orders", "", ""},
		{"public", "items", "", ""},
		{"sales", "items", "sales.items", ""},
		{"other", "items", "other.items", ""},
		{"Sales", "items", "", ""},
		{"public", "get_order", "", "get_order"},
		{"tenant_a", "get_order", "", ""},
		{"sales", "get_item", "", "sales.get_item"},
		{"public", "get_item", "", ""},
	} {
		table, function := "", ""
		if r := db.TableRule(c.schema, c.name); r != nil {
			table = r.Name
		}
		if r := db.FunctionRule(c.schema, c.name); r != nil {
			function = r.Name
		}
		if table != c.want || function != c.function {
			t.Errorf("%s.%s: table %q, function %q", c.schema, c.name, table, function)
		}
	}
	if diff := cmp.Diff([]Identifier{"ID"}, db.TableRule("public", "Orders").Key); diff != "" {
		t.Error(diff)
	}
	all := mustParse(t, smallest+"    schemas: {'*': hash}\n").Database("shop")
	if r := all.SchemaRule("public"); r == nil || r.Name != "*" {
		t.Errorf("the rule for all schemas is not that of public: %v", r)
	}
	if all.SchemaRule("") != nil || all.SchemaRule("pg_catalog") != nil {
		t.Error("the rule for all schemas holds where none does")
	}
	if empty := mustParse(t, smallest).Database("shop"); empty.TableRule("public", "orders") != nil || empty.SchemaRule("public") != nil ||
		empty.FunctionRule("public", "f") != nil || empty.Slots != shardmap.DefaultSlots {
		t.Errorf("rules without any: %+v", empty)
	}
}

// TestGoodRules reads what comes near to a refusal.
func TestGoodRules(t *testing.T) {
	const head = "users: [{name: app, password: pw}]\ndatabases:\n  shop:\n" +
		"    shards: [{name: s0, nodes: a}, {name: s1, nodes: b}, {name: hash, nodes: c}]\n"
	for _, text := range []string{
		"    slots: 1\n",
		"    slots: 65536\n",
		"    schemas: {tenant_a: s0}\n", // a shard named hash, which no rule names
		"    schemas: {tenant_a: s0, tenant_b: s0, tenant_a*: s1, '\"Tenant_a\"': s1}\n",
		"    schemas: {'*': s0, public: s1}\n",
		"    tables: {orders: {key: id, list: {s0: [1, '01'], s1: ''}}}\n",
		"    tables: {orders: {key: id, default: s0, range: [{shard: s1, from: 1, to: 2}, {shard: s0, from: 2}]}}\n",
		"    tables: {orders: {key: id, range: [{shard: s0}]}}\n",
		"    tables: {a.orders: {key: id}, b.orders: {key: id}, '\"a.orders\"': {reference: true}}\n",
		"    tables: {orders: {single: true}}\n    keys: id\n    functions: {f: {argument: 100, table: items}}\n",
		"    tables: {sales.orders: {key: id}}\n    functions: {f: {argument: 1, table: orders}}\n",
	} {
		mustParse(t, head+text)
	}
}

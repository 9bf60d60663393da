package config

import (
	"strings"
	"testing"
)

const ruledFile = `
users: [{name: app, password: x}]
databases:
  shop:
    shards: [{name: s1, nodes: h1}, {name: s2, nodes: h2}]
    keys: [tenant_id, Org]
    schemas: {tenant_a: s1, t_*: hash, "\"Odd*\"": s2}
    tables:
      orders: {key: Customer_ID, per_shard_constraints: true}
      Public.Items: {key: [a, b]}
      '"We ird".t': {reference: true}
      plain: {single: true}
      listed: {key: country, list: {s1: [de, at], s2: [us]}, default: s2}
      ranged: {key: n, range: [{shard: s1, to: "10"}, {shard: s2, from: "10"}]}
    functions:
      Place_Order: {argument: 1, table: orders}
`

// TestRulesKept: the rules come back as they were, whatever their order and however their names are written.
func TestRulesKept(t *testing.T) {
	db := mustParse(t, ruledFile).Database("shop")
	text := db.Rules()
	for _, part := range []string{`"public.items":{"key":["a","b"]}`, `"\"We ird\".t"`, `"t_*":"hash"`, `"\"Odd*\"":"s2"`, `"s1":["at","de"]`, `"place_order":{"argument":[1],"table":"orders"}`} {
		if !strings.Contains(text, part) {
			t.Errorf("no %s in %s", part, text)
		}
	}
	if strings.Contains(text, "per_shard") {
		t.Error("has what places nothing")
	}
	same := mustParse(t, strings.NewReplacer("Public.Items", `public."items"`, "[de, at]", "[at, de]", "per_shard_constraints: true", "per_shard_constraints: false").Replace(ruledFile)).Database("shop")
	if same.Rules() != text {
		t.Errorf("%s\n%s", same.Rules(), text)
	}
	back, err := mustParse(t, strings.Replace(ruledFile, "keys: [tenant_id, Org]", "keys: [x]", 1)).Database("shop").WithRules(text)
	if err != nil || back.Rules() != text {
		t.Fatal(err, back.Rules())
	}
	if r := back.TableRule("public", "items"); r == nil || len(r.Key) != 2 {
		t.Error(r)
	}
	if r := back.TableRule("other", "orders"); r == nil || r.Key[0] != "customer_id" {
		t.Error(r)
	}
	if r := back.SchemaRule("t_9"); r == nil || r.Shard != SchemaByHash {
		t.Error(r)
	}
	if r := back.SchemaRule("Odd*"); r == nil || r.Shard != "s2" {
		t.Error(r)
	}
	if r := back.FunctionRule("public", "place_order"); r == nil || r.Arguments[0] != 1 {
		t.Error(r)
	}
	for _, bad := range []string{"", "[]", `{"tables":{"a.b.c":{}}}`, `{"views":{}}`} {
		if _, err := db.WithRules(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

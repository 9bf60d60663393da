package router

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/internal/pgtest"
)

const slottedSchema = `
CREATE SCHEMA one; CREATE SCHEMA tenant_a; CREATE SCHEMA tenant_b; CREATE SCHEMA tenant_c;
CREATE TABLE orders (id bigint PRIMARY KEY, customer_id bigint);
CREATE TABLE pairs (a int, b text, PRIMARY KEY (b, a));
CREATE TABLE many (customer_id bigint, at date) PARTITION BY RANGE (at);
CREATE TABLE many_old PARTITION OF many FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE many_new PARTITION OF many FOR VALUES FROM ('2021-01-01') TO ('2030-01-01') PARTITION BY LIST (at);
CREATE TABLE many_newest PARTITION OF many_new DEFAULT;
CREATE TABLE apart (customer_id bigint, at date) PARTITION BY RANGE (at);
CREATE TABLE apart_old PARTITION OF apart DEFAULT;
CREATE TABLE keyed (account_id int);
CREATE TABLE regions (name text);
CREATE TABLE years (y int);
CREATE TABLE products (id int);
CREATE TABLE plain (n int);
CREATE TABLE prices (p float8);
CREATE TABLE lost (id int);
CREATE MATERIALIZED VIEW shown AS SELECT 1 AS account_id;
CREATE VIEW seen AS SELECT * FROM orders;
CREATE SEQUENCE counts; CREATE SEQUENCE tenant_b.counts;
CREATE TABLE one.t (account_id int); CREATE TABLE tenant_a.t (account_id int);
`

const slottedConfig = `listen: {address: "127.0.0.1:1"}
users: [{name: app, password: x}]
databases:
  app:
    shards: [{name: s0, nodes: ["127.0.0.1:2"]}, {name: s1, nodes: ["127.0.0.1:3"]}, {name: s2, nodes: ["127.0.0.1:4"]}]
    keys: account_id
    schemas: {one: s1, "tenant_*": hash}
    tables:
      orders:   {key: customer_id}
      pairs:    {key: [b, a]}
      many:     {key: customer_id}
      apart:    {key: customer_id}
      apart_old: {reference: true}
      regions:  {key: name, list: {s0: [eu], s2: [us, ca]}, default: s1}
      years:    {key: y, range: [{shard: s2, to: 2000}, {shard: s0, from: 2000}]}
      products: {reference: true}
      prices:   {key: p}
      lost:     {key: nothing}
`

// TestSlottedTables names what lies in slots.
func TestSlottedTables(t *testing.T) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, pgtest.Shared(t).DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, slottedSchema); err != nil {
		t.Fatal(err)
	}
	snapshot, err := catalog.LoadTables(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := config.Parse([]byte(slottedConfig), "slotted.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s := SlottedTables(&parsed.Databases[0], snapshot)
	var got []string
	for _, x := range s.Tables {
		got = append(got, fmt.Sprintf("%s.%s by %s", x.Table.Schema, x.Table.Name, strings.Join(x.Key, ", ")))
	}
	for _, x := range s.Fixed {
		got = append(got, fmt.Sprintf("%s.%s by %s on %s", x.Table.Schema, x.Table.Name, x.By, strings.Join(x.On, ", ")))
	}
	for _, x := range s.Schemas {
		got = append(got, fmt.Sprintf("schema %s on %q", x.Name, x.Shard))
	}
	for _, x := range s.Unknown {
		got = append(got, fmt.Sprintf("%s.%s %s", x.Table.Schema, x.Table.Name, x.Why))
	}
	want := `public.keyed by account_id
public.many_newest by customer_id
public.many_old by customer_id
public.orders by customer_id
public.pairs by b, a
public.shown by account_id
public.regions by list on s0, s1, s2
public.years by range on s0, s2
schema one on "s1"
schema tenant_a on ""
schema tenant_b on ""
public.apart_old is a partition with a rule that places rows elsewhere than the table's
public.lost has no column nothing, which is to be its key
public.prices has a key, p, of a type or collation that cannot be one`
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("%s\nwant\n%s", text, want)
	}
}

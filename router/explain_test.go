package router

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"shardproxy/query"
	"shardproxy/shardmap"
	"shardproxy/wire"
)

const explainSchema = `customers sharded id:int8* name:text
orders sharded id:int8 customer_id:int8* note:text
pairs sharded a:int4* b:text*
flags sharded f:bool* u:uuid
accounts sharded id:int8+* name:text
notes sharded id:int8+ customer_id:int8* note:text
products reference id:int8
settings single key:text
v_seven view id AS SELECT customer_id AS id FROM public.orders WHERE customer_id = 7`

// explained returns the route of a text; params are the body of Bind behind the names.
func explained(t *testing.T, sql string, owned bool, params []byte) *Route {
	t.Helper()
	rel := testSchema(t, explainSchema)
	for _, r := range rel {
		if r.kind == kindSharded {
			r.placement = &Placement{types: r.placement.types}
			for _, k := range r.key {
				r.placement.names = append(r.placement.names, r.columns[k].name)
			}
		}
	}
	var n query.Normal
	n.Scan([]byte(sql))
	literals := slices.Clone(n.Literals)
	st, shapes := n.AnalyzeShapes(sql, query.Options{})
	found := route(rel, st, shapes, sql, literals)
	p := newJudge(nil, Context{}, nil).plan(st)
	p.Where, p.Refusal, p.groups, p.split = found.where, found.refusal, found.groups, found.split
	in := RouteInput{Shards: []string{"a", "b"}, Values: &Values{Text: []byte(sql), Literals: literals}}
	if params != nil && !in.Values.Bind(params) {
		t.Fatal("a bad Bind")
	}
	if owned {
		rows := make([]shardmap.Row, 64)
		for i := range rows {
			rows[i] = shardmap.Row{Slot: int64(i), Shard: in.Shards[i%2]}
		}
		m, err := shardmap.NewMap(3, len(rows), in.Shards, rows)
		if err != nil {
			t.Fatal(err)
		}
		in.Owners, _ = NewOwners(m, in.Shards)
	}
	return p.Route(in)
}

// bindOf returns a Bind of values in binary, and one result format.
func bindOf(values ...[]byte) []byte {
	b := []byte{0, 1, 0, 1, 0, byte(len(values))}
	for _, v := range values {
		if v == nil {
			b = append(b, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
	}
	return append(b, 0, 1, 0, 1)
}

func TestRouteLines(t *testing.T) {
	six := binary.BigEndian.AppendUint64(nil, 6)
	uuid := []byte("0123456789abcdef")
	for _, c := range []struct {
		sql    string
		params []byte
		want   string // without what is told of the node
	}{
		{"SELECT 1", nil, "Route: any shard"},
		{"SELECT * FROM settings", nil, "Route: home shard a"},
		{"DELETE FROM products WHERE id = 1", nil, "Route: all shards: a, b"},
		{"DELETE FROM products WHERE id = '1' AND 'now' < '2020-01-01'", nil,
			"Route: refused (0A000)|  a value that stands for the time of the moment may differ from shard to shard|  Hint: Give the time itself."},
		{"SELECT * FROM orders WHERE customer_id = 6", nil, "Route: shard a|  public.orders: customer_id = '6' (slot 48, shard a)"},
		{"SELECT * FROM orders WHERE customer_id = $1", nil, "Route: the shard of $1|  public.orders: customer_id = $1"},
		{"SELECT * FROM orders WHERE customer_id = $1", bindOf(six), "Route: shard a|  public.orders: customer_id = $1 (6) (slot 48, shard a)"},
		{"SELECT * FROM orders WHERE customer_id = $1", bindOf(nil), "Route: any shard: no row has such a key|  public.orders: customer_id = $1 (NULL)"},
		{"SELECT * FROM orders WHERE customer_id = NULL", nil, "Route: any shard: no row has such a key|  public.orders: customer_id = NULL"},
		{"SELECT * FROM orders WHERE customer_id = ANY('{6,6}')", nil, "Route: shard a|  public.orders: customer_id = any of '{6,6}' (slot 48, shard a)"},
		{"SELECT * FROM pairs WHERE a = 1 AND b IN ('x', 'y''\n', 'z', 'w', 'v')", nil,
			"Route: refused (0A000, several_shards)|  this statement cannot be run over several shards: its keys lie on several shards, of public.pairs|  Hint: Send one statement for each key.|" +
				"  public.pairs: a = '1', b = one of 'x', 'y'' ', 'z', 'w', 'v' (slots 3 57 *, shards b a)"},
		{"SELECT * FROM v_seven", nil, "Route: shard b|  public.orders: customer_id = '7' (slot 63, shard b)"},
		{"SELECT * FROM flags WHERE f", nil, "Route: shard a|  public.flags: f = 'true' (slot 6, shard a)"},
		{"SELECT * FROM flags WHERE u IS NULL", nil, "Route: refused (0A000, unbound_key)|*"},
		{"SELECT * FROM flags WHERE f = true", nil, "Route: shard *"},
		{"INSERT INTO flags VALUES ($1, $2)", bindOf([]byte{1}, uuid), "Route: shard *|  public.flags: f = $1 (true) (*"},
		{"INSERT INTO orders (customer_id) VALUES (6), ($1)", nil, "Route: each row on the shard of its key|  public.orders: customer_id = '6' (slot 48, shard a)|  public.orders: customer_id = $1"},
		{"INSERT INTO orders (customer_id) VALUES (6), (7)", nil, "Route: rows by their keys: a, b|  public.orders: customer_id = '6' (slot 48, shard a)|  public.orders: customer_id = '7' (slot 63, shard b)"},
		{"INSERT INTO orders (customer_id) VALUES (6), ('x')", nil, "Route: refused (22P02)|  invalid input syntax for type bigint: \"x\"|  public.orders: customer_id = '6' (slot 48, shard a)|*"},
		{"INSERT INTO accounts (name) VALUES ('x')", nil, "Route: the shard of a drawn value|  public.accounts: id = a drawn value|  values drawn for: id"},
		{"INSERT INTO accounts (name) VALUES ($1), ('y')", bindOf(six), "Route: each row on the shard of its key|  public.accounts: id = a drawn value|*  values drawn for: id"},
		{"INSERT INTO notes (customer_id) VALUES (6)", nil, "Route: shard a|  public.notes: customer_id = '6' (slot 48, shard a)|  values drawn for: id"},
		{"SELECT * FROM orders o, customers c WHERE o.customer_id = 6 AND c.id = $1", nil, "Route: the shard of '6', $1|  public.orders: customer_id = '6' (slot 48, shard a)|  public.customers: id = $1"},
		{"SELECT * FROM orders o, customers c, orders p WHERE o.customer_id = 6 AND c.id = $1 AND p.customer_id = 7", nil, "Route: refused (0A000, several_shards)|*"},
	} {
		r := explained(t, c.sql, true, c.params)
		lines := r.Lines()
		if r.Refusal == nil {
			if !strings.HasPrefix(lines[len(lines)-1], "Node: primary") {
				t.Errorf("%s: no node: %q", c.sql, lines)
			}
			lines = lines[:len(lines)-1]
		}
		if got := strings.Join(lines, "|"); !like(got, c.want) {
			t.Errorf("%s:\n%s, want\n%s", c.sql, got, c.want)
		}
		for _, l := range lines {
			if strings.ContainsAny(l, "\n\r") {
				t.Errorf("%s: %q is more than a line", c.sql, l)
			}
		}
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
	}
	r := explained(t, "SELECT * FROM orders WHERE customer_id = 6", false, nil)
	if r.Epoch != 0 || len(r.Shards) != 0 || r.Lines()[0] != "Route: the shard of '6'" {
		t.Errorf("without a slot map: %+v", r)
	}
}

// like compares with a pattern in which * stands for anything.
func like(got, want string) bool {
	parts := strings.Split(want, "*")
	if len(parts) == 1 {
		return got == want
	}
	if !strings.HasPrefix(got, parts[0]) {
		return false
	}
	for _, p := range parts {
		at := strings.Index(got, p)
		if at < 0 {
			return false
		}
		got = got[at+len(p):]
	}
	return parts[len(parts)-1] == "" || got == ""
}

// TestRouteBounds: an INSERT of many rows is told in a few lines.
func TestRouteBounds(t *testing.T) {
	var sql strings.Builder
	sql.WriteString("INSERT INTO orders (customer_id) VALUES (0)")
	for i := range 500 {
		fmt.Fprintf(&sql, ", (%d)", i+1)
	}
	r := explained(t, sql.String(), true, nil)
	if r.Where != "rows" || len(r.Tables) != MaxRouteTables || r.Omitted != 501-MaxRouteTables || len(r.Shards) != 2 {
		t.Errorf("%s of %d tables, %d omitted", r.Where, len(r.Tables), r.Omitted)
	}
	if l := r.Lines(); l[len(l)-2] != fmt.Sprintf("  and %d more", r.Omitted) {
		t.Error(l[len(l)-2:])
	}
}

func TestReasons(t *testing.T) {
	if got := ReasonOf((&Refusal{Reason: reasonMixed}).Error()); got != reasonMixed {
		t.Error(got)
	}
	if got := ReasonOf(unproven("it is odd")); got != reasonValue {
		t.Error(got)
	}
	if got := ReasonOf(wire.Errorf("0A000", "no")); got != "" {
		t.Error(got)
	}
	seen := map[Reason]bool{}
	for _, r := range Reasons() {
		if r == "" || seen[r] {
			t.Errorf("%q is there twice", r)
		}
		seen[r] = true
	}
}

// TestExplainPlans: the proxy's own EXPLAIN is recognised, and means nothing else.
func TestExplainPlans(t *testing.T) {
	r := New(Options{})
	for range 2 { // the second from the cache
		p := r.Plan([]byte("EXPLAIN (ROUTE, FORMAT JSON) DELETE FROM t; DROP TABLE t"), Context{})
		if o := p.Explain(); o == nil || !o.Route || o.Format != "json" || p.MayWrite || p.Effects != 0 || p.Where != Anywhere {
			t.Fatalf("%+v", p)
		}
		if p := r.Plan([]byte("EXPLAIN DELETE FROM t"), Context{}); p.Explain() == nil || p.Explain().Route {
			t.Errorf("%+v", p.Explain())
		}
		if p := r.Plan([]byte("DELETE FROM t"), Context{}); p.Explain() != nil {
			t.Errorf("%+v", p.Explain())
		}
	}
}

package main

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
)

// kindOf is the type of a generated expression, as far as what may be compared with it.
type kindOf byte

const (
	number kindOf = 'n' // bigint or int
	words  kindOf = 't' // text
	money  kindOf = 'm' // numeric
	dates  kindOf = 'd' // date
)

// column is one column that a generated query may name.
type column struct {
	name string // with its alias before it
	kind kindOf
	// customer is set for what holds keys of customers, most of all keys.
	customer, tenant bool
}

// generator makes statements over the schema of testdata/diff. What it makes is given
// by its seed.
type generator struct {
	*rand.Rand
	args    []any
	params  bool // values are parameters, now and then
	aliases int
	// customer, tenant and day are those that most of a statement is about.
	customer int64
	tenant   string
	day      string
	ctes     []cte
	depth    int
	// loose is set where nothing of a statement shall be bound to a key.
	loose bool
	// near is set for a statement whose tables are joined by their keys and that binds
	// one of them, in a place that may count or not: what is proven wrongly shows there.
	near bool
	// ordered is set when the rows come in one order only.
	ordered bool
	// fan is set for a statement over several shards, see fans.
	fan bool
	// left is how many places may bind one still.
	left int
}

type cte struct {
	name    string
	columns []column // named without an alias
}

// tables that a generated query reads; k is one more chance for it.
var genTables = []struct {
	name    string
	weight  int
	columns string
}{
	{"customers", 4, "id:C name:t email:t"},
	{"orders", 8, "id:n customer_id:C note:t total:m product_id:n"},
	{"items", 6, "order_id:n customer_id:C product_id:n qty:n"},
	{"addresses", 2, "customer_id:C n:n city:t"},
	{"loose", 2, "customer_id:C v:t"},
	{"logs", 2, "customer_id:C day:d msg:t"},
	{"tickets", 1, "id:n customer_id:C body:t"},
	{"tenants", 2, "tenant:T name:t n:n"},
	{"events", 2, "tenant:T day:d what:t n:n"},
	{"readings", 1, "at:n v:n"},
	{"products", 4, "id:n name:t price:m"},
	{"settings", 1, "key:t value:t customer_id:n"},
	{"v_orders", 2, "id:n customer_id:C note:t"},
	{"v_renamed", 1, "a:C b:n"},
	{"v_big", 1, "customer_id:C sum:m"},
	{"v_both", 1, "customer_id:C id:n qty:n"},
	{"v_union", 1, "customer_id:C t:t"},
	{"v_seven", 1, "id:n note:t"},
	{"v_products", 1, "id:n name:t"},
}

func newGenerator(seed uint64) *generator {
	return &generator{Rand: rand.New(rand.NewPCG(seed, 0x5eed))}
}

// begin starts a statement.
func (g *generator) begin() {
	g.args, g.aliases, g.ctes, g.depth = nil, 0, nil, 0
	g.params = g.chance(40)
	g.near, g.left, g.ordered = g.chance(38), 1, false
	g.loose = !g.near && g.chance(4)
	g.customer = pick(g, diffCustomers)
	if g.customer >= 1<<31 {
		g.customer = 5
	}
	g.tenant, g.day = pick(g, diffTenants), pick(g, diffDays)
}

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g *generator, list []T) T { return list[g.IntN(len(list))] }

// columnsOf reads "id:C name:t" as the columns of an alias.
func columnsOf(alias, text string) (out []column) {
	for c := range strings.FieldsSeq(text) {
		name, kind, _ := strings.Cut(c, ":")
		col := column{name: alias + "." + name, kind: kindOf(kind[0])}
		switch kind {
		case "C":
			col.kind, col.customer = number, true
		case "T":
			col.kind, col.tenant = words, true
		}
		out = append(out, col)
	}
	return out
}

func (g *generator) alias() string {
	g.aliases++
	if g.aliases > 1 && g.chance(6) {
		return fmt.Sprintf("x%d", g.IntN(g.aliases)+1) // one of an outer query, or a mistake
	}
	return fmt.Sprintf("x%d", g.aliases)
}

// of returns a column that satisfies, if there is one.
func of(g *generator, columns []column, is func(column) bool) (column, bool) {
	var fit []column
	for _, c := range columns {
		if is(c) {
			fit = append(fit, c)
		}
	}
	if len(fit) == 0 {
		return column{}, false
	}
	return pick(g, fit), true
}

func ofKind(k kindOf) func(column) bool { return func(c column) bool { return c.kind == k } }
func isCustomer(c column) bool          { return c.customer }

// value writes a value of a kind; the key values of the statement come often.
func (g *generator) value(c column) string {
	switch {
	case c.customer:
		id := g.customer
		if g.chance(8) {
			id = pick(g, diffCustomers)
		}
		return g.number(id)
	case c.tenant:
		t := g.tenant
		if g.chance(8) {
			t = pick(g, diffTenants)
		}
		return g.text(t)
	}
	switch c.kind {
	case number:
		return g.number(int64(g.IntN(9)))
	case millis:
		return g.number(int64(g.IntN(9)-4)) + "::numeric(12,3)"
	case money:
		if g.fan {
			return g.number(int64(g.IntN(60))) + "::numeric(10,2)"
		}
		return g.number(int64(g.IntN(60))) + pick(g, []string{"", "::numeric"})
	case dates:
		if g.chance(60) {
			return g.date(g.day)
		}
		return g.date(pick(g, diffDays))
	}
	return g.text(fmt.Sprintf("n%d", g.IntN(5)))
}

// bind makes a value a parameter.
func (g *generator) bind(v any) string {
	if len(g.args) > 0 && g.chance(15) {
		for i, a := range g.args {
			if reflect.DeepEqual(a, v) {
				return fmt.Sprintf("$%d", i+1)
			}
		}
	}
	g.args = append(g.args, v)
	return fmt.Sprintf("$%d", len(g.args))
}

func (g *generator) number(n int64) string {
	if g.params && g.chance(60) {
		switch g.IntN(8) {
		case 0:
			if n < 1<<31 {
				return g.bind(int32(n)) + "::int"
			}
		case 1:
			return g.bind(n) + "::bigint"
		case 2:
			return g.bind(fmt.Sprint(n))
		}
		return g.bind(n)
	}
	switch g.IntN(14) {
	case 0:
		return fmt.Sprintf("'%d'", n)
	case 1:
		return fmt.Sprintf("%d::bigint", n)
	case 2:
		return fmt.Sprintf("'%d'::bigint", n)
	case 3:
		return fmt.Sprintf("bigint '%d'", n)
	case 4:
		return fmt.Sprintf("CAST('%d' AS bigint)", n)
	case 5:
		if n >= 0 {
			return fmt.Sprintf("'00%d'", n)
		}
	case 6:
		if g.chance(30) {
			return fmt.Sprintf("(%d + 1)", n-1)
		}
	case 7:
		if g.chance(30) {
			return fmt.Sprintf("%d.0", n)
		}
	}
	return fmt.Sprint(n)
}

func (g *generator) text(t string) string {
	if g.params && g.chance(50) {
		return g.bind(strings.ReplaceAll(t, "''", "'")) + pick(g, []string{"", "", "::text", "::varchar"})
	}
	return "'" + t + "'" + pick(g, []string{"", "", "", "::text", "::varchar"})
}

func (g *generator) date(d string) string {
	if g.params && g.chance(50) {
		return g.bind(d) + "::date"
	}
	return pick(g, []string{"'" + d + "'", "date '" + d + "'", "'" + d + "'::date"})
}

// table is one item of FROM that is no join.
func (g *generator) table(outer []column, before []column) (text string, columns []column) {
	alias := g.alias()
	if g.near && g.chance(60) {
		return g.nearTable(outer, before, alias)
	}
	switch n := g.IntN(100); {
	case n < 14 && g.depth < 3:
		q, cols := g.query(outer)
		return g.derived("("+q+")", alias, cols)
	case n < 20 && g.depth < 3 && len(before) > 0:
		q, cols := g.query(append(before[:len(before):len(before)], outer...))
		return g.derived("LATERAL ("+q+")", alias, cols)
	case n < 32 && len(g.ctes) > 0:
		c := pick(g, g.ctes)
		return g.derived(c.name, alias, c.columns)
	case n < 35:
		return fmt.Sprintf("(VALUES (%s, 'n1'), (3, NULL)) AS %s(a, b)", fmt.Sprint(g.customer), alias),
			[]column{{name: alias + ".a", kind: number}, {name: alias + ".b", kind: words}}
	case n < 37:
		return fmt.Sprintf("generate_series(1, 3) AS %s(a)", alias), []column{{name: alias + ".a", kind: number}}
	}
	if g.fan {
		if text, columns := g.fanTable(alias); text != "" {
			return text, columns
		}
	}
	total := 0
	for _, t := range genTables {
		total += t.weight
	}
	n := g.IntN(total)
	for _, t := range genTables {
		if n -= t.weight; n < 0 {
			return t.name + " " + alias, columnsOf(alias, t.columns)
		}
	}
	return "", nil
}

// derived gives the columns of a query in FROM their alias, and now and then other names.
func (g *generator) derived(text, alias string, columns []column) (string, []column) {
	out := make([]column, len(columns))
	var names []string
	renamed := g.chance(15)
	for i, c := range columns {
		out[i] = c
		if renamed {
			names = append(names, fmt.Sprintf("r%d", i))
			out[i].name = fmt.Sprintf("%s.r%d", alias, i)
		} else {
			out[i].name = alias + "." + c.name
		}
	}
	if renamed {
		return fmt.Sprintf("%s AS %s(%s)", text, alias, strings.Join(names, ", ")), out
	}
	return text + " " + alias, out
}

package main

import (
	"fmt"
	"strings"
)

// Statements that bind one key in one place, and join all tables by their keys. About
// half of them lie on one shard; of the others a proof must see that they do not.

// keyedTables are those that are placed by a customer's key.
var keyedTables = []struct{ name, columns string }{
	{"orders", "id:n customer_id:C note:t total:m product_id:n"},
	{"orders", "id:n customer_id:C note:t total:m product_id:n"},
	{"items", "order_id:n customer_id:C product_id:n qty:n"},
	{"items", "order_id:n customer_id:C product_id:n qty:n"},
	{"customers", "id:C name:t email:t"},
	{"loose", "customer_id:C v:t"},
	{"logs", "customer_id:C day:d msg:t"},
	{"v_orders", "id:n customer_id:C note:t"},
	{"v_both", "customer_id:C id:n qty:n"},
	{"v_union", "customer_id:C t:t"},
	{"v_big", "customer_id:C sum:m"},
}

// nearTable is an item of FROM that has a key: a table, a query of such, or a reference
// table whose numbers are taken for keys.
func (g *generator) nearTable(outer, before []column, alias string) (string, []column) {
	switch n := g.IntN(100); {
	case n < 30 && g.depth < 3:
		q, cols := g.query(outer)
		return g.derived("("+q+")", alias, cols)
	case n < 38 && g.depth < 3 && len(before) > 0:
		q, cols := g.query(append(before[:len(before):len(before)], outer...))
		return g.derived("LATERAL ("+q+")", alias, cols)
	case n < 50 && len(g.ctes) > 0:
		c := pick(g, g.ctes)
		return g.derived(c.name, alias, c.columns)
	case n < 56:
		return "products " + alias, columnsOf(alias, "id:C name:t price:m")
	}
	t := pick(g, keyedTables)
	return t.name + " " + alias, columnsOf(alias, t.columns)
}

// site is one place where a key may be bound: it is, or is not.
func (g *generator) site(columns []column) string {
	c, ok := of(g, columns, isCustomer)
	if !g.near || g.left == 0 || !ok || !g.chance(40) {
		return ""
	}
	if g.left--; g.chance(12) {
		g.left++ // in two places
	}
	k := g.value(c)
	switch n := g.IntN(100); {
	case n < 62:
		return c.name + " = " + k
	case n < 67:
		return fmt.Sprintf("%s IN (%s, %s)", c.name, k, g.value(c))
	case n < 70:
		return fmt.Sprintf("%s = ANY (%s)", c.name, g.array())
	case n < 74:
		return c.name + " IS NOT DISTINCT FROM " + k
	case n < 80:
		d := pick(g, columns)
		return fmt.Sprintf("(%s = %s OR %s = %s)", c.name, k, d.name, g.value(d))
	case n < 83:
		return fmt.Sprintf("NOT (%s <> %s)", c.name, k)
	case n < 86:
		return fmt.Sprintf("coalesce(%s = %s, true)", c.name, k)
	case n < 89:
		return fmt.Sprintf("(%s = %s OR %s IS NULL)", c.name, k, c.name)
	case n < 92:
		return fmt.Sprintf("(%s = %s) IS NOT FALSE", c.name, k)
	case n < 96 && g.depth < 3:
		return fmt.Sprintf("%s %sIN (%s)", c.name, pick(g, []string{"", "", "NOT "}), g.keys(k))
	}
	return fmt.Sprintf("%s >= %s", c.name, k)
}

// keys is a query of one column of keys, all but one time in four bound.
func (g *generator) keys(k string) string {
	t := pick(g, keyedTables[:5])
	key, _ := of(g, columnsOf("s", t.columns), isCustomer)
	q := fmt.Sprintf("SELECT %s FROM %s s", key.name, t.name)
	if g.chance(75) {
		q += " WHERE " + key.name + " = " + k
	}
	return q
}

// nearWhere makes the conditions of such a query.
func (g *generator) nearWhere(columns, outer []column) string {
	var all []string
	if c, ok := of(g, columns, isCustomer); ok && len(outer) > 0 && g.chance(85) {
		if o, ok := of(g, outer, isCustomer); ok {
			all = append(all, o.name+" = "+c.name)
		}
	}
	if s := g.site(columns); s != "" {
		all = append(all, s)
	}
	switch n := g.IntN(100); {
	case n < 6:
		all = append(all, pick(g, columns).name+pick(g, []string{" IS NULL", " IS NOT NULL"}))
	case n < 20 && g.depth < 3:
		all = append(all, g.sublink(columns, outer))
	case n < 24:
		all = append(all, g.condition(columns, outer))
	}
	g.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if len(all) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(all, " AND ")
}

// bound wraps a query that binds nothing yet, so that it does from outside.
func (g *generator) bound(sql string, columns []column) string {
	if !g.near || g.left == 0 || !g.chance(80) {
		return sql
	}
	g.left = 0
	for i, c := range columns {
		if c.customer {
			return fmt.Sprintf("SELECT * FROM (%s) o WHERE o.c%d = %s", sql, i, g.value(c))
		}
	}
	return sql
}

package main

import (
	"fmt"
	"strings"
)

// Statements that read rows of several shards: no key is bound, and there is more of
// what has to be put together then: aggregates, groups, orders, limits, windows. Each has
// one answer wherever its rows lie, so that rows are only left out behind an order of all
// columns, and values that are equal look alike.

// millis is numeric(12,3), so that equal values look alike.
const millis kindOf = 'q'

// fanTables are those that such a statement reads beside genTables.
var fanTables = []struct {
	name    string
	weight  int
	columns string
}{
	{"facts", 16, "k:C id:n i2:n i4:n i8:n m:q t:t tc:t vc:t d:d"},
	{"sums", 10, "k:C id:n i2:n i4:n i8:n m:q t:t vc:t d:d"},
	{"links", 8, "k:C other:C"},
	{"names", 4, "id:C name:t"},
	{"shapes", 2, "k:C"},
	{"nothing", 1, "k:C v:t"},
	{`"Odd Table"`, 2, `"Key":C "select":t "a""b":n`},
	{"side.visits", 2, "k:C note:t"},
	{"v_facts", 2, "k:C id:n i4:n t:t"},
	{"v_totals", 2, "tc:t n:n"},
	{"v_first", 1, "k:C id:n i4:n"},
	{"v_mixed", 1, "k:C id:n name:t"},
}

// fanTable picks a table, nil now and then: one of genTables.
func (g *generator) fanTable(alias string) (string, []column) {
	n := g.IntN(60)
	for _, t := range fanTables {
		if n -= t.weight; n < 0 {
			return t.name + " " + alias, columnsOf(alias, t.columns)
		}
	}
	return "", nil
}

// fans makes a whole statement over several shards.
func (g *generator) fans() string {
	g.begin()
	g.fan, g.near, g.loose = true, false, true
	defer func() { g.fan = false }()
	with := g.withs()
	sql, cols := g.query(nil)
	if g.chance(45) && !strings.Contains(sql, "ORDER BY") {
		sql += g.orderBy(cols)
		g.ordered = true
		if g.chance(40) {
			sql += g.limit()
		}
	}
	return with + sql
}

// orderBy orders by all columns of a result, each its own way.
func (g *generator) orderBy(cols []column) string {
	var keys []string
	for i, c := range cols {
		keys = append(keys, pick(g, []string{fmt.Sprint(i + 1), c.name})+g.direction())
	}
	g.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return " ORDER BY " + strings.Join(keys, ", ")
}

func (g *generator) direction() string {
	return pick(g, []string{"", "", "", " ASC", " DESC", " DESC", " NULLS FIRST", " DESC NULLS LAST", " ASC NULLS LAST", " USING >"})
}

func (g *generator) limit() string {
	n := int64(g.IntN(12))
	text := fmt.Sprint(n)
	if g.params && g.chance(50) {
		text = g.bind(n)
	}
	return fmt.Sprintf(pick(g, []string{" LIMIT %s", " LIMIT %s", " LIMIT %s OFFSET 2", " OFFSET %s", " FETCH FIRST (%s) ROWS WITH TIES", " OFFSET 1 FETCH NEXT (%s) ROWS ONLY", " LIMIT %s + 1", " LIMIT ALL OFFSET %s"}), text)
}

// fanQuery makes a SELECT of a shape that needs more than one shard's work.
func (g *generator) fanQuery(outer []column) (string, []column) {
	from, columns := g.from(outer, 1+g.IntN(map[bool]int{true: 3, false: 2}[g.depth == 1]))
	from += g.where(columns, outer)
	switch n := g.IntN(100); {
	case n < 25:
		return g.totals(from, columns)
	case n < 60:
		return g.groups(from, columns)
	case n < 78:
		return g.windows(from, columns)
	case n < 88:
		return g.distinct(from, columns)
	}
	return g.hidden(from, columns, outer)
}

// named gives expressions the names c0, c1 and so on.
func named(exprs []string, cols []column) (string, []column) {
	for i := range exprs {
		exprs[i] += fmt.Sprintf(" AS c%d", i)
		cols[i].name = fmt.Sprintf("c%d", i)
	}
	return strings.Join(exprs, ", "), cols
}

// totals are aggregates of all rows.
func (g *generator) totals(from string, columns []column) (string, []column) {
	var exprs []string
	var cols []column
	for range 1 + g.IntN(4) {
		e, c := g.aggregate(columns)
		exprs, cols = append(exprs, e), append(cols, c)
	}
	list, cols := named(exprs, cols)
	sql := "SELECT " + list + " FROM " + from
	if g.chance(12) {
		sql += " HAVING " + g.having(columns)
	}
	return sql, cols
}

func (g *generator) having(columns []column) string {
	switch g.IntN(3) {
	case 0:
		e, _ := g.aggregate(columns)
		return e + " IS NOT NULL"
	case 1:
		return "count(" + pick(g, columns).name + ") > 0"
	}
	return fmt.Sprintf("count(*) > %d", g.IntN(4))
}

// groups are aggregates by one or two keys, which may or may not be given.
func (g *generator) groups(from string, columns []column) (string, []column) {
	var exprs, keys []string
	var cols []column
	for range 1 + g.IntN(2) {
		e, c := g.groupKey(columns)
		if g.chance(75) {
			exprs, cols = append(exprs, e), append(cols, c)
			e = pick(g, []string{e, e, fmt.Sprint(len(exprs))})
		}
		keys = append(keys, e)
	}
	for range 1 + g.IntN(3) {
		e, c := g.aggregate(columns)
		exprs, cols = append(exprs, e), append(cols, c)
	}
	list, cols := named(exprs, cols)
	by := strings.Join(keys, ", ")
	if !strings.ContainsAny(by, "(123") && g.chance(15) {
		by = fmt.Sprintf(pick(g, []string{"ROLLUP (%s)", "CUBE (%s)", "GROUPING SETS ((%s), ())"}), by)
	}
	sql := fmt.Sprintf("SELECT %s FROM %s GROUP BY %s", list, from, by)
	if g.chance(25) {
		sql += " HAVING " + g.having(columns)
	}
	return sql, cols
}

func (g *generator) groupKey(columns []column) (string, column) {
	c := pick(g, columns)
	plain := column{kind: c.kind, customer: c.customer, tenant: c.tenant}
	switch n := g.IntN(100); {
	case n < 60:
		return c.name, plain
	case n < 68 && c.kind == number:
		return c.name + " % 3", column{kind: number}
	case n < 76 && c.kind == number:
		return "coalesce(" + c.name + ", 0)", column{kind: number}
	case n < 84 && c.kind == words:
		return "length(" + c.name + ")", column{kind: number}
	case n < 90 && c.kind == words:
		return "lower(" + c.name + ")", column{kind: words}
	case n < 94:
		return "CASE WHEN " + c.name + " IS NULL THEN 1 ELSE 0 END", column{kind: number}
	}
	return c.name, plain
}

// aggregate makes a call of an aggregate, or an expression of such.
func (g *generator) aggregate(columns []column) (string, column) {
	e, kind := g.call(columns)
	if kind == 0 { // numeric or else what another query cannot take
		if g.depth > 1 {
			return "(" + e + ")::bigint", column{kind: number}
		}
		return e, column{kind: number}
	}
	if kind == number {
		switch g.IntN(10) {
		case 0:
			e = "coalesce(" + e + ", 0)"
		case 1:
			e += " + 1"
		case 2:
			e = "CASE WHEN " + e + " > 3 THEN 1 ELSE 0 END"
		}
		e = "(" + e + ")::bigint"
	}
	return e, column{kind: kind}
}

// call is an aggregate of a column; its kind is nought for a numeric.
func (g *generator) call(columns []column) (string, kindOf) {
	e, kind := g.plainCall(columns)
	if !g.chance(18) || strings.HasPrefix(e, "array_agg") {
		return e, kind
	}
	d := pick(g, columns)
	test := d.name + " IS NOT NULL"
	if g.chance(60) {
		test = fmt.Sprintf(pick(g, []string{"%s > %s", "NOT %s = %s"}), d.name, g.value(d))
	}
	end := strings.LastIndex(e, ")") + 1
	return e[:end] + " FILTER (WHERE " + test + ")" + e[end:], kind
}

func (g *generator) plainCall(columns []column) (string, kindOf) {
	c := pick(g, columns)
	distinct := pick(g, []string{"", "", "", "DISTINCT "})
	switch n := g.IntN(100); {
	case n < 18:
		return "count(*)", number
	case n < 30:
		return "count(" + distinct + c.name + ")", number
	case n < 48:
		return pick(g, []string{"min", "max"}) + "(" + c.name + ")", c.kind
	case n < 53:
		return "bool_or(" + c.name + " = " + g.value(c) + ")::int", number
	case n < 57:
		return "every(" + c.name + " IS NOT NULL)::int", number
	case n < 61 && g.depth == 1:
		return fmt.Sprintf("array_agg(%s%s ORDER BY %s)::text", distinct, c.name, c.name+pick(g, []string{"", " DESC"})), words
	case n < 66 && c.kind == words:
		return fmt.Sprintf("string_agg(%s%s, ',' ORDER BY %s)", distinct, c.name, c.name), words
	}
	if d, ok := of(g, columns, ofKind(pick(g, []kindOf{number, number, number, money, millis}))); ok {
		c = d
	}
	switch c.kind {
	case number:
		name := pick(g, []string{"sum", "sum", "sum", "avg", "avg", "bit_and", "bit_or", "bit_xor", "stddev", "var_pop", "variance"})
		if strings.HasPrefix(name, "bit") {
			return fmt.Sprintf("%s(%s)", name, c.name), number
		}
		return fmt.Sprintf("%s(%s%s)", name, distinct, c.name), 0
	case money, millis:
		return fmt.Sprintf("%s(%s%s)", pick(g, []string{"sum", "avg", "stddev_pop"}), distinct, c.name), 0
	}
	return "count(*)", number
}

// windows are calls over windows whose rows have one order.
func (g *generator) windows(from string, columns []column) (string, []column) {
	var exprs []string
	var cols []column
	for range 1 + g.IntN(2) {
		c := pick(g, columns)
		exprs, cols = append(exprs, c.name), append(cols, column{kind: c.kind, customer: c.customer, tenant: c.tenant})
	}
	part := ""
	if g.chance(70) {
		c := pick(g, columns)
		if k, ok := of(g, columns, isCustomer); ok && g.chance(50) {
			c = k
		}
		part = "PARTITION BY " + c.name + " "
	}
	for range 1 + g.IntN(2) {
		c, kind := pick(g, columns), number
		if n, ok := of(g, columns, ofKind(number)); ok && g.chance(50) {
			c = n
		}
		order := "ORDER BY " + g.all(columns)
		var call string
		switch n := g.IntN(100); {
		case n < 20:
			call = "row_number()"
		case n < 40:
			call, order = pick(g, []string{"rank()", "dense_rank()", "count(*)", "count(" + c.name + ")"}), "ORDER BY "+c.name+g.direction()
		case n < 55:
			call, kind = pick(g, []string{"lag", "lead", "first_value", "last_value"})+"("+c.name+")", c.kind
		case n < 70:
			call, kind, order = pick(g, []string{"min", "max"})+"("+c.name+")", c.kind, pick(g, []string{"", order})
		case n < 80:
			call = "count(*) FILTER (WHERE " + c.name + " IS NOT NULL)"
			order += pick(g, []string{"", " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING", " ROWS UNBOUNDED PRECEDING"})
		case n < 90 && c.kind == number:
			call, order = "sum("+c.name+")", pick(g, []string{"", order, order + " ROWS 2 PRECEDING"})
		default:
			call, order = "count(*)", ""
		}
		call += " OVER (" + part + order + ")"
		if kind == number {
			call = "(" + call + ")::bigint"
		}
		exprs, cols = append(exprs, call), append(cols, column{kind: kind})
	}
	list, cols := named(exprs, cols)
	return "SELECT " + list + " FROM " + from, cols
}

// all lists all columns of a FROM as keys of an order: rows that are equal in it are alike.
func (g *generator) all(columns []column) string {
	var keys []string
	for _, c := range columns {
		keys = append(keys, c.name)
	}
	g.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	for i := range min(3, len(keys)) {
		keys[i] += g.direction()
	}
	return strings.Join(keys, ", ")
}

func (g *generator) distinct(from string, columns []column) (string, []column) {
	var exprs []string
	var cols []column
	for range 1 + g.IntN(2) {
		e, c := g.groupKey(columns)
		exprs, cols = append(exprs, e), append(cols, c)
	}
	list, cols := named(exprs, cols)
	return "SELECT DISTINCT " + list + " FROM " + from, cols
}

// hidden is ordered by columns that it does not give.
func (g *generator) hidden(from string, columns, outer []column) (string, []column) {
	targets, cols := g.targets(columns, outer)
	sql := "SELECT " + strings.Join(targets, ", ") + " FROM " + from + " ORDER BY " + g.all(columns)
	if g.depth == 1 {
		g.ordered = true
	}
	if g.chance(60) || g.depth > 1 {
		sql += g.limit()
	}
	return sql, cols
}

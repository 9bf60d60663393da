package main

import (
	"fmt"
	"slices"
	"strings"
)

// query makes a SELECT whose columns are named c0, c1 and so on; outer are the columns
// around it that it may name.
func (g *generator) query(outer []column) (string, []column) {
	g.depth++
	defer func() { g.depth-- }()
	if g.chance(12) && g.depth < 4 {
		return g.union(outer)
	}
	if g.fan && g.chance(map[bool]int{true: 75, false: 35}[g.depth == 1]) {
		return g.fanQuery(outer)
	}
	items := 1 + g.IntN(2)
	if g.depth == 1 {
		items = 1 + g.IntN(4)
	}
	from, columns := g.from(outer, items)
	where := g.where(columns, outer)
	switch n := g.IntN(100); {
	case n < 14:
		return g.grouped(from, where, columns)
	case n < 20, g.near && n < 26:
		return g.distinctOn(from, where, columns)
	}
	targets, cols := g.targets(columns, outer)
	sql := "SELECT " + pick(g, []string{"", "", "", "", "DISTINCT "}) + strings.Join(targets, ", ") + " FROM " + from + where
	if g.chance(15) || g.near && g.depth > 1 && g.chance(15) {
		sql += " ORDER BY " + ordinals(len(targets))
		sql += pick(g, []string{"", " LIMIT 3", " LIMIT 5 OFFSET 1", " FETCH FIRST 4 ROWS ONLY", " OFFSET 2", " FETCH FIRST 2 ROWS WITH TIES"})
	}
	return sql, cols
}

// ordinals orders by all columns: rows that are equal in it are alike.
func ordinals(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprint(i+1))
	}
	return strings.Join(all, ", ")
}

// targets picks what a query gives.
func (g *generator) targets(columns, outer []column) (targets []string, out []column) {
	add := func(expr string, c column) {
		c.name = fmt.Sprintf("c%d", len(targets))
		targets, out = append(targets, expr+" AS "+c.name), append(out, c)
	}
	for range 1 + g.IntN(2) {
		if c, ok := of(g, columns, isCustomer); ok && (g.near || g.chance(50)) {
			add(c.name, c)
		}
	}
	for range 1 + g.IntN(3) {
		c := pick(g, columns)
		switch n := g.IntN(100); {
		case n < 70:
			add(c.name, c)
		case n < 76:
			add(fmt.Sprintf("(%s = %s)", c.name, g.value(c))+"::int::bigint", column{kind: number})
		case n < 82:
			add("coalesce("+c.name+", "+g.value(c)+")", column{kind: c.kind})
		case n < 86:
			add("rank() OVER (PARTITION BY "+pick(g, columns).name+" ORDER BY "+c.name+")", column{kind: number})
		case n < 89:
			add("count(*) OVER (PARTITION BY "+c.name+")", column{kind: number})
		case n < 95 && g.depth < 3:
			if s, ok := g.scalar(columns, outer); ok {
				add(s, column{kind: number})
			} else {
				add(c.name, c)
			}
		case n < 97 && c.kind == number:
			add(c.name+" + 0", column{kind: number})
		case n < 99:
			add("CASE WHEN "+g.condition(columns, outer)+" THEN 1 ELSE 0 END::bigint", column{kind: number})
		default:
			add("NULL::bigint", column{kind: number})
		}
	}
	return targets, out
}

func (g *generator) grouped(from, where string, columns []column) (string, []column) {
	c := pick(g, columns)
	if k, ok := of(g, columns, isCustomer); ok && g.chance(60) {
		c = k
	}
	d := pick(g, columns)
	out := []column{{"c0", c.kind, c.customer, c.tenant}, {"c1", number, false, false}, {"c2", d.kind, false, false}}
	group := pick(g, []string{c.name, c.name, c.name, "1", "c0", "ROLLUP (" + c.name + ")", c.name + ", " + d.name, "GROUPING SETS ((" + c.name + "), ())"})
	having := ""
	if s := g.site([]column{c}); s != "" {
		return fmt.Sprintf("SELECT %s AS c0, count(*) AS c1, max(%s) AS c2 FROM %s%s GROUP BY %s HAVING %s", c.name, d.name, from, where, c.name, s), out
	}
	switch g.IntN(6) {
	case 0:
		having = " HAVING count(*) > 1"
	case 1:
		having = fmt.Sprintf(" HAVING %s = %s", c.name, g.value(c))
	}
	return fmt.Sprintf("SELECT %s AS c0, count(*) AS c1, max(%s) AS c2 FROM %s%s GROUP BY %s%s", c.name, d.name, from, where, group, having), out
}

func (g *generator) distinctOn(from, where string, columns []column) (string, []column) {
	a, b, c := pick(g, columns), pick(g, columns), pick(g, columns)
	if k, ok := of(g, columns, isCustomer); ok {
		b = k
		if g.chance(40) {
			a = k
		}
	}
	out := []column{{"c0", a.kind, a.customer, a.tenant}, {"c1", b.kind, b.customer, b.tenant}, {"c2", c.kind, c.customer, c.tenant}}
	return fmt.Sprintf("SELECT DISTINCT ON (%s) %s AS c0, %s AS c1, %s AS c2 FROM %s%s ORDER BY 1, 2, 3",
		pick(g, []string{a.name, a.name, "c0", "1"}), a.name, b.name, c.name, from, where), out
}

// union makes a set operation of two queries with one number each, most often keys.
func (g *generator) union(outer []column) (string, []column) {
	branch := func() (string, column) {
		from, columns := g.from(outer, 1+g.IntN(2))
		c, ok := of(g, columns, isCustomer)
		if !ok || g.chance(15) {
			if c, ok = of(g, columns, ofKind(number)); !ok {
				return "SELECT NULL::bigint AS c0, 'n1'::text AS c1", column{kind: number}
			}
		}
		t, ok := of(g, columns, ofKind(words))
		if !ok {
			t.name = "NULL::text"
		}
		sql := fmt.Sprintf("SELECT %s%s::bigint AS c0, %s AS c1 FROM %s%s", pick(g, []string{"", "", "DISTINCT "}), c.name, t.name, from, g.where(columns, outer))
		if c.kind == number {
			sql = strings.Replace(sql, "::bigint AS c0", " AS c0", 1)
		}
		if g.chance(10) {
			sql = "(" + sql + " ORDER BY 1, 2 LIMIT 3)"
		}
		return sql, c
	}
	sql, c := branch()
	for range 1 + g.IntN(2) {
		right, d := branch()
		sql += pick(g, []string{" UNION ", " UNION ALL ", " UNION ALL ", " EXCEPT ", " INTERSECT ", " EXCEPT ALL "}) + right
		c.customer = c.customer && d.customer
	}
	if g.chance(15) {
		sql += " ORDER BY 1, 2 LIMIT 4"
	}
	return sql, []column{{"c0", number, c.customer, false}, {"c1", words, false, false}}
}

// from makes the items of FROM. Two of them are joined by an equality nearly always.
func (g *generator) from(outer []column, items int) (string, []column) {
	text, columns := g.table(outer, nil)
	for i := range items - 1 {
		right, cols := g.table(outer, columns)
		lateral := strings.HasPrefix(right, "LATERAL")
		switch n := g.IntN(100); {
		case n < 4 && i == items-2: // behind a comma ON would not see what is before it
			text += ", " + right
		case n < 8:
			text += " CROSS JOIN " + right
		case n < 16 && hasName(columns, "customer_id") && hasName(cols, "customer_id"):
			text = fmt.Sprintf("%s%s JOIN %s USING (customer_id)", text, pick(g, []string{"", " LEFT", " RIGHT", " FULL"}), right)
		case n < 24 && g.fan && hasName(columns, "k") && hasName(cols, "k"):
			text = fmt.Sprintf("%s%s JOIN %s USING (k)", text, pick(g, []string{"", " LEFT", " FULL"}), right)
		default:
			kind := pick(g, []string{"", "", " LEFT", " LEFT", " LEFT", " RIGHT", " FULL"})
			if lateral && (kind == " RIGHT" || kind == " FULL") {
				kind = " LEFT"
			}
			on := g.link(columns, cols)
			if s := g.site(append(cols[:len(cols):len(cols)], columns...)); s != "" {
				on += " AND " + s
			} else if g.chance(map[bool]int{true: 8, false: 30}[g.near]) {
				on += " AND " + g.condition(append(cols[:len(cols):len(cols)], columns...), nil)
			}
			if g.chance(12) && !lateral {
				if i > 0 {
					text = "(" + text + ")"
				}
				text = fmt.Sprintf("%s%s JOIN %s ON %s", right, kind, text, on)
			} else {
				text = fmt.Sprintf("%s%s JOIN %s ON %s", text, kind, right, on)
			}
		}
		columns = append(columns[:len(columns):len(columns)], cols...)
	}
	return text, columns
}

func hasName(columns []column, name string) bool {
	n := 0
	for _, c := range columns {
		if strings.HasSuffix(c.name, "."+name) {
			n++
		}
	}
	return n == 1
}

// link makes what joins two items: the equality of keys if it can.
func (g *generator) link(left, right []column) string {
	l, lok := of(g, left, isCustomer)
	r, rok := of(g, right, isCustomer)
	if lok && rok && (g.chance(85) || g.near && g.chance(90)) {
		return l.name + pick(g, []string{" = ", " = ", " = ", " = ", " IS NOT DISTINCT FROM "}) + r.name
	}
	for range 8 {
		l, r = pick(g, left), pick(g, right)
		if l.kind == r.kind {
			return l.name + " = " + r.name
		}
	}
	return "true"
}

// where makes the conditions of a query.
func (g *generator) where(columns, outer []column) string {
	if g.near {
		return g.nearWhere(columns, outer)
	}
	var all []string
	key, ok := of(g, columns, isCustomer)
	if ok && !g.loose && g.chance(map[bool]int{true: 94, false: 70}[g.depth == 1]) {
		switch n := g.IntN(100); {
		case n < 60:
			all = append(all, key.name+" = "+g.value(key))
		case n < 66:
			all = append(all, g.value(key)+" = "+key.name)
		case n < 72:
			all = append(all, fmt.Sprintf("%s IN (%s, %s)", key.name, g.value(key), g.value(key)))
		case n < 76:
			all = append(all, fmt.Sprintf("%s = ANY (%s)", key.name, g.array()))
		case n < 80:
			all = append(all, fmt.Sprintf("(%s = %s OR %s = %s)", key.name, g.value(key), key.name, g.value(key)))
		case n < 83:
			all = append(all, key.name+" IS NOT DISTINCT FROM "+g.value(key))
		case n < 86:
			c := pick(g, columns)
			all = append(all, fmt.Sprintf("(%s, %s) = (%s, %s)", key.name, c.name, g.value(key), g.value(c)))
		case n < 93 && len(outer) > 0:
			if o, ok := of(g, outer, isCustomer); ok {
				all = append(all, key.name+" = "+o.name)
			}
		default:
			all = append(all, fmt.Sprintf("%s = %s AND %s", key.name, g.value(key), g.condition(columns, outer)))
		}
	} else if ok && len(outer) > 0 && g.chance(75) {
		if o, ok := of(g, outer, isCustomer); ok {
			all = append(all, o.name+" = "+key.name)
		}
	}
	// What is not linked to the others by its key gets a condition of its own, often.
	for i, c := range columns {
		again := slices.ContainsFunc(columns[:i], func(o column) bool { return strings.Split(o.name, ".")[0] == strings.Split(c.name, ".")[0] })
		if c.tenant && !again && !g.loose && g.chance(80) {
			all = append(all, c.name+" = "+g.value(c))
			alias, _, _ := strings.Cut(c.name, ".")
			if d, ok := of(g, columns, func(o column) bool { return o.name == alias+".day" }); ok {
				all = append(all, d.name+" = "+g.date(g.day))
			}
		}
	}
	if g.chance(25) {
		all = append(all, g.condition(columns, outer))
	}
	g.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if len(all) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(all, " AND ")
}

func (g *generator) array() string {
	if g.params && g.chance(50) {
		return g.bind([]int64{g.customer, g.customer}[:1+g.IntN(2)])
	}
	return pick(g, []string{fmt.Sprintf("'{%d,NULL}'", g.customer), fmt.Sprintf("ARRAY[%d, %d]", g.customer, g.customer), fmt.Sprintf("'{%d}'::bigint[]", g.customer)})
}

// condition makes any condition.
func (g *generator) condition(columns, outer []column) string {
	c := pick(g, columns)
	switch n := g.IntN(100); {
	case n < 24:
		return fmt.Sprintf("%s %s %s", c.name, pick(g, []string{"=", "<>", "<", ">="}), g.value(c))
	case n < 32:
		return c.name + pick(g, []string{" IS NULL", " IS NOT NULL"})
	case n < 38:
		return fmt.Sprintf("(%s OR %s)", g.condition(columns, outer), g.condition(columns, outer))
	case n < 42:
		return "NOT (" + g.condition(columns, outer) + ")"
	case n < 46:
		return fmt.Sprintf("%s IN (%s, %s, NULL)", c.name, g.value(c), g.value(c))
	case n < 49:
		return fmt.Sprintf("%s IS DISTINCT FROM %s", c.name, g.value(c))
	case n < 52:
		return pick(g, []string{"true", "false", "NULL::boolean"})
	case n < 56:
		return fmt.Sprintf("coalesce(%s = %s, true)", c.name, g.value(c))
	case n < 84 && g.depth < 3:
		return g.sublink(columns, outer)
	}
	d := pick(g, columns)
	if c.kind == d.kind {
		return c.name + pick(g, []string{" = ", " <> ", " < "}) + d.name
	}
	return c.name + " = " + g.value(c)
}

// sublink makes a condition with a subquery.
func (g *generator) sublink(columns, outer []column) string {
	all := append(columns[:len(columns):len(columns)], outer...)
	g.depth++
	defer func() { g.depth-- }()
	from, inner := g.from(all, 1+g.IntN(2))
	where := g.where(inner, all)
	not := pick(g, []string{"", "", "NOT "})
	if g.chance(45) {
		return fmt.Sprintf("%sEXISTS (SELECT 1 FROM %s%s)", not, from, where)
	}
	c := pick(g, columns)
	if k, ok := of(g, columns, isCustomer); ok && g.chance(60) {
		c = k
	}
	d, ok := of(g, inner, ofKind(c.kind))
	if k, found := of(g, inner, isCustomer); found && c.customer && g.chance(70) {
		d = k
	}
	if !ok {
		return fmt.Sprintf("%sEXISTS (SELECT FROM %s%s)", not, from, where)
	}
	switch g.IntN(5) {
	case 0:
		return fmt.Sprintf("%s = ANY (SELECT %s FROM %s%s)", c.name, d.name, from, where)
	case 1:
		return fmt.Sprintf("%s >= ALL (SELECT %s FROM %s%s)", c.name, d.name, from, where)
	case 2:
		return fmt.Sprintf("%s = (SELECT max(%s) FROM %s%s)", c.name, d.name, from, where)
	}
	return fmt.Sprintf("%s %sIN (SELECT %s FROM %s%s)", c.name, not, d.name, from, where)
}

// scalar makes a subquery of one number.
func (g *generator) scalar(columns, outer []column) (string, bool) {
	all := append(columns[:len(columns):len(columns)], outer...)
	g.depth++
	defer func() { g.depth-- }()
	from, inner := g.from(all, 1+g.IntN(2))
	c, ok := of(g, inner, ofKind(number))
	return fmt.Sprintf("(SELECT %s FROM %s%s)", pick(g, []string{"count(*)", "max(" + c.name + ")::bigint", "sum(" + c.name + ")::bigint"}), from, g.where(inner, all)), ok
}

// selects makes a whole statement, with WITH queries now and then.
func (g *generator) selects() string {
	g.begin()
	with := g.withs()
	sql, cols := g.query(nil)
	sql = g.bound(sql, cols)
	if g.chance(20) && !strings.Contains(sql, "ORDER BY") {
		sql += " ORDER BY " + ordinals(len(cols))
		g.ordered = true
	}
	return with + sql
}

func (g *generator) withs() string {
	if !g.chance(25) {
		return ""
	}
	var parts []string
	for i := range 1 + g.IntN(2) {
		g.depth++
		q, cols := g.query(nil)
		g.depth--
		name := fmt.Sprintf("w%d", i)
		parts = append(parts, name+" AS "+pick(g, []string{"", "", "MATERIALIZED ", "NOT MATERIALIZED "})+"("+q+")")
		g.ctes = append(g.ctes, cte{name, cols})
	}
	return "WITH " + strings.Join(parts, ", ") + " "
}

package main

import (
	"fmt"
	"strings"
)

// write makes a statement that writes.
func (g *generator) write() string {
	g.begin()
	g.near = g.near && g.chance(25)
	switch n := g.IntN(100); {
	case n < 34:
		return g.insert()
	case n < 60:
		return g.update()
	case n < 80:
		return g.delete()
	case n < 88:
		return g.merge()
	}
	return g.writingCTE()
}

func (g *generator) returning(columns []column) string {
	if !g.chance(60) {
		return ""
	}
	if g.chance(50) {
		return " RETURNING *"
	}
	return " RETURNING " + pick(g, columns).name + " AS r, " + pick(g, columns).name + " AS s"
}

// insertInto are tables with rows for them, %k the key, %n a number, %t a text. Not
// tickets: what is drawn for its serial column has gaps, and would differ.
var insertInto = []struct{ table, columns, row, conflict, set string }{
	{"orders", "id, customer_id, note, total", "%n, %k, %t, %n", "(customer_id, id)", "note = excluded.note"},
	{"orders", "customer_id, note, id", "%k, %t, %n", "(customer_id, id)", "total = orders.total + 1"},
	{"items", "customer_id, order_id, qty", "%k, %n, %n", "(customer_id, order_id)", "qty = items.qty + excluded.qty"},
	{"addresses", "customer_id, n", "%k, %n", "(customer_id, n)", "city = NULL"},
	{"loose", "customer_id, v", "%k, %t", "", ""},
	{"logs", "customer_id, day, msg", "%k, %d, %t", "", ""},
	{"customers", "id, name", "%k, %t", "(id)", "name = customers.name || 'x'"},
	{"tenants", "tenant, name, n", "%T, %t, %n", "(tenant)", "n = excluded.n"},
	{"events", "tenant, day, what", "%T, %d, %t", "(tenant, day)", "what = excluded.what"},
	{"settings", "key, value", "%t, %t", "(key)", "value = excluded.value"},
	{"products", "id, name", "%n, %t", "(id)", "name = excluded.name"},
}

func (g *generator) fill(row string) string {
	var b strings.Builder
	for i := 0; i < len(row); i++ {
		if row[i] != '%' {
			b.WriteByte(row[i])
			continue
		}
		i++
		switch row[i] {
		case 'k':
			b.WriteString(g.value(column{kind: number, customer: true}))
		case 'T':
			b.WriteString(g.value(column{kind: words, tenant: true}))
		case 'n':
			b.WriteString(fmt.Sprint(g.IntN(30)))
		case 'd':
			b.WriteString("'" + g.day + "'")
		default:
			b.WriteString(g.value(column{kind: words}))
		}
	}
	return b.String()
}

func (g *generator) insert() string {
	in := pick(g, insertInto)
	if strings.Contains(in.row, "%d") {
		in.row = strings.ReplaceAll(in.row, "%d", "'"+g.day+"'")
	}
	sql := fmt.Sprintf("INSERT INTO %s (%s) ", in.table, in.columns)
	if g.chance(25) && strings.Contains(in.row, "%k") {
		from, columns := g.from(nil, 1+g.IntN(2))
		key, ok := of(g, columns, isCustomer)
		if !ok {
			key.name = g.number(g.customer)
		}
		row := strings.ReplaceAll(in.row, "%k", key.name)
		sql += "SELECT " + pick(g, []string{"DISTINCT ", ""}) + g.fill(row) + " FROM " + from + g.where(columns, nil)
		if in.conflict != "" || g.chance(20) {
			// Of rows with one key the first wins.
			sql += " ORDER BY " + strings.Join([]string{"1", "2", "3", "4"}[:strings.Count(in.columns, ",")+1], ", ")
		}
	} else if g.chance(20) {
		// A server computes what places the row.
		row := strings.NewReplacer("%k", "(%k + 0)", "%T", "(%T || '')").Replace(in.row)
		sql += "VALUES (" + g.fill(row) + ")"
	} else {
		rows := []string{"(" + g.fill(in.row) + ")"}
		for g.chance(30) && len(rows) < 4 {
			rows = append(rows, "("+g.fill(in.row)+")")
		}
		sql += "VALUES " + strings.Join(rows, ", ")
	}
	switch {
	case in.conflict == "":
	case g.chance(40):
		sql += " ON CONFLICT DO NOTHING"
	case g.chance(60):
		sql += fmt.Sprintf(" ON CONFLICT %s DO UPDATE SET %s", in.conflict, in.set)
	}
	if g.chance(50) {
		sql += " RETURNING *"
	}
	return sql
}

// targets of UPDATE, DELETE and MERGE.
var writeTargets = []struct{ table, columns, set string }{
	{"orders", "id:n customer_id:C note:t total:m product_id:n", "note = %t"},
	{"orders", "id:n customer_id:C note:t total:m product_id:n", "total = total + 1, note = coalesce(note, 'z')"},
	{"items", "order_id:n customer_id:C product_id:n qty:n", "qty = %n"},
	{"addresses", "customer_id:C n:n city:t", "city = %t"},
	{"loose", "customer_id:C v:t", "v = %t"},
	{"logs", "customer_id:C day:d msg:t", "msg = %t"},
	{"customers", "id:C name:t email:t", "email = %t"},
	{"customers", "id:C name:t email:t", "id = %k"},
	{"tenants", "tenant:T name:t n:n", "n = %n"},
	{"events", "tenant:T day:d what:t n:n", "what = %t"},
	{"settings", "key:t value:t customer_id:n", "value = %t"},
	{"products", "id:n name:t price:m", "name = %t"},
	// These move rows.
	{"orders", "id:n customer_id:C note:t total:m product_id:n", "customer_id = %k, id = id + 10000 * customer_id"},
	{"items", "order_id:n customer_id:C product_id:n qty:n", "qty = %n, customer_id = %k"},
	{"loose", "customer_id:C v:t", "customer_id = %k"},
	{"logs", "customer_id:C day:d msg:t", "customer_id = %k, msg = %t"},
	{"events", "tenant:T day:d what:t n:n", "tenant = %T, day = %d"},
	// These give each its own.
	{"orders", "id:n customer_id:C note:t total:m product_id:n", "customer_id = u.customer_id % 4 + %k, id = id + 10000 * customer_id"},
	{"items", "order_id:n customer_id:C product_id:n qty:n", "customer_id = u.customer_id + 1, order_id = u.order_id + 10000 * customer_id"},
	{"addresses", "customer_id:C n:n city:t", "customer_id = abs(%n) + u.n"},
	{"loose", "customer_id:C v:t", "customer_id = coalesce(u.customer_id, 1) * 2"},
	{"logs", "customer_id:C day:d msg:t", "customer_id = u.customer_id + 1"},
	{"tenants", "tenant:T name:t n:n", "tenant = u.tenant || '-' || u.n"},
	{"events", "tenant:T day:d what:t n:n", "tenant = u.tenant || u.n, day = u.day + 1"},
}

func (g *generator) update() string {
	t := pick(g, writeTargets)
	alias := "u"
	columns := columnsOf(alias, t.columns)
	set := g.fill(t.set)
	if g.chance(15) {
		if s, ok := g.scalar(columns, nil); ok && strings.HasPrefix(t.set, "note") {
			set = "note = " + s + "::text"
		}
	}
	with := g.withs()
	sql := fmt.Sprintf("%sUPDATE %s %s SET %s", with, t.table, alias, set)
	if g.chance(35) {
		from, more := g.from(nil, 1+g.IntN(2))
		// A row with several partners would take any of them.
		sql += " FROM (SELECT DISTINCT ON (1) " + g.firstOf(more) + " AS k FROM " + from + g.where(more, nil) + " ORDER BY 1) f"
		return sql + g.where(columns, nil) + g.linkToF(columns) + g.returning(columns)
	}
	return sql + g.reach(columns) + g.returning(columns)
}

// reach is a condition of a write: of one key, of several, or of none.
func (g *generator) reach(columns []column) string {
	if !g.chance(35) {
		return g.where(columns, nil)
	}
	var all []string
	if c, ok := of(g, columns, isCustomer); ok && g.chance(50) {
		list := []int64{pick(g, diffCustomers), pick(g, diffCustomers), g.customer}[:1+g.IntN(3)]
		switch {
		case g.params && g.chance(50):
			all = append(all, c.name+" = ANY("+g.bind(list)+")")
		case g.chance(70):
			var values []string
			for _, n := range list {
				values = append(values, g.number(n))
			}
			all = append(all, c.name+" IN ("+strings.Join(values, ", ")+")")
		default:
			all = append(all, fmt.Sprintf("%s BETWEEN %d AND %d", c.name, list[0]-2, list[0]+2))
		}
	}
	if g.chance(60) {
		all = append(all, g.condition(columns, nil))
	}
	if c, ok := of(g, columns, isCustomer); ok && g.chance(30) {
		all = append(all, pick(g, []string{
			"%s IN (SELECT id FROM customers WHERE name < 'n3')", "EXISTS (SELECT 1 FROM items i WHERE i.customer_id = %s AND i.qty > 2)",
			"NOT EXISTS (SELECT 1 FROM addresses a WHERE a.customer_id = %s)", "%s < (SELECT max(o.id) FROM orders o WHERE o.customer_id = %[1]s)",
			"EXISTS (SELECT 1 FROM products p WHERE p.id = %s)", "(SELECT count(*) FROM v_both v WHERE v.customer_id = %s) > 1",
		}))
		all[len(all)-1] = fmt.Sprintf(all[len(all)-1], c.name)
	}
	if len(all) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(all, " AND ")
}

// firstOf names a number of a FROM, a key if there is one.
func (g *generator) firstOf(columns []column) string {
	if c, ok := of(g, columns, isCustomer); ok {
		return c.name
	}
	if c, ok := of(g, columns, ofKind(number)); ok {
		return c.name
	}
	return "5::bigint"
}

// linkToF links the target of a write to f.
func (g *generator) linkToF(columns []column) string {
	c, ok := of(g, columns, isCustomer)
	if !ok {
		if c, ok = of(g, columns, ofKind(number)); !ok {
			return ""
		}
	}
	return " AND " + c.name + " = f.k"
}

func (g *generator) delete() string {
	t := pick(g, writeTargets)
	columns := columnsOf("d", t.columns)
	sql := g.withs() + fmt.Sprintf("DELETE FROM %s d", t.table)
	where := g.reach(columns)
	if g.chance(60) {
		// Not too many rows.
		c, ok := of(g, columns, func(c column) bool { return c.kind == number && !c.customer })
		if ok && where != "" {
			where += fmt.Sprintf(" AND %s < %d", c.name, g.IntN(8))
		}
	}
	if g.chance(30) {
		from, more := g.from(nil, 1+g.IntN(2))
		if where == "" {
			where = " WHERE true"
		}
		if k, ok := of(g, more, isCustomer); ok {
			if c, ok := of(g, columns, isCustomer); ok {
				return sql + " USING " + from + where + " AND " + c.name + " = " + k.name + " RETURNING d.*"
			}
		}
	}
	return sql + where + g.returning(columns)
}

func (g *generator) merge() string {
	// What is a parameter must be in the text: each part is written once it is chosen.
	fill := func(parts ...string) string {
		part := pick(g, parts)
		for strings.Contains(part, "%k") {
			part = strings.Replace(part, "%k", g.number(g.customer), 1)
		}
		return part
	}
	values := fmt.Sprintf("(VALUES (%d::bigint, 1), (%d, 2), (%d, 40))", g.customer, g.customer, g.customer)
	sql := "MERGE INTO orders o USING " + fill("(SELECT DISTINCT customer_id AS k, order_id AS n FROM items)",
		"(SELECT DISTINCT customer_id AS k, order_id AS n FROM items WHERE customer_id = %k)", values,
		"(SELECT DISTINCT customer_id AS k, id AS n FROM orders WHERE customer_id = %k)") + " s(k, n) ON "
	sql += fill("o.customer_id = s.k AND o.id = s.n", "o.customer_id = %k AND o.id = s.n", "o.customer_id = s.k AND o.id = s.n AND s.k = %k",
		"o.customer_id = %k AND o.id = s.n AND s.k = o.customer_id")
	sql += fill(" WHEN MATCHED THEN UPDATE SET note = 'm'", " WHEN MATCHED AND o.id > 2 THEN DELETE", " WHEN MATCHED THEN DO NOTHING",
		" WHEN MATCHED AND EXISTS (SELECT 1 FROM items i WHERE i.customer_id = o.customer_id) THEN UPDATE SET note = 'e'")
	if g.chance(60) {
		sql += fill(" WHEN NOT MATCHED THEN INSERT (id, customer_id, note) VALUES (s.n + 50, %k, 'i')",
			" WHEN NOT MATCHED THEN INSERT (id, customer_id, note) VALUES (s.n + 50, s.k, 'i')")
	}
	return sql
}

func (g *generator) writingCTE() string {
	k := func() string { return g.value(column{kind: number, customer: true}) }
	first := strings.ReplaceAll(pick(g, []string{
		"DELETE FROM items WHERE customer_id = %k AND order_id < 3 RETURNING customer_id AS k, qty AS n",
		"UPDATE orders SET note = 'w' WHERE customer_id = %k RETURNING customer_id AS k, id AS n",
		"INSERT INTO loose VALUES (%k, 'w') RETURNING customer_id AS k, 1 AS n",
		"DELETE FROM loose WHERE customer_id = %k RETURNING customer_id AS k, 1 AS n",
	}), "%k", k())
	second := pick(g, []string{
		"SELECT * FROM w",
		"SELECT w.n, o.* FROM w JOIN orders o ON o.customer_id = w.k WHERE o.customer_id = %k",
		"SELECT w.n, o.* FROM w LEFT JOIN orders o ON o.customer_id = %k",
		"INSERT INTO logs SELECT %k, '2024-01-01', n::text FROM w RETURNING *",
		"INSERT INTO loose SELECT customer_id, 'x' FROM orders WHERE customer_id = %k AND id IN (SELECT n FROM w) RETURNING *",
		"SELECT count(*) FROM w, customers c WHERE c.id = %k",
	})
	if strings.Contains(second, "%k") {
		second = strings.ReplaceAll(second, "%k", k())
	}
	return "WITH w AS (" + first + ") " + second
}

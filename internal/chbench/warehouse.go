package chbench

import "time"

// warehouse writes the rows that a table has of a warehouse.
func (g *generator) warehouse(id int, table string) {
	g.begin(6, id)
	if table == "warehouse" {
		g.put(append(append([]any{id, g.text(6, 10)}, g.place()...), g.rate(), cents(30_000_000))...)
		return
	}
	for d := range districts {
		switch table {
		case "district":
			g.put(append(append([]any{d + 1, id, g.text(6, 10)}, g.place()...), g.rate(), cents(3_000_000), orders+1)...)
		case "customer", "history":
			for c := range customers {
				g.customer(id, d+1, c+1, table)
			}
		default:
			for o := range orders {
				g.order(id, d+1, o+1, table)
			}
		}
	}
}

// lastName is of three syllables, that of a number below 1000.
func lastName(n int) string {
	syllables := []string{"BAR", "OUGHT", "ABLE", "PRI", "PRES", "ESE", "ANTI", "CALLY", "ATION", "EING"}
	return syllables[n/100] + syllables[n/10%10] + syllables[n%10]
}

func (g *generator) customer(w, d, c int, table string) {
	g.begin(7, (w*districts+d)*customers+c)
	if table == "history" {
		g.put(c, d, w, d, w, g.moment(), cents(1000), g.text(12, 24))
		return
	}
	row := append([]any{c, d, w, g.text(8, 16), "OE", lastName(g.from(0, 40))}, g.place()...)
	credit := "GC"
	if g.IntN(10) == 0 {
		credit = "BC"
	}
	g.put(append(row, g.phone(), g.moment(), credit, cents(5_000_000), g.rate(), cents(g.from(-100_000, 300_000)), cents(1000), 1, 0, g.text(50, 200))...)
}

// order writes what a table has of an order; one customer in three never orders.
func (g *generator) order(w, d, o int, table string) {
	g.begin(8, (w*districts+d)*orders+o)
	customer, entered, lines := g.from(1, customers*2/3), g.moment(), g.from(5, 15)
	var carrier, delivered any
	if o <= orders-undone {
		carrier, delivered = g.from(1, 10), entered.Add(time.Duration(g.from(-20, 400))*time.Hour)
	}
	switch table {
	case "orders":
		g.put(o, d, w, customer, entered, carrier, lines, 1)
	case "neworder":
		if carrier == nil {
			g.put(o, d, w)
		}
	case "orderline":
		for n := range lines {
			supplied := w
			if g.IntN(10) == 0 {
				supplied = g.from(1, warehouses) // from another warehouse, which another shard may have
			}
			g.put(o, d, w, n+1, g.from(1, items), supplied, delivered, g.from(1, 10), cents(g.from(1, 999_999)), g.text(24, 24))
		}
	}
}

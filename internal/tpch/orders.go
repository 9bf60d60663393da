package tpch

import (
	"fmt"
	"strconv"
)

func (g *Generator) customer(i int, put putRow) {
	g.begin(ofCustomer, i)
	nation := g.from(0, 24)
	put(strconv.Itoa(i+1), fmt.Sprintf("Customer#%09d", i+1), g.address(), strconv.Itoa(nation), g.phone(nation),
		money(g.from(-99_999, 999_999)), g.one(segments()), g.comment(29, 116))
}

// orderKey returns the key of the order of a number: of 32 keys 8 are used.
func orderKey(i int) int { return i/8*32 + i%8 + 1 }

// order makes one order with its lines, and gives the one to order, the others to line;
// either may be nil.
func (g *Generator) order(i int, order, line putRow) {
	g.begin(ofOrder, i)
	key := strconv.Itoa(orderKey(i))
	customer := g.from(1, g.customers)
	for customer%3 == 0 { // a third of the customers never orders
		customer = g.from(1, g.customers)
	}
	date := g.from(0, endDate-151)
	priority, clerk, comment := g.one(priorities()), g.from(1, g.clerks), g.comment(19, 78)
	lines := g.from(1, 7)
	total, shipped := 0, 0
	for n := range lines {
		l := g.line(date)
		total += l.price * (100 + l.tax) * (100 - l.discount)
		if l.status() == "F" {
			shipped++
		}
		if line != nil {
			line(key, strconv.Itoa(l.part), strconv.Itoa(l.supplier), strconv.Itoa(n+1), strconv.Itoa(l.quantity), money(l.price), money(l.discount),
				money(l.tax), l.flag, l.status(), day(l.ship), day(l.commit), day(l.receipt), l.instruction, l.mode, l.comment)
		}
	}
	status := "P"
	switch shipped {
	case lines:
		status = "F"
	case 0:
		status = "O"
	}
	if order != nil {
		order(key, strconv.Itoa(customer), status, money((total+5000)/10_000), day(date), priority, fmt.Sprintf("Clerk#%09d", clerk), "0", comment)
	}
}

// line is one lineitem: prices in cents, rates in hundredths, days from the first.
type line struct {
	part, supplier, quantity, price, discount, tax int
	ship, commit, receipt                          int
	flag, instruction, mode, comment               string
}

// status is F for what was shipped by the benchmark's today.
func (l line) status() string {
	if l.ship > currentDate {
		return "O"
	}
	return "F"
}

func (g *Generator) line(ordered int) line {
	l := line{part: g.from(1, g.parts), quantity: g.from(1, 50), discount: g.from(0, 10), tax: g.from(0, 8)}
	l.supplier = g.supplierOf(l.part, g.from(0, 3))
	l.price = l.quantity * retailPrice(l.part)
	l.ship, l.commit = ordered+g.from(1, 121), ordered+g.from(30, 90)
	l.receipt = l.ship + g.from(1, 30)
	l.flag = "N"
	if l.receipt <= currentDate {
		l.flag = g.one([]string{"R", "A"})
	}
	l.instruction, l.mode, l.comment = g.one(instructions()), g.one(shipModes()), g.comment(10, 43)
	return l
}

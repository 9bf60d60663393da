package tpch

import (
	"fmt"
	"slices"
	"strconv"
)

// Numbers of tables, for begin.
const (
	ofRegion = iota
	ofNation
	ofPart
	ofSupplier
	ofPartSupplier
	ofCustomer
	ofOrder
)

type putRow func(fields ...string)

func (g *Generator) region(i int, put putRow) {
	g.begin(ofRegion, i)
	put(strconv.Itoa(i), regions()[i], g.comment(31, 115))
}

func (g *Generator) nation(i int, put putRow) {
	g.begin(ofNation, i)
	n := nations()[i]
	put(strconv.Itoa(i), n.name, strconv.Itoa(n.region), g.comment(31, 114))
}

// retailPrice is a part's price in cents.
func retailPrice(part int) int { return 90_000 + part/10%20_001 + 100*(part%1000) }

func (g *Generator) part(i int, put putRow) {
	g.begin(ofPart, i)
	key := i + 1
	maker, kinds, boxes := g.from(1, 5), types(), containers()
	put(strconv.Itoa(key), g.partName(), fmt.Sprintf("Manufacturer#%d", maker), fmt.Sprintf("Brand#%d%d", maker, g.from(1, 5)),
		g.one(kinds[0])+" "+g.one(kinds[1])+" "+g.one(kinds[2]), strconv.Itoa(g.from(1, 50)),
		g.one(boxes[0])+" "+g.one(boxes[1]), money(retailPrice(key)), g.comment(5, 22))
}

// partName is of five different colours.
func (g *Generator) partName() string {
	var words []string
	for len(words) < 5 {
		if c := g.one(g.colours); !slices.Contains(words, c) {
			words = append(words, c)
		}
	}
	return words[0] + " " + words[1] + " " + words[2] + " " + words[3] + " " + words[4]
}

func (g *Generator) supplier(i int, put putRow) {
	g.begin(ofSupplier, i)
	nation := g.from(0, 24)
	put(strconv.Itoa(i+1), fmt.Sprintf("Supplier#%09d", i+1), g.address(), strconv.Itoa(nation), g.phone(nation),
		money(g.from(-99_999, 999_999)), g.supplierComment(i))
}

// supplierComment has, for five suppliers of ten thousand each, and for one at least, a
// complaint or a recommendation.
func (g *Generator) supplierComment(i int) string {
	text := []byte(g.comment(25, 100))
	every := min(2000, g.suppliers)
	word := map[int]string{every / 3: "Complaints", every * 2 / 3: "Recommends"}[i%every]
	if word == "" {
		return string(text)
	}
	// "Customer", some of the text, and the word.
	text = append(text, g.comment(25, 25)...)[:max(len(text), 25)]
	between := g.from(0, len(text)-len("Customer")-len(word))
	start := g.from(0, len(text)-len("Customer")-len(word)-between)
	copy(text[start:], "Customer")
	copy(text[start+len("Customer")+between:], word)
	return string(text)
}

// suppliersOf returns the four suppliers of a part, spread over all of them. The step
// is the specification's, but longer where it would come back to the first too early, as
// it can when suppliers are few.
func (g *Generator) supplierOf(part, i int) int {
	step := g.suppliers/4 + (part-1)/g.suppliers
	for g.suppliers/divisor(g.suppliers, step) < 4 {
		step++
	}
	return (part+i*step)%g.suppliers + 1
}

// divisor is the greatest common one.
func divisor(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func (g *Generator) partSuppliers(i int, put putRow) {
	g.begin(ofPartSupplier, i)
	for n := range 4 {
		put(strconv.Itoa(i+1), strconv.Itoa(g.supplierOf(i+1, n)), strconv.Itoa(g.from(1, 9999)), money(g.from(100, 100_000)), g.comment(49, 198))
	}
}

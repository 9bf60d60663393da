package tpch

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// MinScale is the smallest scale: ten suppliers, 1500 orders, some 6000 lineitems.
const MinScale = 0.001

// seed is such that the few suppliers of a scale of 0.002 are of all nations that the
// queries name.
const seed = 738

// Days are counted from this one.
var (
	startDate   = time.Date(1992, 1, 1, 0, 0, 0, 0, time.UTC)
	currentDate = int(time.Date(1995, 6, 17, 0, 0, 0, 0, time.UTC).Sub(startDate) / (24 * time.Hour))
	endDate     = int(time.Date(1998, 12, 31, 0, 0, 0, 0, time.UTC).Sub(startDate) / (24 * time.Hour))
)

// Generator writes the tables of one scale. It is for one goroutine.
type Generator struct {
	parts, suppliers, customers, orders, clerks int

	grammar grammar
	colours []string
	source  *rand.PCG
	dice    *rand.Rand
}

// New returns a generator for a scale, of which 1 is about a gigabyte.
func New(scale float64) (*Generator, error) {
	if !(scale >= MinScale && scale <= 100_000) {
		return nil, fmt.Errorf("scale %v: must be from %v to 100000", scale, MinScale)
	}
	of := func(n float64) int { return max(1, int(math.Round(n*scale))) }
	g := &Generator{
		parts: of(200_000), suppliers: of(10_000), customers: of(150_000), orders: of(1_500_000), clerks: of(1000),
		grammar: newGrammar(), colours: colours(), source: rand.NewPCG(0, 0),
	}
	g.dice = rand.New(g.source)
	return g, nil
}

// Write writes a table's rows as COPY reads them in its text format, and returns how many
// there are.
func (g *Generator) Write(w io.Writer, table string) (rows int, err error) {
	out := bufio.NewWriterSize(w, 1<<16)
	put := func(fields ...string) {
		rows++
		out.WriteString(strings.Join(fields, "\t"))
		out.WriteByte('\n')
	}
	each := func(n int, row func(i int)) {
		for i := range n {
			row(i)
		}
	}
	switch table {
	case "region":
		each(len(regions()), func(i int) { g.region(i, put) })
	case "nation":
		each(len(nations()), func(i int) { g.nation(i, put) })
	case "part":
		each(g.parts, func(i int) { g.part(i, put) })
	case "supplier":
		each(g.suppliers, func(i int) { g.supplier(i, put) })
	case "partsupp":
		each(g.parts, func(i int) { g.partSuppliers(i, put) })
	case "customer":
		each(g.customers, func(i int) { g.customer(i, put) })
	case "orders":
		each(g.orders, func(i int) { g.order(i, put, nil) })
	case "lineitem":
		each(g.orders, func(i int) { g.order(i, nil, put) })
	default:
		return 0, fmt.Errorf("no table %q", table)
	}
	return rows, out.Flush() // which also tells an error of before
}

// begin makes what follows depend on a row of a table only.
func (g *Generator) begin(table, row int) { g.source.Seed(seed<<8|uint64(table), uint64(row)) }

// from returns one of low to high.
func (g *Generator) from(low, high int) int { return low + g.dice.IntN(high-low+1) }

func (g *Generator) one(words []string) string { return words[g.dice.IntN(len(words))] }

// comment is a cut of sentences, whole words or not.
func (g *Generator) comment(low, high int) string {
	n := g.from(low, high)
	text := make([]byte, 0, n+80)
	for text = g.sentence(text); len(text) < n; {
		text = g.sentence(append(text, ' '))
	}
	return string(text[:n])
}

func (g *Generator) sentence(text []byte) []byte {
	return g.phrase(text, g.one(g.grammar.sentences))
}

// phrase appends the words of a form.
func (g *Generator) phrase(text []byte, form string) []byte {
	for i := range len(form) {
		switch c := form[i]; c {
		case 'N':
			text = g.phrase(text, g.one(g.grammar.nouns))
		case 'V':
			text = g.phrase(text, g.one(g.grammar.verbs))
		case 'P':
			text = append(append(text, g.one(g.grammar.words['p'])...), " the "...)
			text = g.phrase(text, g.one(g.grammar.nouns))
		case 't':
			text = append(text[:len(text)-1], g.one(g.grammar.words['t'])...) // no space before it
		case ' ', ',':
			text = append(text, c)
		default:
			text = append(text, g.one(g.grammar.words[c])...)
		}
	}
	return text
}

// address is of odd letters.
func (g *Generator) address() string {
	const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ, "
	text := make([]byte, g.from(10, 40))
	for i := range text {
		text[i] = letters[g.dice.IntN(len(letters))]
	}
	return string(text)
}

// phone begins with the nation's code.
func (g *Generator) phone(nation int) string {
	return fmt.Sprintf("%d-%d-%d-%d", nation+10, g.from(100, 999), g.from(100, 999), g.from(1000, 9999))
}

// money writes cents.
func money(cents int) string {
	sign := ""
	if cents < 0 {
		sign, cents = "-", -cents
	}
	return fmt.Sprintf("%s%d.%02d", sign, cents/100, cents%100)
}

func day(n int) string { return startDate.AddDate(0, 0, n).Format(time.DateOnly) }

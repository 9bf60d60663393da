package chbench

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"
)

// How many rows there are. Orders are made for districts, some ten lines for each order.
const (
	warehouses = 8
	districts  = 3  // of a warehouse
	customers  = 15 // of a district
	orders     = 20 // of a district
	undone     = 6  // of these, the last ones, not delivered
	items      = 100
	suppliers  = 100
)

// Write writes a table's rows as COPY reads them in its text format, and returns how many
// there are.
func Write(w io.Writer, table string) (rows int, err error) {
	g := &generator{out: bufio.NewWriter(w)}
	switch table {
	case "region":
		g.regions()
	case "nation":
		g.nations()
	case "supplier":
		g.suppliers()
	case "item":
		g.items()
	case "stock":
		g.stocks()
	case "warehouse", "district", "customer", "history", "orders", "neworder", "orderline":
		for id := range warehouses {
			g.warehouse(id+1, table)
		}
	default:
		return 0, fmt.Errorf("no table %q", table)
	}
	return g.rows, g.out.Flush() // which also tells an error of before
}

// generator writes one table.
type generator struct {
	*rand.Rand
	out  *bufio.Writer
	rows int
}

// begin makes what follows depend on numbers only.
func (g *generator) begin(what, id int) { g.Rand = rand.New(rand.NewPCG(uint64(what), uint64(id))) }

// put writes a row of values; nil is NULL.
func (g *generator) put(values ...any) {
	for i, v := range values {
		if i > 0 {
			g.out.WriteByte('\t')
		}
		switch v := v.(type) {
		case nil:
			g.out.WriteString(`\N`)
		case time.Time:
			g.out.WriteString(v.Format("2006-01-02 15:04:05"))
		case cents:
			fmt.Fprintf(g.out, "%.2f", float64(v)/100)
		default:
			fmt.Fprint(g.out, v)
		}
	}
	g.out.WriteByte('\n')
	g.rows++
}

// cents are money.
type cents int

func (g *generator) from(low, high int) int { return low + g.IntN(high-low+1) }

func (g *generator) letters(alphabet string, low, high int) string {
	text := make([]byte, g.from(low, high))
	for i := range text {
		text[i] = alphabet[g.IntN(len(alphabet))]
	}
	return string(text)
}

const (
	capitals = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	small    = "abcdefghijklmnopqrstuvwxyz"
	digits   = "0123456789"
)

func (g *generator) text(low, high int) string { return g.letters(capitals+small+digits, low, high) }

// place is street, street, city, state and zip.
func (g *generator) place() []any {
	return []any{g.text(10, 20), g.text(10, 20), g.text(10, 20), g.letters(capitals[:12], 2, 2), g.letters(digits, 4, 4) + "11111"}
}

func (g *generator) rate() string { return fmt.Sprintf("0.%04d", g.from(0, 2000)) }

// moment is one of the years from 2007 to 2011.
func (g *generator) moment() time.Time {
	return time.Date(2007, 1, 3, 0, 0, 0, 0, time.UTC).Add(time.Duration(g.from(0, 5*365*24*3600)) * time.Second)
}

func (g *generator) regions() {
	for i, name := range strings.Split("Africa,America,Asia,Europe,Australia", ",") {
		g.begin(1, i)
		g.put(i, name, g.text(30, 100))
	}
}

// nations have the codes of letters and digits as their keys: the first letter of a state
// is that of a nation.
func (g *generator) nations() {
	names := strings.Split("Germany,Cambodia,France,Italy,Spain,Kenya,Egypt,Ghana,Peru,Chile,Canada,Mexico,Japan,China,India,Nepal,Austria,Poland,Norway,Fiji", ",")
	regions := []int{3, 2, 3, 3, 3, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4}
	for i, code := range []byte(capitals + small + digits) {
		g.begin(2, i)
		name := fmt.Sprintf("Nation %c", code)
		if i < len(names) {
			name = names[i]
		}
		g.put(code, name, regions[i%len(regions)], g.text(30, 100))
	}
}

func (g *generator) suppliers() {
	for i := range suppliers {
		g.begin(3, i)
		comment := g.text(20, 60)
		if i%20 == 7 {
			comment += " bad " + g.text(5, 20)
		}
		g.put(i, fmt.Sprintf("Supplier#%09d", i), g.text(10, 40), capitals[g.IntN(12)], g.phone(), cents(g.from(-99_999, 999_999)), comment)
	}
}

func (g *generator) phone() string { return g.letters(digits, 15, 15) }

func (g *generator) items() {
	for i := range items {
		g.begin(4, i)
		begin := []string{"PR", "co", "zz", "", "", "", "", ""}[g.IntN(8)]
		g.put(i+1, g.from(1, 10_000), g.text(14, 24), cents(g.from(100, 10_000)), begin+g.text(20, 40)+g.letters("abcB", 2, 2))
	}
}

func (g *generator) stocks() {
	for w := range warehouses {
		for i := range items {
			g.begin(5, w*items+i)
			row := []any{i + 1, w + 1, g.from(10, 100)}
			for range 10 {
				row = append(row, g.text(24, 24))
			}
			g.put(append(row, g.from(0, 500), g.from(0, 50), g.from(0, 10), g.text(26, 50))...)
		}
	}
}

package exec_test

import (
	"math/rand/v2"
	"strings"
)

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

// makeSample makes a random dialect and data for it, most of them right.
func makeSample(rng *rand.Rand) sample {
	csv := rng.IntN(2) == 0
	delimiter, null, quote, escape := "\t", `\N`, `"`, `"`
	options := []string{"FORMAT text"}
	if csv {
		options[0] = "FORMAT csv"
		delimiter, null = ",", ""
	}
	option := func(name string, value *string, values ...string) {
		if rng.IntN(2) == 0 {
			*value = pick(rng, values...)
			options = append(options, name+" E'"+strings.NewReplacer(`\`, `\\`, "'", "''", "\t", `\t`, "\x01", `\x01`).Replace(*value)+"'")
		}
	}
	option("DELIMITER", &delimiter, ",", ";", "|", "\t", "\x01", "N")
	if csv {
		before := len(options)
		option("QUOTE", &quote, "'", "~", `"`)
		if len(options) > before {
			escape = quote
		}
		option("ESCAPE", &escape, `\`, "!", `"`, "x")
	}
	option("NULL", &null, "", `\M`, "NULL", "x", "é")
	if strings.Contains(null, delimiter) || csv && (strings.Contains(null, quote)) {
		return makeSample(rng)
	}
	if csv && rng.IntN(3) == 0 {
		options = append(options, pick(rng, "FORCE_NULL (a)", "FORCE_NOT_NULL (a, b)", "FORCE_NULL (c), FORCE_NOT_NULL (c)"))
	}
	g := generator{rng: rng, csv: csv, delimiter: delimiter, quote: quote, escape: escape, null: null, end: pick(rng, "\n", "\n", "\r\n", "\r")}
	header := pick(rng, "", "", "", "HEADER", "HEADER match")
	if header != "" {
		options = append(options, header)
	}
	sql := "COPY %s (a, b, c) FROM STDIN (" + strings.Join(options, ", ") + ")"
	return sample{sql: sql, data: []byte(g.data(header))}
}

type generator struct {
	rng                                 *rand.Rand
	csv                                 bool
	delimiter, quote, escape, null, end string
	b                                   strings.Builder
}

func (g *generator) data(header string) string {
	switch {
	case header == "HEADER match" && g.rng.IntN(4) > 0:
		g.b.WriteString(strings.Join(columns, g.delimiter) + g.end)
	case header != "" && g.rng.IntN(4) > 0:
		g.row(pick(g.rng, 1, 2, 3, 3, 3))
	}
	if g.rng.IntN(6) == 0 { // no sense at all
		for range g.rng.IntN(30) {
			g.b.WriteString(pick(g.rng, "a", "7", g.delimiter, g.delimiter, g.quote, g.escape, `\`, ".", `\.`, "N", g.end, g.end, "\n", "\r", g.null, "é"))
		}
		return g.b.String()
	}
	clean := g.rng.IntN(3) > 0
	for range g.rng.IntN(12) {
		switch {
		case clean || g.rng.IntN(6) > 0:
			g.row(3)
		case g.rng.IntN(2) == 0:
			g.row(pick(g.rng, 1, 2, 4))
		default:
			g.b.WriteString(pick(g.rng, `\.`, `\.`, "x"+`\.`, `\.x`, `\`, "\xff", "a\x00b", "\r", "\n", "\r\n", g.quote, "é"))
			g.b.WriteString(pick(g.rng, g.end, "", "\n", "\r"))
		}
	}
	text := g.b.String()
	if g.rng.IntN(4) == 0 {
		text = strings.TrimSuffix(text, g.end)
	}
	if g.rng.IntN(8) == 0 {
		text += pick(g.rng, `\.`, `\`, `\.`+g.end, `\.`+g.end+"more"+g.end)
	}
	return text
}

func (g *generator) row(fields int) {
	for i := range fields {
		if i > 0 {
			g.b.WriteString(g.delimiter)
		}
		g.field(i == 2)
	}
	g.b.WriteString(g.end)
}

func (g *generator) field(short bool) {
	if g.rng.IntN(6) == 0 {
		g.b.WriteString(g.null)
		return
	}
	var value strings.Builder
	atoms := g.rng.IntN(5)
	if g.rng.IntN(60) == 0 {
		atoms = 120
	}
	if short && g.rng.IntN(12) > 0 {
		atoms = min(atoms, 3)
	}
	for range atoms {
		value.WriteString(pick(g.rng, "a", "7", "x", "N", "é", "\n", "\r", `\`, ".", ",", ";", "'", `"`, "~", g.delimiter, g.quote, g.escape, g.null))
	}
	g.encode(value.String())
}

func (g *generator) encode(value string) {
	if g.rng.IntN(40) == 0 { // as it is, right or not
		g.b.WriteString(value)
		return
	}
	if g.csv {
		special := strings.ContainsAny(value, "\r\n"+g.delimiter+g.quote) || value == g.null || strings.HasPrefix(value, `\.`)
		if special || g.rng.IntN(3) == 0 {
			value = g.quote + strings.NewReplacer(g.escape, g.escape+g.escape, g.quote, g.escape+g.quote).Replace(value) + g.quote
		}
		g.b.WriteString(value)
		return
	}
	for _, c := range value {
		switch {
		case c == '\n' || c == '\r':
			g.b.WriteString(pick(g.rng, map[rune]string{'\n': `\n`, '\r': `\r`}[c], `\`+string(c), map[rune]string{'\n': `\x0a`, '\r': `\015`}[c]))
		case c == '\\' || string(c) == g.delimiter:
			g.b.WriteString(`\` + string(c))
		case c == '7' && g.rng.IntN(2) == 0:
			g.b.WriteString(pick(g.rng, `\x37`, `\67`, `\067`, `\x`, `\xg`, `\8`, `\b`, `\f`, `\v`, `\t`, `\q`))
		case c >= 0x80 && g.rng.IntN(4) == 0:
			g.b.WriteString(`\xC3\251`)
		default:
			g.b.WriteRune(c)
		}
	}
}

package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A generated statement that is answered wrongly is cut down, as long as what is left is
// answered wrongly too.

// shrinkWords are the pieces a text is cut in.
var shrinkWords = regexp.MustCompile(`'(?:[^']|'')*'|"(?:[^"]|"")*"|[\w.$]+|::|<>|>=|<=|\|\||\S`)

// mostTries is how many texts are tried for one statement.
const mostTries = 1500

// shrink cuts pieces out of a text for which still is true, until no single one can go or
// enough was tried.
func shrink(text string, still func(text string) bool) string {
	words := shrinkWords.FindAllString(text, -1)
	tries := 0
	try := func(candidate []string) bool {
		if tries++; tries > mostTries || !still(strings.Join(candidate, " ")) {
			return false
		}
		words = candidate
		return true
	}
	if !try(words) {
		return text
	}
	for size := len(words) / 2; size > 0; {
		cut := false
		for at := 0; at+size <= len(words); {
			if try(slices.Concat(words[:at], words[at+size:])) {
				cut = true
			} else {
				at++
			}
		}
		for at := 0; at < len(words); at++ {
			if end := closing(words, at); end > 0 && try(slices.Concat(words[:at], words[at+1:end], words[end+1:])) {
				cut = true
			}
		}
		if !cut || size > 1 {
			size /= 2
		}
	}
	return strings.Join(words, " ")
}

// closing returns where the parenthesis closes that opens at a place, 0 if none does.
func closing(words []string, at int) int {
	if words[at] != "(" {
		return 0
	}
	depth := 0
	for i := at; i < len(words); i++ {
		switch words[i] {
		case "(":
			depth++
		case ")":
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return 0
}

// shrunk cuts a statement down that only reads and was answered wrongly.
func (b *both) shrunk(t *testing.T, st *statement, m mode) string {
	got, want := ask(t, b.proxy, m, st.sql, st.args), ask(t, b.direct, m, st.sql, st.args)
	ordered := difference(&got, &want, false) == "" // only the order is wrong
	return shrink(st.sql, func(text string) bool {
		if loosened(st.sql, text) {
			return false
		}
		got := ask(t, b.proxy, m, text, st.args)
		if got.refused() != "" || got.code() == "57014" || strings.HasPrefix(got.code(), "42") {
			return false
		}
		want := ask(t, b.direct, m, text, st.args)
		return want.code() != "57014" && difference(&got, &want, ordered && st.ordered) != ""
	})
}

// loosened reports whether a text has lost more of its ORDER BY than of what depends on an
// order: its answer may then be any of several.
func loosened(before, after string) bool {
	count := func(text string, words ...string) (n int) {
		for _, w := range shrinkWords.FindAllString(text, -1) {
			if slices.Contains(words, w) {
				n++
			}
		}
		return n
	}
	depends := []string{"LIMIT", "OFFSET", "FETCH", "DISTINCT", "OVER", "array_agg", "string_agg"}
	left := count(after, depends...)
	return left > 0 && count(before, "ORDER")-count(after, "ORDER") > count(before, depends...)-left
}

func TestShrink(t *testing.T) {
	for _, test := range []struct{ text, must, want string }{
		{"SELECT x1.a AS c0, (count(*)) AS c1 FROM t x1 WHERE (x1.a = 'it''s' OR (x1.b > 3))", "x1.b >", "x1.b >"},
		{"SELECT ((((1))))", "1", "1"},
		{"SELECT 1", "2", "SELECT 1"},
	} {
		if got := shrink(test.text, func(text string) bool { return strings.Contains(text, test.must) }); got != test.want {
			t.Errorf("%s: %s, want %s", test.text, got, test.want)
		}
	}
	for _, test := range []struct {
		before, after string
		loose         bool
	}{
		{"SELECT a FROM t ORDER BY 1 LIMIT 3", "SELECT a FROM t LIMIT 3", true},
		{"SELECT a FROM t ORDER BY 1 LIMIT 3", "SELECT a FROM t", false},
		{"SELECT a FROM t ORDER BY 1 LIMIT 3", "SELECT a FROM t ORDER BY 1", false},
		{"SELECT a FROM t WHERE b ORDER BY 1 LIMIT 3", "SELECT a FROM t ORDER BY 1 LIMIT 3", false},
	} {
		if got := loosened(test.before, test.after); got != test.loose {
			t.Errorf("%s: %t", test.after, got)
		}
	}
}

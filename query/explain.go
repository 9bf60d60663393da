package query

import "strings"

// ExplainOptions are the words between EXPLAIN and its command.
type ExplainOptions struct {
	// Route is set for the option ROUTE, which the proxy answers and PostgreSQL does
	// not know.
	Route bool
	// Format is in lower case: text, json, xml or yaml; text when none is named.
	Format string
	// Others are the names of the other options, in lower case, each as often as written.
	Others []string
	// Start is where the command begins in the text.
	Start int
}

// BeginsExplain reports whether the first word of a text is EXPLAIN.
func BeginsExplain(sql []byte) bool {
	if len(sql) > 0 && charClass[sql[0]]&chIdentStart != 0 && sql[0]|0x20 != 'e' {
		return false
	}
	return isWord(sql, nextToken(sql, 0), "explain")
}

// ReadExplain reads the options of a text that begins with EXPLAIN. ok is false for
// other texts, and for options that are not written as PostgreSQL has them.
func ReadExplain(sql []byte) (o ExplainOptions, ok bool) {
	t := nextToken(sql, 0)
	if !isWord(sql, t, "explain") {
		return o, false
	}
	o.Format = "text"
	t = nextToken(sql, t.end)
	if t.kind == tokOpen && sql[t.start] == '(' && !opensQuery(sql, nextToken(sql, t.end)) {
		return o, o.list(sql, t.end)
	}
	for _, word := range [...]string{"analyze", "analyse", "verbose"} {
		if isWord(sql, t, word) {
			o.Others = append(o.Others, word)
			t = nextToken(sql, t.end)
		}
	}
	o.Start = t.start
	return o, true
}

// opensQuery reports whether what stands behind a parenthesis is a query and no option.
func opensQuery(sql []byte, t token) bool {
	return t.kind == tokOpen || isWord(sql, t, "select") || isWord(sql, t, "with") || isWord(sql, t, "values") || isWord(sql, t, "table")
}

// list reads options in parentheses, up to where the command begins.
func (o *ExplainOptions) list(sql []byte, at int) bool {
	for {
		t := nextToken(sql, at)
		name, ok := optionWord(sql, t)
		if !ok || t.kind != tokWord && t.kind != tokQuoted {
			return false
		}
		t = nextToken(sql, t.end)
		value := ""
		if t.kind == tokOp && (sql[t.start] == '+' || sql[t.start] == '-') {
			t = nextToken(sql, t.end)
		}
		if t.kind != tokComma && t.kind != tokClose {
			if value, ok = optionWord(sql, t); !ok {
				return false
			}
			t = nextToken(sql, t.end)
		}
		if !o.option(name, strings.ToLower(value)) {
			return false
		}
		switch at = t.end; {
		case t.kind == tokComma:
		case t.kind == tokClose && sql[t.start] == ')':
			o.Start = nextToken(sql, at).start
			return true
		default:
			return false
		}
	}
}

// option takes one option; false for a value that ROUTE does not have.
func (o *ExplainOptions) option(name, value string) bool {
	switch name {
	case "route":
		switch value {
		case "", "on", "true", "1":
			o.Route = true
		case "off", "false", "0":
			o.Route = false
		default:
			return false
		}
	case "format":
		o.Format = value
	default:
		o.Others = append(o.Others, name)
	}
	return true
}

// optionWord returns the text of a name or a simple value; a bare word in lower case.
func optionWord(sql []byte, t token) (string, bool) {
	text := string(sql[t.start:t.end])
	switch t.kind {
	case tokWord:
		return strings.ToLower(text), true
	case tokInt, tokFloat:
		return text, true
	case tokQuoted, tokString:
		inner := text[1 : len(text)-1]
		return inner, !strings.ContainsAny(inner, `'"\`)
	}
	return "", false
}

// isWord reports whether a token is a bare word, in any case; word is in lower case.
func isWord(sql []byte, t token, word string) bool {
	return t.kind == tokWord && t.end-t.start == len(word) && strings.EqualFold(string(sql[t.start:t.end]), word)
}

// Params returns the greatest number of a parameter in a text, 0 without any.
func Params(sql []byte) (n int) {
	_ = Renumber(nil, sql, func(i int) int {
		n = max(n, i)
		return i
	})
	return n
}

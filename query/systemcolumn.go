package query

import "strings"

// SystemColumn finds in a text the name of a column that every table has, and that tells rows of
// one server apart; "" when it has none. Strings are passed over where they surely are such; of an
// identifier with escapes, U&"...", it is said that it may be one.
func SystemColumn(sql string) string {
	for at := 0; ; {
		t := nextToken([]byte(sql), at)
		switch t.kind {
		case tokEnd:
			return ""
		case tokBad:
			return systemWord(strings.ToLower(sql[t.start:]))
		case tokUQuoted:
			return sql[t.start:t.end]
		case tokString:
			if t.backslash { // where it ends depends on a setting
				return systemWord(strings.ToLower(sql[t.start:]))
			}
		case tokWord, tokQuoted:
			name := strings.Trim(sql[t.start:t.end], `"`)
			if t.kind == tokWord {
				name = strings.ToLower(name)
			}
			if word := systemWord(name); word == name && word != "" {
				return word
			}
		}
		at = t.end
	}
}

// systemWord finds the name of a system column anywhere in a text.
func systemWord(text string) string {
	for _, word := range [...]string{"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"} {
		if strings.Contains(text, word) {
			return word
		}
	}
	return ""
}

package catalog

import "strings"

// SameSQL reports whether two texts that servers print of an expression, or of something with expressions
// in it, are the same, one of them perhaps after pg_dump and a restore. PostgreSQL prints
//
//	column IN ('a', 'b')
//
// of a varchar column as (ARRAY['a'::character varying, 'b'::character varying])::text[], and what it has
// read from that as ARRAY[('a'::character varying)::text, ('b'::character varying)::text]: a cast of an ARRAY
// is read as casts of its elements. Both are the same value.
func SameSQL(a, b string) bool { return a == b || castsWithin(a) == castsWithin(b) }

// castBegin is how a cast of an ARRAY begins where servers print one.
const castBegin = "(ARRAY["

// castsWithin writes casts of an ARRAY as casts of its elements, as PostgreSQL reads them.
func castsWithin(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		if strings.HasPrefix(s[i:], castBegin) {
			if text, length := castArray(s[i:]); length > 0 {
				b.WriteString(text)
				i += length
				continue
			}
		}
		n := lexeme(s[i:])
		b.WriteString(s[i : i+n])
		i += n
	}
	return b.String()
}

// castArray rewrites a cast of an ARRAY with which a text begins, and returns its length: 0 when it is none.
func castArray(s string) (text string, length int) {
	var elements []string
	depth, from := 0, len(castBegin)
	for i := from; i < len(s); i += lexeme(s[i:]) {
		switch c := s[i]; {
		case c == '(' || c == '[':
			depth++
		case depth > 0 && (c == ')' || c == ']'):
			depth--
		case c == ')':
			return "", 0
		case depth == 0 && c == ',':
			elements, from = append(elements, s[from:i]), i+1
		case c == ']':
			rest, cast := strings.CutPrefix(s[i:], "])::")
			name, _, array := strings.Cut(rest, "[]")
			if !cast || !array || strings.ContainsAny(name, "'=[]") {
				return "", 0
			}
			elements = append(elements, s[from:i])
			for j, e := range elements {
				elements[j] = "(" + castsWithin(strings.TrimSpace(e)) + ")::" + name
			}
			return "ARRAY[" + strings.Join(elements, ", ") + "]", i + len("])::") + len(name) + len("[]")
		}
	}
	return "", 0
}

// lexeme is the length of the quoted text, or of the byte, with which a text begins. Two quotes stand for
// one: they end one text and begin the next, which comes to the same.
func lexeme(s string) int {
	if s[0] == '\'' || s[0] == '"' {
		if end := strings.IndexByte(s[1:], s[0]); end >= 0 {
			return end + 2
		}
		return len(s)
	}
	return 1
}

package admin

import (
	"strings"

	"shardproxy/wire"
)

type tokenKind uint8

const (
	tokenWord   tokenKind = iota
	tokenQuoted           // a name in double quotes
	tokenString           // a string in single quotes
	tokenEquals
	tokenOperator // another comparison
	tokenOpen
	tokenClose
	tokenComma
	tokenSemicolon
)

// token is one piece of a command; text is without quotes.
type token struct {
	kind tokenKind
	text string
}

// named reports whether t is a word, a name or a string.
func (t token) named() bool { return t.kind <= tokenString }

// is reports whether t is the word, which is in lower case.
func (t token) is(word string) bool { return t.kind == tokenWord && strings.EqualFold(t.text, word) }

// scan cuts a command into tokens. White space and comments, of both of
// PostgreSQL's kinds, separate and are dropped.
func scan(sql string) ([]token, *wire.Error) {
	var tokens []token
	for i := 0; i < len(sql); {
		switch c := sql[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			i++
		case strings.HasPrefix(sql[i:], "--"):
			n := strings.IndexAny(sql[i:], "\n\r")
			if n < 0 {
				n = len(sql) - i
			}
			i += n
		case strings.HasPrefix(sql[i:], "/*"):
			n := blockComment(sql[i:])
			if n < 0 {
				return nil, wire.Errorf("42601", "unterminated /* comment")
			}
			i += n
		case c == '"' || c == '\'':
			s, n := quoted(sql[i:])
			if n < 0 {
				return nil, wire.Errorf("42601", "unterminated quoted name or string")
			}
			kind := tokenQuoted
			if c == '\'' {
				kind = tokenString
			}
			tokens = append(tokens, token{kind, s})
			i += n
		case c == '=':
			tokens = append(tokens, token{tokenEquals, "="})
			i++
		case c == '<' || c == '>' || strings.HasPrefix(sql[i:], "!="):
			n := 1
			if two := sql[i:min(i+2, len(sql))]; two == "<=" || two == ">=" || two == "<>" || two == "!=" {
				n = 2
			}
			tokens = append(tokens, token{tokenOperator, sql[i : i+n]})
			i += n
		case c == '(':
			tokens = append(tokens, token{tokenOpen, "("})
			i++
		case c == ')':
			tokens = append(tokens, token{tokenClose, ")"})
			i++
		case c == ',':
			tokens = append(tokens, token{tokenComma, ","})
			i++
		case c == ';':
			tokens = append(tokens, token{tokenSemicolon, ";"})
			i++
		case isWordByte(c):
			n := wordLength(sql[i:])
			tokens = append(tokens, token{tokenWord, sql[i : i+n]})
			i += n
		default:
			return nil, invalidCommand(sql)
		}
	}
	return tokens, nil
}

// isWordByte is wider than in SQL: a database name such as my-db.v2 needs no quotes.
func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '_' || c == '-' || c == '.' || c == '+' || c >= 0x80
}

func wordLength(s string) int {
	for i := range len(s) {
		if !isWordByte(s[i]) || strings.HasPrefix(s[i:], "--") {
			return i
		}
	}
	return len(s)
}

// quoted returns what is between the quotes that s begins with, doubled ones
// made single, and its length with quotes; -1 when the end is missing.
func quoted(s string) (string, int) {
	q := s[0]
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != q {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == q {
			b.WriteByte(q)
			i++
			continue
		}
		return b.String(), i + 1
	}
	return "", -1
}

// blockComment returns the length of the comment that s begins with, which may
// hold others; -1 when its end is missing.
func blockComment(s string) int {
	depth := 0
	for i := 0; i+1 < len(s); i++ {
		switch s[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			i++
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

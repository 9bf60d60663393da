package catalog

import (
	"slices"
	"strings"
)

// Most volatile functions and nearly all trigger functions do nothing to the
// session; they are only not marked as such. A body in SQL or PL/pgSQL is
// searched, word by word, for what could: commands that do, dynamic SQL, and
// the names of functions and relations that are not safe themselves. Every
// word counts as every thing of that name, so the search errs on the safe side.

// readBodies replaces the verdict on each function whose body can be read.
func (g *graph) readBodies() {
	for _, n := range g.nodes {
		if n.body == nil {
			continue
		}
		b, ok := scanBody(*n.body)
		for _, w := range b.words {
			n.mentions = append(n.mentions, g.typesByName[w]...)
		}
		named := g.named(b)
		if n.verdict.Fitness != Unsafe {
			n.mentions = append(n.mentions, named...)
			continue
		}
		if !ok {
			continue
		}
		n.judge(Writes, n.verdict.Why)
		n.uses = append(n.uses, named...)
	}
}

// named returns the functions, relations and operators that a body may mean.
func (g *graph) named(b body) (ids []nodeID) {
	for _, w := range b.words {
		ids = append(ids, g.byName[w]...)
	}
	for _, id := range g.userOperators {
		if slices.ContainsFunc(b.signs, func(s string) bool { return strings.Contains(s, g.nodes[id].name) }) {
			ids = append(ids, id)
		}
	}
	return ids
}

// asks says what a function asks for itself: one of PostgreSQL's own by its name,
// another by any mention of such a name in its body.
func asks(builtin bool, n *node) Asks {
	text := n.name
	if !builtin {
		if n.body == nil {
			return 0
		}
		text = *n.body
	}
	return TextAsks(text)
}

// TextAsks says what a text that is or may be SQL asks for by the names that it
// mentions anywhere.
func TextAsks(text string) (a Asks) {
	text = strings.ToLower(text)
	if strings.Contains(text, "currval") || strings.Contains(text, "lastval") {
		a |= AsksSequences
	}
	if strings.Contains(text, "pg_prepared_statement") {
		a |= AsksPrepared
	}
	return a
}

// body holds what a function's text mentions.
type body struct {
	words []string
	signs []string // runs of operator characters
}

// scanBody reads a function's text; false when it holds a command that changes
// the session, dynamic SQL, or something that it cannot read.
func scanBody(text string) (b body, ok bool) {
	if strings.TrimSpace(text) == "" {
		return b, false // BEGIN ATOMIC bodies are stored elsewhere
	}
	previous := ";"
	for pos := 0; pos < len(text); {
		kind, end := bodyToken(text, pos)
		token := text[pos:end]
		pos = end
		switch kind {
		case bodySpace:
			continue
		case bodyBad:
			return b, false
		case bodyWord:
			token = strings.ToLower(token)
			if changesSession(token, previous) {
				return b, false
			}
			b.words = append(b.words, token)
		case bodyQuoted:
			token = strings.ReplaceAll(token[1:len(token)-1], `""`, `"`)
			if strings.HasPrefix(token, "pg_temp") {
				return b, false
			}
			b.words = append(b.words, token)
			token = ""
		case bodySign:
			b.signs = append(b.signs, token)
		}
		previous = token
	}
	slices.Sort(b.words)
	b.words = slices.Compact(b.words)
	return b, true
}

// changesSession says whether a word, after the token before it, may be a
// command that changes the session or runs SQL made at run time.
func changesSession(word, previous string) bool {
	switch word {
	case "execute", "discard", "listen", "unlisten", "deallocate", "temp", "temporary", "hold", "pg_temp", "dblink":
		return true
	case "set", "reset", "create", "drop", "alter", "do", "call", "load", "prepare", "import", "commit", "rollback":
		switch previous {
		case ";", "begin", "then", "else", "loop", ">>", "atomic":
			return true
		}
	}
	return strings.HasPrefix(word, "pg_temp_")
}

type bodyKind uint8

const (
	bodySpace bodyKind = iota // white space, comments
	bodyWord
	bodyQuoted  // "identifier"
	bodyLiteral // strings, numbers
	bodySign    // operator characters
	bodyOther
	bodyBad
)

// bodyToken returns the kind and the end of the token at pos.
func bodyToken(s string, pos int) (bodyKind, int) {
	c := s[pos]
	rest := s[pos:]
	switch {
	case strings.IndexByte(" \t\n\r\f\v", c) >= 0:
		return bodySpace, pos + 1
	case strings.HasPrefix(rest, "--"):
		if end := strings.IndexAny(rest, "\r\n"); end >= 0 {
			return bodySpace, pos + end
		}
		return bodySpace, len(s)
	case strings.HasPrefix(rest, "/*"):
		return bodyComment(s, pos)
	case c == '\'':
		return bodyString(s, pos)
	case c == '"':
		return bodyName(s, pos)
	case c == '$':
		return bodyDollar(s, pos)
	case isWordByte(c) && (c < '0' || c > '9'):
		end := pos + 1
		for end < len(s) && (isWordByte(s[end]) || s[end] == '$') {
			end++
		}
		return bodyWord, end
	case strings.IndexByte(signBytes, c) >= 0:
		end := pos + 1
		for end < len(s) && strings.IndexByte(signBytes, s[end]) >= 0 &&
			!strings.HasPrefix(s[end:], "--") && !strings.HasPrefix(s[end:], "/*") {
			end++
		}
		return bodySign, end
	}
	return bodyOther, pos + 1
}

const signBytes = "~!@#^&|`?+-*/%<>="

func isWordByte(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80
}

func bodyComment(s string, pos int) (bodyKind, int) {
	depth := 0
	for pos < len(s) {
		switch {
		case strings.HasPrefix(s[pos:], "/*"):
			depth++
			pos += 2
		case strings.HasPrefix(s[pos:], "*/"):
			depth--
			pos += 2
			if depth == 0 {
				return bodySpace, pos
			}
		default:
			pos++
		}
	}
	return bodyBad, len(s)
}

// bodyString reads a string. One with a backslash is not read: whether it
// escapes depends on a setting.
func bodyString(s string, pos int) (bodyKind, int) {
	for i := pos + 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			return bodyBad, len(s)
		case '\'':
			if i+1 >= len(s) || s[i+1] != '\'' {
				return bodyLiteral, i + 1
			}
			i++
		}
	}
	return bodyBad, len(s)
}

func bodyName(s string, pos int) (bodyKind, int) {
	for i := pos + 1; i < len(s); i++ {
		if s[i] == '"' {
			if i+1 >= len(s) || s[i+1] != '"' {
				return bodyQuoted, i + 1
			}
			i++
		}
	}
	return bodyBad, len(s)
}

// bodyDollar reads a parameter or a dollar-quoted string.
func bodyDollar(s string, pos int) (bodyKind, int) {
	end := pos + 1
	for end < len(s) && isWordByte(s[end]) {
		end++
	}
	if end > pos+1 && s[pos+1] >= '0' && s[pos+1] <= '9' {
		return bodyLiteral, end
	}
	if end >= len(s) || s[end] != '$' {
		return bodyBad, len(s)
	}
	tag := s[pos : end+1]
	at := strings.Index(s[end+1:], tag)
	if at < 0 {
		return bodyBad, len(s)
	}
	return bodyLiteral, end + 1 + at + len(tag)
}

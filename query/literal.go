package query

import (
	"bytes"
	"strconv"
	"strings"
)

// stringToken reads a quoted literal whose first quote is at quote, with every
// continuation of it on later lines.
func stringToken(s []byte, start, quote int, kind tokenKind) token {
	t := token{kind: kind, start: start}
	for {
		end, ok := stringEnd(s, quote+1, kind, &t.backslash)
		if !ok {
			return token{kind: tokBad, start: start, end: len(s)}
		}
		t.end = end
		var comment bool
		if quote, comment, ok = continuation(s, end); !ok {
			return t
		}
		if comment {
			// Servers and the grammar library disagree on these.
			t.kind = tokBad
		}
	}
}

// stringEnd returns the position after the quote that ends the string whose
// body begins at pos. In bit strings two quotes do not stand for one.
func stringEnd(s []byte, pos int, kind tokenKind, backslash *bool) (int, bool) {
	bits := kind == tokBits || kind == tokHexBits
	for pos < len(s) {
		switch s[pos] {
		case '\'':
			if bits || pos+1 >= len(s) || s[pos+1] != '\'' {
				return pos + 1, true
			}
			pos++
		case '\\':
			if kind == tokEscape {
				pos++
			} else {
				*backslash = true
			}
		case 0:
			return 0, false
		}
		pos++
	}
	return 0, false
}

// continuation returns the position of the quote that continues a string
// ended at pos: only white space with a line break, and line comments, may
// stand between. It says whether there was a comment.
func continuation(s []byte, pos int) (quote int, comment, ok bool) {
	newline := false
	for pos < len(s) {
		switch c := s[pos]; {
		case c == '\n' || c == '\r':
			newline = true
			pos++
		case charClass[c]&chSpace != 0:
			pos++
		case c == '-' && pos+1 < len(s) && s[pos+1] == '-':
			comment = true
			pos = lineEnd(s, pos+2)
		default:
			return pos, comment, c == '\'' && newline
		}
	}
	return pos, comment, false
}

// quotedToken reads a quoted identifier whose first quote is at quote. An
// empty one is refused by PostgreSQL.
func quotedToken(s []byte, start, quote int, kind tokenKind) token {
	pos := quote + 1
	for pos < len(s) && s[pos] != 0 {
		if s[pos] == '"' {
			if pos+1 >= len(s) || s[pos+1] != '"' {
				if pos == quote+1 {
					kind = tokBad
				}
				return token{kind: kind, start: start, end: pos + 1}
			}
			pos++
		}
		pos++
	}
	return token{kind: tokBad, start: start, end: len(s)}
}

// dollarToken reads a dollar-quoted string.
func dollarToken(s []byte, pos int) token {
	end := pos + 1
	for end < len(s) && charClass[s[end]]&chIdent != 0 &&
		(end > pos+1 || charClass[s[end]]&chDigit == 0) {
		end++
	}
	if end >= len(s) || s[end] != '$' {
		return token{kind: tokBad, start: pos, end: pos + 1}
	}
	tag := s[pos : end+1]
	at := bytes.Index(s[end+1:], tag)
	if at < 0 {
		return token{kind: tokBad, start: pos, end: len(s)}
	}
	return token{kind: tokDollar, start: pos, end: end + 1 + at + len(tag)}
}

// appendEscaped appends what a string with escapes stands for, of which b is what is behind its first quote.
func appendEscaped(dst, b []byte) (text []byte, ok bool) {
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '\'' && i == len(b)-1:
			return dst, true
		case c == '\'' && b[i+1] == '\'':
			i++
			dst = append(dst, c)
		case c == '\'':
			return dst, false // continued on another line
		case c != '\\':
			dst = append(dst, c)
		default:
			v, n := escape(b[i+1:])
			if n == 0 {
				return dst, false
			}
			dst, i = append(dst, v), i+n
		}
	}
	return dst, false
}

// escape reads what is behind a backslash: the byte that it stands for, and its length; 0 for what is not read here.
func escape(b []byte) (v byte, n int) {
	if len(b) == 0 || b[0] >= 0x80 {
		return 0, 0
	}
	if at := strings.IndexByte("bfnrt", b[0]); at >= 0 {
		return "\b\f\n\r\t"[at], 1
	}
	digits, base := b[:min(3, len(b))], 8
	switch b[0] {
	case 'u', 'U':
		return 0, 0
	case 'x':
		digits, base, n = b[1:min(3, len(b))], 16, 1
	}
	value := 0
	for _, c := range digits {
		d, err := strconv.ParseUint(string(c), base, 8)
		if err != nil {
			break
		}
		value, n = value*base+int(d), n+1
	}
	if n == 0 || base == 16 && n == 1 {
		return b[0], 1 // any other character is itself
	}
	if value == 0 || value >= 0x80 {
		return 0, 0 // refused, or a part of a character
	}
	return byte(value), n
}

// paramToken reads $n. Letters right behind it are junk.
func paramToken(s []byte, pos int) token {
	end := pos + 1
	for end < len(s) && charClass[s[end]]&chDigit != 0 {
		end++
	}
	return junkChecked(s, token{kind: tokParam, start: pos, end: end})
}

// numberToken reads a number of any base. Letters right behind it are junk:
// older servers read them as an alias, newer ones refuse, we do not vouch.
func numberToken(s []byte, pos int) token {
	if s[pos] == '0' && pos+1 < len(s) {
		if end := basedEnd(s, pos); end > pos {
			return junkChecked(s, token{kind: tokInt, start: pos, end: end})
		}
	}
	t := token{kind: tokInt, start: pos, end: decimalEnd(s, pos)}
	if t.end < len(s) && s[t.end] == '.' && (t.end+1 >= len(s) || s[t.end+1] != '.') {
		t.kind = tokFloat
		t.end = decimalEnd(s, t.end+1)
	}
	if t.end < len(s) && s[t.end]|0x20 == 'e' {
		exp := t.end + 1
		if exp < len(s) && (s[exp] == '+' || s[exp] == '-') {
			exp++
		}
		if exp < len(s) && charClass[s[exp]]&chDigit != 0 {
			t.kind = tokFloat
			t.end = decimalEnd(s, exp)
		}
	}
	return junkChecked(s, t)
}

// basedEnd returns the end of the 0x, 0o or 0b integer at pos, or pos.
func basedEnd(s []byte, pos int) int {
	var digit func(byte) bool
	switch s[pos+1] | 0x20 {
	case 'x':
		digit = func(c byte) bool { return charClass[c]&chHexDigit != 0 }
	case 'o':
		digit = func(c byte) bool { return c >= '0' && c <= '7' }
	case 'b':
		digit = func(c byte) bool { return c == '0' || c == '1' }
	default:
		return pos
	}
	end := pos + 2
	for end < len(s) {
		next := end
		if s[next] == '_' {
			next++
		}
		if next >= len(s) || !digit(s[next]) {
			break
		}
		end = next + 1
	}
	if end == pos+2 {
		return pos
	}
	return end
}

// decimalEnd returns the end of the run of digits at pos; single underscores
// may stand between two digits.
func decimalEnd(s []byte, pos int) int {
	for first := pos; pos < len(s); pos++ {
		c := s[pos]
		if charClass[c]&chDigit != 0 {
			continue
		}
		if c != '_' || pos == first || pos+1 >= len(s) || charClass[s[pos+1]]&chDigit == 0 {
			break
		}
	}
	return pos
}

// junkChecked returns t, or a bad token over the same span when an identifier
// follows without a space.
func junkChecked(s []byte, t token) token {
	if t.end < len(s) && charClass[s[t.end]]&chIdentStart != 0 {
		t.kind = tokBad
	}
	return t
}

// LiteralText appends what a literal of sql stands for, as the type's input function
// would read it, to dst. standard says that backslashes in plain strings stand for themselves
// (standard_conforming_strings). ok is false for what depends on that otherwise, or is not read
// here: escapes of characters beyond ASCII, continued strings, national and bit strings.
func LiteralText(dst, sql []byte, l Literal, standard bool) (text []byte, ok bool) {
	if l.Start < 0 || l.End > len(sql) || l.Start >= l.End {
		return dst, false
	}
	b := sql[l.Start:l.End]
	switch l.Kind {
	case LiteralInt, LiteralFloat:
		if bytes.ContainsAny(b, "_xXoObB") {
			return dst, false // of newer versions
		}
		return append(dst, b...), true
	case LiteralString:
	default:
		return dst, false
	}
	switch {
	case b[0] == '$':
		tag := bytes.IndexByte(b[1:], '$') + 2
		if tag < 2 || len(b) < 2*tag {
			return dst, false
		}
		return append(dst, b[tag:len(b)-tag]...), true
	case b[0]|0x20 == 'e' && len(b) > 2 && b[1] == '\'':
		return appendEscaped(dst, b[2:])
	case b[0] != '\'':
		return dst, false
	}
	b = b[1:]
	if !standard && bytes.IndexByte(b, '\\') >= 0 {
		return dst, false
	}
	for {
		i := bytes.IndexByte(b, '\'')
		switch {
		case i < 0:
			return dst, false
		case i == len(b)-1:
			return append(dst, b[:i]...), true
		case b[i+1] != '\'':
			return dst, false // continued on another line
		}
		dst = append(dst, b[:i+1]...)
		b = b[i+2:]
	}
}

// CountParams returns how often a text names each parameter ($1).
func CountParams(sql []byte) map[int32]int {
	uses := map[int32]int{}
	for t := nextToken(sql, 0); t.kind != tokEnd && t.kind != tokBad; t = nextToken(sql, t.end) {
		if t.kind == tokParam {
			if n, err := strconv.ParseInt(string(sql[t.start+1:t.end]), 10, 32); err == nil {
				uses[int32(n)]++
			}
		}
	}
	return uses
}

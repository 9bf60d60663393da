package query

// tokenKind is the class of one lexical token. The rules follow PostgreSQL's
// scan.l (version 17) with standard_conforming_strings on.
type tokenKind uint8

const (
	tokEnd       tokenKind = iota
	tokWord                // bare identifier or keyword
	tokQuoted              // "identifier"
	tokUQuoted             // U&"identifier"
	tokString              // 'string', with its continuations
	tokEscape              // E'string'
	tokNational            // N'string'
	tokUString             // U&'string'
	tokBits                // B'0101'
	tokHexBits             // X'1F'
	tokDollar              // $tag$string$tag$
	tokInt                 // integer of any base
	tokFloat               // number with a point or an exponent
	tokParam               // $1
	tokOp                  // operator, made of operator characters only
	tokComma               // ,
	tokSemicolon           // ;
	tokOpen                // ( or [
	tokClose               // ) or ]
	tokPunct               // . : :: := ..
	tokBad                 // anything PostgreSQL's lexer would refuse, or that we do not vouch for
)

// token is one token and its byte span.
type token struct {
	kind       tokenKind
	start, end int
	// backslash is set for a plain string that holds one: its meaning depends
	// on standard_conforming_strings.
	backslash bool
}

// Character classes, as a bit set per byte.
const (
	chSpace = 1 << iota
	chIdentStart
	chDigit
	chOp
	// chOpKeep marks the operator characters that allow an operator to end in + or -.
	chOpKeep
	chHexDigit
)

const chIdent = chIdentStart | chDigit

// charClass is constant data; it is never written after start.
var charClass = func() (t [256]uint8) {
	for _, c := range " \t\n\r\f\v" {
		t[c] |= chSpace
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c] |= chIdentStart
		t[c-'a'+'A'] |= chIdentStart
	}
	t['_'] |= chIdentStart
	for c := 0x80; c <= 0xff; c++ {
		t[c] |= chIdentStart
	}
	for c := '0'; c <= '9'; c++ {
		t[c] |= chDigit | chHexDigit
	}
	for _, c := range "abcdefABCDEF" {
		t[c] |= chHexDigit
	}
	for _, c := range "~!@#^&|`?+-*/%<>=" {
		t[c] |= chOp
	}
	for _, c := range "~!@#^&|`?%" {
		t[c] |= chOpKeep
	}
	return t
}()

// nextToken returns the first token at or after pos. Comments and white space
// before it are skipped. At the end of the text the kind is tokEnd.
func nextToken(s []byte, pos int) token {
	if pos < len(s) && s[pos] == ' ' {
		pos++ // nearly always all there is
	}
	if pos < len(s) && charClass[s[pos]]&chIdentStart != 0 {
		return wordToken(s, pos)
	}
	pos, ok := skipSpace(s, pos)
	if !ok {
		return token{kind: tokBad, start: pos, end: len(s)}
	}
	if pos >= len(s) {
		return token{kind: tokEnd, start: len(s), end: len(s)}
	}
	class := charClass[s[pos]]
	switch {
	case class&chIdentStart != 0:
		return wordToken(s, pos)
	case class&chDigit != 0:
		return numberToken(s, pos)
	case class&chOp != 0:
		return operatorToken(s, pos)
	}
	return punctToken(s, pos)
}

// skipSpace returns the first position at or after pos that is neither white
// space nor in a comment; false when a block comment does not end.
func skipSpace(s []byte, pos int) (int, bool) {
	for pos < len(s) {
		c := s[pos]
		switch {
		case charClass[c]&chSpace != 0:
			pos++
		case c == '-' && pos+1 < len(s) && s[pos+1] == '-':
			pos = lineEnd(s, pos+2)
		case c == '/' && pos+1 < len(s) && s[pos+1] == '*':
			end, ok := blockCommentEnd(s, pos)
			if !ok {
				return pos, false
			}
			pos = end
		default:
			return pos, true
		}
	}
	return pos, true
}

// lineEnd returns the position of the first line break at or after pos.
func lineEnd(s []byte, pos int) int {
	for pos < len(s) && s[pos] != '\n' && s[pos] != '\r' {
		pos++
	}
	return pos
}

// blockCommentEnd returns the position after the (nested) comment at pos.
func blockCommentEnd(s []byte, pos int) (int, bool) {
	depth := 0
	for pos+1 < len(s) {
		switch {
		case s[pos] == '/' && s[pos+1] == '*':
			depth++
			pos += 2
		case s[pos] == '*' && s[pos+1] == '/':
			depth--
			pos += 2
			if depth == 0 {
				return pos, true
			}
		default:
			pos++
		}
	}
	return len(s), false
}

// wordToken reads an identifier, or one of the literals with a letter in front.
func wordToken(s []byte, pos int) token {
	if pos+1 < len(s) {
		switch next := s[pos+1]; {
		case next == '\'':
			switch s[pos] {
			case 'e', 'E':
				return stringToken(s, pos, pos+1, tokEscape)
			case 'b', 'B':
				return stringToken(s, pos, pos+1, tokBits)
			case 'x', 'X':
				return stringToken(s, pos, pos+1, tokHexBits)
			case 'n', 'N':
				return stringToken(s, pos, pos+1, tokNational)
			}
		case next == '&' && pos+2 < len(s) && (s[pos] == 'u' || s[pos] == 'U'):
			switch s[pos+2] {
			case '\'':
				return stringToken(s, pos, pos+2, tokUString)
			case '"':
				return quotedToken(s, pos, pos+2, tokUQuoted)
			}
		}
	}
	end := pos + 1
	for end < len(s) && (charClass[s[end]]&chIdent != 0 || s[end] == '$') {
		end++
	}
	return token{kind: tokWord, start: pos, end: end}
}

// punctToken reads what begins with neither a letter, a digit nor an operator
// character.
func punctToken(s []byte, pos int) token {
	next := byte(0)
	if pos+1 < len(s) {
		next = s[pos+1]
	}
	one := func(k tokenKind) token { return token{kind: k, start: pos, end: pos + 1} }
	two := token{kind: tokPunct, start: pos, end: pos + 2}
	switch s[pos] {
	case '(', '[':
		return one(tokOpen)
	case ')', ']':
		return one(tokClose)
	case ',':
		return one(tokComma)
	case ';':
		return one(tokSemicolon)
	case '\'':
		return stringToken(s, pos, pos, tokString)
	case '"':
		return quotedToken(s, pos, pos, tokQuoted)
	case '$':
		if charClass[next]&chDigit != 0 {
			return paramToken(s, pos)
		}
		return dollarToken(s, pos)
	case '.':
		if charClass[next]&chDigit != 0 {
			return numberToken(s, pos)
		}
		if next == '.' {
			return two
		}
		return one(tokPunct)
	case ':':
		if next == ':' || next == '=' {
			return two
		}
		return one(tokPunct)
	}
	return one(tokBad)
}

// maxOperatorRun is the longest run of operator characters that is taken apart;
// PostgreSQL's names end at 63 bytes, so a longer run is nothing but signs.
const maxOperatorRun = 256

// operatorToken reads the operator at pos: the longest run of operator
// characters, cut before a comment, and without a trailing + or - unless the
// operator holds a character that SQL does not use.
func operatorToken(s []byte, pos int) token {
	end := pos
	keep := false
	for end < len(s) && charClass[s[end]]&chOp != 0 {
		if end > pos && end+1 < len(s) &&
			(s[end] == '-' && s[end+1] == '-' || s[end] == '/' && s[end+1] == '*') {
			break
		}
		keep = keep || charClass[s[end]]&chOpKeep != 0
		end++
	}
	if end-pos > maxOperatorRun {
		return token{kind: tokBad, start: pos, end: end}
	}
	for !keep && end > pos+1 && (s[end-1] == '+' || s[end-1] == '-') {
		end--
	}
	return token{kind: tokOp, start: pos, end: end}
}

package query

import "bytes"

// LiteralKind is the class of a literal.
type LiteralKind uint8

// The kinds of literals.
const (
	LiteralInt LiteralKind = iota
	LiteralFloat
	LiteralString // plain, E'', dollar-quoted
	LiteralNational
	LiteralBits
	LiteralHexBits
)

// Literal is one literal of a text.
type Literal struct {
	// Start and End are its byte span, with quotes, prefix and continuations;
	// a sign is not part of it.
	Start, End int
	Kind       LiteralKind
}

// Normal is the normalised form of a text and the buffers it is made in. The
// zero value is ready; reuse one per goroutine to scan without allocating. Its
// contents are valid until the next Scan.
type Normal struct {
	// Key is the text without comments and with single spaces, bare
	// identifiers in lower case and each literal replaced by a mark of its
	// kind. Two texts with equal keys have equal syntax trees but for the
	// values of their literals. A routing hint is part of it.
	Key []byte
	// Literals holds the literals in the order of the text.
	Literals []Literal
	// First is the first word of the text, in lower case; a part of Key.
	First []byte
	// Commands counts the commands, empty ones left out. Commands inside the
	// body of a function or rule may be counted too.
	Commands int
	// Depth estimates how deep the text nests; see the package's limits.
	Depth int
	// Comments is set when the text holds a comment.
	Comments bool
	// Backslashes is set when a plain string holds a backslash: the text means
	// something else when standard_conforming_strings is off.
	Backslashes bool
	// NonASCII is set when the text holds a byte above 127.
	NonASCII bool
	// Hint is the route that a leading comment asks for.
	Hint Route

	depth depthCounter
	// starts is the buffer of Locate.
	starts [][2]int32
	// broken is set when a token is not one that PostgreSQL's lexer accepts.
	broken bool
}

// MaxDepth is the estimate of nesting above which a text is not parsed.
const MaxDepth = 1000

// Scan normalises sql. It returns false when it cannot vouch for Key: the text
// holds something that PostgreSQL's lexer refuses or reads differently from
// version to version, or an escaped Unicode literal or identifier. Depth,
// Hint, Backslashes and NonASCII hold in any case. Scan allocates only to grow
// the buffers and does not keep sql.
func (n *Normal) Scan(sql []byte) bool {
	n.Key, n.Literals, n.First = n.Key[:0], n.Literals[:0], nil
	n.Commands, n.Comments, n.Backslashes, n.NonASCII, n.broken = 0, false, false, false, false
	n.depth.reset()
	n.Hint = leadingHint(sql)
	n.Key = append(n.Key, n.Hint.mark()...)

	vouched, empty := true, true
	firstAt, firstLen := -1, 0
	prev := tokEnd
	for pos := 0; ; {
		t := nextToken(sql, pos)
		if t.start-pos > 1 {
			n.noteGap(sql[pos:t.start])
		}
		if t.kind == tokEnd {
			break
		}
		pos = t.end
		if t.kind == tokSemicolon {
			if n.depth.level == 0 {
				n.depth.command()
				empty = true
			}
		} else if empty {
			n.Commands++
			empty = false
		}
		if !n.token(sql, t, prev) {
			vouched = false
		}
		if t.kind == tokWord && firstAt < 0 {
			firstLen = t.end - t.start
			firstAt = len(n.Key) - firstLen
		}
		prev = t.kind
	}
	if firstAt >= 0 {
		n.First = n.Key[firstAt : firstAt+firstLen]
	}
	n.Depth = n.depth.max
	return vouched
}

// token appends one token to the key and counts it; false when it is not
// vouched for.
func (n *Normal) token(sql []byte, t token, prev tokenKind) bool {
	if spaced(prev, t.kind) {
		n.Key = append(n.Key, ' ')
	}
	text := sql[t.start:t.end]
	switch t.kind {
	case tokWord:
		n.word(text)
		return true
	case tokOp:
		n.depth.soft()
	case tokPunct:
		if len(text) == 2 {
			n.depth.soft()
		}
	case tokQuoted:
		n.noteBytes(text)
		n.depth.soft()
	case tokOpen:
		n.Key = append(n.Key, text...)
		return n.depth.open()
	case tokClose:
		n.depth.close()
	case tokComma:
		n.depth.comma()
	case tokParam, tokSemicolon:
	case tokUQuoted, tokUString:
		n.noteBytes(text)
		n.depth.soft()
		n.Key = append(n.Key, text...)
		return false
	case tokBad:
		n.broken = true
		n.noteBytes(text)
		n.Key = append(n.Key, text...)
		return false
	default:
		n.literal(text, t)
		return true
	}
	n.Key = append(n.Key, text...)
	return true
}

// word appends a bare identifier or keyword in lower case.
func (n *Normal) word(text []byte) {
	at := len(n.Key)
	n.Key = append(n.Key, text...)
	word := n.Key[at:]
	all := byte(0)
	for i, c := range word {
		all |= c
		if c-'A' < 26 {
			word[i] = c | 0x20
		}
	}
	if all >= 0x80 {
		n.NonASCII = true
	}
	n.depth.word(word)
}

// literal appends the mark of a literal. The marks cannot be mistaken for
// anything else in a key: no number and no string is ever copied into one.
func (n *Normal) literal(text []byte, t token) {
	l := Literal{Start: t.start, End: t.end}
	switch t.kind {
	case tokInt:
		l.Kind = LiteralInt
		n.Key = append(n.Key, '0')
	case tokFloat:
		l.Kind = LiteralFloat
		n.Key = append(n.Key, '0', 'e')
	case tokNational:
		l.Kind = LiteralNational
		n.Key = append(n.Key, 'n', '\'')
	case tokBits:
		l.Kind = LiteralBits
		n.Key = append(n.Key, 'b', '\'')
	case tokHexBits:
		l.Kind = LiteralHexBits
		n.Key = append(n.Key, 'x', '\'')
	default:
		l.Kind = LiteralString
		n.Key = append(n.Key, '\'')
	}
	if l.Kind >= LiteralString {
		n.noteBytes(text)
		n.Backslashes = n.Backslashes || t.backslash
	}
	n.Literals = append(n.Literals, l)
}

// noteGap looks at what lies between two tokens: white space and comments.
func (n *Normal) noteGap(gap []byte) {
	if !n.Comments && (bytes.IndexByte(gap, '-') >= 0 || bytes.IndexByte(gap, '/') >= 0) {
		n.Comments = true
	}
	if n.Comments {
		n.noteBytes(gap)
	}
}

func (n *Normal) noteBytes(text []byte) {
	if n.NonASCII {
		return
	}
	for _, c := range text {
		if c >= 0x80 {
			n.NonASCII = true
			return
		}
	}
}

// spaced says whether two neighbouring tokens need a space in the key to stay
// two tokens.
func spaced(prev, next tokenKind) bool {
	return wordLike(prev) && wordLike(next) || signLike(prev) && signLike(next)
}

func wordLike(k tokenKind) bool {
	return k >= tokWord && k <= tokParam || k == tokBad
}

func signLike(k tokenKind) bool {
	return k == tokOp || k == tokPunct || k == tokBad
}

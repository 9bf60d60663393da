package proxy

import (
	"bytes"

	"shardproxy/wire"
)

// Texts that are too large to be parsed are relayed as they come. What such a
// text may have set the audit finds out, but for custom settings, which it must
// know by name. A text that may set one is looked for while it passes, and then
// ties its session to the connection.

// overlap is how much of a piece is looked at again together with the next: what
// sets a custom setting is seen or suspected within so many bytes.
const overlap = 192

// lookInto looks at the next piece of a large text, before it is sent. An error
// says that the text must not run.
func (s *session) lookInto(piece []byte) error {
	seam := append(s.largeTail, piece[:min(len(piece), overlap)]...)
	if !s.setsUnknown && (maySetCustom(seam) || maySetCustom(piece)) {
		s.setsUnknown = true
	}
	listed := listsStatements(seam) || listsStatements(piece)
	s.largeTail = append(s.largeTail, piece[max(0, len(piece)-overlap):]...)
	if extra := len(s.largeTail) - overlap; extra > 0 {
		s.largeTail = append(s.largeTail[:0], s.largeTail[extra:]...)
	}
	if listed && !s.private {
		return wire.Fatal("0A000", "a text this long cannot list prepared statements").
			WithDetail("It is longer than limits.parsed_statement, and names pg_prepared_statements.").
			WithHint("Send it in several texts.")
	}
	return nil
}

// listsStatements reports whether a piece of a text names the list of prepared
// statements, which on a pooled connection holds those of other clients.
func listsStatements(piece []byte) bool {
	for {
		i := bytes.IndexByte(piece, '_')
		if i < 0 {
			return false
		}
		piece = piece[i:]
		if hasFold(piece, "_prepared_statement") {
			return true
		}
		piece = piece[1:]
	}
}

// forwardLarge forwards a frame whose text is not parsed.
func (s *session) forwardLarge(size int) {
	s.largeTail = s.largeTail[:0]
	s.uploadLarge = true
	s.forward(size)
}

// maySetCustom reports whether a piece of a text holds what may set a custom
// setting: SET with a name of two parts, or a call of set_config. It may say yes
// to what is in a string; it goes from one "set" to the next, so that large
// values cost little.
func maySetCustom(piece []byte) bool {
	for {
		at := indexSet(piece)
		if at < 0 {
			return false
		}
		// A $ may end a quote, and a letter behind a backslash be a line break.
		inName := at > 0 && isNameByte(piece[at-1]) && piece[at-1] != '$' && (at < 2 || piece[at-2] != '\\')
		piece = piece[at+len("set"):]
		if hasFold(piece, "_config") || !inName && setsDotted(piece) {
			return true
		}
	}
}

// indexSet returns where the next "set" of any case is, or -1.
func indexSet(b []byte) int {
	for from := 0; ; from++ {
		i := bytes.IndexAny(b[from:], "sS")
		if i < 0 {
			return -1
		}
		from += i
		if hasFold(b[from:], "set") {
			return from
		}
	}
}

// setsDotted reports whether what follows SET is a name with a dot, or may be one
// because too much is between them. Behind the end of the piece nothing is
// suspected: the next piece is looked at together with this one's end.
func setsDotted(b []byte) bool {
	const near = overlap - 2*len("set")
	goesOn := len(b) > near
	b = b[:min(len(b), near)]
	for words := 0; words < 3; words++ { // SESSION or LOCAL, and the name
		rest := skipSpace(b)
		switch {
		case len(rest) == 0:
			return goesOn
		case rest[0] == '.':
			return words > 0
		case rest[0] == '"':
			end := bytes.IndexByte(rest[1:], '"')
			if end < 0 {
				return goesOn
			}
			b = rest[1+end+1:]
		case !isNameByte(rest[0]):
			return false
		default:
			b = bytes.TrimLeftFunc(rest, isNameRune)
		}
	}
	return false
}

// skipSpace returns b without the white space and the comments that it begins
// with.
func skipSpace(b []byte) []byte {
	for {
		b = bytes.TrimLeft(b, " \t\n\r\f\v")
		opening, closing := "/*", "*/"
		if bytes.HasPrefix(b, []byte("--")) {
			opening, closing = "--", "\n"
		} else if !bytes.HasPrefix(b, []byte(opening)) {
			return b
		}
		_, rest, _ := bytes.Cut(b[len(opening):], []byte(closing))
		b = rest
	}
}

// hasFold reports whether b begins with a word, of small ASCII letters, in any
// case.
func hasFold(b []byte, word string) bool {
	return len(b) >= len(word) && bytes.EqualFold(b[:len(word)], []byte(word))
}

func isNameRune(r rune) bool { return r >= 0x80 || isNameByte(byte(r)) }

func isNameByte(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

package shardmap

import "math"

// The texts of integers, booleans and uuids, as PostgreSQL's input functions
// read them.

// isSpace is isspace() of the C locale. Other locales may have more of them
// above 127, which is why texts that are not ASCII are never judged here.
func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// isPlain reports whether a text is ASCII without zero bytes.
func isPlain(b []byte) bool {
	for _, c := range b {
		if c == 0 || c >= 0x80 {
			return false
		}
	}
	return true
}

func trimSpace(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// newerNumber reports whether a number without its sign may be one of the forms
// that PostgreSQL reads since 16 only: 0x1f, 0o17, 0b11, 1_000.
func newerNumber(b []byte) bool {
	for _, c := range b {
		if c == '_' {
			return true
		}
	}
	if len(b) < 2 || b[0] != '0' {
		return false
	}
	switch b[1] {
	case 'x', 'X', 'o', 'O', 'b', 'B':
		return true
	}
	return false
}

// parseInt reads an integer of the type's width.
func parseInt(k KeyType, text []byte) (int64, error) {
	b := trimSpace(text)
	negative := false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		negative = b[0] == '-'
		b = b[1:]
	}
	// The magnitude; limit is the largest that the type holds.
	limit := uint64(math.MaxInt64)
	switch k {
	case Int2:
		limit = math.MaxInt16
	case Int4:
		limit = math.MaxInt32
	}
	if negative {
		limit++
	}
	var v uint64
	var junk, over bool
	for _, c := range b {
		switch {
		case !isDigit(c):
			junk = true
		case over:
		case v > limit/10 || v*10 > limit-uint64(c-'0'):
			over = true
		default:
			v = v*10 + uint64(c-'0')
		}
	}
	switch {
	case !junk && !over && len(b) > 0:
		if negative {
			return -int64(v), nil
		}
		return int64(v), nil
	case !isPlain(text) || newerNumber(b) || junk && over:
		// Which of the two errors comes first depends on the version.
		return 0, ErrUnproven
	case over:
		return 0, errRange(k, text)
	}
	return 0, errSyntax(k, text)
}

// parseBool reads a boolean: unique prefixes of the words, and 0 and 1.
func parseBool(text []byte) (bool, error) {
	b := trimSpace(text)
	switch {
	case !isPlain(text):
		return false, ErrUnproven
	case isPrefix(b, "true", 1), isPrefix(b, "yes", 1), isPrefix(b, "on", 2), len(b) == 1 && b[0] == '1':
		return true, nil
	case isPrefix(b, "false", 1), isPrefix(b, "no", 1), isPrefix(b, "off", 2), len(b) == 1 && b[0] == '0':
		return false, nil
	}
	return false, errSyntax(Bool, text)
}

// isPrefix reports whether b is a prefix of the word, in any case, of at least
// shortest bytes.
func isPrefix(b []byte, word string, shortest int) bool {
	if len(b) < shortest || len(b) > len(word) {
		return false
	}
	for i, c := range b {
		if c|0x20 != word[i] || c < 'A' {
			return false
		}
	}
	return true
}

// parseUUID reads 32 hexadecimal digits, a hyphen allowed behind every fourth,
// the whole perhaps in braces. Nothing else is allowed, not even space.
func parseUUID(text []byte) (u [16]byte, err error) {
	if !isPlain(text) {
		return u, ErrUnproven
	}
	b := text
	braces := len(b) > 0 && b[0] == '{'
	if braces {
		if len(b) < 2 || b[len(b)-1] != '}' {
			return u, errSyntax(UUID, text)
		}
		b = b[1 : len(b)-1]
	}
	for i := range u {
		if len(b) < 2 {
			return u, errSyntax(UUID, text)
		}
		high, low := hexDigit(b[0]), hexDigit(b[1])
		if high < 0 || low < 0 {
			return u, errSyntax(UUID, text)
		}
		u[i] = byte(high<<4 | low)
		b = b[2:]
		if len(b) > 0 && b[0] == '-' && i%2 == 1 && i < len(u)-1 {
			b = b[1:]
		}
	}
	if len(b) != 0 {
		return u, errSyntax(UUID, text)
	}
	return u, nil
}

// hexDigit returns a digit's value, or -1.
func hexDigit(c byte) int {
	switch {
	case isDigit(c):
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

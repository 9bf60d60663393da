package shardmap

import "fmt"

// byteaForm is which of bytea's texts one is.
type byteaForm uint8

const (
	byteaPlain  byteaForm = iota // the bytes themselves
	byteaHex                     // \x and pairs of digits, space allowed between the pairs
	byteaEscape                  // \\ and \ooo among other bytes
)

// byteaReader gives the bytes that a checked text of a bytea stands for.
type byteaReader struct {
	rest []byte
	form byteaForm
}

// next returns the next byte; false at the end.
func (r *byteaReader) next() (byte, bool) {
	if r.form == byteaHex {
		for len(r.rest) > 0 && isHexSpace(r.rest[0]) {
			r.rest = r.rest[1:]
		}
	}
	if len(r.rest) == 0 {
		return 0, false
	}
	b := r.rest
	switch {
	case r.form == byteaHex:
		r.rest = b[2:]
		return byte(hexDigit(b[0])<<4 | hexDigit(b[1])), true
	case b[0] != '\\':
		r.rest = b[1:]
		return b[0], true
	case b[1] == '\\':
		r.rest = b[2:]
		return '\\', true
	}
	r.rest = b[4:]
	return (b[1]-'0')<<6 | (b[2]-'0')<<3 | (b[3] - '0'), true
}

// isHexSpace is the space that PostgreSQL allows between pairs of digits.
func isHexSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// readBytea checks a bytea's text and returns a reader of its bytes and how
// many they are.
func readBytea(text []byte) (r byteaReader, n int, err error) {
	if !isPlain(text) {
		return r, 0, ErrUnproven // other bytes depend on client_encoding
	}
	if len(text) >= 2 && text[0] == '\\' && text[1] == 'x' {
		n, err = checkHex(text[2:])
		return byteaReader{text[2:], byteaHex}, n, err
	}
	form := byteaPlain
	for i := 0; i < len(text); n++ {
		if text[i] != '\\' {
			i++
			continue
		}
		form = byteaEscape
		switch rest := text[i+1:]; {
		case len(rest) >= 1 && rest[0] == '\\':
			i += 2
		case len(rest) >= 3 && rest[0] >= '0' && rest[0] <= '3' && isOctal(rest[1]) && isOctal(rest[2]):
			i += 4
		default:
			return r, 0, &ValueError{codeInvalidText, "invalid input syntax for type bytea"}
		}
	}
	return byteaReader{text, form}, n, nil
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }

// checkHex returns how many bytes the digits are.
func checkHex(b []byte) (n int, err error) {
	for i := 0; i < len(b); {
		if isHexSpace(b[i]) {
			i++
			continue
		}
		if hexDigit(b[i]) < 0 {
			return 0, errHexDigit(b[i])
		}
		if i+1 == len(b) {
			return 0, &ValueError{codeInvalidValue, "invalid hexadecimal data: odd number of digits"}
		}
		if hexDigit(b[i+1]) < 0 {
			return 0, errHexDigit(b[i+1])
		}
		i += 2
		n++
	}
	return n, nil
}

func errHexDigit(c byte) error {
	return &ValueError{codeInvalidValue, fmt.Sprintf("invalid hexadecimal digit: \"%c\"", c)}
}

// hashByteaText hashes the bytes that a text stands for without storing them.
func hashByteaText(text []byte) (uint64, error) {
	r, n, err := readBytea(text)
	if err != nil {
		return 0, err
	}
	if r.form == byteaPlain {
		return hashBytes(r.rest), nil
	}
	s := newLookup3(n)
	var block [12]byte
	for ; n >= len(block); n -= len(block) {
		for i := range block {
			block[i], _ = r.next()
		}
		s.block(block[:])
	}
	for i := range n {
		block[i], _ = r.next()
	}
	s.tail(block[:n])
	return s.sum(), nil
}

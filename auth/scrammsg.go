package auth

import (
	"bytes"
	"encoding/binary"
	"strings"

	"shardproxy/wire"
)

const (
	// maxTokenBytes is PostgreSQL's PG_MAX_AUTH_TOKEN_LENGTH: no SASL or
	// password message may be longer.
	maxTokenBytes = 65535
	// maxNonceBytes bounds the client's nonce, which is sent back and kept.
	// Drivers send 24 to 50 characters.
	maxNonceBytes = 1024

	mechanismSCRAM     = "SCRAM-SHA-256"
	mechanismSCRAMPlus = "SCRAM-SHA-256-PLUS"
	bindingType        = "tls-server-end-point"
)

// malformed is PostgreSQL's answer to a SCRAM message that it cannot read.
func malformed(detail string) *wire.Error {
	return wire.Fatal("08P01", "malformed SCRAM message").WithDetail("%s", detail)
}

// saslInitial is a SASLInitialResponse.
type saslInitial struct {
	mechanism string
	data      []byte // nil when the client sent none
}

// parseSASLInitial reads the body of a SASLInitialResponse. data is a part of body.
func parseSASLInitial(body []byte) (saslInitial, *wire.Error) {
	mechanism, rest, ok := wire.CString(body)
	if !ok || len(rest) < 4 {
		return saslInitial{}, wire.Fatal("08P01", "invalid SASL initial response")
	}
	size, rest := binary.BigEndian.Uint32(rest), rest[4:]
	m := saslInitial{mechanism: string(mechanism)}
	if size == 0xFFFFFFFF && len(rest) == 0 {
		return m, nil
	}
	if uint64(size) != uint64(len(rest)) {
		return saslInitial{}, wire.Fatal("08P01", "invalid SASL initial response").
			WithDetail("The response claims %d bytes and has %d.", size, len(rest))
	}
	m.data = rest
	return m, nil
}

// attributes reads a SCRAM message attribute by attribute.
type attributes struct {
	rest string
	done bool // the last attribute has been read
}

// next reads one attribute of any name.
func (a *attributes) next() (name byte, value string, err *wire.Error) {
	if a.done {
		return 0, "", malformed("Attribute expected, but found end of message.")
	}
	field, rest, more := strings.Cut(a.rest, ",")
	a.rest, a.done = rest, !more
	if field == "" || !isLetter(field[0]) {
		return 0, "", malformed("Attribute expected, but found an invalid character.")
	}
	if len(field) < 2 || field[1] != '=' {
		return 0, "", malformed("Expected character \"=\" behind an attribute's name.")
	}
	return field[0], field[2:], nil
}

// want reads one attribute that must have the name.
func (a *attributes) want(name byte) (string, *wire.Error) {
	got, value, err := a.next()
	if err != nil {
		return "", err
	}
	if got != name {
		return "", malformed("Expected attribute \"" + string(name) + "\" but found \"" + string(got) + "\".")
	}
	return value, nil
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// clientFirst is a client-first-message (RFC 5802, section 7).
type clientFirst struct {
	flag    byte   // 'n', 'y' or 'p'
	binding string // the channel binding type when flag is 'p'
	header  string // the GS2 header with its last comma
	bare    string // what is signed
	nonce   string
}

// checkText refuses what no SCRAM message may hold, as PostgreSQL does before
// it looks any further.
func checkText(b []byte) *wire.Error {
	if len(b) == 0 {
		return malformed("The message is empty.")
	}
	if len(b) > maxTokenBytes {
		return malformed("The message is too long.")
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return malformed("Message length does not match input length.")
	}
	return nil
}

// parseClientFirst reads a client-first-message. The user name in it is read
// and ignored, as by PostgreSQL: the StartupMessage has named the user.
func parseClientFirst(b []byte) (clientFirst, *wire.Error) {
	var m clientFirst
	if err := checkText(b); err != nil {
		return m, err
	}
	s := string(b)
	flag, rest, ok := strings.Cut(s, ",")
	if err := m.setFlag(flag); err != nil {
		return m, err
	}
	authzid, bare, ok2 := strings.Cut(rest, ",")
	if !ok || !ok2 {
		return m, malformed("Comma expected, but found end of message.")
	}
	if strings.HasPrefix(authzid, "a=") {
		return m, wire.Fatal("0A000", "client uses authorization identity, but it is not supported")
	}
	if authzid != "" {
		return m, malformed("Unexpected attribute in client-first-message.")
	}
	m.header, m.bare = s[:len(s)-len(bare)], bare
	return m, m.parseBare()
}

func (m *clientFirst) setFlag(flag string) *wire.Error {
	if flag == "n" || flag == "y" {
		m.flag = flag[0]
		return nil
	}
	binding, ok := strings.CutPrefix(flag, "p=")
	if !ok {
		return malformed("Unexpected channel-binding flag.")
	}
	m.flag, m.binding = 'p', binding
	return nil
}

func (m *clientFirst) parseBare() *wire.Error {
	if strings.HasPrefix(m.bare, "m=") {
		return wire.Fatal("0A000", "client requires an unsupported SCRAM extension")
	}
	a := attributes{rest: m.bare}
	if _, err := a.want('n'); err != nil {
		return err
	}
	nonce, err := a.want('r')
	if err != nil {
		return err
	}
	if nonce == "" || len(nonce) > maxNonceBytes {
		return malformed("The nonce is empty or too long.")
	}
	for _, c := range []byte(nonce) {
		if c < 0x21 || c > 0x7e {
			return wire.Fatal("08P01", "non-printable characters in SCRAM nonce")
		}
	}
	m.nonce = nonce
	for !a.done { // optional extensions are read over
		if _, _, err := a.next(); err != nil {
			return err
		}
	}
	return nil
}

// clientFinal is a client-final-message.
type clientFinal struct {
	binding      string // base64 as the client wrote it
	nonce        string
	proof        [keyBytes]byte
	withoutProof string // what is signed
}

// parseClientFinal reads a client-final-message.
func parseClientFinal(b []byte) (clientFinal, *wire.Error) {
	var m clientFinal
	if err := checkText(b); err != nil {
		return m, err
	}
	s := string(b)
	a := attributes{rest: s}
	var err *wire.Error
	if m.binding, err = a.want('c'); err != nil {
		return m, err
	}
	if m.nonce, err = a.want('r'); err != nil {
		return m, err
	}
	for {
		before := len(s) - len(a.rest) // where the next attribute begins
		name, value, err := a.next()
		if err != nil {
			return m, err
		}
		if name != 'p' {
			continue
		}
		if !a.done {
			return m, malformed("Garbage found at the end of client-final-message.")
		}
		proof, decodeErr := decodeBase64(value)
		if decodeErr != nil || len(proof) != keyBytes {
			return m, malformed("Malformed proof in client-final-message.")
		}
		copy(m.proof[:], proof)
		m.withoutProof = s[:before-1]
		return m, nil
	}
}

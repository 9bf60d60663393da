package shardmap

import (
	"errors"
	"fmt"
)

// ErrUnproven says that the value may be a valid one, but that what it means
// depends on a setting, on the server's version or on rules that are not
// repeated here. It is no error of the client: ask PostgreSQL, or refuse.
var ErrUnproven = errors.New("shardmap: the value's meaning is not proven without PostgreSQL")

// SQLSTATEs of ValueError.
const (
	codeInvalidText   = "22P02"
	codeInvalidBinary = "22P03"
	codeOutOfRange    = "22003"
	codeDateOverflow  = "22008"
	codeInvalidValue  = "22023"
	codeProtocol      = "08P01"
)

// ValueError says that PostgreSQL, of any version from 13 to 18, refuses the
// value for its type, and how it says so.
type ValueError struct {
	// Code is the SQLSTATE.
	Code string
	// Message is PostgreSQL's English message text. For code 22P03 and a value
	// too long it is that of COPY ("incorrect binary data format"); for a
	// bound parameter PostgreSQL adds " in bind parameter N".
	Message string
}

func (e *ValueError) Error() string { return e.Message + " (SQLSTATE " + e.Code + ")" }

// KeyTypeError says that a type cannot be that of a key, and why.
type KeyTypeError struct {
	// OID is the type's.
	OID uint32
	// Type is its name as SQL spells it; empty when it is not a built-in type.
	Type string
	// Reason is a whole clause, such as "0 and -0 are equal but ...".
	Reason string
}

func (e *KeyTypeError) Error() string {
	name := e.Type
	if name == "" {
		name = fmt.Sprintf("with OID %d", e.OID)
	}
	return fmt.Sprintf("type %s cannot be a key: %s", name, e.Reason)
}

// errSyntax is PostgreSQL's answer to a text that is no value of the type.
func errSyntax(k KeyType, b []byte) error {
	return &ValueError{codeInvalidText, fmt.Sprintf("invalid input syntax for type %s: \"%s\"", k, b)}
}

// errRange is PostgreSQL's answer to a number that its type cannot hold.
func errRange(k KeyType, b []byte) error {
	return &ValueError{codeOutOfRange, fmt.Sprintf("value \"%s\" is out of range for type %s", b, k)}
}

// checkWidth says what PostgreSQL says of a binary value of the wrong length.
func checkWidth(b []byte, want int) error {
	switch {
	case len(b) < want && len(b) == 0 && want == 1:
		return &ValueError{codeProtocol, "no data left in message"}
	case len(b) < want:
		return &ValueError{codeProtocol, "insufficient data left in message"}
	case len(b) > want:
		return &ValueError{codeInvalidBinary, "incorrect binary data format"}
	}
	return nil
}

package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Request codes and versions of the first packet (PostgreSQL source:
// src/include/libpq/pqcomm.h).
const (
	Protocol30      = 3 << 16
	Protocol32      = 3<<16 | 2
	protocolLatest  = Protocol32
	codeCancel      = 1234<<16 | 5678
	codeSSL         = 1234<<16 | 5679
	codeGSSENC      = 1234<<16 | 5680
	tlsHandshake    = 0x16 // first byte of a TLS record that opens a handshake
	maxCancelSecret = 256
)

// StartupKind says what the first packet of a connection asks for.
type StartupKind uint8

// The kinds of first packets.
const (
	StartupSession StartupKind = iota
	StartupSSL
	StartupGSSENC
	StartupCancel
	StartupDirectTLS
)

// Param is one name and value of a StartupMessage.
type Param struct{ Name, Value string }

// Startup is the first packet of a connection.
type Startup struct {
	Kind StartupKind
	// Protocol is the version that holds from here on: what the client asked
	// for, or less when Negotiate is set.
	Protocol uint32
	// Negotiate is set when the client must be told of a lower minor version or
	// of the protocol options in Unsupported that we do not know.
	Negotiate   bool
	Unsupported []string
	// Params are the session parameters in the client's order, without protocol options.
	Params []Param
	// Head holds the bytes already read of a TLS handshake that came without an SSLRequest.
	Head []byte
	// Cancel is the key of a cancel request.
	Cancel CancelKey
}

// CancelKey names a session to be cancelled: four bytes of secret under
// protocol 3.0, up to 256 under 3.2.
type CancelKey struct {
	PID    uint32
	Secret string
}

// Get returns the last value of a session parameter.
func (s *Startup) Get(name string) (string, bool) {
	for i := len(s.Params) - 1; i >= 0; i-- {
		if s.Params[i].Name == name {
			return s.Params[i].Value, true
		}
	}
	return "", false
}

// ReadStartup reads exactly one first packet from r, nothing beyond it: what a
// client sends behind an SSLRequest must not be read before the handshake
// (CVE-2021-23214). A packet over limit bytes or malformed is a *Error with
// 08P01; io.EOF means that the peer closed without a word.
func ReadStartup(r io.Reader, limit int) (*Startup, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, Fatal("08P01", "incomplete startup packet")
		}
		return nil, err
	}
	if head[0] == tlsHandshake {
		return &Startup{Kind: StartupDirectTLS, Head: append([]byte(nil), head[:4]...)}, nil
	}
	size := binary.BigEndian.Uint32(head[:4])
	if size < 8 || uint64(size) > uint64(limit) {
		return nil, Fatal("08P01", "invalid length of startup packet")
	}
	body := make([]byte, size-4)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, Fatal("08P01", "incomplete startup packet").WithCause(err)
	}
	return parseStartup(body)
}

func parseStartup(body []byte) (*Startup, error) {
	code := binary.BigEndian.Uint32(body)
	rest := body[4:]
	switch code {
	case codeSSL, codeGSSENC:
		if len(rest) != 0 {
			return nil, Fatal("08P01", "invalid length of startup packet")
		}
		if code == codeSSL {
			return &Startup{Kind: StartupSSL}, nil
		}
		return &Startup{Kind: StartupGSSENC}, nil
	case codeCancel:
		return parseCancel(rest)
	}
	if code>>16 != 3 {
		return nil, Fatal("0A000", "unsupported frontend protocol %d.%d: server supports 3.0 to 3.2", code>>16, code&0xffff)
	}
	return parseSession(code, rest)
}

func parseCancel(rest []byte) (*Startup, error) {
	if len(rest) < 8 || len(rest) > 4+maxCancelSecret {
		return nil, Fatal("08P01", "invalid length of cancel request packet")
	}
	return &Startup{Kind: StartupCancel, Cancel: CancelKey{
		PID: binary.BigEndian.Uint32(rest), Secret: string(rest[4:]),
	}}, nil
}

func parseSession(version uint32, rest []byte) (*Startup, error) {
	s := &Startup{Kind: StartupSession, Protocol: version}
	if version > protocolLatest {
		s.Protocol, s.Negotiate = protocolLatest, true
	}
	for {
		name, after, ok := CString(rest)
		if !ok {
			return nil, malformedStartup()
		}
		if len(name) == 0 {
			if len(after) != 0 {
				return nil, malformedStartup()
			}
			return s, nil
		}
		value, after, ok := CString(after)
		if !ok {
			return nil, malformedStartup()
		}
		rest = after
		if strings.HasPrefix(string(name), "_pq_.") {
			s.Unsupported, s.Negotiate = append(s.Unsupported, string(name)), true
			continue
		}
		s.Params = append(s.Params, Param{string(name), string(value)})
	}
}

func malformedStartup() *Error {
	return Fatal("08P01", "invalid startup packet layout: expected terminator as last byte")
}

// AppendNegotiate appends the NegotiateProtocolVersion that answers s.
func (s *Startup) AppendNegotiate(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, MsgNegotiateProtocolVersion, 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint32(dst, s.Protocol)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(s.Unsupported)))
	for _, o := range s.Unsupported {
		dst = append(append(dst, o...), 0)
	}
	putLength(dst, start)
	return dst
}

// ReadMessage reads one whole frame from r, for the blocking handshakes: its
// type and body. A body over limit bytes is a *Error with 08P01.
func ReadMessage(r io.Reader, limit int) (kind byte, body []byte, err error) {
	var head [headerSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || uint64(n)-4 > uint64(limit) {
		return head[0], nil, Fatal("08P01", "invalid message length")
	}
	body = make([]byte, n-4)
	if _, err := io.ReadFull(r, body); err != nil {
		return head[0], nil, fmt.Errorf("read message body: %w", err)
	}
	return head[0], body, nil
}

// AppendSSLRequest appends an SSLRequest.
func AppendSSLRequest(dst []byte) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0, 0, 0, 8), codeSSL)
}

// AppendCancelRequest appends a CancelRequest for key.
func AppendCancelRequest(dst []byte, key CancelKey) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(12+len(key.Secret)))
	dst = binary.BigEndian.AppendUint32(dst, codeCancel)
	dst = binary.BigEndian.AppendUint32(dst, key.PID)
	return append(dst, key.Secret...)
}

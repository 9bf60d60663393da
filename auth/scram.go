package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"

	"shardproxy/wire"
)

// scramExchange is the server side of one SCRAM exchange without its I/O:
// first, then final.
type scramExchange struct {
	keys *scramKeys
	// hash is the certificate's hash for tls-server-end-point, nil when
	// SCRAM-SHA-256-PLUS was not offered.
	hash []byte
	// plus says that the client chose SCRAM-SHA-256-PLUS.
	plus bool

	client clientFirst
	nonce  string
	reply  string // the server-first-message, which is signed
}

// serverNonce returns 18 random bytes as text, PostgreSQL's length.
func serverNonce() string {
	raw := make([]byte, 18)
	rand.Read(raw) // never fails: crypto/rand ends the process instead
	return base64.StdEncoding.EncodeToString(raw)
}

// first takes the client-first-message and returns the server-first-message.
func (x *scramExchange) first(msg []byte) ([]byte, *wire.Error) {
	m, err := parseClientFirst(msg)
	if err == nil {
		err = x.checkFlag(m)
	}
	if err != nil {
		return nil, err
	}
	x.client = m
	x.nonce = m.nonce + serverNonce()
	x.reply = fmt.Sprintf("r=%s,s=%s,i=%d", x.nonce,
		base64.StdEncoding.EncodeToString(x.keys.salt), x.keys.iterations)
	return []byte(x.reply), nil
}

// checkFlag holds the client's channel binding flag against what was offered
// and chosen (RFC 5802, section 6).
func (x *scramExchange) checkFlag(m clientFirst) *wire.Error {
	switch {
	case m.flag != 'p' && x.plus:
		return malformed("The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.")
	case m.flag == 'y' && x.hash != nil:
		// Somebody between us took SCRAM-SHA-256-PLUS out of the offer.
		return wire.Fatal("28000", "SCRAM channel binding negotiation error").
			WithDetail("The client supports SCRAM channel binding but thinks the server does not. However, this server does support channel binding.")
	case m.flag == 'p' && !x.plus:
		return malformed("The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.")
	case m.flag == 'p' && m.binding != bindingType:
		return wire.Fatal("08P01", "unsupported SCRAM channel-binding type").
			WithDetail("Only %q is supported.", bindingType)
	}
	return nil
}

// final takes the client-final-message. With the right proof it returns the
// server-final-message; with a wrong one nil and no error.
func (x *scramExchange) final(msg []byte) ([]byte, *wire.Error) {
	m, err := parseClientFinal(msg)
	if err != nil {
		return nil, err
	}
	if err := x.checkBinding(m); err != nil {
		return nil, err
	}
	if m.nonce != x.nonce {
		return nil, wire.Fatal("08P01", "invalid SCRAM response").WithDetail("Nonce does not match.")
	}
	signed := x.client.bare + "," + x.reply + "," + m.withoutProof
	signature := hmacSHA256(x.keys.stored[:], signed)
	var clientKey [keyBytes]byte
	subtle.XORBytes(clientKey[:], m.proof[:], signature)
	stored := sha256.Sum256(clientKey[:])
	if subtle.ConstantTimeCompare(stored[:], x.keys.stored[:]) != 1 {
		return nil, nil
	}
	server := hmacSHA256(x.keys.server[:], signed)
	return []byte("v=" + base64.StdEncoding.EncodeToString(server)), nil
}

// checkBinding compares the channel binding that the client has signed with
// this connection's.
func (x *scramExchange) checkBinding(m clientFinal) *wire.Error {
	want := []byte(x.client.header)
	if x.plus {
		want = append(want, x.hash...)
	}
	if subtle.ConstantTimeCompare([]byte(m.binding), []byte(base64.StdEncoding.EncodeToString(want))) == 1 {
		return nil
	}
	if x.plus {
		return wire.Fatal("28000", "SCRAM channel binding check failed")
	}
	return wire.Fatal("08P01", "unexpected SCRAM channel-binding attribute in client-final-message")
}

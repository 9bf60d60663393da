package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"shardproxy/config"
	"shardproxy/wire"
)

// settings returns a configuration with the users and one rule for everybody.
func settings(method config.Method, users ...config.User) *config.Config {
	return &config.Config{
		Users:     users,
		Databases: []config.Database{{Name: "shop"}},
		Auth: config.Auth{
			Rules: []config.Rule{{Method: method}},
			Throttle: config.Throttle{
				Delay: 100 * time.Millisecond, MaxDelay: 10 * time.Second,
				ForgetAfter: 10 * time.Minute, MaxAddresses: 100,
			},
		},
	}
}

func plain(name, password string) config.User {
	return config.User{Name: name, Password: config.NewSecret(password)}
}

func verified(name, verifier string) config.User {
	return config.User{Name: name, Verifier: config.NewSecret(verifier)}
}

func mustNew(t testing.TB, o Options) *Authenticator {
	t.Helper()
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// fakeConversation is a client that answers from a function.
type fakeConversation struct {
	answer func(code uint32, data []byte) ([]byte, error)
	tls    *tls.ConnectionState
	cert   *x509.Certificate
	addr   netip.AddrPort

	shape []string // the Authentication messages that came, "code" or "code:length"
	last  []byte   // the last one's data
	code  uint32
	ok    bool
}

func (f *fakeConversation) Send(frames []byte) error {
	for len(frames) > 0 {
		size := int(binary.BigEndian.Uint32(frames[1:])) + 1
		f.code, f.last = binary.BigEndian.Uint32(frames[5:]), frames[9:size]
		f.shape = append(f.shape, string(rune('A'+f.code)))
		f.ok = f.code == authOK
		frames = frames[size:]
	}
	return nil
}

func (f *fakeConversation) ReadPassword(maxBytes int) ([]byte, error) {
	body, err := f.answer(f.code, f.last)
	if len(body) > maxBytes {
		return nil, wire.Fatal("08P01", "invalid message length")
	}
	return body, err
}

func (f *fakeConversation) TLS() *tls.ConnectionState            { return f.tls }
func (f *fakeConversation) ServerCertificate() *x509.Certificate { return f.cert }
func (f *fakeConversation) RemoteAddr() netip.AddrPort           { return f.addr }

// client returns a conversation that answers every kind of challenge with the
// user's password.
func client(user, password string) *fakeConversation {
	scram := &scramClient{password: password}
	return &fakeConversation{answer: func(code uint32, data []byte) ([]byte, error) {
		switch code {
		case authCleartext:
			return []byte(password + "\x00"), nil
		case authMD5:
			return []byte(md5Response(hashMD5(password, user), data) + "\x00"), nil
		case authSASL:
			return initial(mechanismSCRAM, scram.first()), nil
		case authSASLContinue:
			return []byte(scram.final(string(data))), nil
		}
		return nil, errors.New("no answer to this")
	}}
}

func initial(mechanism, data string) []byte {
	b := append([]byte(mechanism), 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// login runs one attempt on the database shop.
func login(t testing.TB, a *Authenticator, c *fakeConversation, user string) (Identity, *wire.Error) {
	t.Helper()
	id, err := a.Authenticate(context.Background(), c, user, "shop")
	if err == nil {
		if !c.ok {
			t.Fatalf("let in without AuthenticationOk: %v", c.shape)
		}
		return id, nil
	}
	var we *wire.Error
	if !errors.As(err, &we) || !we.IsFatal() {
		t.Fatalf("not a fatal *wire.Error: %v", err)
	}
	if c.ok || id != (Identity{}) {
		t.Fatalf("AuthenticationOk or an identity %+v in spite of %v", id, err)
	}
	return id, we
}

// wantFailed checks that the client cannot tell why it failed.
func wantFailed(t testing.TB, err *wire.Error, user string, cause error) {
	t.Helper()
	if err == nil || err.Code != "28P01" || err.Message != `password authentication failed for user "`+user+`"` || err.Detail != "" || err.Hint != "" {
		t.Fatalf("got %v, want a plain 28P01", err)
	}
	if !errors.Is(err, cause) {
		t.Fatalf("the log says %v, want %v", err.Cause, cause)
	}
	if strings.Contains(string(err.Append(nil)), cause.Error()) {
		t.Fatal("the cause reaches the client")
	}
}

var errHungUp = io.ErrUnexpectedEOF

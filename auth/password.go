package auth

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"

	"shardproxy/config"
	"shardproxy/wire"
)

// Codes of the Authentication messages (manual, "Message Formats").
const (
	authOK           = 0
	authCleartext    = 3
	authMD5          = 5
	authSASL         = 10
	authSASLContinue = 11
	authSASLFinal    = 12
)

// appendAuthentication appends an Authentication message.
func appendAuthentication(dst []byte, code uint32, parts ...[]byte) []byte {
	body := binary.BigEndian.AppendUint32(nil, code)
	return wire.AppendFrame(dst, wire.MsgAuthentication, append([][]byte{body}, parts...)...)
}

var (
	errWrongPassword = errors.New("the password does not match")
	errNoVerifier    = errors.New("the user has no SCRAM verifier, only an md5 hash")
)

// whyFailed is the reason for the log: what is wrong with the account comes
// first, for it explains more than a wrong password.
func whyFailed(right bool, doomed error) error {
	if doomed == nil && !right {
		return errWrongPassword
	}
	return doomed
}

// password runs one of the exchanges that prove a password.
func (t *attempt) password(ctx context.Context) (Identity, error) {
	if t.method == config.MethodPassword && t.tls == nil && t.addr.IsValid() && !t.p.config.Auth.AllowCleartext {
		return Identity{}, wire.Fatal("28000", "password authentication needs an encrypted connection").
			WithHint("Connect with sslmode=require, or use method scram-sha-256.")
	}
	return t.prove(ctx)
}

// prove has the password proven, within the limits of failed logins.
func (t *attempt) prove(ctx context.Context) (Identity, error) {
	if err := t.a.throttle.wait(ctx, t.addr); err != nil {
		return Identity{}, err
	}
	acct, err := t.account(ctx)
	if err != nil {
		return Identity{}, err
	}
	if acct == nil {
		acct = t.a.mocks.account(t.user)
	}
	proven, err := t.exchange(ctx, acct)
	var we *wire.Error
	if errors.As(err, &we) && we.Code == "28P01" {
		t.a.throttle.failed(t.addr)
		if database, ok := t.p.lookupDatabase(t.database); ok {
			t.p.lookups.doubt(lookupKey{database, t.user})
		}
	}
	if err != nil {
		return Identity{}, err
	}
	t.a.throttle.succeeded(t.addr)
	return t.p.identity(acct, t.database, t.method, proven), nil
}

// exchange returns without error only when the password has been proven and
// the client told so. The result is the password where the client has sent it.
func (t *attempt) exchange(ctx context.Context, acct *account) (config.Secret, error) {
	switch {
	case t.method == config.MethodPassword:
		return t.cleartext(ctx, acct)
	case t.method == config.MethodMD5 && t.wantsMD5(acct):
		return config.Secret{}, t.md5(acct)
	}
	return config.Secret{}, t.scram(ctx, acct)
}

// wantsMD5 chooses under the md5 method. Where no password can be right the
// choice must not tell so.
func (t *attempt) wantsMD5(acct *account) bool {
	if acct.absent != nil {
		return t.p.mockMD5
	}
	return acct.scram == nil
}

// keysOf returns SCRAM keys to run an exchange with in any case; doomed says
// why it must fail even with the right proof.
func (t *attempt) keysOf(ctx context.Context, acct *account) (keys *scramKeys, doomed, err error) {
	doomed = acct.unusable(t.a.now())
	keys, err = t.p.deriver.keys(ctx, acct)
	if err != nil || keys != nil {
		return keys, doomed, err
	}
	if doomed == nil {
		doomed = errNoVerifier
	}
	keys, err = t.p.deriver.keys(ctx, t.a.mocks.account(t.user))
	return keys, doomed, err
}

// scram runs SCRAM-SHA-256 or SCRAM-SHA-256-PLUS.
func (t *attempt) scram(ctx context.Context, acct *account) error {
	keys, doomed, err := t.keysOf(ctx, acct)
	if err != nil {
		return err
	}
	x := &scramExchange{keys: keys}
	if t.tls != nil {
		x.hash = endpointHash(t.c.ServerCertificate())
	}
	first, err := t.startSASL(x)
	if err != nil {
		return err
	}
	challenge, refused := x.first(first)
	if refused != nil {
		return refused
	}
	response, err := t.ask(authSASLContinue, challenge)
	if err != nil {
		return err
	}
	final, refused := x.final(response)
	switch {
	case refused != nil:
		return refused
	case final == nil || doomed != nil:
		return t.failed(whyFailed(final != nil, doomed))
	}
	frames := appendAuthentication(nil, authSASLFinal, final)
	return t.c.Send(appendAuthentication(frames, authOK))
}

// startSASL offers the mechanisms and returns the client-first-message.
func (t *attempt) startSASL(x *scramExchange) ([]byte, error) {
	offer := mechanismSCRAM + "\x00\x00"
	if x.hash != nil {
		offer = mechanismSCRAMPlus + "\x00" + offer
	}
	body, err := t.ask(authSASL, []byte(offer))
	if err != nil {
		return nil, err
	}
	m, refused := parseSASLInitial(body)
	if refused != nil {
		return nil, refused
	}
	x.plus = m.mechanism == mechanismSCRAMPlus && x.hash != nil
	if m.mechanism != mechanismSCRAM && !x.plus {
		return nil, wire.Fatal("08P01", "client selected an invalid SASL authentication mechanism")
	}
	if m.data != nil {
		return m.data, nil
	}
	// The initial response is optional (RFC 4422): an empty challenge asks for it.
	return t.ask(authSASLContinue, nil)
}

// ask sends an Authentication message and returns the body of the answer.
func (t *attempt) ask(code uint32, data []byte) ([]byte, error) {
	if err := t.c.Send(appendAuthentication(nil, code, data)); err != nil {
		return nil, err
	}
	return t.c.ReadPassword(maxTokenBytes)
}

// askPassword is ask for an answer that is a PasswordMessage.
func (t *attempt) askPassword(code uint32, data []byte) (string, error) {
	body, err := t.ask(code, data)
	if err != nil {
		return "", err
	}
	password, refused := parsePassword(body)
	if refused != nil {
		return "", refused
	}
	return password, nil
}

// parsePassword reads the body of a PasswordMessage: one string that fills it.
func parsePassword(body []byte) (string, *wire.Error) {
	if len(body) == 0 || bytes.IndexByte(body, 0) != len(body)-1 {
		return "", wire.Fatal("08P01", "invalid password packet size")
	}
	if len(body) == 1 {
		return "", wire.Fatal("28P01", "empty password returned by client")
	}
	return string(body[:len(body)-1]), nil
}

// md5 runs the md5 challenge; an account without a hash cannot pass it.
func (t *attempt) md5(acct *account) error {
	doomed, stored := acct.unusable(t.a.now()), acct.md5Hash()
	if stored == "" {
		stored = t.a.mocks.account(t.user).md5Hash()
	}
	salt := make([]byte, 4)
	rand.Read(salt) // never fails: crypto/rand ends the process instead
	answer, err := t.askPassword(authMD5, salt)
	if err != nil {
		return err
	}
	right := subtle.ConstantTimeCompare([]byte(answer), []byte(md5Response(stored, salt))) == 1
	if !right || doomed != nil {
		return t.failed(whyFailed(right, doomed))
	}
	return t.c.Send(appendAuthentication(nil, authOK))
}

// cleartext takes the password itself. Whatever is stored, one hash is
// computed, so that the time says nothing about the user.
func (t *attempt) cleartext(ctx context.Context, acct *account) (none config.Secret, err error) {
	keys, doomed, err := t.keysOf(ctx, acct)
	if err != nil {
		return none, err
	}
	password, err := t.askPassword(authCleartext, nil)
	if err != nil {
		return none, err
	}
	right, err := t.p.deriver.check(ctx, keys, password)
	if err != nil {
		return none, err
	}
	if acct.md5 != "" {
		right = subtle.ConstantTimeCompare([]byte(hashMD5(password, acct.Name)), []byte(acct.md5)) == 1
		doomed = acct.unusable(t.a.now())
	}
	if !right || doomed != nil {
		return none, t.failed(whyFailed(right, doomed))
	}
	return config.NewSecret(password), t.c.Send(appendAuthentication(nil, authOK))
}

package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/netip"

	"shardproxy/config"
	"shardproxy/wire"
)

// Given is a login by a name and a password that came together and in the
// clear, as HTTP's Basic has them.
type Given struct {
	User, Password string
	// Database is the one whose rules decide.
	Database string
	// Addr is the client's address, TLS its encryption; nil when there is none.
	Addr netip.AddrPort
	TLS  *tls.ConnectionState
}

// CheckPassword is Authenticate for who has sent name and password already. The
// first fitting rule decides whether such a user may come from there; a password
// is asked for under trust too, and where the rule wants a certificate nobody
// gets in. Passwords, the time that checking takes, the limits of failed logins
// and the errors are those of Authenticate. Whether a password may cross this
// network in the clear the caller decides. It may be called again.
func (a *Authenticator) CheckPassword(ctx context.Context, g Given) (Identity, error) {
	start := a.now()
	id, err := a.checkPassword(ctx, g)
	a.metrics.attempts.WithLabelValues(string(config.MethodPassword), resultOf(err)).Inc()
	a.metrics.duration.WithLabelValues(string(config.MethodPassword)).Observe(a.now().Sub(start).Seconds())
	if err != nil {
		return Identity{}, a.clientError(ctx, err)
	}
	return id, nil
}

func (a *Authenticator) checkPassword(ctx context.Context, g Given) (Identity, error) {
	p := a.policy.Load()
	t := &attempt{
		a: a, p: p, c: said(g.Password), tls: g.TLS, database: g.Database, user: g.User,
		addr: plainAddr(g.Addr), method: config.MethodPassword,
	}
	rule := match(p.rules, t.origin())
	switch {
	case g.User == "":
		return Identity{}, wire.Fatal("28000", "no user name was given")
	case rule == nil:
		return Identity{}, t.refusal("no pg_hba.conf entry")
	case rule.Method == config.MethodReject:
		return Identity{}, t.refusal("pg_hba.conf rejects connection")
	case rule.Method == config.MethodCert:
		return Identity{}, wire.Fatal("28000", "connection requires a valid client certificate")
	}
	return t.prove(ctx)
}

// said is the conversation of a client that has said its password.
type said string

// Send implements Conversation: nobody listens.
func (said) Send([]byte) error { return nil }

// ReadPassword implements Conversation.
func (s said) ReadPassword(maxBytes int) ([]byte, error) {
	if len(s)+1 > maxBytes {
		return nil, wire.Fatal("08P01", "the password is longer than %d bytes", maxBytes-1)
	}
	return append([]byte(s), 0), nil
}

// TLS implements Conversation.
func (said) TLS() *tls.ConnectionState { return nil }

// ServerCertificate implements Conversation.
func (said) ServerCertificate() *x509.Certificate { return nil }

// RemoteAddr implements Conversation.
func (said) RemoteAddr() netip.AddrPort { return netip.AddrPort{} }

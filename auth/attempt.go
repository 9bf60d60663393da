package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"shardproxy/config"
	"shardproxy/wire"
)

// attempt is one client's try to log in, under one policy and one rule.
type attempt struct {
	a              *Authenticator
	p              *policy
	c              Conversation
	tls            *tls.ConnectionState
	addr           netip.Addr
	user, database string
	method         config.Method
}

func (t *attempt) origin() origin {
	return origin{database: t.database, user: t.user, addr: t.addr, encrypted: t.tls != nil}
}

// refusal is PostgreSQL's message for a client that no rule lets in. Tools
// look for its words, so they are kept though the rules stand elsewhere.
func (t *attempt) refusal(what string) *wire.Error {
	host, encryption := "[local]", "no encryption"
	if t.addr.IsValid() {
		host = t.addr.String()
	}
	if t.tls != nil {
		encryption = "SSL encryption"
	}
	return wire.Fatal("28000", "%s for host \"%s\", user \"%s\", database \"%s\", %s",
		what, host, t.user, t.database, encryption).
		WithHint("The rules are those of the proxy's configuration, not of a server's pg_hba.conf.")
}

// failed is the one answer to every wrong password; reason stays in the log.
func (t *attempt) failed(reason error) *wire.Error {
	return wire.Fatal("28P01", "password authentication failed for user \"%s\"", t.user).WithCause(reason)
}

func (t *attempt) run(ctx context.Context) (Identity, error) {
	switch t.method {
	case config.MethodTrust:
		return t.admit(ctx)
	case config.MethodCert:
		return t.certificate(ctx)
	case config.MethodSCRAM, config.MethodMD5, config.MethodPassword:
		return t.password(ctx)
	}
	return Identity{}, t.refusal("pg_hba.conf rejects connection")
}

// account returns the user's account, nil when nobody has the name.
func (t *attempt) account(ctx context.Context) (*account, error) {
	if acct := t.p.users[t.user]; acct != nil {
		return acct, nil
	}
	database, ok := t.p.lookupDatabase(t.database)
	if !ok {
		return nil, nil
	}
	acct, err := t.p.lookups.find(ctx, lookupKey{database, t.user})
	if err != nil && ctx.Err() == nil {
		err = wire.Fatal("57P03", "user \"%s\" cannot be looked up now", t.user).WithCause(err)
	}
	return acct, err
}

// admit lets a client in who needs to prove nothing more, if the user exists.
func (t *attempt) admit(ctx context.Context) (Identity, error) {
	acct, err := t.account(ctx)
	if err != nil {
		return Identity{}, err
	}
	if acct == nil {
		return Identity{}, wire.Fatal("28000", "role \"%s\" does not exist", t.user)
	}
	if err := t.c.Send(appendAuthentication(nil, authOK)); err != nil {
		return Identity{}, err
	}
	return t.p.identity(acct, t.database, t.method, config.Secret{}), nil
}

func (t *attempt) certificate(ctx context.Context) (Identity, error) {
	if t.tls == nil || len(t.tls.VerifiedChains) == 0 || len(t.tls.PeerCertificates) == 0 {
		return Identity{}, wire.Fatal("28000", "connection requires a valid client certificate")
	}
	names, err := certificateNames(t.tls.PeerCertificates[0])
	if err == nil {
		err = t.certificateFits(names)
	}
	if err != nil {
		return Identity{}, wire.Fatal("28000", "certificate authentication failed for user \"%s\"", t.user).WithCause(err)
	}
	return t.admit(ctx)
}

// subject is what a client certificate calls its owner.
type subject struct {
	common string
	alt    []string
}

// certificateFits reports an error when the certificate is not the user's. The
// common name may be any of the user's certificate names. A subject alternative
// name only counts where it was listed and is not the user's own name, which is
// on the list by default: a host's certificate must not open the account of a
// user that is called like the host.
func (t *attempt) certificateFits(s subject) error {
	allowed := []string{t.user}
	if acct := t.p.users[t.user]; acct != nil && len(acct.CertificateNames) > 0 {
		allowed = acct.CertificateNames
	}
	if s.common != "" && slices.Contains(allowed, s.common) {
		return nil
	}
	for _, name := range s.alt {
		if name != "" && name != t.user && slices.Contains(allowed, name) {
			return nil
		}
	}
	return fmt.Errorf("the certificate names %q and %q", s.common, s.alt)
}

// certificateNames reads the names of a verified client certificate. More than
// one common name, or a NUL in a name, is refused: readers disagree on which
// part counts.
func certificateNames(cert *x509.Certificate) (subject, error) {
	commonName := asn1.ObjectIdentifier{2, 5, 4, 3}
	s := subject{common: cert.Subject.CommonName}
	count := 0
	for _, n := range cert.Subject.Names {
		if n.Type.Equal(commonName) {
			count++
		}
	}
	if count > 1 {
		return subject{}, errors.New("the certificate has several common names")
	}
	s.alt = append(append(s.alt, cert.DNSNames...), cert.EmailAddresses...)
	for _, u := range cert.URIs {
		s.alt = append(s.alt, u.String())
	}
	if strings.ContainsRune(s.common+strings.Join(s.alt, ""), 0) {
		return subject{}, errors.New("a name in the certificate contains a NUL")
	}
	return s, nil
}

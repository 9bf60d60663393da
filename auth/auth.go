package auth

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/config"
	"shardproxy/wire"
)

// Conversation is one client after its StartupMessage. Its calls block; an
// error of them ends the exchange.
type Conversation interface {
	// Send sends whole backend frames at once.
	Send(frames []byte) error
	// ReadPassword returns the body of the next message, which must be of type
	// 'p' and no longer than maxBytes; anything else is a *wire.Error with
	// 08P01. The body is valid until the next call.
	ReadPassword(maxBytes int) ([]byte, error)
	// TLS returns the state of the encrypted connection, nil when it is not.
	TLS() *tls.ConnectionState
	// ServerCertificate returns the certificate that this connection's
	// handshake has shown to the client (tls.ConnectionState does not tell),
	// nil when it is not known: SCRAM-SHA-256-PLUS is not offered then.
	ServerCertificate() *x509.Certificate
	// RemoteAddr returns the client's address, invalid for a Unix-domain socket.
	RemoteAddr() netip.AddrPort
}

// Identity is what a client has been found to be.
type Identity struct {
	// User is the name the client has proven.
	User string
	// ServerUser is its name on the servers.
	ServerUser string
	// ServerPassword is the password of ServerUser; empty when the proxy does
	// not know it, as with a SCRAM verifier.
	ServerPassword config.Secret
	// Admin may do everything on the console, Monitor may look; Admin implies Monitor.
	Admin, Monitor bool
	// Method is the rule's method that let the client in.
	Method config.Method
}

// Options configures an Authenticator. Only Config is needed.
type Options struct {
	// Config gives rules, users, auth_query, throttle and the databases' server
	// logins. It is not changed, and must not be by the caller.
	Config *config.Config
	// Querier runs auth_query; needed when Config.Auth.AuthQuery is set, or may
	// be after a reload.
	Querier Querier
	// Secret keys the salts that clients are shown for plain passwords and
	// unknown names. Proxies that serve the same users should share it, else
	// asking two of them tells which names have a verifier. Default: random.
	Secret config.Secret
	// Registerer takes the metrics; nil keeps them unseen.
	Registerer prometheus.Registerer
	// Clock tells the time; default time.Now.
	Clock func() time.Time
}

// Authenticator decides who clients are. It starts no goroutine and needs no
// closing.
type Authenticator struct {
	policy   atomic.Pointer[policy]
	querier  Querier
	mocks    *mocks
	throttle *throttle
	metrics  *metrics
	now      func() time.Time
}

// New checks the options and returns an Authenticator that is ready to use.
func New(o Options) (*Authenticator, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	secret := []byte(o.Secret.Reveal())
	if len(secret) == 0 {
		secret = make([]byte, 32)
		rand.Read(secret) // never fails: crypto/rand ends the process instead
	}
	a := &Authenticator{querier: o.Querier, metrics: newMetrics(), now: o.Clock}
	var err error
	if a.mocks, err = newMocks(secret); err != nil {
		return nil, err
	}
	if a.throttle, err = newThrottle(o.Clock); err != nil {
		return nil, err
	}
	if err := a.Update(o.Config); err != nil {
		return nil, err
	}
	if o.Registerer != nil {
		err = a.metrics.register(o.Registerer, a)
	}
	return a, err
}

// Prepare checks a new configuration and returns the function that puts it in
// force. All problems are in the error; nothing has changed then. Attempts
// that have begun end under the old one; answers of auth_query are
// forgotten by the commit. Commits must not run at the same time.
func (a *Authenticator) Prepare(c *config.Config) (commit func(), err error) {
	p, err := a.newPolicy(c)
	if err != nil {
		return nil, fmt.Errorf("authentication: %w", err)
	}
	return func() {
		a.policy.Store(p)
		a.throttle.configure(c.Auth.Throttle)
	}, nil
}

// Update is Prepare and, when that succeeds, its commit.
func (a *Authenticator) Update(c *config.Config) error {
	commit, err := a.Prepare(c)
	if err == nil {
		commit()
	}
	return err
}

// Authenticate runs the exchange that the first fitting rule demands. On
// success AuthenticationOk has been sent and nothing behind it. Every error is
// a *wire.Error of severity FATAL that has not been sent yet; what an operator
// should know and the client must not is its Cause.
//
// A client that goes away gives 08006, one that is too slow 57014 (ctx's
// deadline or the connection's). ctx bounds waiting for a slot to hash
// in, for auth_query and for the delay after failures; it does not interrupt
// the Conversation, whose deadlines are the caller's.
func (a *Authenticator) Authenticate(ctx context.Context, c Conversation, user, database string) (Identity, error) {
	start := a.now()
	id, method, err := a.authenticate(ctx, c, user, database)
	result := resultOf(err)
	a.metrics.attempts.WithLabelValues(string(method), result).Inc()
	a.metrics.duration.WithLabelValues(string(method)).Observe(a.now().Sub(start).Seconds())
	if err != nil {
		return Identity{}, err
	}
	return id, nil
}

// authenticate also returns the method, "none" when no rule fits.
func (a *Authenticator) authenticate(ctx context.Context, c Conversation, user, database string) (Identity, config.Method, error) {
	if user == "" {
		return Identity{}, "none", wire.Fatal("28000", "no PostgreSQL user name specified in startup packet")
	}
	p := a.policy.Load()
	t := &attempt{
		a: a, p: p, c: c, tls: c.TLS(), database: database, user: user,
		addr: plainAddr(c.RemoteAddr()),
	}
	rule := match(p.rules, t.origin())
	if rule == nil {
		return Identity{}, "none", t.refusal("no pg_hba.conf entry")
	}
	t.method = rule.Method
	id, err := t.run(ctx)
	if err != nil {
		return Identity{}, rule.Method, a.clientError(ctx, err)
	}
	return id, rule.Method, nil
}

// clientError turns what ended an exchange into what the client is told.
func (a *Authenticator) clientError(ctx context.Context, err error) *wire.Error {
	var we *wire.Error
	switch {
	case errors.As(err, &we):
		return we
	case errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded):
		return wire.Fatal("57014", "canceling authentication due to timeout").WithCause(err)
	case ctx.Err() != nil:
		return wire.Fatal("57P01", "terminating connection due to administrator command").WithCause(err)
	}
	return wire.Fatal("08006", "connection to client lost").WithCause(err)
}

package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/config"
)

// alpnProtocol is PostgreSQL's name in TLS's protocol negotiation. A client
// that begins with TLS must offer it; others may.
const alpnProtocol = "postgresql"

// CertificateOptions configures Certificates.
type CertificateOptions struct {
	// TLS names the files and the oldest version.
	TLS config.ServerTLS
	// Interval is how often the files are looked at; default 10 s.
	Interval time.Duration
	// Logger is told of new certificates and of files that cannot be used.
	Logger *slog.Logger
	// Registerer takes the metrics; nil keeps them unseen.
	Registerer prometheus.Registerer
}

// Certificates is the listener's side of TLS: the certificate it shows, the
// authorities of client certificates, the oldest version. The files are read
// again when they change; while they cannot be used the old ones stay in force.
//
// New reads the files, Open watches them, Close stops that.
type Certificates struct {
	interval time.Duration
	log      *slog.Logger
	current  atomic.Pointer[ServerTLS]
	reloads  *prometheus.CounterVec

	mu     sync.Mutex // one reload at a time
	wanted config.ServerTLS
	tried  []fileStamp // of the files at the last attempt to read them

	stop context.CancelFunc
	done chan struct{}
}

// ServerTLS is the TLS side of one listener at one moment; it is immutable.
type ServerTLS struct {
	// Config is for tls.Server. Its handshake always shows Certificate: there
	// is one certificate and no session resumption.
	Config *tls.Config
	// Certificate is what Config's handshakes show, for
	// Conversation.ServerCertificate.
	Certificate *x509.Certificate
	// ClientCertificates says that client certificates are asked for.
	ClientCertificates bool
}

// NewCertificates reads the files and returns Certificates that can be used;
// the error names the file.
func NewCertificates(o CertificateOptions) (*Certificates, error) {
	if o.Interval <= 0 {
		o.Interval = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Certificates{
		interval: o.Interval, log: o.Logger,
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "shardproxy_tls_certificate_reloads_total",
			Help: "Times the listener's TLS files were read again, by result (ok, error).",
		}, []string{"result"}),
	}
	if err := c.Update(o.TLS); err != nil {
		return nil, err
	}
	c.reloads.Reset() // the first time is no reload
	if o.Registerer == nil {
		return c, nil
	}
	expiry := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "shardproxy_tls_certificate_expiry_timestamp_seconds",
		Help: "When the listener's certificate expires, in seconds since 1970.",
	}, func() float64 { return float64(c.Current().Certificate.NotAfter.Unix()) })
	for _, result := range []string{"ok", "error"} {
		c.reloads.WithLabelValues(result) // there from the start, at 0
	}
	if err := errors.Join(o.Registerer.Register(c.reloads), o.Registerer.Register(expiry)); err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	return c, nil
}

// Current returns what the next handshake should use.
func (c *Certificates) Current() *ServerTLS { return c.current.Load() }

// Config returns a configuration that follows the files, for listeners that
// need no channel binding.
func (c *Certificates) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, // replaced by that of the real one
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return c.Current().Config, nil
		},
	}
}

// Prepare reads the files of a new configuration and returns the function that
// puts them in force; on an error nothing has changed.
func (c *Certificates) Prepare(t config.ServerTLS) (commit func(), err error) {
	stamps := stampFiles(t) // before reading: a change in between is seen later
	next, err := readServerTLS(t)
	if err != nil {
		c.reloads.WithLabelValues("error").Inc()
		return nil, err
	}
	return func() {
		c.reloads.WithLabelValues("ok").Inc()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.publishLocked(t, stamps, next)
	}, nil
}

func (c *Certificates) publishLocked(t config.ServerTLS, stamps []fileStamp, next *ServerTLS) {
	c.wanted, c.tried = t, stamps
	old := c.current.Swap(next)
	if old != nil && !old.Certificate.Equal(next.Certificate) {
		c.log.Info("new TLS certificate in force", "file", t.Certificate, "expires", next.Certificate.NotAfter)
	}
}

// Update is Prepare and, when that succeeds, its commit.
func (c *Certificates) Update(t config.ServerTLS) error {
	commit, err := c.Prepare(t)
	if err == nil {
		commit()
	}
	return err
}

// Reload reads the files again, changed or not.
func (c *Certificates) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reloadLocked(stampFiles(c.wanted))
}

// ReloadIfChanged reads the files again when one of them is not the same as at
// the last attempt. changed says that it did, whether or not they could be used.
func (c *Certificates) ReloadIfChanged() (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamps := stampFiles(c.wanted)
	if sameFiles(stamps, c.tried) {
		return false, nil
	}
	return true, c.reloadLocked(stamps)
}

func (c *Certificates) reloadLocked(stamps []fileStamp) error {
	c.tried = stamps
	next, err := readServerTLS(c.wanted)
	if err != nil {
		c.reloads.WithLabelValues("error").Inc()
		return err
	}
	c.reloads.WithLabelValues("ok").Inc()
	c.publishLocked(c.wanted, stamps, next)
	return nil
}

// Open watches the files until ctx ends or Close is called. It is called once.
func (c *Certificates) Open(ctx context.Context) error {
	ctx, c.stop = context.WithCancel(ctx)
	c.done = make(chan struct{})
	go c.watch(ctx)
	return nil
}

func (c *Certificates) watch(ctx context.Context) {
	defer close(c.done)
	ticker := time.NewTicker(c.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if _, err := c.ReloadIfChanged(); err != nil {
				// Half of a new pair is often there first: the next look finds both.
				c.log.Warn("TLS files changed and cannot be used; the old ones stay in force", "error", err)
			}
		}
	}
}

// Close stops watching and waits for that. It is idempotent.
func (c *Certificates) Close() error {
	if c.stop != nil {
		c.stop()
		<-c.done
	}
	return nil
}

// fileStamp tells one version of a file from the next.
type fileStamp struct {
	info os.FileInfo // nil when it is not there
}

// stampFiles looks at the files behind the names: where a name is a symbolic
// link, as in a mounted secret, its target counts.
func stampFiles(t config.ServerTLS) (stamps []fileStamp) {
	for _, name := range []string{t.Certificate, t.Key, t.ClientCA} {
		info, err := os.Stat(name)
		if err != nil {
			info = nil
		}
		stamps = append(stamps, fileStamp{info})
	}
	return stamps
}

func sameFiles(a, b []fileStamp) bool {
	for i := range a {
		x, y := a[i].info, b[i].info
		if x == nil || y == nil {
			if x != y {
				return false
			}
			continue
		}
		if !os.SameFile(x, y) || !x.ModTime().Equal(y.ModTime()) || x.Size() != y.Size() {
			return false
		}
	}
	return true
}

// readServerTLS reads the files into a configuration.
func readServerTLS(t config.ServerTLS) (*ServerTLS, error) {
	pair, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate %s with key %s: %w", t.Certificate, t.Key, err)
	}
	cfg := &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{alpnProtocol},
		// A resumed handshake shows no certificate, and binds to the one of an
		// earlier connection. PostgreSQL turns resumption off, too.
		SessionTicketsDisabled: true,
	}
	if t.MinVersion == "1.3" {
		cfg.MinVersion = tls.VersionTLS13
	}
	if t.ClientCA != "" {
		pem, err := os.ReadFile(t.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("authorities of client certificates: %w", err)
		}
		cfg.ClientCAs = x509.NewCertPool()
		if !cfg.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("authorities of client certificates: %s holds no certificate in PEM", t.ClientCA)
		}
		// Who shows a certificate must show a good one; who shows none may
		// still log in by a password.
		cfg.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return &ServerTLS{Config: cfg, Certificate: pair.Leaf, ClientCertificates: t.ClientCA != ""}, nil
}

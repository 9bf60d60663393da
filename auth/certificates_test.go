package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"shardproxy/config"
)

// certFiles are the files of a listener in a folder of the test.
type certFiles struct {
	t    *testing.T
	dir  string
	tls  config.ServerTLS
	last time.Time
}

func newCertFiles(t *testing.T) (*certFiles, testCert) {
	t.Helper()
	f := &certFiles{t: t, dir: t.TempDir(), last: time.Unix(1_700_000_000, 0)}
	cert := newTestCert(t, ecdsaKey(t, 256), 0)
	f.tls.Certificate, f.tls.Key = cert.write(t, f.dir)
	f.touch()
	return f, cert
}

// touch gives the files a new time, which a file system of coarse times would
// not do by itself.
func (f *certFiles) touch() {
	f.t.Helper()
	f.last = f.last.Add(time.Second)
	for _, name := range []string{f.tls.Certificate, f.tls.Key, f.tls.ClientCA} {
		if name == "" {
			continue
		}
		if err := os.Chtimes(name, f.last, f.last); err != nil && !os.IsNotExist(err) {
			f.t.Fatal(err)
		}
	}
}

func newCertificates(t *testing.T, o CertificateOptions) *Certificates {
	t.Helper()
	c, err := NewCertificates(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// handshake connects with the client's configuration and returns what the
// server showed.
func handshake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	a, b := net.Pipe()
	defer func() { _, _ = a.Close(), b.Close() }()
	done := make(chan error, 1)
	go func() { done <- tls.Server(a, server).Handshake() }()
	client = client.Clone()
	client.InsecureSkipVerify = true
	c := tls.Client(b, client)
	err := c.Handshake()
	_ = b.Close()
	if serverErr := <-done; err == nil {
		err = serverErr
	}
	return c.ConnectionState(), err
}

func shown(t *testing.T, server *tls.Config) *x509.Certificate {
	t.Helper()
	state, err := handshake(t, server, &tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return state.PeerCertificates[0]
}

func TestCertificatesReload(t *testing.T) {
	f, first := newCertFiles(t)
	r := prometheus.NewRegistry()
	c := newCertificates(t, CertificateOptions{TLS: f.tls, Registerer: r})
	following := c.Config()
	if !shown(t, following).Equal(first.leaf) || !c.Current().Certificate.Equal(first.leaf) {
		t.Error("another certificate is shown than was written")
	}
	if changed, err := c.ReloadIfChanged(); changed || err != nil {
		t.Errorf("nothing changed: %t, %v", changed, err)
	}
	old := c.Current()

	second := newTestCert(t, ecdsaKey(t, 256), 0)
	writeFile(t, f.tls.Certificate, second.certPEM()) // the key is still the old one
	f.touch()
	if changed, err := c.ReloadIfChanged(); !changed || err == nil || !strings.Contains(err.Error(), f.tls.Certificate) {
		t.Errorf("half a pair: %t, %v", changed, err)
	}
	if c.Current() != old {
		t.Error("a broken pair is in force")
	}
	if changed, err := c.ReloadIfChanged(); changed || err != nil {
		t.Errorf("the same broken pair again: %t, %v", changed, err)
	}
	if err := c.Reload(); err == nil {
		t.Error("Reload on demand hides the problem")
	}
	writeFile(t, f.tls.Key, second.keyPEM(t))
	f.touch()
	if changed, err := c.ReloadIfChanged(); !changed || err != nil {
		t.Errorf("the whole pair: %t, %v", changed, err)
	}
	if !shown(t, following).Equal(second.leaf) || !c.Current().Certificate.Equal(second.leaf) {
		t.Error("the new certificate is not shown")
	}
	if !shown(t, old.Config).Equal(first.leaf) {
		t.Error("a handshake that began before the reload shows the new certificate")
	}

	if err := os.Remove(f.tls.Key); err != nil {
		t.Fatal(err)
	}
	if changed, err := c.ReloadIfChanged(); !changed || err == nil {
		t.Errorf("a file is gone: %t, %v", changed, err)
	}
	if !shown(t, following).Equal(second.leaf) {
		t.Error("the listener lost its certificate")
	}
	want := `
# HELP shardproxy_tls_certificate_reloads_total Times the listener's TLS files were read again, by result (ok, error).
# TYPE shardproxy_tls_certificate_reloads_total counter
shardproxy_tls_certificate_reloads_total{result="error"} 3
shardproxy_tls_certificate_reloads_total{result="ok"} 1
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), "shardproxy_tls_certificate_reloads_total"); err != nil {
		t.Error(err)
	}
	expiry, err := testutil.GatherAndCount(r, "shardproxy_tls_certificate_expiry_timestamp_seconds")
	if err != nil || expiry != 1 {
		t.Errorf("%d, %v", expiry, err)
	}
}

// TestCertificatesSymlink: a mounted secret is changed by pointing a link elsewhere.
func TestCertificatesSymlink(t *testing.T) {
	f, _ := newCertFiles(t)
	second := newTestCert(t, ecdsaKey(t, 256), 0)
	other := filepath.Join(f.dir, "second")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	second.write(t, other)
	for _, name := range []string{"server.crt", "server.key"} { // the same times and sizes
		if err := os.Chtimes(filepath.Join(other, name), f.last, f.last); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(f.dir, "data")
	if err := os.Symlink(f.dir, link); err != nil {
		t.Fatal(err)
	}
	c := newCertificates(t, CertificateOptions{TLS: config.ServerTLS{
		Certificate: filepath.Join(link, "server.crt"), Key: filepath.Join(link, "server.key"),
	}})
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(other, link); err != nil {
		t.Fatal(err)
	}
	if changed, err := c.ReloadIfChanged(); !changed || err != nil || !c.Current().Certificate.Equal(second.leaf) {
		t.Errorf("%t, %v", changed, err)
	}
}

func TestCertificatesUpdate(t *testing.T) {
	f, first := newCertFiles(t)
	c := newCertificates(t, CertificateOptions{TLS: f.tls})
	bad := f.tls
	bad.ClientCA = filepath.Join(f.dir, "nothing")
	if err := c.Update(bad); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("a missing authority: %v", err)
	}
	bad.ClientCA = f.tls.Key
	if err := c.Update(bad); err == nil || !strings.Contains(err.Error(), "no certificate in PEM") {
		t.Errorf("a key for an authority: %v", err)
	}
	if changed, err := c.ReloadIfChanged(); changed || err != nil || c.Current().ClientCertificates {
		t.Errorf("a refused update left something behind: %t, %v", changed, err)
	}
	good := f.tls
	good.ClientCA, good.MinVersion = filepath.Join(f.dir, "ca.crt"), "1.3"
	writeFile(t, good.ClientCA, first.certPEM())
	commit, err := c.Prepare(good)
	if err != nil || c.Current().ClientCertificates {
		t.Fatalf("Prepare changed something, or %v", err)
	}
	commit()
	if !c.Current().ClientCertificates || c.Current().Config.MinVersion != tls.VersionTLS13 {
		t.Error("the update is not in force")
	}
	other := newTestCert(t, ecdsaKey(t, 256), 0)
	writeFile(t, good.ClientCA, other.certPEM())
	f.tls = config.ServerTLS{ClientCA: good.ClientCA} // only its time changes
	f.touch()
	if changed, err := c.ReloadIfChanged(); !changed || err != nil || c.Current().Config.ClientCAs.Equal(poolOf(first)) {
		t.Errorf("a changed authority was not seen: %t, %v", changed, err)
	}
}

func poolOf(c testCert) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.leaf)
	return pool
}

func TestCertificatesHandshake(t *testing.T) {
	f, _ := newCertFiles(t)
	old := newCertificates(t, CertificateOptions{TLS: f.tls})
	f.tls.MinVersion = "1.3"
	strict := newCertificates(t, CertificateOptions{TLS: f.tls})
	for _, c := range []struct {
		name   string
		certs  *Certificates
		client *tls.Config
		ok     bool
	}{
		{"1.1", old, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
		{"1.2", old, &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		{"1.3", old, &tls.Config{}, true},
		{"1.2 where 1.3 is wanted", strict, &tls.Config{MaxVersion: tls.VersionTLS12}, false},
		{"1.3 where 1.3 is wanted", strict, &tls.Config{}, true},
		{"postgresql", old, &tls.Config{NextProtos: []string{"postgresql"}}, true},
		{"another protocol", old, &tls.Config{NextProtos: []string{"h2", "http/1.1"}}, false},
	} {
		state, err := handshake(t, c.certs.Config(), c.client)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil && len(c.client.NextProtos) > 0 && state.NegotiatedProtocol != "postgresql" {
			t.Errorf("%s: negotiated %q", c.name, state.NegotiatedProtocol)
		}
	}
}

// TestNoResumption: a resumed handshake would bind to another connection's
// certificate.
func TestNoResumption(t *testing.T) {
	f, _ := newCertFiles(t)
	certs := newCertificates(t, CertificateOptions{TLS: f.tls})
	client := &tls.Config{ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(8), MaxVersion: tls.VersionTLS12}
	for range 2 {
		state, err := handshake(t, certs.Current().Config, client)
		if err != nil || state.DidResume {
			t.Errorf("resumed %t, %v", state.DidResume, err)
		}
	}
}

func TestCertificatesRefuses(t *testing.T) {
	f, _ := newCertFiles(t)
	other := filepath.Join(f.dir, "other.key")
	writeFile(t, other, newTestCert(t, ecdsaKey(t, 256), 0).keyPEM(t))
	for name, bad := range map[string]config.ServerTLS{
		"no file":      {Certificate: filepath.Join(f.dir, "none"), Key: f.tls.Key},
		"no key":       {Certificate: f.tls.Certificate, Key: filepath.Join(f.dir, "none")},
		"swapped":      {Certificate: f.tls.Key, Key: f.tls.Certificate},
		"another's":    {Certificate: f.tls.Certificate, Key: other},
		"no authority": {Certificate: f.tls.Certificate, Key: f.tls.Key, ClientCA: filepath.Join(f.dir, "none")},
		"nothing":      {},
	} {
		if _, err := NewCertificates(CertificateOptions{TLS: bad}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestCertificatesWatch(t *testing.T) {
	f, _ := newCertFiles(t)
	second := newTestCert(t, ecdsaKey(t, 256), 0)
	synctest.Test(t, func(t *testing.T) {
		c := newCertificates(t, CertificateOptions{TLS: f.tls, Interval: time.Minute})
		if err := c.Close(); err != nil {
			t.Error(err) // never opened
		}
		if err := c.Open(context.Background()); err != nil {
			t.Fatal(err)
		}
		second.write(t, f.dir)
		f.touch()
		time.Sleep(time.Minute - time.Nanosecond)
		synctest.Wait()
		if c.Current().Certificate.Equal(second.leaf) {
			t.Error("looked before its time")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if !c.Current().Certificate.Equal(second.leaf) {
			t.Error("the new certificate was not found")
		}
		for range 2 {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		ctx, cancel := context.WithCancel(context.Background())
		again := newCertificates(t, CertificateOptions{TLS: f.tls})
		if err := again.Open(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait() // its goroutine ends with the context
		_ = again.Close()
	})
}

package auth

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/config"
)

// realClient is a client program or library; connect returns its error.
type realClient struct {
	name    string
	connect func(t *testing.T, keywords map[string]string) error
}

// realClients are pgconn and libpq (psql).
func realClients() []realClient {
	return []realClient{{"pgconn", connectPgconn}, {"psql", connectPsql}}
}

func dsn(keywords map[string]string) string {
	var b strings.Builder
	for k, v := range keywords {
		fmt.Fprintf(&b, "%s='%s' ", k, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v))
	}
	return b.String()
}

func connectPgconn(t *testing.T, keywords map[string]string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgconn.Connect(ctx, dsn(keywords))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

func connectPsql(t *testing.T, keywords map[string]string) error {
	t.Helper()
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Fatalf("psql is needed: %v", err)
	}
	cmd := exec.Command(psql, "-X", "-w", "-c", "SELECT", dsn(keywords))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LC_ALL=C.UTF-8", "PGCONNECT_TIMEOUT=20"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// address returns the keywords that lead to the listener.
func (s *testListener) address(extra ...string) map[string]string {
	host, port, _ := strings.Cut(s.addr, ":")
	m := map[string]string{"host": host, "port": port, "dbname": "shop", "sslmode": "disable"}
	for i := 0; i < len(extra); i += 2 {
		m[extra[i]] = extra[i+1]
	}
	return m
}

// wantRefused checks that both sides saw the failure: the client the message,
// the server the code and the cause.
func wantRefused(t *testing.T, s *testListener, client error, message, code string, cause error) {
	t.Helper()
	if client == nil || !strings.Contains(client.Error(), message) {
		t.Errorf("the client got %v, want %s", client, message)
	}
	var pgErr *pgconn.PgError
	if errors.As(client, &pgErr) && pgErr.Code != code {
		t.Errorf("the client got code %s, want %s", pgErr.Code, code)
	}
	if _, err := s.result(); err == nil || !strings.Contains(err.Error(), code) || cause != nil && !errors.Is(err, cause) {
		t.Errorf("the server found %v, want %s with %v", err, code, cause)
	}
}

func TestRealClientsPasswords(t *testing.T) {
	users := []config.User{
		plain("plain", "sécret\u00a0pass"),
		verified("scram", HashPassword("sécret\u00a0pass")),
		verified("md5", hashMD5("sécret\u00a0pass", "md5")),
	}
	for _, method := range []config.Method{config.MethodSCRAM, config.MethodMD5, config.MethodPassword} {
		cfg := settings(method, users...)
		cfg.Auth.AllowCleartext, cfg.Auth.Throttle.Delay = true, 0
		s := listen(t, mustNew(t, Options{Config: cfg}), nil, "")
		for _, c := range realClients() {
			for _, u := range users {
				if method == config.MethodSCRAM && u.Name == "md5" {
					continue
				}
				t.Run(c.name+"/"+string(method)+"/"+u.Name, func(t *testing.T) {
					if err := c.connect(t, s.address("user", u.Name, "password", "sécret\u00a0pass")); err != nil {
						t.Fatal(err)
					}
					if id, err := s.result(); err != nil || id.User != u.Name || id.Method != method {
						t.Errorf("%+v, %v", id, err)
					}
					err := c.connect(t, s.address("user", u.Name, "password", "wrong"))
					wantRefused(t, s, err, `password authentication failed for user "`+u.Name+`"`, "28P01", errWrongPassword)
					err = c.connect(t, s.address("user", "ghost", "password", "wrong"))
					wantRefused(t, s, err, `password authentication failed for user "ghost"`, "28P01", errUnknown)
				})
			}
		}
	}
}

// TestRealClientsChannelBinding: over certificates of every kind that has a
// channel binding, channel_binding=require succeeds, so SCRAM-SHA-256-PLUS was
// negotiated with the right hash on both sides.
func TestRealClientsChannelBinding(t *testing.T) {
	rsaKey := rsaKey(t)
	for name, cert := range map[string]testCert{
		"ecdsa-p256":     newTestCert(t, ecdsaKey(t, 256), x509.ECDSAWithSHA256),
		"ecdsa-p384":     newTestCert(t, ecdsaKey(t, 384), x509.ECDSAWithSHA384),
		"rsa-sha512":     newTestCert(t, rsaKey, x509.SHA512WithRSA),
		"rsa-pss-sha384": newTestCert(t, rsaKey, x509.SHA384WithRSAPSS),
	} {
		for _, version := range []string{"1.2", "1.3"} {
			dir := t.TempDir()
			crt, key := cert.write(t, dir)
			certs, err := NewCertificates(CertificateOptions{TLS: config.ServerTLS{Certificate: crt, Key: key, MinVersion: version}})
			if err != nil {
				t.Fatal(err)
			}
			a := mustNew(t, Options{Config: settings(config.MethodSCRAM, plain("app", "secret"))})
			side := *certs.Current()
			side.Config = side.Config.Clone()
			side.Config.MaxVersion = side.Config.MinVersion
			s := listen(t, a, &side, "")
			for _, c := range realClients() {
				t.Run(c.name+"/"+name+"/"+version, func(t *testing.T) {
					for _, binding := range []string{"require", "prefer", "disable"} {
						err := c.connect(t, s.address("user", "app", "password", "secret",
							"sslmode", "verify-full", "sslrootcert", crt, "host", "localhost", "channel_binding", binding))
						if err != nil {
							t.Errorf("channel_binding=%s: %v", binding, err)
						}
					}
				})
			}
		}
	}
}

// TestRealClientsWithoutBinding: a certificate that has no channel binding must
// not stop a client that would like one.
func TestRealClientsWithoutBinding(t *testing.T) {
	cert := newTestCert(t, ecdsaKey(t, 256), 0)
	side := &ServerTLS{Config: &tls.Config{Certificates: []tls.Certificate{cert.tls()}}}
	a := mustNew(t, Options{Config: settings(config.MethodSCRAM, plain("app", "secret"))})
	s := listen(t, a, side, "")
	for _, c := range realClients() {
		if err := c.connect(t, s.address("user", "app", "password", "secret", "sslmode", "require", "channel_binding", "prefer")); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		err := c.connect(t, s.address("user", "app", "password", "secret", "sslmode", "require", "channel_binding", "require"))
		if err == nil || !strings.Contains(err.Error(), "channel binding") {
			t.Errorf("%s did not get the binding that it requires: %v", c.name, err)
		}
	}
}

// TestBindingOfAnotherCertificate: between a client and us somebody shows his own
// certificate; the binding gives him away.
func TestBindingOfAnotherCertificate(t *testing.T) {
	shown := newTestCert(t, ecdsaKey(t, 256), 0)
	ours := newTestCert(t, ecdsaKey(t, 256), 0)
	side := &ServerTLS{Config: &tls.Config{Certificates: []tls.Certificate{shown.tls()}}, Certificate: ours.leaf}
	s := listen(t, mustNew(t, Options{Config: settings(config.MethodSCRAM, plain("app", "secret"))}), side, "")
	for _, c := range realClients() {
		err := c.connect(t, s.address("user", "app", "password", "secret", "sslmode", "require"))
		wantRefused(t, s, err, "SCRAM channel binding check failed", "28000", nil)
	}
}

// clientCert writes a client certificate and returns the keywords for it.
func clientCert(t *testing.T, ca *testCert, edit func(*x509.Certificate)) []string {
	t.Helper()
	dir := t.TempDir()
	crt, key := signTestCert(t, ecdsaKey(t, 256), 0, ca, edit).write(t, dir)
	return []string{"sslmode", "require", "sslcert", crt, "sslkey", key}
}

func TestRealClientsCertificates(t *testing.T) {
	ca := newTestCert(t, ecdsaKey(t, 256), 0, func(c *x509.Certificate) { c.Subject.CommonName = "authority" })
	stranger := newTestCert(t, ecdsaKey(t, 256), 0, func(c *x509.Certificate) { c.Subject.CommonName = "authority" })
	dir := t.TempDir()
	crt, key := newTestCert(t, ecdsaKey(t, 256), 0).write(t, dir)
	caFile := filepath.Join(dir, "ca.crt")
	writeFile(t, caFile, ca.certPEM())
	certs, err := NewCertificates(CertificateOptions{TLS: config.ServerTLS{Certificate: crt, Key: key, ClientCA: caFile}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := settings(config.MethodCert,
		config.User{Name: "app", CertificateNames: []string{"app"}},
		config.User{Name: "svc", CertificateNames: []string{"svc.example.org", "svc@example.org", "spiffe://example/svc", "svc"}})
	s := listen(t, mustNew(t, Options{Config: cfg}), certs.Current(), "")
	named := func(cn string, dns ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.Subject, c.DNSNames = pkix.Name{CommonName: cn}, dns }
	}
	spiffe, _ := url.Parse("spiffe://example/svc")
	failed := "certificate authentication failed"
	for _, c := range []struct {
		name string
		user string
		ca   *testCert // nil: no certificate
		edit func(*x509.Certificate)
		want string // part of the error
	}{
		{"common name", "app", &ca, named("app"), ""},
		{"another's name", "app", &ca, named("svc"), failed},
		{"case", "app", &ca, named("App"), failed},
		{"host called like the user", "app", &ca, named("host", "app"), failed},
		{"no name at all", "app", &ca, named(""), failed},
		{"listed common name", "svc", &ca, named("svc.example.org"), ""},
		{"listed DNS name", "svc", &ca, named("x", "y", "svc.example.org"), ""},
		{"own name as DNS name", "svc", &ca, named("x", "svc"), failed},
		{"listed e-mail", "svc", &ca, func(c *x509.Certificate) { c.EmailAddresses = []string{"svc@example.org"} }, ""},
		{"listed URI", "svc", &ca, func(c *x509.Certificate) { c.URIs = []*url.URL{spiffe} }, ""},
		{"two common names", "app", &ca, func(c *x509.Certificate) {
			cn := pkix.AttributeTypeAndValue{Type: []int{2, 5, 4, 3}, Value: "app"}
			other := pkix.AttributeTypeAndValue{Type: []int{2, 5, 4, 3}, Value: "other"}
			c.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{other, cn}}
		}, failed},
		{"unknown user", "ghost", &ca, named("ghost"), `role "ghost" does not exist`},
		{"no certificate", "app", nil, nil, "connection requires a valid client certificate"},
		{"another authority's", "app", &stranger, named("app"), "unknown c"}, // the handshake fails
		{"expired", "app", &ca, func(c *x509.Certificate) {
			named("app")(c)
			c.NotAfter = time.Now().Add(-time.Minute)
		}, "certificate"},
	} {
		keywords := []string{"sslmode", "require"}
		if c.ca != nil {
			keywords = clientCert(t, c.ca, c.edit)
		}
		for _, client := range realClients() {
			t.Run(client.name+"/"+c.name, func(t *testing.T) {
				err := client.connect(t, s.address(append([]string{"user", c.user}, keywords...)...))
				switch {
				case c.want == "" && err != nil:
					t.Error(err)
				case c.want == "":
					if id, err := s.result(); err != nil || id.User != c.user || id.Method != config.MethodCert {
						t.Errorf("%+v, %v", id, err)
					}
				case err == nil || !strings.Contains(err.Error(), c.want):
					t.Errorf("got %v, want %s", err, c.want)
				}
			})
		}
	}
}

func TestRealClientsUnixSocket(t *testing.T) {
	dir := t.TempDir()
	cfg := settings(config.MethodReject, plain("app", "secret"))
	cfg.Auth.Rules = []config.Rule{
		{Transport: config.TransportUnix, Method: config.MethodPassword},
		{Method: config.MethodReject},
	}
	a := mustNew(t, Options{Config: cfg})
	listen(t, a, nil, filepath.Join(dir, ".s.PGSQL.5432"))
	tcp := listen(t, a, nil, "")
	for _, c := range realClients() {
		over := map[string]string{"host": dir, "port": strconv.Itoa(5432), "user": "app", "dbname": "shop", "password": "secret", "sslmode": "disable"}
		if err := c.connect(t, over); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		err := c.connect(t, tcp.address("user", "app", "password", "secret"))
		wantRefused(t, tcp, err, `pg_hba.conf rejects connection for host "127.0.0.1", user "app", database "shop", no encryption`, "28000", nil)
	}
}

func TestMD5ResponseIsNotReplayable(t *testing.T) {
	a := mustNew(t, Options{Config: settings(config.MethodMD5, plain("app", "secret"))})
	var salts [][]byte
	for range 2 {
		c := client("app", "secret")
		inner := c.answer
		c.answer = func(code uint32, data []byte) ([]byte, error) {
			salts = append(salts, bytes.Clone(data))
			return inner(code, data)
		}
		if _, err := login(t, a, c, "app"); err != nil {
			t.Fatal(err)
		}
	}
	if len(salts[0]) != 4 || bytes.Equal(salts[0], salts[1]) {
		t.Errorf("salts %x", salts)
	}
}

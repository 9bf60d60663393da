package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func sprint(v any) string { return fmt.Sprintf("%v %+v %#v", v, v, v) }

// testCert is a certificate with its key, signed by itself or by an authority.
type testCert struct {
	leaf *x509.Certificate
	key  crypto.Signer
}

func ecdsaKey(t testing.TB, bits int) crypto.Signer {
	t.Helper()
	curve := elliptic.P256()
	if bits == 384 {
		curve = elliptic.P384()
	}
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rsaKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newTestCert makes a server certificate for localhost that signs itself.
func newTestCert(t testing.TB, key crypto.Signer, algorithm x509.SignatureAlgorithm, edit ...func(*x509.Certificate)) testCert {
	t.Helper()
	return signTestCert(t, key, algorithm, nil, edit...)
}

func signTestCert(t testing.TB, key crypto.Signer, algorithm x509.SignatureAlgorithm, by *testCert, edit ...func(*x509.Certificate)) testCert {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		SignatureAlgorithm: algorithm, BasicConstraintsValid: true, IsCA: by == nil,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, f := range edit {
		f(template)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.leaf, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return testCert{leaf, key}
}

func (c testCert) certPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.leaf.Raw})
}

func (c testCert) keyPEM(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// write puts the pair into a folder and returns the files' names.
func (c testCert) write(t testing.TB, dir string) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	writeFile(t, cert, c.certPEM())
	writeFile(t, key, c.keyPEM(t))
	return cert, key
}

func writeFile(t testing.TB, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (c testCert) tls() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{c.leaf.Raw}, PrivateKey: c.key, Leaf: c.leaf}
}

func TestEndpointHash(t *testing.T) {
	sum256 := func(b []byte) []byte { h := sha256.Sum256(b); return h[:] }
	sum384 := func(b []byte) []byte { h := sha512.Sum384(b); return h[:] }
	sum512 := func(b []byte) []byte { h := sha512.Sum512(b); return h[:] }
	rsaKey, p256 := rsaKey(t), ecdsaKey(t, 256)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key       crypto.Signer
		algorithm x509.SignatureAlgorithm
		want      func([]byte) []byte
	}{
		{rsaKey, x509.SHA256WithRSA, sum256},
		{rsaKey, x509.SHA384WithRSA, sum384},
		{rsaKey, x509.SHA512WithRSA, sum512},
		{rsaKey, x509.SHA256WithRSAPSS, sum256},
		{rsaKey, x509.SHA384WithRSAPSS, sum384},
		{rsaKey, x509.SHA512WithRSAPSS, sum512},
		{p256, x509.ECDSAWithSHA256, sum256},
		{p256, x509.ECDSAWithSHA384, sum384},
		{p256, x509.ECDSAWithSHA512, sum512},
	} {
		leaf := newTestCert(t, c.key, c.algorithm).leaf
		if got := endpointHash(leaf); !bytes.Equal(got, c.want(leaf.Raw)) {
			t.Errorf("%v: %x", c.algorithm, got)
		}
	}
	// Certificates signed with SHA-1 cannot be made any more; the rule is about
	// the name of the algorithm only.
	for _, old := range []x509.SignatureAlgorithm{x509.SHA1WithRSA, x509.MD5WithRSA, x509.ECDSAWithSHA1} {
		leaf := &x509.Certificate{Raw: []byte("der"), SignatureAlgorithm: old}
		if got := endpointHash(leaf); !bytes.Equal(got, sum256([]byte("der"))) {
			t.Errorf("%v: %x", old, got)
		}
	}
	if got := endpointHash(newTestCert(t, ed, x509.PureEd25519).leaf); got != nil {
		t.Errorf("Ed25519 has no channel binding: %x", got)
	}
	if got := endpointHash(nil); got != nil {
		t.Errorf("no certificate: %x", got)
	}
}

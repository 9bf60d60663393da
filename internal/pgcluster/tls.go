package pgcluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// TLS is a certificate authority made for one cluster, and its files. All of
// them are ECDSA P-256, valid for a day.
type TLS struct {
	CAFile string // PEM; what clients verify servers with, and servers clients

	certFile, keyFile string // of the servers
	account           account
	dir               string
	ca                *x509.Certificate
	caKey             *ecdsa.PrivateKey
}

// newTLS makes the authority and the servers' certificate in dir.
func newTLS(a account, dir string) (*TLS, error) {
	t := &TLS{CAFile: filepath.Join(dir, "ca.crt"), account: a, dir: dir}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make certificates: %w", err)
	}
	template := certificate("shardproxy test authority")
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make certificates: %w", err)
	}
	if t.ca, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("make certificates: %w", err)
	}
	t.caKey = key
	if err := a.writeFile(t.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return nil, fmt.Errorf("make certificates: %w", err)
	}
	t.certFile, t.keyFile, err = t.Issue("localhost")
	return t, err
}

// Issue makes a certificate for name, good for clients (name is then the
// common name, the PostgreSQL user) and for servers (at name, localhost and
// 127.0.0.1). It returns the paths of two PEM files that belong to the account
// servers run as; the key has mode 0600.
func (t *TLS) Issue(name string) (certFile, keyFile string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", fmt.Errorf("issue certificate for %s: %w", name, err)
	}
	template := certificate(name)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.DNSNames = []string{name, "localhost"}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	der, err := x509.CreateCertificate(rand.Reader, template, t.ca, &key.PublicKey, t.caKey)
	if err != nil {
		return "", "", fmt.Errorf("issue certificate for %s: %w", name, err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return "", "", fmt.Errorf("issue certificate for %s: %w", name, err)
	}
	certFile, keyFile = filepath.Join(t.dir, name+".crt"), filepath.Join(t.dir, name+".key")
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "EC PRIVATE KEY", Bytes: private}} {
		if err := t.account.writeFile(path, pem.EncodeToMemory(block), os.FileMode(0o600)); err != nil {
			return "", "", fmt.Errorf("issue certificate for %s: %w", name, err)
		}
	}
	return certFile, keyFile, nil
}

// certificate returns the fields that all certificates share.
func certificate(name string) *x509.Certificate {
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // never fails (crypto/rand)
	return &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
}

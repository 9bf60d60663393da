package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
)

// serverTLS checks the listener's certificates.
func (v *validator) serverTLS() {
	t := v.c.Listen.TLS
	if t == nil || t.Mode == TLSDisable {
		return
	}
	for _, need := range []struct{ key, value string }{{"certificate", t.Certificate}, {"key", t.Key}} {
		if need.value == "" {
			v.add("listen.tls."+need.key, "is missing", "or set mode: disable")
		}
	}
	v.keyPair("listen.tls", t.Certificate, t.Key)
	v.authorities("listen.tls.client_ca", t.ClientCA)
}

// clientTLS checks the certificates for the servers.
func (v *validator) clientTLS(t *ClientTLS, path string) {
	switch {
	case t.Mode == TLSDisable && (t.CA != "" || t.Certificate != "" || t.Key != ""):
		v.add(path+".mode", "is disable, and there are certificates", "")
		return
	case t.Mode == TLSVerifyCA && t.CA == "":
		v.add(path+".ca", "is missing", "verify-ca checks against it")
	case (t.Certificate == "") != (t.Key == ""):
		v.add(path, "has one of certificate and key", "give both or none")
		return
	}
	v.keyPair(path, t.Certificate, t.Key)
	v.authorities(path+".ca", t.CA)
}

// keyPair checks that the certificate and the key can be read and belong together.
func (v *validator) keyPair(path, certificate, key string) {
	if certificate == "" || key == "" {
		return
	}
	cert, err := v.opts.ReadFile(certificate)
	if err != nil {
		v.add(path+".certificate", readError(certificate, err).Error(), "")
	}
	secret, keyErr := v.opts.ReadFile(key)
	if keyErr != nil {
		v.add(path+".key", readError(key, keyErr).Error(), "")
	}
	if err != nil || keyErr != nil {
		return
	}
	v.checkSecretMode(key, path+".key")
	pair, err := tls.X509KeyPair(cert, secret)
	if err != nil {
		v.add(path, fmt.Sprintf("%s and %s: %s", certificate, key, err), "PEM files, the key not encrypted")
		return
	}
	now := v.opts.Now()
	switch {
	case now.After(pair.Leaf.NotAfter):
		v.warn(path+".certificate", certificate+" ran out on "+pair.Leaf.NotAfter.Format(time.DateOnly), "")
	case now.Before(pair.Leaf.NotBefore):
		v.warn(path+".certificate", certificate+" is not valid before "+pair.Leaf.NotBefore.Format(time.DateOnly), "")
	}
}

// authorities checks a file of certificates.
func (v *validator) authorities(path, file string) {
	if file == "" {
		return
	}
	data, err := v.opts.ReadFile(file)
	if err != nil {
		v.add(path, readError(file, err).Error(), "")
		return
	}
	if !x509.NewCertPool().AppendCertsFromPEM(data) {
		v.add(path, file+" holds no certificate in PEM", "")
	}
}

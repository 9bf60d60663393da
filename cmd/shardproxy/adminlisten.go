package main

import (
	"crypto/tls"

	"shardproxy/config"
)

// adminTLS is the TLS of the admin address: the certificate is that of clients, and changes with it. It returns nil for none.
func (p *program) adminTLS(cfg *config.Config) *tls.Config {
	if !cfg.Admin.TLS || p.certs == nil {
		return nil
	}
	c := p.certs.Config()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := p.certs.Current().Config.Clone()
		now.NextProtos = []string{"http/1.1"}
		now.ClientAuth, now.ClientCAs = tls.NoClientCert, nil // passwords say who somebody is
		return now, nil
	}
	return c
}

// tellExposures logs what is open to others at the admin address.
func (p *program) tellExposures() {
	if p.http == nil {
		return
	}
	for _, text := range p.http.Exposures() {
		p.log.Warn(text, "address", p.http.Addr().String())
	}
}

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"syscall"
	"time"

	"shardproxy/config"
)

// adminRetry is the time between two tries to take the admin address over.
const adminRetry = 100 * time.Millisecond

// openAdmin opens the admin address. Where the process shares its port, the one
// that it follows may have that address still: it is waited for, until waiting
// ends, for that process gives it up when it is told to end.
func (p *program) openAdmin(ctx, waiting context.Context) error {
	err := p.http.Open(ctx)
	conf := &p.state.Load().cfg.Listen
	if err == nil {
		p.tellExposures()
		return nil
	}
	if !conf.ReusePort || !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	p.log.Warn("another process has the admin address: this one takes it when that ends", "address", p.state.Load().cfg.Admin.Address)
	waiting, p.unwait = context.WithCancel(waiting)
	p.tidying.Go(func() { p.awaitAdmin(waiting) })
	return nil
}

func (p *program) awaitAdmin(ctx context.Context) {
	tick := time.NewTicker(adminRetry)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		err := p.http.Open(ctx)
		switch {
		case err == nil:
			p.log.Info("the admin address is taken over", "address", p.http.Addr().String())
			p.tellExposures()
			return
		case ctx.Err() != nil:
			return
		case !errors.Is(err, syscall.EADDRINUSE):
			p.log.Error("the admin address cannot be taken over", "error", err)
			return
		}
	}
}

// leaveAdmin gives the admin address to the process that follows, where one may:
// what is asked there is about the port, and that is the next one's from now on.
func (p *program) leaveAdmin() {
	if p.http != nil && p.state.Load().cfg.Listen.ReusePort {
		if p.unwait != nil {
			p.unwait()
		}
		p.http.Close()
	}
}

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

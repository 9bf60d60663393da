package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"shardproxy/config"
	"shardproxy/proxy"
	"shardproxy/trace"
)

// traceLinger bounds how long what is queued is still told of when the exporter ends.
const traceLinger = 3 * time.Second

// tracer is whom the program tells of requests.
type tracer struct {
	counts  trace.Counts
	to      *trace.Exporter // nil for nobody
	conf    config.Tracing  // that to was made by
	closing sync.WaitGroup
}

// tracerFor returns the exporter that a configuration wants: the one there is, another, or none. It changes nothing.
func (p *program) tracerFor(cfg *config.Config) (*trace.Exporter, error) {
	want, have := cfg.Tracing, p.tracer.conf
	if want.Endpoint == "" {
		return nil, nil
	}
	if same := have; p.tracer.to != nil {
		same.OneIn, same.Parents, same.Texts = want.OneIn, want.Parents, want.Texts
		if same == want {
			return p.tracer.to, nil
		}
	}
	o := trace.Options{Endpoint: want.Endpoint, Timeout: want.Timeout, Queue: want.Queue, Version: buildVersion(), Logger: p.log}
	if host, err := os.Hostname(); err == nil {
		o.Instance = fmt.Sprintf("%s-%d", host, os.Getpid())
	}
	if !want.Token.Empty() {
		o.Header = http.Header{http.CanonicalHeaderKey(want.Header): {want.Token.Reveal()}}
	}
	if want.CA != "" {
		pem, err := os.ReadFile(want.CA)
		if err != nil {
			return nil, err
		}
		if o.Roots = x509.NewCertPool(); !o.Roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tracing.ca: %s holds no certificate", want.CA)
		}
	}
	if want.Certificate != "" {
		o.Certificate = func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(want.Certificate, want.Key)
			return &pair, err
		}
	}
	return trace.New(o, &p.tracer.counts)
}

// useTracer has requests told of as a configuration says, by an exporter that tracerFor has returned for it.
func (p *program) useTracer(cfg *config.Config, to *trace.Exporter) {
	old := p.tracer.to
	p.tracer.to, p.tracer.conf = to, cfg.Tracing
	var t *proxy.Tracing
	if to != nil {
		t = &proxy.Tracing{To: to, Parents: cfg.Tracing.Parents, Texts: cfg.Tracing.Texts}
		if cfg.Tracing.OneIn > 0 {
			t.Ratio = 1 / float64(cfg.Tracing.OneIn)
		}
	}
	for _, db := range p.state.Load().databases {
		policy := *db.proxy.Policy()
		policy.Tracing = t
		db.proxy.SetPolicy(policy)
	}
	if old != nil && old != to {
		p.tracer.closing.Go(func() { endExporter(old) })
	}
}

// dropTracer ends an exporter that tracerFor has returned and that is not used after all.
func (p *program) dropTracer(to *trace.Exporter) {
	if to != nil && to != p.tracer.to {
		endExporter(to)
	}
}

func endExporter(e *trace.Exporter) {
	ctx, cancel := context.WithTimeout(context.Background(), traceLinger)
	defer cancel()
	e.Close(ctx)
}

// closeTracer has what is queued told of, within bounds.
func (p *program) closeTracer() {
	if p.tracer.to != nil {
		endExporter(p.tracer.to)
	}
	p.tracer.closing.Wait()
}

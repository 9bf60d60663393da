package trace

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// Options say where spans go. Endpoint is required.
type Options struct {
	// Endpoint is an http or https URL; without a path it is /v1/traces there.
	Endpoint string
	Header   http.Header // of each export
	Roots    *x509.CertPool
	// Certificate gives what the endpoint is shown, for each handshake; nil shows none.
	Certificate func() (*tls.Certificate, error)
	// Timeout bounds one export with its further tries.
	Timeout time.Duration
	// Queue is how many requests may wait to be told of.
	Queue int
	// Version is the program's, Instance names this process.
	Version, Instance string
	Logger            *slog.Logger
}

// How exports are made up.
const (
	batchMax   = 256                    // requests
	batchWait  = 500 * time.Millisecond // from the first of a batch on
	retryFirst = 100 * time.Millisecond
	answerMax  = 64 << 10
)

// Exporter tells a collector of requests. Make one with New, end it with Close.
type Exporter struct {
	opts     Options
	client   *http.Client
	resource *resource.Resource
	queue    chan *Request
	stop     chan struct{} // closed by Close
	abandon  context.Context
	cancel   context.CancelFunc
	done     sync.WaitGroup
	closing  sync.Once
	failing  bool // the last export has failed; of the worker

	counts *Counts
}

// Counts are what became of spans since the start. They outlive an Exporter.
type Counts struct {
	spans, dropped, failures atomic.Int64
}

// Spans returns how many spans collectors have taken, Dropped how many requests were not told of because the queue was full or
// the collector did not take them, Failures how many exports have failed.
func (c *Counts) Spans() int64 { return c.spans.Load() }

// Dropped: see Spans.
func (c *Counts) Dropped() int64 { return c.dropped.Load() }

// Failures: see Spans.
func (c *Counts) Failures() int64 { return c.failures.Load() }

// New returns an exporter that counts in counts. The error says what is wrong with the endpoint; the collector need not be there.
func New(o Options, counts *Counts) (*Exporter, error) {
	u, err := url.Parse(o.Endpoint)
	switch {
	case err != nil:
		return nil, errors.New("trace: the endpoint is no URL")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, errors.New("trace: the endpoint is no http or https URL")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	o.Endpoint = u.String()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: o.Roots, MinVersion: tls.VersionTLS12}
	if o.Certificate != nil {
		transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return o.Certificate() }
	}
	transport.MaxIdleConnsPerHost = 1
	a := attributes{}
	a.text("service.name", "shardproxy")
	a.text("service.version", o.Version)
	a.text("service.instance.id", o.Instance)
	e := &Exporter{
		opts: o, queue: make(chan *Request, max(o.Queue, 1)), stop: make(chan struct{}), counts: counts, resource: &resource.Resource{Attributes: a},
		client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	e.abandon, e.cancel = context.WithCancel(context.Background())
	e.done.Go(e.work)
	return e, nil
}

// Send tells of a request, which is the exporter's from now on. It never blocks, also after Close.
func (e *Exporter) Send(r *Request) {
	select {
	case e.queue <- r:
	default:
		e.counts.dropped.Add(1)
	}
}

// Close has what is queued told, until ctx ends at the latest, and waits for that.
func (e *Exporter) Close(ctx context.Context) {
	e.closing.Do(func() { close(e.stop) })
	defer context.AfterFunc(ctx, e.cancel)()
	e.done.Wait()
	e.cancel()
	e.client.CloseIdleConnections()
}

func (e *Exporter) work() {
	for {
		select {
		case r := <-e.queue:
			e.export(e.batch(r))
		case <-e.stop:
			for {
				select {
				case r := <-e.queue:
					e.export(e.batch(r))
				default:
					return
				}
			}
		}
	}
}

// batch returns the first and what comes soon behind it.
func (e *Exporter) batch(first *Request) []*Request {
	all := []*Request{first}
	timer := time.NewTimer(batchWait)
	defer timer.Stop()
	for len(all) < batchMax {
		select {
		case r := <-e.queue:
			all = append(all, r)
			continue
		default: // what is there goes along, also at the end
		}
		select {
		case r := <-e.queue:
			all = append(all, r)
		case <-timer.C:
			return all
		case <-e.stop:
			return all
		}
	}
	return all
}

// export sends a batch, and counts what became of it.
func (e *Exporter) export(batch []*Request) {
	var spans []*tracepb.Span
	for _, r := range batch {
		spans = append(spans, r.spans()...)
	}
	err := e.post(spans)
	if err == nil {
		e.counts.spans.Add(int64(len(spans)))
		if e.failing {
			e.opts.Logger.Info("traces are exported again")
		}
		e.failing = false
		return
	}
	e.counts.failures.Add(1)
	e.counts.dropped.Add(int64(len(batch)))
	if !e.failing { // once, not at each batch of an outage
		e.opts.Logger.Warn("traces cannot be exported", "endpoint", e.opts.Endpoint, "error", err)
	}
	e.failing = true
}

// body is an ExportTraceServiceRequest, which is written as TracesData is.
func (e *Exporter) body(spans []*tracepb.Span) ([]byte, error) {
	b, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource: e.resource, ScopeSpans: []*tracepb.ScopeSpans{{Scope: &common.InstrumentationScope{Name: "shardproxy", Version: e.opts.Version}, Spans: spans}},
	}}})
	if err != nil {
		return nil, err
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err = w.Write(b); err == nil {
		err = w.Close()
	}
	return packed.Bytes(), err
}

// post sends spans, again and again while the collector says that it may take them later.
func (e *Exporter) post(spans []*tracepb.Span) error {
	body, err := e.body(spans)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(e.abandon, e.opts.Timeout)
	defer cancel()
	for wait := retryFirst; ; wait *= 2 {
		again, err := e.once(ctx, body)
		if !again {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-e.stop: // there is no time to wait for
			return err
		case <-time.After(wait):
		}
	}
}

// once sends a body. again is set when that may be tried once more: "OTLP/HTTP Response", "Retryable Response Codes".
func (e *Exporter) once(ctx context.Context, body []byte) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.opts.Endpoint, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	for name, values := range e.opts.Header {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("Content-Encoding", "gzip")
	res, err := e.client.Do(req)
	if err != nil {
		return ctx.Err() == nil, err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, answerMax)) // so that the connection can be used again
	switch res.StatusCode {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent:
		return false, nil
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true, fmt.Errorf("the collector answers %s", res.Status)
	}
	return false, fmt.Errorf("the collector answers %s", res.Status)
}

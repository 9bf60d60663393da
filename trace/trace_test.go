package trace

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestParent(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT 1 /*traceparent='" + good + "'*/":                             "0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 true",
		"/*action='x',traceparent='" + good + "',z='1'*/ SELECT 1":            "0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 true",
		"SELECT 1 /*traceparent='" + strings.TrimSuffix(good, "1") + "0'*/":   "0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 false",
		"SELECT 1 /*traceparent='" + strings.TrimSuffix(good, "01") + "03'*/": "0af7651916cd43dd8448eb211c80319c b7ad6b7169203331 true",
		"SELECT 1":                                                                  "",
		"SELECT 1 -- traceparent='" + good + "'":                                    "",
		"SELECT 'traceparent=''" + good + "'''":                                     "",
		"SELECT 1 /*traceparent='" + good:                                           "",
		"SELECT 1 /*traceparent='" + good + "x'*/":                                  "",
		"SELECT 1 /*traceparent='" + good[:50] + "'*/":                              "",
		"SELECT 1 /*traceparent='01" + good[2:] + "'*/":                             "",
		"SELECT 1 /*traceparent='" + strings.ToUpper(good) + "'*/":                  "",
		"SELECT 1 /*traceparent='" + strings.ReplaceAll(good, "-", "_") + "'*/":     "",
		"SELECT 1 /*traceparent='00-" + strings.Repeat("0", 32) + good[35:] + "'*/": "",
		"SELECT 1 /*traceparent='" + good[:36] + strings.Repeat("0", 16) + "-01'*/": "",
		"SELECT 1 /*traceparent='" + strings.Replace(good, "0af", "0xf", 1) + "'*/": "",
	} {
		got := ""
		if c := Parent([]byte(sql)); c.Valid() {
			got = fmt.Sprintf("%x %x %v", c.Trace, c.Span, c.Sampled)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
	}
}

func FuzzParent(f *testing.F) {
	f.Add([]byte("SELECT 1 /*traceparent='" + good + "'*/"))
	f.Fuzz(func(t *testing.T, sql []byte) {
		if c := Parent(sql); c != (Context{}) && !c.Valid() {
			t.Errorf("%q: half a context", sql)
		}
	})
}

func TestSummarize(t *testing.T) {
	for statement, want := range map[string]string{
		"SELECT count(*) FROM accounts WHERE id = $1":                  "SELECT accounts",
		"select a, b from public.accounts, other":                      "SELECT public.accounts",
		"select (select 1 from inner_one), x from outer_one":           "SELECT inner_one",
		"insert into orders(id) values ($1)":                           "INSERT orders",
		"INSERT INTO orders SELECT * FROM other":                       "INSERT orders",
		"update only accounts set x = $1":                              "UPDATE accounts",
		"delete from accounts":                                         "DELETE accounts",
		"merge into a using b on a.id = b.id when matched then delete": "MERGE a",
		"copy accounts from stdin":                                     "COPY accounts",
		"truncate table accounts, other":                               "TRUNCATE accounts",
		"select $1":                                                    "SELECT ",
		"select * from (select 1) x":                                   "SELECT ",
		"select * from generate_series($1, $2)":                        "SELECT generate_series",
		"begin":                                                        "BEGIN ",
		"update":                                                       "UPDATE ",
		"":                                                             " ",
		"$1 garbage":                                                   " ",
		"{call x}":                                                     " ",
	} {
		operation, collection := summarize(statement)
		if got := operation + " " + collection; got != want {
			t.Errorf("%s: %q, want %q", statement, got, want)
		}
	}
}

// TestExporterBounds: who sends never waits, what does not fit is counted, and the end comes in time.
func TestExporterBounds(t *testing.T) {
	hangs := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hangs:
		case <-r.Context().Done():
		}
	}))
	defer srv.Close()
	var counts Counts
	e, err := New(Options{Endpoint: srv.URL, Timeout: time.Minute, Queue: 10, Logger: slog.New(slog.DiscardHandler)}, &counts)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 10000 {
		e.Send(&Request{Began: began})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	e.Close(ctx)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	e.Send(&Request{Began: began}) // behind the end
	close(hangs)
	if counts.Dropped() < 9000 || counts.Failures() == 0 || counts.Spans() != 0 {
		t.Errorf("%d dropped, %d failures, %d spans", counts.Dropped(), counts.Failures(), counts.Spans())
	}
}

// TestExporterEnds: what is queued at the end is told of.
func TestExporterEnds(t *testing.T) {
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { asked.Add(1) }))
	defer srv.Close()
	var counts Counts
	e, err := New(Options{Endpoint: srv.URL + "/own/path", Timeout: time.Minute, Queue: 1000, Logger: slog.New(slog.DiscardHandler)}, &counts)
	if err != nil {
		t.Fatal(err)
	}
	for range 700 {
		e.Send(&Request{Began: time.Now(), Steps: []Step{{Kind: Run, Shard: "s0"}}})
	}
	e.Close(t.Context())
	e.Close(t.Context()) // again
	if counts.Spans() != 1400 || counts.Dropped() != 0 || asked.Load() < 3 {
		t.Errorf("%d spans, %d dropped, in %d messages", counts.Spans(), counts.Dropped(), asked.Load())
	}
}

// TestExporterCertificate: what the collector demands by TLS is shown, from the files as they are then.
func TestExporterCertificate(t *testing.T) {
	shown := make(chan string, 10)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		shown <- r.TLS.PeerCertificates[0].Subject.CommonName
	}))
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.StartTLS()
	defer srv.Close()
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	var counts Counts
	var asked atomic.Int64
	o := Options{Endpoint: srv.URL, Roots: roots, Timeout: 5 * time.Second, Queue: 10, Logger: slog.New(slog.DiscardHandler)}
	o.Certificate = func() (*tls.Certificate, error) {
		if asked.Add(1) == 1 {
			return nil, errors.New("the file is being replaced")
		}
		return certificateOf(t, "proxy"), nil
	}
	e, err := New(o, &counts)
	if err != nil {
		t.Fatal(err)
	}
	e.Send(&Request{Began: time.Now()})
	select {
	case name := <-shown:
		if name != "proxy" {
			t.Error(name)
		}
	case <-time.After(10 * time.Second):
		t.Error("it is shown nothing")
	}
	e.Close(t.Context())
	if counts.Spans() != 1 {
		t.Error(counts.Spans(), counts.Failures())
	}
}

// certificateOf makes a certificate of a name that signs itself.
func certificateOf(t *testing.T, name string) *tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Error(err)
		return nil
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, of, of, &key.PublicKey, key)
	if err != nil {
		t.Error(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestExporterRefuses(t *testing.T) {
	for _, endpoint := range []string{"", "127.0.0.1:4318", "ftp://x", "http://", "http://%zz"} {
		if _, err := New(Options{Endpoint: endpoint}, &Counts{}); err == nil {
			t.Errorf("%q is taken", endpoint)
		}
	}
}

func TestDivide(t *testing.T) {
	for address, want := range map[string]string{"10.0.0.1:5432": "10.0.0.1 5432", "[::1]:5432": "::1 5432", "/run/postgresql:5433": "/run/postgresql 5433", "": " 0", "x:y": "x:y 0"} {
		host, port := divide(address)
		if got := fmt.Sprint(host, " ", port); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}

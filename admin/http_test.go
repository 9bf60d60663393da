package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/failover"
	"shardproxy/gate"
)

func openServer(t *testing.T, o Options) (*Server, string) {
	t.Helper()
	o.Address = "127.0.0.1:0"
	if o.Clock == nil {
		o.Clock = clockAt
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, "http://" + s.Addr().String()
}

// get returns status, headers and body. Connections are not kept.
func get(t *testing.T, method, url string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

func TestLivez(t *testing.T) {
	w := newWorld()
	_, url := openServer(t, Options{Source: w})
	w.mu.Lock()
	w.process, w.databases = Process{Draining: true}, nil // nothing is well
	w.mu.Unlock()
	if code, _, body := get(t, "GET", url+"/livez"); code != 200 || body != "ok\n" {
		t.Errorf("%d %q", code, body)
	}
}

func TestReadyz(t *testing.T) {
	down := &failover.Snapshot{Primary: failover.NoNode}
	for name, c := range map[string]struct {
		change func(*world)
		code   int
		fails  string // the check that fails
	}{
		"as it is, one of two shards without a primary": {func(*world) {}, 200, ""},
		"no configuration":        {func(w *world) { w.process.ConfiguredAt = time.Time{} }, 503, "configuration"},
		"not listening":           {func(w *world) { w.process.Listening = false }, 503, "listening"},
		"draining":                {func(w *world) { w.process.Draining = true }, 503, "draining"},
		"drained by an operator":  {func(w *world) { w.process.Drained = true }, 503, "draining"},
		"all without primary":     {func(w *world) { w.databases[0].Shards[0].Nodes = down }, 503, "primaries"},
		"no database":             {func(w *world) { w.databases = nil }, 200, ""},
		"paused, reload failed":   {func(w *world) { w.databases[0].Paused = true; w.process.ReloadError = "x" }, 200, ""},
		"two shards of one, down": {func(w *world) { w.databases[0].Shards = append(w.databases[0].Shards, Shard{Nodes: down}) }, 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			c.change(w)
			_, url := openServer(t, Options{Source: w})
			code, h, body := get(t, "GET", url+"/readyz")
			if code != c.code || !strings.HasPrefix(h.Get("Content-Type"), "text/plain") {
				t.Errorf("%d %q", code, body)
			}
			failed := regexp.MustCompile(`(?m)^\[-\] (\w+): `).FindAllStringSubmatch(body, -1)
			switch {
			case c.fails == "" && body != "ready\n":
				t.Errorf("%q", body)
			case c.fails != "" && (len(failed) != 1 || failed[0][1] != c.fails || !strings.HasSuffix(body, "not ready\n")):
				t.Errorf("%q", body)
			}
			if _, _, verbose := get(t, "GET", url+"/readyz?verbose"); strings.Count(verbose, "\n") != 5 {
				t.Errorf("verbose: %q", verbose)
			}
		})
	}
}

func TestMetricsHandler(t *testing.T) {
	w := newWorld()
	_, url := openServer(t, Options{Source: w, Version: "0.9.1"})
	code, h, body := get(t, "GET", url+"/metrics")
	if code != 200 || !strings.HasPrefix(h.Get("Content-Type"), "text/plain") || !strings.Contains(body, `shardproxy_build_info{go_version="go1.`) {
		t.Errorf("%d %s", code, body[:min(300, len(body))])
	}
	// A broken family is an error that names it, not half an answer.
	r := prometheus.NewRegistry()
	r.MustRegister(prometheus.CollectorFunc(func(ch chan<- prometheus.Metric) {
		ch <- prometheus.NewInvalidMetric(prometheus.NewDesc("shardproxy_broken", "Broken.", nil, nil), errors.New("no value"))
	}))
	_, url = openServer(t, Options{Source: w, Gatherer: r})
	if code, _, body := get(t, "GET", url+"/metrics"); code != 500 || !strings.Contains(body, "no value") {
		t.Errorf("%d %q", code, body)
	}
}

// TestPage: the dashboard's files, and what they may do.
func TestPage(t *testing.T) {
	_, url := openServer(t, Options{Source: newWorld(), Version: "0.9.1"})
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/assets/dashboard.js": "text/javascript; charset=utf-8", "/assets/steer.js": "text/javascript; charset=utf-8",
		"/assets/dashboard.css": "text/css; charset=utf-8", "/assets/icon.svg": "image/svg+xml",
	} {
		code, h, body := get(t, "GET", url+path)
		if code != 200 || h.Get("Content-Type") != kind || body == "" {
			t.Errorf("%s: %d %v", path, code, h)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" || h.Get("Cross-Origin-Resource-Policy") != "same-origin" {
			t.Errorf("%s: headers: %v", path, h)
		}
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "form-action 'none'", "frame-ancestors 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: policy %q lacks %s", path, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "http") {
			t.Errorf("%s: policy %q", path, csp)
		}
		// Nothing from elsewhere, nothing in line, no markup made of texts.
		if bad := regexp.MustCompile(`(src|href)="(https?:)?//|@import|url\(|<style|style="|\son[a-z]+="|<script[^>]*>[^<]|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(`).FindString(body); bad != "" {
			t.Errorf("%s has %q", path, bad)
		}
	}
}

func TestVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		change      func(*world)
		class, text string
	}{
		"well":  {func(*world) {}, "good", "All is well: 2 of 2 nodes are used"},
		"doubt": {func(w *world) { w.databases[0].Doubts = newWorld().databases[0].Doubts }, "warn", "in doubt over the shards of shop: 1 prepared, the oldest for 1m30s"},
		"a primary": {func(w *world) {
			s := w.databases[0].Shards[0].Nodes
			s.Primary, s.NoPrimary, s.Nodes[0].Reason = failover.NoNode, "primary 10.0.0.1:5432 is down", "is down"
		}, "bad", "shard s0 of shop has no primary (primary 10.0.0.1:5432 is down), 0 statements held"},
		"a breaker": {func(w *world) {
			w.databases[0].Shards[0].Breaker = gate.BreakerStatus{State: gate.BreakerOpen, Tries: 9, Fails: 8, Last: "58030"}
		}, "bad", "shard s0 of shop is left alone: 8 of 9 statements failed, the last with 58030; the circuit breaker is open"},
		"paused":        {func(w *world) { w.databases[0].Paused = true }, "warn", "database shop is paused"},
		"waiting":       {func(w *world) { w.pools[0].Waiting = 3 }, "warn", "3 clients of app wait"},
		"reload":        {func(w *world) { w.process.ReloadError = "line 3" }, "warn", "the last reload failed: line 3"},
		"draining":      {func(w *world) { w.process.Draining, w.process.Listening = true, false }, "bad", "shutting down"},
		"not listening": {func(w *world) { w.process.Listening = false }, "bad", "does not listen"},
	} {
		w := newWorld()
		w.databases = w.databases[:1]
		w.databases[0].Shards[0].Nodes.Nodes = w.databases[0].Shards[0].Nodes.Nodes[:2]
		w.pools[0].Waiting, w.databases[0].Doubts = 0, nil
		c.change(w)
		v := judge(w.process, w.databases, w.pools, clockAt())
		if v.Class != c.class || !strings.Contains(v.Text, c.text) || c.class != classGood && len(v.Reasons) != 1 {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestPaths(t *testing.T) {
	w := newWorld()
	_, plain := openServer(t, Options{Source: w})
	_, profiled := openServer(t, Options{Source: w, Pprof: true})
	for _, c := range []struct {
		method, url string
		code        int
	}{
		{"GET", plain + "/nothing", 404},
		{"POST", plain + "/metrics", 405},
		{"DELETE", plain + "/livez", 405},
		{"HEAD", plain + "/livez", 200},
		{"GET", plain + "/debug/pprof/", 404},
		{"GET", plain + "/debug/pprof/heap", 404},
		{"GET", profiled + "/debug/pprof/", 200},
		{"GET", profiled + "/debug/pprof/goroutine?debug=1", 200},
		{"GET", profiled + "/debug/pprof/cmdline", 200},
	} {
		if code, _, _ := get(t, c.method, c.url); code != c.code {
			t.Errorf("%s %s: %d", c.method, c.url, code)
		}
	}
}

// panics is a Source that fails.
type panics struct{ *world }

func (panics) Databases() []Database { panic("seeded") }

func TestPanicIsAnswered(t *testing.T) {
	book := &logBook{}
	_, url := openServer(t, Options{Source: panics{newWorld()}, Logger: slog.New(slog.NewTextHandler(book, nil))})
	if code, _, body := get(t, "GET", url+"/api/v1/status"); code != 500 || strings.Contains(body, "seeded") {
		t.Errorf("%d %q", code, body)
	}
	if !strings.Contains(book.String(), "admin request panicked") {
		t.Error("the panic is not logged")
	}
	if code, _, _ := get(t, "GET", url+"/livez"); code != 200 {
		t.Error("the process does not live on")
	}
}

// blocks is a Source that answers when it is told to, but the history.
type blocks struct {
	*world
	release chan struct{}
}

func (b blocks) Process() Process {
	<-b.release
	return b.world.Process()
}

// TestBusy: probes are answered while every slot is taken; a page more is
// refused; Close lets the answers under way end.
func TestBusy(t *testing.T) {
	b := blocks{newWorld(), make(chan struct{})}
	s, url := openServer(t, Options{Source: b})
	codes := make(chan int, answersAtOnce)
	for range answersAtOnce {
		go func() {
			code, _, _ := get(t, "GET", url+"/api/v1/status")
			codes <- code
		}()
	}
	for len(s.slots) < answersAtOnce {
		<-time.After(5 * time.Millisecond)
	}
	if code, _, _ := get(t, "GET", url+"/"); code != 503 {
		t.Errorf("one page too many: %d", code)
	}
	if code, _, _ := get(t, "GET", url+"/livez"); code != 200 {
		t.Errorf("a probe beside them: %d", code)
	}
	closed := make(chan struct{})
	go func() { s.Close(); close(closed) }()
	for { // Close has begun once nobody can connect
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			break
		}
		_ = c.Close()
	}
	close(b.release)
	for range answersAtOnce {
		if code := <-codes; code != 200 {
			t.Errorf("an answer under way: %d", code)
		}
	}
	<-closed
	s.Close() // again
}

func TestOpenAndClose(t *testing.T) {
	if _, err := New(Options{Address: "127.0.0.1:0"}); err == nil {
		t.Error("a server without a source")
	}
	s, err := New(Options{Address: "127.0.0.1:0", Source: newWorld()})
	if err != nil {
		t.Fatal(err)
	}
	if s.Addr() != nil {
		t.Error("New listens")
	}
	s.Close() // never opened
	if err := s.Open(t.Context()); err == nil {
		t.Error("opened after Close")
	}
	first, _ := openServer(t, Options{Source: newWorld()})
	second, err := New(Options{Address: first.Addr().String(), Source: newWorld()})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Open(context.Background()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("an address that is taken: %v", err)
	}
	second.Close()
	if err := first.Open(t.Context()); err == nil {
		t.Error("opened twice")
	}
}

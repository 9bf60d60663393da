package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"shardproxy/internal/pgtest"
)

// collectorOf takes spans, as an OpenTelemetry collector does.
type collectorOf struct {
	*httptest.Server
	mu     sync.Mutex
	spans  []*tracepb.Span
	raw    []byte // all that came, unpacked
	header http.Header
	// answers are what it says to the next requests, 200 when there are none left.
	answers []int
	hangs   chan struct{} // until it is closed, if it is not nil
}

func startCollector(t *testing.T) *collectorOf {
	c := &collectorOf{}
	c.Server = httptest.NewServer(http.HandlerFunc(c.take))
	t.Cleanup(c.Close)
	return c
}

func (c *collectorOf) take(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	hangs, status := c.hangs, http.StatusOK
	if len(c.answers) > 0 {
		status, c.answers = c.answers[0], c.answers[1:]
	}
	c.header = r.Header.Clone()
	c.mu.Unlock()
	if hangs != nil {
		select {
		case <-hangs:
		case <-r.Context().Done():
		}
	}
	unpacked, err := gzip.NewReader(r.Body)
	if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	b, err := io.ReadAll(unpacked)
	var data tracepb.TracesData
	if err != nil || proto.Unmarshal(b, &data) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.WriteHeader(status)
	if status != http.StatusOK {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw = append(c.raw, b...)
	for _, rs := range data.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			c.spans = append(c.spans, ss.Spans...)
		}
	}
}

// told returns the spans of the request whose text has a word, its own first, when they have come.
func (c *collectorOf) told(t *testing.T, word string) (all []*tracepb.Span) {
	t.Helper()
	eventually(t, "the request with "+word+" is told of", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, s := range c.spans {
			if s.Kind == tracepb.Span_SPAN_KIND_SERVER && strings.Contains(attribute(s, "db.query.text"), word) {
				all = []*tracepb.Span{s}
			}
		}
		for _, s := range c.spans {
			if all != nil && bytes.Equal(s.ParentSpanId, all[0].SpanId) {
				all = append(all, s)
			}
		}
		return all != nil
	})
	return all
}

// attribute returns one of a span as text, "" when it has none.
func attribute(s *tracepb.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			if v := a.Value.GetStringValue(); v != "" {
				return v
			}
			return fmt.Sprint(a.Value.GetIntValue())
		}
	}
	return ""
}

// spanNames are those of spans.
func spanNames(all []*tracepb.Span) string {
	var out []string
	for _, s := range all {
		out = append(out, s.Name)
	}
	return strings.Join(out, ", ")
}

// TestTracing: what requests do is told of as it was, and no value of theirs.
func TestTracing(t *testing.T) {
	t.Parallel()
	col := startCollector(t)
	s := startShards(t, 2, "tracing: {endpoint: \""+col.URL+"\", token: \"Bearer secret\", one_in: 1, texts: true}")
	c := s.connectLoaded()
	const marker = "never_to_be_told_7351"
	must(t, c, "INSERT INTO customers SELECT n, '"+marker+"' FROM generate_series(1, 20) n")

	for i, q := range []struct {
		sql, name, steps, state string
		mode                    pgx.QueryExecMode
	}{
		{"SELECT name AS TAG FROM customers WHERE id = 7 AND name <> 'MARK'", "SELECT customers", "shard s", "", pgx.QueryExecModeSimpleProtocol},
		{"SELECT name AS TAG FROM customers WHERE id = 8", "SELECT customers", "shard s", "", pgx.QueryExecModeExec},
		{"SELECT count(*) AS TAG FROM customers WHERE name <> 'MARK'", "SELECT customers", "shard s0, shard s1", "", pgx.QueryExecModeExec},
		{"SELECT a.id AS TAG FROM customers a JOIN customers b ON b.name = a.name LIMIT 3", "SELECT customers", "shard s0, shard s1", "", pgx.QueryExecModeSimpleProtocol},
		{"UPDATE customers AS TAG SET name = 'MARK' || '7'", "UPDATE customers", "shard s0, shard s1", "", pgx.QueryExecModeSimpleProtocol},
		{"SELECT 1 / (id - 7) AS TAG FROM customers WHERE id = 7", "SELECT customers", "shard s", "22012", pgx.QueryExecModeSimpleProtocol},
		{"SELECT id AS TAG FROM customers LIMIT 2 FOR UPDATE", "SELECT customers", "", "0A000", pgx.QueryExecModeSimpleProtocol},
	} {
		tag := fmt.Sprintf("tag%d", i)
		sql := strings.NewReplacer("TAG", tag, "MARK", marker).Replace(q.sql) + " /* " + marker + " */"
		_, err := c.Exec(within(t, 20*time.Second), sql, q.mode)
		if sqlState(err) != q.state {
			t.Fatalf("%s: %v", sql, err)
		}
		spans := col.told(t, tag)
		own := spans[0]
		if own.Name != q.name || attribute(own, "db.response.status_code") != q.state || (own.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR) != (q.state != "") {
			t.Errorf("%s: %s, %v", sql, own.Name, own.Attributes)
		}
		if got := spanNames(spans[1:]); !strings.Contains(got, q.steps) || q.steps == "" && got != "" {
			t.Errorf("%s: steps %q, want %q", sql, got, q.steps)
		}
		if attribute(own, "db.system.name") != "postgresql" || attribute(own, "db.namespace") != "app" || attribute(own, "db.collection.name") != "customers" || attribute(own, "shardproxy.fingerprint") == "" {
			t.Errorf("%s: %v", sql, own.Attributes)
		}
		for _, child := range spans[1:] {
			if child.StartTimeUnixNano < own.StartTimeUnixNano || child.EndTimeUnixNano > own.EndTimeUnixNano || child.EndTimeUnixNano < child.StartTimeUnixNano || !bytes.Equal(child.TraceId, own.TraceId) {
				t.Errorf("%s: %s is not within the request", sql, child.Name)
			}
			if strings.HasPrefix(child.Name, "shard") && (attribute(child, "server.address") != "127.0.0.1" || attribute(child, "server.port") == "") {
				t.Errorf("%s: %s: %v", sql, child.Name, child.Attributes)
			}
		}
	}

	// Commits over several shards, and what runs in the transaction.
	must(t, c, "BEGIN")
	must(t, c, "UPDATE customers SET name = 'x' WHERE id IN (1, 2, 3, 4)")
	must(t, c, "COMMIT")
	eventually(t, "the commit is told of", func() bool {
		col.mu.Lock()
		defer col.mu.Unlock()
		for _, sp := range col.spans {
			if sp.Name == "COMMIT" {
				return true
			}
		}
		return false
	})
	col.mu.Lock()
	defer col.mu.Unlock()
	if bytes.Contains(col.raw, []byte(marker)) {
		t.Error("a value was told")
	}
	if got := col.header.Get("Authorization"); got != "Bearer secret" {
		t.Errorf("the header says %q", got)
	}
	if s.sample("shardproxy_tracing_spans_total") < 10 {
		t.Error("no span is counted")
	}
}

// TestTracingParents: a request belongs to the trace that its comment names, which also says whether it is told of; a reload turns tracing on and off.
func TestTracingParents(t *testing.T) {
	t.Parallel()
	col := startCollector(t)
	px := startProgram(t, pgtest.Start(t, pgtest.Options{}), configText)
	plain := px.text()
	c := px.connect()
	console, _ := px.consoleOf()
	must(t, c, "SELECT 1 AS before")
	px.write(plain + "\ntracing: {endpoint: \"" + col.URL + "\", one_in: 0}\n")
	must(t, console, "RELOAD")
	comment := func(n int, sampled bool) string {
		return fmt.Sprintf("/*action='x',traceparent='00-%032x-%016x-%02x'*/", n, n, map[bool]int{true: 1}[sampled])
	}
	for i, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
		n := 10 * (i + 1)
		must(t, c, "SELECT 1 AS none", mode)
		must(t, c, "SELECT 1 AS unwanted "+comment(n, false), mode)
		must(t, c, "SELECT 1 AS wanted "+comment(n+1, true), mode)
		must(t, c, comment(n+2, true)+" SELECT 2 AS leading", mode)
		must(t, c, "SELECT 1 AS bad /*traceparent='00-zz-01'*/", mode)
	}
	// Requests behind one another have each its own.
	pc := c.PgConn()
	p := pc.StartPipeline(within(t, 20*time.Second))
	for n := 100; n < 110; n++ {
		p.SendQueryParams("SELECT 3 AS piped "+comment(n, n%2 == 0), nil, nil, nil, nil)
		if err := p.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, n := range []int{11, 12, 21, 22, 31, 32, 100, 102, 104, 106, 108} {
		want[fmt.Sprintf("%032x %016x", n, n)] = true
	}
	found := func() map[string]bool {
		col.mu.Lock()
		defer col.mu.Unlock()
		all := map[string]bool{}
		for _, sp := range col.spans {
			if sp.Kind == tracepb.Span_SPAN_KIND_SERVER {
				all[fmt.Sprintf("%x %x", sp.TraceId, sp.ParentSpanId)] = true
			}
		}
		return all
	}
	for end := time.Now().Add(10 * time.Second); len(found()) < len(want) && time.Now().Before(end); {
		<-time.After(50 * time.Millisecond)
	}
	if got := found(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("told of %v, want %v", got, want)
	}
	px.write(plain)
	must(t, console, "RELOAD")
	must(t, c, "SELECT 1 AS after "+comment(99, true))
	<-time.After(time.Second)
	if found()[fmt.Sprintf("%032x %016x", 99, 99)] {
		t.Error("a request is told of without tracing")
	}
}

// TestTracingAway: a collector that refuses, hangs or is not there delays no request, nor the end of the program; what it misses is counted.
func TestTracingAway(t *testing.T) {
	t.Parallel()
	col := startCollector(t)
	col.hangs = make(chan struct{})
	px := startProgram(t, pgtest.Start(t, pgtest.Options{}), configText+"\ntracing: {endpoint: \""+col.URL+"\", one_in: 1, queue: 20, timeout: 700ms}\n")
	c := px.connect()
	began := time.Now()
	for range 2000 {
		must(t, c, "SELECT 1")
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("2000 requests took %v", took)
	}
	eventually(t, "what the collector misses is counted", func() bool {
		return px.sample("shardproxy_tracing_requests_dropped_total") > 1000 && px.sample("shardproxy_tracing_export_failures_total") > 0
	})
	if n := strings.Count(px.logged(), "traces cannot be exported"); n != 1 {
		t.Errorf("%d lines tell of it", n)
	}
	col.mu.Lock()
	close(col.hangs)
	col.hangs, col.answers = nil, []int{503, 429, 200}
	col.mu.Unlock()
	eventually(t, "it is told again", func() bool {
		must(t, c, "SELECT 2")
		return px.sample("shardproxy_tracing_spans_total") > 0
	})
	col.mu.Lock()
	col.hangs = make(chan struct{})
	defer close(col.hangs)
	col.mu.Unlock()
	must(t, c, "SELECT 3")
	began = time.Now()
	px.p.closeTracer()
	if took := time.Since(began); took > traceLinger+2*time.Second {
		t.Errorf("the end took %v", took)
	}
}

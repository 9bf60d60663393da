package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"shardproxy/failover"
)

// viewer reads events.
type viewer struct {
	t    *testing.T
	body *bufio.Scanner
	end  func()
}

// watch opens the events, or returns the status code of a refusal.
func watch(t *testing.T, url string) (*viewer, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	req, err := http.NewRequestWithContext(ctx, "GET", url+"/api/v1/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	end := func() { cancel(); _ = resp.Body.Close(); tr.CloseIdleConnections() }
	if resp.StatusCode != 200 {
		end()
		return nil, resp.StatusCode
	}
	if resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers: %v", resp.Header)
	}
	t.Cleanup(end)
	s := bufio.NewScanner(resp.Body)
	s.Buffer(nil, 8<<20)
	return &viewer{t, s, end}, 200
}

// next returns the next event; "" when there is none any more.
func (v *viewer) next() (name string, data map[string]any) {
	v.t.Helper()
	for v.body.Scan() {
		line := v.body.Text()
		switch {
		case strings.HasPrefix(line, "event: "):
			name = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			if err := json.Unmarshal([]byte(line[len("data: "):]), &data); err != nil {
				v.t.Fatal(err)
			}
		case line == "":
			return name, data
		}
	}
	return "", nil
}

// until reads to the next event of a name.
func (v *viewer) until(name string) map[string]any {
	v.t.Helper()
	for {
		switch got, data := v.next(); got {
		case name:
			return data
		case "":
			v.t.Fatalf("the events ended before %s", name)
		}
	}
}

// TestLive: a viewer gets everything, then the status again and again, a change
// at once, of the rest what is new, and the end.
func TestLive(t *testing.T) {
	w := clusterWorld()
	s, url := openServer(t, Options{Source: w})
	v, _ := watch(t, url)
	for _, want := range []string{"status", "slots", "moves", "proxies", "doubts", "events", "statements", "status"} {
		name, data := v.next()
		if name != want {
			t.Fatalf("%s came, want %s", name, want)
		}
		if name != "status" {
			continue
		}
		wantAt(t, data, "databases.0.shards.0.class", "warn")
	}
	changed := time.Now()
	w.mu.Lock()
	w.databases[0].Shards = append([]Shard{{Name: "s0", Nodes: &failover.Snapshot{Primary: failover.NoNode, NoPrimary: "killed"}}}, w.databases[0].Shards[1:]...)
	w.mu.Unlock()
	for at(t, v.until("status"), "databases.0.shards.0.class") != "bad" {
	}
	if took := time.Since(changed); took > time.Second {
		t.Errorf("the change came after %s", took)
	}
	w.mu.Lock()
	c := *w.databases[0].Cluster()
	c.Epoch = 10
	w.databases[0].Cluster = func() *Cluster { return &c }
	w.mu.Unlock()
	wantAt(t, v.until("slots"), "databases.0.epoch", 10.0)
	now := clockAt()
	for range 2 {
		now = now.Add(sampleEach)
		s.looks.history.take(w.Databases(), nil, now)
	}
	if got := at(t, v.until("history"), "sampled_at_unix_seconds").([]any); len(got) != 2 {
		t.Errorf("%d samples", len(got))
	}
	go s.Close()
	v.until("end")
	if name, _ := v.next(); name != "" {
		t.Errorf("%s came after the end", name)
	}
}

// TestLiveLasts: neither the server's deadline for requests nor that for
// answers ends the events.
func TestLiveLasts(t *testing.T) {
	w := newWorld()
	s, err := New(Options{Address: "127.0.0.1:0", Source: w})
	if err != nil {
		t.Fatal(err)
	}
	s.http.ReadTimeout = 50 * time.Millisecond
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	v, _ := watch(t, "http://"+s.Addr().String())
	for range 3 {
		v.until("status")
	}
}

// TestViewersAreBounded: one too many is refused, takes no place from other
// answers, and gets in when another has gone.
func TestViewersAreBounded(t *testing.T) {
	s, url := openServer(t, Options{Source: newWorld()})
	var all []*viewer
	for range viewersMax {
		v, code := watch(t, url)
		if code != 200 {
			t.Fatal(code)
		}
		v.until("status")
		all = append(all, v)
	}
	if _, code := watch(t, url); code != 503 {
		t.Errorf("one too many: %d", code)
	}
	if n := len(s.slots); n != 0 {
		t.Errorf("viewers take %d places of other answers", n)
	}
	if code, _, _ := get(t, "GET", url+"/api/v1/status"); code != 200 {
		t.Errorf("beside them: %d", code)
	}
	all[0].end()
	for len(s.live.viewers) == viewersMax {
		select {
		case <-t.Context().Done():
			t.Fatal("a viewer that has gone keeps its place")
		case <-time.After(5 * time.Millisecond):
		}
	}
	if _, code := watch(t, url); code != 200 {
		t.Errorf("in its place: %d", code)
	}
	began := time.Now()
	s.Close()
	if took := time.Since(began); took > closeTimeout/2 {
		t.Errorf("it took %s to close", took)
	}
}

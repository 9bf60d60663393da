package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"shardproxy/config"
)

// parsedSettings returns what the proxy makes of settings.
func parsedSettings(t *testing.T, c settings) *config.Config {
	t.Helper()
	verifier, err := verifierOf(password, 1)
	if err != nil {
		t.Fatal(err)
	}
	users := []poolUser{{userName, verifier}, {pgbenchUser, verifier}}
	text := c.document("127.0.0.1:7001", "127.0.0.1:7002", users)
	parsed, err := config.Parse([]byte(text), "bench.yaml")
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return parsed
}

func baseSettings() settings {
	return settings{nodes: []string{"127.0.0.1:7003"}, serverTLS: "disable", reads: "split: false",
		poolMode: "transaction", poolSize: 20, logLevel: "warn"}
}

// Each feature's configuration is accepted, and differs from the default's in
// the feature.
func TestFeaturesAreConfigured(t *testing.T) {
	base := parsedSettings(t, baseSettings())
	s := &stage{options: options{serverConns: 20, featureClients: []int{8, 32}}}
	for _, f := range allFeatures() {
		c := baseSettings()
		if f.replicas || f.name == "tls-clients" {
			continue // they ask the cluster
		}
		if err := f.change(s, &c); err != nil {
			t.Fatal(err)
		}
		changed := config.Diff(base, parsedSettings(t, c))
		if want := f.name != "scraped"; (len(changed) > 0) != want {
			t.Errorf("%s changes %v", f.name, changed)
		}
		if f.name == "pool-session" && c.poolSize < 64 {
			t.Errorf("session pooling of 32 clients has %d connections", c.poolSize)
		}
	}
	c := baseSettings()
	c.nodes = append(c.nodes, "127.0.0.1:7004")
	c.reads = "split: true, consistency: eventual"
	c.listenTLS = `certificate: "a b.crt", key: "a.key"`
	if !strings.Contains(c.document("a", "b", nil), `tls: {certificate: "a b.crt", key: "a.key"}`) {
		t.Error("the certificate is missing")
	}
	c.listenTLS = ""
	if changed := config.Diff(base, parsedSettings(t, c)); len(changed) == 0 {
		t.Error("more nodes change nothing")
	}
}

func TestChosenFeatures(t *testing.T) {
	names := func(args ...string) []string {
		o, err := parseOptions(args, nil)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range o.chosenFeatures() {
			names = append(names, f.name)
		}
		return names
	}
	if got := names(); !slices.Equal(got, featureNames()) {
		t.Errorf("by default %v", got)
	}
	if got := names("-features", "split,scraped", "-replicas", "0"); !slices.Equal(got, []string{"scraped"}) {
		t.Errorf("without replicas %v", got)
	}
	if got := names("-parts", "idle"); got != nil {
		t.Errorf("without the part %v", got)
	}
	o := options{modes: []string{"simple", "extended", "prepared"}, featureClients: []int{8, 32}}
	if got := o.featureRows(); !slices.Equal(got, []string{"simple 8", "simple 32", "prepared 8", "prepared 32"}) {
		t.Errorf("rows are %v", got)
	}
}

// However short the work, somebody has read the page; who gets no page or
// fails at the work hears of it.
func TestScraping(t *testing.T) {
	var reads atomic.Int32
	page := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reads.Add(1)
		w.WriteHeader(page)
	}))
	defer server.Close()
	admin := server.Listener.Addr().String()
	if err := scraping(context.Background(), admin, func() error { return nil }); err != nil || reads.Load() != 1 {
		t.Errorf("short work: %d reads, %v", reads.Load(), err)
	}
	err := scraping(context.Background(), admin, func() error {
		await(t, func() bool { return reads.Load() >= 3 })
		return nil
	})
	if err != nil || reads.Load() != 3 {
		t.Errorf("long work: %d reads, %v", reads.Load(), err)
	}
	broken := errors.New("broken")
	if err := scraping(context.Background(), admin, func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("failing work: %v", err)
	}
	page = http.StatusTeapot
	if err := scraping(context.Background(), admin, func() error { return nil }); err == nil {
		t.Error("a page that is none is accepted")
	}
}

// A feature is divided by the default of its own round.
func TestFeatureTable(t *testing.T) {
	m := &measurement{stage: &stage{options: options{parts: []string{"features"}, features: []string{"scraped"},
		modes: []string{"simple"}, featureClients: []int{8}}}, features: rounds{}}
	for _, v := range []float64{1, 10, 100} {
		m.features.add("simple 8", proxyName, "cpu", v)
		m.features.add("simple 8", "metrics read each second", "cpu", 3*v)
	}
	want := table{
		{"simple 8", "none, the default", "10.0", "1.00 (1.00-1.00)", "-", "-", "-", "-"},
		{"simple 8", "metrics read each second", "30.0", "3.00 (3.00-3.00)", "-", "-", "-", "-"},
	}
	if got := m.featureTable()[1:]; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %q", got)
	}
}

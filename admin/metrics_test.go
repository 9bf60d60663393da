package admin

import (
	"context"
	"errors"
	"fmt"
	goparser "go/parser"
	gotoken "go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"shardproxy/auth"
	"shardproxy/config"
	"shardproxy/failover"
	"shardproxy/gate"
	"shardproxy/metadata"
	"shardproxy/twopc"
)

// described is one family as the catalogue has it.
type described struct{ name, kind, labels, help string }

// recorder is a Registerer that keeps what it registers, so that families
// without a sample yet are seen too.
type recorder struct {
	*prometheus.Registry
	collectors []prometheus.Collector
}

func (r *recorder) Register(c prometheus.Collector) error {
	r.collectors = append(r.collectors, c)
	return r.Registry.Register(c)
}

func (r *recorder) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

// fakeProber answers for a primary and a replica; the third node is dead.
type fakeProber struct{}

func (fakeProber) Probe(_ context.Context, n failover.NodeID) (failover.Observation, error) {
	o := failover.Observation{SystemID: 1, Timeline: 1, ServerTime: time.Now(), StartedAt: time.Now(), Connection: 1}
	switch n {
	case 0:
		o.Insert, o.Flush = 8, 8
	case 1:
		o.InRecovery, o.Replay, o.Receive = true, 8, 8
	default:
		return failover.Observation{}, errors.New("connection refused")
	}
	return o, nil
}

func (fakeProber) Watch(ctx context.Context, _ failover.NodeID) error { <-ctx.Done(); return nil }
func (fakeProber) Close()                                             {}

// registerAll fills a registry as the program does.
func registerAll(t *testing.T) *recorder {
	t.Helper()
	r := &recorder{Registry: prometheus.NewPedanticRegistry()}
	w := newWorld()
	r.MustRegister(NewCollector(MetricsOptions{Source: w, Version: "0.9.1", Clock: clockAt}))
	if _, err := NewConsole(ConsoleOptions{Source: w, Configuration: w, Steerer: w, Registerer: r}); err != nil {
		t.Fatal(err)
	}
	cfg := &config.Config{Databases: []config.Database{{Name: "shop"}}}
	if _, err := auth.New(auth.Options{Config: cfg, Registerer: r}); err != nil {
		t.Fatal(err)
	}
	cert, key := writeCertificate(t)
	tls := config.ServerTLS{Mode: config.TLSAllow, Certificate: cert, Key: key, MinVersion: "1.2"}
	if _, err := auth.NewCertificates(auth.CertificateOptions{TLS: tls, Registerer: r}); err != nil {
		t.Fatal(err)
	}
	if err := metadata.NewWatcher(metadata.WatcherOptions{Database: "shop", Registerer: r, Connect: func(context.Context) (*pgx.Conn, error) {
		return nil, errors.New("away")
	}}).Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := twopc.NewResolver(twopc.ResolverOptions{Database: "shop", Cluster: "5f0d9a3e-6a9b-4a83-9d0c-2f6a4a0d7c11", Registerer: r,
		Shards: []twopc.Shard{{Name: "s0", Connect: func(context.Context) (*pgx.Conn, error) { return nil, errors.New("away") }}}})
	if err != nil {
		t.Fatal(err)
	}
	found := make(chan struct{})
	var once sync.Once
	m, err := failover.New(failover.Options{
		OnChange: func(_, after *failover.Snapshot) {
			if after.Primary == 0 && after.Nodes[1].Lag.Known && after.Nodes[2].Health == failover.Down {
				once.Do(func() { close(found) })
			}
		},
		Database: "shop", Shard: "s0", Nodes: []failover.NodeConfig{{Address: "a:1"}, {Address: "b:1"}, {Address: "c:1"}}, Prober: fakeProber{},
		Gate: gate.New(gate.Options{MaxHeld: 10, HoldTimeout: time.Second}), Registerer: r,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	select {
	case <-found:
	case <-time.After(20 * time.Second):
		t.Fatalf("the fake nodes were not found: %+v", m.Nodes())
	}
	return r
}

// catalogue returns the families of the registry.
func (r *recorder) catalogue(t *testing.T) map[string]described {
	t.Helper()
	kinds := map[string]string{}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		kinds[f.GetName()] = strings.ToLower(f.GetType().String())
	}
	pattern := regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: "(.*)", unit: "[^"]*", constLabels: \{([^}]*)\}, variableLabels: \{([^}]*)\}\}$`)
	all := map[string]described{}
	for _, c := range r.collectors {
		descs := make(chan *prometheus.Desc, 200)
		c.Describe(descs)
		close(descs)
		for d := range descs {
			m := pattern.FindStringSubmatch(d.String())
			if m == nil {
				t.Fatalf("cannot read %s", d)
			}
			var labels []string
			for _, pair := range strings.Split(m[3], ",") {
				if name, _, ok := strings.Cut(pair, "="); ok {
					labels = append(labels, name)
				}
			}
			if m[4] != "" {
				labels = append(labels, strings.Split(m[4], ",")...)
			}
			kind := kinds[m[1]]
			if kind == "" {
				kind = kindOf(c)
			}
			if kind == "" {
				t.Errorf("%s has no sample here, and its type is not known", m[1])
			}
			all[m[1]] = described{m[1], kind, strings.Join(labels, ", "), strings.ReplaceAll(m[2], `\"`, `"`)}
		}
	}
	for name := range kinds {
		if _, ok := all[name]; !ok {
			t.Errorf("%s is exported and not described", name)
		}
	}
	return all
}

func kindOf(c prometheus.Collector) string {
	switch c.(type) {
	case *prometheus.CounterVec:
		return "counter"
	case *prometheus.GaugeVec:
		return "gauge"
	case *prometheus.HistogramVec:
		return "histogram"
	}
	return ""
}

// TestMetricNames holds the conventions that make families usable.
func TestMetricNames(t *testing.T) {
	r := registerAll(t)
	for name, d := range r.catalogue(t) {
		if !strings.HasPrefix(name, "shardproxy_") {
			t.Errorf("%s: not of this program", name)
		}
		if (d.kind == "counter") != strings.HasSuffix(name, "_total") {
			t.Errorf("%s is a %s", name, d.kind)
		}
		if regexp.MustCompile(`_(ms|us|millis|kb|minutes)(_|$)`).MatchString(name) {
			t.Errorf("%s: not a base unit", name)
		}
		for _, l := range []string{"client", "addr", "address", "application_name", "query", "pid"} {
			if slices.Contains(strings.Split(d.labels, ", "), l) {
				t.Errorf("%s: label %s has no bound", name, l)
			}
		}
		if !strings.HasSuffix(strings.TrimSpace(d.help), ".") {
			t.Errorf("%s: help is no sentence: %s", name, d.help)
		}
	}
}

// TestMetricPackages: a package that begins to export metrics must be
// registered in registerAll.
func TestMetricPackages(t *testing.T) {
	found := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != ".." && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "testdata" || name == "internal") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := goparser.ParseFile(gotoken.NewFileSet(), path, nil, goparser.ImportsOnly)
		if err != nil {
			return fmt.Errorf("parse: %w", err)
		}
		for _, i := range f.Imports {
			if strings.HasPrefix(i.Path.Value, `"github.com/prometheus/client_golang`) {
				found[filepath.ToSlash(filepath.Dir(path))] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, known := range []string{"../admin", "../auth", "../failover", "../metadata", "../twopc", "../cmd/shardproxy"} {
		delete(found, known)
	}
	for path := range found {
		t.Errorf("%s exports metrics that registerAll does not know", path)
	}
}

func TestMetricValues(t *testing.T) {
	w := newWorld()
	c := NewCollector(MetricsOptions{Source: w, Version: "0.9.1", Clock: clockAt})
	want := `
# HELP shardproxy_clients Clients logged in, by what they do.
# TYPE shardproxy_clients gauge
shardproxy_clients{database="My-Db.2",state="active"} 0
shardproxy_clients{database="My-Db.2",state="held"} 0
shardproxy_clients{database="My-Db.2",state="idle"} 0
shardproxy_clients{database="My-Db.2",state="idle_in_transaction"} 0
shardproxy_clients{database="My-Db.2",state="waiting"} 0
shardproxy_clients{database="shop",state="active"} 1
shardproxy_clients{database="shop",state="held"} 1
shardproxy_clients{database="shop",state="idle"} 1
shardproxy_clients{database="shop",state="idle_in_transaction"} 0
shardproxy_clients{database="shop",state="waiting"} 1
# HELP shardproxy_servers Server connections, by what they do.
# TYPE shardproxy_servers gauge
shardproxy_servers{database="shop",node="10.0.0.1:5432",state="active",user="app"} 3
shardproxy_servers{database="shop",node="10.0.0.1:5432",state="idle",user="app"} 2
shardproxy_servers{database="shop",node="10.0.0.1:5432",state="login",user="app"} 1
shardproxy_servers{database="shop",node="10.0.0.1:5432",state="parked",user="app"} 1
shardproxy_servers{database="shop",node="10.0.0.2:5432",state="active",user="app"} 2
shardproxy_servers{database="shop",node="10.0.0.2:5432",state="idle",user="app"} 4
shardproxy_servers{database="shop",node="10.0.0.2:5432",state="login",user="app"} 2
shardproxy_servers{database="shop",node="10.0.0.2:5432",state="parked",user="app"} 2
# HELP shardproxy_pool_wait_seconds_total Time that clients waited for a server connection.
# TYPE shardproxy_pool_wait_seconds_total counter
shardproxy_pool_wait_seconds_total{database="My-Db.2"} 0
shardproxy_pool_wait_seconds_total{database="shop"} 1.5
# HELP shardproxy_shard_longest_held_seconds Time that the first statement at the shard's gate has waited.
# TYPE shardproxy_shard_longest_held_seconds gauge
shardproxy_shard_longest_held_seconds{database="My-Db.2",shard="only"} 1.5
shardproxy_shard_longest_held_seconds{database="shop",shard="s0"} 0
# HELP shardproxy_uptime_seconds Time since the process started.
# TYPE shardproxy_uptime_seconds gauge
shardproxy_uptime_seconds 5400
# HELP shardproxy_config_last_reload_successful 1 when the last reload succeeded or there was none, else 0.
# TYPE shardproxy_config_last_reload_successful gauge
shardproxy_config_last_reload_successful 1
# HELP shardproxy_config_loaded_timestamp_seconds When the configuration in force was loaded, in seconds since 1970; 0 when none is.
# TYPE shardproxy_config_loaded_timestamp_seconds gauge
shardproxy_config_loaded_timestamp_seconds 1.772597167e+09
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), "shardproxy_clients", "shardproxy_servers", "shardproxy_pool_wait_seconds_total",
		"shardproxy_shard_longest_held_seconds", "shardproxy_uptime_seconds", "shardproxy_config_last_reload_successful",
		"shardproxy_config_loaded_timestamp_seconds"); err != nil {
		t.Error(err)
	}
	problems, err := testutil.CollectAndLint(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	w.pools[0].User = "\xff" // a role whose name is no UTF-8 fails the scrape, not the process
	if _, err := testutil.CollectAndLint(c); err == nil {
		t.Error("a label that is no UTF-8 went through")
	}
}

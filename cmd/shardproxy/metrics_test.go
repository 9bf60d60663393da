package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgcluster"
	"shardproxy/internal/pgtest"
)

var update = flag.Bool("update", false, "write the table of docs/metrics.md, and the answers in the guides, anew")

// metricFamily is one row of the catalogue.
type metricFamily struct {
	kind, help string
	labels     []string
	samples    int
}

// scrape asks the admin address for its metrics, without those of Go.
func (px *proxied) scrape() map[string]*metricFamily {
	px.t.Helper()
	req, err := http.NewRequestWithContext(within(px.t, 10*time.Second), http.MethodGet, "http://"+px.p.http.Addr().String()+"/metrics", nil)
	if err != nil {
		px.t.Fatal(err)
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		px.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		px.t.Fatalf("%d %v: %s", res.StatusCode, err, text)
	}
	return families(string(text))
}

var (
	sampleLine = regexp.MustCompile(`^([a-z_:0-9]+)(?:\{(.*)\})? `)
	labelName  = regexp.MustCompile(`([a-z_]+)="`)
)

// families reads Prometheus' text format. The labels that a histogram adds are
// none of the family's.
func families(text string) map[string]*metricFamily {
	all := map[string]*metricFamily{}
	last := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "# HELP "); ok {
			var help string
			last, help, _ = strings.Cut(rest, " ")
			all[last] = &metricFamily{help: strings.NewReplacer(`\\`, `\`, `\n`, "\n").Replace(help)}
		} else if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			all[last].kind = strings.TrimPrefix(rest, last+" ")
		} else if m := sampleLine.FindStringSubmatch(line); m != nil {
			f := all[last]
			f.samples++
			for _, l := range labelName.FindAllStringSubmatch(m[2], -1) {
				if l[1] != "le" && !slices.Contains(f.labels, l[1]) {
					f.labels = append(f.labels, l[1])
				}
			}
		}
	}
	maps.DeleteFunc(all, func(name string, _ *metricFamily) bool {
		return strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") || strings.HasPrefix(name, "promhttp_")
	})
	order := []string{"database", "shard", "user", "node", "version"}
	for _, f := range all {
		slices.SortFunc(f.labels, func(a, b string) int {
			at := func(l string) int {
				if i := slices.Index(order, l); i >= 0 {
					return i
				}
				return len(order)
			}
			return cmp.Or(cmp.Compare(at(a), at(b)), cmp.Compare(a, b))
		})
	}
	return all
}

// TestMetricsPage has the real program do a little of everything: then it
// exports every family of docs/metrics.md, as that page describes it, and no
// other.
func TestMetricsPage(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{Replicas: 1, TLS: true})
	certificate, key, err := cl.TLS().Issue("localhost")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(configText, `"%LISTEN%"}`, fmt.Sprintf(`"%%LISTEN%%", tls: {certificate: %q, key: %q}}`, certificate, key), 1)
	text = strings.Replace(text, "server: {", "failover: {hold_timeout: 300ms}\n    cache: {size: 1MiB, tables: {public.counted: 1s}}\n    server: {user: app, password: "+pgcluster.AppPassword+", ", 1) +
		"auth: {throttle: {delay: 1ms}, auth_query: {user: postgres}}\n"
	px := startProgram(t, cl, text)
	eventually(t, "the primary is known", func() bool {
		_, known := px.p.state.Load().databases["app"].shards[0].monitor.Primary()
		return known
	})
	c := px.connect()
	must(t, c, "CREATE TABLE measured (id int)")
	eventually(t, "a replica answers", func() bool { return serverPort(t, c) != cl.Primary().Port() })
	if _, err := pgx.Connect(within(t, 10*time.Second), strings.Replace(px.dsn(), "app:", "nobody:", 1)); err == nil {
		t.Fatal("nobody got in")
	}
	console := px.connectTo(strings.Replace(px.dsn(), "/app?", "/shardproxy?", 1))
	must(t, console, "SHOW VERSION")
	// A write that waits in vain for a primary.
	cl.Primary().Stop()
	eventually(t, "a write waited", func() bool {
		_, err := c.Exec(within(t, 20*time.Second), "INSERT INTO measured VALUES (1)")
		return sqlState(err) == "57P03"
	})
	_ = c.Close(context.Background())

	comparePage(t, px.scrape(), "families")
}

// comparePage compares a table of docs/metrics.md with what was found.
func comparePage(t *testing.T, found map[string]*metricFamily, table string) {
	t.Helper()
	const path = "../../docs/metrics.md"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- begin "+table+" -->\n", "<!-- end "+table+" -->"
	head, rest, ok := strings.Cut(string(page), begin)
	got, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no table of families", path)
	}
	want := "\n| family | type | labels | what it is |\n| --- | --- | --- | --- |\n"
	for _, name := range slices.Sorted(maps.Keys(found)) {
		f := found[name]
		if f.samples == 0 {
			t.Errorf("%s has no sample", name)
		}
		want += fmt.Sprintf("| `%s` | %s | %s | %s |\n", name, f.kind, strings.Join(f.labels, ", "), f.help)
	}
	want += "\n"
	if got == want {
		return
	}
	if *update {
		if err := os.WriteFile(path, []byte(head+begin+want+end+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for line := range strings.Lines(got) {
		if !strings.Contains(want, line) {
			t.Errorf("%s says what the program does not export: %s", path, line)
		}
	}
	for line := range strings.Lines(want) {
		if !strings.Contains(got, line) {
			t.Errorf("%s lacks what the program exports: %s", path, line)
		}
	}
	t.Error("go test ./cmd/shardproxy -run Metrics -update writes the table anew")
}

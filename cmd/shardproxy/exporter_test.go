package main

import (
	"context"
	"io"
	"maps"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"shardproxy/auth"
	"shardproxy/internal/pgtest"
)

// exporter is the program pgbouncer_exporter, in front of a console.
type exporter struct {
	t   *testing.T
	url string
	log string // the path of what it has written
}

// startExporter runs the exporter as people do, and waits until it answers.
func startExporter(t *testing.T, console string) *exporter {
	t.Helper()
	var said strings.Builder
	need := exec.CommandContext(within(t, 5*time.Minute), "../../scripts/need-exporter.sh")
	need.Stderr = &said
	path, err := need.Output()
	if err != nil {
		t.Fatalf("build the exporter: %v\n%s", err, said.String())
	}
	addr := freeAddr(t)
	e := &exporter{t: t, url: "http://" + addr + "/metrics", log: filepath.Join(t.TempDir(), "log")}
	log, err := os.Create(e.log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, strings.TrimSpace(string(path)), "--web.listen-address="+addr, "--log.level=info")
	cmd.Env = []string{"PGBOUNCER_EXPORTER_CONNECTION_STRING=" + console}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); _ = cmd.Wait(); _ = log.Close() })
	eventually(t, "the exporter listens", func() bool {
		_, _, err := fetch(t, "http://"+addr+"/")
		return err == nil
	})
	return e
}

// fetch asks an address over HTTP.
func fetch(t *testing.T, url string) (code int, text string, err error) {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t, 10*time.Second), http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// sampleOf matches one line of Prometheus' text format, and finds the family with its labels, and the value.
var sampleOf = regexp.MustCompile(`^([a-z_]+(?:\{.*\})?) (\S+)$`)

// bouncerSamples returns the values of the samples about PgBouncer, as they were written, and the types of their families.
func bouncerSamples(t *testing.T, url string) (samples, types map[string]string) {
	t.Helper()
	code, text, err := fetch(t, url)
	if err != nil || code != http.StatusOK {
		t.Fatalf("%s: %d %v\n%s", url, code, err, text)
	}
	samples, types = map[string]string{}, map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if f := strings.Fields(line); len(f) == 4 && f[1] == "TYPE" && strings.HasPrefix(f[2], "pgbouncer_") {
			types[f[2]] = f[3]
		} else if m := sampleOf.FindStringSubmatch(line); m != nil && strings.HasPrefix(m[1], "pgbouncer_") {
			samples[m[1]] = m[2]
		}
	}
	// The exporter's own, which is not about PgBouncer.
	delete(types, "pgbouncer_exporter_build_info")
	maps.DeleteFunc(samples, func(name, _ string) bool { return strings.HasPrefix(name, "pgbouncer_exporter_build_info{") })
	return samples, types
}

// complaints returns what the exporter has logged beyond that it works.
func (e *exporter) complaints() (all []string) {
	e.t.Helper()
	b, err := os.ReadFile(e.log)
	if err != nil {
		e.t.Fatal(err)
	}
	return lines(string(b), `level=(WARN|ERROR)|disappeared|error`)
}

// exporterConfig has two databases, of which one has room for one server connection, and a user who only looks on.
func exporterConfig() string {
	text := strings.Replace(configText, "admin_users: [app]", "admin_users: [app], monitor_users: [watch]", 1)
	text = strings.Replace(text, "users:\n", "users:\n  - {name: watch, verifier: \""+auth.HashPassword("looks")+"\"}\n", 1)
	return text + `  narrow:
    shards: [{name: s0, nodes: [%NODES%]}]
    server: {control: {user: postgres}, connect_timeout: 2s, database: app}
    pool: {size: 1, mode: session, reserve: 0}
`
}

// startExported runs the program, and the exporter in front of its console.
func startExported(t *testing.T) (*proxied, *exporter) {
	t.Helper()
	px := startProgram(t, pgtest.Start(t, pgtest.Options{}), exporterConfig())
	return px, startExporter(t, "postgres://watch:looks@"+px.addr+"/pgbouncer?sslmode=disable&application_name=looker")
}

// shownFigures are the columns that the exporter reads of the commands that have a row for each of something, and what it calls them.
func shownFigures() map[string]string {
	return map[string]string{
		"DATABASES name host port database force_user pool_mode": "pgbouncer_databases pool_size=pool_size reserve_pool_size=reserve_pool max_connections=max_connections " +
			"current_connections=current_connections paused=paused disabled=disabled",
		"STATS_TOTALS database": "pgbouncer_stats_totals query_count=queries_pooled_total query_time/=queries_duration_seconds_total bytes_received=received_bytes_total " +
			"bytes_sent=sent_bytes_total wait_time/=client_wait_seconds_total xact_count=sql_transactions_pooled_total xact_time/=server_in_transaction_seconds_total " +
			"client_parse_count=client_parses_total server_parse_count=server_parses_total bind_count=binds_total server_assignment_count=server_assignments_total",
		"POOLS database user": "pgbouncer_pools cl_active=client_active_connections cl_waiting=client_waiting_connections cl_active_cancel_req=client_active_cancel_connections " +
			"cl_waiting_cancel_req=client_waiting_cancel_connections sv_active=server_active_connections sv_active_cancel=server_active_cancel_connections " +
			"sv_being_canceled=server_being_canceled_connections sv_idle=server_idle_connections sv_used=server_used_connections sv_tested=server_testing_connections " +
			"sv_login=server_login_connections maxwait=client_maxwait_seconds",
	}
}

// shown returns what the exporter should say, by what the console says to c.
func shown(t *testing.T, c *pgx.Conn) map[string]float64 {
	t.Helper()
	all := map[string]float64{"pgbouncer_up": 1}
	for from, figures := range shownFigures() {
		command, labels, _ := strings.Cut(from, " ")
		for _, row := range showRows(t, c, command) {
			of := labelsOf(row, strings.Fields(labels)...)
			prefix, rest, _ := strings.Cut(figures, " ")
			for _, f := range strings.Fields(rest) {
				column, name, _ := strings.Cut(f, "=")
				column, micros := strings.CutSuffix(column, "/")
				v := figureOf(t, row[column])
				if micros {
					v /= 1e6
				}
				all[prefix+"_"+name+of] = v
			}
		}
	}
	for _, row := range showRows(t, c, "LISTS") {
		name, renamed := map[string]string{"dns_names": "cached_dns_names", "dns_zones": "cached_dns_zones", "dns_queries": "in_flight_dns_queries",
			"peers": "", "peer_pools": "", "dns_pending": ""}[row["list"]]
		if !renamed {
			name = row["list"]
		}
		if name != "" {
			all["pgbouncer_"+name] = figureOf(t, row["items"])
		}
	}
	for _, row := range showRows(t, c, "CONFIG") {
		if name := map[string]string{"max_client_conn": "max_client_connections", "max_user_connections": "max_user_connections"}[row["key"]]; name != "" {
			all["pgbouncer_config_"+name] = figureOf(t, row["value"])
		}
	}
	for _, row := range showRows(t, c, "CLIENTS") {
		all["pgbouncer_client_connections"+labelsOf(row, "database", "user", "application_name", "state")]++
	}
	all["pgbouncer_version_info"+labelsOf(showRows(t, c, "VERSION")[0], "version")] = 1
	return all
}

// labelsOf returns labels as Prometheus' text format has them, in the order of their names.
func labelsOf(row map[string]string, names ...string) string {
	slices.Sort(names)
	for i, n := range names {
		names[i] = n + "=" + strconv.Quote(row[n])
	}
	return "{" + strings.Join(names, ",") + "}"
}

// figureOf reads a figure; NULL is none.
func figureOf(t *testing.T, v string) float64 {
	t.Helper()
	if v == "" {
		return math.NaN()
	}
	n, err := strconv.ParseFloat(v, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// showRows returns the rows of a SHOW by the names of the columns; NULL is empty.
func showRows(t *testing.T, c *pgx.Conn, command string) (all []map[string]string) {
	t.Helper()
	results, err := c.PgConn().Exec(within(t, 10*time.Second), "SHOW "+command).ReadAll()
	if err != nil || len(results) != 1 {
		t.Fatalf("SHOW %s: %v", command, err)
	}
	for _, values := range results[0].Rows {
		row := map[string]string{}
		for i, f := range results[0].FieldDescriptions {
			row[f.Name] = string(values[i])
		}
		all = append(all, row)
	}
	return all
}

// TestExporter: the exporter that people run in front of PgBouncer works in front of the proxy, with load and with clients that wait, and
// what it says is what the console says.
func TestExporter(t *testing.T) {
	t.Parallel()
	px, e := startExported(t)
	console := px.connectTo(strings.Replace(px.dsn(), "/app?", "/pgbouncer?application_name=tester&", 1))
	narrow := strings.Replace(px.dsn(), "/app?", "/narrow?application_name=a%20%22b%22&", 1)
	must(t, px.connectTo(narrow), "CREATE TABLE counted (id int)") // and holds the one connection of that database
	waiter := px.connectTo(narrow)
	ctx, stop := context.WithCancel(context.Background())
	var load sync.WaitGroup
	load.Go(func() { _, _ = waiter.Exec(ctx, "SELECT 1") })
	for range 3 {
		c := px.connect()
		load.Go(func() {
			for ctx.Err() == nil {
				_, _ = c.Exec(ctx, "SELECT $1::int", 1)
			}
		})
	}
	defer load.Wait()
	defer stop()
	eventually(t, "there is load, and a client has waited", func() bool {
		now := shown(t, console)
		return now[`pgbouncer_stats_totals_queries_pooled_total{database="app"}`] > 100 && now[`pgbouncer_pools_client_maxwait_seconds{database="narrow",user="app"}`] >= 1
	})
	for range 3 {
		before := shown(t, console)
		samples, _ := bouncerSamples(t, e.url)
		compareExporter(t, before, samples, shown(t, console))
	}
	if said := e.complaints(); len(said) > 0 {
		t.Errorf("the exporter complains: %q", said)
	}
}

// compareExporter holds the exporter's samples against what the console said before and after: they lie in between, and of what rests are
// the same.
func compareExporter(t *testing.T, before map[string]float64, samples map[string]string, after map[string]float64) {
	t.Helper()
	const own = `pgbouncer_client_connections{application_name="looker",database="pgbouncer",state="idle",user="watch"}`
	if samples[own] != "1" {
		t.Errorf("%s is %q", own, samples[own])
	}
	delete(samples, own)
	for name, text := range samples {
		v, err := strconv.ParseFloat(text, 64)
		was, known := before[name]
		low, high := min(was, after[name]), max(was, after[name])
		switch {
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case flutters(name):
		case !known:
			t.Errorf("the console has no %s", name)
		case math.IsNaN(low) != math.IsNaN(v) || v < low-1e-9 || v > high+1e-9:
			t.Errorf("%s is %v; the console said %v before and %v after", name, v, low, high)
		}
	}
	for name := range before {
		if _, told := samples[name]; !told && !flutters(name) {
			t.Errorf("the exporter lacks %s", name)
		}
	}
}

// flutters reports whether a sample is another at each look: what clients of the database under load do at a moment, and their servers.
func flutters(name string) bool {
	return strings.Contains(name, `database="app"`) && (strings.HasPrefix(name, "pgbouncer_client_connections{") ||
		strings.HasPrefix(name, "pgbouncer_pools_client_") || strings.HasPrefix(name, "pgbouncer_pools_server_"))
}

// TestCompat: /metrics?compat=pgbouncer has the families, types, labels and values that the exporter has in front of the console, but for
// the exporter's own session there.
func TestCompat(t *testing.T) {
	t.Parallel()
	px, e := startExported(t)
	c := px.connect()
	must(t, c, "CREATE TABLE counted (id int)")
	must(t, c, "SET application_name = 'as \"it\" \\ likes'")
	must(t, px.connectTo(strings.Replace(px.dsn(), "/app?", "/narrow?application_name=a%20%22b%22%5C&", 1)), "SELECT 1")
	own := "http://" + px.p.http.Addr().String() + "/metrics"
	rests := func() (said map[string]string) {
		said, _ = bouncerSamples(t, own+"?compat=pgbouncer")
		return said
	}
	last := rests()
	eventually(t, "nothing moves", func() bool {
		was := last
		last = rests()
		return maps.Equal(was, last)
	})
	want, types := bouncerSamples(t, e.url)
	delete(want, `pgbouncer_client_connections{application_name="looker",database="pgbouncer",state="idle",user="watch"}`)
	got, kinds := bouncerSamples(t, own+"?compat=pgbouncer")
	if d := cmp.Diff(want, got); d != "" || len(got) < 60 {
		t.Errorf("%d samples; the exporter's are -, ours are +:\n%s", len(got), d)
	}
	if d := cmp.Diff(types, kinds); d != "" {
		t.Errorf("types: the exporter's are -, ours are +:\n%s", d)
	}
	_, text, err := fetch(t, own+"?compat=pgbouncer")
	if err != nil {
		t.Fatal(err)
	}
	comparePage(t, families(text), "families of pgbouncer_exporter")
}

// TestCompatExamples: what the pages tell people to write into Prometheus' configuration is one.
func TestCompatExamples(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"../../docs/metrics.md", "../../docs/pgbouncer.md"} {
		page, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile("(?s)```yaml\n( *scrape_configs:.*?)\n *```").FindAllStringSubmatch(string(page), -1)
		if len(found) != 1 {
			t.Fatalf("%s has %d examples", path, len(found))
		}
		file := filepath.Join(t.TempDir(), "prometheus.yml")
		if err := os.WriteFile(file, []byte(found[0][1]), 0o600); err != nil {
			t.Fatal(err)
		}
		promtool(t, "check", "config", file)
	}
}

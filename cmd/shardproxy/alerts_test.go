package main

import (
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"shardproxy/internal/pgtest"
)

const (
	rulesPath     = "../../deploy/prometheus/shardproxy.rules.yml"
	rulesTestPath = "../../deploy/prometheus/shardproxy.rules_test.yml"
	handbookPath  = "../../docs/operations.md"
)

// alert is one alert of the rules.
type alert struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func writeYAML(t *testing.T, path string, v any) {
	t.Helper()
	b, err := yaml.Marshal(v)
	if err == nil {
		err = os.WriteFile(path, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func readYAML(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// alerts are those of the rules, in their order.
func alerts(t *testing.T) (all []alert) {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []alert `yaml:"rules"`
		} `yaml:"groups"`
	}
	readYAML(t, rulesPath, &file)
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// TestAlerts: each alert fires when it should, and none when all is well.
func TestAlerts(t *testing.T) {
	promtool(t, "check", "rules", rulesPath)
	promtool(t, "test", "rules", rulesTestPath)
}

var labelUsed = regexp.MustCompile(`\$labels\.([a-z_]+)`)

// TestAlertRules: alerts are made of what the program exports, say what a person needs, and are tested.
func TestAlertRules(t *testing.T) {
	families := exported(t)
	var tests struct {
		Tests []struct {
			Name   string `yaml:"name"`
			Series []struct {
				Series string `yaml:"series"`
			} `yaml:"input_series"`
			Samples []struct {
				Samples []struct {
					Labels string `yaml:"labels"`
				} `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		} `yaml:"tests"`
	}
	readYAML(t, rulesTestPath, &tests)
	fired, healthy := map[string]bool{}, map[string]bool{}
	name := regexp.MustCompile(`alertname="(\w+)"`)
	for _, c := range tests.Tests {
		for _, s := range c.Series {
			checkPromQL(t, rulesTestPath+", "+c.Name, s.Series, families)
			if c.Name == "healthy" {
				healthy[readPromQL(s.Series).metrics[0]] = true
			}
		}
		for _, s := range c.Samples {
			for _, l := range s.Samples {
				if m := name.FindStringSubmatch(l.Labels); m != nil {
					fired[m[1]] = true
				}
			}
		}
	}
	for _, a := range alerts(t) {
		where := rulesPath + ", " + a.Alert
		if !strings.HasPrefix(a.Alert, "Shardproxy") {
			t.Errorf("%s: the name does not say whose it is", where)
		}
		labels := checkPromQL(t, where, a.Expr, families)
		for _, m := range readPromQL(a.Expr).metrics {
			if !healthy[m] {
				t.Errorf("%s: it is not tested that it is quiet: %s has no healthy series", where, m)
			}
		}
		if !fired[a.Alert] {
			t.Errorf("%s: it is not tested that it fires", where)
		}
		if s := a.Labels["severity"]; s != "critical" && s != "warning" || len(a.Labels) != 1 {
			t.Errorf("%s: labels %v", where, a.Labels)
		}
		for _, key := range []string{"summary", "description"} {
			text := a.Annotations[key]
			if text == "" {
				t.Errorf("%s: no %s", where, key)
			}
			for _, m := range labelUsed.FindAllStringSubmatch(text, -1) {
				if !slices.Contains(labels, m[1]) {
					t.Errorf("%s: %s: there is no label %s", where, key, m[1])
				}
			}
		}
		if want := "docs/operations.md#" + strings.ToLower(a.Alert); a.Annotations["runbook"] != want {
			t.Errorf("%s: runbook: %s, want %s", where, a.Annotations["runbook"], want)
		}
	}
}

// TestHandbook: each alert has its section, with all that it should say, and each section its alert. What it says of the
// console is there.
func TestHandbook(t *testing.T) {
	page, err := os.ReadFile(handbookPath)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for i, part := range strings.Split(string(page), "\n### ") {
		title, text, _ := strings.Cut(part, "\n")
		text, _, _ = strings.Cut(text, "\n## ")
		if i > 0 {
			sections[title] = text
		}
	}
	for _, a := range alerts(t) {
		text, ok := sections[a.Alert]
		if !ok {
			t.Errorf("%s has no section %s", handbookPath, a.Alert)
			continue
		}
		delete(sections, a.Alert)
		if !strings.Contains(text, "**Look at, do.**") && (!strings.Contains(text, "**Look at.**") || !strings.Contains(text, "**Do.**")) {
			t.Errorf("%s, %s does not say what to look at, and what to do", handbookPath, a.Alert)
		}
		for _, said := range []string{"**What it means.**", "**What users feel.**", "**False when**"} {
			if !strings.Contains(text, said) {
				t.Errorf("%s, %s does not say: %s", handbookPath, a.Alert, said)
			}
		}
	}
	for title := range sections {
		t.Errorf("%s: there is no alert %s", handbookPath, title)
	}
	console, err := os.ReadFile("../../docs/console.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`\b(SHOW [A-Z_]+)`).FindAllStringSubmatch(string(page), -1) {
		if !strings.Contains(string(console), "\n| `"+m[1]+"` |") {
			t.Errorf("%s: the console has no %s", handbookPath, m[1])
		}
	}
	families := exported(t)
	for _, m := range regexp.MustCompile("`(shardproxy_[a-z_]+)").FindAllStringSubmatch(string(page), -1) {
		if _, ok := families[m[1]]; !ok {
			t.Errorf("%s: the program exports no %s", handbookPath, m[1])
		}
	}
}

// sample is one line of what is scraped.
var sample = regexp.MustCompile(`^([a-z_:0-9]+)(?:\{(.*)\})? (\S+)$`)

// samples reads what is scraped.
func samples(t *testing.T, text string) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		m := sample.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		series := m[1] + `{job="shardproxy", instance="p1"`
		if m[2] != "" {
			series += ", " + m[2]
		}
		all[series+"}"] = v
	}
	return all
}

// quietAlerts sees to it that no alert fires on what the program exports while all is well: of two looks, some seconds apart,
// an hour is made.
func quietAlerts(t *testing.T, px *proxied, apart time.Duration, meanwhile func()) {
	t.Helper()
	var names []string
	for _, a := range alerts(t) {
		names = append(names, readPromQL(a.Expr).metrics...)
	}
	began := time.Now()
	before := samples(t, px.metricsText())
	for time.Since(began) < apart {
		meanwhile()
	}
	after, now := samples(t, px.metricsText()), time.Now()
	type series struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	}
	number := func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
	all := []series{{`up{job="shardproxy", instance="p1"}`, "1x60"}}
	for s, v := range after {
		name, _, _ := strings.Cut(s, "{")
		if !slices.Contains(names, name) {
			continue
		}
		perMinute := 0.0
		was, known := before[s]
		switch {
		case strings.HasSuffix(name, "_timestamp_seconds"):
			if v > 0 { // 0 is: never
				v -= float64(now.UnixMilli()) / 1000
				if known && after[s] > was {
					perMinute = 60
				}
			}
		case name == "shardproxy_uptime_seconds":
			perMinute = 60
		case known && (strings.HasSuffix(name, "_total") || strings.HasSuffix(name, "_count")):
			perMinute = (v - was) * 60 / now.Sub(began).Seconds()
		}
		if math.IsInf(v, 0) || math.IsNaN(v) {
			t.Fatalf("%s is %v", s, v)
		}
		sign := "+"
		if perMinute < 0 {
			sign = ""
		}
		all = append(all, series{s, number(v) + sign + number(perMinute) + "x60"})
	}
	path := filepath.Join(t.TempDir(), "quiet.yml")
	absolute, err := filepath.Abs(rulesPath)
	if err != nil {
		t.Fatal(err)
	}
	var looks []map[string]any
	for _, at := range []string{"5m", "20m", "40m", "1h"} {
		looks = append(looks, map[string]any{"expr": `ALERTS{alertstate="firing"}`, "eval_time": at, "exp_samples": []any{}})
	}
	writeYAML(t, path, map[string]any{
		"rule_files": []string{absolute}, "evaluation_interval": "30s",
		"tests": []map[string]any{{"interval": "1m", "input_series": all, "promql_expr_test": looks}},
	})
	promtool(t, "test", "rules", path)
	if len(all) < 20 {
		t.Fatalf("only %d series: %v", len(all), all)
	}
}

// TestAlertsQuiet: a proxy before a primary and a replica, with clients at work, has no alert. It has no TLS: the certificates of
// tests end within the day.
func TestAlertsQuiet(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{Replicas: 1})
	px := startProgram(t, cl, configText)
	c := px.connect()
	must(t, c, "CREATE TABLE measured (id int)")
	eventually(t, "a replica answers", func() bool { return serverPort(t, c) != cl.Primary().Port() })
	quietAlerts(t, px, 3*time.Second, func() {
		must(t, c, "INSERT INTO measured VALUES (1)")
		must(t, c, "SELECT count(*) FROM measured")
	})
}

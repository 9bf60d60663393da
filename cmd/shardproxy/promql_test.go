package main

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// promtool runs Prometheus' own tool, which knows what an expression means.
func promtool(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatalf("%v\nrun scripts/need-prometheus.sh, or as root: apt-get install prometheus", err)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// promQL is what an expression of PromQL names.
type promQL struct {
	metrics []string
	// labels are those of matchers and of groupings.
	labels []string
}

var (
	promToken    = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\[[^\]]*\]|[0-9.]+[a-zA-Z0-9.]*|[a-zA-Z_:][a-zA-Z0-9_:]*|\$\{?[a-zA-Z_]+\}?|[{}(),]|=~|!~|!=|==|[<>=]=?|[-+*/%^@]`)
	promKeywords = []string{"and", "or", "unless", "bool", "offset", "inf", "nan", "start", "end"}
	promListed   = []string{"by", "without", "on", "ignoring", "group_left", "group_right"}
)

// readPromQL finds the names. It knows the tokens and what stands around names; whether it is an expression is promtool's to say.
func readPromQL(expr string) (q promQL) {
	tokens := promToken.FindAllString(expr, -1)
	next := func(i int) string {
		if i+1 < len(tokens) {
			return tokens[i+1]
		}
		return ""
	}
	matchers, list := false, false
	for i, tok := range tokens {
		name := tok[0] == '_' || tok[0] == ':' || tok[0]|0x20 >= 'a' && tok[0]|0x20 <= 'z'
		switch {
		case tok == "{":
			matchers = true
		case tok == "}":
			matchers = false
		case tok == ")":
			list = false
		case !name || slices.Contains(promKeywords, tok):
		case slices.Contains(promListed, tok):
			list = next(i) == "("
		case matchers || list:
			q.labels = append(q.labels, tok)
		case next(i) == "(" || slices.Contains(promListed, next(i)) && i+2 < len(tokens) && !slices.Contains([]string{"on", "ignoring"}, next(i)):
			// A function, or an aggregation with its grouping first.
		default:
			q.metrics = append(q.metrics, tok)
		}
	}
	slices.Sort(q.metrics)
	slices.Sort(q.labels)
	q.metrics, q.labels = slices.Compact(q.metrics), slices.Compact(q.labels)
	return q
}

func TestReadPromQL(t *testing.T) {
	for _, c := range []struct{ expr, metrics, labels string }{
		{"up == 0", "up", ""},
		{`rate(a_total{x="y{z}",n!~"b_total"}[5m]) > bool 0.1e3`, "a_total", "n x"},
		{`sum without (one, two) (increase(a:b[1h] offset 5m)) / ignoring (three) group_left () c`, "a:b c", "one three two"},
		{`histogram_quantile(0.99, sum by (le) (rate(h_bucket{d=~"$database"}[$__rate_interval])))`, "h_bucket", "d le"},
		{`count(a == 1) by (shard) and on (job) max_over_time(b[1d]) unless c`, "a b c", "job shard"},
		{`sum(a) by (x) > on (y) b`, "a b", "x y"},
		{`a and b or 3 * -d ^ 2`, "a b d", ""},
	} {
		q := readPromQL(c.expr)
		if m, l := strings.Join(q.metrics, " "), strings.Join(q.labels, " "); m != c.metrics || l != c.labels {
			t.Errorf("%s: %q, %q", c.expr, m, l)
		}
	}
}

// exported are all families that the program has: those of docs/metrics.md, which are compared with what it exports, and
// those of Go and of the process. Series are under their own names; what is there is the labels.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{"up": nil, "ALERTS": {"alertname", "alertstate", "severity"}}
	for _, m := range regexp.MustCompile("(?m)^\\| `(shardproxy_[a-z_]+)` \\| ([a-z]+) \\| ([a-z_, ]*)\\|").FindAllStringSubmatch(string(page), -1) {
		addFamily(all, m[1], m[2], strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' || r == ' ' }))
	}
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		addFamily(all, f.GetName(), strings.ToLower(f.GetType().String()), labels)
	}
	return all
}

func addFamily(all map[string][]string, name, kind string, labels []string) {
	if kind != "histogram" {
		all[name] = labels
		return
	}
	all[name+"_sum"], all[name+"_count"] = labels, labels
	all[name+"_bucket"] = append(slices.Clone(labels), "le")
}

// checkPromQL holds an expression against what the program exports, and returns the labels that its result may have.
func checkPromQL(t *testing.T, where, expr string, families map[string][]string) (labels []string) {
	t.Helper()
	q := readPromQL(expr)
	if len(q.metrics) == 0 {
		t.Errorf("%s: no metric in %s", where, expr)
	}
	labels = []string{"job", "instance"}
	for _, m := range q.metrics {
		of, ok := families[m]
		if !ok {
			t.Errorf("%s: the program exports no %s", where, m)
		}
		labels = append(labels, of...)
	}
	for _, l := range q.labels {
		if !slices.Contains(labels, l) {
			t.Errorf("%s: none of %s has a label %s", where, strings.Join(q.metrics, ", "), l)
		}
	}
	return labels
}

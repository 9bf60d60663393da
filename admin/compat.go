package admin

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// compatPgBouncer is the value of compat that has /metrics speak of the console as pgbouncer_exporter does.
const compatPgBouncer = "pgbouncer"

// compatible has /metrics serve another set of names when the parameter compat asks for one. What it does not know it
// refuses: who misspells a name must not be served the usual families as if they were those.
func compatible(own, pgbouncer http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked, err := url.ParseQuery(r.URL.RawQuery)
		names, given := asked["compat"]
		switch {
		case err != nil:
			http.Error(w, "the parameters cannot be read", http.StatusBadRequest)
		case !given:
			own.ServeHTTP(w, r)
		case pgbouncer != nil && slices.Equal(names, []string{compatPgBouncer}):
			pgbouncer.ServeHTTP(w, r)
		default:
			http.Error(w, fmt.Sprintf("compat is %s, or is not given: %q", compatPgBouncer, names), http.StatusBadRequest)
		}
	})
}

// bouncerCollector gives what the console shows under the names that pgbouncer_exporter 0.12 gives it. It reads the
// rows of the same commands, so that both say the same. NULL is NaN, as there.
//
// The exporter's label application_name is what clients choose. It is in one family, which has no more series than
// there are clients; no family of our own has it.
type bouncerCollector struct {
	console *Console
	tables  []bouncerTable
	lists   map[string]*prometheus.Desc // by the rows of SHOW LISTS
	configs map[string]*prometheus.Desc // by the rows of SHOW CONFIG
	clients *prometheus.Desc
	version *prometheus.Desc
	up      *prometheus.Desc
}

// NewBouncerCollector returns what a console shows as the metric families of pgbouncer_exporter, for a registry of
// its own: they are those of /metrics?compat=pgbouncer.
func NewBouncerCollector(c *Console) prometheus.Collector {
	b := &bouncerCollector{
		console: c, tables: bouncerTables(), lists: map[string]*prometheus.Desc{}, configs: map[string]*prometheus.Desc{},
		clients: prometheus.NewDesc("pgbouncer_client_connections", "Clients, by what they are and do: SHOW CLIENTS.", []string{"database", "user", "application_name", "state"}, nil),
		version: prometheus.NewDesc("pgbouncer_version_info", "Always 1; the label is SHOW VERSION.", []string{"version"}, nil),
		up:      prometheus.NewDesc("pgbouncer_up", "Always 1: the proxy itself answers.", nil, nil),
	}
	for list, name := range map[string]string{
		"databases": "databases", "users": "users", "pools": "pools", "free_clients": "free_clients", "used_clients": "used_clients",
		"login_clients": "login_clients", "free_servers": "free_servers", "used_servers": "used_servers",
		"dns_names": "cached_dns_names", "dns_zones": "cached_dns_zones", "dns_queries": "in_flight_dns_queries",
	} {
		b.lists[list] = prometheus.NewDesc("pgbouncer_"+name, list+" of SHOW LISTS.", nil, nil)
	}
	for key, name := range map[string]string{"max_client_conn": "max_client_connections", "max_user_connections": "max_user_connections"} {
		b.configs[key] = prometheus.NewDesc("pgbouncer_config_"+name, key+" of SHOW CONFIG.", nil, nil)
	}
	return b
}

// Describe implements prometheus.Collector.
func (b *bouncerCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, t := range b.tables {
		for _, f := range t.figures {
			ch <- f.desc
		}
	}
	for _, d := range b.lists {
		ch <- d
	}
	for _, d := range b.configs {
		ch <- d
	}
	ch <- b.clients
	ch <- b.version
	ch <- b.up
}

// Collect implements prometheus.Collector.
func (b *bouncerCollector) Collect(ch chan<- prometheus.Metric) {
	for i := range b.tables {
		b.tables[i].collect(ch, b.console)
	}
	for _, row := range showLists(b.console) {
		if d := b.lists[row[0].(string)]; d != nil {
			emitSample(ch, d, prometheus.GaugeValue, float64(row[1].(int64)))
		}
	}
	for _, row := range showConfig(b.console) {
		if d := b.configs[row[0].(string)]; d != nil {
			b.config(ch, d, row[1].(string))
		}
	}
	b.countClients(ch)
	for _, row := range showVersion(b.console) {
		emitSample(ch, b.version, prometheus.GaugeValue, 1, labelOf(row[0]))
	}
	emitSample(ch, b.up, prometheus.GaugeValue, 1)
}

// config emits a setting that is a number.
func (b *bouncerCollector) config(ch chan<- prometheus.Metric, d *prometheus.Desc, value string) {
	n, err := strconv.ParseFloat(value, 64)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(d, fmt.Errorf("admin: %s: %w", d, err))
		return
	}
	emitSample(ch, d, prometheus.GaugeValue, n)
}

// countClients counts the rows of SHOW CLIENTS that have the same labels.
func (b *bouncerCollector) countClients(ch chan<- prometheus.Metric) {
	at := placesOf(clientColumns())
	counts := map[[4]string]int{}
	for _, row := range showClients(b.console) {
		counts[[4]string{labelOf(row[at["database"]]), labelOf(row[at["user"]]), labelOf(row[at["application_name"]]), labelOf(row[at["state"]])}]++
	}
	for of, n := range counts {
		emitSample(ch, b.clients, prometheus.GaugeValue, float64(n), of[:]...)
	}
}

// emitSample sends one sample.
func emitSample(ch chan<- prometheus.Metric, d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
	m, err := prometheus.NewConstMetric(d, t, v, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(d, fmt.Errorf("admin: %s: %w", d, err))
	}
	ch <- m
}

// labelOf returns a value of the console as a label: NULL is empty, and what is no UTF-8 is as the console says it.
func labelOf(v any) string {
	switch v := v.(type) {
	case string:
		return strings.ToValidUTF8(v, "\uFFFD")
	case int64:
		return strconv.FormatInt(v, 10)
	}
	return ""
}

// placesOf returns where columns stand, by their names.
func placesOf(columns []column) map[string]int {
	at := map[string]int{}
	for i, c := range columns {
		at[c.name] = i
	}
	return at
}

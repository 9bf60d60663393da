package admin

import (
	"math"

	"github.com/prometheus/client_golang/prometheus"
)

// microsecond is how long one is in seconds: PgBouncer's times are in these, Prometheus' in those.
const microsecond = 1e-6

// bouncerTable says what pgbouncer_exporter makes of the rows of one SHOW.
type bouncerTable struct {
	show    string
	columns []column
	rows    func(c *Console) [][]any
	labels  []string // columns
	figures []bouncerFigure
}

// bouncerFigure is a column that is a metric family.
type bouncerFigure struct {
	column string
	desc   *prometheus.Desc
	typ    prometheus.ValueType
	unit   float64 // of the column, in that of the family
}

// bouncerTables are the SHOW commands of which each row is a sample of each family.
func bouncerTables() []bouncerTable {
	databases := bouncerTable{show: "DATABASES", columns: databaseColumns(), rows: showDatabases, labels: []string{"name", "host", "port", "database", "force_user", "pool_mode"}}
	databases.gauges("databases",
		"pool_size", "pool_size", "reserve_pool_size", "reserve_pool", "max_connections", "max_connections",
		"current_connections", "current_connections", "paused", "paused", "disabled", "disabled")

	pools := bouncerTable{show: "POOLS", columns: poolColumns(), rows: showPools, labels: []string{"database", "user"}}
	pools.gauges("pools",
		"cl_active", "client_active_connections", "cl_waiting", "client_waiting_connections",
		"cl_active_cancel_req", "client_active_cancel_connections", "cl_waiting_cancel_req", "client_waiting_cancel_connections",
		"sv_active", "server_active_connections", "sv_active_cancel", "server_active_cancel_connections",
		"sv_being_canceled", "server_being_canceled_connections", "sv_idle", "server_idle_connections",
		"sv_used", "server_used_connections", "sv_tested", "server_testing_connections", "sv_login", "server_login_connections",
		"maxwait", "client_maxwait_seconds")

	stats := bouncerTable{show: "STATS_TOTALS", columns: totalsColumns(), rows: showStatsTotals, labels: []string{"database"}}
	stats.counters("stats_totals", 1,
		"query_count", "queries_pooled_total", "xact_count", "sql_transactions_pooled_total",
		"bytes_received", "received_bytes_total", "bytes_sent", "sent_bytes_total",
		"client_parse_count", "client_parses_total", "server_parse_count", "server_parses_total", "bind_count", "binds_total",
		"server_assignment_count", "server_assignments_total")
	stats.counters("stats_totals", microsecond,
		"query_time", "queries_duration_seconds_total", "xact_time", "server_in_transaction_seconds_total", "wait_time", "client_wait_seconds_total")
	return []bouncerTable{databases, pools, stats}
}

// gauges adds families, each with its column before it.
func (t *bouncerTable) gauges(of string, pairs ...string) { t.add(of, prometheus.GaugeValue, 1, pairs) }

// counters adds those that only grow.
func (t *bouncerTable) counters(of string, unit float64, pairs ...string) {
	t.add(of, prometheus.CounterValue, unit, pairs)
}

func (t *bouncerTable) add(of string, typ prometheus.ValueType, unit float64, pairs []string) {
	for i := 0; i < len(pairs); i += 2 {
		help := pairs[i] + " of SHOW " + t.show
		if unit == microsecond {
			help += ", in seconds"
		}
		t.figures = append(t.figures, bouncerFigure{pairs[i], prometheus.NewDesc("pgbouncer_"+of+"_"+pairs[i+1], help+".", t.labels, nil), typ, unit})
	}
}

// collect emits the families, of the rows there are now.
func (t *bouncerTable) collect(ch chan<- prometheus.Metric, c *Console) {
	at := placesOf(t.columns)
	for _, row := range t.rows(c) {
		labels := make([]string, len(t.labels))
		for i, l := range t.labels {
			labels[i] = labelOf(row[at[l]])
		}
		for _, f := range t.figures {
			v := math.NaN()
			if n, known := row[at[f.column]].(int64); known {
				v = float64(n) * f.unit
			}
			emitSample(ch, f.desc, f.typ, v, labels...)
		}
	}
}

package admin

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/audit"
	"shardproxy/cache"
	"shardproxy/gate"
	"shardproxy/histogram"
	"shardproxy/router"
)

// collector reads the Source at each scrape: nothing is counted twice, and
// nothing is counted here. What a node, a gate or a login has to tell, its own
// package exports.
//
// Labels are names of the configuration, roles of users and fixed words; what
// a client can choose freely, such as its address or application_name, is none.
type collector struct {
	source  Source
	version string
	now     func() time.Time
	descs   map[string]*prometheus.Desc
}

// MetricsOptions are what NewCollector needs; Source is required.
type MetricsOptions struct {
	Source  Source
	Version string           // of the program
	Clock   func() time.Time // time.Now when nil
}

// NewCollector returns the metric families of the proxy as a whole, its
// databases and its pools, for a registry.
func NewCollector(o MetricsOptions) prometheus.Collector {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	c := &collector{source: o.Source, version: o.Version, now: o.Clock, descs: map[string]*prometheus.Desc{}}
	for _, f := range families() {
		c.descs[f.name] = prometheus.NewDesc("shardproxy_"+f.name, f.help, f.labels, nil)
	}
	return c
}

// family describes what the collector exports.
type family struct {
	name, help string
	labels     []string
}

// families are all of the collector's, in the order of docs/metrics.md.
func families() []family {
	var all []family
	add := func(labels []string, pairs ...string) {
		for i := 0; i < len(pairs); i += 2 {
			all = append(all, family{pairs[i], pairs[i+1], labels})
		}
	}
	add([]string{"version", "go_version"}, "build_info", "Always 1; the labels say what runs.")
	add([]string{"event"}, "audit_lines_total", "Lines of the audit log, by what they tell of.")
	add(nil,
		"uptime_seconds", "Time since the process started.",
		"listening", "1 while new clients are accepted, else 0.",
		"draining", "1 once a shutdown has begun, else 0.",
		"clients_limit", "Clients allowed in all (limits.max_clients).",
		"clients_logging_in", "Connections that have not logged in yet, and sessions of the console.",
		"client_connections_total", "Connections accepted.",
		"client_connections_refused_total", "Connections turned away before a session began.",
		"client_logins_total", "Sessions begun.",
		"peers", "Other processes of the machine that cancel requests are passed on to (listen.peer_directory).",
		"peer_cancels_received_total", "Cancel requests that other processes passed on and that named a session here.",
		"tracing_spans_total", "Spans that the collector has taken.",
		"tracing_requests_dropped_total", "Requests that it was not told of, because too many waited to be told of or it did not take them.",
		"tracing_export_failures_total", "Messages to the collector that failed.",
		"audit_lines_missing_total", "Lines of the audit log that are missing: too many waited to be written.",
		"audit_write_failures_total", "Attempts to write to the audit log that failed.",
		"audit_waiting_bytes", "Lines of the audit log that wait to be written, in bytes.",
		"config_reload_failures_total", "Reloads that failed and changed nothing.",
		"config_reloads_total", "Reloads, failed ones included.",
		"config_last_reload_successful", "1 when the last reload succeeded or there was none, else 0.",
		"config_loaded_timestamp_seconds", "When the configuration in force was loaded, in seconds since 1970; 0 when none is.",
	)
	add([]string{"session"}, "cancel_requests_total", "Cancel requests of clients, by who has the session that they name: own, peer (another process of the machine, which was told) or unknown.")
	add([]string{"kind", "by"},
		"rate_waits_total", "Waits because of a rate, by kind (statements, logins, bytes) and by whose rate it was (user, database, address).",
		"rate_refusals_total", "Statements and logins refused because of a rate, by kind and by whose rate it was.")
	add([]string{"kind", "by"},
		"concurrency_waits_total", "Waits because too many statements ran at a time, by kind (statements, reads, writes, several) and by whose bound it was (user, database).",
		"concurrency_refusals_total", "Statements refused because too many ran at a time, by kind and by whose bound it was.")
	add([]string{"database", "state"}, "clients", "Clients logged in, by what they do.")
	add([]string{"database"},
		"database_clients_limit", "Clients allowed; 0 is no bound of the database's own.",
		"database_servers_limit", "Server connections of all users to all nodes allowed; 0 is no bound.",
		"database_paused", "1 while PAUSE or KILL is in force, else 0.",
		"database_statements_total", "Statements.",
		"database_transactions_total", "Transactions; a statement outside a block is one.",
		"database_reads_total", "Statements proven to read.",
		"database_replica_reads_total", "Statements proven to read that ran on a replica.",
		"database_errors_total", "Errors that clients were told of.",
		"database_retries_total", "Statements tried again without the client seeing it.",
		"database_pins_total", "Times a session began to keep its server connection between transactions.",
		"database_audits_total", "Times a server connection was asked what state it holds.",
		"database_received_bytes_total", "Bytes received from clients.",
		"database_sent_bytes_total", "Bytes sent to clients.",
		"deadlocks_total", "Deadlocks over several shards that this process has ended.",
		"partial_answers_total", "Answers that lacked shards which could not be reached, as shardproxy.partial_results allows.",
		"gathered_bytes_total", "Bytes of rows that were gathered from several shards.",
		"gather_held_bytes", "Bytes of gathered rows that are held now.",
		"pool_leases_total", "Times a server connection was lent.",
		"pool_wait_seconds_total", "Time that clients waited for a server connection.",
		"pool_refused_total", "Statements refused because the queue was full.",
		"pool_wait_timeouts_total", "Statements refused because no server connection became free within pool.wait_timeout.",
		"servers_opened_total", "Server connections opened.",
		"servers_closed_total", "Server connections closed.",
		"server_dial_errors_total", "Server connections that could not be opened.",
		"server_resets_total", "Server connections reset before their next use.",
		"server_cancels_total", "Cancel requests sent to servers.",
	)
	add([]string{"database"}, "pool_wait_duration_seconds", "Times that clients waited for a server connection and got it; those who found one are not among them.")
	add([]string{"database", "kind", "scope"}, "requests_total", "Requests answered, by kind (read, write, transaction) and scope (one shard, several, refused).",
		"request_duration_seconds", "Time from a request's first byte to the end of its answer, waits included, of one in eight requests of each session.")
	add([]string{"database", "reason"}, "refusals_total", "Requests refused because they cannot be run over several shards, or because an operator has blocked them, by the reason.")
	add([]string{"database"},
		"statement_fingerprints", "Kinds of statements whose costs are counted: see SHOW QUERIES.",
		"statement_fingerprints_limit", "How many there may be (limits.statements); 0: nothing is counted.",
		"slow_statements_total", "Requests that took as long as log.slow_statement.",
		"slow_statements_unlogged_total", "Those of them that were not logged, because there were more than ten a second.",
		"statement_fingerprint_evictions_total", "Kinds of statements that gave way to others in SHOW QUERIES.")
	add([]string{"database"},
		"cache_open", "1 while results are kept, 0 while what other proxies write is not heard; only of databases that keep results, as all of the cache's.",
		"cache_entries", "Results that are kept.",
		"cache_bytes", "What they take.",
		"cache_limit_bytes", "What they may take (cache.size).",
		"cache_hits_total", "Requests that were answered with a kept result.",
		"cache_misses_total", "Requests that could have been, and were not.",
		"cache_waits_total", "Misses that waited for somebody who asked the same.",
		"cache_stored_total", "Results that came in.")
	add([]string{"database", "reason"},
		"cache_unstored_total", "Results that were not kept, by the reason: large, or stale for a table that had changed while they were read.",
		"cache_dropped_total", "Results that are no longer kept, by the reason: invalidated, expired, or evicted to make room.")
	add([]string{"database", "way"}, "scatters_total", "Queries over several shards, by how they were answered.")
	add([]string{"database", "user", "node", "state"}, "servers", "Server connections, by what they do.")
	add([]string{"database", "user", "node"},
		"pool_size", "Server connections allowed.",
		"pool_waiting", "Clients that wait for a server connection.",
		"pool_longest_wait_seconds", "Time that the first in the queue has waited.",
	)
	add([]string{"database", "shard"},
		"shard_gate_closed", "1 while statements wait at the shard's gate, else 0.",
		"shard_held_limit", "Statements that may wait at the shard's gate.",
		"shard_longest_held_seconds", "Time that the first statement at the shard's gate has waited.",
		"breaker_opened_total", "Times that the shard's circuit breaker has opened.",
		"breaker_refusals_total", "Statements that it has refused.",
	)
	add([]string{"database", "shard", "state"}, "breaker_state", "1 for the state of the shard's circuit breaker: closed, open or half-open; else 0.")
	return append(all, clusterFamilies()...)
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range families() {
		ch <- c.descs[f.name]
	}
}

// emitter sends samples of one scrape.
type emitter struct {
	c  *collector
	ch chan<- prometheus.Metric
}

func (e emitter) emit(t prometheus.ValueType, name string, v float64, labels ...string) {
	m, err := prometheus.NewConstMetric(e.c.descs[name], t, v, labels...)
	if err != nil {
		// A name that is no UTF-8: the scrape fails and says which.
		m = prometheus.NewInvalidMetric(e.c.descs[name], fmt.Errorf("admin: %s: %w", name, err))
	}
	e.ch <- m
}

func (e emitter) gauge(name string, v float64, labels ...string) {
	e.emit(prometheus.GaugeValue, name, v, labels...)
}

func (e emitter) counter(name string, v int64, labels ...string) {
	e.emit(prometheus.CounterValue, name, float64(v), labels...)
}

// seconds is a counter of time.
func (e emitter) seconds(name string, d time.Duration, labels ...string) {
	e.emit(prometheus.CounterValue, name, d.Seconds(), labels...)
}

// histogram sends what was counted in buckets.
func (e emitter) histogram(name string, c histogram.Counts, labels ...string) {
	count, sum, buckets := c.Cumulative()
	m, err := prometheus.NewConstHistogram(e.c.descs[name], count, sum, buckets, labels...)
	if err != nil {
		m = prometheus.NewInvalidMetric(e.c.descs[name], fmt.Errorf("admin: %s: %w", name, err))
	}
	e.ch <- m
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	e := emitter{c, ch}
	now := c.now()
	e.process(c.source.Process(), c.version, now)
	databases := c.source.Databases()
	for i := range databases {
		e.database(&databases[i], now)
	}
	e.clients(databases, c.source.Clients())
	for _, p := range mergePools(c.source.Pools()) {
		e.pool(&p)
	}
}

func (e emitter) process(p Process, version string, now time.Time) {
	e.gauge("build_info", 1, version, runtime.Version())
	e.gauge("uptime_seconds", now.Sub(p.Started).Seconds())
	e.gauge("listening", float64(bit(p.Listening)))
	e.gauge("draining", float64(bit(p.Draining)))
	e.gauge("clients_limit", float64(p.MaxClients))
	e.gauge("clients_logging_in", float64(p.LoggingIn))
	e.counter("client_connections_total", p.Totals.Accepted)
	e.counter("client_connections_refused_total", p.Totals.Refused)
	e.counter("client_logins_total", p.Totals.Logins)
	e.gauge("peers", float64(len(p.Peers)))
	e.counter("peer_cancels_received_total", p.Totals.Cancels.Received)
	e.counter("cancel_requests_total", p.Totals.Cancels.Own, "own")
	e.counter("cancel_requests_total", p.Totals.Cancels.Passed, "peer")
	e.counter("cancel_requests_total", p.Totals.Cancels.Unknown, "unknown")
	for _, l := range p.Limited {
		e.counter("rate_waits_total", l.Waited, l.Kind, l.By)
		e.counter("rate_refusals_total", l.Refused, l.Kind, l.By)
	}
	for _, c := range p.Crowded {
		e.counter("concurrency_waits_total", c.Waited, c.Kind, c.By)
		e.counter("concurrency_refusals_total", c.Refused, c.Kind, c.By)
	}
	e.counter("tracing_spans_total", p.Spans)
	e.counter("tracing_requests_dropped_total", p.SpansDropped)
	e.counter("tracing_export_failures_total", p.SpanFailures)
	for _, event := range audit.Events() {
		e.counter("audit_lines_total", p.Audit.Lines[event], event)
	}
	e.counter("audit_lines_missing_total", p.Audit.Missing)
	e.counter("audit_write_failures_total", p.Audit.Failures)
	e.gauge("audit_waiting_bytes", float64(p.Audit.Waiting))
	e.counter("config_reloads_total", p.Reloads)
	e.counter("config_reload_failures_total", p.ReloadFailures)
	e.gauge("config_last_reload_successful", float64(bit(p.ReloadError == "")))
	loaded := 0.0
	if !p.ConfiguredAt.IsZero() {
		loaded = float64(p.ConfiguredAt.UnixMilli()) / 1000
	}
	e.gauge("config_loaded_timestamp_seconds", loaded)
}

func (e emitter) database(d *Database, now time.Time) {
	e.gauge("database_clients_limit", float64(d.MaxClients), d.Name)
	e.gauge("database_servers_limit", float64(d.MaxServers), d.Name)
	e.gauge("database_paused", float64(bit(d.Paused)), d.Name)
	t := &d.Totals
	e.counter("database_statements_total", t.Statements, d.Name)
	e.counter("database_transactions_total", t.Transactions, d.Name)
	e.counter("database_reads_total", t.Reads, d.Name)
	e.counter("database_replica_reads_total", t.ReplicaReads, d.Name)
	e.counter("database_errors_total", t.Errors, d.Name)
	e.counter("database_retries_total", t.Retries, d.Name)
	e.counter("database_pins_total", t.Pins, d.Name)
	e.counter("database_audits_total", t.Audits, d.Name)
	e.counter("database_received_bytes_total", t.Received, d.Name)
	e.counter("database_sent_bytes_total", t.Sent, d.Name)
	for _, reason := range router.Reasons() {
		e.counter("refusals_total", d.Refusals[reason], d.Name, string(reason))
	}
	for _, way := range slices.Sorted(maps.Keys(d.Scatters)) {
		e.counter("scatters_total", d.Scatters[way], d.Name, way)
	}
	for _, of := range d.Asked {
		e.counter("requests_total", of.Count, d.Name, of.Kind, of.Scope)
		e.histogram("request_duration_seconds", of.Durations, d.Name, of.Kind, of.Scope)
	}
	e.counter("slow_statements_total", d.Slow, d.Name)
	e.counter("slow_statements_unlogged_total", d.SlowUnlogged, d.Name)
	e.gauge("statement_fingerprints", float64(d.StatementState.Entries), d.Name)
	e.gauge("statement_fingerprints_limit", float64(d.StatementState.Limit), d.Name)
	e.counter("statement_fingerprint_evictions_total", d.StatementState.Evictions, d.Name)
	e.histogram("pool_wait_duration_seconds", d.PoolTotals.Waits, d.Name)
	e.counter("deadlocks_total", t.Deadlocks, d.Name)
	e.counter("partial_answers_total", t.Partials, d.Name)
	e.counter("gathered_bytes_total", t.Gathered, d.Name)
	e.gauge("gather_held_bytes", float64(t.GatherHeld), d.Name)
	p := &d.PoolTotals
	e.counter("pool_leases_total", p.Assigned, d.Name)
	e.seconds("pool_wait_seconds_total", time.Duration(p.WaitNanos), d.Name)
	e.counter("pool_refused_total", p.Shed, d.Name)
	e.counter("pool_wait_timeouts_total", t.WaitTimeouts, d.Name)
	e.counter("servers_opened_total", p.Opened, d.Name)
	e.counter("servers_closed_total", p.Closed, d.Name)
	e.counter("server_dial_errors_total", p.DialErrors, d.Name)
	e.counter("server_resets_total", p.Resets, d.Name)
	e.counter("server_cancels_total", p.Cancels, d.Name)
	if d.Cluster != nil {
		e.cluster(d.Name, d.Cluster())
	}
	if d.Cache != nil {
		e.cache(d.Name, d.Cache)
	}
	for i := range d.Shards {
		e.shard(d.Name, &d.Shards[i], now)
	}
}

func (e emitter) cache(database string, k *cache.Stats) {
	e.gauge("cache_open", float64(bit(k.Open)), database)
	e.gauge("cache_entries", float64(k.Entries), database)
	e.gauge("cache_bytes", float64(k.Bytes), database)
	e.gauge("cache_limit_bytes", float64(k.BytesMax), database)
	e.counter("cache_hits_total", k.Hits, database)
	e.counter("cache_misses_total", k.Misses, database)
	e.counter("cache_waits_total", k.Waits, database)
	e.counter("cache_stored_total", k.Stored, database)
	e.counter("cache_unstored_total", k.Large, database, "large")
	e.counter("cache_unstored_total", k.Stale, database, "stale")
	e.counter("cache_dropped_total", k.Invalidated, database, "invalidated")
	e.counter("cache_dropped_total", k.Expired, database, "expired")
	e.counter("cache_dropped_total", k.Evicted, database, "evicted")
}

func (e emitter) shard(database string, s *Shard, now time.Time) {
	held := time.Duration(0)
	if t := s.Gate.OldestSince; !t.IsZero() {
		held = max(now.Sub(t), 0)
	}
	e.gauge("shard_gate_closed", float64(bit(s.Gate.Closed)), database, s.Name)
	e.gauge("shard_held_limit", float64(s.Gate.HeldMax), database, s.Name)
	e.gauge("shard_longest_held_seconds", held.Seconds(), database, s.Name)
	for _, state := range []gate.BreakerState{gate.BreakerClosed, gate.BreakerOpen, gate.BreakerHalfOpen} {
		e.gauge("breaker_state", float64(bit(s.Breaker.State == state)), database, s.Name, state.String())
	}
	e.counter("breaker_opened_total", s.Breaker.Opened, database, s.Name)
	e.counter("breaker_refusals_total", s.Breaker.Refused, database, s.Name)
}

// clients counts by database and state; states without clients are 0, so that
// no series comes and goes.
func (e emitter) clients(databases []Database, clients []Client) {
	counts := map[string]*[ClientIdleInTx + 1]int{}
	for _, d := range databases {
		counts[d.Name] = new([ClientIdleInTx + 1]int)
	}
	for i := range clients {
		k := clients[i].Database
		if counts[k] == nil { // of a database that a reload has taken out
			counts[k] = new([ClientIdleInTx + 1]int)
		}
		counts[k][clients[i].State]++
	}
	for database, states := range counts {
		for s, n := range states {
			e.gauge("clients", float64(n), database, ClientState(s).String())
		}
	}
}

func (e emitter) pool(p *Pool) {
	for s, n := range map[ServerState]int{
		ServerIdle: p.Idle, ServerActive: p.Lent, ServerParked: p.Parked, ServerLogin: p.Dialling,
	} {
		e.gauge("servers", float64(n), p.Database, p.User, p.Address, s.String())
	}
	e.gauge("pool_size", float64(p.Size), p.Database, p.User, p.Address)
	e.gauge("pool_waiting", float64(p.Waiting), p.Database, p.User, p.Address)
	e.gauge("pool_longest_wait_seconds", p.MaxWait.Seconds(), p.Database, p.User, p.Address)
}

package admin

import (
	"fmt"
	"time"

	"shardproxy/failover"
	"shardproxy/gate"
)

// The types here are the contract of /api/v1/status. Names are snake_case with
// their unit; a "_total" counts since the start of the process; what is not
// known is null. A test keeps docs/dashboard.md to them.

type apiStatus struct {
	At        time.Time     `json:"at" doc:"when the picture was taken"`
	Version   string        `json:"version" doc:"of the program"`
	Verdict   verdict       `json:"verdict" doc:"how the proxy is, in words"`
	Process   apiProcess    `json:"process" doc:"the proxy as a whole"`
	Databases []apiDatabase `json:"databases" doc:"in the order of the configuration"`
	Pools     []apiPool     `json:"pools" doc:"one for each user and node that were ever used"`
}

type apiProcess struct {
	StartedAt          time.Time  `json:"started_at" doc:"when the process started"`
	UptimeSeconds      float64    `json:"uptime_seconds" doc:"since then"`
	Listening          bool       `json:"listening" doc:"new clients are accepted"`
	Draining           bool       `json:"draining" doc:"a shutdown has begun"`
	ClientsLoggingIn   int        `json:"clients_logging_in" doc:"connections that have not logged in yet"`
	ClientsLimit       int        `json:"clients_limit" doc:"limits.max_clients"`
	ConnectionsTotal   int64      `json:"connections_total" doc:"connections accepted"`
	RefusedTotal       int64      `json:"connections_refused_total" doc:"connections turned away before a session began"`
	LoginsTotal        int64      `json:"logins_total" doc:"sessions begun"`
	ConfiguredAt       *time.Time `json:"configured_at" doc:"when the configuration in force was loaded"`
	ReloadsTotal       int64      `json:"reloads_total" doc:"reloads, failed ones included"`
	ReloadFailureTotal int64      `json:"reload_failures_total" doc:"reloads that failed and changed nothing"`
	ReloadError        *string    `json:"reload_error" doc:"why the last reload failed"`
}

type apiDatabase struct {
	Name              string           `json:"name" doc:"as clients name it"`
	Mode              string           `json:"mode" doc:"transaction, session or statement"`
	Paused            bool             `json:"paused" doc:"PAUSE or KILL is in force"`
	Clients           int              `json:"clients" doc:"logged in"`
	ClientsLimit      int              `json:"clients_limit" doc:"of the database's own; 0 is none"`
	ServersLimit      int              `json:"servers_limit" doc:"connections to servers, all users and nodes; 0 is none"`
	StatementsTotal   int64            `json:"statements_total" doc:"statements"`
	TransactionsTotal int64            `json:"transactions_total" doc:"transactions; a statement outside a block is one"`
	ReadsTotal        int64            `json:"reads_total" doc:"statements proven to read"`
	ReplicaReadsTotal int64            `json:"replica_reads_total" doc:"of those, run on a replica"`
	ErrorsTotal       int64            `json:"errors_total" doc:"errors that clients were told of"`
	RetriesTotal      int64            `json:"retries_total" doc:"statements tried again without the client seeing it"`
	DeadlocksTotal    int64            `json:"deadlocks_total" doc:"deadlocks over several shards that this proxy has ended"`
	PartialsTotal     int64            `json:"partial_answers_total" doc:"answers that lacked shards"`
	Refusals          map[string]int64 `json:"refusals_total" doc:"requests that no shard could be found for, by the reason; reasons without any are left out"`
	Scatters          map[string]int64 `json:"scatters_total" doc:"queries over several shards, by how they were answered"`
	Shards            []apiShard       `json:"shards" doc:"in the order of the configuration; the first is the home shard"`
}

type apiShard struct {
	Name     string    `json:"name" doc:"as configured"`
	Class    string    `json:"class" doc:"bad: no primary, or the circuit breaker is open; warn: a node is not used, a gate is closed, or a client waits; else good"`
	Why      string    `json:"why" doc:"the reason in words; empty when good"`
	Primary  *string   `json:"primary" doc:"address of the node that takes writes"`
	Timeline uint32    `json:"timeline" doc:"of the primary, or the highest seen"`
	Gate     apiGate   `json:"gate" doc:"where statements wait while there is no safe node"`
	Breaker  string    `json:"breaker" doc:"the circuit breaker: closed, open or half-open"`
	Nodes    []apiNode `json:"nodes" doc:"in the order of the configuration"`
}

type apiGate struct {
	Closed            bool       `json:"closed" doc:"whoever comes now waits"`
	Draining          bool       `json:"draining" doc:"opened, and still letting go of those who waited"`
	Reason            string     `json:"reason" doc:"why it was closed"`
	ClosedSince       *time.Time `json:"closed_since" doc:"since when"`
	Held              int        `json:"held" doc:"statements that wait"`
	HeldLimit         int        `json:"held_limit" doc:"as many may"`
	OldestHeldSeconds float64    `json:"oldest_held_seconds" doc:"how long the first of them has waited"`
}

type apiNode struct {
	Address        string     `json:"address" doc:"as configured"`
	Role           string     `json:"role" doc:"what it last said: primary, replica or unknown"`
	Health         string     `json:"health" doc:"up, lagging, refused, down or unknown, as SHOW NODES says"`
	Reason         string     `json:"reason" doc:"why it is not used; empty when it is"`
	Writes         bool       `json:"writes" doc:"writes go to it"`
	Since          *time.Time `json:"since" doc:"when role or health last changed"`
	LagBytes       *int64     `json:"lag_bytes" doc:"WAL that a replica has not replayed"`
	LagSeconds     *float64   `json:"lag_seconds" doc:"how old a replica's data may be"`
	ProbeSeconds   float64    `json:"probe_seconds" doc:"how long the last answered probe took"`
	LastError      string     `json:"last_error" doc:"what the last failed probe met, kept after it recovered"`
	LastErrorAt    *time.Time `json:"last_error_at" doc:"when"`
	ServersActive  int        `json:"servers_active" doc:"connections on loan"`
	ServersIdle    int        `json:"servers_idle" doc:"connections that nobody uses"`
	ServersOpening int        `json:"servers_opening" doc:"connections being opened"`
	ClientsWaiting int        `json:"clients_waiting" doc:"clients that wait for a connection to it"`
}

type apiPool struct {
	Database           string  `json:"database" doc:"the database"`
	User               string  `json:"user" doc:"as it logged in to the proxy"`
	Shard              string  `json:"shard" doc:"the shard"`
	Node               string  `json:"node" doc:"the server's address"`
	Mode               string  `json:"mode" doc:"transaction, session or statement"`
	ServersActive      int     `json:"servers_active" doc:"connections on loan"`
	ServersIdle        int     `json:"servers_idle" doc:"connections that nobody uses"`
	ServersParked      int     `json:"servers_parked" doc:"being reset, or waiting for a cancel request to land"`
	ServersOpening     int     `json:"servers_opening" doc:"connections being opened"`
	ServersLimit       int     `json:"servers_limit" doc:"as many may be open"`
	ClientsWaiting     int     `json:"clients_waiting" doc:"clients in the queue"`
	LongestWaitSeconds float64 `json:"longest_wait_seconds" doc:"how long the first of them has waited"`
}

// apiTime is null for no time.
func apiTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// apiText is null for no text.
func apiText(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// statusOf makes the picture of all that the proxy knows by itself.
func statusOf(version string, p Process, databases []Database, pools []Pool, now time.Time) *apiStatus {
	pools = mergePools(pools)
	st := &apiStatus{
		At: now.UTC(), Version: version, Verdict: judge(p, databases, pools, now),
		Process: apiProcess{
			StartedAt: p.Started.UTC(), UptimeSeconds: now.Sub(p.Started).Seconds(), Listening: p.Listening, Draining: p.Draining,
			ClientsLoggingIn: p.LoggingIn, ClientsLimit: p.MaxClients, ConnectionsTotal: p.Totals.Accepted, RefusedTotal: p.Totals.Refused,
			LoginsTotal: p.Totals.Logins, ConfiguredAt: apiTime(p.ConfiguredAt), ReloadsTotal: p.Reloads, ReloadFailureTotal: p.ReloadFailures,
			ReloadError: apiText(p.ReloadError),
		},
		Databases: []apiDatabase{}, Pools: []apiPool{},
	}
	nodes := map[nodeKey]*Pool{} // summed over users
	for i := range pools {
		pl := &pools[i]
		st.Pools = append(st.Pools, apiPool{
			Database: pl.Database, User: pl.User, Shard: pl.Shard, Node: pl.Address, Mode: pl.Mode, ServersActive: pl.Lent, ServersIdle: pl.Idle,
			ServersParked: pl.Parked, ServersOpening: pl.Dialling, ServersLimit: pl.Size, ClientsWaiting: pl.Waiting, LongestWaitSeconds: pl.MaxWait.Seconds(),
		})
		k := nodeKey{pl.Database, pl.Shard, pl.Address}
		sum := nodes[k]
		if sum == nil {
			sum = &Pool{}
			nodes[k] = sum
		}
		sum.Lent += pl.Lent
		sum.Idle += pl.Idle
		sum.Dialling += pl.Dialling
		sum.Waiting += pl.Waiting
	}
	for i := range databases {
		st.Databases = append(st.Databases, databaseOf(&databases[i], nodes, now))
	}
	return st
}

func databaseOf(d *Database, pools map[nodeKey]*Pool, now time.Time) apiDatabase {
	t := &d.Totals
	out := apiDatabase{
		Name: d.Name, Mode: d.Mode, Paused: d.Paused, Clients: d.Clients, ClientsLimit: d.MaxClients, ServersLimit: d.MaxServers,
		StatementsTotal: t.Statements, TransactionsTotal: t.Transactions, ReadsTotal: t.Reads, ReplicaReadsTotal: t.ReplicaReads,
		ErrorsTotal: t.Errors, RetriesTotal: t.Retries, DeadlocksTotal: t.Deadlocks, PartialsTotal: t.Partials,
		Refusals: map[string]int64{}, Scatters: map[string]int64{}, Shards: []apiShard{},
	}
	for why, n := range d.Refusals {
		if n > 0 {
			out.Refusals[string(why)] = n
		}
	}
	for way, n := range d.Scatters {
		out.Scatters[way] = n
	}
	for i := range d.Shards {
		out.Shards = append(out.Shards, shardOf(d.Name, &d.Shards[i], pools, now))
	}
	return out
}

func shardOf(database string, sh *Shard, pools map[nodeKey]*Pool, now time.Time) apiShard {
	out := apiShard{Name: sh.Name, Class: classGood, Timeline: sh.Nodes.Timeline, Gate: gateOf(&sh.Gate, now), Breaker: sh.Breaker.State.String(), Nodes: []apiNode{}}
	warn := func(why string) {
		if out.Class == classGood {
			out.Class, out.Why = classWarn, why
		}
	}
	primary := sh.Primary()
	if primary == nil {
		out.Class, out.Why = classBad, "no primary: "+sh.Nodes.NoPrimary
	} else {
		out.Primary = &primary.Address
	}
	if sh.Breaker.State != gate.BreakerClosed && out.Class != classBad {
		out.Class, out.Why = classBad, "left alone: "+brokenBy(&sh.Breaker)
	}
	if sh.Gate.Closed {
		warn("held: " + sh.Gate.Reason)
	}
	for i := range sh.Nodes.Nodes {
		n := &sh.Nodes.Nodes[i]
		node := nodeOf(n, n == primary)
		if p := pools[nodeKey{database, sh.Name, n.Address}]; p != nil {
			node.ServersActive, node.ServersIdle, node.ServersOpening, node.ClientsWaiting = p.Lent, p.Idle, p.Dialling, p.Waiting
		}
		if n.Reason != "" {
			warn(n.Address + " is " + n.Health.String() + ": " + n.Reason)
		}
		if node.ClientsWaiting > 0 {
			warn("clients wait for " + n.Address)
		}
		out.Nodes = append(out.Nodes, node)
	}
	return out
}

// brokenBy says why a breaker is not closed.
func brokenBy(b *gate.BreakerStatus) string {
	return fmt.Sprintf("%d of %d statements failed, the last with %s; the circuit breaker is %s", b.Fails, b.Tries, b.Last, b.State)
}

func gateOf(g *gate.Stats, now time.Time) apiGate {
	out := apiGate{Closed: g.Closed, Draining: g.Draining, Reason: g.Reason, ClosedSince: apiTime(g.ClosedSince), Held: g.HeldNow, HeldLimit: g.HeldMax}
	if !g.OldestSince.IsZero() {
		out.OldestHeldSeconds = max(now.Sub(g.OldestSince), 0).Seconds()
	}
	return out
}

func nodeOf(n *failover.NodeStatus, writes bool) apiNode {
	out := apiNode{
		Address: n.Address, Role: n.Role.String(), Health: n.Health.String(), Reason: n.Reason, Writes: writes, Since: apiTime(n.Since),
		ProbeSeconds: n.ProbeLatency.Seconds(), LastError: n.LastError, LastErrorAt: apiTime(n.LastErrorAt),
	}
	if n.Lag.Known {
		bytes, seconds := int64(n.Lag.Bytes), n.Lag.Time.Seconds()
		out.LagBytes, out.LagSeconds = &bytes, &seconds
	}
	return out
}

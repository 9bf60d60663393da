package dashtest

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"shardproxy/admin"
	"shardproxy/failover"
	"shardproxy/gate"
	"shardproxy/metadata"
	"shardproxy/pool"
	"shardproxy/proxy"
	"shardproxy/shardmap"
	"shardproxy/tally"
	"shardproxy/twopc"
)

// made is a proxy that is not there: 64 shards of three nodes, some of them in
// trouble, 4,096 slots, and two moves.
type made struct {
	mu      sync.Mutex
	started time.Time
	copied  int64
	reads   int64
	well    bool // nothing is wrong
}

func (m *made) setCopied(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.copied = n
}

const (
	madeShards = 64
	madeSlots  = 4096
)

// Process implements admin.Source.
func (m *made) Process() admin.Process {
	return admin.Process{Started: m.started, Listening: true, MaxClients: 10000, ConfiguredAt: m.started}
}

// Databases implements admin.Source.
func (m *made) Databases() []admin.Database {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	n := 100 * m.reads
	shop := admin.Database{Name: "shop", Mode: "transaction", Clients: 1834, MaxClients: 5000,
		Totals:     proxy.DatabaseTotals{Statements: n * 9, Transactions: n * 7, Reads: n * 8, ReplicaReads: n * 6, Errors: n / 40, Retries: n / 90},
		PoolTotals: pool.Totals{Assigned: n * 7, WaitNanos: n * 7 * int64(350*time.Microsecond)}, Cluster: m.cluster(m.copied)}
	for i := range madeShards {
		shop.Shards = append(shop.Shards, m.shard(i))
	}
	if !m.well {
		shop.Doubts = []twopc.Doubt{{Shard: "s07", Name: "shardproxy:c1:s03:a8f3:17", Owner: "app", Age: 95 * time.Second, Reason: "shard s03, which decides, cannot be asked: connection refused"}}
	}
	shop.Statements = madeStatements
	shop.HotSlots = func(int, int64) []tally.HotSlot {
		return []tally.HotSlot{{Slot: 655, Count: 900, Of: 2400, Over: time.Minute}, {Slot: 12, Count: 100, Of: 2400, Over: time.Minute}}
	}
	shop.Errors = []proxy.ErrorCount{{Code: "23505", Count: 812, Last: m.started}, {Code: "57P03", Own: true, Count: 91, Last: m.started, Message: `no primary within the hold timeout <b>"..."</b>`}}
	audit := admin.Database{Name: "audit", Mode: "session", Clients: 12, Shards: []admin.Shard{{Name: "only", Nodes: &failover.Snapshot{At: time.Now(),
		Nodes: []failover.NodeStatus{{Address: "10.1.0.1:5432", Role: failover.RolePrimary, Health: failover.Up, Since: m.started}}}}}}
	return []admin.Database{shop, audit}
}

// madeStatements are 30 statements, of which each order has another first.
func madeStatements() (all []tally.Statement, state tally.State) {
	for i := range 30 {
		s := tally.Statement{Fingerprint: uint64(0xfeed0000 + i), Text: fmt.Sprintf("select c%d from orders where customer_id = $1 and note <> '<i>' order by id", i), Calls: int64(1000 * (i + 1)), Rows: int64(i), Timed: 100,
			ByShard: make([]int64, madeShards), Max: time.Second}
		mean := time.Duration(31-i) * time.Millisecond
		s.Total, s.P50, s.P95, s.P99 = 100*mean, mean/2, 2*mean, 3*mean
		if s.ByShard[i] = s.Calls; i%10 == 3 {
			s.Several, s.Shards = s.Calls/int64(i), s.Calls*madeShards
		}
		if i == 7 {
			s.Errors = 9
		}
		all = append(all, s)
	}
	return all, tally.State{Since: time.Now().Add(-time.Hour), Entries: 30, Limit: 1000}
}

func (m *made) shard(i int) admin.Shard {
	now := time.Now()
	s := &failover.Snapshot{At: now, Timeline: 3}
	for k := range 3 {
		n := failover.NodeStatus{ID: failover.NodeID(k), Address: fmt.Sprintf("10.0.%d.%d:5432", i, k+1), Role: failover.RoleReplica, Health: failover.Up, Since: m.started,
			Lag: failover.Lag{Known: true, Bytes: 8192, Time: 40 * time.Millisecond}, ProbeLatency: 700 * time.Microsecond}
		if k == 0 {
			n.Role, n.Lag = failover.RolePrimary, failover.Lag{}
		}
		s.Nodes = append(s.Nodes, n)
	}
	g := gate.Stats{HeldMax: 1000}
	switch {
	case m.well:
	case i == 3:
		n := &s.Nodes[0]
		n.Health, n.Reason, n.Since, n.LastError, n.LastErrorAt = failover.Down, "does not answer", now.Add(-42*time.Second), "dial tcp 10.0.3.1:5432: connect: connection refused", now
		s.Primary, s.NoPrimary = failover.NoNode, "nobody says to be one"
		g = gate.Stats{Closed: true, Reason: "no primary", ClosedSince: now.Add(-42 * time.Second), HeldNow: 217, HeldMax: 1000, OldestSince: now.Add(-9 * time.Second)}
	case i == 20:
		n := &s.Nodes[2]
		n.Health, n.Reason, n.Since, n.Lag = failover.Lagging, "further behind than 1s", now.Add(-5*time.Minute), failover.Lag{Known: true, Bytes: 81 << 20, Time: 7300 * time.Millisecond}
	}
	return admin.Shard{Name: fmt.Sprintf("s%02d", i), Nodes: s, Gate: g}
}

func (m *made) cluster(copied int64) func() *admin.Cluster {
	c := &admin.Cluster{Epoch: 71, Slots: madeSlots, Guarded: true, At: time.Now(), Self: "proxy-a"}
	for i := range madeShards {
		c.Members = append(c.Members, fmt.Sprintf("s%02d", i))
	}
	for s := range madeSlots {
		at, shard := shardmap.Slot(s), c.Members[(s*2654435761>>7)%madeShards]
		held := s >= 640 && s < 656 && !m.well
		if n := len(c.Owners); n > 0 && c.Owners[n-1].Shard == shard && c.Owners[n-1].Held == held {
			c.Owners[n-1].To = at
		} else {
			c.Owners = append(c.Owners, admin.SlotRange{From: at, To: at, Shard: shard, Held: held})
		}
	}
	var going []shardmap.Slot
	for s := range 32 {
		going = append(going, shardmap.Slot(640+s))
	}
	now := time.Now()
	c.Moves = []metadata.Move{
		{ID: 11, Kind: metadata.MoveSlots, Slots: make([]shardmap.Slot, 40), Source: "s01", Target: "s02", Phase: metadata.MoveDone, Rows: 88000, Copied: 88123, Purged: 88123, HeldMs: 240, PlannedAt: now, Changed: now},
		{ID: 12, Kind: metadata.MoveSlots, Slots: going, Source: "s05", Target: "s09", Phase: metadata.MoveCopying, Rows: 1_000_000, Copied: copied, PlannedAt: now, Changed: now},
		{ID: 13, Kind: metadata.MoveSlots, Slots: []shardmap.Slot{100, 101}, Source: "s06", Target: "s09", Phase: metadata.MovePlanned, Paused: true, Said: "paused by hand", PlannedAt: now, Changed: now},
	}
	c.Proxies = []metadata.Acknowledgement{
		{Proxy: "proxy-a", Host: "db-edge-1", Epoch: 71, Writes: 71, Statements: 71, Age: 300 * time.Millisecond, Present: true},
		{Proxy: "proxy-b", Host: "db-edge-2", Epoch: 70, Writes: 70, Statements: 69, Age: 4 * time.Second, Present: true},
		{Proxy: "proxy-c", Host: "db-edge-3", Epoch: 66, Writes: 66, Statements: 66, Age: 3 * time.Hour},
	}
	return func() *admin.Cluster { return c }
}

// Pools implements admin.Source.
func (m *made) Pools() []admin.Pool {
	var all []admin.Pool
	for i := range madeShards {
		for k := range 3 {
			p := admin.Pool{Database: "shop", Shard: fmt.Sprintf("s%02d", i), Mode: "transaction",
				Stat: pool.Stat{User: "app", Address: fmt.Sprintf("10.0.%d.%d:5432", i, k+1), Size: 20, Lent: (i*7 + k*3) % 6, Idle: 5}}
			if i == 41 && k == 0 && !m.well {
				p.Lent, p.Idle, p.Waiting, p.MaxWait = 20, 0, 31, 1840*time.Millisecond
			}
			all = append(all, p)
		}
	}
	return all
}

// Clients implements admin.Source.
func (m *made) Clients() []admin.Client { return nil }

// Servers implements admin.Source.
func (m *made) Servers() []admin.ServerConn { return nil }

func (m *made) Users() []admin.User { return nil }

func (m *made) Events() []admin.Event { return nil }

// openMade serves a made-up proxy with an hour behind it, and returns its address.
func openMade(t *testing.T, m *made) string {
	t.Helper()
	s, err := admin.New(admin.Options{Address: "127.0.0.1:0", Source: m, Version: "0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	real := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: s.Addr().String()})
	real.FlushInterval = -1
	transport := &http.Transport{}
	real.Transport = transport
	hour := madeHour(time.Now())
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/history" {
			_, _ = w.Write(hour)
			return
		}
		real.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { front.CloseClientConnections(); front.Close(); transport.CloseIdleConnections() })
	return front.URL + "/"
}

// madeHour is a history of 720 samples: waves, a peak of errors, and two minutes
// of which nothing is known.
func madeHour(now time.Time) []byte {
	line := func(f func(x float64) float64) string {
		var b strings.Builder
		for i := range 720 {
			v := f(float64(i) / 720)
			if i > 300 && i < 324 {
				b.WriteString(",null")
			} else {
				b.WriteString("," + strconv.FormatFloat(v, 'f', 6, 64))
			}
		}
		return "[" + b.String()[1:] + "]"
	}
	wave := func(height float64) string {
		return line(func(x float64) float64 { return height * (1.3 + math.Sin(9*x) + 0.2*math.Sin(97*x)) })
	}
	peak := func(height float64) string {
		return line(func(x float64) float64 { return height * math.Exp(-8000*(x-0.8)*(x-0.8)) })
	}
	at := line(func(x float64) float64 { return float64(now.Unix()) - 3600*(1-x) })
	at = strings.ReplaceAll(at, "null", fmt.Sprint(float64(now.Unix())-3600))
	series := fmt.Sprintf(`{"statements_per_second":%s,"transactions_per_second":%s,"reads_per_second":%s,"replica_reads_per_second":%s,"errors_per_second":%s,"retries_per_second":%s,
		"received_bytes_per_second":%s,"sent_bytes_per_second":%s,"leases_per_second":%s,"refused_per_second":%s,"lease_wait_seconds":%s,"clients":%s,"clients_waiting":%s,"statements_held":%s,
		"request_p50_seconds":%s,"request_p95_seconds":%s,"request_p99_seconds":%s}`,
		wave(5200), wave(3100), wave(4000), wave(2900), peak(80), peak(160), wave(1e6), wave(5e6), wave(3100), peak(1), wave(0.0004), wave(900), peak(31), peak(217), wave(0.0011), wave(0.004), wave(0.009))
	return []byte(fmt.Sprintf(`{"sample_seconds":5,"kept_samples":720,"sampled_at_unix_seconds":%s,"total":%s,"databases":{}}`, at, series))
}

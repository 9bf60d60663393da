package admin

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"shardproxy/auth"
	"shardproxy/cache"
	"shardproxy/config"
	"shardproxy/failover"
	"shardproxy/gate"
	"shardproxy/metadata"
	"shardproxy/pool"
	"shardproxy/proxy"
	"shardproxy/router"
	"shardproxy/shardmap"
	"shardproxy/tally"
	"shardproxy/twopc"
	"shardproxy/wire"
)

var update = flag.Bool("update", false, "write the tables of the manual pages anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clockAt is when every test takes place.
func clockAt() time.Time { return time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC) }

// world is a Source, Configuration and Steerer whose answers tests set.
type world struct {
	mu        sync.Mutex
	process   Process
	databases []Database
	pools     []Pool
	clients   []Client
	servers   []ServerConn
	settings  []config.Setting
	steered   []string // what was ordered, in order
	reload    error
	// release, when set, lets Pause of a database return.
	release map[string]chan struct{}
	paused  chan string   // told when a Pause begins to wait
	resumes chan struct{} // closed and replaced by each Resume
	shut    chan proxy.ShutdownMode
	cluster Cluster // of shop
	looked  int     // how often it was asked for
	seen    int     // the same of servers
}

func newWorld() *world {
	at := clockAt()
	snapshot := func(primary failover.NodeID) *failover.Snapshot {
		s := &failover.Snapshot{Version: 7, At: at, Primary: primary, Timeline: 3, SystemID: 7300000000000000001, Nodes: []failover.NodeStatus{
			{ID: 0, Address: "10.0.0.1:5432", Role: failover.RolePrimary, Health: failover.Up, Since: at.Add(-time.Hour),
				Timeline: 3, SystemID: 7300000000000000001, LSN: 0x1_00000A28, ProbeLatency: 1500 * time.Microsecond},
			{ID: 1, Address: "10.0.0.2:5432", Role: failover.RoleReplica, Health: failover.Up, Since: at.Add(-time.Minute),
				Lag: failover.Lag{Known: true, Bytes: 4096, Time: 250 * time.Millisecond}, Timeline: 3, SystemID: 7300000000000000001, LSN: 0x1_00000A00},
			{ID: 2, Address: "replica.example:5433", Role: failover.RoleUnknown, Health: failover.Down, Reason: "does not answer",
				LastError: "connection refused", LastErrorAt: at.Add(-time.Second)},
		}}
		if primary == failover.NoNode {
			s.NoPrimary = "nobody says to be one"
		}
		return s
	}
	w := &world{
		process: Process{Started: at.Add(-90 * time.Minute), Listening: true, Peers: []proxy.Peer{{PID: 4711, Path: "/run/shardproxy/peers/peer.4711.00c0ffee"}}, MaxClients: 10000, LoggingIn: 2,
			Totals: proxy.Totals{Accepted: 50, Refused: 3, Logins: 40}, Limited: []proxy.Limited{{Kind: "statements", By: "user", Waited: 6, Refused: 7}}, Crowded: []proxy.Crowded{{Kind: "several", By: "database", Waited: 8, Refused: 9}}, ConfiguredAt: at.Add(-time.Hour), Reloads: 5, ReloadFailures: 1},
		settings: []config.Setting{
			{Path: "limits.max_clients", Value: "10000", Default: "10000"},
			{Path: "admin.address", Value: "127.0.0.1:9127", Default: "127.0.0.1:9127", Restart: true},
			{Path: "users[app].name", Value: "app"}, {Path: "users[app].password", Value: "***"}, {Path: "users[ops].name", Value: "ops"},
		},
		release: map[string]chan struct{}{}, paused: make(chan string, 8), resumes: make(chan struct{}),
		shut: make(chan proxy.ShutdownMode, 4),
	}
	w.cluster = Cluster{
		Epoch: 12, Slots: 4096, Members: []string{"s0", "s1"}, Self: "me", Guarded: true, At: time.Now().Add(time.Hour),
		Owners: []SlotRange{{From: 0, To: 99, Shard: "s1"}, {From: 100, To: 119, Shard: "s0", Held: true}, {From: 120, To: 4095, Shard: "s0"}},
		Moves: []metadata.Move{
			{ID: 6, Kind: metadata.MoveSlots, Slots: []shardmap.Slot{7}, Source: "s0", Target: "s1", Phase: metadata.MoveAborted, Abort: true, Said: "given up", PlannedAt: at, Changed: at},
			{ID: 7, Kind: metadata.MoveSlots, Slots: []shardmap.Slot{119, 100, 101, 102}, Source: "s0", Target: "s1", Phase: metadata.MoveFollowing, Rows: 5000, Copied: 4999,
				Paused: true, PlannedAt: at.Add(-time.Minute), Changed: at.Add(-time.Second)},
			{ID: 8, Kind: metadata.MoveLeave, Source: "s1", Target: "s0", Phase: metadata.MovePlanned, PlannedAt: at, Changed: at},
		},
		Proxies: []metadata.Acknowledgement{
			{Proxy: "me", Host: "a, process 1", Epoch: 12, Writes: 12, Statements: 11, Age: 250 * time.Millisecond, Shards: []string{"s0", "s1"}, Present: true},
			{Proxy: "other", Host: "b, process 2", Epoch: 11, Writes: 10, Statements: 9, Age: time.Hour},
		},
	}
	w.databases = []Database{
		{Doubts: []twopc.Doubt{{Shard: "s1", Name: "shardproxy:c:s0:r:1", Owner: "app", Age: 90 * time.Second, Reason: "there is no decision yet"}}, Tables: func() []router.PlacedTable {
			return []router.PlacedTable{
				{Schema: "public", Name: "orders", Kind: "sharded", Placement: "hash", Key: []string{"land", "id"}, KeyTypes: []string{"text", "bigint"}, Group: 3},
				{Schema: "public", Name: "odd", Kind: "unknown", Placement: "none", Problem: "has no column x"},
			}
		}, Slots: &gate.Stats{Closed: true, Reason: "slots are moving", ClosedSince: at.Add(-time.Second), HeldNow: 3, HeldMax: 1000, OldestSince: at.Add(-200 * time.Millisecond),
			Totals: gate.Totals{Closures: 2, Held: 9, Released: 4, TimedOut: 1, Evicted: 1, Cancelled: 0, Refused: 5, HeldTime: 3 * time.Second, LongestHeld: 1500 * time.Millisecond}},
			Prepared: func() []pool.StatementStat {
				return []pool.StatementStat{{Name: "_sp_1", Text: "SELECT 1", Holders: 3, Bytes: 40}}
			},
			Errors: []proxy.ErrorCount{{Code: "42703", Count: 2, Last: at}, {Code: "53300", Own: true, Count: 7, Last: at, Message: "too many"}},
			Slow:   4, SlowUnlogged: 1,
			HotSlots: func(int, int64) []tally.HotSlot {
				return []tally.HotSlot{{Slot: 7, Count: 30, Of: 60, Over: time.Minute}, {Slot: 4000, Count: 1, Of: 60, Over: time.Minute}}
			},
			HotKeys: func(int) []tally.HotKey { return []tally.HotKey{{Slot: 7, Key: "4711", Count: 20, Over: 3}} },
			Plans: func() []router.PlanKept {
				return []router.PlanKept{{Way: "refused", Why: "no_key", Calls: 1, Text: "insert", Fingerprint: 1}, {Way: "keyed", Calls: 5, Bytes: 900, Reads: true, Current: true, Path: "a"}}
			},
			Statements: func() ([]tally.Statement, tally.State) {
				return []tally.Statement{
					{Fingerprint: 0xabc, Text: "select $1", Calls: 80, Rows: 80, Bytes: 900, Timed: 10, Total: 20 * time.Millisecond, Min: time.Millisecond, Max: 9 * time.Millisecond,
						P50: 2 * time.Millisecond, P95: 8 * time.Millisecond, P99: 9 * time.Millisecond, Several: 20, Shards: 40, ByShard: []int64{60, 40}},
					{Calls: 3, Errors: 2, Refused: 1, Retries: 4, ByShard: []int64{0, 0}},
				}, tally.State{Entries: 1, Limit: 1000, Evictions: 7, Since: at.Add(-time.Hour)}
			},
			Route: func(sql string) ([]string, error) {
				if sql == "nonsense" {
					return nil, wire.Errorf("42601", "syntax error")
				}
				return []string{"Route: " + sql, "  second line"}, nil
			}, Cluster: func() *Cluster { w.mu.Lock(); defer w.mu.Unlock(); w.looked++; k := w.cluster; return &k }, Blocks: []proxy.Block{
				{Fingerprint: 254, Text: "select 0", Since: clockAt(), Refused: 3},
				{Fingerprint: 255, By: "admin", Since: clockAt(), Until: clockAt().Add(time.Hour), Refused: 4},
			}, Name: "shop", ServerName: "shopdb", Pool: pool.Policy{Size: 20, Min: 2, Reserve: 1, LifeTime: time.Hour}, Mode: "transaction",
			MaxServers: 100, MaxClients: 500, Clients: 4,
			Totals: proxy.DatabaseTotals{Statements: 900, Transactions: 800, Reads: 700, ReplicaReads: 600, Errors: 5, Retries: 4, Pins: 3, Audits: 2, Received: 123456789012, Sent: 98765, ClientParses: 40, ServerParses: 8, Binds: 320, Gathered: 4321, GatherHeld: 21,
				QueryTime: 900 * time.Millisecond, TransactionTime: 1600 * time.Millisecond},
			Scatters: map[string]int64{"merge": 11, "gather": 2},
			Cache: &cache.Stats{Open: true, Entries: 3, Bytes: 4000, BytesMax: 64 << 20, Hits: 50, Misses: 20, Waits: 4, Stored: 12, Large: 2, Stale: 1,
				Invalidated: 5, Expired: 3, Evicted: 1},
			Asked:      []proxy.Asked{{Kind: "read", Scope: "one", Count: 8}},
			PoolTotals: pool.Totals{Assigned: 850, Opened: 9, Closed: 2, DialErrors: 1, Resets: 6, Cancels: 7, Shed: 8, WaitNanos: 1_500_000_000},
			Shards:     []Shard{{Name: "s0", Nodes: snapshot(0), Banned: 1 << 1}}},
		{Name: "My-Db.2", ServerName: "my", ServerUser: "proxy", Mode: "session",
			Shards: []Shard{{Name: "only", Nodes: snapshot(failover.NoNode),
				Breaker: gate.BreakerStatus{State: gate.BreakerHalfOpen, Since: at.Add(-time.Second), Refused: 17, Opened: 2},
				Gate:    gate.Stats{Closed: true, Reason: "no primary", HeldNow: 12, HeldMax: 1000, OldestSince: at.Add(-1500 * time.Millisecond)}}}},
	}
	stat := func(user, address string, lent, idle, waiting int) pool.Stat {
		return pool.Stat{User: user, Address: address, Size: 20, Total: lent + idle + 2, Lent: lent, Idle: idle, Dialling: 1, Parked: 1,
			Waiting: waiting, MaxWait: time.Duration(waiting) * 1_250_001 * time.Microsecond}
	}
	w.pools = []Pool{
		{Database: "shop", Shard: "s0", Mode: "transaction", Stat: stat("app", "10.0.0.1:5432", 3, 2, 1)},
		{Database: "shop", Shard: "s0", Mode: "transaction", Stat: stat("app", "10.0.0.2:5432", 1, 4, 0)},
		// The same user under another login: no double anywhere.
		{Database: "shop", Shard: "s0", Mode: "transaction", Stat: stat("app", "10.0.0.2:5432", 1, 0, 0)},
	}
	w.clients = []Client{
		{ID: 2, PID: 12, User: "app", Database: "shop", ApplicationName: "web", State: ClientActive, Addr: "192.0.2.9:40000",
			LocalAddr: "192.0.2.1:6432", Connected: at.Add(-time.Minute), Since: at.Add(-time.Second), TLS: "TLS 1.3/TLS_AES_128_GCM_SHA256",
			Server: 31, ServerPID: 4711, Prepared: 2, Pinned: "temporary table"},
		{ID: 1, PID: 11, User: "app", Database: "shop", State: ClientIdle, Addr: "unix", Connected: at.Add(-time.Hour), Since: at.Add(-time.Hour)},
		{ID: 3, PID: 13, User: "app", Database: "shop", State: ClientWaiting, Addr: "[2001:db8::1]:5", Connected: at, Since: at.Add(-1_250_000 * time.Microsecond)},
		{ID: 4, PID: 14, User: "eve\xff", Database: "shop", State: ClientHeld, Addr: "192.0.2.9:40001", Connected: at, Since: at.Add(-9 * time.Second)},
	}
	w.servers = []ServerConn{
		{ID: 31, PID: 4711, User: "app", Database: "shop", Node: "10.0.0.1:5432", State: ServerActive, Created: at.Add(-time.Hour),
			Closing: true, Used: at.Add(-time.Second), TLS: "on", Client: 2, Prepared: 5, ApplicationName: "web"},
		{ID: 30, PID: 4710, User: "app", Database: "shop", Node: "10.0.0.2:5432", LocalAddr: "10.0.0.9:50000", State: ServerIdle, Created: at.Add(-time.Hour), Used: at},
		{User: "app", Database: "shop", Node: "10.0.0.2:5432", State: ServerLogin},
	}
	return w
}

func (w *world) Process() Process { w.mu.Lock(); defer w.mu.Unlock(); return w.process }
func (w *world) Pools() []Pool    { w.mu.Lock(); defer w.mu.Unlock(); return w.pools }
func (w *world) Clients() []Client {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Client{}, w.clients...)
}
func (w *world) Events() []Event {
	return []Event{
		{ID: 41, At: clockAt(), Level: "WARN", What: "shard has no primary, writes are held", Database: "shop", Shard: "s0", Detail: `reason="is down"`},
		{ID: 42, At: clockAt(), Level: "INFO", What: "configuration reloaded"},
	}
}
func (w *world) Users() []User {
	return []User{{Name: "app", PoolSize: 30, Mode: "session", MaxServers: 40, MaxClients: 50}, {Name: "ops"}}
}
func (w *world) Servers() []ServerConn {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen++
	return append([]ServerConn{}, w.servers...)
}
func (w *world) Settings() []config.Setting { return w.settings }

func (w *world) Shutdown(m proxy.ShutdownMode) {
	w.order("shutdown")
	select {
	case w.shut <- m:
	default:
	}
}

func (w *world) EndDoubt(_ context.Context, by, name string, commit, force bool) error {
	w.order(fmt.Sprintf("%s ends %s %t %t", by, name, commit, force))
	if !force {
		return wire.Errorf("55000", "not against what decides it")
	}
	return nil
}

func (w *world) ResetCache(name string) error {
	w.order("reset cache " + name)
	return nil
}

func (w *world) ResetQueries(name string) error {
	w.order("reset queries " + name)
	return nil
}

func (w *world) Disable(name string, on bool) error {
	w.order(fmt.Sprintf("disable %s %t", name, on))
	if name == "gone" {
		return ErrUnknownDatabase
	}
	return nil
}

func (w *world) BanNode(database, node string, on bool) (int, error) {
	w.order(fmt.Sprintf("ban %q %s %t", database, node, on))
	if node == "10.0.0.1:5432" {
		return 0, wire.Errorf("55000", "it takes writes")
	}
	return len(node) % 2, nil
}

func (w *world) Block(database string, b proxy.Block) error {
	w.order(fmt.Sprintf("block %s %q by %s for %s", database, b.Text, b.By, max(b.Until.Sub(b.Since), 0)))
	return nil
}

func (w *world) Unblock(database string, f uint64) (bool, error) {
	w.order("unblock " + database)
	return true, nil
}

func (w *world) KillClient(id uint64) bool { w.order(fmt.Sprint("kill client ", id)); return id == 2 }
func (w *world) Drain(on bool)             { w.order(fmt.Sprint("drain ", on)) }

func (w *world) OrderMoves(_ context.Context, o MoveOrder) (string, error) {
	w.order(fmt.Sprintf("%s %s %v", o.Wanted, o.Database, o.IDs))
	if len(o.IDs) == 1 {
		return "", wire.Errorf("55000", "no such move")
	}
	return "3 moves", nil
}

func (w *world) PlanMoves(_ context.Context, o PlanOrder, start bool) (*Plan, error) {
	w.order(fmt.Sprintf("plan %t %s%s", start, o.Database, o.text()))
	if len(o.Options) > 0 && o.Options[0] == (PlanOption{"remove", "s9"}) {
		return nil, wire.Errorf("22023", "REMOVE s9: there is no such shard")
	}
	p := &Plan{ID: "abc", Database: o.Database, Epoch: 12, Started: start, Slots: 2, Rows: 30, Bytes: 4096, Seconds: 1, Text: "two\nlines\n",
		Shards:   []PlannedShard{{Name: "s0", State: "stays", SlotsNow: 4096, SlotsThen: 4094}, {Name: "s1", State: "stays", SlotsThen: 2}},
		Moves:    []PlannedMove{{Kind: "slots", Source: "s0", Target: "s1", Slots: 2, Rows: 30}},
		Blockers: []PlanBlocker{}}
	return p, nil
}

func (w *world) Databases() []Database {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Database{}, w.databases...)
}

func (w *world) order(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.steered = append(w.steered, what)
}

func (w *world) orders() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.steered, ", ")
}

func (w *world) setPaused(name string, on bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.databases {
		if w.databases[i].Name == name {
			w.databases[i].Paused = on
			if !on {
				close(w.resumes)
				w.resumes = make(chan struct{})
			}
			return nil
		}
	}
	return ErrUnknownDatabase
}

func (w *world) isPaused(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.databases {
		if w.databases[i].Name == name {
			return w.databases[i].Paused
		}
	}
	return false
}

func (w *world) Reload(ctx context.Context) error {
	w.order("reload")
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.reload, ctx.Err())
}

func (w *world) Pause(ctx context.Context, name string) error {
	w.order("pause " + name)
	if err := w.setPaused(name, true); err != nil {
		return err
	}
	w.mu.Lock()
	release, resumes := w.release[name], w.resumes
	w.mu.Unlock()
	if release == nil {
		return nil
	}
	w.paused <- name
	for w.isPaused(name) {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-resumes:
			w.mu.Lock()
			resumes = w.resumes
			w.mu.Unlock()
		}
	}
	return ErrResumed
}

func (w *world) Resume(name string) error { w.order("resume " + name); return w.setPaused(name, false) }

func (w *world) Kill(name string) (int, error) {
	w.order("kill " + name)
	return 3, w.setPaused(name, true)
}

func (w *world) Reconnect(name string) error {
	w.order("reconnect " + name)
	if name == "gone" {
		return ErrUnknownDatabase
	}
	return nil
}

// peer gives a TCP connection the shape that the proxy's streams have.
type peer struct{ *net.TCPConn }

func (p peer) RemoteAddr() netip.AddrPort { return p.TCPConn.RemoteAddr().(*net.TCPAddr).AddrPort() }

// site is a console behind a listener that logs everybody in: users ops and
// admin as what they are called, everybody else as nobody.
type site struct {
	*Console
	world *world
	log   *logBook
	addr  string
}

func newSite(t *testing.T) *site {
	t.Helper()
	w, book := newWorld(), &logBook{}
	c, err := NewConsole(ConsoleOptions{
		Source: w, Configuration: w, Steerer: w, Version: "0.9.1", Clock: clockAt,
		Logger: slog.New(slog.NewTextHandler(book, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { serveConn(ctx, c, nc.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); stop(); running.Wait() })
	return &site{Console: c, world: w, log: book, addr: l.Addr().String()}
}

func (s *site) dsn(user string) string {
	return "postgres://" + user + "@" + s.addr + "/shardproxy?sslmode=disable"
}

// serveConn does what the proxy does before Serve and after it.
func serveConn(ctx context.Context, c *Console, nc *net.TCPConn) {
	defer nc.Close()
	start, err := wire.ReadStartup(nc, 10000)
	if err != nil {
		return
	}
	if start.Kind == wire.StartupCancel {
		c.Cancel(start.Cancel)
		return
	}
	user, _ := start.Get("user")
	id := auth.Identity{User: user, Admin: user == "admin", Monitor: user == "ops" || user == "admin"}
	if _, err := nc.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 0}); err != nil {
		return
	}
	if err := c.Serve(ctx, peer{nc}, id, start); err != nil {
		_, _ = nc.Write(wire.AsError(err).Append(nil))
	}
}

// logBook keeps what was logged.
type logBook struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var _ io.Writer = (*logBook)(nil)

// streamPair returns a client's connection and the stream of its other end.
func streamPair(t *testing.T) (net.Conn, peer) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	_ = client.SetDeadline(time.Now().Add(10 * time.Second))
	return client, peer{server.(*net.TCPConn)}
}

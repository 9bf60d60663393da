package proxy_test

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"shardproxy/auth"
	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/gate"
	"shardproxy/internal/pgcluster"
	"shardproxy/internal/pgtest"
	"shardproxy/pool"
	"shardproxy/proxy"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/tally"
	"shardproxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixedNodes is a shard whose roles never change.
type fixedNodes struct{ replicas int }

func (n fixedNodes) Primary() (int, bool) { return 0, true }
func (n fixedNodes) PickRead(_ uint64, consistent bool, exclude uint64) (int, bool) {
	for i := 1; i <= n.replicas; i++ {
		if !consistent && exclude>>i&1 == 0 {
			return i, true
		}
	}
	return 0, false
}
func (n fixedNodes) Mark() uint64       { return 1 }
func (n fixedNodes) Want()              {}
func (n fixedNodes) Suspect(int, error) {}

// trustAll lets everybody in, the user "asked" for any password.
type trustAll struct{}

func (trustAll) Authenticate(_ context.Context, c auth.Conversation, user, _ string) (auth.Identity, error) {
	if user == "asked" {
		if err := c.Send([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 3}); err != nil {
			return auth.Identity{}, err
		}
		if _, err := c.ReadPassword(100); err != nil {
			return auth.Identity{}, err
		}
	}
	if err := c.Send([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 0}); err != nil {
		return auth.Identity{}, err
	}
	return auth.Identity{User: user, ServerUser: user, ServerPassword: config.NewSecret(pgcluster.AppPassword)}, nil
}

// fixture is a proxy in this process over real servers.
type fixture struct {
	t    testing.TB
	srv  *proxy.Server
	db   *proxy.Database
	addr string
	pol  *proxy.UserPolicy

	nodes    []string
	database string
	cluster  *pgtest.Cluster // nil without replicas
	planner  *anyPlanner
}

// anyPlanner is a planner that a test can replace.
type anyPlanner struct{ atomic.Pointer[router.Router] }

func (p *anyPlanner) Guard(sql string, ctx router.Context) (string, error) {
	return p.Load().Guard(sql, ctx)
}

func (p *anyPlanner) Telling(sql string, plan *router.Plan, slots int, ctx router.Context) (router.Telling, error) {
	return p.Load().Telling(sql, plan, slots, ctx)
}

func (p *anyPlanner) Plan(sql []byte, ctx router.Context) *router.Plan {
	return p.Load().Plan(sql, ctx)
}

func (p *anyPlanner) Cached(sql []byte, ctx router.Context) *router.Plan {
	return p.Load().Cached(sql, ctx)
}

func (p *anyPlanner) CustomSettings() (names []string, complete, loaded bool) {
	return p.Load().CustomSettings()
}

func (p *anyPlanner) Scatter(sql string, ctx router.Context, o router.ScatterOptions) (*router.Scatter, error) {
	return p.Load().Scatter(sql, ctx, o)
}

func (p *anyPlanner) SequenceUse(read *query.SequenceRead, ctx router.Context) (router.SequenceUse, bool) {
	return p.Load().SequenceUse(read, ctx)
}

// learn has the proxy know the catalog as it is now.
func (f *fixture) learn() { f.planner.Store(newRouter(f.t, f.nodes[0], f.database)) }

type fixtureOptions struct {
	replicas int
	size     int
	mode     proxy.Mode
	policy   func(*proxy.DatabasePolicy)
	user     func(*proxy.UserPolicy)
	nodes    []string
	driver   proxy.Driver // what the environment says when 0
	loops    int
	// planner stands before the real one.
	planner func(proxy.Planner) proxy.Planner
	// plainWait has loops wait through the scheduler.
	plainWait bool
	tls       string // mode towards the servers; "disable" when empty
}

func start(t testing.TB, o fixtureOptions) *fixture {
	t.Helper()
	nodes, database := o.nodes, "app"
	var cluster *pgtest.Cluster
	if nodes == nil {
		if o.replicas == 0 {
			d := pgtest.Shared(t)
			nodes, database = []string{d.Node.Addr()}, d.Name
		} else {
			cluster = pgtest.Start(t, pgtest.Options{Replicas: o.replicas})
			for _, n := range cluster.Nodes() {
				nodes = append(nodes, n.Addr())
			}
		}
	}
	logger := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if os.Getenv("SHARDPROXY_TEST_LOG") == "" {
		logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	buffers := &wire.Buffers{}
	pools := pool.New(pool.Options{
		Nodes: nodes, Buffers: buffers, Logger: logger,
		Target: pool.Target{Database: database, ConnectTimeout: 5 * time.Second, TLS: pool.TLS{Mode: cmp.Or(o.tls, "disable")}},
	})
	pools.Open()
	planner := &anyPlanner{}
	planner.Store(newRouter(t, nodes[0], database))
	db := &proxy.Database{
		Name: "app", Statements: pool.NewStatements(), Planner: planner,
		Shards: []*proxy.Shard{{Name: "s0", Pools: pools, Nodes: fixedNodes{o.replicas}, Gate: gate.New(gate.Options{})}},
	}
	dp := proxy.DatabasePolicy{Consistent: true, Split: true, WaitTimeout: 10 * time.Second, ParsedMax: 1 << 20, MessageMax: 1 << 30}
	if o.policy != nil {
		o.policy(&dp)
	}
	db.SetPolicy(dp)
	if o.planner != nil {
		db.Planner = o.planner(planner)
	}
	if o.size == 0 {
		o.size = 5
	}
	up := proxy.UserPolicy{Mode: o.mode, Pool: pool.Policy{
		Size: o.size, MaxDialing: 4, LifeTime: time.Hour, IdleTimeout: time.Minute, PreparedStatements: 10,
	}}
	if o.user != nil {
		o.user(&up)
	}
	srv := proxy.New(proxy.Options{
		Auth: trustAll{}, Logger: logger, Buffers: buffers,
		Driver: cmp.Or(o.driver, testDriver()), Loops: o.loops, PlainWait: o.plainWait,
	}, &proxy.Settings{
		StartupMax: 10000, LoginTimeout: 10 * time.Second, Databases: map[string]*proxy.Database{"app": db},
		Policy: func(string, string) proxy.UserPolicy { return up },
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv.Open(l)
	t.Cleanup(func() {
		srv.Close()
		pools.Close()
	})
	return &fixture{t: t, srv: srv, db: db, addr: l.Addr().String(), pol: &up, nodes: nodes, database: database, cluster: cluster, planner: planner}
}

// newRouter returns a router that knows the database's catalog as it is now.
func newRouter(t testing.TB, node, database string) *router.Router {
	t.Helper()
	conn, err := pgx.Connect(ctx10(t), "postgres://postgres@"+node+"/"+database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	c, err := catalog.Load(ctx10(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	return router.New(router.Options{Catalog: func() *catalog.Catalog { return c }, Tally: tally.New(1000, 1, time.Now())})
}

// testDriver is what the tests run sessions by: SHARDPROXY_TEST_DRIVER, "loop"
// or "goroutine", else what is the system's default.
func testDriver() proxy.Driver {
	switch d := os.Getenv("SHARDPROXY_TEST_DRIVER"); d {
	case "":
		return proxy.DriverAuto
	case "loop":
		return proxy.DriverLoop
	case "goroutine":
		return proxy.DriverGoroutine
	default:
		panic("SHARDPROXY_TEST_DRIVER=" + d)
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

func (f *fixture) dsn(extra string) string {
	return "postgres://app@" + f.addr + "/app?sslmode=disable" + extra
}

func (f *fixture) connect(extra string) *pgx.Conn {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, f.dsn(extra))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func ctx10(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestModes(t *testing.T) {
	f := start(t, fixtureOptions{})
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe,
		pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		t.Run(mode.String(), func(t *testing.T) {
			c := f.connect("")
			for i := range 20 {
				var got int
				if err := c.QueryRow(ctx10(t), "SELECT $1::int + 1", mode, i).Scan(&got); err != nil || got != i+1 {
					t.Fatalf("got %d, %v", got, err)
				}
			}
		})
	}
}

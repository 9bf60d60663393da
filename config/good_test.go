package config

import (
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// sameConfig compares what users of the package can see.
var sameConfig = cmp.Options{
	cmpopts.IgnoreUnexported(Config{}, Database{}),
	cmp.Comparer(func(a, b Secret) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func mustLoad(t *testing.T, file string) *Config {
	t.Helper()
	c, err := Load(file, testOptions)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func testFile(t *testing.T, name string) string {
	t.Helper()
	p, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestGood reads the file that sets everything.
func TestGood(t *testing.T) {
	got := mustLoad(t, "testdata/good.yaml")
	if diff := cmp.Diff(goodConfig(t), got, sameConfig); diff != "" {
		t.Errorf("good.yaml (-want +got):\n%s", diff)
	}
	alternative := mustLoad(t, "testdata/alternative.yaml")
	if pw := alternative.Auth.AuthQuery.Password.Reveal(); pw != "fallback" {
		t.Errorf("auth_query's password is %q", pw)
	}
}

// TestGoodIsComplete makes sure that good.yaml has every key, and none with its default.
func TestGoodIsComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, file := range []string{"testdata/good.yaml", "testdata/alternative.yaml"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(seen, seenKeys(t, data, file))
	}
	for _, k := range keysOf(reflect.TypeFor[Config](), "") {
		if !seen[k.path] {
			t.Errorf("good.yaml lacks %s", k.path)
		}
	}
	same := map[string]bool{}
	for _, s := range mustLoad(t, "testdata/good.yaml").Settings() {
		generic := schemaPath(s.Path)
		was, known := same[generic]
		same[generic] = s.Value == s.Default && (was || !known)
	}
	for path, always := range same {
		if always && path != "auth.auth_query.password" {
			t.Errorf("good.yaml sets %s to its default only", path)
		}
	}
}

// seenKeys returns the schema's paths of the keys that the text has.
func seenKeys(t *testing.T, data []byte, name string) map[string]bool {
	t.Helper()
	d := &decoder{file: name, dir: "testdata", opts: testOptions.withDefaults(), positions: map[string]position{}}
	var c Config
	d.section(d.document(data), reflect.ValueOf(&c).Elem(), "")
	if len(d.problems) > 0 {
		t.Fatal(d.problems)
	}
	seen := map[string]bool{}
	for p := range d.positions {
		seen[schemaPath(p)] = true
	}
	return seen
}

var (
	mapElement  = regexp.MustCompile(`\b(databases|tables|schemas|functions|list|statements)(\.[A-Za-z0-9_-]+|\["(\\.|[^"\\])*"\])`)
	listElement = regexp.MustCompile(`\[[^]]*\]`)
)

// schemaPath returns the path of a setting with <name> and [] for elements.
func schemaPath(path string) string {
	return listElement.ReplaceAllString(mapElement.ReplaceAllString(path, "$1.<name>"), "[]")
}

func ptr[T any](v T) *T { return &v }

func goodConfig(t *testing.T) *Config {
	ledgerPool := goodPool()
	ledgerPool.Mode = PoolSession
	verifier := "SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs=:PiPoFgA5WUoziU9lZOGxNIu9egCI1CxKy3PurtWcAJ0="
	return &Config{
		Listen: Listen{
			Addresses: []string{":7432", "[::1]:7433"}, UnixSocketDirectory: testFile(t, "sockets"), UnixSocketMode: 0o770,
			ReusePort: true, PeerDirectory: testFile(t, "peers"),
			TLS: &ServerTLS{
				Mode: TLSRequire, Certificate: testFile(t, "files/server.crt"), Key: testFile(t, "files/server.key"),
				ClientCA: testFile(t, "files/ca.crt"), MinVersion: "1.3",
			},
		},
		Admin: Admin{Address: "127.0.0.1:9999", TLS: true, Login: AdminLoginRequired, Open: []string{AdminOpenMetrics}, Hosts: []string{"proxy.example"}, Pprof: true, AdminUsers: []string{"root"}, MonitorUsers: []string{"watcher", "root"}},
		Users: []User{
			{
				Name: "app", Password: NewSecret("secret of the environment"),
				CertificateNames: []string{"app.example", "app-2.example"},
				PoolMode:         PoolSession, CrossShard: CrossShardWarn, Snapshot: SnapshotTransaction, PoolSize: 5, MaxClients: 50, MaxServers: 9, StatementSize: 64 << 10,
				ServerUser: "app_on_server", ServerPassword: NewSecret("${not a variable}"),
				Timeouts:   UserTimeouts{Query: ptr(10 * time.Second), IdleInTransaction: ptr(time.Duration(0)), ClientIdle: ptr(day)},
				Rates:      &Rate{Statements: 10, StatementBurst: 11, Logins: 12, LoginBurst: 13, Bytes: 14 << 10, BytesBurst: 15 << 10},
				ResultSize: 5 << 20, Concurrent: &Concurrent{Statements: 51, Reads: 52, Writes: 53, Several: 54},
			},
			{
				Name: "root", Password: NewSecret("from a file"), PasswordFile: testFile(t, "files/password"),
				CertificateNames: []string{"root"},
				ServerPassword:   NewSecret("other file"), ServerPasswordFile: testFile(t, "files/password2"),
			},
			{Name: "watcher", Verifier: NewSecret(verifier), CertificateNames: []string{"watcher"}},
		},
		Databases: []Database{
			goodShop(t),
			{
				Name: "ledger", Shards: []Shard{{Name: "only", Nodes: []string{"10.0.2.1:5432"}}}, Slots: 4096,
				Server: Server{
					Database: "ledger", User: "ledger", Password: NewSecret("server file"), PasswordFile: testFile(t, "files/password5"),
					Control: Login{User: "c", Password: NewSecret("pa$$word")},
					TLS:     ClientTLS{Mode: TLSPrefer}, ConnectTimeout: 5 * time.Second,
				},
				CrossShard: CrossShardAllow, Snapshot: SnapshotStatement,
				Reads: Reads{MaxLag: time.Second, Consistency: ConsistencySession, Split: true},
				Pool:  ledgerPool,
				Failover: Failover{
					ProbeInterval: time.Second, ProbeTimeout: 2 * time.Second, FailAfter: 3, RecoverAfter: 2,
					HoldTimeout: 10 * time.Second, HoldStatements: 1000,
				},
				Breaker: Breaker{Least: 20, Window: 10 * time.Second, OpenFor: 5 * time.Second, OpenMax: time.Minute},
				Cache:   Cache{Entry: 256 << 10},
				Catalog: Catalog{Refresh: 30 * time.Second},
				Moves:   Moves{AtOnce: 2, HoldLimit: 500 * time.Millisecond, CopyRate: 50 << 20, PurgeRows: 20000, MaxLag: 64 << 20, MaxWAL: 16 << 30},
			},
		},
		Auth: goodAuth(t),
		Limits: Limits{
			MaxClients: 5000, MaxClientsPerUser: 100, MaxClientsPerDatabase: 1000, MessageSize: 256 << 20,
			ParsedStatement: 512 << 10, Gather: 16 << 20, StatementSize: 2 << 20, StartupPacket: 4096, PlanCache: 1 << 30,
			Statements: 50, SessionStatements: 100, SessionStatementBytes: 1 << 20,
			ResultSize: 7 << 20,
			Concurrent: Concurrency{
				User: Concurrent{Statements: 71, Reads: 72, Writes: 73, Several: 74}, Database: Concurrent{Statements: 81, Reads: 82, Writes: 83, Several: 84}, Wait: 9 * time.Second,
			},
			Rates: Rates{
				User:     Rate{Statements: 20, StatementBurst: 21, Logins: 22, LoginBurst: 23, Bytes: 24 << 10, BytesBurst: 25 << 10},
				Database: Rate{Statements: 30, StatementBurst: 31, Logins: 32, LoginBurst: 33, Bytes: 34 << 10, BytesBurst: 35 << 10},
				Address:  Rate{Statements: 40, StatementBurst: 41, Logins: 42, LoginBurst: 43, Bytes: 44 << 10, BytesBurst: 45 << 10},
				Wait:     3 * time.Second, MaxAddresses: 77,
			},
		},
		Timeouts: Timeouts{
			Login: 10 * time.Second, Query: 90 * time.Minute, IdleInTransaction: 5 * time.Minute,
			ClientIdle: 2 * day,
		},
		Log:      Log{Level: "debug", Format: "json", SlowStatement: 250 * time.Millisecond},
		Audit:    Audit{File: testFile(t, "files/audit.log"), Statements: []string{"write", "call"}, Memory: 1 << 20},
		Tracing:  Tracing{Endpoint: "https://collector.example:4318", CA: testFile(t, "files/ca.crt"), Certificate: testFile(t, "files/server.crt"), Key: testFile(t, "files/server.key"), Header: "X-Key", Token: NewSecret("a key of enough bytes"), TokenFile: testFile(t, "files/key"), OneIn: 7, Texts: true, Queue: 10, Timeout: 3 * time.Second},
		Shutdown: Shutdown{Timeout: 2 * time.Minute},
		Runtime:  Runtime{Driver: DriverGoroutine, Loops: 3, Wait: WaitPlain},
	}
}

func goodPool() Pool {
	return Pool{
		Mode: PoolStatement, Size: 40, Min: 2, Reserve: 3, ReserveAfter: 2 * time.Second, IdleTimeout: 5 * time.Minute,
		LifeTime: 2 * time.Hour, WaitTimeout: 15 * time.Second, MaxClients: 500, MaxServers: 100, MaxWaiting: 1000,
		MaxDialing: 8, PreparedStatements: 300,
	}
}

func goodShop(t *testing.T) Database {
	return Database{
		Name: "shop",
		Shards: []Shard{
			{Name: "s0", Nodes: []string{"10.0.0.1:5432", "db.example:5433", "[::1]:5432"}},
			{Name: "s1", Nodes: []string{"/run/postgresql:5432"}},
		},
		Server: Server{
			Database: "shop_on_server", User: "proxy", Password: NewSecret("server file"),
			Control: Login{User: "control", Password: NewSecret("control file"), PasswordFile: testFile(t, "files/password3")},
			TLS: ClientTLS{
				Mode: TLSVerifyFull, CA: testFile(t, "files/ca.crt"),
				Certificate: testFile(t, "files/server.crt"), Key: testFile(t, "files/server.key"),
			},
			ConnectTimeout: 1500 * time.Millisecond,
		},
		Slots: 1024,
		Tables: []Table{
			{Name: "customers", Key: []Identifier{"id", "Tenant"}, PerShardConstraints: true},
			{Name: "public.products", Reference: true},
			{Name: "audit", Single: true},
			{
				Name: "regions", Key: []Identifier{"code"}, Default: "s1",
				List: []ListEntry{{"s0", []string{"north", "007", ""}}, {"s1", []string{"south"}}},
			},
			{Name: "events", Key: []Identifier{"at"}, Range: []RangeEntry{
				{Shard: "s0", To: ptr("2026-01-01")}, {Shard: "s1", From: ptr("2026-01-01"), To: ptr("null")},
			}},
		},
		Keys:    []Identifier{"tenant_id", "customer_id"},
		Schemas: []Schema{{"tenant_a", "s1"}, {`"Tenant "*`, SchemaByHash}},
		Functions: []Function{
			{Name: "get_customer", Arguments: []int{2, 1}, Table: "customers"},
			{Name: "audit.get_region", Arguments: []int{1}, Table: "public.regions"},
		},
		CrossShard: CrossShardRefuse, Snapshot: SnapshotOff, CrossShardQueries: 3, PartialResults: true, HotKeys: true,
		StatementSize: 1 << 20,
		Rates:         &Rate{Statements: 1000, StatementBurst: 5000, Logins: 10, LoginBurst: 20, Bytes: 1 << 20, BytesBurst: 2 << 20},
		ResultSize:    6 << 20, Concurrent: &Concurrent{Statements: 61, Reads: 62, Writes: 63, Several: 64},
		Blocks: []string{"SELECT * FROM big WHERE note LIKE '%x%'", "00000000000000ff"},
		Reads: Reads{
			MaxLag: 250 * time.Millisecond, MaxLagBytes: 16 << 20, Consistency: ConsistencyEventual,
			ReadOnlyFunctions: []string{"audit.peek", `"Odd name"`},
		},
		Pool: goodPool(),
		Failover: Failover{
			ProbeInterval: 500 * time.Millisecond, ProbeTimeout: time.Second, FailAfter: 4, RecoverAfter: 5,
			HoldTimeout: 20 * time.Second, HoldStatements: 2000,
		},
		Breaker: Breaker{Percent: 40, Least: 30, Window: 20 * time.Second, OpenFor: 2 * time.Second, OpenMax: 3 * time.Minute},
		Cache: Cache{
			Size: 64 << 20, Entry: 1 << 20, Tables: []CachedTable{{"public.prices", time.Minute}, {`shop."Odd"`, 100 * time.Millisecond}},
			Statements: []CachedStatement{{"SELECT * FROM menu WHERE id = 1", 5 * time.Second}, {"00000000000000ee", time.Hour}},
		},
		Catalog: Catalog{Refresh: 2 * time.Minute},
		Moves:   Moves{AtOnce: 3, HoldLimit: 300 * time.Millisecond, CopyRate: 100 << 20, PurgeRows: 5000, MaxLag: 1 << 20, MaxActive: 40, MaxWAL: 2 << 30},
	}
}

func goodAuth(t *testing.T) Auth {
	prefixes := func(list ...string) (all []netip.Prefix) {
		for _, s := range list {
			all = append(all, netip.MustParsePrefix(s))
		}
		return all
	}
	all := []string{"all"}
	return Auth{
		Rules: []Rule{
			{Databases: []string{"shop"}, Users: []string{"app"}, Addresses: prefixes("10.0.0.0/8", "::1/128"), Transport: "any", TLS: "require", Method: MethodCert},
			{Databases: all, Users: all, Addresses: prefixes("0.0.0.0/0", "::/0"), Transport: "any", TLS: "none", Method: MethodReject},
			{Databases: []string{"shop", "shardproxy"}, Users: []string{"watcher"}, Transport: "tcp", TLS: "any", Method: MethodMD5},
			{Databases: all, Users: all, Transport: "unix", TLS: "any", Method: MethodTrust},
			{Databases: all, Users: []string{"app", "root"}, Transport: "any", TLS: "any", Method: MethodPassword},
		},
		AuthQuery: &AuthQuery{
			Query: "SELECT * FROM proxy.lookup($1)", User: "lookup", Password: NewSecret("query file"),
			PasswordFile: testFile(t, "files/password4"), Database: "ledger", Timeout: 2 * time.Second,
			CacheTime: time.Minute, CacheMissTime: 3 * time.Second, CacheSize: 500,
		},
		AllowCleartext: true,
		Throttle:       Throttle{Delay: 50 * time.Millisecond, MaxDelay: 5 * time.Second, ForgetAfter: time.Hour, MaxAddresses: 100},
		Secret:         NewSecret("a key of enough bytes"),
		SecretFile:     testFile(t, "files/key"),
		MaxDerivations: 2,
	}
}

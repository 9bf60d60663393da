package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgcluster"
	"shardproxy/internal/pgtest"
)

// The same statements run on one PostgreSQL that holds all rows and through the program in
// front of several that hold a part each. What is not refused must be alike.

//go:embed testdata/diff/schema.sql
var diffSchema string

// bothText is the configuration of both, but for what stands for a word in capitals.
const bothText = `
listen: {address: "%LISTEN%"}
admin:  {address: "%ADMIN%", admin_users: [app], open: [probes, metrics]}
users:
  - {name: app, password: ` + pgcluster.AppPassword + `}
databases:
  app:
    shards:
%SHARDS%
    server: {control: {user: postgres}, connect_timeout: 2s}
    catalog: {refresh: 1s}
    tables:
%TABLES%`

const diffPlaces = `      customers: {key: id}
      orders:    {key: customer_id}
      items:     {key: customer_id}
      addresses: {key: customer_id}
      tenants:   {key: tenant}
      events:    {key: [tenant, day]}
      devices:   {key: id}
      days:      {key: day}
      amounts:   {key: amount}
      flags:     {key: flag}
      moments:   {key: at}
      codes:     {key: code}
      loose:     {key: customer_id}
      logs:      {key: customer_id}
      regions:   {key: region, list: {s0: [de, fr], s1: [us]}, default: s1}
      readings:  {key: at, range: [{shard: s0, to: 10}, {shard: s1, from: 10, to: 100}]}
      tickets:   {key: customer_id}
      emails:    {key: customer_id}
      products:  {reference: true}
`

// diffTables are the tables of the schema whose rows are compared, with the kind
// of each: k keyed, r reference, s single.
var diffTables = []comparedTable{
	{"customers", 'k'}, {"orders", 'k'}, {"items", 'k'}, {"addresses", 'k'}, {"tenants", 'k'}, {"events", 'k'}, {"devices", 'k'},
	{"days", 'k'}, {"amounts", 'k'}, {"flags", 'k'}, {"moments", 'k'}, {"codes", 'k'}, {"loose", 'k'}, {"logs", 'k'},
	{"regions", 'k'}, {"readings", 'k'}, {"tickets", 'k'}, {"emails", 'k'}, {"products", 'r'}, {"settings", 's'},
}

type comparedTable struct {
	name string
	kind byte
}

// both is the program in front of shards, and the server that it is compared with.
type both struct {
	*proxied
	shards   []*pgx.Conn // to each shard itself
	direct   *pgx.Conn   // to the one that holds all rows
	proxy    *pgx.Conn   // through the program
	owner    *pgx.Conn   // to direct's server, for the comparison of contents
	dsnOfAll string
	tables   []comparedTable
	limit    time.Duration // of a statement; nought: none
	copies   [][]byte      // of all tables of all servers, see save
	control  []string      // how the control user connects to each shard
	strays   *strays       // nil unless shards hold rows that are not theirs
}

// TestDiff compares statements of a corpus, and generated ones. SHARDPROXY_TEST_SEQUENCES is
// how many times 300 of the latter, SHARDPROXY_TEST_SEED the first one's seed, and
// SHARDPROXY_TEST_SHARDS the number of shards.
func TestDiff(t *testing.T) {
	t.Parallel()
	b := startBoth(t)
	t.Run("corpus", b.corpus)
	b.restore()
	t.Run("sessions", b.sessions)
	t.Run("random", func(t *testing.T) {
		b.random(t, testNumber(t, "SHARDPROXY_TEST_SEQUENCES", 1), testNumber(t, "SHARDPROXY_TEST_SEED", 1))
	})
}

// shardCount is 2, or what SHARDPROXY_TEST_SHARDS says.
func shardCount(t testing.TB) int { return testNumber(t, "SHARDPROXY_TEST_SHARDS", 2) }

func testNumber(t testing.TB, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// startBoth starts the servers and the program, with the schema and its rows on both
// sides.
func startBoth(t testing.TB) *both {
	t.Helper()
	// Generated statements may take long.
	b := &both{tables: slices.Concat(diffTables, valuesTables), limit: 4 * time.Second}
	b.start(t, shardCount(t), diffSchema+valuesSchema, diffPlacesFor(shardCount(t)))
	eventually(t, "the catalog is there", func() bool {
		_, err := b.proxy.Exec(within(t, 10*time.Second), "SELECT * FROM customers WHERE id = 0")
		return err == nil
	})
	b.load()
	return b
}

// diffPlacesFor are the places for as many shards: with one there is no other to name.
func diffPlacesFor(shards int) (places string) {
	for line := range strings.Lines(diffPlaces + valuesPlaces) {
		if shards > 1 || !strings.Contains(line, "s1") {
			places += line
		}
	}
	return places
}

// start starts the servers, with the schema, and the program with the places of its
// tables.
func (b *both) start(t testing.TB, shards int, schema, places string) {
	t.Helper()
	b.proxied = &proxied{t: t, addr: freeAddr(t), path: filepath.Join(t.TempDir(), "shardproxy.yaml")}
	clusters := startClusters(t, shards+1)
	var list strings.Builder
	for i, cl := range clusters {
		dsn := cl.Primary().DSN("app", "app")
		c := pgtest.Connect(t, dsn)
		must(t, c, schema)
		if i == len(clusters)-1 {
			b.owner, b.dsnOfAll = c, dsn
			break
		}
		b.shards, b.control = append(b.shards, c), append(b.control, cl.Primary().DSN("app", "postgres"))
		fmt.Fprintf(&list, "      - {name: s%d, nodes: [%q]}\n", i, cl.Primary().Addr())
	}
	b.write(strings.NewReplacer("%SHARDS%", list.String(), "%TABLES%", places, "%LISTEN%", b.addr, "%ADMIN%", freeAddr(t)).Replace(bothText))
	if shards > 1 {
		b.initialise()
	}
	b.run()
	b.again()
}

// initialise makes the shards a cluster.
func (b *both) initialise() {
	t := b.t
	t.Helper()
	c := initCommand()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs([]string{"-c", b.path})
	if err := c.ExecuteContext(within(t, time.Minute)); err != nil {
		t.Fatalf("init: %v\n%s", err, out.String())
	}
}

// again connects both sides anew: some statements tie a session to a server.
func (b *both) again() {
	for _, c := range []*pgx.Conn{b.proxy, b.direct} {
		if c != nil {
			_ = c.Close(within(b.t, 10*time.Second)) // nothing depends on how it ends
		}
	}
	limit := fmt.Sprintf("&statement_timeout=%d", b.limit.Milliseconds())
	b.proxy, b.direct = b.connectTo(b.dsn()+limit), b.connectTo(b.dsnOfAll+limit)
}

// startClusters starts single servers, all at once.
func startClusters(t testing.TB, n int) []*pgcluster.Cluster {
	t.Helper()
	all, errs := make([]*pgcluster.Cluster, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range all {
		all[i] = pgcluster.New(pgcluster.Options{Settings: map[string]string{"max_prepared_transactions": "20", "wal_level": "logical"}})
		wg.Go(func() { errs[i] = all[i].Open(within(t, time.Minute)) })
		t.Cleanup(func() { _ = all[i].Close() })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// load fills both sides: rows of sharded tables go through the program.
func (b *both) load() {
	for sql, kind := range diffRows() {
		must(b.t, b.owner, sql)
		switch kind {
		case 'k':
			must(b.t, b.proxy, sql)
		case 'r':
			for _, c := range b.shards {
				must(b.t, c, sql)
			}
		case 's':
			must(b.t, b.shards[0], sql)
		}
	}
	b.alike("the rows at the start")
	b.save()
}

// fingerprintSQL gives for each table its rows' number and a sum of their hashes,
// which are sums over the shards too.
func fingerprintSQL(tables []comparedTable, where func(comparedTable) string) string {
	var parts []string
	for i, t := range tables {
		parts = append(parts, fmt.Sprintf("SELECT %d AS i, count(*), coalesce(sum(hashtextextended(t::text, 1)), 0)::text FROM %s t%s", i, t.name, where(t)))
	}
	return strings.Join(parts, " UNION ALL ") + " ORDER BY 1"
}

// alike compares what is stored, and reports whether it is the same.
func (b *both) alike(after string) bool {
	b.t.Helper()
	want, same := b.fingerprints(b.owner, everyRow), true
	if b.strays != nil && !b.strays.left(after) {
		same = false
	}
	sums := make([]fingerprint, len(want))
	for i, c := range b.shards {
		for j, f := range b.fingerprints(c, b.strays.owned) {
			switch b.tables[j].kind {
			case 'k':
				sums[j].add(f)
			case 'r':
				if f != want[j] {
					b.t.Errorf("after %s: %s on shard %d differs", after, b.tables[j].name, i)
					same = false
				}
			case 's':
				sums[j].add(f)
				if i > 0 && f.rows != 0 {
					b.t.Errorf("after %s: %s has rows on shard %d", after, b.tables[j].name, i)
					same = false
				}
			}
		}
	}
	for j := range sums {
		if b.tables[j].kind != 'r' && sums[j] != want[j] {
			b.t.Errorf("after %s: %s has other rows than it should (%d, not %d)", after, b.tables[j].name, sums[j].rows, want[j].rows)
			same = false
		}
	}
	return same
}

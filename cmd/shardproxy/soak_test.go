package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"shardproxy/internal/pgcluster"
	"shardproxy/internal/pgtest"
)

// soakText has bounds that are reached within a minute, so that what fills up to a bound is not taken for a leak.
// Server connections that nobody uses close at once: at rest those that are left are the proxy's own.
const soakText = `
listen: {address: "%LISTEN%"}
admin:  {address: "%ADMIN%", admin_users: [app], open: [probes, metrics], pprof: true}
users:
  - {name: app, password: ` + pgcluster.AppPassword + `}
  - {name: slow, password: slow, server_user: app, server_password: ` + pgcluster.AppPassword + `, rates: {statements: 30, statement_burst: 5}}
databases:
  app:
    shards:
%SHARDS%
    server: {control: {user: postgres}, connect_timeout: 2s}
    pool: {size: 8, idle_timeout: 500ms, life_time: 15s}
    failover: {probe_interval: 200ms, probe_timeout: 1s, recover_after: 1}
    catalog: {refresh: 1s}
    hot_keys: true
    cache: {size: 128KiB, tables: {public.accounts: 5s, public.events: 5s, public.rates: 5s}}
    keys: [tenant_id]
    tables:
      accounts: {key: id}
      events:   {key: account}
      bulk:     {key: account}
      rates:    {reference: true}
auth: {throttle: {delay: 5ms, max_delay: 20ms, forget_after: 2s, max_addresses: 100}}
audit: {file: audit.log, statements: [read, write, ddl, call, other]}
limits: {plan_cache: 1MiB, statements: 200, session_statements: 400, rates: {wait: 300ms}}
`

const soakSchema = `
CREATE TABLE accounts (id bigint PRIMARY KEY, owner text NOT NULL, balance bigint NOT NULL);
CREATE TABLE events (account bigint, id bigint, note text, PRIMARY KEY (account, id));
CREATE TABLE bulk (account bigint, id bigint, note text NOT NULL, PRIMARY KEY (account, id));
CREATE TABLE rates (id bigint PRIMARY KEY, v bigint NOT NULL);
`

// soakAccounts is how many accounts there are, and what each has at first.
const soakAccounts = 1000

// soak is a program that is used in every way for a long time, and looked at when it rests.
type soak struct {
	t      testing.TB
	ps     *process
	text   string // of the configuration
	shards []*pgtest.Cluster
	made   atomic.Int64 // numbers the names and texts that nobody has had
	all    []*soakClient
	seen   []soakSample
	before string // goroutines of the first sample that counts
	heap   string // a file with what was alive then

	mu    sync.Mutex
	steps map[string]int // by load
	ends  map[string]int // those that failed, as they may, by load and SQLSTATE
}

// TestSoakFlat runs the program under everything that clients and operators do, for SHARDPROXY_TEST_SOAK seconds, and
// stops all of it now and then to see what the process and the servers still hold: after a warm-up that must not grow.
func TestSoakFlat(t *testing.T) {
	t.Parallel()
	length := time.Duration(testNumber(t, "SHARDPROXY_TEST_SOAK", 15)) * time.Second
	s := startSoak(t)
	rounds := min(max(int(length/(6*time.Second)), 3), 36)
	end := time.Now()
	for i := range rounds {
		end = end.Add(length / time.Duration(rounds))
		// A rest takes its time as well; where rounds are short, most of it.
		s.round(max(time.Until(end)-2*time.Second, 2*time.Second), i)
		s.rest()
		s.look(i == rounds/4)
		if t.Failed() {
			break
		}
	}
	t.Logf("what was held at rest:\n%s", soakTable(s.seen))
	t.Log(s.counts())
	if len(s.seen) >= soakJudged {
		t.Logf("what is alive now and was not after the warm-up:\n%s", s.grown())
		for _, bad := range soakTrends(s.seen) {
			t.Error(bad)
		}
		if t.Failed() {
			t.Logf("goroutines after the warm-up:\n%s\nand at the end:\n%s\ndescriptors: %v", s.before, s.goroutines(), s.descriptors())
		}
	}
	s.leave()
	s.audited()
}

// audited looks at the audit log: no line is missing, sessions that end have begun, and what is written of statements is of sessions.
func (s *soak) audited() {
	begun := map[uint64]bool{}
	kinds := map[string]int{}
	for _, l := range auditLines(s.t, filepath.Join(filepath.Dir(s.ps.path), "audit.log")) {
		kinds[strings.TrimSpace(l.Event+" "+l.Outcome)]++
		switch l.Event {
		case "missing":
			s.t.Error("lines of the audit log are missing")
		case "login":
			begun[l.Session] = true
		case "logout", "statement":
			if !l.Console && l.Session != 0 && !begun[l.Session] {
				s.t.Error("the audit log tells of a session that has not begun: ", l)
			}
		}
	}
	s.t.Log("the audit log: ", kinds)
	for _, kind := range []string{"login done", "login refused", "logout", "order done", "statement done", "statement failed"} {
		if kinds[kind] == 0 {
			s.t.Error("the audit log tells of nothing of the kind ", kind)
		}
	}
}

// startSoak starts two shards with a replica each, and the program.
func startSoak(t testing.TB) *soak {
	t.Helper()
	s := &soak{t: t, steps: map[string]int{}, ends: map[string]int{}}
	var list strings.Builder
	for i := range 2 {
		cl := pgtest.Start(t, pgtest.Options{Replicas: 1, Settings: map[string]string{"max_prepared_transactions": "50", "wal_level": "logical"}})
		s.shards = append(s.shards, cl)
		fmt.Fprintf(&list, "      - {name: s%d, nodes: [%q, %q]}\n", i, cl.Primary().Addr(), cl.Replicas()[0].Addr())
		cl.Primary().Exec("app", "SET ROLE app; "+soakSchema)
	}
	s.ps = newProcess(t, "app", nil, strings.Replace(soakText, "%SHARDS%\n", list.String(), 1))
	s.text = s.ps.text()
	if o := call(t, "", "init", "-c", s.ps.path); o.code != 0 {
		t.Fatalf("init: %+v", o)
	}
	s.ps.start()
	s.ps.logged("msg=listening")
	c := s.ps.connect()
	eventually(t, "the catalog is there", func() bool {
		_, err := c.Exec(within(t, 10*time.Second), "SELECT * FROM accounts WHERE id = 0")
		return err == nil
	})
	must(t, c, "INSERT INTO accounts SELECT n, 'owner ' || n, $1 FROM generate_series(1, $1) n", soakAccounts)
	must(t, c, "INSERT INTO rates SELECT n, n FROM generate_series(1, 20) n")
	if err := c.Close(within(t, time.Second)); err != nil {
		t.Fatal(err)
	}
	s.recruit(uint64(testNumber(t, "SHARDPROXY_TEST_SEED", 1)))
	return s
}

// recruit makes the clients.
func (s *soak) recruit(seed uint64) {
	for _, load := range soakLoads() {
		for i := range load.clients {
			id := len(s.all)
			// Few statements in the drivers' own caches: they are full after the first seconds.
			c := &soakClient{soak: s, load: load, stays: load.stays && i == 0, r: rand.New(rand.NewPCG(seed, uint64(id))),
				txClient: txClient{t: s.t, dsn: s.ps.dsn() + "&statement_cache_capacity=50", id: id}}
			if load.user != "" {
				c.dsn = s.ps.dsnOf(load.user, load.user, "app")
			}
			s.all = append(s.all, c)
		}
	}
	s.t.Cleanup(func() {
		for _, c := range s.all {
			c.drop()
		}
	})
}

// round has all clients at work for a while, with harm done meanwhile.
func (s *soak) round(d time.Duration, n int) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	var group sync.WaitGroup
	for _, c := range s.all {
		group.Go(func() { c.run(ctx) })
	}
	s.harm(ctx, rand.New(rand.NewPCG(uint64(n), 99)))
	group.Wait()
	s.ps.runsStill()
}

// harm kills server connections all the time, and once a replica, which comes back.
func (s *soak) harm(ctx context.Context, r *rand.Rand) {
	for i := 0; soakPause(ctx, time.Duration(300+r.IntN(300))*time.Millisecond); i++ {
		cl := s.shards[r.IntN(len(s.shards))]
		if i == 1 {
			cl.Replicas()[0].Kill9()
			soakPause(ctx, time.Second)
			cl.Replicas()[0].Start()
			continue
		}
		node := cl.Nodes()[r.IntN(2)]
		node.Exec("app", `SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity
			WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY random() LIMIT 2) AS picked`)
	}
}

// rest returns when nothing is left to be done and all that a round has changed is as it was: who stays is connected,
// the configuration is the first one, nothing is blocked, no server connection of a client is open.
func (s *soak) rest() {
	s.t.Helper()
	for _, cl := range s.shards {
		cl.CatchUp()
	}
	s.ps.write(s.text)
	s.ps.console("RELOAD")
	s.ps.console("UNBLOCK ALL IN app")
	eventually(s.t, "all nodes are in use and the rows of copies are gone", func() bool {
		return s.metric("shardproxy_node_up") == 4 && s.clear() == nil
	})
	for _, c := range s.all {
		eventually(s.t, "a client that stays is there", func() bool {
			if !c.stays {
				return true
			}
			if !c.connected(within(s.t, 10*time.Second)) {
				return false
			}
			_, _, err := c.query("SELECT 1")
			return err == nil
		})
	}
	eventually(s.t, "no client has a server connection and nothing is prepared", func() bool {
		return s.metric("shardproxy_servers") == 0 && s.metric("shardproxy_gather_held_bytes") == 0 && s.metric("shardproxy_twopc_prepared") == 0
	})
	<-time.After(time.Second) // what goes on by itself is to be as it is at rest
	s.kept()
	s.astray()
}

// astray fails when the proxy was wrong about what a server has prepared: none of the clients prepares a name twice.
func (s *soak) astray() {
	s.t.Helper()
	for _, cl := range s.shards {
		for _, n := range cl.Nodes() {
			log, err := os.ReadFile(n.Engine.LogFile())
			if err != nil {
				s.t.Fatal(err)
			}
			for _, line := range lines(string(log), "prepared statement .* already exists") {
				s.t.Errorf("%s: %s", n.Name(), line)
			}
		}
	}
}

// clear empties the tables that rows were copied and written to.
func (s *soak) clear() error {
	c := &txClient{t: s.t, dsn: s.ps.dsn()}
	defer c.drop()
	if !c.connected(within(s.t, 10*time.Second)) {
		return context.DeadlineExceeded
	}
	_, _, err := c.query("TRUNCATE bulk, events")
	return err
}

// kept fails when transfers have made or lost anything, or rows.
func (s *soak) kept() {
	s.t.Helper()
	var rows, sum int
	for _, cl := range s.shards {
		for i, v := range cl.Primary().Rows("app", "SELECT count(*), sum(balance) FROM accounts")[0] {
			n, err := strconv.Atoi(v)
			if err != nil {
				s.t.Fatal(err)
			}
			*[...]*int{&rows, &sum}[i] += n
		}
	}
	if rows != soakAccounts || sum != soakAccounts*soakAccounts {
		s.t.Errorf("%d accounts with %d in all", rows, sum)
	}
}

// leave ends the program, which leaves nothing on the servers, and looks at what it has logged.
func (s *soak) leave() {
	s.t.Helper()
	s.ps.signal(syscall.SIGTERM)
	for _, c := range s.all {
		c.drop()
	}
	s.ps.endsWithin(20 * time.Second)
	eventually(s.t, "no connection is left on any server", func() bool {
		n := 0
		for _, cl := range s.shards {
			for _, node := range cl.Nodes() {
				n += len(node.Rows("app", "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"))
			}
		}
		return n == 0
	})
	bad := lines(s.ps.printed(), "level=ERROR|panicked|goroutine [0-9]+ \\[")
	for _, line := range bad[:min(len(bad), 20)] {
		s.t.Errorf("the program logged: %s", line)
	}
}

// page returns what the admin address answers with to an admin user.
func (s *soak) page(path string) string {
	s.t.Helper()
	body, err := s.askAdmin(within(s.t, 20*time.Second), path)
	if err != nil {
		s.t.Fatalf("%s: %v", path, err)
	}
	return body
}

// askAdmin asks the admin address over a connection of its own.
func (s *soak) askAdmin(ctx context.Context, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.ps.admin+path, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("app:"+pgcluster.AppPassword)))
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return string(body), err
}

// metric returns the sum of a family's values.
func (s *soak) metric(family string) float64 {
	s.t.Helper()
	return sampleSum(s.t, s.page("/metrics"), family)
}

// soakPause waits, and says whether ctx goes on.
func soakPause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgcluster"
	"shardproxy/internal/pgtest"
)

// txStage is what transactions over several shards are tried on: servers, and two
// proxies in processes of their own, each with wires of its own to the servers.
type txStage struct {
	t       testing.TB
	shards  []*pgtest.Cluster
	wires   [2][]*faultproxy.Proxy
	proxies [2]*process
	starts  int
	made    int // how many shards the cluster had at first
	// keys are those of the table lists by the shards that they are on.
	keys [][]int64
	// value is the last one that was appended or otherwise given a number.
	value atomic.Int64
}

const txStageText = `
listen: {address: "%LISTEN%"}
admin:  {address: "%ADMIN%", admin_users: [app], open: [probes, metrics]}
users:
  - {name: app, password: ` + pgcluster.AppPassword + `}
databases:
  app:
    shards:
%NODES%
    server: {control: {user: postgres}, connect_timeout: 2s}
    failover: {probe_interval: 200ms, probe_timeout: 1s, recover_after: 1}
    tables:
      lists:    {key: k}
      accounts: {key: id}
      ledger:   {key: account}
      rates:    {reference: true}
`

const txStageSchema = `
CREATE TABLE lists (k bigint PRIMARY KEY, vals bigint[] NOT NULL);
CREATE TABLE accounts (id bigint PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE ledger (transfer bigint, account bigint, amount bigint NOT NULL, PRIMARY KEY (account, transfer));
CREATE TABLE rates (id bigint PRIMARY KEY, v bigint NOT NULL);
`

// listKeys is how many lists there are.
const listKeys = 400

// startTxStage starts the servers and the proxies.
func startTxStage(t testing.TB, shards int) *txStage {
	t.Helper()
	return startSpareStage(t, shards, shards)
}

// startSpareStage is startTxStage with more servers than the cluster has shards at first.
func startSpareStage(t testing.TB, servers, shards int) *txStage {
	t.Helper()
	s := startServers(t, servers, shards)
	made := newProcess(t, "app", nil, s.text(shards))
	if o := call(t, "", "init", "-c", made.path); o.code != 0 {
		t.Fatalf("init: %+v", o)
	}
	s.serve()
	return s
}

// startGrownStage is startTxStage with one shard, which has had rows before, and servers that may join.
func startGrownStage(t testing.TB, servers int) *txStage {
	t.Helper()
	s := startServers(t, servers, 1)
	s.shards[0].Primary().Exec("app", "INSERT INTO lists SELECT 1000000 + n, ARRAY[7] FROM generate_series(1, 5000) n; INSERT INTO rates SELECT 100 + n, n FROM generate_series(1, 1000) n")
	if o := call(t, "", "init", "--grow", "-c", s.proxies[0].path); o.code != 0 {
		t.Fatalf("init: %+v", o)
	}
	s.serve()
	return s
}

// startServers starts servers, of which the first ones have the schema, and makes two proxies, which are not started.
func startServers(t testing.TB, servers, shards int) *txStage {
	t.Helper()
	s := &txStage{t: t, made: shards}
	for i := range servers {
		cl := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"max_prepared_transactions": "100", "wal_level": "logical"}})
		s.shards = append(s.shards, cl)
		if i < shards {
			must(t, pgtest.Connect(t, cl.Primary().DSN("app", "app")), txStageSchema)
		}
	}
	for i := range s.proxies {
		for _, cl := range s.shards {
			s.wires[i] = append(s.wires[i], faultproxy.Start(t, faultproxy.Options{Target: cl.Primary().Addr(), RefuseTLS: true}))
		}
		s.proxies[i] = newProcess(t, "app", nil, s.textOf(i, servers))
		s.proxies[i].server = s.shards[0].Primary()
	}
	return s
}

// text is a configuration with the first shards only.
func (s *txStage) text(shards int) string { return s.textOf(0, shards) }

func (s *txStage) textOf(proxy, shards int) string {
	var nodes strings.Builder
	for j, w := range s.wires[proxy][:shards] {
		fmt.Fprintf(&nodes, "      - {name: s%d, nodes: [%q]}\n", j, w.Addr())
	}
	return strings.Replace(txStageText, "%NODES%\n", nodes.String(), 1)
}

// serve starts the proxies.
func (s *txStage) serve() {
	for _, ps := range s.proxies {
		ps.start()
		ps.logged("msg=listening")
	}
	s.makeLists(s.made)
}

// makeLists makes all lists, empty, and finds out where they are.
func (s *txStage) makeLists(shards int) {
	c := s.proxies[0].connect()
	eventually(s.t, "the catalog is there", func() bool {
		_, err := c.Exec(within(s.t, 10*time.Second), "SELECT * FROM lists WHERE k = 0")
		return err == nil
	})
	var rows []string
	for k := range listKeys {
		rows = append(rows, fmt.Sprintf("(%d, '{}')", k+1))
	}
	must(s.t, c, "INSERT INTO lists VALUES "+strings.Join(rows, ", "))
	for _, cl := range s.shards[:shards] {
		var keys []int64
		for _, row := range cl.Primary().Rows("app", "SELECT k FROM lists ORDER BY k") {
			var k int64
			_, _ = fmt.Sscan(row[0], &k)
			keys = append(keys, k)
		}
		if len(keys) < listKeys/shards/4 {
			s.t.Fatalf("a shard has %d lists", len(keys))
		}
		s.keys = append(s.keys, keys)
	}
	eventually(s.t, "the other proxy knows the catalog", func() bool {
		c := s.proxies[1].connect()
		defer c.Close(within(s.t, 10*time.Second))
		_, err := c.Exec(within(s.t, 10*time.Second), "SELECT * FROM lists WHERE k = 0")
		return err == nil
	})
}

// kill ends a proxy as a crash does.
func (s *txStage) kill(i int) {
	s.t.Helper()
	s.proxies[i].signal(syscall.SIGKILL)
	<-s.proxies[i].ended
}

// restart starts a proxy that was killed. It keeps its address and nothing else.
func (s *txStage) restart(i int) {
	s.t.Helper()
	old := s.proxies[i]
	s.starts++
	ps := &process{
		t: s.t, path: old.path, addr: old.addr, admin: old.admin, database: old.database, server: old.server,
		log: filepath.Join(filepath.Dir(old.path), fmt.Sprintf("log%d", s.starts)), ended: make(chan struct{}),
	}
	ps.cmd = command(s.t, "run", "--config", ps.path)
	ps.start()
	ps.logged("msg=listening")
	s.proxies[i] = ps
}

// prepared returns how many parts of transactions are prepared on all shards.
func (s *txStage) prepared() (n int) {
	s.t.Helper()
	for _, cl := range s.shards {
		n += len(cl.Primary().Rows("app", "SELECT gid FROM pg_prepared_xacts"))
	}
	return n
}

// settled waits until nothing is prepared on any shard, and returns how long it took.
func (s *txStage) settled() time.Duration {
	s.t.Helper()
	began := time.Now()
	for end := began.Add(time.Minute); ; <-time.After(20 * time.Millisecond) {
		left := s.prepared()
		if left == 0 {
			return time.Since(began)
		}
		if time.Now().After(end) {
			s.t.Fatalf("%d transactions are still prepared", left)
		}
	}
}

// nodes are the shards' servers.
func (s *txStage) nodes() (all []*pgtest.Node) {
	for _, cl := range s.shards {
		all = append(all, cl.Primary())
	}
	return all
}

// lasting returns a context that ends after some time, and not before enough was done;
// when that takes minutes more, and more than so much more, the test fails.
func lasting(t testing.TB, least, more time.Duration, enough func() bool) (context.Context, context.CancelFunc) {
	bound := least + 3*time.Minute + more
	ctx, cancel := context.WithCancel(context.Background())
	began := time.Now()
	go func() {
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			switch took := time.Since(began); {
			case took >= least && enough():
				cancel()
			case took > bound && ctx.Err() == nil:
				t.Errorf("not enough was done in %v", took)
				cancel()
			}
		}
	}()
	return ctx, cancel
}

// dsn is where a client connects, to one proxy or the other.
func (s *txStage) dsn(client int) string { return s.proxies[client%2].dsn() }

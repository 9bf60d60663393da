package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// rates are writers and readers of a table that every shard has whole.
type rates struct {
	t    *testing.T
	s    *txStage
	done atomic.Int64 // acknowledged writes
	read atomic.Int64
	// failed counts statements that failed, by their SQLSTATE.
	mu     sync.Mutex
	failed map[string]int
}

// begin has two clients at work, one through each proxy, until stop is called.
func (r *rates) begin() (stop func()) {
	must(r.t, r.s.proxies[0].connect(), "INSERT INTO rates VALUES (0, 0), (1, 0)")
	r.failed = map[string]int{}
	ctx, cancel := context.WithCancel(r.t.Context())
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() {
			c := &txClient{t: r.t, dsn: r.s.dsn(i), id: i, set: []string{"SET lock_timeout = '10s'"}}
			defer c.drop()
			for own := int64(0); c.connected(ctx); {
				if r.did(c, "UPDATE rates SET v = v + 1 WHERE id = $1", i) == nil {
					own++
					r.done.Add(1)
				}
				rows, _, err := c.query("SELECT v FROM rates WHERE id = $1", i)
				if err != nil {
					r.fail(err)
				} else if got := rows[0][0].(int64); got != own {
					r.t.Errorf("client %d has written %d and reads %d", i, own, got)
					own = got
				}
				r.read.Add(1)
			}
		})
	}
	stop = func() {
		cancel()
		all.Wait()
	}
	r.t.Cleanup(stop)
	return stop
}

func (r *rates) did(c *txClient, sql string, args ...any) error {
	_, _, err := c.query(sql, args...)
	if err != nil {
		r.fail(err)
	}
	return err
}

func (r *rates) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed[sqlState(err)+" "+err.Error()]++
}

// judge compares what the shards have with what was acknowledged.
func (r *rates) judge(members ...int) {
	r.t.Helper()
	r.t.Logf("%d writes of what all shards have, %d reads; failed: %v", r.done.Load(), r.read.Load(), r.failed)
	if len(r.failed) > 0 {
		r.t.Error("statements failed")
	}
	for _, i := range members {
		if got := r.s.shards[i].Primary().Value("app", "SELECT sum(v) FROM rates"); got != fmt.Sprint(r.done.Load()) {
			r.t.Errorf("shard %d has %s of %d writes", i, got, r.done.Load())
		}
	}
}

// members are the shards of the slot map.
func (s *txStage) members() string {
	return s.shards[0].Primary().Value("app", "SELECT string_agg(name, ' ' ORDER BY name) FROM shardproxy.shards")
}

// TestShardsJoinAndLeave has a cluster of two shards become one of three, and of two again, while clients are at work through two
// proxies: no client sees an error, no total is wrong, and what every shard has whole is the same on all. With
// SHARDPROXY_TEST_MOVES it goes by four shards, again and again until SHARDPROXY_TEST_TOTALS totals have been read.
func TestShardsJoinAndLeave(t *testing.T) {
	t.Parallel()
	servers := 3
	if testNumber(t, "SHARDPROXY_TEST_MOVES", 0) > 0 {
		servers = 4
	}
	s := startSpareStage(t, servers, 2)
	b := s.openBank(t, "SET lock_timeout = '10s'")
	b.committed = true
	stop := b.begin(t, 3, 2)
	r := &rates{t: t, s: s}
	stopRates := r.begin()
	l := &copiers{t: t, s: s}
	stopCopies := l.begin()
	var said []string
	type step struct {
		args    []string
		members string
	}
	steps := []step{{[]string{"--add", "s2"}, "s0 s1 s2"}, {[]string{"--remove", "s1"}, "s0 s2"}}
	if testNumber(t, "SHARDPROXY_TEST_MOVES", 0) > 0 {
		steps = []step{
			{[]string{"--add", "s2", "--threshold", "5%"}, "s0 s1 s2"}, {[]string{"--add", "s3", "--threshold", "5%"}, "s0 s1 s2 s3"}, {[]string{"--remove", "s1"}, "s0 s2 s3"},
			{[]string{"--add", "s1"}, "s0 s1 s2 s3"}, {[]string{"--remove", "s3"}, "s0 s1 s2"}, {[]string{"--remove", "s2"}, "s0 s1"},
		}
	}
	left := map[string]bool{}
	run := func(step step) {
		i := int(step.args[1][1] - '0')
		if left[step.args[1]] {
			s.shards[i].Primary().Exec("app", "TRUNCATE rates") // it left with the rows that it had
		}
		left[step.args[1]] = step.args[0] == "--remove"
		said = append(said, s.rebalance(t, append([]string{"start", "--step-slots", "1000"}, step.args...)...), s.watched(t))
		if got := s.members(); got != step.members {
			t.Fatalf("the shards are %s, want %s", got, step.members)
		}
	}
	rounds := 0
	for enough := b.hasDone(0, testNumber(t, "SHARDPROXY_TEST_TOTALS", 0)); rounds == 0 || !enough(); rounds++ {
		for _, step := range steps {
			run(step)
		}
	}
	t.Logf("%d rounds of %d steps", rounds, len(steps))
	eventually(t, "nothing is guarded any more", func() bool {
		return s.shards[0].Primary().Value("app", "SELECT guarded OR closed FROM shardproxy.epoch") == "f"
	})
	stop()
	stopRates()
	stopCopies()
	s.settled()
	t.Log(strings.Join(said, "\n"))
	b.judge(t)
	b.seamless(t)
	s.clean(t)
	var members []int
	for i, cl := range s.shards {
		if strings.Contains(s.members(), fmt.Sprint("s", i)) {
			members = append(members, i)
			continue
		}
		if got := cl.Primary().Value("app", "SELECT (SELECT count(*) FROM accounts) + (SELECT count(*) FROM ledger) + (SELECT count(*) FROM lists)"); got != "0" {
			t.Errorf("shard s%d has left and has %s rows", i, got)
		}
	}
	r.judge(members...)
	l.judge()
	if b.slowest > 5*time.Second {
		t.Error("a statement took", b.slowest)
	}
}

// TestJoinWaitsAndEnds has a shard join that one of the proxies does not know, and one whose definitions change meanwhile.
func TestJoinWaitsAndEnds(t *testing.T) {
	t.Parallel()
	s := startSpareStage(t, 3, 2)
	c := s.proxies[0].connect()
	for _, cl := range s.shards[:2] {
		cl.Primary().Exec("app", "CREATE ROLE later")
	}
	must(t, c, "INSERT INTO rates SELECT n, 0 FROM generate_series(1, 1000) n")
	value := func(sql string) string { return s.shards[0].Primary().Value("app", sql) }

	// What the configuration places on a spare shard is refused, and nothing else goes there.
	if got := s.shards[2].Primary().Value("app", "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace"); got != "0" {
		t.Fatalf("the spare shard has %s relations", got)
	}
	must(t, c, "CREATE TABLE everywhere (id bigint PRIMARY KEY)")
	must(t, c, "DROP TABLE everywhere")

	// A privilege that is taken away while a shard joins must not be left there.
	must(t, c, "GRANT SELECT ON rates TO later")

	// A proxy that lacks the shard in its configuration.
	with, err := os.ReadFile(s.proxies[1].path)
	if err != nil {
		t.Fatal(err)
	}
	without := regexp.MustCompile(`(?m)^.*name: s2.*\n`).ReplaceAll(with, nil)
	s.kill(1)
	if err := os.WriteFile(s.proxies[1].path, without, 0o600); err != nil {
		t.Fatal(err)
	}
	s.restart(1)
	s.rebalance(t, "start", "--add", "s2", "--slots", "0", "--to", "s2")
	soon(t, time.Minute, "the proxy is waited for", func() bool {
		return strings.Contains(value("SELECT said FROM shardproxy.moves WHERE kind = 'join'"), "the configuration to name shard s2, of proxy")
	})
	must(t, c, "UPDATE rates SET v = v + 1 WHERE id = 1") // it holds nobody up
	s.kill(1)
	if err := os.WriteFile(s.proxies[1].path, with, 0o600); err != nil {
		t.Fatal(err)
	}
	s.restart(1)
	s.ends(t, "the proxy knows the shard")
	if s.members() != "s0 s1 s2" {
		t.Fatalf("the shards are %s: %s", s.members(), s.rebalance(t, "history"))
	}
	// One that does not know a shard of the map is not served.
	s.kill(1)
	if err := os.WriteFile(s.proxies[1].path, without, 0o600); err != nil {
		t.Fatal(err)
	}
	if o := call(t, "", "run", "--config", s.proxies[1].path); o.code == 0 || !strings.Contains(o.err, `shard "s2" is gone`) {
		t.Errorf("a proxy without the shard: %+v", o)
	}
	if err := os.WriteFile(s.proxies[1].path, with, 0o600); err != nil {
		t.Fatal(err)
	}
	s.restart(1)
	s.rebalance(t, "start", "--remove", "s2", "--threshold", "99%")
	s.ends(t, "it leaves")

	// Rows that are there already are nobody's to delete.
	if o := call(t, "", "rebalance", "start", "-c", s.proxies[0].path, "--add", "s2", "--slots", "0", "--to", "s2"); o.code != 2 || !strings.Contains(o.err, "rates") {
		t.Errorf("with rows: %+v", o)
	}
	s.shards[2].Primary().Exec("app", "TRUNCATE rates")

	// Definitions that change meanwhile: a client's open transaction keeps the join from its end until they have.
	holds := s.proxies[1].connect()
	s.rebalance(t, "start", "--add", "s2", "--slots", "0", "--to", "s2")
	soon(t, time.Minute, "its changes are followed", func() bool {
		return value("SELECT EXISTS (SELECT FROM pg_replication_slots WHERE confirmed_flush_lsn IS NOT NULL)") == "t" // before, it waits for who writes
	})
	must(t, holds, "BEGIN")
	must(t, holds, "UPDATE rates SET v = v + 1 WHERE id = 2")
	soon(t, time.Minute, "writers are waited for", func() bool {
		return strings.Contains(value("SELECT said FROM shardproxy.moves WHERE kind = 'join' ORDER BY id DESC LIMIT 1"), "waits for")
	})
	must(t, s.proxies[0].connect(), "REVOKE SELECT ON rates FROM later")
	must(t, holds, "COMMIT")
	s.ends(t, "it is given up")
	if got := value("SELECT string_agg(phase || ' ' || said, '; ' ORDER BY id) FROM (SELECT * FROM shardproxy.moves ORDER BY id DESC LIMIT 2) x"); !strings.Contains(got, "aborted") || !strings.Contains(got, "relation public.rates: its owner and privileges") || s.members() != "s0 s1" {
		t.Errorf("%s; the shards are %s", got, s.members())
	}
	if got := s.shards[2].Primary().Value("app", "SELECT count(*) FROM rates"); got != "0" {
		t.Errorf("%s rows are left", got)
	}
	s.clean(t)
	must(t, s.proxies[0].connect(), "UPDATE rates SET v = v + 1")
}

// TestLeftIsNotRead has sessions that were at a shard read, and write, what all shards have when it has left, and when its server is gone.
func TestLeftIsNotRead(t *testing.T) {
	t.Parallel()
	s := startTxStage(t, 3)
	c := s.proxies[0].connect()
	must(t, c, "INSERT INTO rates SELECT n, 0 FROM generate_series(1, 10) n")
	must(t, c, "GRANT SELECT ON lists TO PUBLIC")
	var keys []int64
	for _, row := range s.shards[2].Primary().Rows("app", "SELECT k FROM lists LIMIT 1") {
		var k int64
		_, _ = fmt.Sscan(row[0], &k)
		keys = append(keys, k)
	}
	at := s.proxies[1].connect() // a session at s2
	open := s.proxies[0].connect()
	onKey := fmt.Sprintf("SELECT * FROM lists WHERE k = %d", keys[0])
	must(t, at, onKey)
	must(t, open, onKey)
	must(t, open, "BEGIN")
	must(t, open, "SELECT max(v) FROM rates")
	s.rebalance(t, "start", "--remove", "s2", "--step-slots", "2000")
	soon(t, time.Minute, "it has left", func() bool { return s.members() == "s0 s1" })
	must(t, c, "UPDATE rates SET v = 1")
	for what, conn := range map[string]*pgx.Conn{"a session": at, "a transaction": open} {
		var v int
		if err := conn.QueryRow(within(t, 10*time.Second), "SELECT max(v) FROM rates").Scan(&v); err != nil || v != 1 {
			t.Errorf("%s at the shard that has left reads %d, %v", what, v, err)
		}
	}
	must(t, open, "UPDATE rates SET v = 2")
	must(t, open, "COMMIT")
	s.ends(t, "it leaves")
	s.shards[2].Primary().Stop()
	for i, want := range []string{"20", "20"} {
		if got := s.shards[i].Primary().Value("app", "SELECT sum(v) FROM rates"); got != want {
			t.Errorf("shard s%d has %s", i, got)
		}
	}
	// A proxy starts, and all goes on, while its server is down and the configuration still has it.
	s.kill(1)
	s.restart(1)
	soon(t, time.Minute, "the proxy serves", func() bool {
		_, err := s.proxies[1].connect().Exec(within(t, 20*time.Second), "UPDATE rates SET v = 3")
		return err == nil
	})
	must(t, s.proxies[1].connect(), "SELECT count(*) FROM lists")
}

// TestLeaveOfLostServer has a shard leave whose server is lost: writes of what all shards have are not kept waiting, and abort ends the rest.
func TestLeaveOfLostServer(t *testing.T) {
	t.Parallel()
	s := startTxStage(t, 3)
	c := s.proxies[0].connect()
	must(t, c, "INSERT INTO rates VALUES (1, 0)")
	s.rebalance(t, "start", "--slots", s.slotsOf(t, 2, 1), "--to", "s0", "--step-slots", "4096")
	s.ends(t, "it is empty")
	s.shards[2].Primary().Kill9()
	s.shards[0].Primary().Exec("app", "INSERT INTO shardproxy.moves (kind, slots, source, target, phase, maker) VALUES ('leave', '{}', 's2', 's0', 'planned', 2)")
	phase := func() string {
		return s.shards[0].Primary().Value("app", "SELECT phase || CASE WHEN closed THEN ' closed' ELSE '' END FROM shardproxy.moves, shardproxy.epoch WHERE kind = 'leave'")
	}
	soon(t, time.Minute, "writes go on", func() bool { return phase() == "purging" })
	must(t, c, "UPDATE rates SET v = v + 1")
	if s.members() != "s0 s1" {
		t.Errorf("the shards are %s", s.members())
	}
	s.rebalance(t, "abort")
	soon(t, time.Minute, "it has ended", func() bool { return phase() == "done" })
	must(t, s.proxies[1].connect(), "UPDATE rates SET v = v + 1")
	for _, i := range []int{0, 1} {
		if got := s.shards[i].Primary().Value("app", "SELECT v FROM rates"); got != "2" {
			t.Errorf("shard s%d has %s", i, got)
		}
	}
}

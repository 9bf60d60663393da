package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestGrow has a database that has been in use become the first shard of a cluster, and others join, while the bank works. With SHARDPROXY_TEST_MOVES its
// growth is taken back once.
func TestGrow(t *testing.T) {
	t.Parallel()
	s := startGrownStage(t, 2)
	b := s.openBank(t, "SET lock_timeout = '10s'")
	b.committed = true
	stop := b.begin(t, 3, 2)
	if got := s.owners(); got != "s0 4096" {
		t.Fatal("at first the slots are on ", got)
	}
	ends := []string{"complete"}
	if testNumber(t, "SHARDPROXY_TEST_MOVES", 0) > 0 {
		ends = []string{"rollback", "complete"}
	}
	add, said := []string{"--add", "s1"}, ""
	for _, end := range ends {
		said += s.rebalance(t, append([]string{"start", "--reversible", "--threshold", "0%"}, add...)...)
		s.kept(t)
		if got := s.owners(); got != "s0 2048, s1 2048" {
			t.Error("the slots are on ", got)
		}
		s.rebalance(t, end)
		s.watched(t)
		if got := s.owners(); end == "rollback" && got != "s0 4096" {
			t.Error("rolled back, the slots are on ", got)
		}
		add = nil // it has joined
	}
	stop()
	s.settled()
	t.Log(said)
	b.judge(t)
	b.seamless(t)
	eventually(t, "nothing is guarded any more", func() bool {
		return s.shards[0].Primary().Value("app", "SELECT guarded OR closed FROM shardproxy.epoch") == "f"
	})
	s.clean(t)
	var n, sum int64
	if err := s.proxies[0].connect().QueryRow(t.Context(), "SELECT count(*), sum(vals[1]) FROM lists WHERE k >= 1000000").Scan(&n, &sum); err != nil || n != 5000 || sum != 35000 {
		t.Error("rows of before: ", n, sum, err)
	}
	for i, cl := range s.shards {
		if got := cl.Primary().Value("app", "SELECT count(*) || ' ' || sum(v) FROM rates"); got != "1000 500500" {
			t.Errorf("shard %d has %s of a reference table", i, got)
		}
	}
}

// TestInitRows has init refuse a map by which rows would not be where they are.
func TestInitRows(t *testing.T) {
	t.Parallel()
	s := startServers(t, 2, 2)
	s.shards[0].Primary().Exec("app", "INSERT INTO accounts VALUES (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1)")
	made := newProcess(t, "app", nil, s.text(2))
	o := call(t, "", "init", "-c", made.path)
	if want := `shard s0: table "public"."accounts" has rows already that would lie on another shard: "shardproxy init --grow" leaves all rows on shard s0`; o.code != exitProblems || !strings.Contains(o.err, want) {
		t.Errorf("%+v, want %s", o, want)
	}
	if o := call(t, "", "init", "--grow", "-c", made.path); o.code != 0 {
		t.Errorf("%+v", o)
	}
	if o := call(t, "", "init", "-c", made.path); o.code != 0 || !strings.Contains(o.out+o.err, "the slot map does not") {
		t.Errorf("a second run: %+v", o)
	}
	if got := s.owners(); got != fmt.Sprint("s0 ", 4096) {
		t.Error(got)
	}
}

package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/listappend"
)

// crashPoint is a message of a commit over three shards, of which s1 decides: before it
// reaches the server, or after the server has answered and before the proxy hears of it.
type crashPoint struct {
	step   string
	shard  int
	text   string // of the message
	answer string // the tag of what the server says
	after  bool
}

// crashPoints are all of them.
func crashPoints() (all []crashPoint) {
	for _, p := range []crashPoint{
		{step: "enclose", shard: 0, text: "take_part", answer: "SELECT 1"},
		{step: "prepare", shard: 0, text: "PREPARE TRANSACTION", answer: "PREPARE TRANSACTION"},
		{step: "prepare", shard: 2, text: "PREPARE TRANSACTION", answer: "PREPARE TRANSACTION"},
		{step: "decide", shard: 1, text: "decide(", answer: "SET CONSTRAINTS"},
		{step: "commit", shard: 1, text: "COMMIT", answer: "COMMIT"},
		{step: "commit prepared", shard: 0, text: "COMMIT PREPARED", answer: "COMMIT PREPARED"},
		{step: "commit prepared", shard: 2, text: "COMMIT PREPARED", answer: "COMMIT PREPARED"},
	} {
		all = append(all, p)
		p.after = true
		all = append(all, p)
	}
	return all
}

func (p crashPoint) String() string {
	return fmt.Sprintf("%s %s on s%d", map[bool]string{false: "before", true: "after"}[p.after], p.step, p.shard)
}

// decided reports whether the transaction is committed when its coordinator dies here.
func (p crashPoint) decided() bool {
	return p.step == "commit prepared" || p.step == "commit" && p.after
}

// hold stops the first proxy's commit at the point. It returns what is closed there, and
// what lets it go on.
func (s *txStage) hold(p crashPoint) (reached <-chan struct{}, release func()) {
	w := s.wires[0][p.shard]
	if !p.after {
		at := w.On(faultproxy.Rule{Kind: 'Q', Text: p.text, Do: faultproxy.Hold()})
		return at.Fired(), at.Remove
	}
	fired, over := make(chan struct{}), make(chan struct{})
	var group sync.WaitGroup
	asked := w.On(faultproxy.Rule{Kind: 'Q', Text: p.text, Do: faultproxy.Call(func() {
		answer := w.On(faultproxy.Rule{From: faultproxy.FromServer, Kind: 'C', Text: p.answer, Do: faultproxy.Hold()})
		group.Go(func() {
			defer answer.Remove()
			select {
			case <-answer.Fired():
				close(fired)
				<-over
			case <-over:
			}
		})
	})})
	return fired, func() {
		asked.Remove()
		close(over)
		group.Wait()
	}
}

// crashed is what became of a case.
type crashed struct {
	outcome listappend.Outcome
	on      string        // the shards: 1 where it was committed
	took    time.Duration // until nothing was prepared, from when all servers were there
}

// crashAt has a transaction commit through the first proxy, and something die at a point:
// "proxy" that, "server" the one that the message goes to, "home" that of the home shard.
func (s *txStage) crashAt(t *testing.T, p crashPoint, fault string, n int) crashed {
	t.Helper()
	keys := []int64{s.keys[2][n], s.keys[0][n], s.keys[1][n]} // the last one written decides
	c := &txClient{t: t, dsn: s.dsn(0)}
	defer c.drop()
	if !c.connected(within(t, txBound)) {
		t.Fatal("no connection")
	}
	v := s.value.Add(1)
	done := make(chan listappend.Outcome, 1)
	written, begin := make(chan error, 1), make(chan struct{})
	go func() {
		o, _ := c.transaction("", func() (err error) {
			for _, k := range keys {
				if err == nil {
					_, _, err = c.query("UPDATE lists SET vals = vals || $1::bigint WHERE k = $2", v, k)
				}
			}
			written <- err
			<-begin
			return err
		})
		done <- o
	}()
	if err := <-written; err != nil {
		close(begin)
		<-done
		t.Fatal(err)
	}
	reached, release := s.hold(p)
	close(begin)
	select {
	case <-reached:
	case o := <-done:
		release()
		t.Fatalf("%v without coming there", o)
	case <-time.After(txBound):
		release()
		t.Fatal("it does not come there")
	}
	victim := s.shards[p.shard].Primary()
	began := time.Now()
	switch fault {
	case "proxy":
		s.kill(0)
		for _, w := range s.wires[0] {
			w.KillAll() // what the kernel does for a process that has died
		}
		release()
	case "home":
		victim = s.shards[0].Primary()
		fallthrough
	default:
		victim.Kill9()
		release()
		victim.Start()
		began = time.Now()
	}
	r := crashed{outcome: <-done}
	s.settled()
	r.took = time.Since(began)
	for _, k := range []int64{s.keys[0][n], s.keys[1][n], s.keys[2][n]} {
		for _, node := range s.nodes() {
			for _, row := range node.Rows("app", "SELECT ($1 = ANY (vals))::int FROM lists WHERE k = $2", v, k) {
				r.on += row[0]
			}
		}
	}
	if fault == "proxy" {
		s.restart(0)
	}
	return r
}

// wrong says what is wrong with the end of a case.
func (r crashed) wrong(p crashPoint, fault string) string {
	whole, nothing := r.on == "111", r.on == "000"
	switch {
	case !whole && !nothing:
		return "half a transaction"
	case r.outcome == listappend.OK && !whole:
		return "acknowledged and lost"
	case r.outcome == listappend.Failed && !nothing:
		return "refused and there"
	case fault == "proxy" && r.outcome != listappend.Unknown:
		return "the client of a dead proxy was told something"
	case fault == "proxy" && whole != p.decided():
		return "not what was decided"
	}
	return ""
}

// TestCrashes kills a proxy, a participant's server or the home shard's at the messages of
// a commit; the other proxy, which knows nothing of it, and what is left clean up.
// SHARDPROXY_TEST_CRASHES says how many of the cases are tried, and SHARDPROXY_TEST_SEED which.
func TestCrashes(t *testing.T) {
	t.Parallel()
	s := startTxStage(t, 3)
	type one struct {
		p     crashPoint
		fault string
	}
	var all []one
	for _, p := range crashPoints() {
		all = append(all, one{p, "proxy"}, one{p, "server"})
		if p.shard != 0 {
			all = append(all, one{p, "home"})
		}
	}
	r := rand.New(rand.NewPCG(uint64(testNumber(t, "SHARDPROXY_TEST_SEED", 1)), 5))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	all = all[:min(len(all), testNumber(t, "SHARDPROXY_TEST_CRASHES", 8))]
	slowest := map[string]time.Duration{}
	var table strings.Builder
	for n, c := range all {
		t.Run(c.fault+" "+c.p.String(), func(t *testing.T) {
			got := s.crashAt(t, c.p, c.fault, n)
			fmt.Fprintf(&table, "%-8s %-30v %-8v %s %v\n", c.fault, c.p, got.outcome, got.on, got.took.Round(time.Millisecond))
			if bad := got.wrong(c.p, c.fault); bad != "" {
				t.Errorf("%v, on %s: %s", got.outcome, got.on, bad)
			}
			slowest[c.fault] = max(slowest[c.fault], got.took)
			// Five seconds where nothing else runs: see docs/design/twopc.md.
			if got.took > 4*5*time.Second {
				t.Errorf("resolved after %v", got.took)
			}
		})
	}
	t.Logf("%d cases, the slowest until all was resolved: %v\n%s", len(all), slowest, table.String())
}

// TestCrashJudge: what must not be is seen.
func TestCrashJudge(t *testing.T) {
	before, after := crashPoint{step: "commit"}, crashPoint{step: "commit", after: true}
	for _, test := range []struct {
		p     crashPoint
		fault string
		got   crashed
		ok    bool
	}{
		{before, "server", crashed{outcome: listappend.OK, on: "111"}, true}, {before, "server", crashed{outcome: listappend.OK, on: "000"}, false},
		{before, "server", crashed{outcome: listappend.Failed, on: "000"}, true}, {before, "server", crashed{outcome: listappend.Failed, on: "111"}, false},
		{before, "server", crashed{outcome: listappend.Unknown, on: "111"}, true}, {before, "server", crashed{outcome: listappend.Unknown, on: "101"}, false},
		{before, "proxy", crashed{outcome: listappend.Unknown, on: "000"}, true}, {before, "proxy", crashed{outcome: listappend.Unknown, on: "111"}, false},
		{after, "proxy", crashed{outcome: listappend.Unknown, on: "111"}, true}, {after, "proxy", crashed{outcome: listappend.Unknown, on: "000"}, false},
		{after, "proxy", crashed{outcome: listappend.OK, on: "111"}, false}, {before, "home", crashed{outcome: listappend.OK, on: ""}, false},
	} {
		if (test.got.wrong(test.p, test.fault) == "") != test.ok {
			t.Errorf("%+v", test)
		}
	}
}

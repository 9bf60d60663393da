package failover

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/gate"
)

// open starts a monitor of c in the current bubble.
func open(t *testing.T, c *fakeCluster, opts Options) (*Monitor, *gate.Gate) {
	t.Helper()
	g := gate.New(gate.Options{})
	opts.Nodes, opts.Prober, opts.Gate = c.nodes(), c, g
	m, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m, g
}

func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func wantPrimary(t *testing.T, m *Monitor, g *gate.Gate, want NodeID) {
	t.Helper()
	got, ok := m.Primary()
	if got != want || ok != (want != NoNode) {
		t.Fatalf("primary is %d, want %d; %q", got, want, m.Snapshot().NoPrimary)
	}
	if g.Closed() != !ok {
		t.Fatalf("gate closed is %v with primary %d", g.Closed(), got)
	}
}

// picks returns how often each node is picked in n turns.
func picks(m *Monitor, mark Mark, consistent bool, exclude NodeSet, n int) map[NodeID]int {
	out := map[NodeID]int{}
	for range n {
		id, _ := m.PickRead(mark, consistent, exclude)
		out[id]++
	}
	return out
}

func TestRoundRobinAndExclusion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, g := open(t, newFakeCluster(4), Options{})
		if !g.Closed() {
			t.Fatal("the gate is open before anything is known")
		}
		settle(time.Millisecond)
		wantPrimary(t, m, g, 0)
		if p := picks(m, 0, true, 0, 30); p[1] != 10 || p[2] != 10 || p[3] != 10 {
			t.Fatalf("picks %v", p)
		}
		if p := picks(m, 0, true, NodeSet(0).With(2), 30); p[2] != 0 || p[1]+p[3] != 30 {
			t.Fatalf("picks %v without node 2", p)
		}
		if id, ok := m.PickRead(0, false, NodeSet(0).With(1).With(2).With(3)); ok {
			t.Fatalf("picked %d", id)
		}
	})
}

// A write may be acknowledged before the first sample has begun: its mark must
// not be that of a session that never wrote.
func TestMarkBeforeTheFirstSample(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCluster(2)
		var first Mark
		var fresh bool
		opened := make(chan *Monitor, 1)
		m, _ := open(t, c, Options{OnChange: func(before, after *Snapshot) {
			if before.Primary == NoNode && after.Primary == 0 {
				m := <-opened
				first = m.Mark()
				_, fresh = m.PickRead(first, true, 0)
			}
		}})
		opened <- m
		settle(time.Second)
		if first == 0 || fresh {
			t.Fatalf("mark %d, a replica picked %v", first, fresh)
		}
		settle(3 * time.Second)
		if _, ok := m.PickRead(first, true, 0); !ok {
			t.Fatal("never fresh")
		}
	})
}

func TestFailoverHoldsAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCluster(3)
		var changes []string
		m, g := open(t, c, Options{OnChange: func(before, after *Snapshot) {
			changes = append(changes, fmt.Sprintf("%d->%d", before.Primary, after.Primary))
		}})
		settle(time.Second)
		c.change(0, func(s *fakeServer) { s.err = syscall.ECONNREFUSED; s.breakConn() })
		settle(time.Millisecond)
		wantPrimary(t, m, g, NoNode)
		woken := make(chan struct{})
		if _, err := g.Enter(func() { close(woken) }); err != nil {
			t.Fatal(err)
		}
		if p := picks(m, 0, true, 0, 10); p[1] != 5 || p[2] != 5 {
			t.Fatalf("reads stopped: %v", p)
		}
		c.change(2, func(s *fakeServer) { s.obs.InRecovery = false; s.obs.Timeline = 2 })
		settle(2 * DefaultRetryInterval)
		wantPrimary(t, m, g, 2)
		<-woken
		// Node 1 still follows the old timeline: not read from until it follows.
		if p := picks(m, 0, false, 0, 10); p[NoNode] != 10 {
			t.Fatalf("picks %v", p)
		}
		c.change(1, func(s *fakeServer) { s.obs.Timeline = 2 })
		settle(DefaultInterval)
		if p := picks(m, 0, false, 0, 10); p[1] != 10 {
			t.Fatalf("picks %v", p)
		}
		m.Close()
		m.Close()
		want := "[-1->-1 -1->0 0->-1 -1->2 2->2]"
		if got := fmt.Sprint(changes[max(0, len(changes)-5):]); got != want {
			t.Fatalf("changes %v, want %v", changes, want)
		}
		if !c.closed {
			t.Fatal("the prober was not closed")
		}
		if err := m.Open(context.Background()); err == nil {
			t.Fatal("opened after Close")
		}
	})
}

func TestSuspicion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCluster(3)
		m, g := open(t, c, Options{})
		settle(100 * time.Millisecond)
		// An error that says nothing about the node.
		m.Suspect(0, &pgconn.PgError{Code: "23505"})
		m.Suspect(1, &pgconn.PgError{Code: "53300"})
		if g.Closed() || picks(m, 0, false, 0, 10)[1] != 5 {
			t.Fatal("suspected for nothing")
		}
		// The primary: writes wait at once, until it has answered.
		c.change(0, func(s *fakeServer) { s.hang = true })
		m.Suspect(0, &pgconn.PgError{Code: "57P01"})
		settle(500 * time.Millisecond)
		if p, _ := m.Primary(); p != 0 || !g.Closed() {
			t.Fatalf("under suspicion: primary %d, gate closed %v", p, g.Closed())
		}
		c.change(0, func(s *fakeServer) { s.hang = false })
		settle(time.Second)
		wantPrimary(t, m, g, 0)
		// A replica: no reads, until it has answered.
		c.change(1, func(s *fakeServer) { s.hang = true })
		m.Suspect(1, syscall.ECONNRESET)
		if p := picks(m, 0, false, 0, 10); p[2] != 10 {
			t.Fatalf("picks %v", p)
		}
		settle(4 * time.Second) // three timeouts
		if h := m.Nodes()[1].Health; h != Down {
			t.Fatalf("node 1 is %v", h)
		}
		// Down is settled: it is asked no more often than others.
		c.change(1, func(s *fakeServer) { s.hang, s.err, s.probeN = false, syscall.ECONNREFUSED, 0 })
		settle(10 * time.Second)
		c.change(1, func(s *fakeServer) {
			s.err = nil
			if s.probeN > 12 {
				t.Errorf("a node that is down was asked %d times in 10 s", s.probeN)
			}
		})
		c.change(1, func(s *fakeServer) { s.hang = false })
		settle(4 * time.Second)
		if p := picks(m, 0, false, 0, 10); p[1] != 5 {
			t.Fatalf("picks %v, nodes %+v", p, m.Nodes())
		}
	})
}

func TestBrokenControlConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCluster(2)
		m, _ := open(t, c, Options{Rules: Rules{MaxLag: -1}})
		settle(2500 * time.Millisecond)
		if !m.Fresh(1, 1) {
			t.Fatal("not fresh")
		}
		// A restart that puts the replica back, seen by nobody else.
		c.change(1, func(s *fakeServer) { s.obs.Replay = 50; s.delay = 10 * time.Millisecond; s.breakConn() })
		synctest.Wait()
		if _, ok := m.PickRead(0, false, 0); ok || m.Fresh(1, 0) {
			t.Fatal("picked after its connection broke")
		}
		settle(100 * time.Millisecond)
		if _, ok := m.PickRead(0, false, 0); !ok {
			t.Fatal("not picked after it answered")
		}
		if m.Fresh(1, 1) {
			t.Fatal("covers survived the restart")
		}
	})
}

func TestSilentRestartOfAReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCluster(2)
		m, _ := open(t, c, Options{Rules: Rules{MaxLag: -1}})
		settle(2500 * time.Millisecond)
		if !m.Fresh(1, 1) {
			t.Fatal("not fresh")
		}
		// No end of the connection came through, only a new one is answered.
		c.change(1, func(s *fakeServer) { s.obs.Replay = 50; s.conn = 99 })
		settle(time.Second)
		if _, ok := m.PickRead(0, false, 0); !ok || m.Fresh(1, 1) {
			t.Fatal("covers survived the restart")
		}
	})
}

func TestSaturationIsNotIllness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCluster(2)
		m, g := open(t, c, Options{})
		settle(2500 * time.Millisecond)
		if !m.Fresh(1, 1) {
			t.Fatal("not fresh")
		}
		full := fmt.Errorf("connect: %w", &pgconn.PgError{Code: "53300"})
		for i := range 2 {
			c.change(i, func(s *fakeServer) { s.err = full; s.breakConn() })
		}
		settle(30 * time.Second)
		wantPrimary(t, m, g, 0)
		if _, ok := m.PickRead(0, false, 0); !ok {
			t.Fatal("a saturated replica was taken out")
		}
		if m.Fresh(1, 1) {
			t.Fatal("fresh, though nobody could ask it")
		}
	})
}

func TestHungPrimaryDoesNotBlindTheReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCluster(2)
		m, g := open(t, c, Options{})
		settle(time.Second)
		c.change(0, func(s *fakeServer) { s.hang = true })
		settle(6 * time.Second)
		wantPrimary(t, m, g, NoNode)
		c.change(1, func(s *fakeServer) { s.probeN = 0; s.obs.InRecovery = false; s.obs.Timeline = 2 })
		settle(2 * DefaultRetryInterval)
		wantPrimary(t, m, g, 1)
		if m.Nodes()[0].Health != Down {
			t.Fatalf("%+v", m.Nodes()[0])
		}
	})
}

func TestWantSamplesFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCluster(2)
		m, _ := open(t, c, Options{})
		settle(10 * time.Second)
		before := m.Mark()
		settle(10 * time.Second)
		if n := m.Mark() - before; n < 9 || n > 11 {
			t.Fatalf("%d samples in 10 s while nobody waits", n)
		}
		mark := m.Mark()
		if m.Fresh(1, mark) {
			t.Fatal("fresh for a mark without a later sample")
		}
		m.Want()
		settle(2 * DefaultFastInterval)
		if !m.Fresh(1, mark) {
			t.Fatal("not fresh after two fast intervals")
		}
		before = m.Mark()
		for range 100 {
			m.Want()
			settle(10 * time.Millisecond)
		}
		if n := m.Mark() - before; n < 50 || n > 70 {
			t.Fatalf("%d samples in 1 s of wanting", n)
		}
		settle(wantLease)
		before = m.Mark()
		settle(10 * time.Second)
		if n := m.Mark() - before; n > 11 {
			t.Fatalf("%d samples in 10 s after the want ended", n)
		}
	})
}

func TestLagOfAnIdlePrimary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeCluster(2)
		c.change(1, func(s *fakeServer) { s.obs.ReplayedAt = time.Now().Add(-time.Hour) })
		m, _ := open(t, c, Options{})
		settle(5500 * time.Millisecond)
		if l := m.Nodes()[1].Lag; l != (Lag{Known: true}) {
			t.Fatalf("lag %+v of a replica that has everything", l)
		}
		// The primary writes; the replica stands still: lag grows from now, not
		// from an hour ago, and the replica is left out after max_lag.
		c.change(0, func(s *fakeServer) { s.obs.Insert, s.obs.Flush = 200, 200 })
		settle(1100 * time.Millisecond)
		if l := m.Nodes()[1].Lag; l.Bytes != 100 || l.Time > 1500*time.Millisecond {
			t.Fatalf("lag %+v", l)
		}
		settle(3 * time.Second)
		if n := m.Nodes()[1]; n.Health != Lagging {
			t.Fatalf("%+v", n)
		}
		c.change(1, func(s *fakeServer) { s.obs.Replay = 200 })
		settle(3 * time.Second)
		if n := m.Nodes()[1]; n.Health != Up || n.Lag != (Lag{Known: true}) {
			t.Fatalf("%+v", n)
		}
	})
}

func TestStatementPathDoesNotAllocate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, _ := open(t, newFakeCluster(3), Options{})
		settle(3 * time.Second)
		mark := m.Mark()
		for name, f := range map[string]func(){
			"Mark":     func() { m.Mark() },
			"Primary":  func() { m.Primary() },
			"PickRead": func() { m.PickRead(mark, true, NodeSet(0).With(1)); m.PickRead(0, true, 0) },
			"Fresh":    func() { m.Fresh(1, mark) },
			"Want":     func() { m.Want() },
		} {
			if n := testing.AllocsPerRun(1000, f); n != 0 {
				t.Errorf("%s allocates %v times", name, n)
			}
		}
	})
}

func TestImpossibleOptions(t *testing.T) {
	c := newFakeCluster(1)
	g := gate.New(gate.Options{})
	for name, o := range map[string]Options{
		"no node":   {Prober: c, Gate: g},
		"twice":     {Prober: c, Gate: g, Nodes: []NodeConfig{{"a"}, {"a"}}},
		"no prober": {Gate: g, Nodes: c.nodes()},
		"no gate":   {Prober: c, Nodes: c.nodes()},
		"too many":  {Prober: c, Gate: g, Nodes: make([]NodeConfig, MaxNodes+1)},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

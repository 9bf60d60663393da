package failover

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/gate"
	"shardproxy/internal/pgtest"
)

// patience bounds how long a fact about real servers is waited for.
const patience = 20 * time.Second

// eventually waits for a fact.
func eventually(t *testing.T, what string, fact func() bool) time.Duration {
	t.Helper()
	began, tick, deadline := time.Now(), time.NewTicker(time.Millisecond), time.After(patience)
	defer tick.Stop()
	for !fact() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("in %v: not %s", patience, what)
		}
	}
	return time.Since(began)
}

// watch starts a monitor of real servers as the given control user.
func watch(t *testing.T, c *pgtest.Cluster, user string, rules Rules) (*Monitor, *gate.Gate) {
	t.Helper()
	nodes := c.Nodes()
	g := gate.New(gate.Options{})
	opts := Options{Gate: g, Interval: 100 * time.Millisecond, FastInterval: 5 * time.Millisecond,
		ProbeTimeout: 300 * time.Millisecond, Rules: rules}
	for _, n := range nodes {
		opts.Nodes = append(opts.Nodes, NodeConfig{Address: n.Addr()})
	}
	opts.Prober = NewPgProber(ProberOptions{Nodes: len(nodes), Config: func(id NodeID) (*pgconn.Config, error) {
		return pgconn.ParseConfig(nodes[id].DSN("postgres", user))
	}})
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

func (m *Monitor) health(n NodeID) Health { return m.Nodes()[n].Health }

// TestWhatServersAnswer checks the probe on real servers with a user that has
// no rights but LOGIN.
func TestWhatServersAnswer(t *testing.T) {
	t.Parallel()
	c := pgtest.Start(t, pgtest.Options{Replicas: 1})
	m, g := watch(t, c, "app", Rules{})
	eventually(t, "a primary", func() bool { _, ok := m.Primary(); return ok && m.health(1) == Up })
	if p, _ := m.Primary(); p != 0 || g.Closed() {
		t.Fatalf("primary %d, gate closed %v", p, g.Closed())
	}
	p, r := m.Nodes()[0], m.Nodes()[1]
	system := c.Primary().Value("postgres", "SELECT system_identifier FROM pg_control_system()")
	if fmt.Sprint(p.SystemID) != system || p.SystemID != r.SystemID || p.Timeline != 1 || r.Timeline != 1 {
		t.Fatalf("%+v\n%+v", p, r)
	}
	if p.Role != RolePrimary || r.Role != RoleReplica || p.LSN == 0 || p.ReadOnly {
		t.Fatalf("%+v\n%+v", p, r)
	}
	// After a new segment the insert position stands behind a page header that
	// no replica ever reaches: it must still count as replayed.
	for range 3 {
		c.Primary().Exec("postgres", "SELECT pg_switch_wal()")
		mark := m.Mark()
		// Within 15 seconds the server writes something by itself.
		if d := eventually(t, "fresh after a WAL switch", func() bool { m.Want(); return m.Fresh(1, mark) }); d > 3*time.Second {
			t.Errorf("fresh %v after a WAL switch", d)
		}
	}
	eventually(t, "without lag", func() bool { return m.Nodes()[1].Lag == Lag{Known: true} })
	c.Primary().Set("default_transaction_read_only", "on")
	eventually(t, "waiting for a successor", func() bool { return g.Closed() && m.Nodes()[0].ReadOnly })
	c.Primary().Set("default_transaction_read_only", "")
	eventually(t, "open again", func() bool { return !g.Closed() })
}

func TestKillAndPromote(t *testing.T) {
	t.Parallel()
	c := pgtest.Start(t, pgtest.Options{Replicas: 2})
	m, g := watch(t, c, "postgres", Rules{})
	eventually(t, "all up", func() bool { return m.health(0) == Up && m.health(1) == Up && m.health(2) == Up })

	// Work for the checkpoint that follows a promotion: until it is done, the
	// control file holds the old timeline.
	c.Primary().Exec("postgres", "CREATE TABLE filler AS SELECT g, repeat('x', 500) FROM generate_series(1, 20000) g")
	c.CatchUp()

	// The end of a control connection is not the end of the server.
	const pids = "SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_activity WHERE application_name = 'shardproxy monitor'"
	replica := c.Replicas()[0]
	was := replica.Value("postgres", pids)
	replica.Exec("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'shardproxy monitor'")
	eventually(t, "connected anew", func() bool { now := replica.Value("postgres", pids); return now != "" && now != was })
	eventually(t, "settled", func() bool { return !m.nodes[1].isSuspect() })
	if n := m.Nodes()[1]; n.Health != Up {
		t.Fatalf("%+v", n)
	}

	// A stopped replica is left out and comes back.
	c.Replicas()[0].Pause()
	if d := eventually(t, "down", func() bool { return m.health(1) == Down }); d > 3*time.Second {
		t.Errorf("a stopped server was found after %v", d)
	}
	if id, ok := m.PickRead(0, false, 0); !ok || id != 2 {
		t.Fatalf("picked %d", id)
	}
	c.Replicas()[0].Resume()
	eventually(t, "up again", func() bool { return m.health(1) == Up })

	// The primary is killed: seen without a statement failing first.
	c.Primary().Kill9()
	if d := eventually(t, "held", g.Closed); d > 2*time.Second {
		t.Errorf("the gate closed after %v", d)
	}
	if _, ok := m.PickRead(0, false, 0); !ok {
		t.Fatal("reads stopped")
	}
	c.Replicas()[0].Promote()
	if d := eventually(t, "a new primary", func() bool { p, _ := m.Primary(); return p == 1 && !g.Closed() }); d > 2*time.Second {
		t.Errorf("the gate opened %v after the promotion", d)
	}
	if n := m.Nodes()[1]; n.Timeline != 2 {
		t.Fatalf("%+v", n)
	}
	// Replica 2 is refused until it follows, the old primary for good.
	eventually(t, "refused", func() bool { return m.health(2) == Refused })
	c.Replicas()[1].Follow(c.Replicas()[0])
	eventually(t, "following", func() bool { return m.health(2) == Up && m.Nodes()[2].Timeline == 2 })
	c.Primary().Start()
	eventually(t, "refused", func() bool { return m.health(0) == Refused })
	if p, _ := m.Primary(); p != 1 {
		t.Fatalf("primary %d: %+v", p, m.Nodes())
	}
	c.Primary().Rebuild(c.Replicas()[0])
	eventually(t, "a replica", func() bool { return m.health(0) == Up && m.Nodes()[0].Role == RoleReplica })
}

// TestTimelineWithoutRights shows what is lost without pg_monitor: a replica
// that follows a promoted one stays refused until its next restartpoint.
func TestTimelineWithoutRights(t *testing.T) {
	t.Parallel()
	c := pgtest.Start(t, pgtest.Options{Replicas: 2})
	m, g := watch(t, c, "app", Rules{})
	eventually(t, "all up", func() bool { return m.health(0) == Up && m.health(1) == Up && m.health(2) == Up })
	c.Primary().Stop()
	eventually(t, "held", g.Closed)
	promoted, follower := c.Replicas()[0], c.Replicas()[1]
	promoted.Promote()
	eventually(t, "a new primary", func() bool { p, _ := m.Primary(); return p == 1 })
	follower.Follow(promoted)
	eventually(t, "refused", func() bool { return m.health(2) == Refused })
	promoted.Exec("postgres", "CHECKPOINT")
	follower.WaitReplayed(promoted.LSN())
	follower.Exec("postgres", "CHECKPOINT")
	eventually(t, "used", func() bool { return m.health(2) == Up })
}

// Two replicas promoted at once: neither is used.
func TestTwoPromoted(t *testing.T) {
	t.Parallel()
	c := pgtest.Start(t, pgtest.Options{Replicas: 2})
	m, g := watch(t, c, "postgres", Rules{})
	eventually(t, "a primary", func() bool { return !g.Closed() })
	c.Primary().Pause()
	eventually(t, "held", g.Closed)
	for _, r := range c.Replicas() {
		r.Promote()
	}
	eventually(t, "both refused", func() bool { return m.health(1) == Refused && m.health(2) == Refused })
	if p, ok := m.Primary(); ok || !g.Closed() {
		t.Fatalf("primary %d", p)
	}
	t.Log(m.Snapshot().NoPrimary)
	c.Primary().Resume()
	eventually(t, "refused as older", func() bool { return m.health(0) == Refused })
	if p, ok := m.Primary(); ok {
		t.Fatalf("primary %d", p)
	}
}

// reader is a session's connection to one node.
type reader struct {
	conn *pgx.Conn
	born Mark // when it was established
}

// session writes a growing number to its own row and reads it back from the
// nodes it is given.
type session struct {
	t       *testing.T
	m       *Monitor
	nodes   []*pgtest.Node
	id      int
	rng     *rand.Rand
	readers []*reader
	reads   *atomic.Int64
	lost    *atomic.Int64
}

func (s *session) connect(n int) *reader {
	if s.readers[n] != nil {
		return s.readers[n]
	}
	conn, err := pgx.Connect(context.Background(), s.nodes[n].DSN("app", "app"))
	if err != nil {
		s.m.Suspect(NodeID(n), err)
		return nil
	}
	s.readers[n] = &reader{conn: conn, born: s.m.Mark()}
	return s.readers[n]
}

func (s *session) fail(n int, err error) {
	s.m.Suspect(NodeID(n), err)
	_ = s.readers[n].conn.Close(context.Background())
	s.readers[n] = nil
	s.lost.Add(1)
}

func (s *session) close() {
	for _, r := range s.readers {
		if r != nil {
			_ = r.conn.Close(context.Background())
		}
	}
}

// run does n writes, each followed by reads until one came from a replica.
func (s *session) run(n int) {
	defer s.close()
	w := s.connect(0)
	if w == nil {
		s.t.Error("no connection to the primary")
		return
	}
	for i := 1; i <= n; i++ {
		// A commit that does not wait for the disk is acknowledged before it is
		// flushed: the mark has to hold for it as well.
		mode := []string{"on", "off"}[s.rng.IntN(2)]
		if _, err := w.conn.Exec(context.Background(), "SET synchronous_commit = "+mode); err != nil {
			s.t.Error(err)
			return
		}
		if _, err := w.conn.Exec(context.Background(), "UPDATE seen SET n = $2 WHERE id = $1", s.id, i); err != nil {
			s.t.Error(err)
			return
		}
		mark := s.m.Mark()
		for deadline := time.Now().Add(patience); !s.readBack(mark, i); {
			if time.Now().After(deadline) {
				s.t.Error("no replica became fresh")
				return
			}
			s.m.Want()
		}
	}
}

// readBack reads from a fresh replica; false if there was none.
func (s *session) readBack(mark Mark, want int) bool {
	id, ok := s.m.PickRead(mark, true, 0)
	if !ok {
		// The primary would answer; its answer proves nothing here.
		_, err := s.readers[0].conn.Exec(context.Background(), "SELECT 1")
		return err != nil
	}
	r := s.connect(int(id))
	if r == nil || !s.m.Fresh(id, max(mark, r.born)) {
		return false
	}
	var got int
	if err := r.conn.QueryRow(context.Background(), "SELECT n FROM seen WHERE id = $1", s.id).Scan(&got); err != nil {
		s.fail(int(id), err)
		return false
	}
	s.reads.Add(1)
	if got < want {
		s.t.Errorf("node %d: read %d after writing %d (mark %d)", id, got, want, mark)
	}
	return true
}

// TestReadYourWritesOnServers writes and reads back thousands of times while
// one replica's replay is halted again and again and the other is killed.
func TestReadYourWritesOnServers(t *testing.T) {
	t.Parallel()
	c := pgtest.Start(t, pgtest.Options{Replicas: 2})
	const sessions, writes = 16, 64
	c.Primary().Exec("app", "CREATE TABLE seen (id int PRIMARY KEY, n int); GRANT ALL ON seen TO app")
	c.Primary().Exec("app", "INSERT INTO seen SELECT g, 0 FROM generate_series(1, $1) g", sessions)
	c.CatchUp()
	m, _ := watch(t, c, "app", Rules{MaxLag: -1})
	eventually(t, "all up", func() bool { return m.health(0) == Up && m.health(1) == Up && m.health(2) == Up })

	var reads, lost atomic.Int64
	var all sync.WaitGroup
	done := make(chan struct{})
	for id := range sessions {
		s := &session{t: t, m: m, nodes: c.Nodes(), id: id + 1, rng: rand.New(rand.NewPCG(uint64(id), 0)),
			readers: make([]*reader, 3), reads: &reads, lost: &lost}
		all.Go(func() { s.run(writes) })
	}
	go func() { all.Wait(); close(done) }()
	kills, halts := disturbReplicas(c, done)
	t.Logf("%d reads from replicas, %d lost connections, %d samples, %d kills, %d halts", reads.Load(), lost.Load(), m.Mark(), kills, halts)
	if !t.Failed() && (reads.Load() < sessions*writes || kills == 0 || halts == 0) {
		t.Error("the test shows nothing")
	}
}

// disturbReplicas halts the replay of one replica and kills the other until
// done.
func disturbReplicas(c *pgtest.Cluster, done <-chan struct{}) (kills, halts int) {
	halted, killed := c.Replicas()[0], c.Replicas()[1]
	for {
		for _, f := range []func(){
			func() { halted.Exec("postgres", "SELECT pg_wal_replay_pause()"); halts++ },
			func() { killed.Kill9(); killed.Start(); kills++ },
			func() { halted.Exec("postgres", "SELECT pg_wal_replay_resume()") },
		} {
			f()
			select {
			case <-done:
				return kills, halts
			case <-time.After(300 * time.Millisecond):
			}
		}
	}
}

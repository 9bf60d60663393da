package failover

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// fakeServer is one server of a simulated shard.
type fakeServer struct {
	obs     Observation
	err     error         // answered instead, if set
	delay   time.Duration // of an answer, half before and half after it is computed
	hang    bool          // never answers
	probeN  int
	conn    uint64
	watched chan struct{} // closed when the control connection breaks
}

// fakeCluster is a Prober over simulated servers.
type fakeCluster struct {
	mu      sync.Mutex
	servers []*fakeServer
	closed  bool
	lastID  uint64
}

func newFakeCluster(n int) *fakeCluster {
	c := &fakeCluster{}
	for i := range n {
		c.servers = append(c.servers, &fakeServer{obs: Observation{
			InRecovery: i > 0, SystemID: 7, Timeline: 1, StartedAt: scriptStart,
			Insert: 100, Flush: 100, Replay: 100, Receive: 100,
		}})
	}
	return c
}

// change alters server n under the lock.
func (c *fakeCluster) change(n int, f func(*fakeServer)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c.servers[n])
}

// breakConn ends the control connection of a server.
func (s *fakeServer) breakConn() {
	s.conn = 0
	if s.watched != nil {
		close(s.watched)
		s.watched = nil
	}
}

func (c *fakeCluster) nodes() []NodeConfig {
	var n []NodeConfig
	for i := range c.servers {
		n = append(n, NodeConfig{Address: string(rune('a' + i))})
	}
	return n
}

func (c *fakeCluster) Probe(ctx context.Context, id NodeID) (Observation, error) {
	c.mu.Lock()
	s := c.servers[id]
	s.probeN++
	hang, delay := s.hang, s.delay
	c.mu.Unlock()
	if hang {
		<-ctx.Done()
		return Observation{}, ctx.Err()
	}
	if !sleep(ctx, time.Duration(rand.Int64N(int64(delay)/2+1))) {
		return Observation{}, ctx.Err()
	}
	c.mu.Lock()
	if err := s.err; err != nil {
		s.conn, s.obs.Connection = 0, 0
		c.mu.Unlock()
		return Observation{}, err
	}
	if s.conn == 0 {
		c.lastID++
		s.conn = c.lastID
	}
	s.obs.Connection, s.obs.ServerTime = s.conn, time.Now()
	o := s.obs
	c.mu.Unlock()
	if !sleep(ctx, time.Duration(rand.Int64N(int64(delay)/2+1))) {
		return Observation{}, ctx.Err()
	}
	return o, nil
}

func (c *fakeCluster) Watch(ctx context.Context, id NodeID) error {
	c.mu.Lock()
	broken := make(chan struct{})
	s := c.servers[id]
	if s.obs.Connection != 0 && s.conn != s.obs.Connection {
		close(broken)
		s.obs.Connection = 0
	} else {
		s.watched = broken
	}
	c.mu.Unlock()
	select {
	case <-broken:
		return errors.New("connection reset")
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		if s.watched == broken {
			s.watched = nil
		}
		return nil
	}
}

func (c *fakeCluster) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Package pgtest gives tests real PostgreSQL servers: a cluster of its own
// for a test that kills, stops or promotes servers (Start), or a database of
// its own on one server per test process for a test that only needs SQL
// (Shared).
//
// Everything ends with the test: failures of the servers are fatal for the
// test, the servers' logs are printed when it failed, and when the test
// process dies its servers die too. Nothing here skips: a machine without
// PostgreSQL fails the test and says what to install.
//
// Every server has the superuser "postgres" and the role "app" (password
// "app-secret", SCRAM), who owns the database "app".
package pgtest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/pgcluster"
)

// Options says what servers to start. The zero value is one server.
type Options = pgcluster.Options

// timeout bounds every single operation on a server.
const timeout = 60 * time.Second

// logLines is how much of each server's log is printed for a failed test. What the test itself says must be found above it.
const logLines = 25

// Cluster is a primary and its replicas, for the length of one test.
type Cluster struct {
	// Engine is the cluster itself, for callers that want errors returned.
	Engine *pgcluster.Cluster

	t        testing.TB
	primary  *Node
	replicas []*Node
}

// Start starts a cluster and ends it when the test ends.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	engine := pgcluster.New(o)
	ctx, cancel := context.WithTimeout(context.Background(), 2*timeout)
	defer cancel()
	if err := engine.Open(ctx); err != nil {
		t.Fatal(err)
	}
	c := &Cluster{Engine: engine, t: t, primary: &Node{Engine: engine.Primary(), t: t}}
	for _, r := range engine.Replicas() {
		c.replicas = append(c.replicas, &Node{Engine: r, t: t})
	}
	t.Cleanup(func() {
		if t.Failed() {
			c.printLogs()
		}
		if err := engine.Close(); err != nil {
			t.Errorf("close the cluster: %v", err)
		}
	})
	return c
}

// Primary returns the node made as primary, whatever it is now.
func (c *Cluster) Primary() *Node { return c.primary }

// Replicas returns the nodes made as replicas.
func (c *Cluster) Replicas() []*Node { return c.replicas }

// Nodes returns the primary and then the replicas.
func (c *Cluster) Nodes() []*Node { return append([]*Node{c.primary}, c.replicas...) }

// AddReplica adds a replica of a running node by a base backup.
func (c *Cluster) AddReplica(from *Node) *Node {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	engine, err := c.Engine.AddReplica(ctx, from.Engine)
	if err != nil {
		c.t.Fatal(err)
	}
	n := &Node{Engine: engine, t: c.t}
	c.replicas = append(c.replicas, n)
	return n
}

// TLS returns the cluster's certificates; nil when Options.TLS was not set.
func (c *Cluster) TLS() *pgcluster.TLS { return c.Engine.TLS() }

// CatchUp returns when all replicas that stream from the primary have
// replayed what it has written until now.
func (c *Cluster) CatchUp() {
	c.t.Helper()
	lsn := c.primary.LSN()
	for _, r := range c.replicas {
		r.WaitReplayed(lsn)
	}
}

func (c *Cluster) printLogs() {
	for _, n := range c.Nodes() {
		c.t.Logf("log of %s (%s), last lines:\n%s", n.Name(), n.Addr(), tail(n.Engine.LogFile()))
	}
}

// tail returns the last lines of a file.
func tail(path string) string {
	content, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	if cut := len(lines) - logLines; cut > 0 {
		lines = append([]string{fmt.Sprintf("(%d lines before)", cut)}, lines[cut:]...)
	}
	return strings.Join(lines, "\n")
}

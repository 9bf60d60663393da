package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// settings is what sides of the proxy differ in.
type settings struct {
	database  string   // its name; "" for the one of all other sides
	nodes     []string // host:port
	second    string   // host:port of another shard; "" for none
	tables    string   // what stands in the section; "" for no such section
	control   string   // logs in for the proxy itself; "" for the first of the users
	listenTLS string   // what stands in listen.tls; "" for no such section
	serverTLS string   // mode
	reads     string   // what stands in the section
	poolMode  string
	poolSize  int
	runtime   string // what stands in the section; "" for no such section
	logLevel  string
}

// defaults are the settings of the side that all parts measure: one server,
// and else what the program does when nothing is said, but for start-up lines
// in its log.
func (s *stage) defaults() settings {
	return settings{
		nodes: []string{s.cluster.Primary().Addr()}, serverTLS: "disable", reads: "split: false",
		poolMode: "transaction", poolSize: s.options.serverConns, logLevel: "warn",
	}
}

// overReplicas lets the settings name the replicas too, and split reads.
func (s *stage) overReplicas(c *settings) {
	c.nodes = nil
	for _, n := range s.cluster.Nodes() {
		c.nodes = append(c.nodes, n.Addr())
	}
	c.reads = "split: true"
}

// document writes the proxy's configuration.
func (c settings) document(listen, admin string, users []poolUser) string {
	var b strings.Builder
	fmt.Fprintf(&b, "listen: {address: %q", listen)
	if c.listenTLS != "" {
		fmt.Fprintf(&b, ", tls: {%s}", c.listenTLS)
	}
	fmt.Fprintf(&b, "}\nadmin: {address: %q, pprof: true}\nusers:\n", admin)
	for _, u := range users {
		fmt.Fprintf(&b, "  - {name: %s, verifier: '%s', server_password: %s}\n", u.name, u.verifier, password)
	}
	var nodes []string
	for _, n := range c.nodes {
		nodes = append(nodes, strconv.Quote(n))
	}
	fmt.Fprintf(&b, "databases:\n  %s:\n    shards: [{name: s0, nodes: [%s]}", cmp.Or(c.database, database), strings.Join(nodes, ", "))
	if c.second != "" {
		fmt.Fprintf(&b, ", {name: s1, nodes: [%q]}", c.second)
	}
	fmt.Fprintf(&b, "]\n    server: {tls: {mode: %s}", c.serverTLS)
	if c.control != "" {
		fmt.Fprintf(&b, ", control: {user: %s}", c.control)
	}
	b.WriteString("}\n")
	if c.tables != "" {
		fmt.Fprintf(&b, "    tables: {%s}\n", c.tables)
	}
	fmt.Fprintf(&b, "    reads: {%s}\n    pool: {mode: %s, size: %d}\nlog: {level: %s}\n", c.reads, c.poolMode, c.poolSize, c.logLevel)
	if c.runtime != "" {
		fmt.Fprintf(&b, "runtime: {%s}\n", c.runtime)
	}
	return b.String()
}

// Package pgcluster makes real PostgreSQL clusters on this machine: one
// primary and its streaming replicas, in a temporary folder, on loopback.
// Tests use it through internal/pgtest, "shardproxy demo" uses it directly.
//
// The clusters are disposable: fsync is off and Close removes the data. The
// package refuses to run a server as root; started as root it drops to the
// account "postgres" (else "nobody"). It installs nothing and never touches a
// cluster that it did not make.
//
// A data directory is made by initdb once per PostgreSQL version and copied
// for each node after that, so that a server is up in a fraction of a second.
// Each cluster gets a system identifier of its own.
//
// Concurrency: methods of Cluster and Node may be called from several
// goroutines; calls on one node that start, stop or signal it are serialised.
// No goroutine outlives a call. When the process that made a cluster dies,
// however it dies, a small watchdog process ends the servers and removes the
// folder.
package pgcluster

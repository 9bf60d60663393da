// Command bench compares the proxy with PgBouncer and with no pooler at all:
// throughput, latency, CPU, allocations, what each feature costs and what
// finding the shard, memory of idle clients, logins, and large results. "make
// bench" runs it; docs/benchmarks.md says how to read what it prints, and holds
// the last table.
//
// Everything is on this machine's loopback: a cluster made by
// internal/pgcluster, PgBouncer and the proxy as programs of their own, and
// the clients (pgbench, and a client of this package where the client must not
// be the limit). What is compared runs in turns in the same round, rounds
// alternate their direction, ratios are taken within a round, and the median
// of the rounds is printed: other work on the machine then weighs on all
// sides alike. It reads /proc and so runs on Linux only.
//
// It refuses to time anything that answered wrongly or failed: the run ends
// with the error and the log of the process that caused it.
package main

// Package rebalance moves slots, with the rows of all tables that are sharded by hash, from one shard to another
// while applications run.
//
// Rows are copied from the snapshot of a replication slot and followed from there; what has been carried over is
// compared by the servers before anything is switched. Nothing here decides which shard owns a slot: that
// is package metadata's, and what statements over several shards see is decided by the servers' own tables.
//
// A Table and a Set are immutable and may be shared; everything else is used by one goroutine at a time, unless it
// says otherwise.
//
// Design: docs/design/rebalance.md.
package rebalance

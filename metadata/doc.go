// Package metadata keeps what all proxies of a cluster must agree on where it
// cannot be lost without the rows being lost too: in the schema "shardproxy" of
// the users' own PostgreSQL servers. It makes that schema (Init), reads it
// (Load, Check), changes the slot map by compare-and-set (Change, SpreadEpoch)
// and follows its changes (Watcher).
//
// It is no cache: what it returns was read from a server, and what it writes is
// written only if the server still holds what the writer saw. It never mends
// rows that make no sense and never chooses between two truths: it says what is
// wrong (*Problem, *CheckError) and leaves the rest to an operator.
//
// Connections come from functions of the caller (Connect) and must lead to a
// shard's primary. They are used with the pg_catalog search path and without
// prepared statements, so that neither settings of the role nor changes of the
// schema get in the way.
//
// Functions may be called from any goroutine, each with a connection of its
// own; a Watcher starts one goroutine.
//
// Design page: docs/design/metadata.md.
package metadata

// Package twopc commits a transaction that wrote on several shards, on all of
// them or on none, whatever dies and when. Commit is the coordinator: one part
// decides, by a row of the table shardproxy.commits that commits with it; the
// others prepare before and commit after. A Resolver finishes what coordinators,
// of this proxy or of another one, could not.
//
// No truth is kept here: what was decided stands on the shard of the first part,
// what is in doubt in the shards' pg_prepared_xacts. Nothing is guessed: while
// the deciding shard cannot be asked its transactions stay prepared, and Stats
// says so.
//
// It gives atomic durability, not atomic visibility: a reader may see one shard's
// part before another's. It does not make SERIALIZABLE hold over shards.
//
// Commit may be called from any goroutine, a Part's connection is used by one
// goroutine at a time. A Resolver's methods may be called from any goroutine.
//
// Design page: docs/design/twopc.md.
package twopc

// Package sequence draws values of sequences that are unique over all shards. The
// sequence of the home shard is the only one that is drawn from; an Allocator draws
// blocks of its values and gives them out, to the INSERTs that this proxy writes them
// into. What is left of a block when the proxy ends is never given out: there are gaps,
// as with PostgreSQL's own CACHE.
//
// After a failover the new primary may not know of all values that the old one gave.
// The first draw from each sequence, at the start and after each failover, therefore
// looks at the largest value that the table holds on any shard, and moves the sequence
// beyond it; after a failover also beyond all that other proxies may hold.
//
// An Allocator's methods may be called from any goroutine.
//
// Design page: docs/design/sequences.md.
package sequence

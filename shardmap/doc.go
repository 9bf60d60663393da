// Package shardmap says where a row lives: a key becomes a hash as PostgreSQL
// computes it, the hash becomes a slot, the slot belongs to a shard under an
// epoch. It also places by list and by range, and proposes which shard should
// own which slot (the ring); what holds is the stored map.
//
// It refuses to guess. A value whose meaning depends on the session, on the
// server's version or on a setting gives ErrUnproven; the caller asks
// PostgreSQL or refuses the statement. A type whose equality is not that of its
// bytes is no key at all (KeyTypeError).
//
// The package is pure: no I/O, no goroutines, no package-level state. Every
// exported value is immutable once made and may be used from any goroutine.
//
// The hashes are those of servers with little-endian CPUs.
//
// Design page: docs/design/placement.md.
package shardmap

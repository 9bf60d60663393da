// Package cache keeps results of queries: bytes under keys, for a time, within bounds, until a table changes on which they hang.
//
// What is kept, for whom, and what takes it away again is in docs/design/cache.md.
package cache

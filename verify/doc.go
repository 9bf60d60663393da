// Package verify compares what the shards of a database must have alike: their
// schemas (Schema), and the rows of reference tables (Checker.Compare), which
// Checker.Repair makes alike again.
//
// Rows are compared by PostgreSQL: ranges of the primary key by count and a sum of
// hashes, and only where these differ row by row, in an order of hashes that is
// the same everywhere. What is held in memory depends neither on the number of rows
// nor on how many of them differ. A difference is reported when it was seen under locks that keep
// writers out: a writer's parts commit one after the other.
//
// A Checker and its Sessions are used by one goroutine at a time.
//
// Documentation: docs/checking.md.
package verify

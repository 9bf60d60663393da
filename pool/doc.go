// Package pool owns every server connection: it opens them, lends each to
// exactly one borrower at a time, resets them and retires them.
//
// Nothing in it waits on behalf of a borrower: Acquire either lends at once or
// returns a Ticket and wakes the borrower later, so that a session may run as
// a goroutine or as a coroutine. Dialling, resetting and cancelling run in
// goroutines of the pool. A connection that owes replies, is in a transaction
// or is not understood is closed, never lent again.
//
// The package knows nothing of SQL beyond SET and DISCARD ALL, and nothing of
// which node is fit for what. Pools is safe for concurrent use; a Server
// belongs to its borrower until Release.
//
// Design page: docs/design/pool.md.
package pool

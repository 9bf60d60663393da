// Package gate holds work for a shard while the shard has no safe home, within
// bounds, and releases it in the order in which it came.
//
// Nothing here blocks. A caller that finds the gate closed takes a Ticket and
// is called back once; whether it then parks a goroutine or suspends a
// coroutine is its own affair. The package knows nothing of nodes, SQL or
// clients: whoever closes a gate decides why, whoever entered decides what to
// tell its client when the ticket ends badly.
//
// Every method of Gate and Ticket may be called from any goroutine. Callbacks
// run without the gate's lock held, so a callback may call the gate again.
//
// Invariants (held by the property test):
//
//	every ticket ends exactly once: Released, TimedOut, Evicted or Cancelled
//	wake is called once for each of the first three, never for Cancelled
//	tickets are released in the order in which they entered
//	held tickets <= MaxHeld
package gate

// Package drivertest runs real client drivers against the proxy and against
// PostgreSQL itself and compares what they saw.
//
// Each driver has a script, written as its users write: connect, exchange
// every type, reuse prepared statements, fail and recover, copy, cancel,
// listen, and so on. The script prints what it sees, one section for each
// subject. The test runs it twice, once connected to the primary directly and
// once to the proxy before a primary and two replicas, and the transcripts
// must be the same. So PostgreSQL says what is right, and nothing that can
// differ by chance (process ids, names of databases, times) may be printed.
//
// The package holds tests only. Nothing is skipped: where a driver is missing
// the test fails and says what to install.
package drivertest

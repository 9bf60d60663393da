// Package wire moves PostgreSQL protocol frames between a socket and memory,
// undecoded where nobody needs to understand them, and speaks the start-up,
// TLS, error and cancel dialects of the protocol (PostgreSQL manual, chapter
// "Frontend/Backend Protocol").
//
// It knows nothing of SQL, pools, sessions or configuration. A Conn belongs to
// one goroutine (or one running coroutine) at a time; nothing here locks
// but Poller, which tells a loop what is ready.
//
// Design pages: docs/design/wire-path.md, docs/design/driver.md.
package wire

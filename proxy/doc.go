// Package proxy accepts clients and runs one session each: start-up, TLS and
// login, the statement loop over leased server connections, cancel requests,
// timeouts and drain.
//
// A session is straight-line code over two byte streams that never block; where
// it has nothing to do it parks in its task, which is the only thing that knows
// what drives it. All fields of a session belong to whoever runs it; other
// goroutines reach it through its control flags and wake it.
//
// The package decides nothing about SQL (router does), about nodes (failover
// does) or about connections (pool does).
//
// Event loops run the sessions on Linux, a goroutine each elsewhere.
//
// Design pages: docs/design/wire-path.md, docs/design/driver.md,
// docs/design/pool.md, docs/design/read-routing.md.
package proxy

// Package admin lets operators see and steer: metrics, probes and a dashboard
// over HTTP, and a console over the PostgreSQL protocol that speaks PgBouncer's
// commands and columns.
//
// It decides nothing and keeps no state of its own but that of its sessions, and
// of the dashboard an hour of samples and the last events:
// what it shows it reads from a Source when it is asked, and what it is told to
// do it hands to a Steerer. Nothing here is on the way of a client's statement,
// and nothing here waits for a PostgreSQL server except PAUSE, TWOPC and, for
// seconds at most, what shows moves and proxies.
//
// Everything exported is safe for concurrent use. docs/metrics.md lists every
// metric family, docs/console.md every command and column, docs/dashboard.md
// every field of the JSON; tests compare the pages with the code.
package admin

// Package faultproxy is a man in the middle for tests: it stands before a
// PostgreSQL server (or anything that speaks its protocol), relays frames and
// does harm at a chosen one: the n-th message of a type in a direction is
// where the connection is killed, closed or held, the message cut, swallowed
// or answered with an error. New connections can be refused, left hanging or
// left without an answer to their SYN. It counts messages, and everything a
// test may want to wait for can be waited for.
//
// It understands frames, not SQL, and never decrypts: after a server has
// agreed to TLS the rest of that connection is relayed as bytes, out of reach
// of rules (Options.RefuseTLS keeps it from happening). Bytes that are no
// frames are relayed unchanged too, so that a test can send garbage through.
//
// Concurrency: all methods may be called from any goroutine. Two goroutines
// relay each connection; Close ends them and waits.
package faultproxy

// Package auth decides who a client is and which identity it gets on the
// servers. It takes a client after its StartupMessage, finds the first rule
// that fits it (database, user, address, encryption), runs the exchange that
// the rule demands and ends with AuthenticationOk or an error.
//
// # Exchanges
//
// SCRAM-SHA-256 and SCRAM-SHA-256-PLUS follow RFC 5802, 7677 and 5929 and
// answer wrong input with the SQLSTATEs of PostgreSQL's own auth-scram.c. The
// proxy needs only a verifier (salt, iterations, StoredKey, ServerKey); where
// the configuration holds a plain password the verifier is derived from it
// once. md5 and cleartext are kept for old clients, certificate logins for
// mutual TLS, trust and reject as in pg_hba.conf.
//
// # What an outsider can learn
//
// An unknown user, a user without a usable password and an expired one go
// through the same messages as everybody else, with a salt that stays the same
// from one attempt to the next, and fail at the end with the same words. Why
// an attempt failed is only in the error's Cause, which never leaves the proxy.
//
// # What it refuses to do
//
// It opens no connection to a server by itself (a ServerQuerier dials with the
// function it was given), knows no pools and no sessions, and never logs a
// secret. Cleartext passwords are not accepted over an unencrypted network
// connection unless the settings say so.
//
// # Concurrency
//
// An Authenticator may be used by any number of goroutines. A Conversation
// belongs to the one call of Authenticate that was given it. Rules and users
// are an immutable value behind an atomic pointer: an attempt that has begun
// ends under the rules it began with.
package auth

// Package tally counts what statements cost, by fingerprint, and which slots and keys they ask for. It refuses to know what
// SQL is: whoever plans a statement gives its fingerprint and normalised text, whoever runs it says how it went.
//
// Counting takes no lock and no memory: an Entry is atomic counters, and plans keep a pointer to theirs. What finds entries
// takes one lock of the Book, a leaf. All methods may be called from any goroutine. The design: docs/design/statements.md.
package tally

// Package query says what an SQL text is: its commands, whether they read
// only, what they call, and what they leave behind in the server's session.
// SQL is understood by PostgreSQL's own grammar (pganalyze/pg_query_go), once
// per statement shape; our own lexer normalises texts for the plan cache and
// bounds size and nesting before the grammar sees them.
//
// Limits: a text that is longer than Options.MaxBytes, nests deeper than
// MaxDepth by the lexer's estimate (the tree is never more than about twice as
// deep; the usual C stack of 8 MB holds twenty times as much), opens very many comments
// without a space between, or holds a token that PostgreSQL refuses, is not
// shown to the grammar. It is Opaque, as is one with a syntax error.
//
// The parser's types stay inside this package. It does no I/O and knows
// nothing of servers, sessions or catalogs; everything it returns is
// immutable and safe for concurrent use.
package query

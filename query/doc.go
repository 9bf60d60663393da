// Package query says what an SQL text is: its commands, whether they read
// only, what they call, and what they leave behind in the server's session.
// SQL is understood by PostgreSQL's own grammar (pganalyze/pg_query_go), once
// per statement shape; our own lexer normalises texts for the plan cache and
// bounds size and nesting before the grammar sees them.
//
// The parser's types stay inside this package. It does no I/O and knows
// nothing of servers, sessions or catalogs; everything it returns is
// immutable and safe for concurrent use.
package query

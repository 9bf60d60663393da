// Package router turns a statement text into a plan: what it is, which nodes
// may run it, and what it leaves behind. Planning is pure (no I/O, no clock);
// the plan cache, keyed by exact and by normalised text and bounded in bytes,
// sits beside it. Epoch and health are no part of a plan.
//
// A statement is a read when it is a query (SELECT, VALUES, TABLE, EXPLAIN,
// SHOW, COPY TO STDOUT) that writes nothing, locks no rows, has no effect on
// its session, and refers only to functions, operators, types and relations
// that the catalog calls fit for every node. An empty text is one too. While no
// catalog is loaded nothing is a read, and what refers to anything outside
// PostgreSQL's own schemas has unknown effects. Several commands in one text
// are a read when each of them is.
//
// Look-ups take no lock and do not allocate. The text itself is looked up
// first, then its normalised form; the plans of SELECT and DML are shared by
// all texts with one normalised form, all others belong to their exact text. A
// new catalog makes cached plans be judged anew, not parsed anew.
package router

// Package catalog says what a database's own catalog tells about the things a
// statement refers to: may this function, operator or relation be used on a
// replica, can it change the server session unseen, and what tables can it touch?
//
// A Catalog is an immutable snapshot of one database, safe for concurrent use
// and published behind an atomic pointer by a Refresher. Judgements are
// cautious: names are not resolved the way PostgreSQL does it; the worst
// candidate that the search path can reach decides. A function's declared
// volatility is believed; a view, a row security policy, an aggregate, a
// trigger is judged by what it calls, however deep.
//
// Loaded with tables (LoadTables, Options.Tables) a Catalog also says what the
// planner of a sharded database must be sure of: which relation a name means
// under a search path, resolved as PostgreSQL does or reported as ambiguous; its
// columns, keys and defaults; what views show; what tables functions and triggers
// may touch; by which operator and type two values are compared. What is not
// certain is told as not known. Temporary tables are not known here at all.
// Differ compares two such catalogs.
//
// The package plans nothing and knows no SQL text. Loading takes one read-only
// transaction on any node.
package catalog

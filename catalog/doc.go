// Package catalog says what a database's own catalog tells about the things a
// statement refers to: may this function, operator or relation be used on a
// replica, and can it change the server session unseen?
//
// A Catalog is an immutable snapshot of one database, safe for concurrent use
// and published behind an atomic pointer by a Refresher. Judgements are
// cautious: names are not resolved the way PostgreSQL does it; the worst
// candidate that the search path can reach decides. A function's declared
// volatility is believed; a view, a row security policy, an aggregate, a
// trigger is judged by what it calls, however deep.
//
// The package plans nothing and knows no SQL text. Loading takes one read-only
// transaction on any node.
package catalog

// Package ormtest runs small applications, each written for one ORM or query
// builder as its users write, against a database of two shards and against
// PostgreSQL itself, and compares what they saw.
//
// All applications have the model of the order-processing example: customers,
// orders and their items, placed by the customer, and products, a reference
// table. Each makes its schema by its own means through the proxy (migrations
// with their own bookkeeping, create_all, AutoMigrate), and then does what a
// shop does. It prints what it sees, one section for each subject; the
// transcripts must be the same, so PostgreSQL says what is right. How each
// brings the key into its statements is told at the top of its script;
// refused.md lists what the proxy does not run.
//
// The package holds tests only. Nothing is skipped: where an ORM is missing the
// test fails and says what to install.
package ormtest

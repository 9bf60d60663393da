// Package sql holds the order-processing schema and its rows, which the demo
// shows and the tests ask. The texts are plain SQL of many statements for
// PostgreSQL 14 and later; each runs as one transaction.
package sql

import _ "embed"

//go:embed schema.sql
var schema string

//go:embed seed.sql
var seed string

// Schema returns the statements that create types, tables, indexes, views and
// functions in an empty database.
func Schema() string { return schema }

// Seed returns the statements that fill the tables, always with the same rows.
func Seed() string { return seed }

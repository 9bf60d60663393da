// Package tpch makes the tables of the TPC-H benchmark and holds its 22 queries, for
// tests that compare the answers of two servers. Rows have the shapes, domains and
// distributions of the benchmark's specification, but come from a generator of our own:
// numbers measured with them are not results of the benchmark.
//
// The rows of a scale are always the same. Each row is made from its own number alone,
// so that any table can be written without the others.
package tpch

import (
	"embed"

	"shardproxy/internal/queryset"
)

//go:embed schema.sql
var schema string

//go:embed queries/*.sql
var queries embed.FS

// Schema returns the statements that create the tables, their indexes and a view.
// Foreign keys are those that hold on every shard when the tables are placed as Tables
// says.
func Schema() string { return schema }

// Table is one table of the benchmark.
type Table struct {
	Name string
	// Key is the column whose value says on which shard a row is; "" for a table that
	// has the same rows on every shard.
	Key string
}

// Tables returns the tables in an order in which they can be filled.
func Tables() []Table {
	return []Table{
		{"region", ""}, {"nation", ""}, {"part", ""}, {"supplier", ""}, {"partsupp", ""},
		{"customer", "c_custkey"}, {"orders", "o_orderkey"}, {"lineitem", "l_orderkey"},
	}
}

// Queries returns the queries by their numbers. The fifteenth is there twice, with a
// WITH query and with a view. Where the specification's validation values would give no
// rows on a small scale the file has others, and says so.
func Queries() ([]queryset.Query, error) { return queryset.Read(queries, "queries") }

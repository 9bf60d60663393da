// Package chbench makes the tables of CH-benCHmark, which are those of TPC-C with
// three of TPC-H, and holds its 22 queries, for tests that compare the answers of two
// servers. There is one size, a small one: eight warehouses with a few hundred rows each,
// always the same. Numbers measured with them are not results of any benchmark.
//
// Suppliers are 100, not 10,000, and the queries find that of a stock modulo 100.
package chbench

import (
	"embed"

	"shardproxy/internal/queryset"
)

//go:embed schema.sql
var schema string

//go:embed queries/*.sql
var queries embed.FS

// Schema returns the statements that create the tables. Foreign keys are those that hold
// on every shard when the tables are placed as Tables says.
func Schema() string { return schema }

// Table is one table of the benchmark.
type Table struct {
	Name string
	// Key is the column whose value says on which shard a row is, that of its
	// warehouse; "" for a table that has the same rows on every shard.
	Key string
}

// Tables returns the tables in an order in which they can be filled.
func Tables() []Table {
	return []Table{
		{"region", ""}, {"nation", ""}, {"supplier", ""}, {"item", ""},
		{"warehouse", "w_id"}, {"district", "d_w_id"}, {"customer", "c_w_id"}, {"history", "h_w_id"},
		{"orders", "o_w_id"}, {"neworder", "no_w_id"}, {"orderline", "ol_w_id"}, {"stock", "s_w_id"},
	}
}

// Queries returns the queries by their numbers. Where the usual values would give no rows
// a file has others, and says so.
func Queries() ([]queryset.Query, error) { return queryset.Read(queries, "queries") }

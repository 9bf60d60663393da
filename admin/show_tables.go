package admin

import "strings"

func tableColumns() []column {
	return []column{
		textColumn("database", "The database."),
		textColumn("schema", "The table's schema."),
		textColumn("table", "Its name."),
		textColumn("kind", "sharded: each row is on one shard; reference: all rows are on every shard; single: all are on the home shard; unknown: statements that name the table are refused."),
		textColumn("placement", "hash, list, range or schema for what places the rows of a sharded table; all shards for a reference table, the home shard for a single one; none for an unknown one."),
		textColumn("key", "The columns whose values place a row, in order; NULL when none do."),
		textColumn("key_types", "Their types."),
		int8Column("colocation", "The same number for tables of the database that have equal types of keys and equal rules: rows of equal keys are on the same shard, and can be joined. NULL when no key or schema places the rows. The numbers are those of the moment."),
		textColumn("problem", "Why the table cannot be used, or only be read; NULL for nothing."),
	}
}

func showTables(c *Console) (rows [][]any) {
	for _, d := range c.opt.Source.Databases() {
		if d.Tables == nil {
			continue
		}
		for _, t := range d.Tables() {
			var group any
			if t.Group > 0 {
				group = int64(t.Group)
			}
			rows = append(rows, []any{
				d.Name, t.Schema, t.Name, t.Kind, t.Placement, orNull(strings.Join(t.Key, ", ")), orNull(strings.Join(t.KeyTypes, ", ")), group, orNull(t.Problem),
			})
		}
	}
	return rows
}

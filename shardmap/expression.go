package shardmap

import (
	"fmt"
	"strconv"
	"strings"
)

// SlotSQL returns an SQL expression, an integer, for the slot among n that a row lies in whose key has
// these types and columns: both in the key's order, the columns as SQL (quoted, and qualified where that is
// needed). It is the slot that Hash and RowHash give. It is immutable, calls built-in
// functions only, whatever search_path says, and is NULL when a key of one column is NULL. version
// is the server's, as server_version_num has it: PostgreSQL 13 cannot hash rows.
func SlotSQL(types []KeyType, columns []string, n, version int) string {
	mask := strconv.Itoa(n - 1)
	if len(types) == 1 {
		if call := types[0].hashSQL(columns[0]); call != "" {
			return "(" + call + " OPERATOR(pg_catalog.&) " + mask + ")::pg_catalog.int4"
		}
		if version < 140000 {
			return "((pg_catalog.hash_array_extended(ARRAY[" + columns[0] + "], 0) OPERATOR(pg_catalog.&) " + mask +
				") OPERATOR(pg_catalog.-) 31 OPERATOR(pg_catalog.&) " + mask + ")::pg_catalog.int4"
		}
		return fmt.Sprintf("CASE WHEN %s IS NOT NULL THEN (pg_catalog.hash_record_extended(ROW(%s), 0) OPERATOR(pg_catalog.&) %s)::pg_catalog.int4 END",
			columns[0], columns[0], mask)
	}
	return "(pg_catalog.hash_record_extended(ROW(" + strings.Join(columns, ", ") + "), 0) OPERATOR(pg_catalog.&) " + mask + ")::pg_catalog.int4"
}

// hashSQL is a call of the type's own extended hash function, "" where a row of one column is hashed.
func (k KeyType) hashSQL(column string) string {
	switch k {
	case Int2, Int4, Int8:
		return "pg_catalog.hashint8extended(" + column + "::pg_catalog.int8, 0)"
	case Text:
		return "pg_catalog.hashtextextended(" + column + "::pg_catalog.text, 0)"
	case UUID:
		return "pg_catalog.uuid_hash_extended(" + column + ", 0)"
	case Numeric:
		return "pg_catalog.hash_numeric_extended(" + column + ", 0)"
	case Timestamp:
		return "pg_catalog.timestamp_hash_extended(" + column + ", 0)"
	}
	return ""
}

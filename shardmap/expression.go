package shardmap

import "strconv"

// SlotSQL returns an SQL expression, an integer, for the slot among n that a row lies in whose key has
// these types and columns: both in the key's order, the columns as SQL (quoted, and qualified where that is
// needed). It is the slot that Hash and RowHash give, on every version of PostgreSQL from 13. It is immutable, calls
// built-in functions only, whatever search_path says, and is NULL when a key of one column is NULL.
func SlotSQL(types []KeyType, columns []string, n int) string {
	slot := ""
	for i, k := range types {
		one := k.bitsSQL(columns[i], n)
		if len(types) > 1 {
			one = "COALESCE(" + one + ", 0)"
		}
		if i == 0 {
			slot = one
			continue
		}
		// As RowHash.Add, of which the last bits are all that counts.
		slot = masked("(31 OPERATOR(pg_catalog.*) "+slot+" OPERATOR(pg_catalog.+) "+one+")", n)
	}
	return slot + "::pg_catalog.int4"
}

// masked takes the last bits of a bigint.
func masked(sql string, n int) string {
	return "(" + sql + " OPERATOR(pg_catalog.&) " + strconv.Itoa(n-1) + ")"
}

// bitsSQL is the last bits of a column's hash.
func (k KeyType) bitsSQL(column string, n int) string {
	call := ""
	switch k {
	case Int2, Int4, Int8:
		call = "pg_catalog.hashint8extended(" + column + "::pg_catalog.int8, 0)"
	case Text:
		call = "pg_catalog.hashtextextended(" + column + "::pg_catalog.text, 0)"
	case UUID:
		call = "pg_catalog.uuid_hash_extended(" + column + ", 0)"
	case Numeric:
		call = "pg_catalog.hash_numeric_extended(" + column + ", 0)"
	case Timestamp:
		call = "pg_catalog.timestamp_hash_extended(" + column + ", 0)"
	default:
		// The hash of an array begins with 1, where that of a row begins with 0. An element may be NULL, and an array is not.
		of := "pg_catalog.hash_array_extended(ARRAY[" + column + "], 0)"
		return "CASE WHEN " + column + " IS NOT NULL THEN " + masked("("+masked(of, n)+" OPERATOR(pg_catalog.-) 31)", n) + " END"
	}
	return masked(call, n)
}

package metadata

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"shardproxy/shardmap"
)

// vector is a value whose hash server and shardmap must agree on.
type vector struct {
	sql  string // an expression of PostgreSQL 13 to 18
	key  shardmap.KeyType
	text string
}

// vectors tell apart what can differ between builds of PostgreSQL: the bytes'
// order within a word (all but the empty text), whole blocks and their rest, and
// each type's own hash function.
func vectors() []vector {
	return []vector{
		{"hashint8extended(4294967296123, 0)", shardmap.Int8, "4294967296123"},
		{"hashint4extended(-5, 0)", shardmap.Int4, "-5"},
		{"hashtextextended('', 0)", shardmap.Text, ""},
		{"hashtextextended('shardproxy', 0)", shardmap.Text, "shardproxy"},
		{"hashtextextended('a key of more than twenty-four bytes', 0)", shardmap.Text, "a key of more than twenty-four bytes"},
		{"uuid_hash_extended('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 0)", shardmap.UUID, "6ba7b810-9dad-11d1-80b4-00c04fd430c8"},
		{"hash_numeric_extended(1234567.891, 0)", shardmap.Numeric, "1234567.891"},
		{"timestamp_hash_extended('2024-02-29 12:34:56.789', 0)", shardmap.Timestamp, "2024-02-29 12:34:56.789"},
	}
}

// otherHashes returns the expressions whose value on the server is not the hash
// that shardmap gives.
func otherHashes(ctx context.Context, tx pgx.Tx) (wrong []string, err error) {
	all := vectors()
	expressions := make([]string, len(all))
	for i, v := range all {
		expressions[i] = v.sql
	}
	var hashes []int64
	if err := row(ctx, tx, "SELECT ARRAY["+strings.Join(expressions, ", ")+"]").Scan(&hashes); err != nil {
		return nil, err
	}
	for i, v := range all {
		want, err := v.key.HashText([]byte(v.text))
		if err != nil {
			return nil, fmt.Errorf("metadata: hash of %q: %w", v.text, err)
		}
		if hashes[i] != int64(want) {
			wrong = append(wrong, v.sql)
		}
	}
	return wrong, nil
}

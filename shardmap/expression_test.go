package shardmap

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"shardproxy/internal/pgtest"
)

// TestSlotSQL compares the expression with the slots that the package computes, of keys of each type and
// of two columns, in a session whose search_path has functions of the same names, and as an index.
func TestSlotSQL(t *testing.T) {
	db := pgtest.Shared(t)
	conn := db.Connect("postgres").PgConn()
	db.Exec("CREATE SCHEMA mine")
	db.Exec("CREATE FUNCTION mine.hashint8extended(bigint, bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT 1::bigint'")
	if _, err := conn.Exec(t.Context(), "SET search_path = mine, public, pg_catalog").ReadAll(); err != nil {
		t.Fatal(err)
	}
	const n = 4096
	for at, typ := range sqlTypes() {
		t.Run(typ.name, func(t *testing.T) {
			column := fmt.Sprintf("%q", "A column of "+typ.name)
			one, two := SlotSQL([]KeyType{typ.key}, []string{column}, n), SlotSQL([]KeyType{Int4, typ.key}, []string{"i", column}, n)
			if _, err := conn.Exec(t.Context(), fmt.Sprintf("CREATE TABLE indexed%d (i int, %s %s); CREATE INDEX ON indexed%d ((%s)); CREATE INDEX ON indexed%d ((%s))",
				at, column, typ.name, at, one, at, two)).ReadAll(); err != nil {
				t.Fatal(err)
			}
			random := rand.New(rand.NewPCG(uint64(typ.key), 31))
			var texts []string
			for range 2000 {
				texts = append(texts, typ.random(random))
			}
			sql := fmt.Sprintf("SELECT %s, %s, %s FROM (SELECT x::%s AS %s, 7 AS i FROM unnest($1::text[]) x) s", column, one, two, typ.name, column)
			runArray(t, conn, sql, texts, []int16{1, 1, 1}, func(i int, row [][]byte) {
				hash, err := typ.key.HashBinary(row[0])
				want, both := SlotOf(hash, n), SlotOf(RowHash(0).Add(hashOf(t, "7")).Add(hash).Sum(), n)
				if err != nil || binary.BigEndian.Uint32(row[1]) != uint32(want) || binary.BigEndian.Uint32(row[2]) != uint32(both) {
					t.Fatalf("%q: %d, %d, want %d, %d: %v", texts[i], binary.BigEndian.Uint32(row[1]), binary.BigEndian.Uint32(row[2]), want, both, err)
				}
			})
			null := SlotOf(RowHash(0).AddNull().Add(hashOf(t, "7")).Sum(), n)
			turned := SlotSQL([]KeyType{typ.key, Int4}, []string{column, "i"}, n)
			if got := db.Value(fmt.Sprintf("SELECT %s FROM (SELECT NULL::%s AS %s, 7 AS i) s", turned, typ.name, column)); got != fmt.Sprint(null) {
				t.Error("the slot of NULL and 7 is", got, "want", null)
			}
			if got := db.Value(fmt.Sprintf("SELECT count(*) FROM (SELECT NULL::%s AS %s) s WHERE (%s) IS NULL", typ.name, column, one)); got != "1" {
				t.Error("the slot of NULL is", got)
			}
		})
	}
}

func hashOf(t *testing.T, integer string) uint64 {
	t.Helper()
	h, err := Int4.HashText([]byte(integer))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

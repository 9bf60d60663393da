package shardmap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
)

// batchRows is how many values go to PostgreSQL in one array.
const batchRows = 20_000

// hashTestRows returns how many random values of each type are compared: the
// figure in SHARDPROXY_TEST_HASH, or 100,000 (fewer under the race detector).
func hashTestRows(t testing.TB) int {
	text := os.Getenv("SHARDPROXY_TEST_HASH")
	switch {
	case text == "" && raceEnabled:
		return 40_000 // the detector finds nothing in more of the same
	case text == "":
		return 100_000
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("SHARDPROXY_TEST_HASH: %v", err)
	}
	return n
}

// textArray encodes texts as a binary text[].
func textArray(texts []string) []byte {
	b := binary.BigEndian.AppendUint32(nil, 1)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint32(b, oidText)
	b = binary.BigEndian.AppendUint32(b, uint32(len(texts)))
	b = binary.BigEndian.AppendUint32(b, 1)
	for _, s := range texts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return b
}

// runArray runs a query of one text[] and calls each with every row.
func runArray(t *testing.T, conn *pgconn.PgConn, query string, texts []string, formats []int16, each func(i int, row [][]byte)) {
	t.Helper()
	const textArrayOID = 1009
	result := conn.ExecParams(context.Background(), query, [][]byte{textArray(texts)}, []uint32{textArrayOID}, []int16{1}, formats)
	n := 0
	for ; result.NextRow(); n++ {
		each(n, result.Values())
	}
	if _, err := result.Close(); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	if n != len(texts) {
		t.Fatalf("%d rows for %d values", n, len(texts))
	}
}

// TestHashesAgainstPostgreSQL compares random and extreme values of each type:
// the text as made, the text and the bytes as PostgreSQL prints them, with the
// hash by the documented SQL and that of a row.
func TestHashesAgainstPostgreSQL(t *testing.T) {
	conn := pgtest.Shared(t).Connect("postgres").PgConn()
	total := hashTestRows(t)
	for _, typ := range sqlTypes() {
		t.Run(typ.name, func(t *testing.T) {
			query := fmt.Sprintf("SELECT v, v, "+typ.hash+", "+anyHash+" FROM (SELECT x::%s AS v FROM unnest($1::text[]) x) s", "v", "v", typ.name)
			random := rand.New(rand.NewPCG(uint64(typ.key), 20))
			texts, done := typ.edges, 0
			for done < total {
				for len(texts) < min(batchRows, total-done) {
					texts = append(texts, typ.random(random))
				}
				done += compareHashes(t, typ.key, conn, query, texts)
				texts = nil
			}
			t.Logf("%d values compared", done)
		})
	}
}

// compareHashes returns how many values it has compared.
func compareHashes(t *testing.T, k KeyType, conn *pgconn.PgConn, query string, texts []string) (n int) {
	t.Helper()
	bad := 0
	runArray(t, conn, query, texts, []int16{0, 1, 1, 1}, func(i int, row [][]byte) {
		want := binary.BigEndian.Uint64(row[2])
		n++
		made, err1 := k.HashText([]byte(texts[i]))
		printed, err2 := k.HashText(row[0])
		sent, err3 := k.HashBinary(row[1])
		asRow := RowHash(0).Add(sent).Sum()
		err := errors.Join(err1, err2, err3)
		if err == nil && made == want && printed == want && sent == want && asRow == binary.BigEndian.Uint64(row[3]) {
			return
		}
		if bad++; bad < 10 {
			t.Errorf("%s %q (%q, %x): text %x, printed %x, binary %x, want %x: %v", k, texts[i], row[0], row[1], made, printed, sent, want, err)
		}
	})
	if bad > 0 {
		t.Fatalf("%d of %d differ", bad, len(texts))
	}
	return n
}

// TestIntegerWidths shows that a number has one hash whatever its width and
// format, and that PostgreSQL agrees.
func TestIntegerWidths(t *testing.T) {
	db := pgtest.Shared(t)
	for _, v := range []int16{0, 1, -1, 7, -300, 32767, -32768} {
		want := db.Value(fmt.Sprintf("SELECT hashint2extended('%d'::int2, 0)", v))
		binaries := map[KeyType][]byte{
			Int2: binary.BigEndian.AppendUint16(nil, uint16(v)),
			Int4: binary.BigEndian.AppendUint32(nil, uint32(v)),
			Int8: binary.BigEndian.AppendUint64(nil, uint64(v)),
		}
		for k, b := range binaries {
			text, err1 := k.Hash([]byte(fmt.Sprint(v)), TextFormat)
			sent, err2 := k.Hash(b, BinaryFormat)
			if err1 != nil || err2 != nil || fmt.Sprint(int64(text)) != want || sent != text {
				t.Errorf("%s %d: %d, %d, want %s (%v, %v)", k, v, int64(text), int64(sent), want, err1, err2)
			}
		}
	}
}

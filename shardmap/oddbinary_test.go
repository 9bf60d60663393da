package shardmap

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
)

// oddBinaries are values in binary format at and beyond the borders.
func oddBinaries(k KeyType) [][]byte {
	be16 := func(words ...uint16) (b []byte) {
		for _, w := range words {
			b = binary.BigEndian.AppendUint16(b, w)
		}
		return b
	}
	be32 := func(v int64) []byte { return binary.BigEndian.AppendUint32(nil, uint32(int32(v))) }
	be64 := func(v int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(v)) }
	long := make([]byte, 17)
	odd := [][]byte{{}, {0}, {1}, {2}, {255}, long[:2], long[:3], long[:4], long[:5], long[:7], long[:8], long[:9], long[:15], long[:16], long}
	switch k {
	case Date:
		for _, v := range []int64{firstDate - 1, firstDate, endDate - 1, endDate, math.MinInt32, math.MinInt32 + 1, math.MaxInt32, math.MaxInt32 - 1} {
			odd = append(odd, be32(v))
		}
	case Timestamp, Timestamptz:
		for _, v := range []int64{firstTime - 1, firstTime, endTime - 1, endTime, math.MinInt64, math.MinInt64 + 1, math.MaxInt64, math.MaxInt64 - 1} {
			odd = append(odd, be64(v))
		}
	case Numeric:
		// Words: number of groups, weight, sign, scale, groups.
		odd = append(odd,
			be16(0, 0, 0, 0), be16(0, 5, 0, 0), be16(0, 0, 0x4000, 2), be16(1, 0, 0, 0, 1), be16(1, 0, 0, 0, 9999), be16(1, 0, 0, 0, 10000),
			be16(1, 0, 0, 0, 0xffff), be16(3, 1, 0, 0, 0, 5, 0), be16(2, 0, 0, 0, 1, 2500), be16(2, 0, 0, 1, 1, 2500), be16(2, 0, 0, 2, 1, 2500),
			be16(2, 0, 0, 0x4000, 1, 2500), be16(2, 0, 0, 0x3fff, 1, 2500), be16(1, 0, 0x1234, 0, 1), be16(0, 0, 0xc000, 0), be16(0, 0, 0xd000, 0),
			be16(0, 0, 0xf000, 0), be16(0, 0, 0xf000, 0x20), be16(0, 7, 0xd000, 0), be16(1, 0, 0xc000, 0, 1), be16(2, 0, 0, 0, 1), be16(1, 0, 0, 0, 1, 1), be16(1, 0xffff, 0, 4, 1),
			be16(1, 0xffff, 0, 3, 1), be16(1, 0xfffe, 0, 8, 1), be16(1, 0x7fff, 0, 0, 1), be16(1, 0x8000, 0, 0, 1), be16(2, 0xffff, 0, 4, 0, 1))
	case Text:
		odd = append(odd, []byte("a\x00b"), []byte("\xff"), []byte("\xc3"), []byte("\xc0\x80"), []byte("\xed\xa0\x80"), []byte("\xf4\x90\x80\x80"), []byte("\u00e9"))
	}
	random := rand.New(rand.NewPCG(3, uint64(k)))
	for _, b := range odd[:len(odd):len(odd)] {
		for range 8 {
			c := bytes.Clone(b)
			if len(c) == 0 {
				continue
			}
			c[random.IntN(len(c))] = byte(random.Uint32())
			odd = append(odd, c)
		}
	}
	return odd
}

// TestOddBinaries lets PostgreSQL judge odd binary values as bound parameters.
func TestOddBinaries(t *testing.T) {
	conn := pgtest.Shared(t).Connect("postgres").PgConn()
	oids := map[string]uint32{
		"int2": oidInt2, "int4": oidInt4, "int8": oidInt8, "text": oidText, "varchar": oidVarchar, "uuid": oidUUID, "date": oidDate,
		"timestamp": oidTimestamp, "timestamptz": oidTimestamptz, "bytea": oidBytea, "bool": oidBool, "numeric": oidNumeric,
	}
	for _, typ := range sqlTypes() {
		decided := map[string]int{}
		for _, b := range oddBinaries(typ.key) {
			result := conn.ExecParams(t.Context(), "SELECT hash_record_extended(ROW($1), 0)", [][]byte{b}, []uint32{oids[typ.name]}, []int16{1}, []int16{1}).Read()
			hash, err := typ.key.HashBinary(b)
			var refused *ValueError
			var theirs *pgconn.PgError
			switch {
			case errors.Is(err, ErrUnproven):
				decided["unproven"]++
			case errors.As(err, &refused):
				decided["error"]++
				if !errors.As(result.Err, &theirs) || refused.Code != theirs.Code || strings.TrimSuffix(theirs.Message, " in bind parameter 1") != refused.Message {
					t.Errorf("%s %s: %v; PostgreSQL says %v", typ.name, hex.EncodeToString(b), err, result.Err)
				}
			case err != nil || result.Err != nil || binary.BigEndian.Uint64(result.Rows[0][0]) != hash:
				t.Errorf("%s %s: %x, %v; PostgreSQL says %v", typ.name, hex.EncodeToString(b), hash, err, result.Err)
			default:
				decided["hash"]++
			}
		}
		if t.Log(typ.name, decided); decided["hash"] == 0 {
			t.Errorf("%s: %s", typ.name, fmt.Sprint(decided))
		}
	}
}

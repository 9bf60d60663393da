package shardmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"
)

// The oracle of these targets is the other format: a text that is accepted is
// turned into the binary that its sort key stands for, which must have the same
// hash. What PostgreSQL says of odd texts is the affair of TestOddTexts.

// fuzzText checks one type's texts.
func fuzzText(f *testing.F, k KeyType, names ...string) {
	for _, name := range names {
		odd := oddTextsOf(name)
		for _, s := range append(odd.proven, odd.unproven...) {
			f.Add([]byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		before := bytes.Clone(text)
		hash, err := k.HashText(text)
		key, keyErr := k.AppendSortKey([]byte("prefix"), text, TextFormat)
		if !bytes.Equal(text, before) || !bytes.HasPrefix(key, []byte("prefix")) {
			t.Fatalf("%q has become %q, the buffer %q", before, text, key)
		}
		checkErrors(t, err, keyErr)
		if err != nil {
			return
		}
		sent := sendFormat(k, key[len("prefix"):])
		again, err := k.HashBinary(sent)
		if err != nil || again != hash {
			t.Fatalf("%q: text %x, binary %x (%x), %v", text, hash, again, sent, err)
		}
	})
}

// fuzzBinary checks one type's binary values: hashing and sort keys agree on
// what is a value, and equal sort keys have equal hashes.
func fuzzBinary(f *testing.F, k KeyType) {
	for _, b := range oddBinaries(k) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		hash, err := k.HashBinary(b)
		key, keyErr := k.AppendSortKey(nil, b, BinaryFormat)
		checkErrors(t, err, keyErr)
		if err != nil {
			return
		}
		sent := sendFormat(k, key)
		if again, err := k.HashBinary(sent); err != nil || again != hash {
			t.Fatalf("%x: %x, as PostgreSQL sends it (%x) %x, %v", b, hash, sent, again, err)
		}
	})
}

// checkErrors expects both errors to be the same and of a known kind.
func checkErrors(t *testing.T, err, keyErr error) {
	t.Helper()
	var refused *ValueError
	if err != nil && !errors.Is(err, ErrUnproven) && !errors.As(err, &refused) {
		t.Fatalf("a strange error: %v", err)
	}
	if (err == nil) != (keyErr == nil) || err != nil && err.Error() != keyErr.Error() {
		t.Fatalf("hash: %v, sort key: %v", err, keyErr)
	}
}

// sendFormat makes a value's binary format, as its send function does, from the
// sort key.
func sendFormat(k KeyType, key []byte) []byte {
	switch k {
	case Int2, Int4, Int8, Date, Timestamp, Timestamptz:
		v := binary.BigEndian.Uint64(key) ^ 1<<63
		b := binary.BigEndian.AppendUint64(nil, v)
		switch k {
		case Int2:
			return b[6:]
		case Int4, Date:
			return b[4:]
		}
		return b
	case Numeric:
		return sendNumeric(key)
	}
	return key
}

func sendNumeric(key []byte) []byte {
	words := func(list ...uint16) (b []byte) {
		for _, w := range list {
			b = binary.BigEndian.AppendUint16(b, w)
		}
		return b
	}
	flip := uint16(0)
	var sign uint16
	switch decimalClass(key[0]) {
	case minusInfinity:
		return words(0, 0, 0xf000, 0)
	case plusInfinity:
		return words(0, 0, 0xd000, 0)
	case notANumber:
		return words(0, 0, 0xc000, 0)
	case zero:
		return words(0, 0, 0, 0)
	case negative:
		flip, sign = math.MaxUint16, 0x4000
		key = key[:len(key)-2]
	}
	weight := binary.BigEndian.Uint16(key[1:]) ^ flip ^ 0x8000
	groups := key[3:]
	scale := max(0, 4*(len(groups)/2-1-int(int16(weight))))
	b := words(uint16(len(groups)/2), weight, sign, uint16(min(scale, 0x3fff)))
	for ; len(groups) > 0; groups = groups[2:] {
		b = append(b, words((binary.BigEndian.Uint16(groups)^flip)-1)...)
	}
	return b
}

func FuzzInt2Text(f *testing.F)        { fuzzText(f, Int2, "int2") }
func FuzzInt4Text(f *testing.F)        { fuzzText(f, Int4, "int4") }
func FuzzInt8Text(f *testing.F)        { fuzzText(f, Int8, "int8") }
func FuzzTextText(f *testing.F)        { fuzzText(f, Text, "text") }
func FuzzUUIDText(f *testing.F)        { fuzzText(f, UUID, "uuid") }
func FuzzDateText(f *testing.F)        { fuzzText(f, Date, "date") }
func FuzzTimestampText(f *testing.F)   { fuzzText(f, Timestamp, "timestamp", "timestamptz") }
func FuzzTimestamptzText(f *testing.F) { fuzzText(f, Timestamptz, "timestamptz", "timestamp") }
func FuzzByteaText(f *testing.F)       { fuzzText(f, Bytea, "bytea") }
func FuzzBoolText(f *testing.F)        { fuzzText(f, Bool, "bool") }
func FuzzNumericText(f *testing.F)     { fuzzText(f, Numeric, "numeric") }

func FuzzInt2Binary(f *testing.F)      { fuzzBinary(f, Int2) }
func FuzzInt4Binary(f *testing.F)      { fuzzBinary(f, Int4) }
func FuzzInt8Binary(f *testing.F)      { fuzzBinary(f, Int8) }
func FuzzTextBinary(f *testing.F)      { fuzzBinary(f, Text) }
func FuzzUUIDBinary(f *testing.F)      { fuzzBinary(f, UUID) }
func FuzzDateBinary(f *testing.F)      { fuzzBinary(f, Date) }
func FuzzTimestampBinary(f *testing.F) { fuzzBinary(f, Timestamp) }
func FuzzByteaBinary(f *testing.F)     { fuzzBinary(f, Bytea) }
func FuzzBoolBinary(f *testing.F)      { fuzzBinary(f, Bool) }
func FuzzNumericBinary(f *testing.F)   { fuzzBinary(f, Numeric) }

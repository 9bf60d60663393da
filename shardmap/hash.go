package shardmap

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// Format is how a value travels: the protocol's format code.
type Format int16

// The formats of the protocol.
const (
	TextFormat   Format = 0 // as the type's input function reads it
	BinaryFormat Format = 1 // as the type's receive function reads it
)

// Hash returns HashText or HashBinary of a value.
func (k KeyType) Hash(b []byte, f Format) (uint64, error) {
	if f == BinaryFormat {
		return k.HashBinary(b)
	}
	return k.HashText(b)
}

// HashText returns the hash that PostgreSQL's extended hash function of the
// type gives, with seed 0, to the value that the type's input function makes of
// b. k is the type that PostgreSQL would read the text as. b must be in the
// server's encoding (a client with another client_encoding: only ASCII is the
// same in both), is not kept and not changed.
//
// The error is a *ValueError when PostgreSQL refuses the text, or ErrUnproven;
// the hash then means nothing. Only errors allocate.
func (k KeyType) HashText(b []byte) (uint64, error) {
	switch k {
	case Int2, Int4, Int8:
		v, err := parseInt(k, b)
		return hashInt64(v), err
	case Text:
		return hashBytes(b), checkText(b)
	case UUID:
		u, err := parseUUID(b)
		return hashBytes(u[:]), err
	case Date:
		days, err := parseDate(b)
		return hashUint32(uint32(days)), err
	case Timestamp, Timestamptz:
		v, err := parseTimestamp(k, b)
		return hashInt64(v), err
	case Bytea:
		return hashByteaText(b)
	case Bool:
		v, err := parseBool(b)
		return hashBool(v), err
	case Numeric:
		var d decimal
		err := d.parse(b)
		return d.hash(), err
	}
	return 0, ErrUnproven
}

// HashBinary is HashText for the type's binary format. k is the type of the
// value as sent: an int4 parameter compared with a bigint key is Int4, and gets
// the same hash.
func (k KeyType) HashBinary(b []byte) (uint64, error) {
	switch k {
	case Int2, Int4, Int8:
		v, err := intOf(k, b)
		return hashInt64(v), err
	case Text:
		return hashBytes(b), checkText(b)
	case UUID:
		return hashBytes(b), checkWidth(b, 16)
	case Date:
		days, err := dateOf(b)
		return hashUint32(uint32(days)), err
	case Timestamp, Timestamptz:
		v, err := timestampOf(b)
		return hashInt64(v), err
	case Bytea:
		return hashBytes(b), nil
	case Bool:
		err := checkWidth(b, 1)
		return hashBool(err == nil && b[0] != 0), err
	case Numeric:
		var d decimal
		err := d.receive(b)
		return d.hash(), err
	}
	return 0, ErrUnproven
}

func hashBool(v bool) uint64 {
	if v {
		return hashUint32(1)
	}
	return hashUint32(0)
}

// checkText leaves to PostgreSQL what is no UTF-8, and zero bytes: it refuses
// them, or the database has another encoding.
func checkText(b []byte) error {
	if !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0 {
		return ErrUnproven
	}
	return nil
}

// intOf reads a binary integer of the type's width.
func intOf(k KeyType, b []byte) (int64, error) {
	width := 8
	switch k {
	case Int2:
		width = 2
	case Int4:
		width = 4
	}
	if err := checkWidth(b, width); err != nil {
		return 0, err
	}
	switch width {
	case 2:
		return int64(int16(binary.BigEndian.Uint16(b))), nil
	case 4:
		return int64(int32(binary.BigEndian.Uint32(b))), nil
	}
	return int64(binary.BigEndian.Uint64(b)), nil
}

// RowHash combines the hashes of a composite key's columns as
// hash_record_extended(ROW(a, b, ...), 0) does. The zero value is the start; a
// key of one column has the hash of its only column.
type RowHash uint64

// Add returns the hash with one more column's.
func (r RowHash) Add(column uint64) RowHash { return r*31 + RowHash(column) }

// AddNull returns the hash with one more column that is NULL.
func (r RowHash) AddNull() RowHash { return r.Add(0) }

// Sum returns the hash of the columns added.
func (r RowHash) Sum() uint64 { return uint64(r) }

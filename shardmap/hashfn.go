package shardmap

import (
	"encoding/binary"
	"math/bits"
)

// PostgreSQL hashes with Bob Jenkins' lookup3 (public domain, 2006), 64 bits
// of its state; seed 0 leaves the start value as it is. See PostgreSQL's
// src/common/hashfn.c, functions ..._extended.

// lookup3Start is the state's start value for an input of no bytes.
const lookup3Start = 0x9e3779b9 + 3923095

// lookup3 is the state: three words that blocks of twelve bytes are added to.
type lookup3 struct{ a, b, c uint32 }

// newLookup3 starts the hash of an input of total bytes.
func newLookup3(total int) lookup3 {
	start := uint32(lookup3Start) + uint32(total)
	return lookup3{start, start, start}
}

// mix stirs the state between two blocks.
func (s *lookup3) mix() {
	a, b, c := s.a, s.b, s.c
	a = (a - c) ^ bits.RotateLeft32(c, 4)
	c += b
	b = (b - a) ^ bits.RotateLeft32(a, 6)
	a += c
	c = (c - b) ^ bits.RotateLeft32(b, 8)
	b += a
	a = (a - c) ^ bits.RotateLeft32(c, 16)
	c += b
	b = (b - a) ^ bits.RotateLeft32(a, 19)
	a += c
	c = (c - b) ^ bits.RotateLeft32(b, 4)
	b += a
	s.a, s.b, s.c = a, b, c
}

// sum stirs for the last time and returns the hash.
func (s *lookup3) sum() uint64 {
	a, b, c := s.a, s.b, s.c
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	c = (c ^ b) - bits.RotateLeft32(b, 24)
	return uint64(b)<<32 | uint64(c)
}

// block adds twelve bytes.
func (s *lookup3) block(p []byte) {
	_ = p[11]
	s.a += binary.LittleEndian.Uint32(p)
	s.b += binary.LittleEndian.Uint32(p[4:])
	s.c += binary.LittleEndian.Uint32(p[8:])
	s.mix()
}

// tail adds the last bytes, fewer than twelve. The lowest byte of c is the
// length's, so the ninth to eleventh go one byte higher.
func (s *lookup3) tail(p []byte) {
	var rest [12]byte
	copy(rest[:], p)
	s.a += binary.LittleEndian.Uint32(rest[:])
	s.b += binary.LittleEndian.Uint32(rest[4:])
	s.c += binary.LittleEndian.Uint32(rest[8:]) << 8
}

// hashBytes is hash_any_extended(p, 0): hashtextextended, uuid_hash_extended.
func hashBytes(p []byte) uint64 {
	s := newLookup3(len(p))
	for len(p) >= 12 {
		s.block(p[:12])
		p = p[12:]
	}
	s.tail(p)
	return s.sum()
}

// hashUint32 is hash_uint32_extended(v, 0): date, boolean, int2 and int4.
func hashUint32(v uint32) uint64 {
	s := newLookup3(4)
	s.a += v
	return s.sum()
}

// hashInt64 is hashint8extended(v, 0). Values that fit in 32 bits have the
// hash that hashint4extended gives them.
func hashInt64(v int64) uint64 {
	low, high := uint32(v), uint32(v>>32)
	if v < 0 {
		high = ^high
	}
	return hashUint32(low ^ high)
}

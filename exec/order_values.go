package exec

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
)

// What follows reads values whose length and form have been found right.

const signBit = 1 << 63

// rankBytes ranks by the first eight bytes.
func rankBytes(v []byte) uint64 {
	if len(v) >= 8 {
		return binary.BigEndian.Uint64(v)
	}
	var r uint64
	for i, c := range v {
		r |= uint64(c) << (56 - 8*i)
	}
	return r
}

func rankInt2(v []byte) uint64 { return uint64(int16(binary.BigEndian.Uint16(v))) ^ signBit }
func rankInt4(v []byte) uint64 { return uint64(int32(binary.BigEndian.Uint32(v))) ^ signBit }
func rankInt8(v []byte) uint64 { return binary.BigEndian.Uint64(v) ^ signBit }

func rankFloat4(v []byte) uint64 {
	return rankFloat(float64(math.Float32frombits(binary.BigEndian.Uint32(v))))
}

func rankFloat8(v []byte) uint64 { return rankFloat(math.Float64frombits(binary.BigEndian.Uint64(v))) }

// rankFloat has all NaNs equal and larger than the rest, and the zeros equal.
func rankFloat(f float64) uint64 {
	b := math.Float64bits(f)
	switch {
	case f != f:
		return math.MaxUint64
	case f == 0:
		return signBit
	case b&signBit != 0:
		return ^b
	}
	return b | signBit
}

// timetz is the time of day in microseconds and the zone in seconds west of Greenwich.
func timetz(v []byte) (instant int64, zone int32) {
	zone = int32(binary.BigEndian.Uint32(v[8:]))
	return int64(binary.BigEndian.Uint64(v)) + int64(zone)*1000000, zone
}

func rankTimetz(v []byte) uint64 {
	instant, _ := timetz(v)
	return uint64(instant) ^ signBit
}

func compareTimetz(a, b []byte) int {
	x, xZone := timetz(a)
	y, yZone := timetz(b)
	return cmp.Or(cmp.Compare(x, y), cmp.Compare(xZone, yZone))
}

const microsPerDay = 24 * 60 * 60 * 1000000

// interval returns the length of an interval in microseconds, with months of 30 days
// and days of 24 hours, as a number of 128 bits.
func interval(v []byte) (high int64, low uint64) {
	micros := int64(binary.BigEndian.Uint64(v))
	day := int64(int32(binary.BigEndian.Uint32(v[8:])))
	month := int64(int32(binary.BigEndian.Uint32(v[12:])))
	days := month*30 + day
	h, l := bits.Mul64(uint64(days), microsPerDay)
	if days < 0 {
		h -= microsPerDay
	}
	l, carry := bits.Add64(l, uint64(micros), 0)
	h, _ = bits.Add64(h, uint64(micros>>63), carry)
	return int64(h), l
}

// rankInterval drops low bits: the number has 75 at most.
func rankInterval(v []byte) uint64 {
	high, low := interval(v)
	return (uint64(high)<<52 | low>>12) ^ signBit
}

func compareInterval(a, b []byte) int {
	xHigh, xLow := interval(a)
	yHigh, yLow := interval(b)
	return cmp.Or(cmp.Compare(xHigh, yHigh), cmp.Compare(xLow, yLow))
}

// trimPadding cuts off what does not count in a char(n).
func trimPadding(v []byte) []byte {
	for len(v) > 0 && v[len(v)-1] == ' ' {
		v = v[:len(v)-1]
	}
	return v
}

func rankPadded(v []byte) uint64       { return rankBytes(trimPadding(v)) }
func comparePadded(a, b []byte) int    { return bytes.Compare(trimPadding(a), trimPadding(b)) }
func rankBits(v []byte) uint64         { return rankBytes(v[4:]) }
func bitsLength(v []byte) (bits int64) { return int64(int32(binary.BigEndian.Uint32(v))) }

// validBits reports whether v is a bit string: the number of bits, and the bits.
func validBits(v []byte) bool {
	return len(v) >= 4 && bitsLength(v) >= 0 && (bitsLength(v)+7)/8 == int64(len(v)-4)
}

func compareBits(a, b []byte) int {
	return cmp.Or(bytes.Compare(a[4:], b[4:]), cmp.Compare(bitsLength(a), bitsLength(b)))
}

// validNetwork reports whether v is an inet or cidr: family, length of the mask, a flag, the
// length of the address, the address.
func validNetwork(v []byte) bool {
	if len(v) < 4 || int(v[3]) != len(v)-4 {
		return false
	}
	return v[0] == 2 && v[3] == 4 && v[1] <= 32 || v[0] == 3 && v[3] == 16 && v[1] <= 128
}

func rankNetwork(v []byte) uint64 { return uint64(v[0])<<8 | uint64(v[4]&firstBits(v[1])) }

// firstBits masks the first byte of an address whose mask has n bits.
func firstBits(n byte) byte {
	if n >= 8 {
		return 0xff
	}
	return ^byte(0xff >> n)
}

// compareNetwork compares the bits that both masks cover, then the masks, then the
// addresses.
func compareNetwork(a, b []byte) int {
	if c := cmp.Compare(a[0], b[0]); c != 0 {
		return c
	}
	common := min(a[1], b[1])
	whole := common / 8
	c := bytes.Compare(a[4:4+whole], b[4:4+whole])
	if rest := common % 8; c == 0 && rest > 0 {
		c = cmp.Compare(a[4+whole]&firstBits(rest), b[4+whole]&firstBits(rest))
	}
	return cmp.Or(c, cmp.Compare(a[1], b[1]), bytes.Compare(a[4:], b[4:]))
}

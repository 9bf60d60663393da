package exec

import (
	"cmp"
	"encoding/binary"
)

// The binary format of a numeric: four numbers of two bytes (how many digits, weight, sign,
// display scale), then the digits to the base of 10000, the first counting 10000^weight.
const (
	numericPositive  = 0x0000
	numericNegative  = 0x4000
	numericNaN       = 0xC000
	numericInfinity  = 0xD000
	numericMinusInf  = 0xF000
	numericBase      = 10000
	numericHeader    = 8
	numericWeightOff = 1 << 15
)

// Where a numeric stands among the others.
const (
	minusInfinity uint64 = iota
	negative
	zero
	positive
	infinity
	notANumber
)

// validNumeric reports whether v is one.
func validNumeric(v []byte) bool {
	if len(v) < numericHeader || int(binary.BigEndian.Uint16(v))*2 != len(v)-numericHeader {
		return false
	}
	switch binary.BigEndian.Uint16(v[4:]) {
	case numericPositive, numericNegative, numericNaN, numericInfinity, numericMinusInf:
	default:
		return false
	}
	for i := numericHeader; i < len(v); i += 2 {
		if binary.BigEndian.Uint16(v[i:]) >= numericBase {
			return false
		}
	}
	return true
}

// numeric is what a value means: class, and of finite ones but zero the digits without zeros at
// either end and the weight of the first.
type numeric struct {
	class  uint64
	weight int
	digits []byte // two bytes each
}

func readNumeric(v []byte) (n numeric) {
	switch binary.BigEndian.Uint16(v[4:]) {
	case numericNaN:
		return numeric{class: notANumber}
	case numericInfinity:
		return numeric{class: infinity}
	case numericMinusInf:
		return numeric{class: minusInfinity}
	case numericNegative:
		n.class = negative
	default:
		n.class = positive
	}
	n.weight, n.digits = int(int16(binary.BigEndian.Uint16(v[2:]))), v[numericHeader:]
	for len(n.digits) > 0 && n.digits[0]|n.digits[1] == 0 {
		n.digits = n.digits[2:]
		n.weight--
	}
	for l := len(n.digits); l > 0 && n.digits[l-1]|n.digits[l-2] == 0; l = len(n.digits) {
		n.digits = n.digits[:l-2]
	}
	if len(n.digits) == 0 {
		return numeric{class: zero}
	}
	return n
}

// rankNumeric packs the class (3 bits), the weight (18) and three digits (43).
func rankNumeric(v []byte) uint64 {
	n := readNumeric(v)
	if n.class != negative && n.class != positive {
		return n.class << 61
	}
	size := uint64(n.weight + 4*numericWeightOff) // leading zeros may take it below the smallest
	var head uint64
	for i := range 3 {
		head *= numericBase
		if 2*i < len(n.digits) {
			head += uint64(binary.BigEndian.Uint16(n.digits[2*i:]))
		}
	}
	size = size<<43 | head
	if n.class == negative {
		size = 1<<61 - 1 - size
	}
	return n.class<<61 | size
}

// compareNumeric orders two numerics of equal class.
func compareNumeric(a, b []byte) int {
	x, y := readNumeric(a), readNumeric(b)
	c := cmp.Or(cmp.Compare(x.class, y.class), cmp.Compare(x.weight, y.weight))
	for i := 0; c == 0 && i < len(x.digits) && i < len(y.digits); i += 2 {
		c = cmp.Compare(binary.BigEndian.Uint16(x.digits[i:]), binary.BigEndian.Uint16(y.digits[i:]))
	}
	c = cmp.Or(c, cmp.Compare(len(x.digits), len(y.digits)))
	if x.class == negative {
		return -c
	}
	return c
}

package shardmap

import (
	"bytes"
	"encoding/binary"
	"math"
)

// Bounds of the numerics that are judged here; larger ones are left to
// PostgreSQL.
const (
	maxNumericText  = 1000 // bytes of a text, and the largest exponent
	maxNumericGroup = maxNumericText/4 + 3
)

// decimalClass says what a decimal is; the order is PostgreSQL's.
type decimalClass uint8

const (
	minusInfinity decimalClass = iota
	negative
	zero
	positive
	plusInfinity
	notANumber
)

// decimal is a numeric as PostgreSQL keeps it: groups of four digits, the first
// times 10000^weight, without zero groups at either end. So equal numbers are
// the same decimal, whatever their scale.
type decimal struct {
	class  decimalClass
	weight int
	n      int                     // groups used
	groups [maxNumericGroup]uint16 // each below 10000
}

// hash is hash_numeric_extended(d, 0). The sign does not count.
func (d *decimal) hash() uint64 {
	switch d.class {
	case zero:
		return math.MaxUint64
	case negative, positive:
	default:
		return 0
	}
	s := newLookup3(2 * d.n)
	var block [12]byte
	filled := 0
	for _, g := range d.groups[:d.n] {
		binary.LittleEndian.PutUint16(block[filled:], g)
		if filled += 2; filled == len(block) {
			s.block(block[:])
			filled = 0
		}
	}
	s.tail(block[:filled])
	return s.sum() ^ uint64(int64(d.weight))
}

// parse reads a numeric's text. Infinity is a number since PostgreSQL 14; an
// older server refuses it itself, wherever the statement goes.
func (d *decimal) parse(text []byte) error {
	b := trimSpace(text)
	if !isPlain(text) || len(text) > maxNumericText {
		return ErrUnproven
	}
	if bytes.EqualFold(b, []byte("nan")) {
		d.class = notANumber
		return nil
	}
	d.class = positive
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		if b[0] == '-' {
			d.class = negative
		}
		b = b[1:]
	}
	if bytes.EqualFold(b, []byte("infinity")) || bytes.EqualFold(b, []byte("inf")) {
		if d.class == negative {
			d.class = minusInfinity
		} else {
			d.class = plusInfinity
		}
		return nil
	}
	if newerNumber(b) {
		return ErrUnproven
	}
	mantissa, exponent, err := cutExponent(b, text)
	if err != nil {
		return err
	}
	digits, point := 0, -1
	for i, c := range mantissa {
		switch {
		case isDigit(c):
			digits++
		case c == '.' && point < 0:
			point = i
		default:
			return errSyntax(Numeric, text)
		}
	}
	if digits == 0 {
		return errSyntax(Numeric, text)
	}
	if point < 0 {
		point = len(mantissa)
	}
	d.fill(mantissa, point+exponent)
	return nil
}

// cutExponent splits a number at its exponent.
func cutExponent(b, text []byte) (mantissa []byte, exponent int, err error) {
	at := bytes.IndexAny(b, "eE")
	if at < 0 {
		return b, 0, nil
	}
	mantissa, b = b[:at], b[at+1:]
	minus := false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		minus = b[0] == '-'
		b = b[1:]
	}
	if len(b) == 0 {
		return nil, 0, errSyntax(Numeric, text)
	}
	for _, c := range b {
		if isSpace(c) {
			return nil, 0, ErrUnproven // "1e 5" is a number up to PostgreSQL 15
		}
		if !isDigit(c) {
			return nil, 0, errSyntax(Numeric, text)
		}
		if exponent = exponent*10 + int(c-'0'); exponent > maxNumericText {
			return nil, 0, ErrUnproven
		}
	}
	if minus {
		exponent = -exponent
	}
	return mantissa, exponent, nil
}

// fill stores the digits of a mantissa, which may hold a point. before is how
// many of its digits stand before the true decimal point.
func (d *decimal) fill(mantissa []byte, before int) {
	for len(mantissa) > 0 && (mantissa[0] == '0' || mantissa[0] == '.') {
		if mantissa[0] == '0' {
			before--
		}
		mantissa = mantissa[1:]
	}
	// The first group starts at a multiple of four digits before the point.
	d.weight = (before+3)>>2 - 1
	within := (4 - before&3) & 3 // digits of the first group that are missing
	for _, c := range mantissa {
		if c == '.' {
			continue
		}
		if within == 0 || d.n == 0 {
			d.n++
		}
		g := &d.groups[d.n-1]
		*g += uint16(c-'0') * [4]uint16{1000, 100, 10, 1}[within]
		within = (within + 1) & 3
	}
	d.strip()
}

// strip takes zero groups off both ends.
func (d *decimal) strip() {
	first := 0
	for first < d.n && d.groups[first] == 0 {
		first++
	}
	if first > 0 {
		copy(d.groups[:], d.groups[first:d.n])
		d.n -= first
		d.weight -= first
	}
	for d.n > 0 && d.groups[d.n-1] == 0 {
		d.n--
	}
	if d.n == 0 {
		d.class, d.weight = zero, 0
	}
}

// receive reads a binary numeric. Unusual ones (digits behind the scale, which
// PostgreSQL cuts off) are left to PostgreSQL.
func (d *decimal) receive(b []byte) error {
	if len(b) < 8 {
		return ErrUnproven
	}
	groups := int(binary.BigEndian.Uint16(b))
	weight := int(int16(binary.BigEndian.Uint16(b[2:])))
	sign := binary.BigEndian.Uint16(b[4:])
	scale := int(binary.BigEndian.Uint16(b[6:]))
	b = b[8:]
	if groups > len(d.groups) || len(b) != 2*groups || scale > 0x3fff {
		return ErrUnproven
	}
	switch sign {
	case 0xc000:
		d.class = notANumber
	case 0xd000:
		d.class = plusInfinity
	case 0xf000:
		d.class = minusInfinity
	case 0x0000:
		d.class = positive
	case 0x4000:
		d.class = negative
	default:
		return ErrUnproven
	}
	if sign >= 0xc000 {
		if groups != 0 {
			return ErrUnproven
		}
		return nil
	}
	d.weight, d.n = weight, groups
	for i := range groups {
		if d.groups[i] = binary.BigEndian.Uint16(b[2*i:]); d.groups[i] > 9999 {
			return ErrUnproven
		}
	}
	d.strip()
	if d.fraction() > scale {
		return ErrUnproven
	}
	return nil
}

// fraction returns how many decimal digits stand behind the point, without
// zeros at the end.
func (d *decimal) fraction() int {
	if d.n == 0 {
		return 0
	}
	digits := 4 * (d.n - 1 - d.weight)
	for g := d.groups[d.n-1]; digits > 0 && g%10 == 0; g /= 10 {
		digits--
	}
	return max(digits, 0)
}

package shardmap

import (
	"math"
	"unicode/utf8"
)

// Typmods are those of pg_attribute.atttypmod; varHeader is counted in them.
const varHeader = 4

// Unchanged returns nil when a column of type k with this atttypmod keeps the
// value as it is, so that the hash of the value is that of the row stored. It is
// for values that are assigned (INSERT, COPY, SET k = ...); values compared are
// not changed. varchar(n) cuts spaces off, numeric(p,s) and timestamp(p) round:
// where that may happen the error is ErrUnproven. Errors of the value itself
// are those of Hash.
func (k KeyType) Unchanged(typmod int32, b []byte, f Format) error {
	if typmod < 0 {
		return nil
	}
	switch k {
	case Text:
		if err := checkText(b); err != nil {
			return err
		}
		if len(b) > int(typmod)-varHeader && utf8.RuneCount(b) > int(typmod)-varHeader {
			return ErrUnproven
		}
	case Timestamp, Timestamptz:
		v, err := k.timestamp(b, f)
		if err != nil {
			return err
		}
		unit := int64(1)
		for digits := typmod; digits < 6; digits++ {
			unit *= 10
		}
		if v%unit != 0 && v != math.MinInt64 && v != math.MaxInt64 {
			return ErrUnproven
		}
	case Numeric:
		var d decimal
		if err := d.read(b, f); err != nil {
			return err
		}
		// Eleven bits with a sign; a negative scale rounds to tens, hundreds, ...
		// and is below every number's fraction.
		scale := (int(typmod-varHeader)&0x7ff ^ 0x400) - 0x400
		if d.fraction() > scale {
			return ErrUnproven
		}
	}
	return nil
}

func (k KeyType) timestamp(b []byte, f Format) (int64, error) {
	if f == BinaryFormat {
		return timestampOf(b)
	}
	return parseTimestamp(k, b)
}

func (d *decimal) read(b []byte, f Format) error {
	if f == BinaryFormat {
		return d.receive(b)
	}
	return d.parse(b)
}

package shardmap

import "encoding/binary"

// AppendSortKey appends to dst bytes that stand for a value: equal for equal
// values of k and of types that colocate with it, whatever the format, and
// ordered by bytes as PostgreSQL orders the values (text: as COLLATE "C" does).
// Errors are those of Hash; dst is then returned as it was.
func (k KeyType) AppendSortKey(dst, b []byte, f Format) ([]byte, error) {
	var ordinal int64
	var err error
	switch k {
	case Int2, Int4, Int8:
		if f == BinaryFormat {
			ordinal, err = intOf(k, b)
		} else {
			ordinal, err = parseInt(k, b)
		}
	case Timestamp, Timestamptz:
		ordinal, err = k.timestamp(b, f)
	case Date:
		var days int32
		if f == BinaryFormat {
			days, err = dateOf(b)
		} else {
			days, err = parseDate(b)
		}
		ordinal = int64(days)
	default:
		return k.appendBytes(dst, b, f)
	}
	if err != nil {
		return dst, err
	}
	return binary.BigEndian.AppendUint64(dst, uint64(ordinal)^1<<63), nil
}

// appendBytes is AppendSortKey of the types that are not kept as one number.
func (k KeyType) appendBytes(dst, b []byte, f Format) ([]byte, error) {
	switch k {
	case Text:
		if err := checkText(b); err != nil {
			return dst, err
		}
		return append(dst, b...), nil
	case UUID:
		if f == BinaryFormat {
			if err := checkWidth(b, 16); err != nil {
				return dst, err
			}
			return append(dst, b...), nil
		}
		u, err := parseUUID(b)
		if err != nil {
			return dst, err
		}
		return append(dst, u[:]...), nil
	case Bytea:
		if f == BinaryFormat {
			return append(dst, b...), nil
		}
		r, _, err := readBytea(b)
		if err != nil {
			return dst, err
		}
		for c, ok := r.next(); ok; c, ok = r.next() {
			dst = append(dst, c)
		}
		return dst, nil
	case Bool:
		return appendBool(dst, b, f)
	case Numeric:
		var d decimal
		if err := d.read(b, f); err != nil {
			return dst, err
		}
		return d.appendSortKey(dst), nil
	}
	return dst, ErrUnproven
}

func appendBool(dst, b []byte, f Format) ([]byte, error) {
	var v bool
	var err error
	if f == BinaryFormat {
		if err = checkWidth(b, 1); err == nil {
			v = b[0] != 0
		}
	} else {
		v, err = parseBool(b)
	}
	switch {
	case err != nil:
		return dst, err
	case v:
		return append(dst, 1), nil
	}
	return append(dst, 0), nil
}

// appendSortKey appends class, weight and groups, each group plus one so that
// none is zero. Negative numbers are complemented, and ended by a pair that is
// larger than any group, so that the shorter of two with the same beginning is
// the larger.
func (d *decimal) appendSortKey(dst []byte) []byte {
	dst = append(dst, byte(d.class))
	if d.class != negative && d.class != positive {
		return dst
	}
	var flip uint16
	if d.class == negative {
		flip = 0xffff
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(int16(d.weight))^0x8000^flip)
	for _, g := range d.groups[:d.n] {
		dst = binary.BigEndian.AppendUint16(dst, (g+1)^flip)
	}
	if d.class == negative {
		dst = binary.BigEndian.AppendUint16(dst, 0xffff)
	}
	return dst
}

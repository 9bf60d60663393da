package exec

import (
	"bytes"
	"cmp"

	"github.com/jackc/pgx/v5/pgtype"

	"shardproxy/wire"
)

// Order says how one column orders rows.
type Order struct {
	// Type is the OID of the column's type, of what it is made of when it is a domain.
	Type       uint32
	Descending bool
	NullsFirst bool
	// Bytewise says that the collation orders texts by their bytes (C, POSIX, or a
	// provider's that is known to). It means nothing for types without a collation.
	Bytewise bool
}

// Comparable reports whether the proxy orders values of the type as PostgreSQL's
// default operator class for btree does.
func (o Order) Comparable() bool {
	_, ok := comparatorOf(o)
	return ok
}

// Compare compares two values in binary format as the order has them, nil being NULL: a negative
// number when a's row comes before b's, 0 when PostgreSQL holds them equal. A value that is
// none of the type is an error of code 08P01, a type that is not Comparable one of XX000.
func (o Order) Compare(a, b []byte) (int, error) {
	c, ok := comparatorOf(o)
	if !ok {
		return 0, errNotComparable(o.Type)
	}
	k := mergeKey{Order: o, comparator: c}
	var x, y keyValue
	if !k.read(&x, a) || !k.read(&y, b) {
		return 0, errMalformedKey(o.Type)
	}
	return k.compare(&x, &y), nil
}

func errNotComparable(oid uint32) *wire.Error {
	return wire.Errorf("XX000", "values of type %d cannot be ordered outside the server", oid)
}

func errMalformedKey(oid uint32) *wire.Error {
	return wire.Errorf("08P01", "lost synchronization with the server").
		WithDetail("A sort key is no binary value of the type with OID %d.", oid)
}

// comparator orders the values of a type.
type comparator struct {
	// size is the length of every value in bytes, -1 when it varies.
	size int
	// valid reports whether a value of varying length is one; nil: every one is.
	valid func(v []byte) bool
	// rank maps a value to a number that is smaller for no value that is larger.
	rank func(v []byte) uint64
	// compare orders values of equal rank; nil when these are equal.
	compare func(a, b []byte) int
}

// comparatorOf returns how values of the type are ordered. Each follows the comparison of the type's
// default btree operator class in PostgreSQL's src/backend/utils/adt, as the name beside it.
func comparatorOf(o Order) (comparator, bool) {
	switch o.Type {
	case pgtype.BoolOID, pgtype.QCharOID: // btboolcmp; btcharcmp, of unsigned bytes
		return comparator{size: 1, rank: rankBytes}, true
	case pgtype.Int2OID: // btint2cmp
		return comparator{size: 2, rank: rankInt2}, true
	case pgtype.Int4OID, pgtype.DateOID: // btint4cmp; date_cmp
		return comparator{size: 4, rank: rankInt4}, true
	case pgtype.Int8OID, oidMoney, pgtype.TimestampOID, pgtype.TimestamptzOID, pgtype.TimeOID:
		// btint8cmp, cash_cmp, timestamp_cmp, time_cmp: infinities are the extremes
		return comparator{size: 8, rank: rankInt8}, true
	case pgtype.OIDOID: // btoidcmp
		return comparator{size: 4, rank: rankBytes}, true
	case oidXID8, oidLSN, pgtype.Macaddr8OID: // xid8cmp, pg_lsn_cmp, macaddr8_cmp
		return comparator{size: 8, rank: rankBytes}, true
	case pgtype.MacaddrOID, pgtype.TIDOID: // macaddr_cmp; bttidcmp: block, then offset
		return comparator{size: 6, rank: rankBytes}, true
	case pgtype.Float4OID: // btfloat4cmp
		return comparator{size: 4, rank: rankFloat4}, true
	case pgtype.Float8OID: // btfloat8cmp
		return comparator{size: 8, rank: rankFloat8}, true
	case pgtype.NumericOID: // numeric_cmp
		return comparator{size: -1, valid: validNumeric, rank: rankNumeric, compare: compareNumeric}, true
	case pgtype.TimetzOID: // timetz_cmp
		return comparator{size: 12, rank: rankTimetz, compare: compareTimetz}, true
	case pgtype.IntervalOID: // interval_cmp
		return comparator{size: 16, rank: rankInterval, compare: compareInterval}, true
	case pgtype.UUIDOID: // uuid_cmp
		return comparator{size: 16, rank: rankBytes, compare: bytes.Compare}, true
	case pgtype.ByteaOID: // byteacmp
		return comparator{size: -1, rank: rankBytes, compare: bytes.Compare}, true
	case pgtype.BitOID, pgtype.VarbitOID: // bitcmp
		return comparator{size: -1, valid: validBits, rank: rankBits, compare: compareBits}, true
	case pgtype.InetOID, pgtype.CIDROID: // network_cmp
		return comparator{size: -1, valid: validNetwork, rank: rankNetwork, compare: compareNetwork}, true
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.NameOID: // bttextcmp, btnamecmp
		return comparator{size: -1, rank: rankBytes, compare: bytes.Compare}, o.Bytewise
	case pgtype.BPCharOID: // bpcharcmp
		return comparator{size: -1, rank: rankPadded, compare: comparePadded}, o.Bytewise
	}
	return comparator{}, false
}

// OIDs of PostgreSQL's pg_type.dat that pgtype does not name.
const (
	oidMoney = 790
	oidLSN   = 3220
	oidXID8  = 5069
)

// mergeKey is an Order with what carries it out.
type mergeKey struct {
	Order
	comparator
}

// keyValue is a value where it is to be compared.
type keyValue struct {
	rank  uint64 // of the value; turned round when descending
	place uint8  // beforeValues, amongValues or behindValues
	value []byte
}

// Where a row stands: NULLs before the values or behind them.
const (
	beforeValues uint8 = iota
	amongValues
	behindValues
)

// read takes in a value; nil is NULL. False says that it is none of the type. The
// value must stay as long as kv is used.
func (k *mergeKey) read(kv *keyValue, v []byte) bool {
	kv.value = v
	if v == nil {
		kv.rank, kv.place = 0, behindValues
		if k.NullsFirst {
			kv.place = beforeValues
		}
		return true
	}
	if k.size >= 0 && len(v) != k.size || k.valid != nil && !k.valid(v) {
		return false
	}
	kv.rank, kv.place = k.rank(v), amongValues
	if k.Descending {
		kv.rank = ^kv.rank
	}
	return true
}

// compare orders two values that read took in.
func (k *mergeKey) compare(a, b *keyValue) int {
	switch {
	case a.place != b.place:
		return cmp.Compare(a.place, b.place)
	case a.rank != b.rank:
		return cmp.Compare(a.rank, b.rank)
	case k.comparator.compare == nil || a.place != amongValues:
		return 0
	case k.Descending:
		return k.comparator.compare(b.value, a.value)
	}
	return k.comparator.compare(a.value, b.value)
}

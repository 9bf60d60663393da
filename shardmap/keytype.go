package shardmap

// KeyType is a type that a key column, or a value compared with one, may have.
// The zero value is no type.
type KeyType uint8

// The key types.
const (
	Int2        KeyType = iota + 1 // smallint
	Int4                           // integer
	Int8                           // bigint
	Text                           // text and varchar, with a deterministic collation
	UUID                           // uuid
	Date                           // date
	Timestamp                      // timestamp without time zone
	Timestamptz                    // timestamp with time zone
	Bytea                          // bytea
	Bool                           // boolean
	Numeric                        // numeric
)

// OIDs of PostgreSQL's built-in types.
const (
	oidBool        = 16
	oidBytea       = 17
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidVarchar     = 1043
	oidDate        = 1082
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidNumeric     = 1700
	oidUUID        = 2950
)

// KeyTypeOf returns the key type of a column or parameter type. For a domain
// the caller passes its base type, for text and varchar whether the column's
// collation is deterministic. The error is a *KeyTypeError.
func KeyTypeOf(oid uint32, deterministicCollation bool) (KeyType, error) {
	switch oid {
	case oidInt2:
		return Int2, nil
	case oidInt4:
		return Int4, nil
	case oidInt8:
		return Int8, nil
	case oidText, oidVarchar:
		if !deterministicCollation {
			return 0, refuse(oid, "its collation is not deterministic: strings of different bytes are equal")
		}
		return Text, nil
	case oidUUID:
		return UUID, nil
	case oidDate:
		return Date, nil
	case oidTimestamp:
		return Timestamp, nil
	case oidTimestamptz:
		return Timestamptz, nil
	case oidBytea:
		return Bytea, nil
	case oidBool:
		return Bool, nil
	case oidNumeric:
		return Numeric, nil
	}
	return 0, refuse(oid, refusal(oid))
}

func refuse(oid uint32, reason string) error {
	return &KeyTypeError{OID: oid, Type: typeName(oid), Reason: reason}
}

// refusal says why a type is no key type.
func refusal(oid uint32) string {
	switch oid {
	case 700, 701:
		return "0 and -0 are equal with different bytes, and what a text means depends on rounding"
	case 1042:
		return "trailing spaces do not count when it is compared"
	case 114, 142:
		return "it has no equality"
	case 3802:
		return "objects are equal whatever the order of their keys, and numbers within by value"
	case 1186:
		return "intervals of different bytes are equal (1 day and 24 hours)"
	case 1266:
		return "it is compared by the moment and then by the zone, and what a text means depends on TimeZone"
	case 19:
		return "it is a type for system catalogs, cut off at 63 bytes"
	case 18:
		return "it is a type for system catalogs"
	case 26, 1083, 790, 869, 650, 829, 774, 1560, 1562:
		return "its hash and its input are not repeated by the proxy; use bigint, text or uuid"
	case 600, 601, 602, 603, 604, 628, 718:
		return "it cannot be hashed"
	}
	if name := typeName(oid); len(name) > 2 && name[len(name)-2:] == "[]" {
		return "it is an array"
	}
	return "only integers, text, varchar, uuid, date, timestamps, bytea, boolean and numeric can be keys; " +
		"a type of an extension or of the user's own (citext, an enum) has an equality that the proxy does not know"
}

// typeName is a built-in type's name as SQL spells it, or "".
func typeName(oid uint32) string {
	switch oid {
	case oidText:
		return "text"
	case oidVarchar:
		return "character varying"
	case 18:
		return `"char"`
	case 19:
		return "name"
	case 26:
		return "oid"
	case 114:
		return "json"
	case 142:
		return "xml"
	case 600:
		return "point"
	case 601:
		return "lseg"
	case 602:
		return "path"
	case 603:
		return "box"
	case 604:
		return "polygon"
	case 628:
		return "line"
	case 650:
		return "cidr"
	case 700:
		return "real"
	case 701:
		return "double precision"
	case 718:
		return "circle"
	case 774:
		return "macaddr8"
	case 790:
		return "money"
	case 829:
		return "macaddr"
	case 869:
		return "inet"
	case 1042:
		return "character"
	case 1083:
		return "time without time zone"
	case 1186:
		return "interval"
	case 1266:
		return "time with time zone"
	case 1560:
		return "bit"
	case 1562:
		return "bit varying"
	case 3802:
		return "jsonb"
	case 1000:
		return "boolean[]"
	case 1005:
		return "smallint[]"
	case 1007:
		return "integer[]"
	case 1009:
		return "text[]"
	case 1015:
		return "character varying[]"
	case 1016:
		return "bigint[]"
	case 1231:
		return "numeric[]"
	case 2951:
		return "uuid[]"
	}
	return ""
}

// String returns the type's name as PostgreSQL's messages spell it.
func (k KeyType) String() string {
	switch k {
	case Int2:
		return "smallint"
	case Int4:
		return "integer"
	case Int8:
		return "bigint"
	case Text:
		return "text"
	case UUID:
		return "uuid"
	case Date:
		return "date"
	case Timestamp:
		return "timestamp without time zone"
	case Timestamptz:
		return "timestamp with time zone"
	case Bytea:
		return "bytea"
	case Bool:
		return "boolean"
	case Numeric:
		return "numeric"
	}
	return "no key type"
}

// OID returns the OID of PostgreSQL's type; for Text that of text.
func (k KeyType) OID() uint32 {
	return [...]uint32{0, oidInt2, oidInt4, oidInt8, oidText, oidUUID, oidDate, oidTimestamp, oidTimestamptz, oidBytea, oidBool, oidNumeric}[k]
}

// Colocates reports whether equal values of the two types have equal hashes,
// so that tables keyed by one and by the other keep equal keys together. Of
// different types only the integers do.
func (k KeyType) Colocates(other KeyType) bool {
	return k == other || k.isInt() && other.isInt()
}

func (k KeyType) isInt() bool { return k >= Int2 && k <= Int8 }

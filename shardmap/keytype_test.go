package shardmap

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"shardproxy/internal/pgtest"
)

// TestKeyTypes asks for every type of PostgreSQL's catalog.
func TestKeyTypes(t *testing.T) {
	db := pgtest.Shared(t)
	want := map[string]KeyType{
		"int2": Int2, "int4": Int4, "int8": Int8, "text": Text, "varchar": Text, "uuid": UUID, "date": Date, "timestamp": Timestamp,
		"timestamptz": Timestamptz, "bytea": Bytea, "bool": Bool, "numeric": Numeric,
	}
	db.Exec("CREATE DOMAIN d AS int4; CREATE TYPE e AS ENUM ('a'); CREATE TYPE c AS (a int4)")
	for _, row := range db.Rows("SELECT oid, typname, format_type(oid, NULL) FROM pg_type WHERE typtype <> 'p'") {
		var oid uint32
		if _, err := fmt.Sscan(row[0], &oid); err != nil {
			t.Fatal(err)
		}
		got, err := KeyTypeOf(oid, true)
		if got != want[row[1]] {
			t.Errorf("%s: %s, want %s", row[1], got, want[row[1]])
		}
		var refused *KeyTypeError
		if (got == 0) != errors.As(err, &refused) {
			t.Errorf("%s: %v", row[1], err)
		}
		if refused != nil && (refused.OID != oid || refused.Reason == "" || refused.Type != "" && refused.Type != row[2]) {
			t.Errorf("%s: %+v, PostgreSQL calls it %s", row[1], refused, row[2])
		}
		if name := got.String(); got != 0 && row[1] != "varchar" && name != row[2] {
			t.Errorf("%s is called %s, PostgreSQL calls it %s", row[1], name, row[2])
		}
	}
	for _, oid := range []uint32{oidText, oidVarchar} {
		if _, err := KeyTypeOf(oid, false); err == nil || !strings.Contains(err.Error(), "deterministic") {
			t.Errorf("a collation that is not deterministic: %v", err)
		}
	}
	if k, err := KeyTypeOf(oidInt4, false); k != Int4 || err != nil {
		t.Errorf("an integer has no collation: %v", err)
	}
}

func TestColocates(t *testing.T) {
	for a := Int2; a <= Numeric; a++ {
		for b := Int2; b <= Numeric; b++ {
			if got, want := a.Colocates(b), a == b || a <= Int8 && b <= Int8; got != want {
				t.Errorf("%s and %s: %v", a, b, got)
			}
		}
	}
	seven := Value{Int2, []byte{0, 7}, BinaryFormat}
	want, _ := Int8.HashText([]byte("7"))
	if got, err := seven.HashFor(Int8); got != want || err != nil {
		t.Errorf("an int2 for a bigint key: %x, %v, want %x", got, err, want)
	}
	if _, err := seven.HashFor(Numeric); !errors.Is(err, ErrUnproven) {
		t.Errorf("an int2 for a numeric key: %v", err)
	}
	if KeyType(0).String() != "no key type" || KeyType(99).String() != "no key type" {
		t.Error("an invalid key type has a name")
	}
	for _, f := range []Format{TextFormat, BinaryFormat} {
		if _, err := KeyType(0).Hash([]byte("1"), f); !errors.Is(err, ErrUnproven) {
			t.Errorf("the hash of no type: %v", err)
		}
	}
}

// TestUnchanged lets PostgreSQL assign values to columns with a typmod: where
// we say that the value stays as it is, it does.
func TestUnchanged(t *testing.T) {
	db := pgtest.Shared(t)
	for _, test := range []struct {
		column string
		kept   string // values that are proven to stay, separated by |
		asked  string // values left to PostgreSQL
	}{
		{"varchar(3)", "|a|abc|äöü|日本語", "abcd|abc |abc   |äöüß"},
		{"varchar", "abc   |anything", ""},
		{"text", "abc   ", ""},
		{"numeric(5,2)", "1|1.5|1.50|1.500|123.45|-0.01|NaN|0", "1.005|1.555|0.001"},
		{"numeric(3,0)", "1|100|1.0", "1.5|99.4"},
		{"numeric(3,-2)", "", "1|100|149|50000"},
		{"numeric(2,5)", "0.00012|0", "0.000123"},
		{"numeric", "1.005|1e-50", ""},
		{"timestamp(3)", "2024-01-02 03:04:05.123|2024-01-02 03:04:05.100000|infinity|1999-01-01 00:00:00.5", "2024-01-02 03:04:05.1234|1999-01-01 00:00:00.000001"},
		{"timestamp(0)", "2024-01-02 03:04:05|-infinity", "2024-01-02 03:04:05.5"},
		{"timestamp(6)", "2024-01-02 03:04:05.123456", ""},
		{"timestamptz(1)", "2024-01-02 03:04:05.1+02", "2024-01-02 03:04:05.12+02"},
		{"timestamptz", "2024-01-02 03:04:05.12+02", ""},
		{"int4", "5", ""},
	} {
		name := "t" + fmt.Sprint(len(test.column)) + strings.NewReplacer("(", "_", ")", "", ",", "_", "-", "m").Replace(test.column)
		db.Exec("CREATE TABLE " + name + " (k " + test.column + ")")
		row := db.Rows("SELECT atttypid, atttypmod FROM pg_attribute WHERE attrelid = '" + name + "'::regclass AND attname = 'k'")[0]
		var oid uint32
		var typmod int32
		if _, err := fmt.Sscan(row[0], &oid); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscan(row[1], &typmod); err != nil {
			t.Fatal(err)
		}
		k, err := KeyTypeOf(oid, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range strings.Split(test.kept, "|") {
			if v == "" && k != Text {
				continue
			}
			if err := k.Unchanged(typmod, []byte(v), TextFormat); err != nil {
				t.Errorf("%s %q: %v", test.column, v, err)
			}
			hash, err := k.HashText([]byte(v))
			stored := db.Value("INSERT INTO "+name+" VALUES ("+quote(v)+") RETURNING hash_record_extended(ROW(k), 0)", nil...)
			if err != nil || stored != fmt.Sprint(int64(hash)) {
				t.Errorf("%s %q: stored as one with hash %s, want %d", test.column, v, stored, int64(hash))
			}
		}
		for _, v := range strings.Split(test.asked, "|") {
			if err := k.Unchanged(typmod, []byte(v), TextFormat); test.asked != "" && !errors.Is(err, ErrUnproven) {
				t.Errorf("%s %q: %v", test.column, v, err)
			}
		}
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

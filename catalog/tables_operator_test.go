package catalog

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

const operatorSQL = `
CREATE DOMAIN d_int AS int; CREATE DOMAIN d_code AS varchar(10); CREATE DOMAIN d_over AS d_int;
CREATE TYPE mood AS ENUM ('a', 'b');
CREATE EXTENSION citext;
`

// operatorTypes are types to compare with each other; "" is a literal without a type.
var operatorTypes = []string{"", "int2", "int4", "int8", "numeric", "float8", "float4", "text", "varchar", "bpchar", "name", `"char"`,
	"bool", "bytea", "date", "timestamp", "timestamptz", "time", "interval", "uuid", "oid", "regclass", "jsonb", "inet", "money",
	"d_int", "d_code", "d_over", "mood", "citext", "int4[]", "text[]", "int4range", "bit", "varbit", "xid"}

// meant is the operator that PostgreSQL takes, read from a stored view.
func meant(t *testing.T, conn *pgx.Conn, left, op, right string) (o operator, ok bool) {
	t.Helper()
	operand := func(typ string) string {
		if typ == "" {
			return "NULL"
		}
		return "CAST(NULL AS " + typ + ")"
	}
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), fmt.Sprintf("CREATE VIEW pg_temp.meant AS SELECT %s %s %s AS x", operand(left), op, operand(right))); err != nil {
		return o, false
	}
	err = tx.QueryRow(t.Context(), `SELECT oid, oprnamespace::regnamespace::text, oprleft, oprright FROM pg_operator WHERE oid =
		(SELECT (regexp_match(ev_action::text, ':opno (\d+)'))[1]::oid FROM pg_rewrite WHERE ev_class = 'pg_temp.meant'::regclass)`).
		Scan(&o.oid, &o.schema, &o.left, &o.right)
	if err != nil {
		t.Fatalf("%s %s %s: %v", left, op, right, err)
	}
	return o, true
}

func typeOIDs(t *testing.T, conn *pgx.Conn) map[string]uint32 {
	t.Helper()
	oids := map[string]uint32{"": 0}
	for _, typ := range operatorTypes {
		if typ == "" {
			continue
		}
		var oid uint32
		if err := conn.QueryRow(t.Context(), "SELECT $1::regtype::oid", typ).Scan(&oid); err != nil {
			t.Fatal(err)
		}
		oids[typ] = oid
	}
	return oids
}

// TestComparisonsAsPostgreSQL asks the server which operator it takes for each
// pair of types: what is claimed here must be that.
func TestComparisonsAsPostgreSQL(t *testing.T) {
	c, conn := loadSchema(t, operatorSQL)
	oids := typeOIDs(t, conn)
	public := c.Path("public")
	equal, common := 0, 0
	for _, left := range operatorTypes {
		for _, right := range operatorTypes {
			for _, op := range []string{"=", "<"} {
				if op == "<" && left != right && right != "" {
					continue
				}
				o, exists := meant(t, conn, left, op, right)
				what := fmt.Sprintf("%q %s %q", left, op, right)
				if ours, ok := c.comparison("", op, oids[left], oids[right], public); ok && (!exists || ours.oid != o.oid) {
					t.Errorf("%s: takes operator %d, PostgreSQL %d (%t)", what, ours.oid, o.oid, exists)
				}
				if c.EqualityFor("", op, oids[left], oids[right], public) {
					equal++
					checkFamily(t, conn, what, o, op)
				}
				if left == "" {
					continue
				}
				if typ, known := c.CommonType("", op, oids[left], oids[right], public); known {
					common++
					checkCommon(t, what, o, exists, typ)
				}
			}
		}
	}
	if equal < 60 || common < 60 {
		t.Errorf("only %d equalities and %d common types", equal, common)
	}
}

// checkFamily asks the server whether the operator is a member of the default
// families of its left type.
func checkFamily(t *testing.T, conn *pgx.Conn, what string, o operator, op string) {
	t.Helper()
	var btree, hash, hashable bool
	err := conn.QueryRow(t.Context(), `
		SELECT EXISTS (SELECT FROM pg_amop p JOIN pg_opclass k ON k.opcfamily = p.amopfamily AND k.opcdefault AND k.opcintype = $2
		               WHERE p.amopopr = $1 AND p.amopmethod = 403 AND p.amopstrategy = $3),
		       EXISTS (SELECT FROM pg_amop p JOIN pg_opclass k ON k.opcfamily = p.amopfamily AND k.opcdefault AND k.opcintype = $2
		               WHERE p.amopopr = $1 AND p.amopmethod = 405),
		       EXISTS (SELECT FROM pg_opclass WHERE opcdefault AND opcintype = $2 AND opcmethod = 405)`,
		o.oid, o.left, btreeStrategy[op]).Scan(&btree, &hash, &hashable)
	if err != nil || !btree || op == "=" && hashable && !hash {
		t.Errorf("%s: operator %d: btree=%t hash=%t %v", what, o.oid, btree, hash, err)
	}
}

// checkCommon holds a common type against the operator's operands: one of them is
// it, and the other is no wider.
func checkCommon(t *testing.T, what string, o operator, exists bool, typ uint32) {
	t.Helper()
	for _, family := range commonFamilies {
		at := slices.Index(family, typ)
		if at < 0 {
			continue
		}
		l, r := slices.Index(family, o.left), slices.Index(family, o.right)
		if !exists || l < 0 || r < 0 || max(l, r) != at {
			t.Errorf("%s: common type %d, PostgreSQL takes an operator of %d and %d", what, typ, o.left, o.right)
		}
		return
	}
	t.Errorf("%s: common type %d", what, typ)
}

// TestComparisonsKnown lists what must be known, and what must not.
func TestComparisonsKnown(t *testing.T) {
	c, conn := loadSchema(t, operatorSQL)
	oids := typeOIDs(t, conn)
	public := c.Path("public")
	for _, q := range []struct {
		left, right string
		equality    bool
		common      string // "?" is not known
	}{
		{"int4", "", true, "int4"}, {"int4", "int8", true, "int8"}, {"int8", "int2", true, "int8"}, {"int4", "numeric", false, "numeric"},
		{"numeric", "int8", false, "numeric"}, {"int4", "float8", false, "float8"}, {"int4", "text", false, "?"},
		{"text", "", true, "text"}, {"varchar", "", true, "text"}, {"varchar", "text", true, "text"}, {"d_code", "varchar", true, "text"},
		{"text", "name", true, "?"}, {"text", "citext", false, "?"}, {"citext", "", false, "?"},
		{"d_int", "", true, "int4"}, {"d_over", "int8", true, "int8"},
		{"date", "", true, "date"}, {"date", "timestamp", false, "timestamp"}, {"timestamptz", "date", false, "timestamptz"},
		{"timestamp", "timestamptz", false, "timestamptz"},
		{"uuid", "", true, "uuid"}, {"uuid", "text", false, "?"}, {"bytea", "bytea", true, "bytea"}, {"bool", "", true, "bool"},
		{"bpchar", "text", false, "?"}, {"mood", "mood", false, "?"},
	} {
		if got := c.EqualityFor("", "=", oids[q.left], oids[q.right], public); got != q.equality {
			t.Errorf("%s = %s: %t", q.left, q.right, got)
		}
		want, wantKnown := oids[q.common]
		if got, known := c.CommonType("", "=", oids[q.left], oids[q.right], public); known != wantKnown || known && got != want {
			t.Errorf("%s = %s compares as %d %t, want %s", q.left, q.right, got, known, q.common)
		}
	}
	for _, op := range []string{"<>", "~", "||", "==", "!="} {
		_, known := c.CommonType("", op, oidInt4, oidInt4, public)
		if known || c.EqualityFor("", op, oidInt4, oidInt4, public) {
			t.Errorf("%s is taken for a comparison of a family", op)
		}
	}
	if c.EqualityFor("public", "=", oidInt4, oidInt4, public) || !c.EqualityFor("pg_catalog", "=", oidInt4, oidInt4, Path{}) {
		t.Error("schemas")
	}
}

// TestOtherOperators puts operators of other kinds in the way.
func TestOtherOperators(t *testing.T) {
	c, conn := loadSchema(t, operatorSQL+`
		CREATE SCHEMA s;
		CREATE FUNCTION s.eq(int, numeric) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true';
		CREATE OPERATOR s.= (LEFTARG = int, RIGHTARG = numeric, FUNCTION = s.eq);
		CREATE FUNCTION s.eq(varchar, anyelement) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true';
		CREATE OPERATOR s.= (LEFTARG = varchar, RIGHTARG = anyelement, FUNCTION = s.eq);
		CREATE FUNCTION s.eq(d_int, d_int) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true';
		CREATE OPERATOR s.= (LEFTARG = d_int, RIGHTARG = d_int, FUNCTION = s.eq);`)
	oids := typeOIDs(t, conn)
	for _, q := range []struct {
		left, right, path string
		known             bool
	}{
		{"int4", "numeric", "public", true}, {"int4", "numeric", "public, s", false}, {"int8", "numeric", "s", true},
		{"varchar", "", "public", true}, {"varchar", "", "s, public", false}, {"text", "", "s", true},
		{"d_int", "d_int", "public", true}, {"d_int", "d_int", "s", false}, {"int8", "int8", "s", true},
	} {
		if _, known := c.CommonType("", "=", oids[q.left], oids[q.right], c.Path(q.path)); known != q.known {
			t.Errorf("%s = %s under %s: %t", q.left, q.right, q.path, known)
		}
		if known := q.known; strings.HasPrefix(q.left, "int") && !known && c.EqualityFor("", "=", oids[q.left], oids[q.right], c.Path(q.path)) {
			t.Errorf("%s = %s under %s is an equality of the family", q.left, q.right, q.path)
		}
	}
	if _, known := c.CommonType("", "=", oidInt4, oidNumeric, Path{}); known {
		t.Error("under an unknown path")
	}
}

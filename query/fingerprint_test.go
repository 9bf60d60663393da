package query

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestFingerprint(t *testing.T) {
	for _, c := range []struct{ sql, want string }{
		{"SELECT  *\nFROM t WHERE id=7 -- secret", "select * from t where id = $1"},
		{"select * from t where id = 12345", "select * from t where id = $1"},
		{"select * from T where id = $1 and name = 'bob' and x > $2", "select * from t where id = $1 and name = $3 and x > $2"},
		{"/* shardproxy: route=primary */ select 1", "select $1"},
		{"select 1;", "select $1"},
		{"select 1; select 2 ;", "select $1; select $2"},
		{"select count(*), a.b::int, \"Q\".\"x y\" from a", `select count(*), a.b::int, "Q"."x y" from a`},
		{"select f (1, 2), f(3)", "select f($1, $2), f($3)"},
		{"select 1 where a in (1, 2,3 , 4)", "select $1 where a in ($2, ...)"},
		{"select 1 where a in (1, 2)", "select $1 where a in ($2, ...)"},
		{"select 1 where a in ($1,$2,$3)", "select $2 where a in ($1, ...)"},
		{"select 1 where a in (1)", "select $1 where a in ($2)"},
		{"select 1 where a in (1, b, 2)", "select $1 where a in ($2, b, $3)"},
		{"select array[1,2,3][1]", "select array[$1, ...][$2]"},
		{"insert into t (a, b) values (1, 'x'), (2, 'y'),(3, 'z')", "insert into t(a, b) values ($1, $2), ..."},
		{"insert into t (a, b) values ($1, now()), ($2, now()), ($3, now()) returning a", "insert into t(a, b) values ($1, now()), ... returning a"},
		{"insert into t values (1, 2), (3, default)", "insert into t values ($1, $2), ($3, default)"},
		{"select 'it''s', E'a\\'b', $x$ secret $x$, U&'\\0041', N'n', B'01', X'1F', 1.5e3", "select $1, $2, $3, $4, $5, $6, $7, $8"},
		{"select -1", "select - $1"},
		{"create role r password 'secret'", "create role r password $1"},
		{"alter role r set search_path to secret, other", "alter role r set search_path to $1, $2"},
		{"set application_name = secret", "set application_name = $1"},
		{"set application_name to 'secret'", "set application_name to $1"},
		{"set local a.b to secret; select x = y from z", "set local a.b to $1; select x = y from z"},
		{"savepoint s_1234", "savepoint $1"},
		{"release savepoint s_1234", "release savepoint $1"},
		{"release savepoint", "release savepoint"},
		{"rollback to savepoint s_1234", "rollback to savepoint $1"},
		{"rollback to \"S 1\"", "rollback to $1"},
		{"rollback", "rollback"},
		{"declare c_77 cursor for select a from b", "declare $1 cursor for select a from b"},
		{"fetch 10 from c_77", "fetch $1 from $2"},
		{"close c_77", "close $1"},
		{"deallocate all", "deallocate all"},
		{"execute p_77 (1)", "execute $1($2)"},
		{"prepare p_77 as select 1", "prepare $1 as select $2"},
		{"prepare transaction 'secret'", "prepare transaction $1"},
		{"select 'unterminated secret", "select (not understood)"},
		{"secret 'unterminated", "(not understood)"},
		{"select $99999999999999999999", "select $1"},
		{"", ""},
		{"update t set a = b where c = d", "update t set a = b where c = d"},
		{"select ((1", "select (($1"},
		{"select 1))", "select $1))"},
	} {
		got := FingerprintOf([]byte(c.sql), Options{})
		if got.Text != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.sql, got.Text, c.want)
		}
	}
}

// TestFingerprintHides: where values begin and end is not certain.
func TestFingerprintHides(t *testing.T) {
	if got := FingerprintOf([]byte(`select 'a\' , secret, '`), Options{BackslashStrings: true}).Text; got != "select (not understood)" {
		t.Error(got)
	}
	if got := FingerprintOf([]byte("select '\x95\x5c' , secret, '"), Options{UnsafeEncoding: true}).Text; got != "select (not understood)" {
		t.Error(got)
	}
	if got := FingerprintOf([]byte("select \xe9 from t"), Options{}).Text; !utf8.ValidString(got) {
		t.Errorf("%q", got)
	}
}

func TestFingerprintName(t *testing.T) {
	// A contract: operators write fingerprints down, and all proxies must agree.
	if got := FingerprintOf([]byte("SELECT 1"), Options{}).String(); got != "6c10d01ac8145628" {
		t.Error(got)
	}
}

func FuzzFingerprint(f *testing.F) {
	f.Add([]byte("select 1 where a in (1,2), ('x')"))
	f.Add([]byte("insert into t values (1, 2), (3, 4), (5, 6)"))
	f.Add([]byte("rollback to \"x\"; set a = b"))
	f.Fuzz(func(t *testing.T, sql []byte) {
		got := FingerprintOf(sql, Options{})
		if !utf8.ValidString(got.Text) || strings.ContainsAny(got.Text, "'\x00") && !strings.Contains(got.Text, `"`) {
			t.Errorf("%q of %q", got.Text, sql)
		}
	})
}

package catalog_test

import (
	"context"
	"strings"
	"testing"

	"shardproxy/catalog"
	"shardproxy/internal/pgtest"
)

// TestSameSQL: what a server prints of an expression is the same as what it prints once it has read that.
func TestSameSQL(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t)
	db.Exec(`CREATE DOMAIN code AS varchar(9); CREATE TYPE mood AS ENUM ('x', 'y')`)
	again := 0
	for _, check := range []string{
		`s IN ('a', 'b')`, `s NOT IN ('a]', 'b''[', '(ARRAY[', 'c"')`, `s = ANY ('{a,b}')`, `s IN ('a') AND c IN ('x', 'y') OR n IN (1, 2)`, `d IN ('a', 'b')`, `m IN ('x', 'y')`,
		`s IN (lower('A'), substr('xyz', 1, 2))`, `s::varchar(3) IN ('a', 'b')`, `ARRAY[1, 2]::bigint[] @> ARRAY[n::bigint]`, `ARRAY[s, d]::varchar(4)[] <> ARRAY[(ARRAY['q'::varchar]::text[])[1], 'b']::varchar[]`, `s IN (E'a\\b', 'ü')`,
	} {
		db.Exec("DROP TABLE IF EXISTS t1, t2; CREATE TABLE t1 (s varchar, c char(3), d code, m mood, n int, CHECK (" + check + ")); CREATE TABLE t2 (LIKE t1)")
		first := db.Value("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 't1'::regclass")
		db.Exec("ALTER TABLE t2 ADD " + first)
		second := db.Value("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 't2'::regclass")
		if first != second {
			again++
		}
		if !catalog.SameSQL(first, second) || !catalog.SameSQL(second, first) {
			t.Errorf("%s is not\n%s", first, second)
		}
		if other := strings.Replace(second, "'", "'other", 1); other != second && catalog.SameSQL(first, other) {
			t.Errorf("%s is the same as\n%s", first, other)
		}
	}
	if again < 4 {
		t.Errorf("only %d of the expressions are printed otherwise once they are read: the test shows nothing", again)
	}
	for _, pair := range [][2]string{{"(ARRAY['a'])::text[]", "ARRAY['a']"}, {"(ARRAY['a'])::text[]", "ARRAY[('a')::name]"}, {"(ARRAY['a'", "(ARRAY['b'"}, {"(ARRAY[a)::x[]", "ARRAY[(a)::x]"}, {"'(ARRAY[a])::x[]'", "'ARRAY[(a)::x]'"}} {
		if catalog.SameSQL(pair[0], pair[1]) {
			t.Errorf("%q is the same", pair)
		}
	}
}

// TestDifferRestored: a check that was made from what pg_dump writes is no difference.
func TestDifferRestored(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t)
	ctx := context.Background()
	load := func(check string) *catalog.Catalog {
		db.Exec("DROP TABLE IF EXISTS t; CREATE TABLE t (s varchar, CONSTRAINT c CHECK (" + check + "))")
		c, err := catalog.LoadTables(ctx, db.Connect("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	made := load("s IN ('a', 'b')")
	if d := catalog.Differ(made, load("s::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[])")); len(d) > 0 {
		t.Error(d)
	}
	if d := catalog.Differ(made, load("s IN ('a', 'c')")); len(d) != 1 {
		t.Error(d)
	}
}

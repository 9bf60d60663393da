package query_test

import (
	"slices"
	"testing"

	"shardproxy/query"
)

func split(sql string) (all []string) {
	for _, s := range query.Split([]byte(sql)) {
		all = append(all, sql[s.Start:s.End])
	}
	return all
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		sql  string
		want []string
	}{
		{"", nil},
		{" ; ;\n-- nothing\n;", nil},
		{"SELECT 1", []string{"SELECT 1"}},
		{"SELECT ';'; -- a;\n SELECT $$;$$ /* ; */ ;\n\nSELECT 3 -- end", []string{"SELECT ';'", "SELECT $$;$$", "SELECT 3"}},
		{"\\timing on\nSELECT 1;\n\\d t\nSELECT 2;", []string{"SELECT 1", "SELECT 2"}},
		{"CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); SELECT 3", []string{"CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)", "SELECT 3"}},
		{"CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; SELECT 4",
			[]string{"CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END", "SELECT 4"}},
		{"BEGIN; SELECT CASE WHEN a THEN 1 END; END; SELECT 1", []string{"BEGIN", "SELECT CASE WHEN a THEN 1 END", "END", "SELECT 1"}},
		{"SELECT 1; SELECT 'open; SELECT 2", []string{"SELECT 1", "SELECT 'open; SELECT 2"}},
		{"SELECT 1); SELECT 2", []string{"SELECT 1)", "SELECT 2"}},
	} {
		if got := split(c.sql); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.sql, got, c.want)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte("SELECT 1; \\d\nCREATE FUNCTION f() BEGIN ATOMIC ; END; x"))
	f.Fuzz(func(t *testing.T, sql []byte) {
		last := int32(0)
		for _, s := range query.Split(sql) {
			if s.Start < last || s.End <= s.Start || int(s.End) > len(sql) {
				t.Fatalf("%v behind %d of %d", s, last, len(sql))
			}
			last = s.End
		}
	})
}

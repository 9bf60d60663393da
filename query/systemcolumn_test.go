package query

import "testing"

func TestSystemColumn(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT a FROM t":                                 "",
		"SELECT ctid FROM t":                              "ctid",
		"SELECT t.CTID::text FROM t":                      "ctid",
		`SELECT (t)."xmin" FROM t`:                        "xmin",
		"DELETE FROM t a USING t b WHERE a.ctid<b.ctid":   "ctid",
		"INSERT INTO t SELECT 1, tableoid/**/FROM t":      "tableoid",
		"INSERT INTO t VALUES (1, 'xmax'), (2, $$cmin$$)": "",
		"SELECT maxmin, xmin_of FROM t":                   "",
		`SELECT "CTID" FROM t`:                            "",
		`SELECT U&"\0063tid" FROM t`:                      `U&"\0063tid"`,
		`SELECT 'a\', ctid, ' FROM t`:                     "ctid",
		"SELECT $1 -- ctid":                               "",
	} {
		if got := SystemColumn(sql); got != want {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
	}
}

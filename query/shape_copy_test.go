package query

import (
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// TestSameTree shows that a text that has come to mean something else is seen.
func TestSameTree(t *testing.T) {
	copyOf := func(sql string) *pg.CopyStmt {
		tree, err := pg.Parse(sql)
		if err != nil {
			t.Fatal(err)
		}
		return tree.Stmts[0].Stmt.GetCopyStmt()
	}
	base := copyOf("COPY t (a) FROM STDIN (HEADER) WHERE a = 1")
	for sql, want := range map[string]bool{
		"copy  t (a)  FROM STDIN (HEADER) WHERE  a=1":   true,
		"COPY t (a, b) FROM STDIN (HEADER) WHERE a = 1": false,
		"COPY t (a) FROM STDIN (HEADER) WHERE a = 2":    false,
		"COPY t (a) FROM STDIN WHERE a = 1":             false,
		"COPY t (a) FROM STDIN (HEADER 1) WHERE a = 1":  false,
		"SELECT 1": false,
	} {
		if got := sameTree(base, copyOf(sql)); got != want {
			t.Errorf("%s: %v", sql, got)
		}
	}
}

func TestRewriteCopy(t *testing.T) {
	for _, test := range []struct {
		sql    string
		change CopyChange
		want   string // empty when it cannot be done
	}{
		{"COPY t FROM STDIN", CopyChange{}, "COPY t FROM STDIN"},
		{"COPY t FROM STDIN", CopyChange{NoHeader: true}, "COPY t FROM STDIN"},
		{"COPY t FROM STDIN (FORMAT csv, HEADER)", CopyChange{NoHeader: true}, "COPY t FROM STDIN (FORMAT csv, HEADER false)"},
		{"COPY t FROM STDIN (header match /* x */ , format csv)", CopyChange{NoHeader: true}, "COPY t FROM STDIN (HEADER false /* x */ , format csv)"},
		{"COPY t FROM STDIN (FORMAT csv, HEADER 1)", CopyChange{NoHeader: true}, "COPY t FROM STDIN (FORMAT csv, HEADER false)"},
		{"COPY t FROM STDIN (HEADER 'on', HEADER off)", CopyChange{NoHeader: true}, "COPY t FROM STDIN (HEADER false, HEADER false)"},
		{"COPY t FROM STDIN CSV HEADER DELIMITER ';'", CopyChange{NoHeader: true}, "COPY t FROM STDIN CSV  DELIMITER ';'"},
		{"COPY t FROM STDIN WITH HEADER", CopyChange{NoHeader: true}, "COPY t FROM STDIN WITH "},
		{"COPY t FROM STDIN WITH CSV HEADER NULL AS 'header' WHERE header = 1;", CopyChange{NoHeader: true}, "COPY t FROM STDIN WITH CSV  NULL AS 'header' WHERE header = 1;"},
		{"COPY t FROM STDIN", CopyChange{Columns: []string{"a", `b"c`}}, `COPY t ("a", "b""c") FROM STDIN`},
		{"COPY BINARY s.t FROM STDIN", CopyChange{Columns: []string{"a"}}, `COPY BINARY s.t ("a") FROM STDIN`},
		{`copy "S"."t" ( a , "B" ) from stdin with (header, freeze) where a > (1)`, CopyChange{NoHeader: true, Columns: []string{"id"}},
			`copy "S"."t" ( a , "B" , "id") from stdin with (HEADER false, freeze) where a > (1)`},
		{"/* c (x) */ COPY t /* ) */ (a /* ) */) FROM STDIN", CopyChange{Columns: []string{"id"}}, `/* c (x) */ COPY t /* ) */ (a /* ) */, "id") FROM STDIN`},
		{`COPY U&"t" FROM STDIN`, CopyChange{Columns: []string{"id"}}, ""},
		{"COPY t TO STDOUT (HEADER)", CopyChange{NoHeader: true}, ""},
		{"SELECT 1", CopyChange{NoHeader: true}, ""},
		{"COPY t FROM STDIN; COPY t FROM STDIN", CopyChange{NoHeader: true}, ""},
		{"COPY t FROM", CopyChange{NoHeader: true}, ""},
	} {
		got, err := RewriteCopy(test.sql, Options{}, test.change)
		if got != test.want || (err != nil) != (test.want == "") {
			t.Errorf("%s %+v:\n%s (%v), want\n%s", test.sql, test.change, got, err, test.want)
		}
	}
}

// TestCopyOptionLiterals wants the values of options to be found among the text's literals.
func TestCopyOptionLiterals(t *testing.T) {
	for sql, want := range map[string][]int32{
		"COPY t FROM STDIN CSV NULL AS 'x' QUOTE 'y' HEADER": {-1, 0, 1, -1},
		"COPY t FROM STDIN (FORMAT 'csv', NULL 'x', HEADER)": {0, 1, -1},
	} {
		_, shapes := AnalyzeShapes(sql, Options{})
		for i, o := range shapes[0].Copy.Options {
			if o.Literal != want[i] {
				t.Errorf("%s: option %s is literal %d, want %d", sql, o.Name, o.Literal, want[i])
			}
		}
	}
}

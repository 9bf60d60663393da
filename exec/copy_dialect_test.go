package exec_test

import (
	"errors"
	"strings"
	"testing"

	"shardproxy/exec"
)

func TestCopyDialect(t *testing.T) {
	for _, test := range []struct {
		options string // behind COPY t FROM STDIN
		want    string // the dialect; "invalid: ..." and "refused: ..." with a part of the reason
	}{
		{"", `text delimiter='\t' null="\\N" encoding=utf8`},
		{"(FORMAT csv)", `csv delimiter=',' null="" quote='"' escape='"' encoding=utf8`},
		{"WITH CSV HEADER DELIMITER AS ';' QUOTE '''' NULL AS 'x'", `csv delimiter=';' null="x" quote='\'' escape='\'' header encoding=utf8`},
		{"CSV ESCAPE '\\' FORCE NOT NULL a, b", `csv delimiter=',' null="" quote='"' escape='\\' encoding=utf8`},
		{"USING DELIMITERS '|'", `text delimiter='|' null="\\N" encoding=utf8`},
		{"BINARY", "binary"},
		{"(FORMAT binary, FREEZE)", "binary"},
		{"(HEADER)", `text delimiter='\t' null="\\N" header encoding=utf8`},
		{"(HEADER 1)", `text delimiter='\t' null="\\N" header encoding=utf8`},
		{"(HEADER 'OFF')", `text delimiter='\t' null="\\N" encoding=utf8`},
		{"(HEADER Match)", `text delimiter='\t' null="\\N" header=match encoding=utf8`},
		{"(DEFAULT '\\D', NULL '')", `text delimiter='\t' null="" default="\\D" encoding=utf8`},
		{"(ENCODING 'Latin-1')", `text delimiter='\t' null="\\N" encoding=latin1`},
		{"(ENCODING 'ISO 8859-1', NULL 'x')", `text delimiter='\t' null="x" encoding=latin1`},
		{"(NULL 'é')", `text delimiter='\t' null="é" encoding=utf8`},
		{"(ON_ERROR stop, LOG_VERBOSITY verbose)", `text delimiter='\t' null="\\N" encoding=utf8`},

		{"(FORMAT jsonlines)", "invalid: no such format"},
		{"(FORMAT csv, FORMAT csv)", "invalid: given twice"},
		{"(HEADER maybe)", "invalid: HEADER"},
		{"(HEADER 2)", "invalid: HEADER"},
		{"(SPEED 'high')", "invalid: not known: speed"},
		{"(QUOTE '''')", "invalid: only CSV"},
		{"(FORMAT csv, QUOTE 'ab')", "invalid: one byte"},
		{"(FORMAT csv, QUOTE '')", "invalid: one byte"},
		{"(FORMAT csv, QUOTE ',')", "invalid: the same"},
		{"(DELIMITER 'é')", "invalid: one byte"},
		{"(DELIMITER 'a')", "invalid: text cannot have"},
		{"(DELIMITER E'\\n')", "refused: line end"},
		{"(FORMAT csv, QUOTE E'\\r')", "refused: line end"},
		{"(NULL E'a\\tb')", "invalid: marker"},
		{"(FORMAT csv, NULL '\"')", "invalid: marker"},
		{"(NULL 'x', DEFAULT 'x')", "invalid: the same"},
		{"(FORMAT binary, NULL 'x')", "invalid: binary format has no option null"},
		{"(FORMAT binary, HEADER)", "invalid: no header"},
		{"(FORMAT csv, FORCE_QUOTE *)", "invalid: COPY TO"},
		{"(FORMAT csv, FORCE_NULL)", "invalid: no list"},
		{"(REJECT_LIMIT 3)", "invalid: REJECT_LIMIT"},
		{"(ON_ERROR ignore)", "refused: ON_ERROR"},
		{"(DELIMITER)", "invalid: no plain value"},
		{"(ENCODING 'klingon')", "invalid: not known: klingon"},
		{"(ENCODING 'Shift_JIS')", "refused: sjis"},
		{"(ENCODING 'BIG5')", "refused: big5"},
		{"(ENCODING 'gbk')", "refused: gbk"},
		{"(ENCODING 'UHC')", "refused: uhc"},
		{"(ENCODING 'GB18030')", "refused: gb18030"},
		{"(ENCODING 'johab')", "refused: johab"},
		{"(ENCODING 'SHIFT_JIS_2004')", "refused: shiftjis2004"},
		{"(ENCODING 'latin1', NULL 'é')", "refused: not ASCII"},
	} {
		d, err := tryDialect("COPY t FROM STDIN "+test.options, session)
		got := ""
		var no *exec.CopyRefusal
		if errors.As(err, &no) {
			kind := map[bool]string{true: "invalid: ", false: "refused: "}[no.Invalid]
			if got = kind + no.Reason; strings.HasPrefix(test.want, kind) && strings.Contains(no.Reason, strings.TrimPrefix(test.want, kind)) {
				continue
			}
		} else if err != nil {
			t.Fatal(err)
		} else {
			got = d.String()
		}
		if got != test.want {
			t.Errorf("%s: %s, want %s", test.options, got, test.want)
		}
	}
	for _, sql := range []string{"COPY t TO STDOUT", "COPY t FROM '/x'", "COPY t FROM PROGRAM 'x'"} {
		if _, err := tryDialect(sql, session); err == nil {
			t.Errorf("%s has a dialect", sql)
		}
	}
	s := session
	s.ClientEncoding = "SJIS"
	if _, err := tryDialect("COPY t FROM STDIN", s); err == nil {
		t.Error("a client of SJIS is let in")
	}
	s.ServerEncoding = "SQL_ASCII"
	if _, err := tryDialect("COPY t FROM STDIN (FORMAT binary)", s); err != nil {
		t.Errorf("binary data have no encoding: %v", err)
	}
}

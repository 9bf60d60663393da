package query

import (
	"fmt"
	"strings"
	"testing"
)

func TestSequenceReads(t *testing.T) {
	for text, want := range map[string]string{
		"SELECT currval('s')":                                                         "SELECT (@ s)   ",
		"SELECT lastval ( )":                                                          "SELECT (@ last)  ",
		"SELECT 1 WHERE x = currval('a.s'::regclass)":                                 "SELECT 1 WHERE x = @ a.s                 ",
		"INSERT INTO t VALUES (pg_catalog.currval('s'), lastval())":                   "INSERT INTO t VALUES (@ s                  , @ last   )",
		"INSERT INTO t SELECT currval('s') RETURNING currval('s')":                    "INSERT INTO t SELECT @ s          RETURNING (@ s)   ",
		"SELECT \"currval\"('it''s')":                                                 "SELECT (@ it's)    ",
		"SELECT currval(cast('s' AS pg_catalog.regclass))":                            "SELECT (@ s)                                ",
		"SELECT currval(pg_get_serial_sequence('t','id')::regclass)":                  "SELECT (@ t/id)                                    ",
		"SELECT x.currval('s'), currval, 'currval(''s'')', a.lastval -- currval('s')": "SELECT x.currval('s'), currval, 'currval(''s'')', a.lastval -- currval('s')",
		"UPDATE t SET a = currval('s') WHERE b IN (SELECT lastval())":                 "UPDATE t SET a = @ s          WHERE b IN (SELECT (@ last) )",
		"WITH a AS (INSERT INTO t VALUES (1)) SELECT currval('s')":                    "WITH a AS (INSERT INTO t VALUES (1)) SELECT (@ s)       ",
		"SELECT currval($1)":                                                          "not understood",
		"SELECT currval('s' || 't')":                                                  "not understood",
		"SELECT currval(E's')":                                                        "not understood",
		"SELECT currval('a\\b')":                                                      "not understood",
		"SELECT currval('a'\n'b')":                                                    "not understood",
		"SELECT currval('s') OVER ()":                                                 "not understood",
		"SELECT currval('s'::x.regclass)":                                             "not understood",
		"SELECT lastval(1)":                                                           "not understood",
		"SELECT currval(VARIADIC 's')":                                                "not understood",
		"SELECT currval('s'":                                                          "not understood",
		"SELECT currval(NULL), currval('')":                                           "not understood",
	} {
		got := readsReplaced(text)
		if strings.TrimRight(got, " ") != strings.TrimRight(want, " ") && strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(want), " ") {
			t.Errorf("%s\ngot  %q\nwant %q", text, got, want)
		}
		if got != "not understood" && len(got) < len(text) {
			t.Errorf("%s: what stands behind a call has moved: %q", text, got)
		}
	}
}

func readsReplaced(text string) string {
	reads, ok := SequenceReads([]byte(text))
	if !ok {
		return "not understood"
	}
	by := make([]string, len(reads))
	for i, r := range reads {
		by[i] = "@ " + r.Sequence
		if r.Last() {
			by[i] = "@ last"
		}
		if r.Table != "" {
			by[i] += r.Table + "/" + r.Column
		}
		if r.Named {
			by[i] = "(" + by[i] + ")"
		}
	}
	return string(ReplaceReads([]byte(text), reads, by))
}

func TestMentionsSequences(t *testing.T) {
	for text, want := range map[string]bool{
		"INSERT INTO t VALUES (1)": false, "": false, "val": false, "select CurrVal('s')": true, "lastval": true, "xcurrval": true, "curr val": false, "vvvlastva": false,
	} {
		if MentionsSequences([]byte(text)) != want {
			t.Error(text)
		}
	}
}

func FuzzSequenceReads(f *testing.F) {
	f.Add("SELECT currval('s'), lastval() FROM (SELECT currval(pg_get_serial_sequence('t','c'))) x")
	f.Fuzz(func(t *testing.T, text string) {
		reads, _ := SequenceReads([]byte(text))
		end := 0
		for _, r := range reads {
			if r.Start < end || r.End <= r.Start || r.End > len(text) || !MentionsSequences([]byte(text[r.Start:r.End])) {
				t.Fatal(fmt.Sprint(r))
			}
			end = r.End
		}
	})
}

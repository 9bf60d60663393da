package query

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// lexeme is a token as both lexers can be compared on.
type lexeme struct {
	class      string
	start, end int
}

// ours returns our tokens; ok is false when one is not vouched for.
func ours(sql []byte) (out []lexeme, ok bool) {
	for t := nextToken(sql, 0); t.kind != tokEnd; t = nextToken(sql, t.end) {
		class := "punct"
		switch t.kind {
		case tokBad, tokUString, tokUQuoted:
			return nil, false
		case tokWord, tokQuoted:
			class = "word"
		case tokString, tokEscape, tokDollar:
			class = "string"
		case tokNational:
			out = append(out, lexeme{"word", t.start, t.start + 1})
			t.start++
			class = "string"
		case tokBits:
			class = "bits"
		case tokHexBits:
			class = "hex"
		case tokInt:
			class = "int"
		case tokFloat:
			class = "float"
		case tokParam:
			class = "param"
		}
		out = append(out, lexeme{class, t.start, t.end})
	}
	return out, true
}

// theirs returns the tokens of PostgreSQL's own lexer.
func theirs(sql string) ([]lexeme, error) {
	res, err := pg.Scan(sql)
	if err != nil {
		return nil, err
	}
	var out []lexeme
	for _, t := range res.Tokens {
		l := lexeme{"punct", int(t.Start), int(t.End)}
		switch t.Token {
		case pg.Token_SQL_COMMENT, pg.Token_C_COMMENT:
			continue
		case pg.Token_SCONST:
			l.class = "string"
		case pg.Token_BCONST:
			l.class = "bits"
		case pg.Token_XCONST:
			l.class = "hex"
		case pg.Token_ICONST:
			l.class = "int"
		case pg.Token_FCONST:
			l.class = "float"
		case pg.Token_PARAM:
			l.class = "param"
		default:
			if c := sql[l.start]; c == '"' || charClass[c]&chIdentStart != 0 {
				l.class = "word"
			}
		}
		out = append(out, l)
	}
	return out, nil
}

// compareLexers fails when both lexers accept sql and do not agree.
func compareLexers(t testing.TB, sql string) (vouched bool) {
	t.Helper()
	mine, ok := ours([]byte(sql))
	want, err := theirs(sql)
	if !ok || err != nil {
		return ok
	}
	for i, l := range mine {
		// An integer too large for int4 is a float to PostgreSQL.
		if l.class == "int" && i < len(want) && want[i].class == "float" {
			mine[i].class = "float"
		}
	}
	if !slices.Equal(mine, want) {
		for i := range max(len(mine), len(want)) {
			if i >= len(mine) || i >= len(want) || mine[i] != want[i] {
				t.Fatalf("%q\ntoken %d of %d/%d differs\nours   %v\ntheirs %v", sql, i, len(mine), len(want),
					mine[min(i, len(mine)):min(i+3, len(mine))], want[min(i, len(want)):min(i+3, len(want))])
			}
		}
	}
	return true
}

// TestLexerAgreesWithPostgreSQL compares every token with PostgreSQL's lexer.
func TestLexerAgreesWithPostgreSQL(t *testing.T) {
	vouched, total := 0, 0
	for _, sql := range corpus(t) {
		total++
		if compareLexers(t, sql) {
			vouched++
		}
	}
	if vouched < total*97/100 {
		t.Errorf("vouched for only %d of %d texts", vouched, total)
	}
}

// TestLexerOnCutTexts lexes every prefix of our own corpus.
func TestLexerOnCutTexts(t *testing.T) {
	for _, sql := range corpus(t)[:50] {
		for i := range len(sql) {
			compareLexers(t, strings.ToValidUTF8(sql[:i], ""))
		}
	}
}

// TestLexerTokenSoup compares both lexers on short random-looking strings of
// the characters that matter, all of them up to length 4.
func TestLexerTokenSoup(t *testing.T) {
	parts := []string{"a", "1", ".", "'", "-", "/", "*", "$", "e", "\n", "+", "@", "_", "\"", ":", "=", " ", "x"}
	var grow func(s string, n int)
	grow = func(s string, n int) {
		compareLexers(t, s)
		if n == 0 {
			return
		}
		for _, p := range parts {
			grow(s+p, n-1)
		}
	}
	grow("", 4)
}

func TestScanKey(t *testing.T) {
	for _, c := range []struct {
		sql, key string
		vouched  bool
	}{
		{"SELECT  1", "select 0", true},
		{"Select\n'x' , 1.5 -- c", "select ',0e", true},
		{"SELECT N'x',E'\\'',$$a$$,B'1',X'1'", "select n',',',b',x'", true},
		{"SELECT a - -1, b::int, c . d", "select a- -0,b::int,c.d", true},
		{"SELECT \"A b\"\"c\" FROM Größe", "select \"A b\"\"c\" from größe", true},
		{"SELECT $1, :x", "select $1,:x", true},
		{"/* shardproxy: route=replica */ SELECT 1", "/*replica*/select 0", true},
		{"SELECT 'a'\n  \n 'b'", "select '", true},
		{"SELECT 'a'\n -- x\n 'b'", "", false},
		{"SELECT U&'x'", "", false},
		{"SELECT U&\"x\"", "", false},
		{"SELECT 1a", "", false},
		{"SELECT $1a", "", false},
		{"SELECT 'open", "", false},
		{"SELECT /* open", "", false},
		{"SELECT \"\"", "", false},
		{"SELECT \\d", "", false},
		{"SELECT {1}", "", false},
		{"SELECT a\x00b", "", false},
	} {
		var n Normal
		if got := n.Scan([]byte(c.sql)); got != c.vouched {
			t.Errorf("%q: vouched = %t", c.sql, got)
		}
		if c.vouched && string(n.Key) != c.key {
			t.Errorf("%q: key %q, want %q", c.sql, n.Key, c.key)
		}
	}
}

func TestScanFacts(t *testing.T) {
	for _, c := range []struct {
		sql         string
		first       string
		commands    int
		comments    bool
		backslashes bool
		nonASCII    bool
		literals    string
	}{
		{"", "", 0, false, false, false, ""},
		{" ;; ", "", 0, false, false, false, ""},
		{"(SELECT 1)", "select", 1, false, false, false, "1"},
		{";SELECT 1;; BEGIN", "select", 2, false, false, false, "1"},
		{"SELECT (1;2)", "select", 1, false, false, false, "1 2"},
		{"-- x\nCommit", "commit", 1, true, false, false, ""},
		{"SELECT 'a\\', E'b\\n'", "select", 1, false, true, false, "'a\\' E'b\\n'"},
		{"SELECT E'b\\n', \"a\\b\"", "select", 1, false, false, false, "E'b\\n'"},
		{"SELECT ä", "select", 1, false, false, true, ""},
		{"SELECT 'ä'", "select", 1, false, false, true, "'ä'"},
		{"SELECT \"ä\"", "select", 1, false, false, true, ""},
		{"SELECT 1 -- ä", "select", 1, true, false, true, "1"},
		{"SELECT -1, 'a'\n'b' /* x */", "select", 1, true, false, false, "1 'a'\n'b'"},
	} {
		var n Normal
		n.Scan([]byte(c.sql))
		var literals []string
		for _, l := range n.Literals {
			literals = append(literals, c.sql[l.Start:l.End])
		}
		got := fmt.Sprint(string(n.First), n.Commands, n.Comments, n.Backslashes, n.NonASCII, strings.Join(literals, " "))
		want := fmt.Sprint(c.first, c.commands, c.comments, c.backslashes, c.nonASCII, c.literals)
		if got != want {
			t.Errorf("%q:\ngot  %s\nwant %s", c.sql, got, want)
		}
	}
}

func TestScanDoesNotAllocate(t *testing.T) {
	texts := [][]byte{
		[]byte("SELECT abalance FROM pgbench_accounts WHERE aid = 4711"),
		[]byte("/* shardproxy: route=primary */ INSERT INTO t VALUES (1, 'x', $1), (2, E'y', 1.5)"),
	}
	var n Normal
	if a := testing.AllocsPerRun(100, func() {
		for _, sql := range texts {
			if !n.Scan(sql) {
				t.Fatal("not vouched")
			}
		}
	}); a != 0 {
		t.Errorf("%v allocations", a)
	}
}

// TestKeysAreUnambiguous joins tokens in all ways and checks that two texts
// with one key hold the same tokens, literal values aside.
func TestKeysAreUnambiguous(t *testing.T) {
	tokens := []string{"a", "n", "b", "x", "e", "1", "1.5", "'s'", "n's'", "b'1'", "x'1'", "$1", "\"a\"", ".", ":", "::",
		"-", "+", "=", "(", ",", "0"}
	marks := map[string]string{"1": "I", "0": "I", "1.5": "F", "'s'": "S", "n's'": "N", "b'1'": "B", "x'1'": "X"}
	seen := map[string]string{}
	var n Normal
	var grow func(sql, shape string, left int)
	grow = func(sql, shape string, left int) {
		if n.Scan([]byte(sql)) {
			if other, ok := seen[string(n.Key)]; ok && other != shape {
				t.Fatalf("key %q stands for %q and %q", n.Key, other, shape)
			}
			seen[string(n.Key)] = shape
		}
		if left == 0 {
			return
		}
		for _, tok := range tokens {
			mark, ok := marks[tok]
			if !ok {
				mark = tok
			}
			grow(sql+" "+tok, shape+" "+mark, left-1)
		}
	}
	grow("", "", 4)
}

// FuzzScan checks that scanning never fails, that spans lie in the text in
// order, and that PostgreSQL's lexer agrees.
func FuzzScan(f *testing.F) {
	for _, sql := range corpus(f)[:60] {
		f.Add(sql)
	}
	var n Normal
	f.Fuzz(func(t *testing.T, sql string) {
		n.Scan([]byte(sql))
		last := 0
		for _, l := range n.Literals {
			if l.Start < last || l.End <= l.Start || l.End > len(sql) {
				t.Fatalf("literal %+v in %q", l, sql)
			}
			last = l.End
		}
		if !bytes.Contains(n.Key, n.First) {
			t.Fatalf("first word %q is not in the key %q", n.First, n.Key)
		}
		if !strings.Contains(sql, "\x00") {
			compareLexers(t, sql)
		}
	})
}

func BenchmarkScan(b *testing.B) {
	for _, c := range []struct{ name, sql string }{
		{"pgbench", "SELECT abalance FROM pgbench_accounts WHERE aid = 4711"},
		{"insert", "INSERT INTO t (a, b, c) VALUES " + strings.Repeat("(1, 'x', 2.5), ", 20) + "(1, 'y', 3.5)"},
	} {
		b.Run(c.name, func(b *testing.B) {
			var n Normal
			sql := []byte(c.sql)
			b.ReportAllocs()
			for b.Loop() {
				n.Scan(sql)
			}
		})
	}
}

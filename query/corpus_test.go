package query

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// corpus returns SQL texts: our own, the scripts' inputs, and whatever SQL the
// machine's PostgreSQL installation has, one text per command.
func corpus(t testing.TB) []string {
	t.Helper()
	var texts []string
	own, err := os.ReadFile("testdata/corpus.sql")
	if err != nil {
		t.Fatal(err)
	}
	texts = append(texts, splitCommands(own)...)
	scripts, err := filepath.Glob("testdata/analyze/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range scripts {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range strings.Split(string(b), "\n\n") {
			_, block, _ = strings.Cut(block, "\n")
			sql, _, _ := strings.Cut(block, "\n----")
			texts = append(texts, sql)
		}
	}
	for _, pattern := range []string{"/usr/share/postgresql/*/*.sql", "/usr/share/postgresql/*/extension/*.sql"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			texts = append(texts, splitCommands(dropMetaCommands(b))...)
		}
	}
	return texts
}

// dropMetaCommands blanks the lines that only psql understands.
func dropMetaCommands(b []byte) []byte {
	lines := bytes.Split(b, []byte("\n"))
	for i, l := range lines {
		if bytes.HasPrefix(l, []byte(`\`)) {
			lines[i] = nil
		}
	}
	return bytes.Join(lines, []byte("\n"))
}

func splitCommands(b []byte) []string {
	var out []string
	start, level := 0, 0
	for t := nextToken(b, 0); t.kind != tokEnd; t = nextToken(b, t.end) {
		switch t.kind {
		case tokOpen:
			level++
		case tokClose:
			level--
		case tokSemicolon:
			if level == 0 {
				out = append(out, strings.TrimSpace(string(b[start:t.start])))
				start = t.end
			}
		}
	}
	return append(out, strings.TrimSpace(string(b[start:])))
}

package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the repository's folder, seen from this package's.
const root = "../.."

// listPackages asks the go command for all packages of the module.
func listPackages(t *testing.T) []Package {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Name,Doc,GoFiles,Imports,TestImports,XTestImports", "./...", "./testdata/sql")
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var packages []Package
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p Package
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestPackages(t *testing.T) {
	packages := listPackages(t)
	for _, p := range packages {
		for _, bad := range JudgePackage(p) {
			t.Error(bad)
		}
	}
	if !slices.ContainsFunc(packages, func(p Package) bool { return p.ImportPath == Module+"/internal/archtest" }) {
		t.Error("the list does not hold this package")
	}
}

func TestSources(t *testing.T) {
	seen := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if entry.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		seen++
		for _, bad := range JudgeSource(path, source) {
			t.Error(bad)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 10 {
		t.Errorf("saw %d Go files only", seen)
	}
}

func TestFiles(t *testing.T) {
	license, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"Apache License", "Version 2.0, January 2004", "END OF TERMS AND CONDITIONS"} {
		if !strings.Contains(string(license), part) {
			t.Errorf("LICENSE does not hold %q", part)
		}
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range JudgeMakefile(string(makefile)) {
		t.Error(bad)
	}
	for _, want := range []string{"build", "test", "race", "fuzz-short", "lint", "fmt", "nightly", "help"} {
		if !slices.Contains(Targets(string(makefile)), want) {
			t.Errorf("Makefile has no target %s", want)
		}
	}
	for _, path := range []string{".ci/run", "scripts/need-postgres.sh"} {
		if info, err := os.Stat(filepath.Join(root, path)); err != nil {
			t.Error(err)
		} else if info.Mode()&0o111 == 0 {
			t.Errorf("%s is not executable", path)
		}
	}
}

// TestPackageOffences shows that the rules see what they are there for.
func TestPackageOffences(t *testing.T) {
	ours := func(names ...string) []string {
		var paths []string
		for _, n := range names {
			paths = append(paths, Module+"/"+n)
		}
		return paths
	}
	for _, test := range []struct {
		p    Package
		want string // part of the only offence; empty for none
	}{
		{Package{ImportPath: "shardproxy/pool", Imports: ours("wire", "gate", "config")}, ""},
		{Package{ImportPath: "shardproxy/pool", Imports: ours("router")}, "sideways"},
		{Package{ImportPath: "shardproxy/pool", Imports: ours("proxy")}, "floor 2 must not know floor 4"},
		{Package{ImportPath: "shardproxy/pool", Imports: ours("pool/queue")}, ""},
		{Package{ImportPath: "shardproxy/pool/queue", Imports: ours("exec")}, "must not know"},
		{Package{ImportPath: "shardproxy/pool", Imports: ours("nowhere")}, "no row"},
		{Package{ImportPath: "shardproxy/pool", Imports: ours("internal/pgtest")}, "test code"},
		{Package{ImportPath: "shardproxy/pool", TestImports: ours("internal/pgtest", "router", "pool")}, ""},
		{Package{ImportPath: "shardproxy/pool", XTestImports: ours("proxy")}, "a test of"},
		{Package{ImportPath: "shardproxy/cmd/shardproxy", Imports: ours("internal/pgcluster", "testdata/sql", "admin")}, ""},
		{Package{ImportPath: "shardproxy/cmd/shardproxy", Imports: ours("internal/pgtest")}, "test code"},
		{Package{ImportPath: "shardproxy/admin", Imports: ours("internal/pgcluster")}, "test code"},
		{Package{ImportPath: "shardproxy/internal/pgtest", Imports: ours("internal/pgcluster", "wire")}, ""},
		{Package{ImportPath: "shardproxy/internal/pgtest", Imports: ours("cmd/shardproxy")}, "imported by nothing"},
		{Package{ImportPath: "shardproxy/wire", Imports: []string{"fmt", "github.com/x/shardproxy/proxy"}}, ""},
		{Package{ImportPath: "shardproxy/nowhere"}, "no row"},
		{Package{ImportPath: "shardproxy/wire/stringutil", Name: "stringutil"}, "says nothing"},
		{Package{ImportPath: "shardproxy/wire/common", Name: "common"}, "says nothing"},
	} {
		if test.p.Doc = "Package x is."; test.p.Name == "" {
			test.p.Name = "x"
		}
		expect(t, test.p.ImportPath, JudgePackage(test.p), test.want)
	}
	undocumented := Package{ImportPath: "shardproxy/wire", Name: "wire", GoFiles: []string{"a.go"}}
	expect(t, "no comment", JudgePackage(undocumented), "no package comment")
}

// TestSourceOffences does the same for what stands in a file.
func TestSourceOffences(t *testing.T) {
	const head = "package x\n"
	for _, test := range []struct{ path, source, want string }{
		{"a.go", head + "func f() {}\n", ""},
		{"a.go", head + "func init() {}\n", "func init"},
		{"a_test.go", head + "func init() {}\n", ""},
		{"a.go", head + "// TODO" + ": more\n", "TODO"},
		{"a.go", head + "func f() { g(context.TODO()) }\n", "context.TODO"},
		{"a.go", head + strings.Repeat("// x\n", maxLines), "lines, more than"},
		{"a_test.go", head + strings.Repeat("// x\n", maxLines), ""},
		{"a.go", "// Code generated by x. DO NOT EDIT.\n" + head + strings.Repeat("// x\n", maxLines), ""},
		{"a_test.go", head + "func TestA(t *testing.T) { t.Skip() }\n", "t.Skip"},
		{"a_test.go", head + "func help(tb testing.TB) { tb.Skipf(\"x\") }\n", "tb.Skipf"},
		{"a_test.go", head + "func f(r *reader) { r.Skip() }\n", ""},
		{"a_test.go", head + "func TestA(t *testing.T) { time.Sleep(1) }\n", "time.Sleep"},
		{"a.go", head + "func f() { time.Sleep(1) }\n", ""},
		{"a_test.go", head + "func TestA(t *testing.T) { synctest.Test(t, func(t *testing.T) { time.Sleep(1) }) }\n", ""},
		{"a_test.go", head + "func help() { time.Sleep(1); synctest.Wait() }\n", ""},
		{"a.go", "no Go", "expected 'package'"},
		{"a.go", head + "func F() {}\n", "F is exported"},
		{"a_test.go", head + "func F() {}\n", ""},
		{"a.go", head + "// F does.\nfunc F() {}\n", ""},
		{"a.go", head + "type t int\n\nfunc (t) F() {}\n", ""},
		{"a.go", head + "// T is.\ntype T[K any] struct{}\n\nfunc (t *T[K]) F() {}\n", "F is exported"},
		{"a.go", head + "type T int\n", "T is exported"},
		{"a.go", head + "// These are.\ntype (\n\t// T is.\n\tT int\n\tU int\n)\n", "U is exported"},
		{"a.go", head + "const (\n\tA = 1 // is one\n\tB = 2\n)\n", "B is exported"},
		{"a.go", head + "// Numbers.\nconst (\n\tA = 1\n\tB = 2\n)\n", ""},
		{"a.go", head + "var E, f = 1, 2\n", "E is exported"},
		{"a.go", head + "// E is.\ntype E struct{}\n\nfunc (E) Error() string { return \"\" }\n", ""},
	} {
		expect(t, test.source, JudgeSource(test.path, []byte(test.source)), test.want)
	}
}

func TestMakefileOffences(t *testing.T) {
	const makefile = "X := 1\n.PHONY: a\na: b ## does a\n\tdo a\nfuzz-short:\n\tdo b\n"
	expect(t, "Makefile", JudgeMakefile(makefile), "target fuzz-short")
	if got := Targets(makefile); !slices.Equal(got, []string{"a", "fuzz-short"}) {
		t.Errorf("targets %q", got)
	}
}

// expect wants no offence, or one that holds the text.
func expect(t *testing.T, what string, bad []string, want string) {
	t.Helper()
	switch {
	case want == "" && len(bad) > 0:
		t.Errorf("%.80q: %q, want no offence", what, bad)
	case want != "" && (len(bad) != 1 || !strings.Contains(bad[0], want)):
		t.Errorf("%.80q: %q, want one offence with %q", what, bad, want)
	}
}

package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sqlstate matches a code as PostgreSQL writes it.
var sqlstate = regexp.MustCompile(`^[0-9A-Z]{5}$`)

// originated returns the SQLSTATEs that a Go file gives to errors of its own,
// and the places where the code is not a constant.
func originated(path string, source []byte) (codes []string, unknown []string, err error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, nil, err
	}
	constants := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok {
			for i := range min(len(spec.Names), len(spec.Values)) {
				if v, ok := text(spec.Values[i], nil); ok {
					constants[spec.Names[i].Name] = v
				}
			}
		}
		return true
	})
	note := func(e ast.Expr) {
		if v, ok := text(e, constants); ok && sqlstate.MatchString(v) {
			codes = append(codes, v)
		} else if !ok || v != "" {
			unknown = append(unknown, files.Position(e.Pos()).String())
		}
	}
	inWire := file.Name.Name == "wire"
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if isWire(n.Fun, inWire, "Errorf", "Fatal") && len(n.Args) > 0 {
				note(n.Args[0])
			}
		case *ast.CompositeLit:
			if !isWire(n.Type, inWire, "Error") {
				break
			}
			for _, element := range n.Elts {
				if kv, ok := element.(*ast.KeyValueExpr); ok && fmt.Sprint(kv.Key) == "Code" {
					if _, constant := text(kv.Value, constants); constant {
						note(kv.Value) // others pass on what a server said
					}
				}
			}
		case *ast.AssignStmt:
			for i := range min(len(n.Lhs), len(n.Rhs)) {
				if s, ok := n.Lhs[i].(*ast.SelectorExpr); ok && s.Sel.Name == "Code" {
					if v, ok := text(n.Rhs[i], constants); ok && sqlstate.MatchString(v) {
						codes = append(codes, v)
					}
				}
			}
		}
		return true
	})
	return codes, unknown, nil
}

// isWire reports whether e is one of the names in package wire.
func isWire(e ast.Expr, inside bool, names ...string) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return inside && slices.Contains(names, e.Name)
	case *ast.SelectorExpr:
		of, ok := e.X.(*ast.Ident)
		return ok && of.Name == "wire" && slices.Contains(names, e.Sel.Name)
	}
	return false
}

// text returns the value of a string literal or of a constant of the file.
func text(e ast.Expr, constants map[string]string) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			v, err := strconv.Unquote(e.Value)
			return v, err == nil
		}
	case *ast.Ident:
		v, ok := constants[e.Name]
		return v, ok
	}
	return "", false
}

// errorTable reads docs/errors.md: the rows of its table by code.
func errorTable(content string) (rows map[string][]string, bad []string) {
	rows = map[string][]string{}
	last := ""
	for line := range strings.Lines(content) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		var cells []string
		for _, cell := range strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		code := strings.Trim(cells[0], "`")
		switch {
		case !sqlstate.MatchString(code):
			bad = append(bad, code+" is no SQLSTATE")
		case rows[code] != nil:
			bad = append(bad, code+" has two rows")
		case code <= last:
			bad = append(bad, code+" is out of order")
		case len(cells) != 4 || slices.Contains(cells, ""):
			bad = append(bad, code+" lacks a name, a meaning or what to do")
		}
		rows[code], last = cells, code
	}
	return rows, bad
}

// TestErrorTable compares docs/errors.md with the codes in the product's source.
func TestErrorTable(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(root, "docs", "errors.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows, bad := errorTable(string(content))
	for _, b := range bad {
		t.Error(b)
	}
	where := map[string]string{}
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "internal" || name == "testdata" || name == "node_modules") {
			return filepath.SkipDir
		}
		if entry.IsDir() || filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		codes, unknown, err := originated(path, source)
		if err != nil {
			return err
		}
		for _, c := range codes {
			where[c] = path
		}
		for _, place := range unknown {
			// The codes that are the server's own; the page says so.
			file := strings.Split(place, ":")[0]
			if !strings.HasSuffix(file, filepath.Join("proxy", "route.go")) && !strings.HasSuffix(file, filepath.Join("router", "locate.go")) {
				t.Errorf("%s: the SQLSTATE of this error is no constant", place)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range slices.Sorted(maps.Keys(where)) {
		if rows[code] == nil {
			t.Errorf("%s (%s) has no row in docs/errors.md", code, where[code])
		}
	}
	for _, code := range slices.Sorted(maps.Keys(rows)) {
		if where[code] == "" {
			t.Errorf("%s has a row in docs/errors.md, but nothing originates it", code)
		}
	}
	if len(where) < 10 {
		t.Errorf("found %d codes only", len(where))
	}
}

// TestErrorOffences shows that the rules see what they are there for.
func TestErrorOffences(t *testing.T) {
	const source = `package x
const named = "42P01"
var a = wire.Errorf("42601", "x")
var b = other.Errorf("00001", "x")
func f(code string) error {
	e := &wire.Error{Code: "25006", Message: "22222"}
	e.Code, e.Message = "08007", "x"
	_ = wire.Error{Code: code}
	_ = wire.Fatal(named, "x")
	return wire.Fatal(code, "x")
}`
	codes, unknown, err := originated("x.go", []byte(source))
	slices.Sort(codes)
	if want := []string{"08007", "25006", "42601", "42P01"}; err != nil || !slices.Equal(codes, want) || len(unknown) != 1 {
		t.Errorf("%q %q %v, want %q and one place", codes, unknown, err, want)
	}
	codes, _, err = originated("w.go", []byte("package wire\nvar a = Fatal(\"08P01\", \"x\")\nvar b = &Error{Code: \"XX000\"}\n"))
	if err != nil || !slices.Equal(codes, []string{"08P01", "XX000"}) {
		t.Errorf("%q %v", codes, err)
	}
	for _, test := range []struct{ table, want string }{
		{"| `42601` | a | b | c |\n", ""},
		{"| `4260` | a | b | c |\n", "no SQLSTATE"},
		{"| `42601` | a | b | c |\n| `42601` | a | b | c |\n", "two rows"},
		{"| `42601` | a | b | c |\n| `08P01` | a | b | c |\n", "out of order"},
		{"| `42601` | a |  | c |\n", "lacks"},
		{"| `42601` | a | b |\n", "lacks"},
	} {
		_, bad := errorTable(test.table)
		expect(t, test.table, bad, test.want)
	}
}

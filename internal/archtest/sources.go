package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// maxLines is the longest a source file may be; the house aims at 400.
const maxLines = 700

// unfinished matches the words that mark work left undone.
var unfinished = regexp.MustCompile(`\b(TODO|FIXME)\b`)

// JudgeSource returns the offences of one Go file, in words.
func JudgeSource(path string, source []byte) []string {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, source, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return []string{err.Error()}
	}
	if ast.IsGenerated(file) {
		return nil
	}
	s := &sourceJudge{files: files, isTest: strings.HasSuffix(path, "_test.go")}
	if lines := bytes.Count(source, []byte("\n")); lines > maxLines && !s.isTest {
		s.bad = append(s.bad, fmt.Sprintf("%s: %d lines, more than %d", path, lines, maxLines))
	}
	for _, group := range file.Comments {
		for _, comment := range group.List {
			if word := unfinished.FindString(comment.Text); word != "" {
				s.add(comment.Pos(), "%s: finish it, or write down as an issue what is left", word)
			}
		}
	}
	if !s.isTest {
		s.exported(file)
	}
	s.testing = testingNames(file)
	ast.Inspect(file, s.visit)
	return s.bad
}

// sourceJudge collects the offences of one file.
type sourceJudge struct {
	files   *token.FileSet
	isTest  bool
	testing []string   // names of parameters of testing's types
	bubbles []ast.Node // functions that use testing/synctest: time is not real there
	bad     []string   // the offences
}

func (s *sourceJudge) add(pos token.Pos, format string, args ...any) {
	s.bad = append(s.bad, fmt.Sprintf("%s: %s", s.files.Position(pos), fmt.Sprintf(format, args...)))
}

func (s *sourceJudge) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.FuncDecl:
		if usesSynctest(n) {
			s.bubbles = append(s.bubbles, n)
		}
		if n.Name.Name == "init" && n.Recv == nil && !s.isTest {
			s.add(n.Pos(), "func init: nothing happens by being imported")
		}
	case *ast.CallExpr:
		s.call(n)
	}
	return true
}

// call judges one call.
func (s *sourceJudge) call(n *ast.CallExpr) {
	selector, ok := n.Fun.(*ast.SelectorExpr)
	if !ok {
		return
	}
	of, ok := selector.X.(*ast.Ident)
	if !ok {
		return
	}
	switch name := of.Name + "." + selector.Sel.Name; {
	case name == "context.TODO":
		s.add(n.Pos(), "context.TODO: pass the caller's context")
	case name == "time.Sleep" && s.isTest && !s.inBubble(n):
		s.add(n.Pos(), "time.Sleep in a test: wait for the fact, or use testing/synctest")
	case slices.Contains(s.testing, of.Name) && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, selector.Sel.Name):
		s.add(n.Pos(), "%s: a test that does not run proves nothing", name)
	}
}

// usesSynctest reports whether a function calls synctest.Test, or synctest.Wait
// and so can only run in a bubble.
func usesSynctest(function *ast.FuncDecl) (uses bool) {
	ast.Inspect(function, func(n ast.Node) bool {
		if selector, ok := n.(*ast.SelectorExpr); ok {
			if of, ok := selector.X.(*ast.Ident); ok && of.Name == "synctest" {
				uses = true
			}
		}
		return !uses
	})
	return uses
}

func (s *sourceJudge) inBubble(n ast.Node) bool {
	return slices.ContainsFunc(s.bubbles, func(b ast.Node) bool { return b.Pos() <= n.Pos() && n.End() <= b.End() })
}

// testingNames lists the parameters of a file's functions whose type is one of
// package testing's.
func testingNames(file *ast.File) []string {
	var names []string
	ast.Inspect(file, func(n ast.Node) bool {
		function, ok := n.(*ast.FuncType)
		if !ok {
			return true
		}
		for _, field := range function.Params.List {
			kind := field.Type
			if star, ok := kind.(*ast.StarExpr); ok {
				kind = star.X
			}
			selector, ok := kind.(*ast.SelectorExpr)
			if !ok {
				continue
			}
			if of, ok := selector.X.(*ast.Ident); ok && of.Name == "testing" {
				for _, name := range field.Names {
					names = append(names, name.Name)
				}
			}
		}
		return true
	})
	return names
}

// target matches the head of a rule of a Makefile.
var target = regexp.MustCompile(`^([a-zA-Z][a-zA-Z0-9_-]*):([^=].*)?$`)

// JudgeMakefile returns the targets that have no help text.
func JudgeMakefile(content string) []string {
	var bad []string
	for line := range strings.Lines(content) {
		line = strings.TrimRight(line, "\n")
		if m := target.FindStringSubmatch(line); m != nil && !strings.Contains(line, "## ") {
			bad = append(bad, fmt.Sprintf("target %s has no help text (## ...)", m[1]))
		}
	}
	return bad
}

// Targets returns the names of a Makefile's targets.
func Targets(content string) []string {
	var names []string
	for line := range strings.Lines(content) {
		if m := target.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			names = append(names, m[1])
		}
	}
	return names
}

package query

import (
	"regexp"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// plain returns a copy of a tree without positions.
func plain(n *pg.Node) proto.Message {
	c := proto.Clone(n)
	visitTree(c.ProtoReflect(), func(m protoreflect.Message) bool {
		if fd := m.Descriptor().Fields().ByName("location"); fd != nil {
			m.Clear(fd)
		}
		return true
	})
	return c
}

// onlyTarget parses SELECT text and returns its target; nil when there is not exactly one.
func onlyTarget(text string) *pg.Node {
	tree, err := pg.Parse("SELECT " + text)
	if err != nil || len(tree.Stmts) != 1 {
		return nil
	}
	targets := tree.Stmts[0].Stmt.GetSelectStmt().GetTargetList()
	if len(targets) != 1 || targets[0].GetResTarget().GetName() != "" {
		return nil
	}
	return targets[0].GetResTarget().GetVal()
}

// TestExtentsAreExact parses the text of every expression that is located, and
// compares the trees.
func TestExtentsAreExact(t *testing.T) {
	located, all := map[string]int{}, map[string]int{}
	checked := map[string]bool{}
	for _, sql := range shapeCorpus(t) {
		p := parseShapes(t, sql)
		if p == nil || checked[string(p.normal.Key)] {
			continue
		}
		checked[string(p.normal.Key)] = true
		tx := newShapeText([]byte(sql), p.normal.Literals)
		for _, stmt := range p.tree.Stmts {
			visitTree(stmt.ProtoReflect(), func(m protoreflect.Message) bool {
				n, ok := m.Interface().(*pg.Node)
				if !ok || n.GetSetToDefault() != nil || n.GetAConst() != nil && n.GetAConst().Location < 0 {
					return true
				}
				kind := ""
				if fd := m.WhichOneof(m.Descriptor().Oneofs().Get(0)); fd != nil {
					kind = string(fd.Name())
				}
				if x := n.GetAExpr(); x != nil && x.Kind != pg.A_Expr_Kind_AEXPR_OP {
					kind = "a_expr of words" // BETWEEN, IN, LIKE and the like end where the tree does not say
				}
				e := tx.extent(n)
				all[kind]++
				if !e.ok() {
					return true
				}
				located[kind]++
				span := tx.extentSpan(e)
				text := sql[span.Start:span.End]
				if len(text) > 300 || checked[kind+text] {
					return true
				}
				checked[kind+text] = true
				if keyword(n, text) {
					return true
				}
				if again := onlyTarget(text); again == nil || !proto.Equal(plain(again), plain(n)) {
					t.Errorf("%.200q: %s is not %q", sql, kind, text)
				}
				return true
			})
		}
	}
	for _, kind := range []string{"a_const", "param_ref", "column_ref", "type_cast", "func_call", "a_expr"} {
		t.Logf("%s: %d of %d located", kind, located[kind], all[kind])
		if located[kind]*10 < all[kind]*8 {
			t.Errorf("%s: only %d of %d located", kind, located[kind], all[kind])
		}
	}
}

// keyword finds the constants that the grammar makes of words, and columns of
// places where a word means something else.
func keyword(n *pg.Node, text string) bool {
	if n.GetAConst() != nil {
		c := text[0] | 0x20
		return text[0] == '"' || c == 'n' || // N'x' is a cast of 'x'
			c >= 'a' && c <= 'z' && !strings.ContainsRune(text, '\'')
	}
	return n.GetColumnRef() != nil && !strings.ContainsAny(text, ".\"")
}

var literalNumber = regexp.MustCompile(`#-?\d+`)

// comparable takes out of a rendered shape what a part of the text shows
// otherwise than the whole: numbers of literals, and names of outer WITH queries.
func comparableShape(s string) string {
	s = literalNumber.ReplaceAllString(s, "#")
	s = strings.ReplaceAll(s, "from: with ", "from: ")
	return regexp.MustCompile(`uses \d+`).ReplaceAllString(s, "uses")
}

// TestScopeSpansAreExact takes each scope's text as a command of its own and
// compares what both say.
func TestScopeSpansAreExact(t *testing.T) {
	scopes, unlocated := 0, 0
	for _, sql := range shapeCorpus(t) {
		p := parseShapes(t, sql)
		if p == nil {
			continue
		}
		for _, s := range p.shapes {
			for _, scope := range collect(s).scopes {
				if scope.Kind == ScopeUnknown {
					continue
				}
				scopes++
				if !scope.Span.Located() {
					unlocated++
					t.Logf("unlocated: %.200q", sql)
					continue
				}
				text := sql[scope.Span.Start:scope.Span.End]
				pr := &shapePrinter{sql: sql}
				pr.scope(scope)
				if got := formatShapes(text); comparableShape(got) != comparableShape(pr.out.String()) {
					t.Errorf("%q:\nscope %q says\n%sthe whole says\n%s", sql, text, comparableShape(got), comparableShape(pr.out.String()))
				}
			}
		}
	}
	t.Logf("%d scopes, %d not located", scopes, unlocated)
}

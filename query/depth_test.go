package query

import (
	"math/rand/v2"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// treeDepth counts nested nodes, the union wrappers left out.
func treeDepth(m protoreflect.Message) int {
	deepest := 0
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() != protoreflect.MessageKind {
			return true
		}
		if fd.IsList() {
			for i := range v.List().Len() {
				deepest = max(deepest, treeDepth(v.List().Get(i).Message()))
			}
			return true
		}
		deepest = max(deepest, treeDepth(v.Message()))
		return true
	})
	if _, union := m.Interface().(*pg.Node); union {
		return deepest
	}
	return deepest + 1
}

// checkDepth fails when a text's tree is much deeper than estimated.
func checkDepth(t *testing.T, sql string) {
	t.Helper()
	var n Normal
	n.Scan([]byte(sql))
	if n.Depth > MaxDepth {
		return
	}
	tree, err := pg.Parse(sql)
	if err != nil {
		return
	}
	if d := treeDepth(tree.ProtoReflect()); d > 2*n.Depth+12 {
		t.Errorf("depth %d, estimated %d: %.200q", d, n.Depth, sql)
	}
}

func TestDepthCoversTheTree(t *testing.T) {
	for _, sql := range corpus(t) {
		checkDepth(t, sql)
	}
}

// TestDepthCoversNestedTexts builds deep texts from all that nests.
func TestDepthCoversNestedTexts(t *testing.T) {
	forms := []struct{ before, after string }{
		{"(", ")"}, {"1+", ""}, {"NOT ", ""}, {"", "::int"}, {"f(", ")"}, {"a.b[", "]"}, {"- ", ""},
		{"CASE WHEN ", " THEN 1 END"}, {"CASE WHEN a AND ", " THEN 1 END"}, {"CASE a WHEN 1 THEN 2 ELSE ", " END"},
		{"a AND ", ""}, {"", " OR b"}, {"x BETWEEN 1 AND ", ""}, {"", " IS NULL"}, {"(SELECT ", ")"},
		{"ARRAY[", "]"}, {"EXISTS (SELECT 1 WHERE ", ")"}, {"a IN (1, ", ")"}, {"", " COLLATE \"C\""}, {"", " + 1"},
		{"NOT a OR NOT ", ""}, {"CASE WHEN 1 = 2 THEN 3 WHEN a OR b AND ", " THEN 4 END"}, {"ROW(1, ", ")"},
		{"", " AT TIME ZONE 'x'"}, {"", " IS DISTINCT FROM 2"},
		{"(SELECT 1 UNION SELECT ", ")"}, {"(SELECT 1 FROM a JOIN b ON c AND ", ")"},
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		few := []int{rng.IntN(len(forms)), rng.IntN(len(forms)), rng.IntN(len(forms))}
		sql := "1"
		for range 20 + rng.IntN(250) {
			f := forms[few[rng.IntN(len(few))]]
			sql = f.before + sql + f.after
		}
		checkDepth(t, "SELECT "+sql)
	}
	for n := range 40 {
		half := strings.Repeat("NOT ", 20) + "CASE WHEN a AND "
		checkDepth(t, "SELECT "+strings.Repeat(half, n)+"b"+strings.Repeat(" THEN c END", n))
	}
	for n := 1; n < 400; n += 23 {
		checkDepth(t, "SELECT 1"+strings.Repeat(" UNION SELECT a AND b, 2", n))
		checkDepth(t, "SELECT 1 FROM a"+strings.Repeat(" JOIN b ON c AND d", n))
		checkDepth(t, "SELECT 1 FROM a"+strings.Repeat(" NATURAL JOIN b", n))
	}
}

// TestHostileTexts must neither crash nor take long; what would exhaust the
// parser's stack is opaque.
func TestHostileTexts(t *testing.T) {
	rep := strings.Repeat
	for _, c := range []struct {
		name, sql string
		opaque    bool
	}{
		{"80 KB of additions", "SELECT 1" + rep("+1", 40_000), true},
		{"casts", "SELECT x" + rep("::int", 20_000), true},
		{"parentheses", "SELECT " + rep("(", 10_000) + "1" + rep(")", 10_000), true},
		{"open parentheses", rep("(", 100_000), true},
		{"NOT", "SELECT " + rep("NOT ", 50_000) + "true", true},
		{"minus", "SELECT " + rep("- ", 50_000) + "1", true},
		{"UNION", "SELECT 1" + rep(" UNION ALL SELECT 1", 5_000), true},
		{"UNION with lists", "SELECT 1, 2" + rep(" UNION ALL SELECT 1, 2", 40_000), true},
		{"joins", "SELECT 1 FROM a" + rep(" JOIN a USING (x)", 20_000), true},
		{"joins with AND", "SELECT 1 FROM a" + rep(" JOIN a ON b AND c", 20_000), true},
		{"nested CASE with AND", "SELECT " + rep("CASE WHEN a AND ", 10_000) + "b" + rep(" THEN 1 END", 10_000), true},
		{"nested subqueries", rep("SELECT (", 5_000) + "SELECT 1" + rep(")", 5_000), true},
		{"brackets", "SELECT a" + rep("[1]", 50_000), true},
		{"too long", "SELECT '" + rep("x", DefaultMaxBytes) + "'", true},
		{"closing parentheses", rep(")", 100_000), true},
		{"semicolons", rep(";", 100_000), false},
		{"many commands", rep("SELECT 1;", 20_000), false},
		{"long IN list", "SELECT 1 WHERE a IN (1" + rep(",1", 20_000) + ")", false},
		{"long AND list", "SELECT 1 WHERE a = 1" + rep(" AND b = 2", 5_000), false},
		{"long OR list", "SELECT 1 WHERE (a = 1)" + rep(" OR (b = 2 AND c = 3)", 300), false},
		{"many WHENs", "SELECT CASE" + rep(" WHEN a = 1 THEN 2", 1_000) + " END", false},
		{"many CASEs", "SELECT 1" + rep(", CASE WHEN a THEN b END", 1_000), false},
		{"many rows", "INSERT INTO t VALUES (1, 'a')" + rep(", (1, 'a')", 5_000), false},
		{"open quote", "SELECT '" + rep("x", 100_000), true},
		{"NUL", "SELECT 1; -- \x00 DROP TABLE t", true},
		{"bad UTF-8", "SELECT '\xff\xfe'", true},
		{"open comment", rep("/*", 100_000), true},
		{"empty comments", "SELECT 1" + rep("/**/", 200_000), true},
		{"comments in a comment", "/*" + rep("/**/", 200_000) + "*/ SELECT 1", true},
		{"plus signs", "SELECT " + rep("+", 1_000_000), true},
		{"stars", "/" + rep("*", 1_000_000) + "/ SELECT 1", false},
		{"operators and comments", "SELECT 1" + rep("*/**/", 100_000), true},
		{"quotes with spaces", "SELECT 'a'" + rep(" ", 500_000) + ", 'b'" + rep("\n", 500_000), false},
		{"dollar tags", rep("$a", 50_000), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Analyze(c.sql, Options{}); got.Opaque != c.opaque {
				t.Errorf("opaque = %t", got.Opaque)
			}
		})
	}
}

package query

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// shapeCorpus is the corpus, the texts of the shape scripts, and, when "make
// regress" has fetched it, PostgreSQL's regression suite. Of what others wrote
// it is a sample, or all with SHARDPROXY_TEST_SHAPE set.
func shapeCorpus(t testing.TB) []string {
	t.Helper()
	all := os.Getenv("SHARDPROXY_TEST_SHAPE") != ""
	var texts []string
	for i, sql := range corpus(t) {
		if all || i < 400 || i%10 == 0 { // the rest is mostly extensions' DDL
			texts = append(texts, sql)
		}
	}
	scripts, _ := filepath.Glob("testdata/shape/*.txt")
	for _, path := range scripts {
		texts = append(texts, scriptTexts(t, path)...)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return texts
	}
	paths, _ := filepath.Glob(filepath.Join(cache, "shardproxy/regress/*/sql/*.sql"))
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, sql := range splitCommands(dropMetaCommands(b)) {
			if all || i%20 == 0 {
				texts = append(texts, sql)
			}
		}
	}
	return texts
}

// scriptTexts returns the texts of a script.
func scriptTexts(t testing.TB, path string) (texts []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range strings.Split("\n"+string(b), "\nsql\n")[1:] {
		sql, _, _ := strings.Cut(block, "\n----")
		texts = append(texts, sql)
	}
	return texts
}

// parsed is one text with its tree and shapes.
type parsed struct {
	sql    string
	tree   *pg.ParseResult
	shapes []*Shape
	normal Normal
}

// parseShapes parses a text both ways; nil when it is opaque.
func parseShapes(t testing.TB, sql string) *parsed {
	t.Helper()
	p := &parsed{sql: sql}
	st, shapes := p.normal.AnalyzeShapes(sql, Options{})
	if st.Opaque {
		return nil
	}
	tree, err := pg.Parse(sql)
	if err != nil || len(tree.Stmts) != len(shapes) {
		t.Fatalf("%q: %v, %d shapes", sql, err, len(shapes))
	}
	p.tree, p.shapes = tree, shapes
	return p
}

// found is all that lies in a shape, wherever.
type found struct {
	spans   []*Span
	values  []*Value
	columns []*Column
	refs    []*Reference
	scopes  []*Scope
	others  int
}

// collect goes through a shape by reflection, so that nothing can hide.
func collect(s *Shape) *found {
	f := &found{}
	seen := map[uintptr]bool{}
	var visit func(v reflect.Value)
	visit = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if v.IsNil() || seen[v.Pointer()] {
				return
			}
			seen[v.Pointer()] = true
			visit(v.Elem())
		case reflect.Slice:
			for i := range v.Len() {
				visit(v.Index(i))
			}
		case reflect.Struct:
			f.note(v)
			for i := range v.NumField() {
				visit(v.Field(i))
			}
		}
	}
	visit(reflect.ValueOf(s))
	return f
}

func (f *found) note(v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *Span:
		if x.Located() {
			f.spans = append(f.spans, x)
		}
	case *Value:
		f.values = append(f.values, x)
	case *Column:
		f.columns = append(f.columns, x)
	case *Reference:
		f.refs = append(f.refs, x)
	case *Scope:
		f.scopes = append(f.scopes, x)
	case *Shape:
		if x.Kind == ShapeOther {
			f.others++
		}
	}
}

// visitTree shows every message of a tree to see; it goes no deeper when that
// returns false.
func visitTree(m protoreflect.Message, see func(protoreflect.Message) bool) {
	if !see(m) {
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() != protoreflect.MessageKind {
			return true
		}
		if !fd.IsList() {
			visitTree(v.Message(), see)
			return true
		}
		for i := range v.List().Len() {
			visitTree(v.List().Get(i).Message(), see)
		}
		return true
	})
}

// TestShapeIsComplete checks, over the corpus, that every table that a tree
// names is a reference of the shape, and that every column, literal and
// parameter is in some fact, value or expression of it.
func TestShapeIsComplete(t *testing.T) {
	queries := 0
	for _, sql := range shapeCorpus(t) {
		p := parseShapes(t, sql)
		if p == nil {
			continue
		}
		for i, s := range p.shapes {
			f := collect(s)
			checkTables(t, p, i, f)
			if f.others == 0 && s.Kind != ShapeTransaction {
				queries++
				checkExpressions(t, p, i, f)
			}
		}
	}
	t.Logf("%d commands with a shape of their own", queries)
	if queries < 100 {
		t.Errorf("only %d commands", queries)
	}
}

func checkTables(t *testing.T, p *parsed, i int, f *found) {
	t.Helper()
	have := map[string]int{}
	for _, r := range f.refs {
		if r.Kind == ReferenceTable || r.Kind == ReferenceCTE {
			have[r.Catalog+"."+r.Schema+"."+r.Name]++
		}
	}
	want, at := map[string]int{}, map[int32]bool{}
	visitTree(p.tree.Stmts[i].Stmt.ProtoReflect(), func(m protoreflect.Message) bool {
		switch n := m.Interface().(type) {
		case *pg.LockingClause, *pg.ConstraintsSetStmt: // names of references and of constraints
			return false
		case *pg.RangeVar:
			if !at[n.Location] || n.Location < 0 {
				want[n.Catalogname+"."+n.Schemaname+"."+n.Relname]++
			}
			at[n.Location] = true
		}
		return true
	})
	for name, n := range want {
		if f.others > 0 && have[name] == 0 && f.hasCTE(p, i, name) {
			continue
		}
		if have[name] < n && f.others == 0 || f.others > 0 && have[name] == 0 && have["."+name[strings.Index(name, ".")+1:]] == 0 {
			t.Errorf("%q: %s named %d times, %d references", p.sql, name, n, have[name])
		}
	}
}

// hasCTE says whether a name is one of a WITH clause, for commands that are only listed.
func (f *found) hasCTE(p *parsed, i int, name string) (is bool) {
	visitTree(p.tree.Stmts[i].Stmt.ProtoReflect(), func(m protoreflect.Message) bool {
		switch n := m.Interface().(type) {
		case *pg.CommonTableExpr:
			is = is || ".."+n.Ctename == name
		case *pg.IntoClause: // a table that is made
			is = is || n.Rel != nil && "."+n.Rel.Schemaname+"."+n.Rel.Relname == name
		}
		return true
	})
	return is
}

func checkExpressions(t *testing.T, p *parsed, i int, f *found) {
	t.Helper()
	columns, literals, params := map[int32]bool{}, map[int32]bool{}, map[int32]bool{}
	for _, c := range f.columns {
		columns[c.Span.Start] = true
	}
	for _, v := range f.values {
		switch v.Kind {
		case ValueLiteral:
			literals[v.Literal] = true
		case ValueParam:
			params[v.Param] = true
		}
	}
	tx := newShapeText([]byte(p.sql), p.normal.Literals)
	stmt := p.tree.Stmts[i].Stmt
	if prepare := stmt.GetPrepareStmt(); prepare != nil {
		stmt = prepare.Query // the types' modifiers aside
	}
	visitTree(stmt.ProtoReflect(), func(m protoreflect.Message) bool {
		switch n := m.Interface().(type) {
		case *pg.LockingClause, *pg.DefElem:
			return false
		case *pg.ColumnRef:
			star := n.Fields[len(n.Fields)-1].GetAStar() != nil
			if !star && n.Location >= 0 && !columns[n.Location] && tx.kind(tx.at(n.Location)) != tokUQuoted && tx.columnExtent(n).ok() {
				t.Errorf("%q: column at %d is nowhere", p.sql, n.Location)
			}
		case *pg.ParamRef:
			if !params[n.Number] {
				t.Errorf("%q: parameter %d is nowhere", p.sql, n.Number)
			}
		case *pg.A_Const:
			at := tx.at(n.Location)
			if at < 0 && n.Location >= 0 {
				t.Errorf("%q: no token at %d", p.sql, n.Location)
			}
			for at >= 0 && (tx.operator(at, "-") || tx.opens(at)) {
				at++
			}
			if l := tx.literal(at); l >= 0 && !literals[l] && !n.Isnull {
				t.Errorf("%q: literal %d is nowhere", p.sql, l)
			}
		}
		return true
	})
}

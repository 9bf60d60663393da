package query

import (
	"cmp"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// walker visits every message of a tree, whatever its type, so that nothing a
// command refers to can hide in a place nobody thought of. It gathers what it
// sees; the builder decides what of it counts.
type walker struct {
	functions  nameSet
	operators  nameSet
	relations  nameSet
	writes     nameSet
	types      nameSet
	attributes map[string]struct{}
	settings   map[string]struct{}
	ctes       []string
	effects    Effect
	// writing is set by anything that is not a plain read.
	writing bool
}

// nameSet keeps names once.
type nameSet struct {
	list []Name
	seen map[Name]struct{}
}

func (s *nameSet) add(n Name) {
	if s.seen == nil {
		if slices.Contains(s.list, n) {
			return
		}
		if len(s.list) >= 8 {
			s.seen = make(map[Name]struct{}, 2*len(s.list))
			for _, m := range s.list {
				s.seen[m] = struct{}{}
			}
		}
	}
	if s.seen != nil {
		if _, ok := s.seen[n]; ok {
			return
		}
		s.seen[n] = struct{}{}
	}
	s.list = append(s.list, n)
}

// sorted returns the names in a fixed order: fields are visited in none.
func (s *nameSet) sorted() []Name {
	slices.SortFunc(s.list, func(a, b Name) int {
		return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Args, b.Args))
	})
	return s.list
}

// visit takes in one message and all below it.
func (w *walker) visit(m proto.Message) {
	if m == nil {
		return
	}
	switch n := m.(type) {
	case *pg.A_Const, *pg.Integer, *pg.Float, *pg.Boolean, *pg.BitString:
		return
	case *pg.String:
		w.schemaName(n.Sval)
		return
	case *pg.VariableSetStmt:
		// Naming pg_temp in a search_path makes no temporary object.
		return
	case *pg.RangeVar:
		w.relation(n)
		return
	case *pg.SelectStmt:
		w.scoped(n, n.WithClause, nil)
		return
	case *pg.InsertStmt:
		w.writing = true
		w.scoped(n, n.WithClause, n.Relation)
		return
	case *pg.UpdateStmt:
		w.writing = true
		w.scoped(n, n.WithClause, n.Relation)
		return
	case *pg.DeleteStmt:
		w.writing = true
		w.scoped(n, n.WithClause, n.Relation)
		return
	case *pg.MergeStmt:
		w.writing = true
		w.scoped(n, n.WithClause, n.Relation)
		return
	case *pg.ExecuteStmt:
		w.effects |= EffectPreparedRead
		w.fields(n, "")
		return
	case *pg.LockingClause:
		w.writing = true
		return // names aliases only
	case *pg.IntoClause:
		w.writing = true
		w.temporary(n.Rel)
		w.fields(n, "rel")
		return
	}
	w.expression(m)
	w.fields(m, "")
}

// expression notes what an expression node calls.
func (w *walker) expression(m proto.Message) {
	switch n := m.(type) {
	case *pg.FuncCall:
		w.call(n)
	case *pg.A_Expr:
		w.operatorExpr(n)
	case *pg.SubLink:
		if len(n.OperName) > 0 {
			w.operators.add(qualified(n.OperName, 2))
		} else if n.Testexpr != nil {
			w.operators.add(Name{Name: "=", Args: 2})
		}
	case *pg.SortBy:
		if len(n.UseOp) > 0 {
			w.operators.add(qualified(n.UseOp, 2))
		}
	case *pg.CaseExpr:
		if n.Arg != nil {
			w.operators.add(Name{Name: "=", Args: 2})
		}
	case *pg.JoinExpr:
		if n.IsNatural || len(n.UsingClause) > 0 {
			w.operators.add(Name{Name: "=", Args: 2})
		}
	case *pg.TypeName:
		if t := qualified(n.Names, 0); t.Schema != "pg_catalog" && t.Name != "" {
			w.types.add(t)
		}
	case *pg.RangeTableSample:
		w.functions.add(qualified(n.Method, 1))
	case *pg.ColumnRef:
		if len(n.Fields) > 1 {
			w.attribute(n.Fields[len(n.Fields)-1])
		}
	case *pg.A_Indirection:
		for _, f := range n.Indirection {
			w.attribute(f)
		}
	}
}

// fields visits the messages in m's fields but the one named skip.
func (w *walker) fields(m proto.Message, skip protoreflect.Name) {
	m.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() != protoreflect.MessageKind || fd.Name() == skip {
			return true
		}
		if !fd.IsList() {
			w.visit(unwrap(v.Message()))
			return true
		}
		list := v.List()
		for i := range list.Len() {
			w.visit(unwrap(list.Get(i).Message()))
		}
		return true
	})
}

// unwrap returns the message inside the node union, or the message itself.
func unwrap(m protoreflect.Message) proto.Message {
	msg := m.Interface()
	if n, ok := msg.(*pg.Node); ok {
		return message(n)
	}
	return msg
}

// scoped visits a statement that may have a WITH clause and a target. The
// names of the clause hide tables in the whole statement, but not its target.
func (w *walker) scoped(m proto.Message, with *pg.WithClause, target *pg.RangeVar) {
	outer := len(w.ctes)
	if with != nil {
		if with.Recursive {
			for _, n := range with.Ctes {
				w.ctes = append(w.ctes, n.GetCommonTableExpr().GetCtename())
			}
		}
		for _, n := range with.Ctes {
			w.visit(message(n))
			if !with.Recursive {
				w.ctes = append(w.ctes, n.GetCommonTableExpr().GetCtename())
			}
		}
	}
	if target != nil {
		w.target(target)
	}
	w.fields(m, "with_clause")
	w.ctes = w.ctes[:outer]
}

// target notes a relation that is written to; no WITH name can stand for it.
func (w *walker) target(r *pg.RangeVar) {
	n := Name{Schema: r.Schemaname, Name: r.Relname}
	w.schemaName(r.Schemaname)
	w.writes.add(n)
	w.relations.add(n)
}

func (w *walker) relation(r *pg.RangeVar) {
	w.schemaName(r.Schemaname)
	if r.Schemaname == "" && slices.Contains(w.ctes, r.Relname) {
		return
	}
	if r.Relname == "pg_prepared_statements" {
		w.effects |= EffectPreparedRead
	}
	w.relations.add(Name{Schema: r.Schemaname, Name: r.Relname})
}

// temporary notes that a relation is made, with EffectTemp when it is temporary.
func (w *walker) temporary(r *pg.RangeVar) {
	if r == nil {
		return
	}
	if r.Relpersistence == "t" {
		w.effects |= EffectTemp
	}
	w.schemaName(r.Schemaname)
}

// schemaName notes a name that is or may be the schema of temporary objects.
func (w *walker) schemaName(s string) {
	if s == "pg_temp" || strings.HasPrefix(s, "pg_temp_") {
		w.effects |= EffectTemp
		w.writing = true
	}
}

func (w *walker) attribute(n *pg.Node) {
	s := n.GetString_()
	if s == nil {
		return
	}
	if w.attributes == nil {
		w.attributes = make(map[string]struct{})
	}
	w.attributes[s.Sval] = struct{}{}
}

// operatorExpr notes the operators that an A_Expr stands for.
func (w *walker) operatorExpr(n *pg.A_Expr) {
	args := 2
	if n.Lexpr == nil || n.Rexpr == nil {
		args = 1
	}
	switch n.Kind {
	case pg.A_Expr_Kind_AEXPR_BETWEEN, pg.A_Expr_Kind_AEXPR_BETWEEN_SYM:
		w.operators.add(Name{Name: ">=", Args: 2})
		w.operators.add(Name{Name: "<=", Args: 2})
	case pg.A_Expr_Kind_AEXPR_NOT_BETWEEN, pg.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM:
		w.operators.add(Name{Name: "<", Args: 2})
		w.operators.add(Name{Name: ">", Args: 2})
	default:
		w.operators.add(qualified(n.Name, args))
	}
}

// qualified reads a list of name parts: the last is the name, the one before
// it the schema. A database name in front is dropped.
func qualified(parts []*pg.Node, args int) Name {
	n := Name{Args: args}
	if len(parts) > 0 {
		n.Name = parts[len(parts)-1].GetString_().GetSval()
	}
	if len(parts) > 1 {
		n.Schema = parts[len(parts)-2].GetString_().GetSval()
	}
	return n
}

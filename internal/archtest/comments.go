package archtest

import (
	"go/ast"
	"go/token"
)

// exported reports every exported name of a file without a doc comment. A
// group of constants or variables may have one for all; a name in a group may
// have its comment behind it. Methods count when their type is exported; fields
// and the methods of interfaces are part of their type, whose comment may do.
func (s *sourceJudge) exported(file *ast.File) {
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) && !ofErrors(d) {
				s.undocumented(d.Name)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				s.spec(d, spec)
			}
		}
	}
}

func (s *sourceJudge) spec(d *ast.GenDecl, spec ast.Spec) {
	switch n := spec.(type) {
	case *ast.TypeSpec:
		if n.Name.IsExported() && n.Doc == nil && (d.Doc == nil || d.Lparen.IsValid()) {
			s.undocumented(n.Name)
		}
	case *ast.ValueSpec:
		if d.Doc != nil || n.Doc != nil || n.Comment != nil {
			return
		}
		for _, name := range n.Names {
			if name.IsExported() {
				s.undocumented(name)
			}
		}
	}
}

func (s *sourceJudge) undocumented(name *ast.Ident) {
	s.add(name.Pos(), "%s is exported and has no doc comment", name.Name)
}

// ofErrors reports whether a method is one that errors have: it says the same of all.
func ofErrors(d *ast.FuncDecl) bool {
	return d.Recv != nil && (d.Name.Name == "Error" || d.Name.Name == "Unwrap")
}

// exportedReceiver reports whether a method's type is exported; a function has
// no receiver and counts.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	kind := d.Recv.List[0].Type
	for {
		switch k := kind.(type) {
		case *ast.StarExpr:
			kind = k.X
		case *ast.IndexExpr:
			kind = k.X
		case *ast.IndexListExpr:
			kind = k.X
		case *ast.Ident:
			return token.IsExported(k.Name)
		default:
			return true
		}
	}
}

package query

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// columnName returns the name that PostgreSQL gives an output without an alias,
// "" when that is not certain. It follows FigureColname in parse_target.c.
func columnName(n *pg.Node) string {
	name, strength := figureName(n)
	if strength == 0 {
		return "?column?"
	}
	return name
}

// figureName returns a name and how strong a case there is for it: 2 is a name
// of the text, 1 one that an inner name would replace, 0 none. An unknown node
// gives "" with strength 2.
func figureName(n *pg.Node) (string, int) {
	switch x := n.GetNode().(type) {
	case *pg.Node_ColumnRef:
		return lastString(x.ColumnRef.Fields)
	case *pg.Node_AIndirection:
		if name, strength := lastString(x.AIndirection.Indirection); strength > 0 {
			return name, strength
		}
		return figureName(x.AIndirection.Arg)
	case *pg.Node_FuncCall:
		return qualified(x.FuncCall.Funcname, 0).Name, 2
	case *pg.Node_AExpr:
		if x.AExpr.Kind == pg.A_Expr_Kind_AEXPR_NULLIF {
			return "nullif", 2
		}
		return "", 0
	case *pg.Node_TypeCast:
		if name, strength := figureName(x.TypeCast.Arg); strength > 1 {
			return name, strength
		}
		if name := qualified(x.TypeCast.TypeName.GetNames(), 0).Name; name != "float4" && name != "float8" {
			return name, 1
		}
		return "", 2 // float(n) is one of them by its literal
	case *pg.Node_CollateClause:
		return figureName(x.CollateClause.Arg)
	case *pg.Node_CaseExpr:
		if name, strength := figureName(x.CaseExpr.Defresult); strength > 1 {
			return name, strength
		}
		return "case", 1
	case *pg.Node_SubLink:
		return sublinkName(x.SubLink)
	case *pg.Node_AConst:
		if _, ok := x.AConst.Val.(*pg.A_Const_Boolval); ok {
			return "", 2 // differs between server versions
		}
		return "", 0
	case *pg.Node_AArrayExpr:
		return "array", 2
	case *pg.Node_RowExpr:
		return "row", 2
	case *pg.Node_CoalesceExpr:
		return "coalesce", 2
	case *pg.Node_MinMaxExpr:
		if x.MinMaxExpr.Op == pg.MinMaxOp_IS_LEAST {
			return "least", 2
		}
		return "greatest", 2
	case *pg.Node_SqlvalueFunction:
		op := strings.TrimPrefix(x.SqlvalueFunction.Op.String(), "SVFOP_")
		return strings.ToLower(strings.TrimSuffix(op, "_N")), 2
	case *pg.Node_MergeSupportFunc:
		return "merge_action", 2
	case *pg.Node_GroupingFunc:
		return "grouping", 2
	case *pg.Node_ParamRef, *pg.Node_BoolExpr, *pg.Node_NullTest, *pg.Node_BooleanTest, nil:
		return "", 0
	}
	return "", 2
}

func lastString(fields []*pg.Node) (string, int) {
	for i := len(fields) - 1; i >= 0; i-- {
		if s := fields[i].GetString_(); s != nil {
			return s.Sval, 2
		}
	}
	return "", 0
}

func sublinkName(x *pg.SubLink) (string, int) {
	switch x.SubLinkType {
	case pg.SubLinkType_EXISTS_SUBLINK:
		return "exists", 2
	case pg.SubLinkType_ARRAY_SUBLINK:
		return "array", 2
	case pg.SubLinkType_EXPR_SUBLINK:
		// The name of the subquery's first output; of a set operation its leftmost arm's.
		s := x.Subselect.GetSelectStmt()
		for s.GetLarg() != nil {
			s = s.Larg
		}
		if len(s.GetTargetList()) == 0 {
			return "column1", 2
		}
		target := s.TargetList[0].GetResTarget()
		if target.GetName() != "" {
			return target.Name, 2
		}
		if f := target.GetVal().GetColumnRef().GetFields(); len(f) > 0 && f[len(f)-1].GetAStar() != nil {
			return "", 2
		}
		return columnName(target.GetVal()), 2
	}
	return "", 0
}

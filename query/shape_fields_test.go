package query

import (
	"slices"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// shapeFields lists the fields of the nodes that shapes are made of: each of
// them is read, or says nothing before PostgreSQL's own analysis. "val" of a
// constant is a choice of its types.
func shapeFields() map[string]string {
	return map[string]string{
		"SelectStmt":                "distinct_clause into_clause target_list from_clause where_clause group_clause group_distinct having_clause window_clause values_lists sort_clause limit_offset limit_count limit_option locking_clause with_clause op all larg rarg",
		"InsertStmt":                "relation cols select_stmt on_conflict_clause returning_list with_clause override",
		"UpdateStmt":                "relation target_list where_clause from_clause returning_list with_clause",
		"DeleteStmt":                "relation using_clause where_clause returning_list with_clause",
		"MergeStmt":                 "relation source_relation join_condition merge_when_clauses returning_list with_clause",
		"MergeWhenClause":           "match_kind command_type override condition target_list values",
		"ResTarget":                 "name indirection val location",
		"ColumnRef":                 "fields location",
		"A_Const":                   "val isnull location",
		"A_Expr":                    "kind name lexpr rexpr location",
		"FuncCall":                  "funcname args agg_order agg_filter over agg_within_group agg_star agg_distinct func_variadic funcformat location",
		"SubLink":                   "xpr sub_link_type sub_link_id testexpr oper_name subselect location",
		"JoinExpr":                  "jointype is_natural larg rarg using_clause join_using_alias quals alias rtindex",
		"Alias":                     "aliasname colnames",
		"RangeVar":                  "catalogname schemaname relname inh relpersistence alias location",
		"RangeSubselect":            "lateral subquery alias",
		"RangeFunction":             "lateral ordinality is_rowsfrom functions alias coldeflist",
		"RangeTableSample":          "relation method args repeatable location",
		"WithClause":                "ctes recursive location",
		"CommonTableExpr":           "ctename aliascolnames ctematerialized ctequery search_clause cycle_clause location cterecursive cterefcount ctecolnames ctecoltypes ctecoltypmods ctecolcollations",
		"CTECycleClause":            "cycle_col_list cycle_mark_column cycle_mark_value cycle_mark_default cycle_path_column location cycle_mark_type cycle_mark_typmod cycle_mark_collation cycle_mark_neop",
		"CTESearchClause":           "search_col_list search_breadth_first search_seq_column location",
		"OnConflictClause":          "action infer target_list where_clause location",
		"InferClause":               "index_elems where_clause conname location",
		"IndexElem":                 "name expr indexcolname collation opclass opclassopts ordering nulls_ordering",
		"MultiAssignRef":            "source colno ncolumns",
		"ParamRef":                  "number location",
		"A_ArrayExpr":               "elements location",
		"RowExpr":                   "xpr args row_typeid row_format colnames location",
		"CollateClause":             "arg collname location",
		"TypeCast":                  "arg type_name location",
		"TypeName":                  "names type_oid setof pct_type typmods typemod array_bounds location",
		"A_Indirection":             "arg indirection",
		"A_Indices":                 "is_slice lidx uidx",
		"BoolExpr":                  "xpr boolop args location",
		"NullTest":                  "xpr arg nulltesttype argisrow location",
		"BooleanTest":               "xpr arg booltesttype location",
		"CaseExpr":                  "xpr casetype casecollid arg args defresult location",
		"CaseWhen":                  "xpr expr result location",
		"CoalesceExpr":              "xpr coalescetype coalescecollid args location",
		"MinMaxExpr":                "xpr minmaxtype minmaxcollid inputcollid op args location",
		"NamedArgExpr":              "xpr arg name argnumber location",
		"GroupingFunc":              "xpr args refs agglevelsup location",
		"GroupingSet":               "kind content location",
		"SortBy":                    "node sortby_dir sortby_nulls use_op location",
		"WindowDef":                 "name refname partition_clause order_clause frame_options start_offset end_offset location",
		"LockingClause":             "locked_rels strength wait_policy",
		"IntoClause":                "rel col_names access_method options on_commit table_space_name view_query skip_data",
		"CopyStmt":                  "relation query attlist is_from is_program filename options where_clause",
		"TruncateStmt":              "relations restart_seqs behavior",
		"ExplainStmt":               "query options",
		"PrepareStmt":               "name argtypes query",
		"DeclareCursorStmt":         "portalname options query",
		"CreateTableAsStmt":         "query into objtype is_select_into if_not_exists",
		"ViewStmt":                  "view aliases query replace options with_check_option",
		"RefreshMatViewStmt":        "concurrent skip_data relation",
		"ExecuteStmt":               "name params",
		"JsonArrayQueryConstructor": "query output format absent_on_null location",
		"CurrentOfExpr":             "xpr cvarno cursor_name cursor_param",
		"SQLValueFunction":          "xpr op type typmod location",
		"SetToDefault":              "xpr type_id type_mod collation location",
		"MergeSupportFunc":          "xpr msftype msfcollid location",
	}
}

// TestEveryFieldIsRead fails when a newer grammar adds a field to a node that
// shapes take apart: it must be read before the version is taken.
func TestEveryFieldIsRead(t *testing.T) {
	known := shapeFields()
	seen := 0
	for _, fd := range nodeFields() {
		want, ok := known[string(fd.Message().Name())]
		if !ok {
			continue
		}
		seen++
		var fields []string
		for i := range fd.Message().Fields().Len() {
			f := fd.Message().Fields().Get(i)
			if o := f.ContainingOneof(); o != nil {
				if name := string(o.Name()); !slices.Contains(fields, name) {
					fields = append(fields, name)
				}
				continue
			}
			fields = append(fields, string(f.Name()))
		}
		slices.Sort(fields)
		list := strings.Fields(want)
		slices.Sort(list)
		if !slices.Equal(fields, list) {
			t.Errorf("%s has the fields %q, known are %q", fd.Message().Name(), fields, list)
		}
	}
	if seen != len(known) {
		t.Errorf("%d of %d nodes found", seen, len(known))
	}
}

func nodeFields() (out []protoreflect.FieldDescriptor) {
	fields := (&pg.Node{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if fields.Get(i).Kind() == protoreflect.MessageKind {
			out = append(out, fields.Get(i))
		}
	}
	return out
}

// TestUnknownNodesAreNotSkipped puts every node of the grammar where an
// expression, an item of FROM and a query stand. What is not known there must
// make the scope unknown.
func TestUnknownNodesAreNotSkipped(t *testing.T) {
	for _, fd := range nodeFields() {
		n := &pg.Node{}
		n.ProtoReflect().Set(fd, n.ProtoReflect().NewField(fd))
		name := string(fd.Message().Name())
		places := map[string]*pg.SelectStmt{
			"expression": {WhereClause: n, Op: pg.SetOperation_SETOP_NONE},
			"from":       {FromClause: []*pg.Node{n}, Op: pg.SetOperation_SETOP_NONE},
		}
		for place, s := range places {
			sh := &shaper{text: newShapeText(nil, nil)}
			scope := sh.selectQuery(s, nowhere, nil)
			marked := len(scope.Unknown) > 0 || len(scope.Sublinks) > 0 && len(scope.Sublinks[0].Scope.Unknown) > 0
			if known := slices.Contains(knownIn(place), name); known == marked {
				t.Errorf("%s in %s: marked unknown is %t", name, place, marked)
			}
		}
		sh := &shaper{text: newShapeText(nil, nil)}
		scope := sh.query(n, nowhere, nil)
		query := strings.HasSuffix(name, "Stmt") && slices.Contains([]string{"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"}, name)
		if !query && (len(scope.Unknown) == 0 || scope.Kind != ScopeUnknown) {
			t.Errorf("%s as a query is not unknown", name)
		}
	}
}

// knownIn lists the nodes that are taken apart in a place, as far as an empty
// one of them is acceptable there.
func knownIn(place string) []string {
	if place == "from" {
		return []string{"RangeVar", "RangeSubselect", "RangeFunction", "RangeTableFunc", "JsonTable"}
	}
	return strings.Fields(`
		A_ArrayExpr A_Const A_Expr A_Indices A_Indirection A_Star BoolExpr CaseExpr CaseWhen CoalesceExpr ColumnDef
		CurrentOfExpr FuncCall GroupingFunc GroupingSet JsonAggConstructor JsonArgument JsonArrayAgg
		JsonArrayConstructor JsonBehavior JsonFormat JsonFuncExpr JsonIsPredicate JsonKeyValue JsonObjectAgg
		JsonObjectConstructor JsonOutput JsonParseExpr JsonReturning JsonScalarExpr JsonSerializeExpr JsonTable
		JsonTableColumn JsonTablePathSpec JsonValueExpr List MergeSupportFunc MinMaxExpr MultiAssignRef NamedArgExpr
		ParamRef RangeTableFunc RangeTableFuncCol ResTarget RowExpr SQLValueFunction SetToDefault SortBy String
		TypeName XmlExpr XmlSerialize`)
}

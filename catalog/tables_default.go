package catalog

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A default is stored as a tree. What it is to PostgreSQL is told by the nodes
// and the functions in it; its text, as PostgreSQL prints it, hides the casts
// that it adds itself.

var (
	treeCalls = regexp.MustCompile(`:(funcid|opfuncid|opno|aggfnoid|winfnoid) (\d+)`)
	treeNodes = regexp.MustCompile(`\{([A-Z_]+)`)
	treeConst = regexp.MustCompile(`:consttype (\d+)`)
	// nextvalText is a call on one sequence that follows it when it is renamed.
	nextvalText = regexp.MustCompile(`^nextval\('(?:[^']|'')*'::regclass\)$`)
	// stringText has no modifier: '123456'::varchar(3) is not what it says.
	stringText = regexp.MustCompile(`^'((?:[^']|'')*)'::[a-z0-9_ ."]+(\[\])?$`)
	numberText = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?$`)
)

// nodesImmutable are nodes that add nothing to what their functions are; all
// others count as stable at least.
var nodesImmutable = []string{"CONST", "FUNCEXPR", "OPEXPR", "RELABELTYPE", "BOOLEXPR", "COALESCE", "COALESCEEXPR",
	"CASE", "CASEEXPR", "WHEN", "CASEWHEN", "CASETESTEXPR", "ARRAY", "ARRAYEXPR", "ROW", "ROWEXPR", "NULLTEST", "NULLIFEXPR",
	"DISTINCTEXPR", "SCALARARRAYOPEXPR", "MINMAX", "MINMAXEXPR", "BOOLEANTEST", "COLLATE", "COLLATEEXPR",
	"FIELDSELECT", "SUBSCRIPTINGREF", "VAR"}

// volatilityOf returns the worst volatility in a stored tree.
func (r *tableReader) volatilityOf(tree string) Volatility {
	worst := Immutable
	for _, m := range treeNodes.FindAllStringSubmatch(tree, -1) {
		switch {
		case m[1] == "NEXTVALUEEXPR":
			return Volatile
		case !slices.Contains(nodesImmutable, m[1]):
			worst = max(worst, Stable)
		}
	}
	for _, m := range treeCalls.FindAllStringSubmatch(tree, -1) {
		oid, err := strconv.ParseUint(m[2], 10, 32)
		if err != nil || oid == 0 {
			continue
		}
		function := uint32(oid)
		if m[1] == "opno" {
			function = r.g.operatorCode(function)
		}
		f := r.c.callsByOID[function]
		if f == nil {
			return Volatile
		}
		worst = max(worst, f.Volatility)
	}
	return worst
}

// describeDefault says what an expression is as the default of a column of a
// base type.
func (r *tableReader) describeDefault(expression, tree string, base uint32, sequence *Table) Default {
	if plainTree(tree) && strings.HasPrefix(expression, "NULL::") {
		return Default{}
	}
	d := Default{Kind: DefaultExpression, Expression: r.intern(expression)}
	if value, ok := constantDefault(expression, tree, base); ok {
		d.Kind, d.Value = DefaultConstant, r.intern(value)
		return d
	}
	if sequence != nil && nextvalText.MatchString(expression) {
		d.Kind, d.Sequence, d.Volatility = DefaultSequence, sequence, Volatile
		return d
	}
	d.Volatility = r.volatilityOf(tree)
	return d
}

// constantDefault reads a constant whose type is the column's, or whose text is
// read by the column's type as it would be converted.
func constantDefault(expression, tree string, base uint32) (value string, ok bool) {
	typ := treeConst.FindStringSubmatch(tree)
	if typ == nil || !sameText(typ[1], base) || !plainTree(tree) {
		return "", false
	}
	switch {
	case expression == "true" || expression == "false" || numberText.MatchString(expression):
		return expression, true
	case strings.HasPrefix(expression, "'"):
		if m := stringText.FindStringSubmatch(expression); m != nil {
			return strings.ReplaceAll(m[1], "''", "'"), true
		}
	}
	return "", false
}

// plainTree says whether a tree is a constant, or one in a conversion or call
// that PostgreSQL added: its text shows the constant alone then.
func plainTree(tree string) bool {
	for _, m := range treeNodes.FindAllStringSubmatch(tree, -1) {
		switch m[1] {
		case "CONST", "FUNCEXPR", "RELABELTYPE", "COERCETODOMAIN":
		default:
			return false
		}
	}
	return true
}

// sameText says whether the text of a constant of type from means the same value
// to type base. A fraction given to an integer would be rounded: it is not.
func sameText(from string, base uint32) bool {
	oid, err := strconv.ParseUint(from, 10, 32)
	if err != nil {
		return false
	}
	f := uint32(oid)
	return f == base || isInteger(f) && (isInteger(base) || base == oidNumeric) || isText(f) && isText(base)
}

func (r *tableReader) columnDefault(row pgx.CollectableRow) error {
	var (
		table, sequence uint32
		number          int16
		generated       string
		expression      *string
		tree            string
		sequenceOID     *uint32
	)
	if err := row.Scan(&table, &number, &generated, &expression, &tree, &sequenceOID); err != nil {
		return err
	}
	t := r.c.tablesByOID[table]
	if t == nil || t.columnNumbered(number) == nil {
		return nil
	}
	if sequenceOID != nil {
		sequence = *sequenceOID
	}
	col := t.columnNumbered(number)
	if generated == "s" || generated == "v" {
		col.Default = Default{Kind: DefaultGenerated, Expression: text(expression), Volatility: r.volatilityOf(tree),
			Always: true, Virtual: generated == "v"}
		return nil
	}
	col.Default = r.describeDefault(text(expression), tree, col.Base, r.c.tablesByOID[sequence])
	return nil
}

// operatorCode returns the function of an operator, 0 for one that is not known.
func (g *graph) operatorCode(oid uint32) uint32 {
	if n := g.nodes[nodeID{nodeOperator, oid}]; n != nil {
		return n.uses[0].oid
	}
	return 0
}

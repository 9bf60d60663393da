package query

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// Fill is an expression by which ALTER TABLE gives values to rows that are there: the default of a
// column that is added, or what a column of another type is made by.
type Fill struct {
	Column string
	// Added is set for a column that is added, Lenient for one with IF NOT EXISTS.
	Added, Lenient bool
	// Type is that of a column that is added.
	Type Name
	// Draws is set for serial and identity columns: each row gets the next value of a sequence.
	Draws bool
	// Functions are those that the expression calls.
	Functions []Name
	// Text is the expression as SQL, "" without one; its literals are those of the very text that
	// was read.
	Text string
	// Odd is set when the expression could not be written as SQL.
	Odd bool
}

// fills lists what an ALTER TABLE fills columns with.
func (sh *shaper) fills(x *pg.AlterTableStmt) (all []Fill) {
	for _, n := range x.Cmds {
		c := n.GetAlterTableCmd()
		col := c.GetDef().GetColumnDef()
		switch c.GetSubtype() {
		case pg.AlterTableType_AT_AddColumn:
			f := Fill{Column: col.GetColname(), Added: true, Lenient: c.MissingOk, Type: sh.typeNamed(col.GetTypeName())}
			f.Draws = strings.Contains(f.Type.Name, "serial") && f.Type.Schema == ""
			value := col.GetRawDefault()
			for _, k := range col.GetConstraints() {
				switch k := k.GetConstraint(); k.GetContype() {
				case pg.ConstrType_CONSTR_DEFAULT:
					value = k.GetRawExpr()
				case pg.ConstrType_CONSTR_IDENTITY:
					f.Draws = true
				}
			}
			f.take(value)
			all = append(all, f)
		case pg.AlterTableType_AT_AlterColumnType:
			f := Fill{Column: c.Name}
			f.take(col.GetRawDefault())
			all = append(all, f)
		}
	}
	return all
}

// take reads the expression, nil for none.
func (f *Fill) take(value *pg.Node) {
	if value == nil {
		return
	}
	var w walker
	w.visit(message(value))
	f.Functions = w.functions.sorted()
	var cut bool
	tree, err := pg.Parse("SELECT NULL")
	if err == nil {
		tree.Stmts[0].Stmt.GetSelectStmt().TargetList[0].GetResTarget().Val = value
		f.Text, err = pg.Deparse(tree)
	}
	if f.Text, cut = strings.CutPrefix(f.Text, "SELECT "); err != nil || !cut {
		f.Text, f.Odd = "", true
	}
}

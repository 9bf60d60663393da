package query

import (
	"regexp"
	"slices"
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
	// Given is set when there is an expression; see FillTexts.
	Given bool
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
			for _, k := range col.GetConstraints() {
				f.Draws = f.Draws || k.GetConstraint().GetContype() == pg.ConstrType_CONSTR_IDENTITY
			}
			f.take(fillValue(col))
			all = append(all, f)
		case pg.AlterTableType_AT_AlterColumnType:
			f := Fill{Column: c.Name}
			f.take(fillValue(col))
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
	f.Functions, f.Given = w.functions.sorted(), true
}

// FillTexts are the expressions of an ALTER TABLE's Fills as SQL, in their order, "" without one; false
// when they cannot be written.
func FillTexts(sql string) (all []string, ok bool) {
	tree, err := pg.Parse(sql)
	if err != nil || len(tree.Stmts) != 1 {
		return nil, false
	}
	for _, n := range tree.Stmts[0].Stmt.GetAlterTableStmt().GetCmds() {
		c := n.GetAlterTableCmd()
		if t := c.GetSubtype(); t != pg.AlterTableType_AT_AddColumn && t != pg.AlterTableType_AT_AlterColumnType {
			continue
		}
		text, ok := expressionText(fillValue(c.GetDef().GetColumnDef()))
		if !ok {
			return nil, false
		}
		all = append(all, text)
	}
	return all, true
}

var ifNotExists = regexp.MustCompile(`(?i)\s+IF\s+NOT\s+EXISTS\s+$`)

// AddsColumns is the text of an ALTER TABLE without the IF NOT EXISTS of the columns that it adds; false when that cannot be
// taken out.
func AddsColumns(sql string) (string, bool) {
	tree, err := pg.Parse(sql)
	if err != nil || len(tree.Stmts) != 1 {
		return "", false
	}
	cmds := tree.Stmts[0].Stmt.GetAlterTableStmt().GetCmds()
	out := sql
	for _, n := range slices.Backward(cmds) {
		c := n.GetAlterTableCmd()
		if c.GetSubtype() != pg.AlterTableType_AT_AddColumn || !c.MissingOk {
			continue
		}
		at := int(c.GetDef().GetColumnDef().GetLocation())
		if at <= 0 || at > len(out) {
			return "", false
		}
		word := ifNotExists.FindStringIndex(out[:at])
		if word == nil {
			return "", false // a comment is in between
		}
		out = out[:word[0]] + " " + out[at:]
		c.MissingOk = false
	}
	read, err := pg.Parse(out)
	return out, err == nil && len(read.Stmts) == 1 && sameTree(read.Stmts[0].Stmt, tree.Stmts[0].Stmt)
}

// fillValue is what a column is filled with, nil for none.
func fillValue(col *pg.ColumnDef) *pg.Node {
	value := col.GetRawDefault()
	for _, k := range col.GetConstraints() {
		if k.GetConstraint().GetContype() == pg.ConstrType_CONSTR_DEFAULT {
			value = k.GetConstraint().GetRawExpr()
		}
	}
	return value
}

// expressionText writes an expression.
func expressionText(value *pg.Node) (text string, ok bool) {
	if value == nil {
		return "", true
	}
	tree, err := pg.Parse("SELECT NULL")
	if err != nil {
		return "", false
	}
	tree.Stmts[0].Stmt.GetSelectStmt().TargetList[0].GetResTarget().Val = value
	if text, err = pg.Deparse(tree); err != nil {
		return "", false
	}
	// What is written is not relied on: it must be read as the same.
	read, err := pg.Parse(text)
	if err != nil || len(read.Stmts) != 1 || len(read.Stmts[0].Stmt.GetSelectStmt().GetTargetList()) != 1 {
		return "", false
	}
	if again := read.Stmts[0].Stmt.GetSelectStmt().TargetList[0].GetResTarget().GetVal(); !sameTree(again, value) {
		return "", false
	}
	return strings.CutPrefix(text, "SELECT ")
}

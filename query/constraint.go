package query

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// Constraint is one that a definition adds: what must be unique, or must be in another table.
type Constraint struct {
	// Name is "" when PostgreSQL is to choose it.
	Name string
	// Unique, Primary and Exclusion say what it is; none is set for a foreign key.
	Unique, Primary, Exclusion bool
	// Columns are those that it is on, "" for an expression; Index is that of USING INDEX, which has them.
	Columns []string
	Index   string
	// References is the table of a foreign key, Referenced its columns, none for its primary key.
	References Name
	Referenced []string
}

// Column is one that a table is made with, or gets.
type DefinedColumn struct {
	Name string
	// Type is as written, Array set for an array of it, Collated for one with COLLATE.
	Type            Name
	Array, Collated bool
}

// column takes a column, and what its constraints are.
func (d *Definition) column(sh *shaper, c *pg.ColumnDef) {
	if c == nil {
		return
	}
	t := c.GetTypeName()
	d.Columns = append(d.Columns, DefinedColumn{c.GetColname(), sh.typeNamed(t), len(t.GetArrayBounds()) > 0 || t.GetSetof(), c.GetCollClause() != nil})
	for _, k := range c.GetConstraints() {
		d.constraint(k.GetConstraint(), c.GetColname())
	}
}

// constraint takes a constraint; of is the column that it stands behind, "" for none.
func (d *Definition) constraint(c *pg.Constraint, of string) {
	k := Constraint{Name: c.GetConname(), Index: c.GetIndexname()}
	columns := c.GetKeys()
	switch c.GetContype() {
	case pg.ConstrType_CONSTR_PRIMARY:
		k.Unique, k.Primary = true, true
	case pg.ConstrType_CONSTR_UNIQUE:
		k.Unique = true
	case pg.ConstrType_CONSTR_EXCLUSION:
		k.Exclusion = true
		for _, e := range c.GetExclusions() {
			if items := e.GetList().GetItems(); len(items) > 0 {
				k.Columns = append(k.Columns, items[0].GetIndexElem().GetName())
			}
		}
	case pg.ConstrType_CONSTR_FOREIGN:
		columns, k.References, k.Referenced = c.GetFkAttrs(), rangeName(c.GetPktable()), texts(c.GetPkAttrs())
	default:
		return
	}
	if k.Columns = append(k.Columns, texts(columns)...); len(k.Columns) == 0 && of != "" {
		k.Columns = []string{of}
	}
	d.Constraints = append(d.Constraints, k)
}

// indexed is the definition of a unique index.
func indexed(x *pg.IndexStmt) *Definition {
	d := &Definition{Table: rangeName(x.Relation)}
	k := Constraint{Name: x.Idxname, Unique: true}
	for _, p := range x.IndexParams {
		k.Columns = append(k.Columns, p.GetIndexElem().GetName())
	}
	d.Constraints = []Constraint{k}
	return d
}

func texts(nodes []*pg.Node) (all []string) {
	for _, n := range nodes {
		all = append(all, n.GetString_().GetSval())
	}
	return all
}

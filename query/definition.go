package query

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// Definition is what a command that makes or alters a table, or renames a schema, does to the
// names by which rules find tables and their keys.
type Definition struct {
	// Table is what is made or altered; OfSchema is set instead for ALTER SCHEMA.
	Table    Name
	OfSchema string
	// Creates is set for CREATE TABLE.
	Creates bool
	// Added are columns that it is made with, or gets; Like are tables whose columns it gets too.
	Added []string
	Like  []Name
	// Columns are those of Added that are written out; Constraints come with it. LikeIndexes are tables whose
	// indexes it gets too, Inherits those whose rows it adds to, PartitionOf the one that it is a partition of.
	Columns     []DefinedColumn
	Constraints []Constraint
	LikeIndexes []Name
	Inherits    []Name
	PartitionOf Name
	// Lenient is set for CREATE TABLE IF NOT EXISTS. Elements is set for a CREATE SCHEMA that makes more than it.
	Lenient, Elements bool
	// Drops is set for DROP TABLE.
	Drops bool
	// Dropped, Renamed (to another name) and Retyped are columns.
	Dropped []string
	Renamed map[string]string
	Retyped map[string]Name
	// NewName and NewSchema are "" when the name does not change.
	NewName, NewSchema string
	// Attached and Detached are partitions.
	Attached, Detached []Name
	// Fills give values to the rows that are there.
	Fills []Fill
}

// likeIndexes is LIKE ... INCLUDING INDEXES among the options of LIKE.
const likeIndexes = 1 << 6

// define reads a command; nil for those that are no such definitions.
func (sh *shaper) define(n *pg.Node) *Definition {
	switch x := n.GetNode().(type) {
	case *pg.Node_CreateStmt:
		d := &Definition{Table: rangeName(x.CreateStmt.Relation), Creates: true, Lenient: x.CreateStmt.IfNotExists}
		for _, e := range x.CreateStmt.TableElts {
			if c := e.GetColumnDef(); c != nil {
				d.Added = append(d.Added, c.Colname)
				d.column(sh, c)
			}
			if l := e.GetTableLikeClause(); l != nil {
				d.Like = append(d.Like, rangeName(l.Relation))
				if l.Options&likeIndexes != 0 {
					d.LikeIndexes = append(d.LikeIndexes, rangeName(l.Relation))
				}
			}
			d.constraint(e.GetConstraint(), "")
		}
		if x.CreateStmt.OfTypename != nil {
			d.Like = append(d.Like, sh.typeNamed(x.CreateStmt.OfTypename))
		}
		for _, r := range x.CreateStmt.InhRelations {
			if x.CreateStmt.Partbound != nil {
				d.PartitionOf = rangeName(r.GetRangeVar()) // it is where that is
				break
			}
			d.Inherits = append(d.Inherits, rangeName(r.GetRangeVar()))
			d.Like = append(d.Like, rangeName(r.GetRangeVar()))
		}
		return d
	case *pg.Node_IndexStmt:
		if x.IndexStmt.Unique {
			return indexed(x.IndexStmt)
		}
	case *pg.Node_DropStmt:
		if x.DropStmt.RemoveType == pg.ObjectType_OBJECT_TABLE {
			return &Definition{Drops: true}
		}
	case *pg.Node_CreateSchemaStmt:
		for _, e := range x.CreateSchemaStmt.SchemaElts {
			if e.GetGrantStmt() == nil {
				return &Definition{Elements: true}
			}
		}
	case *pg.Node_RenameStmt:
		r := x.RenameStmt
		switch r.RenameType {
		case pg.ObjectType_OBJECT_SCHEMA:
			return &Definition{OfSchema: r.Subname, NewSchema: r.Newname}
		case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_MATVIEW, pg.ObjectType_OBJECT_VIEW:
			return &Definition{Table: rangeName(r.Relation), NewName: r.Newname}
		case pg.ObjectType_OBJECT_COLUMN, pg.ObjectType_OBJECT_ATTRIBUTE:
			return &Definition{Table: rangeName(r.Relation), Renamed: map[string]string{r.Subname: r.Newname}}
		}
	case *pg.Node_AlterObjectSchemaStmt:
		if r := x.AlterObjectSchemaStmt; r.Relation != nil {
			return &Definition{Table: rangeName(r.Relation), NewSchema: r.Newschema}
		}
	case *pg.Node_AlterTableStmt:
		return sh.alters(x.AlterTableStmt)
	}
	return nil
}

func (sh *shaper) alters(x *pg.AlterTableStmt) *Definition {
	d := &Definition{Table: rangeName(x.Relation), Retyped: map[string]Name{}, Fills: sh.fills(x)}
	for _, n := range x.Cmds {
		c := n.GetAlterTableCmd()
		switch c.GetSubtype() {
		case pg.AlterTableType_AT_AddColumn:
			d.Added = append(d.Added, c.Def.GetColumnDef().GetColname())
			d.column(sh, c.Def.GetColumnDef())
		case pg.AlterTableType_AT_AddConstraint:
			d.constraint(c.Def.GetConstraint(), "")
		case pg.AlterTableType_AT_AddInherit:
			d.Inherits = append(d.Inherits, rangeName(c.Def.GetRangeVar()))
		case pg.AlterTableType_AT_DropColumn:
			d.Dropped = append(d.Dropped, c.Name)
		case pg.AlterTableType_AT_AlterColumnType:
			to := c.Def.GetColumnDef()
			name := Name{}
			if t := to.GetTypeName(); to.GetRawDefault() == nil && to.GetCollClause() == nil && len(t.GetTypmods()) == 0 && len(t.GetArrayBounds()) == 0 {
				name = sh.typeNamed(t)
			}
			d.Retyped[c.Name] = name
		case pg.AlterTableType_AT_AttachPartition:
			d.Attached = append(d.Attached, rangeName(c.Def.GetPartitionCmd().GetName()))
		case pg.AlterTableType_AT_DetachPartition:
			d.Detached = append(d.Detached, rangeName(c.Def.GetPartitionCmd().GetName()))
		}
	}
	return d
}

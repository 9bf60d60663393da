package query

import (
	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// ddl takes a command that changes the catalog. Expressions that it only
// stores are not called by it.
func (b *builder) ddl(m proto.Message) {
	var w walker
	w.visit(m)
	b.c.Kind = KindDDL
	b.c.Effects |= EffectCatalog | w.effects&EffectTemp
	switch n := m.(type) {
	case *pg.ViewStmt:
		b.temporary(n.View)
		return
	case *pg.CreateFunctionStmt, *pg.RuleStmt, *pg.CreatePolicyStmt, *pg.AlterPolicyStmt,
		*pg.CreateTrigStmt, *pg.CreateDomainStmt:
		return
	case *pg.CreateStmt:
		b.temporary(n.Relation)
		w = walker{}
		w.visit(n.Partbound)
	case *pg.CreateForeignTableStmt:
		b.temporary(n.BaseStmt.GetRelation())
		return
	case *pg.CreateSeqStmt:
		b.temporary(n.Sequence)
	case *pg.DropStmt:
		switch n.RemoveType {
		case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_SEQUENCE,
			pg.ObjectType_OBJECT_SCHEMA:
			b.c.Effects |= EffectTemp
		}
	case *pg.DropOwnedStmt:
		b.c.Effects |= EffectTemp
	case *pg.CreateSchemaStmt:
		b.schemaElements(n)
		return
	default:
		if !changesCatalog(m) {
			// A command of a grammar that this package was not written for.
			b.c.Kind = KindOther
			b.c.Effects |= EffectUnknown
		}
	}
	b.c.Effects |= w.effects
	b.c.Functions, b.c.Operators = w.functions.sorted(), w.operators.sorted()
	b.c.Relations, b.c.Writes, b.c.Types = w.relations.sorted(), w.writes.sorted(), w.types.sorted()
}

// temporary takes the name of what is made. Nobody else sees a temporary object:
// for others the catalog is as it was.
func (b *builder) temporary(r *pg.RangeVar) {
	var w walker
	w.temporary(r)
	b.c.Effects |= w.effects
	if w.effects&EffectTemp != 0 {
		b.c.Effects &^= EffectCatalog
	}
}

// schemaElements takes the commands inside CREATE SCHEMA.
func (b *builder) schemaElements(n *pg.CreateSchemaStmt) {
	for _, e := range n.SchemaElts {
		inner := builder{src: b.src, c: &Command{}}
		inner.command(message(e))
		b.c.Effects |= inner.c.Effects
	}
}

// changesCatalog lists the remaining commands that change the catalog and do
// nothing to their session.
func changesCatalog(m proto.Message) bool {
	switch m.(type) {
	case *pg.AlterCollationStmt, *pg.AlterDatabaseSetStmt, *pg.AlterDatabaseStmt,
		*pg.AlterDefaultPrivilegesStmt, *pg.AlterDomainStmt, *pg.AlterEnumStmt,
		*pg.AlterEventTrigStmt, *pg.AlterExtensionContentsStmt, *pg.AlterExtensionStmt,
		*pg.AlterFdwStmt, *pg.AlterForeignServerStmt, *pg.AlterFunctionStmt,
		*pg.AlterObjectDependsStmt, *pg.AlterObjectSchemaStmt, *pg.AlterOpFamilyStmt,
		*pg.AlterOperatorStmt, *pg.AlterOwnerStmt, *pg.AlterPublicationStmt,
		*pg.AlterRoleSetStmt, *pg.AlterRoleStmt, *pg.AlterSeqStmt, *pg.AlterStatsStmt,
		*pg.AlterSubscriptionStmt, *pg.AlterTableMoveAllStmt, *pg.AlterTableSpaceOptionsStmt,
		*pg.AlterTableStmt, *pg.AlterTSConfigurationStmt, *pg.AlterTSDictionaryStmt,
		*pg.AlterTypeStmt, *pg.AlterUserMappingStmt, *pg.CommentStmt, *pg.CompositeTypeStmt,
		*pg.CreateAmStmt, *pg.CreateCastStmt, *pg.CreateConversionStmt, *pg.CreateEnumStmt,
		*pg.CreateEventTrigStmt, *pg.CreateExtensionStmt, *pg.CreateFdwStmt,
		*pg.CreateForeignServerStmt, *pg.CreateOpClassStmt, *pg.CreateOpFamilyStmt,
		*pg.CreatePLangStmt, *pg.CreatePublicationStmt, *pg.CreateRangeStmt, *pg.CreateRoleStmt,
		*pg.CreateStatsStmt, *pg.CreateSubscriptionStmt, *pg.CreateTableSpaceStmt,
		*pg.CreateTransformStmt, *pg.CreateUserMappingStmt, *pg.CreatedbStmt, *pg.DefineStmt,
		*pg.DropRoleStmt, *pg.DropSubscriptionStmt, *pg.DropTableSpaceStmt,
		*pg.DropUserMappingStmt, *pg.DropdbStmt, *pg.GrantRoleStmt, *pg.GrantStmt,
		*pg.ImportForeignSchemaStmt, *pg.IndexStmt, *pg.ReassignOwnedStmt, *pg.RenameStmt,
		*pg.ReplicaIdentityStmt, *pg.SecLabelStmt:
		return true
	}
	return false
}

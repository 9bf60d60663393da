package catalog

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// LoadTables is Load, and reads tables, views, types and operators too, in the
// same transaction. Printing views and expressions waits for whoever holds an
// exclusive lock on a table of theirs, for ten seconds each; then loading fails.
func LoadTables(ctx context.Context, q Querier) (*Catalog, error) {
	var c *Catalog
	err := inSnapshot(ctx, q, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, settingsSQL); err != nil {
			return err
		}
		var err error
		var g *graph
		if c, g, err = loadGraph(ctx, tx); err != nil {
			return err
		}
		return loadTablesIn(ctx, tx, c, g)
	})
	if err != nil {
		return nil, fmt.Errorf("load catalog: %w", err)
	}
	return c, nil
}

// tablesFingerprint is fingerprint for what LoadTables reads.
func tablesFingerprint(ctx context.Context, q Querier) (string, error) {
	var first, second string
	err := inSnapshot(ctx, q, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, fingerprintSQL).Scan(&first); err != nil {
			return err
		}
		return tx.QueryRow(ctx, tablesFingerprintSQL).Scan(&second)
	})
	if err != nil {
		return "", fmt.Errorf("check catalog: %w", err)
	}
	return first + " | " + second, nil
}

// tableReader fills a Catalog row by row. Maps that only serve loading are its own.
type tableReader struct {
	c       *Catalog
	g       *graph
	strings map[string]string
	// typeNames holds types with their modifiers as SQL.
	typeNames map[typeModifier]string
}

type typeModifier struct {
	oid      uint32
	modifier int32
}

// intern keeps one copy of equal strings.
func (r *tableReader) intern(s string) string {
	if have, ok := r.strings[s]; ok {
		return have
	}
	r.strings[s] = s
	return s
}

// eachRow runs a query and takes its rows.
func eachRow(ctx context.Context, tx pgx.Tx, sql string, take func(pgx.CollectableRow) error, args ...any) error {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := take(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func loadTablesIn(ctx context.Context, tx pgx.Tx, c *Catalog, g *graph) error {
	r := &tableReader{c: c, g: g, strings: map[string]string{}, typeNames: map[typeModifier]string{}}
	c.tables, c.others = map[string][]*Table{}, map[string][]otherRelation{}
	c.tablesByOID, c.usage = map[uint32]*Table{}, map[string]schemaUsage{}
	c.collations = map[uint32]*Collation{}
	c.namedTypes, c.typesByOID = map[string][]*NamedType{}, map[uint32]*NamedType{}
	c.calls, c.callsByOID = map[string][]*Callable{}, map[uint32]*Callable{}
	c.comparing = newComparing()
	c.members, c.extensions = map[nodeID]bool{}, map[string]string{}
	version, err := serverVersion(ctx, tx)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		sql  string
		take func(pgx.CollectableRow) error
	}{
		{usageSQL, r.usage},
		{withBodies(tableFunctionsSQL, version), r.callable},
		{collationsSQL, r.collation},
		{namedTypesSQL, r.namedType},
		{tablesSQL, r.table},
		{inheritsSQL, r.inherits},
		{typeNamesSQL, r.typeName},
		{columnsSQL, r.column},
		{sequencesSQL, r.sequence},
		{defaultsSQL, r.columnDefault},
		{indexesSQL, r.index},
		{constraintsSQL, r.constraint},
		{triggersSQL, r.trigger},
		{rulesSQL, r.rule},
		{policiesSQL, r.policy},
		{operatorTypesSQL, r.operatorTypes},
		{defaultFamiliesSQL, r.defaultFamily},
		{familyMembersSQL, r.familyMember},
		{implicitCastsSQL, r.implicitCast},
		{membersSQL, r.member},
		{extensionsSQL, r.extension},
	} {
		if err := eachRow(ctx, tx, step.sql, step.take); err != nil {
			return err
		}
		if step.sql == namedTypesSQL { // before the first column is read
			r.settleTypes()
		}
	}
	if err := r.views(ctx, tx); err != nil {
		return err
	}
	r.settle()
	c.reach = g.reach(c)
	return nil
}

func (r *tableReader) usage(row pgx.CollectableRow) error {
	var name string
	var u schemaUsage
	err := row.Scan(&name, &u.everyone, &u.known, &u.roles)
	r.c.usage[name] = u
	return err
}

func (r *tableReader) table(row pgx.CollectableRow) error {
	var (
		t                       Table
		kind, persistence, repl string
		partition               bool
		key, bound              *string
	)
	if err := row.Scan(&t.OID, &t.Schema, &t.Name, &kind, &persistence, &t.RowSecurity, &t.ForceRowSecurity,
		&repl, &partition, &key, &bound); err != nil {
		return err
	}
	t.Schema, t.Name = r.intern(t.Schema), r.intern(t.Name)
	t.Kind = tableKind(kind[0], partition)
	if t.Kind == KindOther {
		r.c.others[t.Name] = append(r.c.others[t.Name], otherRelation{t.Schema, t.OID})
		return nil
	}
	t.System, t.Unlogged = t.OID < firstUserOID, persistence == "u"
	t.ReplicaIdentity = ReplicaIdentity(repl[0])
	t.PartitionBy, t.PartitionBound = text(key), text(bound)
	r.c.tables[t.Name] = append(r.c.tables[t.Name], &t)
	r.c.tablesByOID[t.OID] = &t
	if !t.System {
		r.c.userTables = append(r.c.userTables, &t)
	}
	return nil
}

func tableKind(relkind byte, partition bool) TableKind {
	switch relkind {
	case 'r':
		if partition {
			return KindPartition
		}
		return KindTable
	case 'f':
		return KindForeign
	case 'p':
		return KindPartitioned
	case 'v':
		return KindView
	case 'm':
		return KindMaterialized
	case 'S':
		return KindSequence
	}
	return KindOther
}

// text is what a column holds, "" for NULL.
func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (r *tableReader) inherits(row pgx.CollectableRow) error {
	var child, parent uint32
	if err := row.Scan(&child, &parent); err != nil {
		return err
	}
	c, p := r.c.tablesByOID[child], r.c.tablesByOID[parent]
	if c != nil && p != nil {
		c.Parents, p.Children = append(c.Parents, p), append(p.Children, c)
	}
	return nil
}

func (r *tableReader) typeName(row pgx.CollectableRow) error {
	var key typeModifier
	var name string
	err := row.Scan(&key.oid, &key.modifier, &name)
	r.typeNames[key] = name
	return err
}

func (r *tableReader) column(row pgx.CollectableRow) error {
	var table, collation uint32
	var col Column
	if err := row.Scan(&table, &col.Number, &col.Name, &col.Type, &col.Modifier, &collation, &col.NotNull); err != nil {
		return err
	}
	t := r.c.tablesByOID[table]
	if t == nil {
		return nil
	}
	col.Name = r.intern(col.Name)
	col.TypeName = r.typeNames[typeModifier{col.Type, col.Modifier}]
	col.Collation = r.c.collations[collation]
	col.Base = col.Type
	if domain := r.c.typesByOID[col.Type]; domain != nil && domain.Domain() {
		col.Base, col.NotNull = domain.Base, col.NotNull || domain.NotNull
		col.Modifier = domain.Modifier
		col.Default = domain.Default
	}
	t.Columns = append(t.Columns, col)
	return nil
}

func (r *tableReader) sequence(row pgx.CollectableRow) error {
	var (
		oid, owner uint32
		s          Sequence
		number     int32
		always     bool
	)
	if err := row.Scan(&oid, &s.Type, &s.Start, &s.Increment, &s.Min, &s.Max, &s.Cached, &s.Cycle,
		&owner, &number, &s.Identity, &always); err != nil {
		return err
	}
	t := r.c.tablesByOID[oid]
	if t == nil {
		return nil
	}
	t.Sequence = &s
	if s.Owner = r.c.tablesByOID[owner]; s.Owner == nil {
		return nil
	}
	s.OwnerColumn = int16(number)
	if col := s.Owner.columnNumbered(s.OwnerColumn); s.Identity && col != nil {
		col.Default = Default{Kind: DefaultIdentity, Sequence: t, Always: always, Volatility: Volatile}
	}
	return nil
}

func (r *tableReader) member(row pgx.CollectableRow) error {
	var kind string
	var oid uint32
	err := row.Scan(&kind, &oid)
	r.c.members[nodeID{edgeKind(kind), oid}] = true
	return err
}

func (r *tableReader) extension(row pgx.CollectableRow) error {
	var name, version, schema string
	err := row.Scan(&name, &version, &schema)
	r.c.extensions[name] = version + " in schema " + schema
	return err
}

// settle orders what is read and draws the conclusions from all rows together.
func (r *tableReader) settle() {
	for _, t := range r.c.userTables {
		t.Columns = slices.Clone(t.Columns) // without room for more
		byName := func(a, b *Table) int { return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Name, b.Name)) }
		slices.SortFunc(t.Children, byName)
		if t.PartitionBound != "" {
			t.Root = partitionRoot(t)
		}
	}
	slices.SortFunc(r.c.userTables, func(a, b *Table) int {
		return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Name, b.Name))
	})
	for _, list := range r.c.calls {
		slices.SortFunc(list, func(a, b *Callable) int { return cmp.Compare(a.OID, b.OID) })
	}
}

// partitionRoot climbs to the topmost table.
func partitionRoot(t *Table) *Table {
	for t.PartitionBound != "" && len(t.Parents) > 0 {
		t = t.Parents[0]
	}
	return t
}

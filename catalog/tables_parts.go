package catalog

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
)

func (r *tableReader) index(row pgx.CollectableRow) error {
	var (
		table   uint32
		x       Index
		columns []int16
		keys    int16

		definition, constraint *string
	)
	if err := row.Scan(&table, &x.OID, &x.Name, &x.Method, &x.Unique, &x.Primary, &x.Exclusion, &x.Constraint, &x.Deferrable,
		&x.NullsNotDistinct, &x.Valid, &columns, &keys, &x.Partial, &x.Ordinary, &definition, &constraint); err != nil {
		return err
	}
	t := r.c.tablesByOID[table]
	if t == nil {
		return nil
	}
	x.Name, x.Method = r.intern(x.Name), r.intern(x.Method)
	x.Definition, x.ConstraintDefinition = text(definition), r.intern(text(constraint))
	x.Keys, x.Included = columns[:keys:keys], columns[keys:]
	t.Indexes = append(t.Indexes, x)
	return nil
}

func (r *tableReader) constraint(row pgx.CollectableRow) error {
	var (
		k                          ForeignKey
		table, target              uint32
		kind, onUpdate, onDelete   string
		columns, referencedColumns []int16
		definition                 *string
	)
	if err := row.Scan(&k.OID, &table, &k.Name, &kind, &target, &columns, &referencedColumns, &onUpdate, &onDelete,
		&k.Full, &k.Deferrable, &k.Deferred, &k.Validated, &k.Inherited, &definition); err != nil {
		return err
	}
	t := r.c.tablesByOID[table]
	if t == nil {
		return nil
	}
	k.Name, k.Definition = r.intern(k.Name), r.intern(text(definition))
	if kind == "c" {
		t.Checks = append(t.Checks, Check{Name: k.Name, Validated: k.Validated, Definition: k.Definition})
		return nil
	}
	k.Table, k.References = t, r.c.tablesByOID[target]
	if k.References == nil {
		return nil
	}
	k.Columns, k.ReferencedColumns = columns, referencedColumns
	k.OnUpdate, k.OnDelete = action(onUpdate), action(onDelete)
	t.ForeignKeys = append(t.ForeignKeys, &k)
	k.References.ReferencedBy = append(k.References.ReferencedBy, &k)
	return nil
}

// action reads pg_constraint's letter.
func action(letter string) Action {
	switch letter {
	case "r":
		return Restrict
	case "c":
		return Cascade
	case "n":
		return SetNull
	case "d":
		return SetDefault
	}
	return NoAction
}

// The bits of pg_trigger.tgtype.
const (
	triggerRow = 1 << iota
	triggerBefore
	triggerInsert
	triggerDelete
	triggerUpdate
	triggerTruncate
	triggerInstead
)

func (r *tableReader) trigger(row pgx.CollectableRow) error {
	var (
		table      uint32
		g          Trigger
		bits       int32
		enabled    string
		definition *string
	)
	if err := row.Scan(&table, &g.Name, &g.Constraint, &bits, &g.Deferred, &enabled, &g.Function, &g.Inherited, &definition, &g.fence); err != nil {
		return err
	}
	has := func(bit int32) bool { return bits&bit != 0 }
	g.Row, g.Before, g.Instead = has(triggerRow), has(triggerBefore), has(triggerInstead)
	g.Insert, g.Update, g.Delete, g.Truncate = has(triggerInsert), has(triggerUpdate), has(triggerDelete), has(triggerTruncate)
	g.Enabled, g.Definition = enabled[0], text(definition)
	if t := r.c.tablesByOID[table]; t != nil {
		t.Triggers = append(t.Triggers, g)
	}
	return nil
}

func (r *tableReader) rule(row pgx.CollectableRow) error {
	var (
		table          uint32
		u              Rule
		event, enabled string
		definition     *string
	)
	if err := row.Scan(&table, &u.Name, &event, &u.Instead, &enabled, &definition); err != nil {
		return err
	}
	u.Event, u.Enabled, u.Definition = ruleEvent(event), enabled[0], text(definition)
	if t := r.c.tablesByOID[table]; t != nil {
		t.Rules = append(t.Rules, u)
	}
	return nil
}

func ruleEvent(number string) string {
	switch number {
	case "1":
		return "SELECT"
	case "2":
		return "UPDATE"
	case "3":
		return "INSERT"
	}
	return "DELETE"
}

func (r *tableReader) policy(row pgx.CollectableRow) error {
	var (
		table        uint32
		p            Policy
		command      string
		using, check *string
	)
	if err := row.Scan(&table, &p.Name, &command, &p.Permissive, &p.Roles, &using, &check); err != nil {
		return err
	}
	switch command {
	case "r":
		p.Command = "SELECT"
	case "a":
		p.Command = "INSERT"
	case "w":
		p.Command = "UPDATE"
	case "d":
		p.Command = "DELETE"
	default:
		p.Command = "ALL"
	}
	p.Using, p.Check = text(using), text(check)
	if t := r.c.tablesByOID[table]; t != nil {
		t.Policies = append(t.Policies, p)
	}
	return nil
}

func (r *tableReader) collation(row pgx.CollectableRow) error {
	var l Collation
	var rules string
	if err := row.Scan(&l.OID, &l.Schema, &l.Name, &l.Deterministic, &rules, &l.Version); err != nil {
		return err
	}
	l.Bytewise = bytewise(rules)
	r.c.collations[l.OID] = &l
	return nil
}

// bytewise judges provider:locale:collate. The C library's C.UTF-8 is not
// by bytes everywhere; PostgreSQL's own locales are.
func bytewise(rules string) bool {
	switch provider, rest, _ := strings.Cut(rules, ":"); provider {
	case "b":
		return true
	case "c":
		return strings.HasSuffix(rest, ":C") || strings.HasSuffix(rest, ":POSIX")
	}
	return false
}

// viewsAtOnce bounds how many views' tables are locked at one time.
const viewsAtOnce = 200

// views reads the definitions of views, some at a time. Rolling back to a
// savepoint gives the locks back that printing them takes.
func (r *tableReader) views(ctx context.Context, tx pgx.Tx) error {
	var oids []uint32
	for _, t := range r.c.userTables {
		if t.Kind == KindView || t.Kind == KindMaterialized {
			t.View = &View{}
			oids = append(oids, t.OID)
		}
	}
	for len(oids) > 0 {
		n := min(len(oids), viewsAtOnce)
		part, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		if err := eachRow(ctx, part, viewsSQL, r.view, oids[:n]); err != nil {
			return err
		}
		if err := part.Rollback(ctx); err != nil {
			return err
		}
		oids = oids[n:]
	}
	return nil
}

// The bits of pg_relation_is_updatable.
const (
	updatableUpdate = 1 << 2
	updatableInsert = 1 << 3
	updatableDelete = 1 << 4
)

func (r *tableReader) view(row pgx.CollectableRow) error {
	var (
		oid        uint32
		definition *string
		options    []string
		bits       int32
	)
	if err := row.Scan(&oid, &definition, &options, &bits); err != nil {
		return err
	}
	v := r.c.tablesByOID[oid].View
	v.Definition = strings.TrimSuffix(strings.TrimSpace(text(definition)), ";")
	v.Insertable, v.Updatable, v.Deletable = bits&updatableInsert != 0, bits&updatableUpdate != 0, bits&updatableDelete != 0
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "check_option":
			v.CheckOption = value
		case "security_invoker":
			v.SecurityInvoker = isTrue(value)
		case "security_barrier":
			v.SecurityBarrier = isTrue(value)
		}
	}
	return nil
}

// isTrue reads a relation's option as PostgreSQL does.
func isTrue(value string) bool {
	v := lower(value)
	return v == "1" || v == "on" || v != "" && (strings.HasPrefix("true", v) || strings.HasPrefix("yes", v))
}

package catalog

import (
	"fmt"
	"slices"
	"strings"
)

// printTables writes all that is known of the tables, without OIDs.
func printTables(c *Catalog) string {
	var b strings.Builder
	for _, t := range c.Tables() {
		printTable(&b, c, t)
	}
	return b.String()
}

func printTable(b *strings.Builder, c *Catalog, t *Table) {
	fmt.Fprintf(b, "%s %s.%s", t.Kind, t.Schema, t.Name)
	flags(b, map[string]bool{"unlogged": t.Unlogged, "system": t.System, "row-security": t.RowSecurity, "forced": t.ForceRowSecurity})
	if t.ReplicaIdentity != IdentityDefault && t.ReplicaIdentity != IdentityNothing {
		fmt.Fprintf(b, " identity=%c", t.ReplicaIdentity)
	}
	for what, list := range map[string][]*Table{" parents=": t.Parents} {
		if len(list) > 0 {
			b.WriteString(what + tableNames(list))
		}
	}
	if len(t.Children) > 0 {
		b.WriteString(" children=" + tableNames(t.Children))
	}
	if t.Root != nil {
		b.WriteString(" root=" + tableNames([]*Table{t.Root}))
	}
	for _, s := range []string{t.PartitionBy, t.PartitionBound} {
		if s != "" {
			b.WriteString(" " + s)
		}
	}
	b.WriteByte('\n')
	for i := range t.Columns {
		printColumn(b, c, &t.Columns[i])
	}
	for i := range t.Indexes {
		x := &t.Indexes[i]
		fmt.Fprintf(b, "  index %s %s keys=%v included=%v", x.Name, x.Method, x.Keys, x.Included)
		flags(b, map[string]bool{"unique": x.Unique, "primary": x.Primary, "exclusion": x.Exclusion, "constraint": x.Constraint,
			"deferrable": x.Deferrable, "nulls-not-distinct": x.NullsNotDistinct, "invalid": !x.Valid, "partial": x.Partial, "ordinary": x.Ordinary})
		fmt.Fprintf(b, "\n    %s\n", x.Definition)
		if x.ConstraintDefinition != "" {
			fmt.Fprintf(b, "    %s\n", x.ConstraintDefinition)
		}
	}
	for _, k := range t.ForeignKeys {
		printForeignKey(b, "foreign key", k)
	}
	for _, k := range t.ReferencedBy {
		fmt.Fprintf(b, "  referenced by %s of %s\n", k.Name, tableNames([]*Table{k.Table}))
	}
	for _, k := range t.Checks {
		fmt.Fprintf(b, "  check %s validated=%t %s\n", k.Name, k.Validated, k.Definition)
	}
	for _, g := range t.Triggers {
		fmt.Fprintf(b, "  trigger %s enabled=%c function=%s", g.Name, g.Enabled, c.CallableByOID(g.Function).Name)
		flags(b, map[string]bool{"constraint": g.Constraint, "row": g.Row, "before": g.Before, "instead": g.Instead, "insert": g.Insert,
			"update": g.Update, "delete": g.Delete, "truncate": g.Truncate, "deferred": g.Deferred, "inherited": g.Inherited})
		fmt.Fprintf(b, "\n    %s\n", g.Definition)
	}
	for _, u := range t.Rules {
		fmt.Fprintf(b, "  rule %s on=%s instead=%t enabled=%c\n", u.Name, u.Event, u.Instead, u.Enabled)
	}
	for _, p := range t.Policies {
		fmt.Fprintf(b, "  policy %s for=%s permissive=%t roles=%v using=%s check=%s\n", p.Name, p.Command, p.Permissive, p.Roles, p.Using, p.Check)
	}
	if s := t.Sequence; s != nil {
		fmt.Fprintf(b, "  %s", c.sequenceText(s))
		if s.Owner != nil {
			fmt.Fprintf(b, " owner=%s.%s identity=%t", s.Owner.Name, s.Owner.columnNumbered(s.OwnerColumn).Name, s.Identity)
		}
		b.WriteByte('\n')
	}
	if v := t.View; v != nil {
		fmt.Fprintf(b, "  view check=%q", v.CheckOption)
		flags(b, map[string]bool{"invoker": v.SecurityInvoker, "barrier": v.SecurityBarrier, "insertable": v.Insertable,
			"updatable": v.Updatable, "deletable": v.Deletable})
		fmt.Fprintf(b, "\n    %s\n", strings.Join(strings.Fields(v.Definition), " "))
	}
}

func printColumn(b *strings.Builder, c *Catalog, col *Column) {
	fmt.Fprintf(b, "  %d %s %s", col.Number, col.Name, col.TypeName)
	if col.Base != col.Type {
		fmt.Fprintf(b, " base=%s", c.typeText(col.Base))
	}
	if col.Modifier >= 0 {
		fmt.Fprintf(b, " modifier=%d", col.Modifier)
	}
	if l := col.Collation; l != nil {
		fmt.Fprintf(b, " collation=%s deterministic=%t bytewise=%t", l.Name, l.Deterministic, l.Bytewise)
	}
	if col.NotNull {
		b.WriteString(" not null")
	}
	d := col.Default
	switch d.Kind {
	case DefaultConstant:
		fmt.Fprintf(b, " constant=%q", d.Value)
	case DefaultSequence:
		fmt.Fprintf(b, " sequence=%s", d.Sequence.Name)
	case DefaultIdentity:
		fmt.Fprintf(b, " identity=%s", d.Sequence.Name)
	case DefaultGenerated:
		b.WriteString(" generated")
	case DefaultExpression:
		b.WriteString(" expression")
	}
	if d.Kind != NoDefault {
		fmt.Fprintf(b, " [%s] %s", d.Expression, d.Volatility)
	}
	flags(b, map[string]bool{"of-domain": d.OfDomain, "always": d.Always, "virtual": d.Virtual})
	b.WriteByte('\n')
}

func printForeignKey(b *strings.Builder, what string, k *ForeignKey) {
	fmt.Fprintf(b, "  %s %s %v -> %s %v update=%d delete=%d", what, k.Name, k.Columns, tableNames([]*Table{k.References}),
		k.ReferencedColumns, k.OnUpdate, k.OnDelete)
	flags(b, map[string]bool{"full": k.Full, "deferrable": k.Deferrable, "deferred": k.Deferred, "not-valid": !k.Validated, "inherited": k.Inherited})
	fmt.Fprintf(b, "\n    %s\n", k.Definition)
}

// flags writes the names of those that are set, in order.
func flags(b *strings.Builder, all map[string]bool) {
	var set []string
	for name, is := range all {
		if is {
			set = append(set, name)
		}
	}
	slices.Sort(set)
	for _, name := range set {
		b.WriteString(" " + name)
	}
}

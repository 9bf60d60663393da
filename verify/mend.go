package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"shardproxy/catalog"
)

// mend returns the SQL that makes a shard like the home shard, "" where that is not
// certain: what only the shard has may be what is right, and rows may be lost.
func (c *schemaChecker) mend(ctx context.Context, s *Session, d catalog.Difference) (string, error) {
	if d.A == "" && d.How == "" {
		return "", nil // more than the home shard has
	}
	name := quoted(d.Schema, d.Name)
	switch d.Kind {
	case "extension":
		if d.How == "" {
			return "CREATE EXTENSION " + quoted(d.Name), nil
		}
		return fmt.Sprintf("ALTER EXTENSION %s UPDATE TO %s", quoted(d.Name), literal(d.A)), nil
	case "type":
		return c.mendType(s, d), nil
	case "function":
		return c.mendFunction(ctx, d)
	case "view":
		return c.mendView(d), nil
	}
	t := tableOf(c.home, d.Schema, d.Name)
	if t == nil || d.Kind == "foreign table" || d.Kind == "materialized view" && d.Part == "" {
		return "", nil
	}
	part, partName, _ := strings.Cut(d.Part, " ")
	switch part {
	case "":
		return mendTable(t, d, name), nil
	case "column":
		return mendColumn(t.Column(partName), d, name), nil
	case "index":
		return mendIndex(t, partName, d, name), nil
	}
	return mendPart(t, part, partName, d, name), nil
}

func (c *schemaChecker) mendType(s *Session, d catalog.Difference) string {
	t, res := c.home.Catalog.TypeOf(d.Schema, d.Name, c.home.Catalog.SystemPath())
	if res != catalog.Resolved || t.Kind != 'e' {
		return ""
	}
	if d.How == "" {
		labels := make([]string, len(t.Parts))
		for i, l := range t.Parts {
			labels[i] = literal(l)
		}
		return fmt.Sprintf("CREATE TYPE %s AS ENUM (%s)", quoted(d.Schema, d.Name), strings.Join(labels, ", "))
	}
	here, res := s.Catalog.TypeOf(d.Schema, d.Name, s.Catalog.SystemPath())
	if d.How != "definition" || res != catalog.Resolved || here.Kind != 'e' {
		return ""
	}
	return mendLabels(quoted(d.Schema, d.Name), t.Parts, here.Parts)
}

// mendLabels adds labels to an enum that has some of them in the same order.
func mendLabels(name string, want, have []string) string {
	var all []string
	at := 0
	for i, label := range want {
		switch {
		case at < len(have) && have[at] == label:
			at++
		case i > 0:
			all = append(all, fmt.Sprintf("ALTER TYPE %s ADD VALUE %s AFTER %s", name, literal(label), literal(want[i-1])))
		case len(have) > 0:
			all = append(all, fmt.Sprintf("ALTER TYPE %s ADD VALUE %s BEFORE %s", name, literal(label), literal(have[0])))
		}
	}
	if at < len(have) {
		return "" // it has others, or another order
	}
	return strings.Join(all, "; ")
}

// mendFunction asks the home shard for the definition, when it is clear which
// function is meant.
func (c *schemaChecker) mendFunction(ctx context.Context, d catalog.Difference) (sql string, err error) {
	all := slices.DeleteFunc(slices.Clone(c.functions(d)), func(f *catalog.Callable) bool { return f.Schema != d.Schema })
	if len(all) != 1 || all[0].Kind == catalog.CallAggregate || d.How == "result" || d.How == "kind" || d.How == "returns a set" {
		return "", nil
	}
	err = c.home.row(ctx, fmt.Sprintf("SELECT coalesce(pg_get_functiondef(oid), '') FROM pg_proc WHERE oid = %d UNION ALL SELECT '' LIMIT 1", all[0].OID)).Scan(&sql)
	return strings.TrimSpace(sql), err
}

func (c *schemaChecker) mendView(d catalog.Difference) string {
	t := tableOf(c.home, d.Schema, d.Name)
	if t == nil || t.View == nil || t.View.Definition == "" || d.Part != "" {
		return ""
	}
	var with []string
	if t.View.SecurityBarrier {
		with = append(with, "security_barrier")
	}
	if t.View.SecurityInvoker {
		with = append(with, "security_invoker")
	}
	if t.View.CheckOption != "" {
		with = append(with, "check_option = "+t.View.CheckOption)
	}
	options := ""
	if len(with) > 0 {
		options = " WITH (" + strings.Join(with, ", ") + ")"
	}
	return fmt.Sprintf("CREATE OR REPLACE VIEW %s%s AS %s", quoted(d.Schema, d.Name), options, t.View.Definition)
}

func mendTable(t *catalog.Table, d catalog.Difference, name string) string {
	switch d.How {
	case "unlogged":
		if t.Unlogged {
			return "ALTER TABLE " + name + " SET UNLOGGED"
		}
		return "ALTER TABLE " + name + " SET LOGGED"
	case "row security":
		on := map[bool]string{true: "ENABLE", false: "DISABLE"}[t.RowSecurity]
		force := map[bool]string{true: "FORCE", false: "NO FORCE"}[t.ForceRowSecurity]
		return fmt.Sprintf("ALTER TABLE %s %s ROW LEVEL SECURITY, %s ROW LEVEL SECURITY", name, on, force)
	case "replica identity":
		word := map[catalog.ReplicaIdentity]string{catalog.IdentityDefault: "DEFAULT", catalog.IdentityNothing: "NOTHING", catalog.IdentityFull: "FULL"}[t.ReplicaIdentity]
		if word != "" {
			return "ALTER TABLE " + name + " REPLICA IDENTITY " + word
		}
	}
	return ""
}

// widens are types that hold all values of another.
var widens = [][2]string{{"smallint", "integer"}, {"smallint", "bigint"}, {"integer", "bigint"}, {"real", "double precision"}}

func mendColumn(col *catalog.Column, d catalog.Difference, table string) string {
	if col == nil {
		return ""
	}
	name := quoted(col.Name)
	alter := "ALTER TABLE " + table + " ALTER COLUMN " + name
	switch d.How {
	case "":
		plain := col.Default.Kind == catalog.NoDefault || col.Default.Kind == catalog.DefaultConstant
		if !plain || col.Default.OfDomain || col.NotNull && col.Default.Kind == catalog.NoDefault {
			return "" // what its rows are to have is not known
		}
		sql := "ALTER TABLE " + table + " ADD COLUMN " + name + " " + col.TypeName
		if col.Collation != nil && col.Collation.Name != "default" {
			sql += " COLLATE " + quoted(col.Collation.Schema, col.Collation.Name)
		}
		if col.Default.Kind == catalog.DefaultConstant {
			sql += " DEFAULT " + col.Default.Expression
		}
		if col.NotNull {
			sql += " NOT NULL"
		}
		return sql
	case "type":
		if slices.Contains(widens, [2]string{d.B, d.A}) || d.A == "text" && strings.HasPrefix(d.B, "character varying") {
			return alter + " TYPE " + d.A
		}
	case "not null":
		if col.NotNull {
			return alter + " SET NOT NULL"
		}
		return alter + " DROP NOT NULL"
	case "default":
		odd := strings.HasPrefix(d.B, "identity") || strings.HasPrefix(d.B, "generated") || strings.HasPrefix(d.B, "virtual") || col.Default.OfDomain
		switch {
		case odd:
		case col.Default.Kind == catalog.NoDefault:
			return alter + " DROP DEFAULT"
		case col.Default.Kind == catalog.DefaultConstant, col.Default.Kind == catalog.DefaultExpression:
			return alter + " SET DEFAULT " + col.Default.Expression
		}
	}
	return ""
}

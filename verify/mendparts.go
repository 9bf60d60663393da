package verify

import (
	"fmt"
	"strings"

	"shardproxy/catalog"
)

func mendIndex(t *catalog.Table, index string, d catalog.Difference, table string) string {
	for i := range t.Indexes {
		x := &t.Indexes[i]
		if x.Name != index {
			continue
		}
		name := quoted(t.Schema, x.Name)
		make, drop := x.Definition, "DROP INDEX "+name
		if x.Constraint && x.ConstraintDefinition != "" {
			make = fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT %s %s", table, quoted(x.Name), x.ConstraintDefinition)
			drop = fmt.Sprintf("ALTER TABLE %s DROP CONSTRAINT %s", table, quoted(x.Name))
		}
		switch {
		case d.How == "":
			return make
		case d.How == "valid" && x.Valid:
			return "REINDEX INDEX CONCURRENTLY " + name
		case d.How == "definition" && x.Constraint, d.How == "definition" && !x.Unique:
			return drop + "; " + make
		}
	}
	return ""
}

// mendPart mends a constraint, a trigger, a rule or a policy.
func mendPart(t *catalog.Table, part, name string, d catalog.Difference, table string) string {
	again := func(word, make string) string {
		if d.How == "" {
			return make
		}
		return fmt.Sprintf("DROP %s %s ON %s; %s", word, quoted(name), table, make)
	}
	switch part {
	case "constraint":
		return mendConstraint(t, name, d, table)
	case "trigger":
		for _, g := range t.Triggers {
			switch {
			case g.Name != name:
			case d.How == "enabled":
				return mendEnabled(g.Enabled, "TRIGGER", name, table)
			default:
				return again("TRIGGER", g.Definition)
			}
		}
	case "rule":
		for _, u := range t.Rules {
			switch {
			case u.Name != name:
			case d.How == "enabled":
				return mendEnabled(u.Enabled, "RULE", name, table)
			default:
				return again("RULE", strings.TrimSuffix(u.Definition, ";"))
			}
		}
	case "policy":
		for _, p := range t.Policies {
			if p.Name == name {
				return again("POLICY", policySQL(p, table))
			}
		}
	}
	return ""
}

func mendConstraint(t *catalog.Table, name string, d catalog.Difference, table string) string {
	definition, validated := "", true
	for _, k := range t.Checks {
		if k.Name == name {
			definition, validated = k.Definition, k.Validated
		}
	}
	for _, k := range t.ForeignKeys {
		if k.Name == name {
			definition, validated = k.Definition, k.Validated
		}
	}
	switch {
	case definition == "":
		return ""
	case d.How == "":
		return fmt.Sprintf("ALTER TABLE %s ADD CONSTRAINT %s %s", table, quoted(name), definition)
	case d.How == "validated" && validated:
		return fmt.Sprintf("ALTER TABLE %s VALIDATE CONSTRAINT %s", table, quoted(name))
	case d.How == "definition":
		return fmt.Sprintf("ALTER TABLE %s DROP CONSTRAINT %s, ADD CONSTRAINT %[2]s %s", table, quoted(name), definition)
	}
	return ""
}

// mendEnabled turns a trigger or rule on or off, by pg_trigger's letter.
func mendEnabled(letter byte, word, name, table string) string {
	how := map[byte]string{'O': "ENABLE ", 'D': "DISABLE ", 'R': "ENABLE REPLICA ", 'A': "ENABLE ALWAYS "}[letter]
	if how == "" {
		return ""
	}
	return "ALTER TABLE " + table + " " + how + word + " " + quoted(name)
}

func policySQL(p catalog.Policy, table string) string {
	sql := fmt.Sprintf("CREATE POLICY %s ON %s", quoted(p.Name), table)
	if !p.Permissive {
		sql += " AS RESTRICTIVE"
	}
	roles := make([]string, len(p.Roles))
	for i, r := range p.Roles {
		if roles[i] = quoted(r); r == "public" {
			roles[i] = "PUBLIC"
		}
	}
	sql += " FOR " + p.Command + " TO " + strings.Join(roles, ", ")
	if p.Using != "" {
		sql += " USING (" + p.Using + ")"
	}
	if p.Check != "" {
		sql += " WITH CHECK (" + p.Check + ")"
	}
	return sql
}

package rebalance

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"shardproxy/catalog"
)

// table returns a table as the shard has it, nil when it does not.
func (s *PreflightSide) table(t *Table) *catalog.Table {
	of, res := s.Catalog.Table(t.Schema, t.Name, s.Catalog.SystemPath())
	if res != catalog.Resolved {
		return nil
	}
	return of
}

// eachTable judges the tables, and what they are together.
func (p *preflight) eachTable(ctx context.Context) error {
	all := catalog.Differ(p.source.Catalog, p.target.Catalog, "shardproxy")
	p.types(all)
	publications := map[*PreflightSide][]publishedTable{}
	for _, t := range p.tables {
		here, there := p.source.table(t), p.target.table(t)
		if here == nil || there == nil {
			s := p.source
			if here != nil {
				s = p.target
			}
			p.block(s, t, "the table does not exist", "shardproxy check --schema tells what the shards do not have alike")
			continue
		}
		fits := p.differences(t, here, there, all)
		mayRead := true
		for _, s := range []*PreflightSide{p.source, p.target} {
			ok, err := p.rights(ctx, s, t)
			if err != nil {
				return fmt.Errorf("shard %s: %s: %w", s.Shard, t, err)
			}
			mayRead = mayRead && ok
			found, err := s.publications(ctx, t)
			if err != nil {
				return fmt.Errorf("shard %s: %s: %w", s.Shard, t, err)
			}
			for _, name := range found {
				publications[s] = append(publications[s], publishedTable{name, t.String()})
			}
		}
		if !fits || !mayRead || p.source.facts.standby || p.target.facts.standby {
			continue
		}
		if err := p.rows(ctx, t, there); err != nil {
			return err
		}
	}
	p.published(p.source, publications[p.source], "rows that the move deletes here in the end")
	p.published(p.target, publications[p.target], "rows that the move copies here")
	p.room()
	return nil
}

// differences judges how a table differs. fits is false when its rows cannot be compared or carried over at all.
func (p *preflight) differences(t *Table, here, there *catalog.Table, all []catalog.Difference) (fits bool) {
	fits = true
	for _, d := range all {
		if d.Schema != t.Schema || d.Name != t.Name || d.Kind == "function" || d.Kind == "type" {
			continue
		}
		part, name, _ := strings.Cut(d.Part, " ")
		blocks, told := p.weigh(d, part, name, here, there)
		if !told {
			continue
		}
		reason := p.differs(d)
		if !blocks {
			p.warn(p.target, t, reason, "shardproxy check --schema tells what the shards do not have alike")
			continue
		}
		p.block(p.target, t, reason, "make the table alike on both shards; see shardproxy check --schema")
		fits = fits && part != "column" && d.Part != ""
	}
	return fits
}

// weigh says whether a difference is in the way, and whether it is to be told at all.
func (p *preflight) weigh(d catalog.Difference, part, name string, here, there *catalog.Table) (blocks, told bool) {
	switch part {
	case "":
		return d.How != "row security" && d.How != "order of columns", true
	case "column":
		if d.How == "collation" && preflightUnversioned(d.A) == preflightUnversioned(d.B) {
			return false, false // collations tells how one of a name orders
		}
		computed := func(s string) bool { return strings.HasPrefix(s, "generated ") || strings.HasPrefix(s, "virtual ") }
		return d.How != "default" || computed(d.A) || computed(d.B), true
	case "constraint":
		return strings.HasPrefix(d.A, "CHECK") || strings.HasPrefix(d.B, "CHECK") || d.How == "validated" && preflightCheck(here, name), true
	case "index":
		return preflightEnforces(here, name) || preflightEnforces(there, name), true
	case "trigger", "rule":
		// What fires in any case is told of by itself, on both shards.
		return false, !strings.Contains(d.A+d.B, "EXECUTE FUNCTION shardproxy.") && (d.How != "enabled" || !strings.ContainsAny(d.A+d.B, "AR"))
	}
	return false, true
}

// preflightUnversioned is the name in a collation's text, without how it orders.
func preflightUnversioned(s string) string {
	s, _, _ = strings.Cut(s, " version ")
	return strings.TrimSuffix(strings.TrimSuffix(s, " by bytes"), " not deterministic")
}

func preflightCheck(t *catalog.Table, name string) bool {
	return slices.ContainsFunc(t.Checks, func(c catalog.Check) bool { return c.Name == name })
}

// preflightEnforces reports whether an index refuses rows.
func preflightEnforces(t *catalog.Table, name string) bool {
	return slices.ContainsFunc(t.Indexes, func(x catalog.Index) bool { return x.Name == name && (x.Unique || x.Exclusion) })
}

// differs says how the target differs from the source.
func (p *preflight) differs(d catalog.Difference) string {
	what := d.Part
	if what == "" {
		what = d.Kind
	}
	switch {
	case d.How != "":
		return fmt.Sprintf("%s: its %s is %s, on shard %s it is %s", what, d.How, preflightOr(d.B), p.source.Shard, preflightOr(d.A))
	case d.B == "":
		return fmt.Sprintf("%s is missing, which shard %s has: %s", what, p.source.Shard, d.A)
	}
	return fmt.Sprintf("%s is one that shard %s does not have: %s", what, p.source.Shard, d.B)
}

func preflightOr(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// types judges those of columns that are carried over: enums, domains, composites.
func (p *preflight) types(all []catalog.Difference) {
	for _, d := range all {
		if d.Kind == "type" && slices.ContainsFunc(p.tables, func(t *Table) bool { return p.uses(t, d.Schema, d.Name) }) {
			p.block(p.target, nil, strings.Replace(p.differs(d), "type", "type "+d.Schema+"."+d.Name, 1), "make the type alike on both shards")
		}
	}
}

// uses reports whether a column of the table is of a type, a domain over it, or an array of it.
func (p *preflight) uses(t *Table, schema, name string) bool {
	of := p.source.table(t)
	if of == nil {
		return false
	}
	return slices.ContainsFunc(of.Columns, func(c catalog.Column) bool {
		for _, oid := range []uint32{c.Type, c.Base} {
			named := p.source.Catalog.TypeByOID(oid)
			if named != nil && named.Element != 0 {
				named = p.source.Catalog.TypeByOID(named.Element)
			}
			if named != nil && named.Schema == schema && named.Name == name {
				return true
			}
		}
		return false
	})
}

const preflightRightsSQL = `
SELECT pg_has_role(c.relowner, 'USAGE'),
       c.relrowsecurity AND NOT r.rolsuper AND NOT r.rolbypassrls AND (c.relforcerowsecurity OR NOT pg_has_role(c.relowner, 'USAGE')),
       ARRAY(SELECT p FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p WHERE NOT has_table_privilege(c.oid, p))
  FROM pg_class c CROSS JOIN pg_roles r WHERE c.oid = to_regclass($1) AND r.rolname = current_user`

// rights judges what the control user may do with a table, and what would act on it. read is false when its rows cannot be
// read.
func (p *preflight) rights(ctx context.Context, s *PreflightSide, t *Table) (read bool, err error) {
	var owner, secured bool
	var lacks []string
	err = s.within(ctx, func() error {
		return s.row(ctx, preflightRightsSQL, t.String()).Scan(&owner, &secured, &lacks)
	})
	if err != nil {
		return false, err
	}
	if !owner {
		p.block(s, t, fmt.Sprintf("the control user %q does not own it, and can neither publish it nor guard it by a trigger", s.facts.user),
			fmt.Sprintf("GRANT the owner's role TO %q, or use a superuser", s.facts.user))
	}
	if len(lacks) > 0 {
		p.block(s, t, fmt.Sprintf("the control user %q has no right of %s on it", s.facts.user, strings.Join(lacks, ", ")),
			fmt.Sprintf("GRANT %s ON %s TO %q", strings.Join(lacks, ", "), t, s.facts.user))
	}
	if secured {
		p.block(s, t, fmt.Sprintf("row security hides rows from the control user %q", s.facts.user),
			fmt.Sprintf("ALTER TABLE %s NO FORCE ROW LEVEL SECURITY for the owner, ALTER ROLE %q BYPASSRLS, or use a superuser", t, s.facts.user))
	}
	fires, err := firesOnReplica(ctx, s.Conn, s.Shard, t)
	p.report.Blockers = append(p.report.Blockers, fires...)
	return !secured && !slices.Contains(lacks, "SELECT"), err
}

// publishedTable is a table of a publication.
type publishedTable struct{ publication, table string }

const preflightPublicationsSQL = `
SELECT p.pubname::text FROM pg_publication p
 WHERE p.pubname NOT LIKE 'shardproxy\_%%' AND (p.puballtables OR EXISTS (SELECT FROM pg_publication_rel r
         WHERE r.prpubid = p.oid AND (r.prrelid = to_regclass($1) OR r.prrelid IN (SELECT relid FROM pg_partition_ancestors(to_regclass($1)))))%s)
 ORDER BY 1`

// preflightSchemaPublications are there since PostgreSQL 15.
const preflightSchemaPublications = ` OR EXISTS (SELECT FROM pg_publication_namespace n WHERE n.pnpubid = p.oid AND n.pnnspid =
 (SELECT relnamespace FROM pg_class WHERE oid = to_regclass($1)))`

// publications returns the names of those that a table is in, the moves' own left out.
func (s *PreflightSide) publications(ctx context.Context, t *Table) (names []string, err error) {
	schemas := ""
	if s.facts.version >= 150000 {
		schemas = preflightSchemaPublications
	}
	err = s.within(ctx, func() (err error) {
		names, err = s.texts(ctx, fmt.Sprintf(preflightPublicationsSQL, schemas), t.String())
		return err
	})
	return names, err
}

// published warns of publications: whoever subscribes to them hears of rows that are only moved.
func (p *preflight) published(s *PreflightSide, all []publishedTable, what string) {
	for len(all) > 0 {
		name := all[0].publication
		var tables []string
		for _, one := range all {
			if one.publication == name {
				tables = append(tables, one.table)
			}
		}
		all = slices.DeleteFunc(all, func(o publishedTable) bool { return o.publication == name })
		if n := len(tables); n > 3 {
			tables = append(tables[:3], fmt.Sprintf("and %d more", n-3))
		}
		p.warn(s, nil, fmt.Sprintf("publication %s tells its subscribers of %s (%s)", name, what, strings.Join(tables, ", ")),
			"see that the subscribers can do with rows that come from one shard and go from another")
	}
}

// collations judges those that order text otherwise on the two servers.
func (p *preflight) collations(ctx context.Context) error {
	var found [2]map[string]string
	for i, s := range []*PreflightSide{p.source, p.target} {
		var err error
		if found[i], err = catalog.Collations(ctx, s.Conn); err != nil {
			return fmt.Errorf("shard %s: %w", s.Shard, err)
		}
	}
	names := catalog.Unlike(found[0], found[1])
	slices.Sort(names)
	for _, name := range names {
		for _, t := range p.tables {
			of := p.source.table(t)
			if of == nil {
				continue
			}
			if key, any := preflightCollation(t, of, name); key != "" {
				p.block(p.target, t, fmt.Sprintf("%s is of text of collation %s, which is %q here and %q on shard %s", key, name, found[1][name], found[0][name], p.source.Shard),
					"use the same version of the collation's library on all shards, and REINDEX")
			} else if any {
				p.warn(p.target, t, fmt.Sprintf("collation %s of a column is %q here and %q on shard %s", name, found[1][name], found[0][name], p.source.Shard),
					"use the same version of the collation's library on all shards")
			}
		}
	}
	return nil
}

// preflightCollation returns the key or unique index that has a column of a collation, "" for none, and whether any column has
// it.
func preflightCollation(t *Table, of *catalog.Table, name string) (key string, any bool) {
	has := func(c *catalog.Column) bool {
		switch {
		case c == nil || c.Collation == nil:
			return false
		case c.Collation.OID == catalog.DefaultCollation:
			return name == "default"
		}
		return strings.ReplaceAll(name, `"`, "") == c.Collation.Schema+"."+c.Collation.Name
	}
	for _, at := range t.Key {
		if has(of.Column(t.Columns[at].Name)) {
			return "its sharding key", true
		}
	}
	for i := range of.Indexes {
		x := &of.Indexes[i]
		for j := range of.Columns {
			if (x.Unique || x.Exclusion) && slices.Contains(x.Keys, of.Columns[j].Number) && has(&of.Columns[j]) {
				return "index " + x.Name, true
			}
		}
	}
	return "", slices.ContainsFunc(of.Columns, func(c catalog.Column) bool { return has(&c) })
}

package verify

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"shardproxy/catalog"
	"shardproxy/config"
)

// Severity says what a Finding means.
type Severity string

// The severities. Notes say what holds, and are no fault.
const (
	Difference Severity = "difference" // a shard does not have what the home shard has
	Fault      Severity = "fault"      // the rules and the schema do not fit, or rows lie where they are not found
	Note       Severity = "note"
)

// Finding is something that a comparison of schemas found.
type Finding struct {
	Severity Severity `json:"severity"`
	// Shard is where it is, "" for what the rules say of the home shard's schema.
	Shard string `json:"shard,omitempty"`
	// Kind, Schema, Name, Part and How name the thing, as catalog.Difference has
	// them. Home and Here are what both shards have, "" for nothing.
	Kind   string `json:"kind,omitempty"`
	Schema string `json:"schema,omitempty"`
	Name   string `json:"name,omitempty"`
	Part   string `json:"part,omitempty"`
	How    string `json:"how,omitempty"`
	Home   string `json:"home,omitempty"`
	Here   string `json:"here,omitempty"`
	// Message says it in words.
	Message string `json:"message"`
	// Mend is SQL that mends it, to be run on MendOn; or "" where that is not
	// certain.
	Mend   string `json:"mend,omitempty"`
	MendOn string `json:"mend_on,omitempty"`
}

// ownSchema is the proxy's own.
const ownSchema = "shardproxy"

// Schema compares the shards' schemas with that of the first session, and looks for
// what does not fit the rules of the database. hasHome says that the first session
// is the home shard's. Of a table that a rule does not place everywhere only rows in a wrong place
// are told. The findings are in the order of the shards; an error is one of a server.
func Schema(ctx context.Context, rules *config.Database, sessions []*Session, hasHome bool) ([]Finding, error) {
	c := &schemaChecker{rules: rules, home: sessions[0], hasHome: hasHome}
	c.placement()
	if err := c.sequences(ctx, sessions); err != nil {
		return nil, err
	}
	if err := c.collations(ctx, sessions); err != nil {
		return nil, err
	}
	for _, s := range sessions[1:] {
		if err := c.schemas(ctx, s); err != nil {
			return nil, fmt.Errorf("shard %s: %w", s.Shard, err)
		}
		for _, d := range catalog.Differ(c.home.Catalog, s.Catalog, ownSchema) {
			if err := c.difference(ctx, s, d); err != nil {
				return nil, fmt.Errorf("shard %s: %w", c.home.Shard, err)
			}
		}
		if hasHome {
			if err := c.strays(ctx, s); err != nil {
				return nil, fmt.Errorf("shard %s: %w", s.Shard, err)
			}
		}
	}
	return c.found, nil
}

type schemaChecker struct {
	rules   *config.Database
	home    *Session
	hasHome bool
	found   []Finding
}

func (c *schemaChecker) add(f Finding) { c.found = append(c.found, f) }

// tableOf finds a relation on a shard, nil for none.
func tableOf(s *Session, schema, name string) *catalog.Table {
	t, res := s.Catalog.Table(schema, name, s.Catalog.SystemPath())
	if res != catalog.Resolved {
		return nil
	}
	return t
}

// difference tells a difference, unless the thing may be on the home shard alone.
func (c *schemaChecker) difference(ctx context.Context, s *Session, d catalog.Difference) error {
	if !c.everywhere(s, d) {
		return nil
	}
	f := Finding{Severity: Difference, Shard: s.Shard, Kind: d.Kind, Schema: d.Schema, Name: d.Name, Part: d.Part, How: d.How, Home: d.A, Here: d.B}
	f.Message = inWords(d, c.home.Shard) + c.ofKey(s, d)
	if t := tableOf(c.home, d.Schema, d.Name); t != nil && d.B == "" && d.How == "" && d.Part == "" && holdsRows(t) {
		f.Message += fmt.Sprintf("; pg_dump --schema-only --table=%s of %s writes its definition", literal(quoted(t.Schema, t.Name)), c.home.Shard)
	}
	var err error
	if f.Mend, err = c.mend(ctx, s, d); f.Mend != "" {
		f.MendOn = s.Shard
	}
	c.add(f)
	return err
}

// everywhere reports whether something must be on the shard as it is on the home shard.
func (c *schemaChecker) everywhere(s *Session, d catalog.Difference) bool {
	missing := d.Part == "" && d.How == "" && d.B == ""
	switch d.Kind {
	case "extension", "type":
		return true
	case "function":
		return !missing || !c.readsSingle(c.functions(d))
	case "sequence":
		return false // only the home shard's is drawn from
	}
	t := tableOf(c.home, d.Schema, d.Name)
	of := c.home
	if t == nil {
		t, of = tableOf(s, d.Schema, d.Name), s
	}
	if t == nil {
		return true
	}
	if t.Kind == catalog.KindView {
		return !c.hasSingle(of.Catalog.ReadReaches(t))
	}
	switch placeOf(c.rules, t).kind {
	case single:
		return false
	case bySchema:
		rule := c.rules.SchemaRule(t.Schema)
		return rule.Shard == s.Shard || rule.Shard == config.SchemaByHash && !missing
	}
	return true
}

// functions are those of the home shard that a difference may mean.
func (c *schemaChecker) functions(d catalog.Difference) []*catalog.Callable {
	name, _, _ := strings.Cut(d.Name, "(")
	return c.home.Catalog.Callables(d.Schema, name, -1, c.home.Catalog.SystemPath())
}

// readsSingle reports whether functions are known to use single tables.
func (c *schemaChecker) readsSingle(all []*catalog.Callable) bool {
	return len(all) > 0 && !slices.ContainsFunc(all, func(f *catalog.Callable) bool { return !c.hasSingle(c.home.Catalog.Reaches(f)) })
}

func (c *schemaChecker) hasSingle(r catalog.Reached) bool {
	return slices.ContainsFunc(r.Tables, func(t *catalog.Table) bool {
		return !t.System && t.Kind != catalog.KindView && t.Kind != catalog.KindSequence && placeOf(c.rules, t).kind == single
	})
}

// inWords says what a shard has, or not, beside the home shard.
func inWords(d catalog.Difference, home string) string {
	name := d.Name
	if d.Schema != "" {
		name = d.Schema + "." + d.Name
	}
	what := d.Kind + " " + name
	if d.Part != "" {
		what += ", " + d.Part
	}
	switch {
	case d.How != "":
		return fmt.Sprintf("%s: its %s is %s, on %s it is %s", what, d.How, orNothing(d.B), home, orNothing(d.A))
	case d.B == "":
		return what + " is missing" + inBrackets(d.A)
	}
	return fmt.Sprintf("%s is here%s, and not on %s", what, inBrackets(d.B), home)
}

func orNothing(s string) string { return cmp.Or(s, "nothing") }

func inBrackets(s string) string {
	if s == "" || s == "there" {
		return ""
	}
	return " (" + s + ")"
}

// ofKey adds what it means that a key's column differs.
func (c *schemaChecker) ofKey(s *Session, d catalog.Difference) string {
	column, ok := strings.CutPrefix(d.Part, "column ")
	if !ok || d.How != "" && d.How != "type" && d.How != "collation" {
		return ""
	}
	t := tableOf(c.home, d.Schema, d.Name)
	if t == nil || !slices.Contains(placeOf(c.rules, t).key, column) {
		return ""
	}
	return "; it is the table's key: rows may not be found on " + s.Shard
}

const schemasSQL = `SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'shardproxy') ORDER BY 1`

// schemas compares which schemas there are. One that has nothing but single tables
// may be on the home shard alone.
func (c *schemaChecker) schemas(ctx context.Context, s *Session) error {
	home, err := texts(ctx, c.home, schemasSQL)
	if err != nil {
		return err
	}
	here, err := texts(ctx, s, schemasSQL)
	if err != nil {
		return err
	}
	for _, name := range home {
		if slices.Contains(here, name) || c.ofSingles(s, name) {
			continue
		}
		c.add(Finding{Severity: Difference, Shard: s.Shard, Kind: "schema", Name: name, Home: "there", Message: "schema " + name + " is missing",
			Mend: "CREATE SCHEMA " + quoted(name), MendOn: s.Shard})
	}
	for _, name := range here {
		if !slices.Contains(home, name) {
			c.add(Finding{Severity: Difference, Shard: s.Shard, Kind: "schema", Name: name, Here: "there",
				Message: fmt.Sprintf("schema %s is here, and not on %s", name, c.home.Shard)})
		}
	}
	return nil
}

// ofSingles reports whether a schema holds tables, and none that must be on the shard.
func (c *schemaChecker) ofSingles(s *Session, schema string) bool {
	if rule := c.rules.SchemaRule(schema); rule != nil {
		return rule.Shard != s.Shard
	}
	some := false
	for _, t := range c.home.Catalog.Tables() {
		if t.Schema != schema {
			continue
		}
		some = true
		if c.everywhere(s, catalog.Difference{Kind: t.Kind.String(), Schema: schema, Name: t.Name, A: "there"}) {
			return false
		}
	}
	return some
}

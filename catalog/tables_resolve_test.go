package catalog

import "testing"

const resolveSQL = `
CREATE SCHEMA a; CREATE SCHEMA b; CREATE SCHEMA closed; CREATE SCHEMA tenant;
GRANT USAGE ON SCHEMA a, b TO public;
GRANT USAGE ON SCHEMA closed TO app;
CREATE TABLE a.t (x int); CREATE TABLE b.t (x int); CREATE TABLE closed.t (x int); CREATE TABLE tenant.t (x int);
CREATE TABLE b.only_b (x int); CREATE TABLE closed.only_closed (x int);
CREATE TABLE a.pg_class (x int);
CREATE TABLE b.shadowed (x int);
CREATE INDEX shadowed ON a.t (x);
CREATE TYPE a.row_type AS (x int); CREATE TABLE b.row_type (x int);
CREATE SEQUENCE b.seq;
CREATE TABLE public.t (x int);
GRANT SELECT ON ALL TABLES IN SCHEMA a, b, closed, public TO app;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA b TO app;
CREATE DOMAIN a.d AS int; CREATE DOMAIN b.d AS text; CREATE TABLE a.tab (x int); CREATE DOMAIN b.tab AS int;
`

func TestTable(t *testing.T) {
	c, _ := loadSchema(t, resolveSQL)
	for _, q := range []struct {
		schema, name string
		path         Path
		want         string // schema.name of what is found, or the resolution
	}{
		{"a", "t", Path{}, "a"},
		{"a", "T", Path{}, "not found"},
		{"nowhere", "t", Path{}, "not found"},
		{"", "t", Path{}, "ambiguous"},
		{"", "t", c.Path("a b c"), "ambiguous"}, // what PostgreSQL would refuse
		{"", "t", c.Path("a, b"), "a"},
		{"", "t", c.Path("b, a"), "b"},
		{"", "t", c.Path("nowhere, b, a"), "b"},
		{"", "only_b", c.Path("a, b"), "b"},
		{"", "only_b", c.Path("a"), "not found"},
		{"", "only_b", c.Path(""), "not found"},
		{"", "pg_class", c.Path("a"), "pg_catalog"},
		{"", "pg_class", c.Path("a, pg_catalog"), "a"},
		{"", "pg_class", c.Path(""), "pg_catalog"},
		{"", "pg_class", c.SystemPath(), "pg_catalog"},
		// Whoever may not look into a schema does not find what is there.
		{"", "t", c.Path("closed, a"), "ambiguous"},
		{"", "t", c.Path("closed, closed"), "closed"},
		{"", "only_closed", c.Path("closed, a"), "closed"},
		{"", "t", c.PathFor("closed, a", "app"), "closed"},
		{"", "t", c.PathFor("tenant, a", "app"), "a"},
		{"", "t", c.PathFor("tenant, a", "postgres"), "tenant"},
		// $user
		{"", "t", c.Path(`"$user", a`), "a"},
		{"", "shadowed", c.Path("a, b"), "a"}, // an index
		{"", "row_type", c.Path("a, b"), "a"}, // a composite type
		{"", "seq", c.Path("a, b"), "b"},
		{"pg_temp", "t", c.Path("a"), "temporary"},
		{"pg_temp_3", "t", c.Path("a"), "temporary"},
		{"pg_toast", "pg_toast_1234", c.Path("a"), "pg_toast"},
		{"information_schema", "tables", Path{}, "information_schema"},
	} {
		table, r := c.Table(q.schema, q.name, q.path)
		got := r.String()
		if (table != nil) != (r == Resolved) {
			t.Errorf("%s.%s: %s with table %v", q.schema, q.name, r, table)
		}
		if table != nil {
			got = table.Schema
			if table.Name != q.name {
				t.Errorf("%s.%s: named %s", q.schema, q.name, table.Name)
			}
		}
		if got != q.want {
			t.Errorf("%s.%s under %v: %s, want %s", q.schema, q.name, q.path.steps, got, q.want)
		}
	}
	for schema, want := range map[string]TableKind{"a": KindOther, "b": KindTable} {
		if table, _ := c.Table(schema, "shadowed", Path{}); table.Kind != want {
			t.Errorf("%s.shadowed is a %s", schema, table.Kind)
		}
	}
	if table, r := (&Catalog{}).Table("a", "t", Path{}); table != nil || r != Ambiguous {
		t.Errorf("without tables: %s", r)
	}
}

// TestUserPath checks $user, whose schemas are named like roles.
func TestUserPath(t *testing.T) {
	c, conn := loadSchema(t, resolveSQL+`CREATE SCHEMA app AUTHORIZATION app; CREATE TABLE app.t (x int); CREATE TABLE app.mine (x int)`)
	want := func(name string, path Path, want Resolution, schema string) {
		t.Helper()
		table, r := c.Table("", name, path)
		if r != want || table != nil && table.Schema != schema {
			t.Errorf("%s: %s %+v, want %s", name, r, table, want)
		}
	}
	want("t", c.Path(`"$user", public`), Ambiguous, "")
	want("mine", c.Path(`"$user", public`), Resolved, "app")
	want("t", c.PathFor(`"$user", public`, "app"), Resolved, "app")
	want("t", c.PathFor(`"$user", public`, "postgres"), Resolved, "public")
	if _, err := conn.Exec(t.Context(), `CREATE SCHEMA postgres; CREATE TABLE postgres.mine (x int)`); err != nil {
		t.Fatal(err)
	}
	c = reload(t, conn)
	want("mine", c.Path(`"$user", public`), Ambiguous, "")
}

// TestTableAsPostgreSQL asks the server for every name under many paths.
func TestTableAsPostgreSQL(t *testing.T) {
	c, conn := loadSchema(t, resolveSQL)
	paths := []string{"", "a", "b", "a, b", "b, a", "closed, a", "tenant, b", "tenant, closed, b", "public, a", `"$user", public`,
		"a, pg_catalog", "b, pg_catalog, a", "nowhere, a"}
	names := []string{"t", "only_b", "only_closed", "pg_class", "shadowed", "row_type", "seq", "pg_tables"}
	for _, role := range []string{"postgres", "app"} {
		for _, path := range paths {
			if _, err := conn.Exec(t.Context(), "SET ROLE "+role+"; SELECT set_config('search_path', "+literal(path)+", false)"); err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				var want *uint32
				if err := conn.QueryRow(t.Context(), "SELECT to_regclass($1)::oid", name).Scan(&want); err != nil {
					t.Fatal(err)
				}
				checkAgainst(t, c, role, path, name, want)
			}
		}
	}
	if _, err := conn.Exec(t.Context(), "RESET ROLE"); err != nil {
		t.Fatal(err)
	}
}

// checkAgainst compares with what PostgreSQL found, nil for nothing. What is found for a
// path without a role may only be more, never another.
func checkAgainst(t *testing.T, c *Catalog, role, path, name string, want *uint32) {
	t.Helper()
	table, r := c.Table("", name, c.PathFor(path, role))
	if (r == Resolved) != (want != nil) || want != nil && table.OID != *want || r == Ambiguous {
		t.Errorf("%s as %s under %q: %s %+v, PostgreSQL finds %v", name, role, path, r, table, want)
	}
	table, r = c.Table("", name, c.Path(path))
	if want != nil && (r == NotFound || r == Resolved && table.OID != *want) {
		t.Errorf("%s under %q: %s %+v, PostgreSQL finds %d for %s", name, path, r, table, *want, role)
	}
}

func literal(s string) string { return "'" + s + "'" }

func TestTypeOf(t *testing.T) {
	c, _ := loadSchema(t, resolveSQL)
	for _, q := range []struct {
		schema, name string
		path         Path
		want         string
	}{
		{"", "int4", Path{}, "ambiguous"},
		{"", "int4", c.Path("a"), "pg_catalog"},
		{"pg_catalog", "int4", Path{}, "pg_catalog"},
		{"", "d", c.Path("a, b"), "a"},
		{"", "d", c.Path("b, a"), "b"},
		{"", "tab", c.Path("a, b"), "a"}, // a row type
		{"", "tab", c.Path("b, a"), "b"},
		{"", "nobody", c.Path("b, a"), "not found"},
	} {
		typ, r := c.TypeOf(q.schema, q.name, q.path)
		got := r.String()
		if typ != nil {
			got = typ.Schema
		}
		if got != q.want {
			t.Errorf("%s.%s: %s, want %s", q.schema, q.name, got, q.want)
		}
	}
	if d, _ := c.TypeOf("b", "d", Path{}); !d.Domain() || d.Base != oidText || c.BaseOf(d.OID) != oidText || c.TypeByOID(d.OID) != d {
		t.Errorf("b.d: %+v", d)
	}
	if c.BaseOf(oidInt4) != oidInt4 || c.BaseOf(1) != 0 {
		t.Error("base types")
	}
}

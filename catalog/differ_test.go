package catalog

import (
	"strings"
	"testing"
)

func printDifferences(list []Difference) string {
	var b strings.Builder
	for _, d := range list {
		b.WriteString(strings.Join(strings.Fields(d.String()), " ") + "\n")
	}
	return b.String()
}

// TestDiffer compares a schema with itself made in another way, and then with one
// in which something of everything was changed.
func TestDiffer(t *testing.T) {
	schema := readFile(t, "testdata/tables/schema.sql")
	a, _ := loadSchema(t, schema)
	b, conn := loadSchema(t, "CREATE TABLE public.waste (a int); DROP TABLE public.waste;"+schema+`
		ALTER SEQUENCE app.customers_id_seq RENAME TO another_name;
		ALTER SEQUENCE app.orders_id_seq RENAME TO another_name_2;
		ALTER TABLE app.items ADD z int; ALTER TABLE app.items DROP z;
		COMMENT ON TABLE app.items IS 'x'; GRANT SELECT ON app.items TO app;
		CREATE SCHEMA apart; CREATE TABLE apart.t (a int); CREATE TYPE apart.e AS ENUM ('x');
		CREATE FUNCTION apart.f() RETURNS int LANGUAGE sql AS 'SELECT 1'`)
	if d := Differ(a, b, "apart"); len(d) > 0 {
		t.Errorf("equal schemas differ:\n%s", printDifferences(d))
	}
	if d := printDifferences(Differ(a, b)); d != "type apart.e: nothing / there\ntable apart.t: nothing / there\nfunction apart.f(): nothing / there\n" {
		t.Errorf("the schema that was excepted before:\n%s", d)
	}
	if _, err := conn.Exec(t.Context(), "ALTER SEQUENCE app.another_name RENAME TO customers_id_seq;"+readFile(t, "testdata/tables/changes.sql")); err != nil {
		t.Fatal(err)
	}
	c := reload(t, conn)
	list := Differ(a, c, "apart")
	golden(t, "testdata/tables/changes.golden", printDifferences(list))
	back := Differ(c, a, "apart")
	if len(back) != len(list) {
		t.Fatalf("%d differences, and %d the other way round", len(list), len(back))
	}
	for i, d := range back {
		d.A, d.B = d.B, d.A
		if list[i].Kind == d.Kind {
			if d != list[i] {
				t.Errorf("the other way round: %v, not %v", d, list[i])
			}
		}
	}
}

package verify

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const shop = `
CREATE TYPE mood AS ENUM ('good', 'bad', 'worse'); CREATE TYPE size AS ENUM ('s'); CREATE DOMAIN word AS text CHECK (VALUE <> '');
CREATE SCHEMA more; CREATE TABLE more.nation (id int PRIMARY KEY);
CREATE SCHEMA alone; CREATE TABLE alone.single (id int);
CREATE TABLE customers (id bigint PRIMARY KEY, name text NOT NULL, note varchar(20), mood mood DEFAULT 'good', age int CHECK (age > 0));
CREATE TABLE orders (id int, customer_id bigint REFERENCES customers, note text DEFAULT 'x', extra int, PRIMARY KEY (customer_id, id));
CREATE TABLE products (id int PRIMARY KEY, name text);
CREATE INDEX orders_note ON orders (note); CREATE INDEX orders_extra ON orders (extra);
CREATE TABLE settings (k text); CREATE TABLE here_only (k text);
CREATE VIEW few AS SELECT id FROM customers WHERE name = 'x'; CREATE VIEW of_single AS SELECT * FROM settings;
CREATE FUNCTION double(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT a * 2'; CREATE FUNCTION triple(a int) RETURNS int LANGUAGE sql AS 'SELECT a * 3';
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touched BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch(); CREATE TRIGGER touched2 BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch();
CREATE POLICY mine ON orders AS RESTRICTIVE FOR SELECT TO app USING (note = 'x'); CREATE RULE quiet AS ON DELETE TO products DO ALSO NOTHING;
CREATE EXTENSION lo`

const shopRules = "    tables: {customers: {key: id}, orders: {key: customer_id}, products: {reference: true}, more.nation: {reference: true}}\n"

// changes make a shard differ, each in one way: what is said of it, and whether the
// statement that is given mends it.
var changes = []struct {
	sql, message string
	mends        bool
}{
	{"ALTER TABLE orders DROP COLUMN extra; ALTER TABLE orders ADD COLUMN gone int; ALTER TABLE orders DROP COLUMN gone", "table public.orders, column extra is missing (integer)", true},
	{"ALTER TABLE orders ADD COLUMN mine int", "table public.orders, column mine is here (integer), and not on s0", false},
	{"ALTER TABLE orders ALTER COLUMN customer_id TYPE integer", "column customer_id: its type is integer, on s0 it is bigint; it is the table's key: rows may not be found on s1", true},
	{"ALTER TABLE products DROP COLUMN id; ALTER TABLE products ADD COLUMN id int PRIMARY KEY", "order of columns is name, id, on s0 it is id, name", false},
	{"ALTER TABLE orders ALTER COLUMN extra TYPE smallint", "column extra: its type is smallint, on s0 it is integer", true},
	{"ALTER TABLE orders ALTER COLUMN note DROP DEFAULT", "column note: its default is nothing, on s0 it is 'x'::text", true},
	{"ALTER TABLE orders ALTER COLUMN extra SET DEFAULT 1", "column extra: its default is 1, on s0 it is nothing", true},
	{"ALTER TABLE customers ALTER COLUMN name DROP NOT NULL", "column name: its not null is no, on s0 it is yes", true},
	{"ALTER TABLE customers ALTER COLUMN note SET NOT NULL", "column note: its not null is yes", true},
	{"DROP INDEX orders_note", "table public.orders, index orders_note is missing", true},
	{"DROP INDEX orders_note; CREATE INDEX orders_note ON orders (note DESC)", "index orders_note: its definition is", true},
	{"ALTER TABLE products DROP CONSTRAINT products_pkey", "index products_pkey is missing", true},
	{"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'orders_note'::regclass", "index orders_note: its valid is no", true},
	{"CREATE UNIQUE INDEX odd ON products (name)", "table public.products, index odd is here", false},
	{"ALTER TABLE customers DROP CONSTRAINT customers_age_check", "constraint customers_age_check is missing", true},
	{"ALTER TABLE orders DROP CONSTRAINT orders_customer_id_fkey", "constraint orders_customer_id_fkey is missing", true},
	{"ALTER TABLE orders DROP CONSTRAINT orders_customer_id_fkey, ADD FOREIGN KEY (customer_id) REFERENCES customers NOT VALID", "orders_customer_id_fkey: its validated is no", true},
	{"DROP TRIGGER touched ON orders", "trigger touched is missing", true},
	{"ALTER TABLE orders DISABLE TRIGGER touched2", "trigger touched2: its enabled is D, on s0 it is O", true},
	{"DROP POLICY mine ON orders", "policy mine is missing", true},
	{"DROP RULE quiet ON products", "rule quiet is missing", true},
	{"ALTER TABLE orders ENABLE ROW LEVEL SECURITY", "its row security is enabled, on s0 it is disabled", true},
	{"ALTER TABLE products SET UNLOGGED", "its unlogged is yes", true},
	{"ALTER TABLE products REPLICA IDENTITY FULL", "its replica identity is f", true},
	{"ALTER TABLE products RENAME name TO i", "table public.products, column name is missing", false},
	{"DROP TABLE products", "table public.products is missing; pg_dump --schema-only --table='\"public\".\"products\"' of s0", false},
	{"DROP SCHEMA more CASCADE; CREATE SCHEMA x", "schema more is missing", false},
	{"DROP TYPE size", "type public.size is missing", true},
	{"ALTER TYPE mood RENAME TO old; CREATE TYPE mood AS ENUM ('bad'); ALTER TABLE customers ALTER mood DROP DEFAULT, ALTER mood TYPE mood USING NULL; DROP TYPE old; ALTER TABLE customers ALTER mood SET DEFAULT 'bad'",
		"type public.mood: its definition is bad, on s0 it is good; bad; worse", true},
	{"ALTER TYPE size ADD VALUE 'xl'", "type public.size: its definition is s; xl", false},
	{"DROP DOMAIN word", "type public.word is missing", false},
	{"DROP FUNCTION double", "function public.double(int4) is missing", true},
	{"CREATE OR REPLACE FUNCTION triple(a int) RETURNS int LANGUAGE sql AS 'SELECT a * 4'", "function public.triple(int4): its body is SELECT a * 4, on s0 it is SELECT a * 3", true},
	{"DROP VIEW few", "view public.few is missing", true},
	{"CREATE OR REPLACE VIEW few AS SELECT id FROM customers", "view public.few: its view is", true},
	{"DROP EXTENSION lo", "extension lo is missing", true},
}

// findings returns what a comparison of two shards says, without notes.
func (f *fleet) findings() []Finding {
	f.t.Helper()
	return slices.DeleteFunc(f.all(), func(x Finding) bool { return x.Severity == Note })
}

// notes returns the notes of that comparison.
func (f *fleet) notes() []Finding {
	f.t.Helper()
	return slices.DeleteFunc(f.all(), func(x Finding) bool { return x.Severity != Note })
}

func (f *fleet) all() []Finding {
	f.t.Helper()
	if f.home == nil {
		f.home = f.openOne(0) // nothing changes its schema
	}
	sessions := []*Session{f.home, f.openOne(1)}
	found, err := Schema(f.t.Context(), f.rules, sessions, true)
	if err != nil {
		f.t.Fatal(err)
	}
	sessions[1].Close()
	return found
}

func messages(all []Finding) string {
	var b strings.Builder
	for _, x := range all {
		fmt.Fprintf(&b, "%s %s: %s\n", x.Severity, x.Shard, x.Message)
	}
	return b.String()
}

// TestDifferences sees each kind, says it, and gives statements that mend it.
func TestDifferences(t *testing.T) {
	t.Parallel()
	var f *fleet
	for i, change := range changes {
		if f == nil {
			f = newFleet(t, 2, shop, shopRules)
		}
		if i == 0 {
			// What is single may be on the home shard alone.
			f.dbs[1].Exec("DROP VIEW of_single; DROP TABLE here_only, settings; DROP SCHEMA alone CASCADE")
			if got := messages(f.findings()); got != "" {
				t.Fatal(got)
			}
		}
		f.dbs[1].Exec(change.sql)
		found := f.findings()
		if got := messages(found); !strings.Contains(got, change.message) {
			t.Errorf("%s\nis told as\n%swant %s", change.sql, got, change.message)
		}
		for _, x := range found {
			f.mend(x)
		}
		if got := messages(f.findings()); (got == "") != change.mends {
			t.Errorf("%s\nafter its mending:\n%swas\n%s", change.sql, got, messages(found))
		}
		if !change.mends {
			f = nil // the next one begins anew
		}
	}
}

// mend runs what mends a finding.
func (f *fleet) mend(x Finding) {
	f.t.Helper()
	if x.Mend == "" {
		return
	}
	if x.MendOn != "s1" && x.Kind != "sequence" {
		f.t.Errorf("%+v", x)
	}
	db := f.dbs[1]
	if x.MendOn == "s0" {
		db = f.dbs[0]
	}
	if x.Kind == "function" {
		db.Exec(x.Mend) // its body has semicolons
		return
	}
	for _, one := range strings.Split(x.Mend, "; ") {
		db.Exec(one)
	}
}

// TestFit: what does not fit the rules is said without a comparison.
func TestFit(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, `
		CREATE TABLE customers (id bigint PRIMARY KEY, email text UNIQUE, at int4range, EXCLUDE USING gist (at WITH &&));
		CREATE TABLE orders (id serial PRIMARY KEY, customer_id bigint REFERENCES customers, region text);
		CREATE TABLE notes (id int, customer_id int REFERENCES orders (id)); CREATE TABLE odd (a float8); CREATE TABLE keyless (a int);
		CREATE TABLE settings (k int PRIMARY KEY); CREATE TABLE products (id int PRIMARY KEY, setting int REFERENCES settings);
		CREATE TABLE accepted (id int PRIMARY KEY, customer_id int REFERENCES settings); CREATE TABLE parts (customer_id int, id bigint GENERATED ALWAYS AS IDENTITY) PARTITION BY HASH (customer_id);
		CREATE TABLE parts1 PARTITION OF parts FOR VALUES WITH (MODULUS 1, REMAINDER 0); CREATE TABLE tree (customer_id int, id int, up int, PRIMARY KEY (customer_id, id), FOREIGN KEY (customer_id, up) REFERENCES tree);
		CREATE TABLE regions (region text PRIMARY KEY)`,
		`    keys: [customer_id]
    tables: {customers: {key: id}, odd: {key: a}, keyless: {key: b}, nowhere: {key: id}, products: {reference: true}, settings: {single: true},
      accepted: {key: customer_id, per_shard_constraints: true}, regions: {key: region, per_shard_constraints: true, list: {s0: [a], s1: [b]}}}
`)
	f.dbs[1].Exec("INSERT INTO orders (id) VALUES (41); INSERT INTO parts VALUES (1); INSERT INTO settings VALUES (1)")
	want := `fault : table nowhere has a rule in the configuration and is not on s0
fault : public.customers, exclusion constraint customers_at_excl: it does not have the key column id, so that each shard checks its own rows only; writes are refused
fault : public.customers, unique index customers_email_key: it does not have the key column id, so that each shard checks its own rows only; writes are refused
fault : public.keyless, column b: it is to be the key, and is missing
fault : public.notes, foreign key notes_customer_id_fkey: it refers to public.orders, and does not have the key of both tables, so that the rows may be on different shards; writes are refused
fault : public.odd, column a: it is to be the key, and cannot be one: `
	all := f.findings()
	if got := messages(all); !strings.HasPrefix(got, want) {
		t.Errorf("%s\nwant %s", got, want)
	}
	for _, more := range []string{"fault : public.orders, primary key orders_pkey", "fault : public.products, foreign key products_setting_fkey: it refers to public.settings, a single table, from a reference table",
		`fault : sequence "public"."orders_id_seq" on s0 will give 1 next, but public.orders has id = 41 on shard s1`, `fault : sequence "public"."parts_id_seq" on s0 will give 1 next`,
		"fault s1: single table public.settings has rows here"} {
		if got := messages(all); !strings.Contains(got, more) {
			t.Errorf("%s\nwant %s", got, more)
		}
	}
	for _, more := range []string{
		"note : public.accepted, primary key accepted_pkey: it does not have the key column customer_id, so that each shard checks its own rows only, as per_shard_constraints accepts\n",
		"note : public.accepted, foreign key accepted_customer_id_fkey: it refers to public.settings, a single table, from a sharded table: the rows are elsewhere, as per_shard_constraints accepts\n",
		"note : public.regions, per_shard_constraints: all of its constraints hold over all shards without it\n",
	} {
		if got := messages(f.notes()); !strings.Contains(got, more) {
			t.Errorf("%s\nwant %s", got, more)
		}
	}
	if len(all) != 11 {
		t.Errorf("%d findings:\n%s", len(all), messages(all))
	}
	for _, x := range all {
		f.mend(x)
	}
	if got := messages(f.findings()); strings.Contains(got, "sequence") {
		t.Error(got)
	}
	if got := f.dbs[0].Value("SELECT nextval('orders_id_seq')"); got != "42" {
		t.Errorf("the sequence gives %s", got)
	}
}

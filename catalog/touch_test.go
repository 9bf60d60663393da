package catalog

import (
	"strings"
	"testing"

	"shardproxy/internal/pgtest"
)

const touchSQL = `
CREATE TABLE a (id int PRIMARY KEY, x int);
CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a ON DELETE CASCADE);
CREATE TABLE c (id int PRIMARY KEY, b int REFERENCES b ON UPDATE SET NULL);
CREATE TABLE d (id int REFERENCES a);
CREATE VIEW over_a AS SELECT a.x, b.id FROM a JOIN b ON b.a = a.id;
CREATE VIEW over_view AS SELECT * FROM over_a;
CREATE VIEW of_today AS SELECT x, CURRENT_DATE AS day FROM a;
CREATE VIEW of_user AS SELECT x FROM a WHERE x::text = current_user;
CREATE VIEW of_now AS SELECT x FROM a WHERE now() > '2000-01-01';
CREATE VIEW of_chance AS SELECT x FROM a WHERE random() < 0.5;
CREATE VIEW written AS SELECT x FROM a WHERE to_char(x, '9') = '1';

CREATE TABLE parts (k int) PARTITION BY LIST (k);
CREATE VIEW over_parts AS SELECT * FROM parts;
CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN (1);

CREATE TABLE stamped (id int, at timestamptz);
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.at = now(); RETURN NEW; END';
CREATE TRIGGER t BEFORE INSERT ON stamped FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE TABLE logged (id int);
CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO c VALUES (NEW.id); RETURN NULL; END';
CREATE TRIGGER t AFTER INSERT ON logged FOR EACH ROW EXECUTE FUNCTION log();
CREATE TABLE guessed (id int);
CREATE FUNCTION guess() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN EXECUTE NEW.id::text; RETURN NULL; END';
CREATE TRIGGER t AFTER INSERT ON guessed FOR EACH ROW EXECUTE FUNCTION guess();
CREATE TABLE ruled (id int);
CREATE RULE r AS ON INSERT TO ruled DO ALSO INSERT INTO d VALUES (1);

CREATE TABLE seen (id int, owner text);
ALTER TABLE seen ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON seen USING (owner = current_user AND EXISTS (SELECT FROM d WHERE d.id = seen.id));

CREATE FUNCTION looks(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT x FROM a WHERE id = $1';
CREATE VIEW of_looks AS SELECT looks(id) FROM b;
CREATE FUNCTION sums(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1';
CREATE FUNCTION pays(int) RETURNS void LANGUAGE sql AS 'UPDATE a SET x = 1; SELECT NULL::void';
CREATE FUNCTION full_row(b) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION looks_op(int, int) RETURNS bool STABLE LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM a)';
CREATE OPERATOR <#> (LEFTARG = int, RIGHTARG = int, FUNCTION = looks_op);
`

// TestTouch asks what single reads and writes come to.
func TestTouch(t *testing.T) {
	conn := connect(t, pgtest.Shared(t).DSN("postgres"))
	if _, err := conn.Exec(t.Context(), touchSQL); err != nil {
		t.Fatal(err)
	}
	c, err := Load(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	show := func(r Reach) string {
		s := strings.ReplaceAll(strings.Join(r.Tables, " "), "public.", "")
		if named := strings.ReplaceAll(strings.Join(r.Named, " "), "public.", ""); named != s && named != "" {
			s += " by " + named
		}
		if r.Any {
			s += " *"
		}
		return strings.TrimSpace(s)
	}
	for name, want := range map[string]string{
		"a": "a", "over_a": "a b", "over_view": "a b", "of_today": "a *", "of_user": "a", "of_now": "a *", "of_chance": "a *", "written": "a",
		"parts": "part_1 parts by parts", "part_1": "part_1", "over_parts": "part_1 parts by parts", "seen": "d seen by seen", "of_looks": "b *", "nowhere": "*",
	} {
		if got := show(c.Reads("", name, Path{})); got != want {
			t.Errorf("reading %s: %s; want %s", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"a": "a b c", "b": "b c", "c": "c", "d": "d", "stamped": "stamped", "logged": "c logged", "guessed": "guessed *", "ruled": "d ruled",
		"parts": "part_1 parts", "over_a": "a b c", "nowhere": "*",
	} {
		if got := show(c.Touches("", name, Path{})); got != want {
			t.Errorf("writing to %s: %s; want %s", name, got, want)
		}
	}
	for name, want := range map[string]string{"pays": "a b c", "looks": "", "nextval": "", "random": "", "query_to_xml": "*", "nowhere": "*", "guess": "*"} {
		if got := show(c.Calls("", name, -1, Path{})); got != want {
			t.Errorf("calling %s: %s; want %s", name, got, want)
		}
	}
	for name, want := range map[string]bool{"lower": true, "sums": true, "looks": false, "now": false, "random": false, "to_char": true, "nowhere": false,
		"count": true, "clock_timestamp": false, "current_setting": true, "bernoulli": false} {
		if got := c.Steady("", name, -1, Path{}); got != want {
			t.Errorf("%s is steady: %t", name, got)
		}
	}
	for args, want := range map[int]bool{1: false, 2: true} {
		if got := c.Steady("", "age", args, Path{}); got != want {
			t.Errorf("age with %d arguments is steady: %t", args, got)
		}
	}
	for name, want := range map[string]bool{"=": true, "!=": true, "<": true, "||": true, "+": true, "-": true, "@@": true, "~~": true, "<#>": false, "<#####>": false} {
		if got := c.SteadyOperator("", name, Path{}); got != want {
			t.Errorf("operator %s is steady: %t", name, got)
		}
	}
	for name, want := range map[string]bool{"full_row": false, "x": true} {
		if got := c.SteadyAttribute(name); got != want {
			t.Errorf("what .%s may call is steady: %t", name, got)
		}
	}
}

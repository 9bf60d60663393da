package verify

import (
	"context"
	"errors"
	"strings"
	"testing"
)

const families = `
CREATE TABLE a_child (id int PRIMARY KEY, parent int NOT NULL, up int REFERENCES a_child);
CREATE TABLE z_parent (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, number int GENERATED ALWAYS AS IDENTITY,
	twice int GENERATED ALWAYS AS (id * 2) STORED, name text UNIQUE);
ALTER TABLE a_child ADD FOREIGN KEY (parent) REFERENCES z_parent;
INSERT INTO z_parent (name) SELECT 'n' || i FROM generate_series(1, 20) i;
INSERT INTO a_child SELECT i, i, NULLIF(i - 1, 0) FROM generate_series(1, 20) i`

// TestFamilies mends tables that refer to each other and to themselves, with columns
// that nobody may set.
func TestFamilies(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, families, "    tables: {a_child: {reference: true}, z_parent: {reference: true}}\n")
	f.dbs[1].Exec(`INSERT INTO z_parent (id, name) OVERRIDING SYSTEM VALUE SELECT i, 'm' || i FROM generate_series(31, 40) i;
		INSERT INTO a_child SELECT i, i, NULLIF(i, 31) - 1 FROM generate_series(31, 40) i;
		DELETE FROM a_child WHERE id IN (20, 19); DELETE FROM z_parent WHERE id IN (20, 19); UPDATE z_parent SET name = 'n20' WHERE id = 3;
		INSERT INTO z_parent (id, number, name) OVERRIDING SYSTEM VALUE VALUES (50, 50, 'n19')`)
	f.mends(f.checker(Options{}), "a_child s1 -2 +10 ~0, z_parent s1 -2 +11 ~1", "a_child s1 +2 -10 ~0, z_parent s1 +2 -11 ~1")
	f.alike("SELECT * FROM a_child ORDER BY id")
	f.alike("SELECT * FROM z_parent ORDER BY id")

	f.dbs[1].Exec(`DELETE FROM a_child WHERE id = 20; DELETE FROM z_parent WHERE id = 20; INSERT INTO z_parent (id, number, name) OVERRIDING SYSTEM VALUE VALUES (20, 77, 'n20')`)
	f.mends(f.checker(Options{}), "a_child s1 -1 +0 ~0, z_parent s1 -0 +0 ~1", "a_child s1 +1 -0 ~0, z_parent s1 +1 -1 ~0")
}

// fails repairs, which must fail and change nothing.
func (f *fleet) fails(words ...string) {
	f.t.Helper()
	c := f.checker(Options{})
	found := f.compare(c)
	before := counts(found)
	if before == "" {
		f.t.Fatal("nothing differs")
	}
	err := c.Repair(f.t.Context(), found, inTurn)
	if err == nil {
		f.t.Fatal("it is mended")
	}
	for _, w := range words {
		if !strings.Contains(Told(err), w) {
			f.t.Errorf("%q does not say %q", Told(err), w)
		}
	}
	if after := counts(f.compare(f.checker(Options{}))); after != before || repaired(found) != "" {
		f.t.Errorf("%s, then %s; told: %s", before, after, repaired(found))
	}
}

// TestInTheWay: what a repair would do to other rows, or what others make of it, ends
// it, and nothing is changed.
func TestInTheWay(t *testing.T) {
	t.Parallel()
	const schema = `CREATE TABLE t (id int PRIMARY KEY, name text UNIQUE); INSERT INTO t SELECT i, 'n' || i FROM generate_series(1, 9) i;
		CREATE TABLE other (id int PRIMARY KEY, t int, name text)`
	const rules = "    tables: {t: {reference: true}, other: {key: id}}\n"
	for name, test := range map[string]struct {
		sql   string
		words []string
	}{
		"a cascade": {`ALTER TABLE other ADD CONSTRAINT o FOREIGN KEY (t) REFERENCES t ON DELETE CASCADE; INSERT INTO t VALUES (10, 'x'); INSERT INTO other VALUES (1, 10)`,
			[]string{"shard s1", `"public"."t"`, "in the way", `1 of "public"."other"`, `"o"`}},
		"a key set to NULL": {`ALTER TABLE other ADD FOREIGN KEY (t) REFERENCES t ON DELETE SET NULL; INSERT INTO t VALUES (10, 'x'); INSERT INTO other VALUES (1, 10)`, []string{"in the way"}},
		"a key that follows": {`ALTER TABLE other ADD FOREIGN KEY (name) REFERENCES t (name) ON UPDATE CASCADE; UPDATE t SET name = 'x' WHERE id = 1; INSERT INTO other VALUES (1, 1, 'x')`,
			[]string{"in the way"}},
		"a key that forbids": {`ALTER TABLE other ADD CONSTRAINT o FOREIGN KEY (t) REFERENCES t; INSERT INTO t VALUES (10, 'x'); INSERT INTO other VALUES (1, 10)`, []string{"23503", "Key (id)=(10)"}},
		"a trigger that raises": {`CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no % today', TG_OP; END $$;
			DELETE FROM t WHERE id = 1; CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()`, []string{"no INSERT today"}},
		"a trigger that changes": {`CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := 'other ' || NEW.name; RETURN NEW; END $$;
			DELETE FROM t WHERE id = 1; CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()`, []string{"does not become what it is on shard s0", "trigger"}},
		"names that swap": {`UPDATE t SET name = 'x' WHERE id = 1; UPDATE t SET name = 'n1' WHERE id = 2; UPDATE t SET name = 'n2' WHERE id = 1`, []string{"23505"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 2, schema, rules)
			f.dbs[1].Exec(test.sql)
			f.fails(test.words...)
		})
	}
	t.Run("a cascade to nobody", func(t *testing.T) {
		f := newFleet(t, 2, schema+"; ALTER TABLE other ADD FOREIGN KEY (t) REFERENCES t ON DELETE CASCADE ON UPDATE CASCADE; INSERT INTO other VALUES (1, 5)", rules)
		f.dbs[1].Exec("INSERT INTO t VALUES (10, 'x'); UPDATE t SET name = 'y' WHERE id = 5")
		f.mends(f.checker(Options{}), "t s1 -0 +1 ~1", "t s1 +0 -1 ~1")
		f.alike("SELECT * FROM other")
	})
	t.Run("a trigger of its usual path", func(t *testing.T) {
		f := newFleet(t, 2, schema+`; CREATE TABLE log (id int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (NEW.id); RETURN NULL; END $$;
			CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()`, rules)
		f.dbs[1].Exec("DELETE FROM t WHERE id = 4")
		f.mends(f.checker(Options{}), "t s1 -1 +0 ~0", "t s1 +1 -0 ~0")
		if got := f.dbs[1].Value("SELECT id FROM log"); got != "4" {
			t.Errorf("the trigger logged %s", got)
		}
	})
	t.Run("a commit that fails", func(t *testing.T) {
		f := newFleet(t, 2, schema, rules)
		f.dbs[1].Exec("DELETE FROM t WHERE id = 4")
		c := f.checker(Options{})
		found := f.compare(c)
		broken := errors.New("broken")
		err := c.Repair(t.Context(), found, func(ctx context.Context, all []*Session) error {
			for _, s := range all {
				s.rollback(ctx)
			}
			return broken
		})
		if !errors.Is(err, broken) || repaired(found) != "" || len(f.compare(c)) != 1 {
			t.Errorf("%v %s", err, repaired(found))
		}
	})
}

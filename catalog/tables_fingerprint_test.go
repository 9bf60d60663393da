package catalog

import (
	"testing"

	"shardproxy/internal/pgtest"
)

// TestTablesFingerprint checks that what only LoadTables reads is noticed when it
// changes, and that temporary tables are not taken for a change.
func TestTablesFingerprint(t *testing.T) {
	db := pgtest.Shared(t)
	conn := connect(t, db.DSN("postgres"))
	sum := func() string {
		t.Helper()
		s, err := tablesFingerprint(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE t (a int, b varchar(10)); CREATE TABLE p (k int) PARTITION BY LIST (k); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'")
	last := sum()
	for _, quiet := range []string{
		"INSERT INTO t VALUES (1)",
		"CREATE TEMP TABLE x (a serial PRIMARY KEY, b int DEFAULT 1 CHECK (b > 0))",
		"CREATE TEMP VIEW y AS SELECT * FROM x",
		"CREATE TRIGGER t AFTER INSERT ON x FOR EACH ROW EXECUTE FUNCTION f()",
		"CREATE TEMP TABLE z () INHERITS (x)",
		"DROP TABLE x CASCADE",
	} {
		exec(quiet)
		if s := sum(); s != last {
			t.Errorf("%s was taken for a change:\n%s\n%s", quiet, last, s)
			last = s
		}
	}
	for _, change := range []string{
		"ALTER TABLE t ALTER a SET NOT NULL",
		"ALTER TABLE t ALTER b TYPE varchar(20)",
		"ALTER TABLE t RENAME b TO c",
		"ALTER TABLE t ADD d int",
		"ALTER TABLE t DROP d",
		"ALTER TABLE t ALTER a SET DEFAULT 1",
		"CREATE UNIQUE INDEX i ON t (a)",
		"ALTER TABLE t REPLICA IDENTITY USING INDEX i",
		"ALTER INDEX i RENAME TO j",
		"DROP INDEX j",
		"ALTER TABLE t ADD CHECK (a > 0)",
		"CREATE SEQUENCE s",
		"ALTER SEQUENCE s INCREMENT 5",
		"CREATE TYPE e AS ENUM ('a')",
		"ALTER TYPE e ADD VALUE 'b'",
		"CREATE TYPE pair AS (a int)",
		"ALTER TYPE pair ADD ATTRIBUTE b int",
		"CREATE COLLATION c FROM \"C\"",
		"CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1)",
		"ALTER TABLE p DETACH PARTITION p1",
		"CREATE TRIGGER t AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
		"ALTER TABLE t DISABLE TRIGGER t",
		"GRANT USAGE ON SCHEMA public TO app; CREATE SCHEMA q; GRANT USAGE ON SCHEMA q TO app",
		"CREATE VIEW v WITH (security_invoker) AS SELECT 1 AS a",
		"ALTER VIEW v SET (security_invoker = off)",
	} {
		exec(change)
		if s := sum(); s == last {
			t.Errorf("not noticed: %s", change)
		} else {
			last = s
		}
	}
}

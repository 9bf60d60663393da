package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestObjectsOfTables defines, changes and drops what belongs to a table, of a table of the home shard alone and
// of one that all shards have: each runs where the table is.
func TestObjectsOfTables(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	c := s.connectLoaded()
	must(t, c, "CREATE TABLE lone (id int PRIMARY KEY, note text); CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
	count := func(sql string) (on string) {
		for _, cl := range s.shards {
			on += cl.Primary().Rows("app", sql)[0][0]
		}
		return on
	}
	for table, where := range map[string]string{"lone": "10", "orders": "11"} {
		for _, step := range []struct{ sql, check, want string }{
			{"CREATE INDEX %s_first ON %s (note)", "SELECT count(*) FROM pg_class WHERE relname = '%s_first'", where},
			{"ALTER INDEX %s_first RENAME TO %s_second", "SELECT count(*) FROM pg_class WHERE relname = '%s_second'", where},
			{"ALTER INDEX public.%s_second SET (fillfactor = 50)", "SELECT count(*) FROM pg_class WHERE relname = '%s_second' AND reloptions IS NOT NULL", where},
			{"COMMENT ON INDEX %s_second IS 'x'", "SELECT count(*) FROM pg_description WHERE objoid = to_regclass('%s_second')", where},
			{"COMMENT ON TABLE %s IS 'x'", "SELECT count(*) FROM pg_description WHERE objoid = to_regclass('%s') AND objsubid = 0", where},
			{"COMMENT ON COLUMN public.%s.note IS 'x'", "SELECT count(*) FROM pg_description WHERE objoid = to_regclass('%s') AND objsubid > 0", where},
			{"COMMENT ON CONSTRAINT %s_pkey ON %s IS 'x'", "SELECT count(*) FROM pg_description d JOIN pg_constraint c ON c.oid = d.objoid WHERE conname = '%s_pkey'", where},
			{"CREATE TRIGGER t BEFORE UPDATE ON %s EXECUTE FUNCTION nothing()", "SELECT count(*) FROM pg_trigger WHERE tgname = 't' AND tgrelid = to_regclass('%s')", where},
			{"ALTER TRIGGER t ON %s RENAME TO u", "SELECT count(*) FROM pg_trigger WHERE tgname = 'u' AND tgrelid = to_regclass('%s')", where},
			{"COMMENT ON TRIGGER u ON %s IS 'x'", "SELECT count(*) FROM pg_description d JOIN pg_trigger g ON g.oid = d.objoid WHERE tgname = 'u' AND tgrelid = to_regclass('%s')", where},
			{"DROP TRIGGER u ON %s", "SELECT count(*) FROM pg_trigger WHERE tgname = 'u' AND tgrelid = to_regclass('%s')", "00"},
			{"CREATE POLICY p ON public.%s", "SELECT count(*) FROM pg_policy WHERE polrelid = to_regclass('%s')", where},
			{"DROP POLICY p ON public.%s", "SELECT count(*) FROM pg_policy WHERE polrelid = to_regclass('%s')", "00"},
			{"BEGIN; DROP INDEX %s_second; COMMIT", "SELECT count(*) FROM pg_class WHERE relname = '%s_second'", "00"},
			{"DROP INDEX IF EXISTS %s_second", "SELECT count(*) FROM pg_class WHERE relname = '%s_second'", "00"},
		} {
			sql := strings.ReplaceAll(step.sql, "%s", table)
			if _, err := c.Exec(within(t, txBound), sql); err != nil {
				t.Errorf("%s: %v", sql, err)
				continue
			}
			if got := count(fmt.Sprintf(step.check, table)); got != step.want {
				t.Errorf("%s: it is on %s, want %s", sql, got, step.want)
			}
		}
	}
	// A view that reads no table is on all shards, and so is one of it.
	for _, step := range []struct{ sql, want string }{
		{"CREATE VIEW bare AS SELECT i FROM generate_series(1, 3) i", "11"}, {"CREATE OR REPLACE VIEW bare AS SELECT i, 1 AS one FROM generate_series(1, 3) i", "11"},
		{"CREATE VIEW barer AS SELECT * FROM bare", "22"}, {"ALTER VIEW barer RENAME TO barest", "22"}, {"COMMENT ON VIEW barest IS 'x'", "22"}, {"DROP VIEW barest", "11"},
		{"DROP VIEW bare", "00"}, {"CREATE VIEW bare AS SELECT * FROM lone", "10"}, {"DROP VIEW bare", "00"},
	} {
		must(t, c, step.sql)
		if got := count("SELECT count(*) FROM pg_class WHERE relname LIKE 'bare%'"); got != step.want {
			t.Errorf("%s: views are on %s, want %s", step.sql, got, step.want)
		}
	}
	// One that nobody knows of yet is an error where it is not, and nothing is done.
	must(t, c, "BEGIN")
	must(t, c, "CREATE INDEX new_one ON lone (note)")
	fails(t, c, "ALTER INDEX new_one RENAME TO newer", "42P01")
	must(t, c, "ROLLBACK")
	fails(t, c, "DROP INDEX nobody", "42704")
}

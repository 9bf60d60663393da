package main

import "testing"

// TestBackslashesInKeys has a role for which backslashes in plain strings escape, without any session having said so.
func TestBackslashesInKeys(t *testing.T) {
	s := startShards(t, 2, "      named: {key: name}")
	for i := range s.shards {
		s.direct(i, "ALTER ROLE app SET standard_conforming_strings = off")
	}
	off := s.connectLoaded()
	must(t, off, "CREATE TABLE named (name text PRIMARY KEY)")
	if got := one(t, off, "SHOW standard_conforming_strings"); got != "off" {
		t.Fatal(got)
	}
	for _, sql := range []string{`INSERT INTO named VALUES ('c\\d')`, `SELECT * FROM named WHERE name = 'a\\b'`} {
		if _, err := off.PgConn().Exec(t.Context(), sql).ReadAll(); sqlState(err) != "0A000" {
			t.Errorf("%s: %v", sql, err)
		}
	}
	must(t, off, `INSERT INTO named VALUES (E'c\\d')`)
	if got := one(t, off, "SELECT count(*) FROM named WHERE name = $1", `c\d`); got != "1" {
		t.Error(got)
	}
	must(t, off, "SET standard_conforming_strings = on")
	must(t, off, `INSERT INTO named VALUES ('e\f')`)
	if got := one(t, off, "SELECT count(*) FROM named WHERE name = $1", `e\f`); got != "1" {
		t.Error(got)
	}
}

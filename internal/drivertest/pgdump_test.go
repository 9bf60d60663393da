package drivertest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"shardproxy/internal/clientrun"
)

// dumped matches the lines of a dump that differ by chance.
var dumped = regexp.MustCompile(`(?m)^(\\(un)?restrict|-- (Started|Completed) on) .*\n`)

const dumpSchema = `
CREATE SCHEMA shop;
CREATE TYPE shop.state AS ENUM ('new', 'paid');
CREATE TABLE shop.customers (id serial PRIMARY KEY, name text NOT NULL, born date);
CREATE TABLE shop.orders (id bigint PRIMARY KEY, customer int REFERENCES shop.customers, state shop.state DEFAULT 'new', note text, at timestamptz, blob bytea);
INSERT INTO shop.customers (name, born) SELECT 'c' || i, date '2000-01-01' + i FROM generate_series(1, 500) i;
INSERT INTO shop.orders SELECT i, 1 + i % 500, 'paid', E'tab\t and \\ ' || i, timestamptz '2024-01-01 00:00:00+00' + i * interval '1 second', decode('00ff', 'hex') FROM generate_series(1, 5000) i;
CREATE VIEW shop.paid AS SELECT * FROM shop.orders WHERE state = 'paid';
CREATE FUNCTION shop.f(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN $1 + 1; END $$;
SELECT lo_from_bytea(4711, 'a large object');
`

// TestDump dumps in all the ways of pg_dump, and restores.
func TestDump(t *testing.T) {
	folder := t.TempDir()
	compare(t, "pgdump", func(l leg, _ []string) (string, error) {
		text := clientrun.SectionMark + "fill\n"
		file := filepath.Join(folder, l.name+".sql")
		if err := os.WriteFile(file, []byte(dumpSchema), 0o600); err != nil {
			return text, err
		}
		out, err := psql(l, "-q", "-At", "-v", "ON_ERROR_STOP=1", "-f", file)
		if text += out; err != nil {
			return text, err
		}
		for _, args := range [][]string{{}, {"--data-only"}, {"--schema-only", "--no-owner"}, {"--data-only", "--inserts", "--rows-per-insert=100", "-t", "shop.orders"},
			{"--serializable-deferrable", "--data-only", "-n", "shop"}} {
			text += clientrun.SectionMark + fmt.Sprint("dump ", args) + "\n"
			out, err := runScript(l, nil, "pg_dump", args...)
			if text += dumped.ReplaceAllString(out, ""); err != nil {
				return text, err
			}
		}
		// By two connections that share a snapshot, and back by two.
		archive := filepath.Join(folder, l.name+".dir")
		text += clientrun.SectionMark + "in parallel\n"
		for _, command := range [][]string{
			{"pg_dump", "-Fd", "-j2", "-f", archive},
			{"psql", "-X", "-q", "-c", "DROP SCHEMA shop CASCADE", "-c", "SELECT lo_unlink(4711)"},
			{"pg_restore", "-j2", "--exit-on-error", "-d", l.database, archive},
			{"psql", "-X", "-At", "-c", "BEGIN", "-c", "SELECT count(*), sum(length(note)), max(at) FROM shop.orders", "-c", "SELECT encode(lo_get(4711), 'escape')",
				"-c", "SELECT setval('shop.customers_id_seq', 600)", "-c", "INSERT INTO shop.customers (name) VALUES ('new') RETURNING id", "-c", "COMMIT"},
		} {
			out, err := runScript(l, nil, command[0], command[1:]...)
			if text += out; err != nil {
				return text, err
			}
		}
		return text, nil
	})
}

package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestDrawsTexts has random UUIDs as the texts of keys, and of columns that all shards have alike, whichever way the rows come.
func TestDrawsTexts(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2, "      labels: {key: id}\n      marks: {reference: true}\n      odd: {key: id}\n")
	c := s.connectLoaded()
	must(t, c, "CREATE TABLE labels (id text PRIMARY KEY DEFAULT gen_random_uuid()::text, note text, other varchar(36) DEFAULT gen_random_uuid())")
	must(t, c, "CREATE TABLE marks (note text, id varchar(40) DEFAULT gen_random_uuid()::varchar(36), other char(36) DEFAULT gen_random_uuid(), PRIMARY KEY (id))")
	must(t, c, "CREATE TABLE odd (id text PRIMARY KEY DEFAULT md5(random()::text), note varchar(20) DEFAULT gen_random_uuid()::varchar(20))")
	must(t, c, "INSERT INTO customers VALUES (1, 'of 1'), (2, 'of 2'), (3, 'of 3')")
	for _, table := range []string{"labels", "marks"} {
		must(t, c, "INSERT INTO "+table+" (note) VALUES ($1)", "a")
		must(t, c, "INSERT INTO "+table+" (note) VALUES ('b'), ('c'), ('d')", pgx.QueryExecModeSimpleProtocol)
		must(t, c, "INSERT INTO "+table+" (id, note) VALUES (DEFAULT, 'e'), ('mine', 'f')")
		must(t, c, "INSERT INTO "+table+" DEFAULT VALUES")
		must(t, c, "INSERT INTO "+table+" (note) SELECT name FROM customers")
		if n, err := copied(t, c, "COPY "+table+" (note) FROM STDIN", "g\nh\n"); err != nil || n != 2 {
			t.Error(n, err)
		}
		if n, err := c.CopyFrom(t.Context(), pgx.Identifier{table}, []string{"note"}, pgx.CopyFromRows([][]any{{"i"}, {"j"}})); err != nil || n != 2 {
			t.Error(n, err)
		}
		rows, err := c.Query(t.Context(), "SELECT id, other FROM "+table)
		if err != nil {
			t.Fatal(err)
		}
		type uuids struct{ ID, Other string }
		all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[uuids])
		if err != nil || len(all) != 14 {
			t.Fatal(all, err)
		}
		known := map[string]bool{}
		for _, u := range all {
			known[u.ID], known[u.Other] = true, true
			if len(u.ID) != 36 && u.ID != "mine" || len(u.Other) != 36 {
				t.Errorf("%s: %+v", table, u)
			}
			if got := one(t, c, "SELECT count(*) FROM "+table+" WHERE id = $1", u.ID); got != "1" {
				t.Errorf("%s: %s rows with the key %s", table, got, u.ID)
			}
		}
		if len(known) != 28 {
			t.Errorf("%s: %d values, want 28", table, len(known))
		}
	}
	if all := s.onEach("SELECT md5(string_agg(m::text, ',' ORDER BY id)) FROM marks m"); all[0] != all[1] {
		t.Error("the copies differ:", all)
	}
	for _, sql := range []string{"INSERT INTO odd (note) VALUES ('x')", "INSERT INTO odd (id) VALUES ('x'), ('y')"} {
		if _, err := c.Exec(t.Context(), sql); sqlState(err) != "0A000" || !strings.Contains(fmt.Sprint(err), "is volatile") {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

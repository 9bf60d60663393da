package main

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestGatherOfHomeTables joins tables that only the home shard has with sharded ones.
func TestGatherOfHomeTables(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 3, "      felt: {key: id}", "runtime: {driver: "+driver+"}")
			c := s.connectLoaded()
			must(t, c, "CREATE TYPE mood AS ENUM ('sad', 'glad')")
			must(t, c, "CREATE TABLE lone (id int, name varchar(5), kind char(3), bits bit(2), feels mood, many numeric(10,2)[], at timestamptz)")
			must(t, c, "INSERT INTO lone SELECT i, 'n' || i, 'k', B'10', 'glad', ARRAY[i, NULL], '2020-01-01' FROM generate_series(1, 20) i")
			for i := range 20 {
				must(t, c, "INSERT INTO customers (id, name) VALUES ($1, 'c')", i+1)
			}
			for _, cl := range s.shards[1:] {
				if n := cl.Primary().Rows("app", "SELECT count(*) FROM pg_class WHERE relname = 'lone'")[0][0]; n != "0" {
					t.Fatal("another shard has the table of the home shard")
				}
			}
			// A type has another number on each server, for the home shard has more.
			must(t, c, "CREATE TABLE felt (id int PRIMARY KEY, feels mood, list mood[])")
			must(t, c, "INSERT INTO felt SELECT i, 'glad', '{sad}' FROM generate_series(1, 20) i")
			// What the client gets of such types as text is the same as well.
			rows, err := c.Query(t.Context(), "SELECT id, feels, list FROM felt", pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for rows.Next() {
				n++
			}
			if rows.Err() != nil || n != 20 {
				t.Errorf("%d rows, %v", n, rows.Err())
			}
			for sql, want := range map[string]string{
				"SELECT count(*)::text FROM lone l JOIN customers c ON c.id = l.id":                                                            "20",
				"SELECT string_agg(DISTINCT l.kind || l.bits::text || l.feels::text, ',') FROM lone l JOIN customers c USING (id)":             "k10glad",
				"SELECT max(l.name || l.many::text) FROM lone l, customers c WHERE c.id = l.id AND l.id = 7":                                   "n7{7.00,NULL}",
				"SELECT count(*)::text FROM (SELECT id FROM lone UNION ALL SELECT id FROM lone) u JOIN customers c ON c.id = u.id":             "40",
				"SELECT string_agg(DISTINCT f.feels::text || l.feels::text || f.list::text, ',') FROM felt f JOIN lone l USING (id)":           "gladglad{sad}",
				"SELECT count(*)::text FROM customers c WHERE id IN (SELECT id FROM lone WHERE id < 5) OR name = (SELECT min(name) FROM lone)": "4",
			} {
				for range 2 { // the second time what servers say of it is known
					if got := one(t, c, sql); got != want {
						t.Errorf("%s: %s, want %s", sql, got, want)
					}
				}
			}
		})
	}
}

package main

import (
	"fmt"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// TestUnlikeCollations has a shard order text otherwise than the home shard, as a server does whose libraries are of another version.
// Queries over both are answered in the home shard's order, and it is told.
func TestUnlikeCollations(t *testing.T) {
	s := startShards(t, 2, "      words: {key: id}\n")
	c := s.connectLoaded()
	must(t, c, "CREATE TABLE words (id bigint PRIMARY KEY, name text)")
	var all []string
	for i := range 60 {
		name := fmt.Sprint(string("aBcDeFgHiJ"[i%10]), i)
		all = append(all, name)
		must(t, c, "INSERT INTO words VALUES ($1, $2)", i, name)
	}
	slices.Sort(all)
	least := []string{"SELECT name FROM words ORDER BY name", "SELECT name FROM words ORDER BY name LIMIT 5", "SELECT name FROM words ORDER BY name DESC LIMIT 3 OFFSET 2",
		"SELECT min(name) || max(name) FROM words", "SELECT name FROM words ORDER BY name || '' LIMIT 4"}
	right := func(c *pgx.Conn, when string) {
		t.Helper()
		wants := [][]string{all, all[:5], {all[57], all[56], all[55]}, {all[0] + all[59]}, all[:4]}
		for i, sql := range least {
			rows, _ := c.Query(t.Context(), sql)
			got, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil || !slices.Equal(got, wants[i]) {
				t.Errorf("%s: %s\n%v, %v\n%v", when, sql, got, err, wants[i])
			}
		}
	}
	right(c, "alike")
	other := pgtest.Connect(t, s.shards[1].Primary().DSN("app", "postgres"))
	must(t, other, "UPDATE pg_database SET datlocprovider = 'i', daticulocale = 'en' WHERE datname = 'app'")
	must(t, other, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'app' AND pid <> pg_backend_pid()")
	cluster := s.p.state.Load().databases["app"].cluster
	eventually(t, "it is known", cluster.unlike.Load)
	right(s.connect(), "unlike")
	if got := s.onEach("SELECT ('B' < 'a')::text"); fmt.Sprint(got) != "[true false]" {
		t.Errorf("the test shows nothing: %v", got)
	}
	s.checks(1, []string{"--schema"}, "collation default may order text otherwise than on s0")
	must(t, other, "UPDATE pg_database SET datlocprovider = 'c', daticulocale = NULL WHERE datname = 'app'")
	eventually(t, "they are alike again", func() bool { return !cluster.unlike.Load() })
}

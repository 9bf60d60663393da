package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

const uniqueTables = `      people: {key: id}
      visits: {key: person}
      kinds:  {reference: true}
`

// TestUniqueIDs has ids made by shardproxy.unique_id(): as keys, in other columns and by themselves, by defaults and by calls. All are
// different, and every row is where its key says.
func TestUniqueIDs(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, uniqueTables, "runtime: {driver: "+driver+"}")
			c := s.connectLoaded()
			must(t, c, "CREATE TABLE people (id bigint PRIMARY KEY DEFAULT shardproxy.unique_id(), name text)")
			must(t, c, "CREATE TABLE visits (id bigint DEFAULT shardproxy.unique_id(), person bigint, other bigint, note text, PRIMARY KEY (person, id))")
			must(t, c, "CREATE TABLE kinds (id bigint PRIMARY KEY DEFAULT shardproxy.unique_id(), name text)")
			must(t, c, "CREATE TABLE lonely (id bigint PRIMARY KEY DEFAULT shardproxy.unique_id(), name text)")
			u := &uniqueIDs{t: t, s: s, c: c, seen: map[int64]bool{}}
			u.keys()
			u.columns()
			u.copies()
			u.alone()
		})
	}
}

type uniqueIDs struct {
	t    *testing.T
	s    *shardedProgram
	c    *pgx.Conn
	seen map[int64]bool
}

// ids runs a statement that returns ids, in every way, each of them n.
func (u *uniqueIDs) ids(n int, sql string, args ...any) (all []int64) {
	u.t.Helper()
	modes := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheStatement}
	for _, mode := range modes {
		rows, _ := u.c.Query(u.t.Context(), sql, append([]any{mode}, args...)...)
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil || len(ids) != n {
			u.t.Errorf("%s: %v, %v", sql, ids, err)
		}
		for _, id := range ids {
			if u.seen[id] || id < 1<<50 {
				u.t.Errorf("%s: %d once more", sql, id)
			}
			u.seen[id] = true
		}
		all = append(all, ids...)
	}
	return all
}

func (u *uniqueIDs) keys() {
	var all []int64
	for range 4 {
		all = append(all, u.ids(1, "INSERT INTO people (name) VALUES ($1) RETURNING id", "a")...)
		all = append(all, u.ids(1, "INSERT INTO people DEFAULT VALUES RETURNING id")...)
		all = append(all, u.ids(1, "INSERT INTO people VALUES (shardproxy.unique_id(), $1) RETURNING id", "a")...)
		all = append(all, u.ids(2, "INSERT INTO people (name, id) VALUES ($1, ShardProxy.Unique_ID ( )), ('y', DEFAULT) RETURNING id", "a")...)
	}
	if !slices.IsSorted(all) {
		u.t.Error("the ids of one proxy do not grow")
	}
	for _, id := range all {
		if got := one(u.t, u.c, "SELECT count(*) FROM people WHERE id = $1", id); got != "1" {
			u.t.Fatalf("%s rows of key %d", got, id)
		}
	}
	if counts := u.s.onEach("SELECT count(*) FROM people"); slices.Contains(counts, "0") {
		u.t.Errorf("all rows are on one shard: %v", counts)
	}
	must(u.t, u.c, "INSERT INTO people VALUES (5, 'given'), (shardproxy.unique_id(), 'made')")
	if got := one(u.t, u.c, "SELECT name FROM people WHERE id = 5"); got != "given" {
		u.t.Error(got)
	}
	// What is not alone in its place a server makes, for each row anew.
	u.ids(1, "INSERT INTO kinds VALUES (shardproxy.unique_id(), shardproxy.unique_id()::text) RETURNING id")
	u.ids(1, "INSERT INTO kinds VALUES (shardproxy.unique_id(), shardproxy.unique_id()::text) RETURNING name::bigint")
	u.ids(3, "INSERT INTO people VALUES (shardproxy.unique_id(), generate_series(1, 3)::text) RETURNING id")
	u.ids(1, "INSERT INTO people VALUES (shardproxy.unique_id() + 0, 'x') RETURNING id")
	// Left to the proxy, as the key and beside it, of rows that a query gives.
	u.ids(3, "INSERT INTO people (name) SELECT 'gathered' FROM generate_series(1, 3) RETURNING id")
	u.ids(2, "INSERT INTO kinds (name) SELECT 'gathered' FROM generate_series(1, 2) RETURNING id")
	u.ids(5, "INSERT INTO visits (person, note) SELECT i, 'gathered' FROM generate_series(101, 105) i RETURNING id")
	must(u.t, u.c, "DELETE FROM people WHERE name = 'gathered'")
	must(u.t, u.c, "INSERT INTO people SELECT shardproxy.unique_id(), 'made by a server' FROM generate_series(1, 3)")
	if got := one(u.t, u.c, "SELECT count(DISTINCT id)::text FROM people WHERE name = 'made by a server'"); got != "3" {
		u.t.Errorf("%s ids for 3 rows", got)
	}
	must(u.t, u.c, "DELETE FROM people WHERE name = 'made by a server'")
}

func (u *uniqueIDs) columns() {
	for k := range 3 {
		u.ids(1, "INSERT INTO visits (person, note) VALUES ($1, 'x') RETURNING id", k)
		u.ids(1, "INSERT INTO visits (person, other, note) VALUES ($1, shardproxy.unique_id(), 'x') RETURNING other", k)
		u.ids(1, "INSERT INTO visits (person, other) VALUES ($1, (shardproxy.unique_id() + 0)) RETURNING other", k)
		u.ids(3, "INSERT INTO visits (person, note) SELECT $1::bigint, 'y' FROM generate_series(1, 3) RETURNING id", k)
	}
	u.ids(3, "INSERT INTO visits (person, other) VALUES (1, shardproxy.unique_id()), (2, shardproxy.unique_id()), (3, shardproxy.unique_id()) RETURNING other")
	for range 2 {
		u.ids(1, "INSERT INTO kinds (name) VALUES ('x') RETURNING id")
		u.ids(2, "INSERT INTO kinds VALUES (shardproxy.unique_id(), 'x'), (shardproxy.unique_id(), 'y') RETURNING id")
		u.ids(1, "INSERT INTO lonely (name) VALUES ('x') RETURNING id")
		u.ids(2, "INSERT INTO lonely VALUES (shardproxy.unique_id(), 'x'), (shardproxy.unique_id(), 'y') RETURNING id")
	}
	if got := u.s.onEach("SELECT string_agg(id || name, ',' ORDER BY id) FROM kinds"); got[0] != got[1] || got[0] == "" {
		u.t.Errorf("the copies differ: %v", got)
	}
	if got := u.s.onEach("SELECT count(*) - count(DISTINCT id) FROM visits"); fmt.Sprint(got) != "[0 0]" {
		u.t.Errorf("twice there: %v", got)
	}
}

func (u *uniqueIDs) copies() {
	rows := strings.Repeat("x\n", 3000)
	for _, table := range []string{"people", "kinds"} {
		before := one(u.t, u.c, "SELECT count(*) FROM "+table)
		if n, err := copied(u.t, u.c, "COPY "+table+" (name) FROM STDIN", rows); err != nil || n != 3000 {
			u.t.Errorf("%d, %v", n, err)
		}
		if got := one(u.t, u.c, "SELECT count(DISTINCT id) - "+before+" FROM "+table); got != "3000" {
			u.t.Errorf("%s different keys in %s", got, table)
		}
	}
	n, err := u.c.CopyFrom(u.t.Context(), pgx.Identifier{"people"}, []string{"name"}, pgx.CopyFromRows([][]any{{"binary"}, {"binary"}}))
	if err != nil || n != 2 {
		u.t.Error(n, err)
	}
}

func (u *uniqueIDs) alone() {
	for range 3 {
		u.ids(1, "SELECT shardproxy.unique_id()")
		u.ids(100, "SELECT shardproxy.unique_id() FROM generate_series(1, 100)")
	}
	must(u.t, u.c, "BEGIN READ ONLY")
	fails(u.t, u.c, "SELECT shardproxy.unique_id()", "25006")
	must(u.t, u.c, "ROLLBACK")
}

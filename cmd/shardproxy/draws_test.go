package main

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

const drawnTables = `      accounts: {key: id}
      entries:  {key: account_id}
      tickets:  {key: id}
      tags:     {reference: true}
`

// TestDraws shows that serial and identity columns get values that are unique over all
// shards, whichever way the rows come.
func TestDraws(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, drawnTables, "runtime: {driver: "+driver+"}")
			c := s.connectLoaded()
			must(t, c, `CREATE TABLE accounts (id serial PRIMARY KEY, name text)`)
			must(t, c, `CREATE TABLE entries (id bigint GENERATED ALWAYS AS IDENTITY, account_id int, note text, PRIMARY KEY (account_id, id))`)
			must(t, c, `CREATE TABLE tickets (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), note text)`)
			must(t, c, `CREATE TABLE tags (id smallserial PRIMARY KEY, name text, made uuid DEFAULT gen_random_uuid())`)
			drawsKeys(t, s, c)
			drawsColumns(t, s, c)
			drawsForCopies(t, s, c)
			drawsAtOnce(t, s)
		})
	}
}

// drawsKeys inserts rows whose key is drawn.
func drawsKeys(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	type row struct {
		ID   int
		Name string
	}
	insert := func(sql string, args ...any) []row {
		t.Helper()
		rows, err := c.Query(t.Context(), sql, args...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
		if err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return got
	}
	var all []row
	all = append(all, insert("INSERT INTO accounts (name) VALUES ('a') RETURNING id, name", pgx.QueryExecModeSimpleProtocol)...)
	all = append(all, insert("INSERT INTO accounts (name) VALUES ($1), ($2), ($3), ($4), ($5) RETURNING *", "b", "c", "d", "e", "f")...)
	all = append(all, insert("INSERT INTO accounts VALUES (DEFAULT, $1), (DEFAULT, $2) RETURNING *", "g", "h")...)
	all = append(all, insert("INSERT INTO accounts DEFAULT VALUES RETURNING id, coalesce(name, 'i')")...)
	for _, sql := range []string{
		"INSERT INTO accounts VALUES (nextval('accounts_id_seq') + 1, 'x')",
		"INSERT INTO accounts VALUES (nextval(pg_get_serial_sequence('accounts', 'id')), 'x')",
		"INSERT INTO accounts VALUES (nextval('accounts_id_seq'), nextval('accounts_id_seq')::text)",
		"INSERT INTO accounts VALUES (nextval('entries_id_seq'), 'x')",
	} {
		fails(t, c, sql, "0A000")
	}
	all = append(all, insert("INSERT INTO accounts VALUES (nextval('accounts_id_seq'), $1), (pg_catalog.NEXTVAL ('public.accounts_id_seq'::regclass), 'k') RETURNING *", "j")...)
	all = append(all, insert("INSERT INTO accounts (name, id) VALUES ('l', DEFAULT), ('m', nextval('accounts_id_seq')) RETURNING id, name", pgx.QueryExecModeSimpleProtocol)...)
	for i, r := range all {
		if r.ID != i+1 || r.Name != string(rune('a'+i)) {
			t.Errorf("row %d is %+v", i, r)
		}
		var name *string
		if err := c.QueryRow(t.Context(), "SELECT name FROM accounts WHERE id = $1", r.ID).Scan(&name); err != nil {
			t.Errorf("%+v is not where its key says: %v", r, err)
		}
	}
	counts := s.onEach("SELECT count(*) FROM accounts")
	if slices.Contains(counts, "0") {
		t.Errorf("all rows are on one shard: %v", counts)
	}
	if got := s.onEach("SELECT is_called::text FROM accounts_id_seq"); got[0] != "true" || got[1] != "false" {
		t.Errorf("drawn from: %v", got)
	}
	// What one sets the others follow.
	must(t, c, "SELECT setval('accounts_id_seq', 500)")
	if got := insert("INSERT INTO accounts (name) VALUES ('z') RETURNING id, name"); got[0].ID != 501 {
		t.Errorf("behind setval(500): %+v", got)
	}
	if got := one(t, c, "INSERT INTO tickets (note) VALUES ('x') RETURNING id::text"); len(got) != 36 || one(t, c, "SELECT note FROM tickets WHERE id = '"+got+"'") != "x" {
		t.Errorf("ticket %s", got)
	}
}

// one returns the one value that a statement returns, as text.
func one(t testing.TB, c *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	var v any
	if err := c.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return fmt.Sprint(v)
}

// drawsColumns inserts rows with a key of their own and a drawn column.
func drawsColumns(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	for i := range 8 {
		if got := one(t, c, "INSERT INTO entries (account_id, note) VALUES ($1, 'x') RETURNING id", i); got != fmt.Sprint(i+1) {
			t.Errorf("entry %d has id %s", i, got)
		}
	}
	must(t, c, "BEGIN")
	must(t, c, "INSERT INTO entries (account_id) VALUES (1), (2), (3), (4)")
	must(t, c, "INSERT INTO entries (account_id) VALUES (5)")
	must(t, c, "ROLLBACK")
	must(t, c, "BEGIN")
	must(t, c, "INSERT INTO entries (account_id) VALUES (1), (2), (3), (4)")
	must(t, c, "SELECT * FROM entries WHERE account_id = 7")
	must(t, c, "COMMIT")
	if got := pgtest.Lines([][]string{s.onEach("SELECT count(*) FROM entries")}); len(got) != 1 {
		t.Fatal(got)
	}
	must(t, c, "INSERT INTO entries (account_id) SELECT 5")
	fails(t, c, "INSERT INTO entries (id, account_id) VALUES (5, 5)", "428C9")
	fails(t, c, "INSERT INTO entries (id, account_id) VALUES (nextval('entries_id_seq'), 5)", "0A000")
	must(t, c, "INSERT INTO entries (id, account_id) OVERRIDING SYSTEM VALUE VALUES (5000, 5)")
	// A failure inside of a transaction fails it, outside nothing else.
	fails(t, c, "INSERT INTO accounts (name) VALUES (1 / (SELECT 0))", "22012")
	must(t, c, "BEGIN")
	fails(t, c, "INSERT INTO entries (account_id, note) VALUES (1, 1 / 0)", "22012")
	fails(t, c, "SELECT 1", "25P02")
	must(t, c, "ROLLBACK")
	fails(t, c, "INSERT INTO entries (account_id, note) VALUES (1, 1 / 0)", "22012")
	must(t, c, "SELECT 1")
	// The unnamed statement stays the client's own beside what runs for it.
	must(t, c, "ALTER SEQUENCE entries_id_seq MAXVALUE 20000")
	must(t, c, "SELECT setval('entries_id_seq', 20000)")
	fails(t, c, "INSERT INTO entries (account_id) VALUES (1)", "2200H")
	must(t, c, "ALTER SEQUENCE entries_id_seq MAXVALUE 100000")
}

// drawsForCopies inserts into a table that is on every shard.
func drawsForCopies(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	must(t, c, "INSERT INTO tags (name) VALUES ($1), ($2)", "a", "b")
	must(t, c, "INSERT INTO tags (name) VALUES ('c')")
	must(t, c, "INSERT INTO tags DEFAULT VALUES")
	got := s.onEach("SELECT string_agg(id || coalesce(name, '-') || made, ',' ORDER BY id) FROM tags")
	if got[0] != got[1] || got[0][:2] != "1a" {
		t.Errorf("the copies: %q", got)
	}
	must(t, c, "INSERT INTO tags (id, name) VALUES (nextval('tags_id_seq'), 'called'), (DEFAULT, 'left')")
	if got := s.onEach("SELECT string_agg(id || name, ',' ORDER BY id) FROM tags"); got[0] != got[1] {
		t.Errorf("the copies differ: %v", got)
	}
	must(t, c, "DELETE FROM tags")
}

// drawsAtOnce inserts from many clients at once.
func drawsAtOnce(t *testing.T, s *shardedProgram) {
	var mu sync.Mutex
	seen := map[int]bool{}
	var wg sync.WaitGroup
	for range 8 {
		c := s.connect()
		wg.Go(func() {
			for i := range 60 {
				rows, err := c.Query(t.Context(), "INSERT INTO accounts (name) VALUES ($1), ($2) RETURNING id", "x", "y")
				if err != nil {
					t.Error(err)
					return
				}
				ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
				if err != nil || len(ids) != 2 {
					t.Errorf("%d: %v, %v", i, ids, err)
					return
				}
				mu.Lock()
				for _, id := range ids {
					if seen[id] {
						t.Errorf("id %d twice", id)
					}
					seen[id] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range s.onEach("SELECT count(*) FROM accounts WHERE name IN ('x', 'y')") {
		var k int
		_, _ = fmt.Sscan(n, &k)
		total += k
	}
	if total != 960 || len(seen) != 960 {
		t.Errorf("%d rows with %d ids", total, len(seen))
	}
}

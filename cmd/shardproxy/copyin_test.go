package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
)

const copiedTables = `      accounts: {key: id}
      entries:  {key: account_id}
      tags:     {reference: true}
`

// TestCopyIn copies rows into tables on several shards.
func TestCopyIn(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, copiedTables, "runtime: {driver: "+driver+"}")
			c := s.connectLoaded()
			must(t, c, `CREATE TABLE accounts (id serial PRIMARY KEY, name text)`)
			must(t, c, `CREATE TABLE entries (account_id int, id int, note text, length int GENERATED ALWAYS AS (length(note)) STORED, PRIMARY KEY (account_id, id), CHECK (note <> 'bad'))`)
			must(t, c, `CREATE TABLE tags (id serial PRIMARY KEY, name text, made uuid DEFAULT gen_random_uuid())`)
			copiesRows(t, s, c)
			copiesWrong(t, s, c)
			copiesDrawn(t, s, c)
			copiesInTransactions(t, s, c)
			copiesMuch(t, s, c)
		})
	}
}

// copied runs a COPY of data and returns its tag or error.
func copied(t testing.TB, c *pgx.Conn, sql, data string) (int64, *pgconn.PgError) {
	t.Helper()
	tag, err := c.PgConn().CopyFrom(within(t, 30*time.Second), strings.NewReader(data), sql)
	var pe *pgconn.PgError
	if err != nil && !errors.As(err, &pe) {
		t.Fatalf("%s: %v", sql, err)
	}
	return tag.RowsAffected(), pe
}

func copiesRows(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	var data strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&data, "%d\t%d\tnote %d\\n\n", i, i, i)
	}
	if n, err := copied(t, c, "COPY entries (account_id, id, note) FROM STDIN", data.String()); err != nil || n != 1000 {
		t.Fatalf("%d rows, %v", n, err)
	}
	if n, err := copied(t, c, "COPY entries FROM STDIN (FORMAT csv, HEADER, DELIMITER ';')", "account_id;id;note\n1;-1;\"a;\nb\"\n2;-1;\n3;-1;\"\"\n"); err != nil || n != 3 {
		t.Fatalf("%d rows, %v", n, err)
	}
	for i, want := range map[int]string{1: "a;\nb", 2: "NULL", 3: ""} {
		if got := one(t, c, "SELECT coalesce(note, 'NULL') FROM entries WHERE account_id = $1 AND id = -1", i); got != want {
			t.Errorf("%d has %q", i, got)
		}
	}
	rows := [][]any{{7, -2, "binary"}, {8, -2, nil}}
	if n, err := c.CopyFrom(t.Context(), pgx.Identifier{"entries"}, []string{"account_id", "id", "note"}, pgx.CopyFromRows(rows)); err != nil || n != 2 {
		t.Fatalf("binary: %d, %v", n, err)
	}
	if got := one(t, c, "SELECT note FROM entries WHERE account_id = 7 AND id = -2"); got != "binary" {
		t.Errorf("binary: %q", got)
	}
	for i := range 1000 {
		if got := one(t, c, "SELECT note || length FROM entries WHERE account_id = $1 AND id = $1", i); got != fmt.Sprintf("note %d\n%d", i, len(fmt.Sprint(i))+6) {
			t.Fatalf("%d has %q", i, got)
		}
	}
	if counts := s.onEach("SELECT count(*) FROM entries"); counts[0] < "3" || counts[1] < "3" || len(counts[0]) != 3 {
		t.Errorf("%v", counts)
	}
	var out bytes.Buffer
	if _, err := c.PgConn().CopyTo(t.Context(), &out, "COPY (SELECT * FROM entries WHERE account_id = 7 AND id = 7) TO STDOUT"); err != nil || out.String() != "7\t7\tnote 7\\n\t7\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if n, err := copied(t, c, "COPY entries FROM STDIN", ""); err != nil || n != 0 {
		t.Errorf("nothing: %d, %v", n, err)
	}
}

// copiesWrong: what is wrong is told with the line of the client, and nothing stays.
func copiesWrong(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	before := fmt.Sprint(s.onEach("SELECT count(*) FROM entries"))
	good := func(from, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "%d\t%d\tx\n", from+i, 5000)
		}
		return b.String()
	}
	for _, bad := range []struct{ sql, data, code, where string }{
		{"COPY entries (account_id, id, note) FROM STDIN", good(0, 50) + "100\tabc\tx\n" + good(200, 20), "22P02", `COPY entries, line 51, column id: "abc"`},
		{"COPY entries (account_id, id, note) FROM STDIN", good(0, 50) + "abc\t1\tx\n" + good(200, 20), "22P02", `COPY entries, line 51, column account_id: "abc"`},
		{"COPY entries (account_id, id, note) FROM STDIN", good(0, 30) + "\\N\t1\tx\n", "23502", `COPY entries, line 31`},
		{"COPY entries (account_id, id, note) FROM STDIN", good(0, 30) + "5\t1\n" + good(50, 5), "22P04", `COPY entries, line 31`},
		{"COPY entries (account_id, id, note) FROM STDIN", good(0, 30) + "5\t1\tx\ty\n" + good(50, 5), "22P04", `COPY entries, line 31`},
		{"COPY entries (account_id, id, note) FROM STDIN", good(0, 30) + "5\t1\tbad\n" + good(50, 500), "23514", `COPY entries, line 31`},
		{"COPY entries (account_id, id, note) FROM STDIN", good(0, 30) + good(29, 1), "23505", `COPY entries, line 31`},
		{"COPY entries (account_id, none) FROM STDIN", "", "0A000", ""},
		{"COPY entries FROM STDIN (FORMAT csv, NULL 'a;', DELIMITER ';')", "", "0A000", ""},
		{"COPY entries (id, note) FROM STDIN", "", "0A000", ""},
		{"COPY entries (account_id, id, note) FROM '/tmp/x'", "", "0A000", ""},
	} {
		_, err := copied(t, c, bad.sql, bad.data)
		if err == nil || err.Code != bad.code || !strings.HasPrefix(err.Where, bad.where) {
			t.Errorf("%s\n%.60q: %v, where %q; should be %s at %s", bad.sql, bad.data, err, where(err), bad.code, bad.where)
		}
		must(t, c, "SELECT 1")
	}
	// A client that ends it, and one that goes away.
	_, err := c.PgConn().CopyFrom(t.Context(), failing{}, "COPY entries FROM STDIN")
	if sqlState(err) != "57014" {
		t.Errorf("CopyFail: %v", err)
	}
	must(t, c, "SELECT 1")
	if after := fmt.Sprint(s.onEach("SELECT count(*) FROM entries")); after != before {
		t.Errorf("%s rows, before it was %s", after, before)
	}
	eventually(t, "no transaction is left", func() bool {
		return fmt.Sprint(s.onEach("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'")) == "[0 0]"
	})
}

func where(e *pgconn.PgError) string {
	if e == nil {
		return ""
	}
	return e.Where
}

type failing struct{}

func (failing) Read(p []byte) (int, error) {
	if len(p) > 6 {
		return copy(p, "1\t9\tx\n"), errors.New("no more")
	}
	return 0, errors.New("no more")
}

// copiesDrawn: serial columns that the data lack are drawn, keys among them.
func copiesDrawn(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	var data strings.Builder
	for i := range 300 {
		fmt.Fprintf(&data, "n%d\n", i)
	}
	if n, err := copied(t, c, "COPY accounts (name) FROM STDIN", data.String()); err != nil || n != 300 {
		t.Fatalf("%d rows, %v", n, err)
	}
	for i := range 300 {
		if got := one(t, c, "SELECT name FROM accounts WHERE id = $1", i+1); got != fmt.Sprintf("n%d", i) {
			t.Fatalf("%d is %s", i+1, got)
		}
	}
	if n, err := copied(t, c, "COPY tags (name) FROM STDIN (FORMAT csv)", "a\nb\n\"c\nd\"\n"); err != nil || n != 3 {
		t.Fatalf("%d rows, %v", n, err)
	}
	if got := s.onEach("SELECT string_agg(id || name || made, ',' ORDER BY id) FROM tags"); got[0] != got[1] || !strings.HasPrefix(got[0], "1a") {
		t.Errorf("the copies: %q", got)
	}
}

func copiesInTransactions(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	must(t, c, "BEGIN")
	must(t, c, "INSERT INTO entries (account_id, id) VALUES (1, 7000)")
	if n, err := copied(t, c, "COPY entries (account_id, id) FROM STDIN", "1\t7001\n2\t7001\n3\t7001\n4\t7001\n"); err != nil || n != 4 {
		t.Fatalf("%d, %v", n, err)
	}
	if got := one(t, c, "SELECT count(*) FROM entries WHERE account_id = 3 AND id = 7001"); got != "1" {
		t.Errorf("its own row is not seen: %s", got)
	}
	must(t, c, "SAVEPOINT a")
	if _, err := copied(t, c, "COPY entries (account_id, id) FROM STDIN", "1\t7002\n2\t7001\n"); err == nil || err.Code != "23505" {
		t.Fatal(err)
	}
	fails(t, c, "SELECT 1", "25P02")
	must(t, c, "ROLLBACK TO a")
	if n, err := copied(t, c, "COPY entries (account_id, id) FROM STDIN", "1\t7003\n2\t7003\n"); err != nil || n != 2 {
		t.Fatalf("%d, %v", n, err)
	}
	must(t, c, "COMMIT")
	if got := s.onEach("SELECT string_agg(DISTINCT id::text, ',' ORDER BY id::text) FROM entries WHERE id BETWEEN 7000 AND 7010"); strings.Contains(got[0]+got[1], "7002") || !strings.Contains(got[0]+got[1], "7003") {
		t.Errorf("%v", got)
	}
	must(t, c, "BEGIN")
	_, _ = copied(t, c, "COPY entries (account_id, id) FROM STDIN", "1\t7777\n2\t7777\n")
	must(t, c, "ROLLBACK")
	if got := s.onEach("SELECT count(*) FROM entries WHERE id = 7777"); got[0]+got[1] != "00" {
		t.Errorf("rolled back and there: %v", got)
	}
}

// copiesMuch copies more than all buffers hold, and cancels such a copy.
func copiesMuch(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	var data strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&data, "%d\t9000\t%s\n", i+100_000, "a note that is not so short, and says nothing at all")
	}
	began := time.Now()
	if n, err := copied(t, c, "COPY entries (account_id, id, note) FROM STDIN", data.String()); err != nil || n != 200_000 {
		t.Fatalf("%d rows, %v", n, err)
	}
	t.Logf("%d MB in %v", data.Len()>>20, time.Since(began))
	must(t, c, "DELETE FROM entries WHERE account_id = 100001")
	ctx := within(t, 20*time.Second)
	blocker := pgtest.Connect(t, s.shards[1].Primary().DSN("app", "app"))
	must(t, blocker, "BEGIN; LOCK TABLE entries")
	watcher := pgtest.Connect(t, s.shards[1].Primary().DSN("app", "postgres"))
	cancelled := make(chan struct{})
	go func() {
		defer close(cancelled)
		for waits := 0; waits == 0 && ctx.Err() == nil; {
			_ = watcher.QueryRow(ctx, "SELECT count(*) FROM pg_locks WHERE NOT granted").Scan(&waits)
		}
		_ = c.PgConn().CancelRequest(ctx)
	}()
	_, err := c.PgConn().CopyFrom(ctx, strings.NewReader(strings.ReplaceAll(data.String(), "\t9000\t", "\t9001\t")), "COPY entries (account_id, id, note) FROM STDIN")
	if sqlState(err) != "57014" {
		t.Errorf("a copy that waits for a lock, cancelled: %v", err)
	}
	<-cancelled
	must(t, blocker, "ROLLBACK")
	must(t, c, "SELECT 1")
	if got := s.onEach("SELECT count(*) FROM entries WHERE id = 9001"); got[0]+got[1] != "00" {
		t.Errorf("cancelled and there: %v", got)
	}
}

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
)

// TestBlockOverShards: a statement is blocked on the console, and refused whether it needs one shard, several, or all;
// in scripts and batches too, whose transactions roll back.
func TestBlockOverShards(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	c, console := s.connectLoaded(), (*pgx.Conn)(nil)
	console, _ = s.consoleOf()
	ctx := within(t, 2*time.Minute)
	for i := range 10 {
		must(t, c, fmt.Sprintf("INSERT INTO customers VALUES (%d, 'old')", i))
	}
	simple := func(sql string) error { _, err := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); return err }
	bads := map[string]string{ // and what takes them out of a transaction's way
		"one shard":    "UPDATE customers SET name = 'bad' WHERE id = 3",
		"fan-out":      "UPDATE customers SET name = 'bad'",
		"several":      "SELECT count(*) FROM customers",
		"split":        "INSERT INTO customers VALUES (11, 'bad'), (12, 'bad'), (13, 'bad'), (14, 'bad')",
		"reference":    "UPDATE products SET name = 'bad'",
		"of no shard":  "SELECT 1 + 1",
		"settings":     "SET application_name = 'bad'",
		"definition":   "CREATE TABLE bad (id bigint)",
		"single":       "CREATE TEMP TABLE bad (id int)",
		"a cursor":     "DECLARE bad CURSOR FOR SELECT id FROM customers ORDER BY id",
		"copy of rows": "COPY customers FROM STDIN",
	}
	for name, bad := range bads {
		prepared := name != "copy of rows" && name != "a cursor"
		if prepared {
			if _, err := c.PgConn().Prepare(ctx, "before", bad, nil); err != nil {
				t.Fatal(name, err)
			}
		}
		var print string
		refused := 0
		if err := console.QueryRow(ctx, "BLOCK '"+strings.ReplaceAll(bad, "'", "''")+"' IN app FOR 1h").Scan(&print); err != nil {
			t.Fatal(name, err)
		}
		ways := map[string]func() error{
			"simple": func() error { return simple(bad) },
			"script": func() error { return simple("UPDATE customers SET name = 'lost' WHERE id IN (1); " + bad) },
			"script 2": func() error {
				return simple("BEGIN; UPDATE customers SET name = 'lost' WHERE id IN (1); " + bad + "; COMMIT")
			},
			"extended": func() error { return c.PgConn().ExecParams(ctx, bad, nil, nil, nil, nil).Read().Err },
			"batch": func() error {
				b := &pgconn.Batch{}
				for i := range 4 {
					b.ExecParams(fmt.Sprintf("UPDATE customers SET name = 'lost' WHERE id IN (%d)", i), nil, nil, nil, nil)
				}
				b.ExecParams(bad, nil, nil, nil, nil)
				_, err := c.PgConn().ExecBatch(ctx, b).ReadAll()
				return err
			},
		}
		if prepared {
			ways["prepared"] = func() error { return c.PgConn().ExecPrepared(ctx, "before", nil, nil, nil).Read().Err }
			ways["batch of prepared"] = func() error {
				b := &pgconn.Batch{}
				for i := range 4 {
					b.ExecParams(fmt.Sprintf("UPDATE customers SET name = 'lost' WHERE id IN (%d)", i), nil, nil, nil, nil)
				}
				b.ExecPrepared("before", nil, nil, nil)
				_, err := c.PgConn().ExecBatch(ctx, b).ReadAll()
				return err
			}
		}
		for _, begin := range []string{"", "BEGIN", "BEGIN; UPDATE customers SET name = 'lost' WHERE id IN (5)", "BEGIN; UPDATE customers SET name = 'lost' WHERE id > 0"} {
			for way, run := range ways {
				if begin != "" && way == "script 2" || (name == "settings" || name == "single") && strings.HasPrefix(way, "batch") && strings.HasSuffix(begin, "> 0") {
					continue // where it is refused anyway
				}
				if begin != "" {
					if err := simple(begin); err != nil {
						t.Fatal(err)
					}
				}
				if err := run(); sqlState(err) != "42501" {
					t.Errorf("%s, %s behind %q: %v", name, way, begin, err)
				}
				refused++
				if status := c.PgConn().TxStatus(); begin != "" && status != 'E' {
					t.Errorf("%s, %s behind %q: the transaction is %c", name, way, begin, status)
				}
				if c.PgConn().TxStatus() != 'I' {
					must(t, c, "ROLLBACK")
				}
			}
		}
		if shown := shownBy(t, console, "SHOW BLOCKS"); len(shown) != 1 || shown[0]["blocked_by"] != "app" || shown[0]["refused"] != fmt.Sprint(refused) {
			t.Errorf("%s: %d refusals, shown %v", name, refused, shown)
		}
		must(t, console, "UNBLOCK FINGERPRINT '"+print+"'")
		if prepared {
			if err := simple("DEALLOCATE before"); err != nil {
				t.Fatal(err)
			}
		}
		if err := simple("SELECT DISTINCT name FROM customers WHERE name <> 'old'"); err != nil {
			t.Fatal(err)
		}
	}
	var n int
	if err := c.QueryRow(ctx, "SELECT count(*) FROM customers WHERE name = 'old'").Scan(&n); err != nil || n != 10 {
		t.Error(n, "customers are as they were", err)
	}
	if left := shownBy(t, console, "SHOW BLOCKS"); len(left) > 0 {
		t.Error(left)
	}
	if !strings.Contains(s.logged(), `msg="statement blocked" user=app`) || strings.Contains(s.logged(), "name = 'bad'") {
		t.Error("the log lacks who has blocked what, or has values")
	}
}

// TestBlocksInFile: the file's blocks come and go with a reload, and a bad one is refused.
func TestBlocksInFile(t *testing.T) {
	t.Parallel()
	s := startProgram(t, pgtest.Start(t, pgtest.Options{}), configText)
	c := s.connect()
	console, _ := s.consoleOf()
	text, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	with := func(line string) { s.write(strings.TrimRight(string(text), "\n") + "\n" + line + "\n") }
	with("    blocks: [select count(*) from pg_class;, 00000000000000ff]")
	must(t, console, "RELOAD")
	fails(t, c, "SELECT count(*) FROM pg_class", "42501")
	fails(t, console, "UNBLOCK 'SELECT count(*) FROM pg_class'", "55000")
	if shown := shownBy(t, console, "SHOW BLOCKS"); len(shown) != 2 || shown[0]["blocked_by"] != "-" {
		t.Error(shown)
	}
	must(t, console, "BLOCK 'SELECT count(*) FROM pg_proc'")
	for _, bad := range []string{"commit", "select 1; select 2", "''"} {
		with("    blocks: [" + bad + "]")
		fails(t, console, "RELOAD", "F0000")
	}
	with("")
	must(t, console, "RELOAD")
	must(t, c, "SELECT count(*) FROM pg_class")
	fails(t, c, "SELECT count(*) FROM pg_proc", "42501")
	must(t, console, "UNBLOCK ALL")
	must(t, c, "SELECT count(*) FROM pg_proc")
}

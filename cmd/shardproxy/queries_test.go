package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
	"shardproxy/query"
)

// queryShown returns the row of SHOW QUERIES for a statement; nil when there is none.
func queryShown(t *testing.T, console *pgx.Conn, sql string) map[string]string {
	t.Helper()
	fingerprint := query.FingerprintOf([]byte(sql), query.Options{}).String()
	all := shownBy(t, console, "SHOW QUERIES WHERE fingerprint = '"+fingerprint+"'")
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

func figure(t *testing.T, row map[string]string, column string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(row[column], 10, 64)
	if err != nil {
		t.Fatalf("%s of %v: %v", column, row, err)
	}
	return n
}

var queryModes = []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement}

// TestShowQueriesShards: each statement is counted once, as what it was, in every protocol.
func TestShowQueriesShards(t *testing.T) {
	px := startShards(t, 2)
	c := px.connectLoaded()
	console, _ := px.consoleOf()
	for id := range 20 {
		must(t, c, "INSERT INTO customers VALUES ($1, 'a')", id+1)
	}
	for _, mode := range queryModes {
		for _, q := range []struct {
			sql                   string
			args                  []any
			several, rows, shards int64
			state                 string
			refused               bool
		}{
			{sql: "SELECT * FROM customers WHERE id = $1", args: []any{1}, rows: 1},
			{sql: "SELECT id, name FROM customers", rows: 20, several: 1, shards: 2},
			{sql: "SELECT count(*) FROM customers WHERE id > $1", args: []any{3}, rows: 1, several: 1, shards: 2},
			{sql: "UPDATE customers SET name = $1 WHERE id = $2", args: []any{"b", 2}, rows: 1},
			{sql: "UPDATE customers SET name = name", rows: 20, several: 1, shards: 2},
			{sql: "INSERT INTO customers VALUES ($1, 'x'), ($2, 'x'), ($3, 'x'), ($4, 'x') ON CONFLICT DO NOTHING", args: []any{101, 102, 103, 104}, rows: -1, several: 1, shards: 2},
			{sql: "SELECT 1 / (SELECT 0 * id FROM customers WHERE id = $1)", args: []any{1}, state: "22012"},
			{sql: "SELECT 1 / (count(*) * 0) FROM customers", state: "22012", several: 1, shards: 2},
			{sql: "SELECT * FROM customers ORDER BY id LIMIT 1 FOR UPDATE", state: "0A000", refused: true},
		} {
			must(t, c, "DELETE FROM customers WHERE id > 100")
			must(t, console, "RESET QUERIES")
			args := q.args
			if mode != pgx.QueryExecModeCacheStatement {
				args = append([]any{mode}, args...)
			}
			const times = 16
			for range times {
				_, err := c.Exec(within(t, 10*time.Second), q.sql, args...)
				var e *pgconn.PgError
				if errors.As(err, &e); (q.state == "") != (err == nil) || e != nil && e.Code != q.state {
					t.Fatalf("%v: %s: %v", mode, q.sql, err)
				}
			}
			text := q.sql
			if mode == pgx.QueryExecModeSimpleProtocol {
				for i, a := range q.args { // as the driver writes it
					text = strings.ReplaceAll(text, fmt.Sprintf("$%d", i+1), map[bool]string{true: "1", false: "'a'"}[fmt.Sprintf("%T", a) == "int"])
				}
			}
			row := queryShown(t, console, text)
			if row == nil {
				t.Errorf("%v: %s is not there: %v", mode, text, shownBy(t, console, "SHOW QUERIES"))
				continue
			}
			errors, refused := int64(0), int64(0)
			if q.state != "" {
				errors = times
			}
			if q.refused {
				refused = times
			}
			ok := figure(t, row, "calls") == times && figure(t, row, "errors") == errors && figure(t, row, "refused") == refused && figure(t, row, "several") == times*q.several &&
				figure(t, row, "several_shards") == times*q.shards && (q.rows < 0 || figure(t, row, "rows") == times*q.rows) && (q.refused || figure(t, row, "timed") >= 1 && figure(t, row, "timed") <= 9)
			if !ok {
				t.Errorf("%v: %s: %v", mode, q.sql, row)
			}
			if q.rows > 1 && strings.HasPrefix(q.sql, "SELECT") && figure(t, row, "bytes") < times*q.rows*10 {
				t.Errorf("%v: %s: %s bytes", mode, q.sql, row["bytes"])
			}
		}
	}
	for _, row := range shownBy(t, console, "SHOW QUERIES") {
		if strings.ContainsAny(row["query"], "'") {
			t.Errorf("a value is shown: %s", row["query"])
		}
	}
}

// TestShowQueriesOne: a database of one shard, whatever way a statement comes.
func TestShowQueriesOne(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{})
	px := startProgram(t, cl, configText)
	c, plain := px.connect(), px.connect()
	console, _ := px.consoleOf()
	aside := pgtest.Connect(t, cl.Primary().DSN("app", "app"))
	must(t, c, "CREATE TABLE q (id int PRIMARY KEY, x text)")
	must(t, c, "INSERT INTO q SELECT n, 'x' FROM generate_series(1, 100) n")
	must(t, console, "RESET QUERIES")

	// Times: of what takes 20 ms, of one in eight requests, and not of what the client thinks about.
	for range 17 {
		must(t, c, "SELECT pg_sleep(0.02)")
		must(t, aside, "SELECT pg_sleep(0.005)")
	}
	row := queryShown(t, console, "SELECT pg_sleep(1)")
	for _, column := range []string{"min_us", "p50_us", "p99_us", "mean_us"} {
		if n := figure(t, row, column); n < 16_000 || n > 500_000 {
			t.Errorf("%s: %v", column, row)
		}
	}
	if total, mean := figure(t, row, "total_us"), figure(t, row, "mean_us"); total < 16*mean || total > 18*mean || row["fan_out_percent"] != "-" || row["by_shard"] != "-" {
		t.Errorf("%v", row)
	}

	// A pipeline: each statement has its own rows. Servers answer all at once, so that times are not known.
	batch := &pgx.Batch{}
	for i := range 10 {
		batch.Queue("SELECT * FROM q WHERE id <= $1", i)
		batch.Queue("SELECT pg_sleep($1)", 0.01)
		batch.Queue("UPDATE q SET x = $1 WHERE id = ANY ($2)", "y", []int{i, i + 1, i + 2})
	}
	for range 8 {
		if err := c.SendBatch(within(t, 10*time.Second), batch).Close(); err != nil {
			t.Fatal(err)
		}
	}
	if row := queryShown(t, console, "SELECT * FROM q WHERE id <= $1"); figure(t, row, "calls") != 80 || figure(t, row, "rows") != 8*45 || figure(t, row, "timed") != 0 {
		t.Errorf("%v", row)
	}
	if row := queryShown(t, console, "SELECT pg_sleep($1)"); figure(t, row, "calls") != 80+17 || figure(t, row, "min_us") < 9_000 || figure(t, row, "timed") > 17 {
		t.Errorf("%v", row)
	}
	if row := queryShown(t, console, "UPDATE q SET x = $1 WHERE id = ANY ($2)"); figure(t, row, "calls") != 80 || figure(t, row, "rows") != 8*29 || figure(t, row, "timed") != 0 {
		t.Errorf("%v", row)
	}

	// Several commands in one text, EXECUTE, COPY, and values where a plan looks at them.
	must(t, plain, "SELECT 1; SELECT 'secret'; SELECT 3")
	if row := queryShown(t, console, "SELECT 1; SELECT 2; SELECT 3"); figure(t, row, "calls") != 1 || figure(t, row, "rows") != 3 {
		t.Errorf("%v", row)
	}
	must(t, plain, "PREPARE mine AS SELECT count(*) FROM q WHERE x <> $1")
	must(t, plain, "EXECUTE mine ('secret')")
	if row := queryShown(t, console, "SELECT count(*) FROM q WHERE x <> $1"); row == nil || figure(t, row, "calls") != 1 {
		t.Errorf("EXECUTE: %v", row)
	}
	if _, err := plain.PgConn().CopyFrom(within(t, 10*time.Second), strings.NewReader("200\tsecret\n201\tsecret\n"), "COPY q FROM STDIN"); err != nil {
		t.Fatal(err)
	}
	if row := queryShown(t, console, "COPY q FROM STDIN"); figure(t, row, "calls") != 1 || figure(t, row, "rows") != 2 {
		t.Errorf("%v", row)
	}
	must(t, plain, "SET application_name = secret")
	must(t, plain, "SET application_name = 'other secret'")
	if row := queryShown(t, console, "SET application_name = 'x'"); figure(t, row, "calls") != 2 {
		t.Errorf("%v", row)
	}
	// Errors of Parse and of Bind count with their statements.
	fails(t, c, "SELECT nothing FROM q", "42703")
	if row := queryShown(t, console, "SELECT nothing FROM q"); figure(t, row, "errors") < 1 {
		t.Errorf("%v", row)
	}
	_, err := c.Exec(within(t, 10*time.Second), "SELECT * FROM q WHERE id = $1::int", pgx.QueryExecModeExec, "secret")
	if row := queryShown(t, console, "SELECT * FROM q WHERE id = $1::int"); err == nil || figure(t, row, "errors") != 1 || figure(t, row, "calls") != 1 {
		t.Errorf("%v %v", row, err)
	}
	for _, row := range shownBy(t, console, "SHOW QUERIES") {
		if strings.Contains(row["query"], "secret") {
			t.Errorf("a value is shown: %s", row["query"])
		}
	}
	must(t, console, "RESET QUERIES IN app")
	if all := shownBy(t, console, "SHOW QUERIES"); len(all) != 0 {
		t.Errorf("%v", all)
	}
	fails(t, console, "RESET QUERIES IN nobody", "3D000")
	if !strings.Contains(px.logged(), "reset queries") {
		t.Error("not in the log")
	}
}

// TestShowQueriesBound: whatever texts come, no more are kept than the setting says.
func TestShowQueriesBound(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{})
	px := startProgram(t, cl, configText+"limits: {statements: 20}\n")
	c := px.connect()
	console, _ := px.consoleOf()
	for i := range 100 {
		must(t, c, fmt.Sprintf("SELECT 1 AS a%d", i))
	}
	if all := shownBy(t, console, "SHOW QUERIES"); len(all) > 20 || len(all) < 19 {
		t.Errorf("%d are shown", len(all))
	}
}

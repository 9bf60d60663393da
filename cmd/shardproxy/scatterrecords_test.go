package main

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// TestScatterRecords reads whole rows of shards whose types have other numbers.
func TestScatterRecords(t *testing.T) {
	s := startShards(t, 2)
	for i, shard := range s.shards {
		c := pgtest.Connect(t, shard.Primary().DSN("app", "app"))
		if i == 1 {
			must(t, c, "CREATE TYPE odd AS (a int)")
			must(t, c, "DROP TYPE odd")
			must(t, c, "ALTER TABLE customers ADD COLUMN gone int")
		}
		must(t, c, "CREATE TYPE mood AS ENUM ('sad', 'ok')")
		must(t, c, "ALTER TABLE customers ADD COLUMN m mood")
		must(t, c, "ALTER TABLE customers DROP COLUMN IF EXISTS gone")
	}
	c := s.connectLoaded()
	for i := range 20 {
		must(t, c, "INSERT INTO customers (id, name, m) VALUES ($1, 'x', 'ok')", i)
	}
	binary := func(sql string) ([]string, error) {
		r := c.PgConn().ExecParams(within(t, 20*time.Second), sql, nil, nil, nil, []int16{pgx.BinaryFormatCode}).Read()
		var out []string
		for _, row := range r.Rows {
			out = append(out, fmt.Sprintf("%x", row[0]))
		}
		return out, r.Err
	}
	for _, sql := range []string{
		"SELECT ROW(1, m) FROM customers",
		"SELECT ROW(1, ROW(m)) FROM customers",
		"SELECT ARRAY[ROW(m)] FROM customers",
		"SELECT ROW(ARRAY[m]) FROM customers",
		"SELECT ROW(m) FROM customers ORDER BY id",
		"SELECT id, ROW(m) FROM customers ORDER BY id LIMIT 19",
	} {
		if out, err := binary(sql); sqlState(err) != "0A000" {
			t.Errorf("%s: %d rows, %v, %q", sql, len(out), err, out)
		}
	}
	for _, sql := range []string{
		"SELECT ROW(1, id) FROM customers",
		"SELECT ROW(1, m) FROM customers WHERE id = 3",
		"SELECT ROW(1, m::text) FROM customers",
		"SELECT ROW(ARRAY[1, 2], ROW(id, ARRAY[ROW(3)])) FROM customers ORDER BY id",
		"SELECT ROW(NULL::int[], NULL) FROM customers",
	} {
		if _, err := binary(sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
	tx, err := c.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	must(t, c, "DECLARE b BINARY CURSOR FOR SELECT ROW(m) FROM customers")
	fails(t, c, "FETCH ALL FROM b", "0A000")
	_ = tx.Rollback(context.Background())
	eventually(t, "the new column is known", func() bool {
		_, err := c.Exec(context.Background(), "SELECT count(b) FROM customers a, customers b WHERE a.name = b.name")
		return err == nil
	})
	// As text they are what they are, also gathered.
	for _, sql := range []string{
		"SELECT c::text FROM customers c ORDER BY id",
		"SELECT ROW(id, name, m)::text FROM customers c ORDER BY id",
		"SELECT (SELECT d FROM customers d WHERE d.id = c.id + 0 * (SELECT count(*) FROM customers))::text FROM customers c ORDER BY id",
	} {
		rows, err := c.Query(context.Background(), sql)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(got) != 20 || !slices.Contains(got, "(3,x,ok)") {
			t.Errorf("%s: %v %v", sql, got, err)
		}
	}
	got, err := binary("SELECT (SELECT d FROM customers d WHERE d.id = c.id + 0 * (SELECT count(*) FROM customers)) FROM customers c")
	if err != nil || len(got) != 20 {
		t.Errorf("%d rows, %v", len(got), err) // all are one server's
	}
}

package chbench

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"shardproxy/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// load makes a database with the rows.
func load(t *testing.T) (*pgtest.Database, *pgx.Conn) {
	t.Helper()
	db := pgtest.Shared(t)
	c := db.Connect("app")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := c.Exec(ctx, Schema()); err != nil {
		t.Fatal(err)
	}
	for _, table := range Tables() {
		var rows bytes.Buffer
		n, err := Write(&rows, table.Name)
		if err != nil {
			t.Fatal(err)
		}
		tag, err := c.PgConn().CopyFrom(ctx, &rows, "COPY "+table.Name+" FROM STDIN")
		if err != nil || tag.RowsAffected() != int64(n) {
			t.Fatalf("%s: %d rows of %d, %v", table.Name, tag.RowsAffected(), n, err)
		}
		if _, err := c.Exec(ctx, "ANALYZE "+table.Name); err != nil {
			t.Fatal(err)
		}
	}
	return db, c
}

// TestQueries runs every query with constants and with parameters: each gives rows, and
// not only NULL.
func TestQueries(t *testing.T) {
	all, err := Queries()
	if err != nil || len(all) != 22 {
		t.Fatal(len(all), err)
	}
	_, c := load(t)
	for _, q := range all {
		rows := read(t, c, q.Constants())
		if len(rows) == 0 || strings.Join(rows[0], "") == "" {
			t.Errorf("%s gives %q", q.Name, rows)
			continue
		}
		for _, column := range q.Order {
			if column >= len(rows[0]) {
				t.Errorf("%s is ordered by a column that it does not have", q.Name)
			}
		}
		sql, args := q.Parameters()
		if why := q.Difference(read(t, c, sql, args...), rows); why != "" {
			t.Errorf("%s with parameters: %s", q.Name, why)
		}
	}
}

// read returns the rows in text, NULL as nothing.
func read(t *testing.T, c *pgx.Conn, sql string, args ...any) (all [][]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	rows, err := c.Query(ctx, sql, append([]any{pgx.QueryResultFormats{pgx.TextFormatCode}}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var row []string
		for _, v := range rows.RawValues() {
			row = append(row, string(v))
		}
		all = append(all, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return all
}

// TestRows checks what the queries rely on.
func TestRows(t *testing.T) {
	db, _ := load(t)
	for table, want := range map[string]string{"region": "5", "nation": "62", "supplier": "100", "item": "100", "warehouse": "8", "district": "24", "customer": "360",
		"history": "360", "orders": "480", "neworder": "144", "stock": "800"} {
		if got := db.Value("SELECT count(*) FROM " + table); got != want {
			t.Errorf("%s has %s rows, want %s", table, got, want)
		}
	}
	for what, sql := range map[string]string{
		"lines of orders":       "SELECT bool_and(n = o_ol_cnt) AND count(*) = 480 FROM orders JOIN (SELECT ol_w_id, ol_d_id, ol_o_id, count(*) n FROM orderline GROUP BY 1, 2, 3) x ON (ol_w_id, ol_d_id, ol_o_id) = (o_w_id, o_d_id, o_id)",
		"what is not delivered": "SELECT bool_and((o_carrier_id IS NULL) = (no_o_id IS NOT NULL)) FROM orders LEFT JOIN neworder ON (no_w_id, no_d_id, no_o_id) = (o_w_id, o_d_id, o_id)",
		"dates of delivery":     "SELECT bool_and((o_carrier_id IS NULL) = (ol_delivery_d IS NULL)) AND bool_or(ol_delivery_d < o_entry_d) FROM orders JOIN orderline ON (ol_w_id, ol_d_id, ol_o_id) = (o_w_id, o_d_id, o_id)",
		"from other warehouses": "SELECT count(*) FILTER (WHERE ol_supply_w_id <> ol_w_id) BETWEEN 200 AND 700 FROM orderline",
		"suppliers":             "SELECT bool_and(su_suppkey IS NOT NULL) FROM stock LEFT JOIN supplier ON su_suppkey = mod(s_w_id * s_i_id, 100)",
		"nations of states":     "SELECT bool_and(n_nationkey IS NOT NULL) AND count(DISTINCT n_nationkey) = 12 FROM customer LEFT JOIN nation ON n_nationkey = ascii(c_state)",
		"who never orders":      "SELECT count(*) >= 120 FROM customer WHERE NOT EXISTS (SELECT 1 FROM orders WHERE (o_w_id, o_d_id, o_c_id) = (c_w_id, c_d_id, c_id))",
		"bad suppliers":         "SELECT count(*) = 5 FROM supplier WHERE su_comment LIKE '%bad%'",
	} {
		if got := db.Value(sql); got != "t" && got != "true" {
			t.Errorf("%s: %s\n%s", what, got, sql)
		}
	}
	if _, err := Write(io.Discard, "nosuch"); err == nil {
		t.Error("a table that is none is written")
	}
}

// TestSame keeps the rows as they are: what is kept as golden with them stays comparable.
func TestSame(t *testing.T) {
	h := fnv.New64()
	for _, table := range Tables() {
		if _, err := Write(h, table.Name); err != nil {
			t.Fatal(err)
		}
	}
	if got := fmt.Sprintf("%x", h.Sum64()); got != sameSum {
		t.Errorf("the rows' hash is %s, not %s", got, sameSum)
	}
}

const sameSum = "1eb05167c43827"

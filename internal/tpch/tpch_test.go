package tpch

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

// load makes a database with the rows of a scale.
func load(t *testing.T, scale float64) (*pgtest.Database, *pgx.Conn) {
	t.Helper()
	db := pgtest.Shared(t)
	c := db.Connect("app")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := c.Exec(ctx, Schema()); err != nil {
		t.Fatal(err)
	}
	g, err := New(scale)
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range Tables() {
		var rows bytes.Buffer
		n, err := g.Write(&rows, table.Name)
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

// TestQueries runs every query on several scales, with constants and with parameters:
// each gives rows, and not only NULL.
func TestQueries(t *testing.T) {
	all, err := Queries()
	if err != nil || len(all) != 23 {
		t.Fatal(len(all), err)
	}
	for _, scale := range []float64{0.002, 0.01} {
		t.Run(fmt.Sprint(scale), func(t *testing.T) {
			_, c := load(t, scale)
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
		})
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

// TestRows checks what the specification says of the rows.
func TestRows(t *testing.T) {
	db, _ := load(t, 0.01)
	for table, want := range map[string]string{"region": "5", "nation": "25", "part": "2000", "supplier": "100", "partsupp": "8000", "customer": "1500", "orders": "15000"} {
		if got := db.Value("SELECT count(*) FROM " + table); got != want {
			t.Errorf("%s has %s rows, want %s", table, got, want)
		}
	}
	for what, sql := range map[string]string{
		"four lines an order": "SELECT count(*) BETWEEN 59000 AND 61000 FROM lineitem",
		"lines of an order":   "SELECT min(l_linenumber) = 1 AND max(l_linenumber) = 7 FROM lineitem",
		"all lines in a row":  "SELECT bool_and(n = m) FROM (SELECT count(*) n, max(l_linenumber) m FROM lineitem GROUP BY l_orderkey) x",
		"sparse keys":         "SELECT bool_and((o_orderkey - 1) % 32 < 8) AND max(o_orderkey) = 14999 / 8 * 32 + 14999 % 8 + 1 FROM orders",
		"who never orders":    "SELECT bool_and(o_custkey % 3 <> 0) AND count(DISTINCT o_custkey) = 1000 FROM orders",
		"prices of parts":     "SELECT bool_and(p_retailprice = (90000 + (p_partkey / 10) % 20001 + 100 * (p_partkey % 1000)) / 100.0) FROM part",
		"prices of lines":     "SELECT bool_and(l_extendedprice = l_quantity * p_retailprice) FROM lineitem JOIN part ON p_partkey = l_partkey",
		"totals":              "SELECT bool_and(o_totalprice = t) FROM orders JOIN (SELECT l_orderkey, round(sum(l_extendedprice * (1 + l_tax) * (1 - l_discount)), 2) t FROM lineitem GROUP BY 1) x ON l_orderkey = o_orderkey",
		"states":              "SELECT bool_and(o_orderstatus = s) FROM orders JOIN (SELECT l_orderkey, CASE WHEN bool_and(l_linestatus = 'F') THEN 'F' WHEN bool_and(l_linestatus = 'O') THEN 'O' ELSE 'P' END s FROM lineitem GROUP BY 1) x ON l_orderkey = o_orderkey",
		"states of lines":     "SELECT bool_and((l_linestatus = 'O') = (l_shipdate > '1995-06-17')) FROM lineitem",
		"flags of lines":      "SELECT bool_and((l_returnflag = 'N') = (l_receiptdate > '1995-06-17')) AND count(DISTINCT l_returnflag) = 3 FROM lineitem",
		"dates of orders":     "SELECT min(o_orderdate) = '1992-01-01' AND max(o_orderdate) = date '1998-12-31' - 151 FROM orders",
		"dates of lines":      "SELECT min(l_shipdate - o_orderdate) = 1 AND max(l_shipdate - o_orderdate) = 121 AND min(l_commitdate - o_orderdate) = 30 AND max(l_commitdate - o_orderdate) = 90 AND min(l_receiptdate - l_shipdate) = 1 AND max(l_receiptdate - l_shipdate) = 30 FROM lineitem JOIN orders ON o_orderkey = l_orderkey",
		"rates and amounts":   "SELECT min(l_discount) = 0 AND max(l_discount) = 0.10 AND min(l_tax) = 0 AND max(l_tax) = 0.08 AND min(l_quantity) = 1 AND max(l_quantity) = 50 FROM lineitem",
		"words of lines":      "SELECT count(DISTINCT l_shipmode) = 7 AND count(DISTINCT l_shipinstruct) = 4 AND count(DISTINCT l_linestatus) = 2 FROM lineitem",
		"words of orders":     "SELECT count(DISTINCT o_orderpriority) = 5 AND count(DISTINCT o_clerk) = 10 AND bool_and(o_clerk ~ '^Clerk#[0-9]{9}$') FROM orders",
		"words of parts":      "SELECT count(DISTINCT p_type) = 150 AND count(DISTINCT p_container) = 40 AND count(DISTINCT p_brand) = 25 AND count(DISTINCT p_mfgr) = 5 AND count(DISTINCT p_size) = 50 AND bool_and(substr(p_brand, 7, 1) = substr(p_mfgr, 14, 1)) FROM part",
		"names of parts":      "SELECT bool_and((SELECT count(DISTINCT w) FROM unnest(string_to_array(p_name, ' ')) w) = 5) FROM part",
		"colours":             "SELECT count(DISTINCT w) = 92 FROM part, unnest(string_to_array(p_name, ' ')) w",
		"suppliers of a part": "SELECT min(n) = 4 AND max(n) = 4 FROM (SELECT count(DISTINCT ps_suppkey) n FROM partsupp GROUP BY ps_partkey) x",
		"parts of a supplier": "SELECT min(n) > 60 AND max(n) < 100 FROM (SELECT count(*) n FROM partsupp GROUP BY ps_suppkey) x",
		"phones":              "SELECT bool_and(c_phone ~ '^[0-9]{2}-[0-9]{3}-[0-9]{3}-[0-9]{4}$' AND left(c_phone, 2)::int = c_nationkey + 10) FROM customer",
		"balances":            "SELECT min(c_acctbal) BETWEEN -999.99 AND -980 AND max(c_acctbal) BETWEEN 9980 AND 9999.99 FROM customer",
		"segments, nations":   "SELECT count(DISTINCT c_mktsegment) = 5 AND count(DISTINCT c_nationkey) = 25 FROM customer",
		"complaints":          "SELECT count(*) FILTER (WHERE s_comment LIKE '%Customer%Complaints%') = 1 AND count(*) FILTER (WHERE s_comment LIKE '%Customer%Recommends%') = 1 FROM supplier",
		"special requests":    "SELECT count(*) BETWEEN 50 AND 600 FROM orders WHERE o_comment LIKE '%special%requests%'",
		"comments":            "SELECT min(length(o_comment)) = 19 AND max(length(o_comment)) = 78 AND count(DISTINCT o_comment) > 14900 FROM orders",
	} {
		if got := db.Value(sql); got != "t" && got != "true" {
			t.Errorf("%s: %s\n%s", what, got, sql)
		}
	}
}

// TestSmallest loads the smallest scale: the few suppliers of a part are four.
func TestSmallest(t *testing.T) {
	db, _ := load(t, MinScale)
	if got := db.Value("SELECT count(*) FROM partsupp"); got != "800" {
		t.Error(got)
	}
	for _, scale := range []float64{0, 0.0009, -1, 1e9} {
		if _, err := New(scale); err == nil {
			t.Errorf("a scale of %v", scale)
		}
	}
	g, err := New(MinScale)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Write(io.Discard, "nosuch"); err == nil {
		t.Error("a table that is none is written")
	}
}

// TestSame keeps the rows as they are: what is measured or kept as golden with them stays
// comparable.
func TestSame(t *testing.T) {
	g, err := New(MinScale)
	if err != nil {
		t.Fatal(err)
	}
	h := fnv.New64()
	for range 2 { // in any order, any number of times
		h.Reset()
		for _, table := range Tables() {
			if _, err := g.Write(h, table.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := fmt.Sprintf("%x", h.Sum64()); got != sameSum {
		t.Errorf("the rows' hash is %s, not %s", got, sameSum)
	}
}

const sameSum = "37f2d604b142befd"

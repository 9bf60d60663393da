package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
)

// TestLargeInput sends what is as large as the protocol allows, or larger than anybody should.
func TestLargeInput(t *testing.T) {
	s := startShards(t, 2, "      many: {key: k}")
	c := s.connectLoaded()
	must(t, c, "CREATE TABLE many (k int PRIMARY KEY, a int, b text)")
	t.Run("parameters", func(t *testing.T) { insertsParameters(t, s, c) })
	t.Run("copy", func(t *testing.T) { copiesBroken(t, s, c) })
	t.Run("list", func(t *testing.T) { asksForMany(t, s) })
}

// insertsParameters inserts rows of 65,535 parameters in all.
func insertsParameters(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	const rows = 65535 / 3
	insert := func(broken int) (pgconn.CommandTag, error) {
		var text strings.Builder
		text.WriteString("INSERT INTO many VALUES ")
		var values [][]byte
		for i := range rows {
			if i > 0 {
				text.WriteString(", ")
			}
			fmt.Fprintf(&text, "($%d, $%d, $%d)", 3*i+1, 3*i+2, 3*i+3)
			a := strconv.Itoa(i)
			if i == broken {
				a = "x"
			}
			values = append(values, []byte(strconv.Itoa(i)), []byte(a), []byte("b"))
		}
		r := c.PgConn().ExecParams(within(t, time.Minute), text.String(), values, nil, nil, nil).Read()
		return r.CommandTag, r.Err
	}
	if _, err := insert(rows - 1); sqlState(err) != "22P02" {
		t.Error("a broken value behind all others:", err)
	}
	if got := s.countOn("many"); got != "0 0" {
		t.Errorf("%s rows of an INSERT that failed", got)
	}
	began := time.Now()
	tag, err := insert(-1)
	if err != nil || tag.RowsAffected() != rows {
		t.Fatal(tag, err)
	}
	t.Logf("%d parameters in %v", 3*rows, time.Since(began))
	if got := one(t, c, "SELECT count(*) || ' ' || sum(a) FROM many"); got != fmt.Sprint(rows, " ", rows*(rows-1)/2) {
		t.Error(got)
	}
	if _, err := insert(-1); sqlState(err) != "23505" {
		t.Error("again:", err)
	}
}

// asksForMany sends lists of 5 MB, which are too long to be read, and of as many values as are taken: these are answered, and what
// they leave in memory is bounded.
func asksForMany(t *testing.T, s *shardedProgram) {
	ask := func(c *pgx.Conn, from, size int) (string, error) {
		var b strings.Builder
		b.WriteString("SELECT count(*) FROM many WHERE k IN (")
		for i := from; b.Len() < size; i++ {
			if i > from {
				b.WriteByte(',')
			}
			b.WriteString(strconv.Itoa(i))
		}
		b.WriteByte(')')
		results, err := c.PgConn().Exec(within(t, time.Minute), b.String()).ReadAll()
		if err != nil {
			return "", err
		}
		return string(results[0].Rows[0][0]), nil
	}
	c := s.connect()
	if _, err := ask(c, 0, 5<<20); sqlState(err) != "54000" {
		t.Error("a text that is too long:", err)
	}
	must(t, c, "SELECT 1")
	must(t, c, "INSERT INTO many SELECT i, i, 'x' FROM generate_series(1, 1000) i")
	memory := func() uint64 {
		runtime.GC()
		debug.FreeOSMemory()
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "VmRSS:")
		n, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n << 10
	}
	before := memory()
	began := time.Now()
	for i := range 2 {
		if got, err := ask(c, 500+i, 200<<10); err != nil || got != fmt.Sprint(501-i) {
			t.Fatal(got, err)
		}
	}
	after := memory()
	t.Logf("2 lists of 200 kB in %v, resident %d MiB before and %d MiB behind", time.Since(began), before>>20, after>>20)
	if after > before+128<<20 {
		t.Errorf("%d MiB more than before", (after-before)>>20)
	}
}

// copiesBroken copies a million rows, the last of which is broken.
func copiesBroken(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	must(t, c, "TRUNCATE many")
	const n = 1_000_000
	var data bytes.Buffer
	for i := range n - 1 {
		fmt.Fprintf(&data, "%d\t%d\trow\n", i, i)
	}
	fmt.Fprintf(&data, "%d\tbroken\trow\n", n)
	began := time.Now()
	_, err := copied(t, c, "COPY many FROM STDIN", data.String())
	if err == nil || err.Code != "22P02" || err.Where != fmt.Sprintf(`COPY many, line %d, column a: "broken"`, n) {
		t.Errorf("%v at %q", err, where(err))
	}
	t.Logf("%d lines in %v", n, time.Since(began))
	if got := s.countOn("many"); got != "0 0" {
		t.Errorf("%s rows of a COPY that failed", got)
	}
	must(t, c, "SELECT 1")
}

// TestUnlikeShards: a column that one shard lacks is an error, and nothing is written anywhere.
func TestUnlikeShards(t *testing.T) {
	s := startShards(t, 3, "      many: {key: k}")
	c := s.connectLoaded()
	must(t, c, "CREATE TABLE many (k int PRIMARY KEY, a int, b text)")
	for i := range 30 {
		must(t, c, fmt.Sprintf("INSERT INTO many VALUES (%d, %d, 'b')", i, i))
	}
	before := s.onEach("SELECT count(*) || ' ' || coalesce(sum(a), 0) FROM many")
	must(t, pgtest.Connect(t, s.shards[2].Primary().DSN("app", "app")), "ALTER TABLE many DROP COLUMN b; ALTER TABLE products DROP COLUMN name")
	rows := make([]string, 30)
	for i := range rows {
		rows[i] = fmt.Sprintf("(%d, %d, 'c')", 100+i, i)
	}
	all := strings.Join(rows, ", ")
	for _, begin := range []bool{false, true} {
		for sql, code := range map[string]string{
			"INSERT INTO many VALUES " + all:                            "42601",
			"INSERT INTO many (k, a, b) VALUES " + all:                  "42703",
			"UPDATE many SET a = a + 1, b = 'd'":                        "42703",
			"DELETE FROM many WHERE b = 'b'":                            "42703",
			"SELECT * FROM many":                                        "55000",
			"SELECT k, b FROM many ORDER BY b, k":                       "42703",
			"SELECT max(b) FROM many":                                   "42703",
			"UPDATE products SET name = 'x'":                            "42703",
			"INSERT INTO products (id, name) VALUES (99, 'x')":          "42703",
			"ALTER TABLE many DROP COLUMN b":                            "42703",
			"ALTER TABLE many RENAME COLUMN b TO c":                     "42703",
			"CREATE INDEX ON many (b)":                                  "42703",
			"INSERT INTO many (k, b) SELECT k + 1000, b FROM many":      "42703",
			"UPDATE many SET k = 5000, b = 'x' WHERE k = 1 OR a IN (2)": "42703",
		} {
			if begin {
				must(t, c, "BEGIN")
				must(t, c, "UPDATE many SET a = a + 100 WHERE k = 1")
			}
			_, err := c.Exec(within(t, 20*time.Second), sql, pgx.QueryExecModeSimpleProtocol)
			if sqlState(err) != code {
				t.Errorf("%.60s: %v, should be %s", sql, err, code)
			}
			if begin {
				must(t, c, "ROLLBACK")
			}
		}
	}
	var data strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&data, "%d\t%d\tx\n", 200+i, i)
	}
	if _, err := copied(t, c, "COPY many FROM STDIN", data.String()); err == nil || err.Code != "22P04" {
		t.Error(err)
	}
	if _, err := copied(t, c, "COPY many (k, a, b) FROM STDIN", data.String()); err == nil || err.Code != "42703" {
		t.Error(err)
	}
	if after := s.onEach("SELECT count(*) || ' ' || coalesce(sum(a), 0) FROM many"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("%v, before it was %v", after, before)
	}
	if got := s.onEach("SELECT count(*)::text FROM pg_attribute WHERE attrelid = 'many'::regclass AND attname = 'b'"); fmt.Sprint(got) != "[1 1 0]" {
		t.Error("columns:", got)
	}
	if got := s.onEach("SELECT (count(*) + (SELECT count(*) FROM pg_prepared_xacts))::text FROM products"); fmt.Sprint(got) != "[10 10 10]" {
		t.Error("products:", got)
	}
}

package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
)

// TestCopyOut compares what COPY gives over two shards with what one server gives.
func TestCopyOut(t *testing.T) {
	s := startShards(t, 2)
	c := s.connectLoaded()
	alone := pgtest.Connect(t, pgtest.Start(t, pgtest.Options{}).Primary().DSN("app", "app"))
	must(t, alone, shardedSchema)
	for i := range 20 {
		must(t, c, "INSERT INTO customers VALUES ($1, $2)", i, fmt.Sprint("name\t", i))
		must(t, alone, "INSERT INTO customers VALUES ($1, $2)", i, fmt.Sprint("name\t", i))
	}
	for _, sql := range []string{
		"COPY customers TO STDOUT", "COPY customers (name, id) TO STDOUT (FORMAT csv, HEADER)", "COPY customers TO STDOUT WITH CSV HEADER",
		"COPY public.customers TO STDOUT (FORMAT text, HEADER false)", "COPY (SELECT id * 2, name FROM customers WHERE id > 3) TO STDOUT (FORMAT csv, HEADER true)",
		"COPY (SELECT id FROM customers WHERE id < 0) TO STDOUT (FORMAT csv, HEADER true)", "COPY orders TO STDOUT",
	} {
		var got, want bytes.Buffer
		tag, err := c.PgConn().CopyTo(within(t, 10*time.Second), &got, sql)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		other, err := alone.PgConn().CopyTo(within(t, 10*time.Second), &want, sql)
		if err != nil {
			t.Fatal(err)
		}
		lines := func(b bytes.Buffer) []string {
			all := strings.Split(b.String(), "\n")
			if len(all) > 1 && strings.Contains(sql, "HEADER") && !strings.Contains(sql, "false") {
				slices.Sort(all[1:])
			} else {
				slices.Sort(all)
			}
			return all
		}
		if !slices.Equal(lines(got), lines(want)) || tag.String() != other.String() {
			t.Errorf("%s: %q %q, should be %q %q", sql, tag, got.String(), other, want.String())
		}
	}
	// Binary data go in again as they came out.
	var data bytes.Buffer
	if _, err := c.PgConn().CopyTo(within(t, 10*time.Second), &data, "COPY customers TO STDOUT (FORMAT binary)"); err != nil {
		t.Fatal(err)
	}
	must(t, alone, "TRUNCATE customers CASCADE")
	if tag, err := alone.PgConn().CopyFrom(within(t, 10*time.Second), &data, "COPY customers FROM STDIN (FORMAT binary)"); err != nil || tag.RowsAffected() != 20 {
		t.Errorf("%v %v", tag, err)
	}
	var none bytes.Buffer
	if _, err := c.PgConn().CopyTo(within(t, 10*time.Second), &none, "COPY orders TO STDOUT (FORMAT binary)"); err != nil || none.Len() != 21 {
		t.Errorf("%d bytes, %v", none.Len(), err)
	}
	for sql, code := range map[string]string{
		"COPY (SELECT * FROM customers ORDER BY id) TO STDOUT": "0A000", "COPY (SELECT count(*) FROM customers) TO STDOUT": "0A000",
		"COPY (SELECT 1/(id-id) FROM customers) TO STDOUT": "22012", "COPY customers (nosuch) TO STDOUT": "42703",
	} {
		if _, err := c.PgConn().CopyTo(within(t, 10*time.Second), &data, sql); sqlState(err) != code {
			t.Errorf("%s: %v, want %s", sql, err, code)
		}
	}
	must(t, c, "BEGIN")
	must(t, c, "INSERT INTO customers VALUES (100, 'new'), (101, 'new'), (102, 'new')")
	data.Reset()
	if tag, err := c.PgConn().CopyTo(within(t, 10*time.Second), &data, "COPY customers TO STDOUT"); err != nil || tag.RowsAffected() != 23 {
		t.Errorf("%v %v", tag, err)
	}
	must(t, c, "ROLLBACK")
	if got := one(t, c, "SELECT count(*)::text FROM customers"); got != "20" {
		t.Error(got)
	}
}

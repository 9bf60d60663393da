package router

import (
	"strings"
	"testing"
)

// TestFootprint plans statements and asks what they have to do with tables.
func TestFootprint(t *testing.T) {
	r, _, _ := openCatalog(t)
	p := New(Options{Catalog: r.Current})
	show := func(f Footprint) string {
		s := ""
		if f.Steady {
			s = "reads " + strings.Join(f.Reads, " ")
		}
		if len(f.Writes) > 0 {
			s += " writes " + strings.Join(f.Writes, " ")
		}
		if f.WritesAny {
			s += " writes any"
		}
		return strings.ReplaceAll(strings.TrimSpace(s), "public.", "")
	}
	for sql, want := range map[string]string{
		"SELECT * FROM customers":                                                   "reads customers",
		"SELECT * FROM fine JOIN orders USING (id)":                                 "reads customers orders",
		"SELECT name FROM customers UNION SELECT total::text FROM orders":           "reads customers orders",
		"WITH w AS (SELECT * FROM orders) SELECT * FROM w":                          "reads orders",
		"SELECT lower(name) || 'x' FROM customers ORDER BY 1":                       "writes any",
		"SELECT pg_catalog.lower(name) || 'x' FROM customers ORDER BY 1":            "reads customers",
		"SELECT stable_fn(1) FROM customers":                                        "",
		"SELECT now() FROM customers":                                               "",
		"SELECT random() FROM customers":                                            "",
		"SELECT c.whole FROM customers c":                                           "writes any",
		"SELECT * FROM scratch":                                                     "",
		"SELECT * FROM hidden":                                                      "writes any",
		"SELECT * FROM nowhere":                                                     "writes any",
		"SELECT 1":                                                                  "",
		"SELECT * FROM customers FOR UPDATE":                                        "",
		"EXPLAIN SELECT * FROM customers":                                           "",
		"COPY customers TO STDOUT":                                                  "",
		"INSERT INTO orders VALUES (1)":                                             "writes orders",
		"UPDATE quiet SET a = 1":                                                    "writes quiet",
		"DELETE FROM audited":                                                       "writes audited writes any",
		"COPY orders FROM STDIN":                                                    "writes orders",
		"WITH w AS (DELETE FROM orders RETURNING id) SELECT * FROM w":               "writes orders",
		"MERGE INTO orders o USING quiet q ON o.id = q.id WHEN MATCHED THEN DELETE": "writes orders",
		"SELECT counts()":                                                           "writes quiet",
		"SELECT nextval('x')":                                                       "",
		"INSERT INTO orders VALUES (1); UPDATE customers SET name = 'x'":            "writes customers orders",
		"BEGIN; INSERT INTO orders VALUES (1)":                                      "writes orders",
		"SET search_path = other; INSERT INTO orders VALUES (1)":                    "writes orders",
		"TRUNCATE orders":                                                           "writes any",
		"ALTER TABLE orders ADD b int":                                              "writes any",
		"DO 'BEGIN END'":                                                            "writes any",
		"CALL something()":                                                          "writes any",
		"EXECUTE something":                                                         "writes any",
		"EXPLAIN ANALYZE DELETE FROM orders":                                        "writes any",
		"this is no SQL":                                                            "writes any",
		"INSERT INTO nowhere VALUES (1)":                                            "writes any",
		"PREPARE p AS DELETE FROM orders":                                           "",
		"BEGIN":                                                                     "",
		"SET timezone = 'UTC'":                                                      "",
		"LISTEN x":                                                                  "",
	} {
		if got := show(p.Plan([]byte(sql), Context{}).Footprint); got != want {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
	}
}

package verify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

const kinds = `
CREATE TYPE mood AS ENUM ('good', 'so so', 'bad');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS numeric(12,3) CHECK (VALUE > 0);
CREATE TABLE kinds (id bigint PRIMARY KEY, n numeric, p positive, f float8, r real, t text, v varchar(20), c char(6), b bytea, bo boolean,
	ts timestamptz, tl timestamp, d date, iv interval, ti timetz, u uuid, j json, jb jsonb, ia int[], ta text[][], m mood, ma mood[], pr pair, rg int4range,
	ip inet, mo money, x xml, bi bit(5), pt point, tv tsvector, ln pg_lsn, nm name, "Odd ""name" text);
INSERT INTO kinds SELECT i, i * 1.10, i + 0.5, i / 3.0, i / 7.0, E'line\n' || i || E'\ttab \\ "q" ''s''', 'v' || i, 'c' || i, decode(lpad(to_hex(i), 8, '0'), 'hex'), i % 2 = 0,
	'2024-03-31 01:30:00.123456+00'::timestamptz + i * interval '1 day', '2024-01-01'::timestamp + i * interval '1 hour', '2024-01-01'::date + i,
	make_interval(i, 2, 0, 3, 4, 5, 6.789), '12:34:56.7+05:30', ('00000000-0000-0000-0000-' || lpad(i::text, 12, '0'))::uuid, '{"b": 1,  "a": [1, 2]}', jsonb_build_object('k', i, 'x', NULL),
	ARRAY[i, NULL, -i], ARRAY[ARRAY['a,b', 'c"d'], ARRAY[E'e\nf', '']], 'so so', '{good,bad}', ROW(i, E'x,y\n'::text)::pair, int4range(i, i + 5), '10.0.0.1/8', 12.34, '<a>&amp;</a>',
	B'10101', '(1.5,2)', 'a fat cat'::tsvector, '0/16B3748', 'someone', 'odd' FROM generate_series(1, 20) i;
INSERT INTO kinds (id) VALUES (21);
INSERT INTO kinds (id, f, r, n, ts, t, v) VALUES (22, 'NaN', '-Infinity', 'NaN', 'infinity', '', NULL), (23, 0.1 + 0.2, 1e-40, 1e100, '-infinity', NULL, '')`

// TestKinds mends rows of types of all kinds that are missing, more or different.
func TestKinds(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 3, kinds, "    tables: {kinds: {reference: true}}\n")
	// What a database sets for its sessions makes no difference.
	f.dbs[1].Exec(fmt.Sprintf(`ALTER DATABASE %[1]s SET DateStyle = 'SQL, DMY'; ALTER DATABASE %[1]s SET TimeZone = 'Asia/Kathmandu'; ALTER DATABASE %[1]s SET extra_float_digits = -5;
		ALTER DATABASE %[1]s SET bytea_output = 'escape'; ALTER DATABASE %[1]s SET IntervalStyle = 'iso_8601'; ALTER DATABASE %[1]s SET lc_monetary = 'C'`, f.dbs[1].Name))
	if got := counts(f.compare(f.checker(Options{}))); got != "" {
		t.Fatalf("copies that are alike differ: %s", got)
	}
	f.dbs[1].Exec("DELETE FROM kinds WHERE id IN (1, 9, 23); INSERT INTO kinds (id, t) VALUES (-5, 'more'), (100, 'more'); UPDATE kinds SET t = t || 'x' WHERE id IN (5, 20)")
	columns := []string{"n = n + 1", "p = p + 1", "f = f + 1", "r = r + 1", "t = NULL", "v = ''", "c = 'x'", "b = NULL", "bo = NOT bo", "ts = ts + interval '1 us'",
		"tl = NULL", "d = d + 1", "iv = NULL", "ti = '12:34:56.7+05:00'", "u = NULL", `j = '{"b":1}'`, "jb = '{}'", "ia = '{}'", "ta = NULL", "m = 'bad'"}
	for i, set := range columns {
		f.dbs[2].Exec(fmt.Sprintf("UPDATE kinds SET %s WHERE id = %d", set, i+1))
	}
	f.mends(f.checker(Options{}), "kinds s1 -3 +2 ~2, kinds s2 -0 +0 ~20", "kinds s1 +3 -2 ~2, kinds s2 +0 -0 ~20")
	for i := range f.dbs {
		f.dbs[i].Exec(fmt.Sprintf("ALTER DATABASE %s RESET ALL", f.dbs[i].Name))
	}
	f.alike("SELECT k::text FROM kinds k ORDER BY id")

	f.dbs[0].Exec("TRUNCATE kinds")
	c := f.checker(Options{Source: "s1", Hold: time.Nanosecond})
	f.mends(c, "kinds s0 -23 +0 ~0", "kinds s0 +23 -0 ~0")
	f.dbs[0].Exec("TRUNCATE kinds")
	f.mends(f.checker(Options{}), "kinds s1 -0 +23 ~0, kinds s2 -0 +23 ~0", "kinds s1 +0 -23 ~0, kinds s2 +0 -23 ~0")
}

// TestShown looks at what is said of rows.
func TestShown(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, `CREATE TABLE t (a int, b text, c text, PRIMARY KEY (b, a)); INSERT INTO t SELECT i, 'k' || i % 3, 'v' FROM generate_series(1, 30) i`, "    tables: {t: {reference: true}}\n")
	f.dbs[1].Exec("DELETE FROM t WHERE a = 4; UPDATE t SET c = repeat('w', 5000) WHERE a = 5; INSERT INTO t VALUES (1, 'x', NULL); UPDATE t SET c = 'z' WHERE a > 10")
	r := f.compare(f.checker(Options{Rows: 24}))
	got := map[RowKind]RowResult{}
	for _, row := range r[0].Shards[0].Rows {
		if strings.HasSuffix(row.Key, ",4)") || strings.HasSuffix(row.Key, ",5)") || strings.HasSuffix(row.Key, "(x,1)") {
			got[row.Kind] = row
		}
	}
	want := map[RowKind]RowResult{
		Missing:   {Missing, `("b", "a") = (k1,4)`, "(4,k1,v)", ""},
		Extra:     {Extra, `("b", "a") = (x,1)`, "", "(1,x,)"},
		Different: {Different, `("b", "a") = (k2,5)`, "(5,k2,v)", "(5,k2," + strings.Repeat("w", shownBytes-6)},
	}
	for kind, w := range want {
		if got[kind] != w {
			t.Errorf("%s: %+v, want %+v", kind, got[kind], w)
		}
	}
	if n := counts(f.compare(f.checker(Options{Rows: 1}))); n != "t s1 -1 +1 ~21" {
		t.Error(n)
	}
	if one := f.compare(f.checker(Options{Rows: 1})); len(one[0].Shards[0].Rows) != 1 || one[0].Rows != 30 {
		t.Errorf("%+v", one[0])
	}
}

// TestKeys compares by keys of many types, and tables without one.
func TestKeys(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, `
		CREATE TYPE e AS ENUM ('z', 'a', 'm'); CREATE TYPE span AS RANGE (subtype = float8); CREATE DOMAIN word AS varchar(9);
		CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
		CREATE TABLE k1 (a text COLLATE "C", b timestamptz, c numeric, d e, v int, PRIMARY KEY (a, b, c, d));
		CREATE TABLE k2 (a span PRIMARY KEY, v int); CREATE TABLE k3 (a word, b char(3), c bytea, v int, PRIMARY KEY (a, b, c));
		CREATE TABLE k4 (a int, b text); CREATE TABLE k5 (a numeric PRIMARY KEY, v int); CREATE TABLE k6 (a text COLLATE blind PRIMARY KEY, v int);
		CREATE TABLE k7 (a int PRIMARY KEY, v int) PARTITION BY RANGE (a); CREATE TABLE k7a PARTITION OF k7 FOR VALUES FROM (0) TO (10); CREATE TABLE k7b PARTITION OF k7 DEFAULT;
		CREATE TABLE k8 (a int, b text) PARTITION BY HASH (a); CREATE TABLE k8a PARTITION OF k8 FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE k8b PARTITION OF k8 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
		INSERT INTO k1 SELECT 'a''' || i % 4, '2024-01-01'::timestamptz + i * interval '1 us', i / 7.0, (ARRAY['z','a','m'])[1 + i % 3]::e, i FROM generate_series(1, 40) i;
		INSERT INTO k2 SELECT span(i, i + 0.1), i FROM generate_series(1, 20) i; INSERT INTO k3 SELECT 'w' || i, i % 9, decode(lpad(to_hex(i), 2, '0'), 'hex'), i FROM generate_series(1, 20) i;
		INSERT INTO k4 SELECT i % 5, 'x' FROM generate_series(1, 20) i; INSERT INTO k4 VALUES (NULL, NULL), (NULL, NULL); INSERT INTO k5 SELECT i * 1.5, i FROM generate_series(1, 20) i;
		INSERT INTO k6 SELECT 'Key' || i, i FROM generate_series(1, 20) i; INSERT INTO k7 SELECT i, i FROM generate_series(1, 20) i; INSERT INTO k8 SELECT i % 5, 'x' FROM generate_series(1, 20) i`,
		"    tables: {k1: {reference: true}, k2: {reference: true}, k3: {reference: true}, k4: {reference: true}, k5: {reference: true}, k6: {reference: true}, k7: {reference: true}, k8: {reference: true}}\n")
	c := f.checker(Options{})
	if got := counts(f.compare(c)); got != "" {
		t.Fatal(got)
	}
	f.dbs[1].Exec(`DELETE FROM k1 WHERE v IN (3, 30); UPDATE k1 SET v = 0 WHERE v = 17; UPDATE k1 SET a = 'zz' WHERE v = 18;
		DELETE FROM k2 WHERE v = 3; UPDATE k2 SET v = 0 WHERE v = 4; DELETE FROM k3 WHERE v = 20; INSERT INTO k3 VALUES ('w', 'b', '\x00', 1);
		DELETE FROM k4 WHERE ctid IN (SELECT min(ctid) FROM k4 WHERE a = 1 OR a IS NULL GROUP BY a); INSERT INTO k4 VALUES (2, 'x'), (2, 'x'), (NULL, 'x');
		UPDATE k5 SET a = 1.50 WHERE v = 1; UPDATE k6 SET a = 'KEY1' WHERE v = 1; UPDATE k7 SET a = a + 100 WHERE a = 3; UPDATE k7 SET v = 0 WHERE a = 15;
		DELETE FROM k8 WHERE a = 1; INSERT INTO k8 VALUES (2, 'x')`)
	f.mends(f.checker(Options{}), "k1 s1 -3 +1 ~1, k2 s1 -1 +0 ~1, k3 s1 -1 +1 ~0, k4 s1 -2 +3 ~0, k5 s1 -1 +1 ~0, k6 s1 -1 +1 ~0, k7 s1 -1 +1 ~1, k8 s1 -4 +1 ~0",
		"k1 s1 +3 -1 ~1, k2 s1 +1 -0 ~1, k3 s1 +1 -1 ~0, k4 s1 +2 -3 ~0, k5 s1 +0 -0 ~1, k6 s1 +0 -0 ~1, k7 s1 +1 -1 ~1, k8 s1 +4 -1 ~0")
	for i := range 8 {
		f.alike(fmt.Sprintf("SELECT k::text FROM k%d k ORDER BY 1", i+1))
	}
}

// TestNotCompared says why.
func TestNotCompared(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY); CREATE TABLE d (id int PRIMARY KEY)",
		"    tables: {a: {reference: true}, b: {reference: true}, c: {reference: true}, d: {reference: true}}\n")
	f.dbs[1].Exec("ALTER TABLE a ADD x int; DROP TABLE b; ALTER TABLE c DROP CONSTRAINT c_pkey; INSERT INTO d VALUES (1)")
	holder := f.dbs[1].Connect("postgres")
	if _, err := holder.Exec(t.Context(), "BEGIN; INSERT INTO d VALUES (2)"); err != nil {
		t.Fatal(err)
	}
	c := f.checker(Options{LockWait: time.Nanosecond})
	for name, want := range map[string]string{"a": "other columns", "b": "does not have it", "c": "another primary key", "d": "locks were not given"} {
		r, err := c.Compare(t.Context(), "public", name)
		if err != nil || !strings.Contains(r.Problem, want) || r.Differs() {
			t.Errorf("%s: %+v %v", name, r, err)
		}
	}
	if _, err := holder.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Compare(t.Context(), "public", "d"); err != nil || !r.Differs() {
		t.Errorf("%+v %v", r, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Compare(ctx, "public", "d"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestWriterBetween lets a transaction commit on one shard before the other, as
// those in two phases do: it is no difference.
func TestWriterBetween(t *testing.T) {
	t.Parallel()
	f := newFleet(t, 2, "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 10) i", "    tables: {t: {reference: true}}\n")
	slow := f.dbs[1].Connect("postgres")
	if _, err := slow.Exec(t.Context(), "BEGIN; UPDATE t SET v = 1 WHERE id = 5"); err != nil {
		t.Fatal(err)
	}
	f.dbs[0].Exec("UPDATE t SET v = 1 WHERE id = 5")
	done := make(chan *TableResult, 1)
	c := f.checker(Options{})
	go func() {
		r, _ := c.Compare(t.Context(), "public", "t")
		done <- r
	}()
	// It waits for the writer, and keeps nobody out for long.
	for f.dbs[1].Value("SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE c.relname = 't' AND NOT l.granted") == "0" {
		select {
		case r := <-done:
			t.Fatalf("it did not wait: %+v", r)
		default:
		}
	}
	if _, err := slow.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if r := <-done; r.Problem != "" || r.Differs() {
		t.Errorf("%+v", r)
	}
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// schemaPlaces places whole schemas, and tables that have a column.
const schemaPlaces = `      plans: {reference: true}
    schemas: {tenant_a: s1, tenant_b: s1, tenant_c: s2, cust_*: hash}
    keys: [tenant_id, account_id]
`

// schemaTables are made through the proxy.
const schemaTables = `
CREATE SCHEMA tenant_a
CREATE SCHEMA tenant_b
CREATE SCHEMA tenant_c
CREATE SCHEMA cust_1
CREATE SCHEMA cust_2
CREATE SCHEMA cust_3
CREATE SCHEMA cust_4
CREATE TABLE plans (id int PRIMARY KEY, name text)
INSERT INTO plans VALUES (1, 'free'), (2, 'paid')
CREATE TABLE alone (id int PRIMARY KEY, name text)
INSERT INTO alone VALUES (1, 'home'), (2, 'too')
CREATE TABLE tenant_a.users (id serial PRIMARY KEY, email text UNIQUE, plan int REFERENCES plans)
CREATE TABLE tenant_b.users (id serial PRIMARY KEY, email text UNIQUE, plan int REFERENCES plans)
CREATE TABLE tenant_c.users (id serial PRIMARY KEY, email text UNIQUE, plan int REFERENCES plans)
CREATE TABLE tenant_a.posts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, author int REFERENCES tenant_a.users ON DELETE CASCADE, body text, at timestamptz DEFAULT now())
CREATE TABLE tenant_b.posts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, author int REFERENCES tenant_a.users, body text)
CREATE TABLE cust_1.things (id int PRIMARY KEY, n int)
CREATE TABLE cust_2.things (id int PRIMARY KEY, n int)
CREATE TABLE cust_3.things (id int PRIMARY KEY, n int)
CREATE TABLE cust_4.things (id int PRIMARY KEY, n int)
CREATE SEQUENCE tenant_a.of_all
CREATE TABLE cust_4.odd (id int DEFAULT nextval('tenant_a.of_all'), n int)
CREATE TABLE bills (tenant_id int, id int, note text, PRIMARY KEY (tenant_id, id))
CREATE TABLE payments (id int, note text, tenant_id int, account_id int, PRIMARY KEY (id, tenant_id))
CREATE TABLE accounts (account_id text PRIMARY KEY, note text)
GRANT ALL ON ALL TABLES IN SCHEMA tenant_a TO tenant_a
GRANT ALL ON ALL SEQUENCES IN SCHEMA tenant_a TO tenant_a
GRANT USAGE ON SCHEMA tenant_a TO tenant_a
GRANT ALL ON ALL TABLES IN SCHEMA tenant_c TO tenant_c
GRANT USAGE ON SCHEMA tenant_c TO tenant_c
CREATE VIEW tenant_a.emails AS SELECT email, plan FROM users
`

// schemaScript is run against one PostgreSQL and through the proxy. Each answer is the same; a line that begins
// with ! is one that the proxy refuses.
const schemaScript = `
INSERT INTO tenant_a.users (email, plan) VALUES ('a1', 1), ('a2', 2), ('a3', 1) RETURNING id
INSERT INTO tenant_b.users (email, plan) VALUES ('b1', 1), ('b2', 2)
INSERT INTO tenant_c.users (email) SELECT 'c' || i FROM generate_series(1, 4) i RETURNING *
INSERT INTO tenant_a.users (email) VALUES ('a1')
INSERT INTO tenant_a.users (email, plan) VALUES ('a9', 9)
INSERT INTO tenant_a.users (email, plan) VALUES ('a1', 2) ON CONFLICT (email) DO UPDATE SET plan = excluded.plan RETURNING *
SELECT * FROM tenant_a.users ORDER BY id
SELECT count(*) FROM tenant_c.users
SELECT * FROM tenant_a.emails ORDER BY 1
UPDATE tenant_a.users SET email = upper(email) WHERE plan = 2 RETURNING id, email
UPDATE tenant_c.users SET plan = 1
DELETE FROM tenant_c.users WHERE id > 3 RETURNING *
INSERT INTO tenant_a.posts (author, body) VALUES (1, 'one'), (2, 'two'), (2, 'three') RETURNING id, author
INSERT INTO tenant_a.posts (author, body) VALUES (77, 'none')
DELETE FROM tenant_a.users WHERE id = 2
SELECT id, author, body FROM tenant_a.posts
SELECT u.email, p.name FROM tenant_a.users u JOIN plans p ON p.id = u.plan ORDER BY 1
SELECT u.email, p.body FROM tenant_a.users u LEFT JOIN tenant_a.posts p ON p.author = u.id ORDER BY 1, 2
SELECT a.email, b.email FROM tenant_a.users a JOIN tenant_b.users b ON a.plan = b.plan ORDER BY 1, 2
SELECT a.email, c.email FROM tenant_a.users a JOIN tenant_c.users c ON a.id = c.id ORDER BY 1, 2
SELECT email FROM tenant_a.users UNION ALL SELECT email FROM tenant_c.users ORDER BY 1
SELECT email FROM tenant_b.users WHERE id IN (SELECT id FROM tenant_c.users) ORDER BY 1
SELECT (SELECT count(*) FROM tenant_a.users) + (SELECT count(*) FROM tenant_c.users)
SELECT u.email, a.name FROM tenant_a.users u JOIN alone a ON a.id = u.id ORDER BY 1
SELECT u.email, b.note FROM tenant_a.users u JOIN bills b ON b.tenant_id = u.id ORDER BY 1, 2
INSERT INTO tenant_b.users (email) SELECT email || ' of a' FROM tenant_a.users ORDER BY id
INSERT INTO tenant_b.users (email) SELECT email || ' of c' FROM tenant_c.users ORDER BY id
SELECT * FROM tenant_b.users ORDER BY id
UPDATE tenant_b.users b SET plan = a.plan FROM tenant_a.users a WHERE a.id = b.id
DELETE FROM tenant_b.users b USING tenant_a.users a WHERE b.email = a.email || ' of a'
WITH gone AS (DELETE FROM tenant_b.users WHERE email LIKE '%of c' RETURNING email) SELECT * FROM gone ORDER BY 1
MERGE INTO tenant_b.users b USING tenant_a.users a ON a.id = b.id WHEN MATCHED THEN UPDATE SET plan = 2 WHEN NOT MATCHED THEN INSERT (email) VALUES (a.email)
SELECT email, plan FROM tenant_b.users ORDER BY 1
INSERT INTO cust_1.things VALUES (1, 1)
INSERT INTO cust_2.things VALUES (1, 2), (2, 2)
INSERT INTO cust_3.things VALUES (1, 3), (2, 3), (3, 3)
INSERT INTO cust_4.things VALUES (1, 4)
SELECT * FROM cust_1.things
SELECT sum(n) FROM cust_3.things
SELECT * FROM cust_1.things UNION ALL SELECT * FROM cust_2.things UNION ALL SELECT * FROM cust_3.things UNION ALL SELECT * FROM cust_4.things
TRUNCATE cust_3.things
SELECT count(*) FROM cust_3.things
! SELECT * FROM cust_9.things
SET search_path = tenant_a, public
INSERT INTO users (email) VALUES ('found by path') RETURNING id
SELECT count(*) FROM users
SELECT count(*) FROM plans
SELECT count(*) FROM tenant_c.users
SET search_path = tenant_c
SELECT count(*) FROM users
! SELECT * FROM plans
SELECT nspname FROM pg_namespace WHERE nspname LIKE 'tenant%' ORDER BY 1
RESET search_path
SELECT * FROM users
BEGIN
SET LOCAL search_path = tenant_b
INSERT INTO users (email) VALUES ('local')
SELECT count(*) FROM users
SET LOCAL search_path = tenant_c
INSERT INTO users (email) VALUES ('local')
SELECT count(*) FROM users
COMMIT
SELECT * FROM users
SELECT count(*) FROM tenant_b.users WHERE email = 'local'
SELECT count(*) FROM tenant_c.users WHERE email = 'local'
BEGIN
SET LOCAL search_path = tenant_b
INSERT INTO users (email) VALUES ('rolled back')
ROLLBACK
SELECT count(*) FROM tenant_b.users WHERE email = 'rolled back'
SET ROLE tenant_a
SELECT count(*) FROM users
INSERT INTO posts (author, body) VALUES (1, 'by role')
SET ROLE tenant_c
SELECT count(*) FROM users
RESET ROLE
SELECT * FROM users
SET search_path = cust_2
CREATE TABLE made (id serial PRIMARY KEY, n int)
INSERT INTO made (n) VALUES (5), (6) RETURNING id
SELECT * FROM made ORDER BY id
ALTER TABLE made ADD COLUMN more text DEFAULT 'x'
CREATE INDEX ON made (n)
UPDATE made SET more = n::text RETURNING *
DROP TABLE made
! SELECT * FROM made
SET search_path = public
INSERT INTO bills VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 1, 'z')
INSERT INTO payments VALUES (1, 'p', 1, 7), (2, 'q', 2, 7), (3, 'r', 2, NULL)
INSERT INTO accounts VALUES ('a', 'x'), ('b', 'y'), ('c', 'z')
SELECT b.note, p.note FROM bills b JOIN payments p USING (tenant_id) ORDER BY 1, 2
SELECT b.note, p.note FROM bills b JOIN payments p USING (tenant_id) WHERE tenant_id = 2 ORDER BY 1, 2
SELECT * FROM payments WHERE account_id = 7 ORDER BY 1
UPDATE bills SET note = 'all' RETURNING tenant_id
DELETE FROM payments WHERE tenant_id = 2 AND id = 2
SELECT * FROM accounts WHERE account_id = 'b'
CREATE TABLE fresh (tenant_id int, account_id int, PRIMARY KEY (account_id, tenant_id))
INSERT INTO fresh VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)
SELECT * FROM fresh WHERE tenant_id = 4
SELECT count(*) FROM fresh
ALTER TABLE fresh ALTER COLUMN tenant_id TYPE bigint
SELECT * FROM fresh WHERE tenant_id = 4
! ALTER TABLE fresh ALTER COLUMN tenant_id TYPE text
! ALTER TABLE fresh DROP COLUMN tenant_id
! ALTER TABLE fresh RENAME COLUMN tenant_id TO t
! ALTER TABLE alone ADD COLUMN account_id int
! ALTER TABLE alone SET SCHEMA tenant_a
! ALTER TABLE tenant_a.users SET SCHEMA tenant_c
! ALTER TABLE tenant_a.users SET SCHEMA public
! ALTER SCHEMA tenant_a RENAME TO tenant_z
! ALTER TABLE plans RENAME TO plans2
! ALTER TABLE alone RENAME TO plans
ALTER TABLE alone RENAME TO alone2
ALTER TABLE alone2 RENAME TO alone
ALTER TABLE tenant_a.posts SET SCHEMA tenant_b
ALTER TABLE tenant_a.posts RENAME TO writings
INSERT INTO tenant_a.writings (author, body) VALUES (1, 'renamed')
SELECT count(*) FROM tenant_a.writings
ALTER TABLE tenant_a.writings RENAME TO posts
ALTER TABLE fresh RENAME TO fresher
SELECT count(*) FROM fresher
ALTER TABLE fresher RENAME TO fresh
SELECT nextval('tenant_a.users_id_seq')
INSERT INTO tenant_a.users (email) VALUES ('after nextval') RETURNING id
SELECT setval('tenant_a.users_id_seq', 1000)
INSERT INTO tenant_a.users (email) VALUES ('after setval') RETURNING id
! SELECT setval(pg_get_serial_sequence('tenant_a.users', 'id'), 2000, false)
SELECT setval('tenant_a.users_id_seq', 2000, false)
INSERT INTO tenant_a.users (id, email) VALUES (nextval('tenant_a.users_id_seq'), 'by hand') RETURNING id
SELECT last_value, is_called FROM tenant_a.users_id_seq
SELECT nextval('tenant_c.users_id_seq')
SET search_path = tenant_c
SELECT nextval('users_id_seq')
SET search_path = public
! SELECT lastval()
! SELECT nextval('tenant_a.' || 'users_id_seq')
! SELECT nextval('tenant_a.users_id_seq'), nextval('tenant_c.users_id_seq')
! INSERT INTO cust_4.odd (n) VALUES (1)
INSERT INTO cust_4.odd VALUES (1, 1) RETURNING *
! INSERT INTO fresh (account_id) VALUES (1)
UPDATE fresh SET tenant_id = account_id + 1
BEGIN
INSERT INTO tenant_a.users (email) VALUES ('counted')
SELECT currval('tenant_a.users_id_seq')
COMMIT
`

// TestSchemas compares statements on tables that their schemas place, or a column of any table, with one server.
func TestSchemas(t *testing.T) {
	b := &both{limit: 4 * time.Second}
	b.start(t, 3, "", schemaPlaces)
	b.waitForRule(t, "tenant_a.users")
	b.asOwners(t, "CREATE ROLE tenant_a; CREATE ROLE tenant_c; GRANT tenant_a, tenant_c TO app")
	for line := range strings.Lines(schemaTables) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if strings.HasPrefix(line, "CREATE VIEW") {
			b.onBoth(t, "SET search_path = tenant_a, public")
		}
		b.onBoth(t, line)
		b.onBoth(t, "RESET search_path")
	}
	for i, m := range []mode{modes[0], modes[2]} {
		if i > 0 {
			b.onBoth(t, "TRUNCATE tenant_a.users, tenant_b.users, tenant_c.users, tenant_a.posts, tenant_b.posts, cust_1.things, cust_2.things, cust_3.things, cust_4.things, bills, payments, accounts RESTART IDENTITY")
			b.onBoth(t, "DROP TABLE fresh")
			b.onBoth(t, "DELETE FROM cust_4.odd")
		}
		b.script(t, schemaScript, m)
		b.again() // currval keeps a session on its server
		b.whereSchemasLie(t)
	}
}

// waitForRule waits until the catalog is there: only then are tables known to be on several shards.
func (b *both) waitForRule(t *testing.T, table string) {
	eventually(t, "the catalog is there", func() bool {
		return strings.HasPrefix(asked(t, b.proxy, "EXPLAIN (ROUTE) DROP TABLE "+table), "Route: all shards")
	})
}

// asOwners runs statements as the superuser on all servers.
func (b *both) asOwners(t *testing.T, sql string) {
	t.Helper()
	for _, c := range slices.Concat(b.shards, []*pgx.Conn{b.owner}) {
		cfg := c.Config().Copy()
		cfg.User, cfg.Password = "postgres", ""
		super, err := pgx.ConnectConfig(within(t, 10*time.Second), cfg)
		if err != nil {
			t.Fatal(err)
		}
		must(t, super, sql)
		_ = super.Close(within(t, 10*time.Second))
	}
}

// script runs lines on both sides.
func (b *both) script(t *testing.T, lines string, m mode) {
	t.Helper()
	for line := range strings.Lines(lines) {
		sql, refused := strings.CutPrefix(strings.TrimSpace(line), "! ")
		if sql == "" {
			continue
		}
		got := ask(t, b.proxy, m, sql, nil)
		if why := got.refused(); refused || why != "" {
			if !refused || why == "" {
				t.Errorf("%s, sent %s: refused %q, error %v", sql, m.name, why, got.err)
			}
			if !refused { // the sessions shall go on alike
				ask(t, b.direct, m, sql, nil)
			}
			continue
		}
		want := ask(t, b.direct, m, sql, nil)
		if d := difference(&got, &want, strings.Contains(sql, "ORDER BY")); d != "" {
			t.Errorf("%s, sent %s: %s", sql, m.name, d)
		}
	}
}

// whereSchemasLie looks at the servers: rows are on their schema's shard and nowhere else.
func (b *both) whereSchemasLie(t *testing.T) {
	t.Helper()
	for table, at := range map[string]int{"tenant_a.users": 1, "tenant_b.users": 1, "tenant_c.users": 2, "tenant_a.posts": 1, "cust_1.things": -1, "cust_2.things": -1, "cust_4.things": -1} {
		for i, c := range b.shards {
			n := one(t, c, "SELECT count(*) FROM "+table)
			if at < 0 && n != "0" {
				var slot int
				schema, _, _ := strings.Cut(table, ".")
				if _, err := fmt.Sscan(one(t, c, "SELECT hashtextextended('"+schema+"', 0) & 4095"), &slot); err != nil {
					t.Fatal(err)
				}
				var shard string
				if err := b.asSuper(t, 0).QueryRow(within(t, 10*time.Second), "SELECT shard FROM shardproxy.slots WHERE slot = $1", slot).Scan(&shard); err != nil || shard != fmt.Sprint("s", i) {
					t.Errorf("%s has rows on shard %d, its slot is on %s (%v)", table, i, shard, err)
				}
				at = i
			}
			if (i == at) != (n != "0") {
				t.Errorf("%s has %s rows on shard %d", table, n, i)
			}
		}
	}
}

func (b *both) asSuper(t *testing.T, i int) *pgx.Conn {
	cfg := b.shards[i].Config().Copy()
	cfg.User, cfg.Password = "postgres", ""
	c, err := pgx.ConnectConfig(within(t, 10*time.Second), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// TestSchemasCopy copies rows into and out of tables that their schema places.
func TestSchemasCopy(t *testing.T) {
	b := &both{limit: 4 * time.Second}
	b.start(t, 3, "CREATE SCHEMA tenant_a; CREATE SCHEMA tenant_c; CREATE TABLE tenant_a.users (id serial PRIMARY KEY, email text); CREATE TABLE tenant_c.users (id int PRIMARY KEY, email text)", schemaPlaces)
	b.waitForRule(t, "tenant_a.users")
	for _, c := range []*pgx.Conn{b.proxy, b.direct} {
		must(t, c, "SET search_path = tenant_a")
		if n, err := copied(t, c, "COPY users (email) FROM STDIN", "a\nb\nc\n"); err != nil || n != 3 {
			t.Fatal(n, err)
		}
		must(t, c, "BEGIN")
		if n, err := copied(t, c, "COPY tenant_c.users FROM STDIN (FORMAT csv)", "1,x\n2,y\n"); err != nil || n != 2 {
			t.Fatal(n, err)
		}
		must(t, c, "COMMIT")
		if _, err := copied(t, c, "COPY tenant_c.users FROM STDIN", "9\tx\nq\ty\n"); err == nil || err.Code != "22P02" || err.Where != `COPY users, line 2, column id: "q"` {
			t.Error(err)
		}
		if n, err := c.CopyFrom(t.Context(), pgx.Identifier{"tenant_c", "users"}, []string{"id", "email"}, pgx.CopyFromRows([][]any{{7, "binary"}})); err != nil || n != 1 {
			t.Error(n, err)
		}
		for sql, want := range map[string]string{
			"COPY users TO STDOUT":                                               "1\ta\n2\tb\n3\tc\n",
			"COPY tenant_c.users (email) TO STDOUT":                              "x\ny\nbinary\n",
			"COPY (SELECT email FROM tenant_c.users ORDER BY id DESC) TO STDOUT": "binary\ny\nx\n",
		} {
			var out bytes.Buffer
			if _, err := c.PgConn().CopyTo(within(t, 10*time.Second), &out, sql); err != nil || out.String() != want {
				t.Errorf("%s: %q %v", sql, out.String(), err)
			}
		}
	}
	if one(t, b.shards[1], "SELECT count(*) FROM tenant_a.users") != "3" || one(t, b.shards[2], "SELECT count(*) FROM tenant_c.users") != "3" {
		t.Error("rows are elsewhere")
	}
}

// pathScripts are texts of several commands, of which some change what the others name.
var pathScripts = []string{
	"SET search_path = tenant_a, public; SELECT * FROM u ORDER BY id",
	"SET search_path = tenant_c, public; SELECT * FROM u ORDER BY id",
	"SET search_path = tenant_c, public; INSERT INTO u VALUES (77, 'x')",
	"SET search_path = tenant_a, public; UPDATE u SET v = 'u' WHERE id = 1; DELETE FROM u WHERE id = 2; SELECT count(*) FROM u",
	"BEGIN; SET LOCAL search_path = tenant_c, public; SELECT * FROM u ORDER BY id; COMMIT",
	"SELECT count(*) FROM u",
	"BEGIN; SET LOCAL search_path = tenant_c, public; INSERT INTO u VALUES (78, 'y'); COMMIT; SELECT count(*) FROM u",
	"SET search_path = tenant_a, public; RESET search_path; SELECT * FROM u ORDER BY id",
	"SET search_path = tenant_a, public; SET search_path = tenant_c, public; TABLE u ORDER BY id",
	"SET search_path = tenant_c, public; SELECT 1/0; INSERT INTO u VALUES (80, 'never')",
	"SELECT count(*) FROM u",
	"RESET search_path; SELECT count(*) FROM u WHERE tenant_id = 5",
}

// refusedPaths are such texts that are refused as a whole.
var refusedPaths = []string{
	"SELECT set_config('search_path', 'tenant_c,public', true); INSERT INTO u VALUES (79, 'z')",
	"SET search_path = tenant_c; CREATE TABLE made (id int); INSERT INTO made VALUES (1)",
	"CREATE TEMP TABLE bills (tenant_id int, id int, note text); INSERT INTO bills VALUES (5, 1, 'mine'); SELECT note FROM bills WHERE tenant_id = 5",
}

// TestScriptPaths compares texts that change where names are found.
func TestScriptPaths(t *testing.T) {
	b := &both{limit: 4 * time.Second}
	b.start(t, 3, "", schemaPlaces)
	b.waitForRule(t, "tenant_a.users")
	for _, sql := range []string{
		"CREATE SCHEMA tenant_a", "CREATE SCHEMA tenant_c",
		// The name is that of a table in public, whose rows have keys.
		"CREATE TABLE u (tenant_id int, id int, v text)", "INSERT INTO u VALUES (5, 1, 'of 5'), (6, 1, 'of 6')",
		"CREATE TABLE tenant_a.u (id int, v text)", "INSERT INTO tenant_a.u VALUES (1, 'a'), (2, 'a')",
		"CREATE TABLE tenant_c.u (id int, v text)", "INSERT INTO tenant_c.u VALUES (1, 'c')",
		"CREATE TABLE bills (tenant_id int, id int, note text, PRIMARY KEY (tenant_id, id))", "INSERT INTO bills VALUES (5, 1, 'all')",
	} {
		b.onBoth(t, sql)
	}
	eventually(t, "all is known", func() bool {
		return strings.HasPrefix(asked(t, b.proxy, "EXPLAIN (ROUTE) SELECT * FROM tenant_c.u"), "Route: shard s2")
	})
	proxy, direct := speak(t, b.dsn()), speak(t, b.dsnOfAll)
	for _, text := range pathScripts {
		if got, want := proxy.query(text), direct.query(text); !slices.Equal(got, want) {
			t.Errorf("%s\n%s\nshould be\n%s", text, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	madeInTransaction(t, b)
	for _, text := range refusedPaths {
		got := proxy.query(text)
		if at, why := refusedAs(got); at < 0 {
			t.Errorf("%s\n%s\nis not refused: %s", text, strings.Join(got, "\n"), why)
		}
	}
	if got := one(t, b.proxy, "SELECT count(*) FILTER (WHERE id = 79) FROM tenant_c.u"); got != "0" {
		t.Errorf("%s rows of a text that was refused", got)
	}
}

// madeInTransaction makes a table that a column of it puts on several shards, and goes on with it before it is committed.
func madeInTransaction(t *testing.T, b *both) {
	must(t, b.proxy, "BEGIN")
	must(t, b.proxy, "CREATE TABLE young (tenant_id int, v text)")
	must(t, b.proxy, "CREATE INDEX young_v ON young (v)")
	must(t, b.proxy, "COMMIT")
	for i, c := range b.shards {
		if got := one(t, c, "SELECT count(*) FROM pg_indexes WHERE indexname = 'young_v'"); got != "1" {
			t.Errorf("shard %d has %s indexes", i, got)
		}
	}
	must(t, b.proxy, "BEGIN")
	must(t, b.proxy, "CREATE TABLE younger (tenant_id int, v text)")
	fails(t, b.proxy, "INSERT INTO younger VALUES (1, 'a'), (2, 'b')", "0A000")
	must(t, b.proxy, "ROLLBACK")
}

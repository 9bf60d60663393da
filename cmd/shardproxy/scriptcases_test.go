package main

import (
	"fmt"
	"strings"
)

// writtenScripts are texts of several statements: customers and orders are sharded,
// products is a reference table, settings is on the home shard.
var writtenScripts = []scriptCase{
	// Several places, one implicit transaction.
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE customers SET name = 'b' WHERE id = 2; UPDATE customers SET name = 'c' WHERE id = 3; UPDATE settings SET value = 'd' WHERE key = 'k1'; UPDATE products SET name = 'e' WHERE id = 1"}},
	{texts: []string{"SELECT name FROM customers WHERE id = 1; SELECT name FROM customers WHERE id = 2; SELECT name FROM customers WHERE id = 3; SELECT count(*) FROM products; SELECT key FROM settings ORDER BY 1"}},
	{texts: []string{"INSERT INTO customers VALUES (101, 'x'), (102, 'y'), (103, 'z') RETURNING id; ; INSERT INTO settings VALUES ('new', 'v');"}},
	{texts: []string{"/* first */ SELECT 1 AS a; -- second\nUPDATE customers SET name = 'q' WHERE id = 4; /* é */ UPDATE customers SET name = 'q' WHERE id = 5; UPDATE settings SET value = 'q'"}},

	// Errors: what is not committed rolls back, the rest is skipped, positions are those of the text.
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE customers SET name = 'b' WHERE id = 2; UPDATE settings SET value = 'x'; SELECT 1/0; UPDATE settings SET value = 'y'"}},
	{texts: []string{"UPDATE customers SET name = 'é' WHERE id = 1; UPDATE customers SET name = 'b' WHERE id = 2; SELECT nothing FROM customers WHERE id = 3; SELECT 1"}},
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'é'; UPDATE products SET nothing = 'c'"}},
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET nothing = 'x'"}},
	{texts: []string{"INSERT INTO customers VALUES (201, 'x'); INSERT INTO customers VALUES (202, 'x'); INSERT INTO customers VALUES (1, 'again')"}},
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'x'; SELECT * FROM missing"}},
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; CREATE INDEX made_i ON orders (nothing)"}},

	// Blocks inside the text.
	{texts: []string{"BEGIN; UPDATE customers SET name = 'a' WHERE id = 1; UPDATE customers SET name = 'b' WHERE id = 2; COMMIT; UPDATE settings SET value = 'x'"}},
	{texts: []string{"BEGIN; UPDATE customers SET name = 'a' WHERE id = 1; UPDATE customers SET name = 'b' WHERE id = 2; COMMIT; UPDATE settings SET value = 'x'; SELECT 1/0"}},
	{texts: []string{"BEGIN; UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'; ROLLBACK; SELECT value FROM settings ORDER BY key; SELECT name FROM customers WHERE id = 1"}},
	{texts: []string{"BEGIN; UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'", "SELECT name FROM customers WHERE id = 1; SELECT value FROM settings ORDER BY key", "COMMIT"}},
	{texts: []string{"BEGIN; UPDATE customers SET name = 'a' WHERE id = 1; SELECT 1/0; UPDATE settings SET value = 'b'", "SELECT 1; SELECT 2", "UPDATE settings SET value = 'x'; COMMIT", "ROLLBACK; UPDATE customers SET name = 'b' WHERE id = 2; UPDATE settings SET value = 'c'"}},
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; BEGIN; UPDATE settings SET value = 'b'", "ROLLBACK"}},
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; BEGIN; UPDATE settings SET value = 'b'; COMMIT"}},
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'; COMMIT; UPDATE customers SET name = 'c' WHERE id = 2; SELECT 1/0"}},
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'; ROLLBACK; UPDATE customers SET name = 'c' WHERE id = 2; UPDATE settings SET value = 'd' WHERE key = 'k2'"}},
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'; COMMIT AND CHAIN; SELECT 1"}},
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'; ROLLBACK AND CHAIN; SELECT 1"}},
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'; SAVEPOINT a; SELECT 1"}},
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'; RELEASE a; SELECT 1"}},
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'; ROLLBACK TO a; SELECT 1"}},
	{texts: []string{"COMMIT; UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'"}},
	{texts: []string{"ROLLBACK; COMMIT; UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'; ROLLBACK"}},
	{texts: []string{"BEGIN; BEGIN; UPDATE customers SET name = 'a' WHERE id = 1; BEGIN; UPDATE settings SET value = 'b'; COMMIT; COMMIT"}},
	{texts: []string{"BEGIN; SAVEPOINT a; UPDATE customers SET name = 'a' WHERE id = 1; UPDATE customers SET name = 'a' WHERE id = 2; SAVEPOINT b; UPDATE settings SET value = 'b'; ROLLBACK TO b; UPDATE settings SET value = 'c' WHERE key = 'k1'; RELEASE a; COMMIT"}},
	{texts: []string{"BEGIN", "UPDATE customers SET name = 'a' WHERE id = 1", "UPDATE customers SET name = 'b' WHERE id = 2; COMMIT; UPDATE settings SET value = 'x'; SELECT 1/0"}},
	{texts: []string{"BEGIN", "UPDATE customers SET name = 'b' WHERE id = 2; COMMIT; UPDATE settings SET value = 'x'"}},
	{texts: []string{"BEGIN", "SELECT 1/0", "ROLLBACK; UPDATE settings SET value = 'x'"}},
	{texts: []string{"BEGIN", "UPDATE customers SET name = 'b' WHERE id = 2", "SELECT 1/0", "ROLLBACK; UPDATE settings SET value = 'x'; UPDATE customers SET name = 'c' WHERE id = 1"}},
	{texts: []string{"BEGIN; COMMIT; UPDATE customers SET name = 'b' WHERE id = 2; UPDATE settings SET value = 'x'"}},
	{texts: []string{"BEGIN ISOLATION LEVEL REPEATABLE READ; UPDATE customers SET name = 'b' WHERE id = 2; UPDATE settings SET value = 'x'; COMMIT"}},
	{texts: []string{"BEGIN READ ONLY; SELECT name FROM customers WHERE id = 2; SELECT value FROM settings ORDER BY key; UPDATE settings SET value = 'x'; COMMIT", "ROLLBACK"}},
	{texts: []string{"UPDATE customers SET name = 'b' WHERE id = 2; BEGIN ISOLATION LEVEL REPEATABLE READ; UPDATE settings SET value = 'x'; COMMIT"}},
	{texts: []string{"START TRANSACTION; UPDATE customers SET name = 'b' WHERE id = 2; UPDATE settings SET value = 'x'; END"}},

	// What PostgreSQL does not run in a transaction block.
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; VACUUM orders; SELECT 1"}},
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'x'; VACUUM settings; SELECT 1"}},

	// Nothing runs when the text has a fault of syntax, or the commit fails.
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'x'; SELEC 1; SELECT 1"}},
	{texts: []string{"CREATE TABLE made (a int UNIQUE DEFERRABLE INITIALLY DEFERRED); INSERT INTO made VALUES (1); INSERT INTO made VALUES (1); UPDATE customers SET name = 'a' WHERE id = 1"}},
	{texts: []string{"CREATE TABLE made (a int UNIQUE DEFERRABLE INITIALLY DEFERRED); UPDATE customers SET name = 'a' WHERE id = 1; INSERT INTO made VALUES (1); INSERT INTO made VALUES (1)"}},
	{texts: []string{"CREATE TABLE made (a int UNIQUE DEFERRABLE INITIALLY DEFERRED); UPDATE customers SET name = 'a' WHERE id = 1; INSERT INTO made VALUES (1), (1); COMMIT; SELECT 1"}},

	// Definitions.
	{texts: []string{"BEGIN; CREATE INDEX made_i ON orders (customer_id, note); COMMIT"}},
	{texts: []string{"CREATE INDEX made_i ON orders (customer_id, note); CREATE TABLE made (a int)", "SELECT * FROM made"}},
	{texts: []string{"SET lock_timeout = '5s'; CREATE INDEX made_i ON orders (customer_id, note); CREATE TABLE made (a int); INSERT INTO made VALUES (1), (2)", "SHOW lock_timeout"}},
	{texts: []string{"BEGIN; ALTER TABLE orders ADD COLUMN made int; CREATE TABLE made (a int); ALTER TABLE products ADD made text; INSERT INTO made VALUES (5); COMMIT; UPDATE orders SET made = 3 WHERE customer_id = 1; UPDATE products SET made = 'x'; SELECT made FROM orders WHERE customer_id = 1"}},
	{texts: []string{"ALTER TABLE orders ADD COLUMN made int; UPDATE orders SET made = 3 WHERE customer_id = 1; CREATE TABLE made (a int); SELECT 1/0", "SELECT made FROM orders WHERE customer_id = 1"}},
	{texts: []string{"CREATE TABLE made (a int); CREATE TABLE made (a int); UPDATE customers SET name = 'a' WHERE id = 1"}},
	{texts: []string{"CREATE TABLE IF NOT EXISTS made (a int); CREATE TABLE IF NOT EXISTS made (a int); UPDATE customers SET name = 'a' WHERE id = 1; DROP TABLE made"}},
	{texts: []string{"BEGIN; CREATE VIEW made_v AS SELECT customer_id FROM orders; CREATE TABLE made (a int); CREATE INDEX ON made (a); COMMIT", "SELECT count(*) FROM made; SELECT count(*) FROM made_v WHERE customer_id = 1"}},
	{texts: []string{"BEGIN; CREATE VIEW made_v AS SELECT customer_id FROM orders; CREATE TABLE made (a int); SELECT * FROM made_v WHERE customer_id = 1"}, refused: "made_v may be a view"},
	{texts: []string{"BEGIN; ALTER VIEW v_products RENAME TO made_w; SELECT * FROM made_w"}, refused: "made_w may be a view"},
	{texts: []string{strings.Join(migration, "\n")}},
	{texts: []string{strings.Join(migration[:6], "\n"), strings.Join(append([]string{"BEGIN;"}, append(migration[6:8:8], "SELECT 1/0; COMMIT;")...), "\n"), "ROLLBACK; SELECT count(*) FROM made; SELECT made FROM orders WHERE customer_id = 1"}},

	// Settings, cursors, prepared statements.
	{texts: []string{"SET application_name = 'x'; UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'; SHOW application_name", "SHOW application_name"}},
	{texts: []string{"SET statement_timeout = '7s'; UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'; SELECT 1/0", "SHOW statement_timeout"}},
	{texts: []string{"BEGIN; SET statement_timeout = '7s'; UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'; COMMIT; SELECT 1/0", "SHOW statement_timeout"}},
	{texts: []string{"SET datestyle = 'German'; SELECT day FROM days WHERE day = '2024-01-01'; UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'", "SELECT date '2024-01-02'; SHOW datestyle"}},
	{texts: []string{"PREPARE p AS SELECT 1; UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'; EXECUTE p; DEALLOCATE p; UPDATE customers SET name = 'a' WHERE id = 2"}, refused: "this command cannot be run in a transaction over several shards"},
	{texts: []string{"DECLARE c CURSOR FOR SELECT key FROM settings ORDER BY key; FETCH 2 FROM c; UPDATE settings SET value = 'b'; UPDATE products SET name = 'x' WHERE id = 1"}},
	{texts: []string{"LOCK TABLE settings; UPDATE settings SET value = 'b'; UPDATE customers SET name = 'a' WHERE id = 2"}},
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE customers SET name = 'a' WHERE id = 2; UPDATE customers SET name = 'a' WHERE id = 3; SET work_mem = '1MB'; UPDATE settings SET value = 'b'", "SHOW work_mem"}},
	{texts: []string{"BEGIN; SET LOCAL lock_timeout = '3s'; CREATE INDEX made_i ON orders (note); CREATE TABLE made (a int); SHOW lock_timeout; COMMIT; SHOW lock_timeout"}},
	{texts: []string{"BEGIN; SET LOCAL statement_timeout = '3s'; SELECT current_setting('statement_timeout') FROM customers WHERE id = 1; SELECT current_setting('statement_timeout') FROM customers WHERE id = 2; SELECT current_setting('statement_timeout') FROM customers WHERE id = 3; SELECT current_setting('statement_timeout') FROM customers WHERE id = 4; COMMIT; SELECT current_setting('statement_timeout') FROM customers WHERE id = 1; SELECT current_setting('statement_timeout') FROM customers WHERE id = 2; SELECT current_setting('statement_timeout') FROM customers WHERE id = 3; SELECT current_setting('statement_timeout') FROM customers WHERE id = 4"}},
	{texts: []string{"BEGIN; UPDATE customers SET name = 'a' WHERE id = 1; UPDATE customers SET name = 'a' WHERE id = 2; SET LOCAL work_mem = '1MB'; UPDATE customers SET name = 'a' WHERE id = 3; SELECT current_setting('work_mem') FROM customers WHERE id = 1; SELECT current_setting('work_mem') FROM customers WHERE id = 2; SELECT current_setting('work_mem') FROM customers WHERE id = 3; SELECT current_setting('work_mem') FROM customers WHERE id = 4; ROLLBACK; SELECT current_setting('work_mem') FROM customers WHERE id = 1; SELECT current_setting('work_mem') FROM customers WHERE id = 2; SELECT current_setting('work_mem') FROM customers WHERE id = 3; SELECT current_setting('work_mem') FROM customers WHERE id = 4"}},
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE customers SET name = 'a' WHERE id = 2; UPDATE customers SET name = 'a' WHERE id = 3; SET work_mem = '1MB'; SELECT current_setting('work_mem') FROM customers WHERE id = 1; SELECT current_setting('work_mem') FROM customers WHERE id = 2; SELECT current_setting('work_mem') FROM customers WHERE id = 3; SELECT current_setting('work_mem') FROM customers WHERE id = 4", "SELECT current_setting('work_mem') FROM customers WHERE id = 1; SELECT current_setting('work_mem') FROM customers WHERE id = 2; SELECT current_setting('work_mem') FROM customers WHERE id = 3; SELECT current_setting('work_mem') FROM customers WHERE id = 4"}},
	{texts: []string{"SELECT current_setting('work_mem') FROM customers WHERE id = 1; SELECT current_setting('work_mem') FROM customers WHERE id = 2; SELECT current_setting('work_mem') FROM customers WHERE id = 3; SELECT current_setting('work_mem') FROM customers WHERE id = 4; SET work_mem = '1MB'; SELECT current_setting('work_mem') FROM customers WHERE id = 1; SELECT current_setting('work_mem') FROM customers WHERE id = 2; SELECT current_setting('work_mem') FROM customers WHERE id = 3; SELECT current_setting('work_mem') FROM customers WHERE id = 4; SELECT 1/0", "SELECT current_setting('work_mem') FROM customers WHERE id = 1; SELECT current_setting('work_mem') FROM customers WHERE id = 2; SELECT current_setting('work_mem') FROM customers WHERE id = 3; SELECT current_setting('work_mem') FROM customers WHERE id = 4"}},

	// COPY.
	{texts: []string{"COPY settings FROM STDIN; UPDATE customers SET name = 'a' WHERE id = 1; COPY customers FROM STDIN; COPY products (id, name) FROM STDIN; SELECT 1"},
		data: []string{"c1\tv\t1\nc2\tw\t2\n", "301\tx\t\\N\n302\ty\tz\n303\ty\tz\n", "77\tx\n"}},
	{texts: []string{"COPY customers FROM STDIN; COPY settings FROM STDIN; SELECT 1"}, data: []string{"301\tx\t\\N\n302\ty\tz\n303\ty\tz\n", "fail"}},
	{texts: []string{"COPY settings FROM STDIN; COPY customers FROM STDIN; SELECT 1"}, data: []string{"c1\tv\t1\nc2\tw\t2\n", "301\tx\t\\N\n302\ty\tz\n1\ty\tz\n"}},
	{texts: []string{"COPY settings FROM STDIN; UPDATE customers SET name = 'a' WHERE id = 1; SELECT 1"}, data: []string{"c1\tv\n"}},
	{texts: []string{"COPY (SELECT key FROM settings ORDER BY 1) TO STDOUT; COPY (SELECT id FROM customers WHERE id = 1) TO STDOUT; COPY (SELECT id FROM customers WHERE id = 2) TO STDOUT; SELECT 1"}},

	// Refused where they stand, as by an error there.
	{texts: []string{"UPDATE customers SET name = 'a' WHERE id = 1; UPDATE settings SET value = 'b'; SELECT * FROM customers LIMIT 2 FOR UPDATE; UPDATE settings SET value = 'c'"}, refused: "rows of several shards are locked"},
	{texts: []string{"UPDATE settings SET value = 'b'; BEGIN; UPDATE customers SET name = 'a' WHERE id = 1; COMMIT; SELECT * FROM customers LIMIT 2 FOR UPDATE; UPDATE settings SET value = 'c'"}, refused: "rows of several shards are locked"},
}

// migration is a file as migration tools send them: definitions of all kinds, and rows.
var migration = []string{
	"-- a change\nSET search_path = public;",
	"CREATE TABLE IF NOT EXISTS schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL);",
	"CREATE TABLE made (id bigint PRIMARY KEY, note text NOT NULL DEFAULT 'none');",
	"INSERT INTO made (id) SELECT generate_series(1, 3);",
	"ALTER TABLE orders ADD COLUMN made int;",
	"INSERT INTO schema_migrations VALUES (1, true);",
	"CREATE INDEX made_i ON orders (customer_id, made);",
	"UPDATE made SET note = 'é' WHERE id = 2;",
	"UPDATE orders SET made = 7 WHERE customer_id = 1;",
	"COMMENT ON COLUMN orders.made IS 'made by a file; with a semicolon';",
	"DELETE FROM schema_migrations; INSERT INTO schema_migrations VALUES (2, false);",
	"SELECT * FROM made ORDER BY id;",
}

// tiedTexts are those of a tool that holds an advisory lock meanwhile.
var tiedTexts = []string{
	"SELECT pg_advisory_lock(4711) IS NULL AS a",
	"CREATE TABLE IF NOT EXISTS schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL)",
	"BEGIN; CREATE INDEX made_i ON orders (customer_id, note); COMMIT",
	"ALTER TABLE orders ADD COLUMN made int; CREATE TABLE made (a int); UPDATE customers SET name = 't' WHERE id = 1; UPDATE customers SET name = 't' WHERE id = 2; UPDATE customers SET name = 't' WHERE id = 3",
	"BEGIN; UPDATE customers SET name = 'u' WHERE id = 1; UPDATE customers SET name = 'u' WHERE id = 2; UPDATE customers SET name = 'u' WHERE id = 3; SELECT 1/0; COMMIT",
	"ROLLBACK; TRUNCATE schema_migrations; INSERT INTO schema_migrations VALUES (3, false)",
	"UPDATE customers SET name = 'v' WHERE id = 1; UPDATE customers SET name = 'v' WHERE id = 2; UPDATE customers SET name = 'v' WHERE id = 3; SELECT 1/0",
	"BEGIN; UPDATE customers SET name = 'w' WHERE id = 1; UPDATE customers SET name = 'w' WHERE id = 2; UPDATE customers SET name = 'w' WHERE id = 3; SELECT 1",
	"ALTER TABLE products ADD made int",
	"COMMIT",
	"UPDATE settings SET value = 'x'; UPDATE customers SET name = 'z' WHERE id = 3; UPDATE customers SET name = 'z' WHERE id = 2",
	"SELECT * FROM schema_migrations; SELECT name FROM customers WHERE id = 1",
}

// scriptGenerator makes texts of several statements.
type scriptGenerator struct {
	*generator
}

// text is one text.
func (g *scriptGenerator) text() string {
	var all []string
	for range 2 + g.IntN(7) {
		all = append(all, g.statement())
	}
	text := strings.Join(all, pick(g.generator, []string{"; ", ";", ";\n-- é\n", " ;; "}))
	if g.chance(30) {
		text += ";"
	}
	return text
}

// statement is one statement of a text.
func (g *scriptGenerator) statement() string {
	id, n := 1+g.IntN(12), g.IntN(1000)
	switch g.IntN(40) {
	case 0, 1, 2, 3, 4, 5:
		return fmt.Sprintf("UPDATE customers SET name = 'é%d' WHERE id = %d", n, id)
	case 6, 7:
		return fmt.Sprintf("UPDATE settings SET value = 'v%d' WHERE key = 'k%d'", n, id%7)
	case 8:
		return fmt.Sprintf("UPDATE products SET name = 'p%d' WHERE id = %d", n, id%7)
	case 9, 10:
		return fmt.Sprintf("INSERT INTO customers VALUES (%d, 'new'), (%d, 'new')", 20+g.IntN(200), 20+g.IntN(200))
	case 11:
		return fmt.Sprintf("INSERT INTO customers VALUES (%d, 'new') ON CONFLICT DO NOTHING", 20+g.IntN(200))
	case 12:
		return fmt.Sprintf("DELETE FROM customers WHERE id = %d AND id > 15", 20+g.IntN(200))
	case 13:
		return fmt.Sprintf("INSERT INTO settings VALUES ('n%d', 'new') ON CONFLICT (key) DO UPDATE SET value = 'again'", id)
	case 14, 15, 16:
		return fmt.Sprintf("SELECT name FROM customers WHERE id = %d", id)
	case 17, 18:
		return "SELECT key, value FROM settings ORDER BY key"
	case 19:
		return "SELECT id, name FROM products ORDER BY id"
	case 20, 21, 22:
		return pick(g.generator, []string{"BEGIN", "BEGIN", "START TRANSACTION", "BEGIN READ WRITE"})
	case 23, 24, 25, 26:
		return pick(g.generator, []string{"COMMIT", "COMMIT", "END"})
	case 27:
		return "ROLLBACK"
	case 28:
		return "SAVEPOINT a"
	case 29:
		return pick(g.generator, []string{"ROLLBACK TO a", "RELEASE a"})
	case 30:
		return pick(g.generator, []string{"SELECT 1/0", "SELECT nothing FROM settings", "SELECT * FROM missing", fmt.Sprintf("SELECT nothing FROM customers WHERE id = %d", id), "VACUUM settings", "COMMIT AND CHAIN"})
	case 31:
		return pick(g.generator, []string{"SET work_mem = '1MB'", "SET application_name = 'made'", "RESET work_mem", "SHOW work_mem", "SHOW application_name"})
	case 32:
		return "ALTER TABLE orders ADD COLUMN IF NOT EXISTS made int"
	case 33:
		return "CREATE TABLE IF NOT EXISTS made (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)"
	case 34:
		return fmt.Sprintf("INSERT INTO made VALUES (%d)", g.IntN(4))
	case 35:
		return pick(g.generator, []string{"DROP TABLE IF EXISTS made", "ALTER TABLE orders DROP COLUMN IF EXISTS made", "CREATE INDEX IF NOT EXISTS made_i ON orders (note)", "DROP INDEX IF EXISTS made_i"})
	case 36:
		return fmt.Sprintf("UPDATE orders SET note = 'n%d' WHERE customer_id = %d", n, id)
	case 37:
		return fmt.Sprintf("SELECT count(*) FROM orders WHERE customer_id = %d", id)
	case 38:
		return "SELECT * FROM customers LIMIT 2 FOR UPDATE"
	}
	return fmt.Sprintf("SELECT %d AS n", n)
}

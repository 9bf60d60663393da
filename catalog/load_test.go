package catalog

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

const schemaSQL = `
CREATE SCHEMA other;
CREATE SCHEMA app;

CREATE FUNCTION stable_fn(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION clean_fn() RETURNS int LANGUAGE plpgsql AS 'BEGIN UPDATE plain SET a = 1; RETURN 1; END';
CREATE FUNCTION dirty_fn() RETURNS int LANGUAGE plpgsql AS 'BEGIN SET work_mem = 64; RETURN 1; END';
CREATE FUNCTION calls_dirty() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN dirty_fn(); END';
CREATE FUNCTION other.mixed(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN EXECUTE ''x''; RETURN 1; END';
CREATE FUNCTION mixed(int, int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION mixed(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION with_default(a int DEFAULT dirty_fn()) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION app.lower(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN dirty_fn(); END';
CREATE FUNCTION variadic_fn(int, VARIADIC int[]) RETURNS int LANGUAGE plpgsql AS 'BEGIN EXECUTE ''x''; RETURN 1; END';
CREATE FUNCTION atomic_fn() RETURNS int VOLATILE LANGUAGE sql RETURN 1;

CREATE FUNCTION agg_step(int, int) RETURNS int LANGUAGE plpgsql AS 'BEGIN EXECUTE ''x''; RETURN 1; END';
CREATE AGGREGATE bad_sum(int) (SFUNC = agg_step, STYPE = int);
CREATE FUNCTION bad_cmp(int, int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN EXECUTE ''x''; RETURN true; END';
CREATE OPERATOR other.<#> (LEFTARG = int, RIGHTARG = int, FUNCTION = bad_cmp);

CREATE TABLE plain (id serial PRIMARY KEY, a int);
CREATE TABLE other.plain (b int);
CREATE UNLOGGED TABLE unlogged (a int);
CREATE VIEW v_plain AS SELECT a, lower('x'), count(*) OVER () FROM plain;
CREATE VIEW v_random AS SELECT random() FROM plain;
CREATE VIEW v_dirty AS SELECT dirty_fn();
CREATE VIEW v_nested AS SELECT * FROM v_dirty;
CREATE VIEW v_seq AS SELECT nextval('plain_id_seq');
CREATE VIEW v_lock AS SELECT pg_try_advisory_lock(1);
CREATE VIEW v_op AS SELECT a OPERATOR(other.<#>) 1 FROM plain;
CREATE VIEW v_agg AS SELECT bad_sum(a) FROM plain;
CREATE VIEW v_row AS SELECT 1 FROM plain WHERE (a, 1) < (2, 3);
CREATE MATERIALIZED VIEW m_stored AS SELECT clean_fn() AS x;

CREATE TABLE parent (k int, a int) PARTITION BY LIST (k);
CREATE TABLE child1 PARTITION OF parent FOR VALUES IN (1);
CREATE UNLOGGED TABLE child2 PARTITION OF parent FOR VALUES IN (2);

CREATE TABLE rls_ok (a int);
ALTER TABLE rls_ok ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON rls_ok USING (a = current_setting('app.x')::int);
CREATE TABLE rls_bad (a int);
ALTER TABLE rls_bad ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON rls_bad USING (dirty_fn() = 1);
CREATE TABLE rls_off (a int);
CREATE POLICY p ON rls_off USING (dirty_fn() = 1);

CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.a = 1; RETURN NEW; END';
CREATE FUNCTION bad_touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM set_config(''a.b'', ''c'', false); RETURN NEW; END';
CREATE TABLE t_touch (id int PRIMARY KEY, a int);
CREATE TRIGGER t BEFORE INSERT ON t_touch FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TABLE t_bad (id int PRIMARY KEY, a int);
CREATE TRIGGER t BEFORE INSERT ON t_bad FOR EACH ROW EXECUTE FUNCTION bad_touch();
CREATE VIEW v_over_bad AS SELECT * FROM t_bad;
CREATE TABLE t_default (a int DEFAULT dirty_fn());
CREATE TABLE t_check (a int CHECK (dirty_fn() > a));
CREATE TABLE referenced (id int PRIMARY KEY);
ALTER TABLE t_bad ADD FOREIGN KEY (a) REFERENCES referenced ON DELETE CASCADE;
CREATE TABLE t_rule (a int);
CREATE RULE r AS ON INSERT TO t_rule DO ALSO INSERT INTO t_bad VALUES (1, 1);
CREATE FUNCTION writes_bad() RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO t_bad VALUES (1, 1); RETURN 1; END';

CREATE FUNCTION attr_bad(plain) RETURNS int LANGUAGE plpgsql AS 'BEGIN EXECUTE ''x''; RETURN 1; END';
CREATE FUNCTION attr_good(plain) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION attr_any(record, int DEFAULT 1) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
CREATE FUNCTION not_attr(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';

CREATE TYPE comp_t AS (x int);
CREATE FUNCTION cast_fn(jsonb) RETURNS comp_t LANGUAGE plpgsql AS 'BEGIN EXECUTE ''x''; RETURN NULL; END';
CREATE CAST (jsonb AS comp_t) WITH FUNCTION cast_fn(jsonb);
CREATE DOMAIN checked AS int CHECK (dirty_fn() > VALUE);
CREATE DOMAIN fine_domain AS int CHECK (VALUE > 0);
CREATE TABLE t_domain (a checked);
CREATE VIEW v_cast AS SELECT 1::checked;
CREATE TYPE nested_t AS (a checked[]);
CREATE FUNCTION takes_checked(checked) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
CREATE TYPE mood AS ENUM ('a', 'b');

CREATE EXTENSION "uuid-ossp";
CREATE EXTENSION tablefunc;
CREATE EXTENSION postgres_fdw;
CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw;
CREATE FOREIGN TABLE far (a int) SERVER s;
`

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(t.Context()) })
	return conn
}

// TestLoad asks a real server's catalog about everything that can hide
// something volatile.
func TestLoad(t *testing.T) {
	db := pgtest.Shared(t)
	conn := connect(t, db.DSN("postgres"))
	if _, err := conn.Exec(t.Context(), schemaSQL); err != nil {
		t.Fatal(err)
	}
	c, err := Load(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	public := c.Path("public")
	function := func(name string, args int) Verdict { return c.Function("", name, args, public) }
	read := func(name string) Verdict { return c.Read("", name, public) }
	write := func(name string) Verdict { return c.Write("", name, public) }
	missing := func(f Fitness) Verdict { return Verdict{Fitness: f} }
	found := func(f Fitness) Verdict { return Verdict{Fitness: f, Found: true} }
	for _, q := range []struct {
		what      string
		got, want Verdict
	}{
		{"lower", function("lower", 1), found(Anywhere)},
		{"count(*)", function("count", 0), found(Anywhere)},
		{"now", function("now", 0), found(Anywhere)},
		{"random", function("random", 0), found(Anywhere)},
		{"pg_sleep", function("pg_sleep", 1), found(Anywhere)},
		{"pg_backend_pid", function("pg_backend_pid", 0), found(Local)},
		{"pg_is_in_recovery", function("pg_is_in_recovery", 0), found(Writes)},
		{"pg_stat_get_activity", function("pg_stat_get_activity", 1), found(Local)},
		{"nextval", function("nextval", 1), found(Writes)},
		{"pg_notify", function("pg_notify", 2), found(Writes)},
		{"set_config", function("set_config", 3), found(Writes)},
		{"pg_advisory_lock", function("pg_advisory_lock", 1), found(Writes)},
		{"pg_advisory_xact_lock", function("pg_advisory_xact_lock", 1), found(Writes)},
		{"query_to_xml", function("query_to_xml", 4), found(Unsafe)},
		{"ts_rewrite(3)", function("ts_rewrite", 3), found(Anywhere)},
		{"ts_rewrite(2)", function("ts_rewrite", 2), found(Unsafe)},
		{"ts_rewrite(?)", function("ts_rewrite", -1), found(Unsafe)},
		{"stable_fn", function("stable_fn", 1), found(Anywhere)},
		{"stable_fn(0)", function("stable_fn", 0), missing(Unsafe)},
		{"nobody", function("nobody", 0), missing(Unsafe)},
		{"clean_fn", function("clean_fn", 0), found(Writes)},
		{"dirty_fn", function("dirty_fn", 0), found(Unsafe)},
		{"calls_dirty", function("calls_dirty", 0), found(Unsafe)},
		{"atomic_fn", function("atomic_fn", 0), found(Unsafe)},
		{"writes_bad", function("writes_bad", 0), found(Unsafe)},
		{"mixed in public", function("mixed", 1), found(Anywhere)},
		{"other.mixed", c.Function("other", "mixed", 1, public), found(Unsafe)},
		{"mixed, both schemas", c.Function("", "mixed", 1, c.Path("public,other")), found(Unsafe)},
		{"mixed(2), both schemas", c.Function("", "mixed", 2, c.Path("public,other")), found(Anywhere)},
		{"mixed, unknown path", c.Function("", "mixed", 1, Path{}), found(Unsafe)},
		{"mixed, bad path", c.Function("", "mixed", 1, c.Path("a b")), found(Unsafe)},
		{"mixed, empty path", c.Function("", "mixed", 1, c.Path("")), missing(Unsafe)},
		{"lower, empty path", c.Function("", "lower", 1, c.Path("")), found(Anywhere)},
		{"lower, $user may be app", c.Function("", "lower", 1, c.Path(`"$user"`)), found(Unsafe)},
		{"lower through path app", c.Function("", "lower", 1, c.Path(`app`)), found(Unsafe)},
		{"with_default()", function("with_default", 0), found(Unsafe)},
		{"variadic_fn(0)", function("variadic_fn", 0), missing(Unsafe)},
		{"variadic_fn(5)", function("variadic_fn", 5), found(Unsafe)},
		{"bad_sum", function("bad_sum", 1), found(Unsafe)},
		{"sum", function("sum", 1), found(Anywhere)},
		{"uuid_generate_v4", function("uuid_generate_v4", 0), found(Anywhere)},
		{"crosstab", function("crosstab", 1), found(Unsafe)},
		{"=", c.Operator("", "=", public), found(Anywhere)},
		{"!=", c.Operator("", "!=", public), found(Anywhere)},
		{"pg_catalog.+", c.Operator("pg_catalog", "+", public), found(Anywhere)},
		{"<#> out of reach", c.Operator("", "<#>", public), missing(Unsafe)},
		{"other.<#>", c.Operator("other", "<#>", public), found(Unsafe)},
		{"plain", read("plain"), found(Anywhere)},
		{"nothing", read("nothing"), missing(Writes)},
		{"pg_catalog.pg_class", c.Read("pg_catalog", "pg_class", public), found(Anywhere)},
		{"pg_class", read("pg_class"), found(Anywhere)},
		{"information_schema.columns", c.Read("information_schema", "columns", public), found(Anywhere)},
		{"pg_tables", read("pg_tables"), found(Anywhere)},
		{"unlogged", read("unlogged"), found(Local)},
		{"plain_id_seq", read("plain_id_seq"), found(Local)},
		{"far", read("far"), found(Local)},
		{"parent of an unlogged partition", read("parent"), found(Local)},
		{"child1", read("child1"), found(Anywhere)},
		{"v_plain", read("v_plain"), found(Anywhere)},
		{"v_random", read("v_random"), found(Anywhere)},
		{"v_row", read("v_row"), found(Anywhere)},
		{"v_dirty", read("v_dirty"), found(Unsafe)},
		{"v_nested", read("v_nested"), found(Unsafe)},
		{"v_seq", read("v_seq"), found(Writes)},
		{"v_lock", read("v_lock"), found(Unsafe)},
		{"v_op", read("v_op"), found(Unsafe)},
		{"v_agg", read("v_agg"), found(Unsafe)},
		{"m_stored", read("m_stored"), found(Anywhere)},
		{"rls_ok", read("rls_ok"), found(Anywhere)},
		{"rls_bad", read("rls_bad"), found(Unsafe)},
		{"rls_off", read("rls_off"), found(Anywhere)},
		{"pg_stat_activity", read("pg_stat_activity"), found(Local)},
		{"pg_settings", read("pg_settings"), found(Local)},
		{"write plain", write("plain"), found(Writes)},
		{"write nothing", write("nothing"), missing(Writes)},
		{"write t_touch", write("t_touch"), found(Writes)},
		{"write t_bad", write("t_bad"), found(Unsafe)},
		{"write v_over_bad", write("v_over_bad"), found(Unsafe)},
		{"read v_over_bad", read("v_over_bad"), found(Anywhere)},
		{"write t_default", write("t_default"), found(Unsafe)},
		{"write t_check", write("t_check"), found(Unsafe)},
		{"read t_check", read("t_check"), found(Anywhere)},
		{"write referenced", write("referenced"), found(Unsafe)},
		{"write t_rule", write("t_rule"), found(Unsafe)},
		{"write rls_bad", write("rls_bad"), found(Unsafe)},
		{"write parent", write("parent"), found(Writes)},
		{"type comp_t", c.Type("", "comp_t", public), found(Unsafe)},
		{"type jsonb", c.Type("", "jsonb", public), missing(Anywhere)},
		{"type checked", c.Type("", "checked", public), found(Unsafe)},
		{"type fine_domain", c.Type("", "fine_domain", public), missing(Anywhere)},
		{"type nested_t", c.Type("", "nested_t", public), found(Unsafe)},
		{"type mood", c.Type("", "mood", public), missing(Anywhere)},
		{"other.checked", c.Type("other", "checked", public), missing(Anywhere)},
		{"t_domain", read("t_domain"), found(Unsafe)},
		{"v_cast", read("v_cast"), found(Unsafe)},
		{"takes_checked", function("takes_checked", 1), found(Unsafe)},
		{".attr_bad", c.Attribute("attr_bad"), found(Unsafe)},
		{".attr_good", c.Attribute("attr_good"), missing(Anywhere)},
		{".attr_any", c.Attribute("attr_any"), found(Writes)},
		{".not_attr", c.Attribute("not_attr"), missing(Anywhere)},
	} {
		if q.got.Fitness != q.want.Fitness || q.got.Found != q.want.Found {
			t.Errorf("%s: %s found=%t (%s), want %s found=%t", q.what, q.got.Fitness, q.got.Found, q.got.Why,
				q.want.Fitness, q.want.Found)
		}
		if q.got.Fitness > Anywhere && q.got.Why == "" && q.what != "write nothing" {
			t.Errorf("%s: no reason", q.what)
		}
	}
	const why = "reads v_nested, which reads v_dirty, which calls volatile function dirty_fn"
	if v := read("v_nested"); v.Why != why {
		t.Errorf("reason: %s", v.Why)
	}
}

// TestFingerprint checks that every kind of change is noticed and that a quiet
// database, temporary tables and vacuuming are not taken for one.
func TestFingerprint(t *testing.T) {
	db := pgtest.Shared(t)
	conn := connect(t, db.DSN("postgres"))
	sum := func() string {
		t.Helper()
		s, err := fingerprint(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE t (a int)")
	last := sum()
	for _, quiet := range []string{"INSERT INTO t VALUES (1)", "CREATE TEMP TABLE x (a int)", "DROP TABLE x", "VACUUM t", "ANALYZE t"} {
		exec(quiet)
		if quiet == "ANALYZE t" {
			last = sum() // may count rows in pg_class anew
			continue
		}
		if s := sum(); s != last && quiet != "VACUUM t" {
			t.Errorf("%s was taken for a change", quiet)
		}
		last = sum()
	}
	for i, change := range []string{
		"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
		"CREATE OR REPLACE FUNCTION f() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'",
		"ALTER FUNCTION f() IMMUTABLE",
		"CREATE TABLE u (a int)",
		"ALTER TABLE u ENABLE ROW LEVEL SECURITY",
		"CREATE POLICY p ON u USING (true)",
		"ALTER POLICY p ON u USING (false)",
		"ALTER TABLE u RENAME TO w",
		"ALTER TABLE w ALTER a SET DEFAULT 1",
		"CREATE VIEW v AS SELECT 1 AS a",
		"CREATE OR REPLACE VIEW v AS SELECT 2 AS a",
		"CREATE SCHEMA s",
		"ALTER TABLE w SET SCHEMA s",
		"CREATE OPERATOR <#> (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
		"CREATE TABLE p (a int) PARTITION BY LIST (a); CREATE TABLE c (a int)",
		"ALTER TABLE p ATTACH PARTITION c DEFAULT",
		"CREATE SCHEMA app",
		"DROP VIEW v",
		"CREATE DOMAIN d AS int",
		"ALTER DOMAIN d ADD CHECK (VALUE > 0)",
		"CREATE TYPE m AS ENUM ('a')",
		"CREATE CAST (m AS int) WITH INOUT",
		`CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'`,
		"CREATE EVENT TRIGGER e ON sql_drop EXECUTE FUNCTION e()",
		"ALTER EVENT TRIGGER e DISABLE",
	} {
		exec(change)
		if s := sum(); s == last {
			t.Errorf("change %d was not noticed: %s", i, change)
		} else {
			last = s
		}
	}
}

func TestEventTriggers(t *testing.T) {
	db := pgtest.Shared(t)
	conn := connect(t, db.DSN("postgres"))
	command := func(sql string) Fitness {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
		c, err := Load(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		return c.Command().Fitness
	}
	if f := command("SELECT 1"); f != Writes {
		t.Errorf("without event triggers: %s", f)
	}
	if f := command(`CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN SET x.y = 1; END';
		CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION e()`); f != Unsafe {
		t.Errorf("with one: %s", f)
	}
	if f := command("ALTER EVENT TRIGGER e DISABLE"); f != Writes {
		t.Errorf("disabled: %s", f)
	}
}

// TestHostileSearchPath loads through a session in which other functions hide
// PostgreSQL's own.
func TestHostileSearchPath(t *testing.T) {
	db := pgtest.Shared(t)
	conn := connect(t, db.DSN("postgres"))
	_, err := conn.Exec(t.Context(), `
		CREATE TABLE public.pg_proc (a int);
		CREATE FUNCTION public.count() RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
		SET search_path = public, pg_catalog`)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	if v := c.Function("pg_catalog", "lower", 1, Path{}); !v.Found {
		t.Error("lower was not found")
	}
	var path string
	if err := conn.QueryRow(t.Context(), "SHOW search_path").Scan(&path); err != nil || path != "public, pg_catalog" {
		t.Errorf("the session's search_path is %q now, %v", path, err)
	}
}

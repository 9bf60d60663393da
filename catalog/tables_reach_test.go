package catalog

import (
	"strings"
	"testing"

	"shardproxy/internal/pgtest"
)

const reachSQL = `
CREATE TABLE one (id int PRIMARY KEY); CREATE TABLE two (id int REFERENCES one ON DELETE CASCADE); CREATE TABLE three (id int REFERENCES one);
CREATE TABLE log (x int); CREATE TABLE "Odd" (x int);
CREATE VIEW v AS SELECT id FROM one;
CREATE VIEW vv AS SELECT v.id FROM v JOIN two USING (id);
CREATE FUNCTION pure(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + 1';
CREATE FUNCTION reads_one() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM one';
CREATE FUNCTION reads_view() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM public.vv); END';
CREATE FUNCTION calls_reader() RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN reads_one(); END';
CREATE FUNCTION atomic() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM two; END;
CREATE FUNCTION atomic_return() RETURNS bigint LANGUAGE sql RETURN (SELECT count(*) FROM "Odd");
CREATE FUNCTION writes_one() RETURNS void LANGUAGE plpgsql AS 'BEGIN DELETE FROM one; END';
CREATE FUNCTION atomic_writes() RETURNS void LANGUAGE sql BEGIN ATOMIC DELETE FROM one; END;
CREATE FUNCTION dynamic() RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE ''DELETE FROM one''; END';
CREATE FUNCTION stable_dynamic() RETURNS void STABLE LANGUAGE plpgsql AS 'BEGIN EXECUTE ''SELECT 1 FROM one''; END';
CREATE FUNCTION calls_dynamic() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM dynamic(); END';
CREATE FUNCTION xml_text() RETURNS xml LANGUAGE sql AS 'SELECT query_to_xml(''SELECT 1'', true, true, '''')';
CREATE FUNCTION odd() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM "Odd"';
CREATE FUNCTION escaped() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM U&"\006fne"';
CREATE FUNCTION by_default(n bigint DEFAULT reads_one()) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT n';
CREATE FUNCTION sfunc(int, int) RETURNS int LANGUAGE sql AS 'SELECT count(*)::int FROM log';
CREATE AGGREGATE agg(int) (SFUNC = sfunc, STYPE = int);
CREATE FUNCTION cmp(int, int) RETURNS bool STABLE LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM log)';
CREATE OPERATOR <#> (LEFTARG = int, RIGHTARG = int, FUNCTION = cmp);
CREATE FUNCTION uses_operator() RETURNS bool STABLE LANGUAGE sql AS 'SELECT 1 <#> 2';
CREATE DOMAIN dom AS bigint CHECK (VALUE > reads_one());
CREATE FUNCTION uses_domain() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT 1::dom';
CREATE FUNCTION takes_domain(dom) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION logs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (1); RETURN NEW; END';
CREATE TABLE triggered (x int);
CREATE TRIGGER logs AFTER INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION logs();
CREATE TABLE hidden (x int);
ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON hidden USING (x IN (SELECT id FROM two));
CREATE TABLE parts (k int) PARTITION BY LIST (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE SEQUENCE s; CREATE TABLE with_default (x int DEFAULT nextval('s'));
CREATE FUNCTION uses_catalog() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT count(*) FROM pg_class';
CREATE EXTENSION "uuid-ossp"; CREATE EXTENSION tablefunc; CREATE EXTENSION pg_trgm;
CREATE FUNCTION alias_xml(text, bool, bool, text) RETURNS xml LANGUAGE internal AS 'query_to_xml';
CREATE FUNCTION size(regclass) RETURNS bigint LANGUAGE sql AS 'SELECT pg_relation_size($1)';
`

func TestReaches(t *testing.T) {
	c, _ := loadSchema(t, reachSQL)
	public := c.Path("public")
	call := func(name string, args int) Reached { return c.CallReaches("", name, args, public) }
	table := func(name string) *Table {
		t.Helper()
		table, r := c.Table("public", name, Path{})
		if r != Resolved {
			t.Fatalf("%s: %s", name, r)
		}
		return table
	}
	read := func(name string) Reached { return c.ReadReaches(table(name)) }
	write := func(name string) Reached { return c.WriteReaches(table(name)) }
	domain, _ := c.TypeOf("public", "dom", Path{})
	for _, q := range []struct {
		what   string
		got    Reached
		known  bool
		tables string
	}{
		{"pure", call("pure", 1), true, ""},
		{"lower", call("lower", 1), true, ""},
		{"count", call("count", 1), true, ""},
		{"nobody", call("nobody", 1), false, ""},
		{"reads_one", call("reads_one", 0), true, "public.one"},
		{"reads_view", call("reads_view", 0), true, "public.one, public.two, public.v, public.vv"},
		{"calls_reader", call("calls_reader", 0), true, "public.one"},
		{"atomic", call("atomic", 0), true, "public.two"},
		{"atomic_return", call("atomic_return", 0), true, "public.Odd"},
		{"writes_one", call("writes_one", 0), true, "public.one, public.two"},
		{"atomic_writes", call("atomic_writes", 0), true, "public.one, public.two"},
		{"dynamic", call("dynamic", 0), false, ""},
		{"stable_dynamic", call("stable_dynamic", 0), false, ""},
		{"calls_dynamic", call("calls_dynamic", 0), false, ""},
		{"xml_text", call("xml_text", 0), false, ""},
		{"query_to_xml", call("query_to_xml", 4), false, ""},
		{"alias_xml", call("alias_xml", 4), false, ""},
		{"ts_rewrite(2)", call("ts_rewrite", 2), false, ""},
		{"ts_rewrite(3)", call("ts_rewrite", 3), true, ""},
		{"pg_relation_size", call("pg_relation_size", 1), false, ""},
		{"size", call("size", 1), false, ""},
		{"odd", call("odd", 0), true, "public.Odd"},
		{"escaped", call("escaped", 0), false, ""},
		{"by_default", call("by_default", 0), true, "public.one"},
		{"agg", call("agg", 1), true, "public.log"},
		{"uses_operator", call("uses_operator", 0), true, "public.log"},
		{"<#>", c.OperatorReaches("", "<#>", public), true, "public.log"},
		{"=", c.OperatorReaches("", "=", public), true, ""},
		{"+", c.OperatorReaches("", "+", public), true, ""},
		{"<##>", c.OperatorReaches("", "<##>", public), false, ""},
		{"uses_domain", call("uses_domain", 0), true, "public.one"},
		{"takes_domain", call("takes_domain", 1), true, "public.one"},
		{"dom", c.TypeReaches(domain.OID), true, "public.one"},
		{"uses_catalog", call("uses_catalog", 0), true, ""},
		{"uuid_generate_v4", call("uuid_generate_v4", 0), true, ""},
		{"crosstab", call("crosstab", 1), false, ""},
		{"similarity", call("similarity", 2), true, ""},
		{"read one", read("one"), true, "public.one"},
		{"read vv", read("vv"), true, "public.one, public.two, public.v, public.vv"},
		{"read hidden", read("hidden"), true, "public.hidden, public.two"},
		{"read parts", read("parts"), true, "public.parts, public.parts_1"},
		{"write one", write("one"), true, "public.one, public.two"},
		{"write three", write("three"), true, "public.three"},
		{"write triggered", write("triggered"), true, "public.log, public.triggered"},
		{"read triggered", read("triggered"), true, "public.triggered"},
		{"write parts", write("parts"), true, "public.parts, public.parts_1"},
		{"unknown snapshot", (&Catalog{}).CallReaches("", "lower", 1, public), false, ""},
	} {
		if got := tableNames(q.got.Tables); q.got.Known != q.known || q.known && got != q.tables {
			t.Errorf("%s: known=%t %s, want known=%t %s", q.what, q.got.Known, got, q.known, q.tables)
		}
	}
}

// TestOlderBodies runs the queries for servers without BEGIN ATOMIC.
func TestOlderBodies(t *testing.T) {
	conn := connect(t, pgtest.Shared(t).DSN("postgres"))
	for _, sql := range []string{tableFunctionsSQL, customSettingsSQL} {
		old := withBodies(sql, 130000)
		if strings.Contains(old, "sqlbody") || !strings.Contains(withBodies(sql, 140000), "sqlbody") {
			t.Error("the wrong function for the version")
		}
		if _, err := conn.Exec(t.Context(), old); err != nil {
			t.Error(err)
		}
	}
}

func TestCallables(t *testing.T) {
	c, _ := loadSchema(t, `
		CREATE FUNCTION f(a int, b text DEFAULT 'x') RETURNS SETOF int STRICT STABLE LANGUAGE sql AS 'SELECT 1';
		CREATE FUNCTION v(int, VARIADIC text[]) RETURNS int IMMUTABLE LANGUAGE sql RETURN 1;
		CREATE SCHEMA other; CREATE FUNCTION other.lower(text) RETURNS SETOF text LANGUAGE sql AS 'SELECT 1::text';
		CREATE PROCEDURE p(INOUT int) SECURITY DEFINER LANGUAGE sql AS 'SELECT 1';`)
	public, both := c.Path("public"), c.Path("public, other")
	for _, q := range []struct {
		what      string
		got, want bool
	}{
		{"sum", c.IsAggregate("", "sum", 1, public), true},
		{"lower aggregate", c.IsAggregate("", "lower", 1, public), false},
		{"nobody", c.IsAggregate("", "nobody", 1, public), true},
		{"count(*)", c.IsAggregate("", "count", 0, public), true},
		{"percentile_cont", c.IsAggregate("", "percentile_cont", 1, public), true},
		{"row_number aggregate", c.IsAggregate("", "row_number", 0, public), false},
		{"row_number window", c.IsWindow("", "row_number", 0, public), true},
		{"sum window", c.IsWindow("", "sum", 1, public), false},
		{"generate_series", c.ReturnsSet("", "generate_series", 2, public), true},
		{"f set", c.ReturnsSet("", "f", 1, public), true},
		{"f() has no candidate", c.ReturnsSet("", "f", 0, public), true},
		{"lower set", c.ReturnsSet("", "lower", 1, public), false},
		{"lower set in both", c.ReturnsSet("", "lower", 1, both), true},
		{"other.lower set", c.ReturnsSet("other", "lower", 1, public), true},
		{"lower, unknown path", c.ReturnsSet("", "lower", 1, Path{}), true},
		{"v(0)", len(c.Callables("", "v", 0, public)) == 0, true},
		{"v(1)", len(c.Callables("", "v", 1, public)) == 1, true},
		{"v(9)", len(c.Callables("", "v", 9, public)) == 1, true},
		{"volatility of lower", c.CallVolatility("", "lower", 1, public) == Immutable, true},
		{"volatility of lower in both", c.CallVolatility("", "lower", 1, both) == Volatile, true},
		{"volatility of now", c.CallVolatility("", "now", 0, both) == Stable, true},
		{"volatility of nobody", c.CallVolatility("", "nobody", 0, both) == Volatile, true},
	} {
		if q.got != q.want {
			t.Errorf("%s: %t", q.what, q.got)
		}
	}
	f := c.Callables("", "f", -1, public)[0]
	if f.Kind != CallFunction || !f.Strict || f.Volatility != Stable || f.Defaults != 1 || f.Returns != oidInt4 || f.Language != "sql" ||
		len(f.Arguments) != 2 || f.Arguments[1] != oidText || f.Body != "SELECT 1" || f.SQLBody || c.CallableByOID(f.OID) != f {
		t.Errorf("f: %+v", f)
	}
	v := c.Callables("", "v", -1, public)[0]
	if v.Variadic != oidText || !v.SQLBody || v.Body != "RETURN 1" {
		t.Errorf("v: %+v", v)
	}
	if p := c.Callables("", "p", 1, public)[0]; p.Kind != CallProcedure || !p.SecurityDefiner {
		t.Errorf("p: %+v", p)
	}
}

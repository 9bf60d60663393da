package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/config"
	"shardproxy/internal/pgtest"
)

// joinStage is a home shard, and a server that is to be a shard.
type joinStage struct {
	t            *testing.T
	home, target *pgtest.Cluster
	control      string
	cfg          *config.Config
	conf         *config.Database
}

// startJoin starts both. database is the database of the servers, control who asks them.
func startJoin(t *testing.T, control string) *joinStage {
	t.Helper()
	s := &joinStage{t: t, home: pgtest.Start(t, pgtest.Options{}), target: pgtest.Start(t, pgtest.Options{}), control: control}
	s.load("")
	return s
}

// load reads a configuration with further rules.
func (s *joinStage) load(more string) {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "shardproxy.yaml")
	text := fmt.Sprintf(`
users: [{name: app, password: app-secret}]
databases:
  app:
    server: {control: {%s}}
    shards:
      - {name: s0, nodes: [%q]}
      - {name: s1, nodes: [%q]}
    tables: {orders: {key: customer_id}, customers: {key: id}}
%s`, s.control, s.home.Primary().Addr(), s.target.Primary().Addr(), more)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	cfg, err := load(path)
	if err != nil {
		s.t.Fatal(err)
	}
	s.cfg, s.conf = cfg, &cfg.Databases[0]
}

const joinControl = "user: postgres"

func (s *joinStage) onHome(sql string)   { s.t.Helper(); s.home.Primary().Exec("app", sql) }
func (s *joinStage) onTarget(sql string) { s.t.Helper(); s.target.Primary().Exec("app", sql) }

func (s *joinStage) copy(o copySchemaOptions) (*copySchemaReport, error) {
	return copySchema(within(s.t, time.Minute), s.cfg, s.conf, 1, o)
}

// copies expects that the schema is copied.
func (s *joinStage) copies() *copySchemaReport {
	s.t.Helper()
	r, err := s.copy(copySchemaOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// refused expects an error with the words, and that nothing was made.
func (s *joinStage) refused(is error, words ...string) {
	s.t.Helper()
	before := s.made()
	for _, dry := range []bool{true, false} {
		r, err := s.copy(copySchemaOptions{dryRun: dry})
		if err == nil {
			s.t.Errorf("not refused: %v", r)
			continue
		}
		if is != nil && !errors.Is(err, is) {
			s.t.Errorf("%v is not %v", err, is)
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				s.t.Errorf("%v\ndoes not say %q", err, w)
			}
		}
	}
	if now := s.made(); now != before {
		s.t.Errorf("something was made:\n%s\nbefore:\n%s", now, before)
	}
}

// made says what the new shard has, roughly.
func (s *joinStage) made() string {
	s.t.Helper()
	return fmt.Sprint(s.target.Primary().Rows("app", `SELECT (SELECT string_agg(rolname || rolcanlogin, ' ' ORDER BY 1) FROM pg_roles), (SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE oid >= 16384),
		(SELECT string_agg(setconfig::text, ' ' ORDER BY 1) FROM pg_db_role_setting), (SELECT count(*)::text FROM pg_auth_members), (SELECT datacl::text || datdba FROM pg_database WHERE datname = 'app'),
		(SELECT string_agg(nspname || coalesce(nspacl::text, ''), ' ' ORDER BY 1) FROM pg_namespace)`))
}

// joinRoles and joinSchema have one of everything.
const joinRoles = `
CREATE ROLE "Odd ""name'" NOLOGIN NOINHERIT; CREATE ROLE readers; CREATE ROLE writers CREATEROLE CREATEDB; COMMENT ON ROLE writers IS 'may ''write'' a\b';
CREATE ROLE ann LOGIN PASSWORD 'ann-secret' CONNECTION LIMIT 7 VALID UNTIL '2039-01-02 03:04:05+00' IN ROLE readers;
CREATE ROLE md5er LOGIN; SET password_encryption = 'md5'; ALTER ROLE md5er PASSWORD 'md5-secret'; RESET password_encryption;
CREATE ROLE boss SUPERUSER REPLICATION BYPASSRLS LOGIN; GRANT readers TO writers WITH ADMIN OPTION; GRANT writers TO app; GRANT pg_monitor TO ann;
ALTER ROLE ann SET search_path = "$user", public, "Odd schema"; ALTER ROLE ann SET work_mem = '5MB'; ALTER ROLE ann IN DATABASE app SET statement_timeout = '77s';
ALTER ROLE app IN DATABASE app SET "my.setting" = 'it''s \ odd';
ALTER DATABASE app SET default_transaction_read_only = off; ALTER DATABASE app SET search_path = public, "Odd schema"; ALTER DATABASE app SET DateStyle = 'ISO, DMY'; ALTER DATABASE app SET role = 'none';
ALTER DATABASE app OWNER TO writers; GRANT CONNECT ON DATABASE app TO readers WITH GRANT OPTION; REVOKE TEMPORARY ON DATABASE app FROM PUBLIC; COMMENT ON DATABASE app IS 'the shop';
`

const joinSchema = `
CREATE SCHEMA "Odd schema" AUTHORIZATION writers; CREATE SCHEMA ext; CREATE EXTENSION hstore SCHEMA ext; CREATE EXTENSION btree_gist; CREATE EXTENSION postgres_fdw;
CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN code AS varchar(9) CHECK (VALUE IN ('a', 'b')); CREATE TYPE span AS RANGE (subtype = float8);
CREATE COLLATION german (provider = icu, locale = 'de-u-kn'); CREATE SEQUENCE alone INCREMENT 5 START 7; SELECT nextval('alone');
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$; CREATE FUNCTION twice(i int) RETURNS int IMMUTABLE LANGUAGE sql RETURN i * 2; CREATE PROCEDURE go() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE total (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0'); CREATE OPERATOR ### (LEFTARG = int, RIGHTARG = int, PROCEDURE = int4pl);
`

// joinTables are the second half.
const joinTables = `
CREATE TABLE customers (id bigint PRIMARY KEY, name text COLLATE german NOT NULL, state varchar(9) CHECK (state IN ('new', 'old')), m mood DEFAULT 'glad', c code, p pair, h ext.hstore, gone int,
	double int GENERATED ALWAYS AS (twice(3)) STORED, number bigint GENERATED BY DEFAULT AS IDENTITY (START 100 INCREMENT 2));
ALTER TABLE customers DROP COLUMN gone, OWNER TO writers, ALTER name SET STATISTICS 500, ALTER name SET STORAGE EXTERNAL, SET (fillfactor = 70), REPLICA IDENTITY FULL;
CREATE TABLE orders (id serial, customer_id bigint REFERENCES customers ON DELETE CASCADE DEFERRABLE, at date, s span, PRIMARY KEY (customer_id, id), EXCLUDE USING gist (customer_id WITH =, s WITH &&));
CREATE INDEX odd_index ON orders (md5(id::text)) WHERE at > '2020-01-01'; CREATE INDEX states ON customers (id) WHERE state IN ('new', 'old'); CLUSTER orders USING orders_pkey; CREATE STATISTICS stats ON customer_id, at FROM orders;
CREATE TABLE logs (id int, at date) PARTITION BY RANGE (at); CREATE TABLE logs1 PARTITION OF logs FOR VALUES FROM ('2020-01-01') TO ('2021-01-01'); CREATE TABLE logs_rest PARTITION OF logs DEFAULT; ALTER TABLE logs ADD PRIMARY KEY (id, at);
CREATE TABLE parent (a int CHECK (a > 0) NO INHERIT, b text DEFAULT 'x'); CREATE TABLE child (c int) INHERITS (parent); ALTER TABLE child ALTER b SET DEFAULT 'y'; CREATE UNLOGGED TABLE "Odd schema"."Odd ""table" ("Odd column" int);
CREATE TRIGGER always BEFORE INSERT ON parent FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE parent ENABLE ALWAYS TRIGGER always;
CREATE TRIGGER replica BEFORE INSERT ON parent FOR EACH ROW WHEN (NEW.a > 1) EXECUTE FUNCTION note(); ALTER TABLE parent ENABLE REPLICA TRIGGER replica;
CREATE TRIGGER off AFTER UPDATE ON parent FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE parent DISABLE TRIGGER off;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON parent DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note();
CREATE RULE nothing AS ON DELETE TO parent DO INSTEAD NOTHING; ALTER TABLE parent DISABLE RULE nothing;
ALTER TABLE customers ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY mine ON customers AS RESTRICTIVE FOR SELECT TO readers, app USING (id > 0);
CREATE VIEW names WITH (security_barrier) AS SELECT id, name FROM customers WHERE state IN ('new', 'old') WITH LOCAL CHECK OPTION; CREATE MATERIALIZED VIEW sums AS SELECT count(*) FROM orders; CREATE UNIQUE INDEX ON sums (count);
CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'nowhere'); CREATE USER MAPPING FOR ann SERVER far OPTIONS (user 'u', password 'mapping-secret'); CREATE FOREIGN TABLE away (a int) SERVER far;
CREATE FUNCTION ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$; CREATE EVENT TRIGGER on_ddl ON ddl_command_end EXECUTE FUNCTION ddl(); COMMENT ON EVENT TRIGGER on_ddl IS 'seen';
GRANT SELECT ON customers TO readers; GRANT UPDATE (name) ON customers TO readers WITH GRANT OPTION; REVOKE EXECUTE ON FUNCTION twice FROM PUBLIC; GRANT USAGE ON SCHEMA "Odd schema" TO readers; GRANT USAGE ON SEQUENCE alone TO readers; REVOKE CREATE ON SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE writers IN SCHEMA "Odd schema" GRANT SELECT ON TABLES TO readers; ALTER DEFAULT PRIVILEGES FOR ROLE writers REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
COMMENT ON TABLE customers IS 'who buys'; COMMENT ON COLUMN customers.name IS 'theirs'; COMMENT ON SCHEMA public IS 'ours'; CREATE TEXT SEARCH CONFIGURATION ours (COPY = english);
INSERT INTO customers (id, name) VALUES (1, 'one'), (2, 'two'); SELECT lo_create(4711); INSERT INTO logs VALUES (1, '2020-02-02');
CREATE SCHEMA shardproxy; CREATE FUNCTION shardproxy.unique_id() RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'; CREATE TABLE shardproxy.own (i bigint DEFAULT shardproxy.unique_id());
CREATE PUBLICATION pub FOR TABLE orders; CREATE TABLE unique_ids (id bigint DEFAULT shardproxy.unique_id());
`

// TestJoinSchema joins a database with one of everything.
func TestJoinSchema(t *testing.T) {
	t.Parallel()
	s := startJoin(t, joinControl)
	s.onHome(joinRoles)
	s.onHome(joinSchema)
	s.onHome(joinTables)

	s.refused(nil, "shardproxy.unique_id()", "claimed first")
	s.onTarget("CREATE SCHEMA shardproxy; CREATE FUNCTION shardproxy.unique_id() RETURNS bigint LANGUAGE sql AS 'SELECT 2::bigint'; CREATE TABLE shardproxy.own (i bigint)")

	before := s.made()
	planned, err := s.copy(copySchemaOptions{dryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	if now := s.made(); now != before {
		t.Errorf("a dry run has made\n%s", now)
	}
	var said bytes.Buffer
	r, err := s.copy(copySchemaOptions{progress: &said})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(planned.Roles, r.Roles) || !slices.Equal(planned.Settings, r.Settings) || !slices.Equal(planned.Warnings, r.Warnings) || planned.Tables != r.Tables || !planned.DryRun {
		t.Errorf("planned\n%s\nmade\n%s", planned, r)
	}
	t.Logf("%s%s", said.String(), r)
	s.tells(r)
	s.alike()
	s.works()

	// A second run finds nothing to do.
	before = s.made()
	r = s.copies()
	if len(r.Roles)+len(r.Settings)+len(r.Grants) > 0 || r.Copied || s.made() != before || !strings.Contains(r.String(), "is there already") {
		t.Errorf("the second run:\n%s", r)
	}
	for _, w := range r.Warnings {
		if !strings.HasPrefix(w, "publications") && !strings.HasPrefix(w, "large objects") {
			t.Error(w)
		}
	}
	s.sees()
	s.differs()
}

// tells looks at what the report says.
func (s *joinStage) tells(r *copySchemaReport) {
	s.t.Helper()
	if want := []string{"Odd \"name'", "ann", "boss", "md5er", "readers", "writers"}; !slices.Equal(r.Roles, want) {
		s.t.Errorf("roles %q", r.Roles)
	}
	if len(r.Settings) != 8 || !r.Copied || r.Tables != 9 || len(r.Notes) != 1 {
		s.t.Errorf("%+v", r)
	}
	text := r.String()
	for _, want := range []string{"publications are not copied: pub", "large objects are not copied", "1 of them", "sequences begin anew", "6 roles and 8 settings made"} {
		if !strings.Contains(text, want) {
			s.t.Errorf("the report does not say %q:\n%s", want, text)
		}
	}
	if len(r.Warnings) != 2 {
		s.t.Errorf("warnings: %q", r.Warnings)
	}
	for _, secret := range []string{"secret", "SCRAM", "md50", "PASSWORD", "odd'"} {
		if strings.Contains(text, secret) {
			s.t.Errorf("the report has %q:\n%s", secret, text)
		}
	}
}

// alike compares catalogs, past the code that copies.
func (s *joinStage) alike() {
	s.t.Helper()
	for _, sql := range []string{
		"SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolconnlimit, rolpassword, rolvaliduntil, rolbypassrls, shobj_description(oid, 'pg_authid') FROM pg_authid WHERE rolname <> ALL ('{postgres,app}') ORDER BY 1",
		"SELECT roleid::regrole::text, member::regrole::text, admin_option FROM pg_auth_members ORDER BY 1, 2",
		"SELECT setrole::regrole::text, setdatabase <> 0, setconfig::text FROM pg_db_role_setting ORDER BY 1, 2",
		"SELECT datdba::regrole::text, shobj_description(oid, 'pg_database'), (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(datacl) a) FROM pg_database WHERE datname = 'app'",
		"SELECT nspname, nspowner::regrole::text, nspacl::text, obj_description(oid) FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'shardproxy' ORDER BY 1",
		"SELECT relname, relkind, relowner::regrole::text, relacl::text, relpersistence, reloptions::text, relrowsecurity, relforcerowsecurity, relreplident, obj_description(oid, 'pg_class') FROM pg_class WHERE oid >= 16384 AND relkind <> 't' AND relnamespace <> 'pg_toast'::regnamespace AND relnamespace <> 'shardproxy'::regnamespace ORDER BY 1",
		"SELECT attrelid::regclass::text, attname, atttypid::regtype::text, attacl::text, attidentity, attgenerated, attstattarget, attstorage, col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid IN (SELECT oid FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'v') AND relnamespace <> 'shardproxy'::regnamespace) AND attnum > 0 AND NOT attisdropped ORDER BY 1, 2",
		"SELECT tgrelid::regclass::text, tgname, tgenabled, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2",
		"SELECT ev_class::regclass::text, rulename, ev_enabled FROM pg_rewrite WHERE oid >= 16384 ORDER BY 1, 2",
		"SELECT defaclrole::regrole::text, defaclnamespace::regnamespace::text, defaclobjtype, defaclacl::text FROM pg_default_acl ORDER BY 1, 2, 3",
		"SELECT proname, proowner::regrole::text, proacl::text FROM pg_proc WHERE oid >= 16384 AND pronamespace <> 'shardproxy'::regnamespace ORDER BY 1, oid::regprocedure::text",
		"SELECT stxname, stxkind::text FROM pg_statistic_ext", "SELECT evtname, evtenabled, evtevent, obj_description(oid, 'pg_event_trigger') FROM pg_event_trigger",
		"SELECT srvname, usename, (SELECT string_agg(o, ' ' ORDER BY o) FROM unnest(umoptions) o) FROM pg_user_mappings", "SELECT extname, extversion, extnamespace::regnamespace::text FROM pg_extension ORDER BY 1",
		"SELECT tablename, policyname, permissive, roles::text, cmd, qual, with_check FROM pg_policies ORDER BY 1, 2", "SELECT cfgname FROM pg_ts_config WHERE oid >= 16384", "SELECT seqrelid::regclass::text, seqstart, seqincrement FROM pg_sequence ORDER BY 1",
	} {
		home, target := s.home.Primary().Rows("app", sql), s.target.Primary().Rows("app", sql)
		if fmt.Sprint(home) != fmt.Sprint(target) || len(home) == 0 {
			s.t.Errorf("%s\nhome:   %v\ntarget: %v", sql, home, target)
		}
	}
	if n := s.target.Primary().Value("app", "SELECT (SELECT count(*) FROM customers) + (SELECT count(*) FROM logs) + (SELECT count(*) FROM pg_largeobject_metadata) + (SELECT count(*) FROM pg_publication)"); n != "0" {
		s.t.Errorf("%s rows, large objects and publications were copied", n)
	}
}

// login connects as a role with its password.
func (s *joinStage) login(role, password string) *pgx.Conn {
	s.t.Helper()
	cfg, err := pgx.ParseConfig(s.target.Primary().DSN("app", "postgres"))
	if err != nil {
		s.t.Fatal(err)
	}
	cfg.User, cfg.Password = role, password
	c, err := pgx.ConnectConfig(within(s.t, time.Minute), cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// works does on the new shard what its roles may, and may not.
func (s *joinStage) works() {
	s.t.Helper()
	ann := s.login("ann", "ann-secret")
	must(s.t, ann, "SELECT name FROM customers")
	must(s.t, ann, "UPDATE customers SET name = 'x'")
	fails(s.t, ann, "DELETE FROM customers", "42501")
	fails(s.t, ann, "SELECT twice(1)", "42501")
	fails(s.t, ann, "CREATE TEMP TABLE x (i int)", "42501")
	var path, timeout string
	if err := ann.QueryRow(within(s.t, time.Minute), "SELECT current_setting('search_path'), current_setting('statement_timeout')").Scan(&path, &timeout); err != nil || path != `"$user", public, "Odd schema"` || timeout != "77s" {
		s.t.Errorf("%v %s %s", err, path, timeout)
	}
	app := s.login("app", "app-secret")
	must(s.t, app, `SET ROLE writers; CREATE TABLE "Odd schema".later (i int); CREATE FUNCTION "Odd schema".hidden() RETURNS int LANGUAGE sql AS 'SELECT 1'`)
	must(s.t, ann, `SELECT * FROM "Odd schema".later`)
	fails(s.t, ann, `SELECT "Odd schema".hidden()`, "42501")
	must(s.t, app, `DROP TABLE "Odd schema".later; DROP FUNCTION "Odd schema".hidden()`)
}

// sees expects that what check --schema does not compare is warned of, by name alone.
func (s *joinStage) sees() {
	s.t.Helper()
	for _, c := range []struct{ do, undo, warning string }{
		{"REVOKE SELECT ON customers FROM readers", "GRANT SELECT ON customers TO readers", "both shards: ACL TABLE customers in schema public"},
		{"ALTER USER MAPPING FOR ann SERVER far OPTIONS (SET password 'other-secret')", "ALTER USER MAPPING FOR ann SERVER far OPTIONS (SET password 'mapping-secret')", "both shards: USER MAPPING"},
		{"ALTER TABLE parent OWNER TO readers", "ALTER TABLE parent OWNER TO postgres", "both shards: TABLE parent in schema public"},
		{"COMMENT ON TABLE customers IS 'other'", "COMMENT ON TABLE customers IS 'who buys'", "both shards: COMMENT TABLE customers in schema public"},
		{"ALTER DATABASE app SET work_mem = '9MB'", "ALTER DATABASE app RESET work_mem", "work_mem is set for database app"},
		{"GRANT CREATE ON DATABASE app TO ann", "REVOKE CREATE ON DATABASE app FROM ann", "ann has CREATE on the database"},
		{"ALTER ROLE ann BYPASSRLS", "ALTER ROLE ann NOBYPASSRLS", "ALTER ROLE \"ann\" NOBYPASSRLS"},
		{"ALTER ROLE ann NOLOGIN", "ALTER ROLE ann LOGIN", "ALTER ROLE \"ann\" LOGIN"},
		{"REVOKE readers FROM writers", "GRANT readers TO writers WITH ADMIN OPTION", "role writers is no member of readers"},
	} {
		s.onTarget(c.do)
		r := s.copies()
		if text := r.String(); !strings.Contains(text, c.warning) || strings.Contains(text, "secret") || len(r.Warnings) != 3 && !strings.Contains(c.do, "BYPASS") {
			s.t.Errorf("%s\nis told as\n%s", c.do, text)
		}
		s.onTarget(c.undo)
	}
}

// differs expects that another schema, and rows, are refused.
func (s *joinStage) differs() {
	s.t.Helper()
	s.onTarget("CREATE INDEX more ON customers (name)")
	s.refused(errNotEmpty, "index more", "CREATE INDEX more", "and not on s0", " more; and its schema")
	s.onTarget("DROP INDEX more; INSERT INTO customers VALUES (1, 'x')")
	s.refused(errNotEmpty, "rows in public.customers")
	if _, err := s.copy(copySchemaOptions{withRows: true}); err != nil {
		s.t.Error(err)
	}
	s.onTarget("TRUNCATE customers CASCADE")
	s.copies()
}

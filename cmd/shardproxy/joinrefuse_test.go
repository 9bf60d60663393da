package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
)

// TestJoinSchemaRefused sees each thing that is in the way, before anything is made.
func TestJoinSchemaRefused(t *testing.T) {
	t.Parallel()
	s := startJoin(t, joinControl)
	s.onHome("CREATE ROLE extra; CREATE EXTENSION lo; CREATE TABLE customers (id bigint PRIMARY KEY, state varchar(5) CHECK (state IN ('a', 'b'))); CREATE FUNCTION fence() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
	for _, c := range []struct {
		home, target, undoHome, undoTarget string
		is                                 error
		word                               string
	}{
		{home: "CREATE TRIGGER shardproxy_fence_1_write BEFORE INSERT ON customers FOR EACH ROW EXECUTE FUNCTION fence()", undoHome: "DROP TRIGGER shardproxy_fence_1_write ON customers",
			is: errMoveRuns, word: "trigger shardproxy_fence_1_write of public.customers"},
		{home: "CREATE PUBLICATION shardproxy_move_1 FOR TABLE customers", undoHome: "DROP PUBLICATION shardproxy_move_1", is: errMoveRuns, word: "publication shardproxy_move_1"},
		{home: "UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'lo'", undoHome: "UPDATE pg_extension SET extversion = '1.1' WHERE extname = 'lo'", word: "lo would be of version 1.1, on the home shard it is of 0.9"},
		{home: "UPDATE pg_extension SET extname = 'nowhere' WHERE extname = 'lo'", undoHome: "UPDATE pg_extension SET extname = 'lo' WHERE extname = 'nowhere'", word: "nowhere is not installed"},
		{target: "CREATE EXTENSION lo; UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'lo'", undoTarget: "DROP EXTENSION lo", word: "lo is there in version 0.9, on the home shard in 1.1"},
		{target: "CREATE SCHEMA other; CREATE EXTENSION lo SCHEMA other", undoTarget: "DROP SCHEMA other CASCADE", word: "lo is there in schema other"},
		{target: "CREATE EXTENSION seg", undoTarget: "DROP EXTENSION seg", is: errNotEmpty, word: "it has extension seg"},
		{target: "CREATE SCHEMA empty", undoTarget: "DROP SCHEMA empty", is: errNotEmpty, word: "it has schema empty; and its schema is not that of the home shard"},
		{target: "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO app", undoTarget: "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM app", is: errNotEmpty, word: "default acl for role postgres"},
		{target: "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TYPE e AS ENUM ('a'); CREATE VIEW v AS SELECT 1; CREATE SEQUENCE s; CREATE COLLATION c (locale = 'C'); CREATE CAST (bytea AS text) WITHOUT FUNCTION; SELECT lo_create(1)",
			undoTarget: "DROP FUNCTION f; DROP TYPE e; DROP VIEW v; DROP SEQUENCE s; DROP COLLATION c; DROP CAST (bytea AS text); SELECT lo_unlink(1)", is: errNotEmpty,
			word: "it has cast (pg_catalog.bytea AS pg_catalog.text), collation public.c, function public.f(), large object 1, sequence public.s, type public.e, view public.v; and"},
	} {
		one := func(home, target string) {
			if home != "" {
				s.onHome(home)
			}
			if target != "" {
				s.onTarget(target)
			}
		}
		one(c.home, c.target)
		s.refused(c.is, c.word)
		one(c.undoHome, c.undoTarget)
	}
	s.refusedPrograms()
	s.movesMeanwhile()

	lock := pgtest.Connect(t, s.target.Primary().DSN("app", "postgres"))
	must(t, lock, "SELECT pg_advisory_lock(hashtextextended('shardproxy copies the schema', 0))")
	for _, dry := range []bool{true, false} {
		if r, err := s.copy(copySchemaOptions{dryRun: dry, wait: 100 * time.Millisecond}); !errors.Is(err, errCopying) {
			t.Errorf("%v %v", r, err)
		}
	}
	must(t, lock, "SELECT pg_advisory_unlock_all()")
	must(t, lock, "SET application_name = '"+restoreName+"'")
	if r, err := s.copy(copySchemaOptions{wait: 100 * time.Millisecond}); !errors.Is(err, errCopying) || !strings.Contains(err.Error(), "whose caller is gone") {
		t.Errorf("%v %v", r, err)
	}
	must(t, lock, "RESET application_name")

	s.onTarget("CREATE EXTENSION lo")
	if _, err := s.copy(copySchemaOptions{dryRun: true}); err != nil {
		t.Error(err)
	}
	s.onTarget("DROP EXTENSION lo")
	// What the home shard has too is not in the way, nor is a schema that is not there.
	c := pgtest.Connect(t, s.home.Primary().DSN("app", "postgres"))
	must(t, c, "SET allow_in_place_tablespaces = on")
	must(t, c, "CREATE TABLESPACE far_away LOCATION ''")
	s.onHome("CREATE SCHEMA ours; ALTER TABLE customers SET SCHEMA ours; ALTER TABLE ours.customers SET TABLESPACE far_away; ALTER FUNCTION fence SET SCHEMA ours; DROP EXTENSION lo; DROP SCHEMA public")
	s.onTarget("CREATE ROLE odd LOGIN BYPASSRLS")
	s.onHome("CREATE ROLE odd")
	r := s.copies()
	if text := r.String(); !r.Copied || !strings.Contains(text, "on the home shard there are: far_away") || !strings.Contains(text, `ALTER ROLE "odd" NOBYPASSRLS`) || !strings.Contains(text, `ALTER ROLE "odd" NOLOGIN`) {
		t.Error(text)
	}
	if got := s.target.Primary().Value("app", "SELECT count(*) FROM pg_namespace WHERE nspname = 'public'"); got != "0" {
		t.Error("the schema public is there")
	}
	s.copies()
}

// refusedPrograms names programs that do not do.
func (s *joinStage) refusedPrograms() {
	s.t.Helper()
	alone := filepath.Join(s.t.TempDir(), "pg_dump")
	if err := os.Symlink(s.home.Engine.Binaries().Path("pg_dump"), alone); err != nil {
		s.t.Fatal(err)
	}
	for path, word := range map[string]string{"/nowhere/pg_dump": "no pg_dump of version", alone: "pg_restore is not beside pg_dump"} {
		before := s.made()
		if r, err := s.copy(copySchemaOptions{pgDump: path}); err == nil || !strings.Contains(err.Error(), word) || s.made() != before {
			s.t.Errorf("%v %v", r, err)
		}
	}
	if _, err := s.copy(copySchemaOptions{pgDump: s.home.Engine.Binaries().Path("pg_dump"), dryRun: true}); err != nil {
		s.t.Error(err)
	}
}

// movesMeanwhile begins a move when the home shard has been looked at: what it makes there is found in the dump.
func (s *joinStage) movesMeanwhile() {
	s.t.Helper()
	dir, bin := s.t.TempDir(), s.home.Engine.Binaries()
	text := fmt.Sprintf("#!/bin/sh\n[ \"$1\" = --version ] && exec %[1]s --version\n%[2]s -X -q -d '%[3]s' -c 'CREATE TRIGGER shardproxy_fence_1_write BEFORE INSERT ON customers FOR EACH ROW EXECUTE FUNCTION fence()'\nexec %[1]s \"$@\"\n",
		bin.Path("pg_dump"), bin.Path("psql"), s.home.Primary().DSN("app", "postgres"))
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "pg_dump"), []byte(text), 0o700), os.Symlink(bin.Path("pg_restore"), filepath.Join(dir, "pg_restore"))); err != nil {
		s.t.Fatal(err)
	}
	if r, err := s.copy(copySchemaOptions{pgDump: filepath.Join(dir, "pg_dump")}); !errors.Is(err, errMoveRuns) || !strings.Contains(err.Error(), "just now") {
		s.t.Errorf("%v %v", r, err)
	}
	s.nothing()
	s.onHome("DROP TRIGGER shardproxy_fence_1_write ON customers")
}

// large makes a schema that takes a while to restore.
func (s *joinStage) large() {
	s.t.Helper()
	s.onHome(`CREATE ROLE extra LOGIN PASSWORD 'extra-secret'; CREATE TABLE customers (id bigint PRIMARY KEY, state varchar(5) CHECK (state IN ('a', 'b')));
		DO $$ BEGIN FOR i IN 1..400 LOOP EXECUTE format('CREATE TABLE t%s (id serial PRIMARY KEY, b text, c int); ALTER TABLE t%1$s OWNER TO extra; CREATE INDEX ON t%1$s (b, c)', i); END LOOP; END $$`)
}

// restoring reports whether pg_restore has made something on the new shard.
func (s *joinStage) restoring() bool {
	return s.target.Primary().Value("app", "SELECT count(*) FROM pg_stat_activity WHERE application_name = '"+restoreName+"' AND backend_xid IS NOT NULL") != "0"
}

// nothing expects that no part of the schema is there, and nobody at work on it.
func (s *joinStage) nothing() {
	s.t.Helper()
	if got := s.target.Primary().Value("app", "SELECT (SELECT count(*) FROM pg_class WHERE relname ~ '^(t[0-9]|cust)') + (SELECT count(*) FROM pg_stat_activity WHERE application_name = '"+restoreName+"')"); got != "0" {
		s.t.Errorf("%s things or sessions are left", got)
	}
}

// TestJoinSchemaEnded ends copies at all their moments; the next one goes on.
func TestJoinSchemaEnded(t *testing.T) {
	t.Parallel()
	s := startJoin(t, joinControl)
	s.large()
	ended := func(end func(context.CancelFunc)) error {
		ctx, cancel := context.WithCancel(within(t, time.Minute))
		defer cancel()
		done := make(chan error, 1)
		go func() {
			_, err := copySchema(ctx, s.cfg, s.conf, 1, copySchemaOptions{})
			done <- err
		}()
		end(cancel)
		return <-done
	}
	whole := 0
	for delay := 10 * time.Millisecond; whole == 0 && delay < 3*time.Second; delay = delay * 3 / 2 {
		switch err := ended(func(cancel context.CancelFunc) { <-time.After(delay); cancel() }); {
		case err == nil:
			whole++
		case !errors.Is(err, context.Canceled):
			t.Errorf("after %v: %v", delay, err)
		case s.target.Primary().Value("app", "SELECT count(*) FROM pg_class WHERE relname = 't400'") != "0":
			whole++ // the end came during the comparison
		default:
			s.nothing()
		}
	}
	s.copies()
	s.target.Primary().Exec("postgres", "DROP DATABASE app WITH (FORCE)")
	s.target.Primary().Exec("postgres", "CREATE DATABASE app OWNER app")

	// Within the restore, by us and by the server.
	err := ended(func(cancel context.CancelFunc) { eventually(t, "pg_restore works", s.restoring); cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.nothing()
	err = ended(func(context.CancelFunc) {
		eventually(t, "pg_restore works", s.restoring)
		s.onTarget("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '" + restoreName + "'")
	})
	if err == nil || !strings.Contains(err.Error(), "pg_restore") {
		t.Error(err)
	}
	s.nothing()
	r := s.copies()
	if len(r.Roles) != 0 || !r.Copied || r.Tables != 401 || len(r.Warnings) != 0 {
		t.Errorf("after crashes: %s", r)
	}
	s.login("extra", "extra-secret")
}

// TestJoinSchemaFails: what PostgreSQL does not make is told without secrets, and leaves nothing.
func TestJoinSchemaFails(t *testing.T) {
	t.Parallel()
	s := startJoin(t, joinControl)
	s.target.Primary().Set("log_statement", "all")
	s.onHome(`CREATE ROLE extra LOGIN PASSWORD 'extra-secret'; CREATE TABLE customers (id bigint PRIMARY KEY); CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
		CREATE USER MAPPING FOR app SERVER far OPTIONS (password 'mapping-secret'); UPDATE pg_user_mapping SET umoptions = '{bogus=mapping-secret}'`)
	_, err := s.copy(copySchemaOptions{})
	if err == nil || !strings.Contains(err.Error(), `invalid option "bogus"`) || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	s.nothing()
	if n := s.target.Primary().Value("app", "SELECT count(*) FROM pg_extension WHERE extname = 'postgres_fdw'"); n != "0" {
		t.Error("a part of the schema is left")
	}
	s.onHome("UPDATE pg_user_mapping SET umoptions = '{password=mapping-secret}'")
	s.copies()
	for _, c := range []*pgtest.Cluster{s.home, s.target} {
		log, err := os.ReadFile(c.Primary().Engine.LogFile())
		if err != nil || strings.Contains(string(log), "SCRAM-SHA-256$") || c == s.target && strings.Contains(string(log), "secret") {
			t.Errorf("%v; the log of a server has a password", err)
		}
	}

	// All roles are made, or none.
	s.onHome(`CREATE ROLE aa; CREATE ROLE zz LOGIN PASSWORD 'zz-secret'; UPDATE pg_authid SET rolvaliduntil = NULL, rolconnlimit = 5 WHERE rolname = 'zz'; ALTER ROLE zz SET "my.key" = 'setting-secret'; ALTER ROLE zz SET work_mem = '1MB';
		UPDATE pg_db_role_setting SET setconfig = '{my.key=setting-secret,no_such_setting=1}' WHERE setrole = 'zz'::regrole`)
	if _, err = s.copy(copySchemaOptions{}); err == nil || !strings.Contains(err.Error(), "no_such_setting") || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	// A server would repeat a value that it does not like.
	s.target.Primary().Set("session_preload_libraries", "plpgsql")
	s.onHome("UPDATE pg_db_role_setting SET setconfig = '{plpgsql.variable_conflict=setting-secret}' WHERE setrole = 'zz'::regrole")
	if _, err = s.copy(copySchemaOptions{}); err == nil || !strings.Contains(err.Error(), `SET "plpgsql.variable_conflict" TO '...': SQLSTATE 22023`) || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
	if n := s.target.Primary().Value("app", "SELECT count(*) FROM pg_roles WHERE rolname IN ('aa', 'zz')"); n != "0" {
		t.Errorf("%s roles were made", n)
	}
}

// TestJoinSchemaNoSuperuser: a control user that is none makes what it may; else it is said what to do.
func TestJoinSchemaNoSuperuser(t *testing.T) {
	t.Parallel()
	s := startJoin(t, "user: ctl, password: ctl-secret")
	const create = "CREATE ROLE ctl LOGIN PASSWORD 'ctl-secret'; "
	s.onHome(create + `CREATE ROLE extra LOGIN PASSWORD 'extra-secret'; GRANT extra TO ctl; CREATE ROLE boss SUPERUSER; ALTER DATABASE app OWNER TO ctl; ALTER DATABASE app SET work_mem = '7MB'; SET ROLE ctl;
		CREATE TABLE customers (id bigint PRIMARY KEY); CREATE SCHEMA ex AUTHORIZATION extra; CREATE TABLE ex.things (i int); ALTER TABLE ex.things OWNER TO extra; GRANT SELECT ON customers TO extra;
		RESET ROLE; CREATE FUNCTION ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$; ALTER FUNCTION ddl() OWNER TO ctl; CREATE EVENT TRIGGER on_ddl ON ddl_command_end EXECUTE FUNCTION ddl(); COMMENT ON EVENT TRIGGER on_ddl IS 'x'`)
	s.onTarget(create)
	s.refused(errGlobals, `beside the schema: GRANT CREATE ON DATABASE "app" TO "ctl"`)
	s.onTarget("GRANT CREATE ON DATABASE app TO ctl")
	s.refused(errGlobals, `CREATE ROLE "extra" WITH INHERIT LOGIN; -- and its password`, `CREATE ROLE "boss" WITH SUPERUSER`, `ALTER DATABASE "app" SET "work_mem" TO '7MB'`)
	s.onTarget("ALTER ROLE ctl CREATEROLE")
	s.refused(errGlobals, `CREATE ROLE "boss" WITH SUPERUSER`)
	s.onTarget("CREATE ROLE boss SUPERUSER")
	s.refused(errGlobals, `ALTER DATABASE "app" SET "work_mem" TO '7MB'`)
	s.onTarget("ALTER DATABASE app OWNER TO ctl")
	s.onHome("CREATE TABLE of_boss (i int); GRANT SELECT ON of_boss TO ctl")
	s.refused(errGlobals, `GRANT "postgres" TO "ctl"`)
	s.onHome("DROP TABLE of_boss")
	r := s.copies()
	text := r.String()
	if !slices.Equal(r.Roles, []string{"extra"}) {
		t.Error(r.Roles)
	}
	for _, want := range []string{"passwords, if they have any, have to be set by hand for: extra", "event triggers are not copied, only a superuser makes them: on_ddl", "becomes a member of extra"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s\ndoes not say %q", text, want)
		}
	}
	if len(r.Warnings) != 3 {
		t.Errorf("%q", r.Warnings)
	}
	if got := fmt.Sprint(s.target.Primary().Rows("app", "SELECT relname, relowner::regrole::text, relacl::text FROM pg_class WHERE relname IN ('customers', 'things') ORDER BY 1")); !strings.Contains(got, "[things extra") || !strings.Contains(got, "extra=r/ctl") {
		t.Error(got)
	}
	if r = s.copies(); len(r.Roles)+len(r.Settings)+len(r.Grants) > 0 || r.Copied {
		t.Errorf("the second run:\n%s", r)
	}
}

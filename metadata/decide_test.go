package metadata

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
)

// TestUpgradeFromOne makes a cluster as version 1 did and brings it up.
func TestUpgradeFromOne(t *testing.T) {
	old, fresh := newFleet(t, 1), madeFleet(t, 1)
	first, err := initialise(t.Context(), old.opts, steps()[:1])
	if err != nil {
		t.Fatal(err)
	}
	// As it was before anybody but the owner could use the schema.
	if got := old.dbs[0].Value("SELECT has_schema_privilege('public', 'shardproxy', 'USAGE')"); got != "f" {
		t.Errorf("version 1: PUBLIC may use the schema: %s", got)
	}
	r := mustInit(t, old.opts)
	want := []Step{{"s0", fmt.Sprint("upgraded the schema from version 1 to ", Version)}}
	if !slices.Equal(r.Steps, want) || r.Cluster.ID != first.Cluster.ID || !r.Map.Equal(first.Map) {
		t.Errorf("%v, want %v", r, want)
	}
	// It is what a new one is.
	const all = `SELECT format('%s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod)), c.relacl, pg_get_expr(d.adbin, d.adrelid)
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
		WHERE c.relnamespace = 'shardproxy'::regnamespace AND a.attnum > 0
		UNION ALL SELECT pg_get_functiondef(oid), proacl, obj_description(oid) FROM pg_proc WHERE pronamespace = 'shardproxy'::regnamespace
		UNION ALL SELECT nspname, nspacl, obj_description(oid) FROM pg_namespace WHERE nspname = 'shardproxy' ORDER BY 1`
	for i := range old.dbs {
		is, should := pgtest.Lines(old.dbs[i].Rows(all)), pgtest.Lines(fresh.dbs[i].Rows(all))
		if !slices.Equal(is, should) {
			t.Errorf("shard %d, upgraded:\n%s\nnew:\n%s", i, strings.Join(is, "\n"), strings.Join(should, "\n"))
		}
	}
}

// TestDecide calls the function as roles that may do nothing else.
func TestDecide(t *testing.T) {
	f := madeFleet(t, 1)
	f.do(t, 0, "CREATE ROLE decide_login LOGIN; CREATE ROLE decide_member; GRANT decide_member TO decide_login")
	t.Cleanup(func() { f.dbs[0].Node.Exec("postgres", "DROP ROLE decide_login, decide_member") })
	f.dbs[0].Exec(`CREATE SCHEMA evil; GRANT ALL ON SCHEMA evil TO PUBLIC; CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql AS 'SELECT ''postgres''';
		CREATE OPERATOR evil.= (FUNCTION = textne, LEFTARG = text, RIGHTARG = text)`)
	conn := pgtest.Connect(t, f.dbs[0].DSN("postgres"))
	do := func(sql string) string {
		t.Helper()
		_, err := conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
		var said *pgconn.PgError
		if err != nil && !errors.As(err, &said) {
			t.Fatal(err)
		}
		if said != nil {
			return said.Code
		}
		return ""
	}
	do("SET SESSION AUTHORIZATION decide_login")
	for _, step := range []struct{ sql, code string }{
		{"SELECT shardproxy.decide('a')", ""},
		{"SET search_path = evil, pg_catalog; CREATE TEMP TABLE commits (x int); SELECT shardproxy.decide('b'); DROP TABLE pg_temp.commits; SET search_path = pg_catalog", ""},
		{"SET ROLE decide_member; SELECT shardproxy.decide('c'); RESET ROLE", ""},
		{"BEGIN; SET LOCAL ROLE decide_member; SELECT shardproxy.decide('d'); COMMIT", ""},
		{"BEGIN; SELECT shardproxy.decide('e'); ROLLBACK", ""},
		{"SELECT shardproxy.decide('a')", "23505"},
		{"SELECT shardproxy.decide('')", "23514"},
		{"SELECT shardproxy.decide(repeat('x', 200))", "23514"},
		{"SELECT shardproxy.decide(NULL)", "23502"},
		{"SELECT * FROM shardproxy.commits", "42501"},
		{"SELECT gid FROM shardproxy.cluster, shardproxy.epoch, shardproxy.commits", "42501"},
		{"INSERT INTO shardproxy.commits (gid, committed, decided_by) VALUES ('f', false, 'app')", "42501"},
		{"DELETE FROM shardproxy.commits", "42501"},
		{"UPDATE shardproxy.epoch SET epoch = 9", "42501"},
		{"CREATE TABLE shardproxy.mine (x int)", "42501"},
		{"CREATE FUNCTION shardproxy.decide(int) RETURNS int LANGUAGE sql AS 'SELECT 1'", "42501"},
	} {
		if code := do(step.sql); code != step.code {
			t.Errorf("%s: SQLSTATE %q, want %q", step.sql, code, step.code)
		}
	}
	rows := pgtest.Lines(f.dbs[0].Rows("SELECT gid, committed, decided_by, decided_at > now() - interval '1 minute', xid < pg_current_xact_id() FROM shardproxy.commits ORDER BY gid"))
	want := []string{"a|t|decide_login|t|t", "b|t|decide_login|t|t", "c|t|decide_member|t|t", "d|t|decide_member|t|t"}
	if !slices.Equal(rows, want) {
		t.Errorf("rows %q, want %q", rows, want)
	}
}

// TestDecidedWhen: the row tells when it was decided, not when the transaction
// began; removing old rows relies on it.
func TestDecidedWhen(t *testing.T) {
	f := madeFleet(t, 1)
	f.do(t, 0, "BEGIN; SELECT pg_sleep(0.05); SELECT shardproxy.decide('late'); CREATE TABLE began AS SELECT now() AS at; COMMIT")
	if got := f.value(0, "SELECT decided_at >= at + interval '50 ms' FROM shardproxy.commits, began"); got != "true" {
		t.Error("decided_at is when the transaction began")
	}
}

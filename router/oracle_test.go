package router

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/catalog"
	"shardproxy/internal/pgtest"
	"shardproxy/query"
)

// stateSQL shows all that a session can carry from one transaction to the next.
const stateSQL = `SELECT json_build_object(
	'temp', pg_my_temp_schema() <> 0 AND EXISTS (SELECT FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
	'advisory', (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
	'cursors', (SELECT count(*) FROM pg_cursors WHERE is_holdable),
	'prepared', (SELECT count(*) FROM pg_prepared_statements),
	'listening', (SELECT count(*) FROM pg_listening_channels()),
	'user', current_user, 'session user', session_user,
	'settings', (SELECT json_object_agg(name, setting ORDER BY name) FROM pg_settings
		WHERE source = 'session' AND name !~ '^transaction_'),
	'custom', current_setting('a.b', true))::text`

// lasting are the effects that can be seen in the session's state. An unknown
// effect may be none, and dropping may find nothing.
const lasting = query.EffectSetting | query.EffectTemp | query.EffectAdvisory | query.EffectHoldCursor |
	query.EffectPrepared | query.EffectListen | query.EffectUnknown

// TestPlansHoldOnServers runs every text on real servers: one that is planned
// as a read must not be refused by a replica, and one that is planned as
// having no effects must leave the session as it was.
func TestPlansHoldOnServers(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Options{Replicas: 1})
	ctx := context.Background()
	connect := func(n *pgtest.Node) *pgx.Conn {
		t.Helper()
		cfg, err := pgx.ParseConfig(n.DSN("app", "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		cfg.RuntimeParams["statement_timeout"] = "500ms" // some texts never end
		conn, err := pgx.ConnectConfig(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(ctx) })
		return conn
	}
	loader, err := pgx.Connect(ctx, cluster.Primary().DSN("app", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer loader.Close(ctx)
	if _, err := loader.Exec(ctx, schemaSQL+"CREATE TABLE t (a int, b int, c int); CREATE SEQUENCE s;"); err != nil {
		t.Fatal(err)
	}
	snapshot, err := catalog.Load(ctx, loader)
	if err != nil {
		t.Fatal(err)
	}
	cluster.Replicas()[0].WaitReplayed(cluster.Primary().LSN())
	r := New(Options{Catalog: func() *catalog.Catalog { return snapshot }})
	replica, primary := connect(cluster.Replicas()[0]), connect(cluster.Primary())
	reads, harmless := 0, 0
	for _, sql := range texts(t) {
		p := r.Plan([]byte(sql), Context{})
		if p.Intent == Read && !strings.HasPrefix(sql, "COPY") {
			if runs(t, replica, sql) {
				reads++
			}
		}
		if p.Effects&lasting == 0 && staysOut(p) {
			before := state(t, primary)
			if runs(t, primary, sql) {
				harmless++
			}
			if after := state(t, primary); after != before {
				t.Errorf("%q: plan %s\nbefore %s\nafter  %s", sql, p.describe(), before, after)
			}
		}
	}
	if reads < 40 || harmless < 80 {
		t.Errorf("only %d reads and %d others ran without an error", reads, harmless)
	}
}

// runs executes sql and says whether it succeeded. Refusals because the node
// is a replica are what the test is about.
func runs(t *testing.T, conn *pgx.Conn, sql string) bool {
	t.Helper()
	_, err := conn.PgConn().Exec(t.Context(), sql).ReadAll()
	var pe *pgconn.PgError
	switch {
	case err == nil:
		return true
	case !errors.As(err, &pe):
		t.Fatalf("%q: %v", sql, err)
	case pe.Code == "25006" || strings.Contains(pe.Message, "during recovery"):
		t.Errorf("%q was planned as a read: %v", sql, err)
	}
	return false
}

// state describes the session; transactions left open are ended first.
func state(t *testing.T, conn *pgx.Conn) (s string) {
	t.Helper()
	if conn.PgConn().TxStatus() != 'I' {
		if _, err := conn.Exec(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := conn.PgConn().Exec(t.Context(), stateSQL).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return string(rows[0].Rows[0][0])
}

// staysOut leaves out what would disturb the test itself: streams, commands
// whose effects come with another command, and whole-server commands.
func staysOut(p *Plan) bool {
	for i := range p.Statement.Commands {
		switch c := &p.Statement.Commands[i]; c.Kind {
		case query.KindCopyFrom, query.KindCopyTo, query.KindExecute, query.KindPrepareTx:
			return false
		case query.KindDDL, query.KindOther:
			return false
		}
	}
	return true
}

package drivertest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
)

// TestPgx runs the same script in each of pgx's ways to send a query.
func TestPgx(t *testing.T) {
	for _, mode := range []struct {
		client string
		mode   pgx.QueryExecMode
	}{
		{"pgx_statement", pgx.QueryExecModeCacheStatement},
		{"pgx_describe", pgx.QueryExecModeCacheDescribe},
		{"pgx_describe_exec", pgx.QueryExecModeDescribeExec},
		{"pgx_exec", pgx.QueryExecModeExec},
		{"pgx_simple", pgx.QueryExecModeSimpleProtocol},
	} {
		t.Run(mode.mode.String(), func(t *testing.T) {
			compare(t, mode.client, func(l leg, _ []string) (string, error) { return runSections(l, pgxScript(mode.mode)) })
		})
	}
}

// pgxClient is what the sections share: how to connect in one mode.
type pgxClient struct{ mode pgx.QueryExecMode }

func pgxScript(mode pgx.QueryExecMode) []goSection {
	c := pgxClient{mode}
	sections := []goSection{
		{"connection", c.connection},
		{"types", c.types},
		{"own types", c.ownTypes},
		{"prepared", c.prepared},
		{"prepared alter", c.preparedAlter},
		{"explicitly prepared", c.explicitlyPrepared},
		{"transactions", c.transactions},
		{"errors", c.errors},
		{"notices", c.notices},
		{"copy", c.copy},
		{"cancel", c.cancel},
		{"listen", c.listen},
		{"batch", c.batch},
		{"churn", c.churn},
		{"portals", c.portals},
		{"session state", c.sessionState},
	}
	if mode == pgx.QueryExecModeCacheStatement || mode == pgx.QueryExecModeSimpleProtocol {
		sections = append(sections, goSection{"large", c.large}) // binary and text
	}
	if mode == pgx.QueryExecModeCacheStatement {
		// What goes below the modes needs no second run.
		sections = append(sections, goSection{"pipeline", c.pipeline}, goSection{"protocol", c.protocol},
			goSection{"statement names", c.statementNames}, goSection{"listen race", c.listenRace})
	}
	return sections
}

// config is for a connection of the leg; more goes into its DSN.
func (c pgxClient) config(w *teller, more string) *pgx.ConnConfig {
	config := must(pgx.ParseConfig(w.dsn("channel_binding=require require_auth=scram-sha-256 " + more)))
	config.DefaultQueryExecMode = c.mode
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: 5 * time.Second}
	}
	return config
}

func (c pgxClient) connect(ctx context.Context, w *teller) *pgx.Conn {
	return must(pgx.ConnectConfig(ctx, c.config(w, "")))
}

// ask writes a query's rows.
func ask(ctx context.Context, w *teller, conn *pgx.Conn, query string, args ...any) {
	rows, err := values(ctx, conn, query, args...)
	if err != nil {
		w.refused(query, err)
		return
	}
	w.say("%s %s", query, rows)
}

func values(ctx context.Context, conn *pgx.Conn, query string, args ...any) (string, error) {
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		return "", err
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) ([]any, error) { return row.Values() })
	return fmt.Sprintf("%v", all), err
}

func (c pgxClient) connection(ctx context.Context, w *teller) error {
	conn := c.connect(ctx, w)
	for _, name := range []string{"server_version", "client_encoding", "DateStyle", "TimeZone", "integer_datetimes", "standard_conforming_strings", "is_superuser", "in_hot_standby"} {
		w.say("%s %s", name, conn.PgConn().ParameterStatus(name))
	}
	w.say("status %c", conn.PgConn().TxStatus())
	ask(ctx, w, conn, "SELECT current_user::text, 1 + 1")
	check(conn.Ping(ctx))
	check(conn.Close(ctx))
	for _, wrong := range []string{
		"password=wrong", "user=nobody_here", "dbname=no_such_database", "sslrootcert=" + w.wrongCA, "options='-c no_such_setting=1'",
		"sslmode=disable channel_binding=disable password=wrong",
	} {
		_, err := pgx.ConnectConfig(ctx, c.config(w, wrong))
		var refusal *pgconn.PgError
		if errors.As(err, &refusal) {
			w.refused(wrong[:8], refusal)
		} else {
			w.say("%s: refused here: %v", wrong[:8], err != nil)
		}
	}
	for _, right := range []string{
		"sslmode=disable channel_binding=disable", "sslmode=require channel_binding=disable", "sslnegotiation=postgres", "min_protocol_version=3.0 max_protocol_version=3.0",
		"application_name=mine options='-c search_path=a,b -c statement_timeout=1234'",
	} {
		conn := must(pgx.ConnectConfig(ctx, c.config(w, right)))
		for _, name := range []string{"application_name", "search_path", "statement_timeout"} {
			ask(ctx, w, conn, "SHOW "+name)
		}
		w.say("application_name %s", conn.PgConn().ParameterStatus("application_name"))
		check(conn.Close(ctx))
	}
	return nil
}

// execute runs a statement that must succeed.
func execute(ctx context.Context, conn *pgx.Conn, statement string, args ...any) pgconn.CommandTag {
	return must(conn.Exec(ctx, statement, args...))
}

func (c pgxClient) transactions(ctx context.Context, w *teller) error {
	conn := c.connect(ctx, w)
	defer conn.Close(ctx)
	execute(ctx, conn, "CREATE TABLE tx (id int PRIMARY KEY, v int)")
	check(pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		w.say("%s", must(tx.Exec(ctx, "INSERT INTO tx VALUES ($1, $1)", 1)))
		w.say("%v", pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
			must(inner.Exec(ctx, "INSERT INTO tx VALUES ($1, $1)", 2))
			return errors.New("inner rolled back")
		}))
		return pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
			_, err := inner.Exec(ctx, "INSERT INTO tx VALUES ($1, $1)", 3)
			return err
		})
	}))
	ask(ctx, w, conn, "SELECT * FROM tx ORDER BY id")
	for _, o := range []pgx.TxOptions{
		{IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly, DeferrableMode: pgx.Deferrable},
		{IsoLevel: pgx.RepeatableRead}, {AccessMode: pgx.ReadWrite}, {},
	} {
		tx := must(conn.BeginTx(ctx, o))
		for _, name := range []string{"isolation", "read_only", "deferrable"} {
			ask(ctx, w, conn, "SHOW transaction_"+name)
		}
		_, err := tx.Exec(ctx, "UPDATE tx SET v = 7 WHERE id = 1")
		if o.AccessMode == pgx.ReadOnly {
			w.refused("write", err)
			w.refused("after an error", must2(tx.Exec(ctx, "SELECT 1")))
		} else {
			check(err)
		}
		w.say("status %c", conn.PgConn().TxStatus())
		check(tx.Rollback(ctx))
		w.say("status %c", conn.PgConn().TxStatus())
	}
	execute(ctx, conn, "CREATE TABLE child (parent int REFERENCES tx DEFERRABLE INITIALLY DEFERRED)")
	tx := must(conn.Begin(ctx))
	must(tx.Exec(ctx, "INSERT INTO child VALUES ($1)", 99))
	w.refused("commit", tx.Commit(ctx))
	w.say("status %c", conn.PgConn().TxStatus())
	tx = must(conn.Begin(ctx))
	w.refused("in a transaction", must2(tx.Exec(ctx, "SELECT 1/0")))
	w.say("commit of a failed transaction: %v", tx.Commit(ctx))
	ask(ctx, w, conn, "SELECT count(*) FROM child")
	return nil
}

// must2 drops the first result of a call that is expected to fail.
func must2[T any](_ T, err error) error { return err }

func (c pgxClient) errors(ctx context.Context, w *teller) error {
	conn := c.connect(ctx, w)
	defer conn.Close(ctx)
	execute(ctx, conn, "CREATE TABLE er (id int PRIMARY KEY, v int NOT NULL CHECK (v < 100))")
	execute(ctx, conn, "INSERT INTO er VALUES (1, 1)")
	bad := []struct {
		statement string
		args      []any
	}{
		{"SELEC 1", nil}, {"SELECT 1/0", nil}, {"SELECT * FROM missing", nil}, {"INSERT INTO er VALUES ($1, $2)", []any{1, 1}},
		{"INSERT INTO er VALUES ($1, $2)", []any{2, 100}}, {"INSERT INTO er VALUES ($1, $2)", []any{3, nil}}, {"SELECT 1/$1::int", []any{0}},
		{"DO $$ BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'XY123', DETAIL = 'd', HINT = 'h', TABLE = 't'; END $$", nil},
	}
	for _, b := range bad {
		w.refused(b.statement, must2(conn.Exec(ctx, b.statement, b.args...)))
		ask(ctx, w, conn, "SELECT count(*) FROM er WHERE id = $1", 1)
	}
	for _, b := range bad {
		tx := must(conn.Begin(ctx))
		must(tx.Exec(ctx, "INSERT INTO er VALUES ($1, $2)", 50, 50))
		inner := must(tx.Begin(ctx))
		w.refused(b.statement, must2(inner.Exec(ctx, b.statement, b.args...)))
		w.refused("after an error", must2(inner.Exec(ctx, "SELECT count(*) FROM er")))
		check(inner.Rollback(ctx))
		ask(ctx, w, conn, "SELECT count(*) FROM er")
		check(tx.Rollback(ctx))
	}
	// An error after rows: the client has seen some of them.
	rows := must(conn.Query(ctx, "SELECT 1 / (5000 - i) FROM generate_series(1, 6000) i"))
	count := 0
	for rows.Next() {
		count++
	}
	w.say("%d rows", count)
	w.refused("rows", rows.Err())
	ask(ctx, w, conn, "SELECT count(*) FROM er")
	return nil
}

func (c pgxClient) notices(ctx context.Context, w *teller) error {
	config := c.config(w, "")
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		w.say("%s %s %q %q", n.Severity, n.Code, n.Message, n.Detail)
	}
	conn := must(pgx.ConnectConfig(ctx, config))
	defer conn.Close(ctx)
	execute(ctx, conn, "DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two' USING DETAIL = 'more'; END $$")
	execute(ctx, conn, "DROP TABLE IF EXISTS not_there")
	execute(ctx, conn, "COMMIT")
	execute(ctx, conn, "-- nothing")
	execute(ctx, conn, "")
	execute(ctx, conn, "CREATE FUNCTION loud(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'i %', i; RETURN i; END $$")
	ask(ctx, w, conn, "SELECT loud(i) FROM generate_series(1, 3) i")
	return nil
}

package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/internal/pgtest"
	"shardproxy/proxy"
)

func one(t testing.TB, c *pgx.Conn, sql string, args ...any) string {
	t.Helper()
	var v *string
	if err := c.QueryRow(ctx10(t), "SELECT ("+sql+")::text", append([]any{pgx.QueryExecModeSimpleProtocol}, args...)...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if v == nil {
		return "NULL"
	}
	return *v
}

func exec(t testing.TB, c *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := c.Exec(ctx10(t), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func codeOf(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return fmt.Sprint(err)
}

// shaken returns two clients of a proxy with one server connection, so that
// every statement of one may follow the other's on the same server session.
func shaken(t *testing.T) (a, b *pgx.Conn) {
	f := start(t, fixtureOptions{size: 1})
	return f.connect("&default_query_exec_mode=simple_protocol"), f.connect("&default_query_exec_mode=simple_protocol")
}

func TestSettingsFollowTheirClient(t *testing.T) {
	a, b := shaken(t)
	exec(t, a, "SET search_path TO pg_catalog, public")
	exec(t, a, "SET work_mem = '7MB'")
	exec(t, a, "SET app.tenant = 'a'")
	exec(t, b, "SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE")
	if got := one(t, b, "current_setting('work_mem')"); got == "7MB" {
		t.Error("work_mem leaked")
	}
	if got := one(t, b, "current_setting('app.tenant', true)"); got == "a" {
		t.Error("custom setting leaked")
	}
	if got := one(t, b, "current_setting('search_path')"); got != `"$user", public` {
		t.Errorf("search_path leaked: %s", got)
	}
	if got := one(t, a, "current_setting('work_mem')"); got != "7MB" {
		t.Errorf("work_mem lost: %s", got)
	}
	if got := one(t, a, "current_setting('search_path')"); got != "pg_catalog, public" {
		t.Errorf("search_path lost: %s", got)
	}
	if got := one(t, a, "current_setting('app.tenant')"); got != "a" {
		t.Errorf("custom setting lost: %s", got)
	}
	if got := one(t, b, "current_setting('timezone')"); got != "<-08>+08" {
		t.Errorf("time zone lost: %s", got)
	}
	exec(t, a, "RESET work_mem")
	if got := one(t, a, "current_setting('work_mem')"); got == "7MB" {
		t.Error("RESET did nothing")
	}
	exec(t, a, "BEGIN")
	exec(t, a, "SET work_mem = '9MB'")
	exec(t, a, "ROLLBACK")
	one(t, b, "1")
	if got := one(t, a, "current_setting('work_mem')"); got == "9MB" {
		t.Error("a rolled back SET survived")
	}
	exec(t, a, "BEGIN")
	exec(t, a, "SET work_mem = '9MB'")
	exec(t, a, "SAVEPOINT s")
	exec(t, a, "SET work_mem = '10MB'")
	exec(t, a, "ROLLBACK TO s")
	exec(t, a, "COMMIT")
	one(t, b, "1")
	if got := one(t, a, "current_setting('work_mem')"); got != "9MB" {
		t.Errorf("after ROLLBACK TO: %s", got)
	}
	exec(t, a, "DISCARD ALL")
	if got := one(t, a, "current_setting('work_mem')"); got == "9MB" {
		t.Error("DISCARD ALL did nothing")
	}
}

func TestStartupSettingsFollowTheirClient(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := f.connect("&default_query_exec_mode=simple_protocol&application_name=first&options=-c%20work_mem%3D3MB")
	b := f.connect("&default_query_exec_mode=simple_protocol&timezone=Asia/Tokyo")
	for range 3 {
		if got := one(t, a, "current_setting('application_name') || current_setting('work_mem')"); got != "first3MB" {
			t.Errorf("got %s", got)
		}
		if got := one(t, b, "current_setting('timezone')"); got != "Asia/Tokyo" {
			t.Errorf("got %s", got)
		}
	}
	if got := a.PgConn().ParameterStatus("application_name"); got != "first" {
		t.Errorf("reported application_name %q", got)
	}
	exec(t, a, "RESET ALL")
	if got := one(t, a, "current_setting('work_mem')"); got != "3MB" {
		t.Errorf("RESET ALL must go back to the start-up packet's value, got %s", got)
	}
	_, err := pgx.Connect(ctx10(t), f.dsn("&no_such_setting=1"))
	if codeOf(err) != "42704" {
		t.Errorf("unknown start-up setting: %v", err)
	}
}

// TestNothingLeaks makes one kind of session state after the other and looks
// for it from another client: on other server connections while its maker lives,
// and on the very same one when it has left.
func TestNothingLeaks(t *testing.T) {
	cases := []struct{ name, make, probe, clean string }{
		{"temporary table", "CREATE TEMP TABLE leak (x int)", "coalesce(to_regclass('pg_temp.leak')::text, 'none')", "none"},
		{"advisory lock", "SELECT pg_advisory_lock(42)", "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())", "0"},
		{"setting", "SET work_mem TO '11MB'", "current_setting('work_mem') = '11MB'", "false"},
		{"search path", "SET search_path TO pg_catalog", "current_setting('search_path') = 'pg_catalog'", "false"},
		{"role", "SET ROLE pg_monitor", "current_user", "postgres"},
		{"session authorization", "SET SESSION AUTHORIZATION app", "session_user", "postgres"},
		{"prepared statement", "PREPARE leak AS SELECT 1", "(SELECT count(*) FROM pg_prepared_statements WHERE name = 'leak')", "0"},
		{"listen", "LISTEN leak", "(SELECT count(*) FROM pg_listening_channels())", "0"},
		{"cursor with hold", "DECLARE leak CURSOR WITH HOLD FOR SELECT 1", "(SELECT count(*) FROM pg_cursors WHERE name = 'leak')", "0"},
		{"set_config in DO", "DO $$ BEGIN PERFORM set_config('work_mem', '11MB', false); END $$", "current_setting('work_mem') = '11MB'", "false"},
		{"custom setting in a function", "DO $$ BEGIN PERFORM set_config('my.' || 'secret', 'x', false); END $$", "coalesce(current_setting('my.secret', true), '') = 'x'", "false"},
		{"open transaction", "BEGIN; CREATE TEMP TABLE leak (x int)", "coalesce(to_regclass('pg_temp.leak')::text, 'none')", "none"},
		{"failed transaction", "BEGIN; SET work_mem TO '11MB'; SAVEPOINT s; SELECT pg_advisory_lock(42)", "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())", "0"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, fixtureOptions{size: 2})
			a, b := f.superuser(), f.superuser()
			exec(t, a, c.make)
			for range 4 {
				if got := one(t, b, c.probe); got != c.clean {
					t.Fatalf("while its maker lives: %s", got)
				}
			}
			f = start(t, fixtureOptions{size: 1})
			a, b = f.superuser(), f.superuser()
			pid := one(t, a, "pg_backend_pid()")
			exec(t, a, c.make)
			if err := a.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			for range 4 {
				if got := one(t, b, "pg_backend_pid()"); got != pid {
					t.Fatalf("on connection %s, its maker was on %s", got, pid)
				}
				if got := one(t, b, c.probe); got != c.clean {
					t.Fatalf("after its maker left: %s", got)
				}
			}
		})
	}
}

func TestPinnedStateWorks(t *testing.T) {
	f := start(t, fixtureOptions{size: 2})
	mode := "&default_query_exec_mode=simple_protocol"
	a, b := f.connect(mode), f.connect(mode)
	exec(t, a, "CREATE TEMP TABLE mine (x int)")
	exec(t, a, "SELECT pg_advisory_lock(7)")
	exec(t, a, "PREPARE p AS SELECT $1::int * 2")
	for i := range 5 {
		one(t, b, "1")
		exec(t, a, fmt.Sprintf("INSERT INTO mine VALUES (%d)", i))
	}
	if got := one(t, a, "(SELECT count(*) FROM mine)"); got != "5" {
		t.Errorf("temporary table holds %s rows", got)
	}
	if got := one(t, b, "pg_try_advisory_lock(7)"); got != "false" {
		t.Error("the lock is not held")
	}
	exec(t, a, "EXECUTE p(4)")
	exec(t, a, "DO $$ BEGIN PERFORM set_config('work_mem', '11MB', false); END $$")
	one(t, b, "1")
	if got := one(t, a, "current_setting('work_mem')"); got != "11MB" {
		t.Errorf("a setting made in a DO block was lost: %s", got)
	}
	// When the causes are gone the server connection is free again.
	exec(t, a, "DROP TABLE mine")
	exec(t, a, "SELECT pg_advisory_unlock(7)")
	exec(t, a, "DEALLOCATE p")
	waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 0 })
}

func TestProtocolStatementsShared(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := f.connect(""), f.connect("")
	for i := range 30 {
		for n, c := range []*pgx.Conn{a, b} {
			var got int
			sql := fmt.Sprintf("SELECT $1::int + %d", i%15) // more than a connection keeps
			if err := c.QueryRow(ctx10(t), sql, n).Scan(&got); err != nil || got != n+i%15 {
				t.Fatalf("got %d, %v", got, err)
			}
		}
	}
	exec(t, a, "DEALLOCATE ALL")
	exec(t, b, "SELECT 1")
}

func TestTransactionAndErrors(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := f.connect(""), f.connect("")
	exec(t, a, "CREATE TABLE tx (id int PRIMARY KEY)")
	tx, err := a.Begin(ctx10(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx10(t), "INSERT INTO tx VALUES (1)"); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx10(t), "INSERT INTO tx VALUES (1)"); codeOf(err) != "23505" {
		t.Fatalf("got %v", err)
	}
	if _, err := tx.Exec(ctx10(t), "SELECT 1"); codeOf(err) != "25P02" {
		t.Fatalf("got %v", err)
	}
	if err := tx.Rollback(ctx10(t)); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := b.QueryRow(ctx10(t), "SELECT count(*) FROM tx").Scan(&n); err != nil || n != 0 {
		t.Fatalf("%d rows, %v", n, err)
	}
	_, err = a.Exec(ctx10(t), "SELECT nothing FROM tx")
	if codeOf(err) != "42703" {
		t.Fatalf("got %v", err)
	}
	exec(t, a, "DROP TABLE tx")
}

func TestBatchWithErrorInTheMiddle(t *testing.T) {
	f := start(t, fixtureOptions{size: 2})
	a := f.connect("")
	for range 10 {
		batch := &pgx.Batch{}
		batch.Queue("SELECT 1")
		batch.Queue("SELECT 1 / $1::int", 0)
		batch.Queue("SELECT 2")
		err := a.SendBatch(ctx10(t), batch).Close()
		if codeOf(err) != "22012" {
			t.Fatalf("got %v", err)
		}
		if got := one(t, a, "3"); got != "3" {
			t.Fatal(got)
		}
	}
}

func TestPipelineOfSyncs(t *testing.T) {
	f := start(t, fixtureOptions{size: 2})
	c, err := pgconn.Connect(ctx10(t), f.dsn(""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	p := c.StartPipeline(ctx10(t))
	const rounds = 500
	for i := range rounds {
		sql := "SELECT $1::int4"
		if i%5 == 3 {
			sql = "SELECT 1 / ($1::int4 - $1::int4)"
		}
		p.SendQueryParams(sql, [][]byte{[]byte(fmt.Sprint(i))}, nil, nil, nil)
		if err := p.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range rounds {
		res, err := p.GetResults()
		if i%5 == 3 {
			if codeOf(err) != "22012" && err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			if err == nil {
				if r := res.(*pgconn.ResultReader).Read(); codeOf(r.Err) != "22012" {
					t.Fatalf("%d: %v", i, r.Err)
				}
			}
		} else {
			if err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			r := res.(*pgconn.ResultReader).Read()
			if r.Err != nil || string(r.Rows[0][0]) != fmt.Sprint(i) {
				t.Fatalf("%d: %q %v", i, r.Rows, r.Err)
			}
		}
		if res, err := p.GetResults(); err != nil {
			t.Fatalf("%d: %v", i, err)
		} else if _, ok := res.(*pgconn.PipelineSync); !ok {
			t.Fatalf("%d: %T instead of a sync", i, res)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCopy(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := f.connect("")
	exec(t, a, "CREATE TABLE copied (id int, v text)")
	rows := make([][]any, 20000)
	for i := range rows {
		rows[i] = []any{i, strings.Repeat("x", i%100)}
	}
	n, err := a.CopyFrom(ctx10(t), pgx.Identifier{"copied"}, []string{"id", "v"}, pgx.CopyFromRows(rows))
	if err != nil || n != int64(len(rows)) {
		t.Fatalf("%d rows, %v", n, err)
	}
	var out strings.Builder
	tag, err := a.PgConn().CopyTo(ctx10(t), &out, "COPY copied TO STDOUT")
	if err != nil || tag.RowsAffected() != int64(len(rows)) || strings.Count(out.String(), "\n") != len(rows) {
		t.Fatalf("%v, %v", tag, err)
	}
	if _, err := a.PgConn().CopyFrom(ctx10(t), strings.NewReader("1\tx\nbroken\n"), "COPY copied FROM STDIN"); codeOf(err) != "22P02" && codeOf(err) != "22P04" {
		t.Fatalf("broken row: %v", err)
	}
	if _, err := a.PgConn().CopyFrom(ctx10(t), io.MultiReader(strings.NewReader("1\tx\n"), failing{}), "COPY copied FROM STDIN"); err == nil {
		t.Fatal("CopyFail succeeded")
	}
	if got := one(t, a, "(SELECT count(*) FROM copied)"); got != "20000" {
		t.Fatal(got)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("no more") }

func TestPortalSuspension(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	c, err := pgconn.Connect(ctx10(t), f.dsn(""))
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Conn.Close()
	fe := h.Frontend
	fe.Send(&pgproto3.Parse{Query: "SELECT generate_series(1, 7)"})
	fe.Send(&pgproto3.Bind{})
	fe.Send(&pgproto3.Execute{MaxRows: 3})
	fe.Send(&pgproto3.Execute{MaxRows: 3})
	fe.Send(&pgproto3.Flush{})
	if err := fe.Flush(); err != nil {
		t.Fatal(err)
	}
	var kinds strings.Builder
	read := func(until byte) {
		for {
			m, err := fe.Receive()
			if err != nil {
				t.Fatal(err)
			}
			k := fmt.Sprintf("%T", m)
			kinds.WriteString(strings.TrimPrefix(k, "*pgproto3.") + " ")
			switch m.(type) {
			case *pgproto3.PortalSuspended:
				if until == 's' {
					return
				}
			case *pgproto3.ReadyForQuery:
				return
			}
		}
	}
	read('s')
	read('s')
	fe.Send(&pgproto3.Execute{MaxRows: 3})
	fe.Send(&pgproto3.Sync{})
	if err := fe.Flush(); err != nil {
		t.Fatal(err)
	}
	read('Z')
	want := "ParseComplete BindComplete DataRow DataRow DataRow PortalSuspended DataRow DataRow DataRow PortalSuspended DataRow CommandComplete ReadyForQuery "
	if kinds.String() != want {
		t.Errorf("got  %s\nwant %s", kinds.String(), want)
	}
}

func TestCancel(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := f.connect("")
	for range 5 {
		done := make(chan error, 1)
		go func() {
			_, err := a.Exec(context.Background(), "SELECT pg_sleep(30)")
			done <- err
		}()
		waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 1 })
		for {
			if err := a.PgConn().CancelRequest(ctx10(t)); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-done:
				if codeOf(err) != "57014" {
					t.Fatalf("got %v", err)
				}
			case <-time.After(200 * time.Millisecond):
				continue
			}
			break
		}
		if got := one(t, a, "1"); got != "1" {
			t.Fatal(got)
		}
	}
}

func waitFor(t testing.TB, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
		<-time.After(time.Millisecond)
	}
}

func TestLargeRow(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := f.connect("")
	var v string
	if err := a.QueryRow(ctx10(t), "SELECT repeat('x', 50000000)").Scan(&v); err != nil || len(v) != 50000000 {
		t.Fatalf("%d bytes, %v", len(v), err)
	}
	var n int
	if err := a.QueryRow(ctx10(t), "SELECT length($1::text)", v).Scan(&n); err != nil || n != 50000000 {
		t.Fatalf("%d, %v", n, err)
	}
	if got := one(t, a, "length('"+v[:5000000]+"')"); got != "5000000" {
		t.Fatal(got)
	}
}

func TestManyClientsOnFewServers(t *testing.T) {
	f := start(t, fixtureOptions{size: 3})
	var wg sync.WaitGroup
	for n := range 40 {
		wg.Go(func() {
			c, err := pgx.Connect(ctx10(t), f.dsn(""))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close(context.Background())
			for i := range 50 {
				var got int
				if err := c.QueryRow(ctx10(t), "SELECT $1::int * 1000 + $2::int", n, i).Scan(&got); err != nil || got != n*1000+i {
					t.Errorf("got %d, %v", got, err)
					return
				}
			}
		})
	}
	wg.Wait()
	waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 0 })
}

func TestSessionMode(t *testing.T) {
	f := start(t, fixtureOptions{size: 2, mode: proxy.ModeSession})
	a := f.connect("&default_query_exec_mode=simple_protocol")
	exec(t, a, "CREATE TEMP TABLE mine (x int)")
	exec(t, a, "SET work_mem = '5MB'")
	if got := one(t, a, "current_setting('work_mem')"); got != "5MB" {
		t.Error(got)
	}
	pid := one(t, a, "pg_backend_pid()")
	_ = a.Close(context.Background())
	waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 0 })
	b := f.connect("&default_query_exec_mode=simple_protocol")
	if got := one(t, b, "pg_backend_pid()"); got != pid {
		t.Errorf("the connection was not used again")
	}
	if got := one(t, b, "to_regclass('pg_temp.mine')"); got != "NULL" {
		t.Error("the temporary table leaked")
	}
}

func TestSequenceValuesAreTheSessionsOwn(t *testing.T) {
	for _, mode := range []string{"simple_protocol", "exec", "cache_statement"} {
		t.Run(mode, func(t *testing.T) {
			f := start(t, fixtureOptions{size: 1})
			a, b := f.connect("&default_query_exec_mode="+mode), f.connect("&default_query_exec_mode="+mode)
			exec(t, a, "CREATE SEQUENCE IF NOT EXISTS sq")
			exec(t, a, "CREATE TABLE IF NOT EXISTS st (id int DEFAULT nextval('sq'))")
			exec(t, a, "INSERT INTO st DEFAULT VALUES")
			var v int
			if err := b.QueryRow(ctx10(t), "SELECT lastval()").Scan(&v); codeOf(err) != "55000" {
				t.Errorf("another client reads lastval: %d, %v", v, err)
			}
			_ = b.Close(context.Background())
			tx, err := a.Begin(ctx10(t))
			if err != nil {
				t.Fatal(err)
			}
			if err := tx.QueryRow(ctx10(t), "SELECT currval('sq')").Scan(&v); codeOf(err) != "55000" {
				t.Errorf("after the connection served another client: %d, %v", v, err)
			}
			_ = tx.Rollback(ctx10(t))
			c := f.connect("&default_query_exec_mode=" + mode)
			_ = c
			exec(t, a, "INSERT INTO st DEFAULT VALUES")
			if err := a.QueryRow(ctx10(t), "SELECT currval('sq')").Scan(&v); err != nil || v != 2 {
				t.Errorf("currval after one's own INSERT: %d, %v", v, err)
			}
			if err := a.QueryRow(ctx10(t), "SELECT lastval()").Scan(&v); err != nil || v != 2 {
				t.Errorf("lastval after one's own INSERT: %d, %v", v, err)
			}
			exec(t, a, "DISCARD SEQUENCES")
			waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 0 })
		})
	}
}

// superuser is a client of the proxy that may set roles.
func (f *fixture) superuser() *pgx.Conn {
	f.t.Helper()
	c, err := pgx.Connect(ctx10(f.t), strings.Replace(f.dsn("&default_query_exec_mode=simple_protocol"), "app@", "postgres@", 1))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func TestRolesFollowAndDoNotLeak(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := f.superuser(), f.superuser()
	role := "r_" + one(t, a, "pg_backend_pid()")
	exec(t, a, "CREATE ROLE "+role)
	exec(t, a, "SET ROLE "+role)
	if got := one(t, b, "current_user"); got != "postgres" {
		t.Fatalf("the role leaked: %s", got)
	}
	if got := one(t, a, "current_user"); got != role {
		t.Fatalf("the role was lost: %s", got)
	}
	exec(t, a, "RESET SESSION AUTHORIZATION")
	one(t, b, "1")
	if got := one(t, a, "current_user"); got != "postgres" {
		t.Errorf("RESET SESSION AUTHORIZATION keeps the role %s", got)
	}
	exec(t, a, "SET ROLE "+role)
	exec(t, b, "DROP ROLE "+role)
	one(t, b, "1")
	if _, err := a.Exec(ctx10(t), "SELECT 1"); err == nil {
		t.Error("a statement ran although its role is gone")
	}
	exec(t, a, "RESET ROLE")
	if got := one(t, a, "current_user"); got != "postgres" {
		t.Error(got)
	}
}

func TestHalvesOfDateStyle(t *testing.T) {
	a, b := shaken(t)
	exec(t, a, "SET datestyle TO german")
	exec(t, a, "SET datestyle TO dmy")
	exec(t, b, "SET datestyle TO iso")
	if got := one(t, a, "current_setting('datestyle')"); got != "German, DMY" {
		t.Errorf("got %s", got)
	}
}

func TestTerminateBehindAStatement(t *testing.T) {
	f := start(t, fixtureOptions{size: 2})
	a, b := f.connect(""), f.connect("")
	exec(t, b, "CREATE TABLE fire (id int)")
	h, err := a.PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	h.Frontend.Send(&pgproto3.Query{String: "INSERT INTO fire SELECT 1 FROM pg_sleep(0.3)"})
	h.Frontend.Send(&pgproto3.Terminate{})
	if err := h.Frontend.Flush(); err != nil {
		t.Fatal(err)
	}
	_ = h.Conn.Close()
	waitFor(t, func() bool { return one(t, b, "(SELECT count(*) FROM fire)") == "1" })
}

func TestSettingsInAnotherEncoding(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	mode := "&default_query_exec_mode=simple_protocol"
	a, b := f.connect(mode), f.connect(mode+"&client_encoding=LATIN1")
	exec(t, a, "SET app.tenant = 'größe'")
	for range 3 {
		if _, err := b.Exec(ctx10(t), "SELECT 1"); err != nil {
			t.Fatal(err)
		}
		if got := one(t, a, "current_setting('app.tenant')"); got != "größe" {
			t.Errorf("got %q", got)
		}
	}
}

// A login is told the defaults that hold now, not those of the first login.
func TestChangedDefaultsAreTold(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := mustDial(t, f.addr, "app")
	a.do(t, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = %L', current_database(), 'Asia/Tokyo'); END $$")
	f.db.Shards[0].Pools.Retire(0)
	a.do(t, "SELECT 1") // opens a connection
	b := mustDial(t, f.addr, "app")
	if got := cutNUL(b.parameters["TimeZone"]); got != "Asia/Tokyo" {
		t.Errorf("the client was told %q", got)
	}
	b.mustAsk(t, "SHOW timezone", "Asia/Tokyo")
	a.mustAsk(t, "SHOW timezone", cutNUL(a.parameters["TimeZone"]))
}

// Settings that functions make are the session's, as those it makes itself.
func TestSettingsMadeInFunctions(t *testing.T) {
	cases := []struct{ name, setup, call, setting string }{
		{"constant name", "CREATE FUNCTION f1(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.tenant', $1, false); END $$",
			"SELECT f1('42')", "app.tenant"},
		{"new function", "SELECT 1", "CREATE FUNCTION f2(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.fresh', $1, false); END $$; SELECT f2('42')", "app.fresh"},
		{"made-up name", "CREATE FUNCTION f3(n text, v text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.' || n, v, false); END $$",
			"SELECT f3('third', '42')", "app.third"},
		{"DO", "SELECT 1", "DO $$ BEGIN PERFORM set_config('app.other', '42', false); END $$", "app.other"},
		{"DO, dynamic", "SELECT 1", "DO $$ BEGIN EXECUTE 'SET app.dyn = 42'; END $$", "app.dyn"},
		{"expression", "SELECT 1", "SELECT set_config('app.' || 'expr', '42', false)", "app.expr"},
		{"SQL body", "CREATE FUNCTION f4() RETURNS text BEGIN ATOMIC SELECT set_config('app.atomic', '42', false); END", "SELECT f4()", "app.atomic"},
		{"a setting of PostgreSQL's", "CREATE FUNCTION f5() RETURNS void LANGUAGE plpgsql AS $$ BEGIN SET cursor_tuple_fraction = 0.42; END $$", "SELECT f5()", "cursor_tuple_fraction"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, fixtureOptions{size: 2})
			setup := mustDial(t, f.addr, "app")
			setup.do(t, c.setup)
			setup.Close()
			f.learn()
			a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
			a.do(t, c.call)
			show := "SELECT current_setting('" + c.setting + "', true)"
			for range 3 {
				if got := b.ask(show); strings.Contains(got, "42") {
					t.Fatalf("another client has it: %s", got)
				}
				b.do(t, "SET work_mem = '3MB'")
				a.mustAsk(t, show, "42")
				a.do(t, "BEGIN")
				a.do(t, "SELECT 1")
				a.do(t, "COMMIT")
				a.mustAsk(t, show, "42")
			}
		})
	}
}

// A value is the same text whatever encoding it came in, and whatever it
// travels through: another client's connection, an audit.
func TestSettingsInEveryEncoding(t *testing.T) {
	for _, c := range []struct{ encoding, bytes, text string }{
		{"LATIN1", "Zo\xeb", "Zoë"},
		{"SJIS", "\x83\x5c\x83\x5c", "ソソ"}, // its second byte is a backslash
		{"GBK", "\xb2\xe2\x81\x5c", "测乗"},
		{"UTF8", "größe", "größe"},
	} {
		t.Run(c.encoding, func(t *testing.T) {
			f := start(t, fixtureOptions{size: 1})
			for _, how := range []string{"start", "SET"} {
				params := []string{"client_encoding", c.encoding}
				if how == "start" {
					params = append(params, "app.name", c.bytes)
				}
				a, err := dialRaw(f.addr, "postgres", "app", params...)
				if err != nil {
					t.Fatal(err)
				}
				b := mustDial(t, f.addr, "app")
				if how == "SET" {
					a.do(t, "SET app.name = '"+c.bytes+"'")
				}
				own := fmt.Sprintf("%q", c.bytes)
				own = own[1 : len(own)-1]
				for _, between := range []string{"SELECT 1", "DO $$ BEGIN END $$", "SET app.name = 'b'"} {
					b.do(t, between)
					a.mustAsk(t, "SELECT current_setting('app.name')", own+`"`)
					a.do(t, "DO $$ BEGIN END $$")
					a.mustAsk(t, "SELECT current_setting('app.name')", own+`"`)
				}
				a.mustAsk(t, fmt.Sprintf("SELECT 'same' WHERE convert_to(current_setting('app.name'), 'UTF8') = '\\x%x'", c.text), "same")
				a.Close()
			}
		})
	}
}

func TestNotificationsReachTheListener(t *testing.T) {
	t.Run("plain", func(t *testing.T) { notifications(t, start(t, fixtureOptions{size: 3})) })
	t.Run("TLS", func(t *testing.T) {
		c := pgtest.Start(t, pgtest.Options{TLS: true})
		notifications(t, start(t, fixtureOptions{size: 3, nodes: []string{c.Primary().Addr()}, tls: "require"}))
	})
}

func notifications(t *testing.T, f *fixture) {
	a, b := f.connect(""), f.connect("")
	exec(t, a, "LISTEN news")
	for i := range 5 {
		exec(t, b, fmt.Sprintf("NOTIFY news, 'n%d'", i))
		n, err := a.WaitForNotification(ctx10(t))
		if err != nil || n.Payload != fmt.Sprintf("n%d", i) {
			t.Fatalf("%d: %v %v", i, n, err)
		}
		if i%2 == 1 {
			one(t, a, "1")
		}
	}
}

func TestDeallocateOfAProtocolStatement(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := f.connect(""), f.connect("")
	for range 3 {
		if _, err := a.Prepare(ctx10(t), "mine", "SELECT 1"); err != nil {
			t.Fatal(err)
		}
		exec(t, b, "SELECT 1")
		if _, err := a.Exec(ctx10(t), "DEALLOCATE mine", pgx.QueryExecModeExec); err != nil {
			t.Fatal(err)
		}
		if _, err := a.PgConn().Prepare(ctx10(t), "mine", "SELECT 2", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := a.PgConn().Exec(ctx10(t), "DEALLOCATE mine").ReadAll(); err != nil {
			t.Fatal(err)
		}
		if err := a.DeallocateAll(ctx10(t)); err != nil {
			t.Fatal(err)
		}
	}
}

package faultproxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
	"shardproxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a database and a proxy before it.
type fixture struct {
	*faultproxy.Proxy
	t   *testing.T
	db  *pgtest.Database
	dsn string
}

func start(t *testing.T) *fixture {
	t.Helper()
	db := pgtest.Shared(t)
	p := faultproxy.Start(t, faultproxy.Options{Target: db.Node.Addr()})
	return &fixture{Proxy: p, t: t, db: db, dsn: strings.Replace(db.DSN("postgres"), db.Node.Addr(), p.Addr(), 1)}
}

// connect connects through the proxy in the simple protocol.
func (f *fixture) connect() *pgx.Conn {
	f.t.Helper()
	return pgtest.Connect(f.t, f.dsn+"&default_query_exec_mode=simple_protocol")
}

func code(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestRelayAndCount(t *testing.T) {
	f := start(t)
	conn := f.connect()
	// Far more than what rules keep of a body.
	var n int
	if err := conn.QueryRow(soon(t), "SELECT length($1::text)", strings.Repeat("x", 3<<20)).Scan(&n); err != nil || n != 3<<20 {
		t.Errorf("length = %d, %v", n, err)
	}
	var s string
	if err := conn.QueryRow(soon(t), "SELECT repeat('y', 3000000)").Scan(&s); err != nil || len(s) != 3000000 {
		t.Errorf("got %d bytes, %v", len(s), err)
	}
	if q, z := f.Count(faultproxy.FromClient, 'Q'), f.Count(faultproxy.FromServer, 'Z'); q != 2 || z != 3 {
		t.Errorf("counted %d queries and %d times ready, want 2 and 3", q, z)
	}
	if n := f.Count(faultproxy.FromClient, faultproxy.Startup); n != 1 {
		t.Errorf("counted %d startups, want 1", n)
	}
	if f.Accepted() != 1 || f.OpenConns() != 1 {
		t.Errorf("%d accepted, %d open, want 1 and 1", f.Accepted(), f.OpenConns())
	}
}

func TestTLS(t *testing.T) {
	c := pgtest.Start(t, pgtest.Options{TLS: true})
	for _, refuse := range []bool{false, true} {
		p := faultproxy.Start(t, faultproxy.Options{Target: c.Primary().Addr(), RefuseTLS: refuse})
		dsn := strings.Replace(c.Primary().DSN("app", "app"), c.Primary().Addr(), p.Addr(), 1)
		dsn = strings.Replace(dsn, "verify-full", "prefer", 1)
		conn := pgtest.Connect(t, dsn)
		var encrypted bool
		if err := conn.QueryRow(soon(t), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&encrypted); err != nil {
			t.Fatal(err)
		}
		if encrypted == refuse {
			t.Errorf("with RefuseTLS %v encryption is %v", refuse, encrypted)
		}
		if n := p.Count(faultproxy.FromClient, faultproxy.SSLRequest); n != 1 {
			t.Errorf("counted %d SSLRequests, want 1", n)
		}
		if seen := p.Count(faultproxy.FromClient, 'E') > 0; seen != refuse {
			t.Errorf("with RefuseTLS %v messages seen: %v", refuse, seen)
		}
	}
}

// socketError runs a statement and returns what the socket said when it broke.
// pgconn's own result reader forgets that and says "conn closed".
func socketError(conn *pgx.Conn, sql string) error {
	frontend := conn.PgConn().Frontend()
	frontend.SendQuery(&pgproto3.Query{String: sql})
	if err := frontend.Flush(); err != nil {
		return err
	}
	for {
		message, err := frontend.Receive()
		if err != nil {
			return err
		}
		if _, ok := message.(*pgproto3.ReadyForQuery); ok {
			return nil
		}
	}
}

func TestKillAndClose(t *testing.T) {
	f := start(t)
	f.db.Exec("CREATE TABLE t (a int)")
	for _, test := range []struct {
		name string
		rule faultproxy.Rule
		want error
		rows string // of the INSERT in question
	}{
		{"kill before the server hears", faultproxy.Rule{Kind: 'Q', Do: faultproxy.Kill()}, syscall.ECONNRESET, "0"},
		{"close before the server hears", faultproxy.Rule{Kind: 'Q', Do: faultproxy.CloseConn()}, io.ErrUnexpectedEOF, "0"},
		{"kill before the client hears", faultproxy.Rule{From: faultproxy.FromServer, Kind: 'C', Do: faultproxy.Kill()}, syscall.ECONNRESET, "1"},
		{"close before the client hears", faultproxy.Rule{From: faultproxy.FromServer, Kind: 'C', Do: faultproxy.CloseConn()}, io.ErrUnexpectedEOF, "1"},
		{"cut in the answer", faultproxy.Rule{From: faultproxy.FromServer, Kind: 'C', Do: faultproxy.Truncate(7)}, io.ErrUnexpectedEOF, "1"},
		{"cut in the query", faultproxy.Rule{Kind: 'Q', Do: faultproxy.Truncate(7)}, io.ErrUnexpectedEOF, "0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f.db.Exec("TRUNCATE t")
			conn := f.connect()
			trigger := f.On(test.rule)
			defer trigger.Remove()
			err := socketError(conn, "INSERT INTO t VALUES (1)")
			if !errors.Is(err, test.want) {
				t.Errorf("error %v, want %v", err, test.want)
			}
			<-trigger.Fired()
			if got := f.db.Value("SELECT count(*) FROM t"); got != test.rows {
				t.Errorf("%s rows, want %s", got, test.rows)
			}
		})
	}
}

func TestHold(t *testing.T) {
	f := start(t)
	conn := f.connect()
	trigger := f.On(faultproxy.Rule{From: faultproxy.FromServer, Kind: 'Z', Nth: 2, Do: faultproxy.Hold()})
	if _, err := conn.Exec(soon(t), "SELECT 1"); err != nil { // the first Z
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		_, err := conn.Exec(soon(t), "SELECT 2")
		answer <- err
	}()
	<-trigger.Fired()
	select {
	case err := <-answer:
		t.Fatalf("answered (%v) while its message was held", err)
	case <-time.After(50 * time.Millisecond):
	}
	trigger.Release()
	trigger.Release()
	if err := <-answer; err != nil {
		t.Error(err)
	}
	if n := trigger.Matches(); n != 2 {
		t.Errorf("%d matches, want 2", n)
	}
}

func TestDropAndCall(t *testing.T) {
	f := start(t)
	config, err := pgx.ParseConfig(f.dsn + "&default_query_exec_mode=simple_protocol")
	if err != nil {
		t.Fatal(err)
	}
	var notices []string
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Message) }
	conn, err := pgx.ConnectConfig(soon(t), config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(soon(t))
	called := 0
	f.On(faultproxy.Rule{From: faultproxy.FromServer, Kind: 'N', Text: "two", Do: faultproxy.Drop()})
	f.On(faultproxy.Rule{Kind: 'Q', After: true, Every: true, Do: faultproxy.Call(func() { called++ })})
	if _, err := conn.Exec(soon(t), "DO $$ BEGIN RAISE NOTICE 'one'; RAISE NOTICE 'two'; RAISE NOTICE 'three'; END $$"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(soon(t), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(notices, []string{"one", "three"}) {
		t.Errorf("notices %q, want one and three", notices)
	}
	if called < 1 { // the second call may still be under way
		t.Errorf("called %d times", called)
	}
}

func TestNthAndConn(t *testing.T) {
	f := start(t)
	first, second := f.connect(), f.connect()
	f.On(faultproxy.Rule{Kind: 'Q', Conn: 2, Nth: 2, Every: true, Do: faultproxy.Answer(wire.Errorf("XX001", "made up"))})
	var codes []string
	for range 3 {
		_, err := first.Exec(soon(t), "SELECT 1")
		codes = append(codes, code(err))
		_, err = second.Exec(soon(t), "SELECT 2")
		codes = append(codes, code(err))
	}
	if want := []string{"", "", "", "XX001", "", "XX001"}; !slices.Equal(codes, want) {
		t.Errorf("codes %q, want %q", codes, want)
	}
}

func TestModes(t *testing.T) {
	f := start(t)
	before := f.connect()
	dial := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		conn, err := pgx.Connect(ctx, f.dsn)
		if err == nil {
			conn.Close(ctx)
		}
		return err
	}
	mode := func(m faultproxy.Mode) {
		t.Helper()
		if err := f.SetMode(m); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		mode(faultproxy.Refuse)
		if err := dial(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("refuse: %v", err)
		}
		mode(faultproxy.Hang)
		accepted := f.Accepted()
		if err := dial(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("hang: %v", err)
		}
		if f.Accepted() == accepted {
			t.Error("hang: nothing was accepted")
		}
		mode(faultproxy.Blackhole)
		if c, err := net.DialTimeout("tcp", f.Addr(), 300*time.Millisecond); err == nil {
			c.Close()
			t.Error("blackhole: connected")
		} else if ne := net.Error(nil); !errors.As(err, &ne) || !ne.Timeout() {
			t.Errorf("blackhole: %v", err)
		}
		mode(faultproxy.Normal)
		if _, err := before.Exec(soon(t), "SELECT 1"); err != nil {
			t.Errorf("a connection from before: %v", err)
		}
		after := f.connect()
		if _, err := after.Exec(soon(t), "SELECT 1"); err != nil {
			t.Errorf("normal: %v", err)
		}
	}
}

func TestStall(t *testing.T) {
	f := start(t)
	conn := f.connect()
	f.Stall()
	f.Stall()
	answer := make(chan error, 1)
	go func() {
		_, err := conn.Exec(soon(t), "SELECT 1")
		answer <- err
	}()
	if err := f.WaitCount(soon(t), faultproxy.FromClient, 'Q', 1); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-answer:
		t.Fatalf("answered (%v) while stalled", err)
	case <-time.After(50 * time.Millisecond):
	}
	f.Unstall()
	f.Unstall()
	if err := <-answer; err != nil {
		t.Error(err)
	}
}

func TestKillAllAndTarget(t *testing.T) {
	f := start(t)
	conn := f.connect()
	if n := f.KillAll(); n != 1 {
		t.Errorf("%d killed, want 1", n)
	}
	if _, err := conn.Exec(soon(t), "SELECT 1"); err == nil {
		t.Error("a killed connection works")
	}
	other := pgtest.Start(t, pgtest.Options{})
	f.SetTarget(other.Primary().Addr())
	conn = pgtest.Connect(t, strings.Replace(other.Primary().DSN("app", "app"), other.Primary().Addr(), f.Addr(), 1))
	var port string
	if err := conn.QueryRow(soon(t), "SHOW port").Scan(&port); err != nil || !strings.HasSuffix(other.Primary().Addr(), port) {
		t.Errorf("connected to port %s, %v", port, err)
	}
	f.SetTarget("127.0.0.1:1")
	if _, err := pgx.Connect(soon(t), f.dsn); err == nil {
		t.Error("connected to nothing")
	}
}

func TestCancelRequest(t *testing.T) {
	f := start(t)
	conn := f.connect()
	answer := make(chan error, 1)
	go func() {
		_, err := conn.Exec(soon(t), "SELECT pg_sleep(60)")
		answer <- err
	}()
	if err := f.WaitCount(soon(t), faultproxy.FromClient, 'Q', 1); err != nil {
		t.Fatal(err)
	}
	// A cancel that comes before the statement has begun does nothing.
	for f.db.Value("SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'") != "1" {
	}
	if err := conn.PgConn().CancelRequest(soon(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; code(err) != "57014" {
		t.Errorf("error %v, want 57014", err)
	}
	if n := f.Count(faultproxy.FromClient, faultproxy.CancelRequest); n != 1 {
		t.Errorf("counted %d cancel requests, want 1", n)
	}
}

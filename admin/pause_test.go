package admin

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/auth"
	"shardproxy/proxy"
	"shardproxy/wire"
)

// hold makes Pause of the databases wait until the returned channels are closed.
func (w *world) hold(names ...string) []chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []chan struct{}
	for _, n := range names {
		ch := make(chan struct{})
		w.release[n] = ch
		all = append(all, ch)
	}
	return all
}

// pausing sends PAUSE on a session of its own and returns when it waits.
func pausing(t *testing.T, s *site, ctx context.Context, sql string, databases int) (*pgx.Conn, <-chan error) {
	t.Helper()
	c := connect(t, s, "admin", pgx.QueryExecModeSimpleProtocol)
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(ctx, sql)
		done <- err
	}()
	for range databases {
		<-s.world.paused
	}
	select {
	case err := <-done:
		t.Fatalf("PAUSE did not wait: %v", err)
	default:
	}
	return c, done
}

func code(err error) string {
	if pe := new(pgconn.PgError); errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

func TestPauseWaitsForServers(t *testing.T) {
	s := newSite(t)
	held := s.world.hold("shop", "My-Db.2")
	_, done := pausing(t, s, t.Context(), "PAUSE", 2)
	close(held[0])
	select {
	case err := <-done:
		t.Fatalf("PAUSE of all did not wait for the second database: %v", err)
	case <-time.After(20 * time.Millisecond): // it can only be too early
	}
	close(held[1])
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if !s.world.isPaused("shop") || !s.world.isPaused("My-Db.2") {
		t.Error("not paused")
	}
}

func TestTwoPC(t *testing.T) {
	s := newSite(t)
	c := connect(t, s, "admin", pgx.QueryExecModeSimpleProtocol)
	if _, err := c.Exec(t.Context(), "TWOPC ROLLBACK 'a:1'"); code(err) != "55000" {
		t.Error(err)
	}
	for _, sql := range []string{"TWOPC ROLLBACK 'a:1' FORCE", "twopc commit 'b:2' force;"} {
		if _, err := c.Exec(t.Context(), sql); err != nil {
			t.Error(sql, err)
		}
	}
	for _, sql := range []string{"TWOPC", "TWOPC COMMIT", "TWOPC COMMIT a", "TWOPC END 'a'", "TWOPC COMMIT 'a' PLEASE"} {
		if _, err := c.Exec(t.Context(), sql); code(err) != "42601" {
			t.Error(sql, err)
		}
	}
	if got := s.world.orders(); got != "admin ends a:1 false false, admin ends a:1 false true, admin ends b:2 true true" {
		t.Error(got)
	}
}

func TestPauseEndedByResume(t *testing.T) {
	s := newSite(t)
	s.world.hold("shop")
	_, done := pausing(t, s, t.Context(), "PAUSE shop", 1)
	other := connect(t, s, "admin", pgx.QueryExecModeCacheStatement)
	if _, err := other.Exec(t.Context(), "RESUME shop"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; code(err) != "57014" || !strings.Contains(err.Error(), "resumed") {
		t.Errorf("PAUSE ended with %v", err)
	}
	if s.world.isPaused("shop") {
		t.Error("still paused")
	}
}

// TestPauseCancelled: a cancel request ends PAUSE and undoes it, but not what
// was paused before; the session goes on.
func TestPauseCancelled(t *testing.T) {
	s := newSite(t)
	if err := s.world.setPaused("My-Db.2", true); err != nil {
		t.Fatal(err)
	}
	s.world.hold("shop", "My-Db.2")
	c, done := pausing(t, s, t.Context(), "PAUSE", 2)
	if s.Cancel(wire.CancelKey{PID: c.PgConn().PID(), Secret: "guess"}) {
		t.Error("a cancel request with the wrong secret was taken")
	}
	if err := c.PgConn().CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; code(err) != "57014" {
		t.Errorf("PAUSE ended with %v", err)
	}
	if s.world.isPaused("shop") || !s.world.isPaused("My-Db.2") {
		t.Error("PAUSE was undone wrongly")
	}
	if err := c.PgConn().CancelRequest(t.Context()); err != nil { // nothing runs: no effect
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "SHOW STATE"); err != nil {
		t.Error("the session does not go on:", err)
	}
}

// TestPauseOfAClientThatGoes: nobody would ever know that it is in force.
func TestPauseOfAClientThatGoes(t *testing.T) {
	for name, goodbye := range map[string]bool{"lost": false, "terminated": true} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.world.hold("shop")
			resumed := s.world.resumes // closed by the first Resume
			r := login(t, s, "admin")
			// Pipelined, so that something is buffered behind the command.
			r.Send(parseOf("", "PAUSE shop"))
			r.Send(bindOf("", ""))
			r.Send(&pgproto3.Execute{})
			r.Send(&pgproto3.Sync{})
			if err := r.Flush(); err != nil {
				t.Fatal(err)
			}
			<-s.world.paused
			if goodbye {
				r.Send(&pgproto3.Terminate{})
				_ = r.Flush()
				if got := r.answers(9); !strings.Contains(got, "ERROR:57014") {
					t.Error(got)
				}
			} else {
				_ = r.conn.Close()
			}
			select {
			case <-resumed:
			case <-time.After(10 * time.Second):
				t.Fatal("the pause of a client that has gone stays")
			}
			if s.world.isPaused("shop") {
				t.Error("still paused")
			}
		})
	}
}

// TestShutdown: the answer comes before the order, which may close the connection.
func TestShutdown(t *testing.T) {
	s := newSite(t)
	for sql, want := range map[string]proxy.ShutdownMode{
		"SHUTDOWN": proxy.ShutdownNow, "shutdown wait_for_servers;": proxy.WaitForServers, "SHUTDOWN WAIT_FOR_CLIENTS": proxy.WaitForClients,
	} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
			c := connect(t, s, "admin", mode)
			tag, err := c.Exec(t.Context(), sql)
			if err != nil || tag.String() != "SHUTDOWN" {
				t.Errorf("%s: %q, %v", sql, tag, err)
			}
			if got := <-s.world.shut; got != want {
				t.Errorf("%s: mode %d", sql, got)
			}
		}
	}
}

// TestProxyEnds: when the proxy's context ends, sessions end with 57P01, also
// those that wait.
func TestProxyEnds(t *testing.T) {
	s := newSite(t)
	ctx, stop := context.WithCancel(t.Context())
	client, server := streamPair(t)
	ended := make(chan error, 1)
	go func() {
		ended <- s.Serve(ctx, server, auth.Identity{User: "admin", Admin: true}, &wire.Startup{Protocol: wire.Protocol30})
	}()
	r := &raw{t, client, pgproto3.NewFrontend(client, client)}
	r.answers(1)
	s.world.hold("shop")
	r.Send(q("PAUSE shop"))
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	<-s.world.paused
	stop()
	if err := <-ended; err != nil {
		t.Errorf("an error the client was told of already: %v", err)
	}
	_ = server.Close()
	if got := r.answers(9); got != "ERROR:57014 Z:I FATAL:57P01 end" {
		t.Error(got)
	}
	if n := len(s.clients()); n != 0 {
		t.Errorf("%d sessions left", n)
	}
}

// TestConsoleInShowClients: the sessions of the console are shown beside the clients.
func TestConsoleInShowClients(t *testing.T) {
	s := newSite(t)
	c := connect(t, s, "ops", pgx.QueryExecModeCacheStatement)
	rows, err := c.Query(t.Context(), "SHOW CLIENTS")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for rows.Next() {
		v, err := rows.Values()
		if err != nil {
			t.Fatal(err)
		}
		if v[2] == "shardproxy" {
			found = v[1] == "ops" && v[18] == "a test" && v[5] == "127.0.0.1" && strings.HasPrefix(v[14].(string), "console")
		}
	}
	if rows.Err() != nil || !found {
		t.Errorf("the console's own session is not shown: %v", rows.Err())
	}
}

// TestDatabaseGoes: a database that a reload takes away between listing and
// ordering is an error when it was named, and nothing when all were meant.
func TestDatabaseGoes(t *testing.T) {
	s := newSite(t)
	s.world.mu.Lock()
	s.world.databases = append(s.world.databases, Database{Name: "gone"})
	s.world.mu.Unlock()
	c := connect(t, s, "admin", pgx.QueryExecModeCacheStatement)
	if _, err := c.Exec(t.Context(), "RECONNECT gone"); code(err) != "3D000" {
		t.Error(err)
	}
	if _, err := c.Exec(t.Context(), "RECONNECT"); err != nil {
		t.Error(err)
	}
}

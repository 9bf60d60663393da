package proxy_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
	"shardproxy/proxy"
	"shardproxy/wire"
)

// A session that keeps a connection to a replica goes on there.
func TestKeptOnAReplica(t *testing.T) {
	f := start(t, fixtureOptions{replicas: 1})
	for _, sql := range []string{"PREPARE p AS SELECT 1", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "SELECT pg_advisory_lock(1)"} {
		c := mustDial(t, f.addr, "app")
		c.do(t, "BEGIN READ ONLY")
		c.ask(sql)
		c.ask("COMMIT")
		c.mustAsk(t, "SELECT 'alive'", "alive")
		c.Close()
	}
}

type noPrimary struct{ fixedNodes }

func (noPrimary) Primary() (int, bool) { return 0, false }

func TestSessionModeNeverOnAReplica(t *testing.T) {
	f := start(t, fixtureOptions{replicas: 1, mode: proxy.ModeSession})
	f.db.Shards[0].Nodes = noPrimary{fixedNodes{1}}
	f.db.Shards[0].Gate.Close("none")
	got := make(chan string, 1)
	go func() {
		c, err := dialRaw(f.addr, "postgres", "app")
		if err != nil {
			got <- err.Error()
			return
		}
		defer c.Close()
		got <- c.ask("SELECT pg_is_in_recovery()")
	}()
	waitFor(t, func() bool { return f.db.Shards[0].Gate.Stats().HeldNow > 0 })
	f.db.Shards[0].Nodes = fixedNodes{1}
	f.db.Shards[0].Gate.Open()
	if s := <-got; !strings.Contains(s, `\x01f`) {
		t.Error(s)
	}
}

func TestLargeStatements(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	big := "SELECT 'n' || length('" + strings.Repeat("x", 600000) + "')"
	a := mustDial(t, f.addr, "app")
	a.mustSay(t, 1, "n600000", segment("BEGIN", big, "COMMIT")...)
}

func TestServerLostWhileSettingsAreApplied(t *testing.T) {
	c := pgtest.Start(t, pgtest.Options{})
	fp := faultproxy.Start(t, faultproxy.Options{Target: c.Primary().Addr()})
	f := start(t, fixtureOptions{size: 3, nodes: []string{fp.Addr()}})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	b.do(t, "CREATE ROLE r8")
	b.do(t, "BEGIN")
	a.do(t, "SET ROLE r8")
	b.do(t, "COMMIT")
	fp.On(faultproxy.Rule{From: faultproxy.FromServer, Kind: 'Z', Do: faultproxy.Kill()})
	a.mustAsk(t, "SELECT current_user", "r8")
	a.mustAsk(t, "SELECT current_user", "r8")
}

// A piece of a frame keeps no drain, no cancel request and no timeout from its work.
func TestPieceOfAFrame(t *testing.T) {
	t.Run("cancel", func(t *testing.T) {
		f := start(t, fixtureOptions{size: 1})
		c := mustDial(t, f.addr, "app")
		all := fQuery("SELECT 'alive'").bytes()
		if _, err := c.Write(all[:7]); err != nil {
			t.Fatal(err)
		}
		// Twice: by the second, which waits for its turn, the first has been seen.
		cancelRaw(t, f.addr, c)
		cancelRaw(t, f.addr, c)
		if _, err := c.Write(all[7:]); err != nil {
			t.Fatal(err)
		}
		c.mustSay(t, 1, "alive")
	})
	t.Run("drain", func(t *testing.T) {
		f := start(t, fixtureOptions{size: 1})
		c := mustDial(t, f.addr, "app")
		if _, err := c.Write([]byte("Q")); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
		defer cancel()
		f.srv.Shutdown(ctx, proxy.WaitForServers)
		if ctx.Err() != nil {
			t.Error("the drain waited for the rest of the frame")
		}
	})
	t.Run("timeout", func(t *testing.T) {
		f := start(t, fixtureOptions{size: 1, user: func(u *proxy.UserPolicy) { u.Timeouts.ClientIdle = 300 * time.Millisecond }})
		c := mustDial(t, f.addr, "app")
		if _, err := c.Write([]byte("Q")); err != nil {
			t.Fatal(err)
		}
		if got := c.say(1); !contains(got, "57P05") {
			t.Error(got)
		}
	})
}

// cancelRaw sends a cancel request and waits until it was dealt with.
func cancelRaw(t *testing.T, addr string, c *rawClient) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write(wire.AppendCancelRequest(nil, wire.CancelKey{PID: c.pid, Secret: string(c.key)})); err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	_, _ = nc.Read(b[:]) // it is closed in the end
}

// A server that went read-only while a long text, which nobody kept, was on its
// way says so.
func TestReadOnlyServerAndLongText(t *testing.T) {
	f := start(t, fixtureOptions{size: 2, policy: func(p *proxy.DatabasePolicy) { p.ParsedMax = 4096 }})
	su := mustDial(t, f.addr, "app")
	su.do(t, "CREATE TABLE w10 (i int, t text)")
	su.do(t, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$")
	f.db.Shards[0].Pools.Retire(0)
	b := mustDial(t, f.addr, "app")
	b.mustAsk(t, "INSERT INTO w10 VALUES (1, '"+strings.Repeat("x", 8000)+"')", "25006")
	// What failed may have left a lock behind; its connection is not lent as it is.
	b.mustAsk(t, "DO $$ BEGIN PERFORM pg_advisory_lock(77); INSERT INTO w10 VALUES (1); END $$", "25006")
	b.Close()
	c := mustDial(t, f.addr, "app")
	waitFor(t, func() bool {
		return strings.Contains(c.ask("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77"), `\x010`)
	})
}

// A frame that breaks off a copy comes in pieces: the server waits for the rest of it.
func TestBreachOfACopyInPieces(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := mustDial(t, f.addr, "app")
	a.do(t, "CREATE TEMP TABLE broken_off (v text)")
	a.Write(fQuery("COPY broken_off FROM STDIN").bytes())
	if _, err := a.until(wire.MsgCopyInResponse, 1); err != nil {
		t.Fatal(err)
	}
	p := fParse("s1", "SELECT 1").bytes()
	a.Write(p[:7])
	<-time.After(300 * time.Millisecond) // the session has looked at the piece, and waits
	a.Write(p[7:])
	if got, err := a.until('E', 1); err != nil || wire.Field(got, 'C') != "08P01" {
		t.Errorf("%q, %v", got, err)
	}
}

// Named statements behind DDL in one request, as drivers send a text of several
// commands: each waits for what is ahead of it, again and again.
func TestNamedStatementsBehindDDL(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := mustDial(t, f.addr, "app")
	var all []frame
	for i, sql := range []string{"DROP TABLE IF EXISTS ahead", "CREATE TABLE ahead (id int)", "INSERT INTO ahead VALUES (7)", "ALTER TABLE ahead ADD v text", "SELECT * FROM ahead"} {
		name := "S_" + string(rune('1'+i))
		all = append(all, fParse(name, sql), fBind("", name), fDescribe('P', ""), fExecute("", 0))
	}
	a.mustSay(t, 1, "SELECT 1", append(all, fSync())...)
	a.mustAsk(t, "SELECT id FROM ahead", "7")
}

// A client that never stops asking is ended by a shutdown all the same.
func TestDrainOfABusyClient(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := mustDial(t, f.addr, "app")
	go f.srv.Shutdown(ctx10(t), proxy.WaitForServers)
	waitFor(t, f.srv.Draining)
	for end := time.Now().Add(5 * time.Second); ; {
		// Several at once, so that the next is always there.
		got := a.say(1, fQuery("SELECT set_config('a.' || 'b', 'c', false)"), fQuery("SELECT 1"), fQuery("SELECT 1"))
		if contains(got, "57P01") {
			return
		}
		if time.Now().After(end) {
			t.Fatal("it is still served")
		}
	}
}

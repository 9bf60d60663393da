package proxy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
	"shardproxy/proxy"
	"shardproxy/wire"
)

// behindFaults is a proxy whose only node is reached through a fault proxy.
func behindFaults(t *testing.T) (*fixture, *faultproxy.Proxy) {
	c := pgtest.Start(t, pgtest.Options{})
	c.Primary().Exec("app", "CREATE TABLE lost (id int); GRANT ALL ON lost TO app")
	fp := faultproxy.Start(t, faultproxy.Options{Target: c.Primary().Addr()})
	return start(t, fixtureOptions{size: 3, nodes: []string{fp.Addr()}}), fp
}

func TestLostInTransaction(t *testing.T) {
	for _, mode := range []string{"simple_protocol", "exec", "cache_statement"} {
		t.Run(mode, func(t *testing.T) {
			f, fp := behindFaults(t)
			a := f.connect("&default_query_exec_mode=" + mode)
			exec(t, a, "BEGIN")
			exec(t, a, "INSERT INTO lost VALUES (1)")
			fp.KillAll()
			waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 0 })
			_, err := a.Exec(ctx10(t), "INSERT INTO lost VALUES (2)")
			if codeOf(err) != "08006" {
				t.Fatalf("first statement after the loss: %v", err)
			}
			// The client's transaction must not turn into single statements.
			if _, err := a.Exec(ctx10(t), "INSERT INTO lost VALUES (3)"); codeOf(err) != "25P02" {
				t.Fatalf("second statement after the loss: %v", err)
			}
			if s := a.PgConn().TxStatus(); s != 'E' {
				t.Errorf("transaction status %c", s)
			}
			exec(t, a, "ROLLBACK")
			if s := a.PgConn().TxStatus(); s != 'I' {
				t.Errorf("transaction status %c", s)
			}
			if got := one(t, a, "(SELECT count(*) FROM lost)"); got != "0" {
				t.Errorf("%s rows", got)
			}
		})
	}
}

// TestLostAndPrepared ends transactions whose server is gone as drivers do that prepare all they run, by a name.
func TestLostAndPrepared(t *testing.T) {
	f, fp := behindFaults(t)
	c := mustDial(t, f.addr, "app")
	runs := []frame{fBind("", "r"), fExecute("", 0), fSync()}
	for _, test := range []struct {
		frames      []frame
		syncs       int
		kinds, want string // of the answers, and what is in them
	}{
		{append([]frame{fParse("r", "ROLLBACK"), fDescribe('S', "r"), fSync()}, runs...), 2, "1tnZ2CZ", "ROLLBACK"},
		{runs, 1, "2CZ", "ROLLBACK"},
		{[]frame{fParse("r", "ROLLBACK"), fSync(), fQuery("ROLLBACK")}, 2, "EZCZ", "42P05"},
		{append([]frame{fClose('S', "r"), fParse("r", "COMMIT")}, runs...), 1, "312CZ", "ROLLBACK"},
		{[]frame{fParse("s", "SELECT 1"), fSync(), fQuery("ROLLBACK")}, 2, "EZCZ", "25P02"},
	} {
		c.mustSay(t, 2, "INSERT 0 1", fQuery("BEGIN"), fQuery("INSERT INTO lost VALUES (1)"))
		fp.KillAll()
		waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 0 })
		c.mustSay(t, 1, "08006", fQuery("SELECT 1"))
		lines, kinds := c.say(test.syncs, test.frames...), ""
		for _, line := range lines {
			kinds += line[:1]
		}
		if kinds != test.kinds || !contains(lines, test.want) || lines[len(lines)-1] != `Z "I"` {
			t.Errorf("%v: %q, want %s with %s", test.frames, lines, test.kinds, test.want)
		}
	}
}

func TestLostDuringStatement(t *testing.T) {
	const ok = ""
	cases := []struct {
		name, sql  string
		inTx       bool
		rule       faultproxy.Rule
		code       string
		afterwards byte
	}{
		{"reply of COMMIT", "COMMIT", true, faultproxy.Rule{From: faultproxy.FromServer, Kind: 'C', Text: "COMMIT"}, "08007", 'I'},
		{"reply of an autocommit write", "INSERT INTO lost VALUES (9)", false, faultproxy.Rule{From: faultproxy.FromServer, Kind: 'C', Text: "INSERT"}, "08007", 'I'},
		{"write in a transaction", "INSERT INTO lost VALUES (9)", true, faultproxy.Rule{From: faultproxy.FromServer, Kind: 'C', Text: "INSERT"}, "08006", 'E'},
		{"read before its answer", "SELECT count(*) FROM lost", false, faultproxy.Rule{From: faultproxy.FromServer, Kind: 'T'}, ok, 'I'},
		{"read in the middle of its answer", "SELECT repeat('x', 1000) FROM generate_series(1, 5000)", false, faultproxy.Rule{From: faultproxy.FromServer, Kind: 'D', Nth: 4000}, "08006", 'I'},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f, fp := behindFaults(t)
			a := f.connect("&default_query_exec_mode=simple_protocol")
			if c.inTx {
				exec(t, a, "BEGIN")
				exec(t, a, "INSERT INTO lost VALUES (1)")
			}
			if c.rule.Do = faultproxy.Kill(); c.rule.Kind == 'D' {
				c.rule.Do = faultproxy.CloseConn() // a reset may cut a row that the client has a part of: that ends its session
			}
			fp.On(c.rule)
			_, err := a.Exec(ctx10(t), c.sql)
			if got := codeOf(err); c.code == ok && err != nil || c.code != ok && got != c.code {
				t.Fatalf("got %v, want %q", err, c.code)
			}
			if s := a.PgConn().TxStatus(); s != c.afterwards {
				t.Errorf("transaction status %c, want %c", s, c.afterwards)
			}
			if c.afterwards == 'E' {
				exec(t, a, "ROLLBACK")
			}
			if got := one(t, a, "1"); got != "1" {
				t.Error(got)
			}
		})
	}
}

func TestPipelineOnLostServer(t *testing.T) {
	f, fp := behindFaults(t)
	c, err := pgx.Connect(ctx10(t), f.dsn(""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	fp.On(faultproxy.Rule{From: faultproxy.FromServer, Kind: 'C', Text: "INSERT", Nth: 3, Do: faultproxy.Kill()})
	p := c.PgConn().StartPipeline(ctx10(t))
	for i := range 10 {
		p.SendQueryParams("INSERT INTO lost VALUES ($1::int)", [][]byte{[]byte(fmt.Sprint(i))}, nil, nil, nil)
		if err := p.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	codes := map[string]int{}
	for {
		res, err := p.GetResults()
		if res == nil && err == nil {
			break
		}
		if err != nil {
			codes[codeOf(err)]++
			if len(codes) > 3 || codes[codeOf(err)] > 20 {
				break
			}
		}
	}
	if err := p.Close(); err != nil && codeOf(err) != "08007" {
		t.Logf("close: %v", err)
	}
	if codes["08007"] == 0 || len(codes) != 1 {
		t.Errorf("got %v", codes)
	}
	if got := one(t, c, "1"); got != "1" {
		t.Error(got)
	}
}

// A server that has gone is heard out, also when its end is found by a write.
func TestLastWordOfServer(t *testing.T) {
	for _, driver := range []proxy.Driver{proxy.DriverGoroutine, proxy.DriverLoop} {
		d := fakeDriven(t, pgtest.Shared(t), driver)
		for range 20 {
			d.fake.say(speech{})
			c := d.dial(t)
			if err := c.login("postgres", "app"); err != nil {
				t.Fatal(err)
			}
			c.ask("BEGIN")
			c.ask("SELECT 1")
			why := wire.Fatal("57P01", "the word of its end")
			d.fake.end(why.Append(nil))
			if got := c.ask("SELECT 2"); !strings.Contains(got, "the word of its end") {
				t.Errorf("%v: %q", driver, got)
			}
			c.Close()
		}
	}
}

// TestLostState has servers end right behind a statement that leaves something in its session: before anything has asked what that is, the client is told
// that it is gone.
func TestLostState(t *testing.T) {
	c := pgtest.Start(t, pgtest.Options{})
	fp := faultproxy.Start(t, faultproxy.Options{Target: c.Primary().Addr()})
	for _, driver := range []proxy.Driver{proxy.DriverLoop, proxy.DriverGoroutine} {
		f := start(t, fixtureOptions{size: 1, nodes: []string{fp.Addr()}, driver: driver})
		for leaves, tag := range map[string]string{"CREATE TEMP TABLE mine (v int)": "CREATE TABLE", "SELECT pg_advisory_lock(7)": "SELECT 1", "LISTEN mine": "LISTEN"} {
			for _, before := range []string{"", "BEGIN; "} {
				for range 5 {
					a := f.connect("&default_query_exec_mode=simple_protocol")
					end := fp.On(faultproxy.Rule{From: faultproxy.FromServer, Kind: wire.MsgCommandComplete, Text: tag, Do: faultproxy.Call(func() {
						c.Primary().Exec("app", "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app'")
					})})
					exec(t, a, before+leaves)
					end.Remove()
					_, err := a.Exec(ctx10(t), "SELECT 1")
					if before != "" && codeOf(err) != "" && (strings.HasPrefix(leaves, "CREATE") || strings.HasPrefix(leaves, "LISTEN")) {
						continue // it is rolled back
					}
					if !a.IsClosed() {
						t.Errorf("%s%s: the session goes on: %v", before, leaves, err)
					}
				}
			}
		}
	}
}

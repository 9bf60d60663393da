package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/proxy"
)

// limits has the server bound its users, from now on.
func (f *fixture) limits(r *proxy.Rates) {
	none := func(string) proxy.Rate { return proxy.Rate{} }
	if r != nil && r.User == nil {
		r.User = none
	}
	if r != nil && r.Database == nil {
		r.Database = none
	}
	f.srv.Configure(&proxy.Settings{
		StartupMax: 10000, LoginTimeout: 10 * time.Second, Databases: map[string]*proxy.Database{"app": f.db},
		Policy: func(string, string) proxy.UserPolicy { return *f.pol }, Rates: r,
	})
}

func (f *fixture) limited(kind, by string) (waited, refused int64) {
	for _, l := range f.srv.Limited() {
		if l.Kind == kind && l.By == by {
			return l.Waited, l.Refused
		}
	}
	f.t.Fatal("not counted:", kind, by)
	return 0, 0
}

func hasState(err error, state string) bool {
	pe := new(pgconn.PgError)
	return errors.As(err, &pe) && pe.Code == state
}

// TestStatementRate: statements of all ways go on at the rate, of all sessions together, also when the limit comes
// while they are there; a burst goes at once; and who would wait for too long is refused and can try again.
func TestStatementRate(t *testing.T) {
	for _, driver := range []proxy.Driver{proxy.DriverAuto, proxy.DriverGoroutine} {
		f := start(t, fixtureOptions{driver: driver})
		all := []*pgx.Conn{f.connect(""), f.connect(""), f.connect("")}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		f.limits(&proxy.Rates{User: func(string) proxy.Rate { return proxy.Rate{Statements: 50, StatementBurst: 10} }, Wait: 10 * time.Second})
		began := time.Now()
		var each sync.WaitGroup
		for i, c := range all {
			each.Go(func() {
				for j := range 10 {
					var err error
					switch (i + j) % 3 {
					case 0:
						_, err = c.Exec(ctx, "SELECT 1", pgx.QueryExecModeSimpleProtocol)
					case 1:
						_, err = c.Exec(ctx, "SELECT $1::int", 7)
					case 2:
						b := &pgx.Batch{}
						b.Queue("SELECT 2")
						b.Queue("SELECT 3")
						err = c.SendBatch(ctx, b).Close()
					}
					if err != nil {
						t.Errorf("driver %v: %v", driver, err)
					}
				}
			})
		}
		each.Wait()
		// 40 statements, 10 of them at once, 50 a second.
		if took := time.Since(began); took < 550*time.Millisecond || took > 8*time.Second {
			t.Errorf("driver %v: took %v", driver, took)
		}
		if waited, refused := f.limited("statements", "user"); waited < 10 || refused != 0 {
			t.Errorf("driver %v: %d waited, %d refused", driver, waited, refused)
		}
		cancel()
		f.limits(&proxy.Rates{Database: func(string) proxy.Rate { return proxy.Rate{Statements: 2, StatementBurst: 1} }, Wait: 0})
		c := all[0]
		if _, err := c.Exec(ctx10(t), "SELECT 1"); err != nil {
			t.Error(err)
		}
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			_, err := c.Exec(ctx10(t), "SELECT 1", mode)
			if !hasState(err, "53400") || !strings.Contains(err.(*pgconn.PgError).Hint, "Try again in ") || c.PgConn().TxStatus() != 'I' {
				t.Errorf("driver %v, %v: %v", driver, mode, err)
			}
		}
		waitFor(t, func() bool { _, err := c.Exec(ctx10(t), "SELECT 1"); return err == nil })
		f.limits(nil)
		for range 20 {
			if _, err := c.Exec(ctx10(t), "SELECT 1"); err != nil {
				t.Fatal("without a limit:", err)
			}
		}
	}
}

// TestRateOfPipeline: requests behind one another are refused in their order, with the answers to those before.
func TestRateOfPipeline(t *testing.T) {
	f := start(t, fixtureOptions{})
	f.limits(&proxy.Rates{User: func(string) proxy.Rate { return proxy.Rate{Statements: 1, StatementBurst: 3} }})
	c := f.connect("")
	p := c.PgConn().StartPipeline(ctx10(t))
	for i := range 5 {
		p.SendQueryParams(fmt.Sprintf("SELECT %d", i), nil, nil, nil, nil)
		if err := p.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for range 10 {
		res, err := p.GetResults()
		switch r := res.(type) {
		case *pgconn.ResultReader:
			one := r.Read()
			got = append(got, string(one.Rows[0][0]))
		case *pgconn.PipelineSync:
		default:
			if !hasState(err, "53400") {
				t.Fatal(res, err)
			}
			got = append(got, "refused")
		}
	}
	if err := p.Close(); err != nil || strings.Join(got, " ") != "0 1 2 refused refused" {
		t.Error(got, err)
	}
}

// TestRateInTransaction: a transaction that has begun does not wait; what it ran is waited for behind it.
func TestRateInTransaction(t *testing.T) {
	f := start(t, fixtureOptions{})
	f.limits(&proxy.Rates{User: func(string) proxy.Rate { return proxy.Rate{Statements: 4, StatementBurst: 1} }, Wait: 10 * time.Second})
	c := f.connect("")
	run := func(sql string) {
		if _, err := c.Exec(ctx10(t), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(sql, err)
		}
	}
	began := time.Now()
	run("BEGIN")
	for range 8 {
		run("SELECT 1")
	}
	run("COMMIT")
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Error("the transaction took", took)
	}
	run("SELECT 1")
	if took := time.Since(began); took < 1800*time.Millisecond {
		t.Error("what it ran was not paid for:", took)
	}
}

// TestRateWaitEnds: who waits for its turn holds no server connection, can cancel, be ended, and ends when the proxy drains.
func TestRateWaitEnds(t *testing.T) {
	for _, driver := range []proxy.Driver{proxy.DriverAuto, proxy.DriverGoroutine} {
		f := start(t, fixtureOptions{driver: driver, size: 1})
		// slow returns a client whose next statement waits for ten seconds by a limit that nobody has used.
		slow := func(by string) (*pgx.Conn, chan error) {
			one := proxy.Rate{Statements: 1, StatementBurst: 3}
			r := &proxy.Rates{Wait: time.Hour, MaxAddresses: 1}
			switch by {
			case "database":
				r.Database = func(string) proxy.Rate { return one }
			case "user":
				r.User = func(string) proxy.Rate { return one }
			default:
				r.Address = one
			}
			f.limits(r)
			c := f.connect("")
			for _, sql := range append(append([]string{"BEGIN"}, slices.Repeat([]string{"SELECT 1"}, 10)...), "COMMIT") {
				if _, err := c.Exec(ctx10(t), sql, pgx.QueryExecModeSimpleProtocol); err != nil {
					t.Fatal(err)
				}
			}
			done := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				defer cancel()
				_, err := c.Exec(ctx, "SELECT 1")
				done <- err
			}()
			waitFor(t, func() bool { now, _ := f.limited("statements", by); return now > 0 })
			return c, done
		}
		c, done := slow("database")
		if err := c.PgConn().CancelRequest(ctx10(t)); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !hasState(err, "57014") {
			t.Errorf("driver %v: cancelled: %v", driver, err)
		}
		f.limits(nil)
		if _, err := c.Exec(ctx10(t), "SELECT 1"); err != nil {
			t.Error("behind a cancel:", err)
		}
		c, done = slow("user")
		f.srv.KillClient(idOf(f, c))
		if err := <-done; !hasState(err, "57P01") {
			t.Errorf("driver %v: killed: %v", driver, err)
		}
		_, done = slow("address")
		began := time.Now()
		go f.srv.Shutdown(context.Background(), proxy.WaitForServers)
		if err := <-done; !hasState(err, "57P01") || time.Since(began) > 5*time.Second {
			t.Errorf("driver %v: drained: %v after %v", driver, err, time.Since(began))
		}
	}
}

func idOf(f *fixture, c *pgx.Conn) uint64 {
	for _, s := range f.srv.Sessions() {
		if s.PID == c.PgConn().PID() {
			return s.ID
		}
	}
	f.t.Fatal("no such session")
	return 0
}

// TestByteRate: large answers, and large requests, pass at the rate, whole; others are not held up.
func TestByteRate(t *testing.T) {
	for _, driver := range []proxy.Driver{proxy.DriverAuto, proxy.DriverGoroutine} {
		f := start(t, fixtureOptions{driver: driver})
		f.limits(&proxy.Rates{User: func(string) proxy.Rate { return proxy.Rate{Bytes: 4 << 20, BytesBurst: 64 << 10} }})
		c := f.connect("")
		began := time.Now()
		var n int
		rows, err := c.Query(ctx10(t), "SELECT repeat('x', 1000) FROM generate_series(1, 2000)")
		for ; err == nil && rows.Next(); n++ {
		}
		if err != nil || rows.Err() != nil || n != 2000 {
			t.Fatal(n, err, rows.Err())
		}
		if took := time.Since(began); took < 300*time.Millisecond || took > 8*time.Second {
			t.Errorf("driver %v: 2 MB took %v", driver, took)
		}
		began = time.Now()
		var length int
		if err := c.QueryRow(ctx10(t), "SELECT length($1::text)", strings.Repeat("y", 2_000_000)).Scan(&length); err != nil || length != 2_000_000 {
			t.Fatal(length, err)
		}
		if _, err := c.Exec(ctx10(t), "SELECT 1"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 300*time.Millisecond || took > 8*time.Second {
			t.Errorf("driver %v: 2 MB to the server took %v", driver, took)
		}
		if waited, _ := f.limited("bytes", "user"); waited == 0 {
			t.Error("not counted")
		}
	}
}

// TestByteRateHangUp: a client that goes while its bytes wait for their turn is not waited for, whatever it owes, and takes
// no CPU meanwhile.
func TestByteRateHangUp(t *testing.T) {
	for _, driver := range []proxy.Driver{proxy.DriverAuto, proxy.DriverGoroutine} {
		for _, reset := range []bool{false, true} {
			f := start(t, fixtureOptions{driver: driver})
			f.limits(&proxy.Rates{User: func(string) proxy.Rate { return proxy.Rate{Bytes: 1, BytesBurst: 16 << 10} }})
			c := f.connect("")
			if _, err := c.Exec(ctx10(t), "BEGIN", pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatal(err)
			}
			fe := c.PgConn().Frontend()
			fe.Send(&pgproto3.Query{String: "SELECT repeat('x', 1000) FROM generate_series(1, 1000)"})
			if err := fe.Flush(); err != nil {
				t.Fatal(err)
			}
			for waited := int64(0); waited == 0; waited, _ = f.limited("bytes", "user") {
			}
			nc := c.PgConn().Conn()
			if tcp, ok := nc.(*net.TCPConn); ok && reset {
				_ = tcp.SetLinger(0)
			}
			_ = nc.Close()
			before := cpuTime(t)
			began := time.Now()
			for len(f.srv.Sessions()) > 0 {
				if time.Since(began) > 10*time.Second {
					t.Fatalf("driver %v, reset %v: the session of a client that has gone is still there", driver, reset)
				}
				<-time.After(10 * time.Millisecond)
			}
			if used := cpuTime(t) - before; used > 500*time.Millisecond {
				t.Errorf("driver %v, reset %v: %v of CPU to end it", driver, reset, used)
			}
		}
	}
}

// cpuTime is what the process has used.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestByteRateOfNow: a session pays for what passes while the limit stands, not for what has passed before that was set,
// and not once more whenever the settings are read again.
func TestByteRateOfNow(t *testing.T) {
	for _, driver := range []proxy.Driver{proxy.DriverAuto, proxy.DriverGoroutine} {
		f := start(t, fixtureOptions{driver: driver})
		c := f.connect("")
		run := func(what, sql string, most time.Duration) {
			began := time.Now()
			if _, err := c.Exec(ctx10(t), sql, pgx.QueryExecModeSimpleProtocol); err != nil || time.Since(began) > most {
				t.Fatalf("driver %v, %s: %v after %v", driver, what, err, time.Since(began))
			}
		}
		run("without a limit", "SELECT repeat('x', 1000) FROM generate_series(1, 8000)", 9*time.Second)
		rate := func() {
			f.limits(&proxy.Rates{User: func(string) proxy.Rate { return proxy.Rate{Bytes: 1 << 20, BytesBurst: 1 << 20} }})
		}
		rate()
		run("a limit comes", "SELECT 1", 2*time.Second)
		run("a limit comes", "SELECT 1", 2*time.Second)
		for range 5 {
			run("while it stands", "SELECT repeat('x', 1000) FROM generate_series(1, 500)", 3*time.Second)
			rate()
			run("it is read again", "SELECT 1", 2*time.Second)
		}
		if _, err := c.Exec(ctx10(t), "SELECT repeat('x', 1000) FROM generate_series(1, 3000)", pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		run("it holds", "SELECT repeat('x', 1000) FROM generate_series(1, 1500)", 9*time.Second)
		if took := time.Since(began); took < 500*time.Millisecond {
			t.Errorf("driver %v: 1.5 MB behind a burst took %v", driver, took)
		}
	}
}

// TestLoginRate: logins wait for their turn within the bound, and are refused beyond it.
func TestLoginRate(t *testing.T) {
	f := start(t, fixtureOptions{})
	f.limits(&proxy.Rates{Address: proxy.Rate{Logins: 2, LoginBurst: 2}, MaxAddresses: 10, Wait: 1500 * time.Millisecond})
	began := time.Now()
	for range 4 {
		f.connect("")
	}
	if took := time.Since(began); took < 800*time.Millisecond {
		t.Error("four logins took", took)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	got := map[string]int{}
	for range 20 {
		all.Go(func() {
			c, err := pgx.Connect(ctx10(t), f.dsn(""))
			state := ""
			if pe := new(pgconn.PgError); errors.As(err, &pe) {
				state = pe.Code + " " + pe.Severity + " " + fmt.Sprint(strings.Contains(pe.Hint, "Try again in "))
			} else if err != nil {
				state = err.Error()
			} else {
				_ = c.Close(ctx10(t))
			}
			mu.Lock()
			got[state]++
			mu.Unlock()
		})
	}
	all.Wait()
	if got[""] < 2 || got[""] > 15 || got[""]+got["53400 FATAL true"] != 20 {
		t.Error(got)
	}
	if waited, refused := f.limited("logins", "address"); waited < 2 || refused != int64(got["53400 FATAL true"]) {
		t.Error(waited, refused)
	}
}

// TestRateBeforeExecute: a request waits, or is refused, before any of it is let go, also when its Execute comes later,
// behind a Flush or behind much else; and what it pays for is what it executes.
func TestRateBeforeExecute(t *testing.T) {
	for _, driver := range []proxy.Driver{proxy.DriverAuto, proxy.DriverGoroutine} {
		f := start(t, fixtureOptions{driver: driver})
		c := mustDial(t, f.addr, "app")
		one := proxy.Rate{Statements: 1, StatementBurst: 1}
		oneOf := func(string) proxy.Rate { return one }
		for i, front := range [][]frame{{fParse("", "SELECT 'flushed'"), fBind("", ""), fFlush()}, {fParse("", "SELECT 'long', $1::text"), fBind("", "", strings.Repeat("x", 100_000))}} {
			f.limits(&[]proxy.Rates{{User: oneOf}, {Database: oneOf}}[i])
			c.do(t, "SELECT 'pays'")
			for _, f := range front {
				if _, err := c.Write(f.bytes()); err != nil {
					t.Fatal(err)
				}
			}
			if kind, body, err := c.receive(5 * time.Second); err != nil || kind != 'E' || !strings.Contains(string(body), "C53400") {
				t.Errorf("driver %v, %d: %c %.100q %v", driver, i, kind, body, err)
			}
			if lines := c.say(1, fExecute("", 0), fSync()); len(lines) != 1 {
				t.Errorf("driver %v, %d: behind the refusal: %q", driver, i, lines)
			}
		}
		f.limits(&proxy.Rates{Address: one, MaxAddresses: 1, Wait: 10 * time.Second})
		began := time.Now()
		for range 2 {
			c.say(0, fParse("", "SELECT 1"), fDescribe('S', ""), fFlush())
			for range 3 { // ParseComplete, ParameterDescription, RowDescription
				if _, _, err := c.receive(8 * time.Second); err != nil {
					t.Fatal(err)
				}
			}
			c.mustSay(t, 1, "SELECT 1", fBind("", ""), fExecute("", 0), fSync())
		}
		c.mustSay(t, 1, "SELECT 1", segment("SELECT 1")...)
		if took := time.Since(began); took < 1500*time.Millisecond || took > 3500*time.Millisecond {
			t.Errorf("driver %v: three statements took %v", driver, took)
		}
	}
}

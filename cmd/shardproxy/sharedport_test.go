package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/wire"
)

// sharedText is a configuration whose port other processes may listen on too.
var sharedText = strings.NewReplacer(`address: "%LISTEN%"`, `address: "%LISTEN%", reuse_port: true, unix_socket_directory: "%DIR%"`).
	Replace(processText)

// beside starts another process of the same configuration, and returns when it listens.
func (ps *process) beside(text string) *process {
	ps.t.Helper()
	path := ps.path
	if text != "" {
		path = filepath.Join(ps.t.TempDir(), "shardproxy.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			ps.t.Fatal(err)
		}
	}
	next := &process{
		t: ps.t, path: path, log: filepath.Join(ps.t.TempDir(), "log"), ended: make(chan struct{}),
		addr: ps.addr, admin: ps.admin, server: ps.server, database: ps.database,
	}
	next.cmd = command(ps.t, "run", "--config", path)
	next.start()
	next.logged("msg=listening")
	return next
}

// pair starts two processes that share a port for good, with admin addresses of their own.
func pair(t *testing.T) [2]*process {
	t.Helper()
	a := startProcess(t, sharedText)
	admin := freeAddr(t)
	b := a.beside(strings.Replace(a.text(), a.admin, admin, 1))
	b.admin = admin
	return [2]*process{a, b}
}

// sample returns the value of a metric of the process.
func (ps *process) sample(name string) (v float64) {
	ps.t.Helper()
	req, err := http.NewRequestWithContext(within(ps.t, 10*time.Second), http.MethodGet, "http://"+ps.admin+"/metrics", nil)
	if err != nil {
		ps.t.Fatal(err)
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		ps.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		ps.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, name+" "); found {
			if v, err = strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
				return v
			}
		}
	}
	ps.t.Fatalf("no %s", name)
	return 0
}

// TestSharedPortCancels: two processes share a port, and cancel requests that reach
// either of them cancel the statement that they are for, and no other.
func TestSharedPortCancels(t *testing.T) {
	t.Parallel()
	both := pair(t)
	const sessions, rounds = 20, 20
	conns := make([]*pgx.Conn, sessions)
	for i := range conns {
		q := ""
		if i%2 == 1 {
			q = "&max_protocol_version=3.2" // keys of 32 bytes
		}
		conns[i] = (&proxied{t: t}).connectTo(both[0].dsn() + q)
	}
	cancelled, untouched := 0, 0
	for round := range rounds {
		// Half of the sessions are cancelled; the others must not be.
		ended := make(chan error, sessions)
		var begun sync.WaitGroup
		for i, c := range conns {
			begun.Add(1)
			go func() {
				hit := i%2 == 0 == (round%2 == 0)
				// What is not cancelled ends by itself, after all that are.
				sql := "SELECT pg_sleep(60)"
				if !hit {
					sql = "SELECT pg_sleep(1)"
				}
				begun.Done()
				_, err := c.Exec(within(t, 30*time.Second), sql)
				if want := map[bool]string{true: "57014", false: ""}[hit]; sqlState(err) != want || hit != (err != nil) {
					ended <- fmt.Errorf("session %d, to be cancelled %v: %w", i, hit, err)
					return
				}
				ended <- nil
			}()
		}
		begun.Wait()
		eventually(t, "all run", func() bool {
			return both[0].direct("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'SELECT pg_sleep%' AND state = 'active'") == fmt.Sprint(sessions)
		})
		for i, c := range conns {
			if i%2 == 0 == (round%2 == 0) {
				if err := c.PgConn().CancelRequest(within(t, 10*time.Second)); err != nil && !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				cancelled++
			} else {
				untouched++
			}
		}
		for range conns {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	var own, passed, received float64
	for _, ps := range both {
		own += ps.sample(`shardproxy_cancel_requests_total{session="own"}`)
		passed += ps.sample(`shardproxy_cancel_requests_total{session="peer"}`)
		received += ps.sample(`shardproxy_peer_cancels_received_total`)
		if n := ps.sample(`shardproxy_cancel_requests_total{session="unknown"}`); n != 0 {
			t.Errorf("%v cancel requests for nobody", n)
		}
		if rows := ps.sample("shardproxy_peers"); rows != 1 {
			t.Errorf("%v peers", rows)
		}
	}
	t.Logf("%d cancelled, %d not; %v came to the right process, %v to the other", cancelled, untouched, own, passed)
	if own+passed != float64(cancelled) || passed != received || passed == 0 || own == 0 {
		t.Errorf("%d requests: %v own, %v passed on, %v received", cancelled, own, passed, received)
	}
}

// TestSharedPortCancelShards: a cancel request that reaches the other process ends a
// statement on one shard, one over both, and one of a transaction over both.
func TestSharedPortCancelShards(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	for _, cl := range s.shards {
		cl.Primary().Exec("app", "CREATE FUNCTION nap(bigint) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(30); RETURN true; END'")
	}
	dir := filepath.Join(t.TempDir(), "peers")
	var two [2]*proxied
	for i := range two {
		// The addresses differ, so that it is known which one is reached.
		two[i] = &proxied{t: t, addr: freeAddr(t), path: filepath.Join(t.TempDir(), "shardproxy.yaml")}
		text, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		two[i].write(strings.NewReplacer(`address: "`+s.addr+`"`, fmt.Sprintf("address: %q, peer_directory: %q", two[i].addr, dir),
			s.p.http.Addr().String(), freeAddr(t)).Replace(string(text)))
		two[i].run()
	}
	c := two[0].connect()
	for k := range 20 { // on both shards
		must(t, c, "INSERT INTO customers VALUES ($1, 'x')", k)
	}
	for _, sql := range []string{
		"SELECT pg_sleep(30) FROM customers WHERE id = 7",
		"SELECT id, pg_sleep(30) FROM customers",
		"SELECT id, pg_sleep(30) FROM customers ORDER BY id",
		"UPDATE customers SET name = name WHERE nap(id)",
	} {
		for _, begin := range []string{"", "BEGIN"} {
			if begin != "" {
				must(t, c, begin)
				must(t, c, "UPDATE customers SET name = 'y'")
			}
			ended := make(chan error, 1)
			go func() {
				_, err := c.Exec(within(t, 25*time.Second), sql)
				ended <- err
			}()
			eventually(t, "it runs: "+sql, func() bool {
				if len(ended) > 0 {
					t.Fatalf("%s: %v", sql, <-ended)
				}
				n := 0
				for _, cl := range s.shards {
					if cl.Primary().Value("app", "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") != "0" {
						n++
					}
				}
				return n > 0
			})
			cancelBy(t, two[1].addr, c.PgConn().PID(), c.PgConn().SecretKey())
			if err := <-ended; sqlState(err) != "57014" {
				t.Errorf("%s %s: %v", begin, sql, err)
			}
			if begin != "" {
				must(t, c, "ROLLBACK")
			}
		}
	}
	if n := two[1].p.server.Totals().Cancels; n.Passed != 8 || n.Unknown != 0 {
		t.Errorf("%+v", n)
	}
}

// cancelBy sends a cancel request to an address and expects silence in return.
func cancelBy(t *testing.T, addr string, pid uint32, secret []byte) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write(wire.AppendCancelRequest(nil, wire.CancelKey{PID: pid, Secret: string(secret)})); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(nc); len(b) > 0 || err != nil {
		t.Errorf("a cancel request is answered: %q, %v", b, err)
	}
}

// TestSharedPortUnknown: keys that no process has are met with silence and end
// nothing. The console lists the other process, and its sessions are cancelled too.
func TestSharedPortUnknown(t *testing.T) {
	t.Parallel()
	both := pair(t)
	c := both[0].connect()
	ended := make(chan error, 1)
	go func() {
		_, err := c.Exec(within(t, 30*time.Second), "SELECT pg_sleep(3)")
		ended <- err
	}()
	pid, secret := c.PgConn().PID(), c.PgConn().SecretKey()
	wrong := []byte(string(secret))
	wrong[3]++
	for _, k := range [][]byte{wrong, append([]byte(string(secret)), 0), make([]byte, 4), make([]byte, 256)} {
		for range 3 {
			cancelBy(t, both[0].addr, pid, k)
		}
	}
	cancelBy(t, both[0].addr, pid+1000, secret)
	if err := <-ended; err != nil {
		t.Errorf("it was not for this: %v", err)
	}
	unknown := 0.0
	for _, ps := range both {
		unknown += ps.sample(`shardproxy_cancel_requests_total{session="unknown"}`)
	}
	if unknown != 13 {
		t.Errorf("%v of 13 were for nobody", unknown)
	}
	rows := both[0].console("SHOW PEERS")
	if len(rows) != 1 || rows[0][0] != strconv.Itoa(both[0].cmd.Process.Pid) && rows[0][0] != strconv.Itoa(both[1].cmd.Process.Pid) {
		t.Errorf("SHOW PEERS: %v", rows)
	}
	// One that died leaves its socket, and the next look finds it dead.
	both[1].signal(syscall.SIGKILL)
	<-both[1].ended
	cancelBy(t, both[0].addr, pid+1000, secret)
	if rows := both[0].console("SHOW PEERS"); len(rows) != 0 {
		t.Errorf("SHOW PEERS: %v", rows)
	}
}

// TestSharedPortAdmin: the next process has the admin address as soon as the one before drains, however long that takes.
func TestSharedPortAdmin(t *testing.T) {
	t.Parallel()
	a := startProcess(t, sharedText)
	c := a.connect()
	must(t, c, "BEGIN")
	b := a.beside("")
	if code := a.get("/readyz"); code != http.StatusOK {
		t.Errorf("the old one is not ready: %d", code)
	}
	a.signal(syscall.SIGINT)
	b.logged("the admin address is taken over")
	if code := b.get("/readyz"); code != http.StatusOK {
		t.Errorf("the new one is not ready: %d", code)
	}
	if n := b.sample("shardproxy_draining"); n != 0 {
		t.Error("it is the old one that answers")
	}
	a.logged("shutting down")
	eventually(t, "the old one listens no more", func() bool {
		before := b.sample("shardproxy_client_logins_total")
		for range 10 {
			must(t, b.connect(), "SELECT 1")
		}
		return b.sample("shardproxy_client_logins_total") == before+10
	})
	// What drains is cancelled through the next one.
	ended := make(chan error, 1)
	go func() {
		_, err := c.Exec(within(t, 25*time.Second), "SELECT pg_sleep(20)")
		ended <- err
	}()
	eventually(t, "it runs", func() bool {
		return a.direct("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()") == "1"
	})
	cancelBy(t, b.addr, c.PgConn().PID(), c.PgConn().SecretKey())
	if err := <-ended; sqlState(err) != "57014" {
		t.Errorf("the statement: %v", err)
	}
	if n := b.sample(`shardproxy_cancel_requests_total{session="peer"}`); n != 1 {
		t.Errorf("%v cancel requests were passed on", n)
	}
	a.runsStill()
	must(t, c, "ROLLBACK")
	a.endsWithin(10 * time.Second)
}

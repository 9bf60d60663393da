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
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
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

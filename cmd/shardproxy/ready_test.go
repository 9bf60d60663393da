package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
)

// TestReady asks a proxy through its life: before it listens, while it serves,
// without a primary, while it ends, and when it is gone.
func TestReady(t *testing.T) {
	t.Parallel()
	cl := pgtest.Start(t, pgtest.Options{})
	cl.Primary().Exec("postgres", "CREATE DATABASE ready")
	ps := newProcess(t, "ready", []string{cl.Primary().Addr()}, processText)
	says := func(code int, out, reason string, args ...string) {
		t.Helper()
		o := call(t, "", append([]string{"ready"}, args...)...)
		if o.code != code || o.out != out || !strings.Contains(o.err, reason) || (o.err == "") != (reason == "") {
			t.Errorf("%q: %+v, want exit code %d and %q", args, o, code, reason)
		}
	}
	says(1, "", "connection refused", "-c", ps.path)
	says(1, "", "no such file", "-c", ps.path+".none")

	ps.start()
	ps.logged("msg=listening")
	eventually(t, "the primary is known", func() bool { return ps.get("/readyz") == 200 })
	says(0, "ready\n", "", "-c", ps.path)
	says(0, "ready\n", "", "--address", ps.admin)
	// An address for all interfaces is asked on the loopback one.
	for _, host := range []string{"", "0.0.0.0", "*"} {
		says(0, "ready\n", "", "--address", net.JoinHostPort(host, portOf(t, ps.admin)))
	}
	// The client port speaks another protocol.
	says(1, "", ps.addr, "--address", ps.addr, "--timeout", "1s")

	cl.Primary().Pause()
	eventually(t, "the primary is missed", func() bool { return ps.get("/readyz") == 503 })
	says(1, "", "not ready: primaries: 0 of 1 shards have a primary", "-c", ps.path)
	cl.Primary().Resume()
	eventually(t, "the primary is found again", func() bool { return ps.get("/readyz") == 200 })

	c := ps.connect() // keeps the shutdown waiting
	ps.signal(syscall.SIGTERM)
	ps.logged("shutting down")
	eventually(t, "the shutdown is told", func() bool { return ps.get("/readyz") == 503 })
	says(1, "", "draining: a shutdown has begun", "-c", ps.path)
	_ = c.Close(within(t, 10*time.Second))
	ps.endsWithin(10 * time.Second)
	says(1, "", "connection refused", "-c", ps.path)
}

// TestReadyRefuses has addresses that cannot be asked, servers that are not the
// proxy, and one that never answers.
func TestReadyRefuses(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "welcome")
	}))
	defer other.Close()
	moved := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusFound))
	defer moved.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	write := func(admin string) string {
		path := filepath.Join(t.TempDir(), "c.yaml")
		text := "admin: {address: \"" + admin + "\"}\nusers: [{name: a, password: b}]\ndatabases: {d: {shards: [{name: s, nodes: [\"h:1\"]}]}}\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		reason string
		args   []string
	}{
		{"not shardproxy", []string{"--address", other.Listener.Addr().String()}},
		{"302", []string{"--address", moved.Listener.Addr().String()}},
		{"no answer in time", []string{"--address", silent.Addr().String(), "--timeout", "200ms"}},
		{"missing port", []string{"--address", "localhost"}},
		{"missing port", []string{"--address", ""}},
		{"port 0", []string{"-c", write("127.0.0.1:0")}},
		{"no admin.address", []string{"-c", write("")}},
		{"--timeout", []string{"--address", "127.0.0.1:1", "--timeout", "0"}},
		{"unknown command", []string{"more"}},
	} {
		began := time.Now()
		o := call(t, "", append([]string{"ready"}, c.args...)...)
		if o.code != 1 || o.out != "" || !strings.Contains(o.err, c.reason) {
			t.Errorf("%q: %+v, want %q", c.args, o, c.reason)
		}
		if time.Since(began) > 20*time.Second {
			t.Errorf("%q took %v", c.args, time.Since(began))
		}
	}
}

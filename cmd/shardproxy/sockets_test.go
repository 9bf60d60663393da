package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"shardproxy/internal/pgcluster"
)

// dsnOfSocket is the DSN for the Unix-domain socket of a port in a folder.
func dsnOfSocket(dir, port string) string {
	q := url.Values{"host": {dir}, "port": {port}, "user": {"app"}, "password": {pgcluster.AppPassword}}
	return "postgres:///app?" + q.Encode()
}

// TestUnixSocket listens in a folder beside TCP, and takes the place of a
// socket whose owner has died but not of one that is served.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	text := strings.Replace(processText, `address: "%LISTEN%"`, `address: "%LISTEN%", unix_socket_directory: "%DIR%", unix_socket_mode: "0700"`, 1)
	ps := startProcess(t, text)
	dir := filepath.Dir(ps.path)
	port := portOf(t, ps.addr)
	path := filepath.Join(dir, ".s.PGSQL."+port)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o700 {
		t.Errorf("mode %v", info.Mode())
	}
	c := (&proxied{t: t}).connectTo(dsnOfSocket(dir, port))
	must(t, c, "SELECT 1")
	must(t, ps.connect(), "SELECT 1")
	var seen bool
	for _, row := range ps.console("SHOW CLIENTS") {
		seen = seen || row[5] == "unix"
	}
	if !seen {
		t.Error("SHOW CLIENTS shows no client on the socket")
	}

	// Another one must not take the socket away: its TCP address is free.
	second := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(second, []byte(strings.NewReplacer(ps.addr, "127.0.0.2:"+port, ps.admin, freeAddr(t)).Replace(ps.text())), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := call(t, "", "run", "-c", second); o.code != 1 || !strings.Contains(o.err, path+": another server is listening") {
		t.Errorf("a socket that is served: %+v", o)
	}
	must(t, (&proxied{t: t}).connectTo(dsnOfSocket(dir, port)), "SELECT 1")

	ps.signal(syscall.SIGKILL)
	<-ps.ended
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("what a dead process leaves is not there: %v", err)
	}
	next := &process{t: t, path: ps.path, log: ps.log + "2", ended: make(chan struct{}), addr: ps.addr, admin: ps.admin, server: ps.server, database: ps.database}
	next.cmd = command(t, "run", "--config", ps.path)
	next.start()
	next.logged("msg=listening address=" + path)
	must(t, (&proxied{t: t}).connectTo(dsnOfSocket(dir, port)), "SELECT 1")
	next.signal(syscall.SIGINT)
	next.endsWithin(10 * time.Second)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// TestOnlyUnixSocket has no TCP address; the port in the name is then 6432.
func TestOnlyUnixSocket(t *testing.T) {
	t.Parallel()
	ps := startProcess(t, strings.Replace(processText, `address: "%LISTEN%"`, `address: [], unix_socket_directory: "%DIR%"`, 1))
	dir := filepath.Dir(ps.path)
	must(t, (&proxied{t: t}).connectTo(dsnOfSocket(dir, "6432")), "SELECT 1")
	info, err := os.Stat(filepath.Join(dir, ".s.PGSQL.6432"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o777 {
		t.Errorf("mode %v", info.Mode())
	}
	if n := len(lines(ps.printed(), "msg=listening")); n != 1 {
		t.Errorf("it listens on %d sockets", n)
	}
}

// manager stands for systemd: it owns sockets and hears what it is told.
type manager struct {
	t      *testing.T
	notify *net.UnixConn
	files  []*os.File
}

func newManager(t *testing.T, listeners ...net.Listener) *manager {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	m := &manager{t: t, notify: conn}
	for _, l := range listeners {
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		m.files = append(m.files, f)
	}
	return m
}

// start makes a command a service of the manager's. LISTEN_PID must name the
// process itself, so a shell sets it before it becomes the program.
func (m *manager) start(cmd *exec.Cmd) {
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.notify.LocalAddr().String())
	if len(m.files) == 0 {
		return
	}
	cmd.Env = append(cmd.Env, "LISTEN_FDS="+strconv.Itoa(len(m.files)))
	cmd.ExtraFiles = m.files // from descriptor 3 on, as systemd's
	cmd.Args = append([]string{"/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
}

// hears returns the next message.
func (m *manager) hears() string {
	m.t.Helper()
	if err := m.notify.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := m.notify.Read(b)
	if err != nil {
		m.t.Fatalf("nothing is heard: %v", err)
	}
	return string(b[:n])
}

// silent fails when something more was said.
func (m *manager) silent() {
	m.t.Helper()
	if err := m.notify.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		m.t.Fatal(err)
	}
	b := make([]byte, 4096)
	if n, err := m.notify.Read(b); err == nil {
		m.t.Errorf("one message too many: %q", b[:n])
	}
}

// TestNotify is the life of a service as systemd sees it.
func TestNotify(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	ps := startProcess(t, processText, m.start)
	if got := m.hears(); got != "READY=1" {
		t.Fatalf("first it said %q", got)
	}
	c := ps.connect() // ready means that it takes clients
	good := ps.text()
	for _, text := range []string{good + "timeouts: {query: 1h}\n", "listen: nonsense\n", good} {
		ps.write(text)
		before := monotonic(t)
		ps.signal(syscall.SIGHUP)
		first, rest, _ := strings.Cut(m.hears(), "\n")
		stamp, found := strings.CutPrefix(rest, "MONOTONIC_USEC=")
		at, err := strconv.ParseInt(strings.TrimSpace(stamp), 10, 64)
		if first != "RELOADING=1" || !found || err != nil {
			t.Fatalf("a reload began with %q, %q", first, rest)
		}
		if at < before || at > monotonic(t) {
			t.Errorf("the reload is said to begin at %d, between %d and %d", at, before, monotonic(t))
		}
		if got := m.hears(); got != "READY=1" {
			t.Errorf("a reload ended with %q", got)
		}
	}
	if n := len(lines(ps.printed(), "msg=.configuration reloaded")); n != 2 {
		t.Errorf("%d reloads of 2", n)
	}
	m.silent()
	ps.signal(syscall.SIGTERM)
	if got := m.hears(); got != "STOPPING=1" {
		t.Errorf("a shutdown began with %q", got)
	}
	must(t, c, "SELECT 1")
	ps.signal(syscall.SIGTERM)
	ps.endsWithin(8 * time.Second)
	m.silent()
}

// monotonic returns the microseconds of the clock that systemd reads.
func monotonic(t *testing.T) int64 {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	return ts.Nano() / 1000
}

// TestNotifyFailure tells nobody that it is ready when it is not.
func TestNotifyFailure(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte("listen: nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "run", "-c", path)
	m.start(cmd)
	if err := cmd.Run(); err == nil {
		t.Error("it ran")
	}
	m.silent()
}

// TestInheritedSockets serves the sockets of a manager in place of its own, and
// leaves them to the next process: who connects in between is served by that.
func TestInheritedSockets(t *testing.T) {
	t.Parallel()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	dir := t.TempDir()
	path := filepath.Join(dir, ".s.PGSQL.5432")
	local, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	m := newManager(t, tcp, local)
	ps := startProcess(t, processText, m.start)
	m.hears()
	eventually(t, "both sockets are served", func() bool { return len(lines(ps.printed(), "msg=listening")) == 2 })
	if c, err := net.Dial("tcp", ps.addr); err == nil {
		_ = c.Close()
		t.Error("it listens on the configured address too")
	}
	dsn := strings.Replace(ps.dsn(), ps.addr, tcp.Addr().String(), 1)
	must(t, (&proxied{t: t}).connectTo(dsn), "SELECT 1")
	must(t, (&proxied{t: t}).connectTo(dsnOfSocket(dir, "5432")), "SELECT 1")
	ps.signal(syscall.SIGINT)
	ps.endsWithin(10 * time.Second)
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the manager's socket is gone: %v", err)
	}

	// Nobody serves now; who connects waits for the next process.
	results := make(chan error, 2)
	for _, d := range []string{dsn, dsnOfSocket(dir, "5432")} {
		go func() {
			c, err := pgx.Connect(within(t, 20*time.Second), d)
			if err == nil {
				_, err = c.Exec(within(t, 20*time.Second), "SELECT 1")
				_ = c.Close(context.Background())
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", d, err)
			}
			results <- err
		}()
	}
	next := &process{t: t, path: ps.path, log: ps.log + "2", ended: make(chan struct{}), addr: ps.addr, admin: ps.admin}
	next.cmd = command(t, "run", "--config", ps.path)
	next.start(m.start)
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

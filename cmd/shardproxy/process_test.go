package main

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgcluster"
	"shardproxy/internal/pgtest"
)

// asProgram in the environment turns this test binary into the program, built
// as the tests are: with the race detector where they have it.
const asProgram = "SHARDPROXY_TEST_AS_PROGRAM"

func init() {
	if os.Getenv(asProgram) != "" {
		main()
		os.Exit(0)
	}
}

// command prepares a call of the program in a process of its own, which dies
// with the test's.
func command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// process is the program running as its users run it.
type process struct {
	t                 testing.TB
	cmd               *exec.Cmd
	path, addr, admin string
	database          string // that it serves under the name app
	server            *pgtest.Node
	log               string // file of all it prints
	ended             chan struct{}
}

// processText is a configuration for one database of the shared server.
const processText = `
listen: {address: "%LISTEN%"}
admin:  {address: "%ADMIN%", admin_users: [app], open: [probes, metrics]}
users:
  - {name: app, password: ` + pgcluster.AppPassword + `}
databases:
  app:
    shards: [{name: s0, nodes: [%NODES%]}]
    server: {database: "%DATABASE%", control: {user: postgres}, connect_timeout: 2s}
`

// startProcess runs the program before a database of its own on the server that
// all tests share, and returns when it listens.
func startProcess(t testing.TB, text string, with ...func(*exec.Cmd)) *process {
	t.Helper()
	db := pgtest.Shared(t)
	return startProcessAt(t, db.Name, []*pgtest.Node{db.Node}, text, with...)
}

// startProcessAt does the same before servers of the caller's.
func startProcessAt(t testing.TB, database string, nodes []*pgtest.Node, text string, with ...func(*exec.Cmd)) *process {
	t.Helper()
	var addresses []string
	for _, n := range nodes {
		addresses = append(addresses, n.Addr())
	}
	ps := newProcess(t, database, addresses, text)
	ps.server = nodes[0]
	ps.start(with...)
	ps.logged("msg=listening")
	return ps
}

// newProcess writes the configuration and starts nothing.
func newProcess(t testing.TB, database string, nodes []string, text string) *process {
	t.Helper()
	dir := t.TempDir()
	ps := &process{
		t: t, path: filepath.Join(dir, "shardproxy.yaml"), log: filepath.Join(dir, "log"), ended: make(chan struct{}),
		addr: freeAddr(t), admin: freeAddr(t), database: database,
	}
	ps.cmd = command(t, "run", "--config", ps.path)
	ps.write(strings.NewReplacer("%NODES%", `"`+strings.Join(nodes, `", "`)+`"`, "%LISTEN%", ps.addr, "%ADMIN%", ps.admin,
		"%DATABASE%", database, "%DIR%", dir).Replace(text))
	return ps
}

func (ps *process) start(with ...func(*exec.Cmd)) {
	ps.t.Helper()
	log, err := os.Create(ps.log)
	if err != nil {
		ps.t.Fatal(err)
	}
	defer log.Close() // the child has its own
	ps.cmd.Stdout, ps.cmd.Stderr = log, log
	for _, f := range with {
		f(ps.cmd)
	}
	if err := ps.cmd.Start(); err != nil {
		ps.t.Fatal(err)
	}
	go func() {
		_ = ps.cmd.Wait() // the state tells
		close(ps.ended)
	}()
	ps.t.Cleanup(ps.clean)
}

// clean ends what the test has left and shows what it printed.
func (ps *process) clean() {
	select {
	case <-ps.ended:
	default:
		ps.signal(syscall.SIGQUIT)
		select {
		case <-ps.ended:
		case <-time.After(20 * time.Second):
			ps.t.Error("the program does not end on SIGQUIT")
			ps.signal(syscall.SIGKILL)
			<-ps.ended
		}
	}
	text := ps.printed()
	if strings.Contains(text, "WARNING: DATA RACE") || strings.Contains(text, "panic: ") {
		ps.t.Error("a race or a panic in the program")
	}
	if ps.t.Failed() {
		ps.t.Logf("the program printed, last lines:\n%s", text[max(0, len(text)-8000):])
	}
}

func (ps *process) printed() string {
	ps.t.Helper()
	b, err := os.ReadFile(ps.log)
	if err != nil {
		ps.t.Fatal(err)
	}
	return string(b)
}

// logged waits until the program has printed the words.
func (ps *process) logged(words string) {
	ps.t.Helper()
	eventually(ps.t, "the program prints "+words, func() bool {
		if strings.Contains(ps.printed(), words) {
			return true
		}
		select {
		case <-ps.ended:
			ps.t.Fatalf("it ended (%v) without printing %q", ps.cmd.ProcessState, words)
		default:
		}
		return false
	})
}

func (ps *process) signal(s syscall.Signal) {
	ps.t.Helper()
	if err := ps.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		ps.t.Fatal(err)
	}
}

// endsWithin waits for the end and expects exit code 0.
func (ps *process) endsWithin(d time.Duration) {
	ps.t.Helper()
	select {
	case <-ps.ended:
	case <-time.After(d):
		ps.t.Fatalf("the program has not ended within %v", d)
	}
	if code := ps.cmd.ProcessState.ExitCode(); code != 0 {
		ps.t.Errorf("exit code %d (%v)", code, ps.cmd.ProcessState)
	}
}

// runsStill fails when the program has ended.
func (ps *process) runsStill() {
	ps.t.Helper()
	select {
	case <-ps.ended:
		ps.t.Fatalf("the program has ended: %v", ps.cmd.ProcessState)
	default:
	}
}

func (ps *process) write(text string) {
	ps.t.Helper()
	if err := os.WriteFile(ps.path, []byte(text), 0o600); err != nil {
		ps.t.Fatal(err)
	}
}

func (ps *process) text() string {
	ps.t.Helper()
	b, err := os.ReadFile(ps.path)
	if err != nil {
		ps.t.Fatal(err)
	}
	return string(b)
}

func (ps *process) dsn() string { return ps.dsnOf("app", pgcluster.AppPassword, "app") }

func (ps *process) dsnOf(user, password, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: ps.addr, Path: database, RawQuery: "sslmode=disable"}
	return u.String()
}

func (ps *process) connect() *pgx.Conn { return (&proxied{t: ps.t}).connectTo(ps.dsn()) }

// console runs a command of the console and returns the rows as text.
func (ps *process) console(sql string) [][]string {
	ps.t.Helper()
	c := (&proxied{t: ps.t}).connectTo(ps.dsnOf("app", pgcluster.AppPassword, "shardproxy"))
	defer c.Close(within(ps.t, 10*time.Second))
	results, err := c.PgConn().Exec(within(ps.t, 10*time.Second), sql).ReadAll()
	if err != nil {
		ps.t.Fatalf("%s: %v", sql, err)
	}
	var all [][]string
	for _, res := range results {
		for _, row := range res.Rows {
			var cells []string
			for _, cell := range row {
				cells = append(cells, string(cell))
			}
			all = append(all, cells)
		}
	}
	return all
}

// get asks the admin address; 0 when it does not answer.
func (ps *process) get(path string) int {
	ps.t.Helper()
	return ps.getAs("", "", path)
}

// getAs is get by a user, "" for nobody.
func (ps *process) getAs(user, password, path string) int {
	ps.t.Helper()
	req, err := http.NewRequestWithContext(within(ps.t, 10*time.Second), http.MethodGet, "http://"+ps.admin+path, nil)
	if err != nil {
		ps.t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

// must runs a statement that has to succeed.
func must(t testing.TB, c *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := c.Exec(within(t, 20*time.Second), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// fails runs a statement that has to fail with the SQLSTATE.
func fails(t testing.TB, c *pgx.Conn, sql, state string) {
	t.Helper()
	if _, err := c.Exec(within(t, 20*time.Second), sql); sqlState(err) != state {
		t.Errorf("%s: %v, want SQLSTATE %s", sql, err, state)
	}
}

// lines returns the lines of a text that match.
func lines(text, pattern string) []string {
	re := regexp.MustCompile(pattern)
	var got []string
	for line := range strings.Lines(text) {
		if re.MatchString(line) {
			got = append(got, strings.TrimRight(line, "\n"))
		}
	}
	return got
}

// direct asks the server itself, as the superuser, for one value.
func (ps *process) direct(sql string) string { ps.t.Helper(); return ps.server.Value(ps.database, sql) }

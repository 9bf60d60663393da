package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/pgcluster"
	"shardproxy/internal/pgtest"
)

// outcome is what a call of the program did.
type outcome struct {
	code     int
	out, err string
}

// call runs the program to its end.
func call(t testing.TB, stdin string, args ...string) outcome {
	t.Helper()
	cmd := command(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	timer.Stop()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

func TestVersionCommand(t *testing.T) {
	t.Parallel()
	o := call(t, "", "version")
	want := regexp.MustCompile(`^shardproxy \S+ \(` + regexp.QuoteMeta(runtime.Version()) + `, ` + runtime.GOOS + `/` + runtime.GOARCH + `\)\n$`)
	if o.code != 0 || !want.MatchString(o.out) || o.err != "" {
		t.Errorf("%+v", o)
	}
	for _, args := range [][]string{{"versio"}, {"version", "more"}, {"run", "--colour"}, {"check", "a", "b"}} {
		if o := call(t, "", args...); o.code != 1 || o.out != "" || !strings.HasPrefix(o.err, "shardproxy: ") {
			t.Errorf("%q: %+v", args, o)
		}
	}
}

// TestHashPassword has PostgreSQL and the proxy let somebody in who knows the
// password that the verifier was made from, and nobody else.
func TestHashPassword(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t)
	passwords := []string{"plain", " spaces around ", "pa$$'\"\\`", "Grüße, \u2168 \u00a0soft\u00adhyphen", strings.Repeat("long ", 300)}
	var users strings.Builder
	for i, password := range passwords {
		verifier := call(t, password+"\n", "hash-password")
		if verifier.code != 0 || verifier.err != "" || !strings.HasPrefix(verifier.out, "SCRAM-SHA-256$4096:") || strings.Count(verifier.out, "\n") != 1 {
			t.Fatalf("%q: %+v", password, verifier)
		}
		stored := strings.TrimSpace(verifier.out)
		role := fmt.Sprintf("hashed_%d", i)
		db.Exec("CREATE ROLE " + role + " LOGIN PASSWORD '" + stored + "'")
		t.Cleanup(func() { db.Exec("DROP ROLE " + role) })
		// PostgreSQL keeps a verifier as it is; of a password it would make one.
		if got := db.Value("SELECT rolpassword FROM pg_authid WHERE rolname = $1", role); got != stored {
			t.Errorf("PostgreSQL took the verifier for a password: %s", got)
		}
		fmt.Fprintf(&users, "  - {name: %s, verifier: '%s', server_user: app, server_password: %s}\n", role, stored, pgcluster.AppPassword)
	}
	ps := startProcessAt(t, db.Name, []*pgtest.Node{db.Node},
		strings.Replace(processText, "databases:", users.String()+"databases:", 1)+"auth: {throttle: {delay: 0}}\n")
	for i, password := range passwords {
		role := fmt.Sprintf("hashed_%d", i)
		for name, c := range map[string][]string{
			"PostgreSQL": {strconv.Itoa(db.Node.Port()), db.Name}, "the proxy": {portOf(t, ps.addr), "app"},
		} {
			if out, err := psql(password, "-p", c[0], "-U", role, c[1]); err != nil {
				t.Errorf("%s does not let in with %q: %v, %s", name, password, err, out)
			}
			out, err := psql("x"+password, "-p", c[0], "-U", role, c[1])
			if err == nil || !strings.Contains(out, `password authentication failed for user "`+role) {
				t.Errorf("%s and a wrong password for %q: %v, %s", name, password, err, out)
			}
		}
	}
	one, two := call(t, "plain", "hash-password"), call(t, "plain\r\n", "hash-password")
	if one.out == two.out || one.code != 0 || two.code != 0 {
		t.Errorf("the salt is not random: %+v, %+v", one, two)
	}
	for _, none := range []string{"", "\n", "\r\n"} {
		if o := call(t, none, "hash-password"); o.code != exitProblems || o.out != "" || !strings.Contains(o.err, "no password") {
			t.Errorf("%q: %+v", none, o)
		}
	}
}

// psql runs SELECT 1 on 127.0.0.1. It prepares passwords as SASLprep (RFC 4013)
// wants, which drivers of other languages do by halves.
func psql(password string, args ...string) (string, error) {
	cmd := exec.Command("psql", append([]string{"-X", "-h", "127.0.0.1", "-c", "SELECT 1"}, args...)...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password, "PGCONNECT_TIMEOUT=20", "PGSSLMODE=disable")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func portOf(t testing.TB, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TestCheckTellsAll has check, run and a reload name every problem of a file
// at once, each with its place.
func TestCheckTellsAll(t *testing.T) {
	t.Parallel()
	const bad = `listen: {address: "127.0.0.1:99999"}
users:
  - {name: a, password: top-secret-word}
  - {name: b, pasword: another-secret-word}
limits: {max_clients: many}
databases:
  d:
    shards:
      - {name: s, nodes: ["h:1"]}
    pool: {mode: transaktion, size: 0}
    reads: {max_lag: 10}
log: {levle: info}
`
	path := filepath.Join(t.TempDir(), "c.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(bad)
	want := []struct{ line, word string }{
		{"1", "99999"}, {"4", "did you mean password"}, {"5", "many"}, {"10", "did you mean transaction"}, {"10", "size"}, {"11", "max_lag"}, {"12", "did you mean level"},
	}
	for _, c := range []struct {
		name string
		code int
	}{{"check", exitProblems}, {"run", 1}} {
		o := call(t, "", c.name, "--config", path)
		if o.code != c.code || o.out != "" {
			t.Errorf("%s: exit code %d, printed %q", c.name, o.code, o.out)
		}
		for _, w := range want {
			if len(lines(o.err, regexp.QuoteMeta("c.yaml:"+w.line+":")+`\d+.*`+regexp.QuoteMeta(w.word))) == 0 {
				t.Errorf("%s does not name line %s and %s", c.name, w.line, w.word)
			}
		}
		if strings.Contains(o.err, "secret-word") {
			t.Errorf("%s prints a secret", c.name)
		}
		if t.Failed() {
			t.Fatal(o.err)
		}
	}

	write("users: [{name: a, password: top-secret-word}]\ndatabases: {d: {shards: [{name: s, nodes: [\"h:1\"]}]}}\n")
	if o := call(t, "", "check", "-c", path); o.code != 0 || o.err != "" || !strings.Contains(o.out, "good (databases: 1, users: 1)") {
		t.Errorf("a good file: %+v", o)
	}
	o := call(t, "", "check", "-c", path, "--show")
	if o.code != 0 || strings.Contains(o.out, "secret-word") || !strings.Contains(o.out, "hold_timeout") || !strings.Contains(o.out, "***") {
		t.Errorf("--show: %+v", o)
	}
	if o := call(t, "", "check", "-c", path, "--strict"); o.code != 0 {
		t.Errorf("--strict of a good file: %+v", o)
	}
	if err := os.Chmod(path, 0o644); err != nil { // everybody can read the password
		t.Fatal(err)
	}
	if o := call(t, "", "check", "-c", path); o.code != 0 || !strings.Contains(o.err, "warning: ") {
		t.Errorf("a warning: %+v", o)
	}
	if o := call(t, "", "check", "-c", path, "--strict"); o.code != exitWarnings || !strings.Contains(o.err, "warning: ") {
		t.Errorf("a warning under --strict: %+v", o)
	}
	for _, missing := range []string{path + ".none", t.TempDir()} {
		if o := call(t, "", "check", "-c", missing); o.code != exitProblems || !strings.Contains(o.err, missing) {
			t.Errorf("no such file: %+v", o)
		}
		if o := call(t, "", "run", "-c", missing); o.code != 1 || !strings.Contains(o.err, missing) {
			t.Errorf("no such file: %+v", o)
		}
	}
}

// TestRunOnTakenPort says which address is taken.
func TestRunOnTakenPort(t *testing.T) {
	t.Parallel()
	ps := startProcess(t, processText)
	for _, taken := range []string{ps.addr, ps.admin} {
		path := filepath.Join(t.TempDir(), "c.yaml")
		text := ps.text()
		for _, other := range []string{ps.addr, ps.admin} {
			if other != taken {
				text = strings.Replace(text, other, freeAddr(t), 1)
			}
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if o := call(t, "", "run", "-c", path); o.code != 1 || !strings.Contains(o.err, taken) || !strings.Contains(o.err, "address already in use") {
			t.Errorf("%s is taken: %+v", taken, o)
		}
	}
	must(t, ps.connect(), "SELECT 1")
}

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startDemo runs the demo at a terminal of its own, so to say: a Ctrl-C there
// reaches its whole process group. Its temporary folder is one for the test.
func startDemo(t *testing.T) (ps *process, temp string) {
	t.Helper()
	// The servers' account must reach it, and a socket's path is short.
	temp, err := os.MkdirTemp("/tmp", "demo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(temp) })
	if err := os.Chmod(temp, 0o1777); err != nil {
		t.Fatal(err)
	}
	ps = &process{t: t, log: filepath.Join(t.TempDir(), "log"), ended: make(chan struct{}), addr: freeAddr(t), admin: freeAddr(t)}
	ps.cmd = command(t, "demo", "--listen", ps.addr, "--admin", ps.admin)
	ps.start(func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "TMPDIR="+temp)
		cmd.SysProcAttr.Setpgid = true
	})
	return ps, temp
}

// traces are what a process has made: its descendants, and the folders they
// work in and files they hold open in temporary folders.
type traces struct {
	processes map[string]bool // pid and start time
	paths     map[string]bool
}

// traces looks at what there is of the process now.
func (ps *process) traces() traces {
	ps.t.Helper()
	found := traces{map[string]bool{}, map[string]bool{}}
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		ps.t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		ps.t.Fatal(err)
	}
	parents := map[string]string{}
	for _, path := range all {
		if stat, err := os.ReadFile(path); err == nil {
			// PID (NAME) STATE PPID ...
			parents[filepath.Base(filepath.Dir(path))] = strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[1]
		}
	}
	root := fmt.Sprint(ps.cmd.Process.Pid)
	for pid := range parents {
		up := pid
		for up != root && parents[up] != "" {
			up = parents[up]
		}
		if up != root {
			continue
		}
		if started := startTime(pid); started != "" {
			found.processes[pid+" "+started] = true
		}
		links, _ := filepath.Glob("/proc/" + pid + "/fd/*") // it may have ended
		for _, link := range append(links, "/proc/"+pid+"/cwd") {
			if path, err := os.Readlink(link); err == nil && strings.HasPrefix(path, "/tmp/") && path != ps.log && path != here {
				found.paths[strings.TrimSuffix(path, " (deleted)")] = true
			}
		}
	}
	return found
}

// startTime tells a process from a later one of the same number.
func startTime(pid string) string {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if fields[0] == "Z" {
		return "" // it has ended
	}
	return fields[19]
}

// gone fails when a trace is left.
func (tr traces) gone(t *testing.T, temp string) {
	t.Helper()
	left := func() (all []string) {
		for p := range tr.processes {
			pid, started, _ := strings.Cut(p, " ")
			if startTime(pid) == started {
				name, _ := os.ReadFile("/proc/" + pid + "/cmdline")
				all = append(all, "process "+pid+" "+strings.ReplaceAll(string(name), "\x00", " "))
			}
		}
		for path := range tr.paths {
			if _, err := os.Lstat(path); err == nil {
				all = append(all, path)
			}
		}
		entries, err := os.ReadDir(temp)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, filepath.Join(temp, e.Name()))
		}
		slices.Sort(all)
		return all
	}
	for end := time.Now().Add(10 * time.Second); len(left()) > 0; {
		if time.Now().After(end) {
			t.Fatalf("left behind:\n%s", strings.Join(left(), "\n"))
		}
		<-time.After(20 * time.Millisecond)
	}
}

// printedAs returns what the demo printed behind a word at the start of a line.
func (ps *process) printedAs(word string) string {
	ps.t.Helper()
	got := lines(ps.printed(), `^\s*`+word+`\s`)
	if len(got) != 1 {
		ps.t.Fatalf("%d lines for %q in\n%s", len(got), word, ps.printed())
	}
	_, rest, _ := strings.Cut(got[0], word)
	return strings.TrimSpace(rest)
}

// TestDemo does what the demo says can be done, and ends it with Ctrl-C.
func TestDemo(t *testing.T) {
	t.Parallel()
	ps, temp := startDemo(t)
	for end := time.Now().Add(60 * time.Second); !strings.Contains(ps.printed(), "Ctrl-C ends everything"); {
		if time.Now().After(end) {
			t.Fatal("the demo does not get ready")
		}
		ps.runsStill()
		<-time.After(20 * time.Millisecond)
	}
	dsn, query := ps.printedAs("DSN"), ps.printedAs("query")
	c := (&proxied{t: t}).connectTo(dsn)
	var rows int
	if err := c.QueryRow(within(t, 10*time.Second), "SELECT count(*) FROM ("+strings.TrimSuffix(query, ";")+") q").Scan(&rows); err != nil || rows == 0 {
		t.Errorf("the query to try: %d rows, %v", rows, err)
	}
	shell := func(line string) string {
		t.Helper()
		out, err := exec.Command("sh", "-c", line).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
		return string(out)
	}
	if out := shell(ps.printedAs("psql") + ` -XAt -c "` + query + `"`); strings.Count(out, "\n") != rows {
		t.Errorf("psql printed\n%s", out)
	}
	if out := shell(ps.printedAs("psql") + ` -XAt -c "` + ps.printedAs("route") + `"`); !strings.Contains(out, "shard s") || !strings.Contains(out, "customer_id") {
		t.Errorf("the route is\n%s", out)
	}
	if out := shell(ps.printedAs("console")); strings.Count(out, "replica") != 2 || strings.Count(out, "primary") != 3 {
		t.Errorf("the console printed\n%s", out)
	}
	if admin := ps.printedAs("admin"); admin != "http://"+ps.admin+"/ (app, app-secret)" || ps.get("/") != 401 || ps.getAs("app", "app-secret", "/") != 200 || ps.get("/readyz") != 200 {
		t.Errorf("the dashboard at %s does not answer", admin)
	}

	// What is printed calls the program by its name, as a user has it.
	for _, word := range []string{"move", "grow"} {
		for line := range strings.SplitSeq(ps.printedAs(word), ";") {
			args := strings.Fields(line)[1:]
			o := call(t, "", args...)
			for end := time.Now().Add(3 * time.Minute); args[1] == "watch" && o.code < 0 && time.Now().Before(end); {
				o = call(t, "", args...) // it was ended, for it took long on a busy machine
			}
			if o.code != 0 {
				t.Fatalf("%s: %+v", line, o)
			}
		}
	}
	if out := shell(ps.printedAs("psql") + ` -XAt -c "` + query + `"`); strings.Count(out, "\n") != rows {
		t.Errorf("with three shards psql printed\n%s", out)
	}

	found := ps.traces()
	// Two primaries and two replicas have some processes each.
	if len(found.processes) < 16 || len(found.paths) < 4 {
		t.Fatalf("the demo's processes and files are not seen: %v", found)
	}
	ctrlC(t, ps)
	ps.endsWithin(20 * time.Second)
	found.gone(t, temp)
	if _, err := c.Exec(within(t, 10*time.Second), "SELECT 1"); err == nil {
		t.Error("somebody still answers")
	}
}

// ctrlC is what the terminal does to who runs in it.
func ctrlC(t *testing.T, ps *process) {
	t.Helper()
	if err := syscall.Kill(-ps.cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
}

// TestDemoOnTakenPort says so before it makes any server.
func TestDemoOnTakenPort(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	for flag, args := range map[string][]string{
		"--listen": {"demo", "--listen", taken, "--admin", freeAddr(t)},
		"--admin":  {"demo", "--listen", freeAddr(t), "--admin", taken},
	} {
		o := call(t, "", args...)
		if o.code != 1 || !strings.Contains(o.err, taken) || !strings.Contains(o.err, flag) || strings.Contains(o.out, "starting PostgreSQL") {
			t.Errorf("%s is taken: %+v", flag, o)
		}
	}
}

// TestDemoEndsEarly ends the demo while it makes its servers.
func TestDemoEndsEarly(t *testing.T) {
	t.Parallel()
	ps, temp := startDemo(t)
	var found traces
	eventually(t, "the first server is being made", func() bool { found = ps.traces(); return len(found.processes) > 4 })
	ctrlC(t, ps)
	ps.endsWithin(20 * time.Second)
	found.gone(t, temp)
}

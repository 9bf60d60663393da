package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"shardproxy/tally"
)

func newLog(t *testing.T, o Options) *Log {
	t.Helper()
	l := New(slog.New(slog.DiscardHandler))
	if o.Memory == 0 {
		o.Memory = 1 << 20
	}
	if err := l.Use(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, l) })
	return l
}

func closed(t *testing.T, l *Log) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	l.Close(ctx)
	if ctx.Err() != nil {
		t.Error("the log does not end")
	}
}

// linesOf reads a file of whole lines.
func linesOf(t *testing.T, path string) (all []map[string]any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var one map[string]any
		if err := json.Unmarshal(line, &one); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, one)
	}
	return all
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time: ", what)
		}
	}
}

func statement(n int) *Statement {
	return &Statement{Session: Session{Number: uint64(n), User: "u"}, Does: tally.Writes, Text: "delete from t", Outcome: Done}
}

// TestLines: each event has the keys that docs/design/audit.md names, and nothing is written that is not wanted.
func TestLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := newLog(t, Options{To: path, Logins: true, Orders: true, Statements: tally.Writes | tally.Defines, Texts: true})
	who := Session{Number: 7, User: "ap\xffp\n\"", Database: "shop", Client: "10.0.0.9:5"}
	l.Login(&Login{Session: who, By: "scram-sha-256", TLS: "TLS 1.3", App: "cart", Outcome: Done})
	l.Login(&Login{Session: Session{User: "x", Client: "unix"}, Outcome: Refused, SQLState: "28P01", Reason: "no", Console: true})
	l.Logout(&who, 1500*time.Millisecond)
	l.Order(&Order{Session: Session{User: "root"}, By: "console", Text: "pause shop", Outcome: Begun, Took: time.Second})
	l.Order(&Order{By: "signal", Text: "reload", Outcome: Failed, SQLState: "XX000", Reason: "why", Said: "words", Took: 2500 * time.Microsecond})
	l.Statement(&Statement{Session: who, Does: tally.Writes | tally.Reads, Text: "a", Fingerprint: "f", Outcome: Done, Rows: 3, Shards: "s0,s1", Kept: true})
	l.Statement(&Statement{Does: tally.Defines, Outcome: Failed, SQLState: "42P01", Rows: 3})
	l.Statement(&Statement{Does: tally.Reads, Outcome: Done})
	closed(t, l)
	var got strings.Builder
	for _, line := range linesOf(t, path) {
		at, err := time.Parse("2006-01-02T15:04:05.000000Z", line["time"].(string))
		if err != nil || time.Since(at) > time.Minute || time.Until(at) > 0 {
			t.Error("time:", line["time"], err)
		}
		delete(line, "time")
		b, _ := json.Marshal(line)
		fmt.Fprintf(&got, "%s\n", b)
	}
	want := `{"application":"cart","client":"10.0.0.9:5","database":"shop","event":"login","method":"scram-sha-256","outcome":"done","session":7,"tls":"TLS 1.3","user":"ap�p\n\""}
{"client":"unix","console":true,"event":"login","outcome":"refused","reason":"no","sqlstate":"28P01","user":"x"}
{"client":"10.0.0.9:5","database":"shop","event":"logout","lasted_s":1.5,"session":7,"user":"ap�p\n\""}
{"by":"console","event":"order","order":"pause shop","outcome":"begun","user":"root"}
{"by":"signal","event":"order","order":"reload","outcome":"failed","reason":"why","said":"words","sqlstate":"XX000","took_ms":2.5}
{"client":"10.0.0.9:5","database":"shop","does":["read","write"],"event":"statement","fingerprint":"f","kept":true,"outcome":"done","rows":3,"session":7,"shards":"s0,s1","statement":"a","user":"ap�p\n\""}
{"does":["ddl"],"event":"statement","outcome":"failed","sqlstate":"42P01"}
`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
	if c := l.Counts(); c.Lines["login"] != 2 || c.Lines["logout"] != 1 || c.Lines["order"] != 2 || c.Lines["statement"] != 2 || c.Missing != 0 || c.Failures != 0 || c.On {
		t.Error(c)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err)
	}
}

// TestNobody: a Log that is off, and none at all, take everything and write nothing.
func TestNobody(t *testing.T) {
	off := newLog(t, Options{Logins: true, Orders: true, Statements: tally.DoesAll})
	for _, l := range []*Log{nil, off} {
		l.Login(&Login{})
		l.Logout(&Session{}, 0)
		l.Order(&Order{})
		l.Statement(statement(1))
		if l.Wants(tally.DoesAll) || l.HasLogins() {
			t.Error("it wants something")
		}
	}
	for word, n := range off.Counts().Lines {
		if n != 0 {
			t.Error(word, n)
		}
	}
}

// TestOpenRefuses: what cannot be written to is said at once, and what there is stays.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	l := newLog(t, Options{To: path, Statements: tally.Writes})
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{pipe, dir, filepath.Join(dir, "no", "such")} {
		if err := l.Use(Options{To: to, Memory: 1 << 20}); err == nil {
			t.Error("no error for", to)
		} else if to != pipe && to != dir && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
	l.Statement(statement(1))
	closed(t, l)
	if n := len(linesOf(t, path)); n != 1 {
		t.Error(n, "lines")
	}
}

// TestCutOff: behind half a line, of a process that was killed, the next one is whole.
func TestCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(path, []byte("{}\n{\"time\":\"20"), 0o640); err != nil {
		t.Fatal(err)
	}
	l := newLog(t, Options{To: path, Statements: tally.Writes})
	l.Statement(statement(1))
	closed(t, l)
	b, _ := os.ReadFile(path)
	lines := strings.Split(string(b), "\n")
	if len(lines) != 4 || lines[1] != `{"time":"20` || !json.Valid([]byte(lines[2])) || lines[3] != "" {
		t.Errorf("%q", lines)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o640 {
		t.Error("the mode of a file that was there is", info.Mode())
	}
}

// TestRotation: while lines are written without a pause, the file is moved away many times, and taken away once. No line is lost, cut or there twice.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	l := newLog(t, Options{To: path, Statements: tally.Writes, Memory: 64 << 20})
	var writers sync.WaitGroup
	stop := make(chan struct{})
	told := make([]int, 4)
	for w := range told {
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Microsecond):
				}
				told[w]++
				l.Statement(statement(w*1_000_000 + told[w]))
			}
		})
	}
	files := 4
	for i := range files {
		eventually(t, "there are lines", func() bool { info, err := os.Stat(path); return err == nil && info.Size() > 10_000 })
		if err := os.Rename(path, fmt.Sprintf("%s.%d", path, i)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "there is another file", func() bool { _, err := os.Stat(path); return err == nil })
	close(stop)
	writers.Wait()
	closed(t, l)
	seen := map[float64]bool{}
	all, _ := filepath.Glob(path + "*")
	for _, name := range all {
		for _, line := range linesOf(t, name) {
			n := line["session"].(float64)
			if seen[n] {
				t.Error("twice:", n)
			}
			seen[n] = true
		}
	}
	sum := 0
	for _, n := range told {
		sum += n
	}
	if len(all) != files+1 || len(seen) != sum {
		t.Errorf("%d files, %d lines of %d", len(all), len(seen), sum)
	}
}

// TestReopened: the file is opened anew all the time while lines are written: each is whole, and there is nothing between them.
func TestReopened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	o := Options{To: path, Statements: tally.Writes, Memory: 64 << 20}
	l := newLog(t, o)
	var writers sync.WaitGroup
	stop := make(chan struct{})
	var told atomic.Int64
	for range 4 {
		writers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				l.Statement(statement(int(told.Add(1))))
			}
		})
	}
	for range 300 {
		if err := l.Use(o); err != nil {
			t.Error(err)
		}
		<-time.After(2 * time.Millisecond)
	}
	close(stop)
	writers.Wait()
	closed(t, l)
	if n := len(linesOf(t, path)); int64(n)+l.Counts().Missing != told.Load() {
		t.Errorf("%d lines of %d", n, told.Load())
	}
}

// TestFull: on a disk that is full, lines wait, those that find no room are counted, nobody waits, and when there is
// room again a line says how many are missing.
func TestFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Fatalf("a small file system cannot be made: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	var said bytes.Buffer
	l := New(slog.New(slog.NewTextHandler(&said, nil)))
	path := filepath.Join(dir, "audit.log")
	if err := l.Use(Options{To: path, Statements: tally.Writes, Memory: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	n := 0
	tells := func(while func() bool) {
		for end := time.Now().Add(20 * time.Second); while(); n++ {
			l.Statement(statement(n))
			if time.Now().After(end) {
				t.Fatal("not in time")
			}
			if n%50 == 0 {
				<-time.After(time.Millisecond)
			}
		}
	}
	tells(func() bool { return l.Counts().Missing < 100 })
	if c := l.Counts(); c.Failures == 0 || c.Waiting < 60<<10 || c.Waiting > 64<<10 {
		t.Error(c)
	}
	first := path + ".1"
	moved := filepath.Join(t.TempDir(), "first.log")
	if err := os.Rename(path, first); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(moved, b[:bytes.LastIndexByte(b, '\n')+1], 0o600); err != nil { // half a line may stay there: it is whole in the next file
		t.Fatal(err)
	}
	if err := os.Remove(first); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all is written", func() bool { c := l.Counts(); return c.Waiting == 0 && c.Lines["missing"] > 0 })
	tells(func() bool { return n%10 != 0 })
	closed(t, l)
	written, missing := 0, 0
	for _, name := range []string{moved, path} {
		for _, line := range linesOf(t, name) {
			if line["event"] == "missing" {
				missing += int(line["lines"].(float64))
			} else {
				written++
			}
		}
	}
	if c := l.Counts(); written+missing != n || int64(missing) != c.Missing || int64(written) != c.Lines["statement"] {
		t.Errorf("%d written and %d missing of %d; %v", written, missing, n, c)
	}
	if log := said.String(); strings.Count(log, "cannot be written") != 1 || strings.Count(log, "can be written again") != 1 {
		t.Error(log)
	}
}

// TestSwitch: another file takes what comes from then on, and what waited is in one of them.
func TestSwitch(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	l := newLog(t, Options{To: a, Statements: tally.Writes})
	for i := range 1000 {
		l.Statement(statement(i))
	}
	if err := l.Use(Options{To: b, Statements: tally.Writes, Memory: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	l.Statement(statement(1000))
	if err := l.Use(Options{}); err != nil {
		t.Fatal(err)
	}
	l.Statement(statement(1001))
	closed(t, l)
	if n, m := len(linesOf(t, a)), len(linesOf(t, b)); n != 1000 || m != 1 {
		t.Error(n, m)
	}
}

// TestHangs: where nobody reads, and writing hangs, nobody waits: neither who is written about, nor who changes the settings or ends it.
func TestHangs(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	l := New(slog.New(slog.DiscardHandler))
	to := filepath.Join(t.TempDir(), "audit.log")
	if err := l.Use(Options{To: to, Statements: tally.Writes, Memory: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.turns = append(l.turns, turn{to: &target{path: "a pipe", file: w}})
	l.mu.Unlock()
	began := time.Now()
	n := 0
	for ; l.Counts().Missing < 100; n++ {
		l.Statement(statement(n))
		if n%100 == 0 {
			<-time.After(time.Millisecond)
		}
	}
	if err := l.Use(Options{To: to, Statements: tally.Writes, Memory: 64 << 10}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	l.Close(ctx)
	if took := time.Since(began); took > 10*time.Second {
		t.Error("it took", took)
	}
	_ = r.Close() // whoever writes is told that nobody will read
	<-l.ended
	if got := len(linesOf(t, to)); got == 0 {
		t.Error("what the pipe did not take is not in the file")
	}
	_ = w.Close()
}

// TestSwitchWhileFull: what a full disk does not take goes to the file that the settings name then.
func TestSwitchWhileFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Fatalf("a small file system cannot be made: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	full, other := filepath.Join(dir, "audit.log"), filepath.Join(t.TempDir(), "audit.log")
	l := newLog(t, Options{To: full, Statements: tally.Writes})
	n := 0
	for ; l.Counts().Failures == 0; n++ {
		l.Statement(statement(n))
		if n%20 == 0 {
			<-time.After(time.Millisecond)
		}
	}
	if err := l.Use(Options{To: other, Statements: tally.Writes, Memory: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	closed(t, l)
	b, err := os.ReadFile(full)
	if err != nil {
		t.Fatal(err)
	}
	if there := bytes.Count(b, []byte("\n")) + len(linesOf(t, other)); there != n || l.Counts().Missing != 0 {
		t.Errorf("%d lines of %d, %v", there, n, l.Counts())
	}
}

func BenchmarkStatement(b *testing.B) {
	l := New(slog.New(slog.DiscardHandler))
	if err := l.Use(Options{To: filepath.Join(b.TempDir(), "audit.log"), Statements: tally.Writes, Texts: true, Memory: 1 << 30}); err != nil {
		b.Fatal(err)
	}
	line := statement(1)
	line.Client, line.Database, line.Fingerprint, line.Shards = "10.0.0.9:51324", "shop", "09e19c2c60a1d5cc", "s0"
	b.ReportAllocs()
	for b.Loop() {
		l.Statement(line)
	}
	l.Close(context.Background())
}

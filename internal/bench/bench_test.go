package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"shardproxy/wire"
)

func TestRatiosAreTakenWithinARound(t *testing.T) {
	r := rounds{}
	// Both sides get slower from round to round; within each the ratio is 2.
	for _, v := range []float64{10, 100, 1000} {
		r.add("row", "a", "cpu", 2*v)
		r.add("row", "b", "cpu", v)
	}
	if got := r.against("row", "a", "b", "cpu").span(2); got != "2.00 (2.00-2.00)" {
		t.Errorf("ratio is %s", got)
	}
	if got := r.against("row", "a", "nobody", "cpu").text(2); got != "-" {
		t.Errorf("ratio to a side without figures is %s", got)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   series
		want float64
	}{
		{series{3, 1, 2}, 2},
		{series{4, 1, 3, 2}, 2.5},
		{series{math.NaN(), 7}, 7},
		{series{math.Inf(1), 7, 9}, 8},
	} {
		if got := c.of.median(); got != c.want {
			t.Errorf("median of %v is %v, not %v", c.of, got, c.want)
		}
	}
	if got := (series{math.NaN()}).median(); !math.IsNaN(got) {
		t.Errorf("median of nothing is %v", got)
	}
	if got := (series{5}).over(series{0}).median(); !math.IsNaN(got) {
		t.Errorf("a ratio to 0 is %v", got)
	}
}

func TestQuantile(t *testing.T) {
	var s series
	for i := range 100 {
		s = append(s, float64(99-i))
	}
	for q, want := range map[float64]float64{0: 0, 0.5: 50, 0.99: 99, 1: 99} {
		if got := s.quantile(q); got != want {
			t.Errorf("quantile %v is %v, not %v", q, got, want)
		}
	}
}

const summary = `pgbench (15.18)
number of transactions actually processed: 19283
number of failed transactions: 0 (0.000%)
latency average = 0.414 ms
initial connection time = 12.034 ms
tps = 19317.418374 (without initial connection time)
`

func TestParsePgbench(t *testing.T) {
	r, err := parsePgbench([]byte(summary))
	if err != nil || r.statements != 19283 || r.tps != 19317.418374 {
		t.Errorf("%+v, %v", r, err)
	}
	for _, bad := range []string{
		"", strings.Replace(summary, "transactions: 0", "transactions: 3", 1),
		strings.Replace(summary, "19283", "0", 1), strings.Replace(summary, "tps", "tpm", 1),
	} {
		if r, err := parsePgbench([]byte(bad)); err == nil {
			t.Errorf("%q gave %+v", bad, r)
		}
	}
}

func TestLatencies(t *testing.T) {
	got, err := appendLatencies(series{1}, []byte("0 199 2241 0 1175850568 995598\n0 200 2465 0 1175850568 998079\n"))
	if err != nil || !slices.Equal(got, series{1, 2241, 2465}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"0 199\n", "0 199 skipped 0 1 2\n"} {
		if got, err := appendLatencies(nil, []byte(bad)); err == nil {
			t.Errorf("%q gave %v", bad, got)
		}
	}
}

func TestReplaceBetween(t *testing.T) {
	document := "prose\n" + firstLine + "\n\nold\n\n" + lastLine + "\nmore\n"
	got, err := replaceBetween(document, "new\n")
	if want := strings.Replace(document, "old", "new", 1); err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", firstLine, lastLine + "\n" + firstLine} {
		if got, err := replaceBetween(bad, "new"); err == nil {
			t.Errorf("%q gave %q", bad, got)
		}
	}
}

// The document must keep the lines that "make bench" looks for.
func TestDocumentTakesTables(t *testing.T) {
	text, err := os.ReadFile("../../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := replaceBetween(string(text), "new"); err != nil {
		t.Error(err)
	}
}

func TestTableLinesUp(t *testing.T) {
	var tab table
	tab.row("a", "long head")
	tab.row("longer cell", "b")
	want := "| a           | long head |\n| ----------- | --------- |\n| longer cell | b         |\n"
	if got := tab.markdown(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestOptions(t *testing.T) {
	o, err := parseOptions([]string{"-modes", "simple, prepared", "-clients", "3", "-parts", "idle"}, io.Discard)
	if err != nil || !slices.Equal(o.modes, []string{"simple", "prepared"}) || !slices.Equal(o.clients, []int{3}) {
		t.Errorf("%+v, %v", o, err)
	}
	if !o.wants("idle") || o.wants("bulk") {
		t.Errorf("parts are %v", o.parts)
	}
	for _, bad := range []string{"-modes=fast", "-clients=0", "-clients=x", "-idle=-1", "-parts=none", "-replicas=-1", "-rounds=0", "-each=1ms",
		"-storm=0", "-features=speed", "-feature-clients=0", "-rate-clients=", "-shard-clients=0", "word"} {
		if _, err := parseOptions([]string{bad}, io.Discard); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

// The earlier build's figures are divided round by round, each by its own.
func TestBeforeTable(t *testing.T) {
	m := &measurement{stage: &stage{options: options{before: "x", modes: []string{"simple"}, clients: []int{8}}}, statements: rounds{}}
	for _, v := range []float64{1, 10, 100} {
		for figure, now := range map[string]float64{"tps": 3, "cpu": 0.5, "mallocs": 0} {
			m.statements.add("simple 8", proxyName, figure, v*now)
			m.statements.add("simple 8", beforeName, figure, v)
		}
	}
	want := table{{"simple 8", "3.00", "-", "0.50 (0.50-0.50)", "-", "10.00", "0.00"}}
	if got := m.beforeTable()[1:]; !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %q", got)
	}
}

// A program that is named is taken, or refused; nothing else is looked for.
func TestFindPgBouncer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pgbouncer")
	if err := os.WriteFile(path, nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := findPgBouncer(path); err != nil || got != path {
		t.Errorf("found %q, %v", got, err)
	}
	if got, err := findPgBouncer(path + "-gone"); err == nil {
		t.Errorf("found %q in place of what was asked for", got)
	}
}

func TestSharesPrepared(t *testing.T) {
	for version, want := range map[[2]int]bool{{1, 18}: false, {1, 21}: true, {2, 0}: true} {
		if sharesPrepared(version) != want {
			t.Errorf("version %v: %t", version, !want)
		}
	}
}

func TestStatusNumber(t *testing.T) {
	const status = "Name:\tx\nVmRSS:\t    1234 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t8\nEmpty:\n"
	for name, want := range map[string]int64{"VmRSS": 1234, "voluntary_ctxt_switches": 7, "nonvoluntary_ctxt_switches": 8} {
		if got, err := statusNumber(status, name); err != nil || got != want {
			t.Errorf("%s is %d, %v", name, got, err)
		}
	}
	for _, name := range []string{"Vm", "Empty"} {
		if got, err := statusNumber(status, name); err == nil {
			t.Errorf("%s is %d", name, got)
		}
	}
}

// A program that computes uses what the kernel says; one that ended is an error.
func TestProcessUsage(t *testing.T) {
	dir := t.TempDir()
	p, err := startProcess(exec.Command("sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo counted; exec sleep 100"), filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return strings.Contains(p.tail(), "counted") })
	u, err := p.usage()
	if err != nil || u.cpu < time.Millisecond || u.cpu > time.Minute || u.switches < 1 {
		t.Errorf("used %+v, %v", u, err)
	}
	// Right behind its exec it has next to nothing.
	await(t, func() bool { kib, err := p.residentKiB(); return err != nil || kib >= 100 })
	if kib, err := p.residentKiB(); err != nil || kib > 100_000 {
		t.Errorf("%v KiB are resident, %v", kib, err)
	}
	if err := p.kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.usage(); err == nil || !strings.Contains(err.Error(), "counted") {
		t.Errorf("usage of a process that has ended: %v", err)
	}
}

func await(t *testing.T, fact func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); !fact(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it does not come true")
		}
	}
}

func TestCopyFrames(t *testing.T) {
	for least, frames := range map[int]int{1: bulkRows, 8 << 10: (bulkRows + 81) / 82} {
		var n, data int
		p := copyFrames(least)
		for len(p) > 0 {
			size := int(binary.BigEndian.Uint32(p[1:])) + 1
			if p[0] == wire.MsgCopyData {
				n, data = n+1, data+size-5
			}
			p = p[size:]
		}
		if n != frames || data != bulkRows*(bulkRowBytes+1) {
			t.Errorf("at least %d bytes: %d frames of %d bytes in all", least, n, data)
		}
	}
}

// clientOver returns a client whose server says p, in pieces of some bytes.
func clientOver(t *testing.T, p []byte, piece int) *client {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close() })
	go func() {
		for len(p) > 0 {
			n := min(piece, len(p))
			if _, err := far.Write(p[:n]); err != nil {
				break
			}
			p = p[n:]
		}
		far.Close()
	}()
	return &client{conn: near, readSize: 64}
}

// The client finds the tag whatever the pieces, and believes no other.
func TestClientWalksFrames(t *testing.T) {
	var answer []byte
	answer = wire.AppendFrame(answer, wire.MsgRowDescription, bytes.Repeat([]byte{1}, 200))
	for range 3 {
		answer = wire.AppendFrame(answer, wire.MsgDataRow, bytes.Repeat([]byte{2}, 150))
	}
	answer = wire.AppendCommandComplete(answer, "SELECT 3")
	answer = wire.AppendReadyForQuery(answer, 'I')
	for _, piece := range []int{1, 7, 64, 1000} {
		c := clientOver(t, answer, piece)
		if err := c.finish("SELECT 3"); err != nil || c.received != len(answer) {
			t.Errorf("in pieces of %d: %v, %d of %d bytes", piece, err, c.received, len(answer))
		}
		if c := clientOver(t, answer, piece); c.finish("SELECT 4") == nil {
			t.Error("a wrong tag is accepted")
		}
		if c := clientOver(t, answer[:len(answer)-3], piece); c.finish("SELECT 3") == nil {
			t.Error("a connection that ends early is accepted")
		}
	}
	failed := wire.AppendFrame(nil, wire.MsgErrorResponse, []byte("SERROR\x00C57014\x00\x00"))
	if err := clientOver(t, failed, 1000).finish("SELECT 3"); err == nil || !strings.Contains(err.Error(), "57014") {
		t.Errorf("an error of the server gives %v", err)
	}
}

func TestRoundsAlternate(t *testing.T) {
	m := &measurement{progress: func(string, ...any) {}}
	var seen []string
	sides := []*endpoint{{name: "a"}, {name: "b"}}
	err := m.inTurns(context.Background(), 2, "x", []string{"1", "2"}, sides, func(row string, e *endpoint) error {
		seen = append(seen, e.name+row)
		return nil
	})
	if want := []string{"a1", "b1", "a2", "b2", "b1", "a1", "b2", "a2"}; err != nil || !slices.Equal(seen, want) {
		t.Errorf("%v, %v", seen, err)
	}
	if len(m.loads) != 2 {
		t.Errorf("%d load averages of 2 rounds", len(m.loads))
	}
}

func TestKernelNumber(t *testing.T) {
	for release, want := range map[string]string{
		"6.18.44-somebody-v1": "6.18.44", "6.1.0-31-amd64": "6.1.0", "6.6.87.2-microsoft-standard": "6.6.87.2", "5.4": "5.4", "6.9.rc1": "6.9", "": "",
	} {
		if got := kernelNumber(release); got != want {
			t.Errorf("%q: %q, want %q", release, got, want)
		}
	}
}

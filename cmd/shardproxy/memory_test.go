package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
	"shardproxy/wire"
)

// built returns the program as it is delivered: the race detector multiplies
// what it needs of memory.
func built(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shardproxy")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// memory returns a figure of /proc/PID/status in bytes: VmRSS is what the
// process has resident, VmHWM the most that it had.
func (ps *process) memory(name string) int64 {
	ps.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", ps.cmd.Process.Pid))
	if err != nil {
		ps.t.Fatal(err)
	}
	m := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		ps.t.Fatalf("no %s in\n%s", name, status)
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		ps.t.Fatal(err)
	}
	return kib << 10
}

// talker is a client that decides itself when it reads.
type talker struct {
	t  *testing.T
	nc net.Conn
}

// talk logs in and takes the connection over from the driver.
func (ps *process) talk(t *testing.T) *talker {
	t.Helper()
	pc := ps.connect().PgConn()
	// A login on a busy machine may have left the driver reading in the background.
	if err := pc.SyncConn(t.Context()); err != nil {
		t.Fatal(err)
	}
	h, err := pc.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Conn.Close() })
	// After a pause the kernel may find that it had to drop a segment, and takes
	// as long as the pause was to send it again.
	if err := h.Conn.SetDeadline(time.Now().Add(3 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &talker{t, h.Conn}
}

func (c *talker) send(frames []byte) {
	if _, err := c.nc.Write(frames); err != nil {
		c.t.Error(err)
	}
}

// sendBig sends one frame whose body is head, n times the letter x, and tail,
// without holding it.
func (c *talker) sendBig(kind byte, head string, n int, tail string) {
	c.send(append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(head)+n+len(tail))), head...))
	block := []byte(strings.Repeat("x", 1<<16))
	for ; n > 0; n -= len(block) {
		block = block[:min(n, len(block))]
		c.send(block)
	}
	c.send([]byte(tail))
}

// until reads frames up to one of a kind and returns that one's beginning and
// how many bytes of the kind counted have come.
func (c *talker) until(end, counted byte) (body string, n int64) {
	for {
		var head [5]byte
		if _, err := io.ReadFull(c.nc, head[:]); err != nil {
			c.t.Errorf("after %d bytes: %v", n, err)
			return "", n
		}
		size := int64(binary.BigEndian.Uint32(head[1:])) - 4
		var b strings.Builder
		if _, err := io.CopyN(&b, c.nc, min(size, 200)); err != nil {
			c.t.Error(err)
			return "", n
		}
		if _, err := io.CopyN(io.Discard, c.nc, max(size-200, 0)); err != nil {
			c.t.Errorf("after %d bytes: %v", n, err)
			return "", n
		}
		if head[0] == counted {
			n += size
		}
		switch head[0] {
		case end:
			return b.String(), n
		case wire.MsgErrorResponse:
			c.t.Errorf("the server says %q", b.String())
		}
	}
}

// TestLargeThingsInLittleMemory sends hundreds of megabytes through the proxy in
// every way there is, with a receiver that stops for a while, and watches how
// much memory the process needs.
func TestLargeThingsInLittleMemory(t *testing.T) {
	t.Parallel()
	db := pgtest.Shared(t)
	ps := startProcessAt(t, db.Name, []*pgtest.Node{db.Node}, processText, func(cmd *exec.Cmd) { cmd.Path = built(t) })
	// What comes in meets a server that does not read either until it may.
	db.Exec(`CREATE UNLOGGED TABLE sink (v text);
		CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END';
		CREATE TRIGGER a BEFORE INSERT ON sink EXECUTE FUNCTION wait();
		CREATE TRIGGER b BEFORE INSERT ON sink FOR EACH ROW EXECUTE FUNCTION swallow();
		GRANT ALL ON sink TO app`)
	for range 20 {
		c := ps.connect()
		must(t, c, "SELECT repeat('x', 100000)")
		must(t, c, "INSERT INTO sink VALUES ('x')")
	}
	const size = 200 << 20
	const bound = 64 << 20
	blocked := func(n int, event string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d servers wait: %s", n, event), func() bool {
			return db.Value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = '"+event+"'") == strconv.Itoa(n)
		})
	}
	// lock keeps who inserts waiting until the returned function is called.
	lock := func() (unlock func()) {
		c := db.Connect("postgres")
		must(t, c, "SELECT pg_advisory_lock(1)")
		return func() { must(t, c, "SELECT pg_advisory_unlock(1)") }
	}
	received := func(c *talker, least int64) {
		if _, n := c.until(wire.MsgReadyForQuery, wire.MsgDataRow); n < least {
			t.Errorf("%d bytes of %d arrived", n, least)
		}
	}
	stepOf := fmt.Sprintf("SELECT repeat('x', 1 << 20) FROM generate_series(1, %d)", size>>20)
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"one row out", func(t *testing.T) {
			c := ps.talk(t)
			c.send(wire.AppendQuery(nil, fmt.Sprintf("SELECT repeat('x', %d)", size)))
			blocked(1, "ClientWrite")
			received(c, size)
		}},
		{"many rows out", func(t *testing.T) {
			var all []*talker
			for range 8 {
				c := ps.talk(t)
				c.send(wire.AppendQuery(nil, stepOf))
				all = append(all, c)
			}
			blocked(len(all), "ClientWrite")
			for _, c := range all[:2] {
				received(c, size)
			}
			for _, c := range all[2:] {
				_ = c.nc.Close() // the rest is nobody's
			}
			blocked(0, "ClientWrite")
		}},
		{"copy out", func(t *testing.T) {
			c := ps.talk(t)
			c.send(wire.AppendQuery(nil, "COPY ("+stepOf+") TO STDOUT"))
			blocked(1, "ClientWrite")
			if _, n := c.until(wire.MsgReadyForQuery, wire.MsgCopyData); n < size {
				t.Errorf("%d bytes arrived", n)
			}
		}},
		{"copy in", func(t *testing.T) {
			c := ps.talk(t)
			unlock := lock()
			c.send(wire.AppendQuery(nil, "COPY sink FROM STDIN"))
			c.until(wire.MsgCopyInResponse, 0)
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for range size >> 20 {
					c.sendBig(wire.MsgCopyData, "", 1<<20-1, "\n")
				}
				c.send(wire.AppendFrame(nil, wire.MsgCopyDone, nil))
			}()
			blocked(1, "advisory")
			c.stalls(sent)
			unlock()
			<-sent
			if tag, _ := c.until('C', 0); !strings.HasPrefix(tag, "COPY ") {
				t.Errorf("it ended with %q", tag)
			}
			c.until(wire.MsgReadyForQuery, 0)
		}},
		{"one parameter in", func(t *testing.T) {
			c := ps.talk(t)
			unlock := lock()
			var out []byte
			out = wire.AppendFrame(out, wire.MsgParse, []byte("\x00INSERT INTO sink VALUES ($1)\x00\x00\x00"))
			// The first request waits in the server; the one behind it is not read.
			small := wire.AppendFrame(nil, wire.MsgBind, []byte("\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01x\x00\x00"))
			small = wire.AppendFrame(small, wire.MsgExecute, []byte("\x00\x00\x00\x00\x00"))
			sync := wire.AppendFrame(nil, wire.MsgSync, nil)
			c.send(append(append(out, small...), sync...))
			blocked(1, "advisory")
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				c.send(wire.AppendFrame(nil, wire.MsgParse, []byte("\x00SELECT length($1::text)\x00\x00\x00")))
				c.sendBig(wire.MsgBind, "\x00\x00\x00\x00\x00\x01"+string(binary.BigEndian.AppendUint32(nil, size)), size, "\x00\x00")
				c.send(append(wire.AppendFrame(nil, wire.MsgExecute, []byte("\x00\x00\x00\x00\x00")), sync...))
			}()
			c.stalls(sent)
			unlock()
			<-sent
			c.until(wire.MsgReadyForQuery, 0)
			if row, _ := c.until(wire.MsgDataRow, 0); !strings.HasSuffix(row, strconv.Itoa(size)) {
				t.Errorf("the server counted %q", row)
			}
			c.until(wire.MsgReadyForQuery, 0)
		}},
		{"one text in", func(t *testing.T) {
			c := ps.talk(t)
			go c.sendBig(wire.MsgQuery, "SELECT length('", size/2, "')\x00")
			if row, _ := c.until(wire.MsgDataRow, 0); !strings.HasSuffix(row, strconv.Itoa(size/2)) {
				t.Errorf("the server counted %q", row)
			}
			c.until(wire.MsgReadyForQuery, 0)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			// The highest figure starts anew.
			if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", ps.cmd.Process.Pid), []byte("5"), 0); err != nil {
				t.Fatal(err)
			}
			base := ps.memory("VmRSS")
			test.run(t)
			grown := ps.memory("VmHWM") - base
			t.Logf("%.1f MiB at first, at most %.1f MiB more", float64(base)/(1<<20), float64(grown)/(1<<20))
			if grown > bound {
				t.Errorf("%d MiB more for %d MiB on their way", grown>>20, size>>20)
			}
		})
	}
	if base := ps.memory("VmRSS"); base > 2*bound {
		t.Errorf("%d MiB are resident at the end", base>>20)
	}
}

// stalls waits until the sender cannot send on, and fails if it is done.
func (c *talker) stalls(sent <-chan struct{}) {
	c.t.Helper()
	select {
	case <-sent:
		c.t.Error("all was sent although nobody read")
	case <-time.After(700 * time.Millisecond):
	}
}

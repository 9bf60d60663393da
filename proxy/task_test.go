package proxy_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"shardproxy/wire"
)

// script is what a client says again and again.
type script struct {
	name   string
	before []byte // once, at the beginning
	turn   []byte
	// limit is how many objects the proxy may allocate for one turn.
	limit float64
}

func frames(all ...frame) (out []byte) {
	for _, f := range all {
		out = append(out, f.bytes()...)
	}
	return out
}

func scripts() []script {
	run := func(name string, values ...string) []byte {
		return frames(fBind("", name, values...), fExecute("", 0), fSync())
	}
	begin := fQuery("BEGIN")
	return []script{
		{"simple", nil, frames(fQuery("SELECT 1")), 0},
		{"a literal", nil, frames(fQuery("SELECT v FROM steady WHERE id = 5")), 0},
		{"a write", nil, frames(fQuery("UPDATE steady SET v = 'x' WHERE id = 5")), 0},
		{"unnamed", nil, frames(segment("SELECT 1")...), 0},
		{"named", frames(fParse("s", "SELECT 1"), fSync()), run("s"), 0},
		{"a parameter", frames(fParse("p", "SELECT v FROM steady WHERE id = $1"), fSync()), run("p", "7"), 0},
		{"in a transaction", frames(begin), frames(fQuery("SELECT 1")), 0},
		{"named, in a transaction", frames(begin, fParse("s", "SELECT 1"), fSync()), run("s"), 0},
		{"a whole transaction", nil, frames(begin, fQuery("SELECT 1"), fQuery("COMMIT")), 0},
		{"pipelined", nil, frames(append(segment("SELECT 1"), segment("SELECT 2")...)...), 0},
		// A statement that only one client has is made, and unmade, each time.
		{"new statements", nil, frames(fParse("n", "SELECT 1"), fBind("", "n"), fExecute("", 0), fClose('S', "n"), fSync()), 7},
	}
}

// steadyClient says its script without allocating itself.
type steadyClient struct {
	net.Conn
	buf   []byte
	reads int
}

// turn sends p and reads until the server was ready as often as p ends a request.
func (c *steadyClient) turn(p []byte) error {
	if _, err := c.Write(p); err != nil {
		return err
	}
	owed := requests(p)
	for have := 0; owed > 0; {
		n, err := c.Read(c.buf[have:])
		if err != nil {
			return err
		}
		c.reads++
		have += n
		at := 0
		for have-at >= 5 {
			size := 1 + int(binary.BigEndian.Uint32(c.buf[at+1:]))
			if have-at < size {
				break
			}
			switch c.buf[at] {
			case wire.MsgErrorResponse:
				return fmt.Errorf("%q", c.buf[at:at+size])
			case wire.MsgReadyForQuery:
				owed--
			}
			at += size
		}
		have = copy(c.buf, c.buf[at:have])
	}
	return nil
}

// requests counts the frames of p that end in a ReadyForQuery.
func requests(p []byte) (n int) {
	for len(p) > 0 {
		if p[0] == wire.MsgQuery || p[0] == wire.MsgSync {
			n++
		}
		p = p[1+binary.BigEndian.Uint32(p[1:]):]
	}
	return n
}

// dialSteady logs in at addr.
func dialSteady(t *testing.T, addr string) *steadyClient {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := newRaw(nc).login("postgres", "app"); err != nil {
		t.Fatal(err)
	}
	return &steadyClient{Conn: nc, buf: make([]byte, 4096)}
}

// startSteady is a proxy whose database has a table to ask for.
func startSteady(t *testing.T, o fixtureOptions) *fixture {
	t.Helper()
	f := start(t, o)
	must(t, dialSteady(t, f.addr).turn(frames(fQuery("CREATE TABLE steady (id int PRIMARY KEY, v text)"),
		fQuery("INSERT INTO steady SELECT i, i::text FROM generate_series(1, 100) i"))))
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// allocated returns how many objects the process allocates while f runs.
func allocated(f func()) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs - before.Mallocs)
}

// TestStatementsAllocate counts what the whole way of a statement allocates, from
// the client's bytes to its answer, in a session that is under way.
func TestStatementsAllocate(t *testing.T) {
	if raceEnabled {
		return // the detector and sync.Pool allocate
	}
	f := startSteady(t, fixtureOptions{})
	for _, s := range scripts() {
		t.Run(s.name, func(t *testing.T) {
			c := dialSteady(t, f.addr)
			must(t, c.turn(s.before))
			for range 100 {
				must(t, c.turn(s.turn))
			}
			const turns = 1000
			c.reads = 0
			each := allocated(func() {
				for range turns {
					must(t, c.turn(s.turn))
				}
			}) / turns
			// The proxy's clock and the pool's upkeep allocate now and then.
			if each > s.limit+0.1 {
				t.Errorf("%.2f objects for a turn, not %.0f", each, s.limit)
			}
			// One answer is one write. A server may send what ends two requests in two.
			if c.reads > turns+turns/20 && requests(s.turn) == 1 {
				t.Errorf("%d answers came in %d pieces", turns, c.reads)
			}
		})
	}
}

// TestQueueAllocates does the same when there are fewer servers than clients:
// most statements wait for one.
func TestQueueAllocates(t *testing.T) {
	if raceEnabled {
		return
	}
	f := startSteady(t, fixtureOptions{size: 1})
	var clients []*steadyClient
	for range 3 {
		clients = append(clients, dialSteady(t, f.addr))
	}
	q := frames(fQuery("SELECT v FROM steady WHERE id = 5"))
	all := func(turns int) {
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() {
				for range turns {
					if err := c.turn(q); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	all(100)
	const turns = 1000
	each := allocated(func() { all(turns) }) / float64(turns*len(clients))
	if each > 0.1 {
		t.Errorf("%.2f objects for a statement", each)
	}
}

// countedListener counts the calls that the proxy makes on its clients' sockets.
type countedListener struct {
	net.Listener
	calls, waits atomic.Int64
}

func (l *countedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countedConn{nc.(*net.TCPConn), l}, nil
}

type countedConn struct {
	*net.TCPConn
	l *countedListener
}

func (c *countedConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.TCPConn.SyscallConn()
	return countedRaw{raw, c.l}, err
}

type countedRaw struct {
	syscall.RawConn
	l *countedListener
}

func (r countedRaw) Control(f func(uintptr)) error {
	r.l.calls.Add(1)
	return r.RawConn.Control(f)
}

func (r countedRaw) Read(f func(uintptr) bool) error {
	r.l.waits.Add(1)
	return r.RawConn.Read(f)
}

// TestCallsOfAStatement counts the system calls on the client's socket: a
// statement is read once and answered once, after one look in vain at most; and
// it is waited for once.
func TestCallsOfAStatement(t *testing.T) {
	f := startSteady(t, fixtureOptions{})
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l := &countedListener{Listener: inner}
	f.srv.Open(l)
	for _, s := range scripts() {
		if requests(s.turn) > 1 {
			continue // how many writes depends on how the server sends the answers
		}
		t.Run(s.name, func(t *testing.T) {
			c := dialSteady(t, inner.Addr().String())
			must(t, c.turn(s.before))
			must(t, c.turn(s.turn))
			const turns = 300
			l.calls.Store(0)
			l.waits.Store(0)
			for range turns {
				must(t, c.turn(s.turn))
			}
			if n := l.calls.Load(); n > 3*turns+turns/20 {
				t.Errorf("%d calls for %d turns", n, turns)
			}
			if n := l.waits.Load(); n > turns+turns/20 {
				t.Errorf("%d waits for %d turns", n, turns)
			}
		})
	}
}

package wire_test

import (
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"shardproxy/wire"
)

// countedConn counts the calls that a Socket makes on it.
type countedConn struct {
	*net.TCPConn
	calls atomic.Int64 // of the kernel through Control
	waits atomic.Int64 // of RawConn.Read and Write
	asks  atomic.Int64 // answers of what they called back
	// before runs ahead of each call back.
	before func(fd uintptr)
}

func (c *countedConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.TCPConn.SyscallConn()
	return countedRaw{raw, c}, err
}

type countedRaw struct {
	syscall.RawConn
	c *countedConn
}

func (r countedRaw) Control(f func(uintptr)) error {
	r.c.calls.Add(1)
	return r.RawConn.Control(f)
}

func (r countedRaw) Read(f func(uintptr) bool) error {
	r.c.waits.Add(1)
	return r.RawConn.Read(func(fd uintptr) bool {
		defer r.c.asks.Add(1)
		if r.c.before != nil {
			r.c.before(fd)
		}
		return f(fd)
	})
}

// TestCallsOfARelay counts what one frame from one side to the other costs: to
// wait once, to read once, to write once, and nothing else.
func TestCallsOfARelay(t *testing.T) {
	counted := func() (*countedConn, *wire.Conn, net.Conn) {
		a, b := tcpPair(t)
		c := &countedConn{TCPConn: a.(*net.TCPConn)}
		s, err := wire.NewSocket(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SetNonBlocking(true); err != nil {
			t.Fatal(err)
		}
		return c, wire.NewConn(s, nil, &wire.Buffers{}), b
	}
	fromCalls, from, client := counted()
	toCalls, to, server := counted()
	frame := wire.AppendQuery(nil, "SELECT 1")
	for i := range int64(100) {
		waiting := make(chan error, 1)
		go func() { waiting <- from.Socket().AwaitReadable() }()
		if i%2 == 0 {
			for fromCalls.asks.Load() == 0 { // it has found nothing
			}
		}
		write(t, client, frame)
		if err := returns(t, func() error { return <-waiting }); err != nil {
			t.Fatal(err)
		}
		if err := from.Fill(0); err != nil {
			t.Fatal(err)
		}
		for _, part := range [][]byte{frame[:3], frame[3:7], frame[7:]} { // pieces go in one write
			if err := to.Queue(part); err != nil {
				t.Fatal(err)
			}
		}
		from.Discard(len(frame))
		if err := to.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := to.Flush(); err != nil { // has nothing to do
			t.Fatal(err)
		}
		if got := readAll(t, server, len(frame)); string(got) != string(frame) {
			t.Fatalf("got %q", got)
		}
		if n := fromCalls.calls.Swap(0); n != 1 {
			t.Errorf("%d calls to read one frame", n)
		}
		if n := fromCalls.waits.Swap(0); n != 1 {
			t.Errorf("%d waits for one frame", n)
		}
		if n := fromCalls.asks.Swap(0); n > 2 {
			t.Errorf("asked %d times", n)
		}
		if n := toCalls.calls.Swap(0); n != 1 {
			t.Errorf("%d calls to write one frame", n)
		}
		if n := toCalls.waits.Swap(0); n != 0 {
			t.Errorf("%d waits to write", n)
		}
	}
}

// TestEventsAreBelieved shows that after an event the kernel is not asked again,
// whether the event brought anything or not.
func TestEventsAreBelieved(t *testing.T) {
	a, peer := tcpPair(t)
	c := &countedConn{TCPConn: a.(*net.TCPConn)}
	s, err := wire.NewSocket(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetNonBlocking(true); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 10)
	// The byte that makes the event is gone when the await looks.
	c.before = func(fd uintptr) {
		if n, err := unix.Read(int(fd), make([]byte, 10)); c.asks.Load() == 1 && n != 1 {
			t.Errorf("stole %d bytes, %v", n, err)
		}
	}
	waiting := make(chan error, 1)
	await := func() {
		go func() { waiting <- s.AwaitReadable() }()
	}
	await()
	for c.asks.Load() == 0 {
	}
	write(t, peer, p[:1])
	if err := returns(t, func() error { return <-waiting }); err != nil {
		t.Fatal(err)
	}
	if n := c.asks.Load(); n != 2 {
		t.Errorf("called back %d times", n)
	}
	c.before = nil
	// An error in between must not make the next await return without an event.
	await()
	for c.asks.Load() == 2 {
	}
	s.Interrupt()
	if err := returns(t, func() error { return <-waiting }); err != wire.ErrInterrupted {
		t.Fatal(err)
	}
	await()
	for c.asks.Load() == 3 {
	}
	write(t, peer, p[:1])
	if err := returns(t, func() error { return <-waiting }); err != nil {
		t.Fatal(err)
	}
	if n := c.asks.Load(); n != 5 {
		t.Errorf("called back %d times: without an event, or once more after it", n)
	}
}

// TestSocketAllocates measures each operation of a Socket in non-blocking mode.
func TestSocketAllocates(t *testing.T) {
	if raceEnabled {
		return // the detector allocates
	}
	s, peer := socketPair(t, true)
	p := make([]byte, 100)
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	send := func() {
		_, err := peer.Write(p[:1])
		must(err)
	}
	later := make(chan struct{}) // has the peer send a byte
	defer close(later)
	go func() {
		for range later {
			send()
		}
	}()
	told := make(chan struct{}, 1)
	tell := func() { told <- struct{}{} }
	s.SetNotify(&tell)
	read := func() {
		_, err := s.Read(p)
		must(err)
	}
	for _, op := range []struct {
		name string
		run  func()
	}{
		{"read nothing", func() {
			if _, err := s.Read(p); err != wire.ErrWouldBlock {
				t.Fatal(err)
			}
		}},
		{"read", func() { send(); must(s.AwaitReadable()); read() }},
		{"write", func() {
			_, err := s.Write(p)
			must(err)
			_, err = io.ReadFull(peer, p)
			must(err)
		}},
		{"flush nothing", func() { must(s.Flush()) }},
		{"wait", func() { later <- struct{}{}; must(s.AwaitReadable()); read() }},
		{"wait to write", func() { must(s.AwaitWritable()) }},
		{"look", func() {
			if s.Readable() {
				t.Fatal("readable without bytes")
			}
		}},
		{"watch", func() { s.Watch(false); send(); <-told; read() }},
		{"watch to write", func() { s.Watch(true); <-told }},
	} {
		if n := testing.AllocsPerRun(1000, op.run); n != 0 {
			t.Errorf("%s: %v allocations", op.name, n)
		}
	}
	// The net package wraps the error of its deadline.
	if n := testing.AllocsPerRun(1000, func() { s.Interrupt(); _ = s.AwaitReadable() }); n > 1 {
		t.Errorf("interrupt: %v allocations", n)
	}
}

// TestConnAllocates measures what a statement does to the buffers of a Conn, an
// answer in several pieces and appended frames among it.
func TestConnAllocates(t *testing.T) {
	if raceEnabled {
		return // sync.Pool drops at random then
	}
	c, peer := connPair(t, &wire.Buffers{})
	for _, size := range []int{300, 16<<10 - 1, 16 << 10} {
		piece := make([]byte, size)
		got := make([]byte, 5*size+6)
		turn := func() {
			for range 5 {
				if err := c.Queue(piece); err != nil {
					t.Fatal(err)
				}
			}
			c.SetOutput(wire.AppendReadyForQuery(c.Output(), 'I'))
			if err := c.Flush(); err != nil {
				t.Fatal(err)
			}
			c.Shrink()
			if _, err := io.ReadFull(peer, got); err != nil {
				t.Fatal(err)
			}
		}
		if n := testing.AllocsPerRun(1000, turn); n != 0 {
			t.Errorf("%v allocations for an answer in pieces of %d", n, size)
		}
	}
}

// TestCallsNeverWait shows that a call ends at once even on a descriptor that
// somebody made blocking: one that waited would hold its processor.
func TestCallsNeverWait(t *testing.T) {
	if raceEnabled || runtime.GOOS != "linux" {
		return // ordinary calls, which the scheduler sees, are used then
	}
	a, _ := tcpPair(t)
	raw, err := a.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	s, err := wire.NewSocket(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetNonBlocking(true); err != nil {
		t.Fatal(err)
	}
	block := func(on bool) {
		var err error
		if e := raw.Control(func(fd uintptr) { err = unix.SetNonblock(int(fd), !on) }); e != nil || err != nil {
			t.Fatal(e, err)
		}
	}
	block(true)
	defer block(false)
	if err := returns(t, func() error { _, err := s.Read(make([]byte, 1)); return err }); err != wire.ErrWouldBlock {
		t.Errorf("read: %v", err)
	}
	if err := returns(t, func() error { _, err := s.Write(make([]byte, 64<<20)); return err }); err != nil {
		t.Errorf("write: %v", err)
	}
	if s.Pending() == 0 {
		t.Error("a peer that does not read took everything")
	}
}

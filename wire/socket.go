package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrWouldBlock is returned by reads of a non-blocking Socket or Conn when
// nothing has arrived. It is temporary in net.Error's sense, which makes
// crypto/tls keep the part of a record it already has and go on from there.
var ErrWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "wire: no data yet" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// ErrClosed is returned by operations on a closed Socket.
var ErrClosed = errors.New("wire: connection closed")

// Socket is a stream socket with two modes. In blocking mode (the handshakes)
// it behaves as its net.Conn. In non-blocking mode (the relay) Read returns
// ErrWouldBlock instead of waiting and Write never waits: what the kernel does
// not take stays in the socket until Flush.
//
// It implements net.Conn, so that crypto/tls can run over either mode. One
// goroutine at a time may use it; only Close, AwaitReadable and AwaitWritable
// may be called from others.
type Socket struct {
	nc          net.Conn
	raw         syscall.RawConn
	nonBlocking bool
	prefix      []byte // given back by Unread
	pending     []byte // accepted by Write, not yet taken by the kernel
	sent        int    // how much of pending the kernel has taken

	// One closure per direction is made once, so that a system call through
	// RawConn allocates nothing; the operands travel in the fields. They go
	// through Control, which does not wait for an await that holds RawConn.Read.
	readFn, writeFn func(fd uintptr)
	buf             []byte
	n               int
	err             error

	// notify is called by the watches that Watch started; it may change owner
	// while a watch runs, because a server connection passes from one session
	// to the next.
	notify                    atomic.Pointer[func()]
	watchesRead, watchesWrite atomic.Bool

	// bounded is set while a deadline of the blocking mode is in force. A watch
	// that a former user started may still wait then; it must leave the deadline
	// alone, which it would otherwise take for an Interrupt.
	bounded atomic.Bool

	closeOnce sync.Once
	closed    atomic.Bool
	closeErr  error
}

// NewSocket wraps a TCP or Unix-domain connection, in blocking mode. The
// Socket owns nc from then on.
func NewSocket(nc net.Conn) (*Socket, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("wire: %T has no file descriptor", nc)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	s := &Socket{nc: nc, raw: raw}
	s.readFn = func(fd uintptr) { s.n, s.err = unix.Read(int(fd), s.buf) }
	s.writeFn = func(fd uintptr) { s.n, s.err = unix.Write(int(fd), s.buf) }
	return s, nil
}

// SetNonBlocking switches the mode. Deadlines of the blocking mode are cleared.
func (s *Socket) SetNonBlocking(on bool) error {
	s.nonBlocking = on
	s.bounded.Store(false)
	return s.nc.SetDeadline(time.Time{})
}

// Read reads at most len(p) bytes. In non-blocking mode it returns
// ErrWouldBlock when nothing is there.
func (s *Socket) Read(p []byte) (int, error) {
	if len(s.prefix) > 0 {
		n := copy(p, s.prefix)
		s.prefix = s.prefix[n:]
		return n, nil
	}
	if !s.nonBlocking {
		return s.nc.Read(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	for {
		s.buf = p
		err := s.raw.Control(s.readFn)
		s.buf = nil
		switch {
		case err != nil:
			return 0, s.deadError(err)
		case s.err == unix.EINTR:
		case s.err == unix.EAGAIN:
			return 0, ErrWouldBlock
		case s.err != nil:
			return 0, fmt.Errorf("read: %w", s.err)
		case s.n <= 0:
			return 0, io.EOF
		default:
			return s.n, nil
		}
	}
}

// Unread makes the next Read return p first. The Socket keeps p.
func (s *Socket) Unread(p []byte) { s.prefix = p }

// Write accepts all of p or fails for good. In non-blocking mode it does not
// wait: bytes that the kernel does not take are copied and stay pending.
func (s *Socket) Write(p []byte) (int, error) {
	if !s.nonBlocking {
		return s.nc.Write(p)
	}
	total := len(p)
	if s.Pending() == 0 {
		n, err := s.tryWrite(p)
		if err != nil {
			return 0, err
		}
		p = p[n:]
	}
	if len(p) > 0 {
		if s.sent > len(s.pending)/2 {
			// A slow peer that never takes all would make it grow for ever.
			s.pending = s.pending[:copy(s.pending, s.pending[s.sent:])]
			s.sent = 0
		}
		s.pending = append(s.pending, p...)
	}
	return total, nil
}

// Pending returns the number of bytes that Write accepted and the kernel has not.
func (s *Socket) Pending() int { return len(s.pending) - s.sent }

// Flush offers the pending bytes to the kernel once more, without waiting.
// Bytes may still be pending afterwards.
func (s *Socket) Flush() error {
	for s.Pending() > 0 {
		n, err := s.tryWrite(s.pending[s.sent:])
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		s.sent += n
	}
	// A burst must not leave its buffer behind on an idle connection.
	s.sent = 0
	if cap(s.pending) > 64<<10 {
		s.pending = nil
	}
	s.pending = s.pending[:0]
	return nil
}

// tryWrite writes what the kernel takes now; 0 means that it takes nothing.
func (s *Socket) tryWrite(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		s.buf = p[done:]
		err := s.raw.Control(s.writeFn)
		s.buf = nil
		switch {
		case err != nil:
			return done, s.deadError(err)
		case s.err == unix.EINTR:
		case s.err == unix.EAGAIN:
			return done, nil
		case s.err != nil:
			return done, fmt.Errorf("write: %w", s.err)
		default:
			done += s.n
		}
	}
	return done, nil
}

func (s *Socket) deadError(err error) error {
	if s.closed.Load() {
		return ErrClosed
	}
	return err
}

// AwaitReadable blocks until the socket has bytes to read, is at its end, has
// failed, is closed, or Interrupt was called. It may run beside other calls; it
// reads nothing.
func (s *Socket) AwaitReadable() error {
	err := s.raw.Read(func(fd uintptr) bool { return ready(fd, unix.POLLIN) })
	if errors.Is(err, os.ErrDeadlineExceeded) && !s.bounded.Load() {
		return s.nc.SetReadDeadline(time.Time{})
	}
	return err
}

// AwaitWritable blocks until the kernel would take bytes, the connection has
// failed, or is closed.
func (s *Socket) AwaitWritable() error {
	return s.raw.Write(func(fd uintptr) bool { return ready(fd, unix.POLLOUT) })
}

// Interrupt makes the AwaitReadable that runs now, or the next one, return
// early. Reads are not disturbed. In blocking mode with a deadline it does nothing.
func (s *Socket) Interrupt() {
	if !s.bounded.Load() {
		_ = s.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// SetNotify sets what watches call; nil for nothing. fn must not block.
func (s *Socket) SetNotify(fn *func()) { s.notify.Store(fn) }

// Watch has the notify function called once the socket is readable (or, with
// write, writable). Watching twice is watching once. The watch runs in a
// goroutine that ends with the event or when the socket is closed.
func (s *Socket) Watch(write bool) {
	flag, await := &s.watchesRead, s.AwaitReadable
	if write {
		flag, await = &s.watchesWrite, s.AwaitWritable
	}
	if !flag.CompareAndSwap(false, true) {
		return
	}
	go func() {
		_ = await() // an error is found again by the read or write that follows
		flag.Store(false)
		if fn := s.notify.Load(); fn != nil {
			(*fn)()
		}
	}()
}

// Watched reports whether a read watch is under way.
func (s *Socket) Watched() bool { return s.watchesRead.Load() }

// ready asks without waiting. RawConn resets its edge-triggered readiness
// before the first call, so the kernel must be asked each time.
func ready(fd uintptr, events int16) bool {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		n, err := unix.Poll(fds[:], 0)
		if err == unix.EINTR {
			continue
		}
		return err != nil || n > 0
	}
}

// Readable reports whether a read would return at once: bytes, end or error.
// On an idle server connection that means that it is of no more use.
func (s *Socket) Readable() bool {
	is := true
	if err := s.raw.Control(func(fd uintptr) { is = ready(fd, unix.POLLIN) }); err != nil {
		return true
	}
	return is
}

// Close closes the socket. It is idempotent and wakes the Await calls.
func (s *Socket) Close() error {
	s.closeOnce.Do(func() {
		s.closed.Store(true)
		s.closeErr = s.nc.Close()
	})
	return s.closeErr
}

// CloseRead ends AwaitReadable and makes further reads return io.EOF.
func (s *Socket) CloseRead() error {
	if c, ok := s.nc.(interface{ CloseRead() error }); ok {
		return c.CloseRead()
	}
	return nil
}

// LocalAddr returns the local address.
func (s *Socket) LocalAddr() net.Addr { return s.nc.LocalAddr() }

// RemoteAddr returns the peer's address.
func (s *Socket) RemoteAddr() net.Addr { return s.nc.RemoteAddr() }

// SetDeadline bounds blocking reads and writes; it must not be used in
// non-blocking mode.
func (s *Socket) SetDeadline(t time.Time) error {
	s.bounded.Store(!t.IsZero())
	return s.nc.SetDeadline(t)
}

// SetReadDeadline bounds blocking reads.
func (s *Socket) SetReadDeadline(t time.Time) error {
	s.bounded.Store(!t.IsZero())
	return s.nc.SetReadDeadline(t)
}

// SetWriteDeadline bounds blocking writes.
func (s *Socket) SetWriteDeadline(t time.Time) error { return s.nc.SetWriteDeadline(t) }

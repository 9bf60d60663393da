package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
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

	// The closures are made once, so that nothing allocates: a call goes through
	// callFn, which finds in the fields what to do. Calls go through Control, which
	// does not wait for an await that holds RawConn.Read.
	callFn                func(fd uintptr)
	canRead, canWrite     func(fd uintptr) bool
	watchRead, watchWrite func() // made by the first Watch
	call                  call
	buf                   []byte
	n                     int
	err                   error

	// asked[0] is set while an await has found nothing to read and waits for the
	// event, asked[1] the same of writing.
	asked [2]atomic.Bool

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
	s.callFn = s.do
	s.canRead = func(fd uintptr) bool { return arrived(&s.asked[0], fd, unix.POLLIN) }
	s.canWrite = func(fd uintptr) bool { return arrived(&s.asked[1], fd, unix.POLLOUT) }
	return s, nil
}

// call says which system call is to be made.
type call uint8

const (
	callReceive call = iota
	callTransmit
	callReady
)

func (s *Socket) do(fd uintptr) {
	switch s.call {
	case callReceive:
		s.n, s.err = receive(fd, s.buf)
	case callTransmit:
		s.n, s.err = transmit(fd, s.buf)
	case callReady:
		s.n = 0
		if ready(fd, unix.POLLIN) {
			s.n = 1
		}
	}
}

// try makes one call on p, whose outcome is in n and err; it fails when the
// socket is closed.
func (s *Socket) try(c call, p []byte) error {
	s.call, s.buf = c, p
	err := s.raw.Control(s.callFn)
	s.buf = nil
	return err
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
		err := s.try(callReceive, p)
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
	s.pending, s.sent = nil, 0 // a burst must not leave its buffer behind on an idle connection
	return nil
}

// tryWrite writes what the kernel takes now; 0 means that it takes nothing.
func (s *Socket) tryWrite(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		err := s.try(callTransmit, p[done:])
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

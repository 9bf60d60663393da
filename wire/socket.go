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
// may be called from others, and that only before Detach.
//
// Detach takes the descriptor away from the net package; from then on a Poller
// tells what is ready.
type Socket struct {
	net         *attached // nil once detached
	fd          int       // once detached
	nonBlocking bool
	closed      atomic.Bool

	// armed is what the poller's kernel side reports, wanted what the owner waits
	// for; armed is 0 when the descriptor is not with the kernel. blocked are goroutines that
	// wait in the blocking mode for it to be readable, and writable.
	armed, wanted readiness
	blocked       [2]*blocked
	slot          uint32
	poller        *Poller
	owner         atomic.Pointer[Waiter]

	pending []byte // accepted by Write, not yet taken by the kernel
	sent    int    // how much of pending the kernel has taken

	deadline int64 // of the blocking mode once detached, Unix nanoseconds; 0: none
}

// attached is what a Socket has besides while the net package owns the descriptor.
type attached struct {
	nc     net.Conn
	raw    syscall.RawConn
	prefix []byte // given back by Unread

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
	// alone, which it would otherwise take for an Interrupt. Who looks at it sets
	// the deadline before bounding lets anybody else set one.
	bounding sync.Mutex
	bounded  bool
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
	a := &attached{nc: nc, raw: raw}
	a.callFn = a.do
	a.canRead = func(fd uintptr) bool { return arrived(&a.asked[0], fd, unix.POLLIN) }
	a.canWrite = func(fd uintptr) bool { return arrived(&a.asked[1], fd, unix.POLLOUT) }
	return &Socket{net: a, fd: -1}, nil
}

// call says which system call is to be made.
type call uint8

const (
	callReceive call = iota
	callTransmit
	callReady
)

func (a *attached) do(fd uintptr) {
	switch a.call {
	case callReceive:
		a.n, a.err = receive(fd, a.buf)
	case callTransmit:
		a.n, a.err = transmit(fd, a.buf)
	case callReady:
		a.n, a.err = 0, nil
		if ready(fd, unix.POLLIN) {
			a.n = 1
		}
	}
}

// try makes one call on p; gone is not nil when the socket is closed.
func (s *Socket) try(c call, p []byte) (n int, err, gone error) {
	if a := s.net; a != nil {
		a.call, a.buf = c, p
		gone = a.raw.Control(a.callFn)
		a.buf = nil
		return a.n, a.err, gone
	}
	switch {
	case s.closed.Load():
		return 0, nil, ErrClosed
	case c == callReceive:
		s.count(c)
		n, err = receive(uintptr(s.fd), p)
	case c == callTransmit:
		s.count(c)
		n, err = transmit(uintptr(s.fd), p)
	case ready(uintptr(s.fd), unix.POLLIN):
		n = 1
	}
	return n, err, nil
}

// count counts a call by the socket's owner, which is the poller's goroutine.
func (s *Socket) count(c call) {
	if s.nonBlocking && s.owner.Load() != nil {
		s.poller.count(c)
	}
}

// SetNonBlocking switches the mode. Deadlines of the blocking mode are cleared.
func (s *Socket) SetNonBlocking(on bool) error {
	s.nonBlocking = on
	return s.SetDeadline(time.Time{})
}

// Read reads at most len(p) bytes. In non-blocking mode it returns
// ErrWouldBlock when nothing is there.
func (s *Socket) Read(p []byte) (int, error) {
	if a := s.net; a != nil {
		if len(a.prefix) > 0 {
			n := copy(p, a.prefix)
			a.prefix = a.prefix[n:]
			return n, nil
		}
		if !s.nonBlocking {
			return a.nc.Read(p)
		}
	}
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err, gone := s.try(callReceive, p)
		switch {
		case gone != nil:
			return 0, s.deadError(gone)
		case err == unix.EINTR:
		case err == unix.EAGAIN && s.nonBlocking:
			return 0, ErrWouldBlock
		case err == unix.EAGAIN:
			if err := s.block(readable); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					return 0, err // as it is, for crypto/tls must see that it may read on
				}
				return 0, fmt.Errorf("read: %w", err)
			}
		case err != nil:
			return 0, fmt.Errorf("read: %w", err)
		case n <= 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Unread makes the next Read return p first. The Socket keeps p. It is of the
// time before Detach.
func (s *Socket) Unread(p []byte) { s.net.prefix = p }

// Write accepts all of p or fails for good. In non-blocking mode it does not
// wait: bytes that the kernel does not take are copied and stay pending.
func (s *Socket) Write(p []byte) (int, error) {
	if !s.nonBlocking {
		return s.writeBlocking(p)
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
		n, err, gone := s.try(callTransmit, p[done:])
		switch {
		case gone != nil:
			return done, s.deadError(gone)
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return done, nil
		case err != nil:
			return done, fmt.Errorf("write: %w", err)
		default:
			done += n
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

// Close closes the socket. It is idempotent, and wakes the Await calls of one
// that is not detached.
func (s *Socket) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	if s.net != nil {
		return s.net.nc.Close()
	}
	if s.poller != nil {
		// First, for the number of the descriptor may be another's at once.
		s.poller.remove(s)
	}
	return unix.Close(s.fd)
}

// CloseRead ends AwaitReadable and makes further reads return io.EOF.
func (s *Socket) CloseRead() error {
	if s.net == nil {
		return unix.Shutdown(s.fd, unix.SHUT_RD)
	}
	if c, ok := s.net.nc.(interface{ CloseRead() error }); ok {
		return c.CloseRead()
	}
	return nil
}

// Shutdown ends both directions: who waits in a read or a write waits no more, and the
// connection is of no further use. Any goroutine may call it before Close.
func (s *Socket) Shutdown() error {
	if s.net == nil {
		return unix.Shutdown(s.fd, unix.SHUT_RDWR)
	}
	var err error
	if gone := s.net.raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_RDWR) }); gone != nil {
		return gone
	}
	return err
}

// HungUp reports whether the peer has closed its side, or the connection is lost, though
// what it sent before may not have been read. Any goroutine may call it before Close.
func (s *Socket) HungUp() (gone bool) {
	look := func(fd uintptr) {
		fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(fds[:], 0)
		gone = err == nil && n > 0 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	}
	if s.net == nil {
		look(uintptr(s.fd))
		return gone
	}
	_ = s.net.raw.Control(look) // an error: it is closed here, and nobody waits for it
	return gone
}

// LocalAddr returns the local address, nil of a detached socket.
func (s *Socket) LocalAddr() net.Addr {
	if s.net == nil {
		return nil
	}
	return s.net.nc.LocalAddr()
}

// RemoteAddr returns the peer's address, nil of a detached socket.
func (s *Socket) RemoteAddr() net.Addr {
	if s.net == nil {
		return nil
	}
	return s.net.nc.RemoteAddr()
}

// SetDeadline bounds blocking reads and writes; it must not be used in
// non-blocking mode.
func (s *Socket) SetDeadline(t time.Time) error {
	if a := s.net; a != nil {
		a.bounding.Lock()
		defer a.bounding.Unlock()
		a.bounded = !t.IsZero()
		return a.nc.SetDeadline(t)
	}
	s.deadline = 0
	if !t.IsZero() {
		s.deadline = t.UnixNano()
	}
	return nil
}

// SetReadDeadline bounds blocking reads; once detached, writes too.
func (s *Socket) SetReadDeadline(t time.Time) error {
	if a := s.net; a != nil {
		a.bounding.Lock()
		defer a.bounding.Unlock()
		a.bounded = !t.IsZero()
		return a.nc.SetReadDeadline(t)
	}
	return s.SetDeadline(t)
}

// SetWriteDeadline bounds blocking writes; once detached, reads too.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	if a := s.net; a != nil {
		return a.nc.SetWriteDeadline(t)
	}
	return s.SetDeadline(t)
}

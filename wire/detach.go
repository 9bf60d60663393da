package wire

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Detach takes the descriptor away from the net package, whose poller would
// otherwise be told of every event too. The caller is the socket's only user, in
// either mode, and stays it: a Socket that a Poller serves has no watches. After
// an error the socket is as it was, or closed.
func (s *Socket) Detach() error {
	a := s.net
	switch {
	case a == nil:
		return nil
	case len(a.prefix) > 0:
		return errors.New("wire: bytes that were given back are not read yet")
	}
	fd, err := -1, error(nil)
	gone := a.raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if gone != nil {
		return s.deadError(gone)
	}
	if err != nil {
		return fmt.Errorf("wire: take over the descriptor: %w", err)
	}
	s.fd, s.net = fd, nil
	// Leaves the runtime's poller; the connection lives on by the other descriptor.
	if err := a.nc.Close(); err != nil {
		_ = s.Close() // the first error is the one to report
		return fmt.Errorf("wire: take over the descriptor: %w", err)
	}
	return nil
}

// block waits, up to the deadline, until the detached descriptor is ready, or shorter. Without
// a Poller it takes a thread meanwhile.
func (s *Socket) block(want readiness) error {
	if s.poller != nil {
		if served, err := s.poller.block(s, want); served {
			return err
		}
	}
	events := int16(unix.POLLIN)
	if want == writable {
		events = unix.POLLOUT
	}
	for {
		timeout := -1
		if s.deadline != 0 {
			left := time.Until(time.Unix(0, s.deadline))
			if left <= 0 {
				return os.ErrDeadlineExceeded
			}
			timeout = int((left + time.Millisecond - 1) / time.Millisecond)
		}
		fds := [1]unix.PollFd{{Fd: int32(s.fd), Events: events}}
		n, err := unix.Poll(fds[:], timeout)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n > 0:
			return nil
		}
	}
}

func (s *Socket) writeBlocking(p []byte) (int, error) {
	if s.net != nil {
		return s.net.nc.Write(p)
	}
	done := 0
	for {
		n, err := s.tryWrite(p[done:])
		done += n
		if err != nil || done == len(p) {
			return done, err
		}
		if err := s.block(writable); err != nil {
			return done, fmt.Errorf("write: %w", err)
		}
	}
}

// readiness is what a socket is, or may be waited for to be.
type readiness uint8

const (
	readable readiness = 1 << iota
	writable
)

// Waiter is told, by the goroutine that runs Poller.Wait, that a socket is ready.
type Waiter interface {
	Ready(s *Socket, read, write bool)
}

// SetOwner says who is told when a socket that a Poller serves is ready. The
// pointer is kept; what it points to must not change.
func (s *Socket) SetOwner(w *Waiter) { s.owner.Store(w) }

// Abandon makes nobody be told of the socket any more. Any goroutine that may use
// the socket may call it.
func (s *Socket) Abandon() {
	s.owner.Store(nil)
	if s.net != nil {
		s.net.notify.Store(nil)
	}
}

// Poller returns what serves the socket, nil for nothing.
func (s *Socket) Poller() *Poller { return s.poller }

// Silent reports, without a system call, that p would have been told if
// something had come on the idle socket. Only the goroutine that runs p.Wait may
// call it. False means that it is not known.
func (s *Socket) Silent(p *Poller) bool {
	return p != nil && s.poller == p && s.armed&readable != 0
}

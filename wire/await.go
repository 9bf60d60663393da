package wire

import (
	"errors"
	"os"
	"sync/atomic"
	"time"
)

// ErrInterrupted is returned by an await that Interrupt ended.
var ErrInterrupted = errors.New("wire: wait interrupted")

// What follows is for sockets that are not detached.

// AwaitReadable blocks until the socket has bytes to read, is at its end, has
// failed, or is closed; ErrInterrupted says that Interrupt was called instead. It
// may run beside other calls; it reads nothing. Rarely it returns nil although
// there is nothing to read.
func (s *Socket) AwaitReadable() error {
	a := s.net
	err := a.raw.Read(a.canRead)
	if err == nil {
		return nil
	}
	a.asked[0].Store(false)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		switch set, gone := a.interrupt(time.Time{}); {
		case gone != nil:
			return gone
		case set:
			return ErrInterrupted
		}
	}
	return err
}

// interrupt sets the read deadline, by which an await is interrupted, or clears it
// behind that; it reports false, and sets nothing, while the deadline is one of the
// blocking mode.
func (a *attached) interrupt(t time.Time) (bool, error) {
	a.bounding.Lock()
	defer a.bounding.Unlock()
	if a.bounded {
		return false, nil
	}
	return true, a.nc.SetReadDeadline(t)
}

// AwaitWritable blocks until the kernel would take bytes, the connection has
// failed, or is closed. Rarely it returns nil although the kernel takes none.
func (s *Socket) AwaitWritable() error {
	a := s.net
	err := a.raw.Write(a.canWrite)
	if err != nil {
		a.asked[1].Store(false)
	}
	return err
}

// arrived is what RawConn.Read and Write call: once before they wait, and again
// after each event. They forget, before the first call, the events that have
// come: the kernel must be asked. After an event it need not be: at worst the
// event was of something that is gone, and the read that follows finds nothing.
func arrived(asked *atomic.Bool, fd uintptr, events int16) bool {
	if asked.Load() {
		asked.Store(false)
		return true
	}
	if ready(fd, events) {
		return true
	}
	asked.Store(true)
	return false
}

// Interrupt makes the AwaitReadable that runs now, or the next one, return
// early. Reads are not disturbed. In blocking mode with a deadline it does nothing.
func (s *Socket) Interrupt() {
	_, _ = s.net.interrupt(time.Unix(1, 0)) // an error: it is closed, and nobody waits
}

// SetNotify sets what watches call; nil for nothing. fn must not block.
func (s *Socket) SetNotify(fn *func()) { s.net.notify.Store(fn) }

// Watch has the notify function called once the socket is readable (or, with
// write, writable). Watching twice is watching once. The watch runs in a
// goroutine that ends with the event or when the socket is closed.
func (s *Socket) Watch(write bool) {
	a := s.net
	flag, run := &a.watchesRead, &a.watchRead
	if write {
		flag, run = &a.watchesWrite, &a.watchWrite
	}
	if !flag.CompareAndSwap(false, true) {
		return
	}
	if *run == nil {
		*run = func() { s.watch(write) }
	}
	go (*run)()
}

// watch is the goroutine of one watch.
func (s *Socket) watch(write bool) {
	// An error is found again by the read or write that follows.
	if write {
		_ = s.AwaitWritable()
		s.net.watchesWrite.Store(false)
	} else {
		_ = s.AwaitReadable()
		s.net.watchesRead.Store(false)
	}
	if fn := s.net.notify.Load(); fn != nil {
		(*fn)()
	}
}

// Watched reports whether a read watch is under way.
func (s *Socket) Watched() bool { return s.net.watchesRead.Load() }

// Readable reports whether a read would return at once: bytes, end or error.
// On an idle server connection that means that it is of no more use.
func (s *Socket) Readable() bool {
	n, _, gone := s.try(callReady, nil)
	return gone != nil || n > 0
}

package wire

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PollerSupported tells whether NewPoller can succeed on this system.
const PollerSupported = true

const (
	// eventsMax is how many events one wait returns.
	eventsMax = 256
	// rawLimit bounds a wait that the Go scheduler does not know of.
	rawLimit = 5 * time.Millisecond
)

// Poller tells which of many detached sockets are ready. One goroutine runs
// Wait and Arm; Wake, Close of a socket, and Add of one that another Poller
// serves may come from any.
//
// It is level-triggered: what is not read is told again. What nobody waits for
// is taken off the kernel's list when it happens, so that it is told once.
type Poller struct {
	fd, wake int
	hybrid   bool
	quiet    bool // the last raw wait brought nothing
	events   []unix.EpollEvent
	ready    []Ready
	// sleeping is set while nobody looks at what Wake is for.
	sleeping atomic.Bool
	calls    Calls

	gone chan struct{} // closed by Close

	// mu guards what follows, and armed, blocked, slot and poller of the sockets.
	mu     sync.Mutex
	slots  []slot
	free   []uint32
	closed bool
}

// slot is what the kernel names a socket by. gen tells the users of one slot
// apart: an event may be of a socket that was closed while it was on its way.
type slot struct {
	socket *Socket
	gen    uint32
}

// Calls counts system calls: waits for events, changes of what is waited for,
// and reads and writes of the sockets in non-blocking mode.
type Calls struct{ Waits, Controls, Reads, Writes uint64 }

// Ready is a socket that its owner waited for.
type Ready struct {
	Owner       Waiter
	Socket      *Socket
	Read, Write bool
}

// NewPoller returns a Poller. With hybrid it waits in a way that is cheap while
// there is much to do; that takes a processor of GOMAXPROCS for itself.
func NewPoller(hybrid bool) (*Poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("wire: epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(fd) // the first error is the one to report
		return nil, fmt.Errorf("wire: eventfd: %w", err)
	}
	p := &Poller{fd: fd, wake: wake, hybrid: hybrid && rawCalls, events: make([]unix.EpollEvent, eventsMax), gone: make(chan struct{})}
	p.slots = make([]slot, 1) // the first is the eventfd's
	// Edge-triggered: each write is told of once, and nobody needs to read.
	if err := p.control(unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close gives the descriptors back. Sockets may be closed, or added elsewhere, later.
func (p *Poller) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		close(p.gone)
		_ = unix.Close(p.fd) // nothing can be done about it
		_ = unix.Close(p.wake)
	}
}

// Add makes p serve the socket, which nothing waits for yet. It detaches it, and
// takes it from another Poller, when that has not been done.
func (p *Poller) Add(s *Socket) error {
	if s.poller == p {
		return nil
	}
	if err := s.Detach(); err != nil {
		return err
	}
	if s.poller != nil {
		s.poller.remove(s)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var at uint32
	if n := len(p.free); n > 0 {
		at, p.free = p.free[n-1], p.free[:n-1]
	} else {
		at = uint32(len(p.slots))
		p.slots = append(p.slots, slot{})
	}
	p.slots[at].socket = s
	s.poller, s.slot, s.armed, s.wanted = p, at, 0, 0
	return nil
}

// remove ends what Add began.
func (p *Poller) remove(s *Socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.armed != 0 && !p.closed {
		_ = p.controlLocked(s, 0) // the descriptor goes away in any case
	}
	p.slots[s.slot] = slot{gen: p.slots[s.slot].gen + 1}
	p.free = append(p.free, s.slot)
	s.poller, s.armed = nil, 0
}

// Arm says what the socket's owner waits for from now on. It makes a system call
// only for what was not waited for before: what is wanted no more is given up
// when it happens. After an error the socket is of no more use.
func (p *Poller) Arm(s *Socket, read, write bool) error {
	var want readiness
	if read {
		want = readable
	}
	if write {
		want |= writable
	}
	s.wanted = want
	// Of a socket that another goroutine uses, in blocking mode, nothing is wanted: armed is that one's.
	if want == 0 || want&^s.armed == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.controlLocked(s, want)
}

// controlLocked makes want what the kernel tells of the socket. Of one that is
// with the kernel it always tells errors and hang-ups: it is taken off when
// nothing is wanted.
func (p *Poller) controlLocked(s *Socket, want readiness) error {
	ev := unix.EpollEvent{Fd: int32(s.slot), Pad: int32(p.slots[s.slot].gen)}
	if want&readable != 0 {
		ev.Events = unix.EPOLLIN
	}
	if want&writable != 0 {
		ev.Events |= unix.EPOLLOUT
	}
	op := unix.EPOLL_CTL_MOD
	switch {
	case want == 0:
		op = unix.EPOLL_CTL_DEL
	case s.armed == 0:
		op = unix.EPOLL_CTL_ADD
	}
	s.armed = want
	return p.control(op, s.fd, &ev)
}

func (p *Poller) control(op, fd int, ev *unix.EpollEvent) error {
	p.calls.Controls++
	if err := unix.EpollCtl(p.fd, op, fd, ev); err != nil {
		return fmt.Errorf("wire: epoll_ctl: %w", err)
	}
	return nil
}

// Drowse says that the next Wait is to be ended by a Wake. What Wake is called
// for must be looked at once more between the two.
func (p *Poller) Drowse() { p.sleeping.Store(true) }

// Wake ends the Wait that runs, or the next one, if Drowse was called since the
// last. Any goroutine may call it.
func (p *Poller) Wake() {
	if p.sleeping.CompareAndSwap(true, false) {
		one := uint64(1)
		// It can only fail when the poller is closed.
		_, _ = unix.Write(p.wake, unsafe.Slice((*byte)(unsafe.Pointer(&one)), 8))
	}
}

// Wait returns the sockets that are ready for what their owners wait for; with
// block, once there is one or Wake was called. It may return none at any time.
// The slice is valid until the next Wait.
func (p *Poller) Wait(block bool) []Ready {
	clear(p.ready)
	p.ready = p.ready[:0]
	n := p.wait(block)
	p.sleeping.Store(false)
	if n == 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.events[:n] {
		p.noteLocked(&p.events[i])
	}
	return p.ready
}

func (p *Poller) noteLocked(ev *unix.EpollEvent) {
	sl := &p.slots[uint32(ev.Fd)]
	s := sl.socket
	if s == nil || sl.gen != uint32(ev.Pad) {
		return // the eventfd, or a socket that is gone
	}
	var is readiness
	if ev.Events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		is = readable
	}
	if ev.Events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		is |= writable
	}
	if s.blockedFor() != 0 {
		p.unblockLocked(s, is)
		return
	}
	owner := s.owner.Load()
	if owner == nil {
		_ = p.controlLocked(s, 0) // whoever gets it next finds out: see Silent
		return
	}
	if is &= s.wanted; is == 0 {
		_ = p.controlLocked(s, s.wanted) // as above
		return
	}
	p.ready = append(p.ready, Ready{*owner, s, is&readable != 0, is&writable != 0})
}

// wait is the hybrid wait: past the scheduler, which costs least, as long as
// that brings something within rawLimit; through it, so that the processor is
// free for others, when it has not.
func (p *Poller) wait(block bool) int {
	p.calls.Waits++
	if !block {
		return max(p.rawWait(0), 0)
	}
	if p.hybrid && !p.quiet {
		n := p.rawWait(int(rawLimit / time.Millisecond))
		if n != 0 {
			return max(n, 0) // negative: a signal, by which the scheduler wants the processor
		}
		p.quiet = true
		p.calls.Waits++
	}
	n, err := unix.EpollWait(p.fd, p.events, -1)
	p.quiet = false
	if err != nil {
		return 0 // a signal
	}
	return n
}

// Calls returns the counts. Only the goroutine that runs Wait may ask.
func (p *Poller) Calls() Calls {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

func (p *Poller) count(c call) {
	if c == callReceive {
		p.calls.Reads++
	} else {
		p.calls.Writes++
	}
}

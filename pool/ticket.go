package pool

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// Ticket is a borrower's place in the queue. Done turns true at most once, after
// which Result holds; Wake is called then. A borrower may queue with the same Ticket
// again once Done has said true, or Cancel has returned, to whichever pool.
type Ticket struct {
	pool   *nodePool
	wake   func()
	since  time.Time
	seq    uint64 // of the pool's count of tickets and dials
	done   atomic.Bool
	server *Server
	err    error

	before, behind *Ticket // in the queue
}

// endLocked says what came of the wait: from then on t is the borrower's alone.
func (t *Ticket) endLocked(s *Server, err error) {
	wake := t.wake
	t.server, t.err = s, err
	t.done.Store(true)
	wake()
}

// Done reports whether the wait is over.
func (t *Ticket) Done() bool { return t.done.Load() }

// Result returns what came of it: a connection, or the error of a dial.
func (t *Ticket) Result() (*Server, error) { return t.server, t.err }

// Since returns when the wait began.
func (t *Ticket) Since() time.Time { return t.since }

// Cancel leaves the queue. A connection that was granted meanwhile goes back.
func (t *Ticket) Cancel() {
	p := t.pool
	p.mu.Lock()
	if !t.done.Load() {
		p.waiting.remove(t)
		if !p.wantsLocked(p.user.policy(), p.pools.now()) {
			p.pools.room.leave(p)
		}
		t.err = context.Canceled
		t.done.Store(true)
		p.mu.Unlock()
		return
	}
	s := t.server
	p.mu.Unlock()
	if s != nil {
		p.release(s, Clean)
	}
}

// DialError says that a server connection could not be opened. Nothing was
// sent, so the statement may be tried elsewhere.
type DialError struct {
	Node    int
	Address string
	Err     error
}

func (e *DialError) Error() string { return "connect to " + e.Address + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// SafeToRetry reports that nothing of a statement reached a server.
func (e *DialError) SafeToRetry() bool { return true }

// Errors of Acquire and, ErrResumed alone, of Pause.
var (
	ErrClosed    = errors.New("pool: closed")
	ErrQueueFull = errors.New("pool: too many statements wait for a server connection")
	ErrResumed   = errors.New("pool: resumed while pausing")
)

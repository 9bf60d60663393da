package sequence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/metadata"
	"shardproxy/router"
)

const (
	// blockMax bounds how many values are drawn ahead, quick how soon a draw must follow
	// the one before for its block to be twice as large.
	blockMax = 1000
	quick    = 200 * time.Millisecond
	// stale is how long what is left of a block is given out, and how long a role's
	// privilege is remembered.
	stale = 10 * time.Second
	// margin is how far a sequence moves beyond what is known after a failover: other
	// proxies may hold blocks of values that were drawn before.
	margin = 100 * blockMax
	// reach is how far beyond a sequence the values of rows are looked at.
	reach = 10 * margin
	// lockWait bounds the wait for a lock, milliseconds: meanwhile nobody else draws.
	lockWait = 300
)

// ErrClosed is returned by Draw after Close.
var ErrClosed = errors.New("sequence: allocator is closed")

// Shard is one of the cluster's shards.
type Shard struct {
	Name string
	// Connect leads to the shard's primary, as the control user.
	Connect metadata.Connect
}

// Options say where sequences are. Shards is required.
type Options struct {
	// Shards are all of the cluster's; the first is the home shard.
	Shards []Shard
	// Timeout bounds one draw; 0 means DefaultTimeout.
	Timeout time.Duration
	Logger  *slog.Logger // slog.Default when nil
}

// DefaultTimeout is that of Options.
const DefaultTimeout = 5 * time.Second

// Allocator gives out values of sequences.
type Allocator struct {
	opts Options
	// home is held while the connection is used, and guards it.
	home chan struct{}
	conn *pgx.Conn
	// connMoved is what moved was when it was made.
	connMoved uint64
	unique    *unique

	mu     sync.Mutex
	states map[key]*state
	moved  uint64 // how often the home shard has changed its primary
	closed bool
}

// key is what values are drawn for: tables may share a sequence.
type key struct{ sequence, table, column string }

// state is what is known of one sequence. Its fields are guarded by Allocator.mu.
type state struct {
	drawing chan struct{} // one draws at a time
	values  []int64       // drawn and not given out
	drawn   time.Time
	size    int    // of the next block
	beyond  uint64 // Allocator.moved when it was made sure of; 0: never
	top     int64  // the largest value that was drawn
	allowed map[string]time.Time
}

// New returns an Allocator, which connects when it is first asked.
func New(o Options) *Allocator {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return &Allocator{opts: o, home: make(chan struct{}, 1), states: map[key]*state{}, moved: 1, unique: newUnique()}
}

// Close ends the connection. Draws that are under way fail.
func (a *Allocator) Close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.closeUnique()
	a.home <- struct{}{}
	a.hangUp()
	<-a.home
}

// Moved says that the home shard has another primary: what is left of blocks is not
// given out, and nothing is taken for granted.
func (a *Allocator) Moved() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.moved++
	a.forgetLocked()
}

// Forget gives up what is left of all blocks: sequences may have been set.
func (a *Allocator) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forgetLocked()
}

func (a *Allocator) forgetLocked() {
	for _, st := range a.states {
		st.values, st.size = nil, 0
	}
}

func keyOf(d *router.Draw) key { return key{d.Sequence, d.Schema + "." + d.Table, d.Column} }

func (a *Allocator) state(d *router.Draw) *state {
	k := keyOf(d)
	st := a.states[k]
	if st == nil {
		st = &state{drawing: make(chan struct{}, 1), allowed: map[string]time.Time{}}
		a.states[k] = st
	}
	return st
}

// Take returns n values that were drawn before; ok is false when there are not so
// many, or it is not known whether the role may draw: then Draw must be asked.
func (a *Allocator) Take(role string, d *router.Draw, n int) (values []int64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	st := a.state(d)
	now := time.Now()
	if len(st.values) < n || now.Sub(st.drawn) > stale || !d.Identity && now.Sub(st.allowed[role]) > stale {
		return nil, false
	}
	values, st.values = st.values[:n:n], st.values[n:]
	return values, true
}

// Draw returns n values for an INSERT by a role. It waits for the home shard, up to the
// timeout. An error of the server is a *wire.Error with its SQLSTATE (2200H: the
// sequence has ended; 42501: the role may not draw); when the server could not be asked
// it is one of 57P03. Nothing is given out then, and the call may be repeated.
func (a *Allocator) Draw(ctx context.Context, role string, d *router.Draw, n int) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, a.opts.Timeout)
	defer cancel()
	a.mu.Lock()
	st := a.state(d)
	a.mu.Unlock()
	select {
	case st.drawing <- struct{}{}:
		defer func() { <-st.drawing }()
	case <-ctx.Done():
		return nil, unreachable(d, ctx.Err())
	}
	if values, ok := a.Take(role, d, n); ok {
		return values, nil // another has drawn meanwhile
	}
	return a.draw(ctx, st, role, d, n)
}

// draw draws a block, of which n values are given out.
func (a *Allocator) draw(ctx context.Context, st *state, role string, d *router.Draw, n int) ([]int64, error) {
	a.mu.Lock()
	now := time.Now()
	size := n
	if now.Sub(st.drawn) < quick {
		size = max(n, min(2*max(st.size, 1), blockMax))
	}
	check := !d.Identity && now.Sub(st.allowed[role]) > stale
	moved, beyond, top := a.moved, st.beyond, st.top
	a.mu.Unlock()

	var values []int64
	err := a.onHome(ctx, func(conn *pgx.Conn) error {
		if check {
			if err := mayDraw(ctx, conn, role, d); err != nil {
				return err
			}
		}
		if beyond != moved {
			if err := a.moveBeyond(ctx, conn, d, top, beyond != 0); err != nil {
				return err
			}
		}
		var err error
		values, err = nextValues(ctx, conn, d, size, n)
		return err
	})
	if locked(err) {
		// Somebody alters the sequence: others may draw from theirs meanwhile.
		select {
		case <-ctx.Done():
			return nil, unreachable(d, err)
		case <-time.After(20 * time.Millisecond):
			return a.draw(ctx, st, role, d, n)
		}
	}
	if err != nil {
		return nil, told(d, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	st.top = max(st.top, values[len(values)-1])
	if check {
		st.allowed[role] = now
	}
	if moved != a.moved {
		// The server that gave them may be one that nobody follows.
		return nil, unreachable(d, errors.New("the home shard has changed its primary meanwhile"))
	}
	st.beyond, st.drawn, st.size, st.values = moved, now, size, values[n:]
	return values[:n:n], nil
}

// onHome runs f on the connection to the home shard, which it makes if need be.
func (a *Allocator) onHome(ctx context.Context, f func(*pgx.Conn) error) error {
	select {
	case a.home <- struct{}{}:
		defer func() { <-a.home }()
	case <-ctx.Done():
		return ctx.Err()
	}
	a.mu.Lock()
	closed, moved := a.closed, a.moved
	a.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if a.conn != nil && (a.conn.IsClosed() || a.connMoved != moved) {
		a.hangUp()
	}
	if a.conn == nil {
		conn, err := a.opts.Shards[0].Connect(ctx)
		if err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, fmt.Sprintf("SET lock_timeout = %d", lockWait)); err != nil {
			_ = conn.Close(ctx) // the first error is the one to report
			return err
		}
		a.conn, a.connMoved = conn, moved
	}
	err := f(a.conn)
	if a.conn.IsClosed() {
		a.conn = nil
	}
	return err
}

// hangUp gives up the connection. The caller has home.
func (a *Allocator) hangUp() {
	if a.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = a.conn.Close(ctx) // it is of no use either way
	a.conn = nil
}

package twopc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/wire"
)

// Defaults of FenceOptions.
const (
	DefaultFenceWait   = 5 * time.Second
	DefaultFenceWindow = time.Second
)

// FenceOptions say whose transactions are kept out. Cluster and Shards are required.
type FenceOptions struct {
	Database string // its name, for the log and for metrics
	Cluster  string // metadata.Cluster.ID
	Shards   []Shard
	// Wait bounds how long a window is waited for, Window how long it is open: commits over
	// several shards wait meanwhile. Timeout bounds each statement.
	Wait, Window, Timeout time.Duration
	// Waited is called when a window had to be waited for, as a transaction in doubt would have it.
	Waited     func()
	Logger     *slog.Logger          // slog.Default when nil
	Registerer prometheus.Registerer // no metrics when nil
}

// Fence opens windows in which no transaction over several shards is half committed on the
// shards of the window, nor becomes so: snapshots that are taken in one window on different
// shards see each such transaction on all of them or on none.
//
// Each prepared part holds an advisory lock of its shard, shared, from before it prepares until
// it is committed or rolled back; the lock is the prepared transaction's own, so that no crash
// parts them. A window holds the locks of its shards alone. Between the decision of a transaction
// and the end of its last part some part is prepared; so no window is open on that one's shard.
//
// All who wait for a window of this process enter the next one together. Any number of processes
// may have fences. The methods may be called from any goroutine.
type Fence struct {
	opts    FenceOptions
	figures fenceFigures

	mu      sync.Mutex
	waiting []*Window
	running bool
	closed  bool

	wake     chan struct{}   // capacity 1
	ctx      context.Context // of the keeper
	cancel   context.CancelFunc
	tasks    sync.WaitGroup
	metric   *fenceCollector
	sessions []*session // by shard, nil when there is none; the keeper's, but see opening.mu
}

// Window is one caller's part of an open window.
type Window struct {
	fence  *Fence
	shards []int
	opened chan error    // gets one value
	left   chan struct{} // closed when the caller has done what it came for
	result chan error    // gets one value behind left
	shared *opening
}

// opening is what those who share a window have in common.
type opening struct {
	addresses []string // by shard

	mu       sync.Mutex // held while a session is asked
	over     bool
	moved    []int // shards whose connections are to be made anew
	sessions []*session
}

// NewFence returns a fence that has no connections yet. It fails only on impossible options.
func NewFence(o FenceOptions) (*Fence, error) {
	if !validCluster(o.Cluster) {
		return nil, fmt.Errorf("twopc: %q is no cluster", o.Cluster)
	}
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{{&o.Wait, DefaultFenceWait}, {&o.Window, DefaultFenceWindow}, {&o.Timeout, DefaultResolverTimeout}} {
		if *d.v <= 0 {
			*d.v = d.d
		}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Waited == nil {
		o.Waited = func() {}
	}
	f := &Fence{opts: o, sessions: make([]*session, len(o.Shards)), wake: make(chan struct{}, 1)}
	f.metric = newFenceCollector(f)
	f.ctx, f.cancel = context.WithCancel(context.Background())
	if o.Registerer != nil {
		if err := o.Registerer.Register(f.metric); err != nil {
			f.cancel()
			return nil, fmt.Errorf("twopc: register metrics: %w", err)
		}
	}
	return f, nil
}

// Close ends the fence's connections and waits for that. Windows that are open fail.
func (f *Fence) Close() {
	f.mu.Lock()
	again := f.closed
	f.closed = true
	f.mu.Unlock()
	f.cancel()
	f.tasks.Wait()
	if !again && f.opts.Registerer != nil {
		f.opts.Registerer.Unregister(f.metric)
	}
}

// Enter waits for a window on shards, given by their places. The caller opens its snapshots
// and calls Leave, soon. The error is a *wire.Error for the client, of severity ERROR: 40001 when a
// transaction that is being committed did not end in time, 08006 when a shard cannot be reached;
// or that of ctx. It may be tried again.
func (f *Fence) Enter(ctx context.Context, shards []int) (*Window, error) {
	w := &Window{fence: f, shards: shards, opened: make(chan error, 1), left: make(chan struct{}), result: make(chan error, 1)}
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil, ErrClosed
	}
	f.waiting = append(f.waiting, w)
	if !f.running {
		f.running = true
		f.tasks.Go(f.keep)
	}
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
	select {
	case err := <-w.opened:
		if err != nil {
			return nil, err
		}
		return w, nil
	case <-ctx.Done():
	}
	close(w.left) // the window may be open by now, and does not wait
	return nil, context.Cause(ctx)
}

// Leave ends the caller's part of the window. A nil error says that no transaction has become
// half committed on the window's shards since Enter returned. With any other error, a *wire.Error for
// the client as of Enter, snapshots that were taken meanwhile may not be used.
func (w *Window) Leave() error {
	close(w.left)
	return <-w.result
}

// Address is the address of the server, as Shard.Connect has it, whose fence is held for a
// shard: snapshots must be those of the same one.
func (w *Window) Address(shard int) string { return w.shared.addresses[shard] }

// Moved has the fence leave the server of a shard, which is another than snapshots are of. It is
// called before Leave.
func (w *Window) Moved(shard int) {
	w.shared.mu.Lock()
	defer w.shared.mu.Unlock()
	w.shared.moved = append(w.shared.moved, shard)
}

const unseenSQL = `SELECT EXISTS (SELECT FROM shardproxy.parts WHERE xid >= pg_snapshot_xmin($1::text::pg_snapshot) AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot))
	OR EXISTS (SELECT FROM shardproxy.commits WHERE committed AND xid >= pg_snapshot_xmin($1::text::pg_snapshot) AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot))`

// Unseen reports whether a transaction over several shards has been committed on a shard of the
// window that a snapshot of its, as pg_current_snapshot gives it, does not see. The snapshot must be
// younger than MaxSnapshotAge.
func (w *Window) Unseen(ctx context.Context, shard int, snapshot string) (bool, error) {
	w.shared.mu.Lock()
	defer w.shared.mu.Unlock()
	if w.shared.over {
		return false, errTooSlow()
	}
	ctx, cancel := context.WithTimeout(ctx, w.fence.opts.Timeout)
	defer cancel()
	var unseen bool
	if err := w.shared.sessions[shard].conn.QueryRow(ctx, unseenSQL, snapshot).Scan(&unseen); err != nil {
		return false, w.fence.unreachable(shard, err)
	}
	return unseen, nil
}

// MaxSnapshotAge is how old a snapshot may be for Window.Unseen: what came behind older ones may
// be forgotten.
const MaxSnapshotAge = DefaultKeep / 2

// keep opens windows as long as somebody waits for one, and closes the connections some time
// after that.
func (f *Fence) keep() {
	for {
		all, over := f.next()
		switch {
		case over:
			return
		case all == nil:
			for i := range f.sessions {
				f.drop(i)
			}
		default:
			f.open(all)
		}
	}
}

// idleWait is how long the keeper waits for somebody to come before it ends its connections.
const idleWait = sessionLife

// next waits for those who want a window; nil when there is none for a while. Those who have
// given up are not among them. It is over when the fence is closed, or nobody comes and no connection
// is left to be kept.
func (f *Fence) next() (_ []*Window, over bool) {
	idle, kept := time.Now(), slices.ContainsFunc(f.sessions, func(s *session) bool { return s != nil })
	tick := time.NewTicker(idleWait / 10)
	defer tick.Stop()
	for {
		f.mu.Lock()
		all := f.waiting
		f.waiting = nil
		if over = len(all) == 0 && !kept; over {
			f.running = false
		}
		closed := f.closed
		f.mu.Unlock()
		all = slices.DeleteFunc(all, func(w *Window) bool { return isClosed(w.left) })
		switch {
		case len(all) > 0 || over:
			return all, over
		case closed || time.Since(idle) > idleWait:
			return nil, false
		}
		select {
		case <-f.wake:
		case <-tick.C:
		case <-f.ctx.Done():
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// open opens one window for all who wait, and closes it when they have left.
func (f *Fence) open(all []*Window) {
	var shards []int
	for _, w := range all {
		shards = append(shards, w.shards...)
	}
	slices.SortFunc(shards, func(a, b int) int { return strings.Compare(f.opts.Shards[a].Name, f.opts.Shards[b].Name) })
	shards = slices.Compact(shards)
	began := time.Now()
	if err := f.acquire(shards); err != nil {
		f.count(&f.figures.refused, began)
		for _, w := range all {
			w.opened <- err
		}
		return
	}
	o := &opening{sessions: f.sessions, addresses: make([]string, len(f.sessions))}
	for _, i := range shards {
		o.addresses[i] = f.sessions[i].address()
	}
	for _, w := range all {
		w.shared = o
		w.opened <- nil
	}
	inTime := f.await(all)
	o.mu.Lock()
	o.over = true
	o.mu.Unlock()
	failed := f.releaseAll(shards)
	for _, i := range o.moved {
		f.drop(i)
	}
	f.count(&f.figures.opened, began)
	for i, w := range all {
		if !inTime[i] {
			w.result <- errTooSlow()
			continue
		}
		w.result <- failed
	}
}

// await waits until all have left, as long as a window may be open, and returns who has.
func (f *Fence) await(all []*Window) (inTime []bool) {
	ctx, cancel := context.WithTimeout(f.ctx, f.opts.Window)
	defer cancel()
	inTime = make([]bool, len(all))
	for i, w := range all {
		select {
		case <-w.left:
			inTime[i] = true
		case <-ctx.Done():
			inTime[i] = isClosed(w.left)
		}
	}
	return inTime
}

// errTooSlow is what the client is told when its snapshots were not open in time.
func errTooSlow() *wire.Error {
	return wire.Errorf("40001", "the shards could not be read at one moment: it took too long to begin on all of them").
		WithHint("Try it again, or SET shardproxy.snapshot = off.")
}

func errInDoubt(shard string) *wire.Error {
	return wire.Errorf("40001", "the shards could not be read at one moment: a transaction over several shards is being committed, and does not end").
		WithDetail("Shard %s.", shard).WithHint("Try it again, or SET shardproxy.snapshot = off.")
}

// Unreached is the cause of an error that says that a shard could not be asked. Of those who wait for a
// window together all are told, also those whose window is not on the shard.
type Unreached struct {
	Shard int
	Err   error
}

// Error says what was met.
func (u *Unreached) Error() string { return u.Err.Error() }

// Unwrap returns what was met.
func (u *Unreached) Unwrap() error { return u.Err }

func (f *Fence) unreachable(shard int, err error) *wire.Error {
	return wire.Errorf("08006", "the shards could not be read at one moment: a shard cannot be asked").
		WithDetail("Shard %s.", f.opts.Shards[shard].Name).WithHint("Try it again.").WithCause(&Unreached{shard, err})
}

// drop ends a shard's connection.
func (f *Fence) drop(shard int) {
	if s := f.sessions[shard]; s != nil {
		s.close()
		f.sessions[shard] = nil
	}
}

// errOther is the cause when a connection has not the lock that it was given.
var errOther = errors.New("the server does not know of the lock")

package metadata

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/shardmap"
)

// WatcherOptions configure a Watcher.
type WatcherOptions struct {
	// Connect leads to the home shard's primary; required.
	Connect Connect
	// Cluster is the cluster's ID. A server of another cluster is not believed.
	Cluster string
	// Initial is the map to start from, as Check gave it. Without one Current
	// is nil until the home shard has answered.
	Initial *shardmap.Map
	// Interval is the time between two looks, and the longest between two
	// attempts to connect; 1 s when 0.
	Interval time.Duration
	// Timeout bounds one look, and one attempt to connect; 2 s when 0.
	Timeout time.Duration
	// Logger hears of failures; slog.Default when nil.
	Logger *slog.Logger
	// Changed, when set, is called with every new map after it is published,
	// epochs ascending, on the Watcher's goroutine. It must not block and not
	// call Close.
	Changed func(*shardmap.Map)
	// Rules are the proxy's own, which Check has found to be the cluster's. Ruled, when set, is called with those that the cluster has when they are
	// others than before, before the map that comes with them is published, and so before Changed.
	Rules string
	Ruled func(rules string)
	// News, when set, is called when another proxy has told by News that definitions have
	// changed, and when that may have been missed: when there is a new connection that
	// listens. It is called on the Watcher's goroutine, and must not block.
	News func()
	// Self is the word with which the Watcher's proxy tells news.
	Self string
	// Database is its name, for metrics.
	Database   string
	Registerer prometheus.Registerer // no metrics when nil
}

// WatcherStats says how a Watcher is doing.
type WatcherStats struct {
	// Epoch is that of the current map, 0 when there is none.
	Epoch int64
	// Confirmed is when the home shard was last asked and answered that the
	// current map holds; zero when never. The map held at that moment or later.
	Confirmed time.Time
	// Age is the time since Confirmed, or since Open when never confirmed.
	Age time.Duration
	// Connected says that there is a connection that has answered.
	Connected bool
	// Connects, Looks, Notifications and Failures are counters. A look is a
	// question for the epoch; a failure is a look or an attempt to connect
	// that failed, or an answer that was not believed.
	Connects, Looks, Notifications, Failures uint64
	// Err is why the last look failed, a *Problem; nil when it did not.
	// ErrAhead says that the home shard knows only an older map, or another
	// one of the same epoch.
	Err error
}

// Watcher keeps the slot map current: it listens on the home shard's primary
// and looks each Interval. It never goes back to an older map, and never
// changes a map that it has published. When it is not sure it says so (Stats)
// and keeps the last one; what that means for statements is its user's to
// decide. All methods may be called from any goroutine.
type Watcher struct {
	opts    WatcherOptions
	current atomic.Pointer[shardmap.Map]
	turn    atomic.Pointer[context.CancelFunc] // ends the connection, or the wait for one

	looks, connects, notifications, failures atomic.Uint64

	rules atomic.Pointer[string] // that the cluster had last

	statusMu  sync.Mutex
	opened    time.Time
	confirmed time.Time
	connected bool
	err       error

	mu     sync.Mutex // Open and Close
	cancel context.CancelFunc
	done   chan struct{}
	closed bool
	metric *watchCollector
}

// NewWatcher returns a Watcher that does not watch yet.
func NewWatcher(o WatcherOptions) *Watcher {
	if o.Interval <= 0 {
		o.Interval = time.Second
	}
	if o.Timeout <= 0 {
		o.Timeout = 2 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	w := &Watcher{opts: o}
	w.metric = newWatchCollector(w)
	w.current.Store(o.Initial)
	w.rules.Store(&o.Rules)
	return w
}

// Open starts watching. It does not wait for the home shard. ctx bounds the
// Watcher's whole life. The error is ErrClosed after Close, or that of the Registerer.
func (w *Watcher) Open(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return ErrClosed
	}
	if w.done != nil {
		return nil
	}
	if w.opts.Registerer != nil {
		if err := w.opts.Registerer.Register(w.metric); err != nil {
			return fmt.Errorf("metadata: register metrics: %w", err)
		}
	}
	w.statusMu.Lock()
	w.opened = time.Now()
	w.statusMu.Unlock()
	ctx, w.cancel = context.WithCancel(ctx)
	w.done = make(chan struct{})
	go w.run(ctx, w.done)
	return nil
}

// Close ends watching and waits for it. The last map stays.
func (w *Watcher) Close() error {
	w.mu.Lock()
	w.closed = true
	cancel, done := w.cancel, w.done
	w.mu.Unlock()
	if done != nil {
		cancel()
		<-done
		if w.opts.Registerer != nil {
			w.opts.Registerer.Unregister(w.metric)
		}
	}
	return nil
}

// Current returns the newest map that is known, nil when none is.
func (w *Watcher) Current() *shardmap.Map { return w.current.Load() }

// RulesDiffer reports whether the cluster has other rules than the proxy.
func (w *Watcher) RulesDiffer() bool { return *w.rules.Load() != w.opts.Rules }

// Reconnect makes the Watcher leave its connection and ask for a new one, for
// when the home shard got another primary: the old one may be alive and answer.
// It does not wait.
func (w *Watcher) Reconnect() {
	if end := w.turn.Load(); end != nil {
		(*end)()
	}
}

// Stats returns how the Watcher is doing.
func (w *Watcher) Stats() WatcherStats {
	s := WatcherStats{Connects: w.connects.Load(), Looks: w.looks.Load(), Notifications: w.notifications.Load(), Failures: w.failures.Load()}
	if m := w.Current(); m != nil {
		s.Epoch = m.Epoch()
	}
	w.statusMu.Lock()
	defer w.statusMu.Unlock()
	s.Confirmed, s.Connected, s.Err = w.confirmed, w.connected, w.err
	since := w.confirmed
	if since.IsZero() {
		since = w.opened
	}
	if !since.IsZero() {
		s.Age = time.Since(since)
	}
	return s
}

// confirm notes that the current map held when the question was sent.
func (w *Watcher) confirm(asked time.Time) {
	w.statusMu.Lock()
	defer w.statusMu.Unlock()
	w.confirmed, w.connected, w.err = asked, true, nil
}

// failed notes why the current map is not confirmed. The connection is gone.
func (w *Watcher) failed(err error) {
	w.failures.Add(1)
	w.statusMu.Lock()
	defer w.statusMu.Unlock()
	w.connected, w.err = false, err
}

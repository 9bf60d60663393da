package catalog

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultInterval is how often a Refresher looks for changes.
const DefaultInterval = 60 * time.Second

// Options configure a Refresher.
type Options struct {
	// Source is asked for the catalog; required. It must be safe for use by
	// the Refresher's goroutine.
	Source Querier
	// Tables is set to load with LoadTables.
	Tables bool
	// Interval between two checks, DefaultInterval when 0. After a failure the
	// next attempt comes sooner, from a second on.
	Interval time.Duration
	// Timeout of one check and load, 30 s when 0.
	Timeout time.Duration
	// Logger hears of failures; slog.Default when nil.
	Logger *slog.Logger
	// Changed, when set, is called with every new snapshot after it is
	// published, on the Refresher's goroutine. It must not block.
	Changed func(*Catalog)
}

// Stats are counters of a Refresher since it was opened.
type Stats struct {
	Checks, Loads, Failures uint64
	// Version is that of the current snapshot, 0 when there is none.
	Version uint64
}

// Refresher keeps the snapshot of one database current. Current and Poke may
// be called from any goroutine, also before Open and after Close.
type Refresher struct {
	opts    Options
	load    func(context.Context) (*Catalog, error)
	check   func(context.Context) (string, error)
	current atomic.Pointer[Catalog]
	poke    chan struct{}
	checks  atomic.Uint64 // begun
	ended   atomic.Uint64 // the last of them that succeeded
	loads   atomic.Uint64
	fails   atomic.Uint64

	mu     sync.Mutex
	cancel context.CancelFunc
	done   chan struct{}
	closed bool
}

// NewRefresher returns a Refresher that has no snapshot yet.
func NewRefresher(opts Options) *Refresher {
	if opts.Interval <= 0 {
		opts.Interval = DefaultInterval
	}
	if opts.Timeout <= 0 {
		opts.Timeout = 30 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	load, check := Load, fingerprint
	if opts.Tables {
		load, check = LoadTables, tablesFingerprint
	}
	return &Refresher{
		opts:  opts,
		load:  func(ctx context.Context) (*Catalog, error) { return load(ctx, opts.Source) },
		check: func(ctx context.Context) (string, error) { return check(ctx, opts.Source) },
		poke:  make(chan struct{}, 1),
	}
}

// ErrClosed is returned by Open after Close.
var ErrClosed = errors.New("catalog refresher is closed")

// Open starts refreshing. It does not wait for the first snapshot: the
// database may be away. ctx bounds the Refresher's whole life.
func (r *Refresher) Open(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	if r.done != nil {
		return nil
	}
	ctx, r.cancel = context.WithCancel(ctx)
	r.done = make(chan struct{})
	go r.run(ctx, r.done)
	return nil
}

// Close ends refreshing and waits for it. The last snapshot stays.
func (r *Refresher) Close() error {
	r.mu.Lock()
	r.closed = true
	cancel, done := r.cancel, r.done
	r.mu.Unlock()
	if done != nil {
		cancel()
		<-done
	}
	return nil
}

// Current returns the newest snapshot, nil when none was loaded yet.
func (r *Refresher) Current() *Catalog { return r.current.Load() }

// Poke asks for a check now, for example after a command that changed the
// catalog has been committed. It does not wait; pokes during a check count as
// one more check.
func (r *Refresher) Poke() {
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// Sync asks for a check and waits until one that began after the call has ended, so
// that Current knows of everything that was committed before it. The error is that of
// ctx: of failures the log tells.
func (r *Refresher) Sync(ctx context.Context) error {
	next := r.checks.Load() + 1
	r.Poke()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for r.ended.Load() < next {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// Stats returns the counters.
func (r *Refresher) Stats() Stats {
	s := Stats{Checks: r.checks.Load(), Loads: r.loads.Load(), Failures: r.fails.Load()}
	if c := r.Current(); c != nil {
		s.Version = c.version
	}
	return s
}

func (r *Refresher) run(ctx context.Context, done chan struct{}) {
	defer close(done)
	var seen string
	var version uint64
	failures := 0
	for {
		next, err := r.refresh(ctx, seen, &version)
		if ctx.Err() != nil {
			return
		}
		wait := r.opts.Interval
		if err != nil {
			failures++
			r.fails.Add(1)
			wait = min(wait, time.Second<<min(failures-1, 10))
			r.opts.Logger.Warn("cannot refresh the catalog", "error", err, "retry_in", wait)
		} else {
			seen, failures = next, 0
			r.ended.Store(r.checks.Load())
		}
		if !r.pause(ctx, pokeGap) || !r.sleep(ctx, wait-pokeGap) {
			return
		}
	}
}

// refresh looks for a change and loads when there is one. It returns the
// fingerprint of what is published.
func (r *Refresher) refresh(ctx context.Context, seen string, version *uint64) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	r.checks.Add(1)
	// Taken before the load: a change in between is found again next time.
	sum, err := r.check(ctx)
	if err != nil || sum == seen {
		return seen, err
	}
	c, err := r.load(ctx)
	if err != nil {
		return seen, err
	}
	*version++
	c.version = *version
	r.current.Store(c)
	r.loads.Add(1)
	if r.opts.Changed != nil {
		r.opts.Changed(c)
	}
	return sum, nil
}

// pokeGap is the least time between two looks: a look holds a snapshot, which a
// stream of DDL must not make one long one.
const pokeGap = 200 * time.Millisecond

// pause waits, also when somebody pokes; false when ctx has ended.
func (r *Refresher) pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// sleep waits for the time or a poke; false when ctx ended.
func (r *Refresher) sleep(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-r.poke:
	}
	return true
}

package twopc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/metadata"
)

const (
	// DefaultDeadlockTimeout is PostgreSQL's, until a server has told its own.
	DefaultDeadlockTimeout = time.Second
	// resample is how long after a suspicion the shards are asked again, at least.
	resample = 20 * time.Millisecond
	// lookTimeout bounds how long one look waits for a shard: others must not wait for one
	// that does not answer. Its connection is opened meanwhile, for the next look.
	lookTimeout = 500 * time.Millisecond
	// looksMax bounds the looks of one hunt.
	looksMax = 16
	// retryAfter is how long a shard is left alone that could not be reached.
	retryAfter = 2 * time.Second
)

// Suspect is a transaction over several shards one of whose statements has run for long:
// it may wait. Since tells that statement from the next one, to whoever made the Suspect.
type Suspect struct {
	Mark  Mark
	Since int64
}

// Victim is a transaction that is to end because it waits for itself.
type Victim struct {
	Suspect
	// It waits on Shard, in the server's process PID.
	Shard string
	PID   uint32
	// Detail says who waits for whom, for the client.
	Detail string
}

// DetectorOptions say where deadlocks are looked for. Cluster, Shards and Cancel are
// required.
type DetectorOptions struct {
	Cluster string // metadata.Cluster.ID
	// Shards are all of the cluster's shards. The control user must see what others do
	// (pg_monitor, or a member of their roles) for the youngest to be chosen; else it is
	// the one with the highest mark.
	Shards []Shard
	// Cancel ends the statement of a victim that this process runs; false when that
	// statement runs no more.
	Cancel func(Victim) bool
	// Timeout bounds an attempt to connect; 0: DefaultResolverTimeout.
	Timeout time.Duration
	Logger  *slog.Logger // slog.Default when nil
}

// Detector finds deadlocks whose locks lie on several shards, while it is told of
// transactions that may be in one. Of all processes only the one that runs the victim
// cancels it. Without suspects it does nothing, and has no connection.
type Detector struct {
	opts  DetectorOptions
	kick  chan struct{} // capacity 1
	after atomic.Int64  // nanoseconds
	looks atomic.Uint64

	mu       sync.Mutex
	suspects []Suspect

	tasks  sync.WaitGroup     // connections that are being opened or closed
	eyes   []*eye             // by shard
	known  map[Suspect]bool   // of the last hunt; the loop's
	hunted time.Time          // when that was
	told   map[Mark]time.Time // victims that were logged
	logged []time.Time        // by shard, when it was said that it cannot be asked

	lifeMu sync.Mutex
	life   context.Context    // of the connections
	cancel context.CancelFunc // nil unless open
	done   chan struct{}
	closed bool
}

// eye is a connection for looking at one shard.
type eye struct {
	mu      sync.Mutex
	session *session      // nil while there is none
	opening chan struct{} // closed when an attempt to connect has ended; nil without one
	tried   time.Time     // when that began
	failed  time.Time
	err     error
}

// NewDetector returns a Detector that does nothing yet. It fails only on impossible
// options.
func NewDetector(o DetectorOptions) (*Detector, error) {
	if !validCluster(o.Cluster) || o.Cancel == nil {
		return nil, fmt.Errorf("twopc: %q is no cluster, or nobody cancels", o.Cluster)
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultResolverTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	d := &Detector{opts: o, kick: make(chan struct{}, 1), told: map[Mark]time.Time{}, logged: make([]time.Time, len(o.Shards))}
	for range o.Shards {
		d.eyes = append(d.eyes, &eye{})
	}
	d.after.Store(int64(DefaultDeadlockTimeout))
	return d, nil
}

// After is how long a statement runs before its transaction is a suspect: PostgreSQL's
// deadlock_timeout, the longest of all shards'.
func (d *Detector) After() time.Duration { return time.Duration(d.after.Load()) }

// Looks returns how often all shards were asked.
func (d *Detector) Looks() uint64 { return d.looks.Load() }

// Hunt says which transactions of this process are suspects now. It must be called again,
// at least every tenth of a second, while there are any, and does not wait.
func (d *Detector) Hunt(suspects []Suspect) {
	d.mu.Lock()
	d.suspects = suspects
	d.mu.Unlock()
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// Open starts the work, and has each shard tell its deadlock_timeout. It waits for
// nothing; ctx bounds nothing but the call.
func (d *Detector) Open(context.Context) error {
	d.lifeMu.Lock()
	defer d.lifeMu.Unlock()
	if d.closed {
		return ErrClosed
	}
	if d.cancel != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.life, d.cancel, d.done = ctx, cancel, make(chan struct{})
	go d.run(ctx, d.done)
	return nil
}

// Close ends the work, closes the connections and waits for both.
func (d *Detector) Close() error {
	d.lifeMu.Lock()
	defer d.lifeMu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	if d.cancel != nil {
		d.cancel()
		<-d.done
	}
	return nil
}

// run hunts until ctx ends.
func (d *Detector) run(ctx context.Context, done chan struct{}) {
	defer close(done)
	defer func() {
		d.tasks.Wait() // nothing is opened any more
		d.rest()
		d.tasks.Wait()
	}()
	d.look(ctx, false) // for the time-outs
	tick := time.NewTicker(sessionLife)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if time.Since(d.hunted) >= sessionLife {
				d.rest()
			}
		case <-d.kick:
			if suspects := d.current(); d.due(suspects) {
				d.hunt(ctx)
			}
		}
	}
}

// current returns the suspects.
func (d *Detector) current() []Suspect {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.suspects)
}

// due reports whether the suspects are a reason to look: one of them is new, or they wait
// still, after so long that others may have come to wait for them.
func (d *Detector) due(suspects []Suspect) bool {
	if len(suspects) == 0 || time.Since(d.hunted) < d.After() && !slices.ContainsFunc(suspects, func(s Suspect) bool { return !d.known[s] }) {
		return false
	}
	d.known = make(map[Suspect]bool, len(suspects))
	for _, s := range suspects {
		d.known[s] = true
	}
	d.hunted = time.Now()
	return true
}

// hunt looks for deadlocks, and once more when it has seen one: what was there both times
// has been there all the time between.
func (d *Detector) hunt(ctx context.Context) {
	first := newGraph(d.look(ctx, true))
	seen := first.deadlocks()
	for range looksMax {
		if len(seen) == 0 || !d.pause(ctx, seen) {
			return
		}
		// Who is a suspect before and after the look is one all the while.
		suspects := d.current()
		second := newGraph(d.look(ctx, true))
		sure := second.confirmed(&first)
		ended := map[Mark]bool{}
		for _, l := range sure.deadlocks() {
			ended[l.victim] = true
			d.end(l, suspects)
		}
		// One that has only now been seen, or that a shard may yet end by itself, is looked
		// at again.
		first, seen = second, slices.DeleteFunc(second.deadlocks(), func(l deadlock) bool { return ended[l.victim] })
	}
}

// pause waits until the first of the deadlocks can be told from one that a shard ends by
// itself; false when the work ends.
func (d *Detector) pause(ctx context.Context, seen []deadlock) bool {
	wait := time.Duration(seen[0].remaining())
	for _, l := range seen {
		wait = min(wait, time.Duration(l.remaining()))
	}
	timer := time.NewTimer(max(wait*time.Microsecond, resample))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// end has the victim cancelled if it is one of this process.
func (d *Detector) end(l deadlock, suspects []Suspect) {
	detail := l.detail()
	for _, s := range suspects {
		if s.Mark != l.victim {
			continue
		}
		v := Victim{Suspect: s, Shard: l.cycle[0].shard, PID: uint32(l.cycle[0].pid), Detail: detail}
		if d.opts.Cancel(v) && d.told[l.victim].IsZero() {
			d.opts.Logger.Info("deadlock over several shards: a statement is cancelled", "victim", l.victim.String(), "cycle", detail)
			d.told[l.victim] = time.Now()
		}
	}
	maps.DeleteFunc(d.told, func(_ Mark, when time.Time) bool { return time.Since(when) > logInterval })
}

// look asks all shards at once. What is not answered in time is left out, and the log
// told if that matters.
func (d *Detector) look(ctx context.Context, matters bool) []look {
	d.looks.Add(1)
	looks, errs := make([]look, len(d.eyes)), make([]error, len(d.eyes))
	var group sync.WaitGroup
	for i := range d.eyes {
		group.Go(func() { looks[i], errs[i] = d.lookAt(ctx, i) })
	}
	group.Wait()
	after := int64(0)
	for i := range looks {
		after = max(after, looks[i].timeout*int64(time.Microsecond))
		if errs[i] != nil && !errors.Is(errs[i], metadata.ErrSpare) && matters && ctx.Err() == nil && time.Since(d.logged[i]) >= logInterval {
			d.logged[i] = time.Now()
			d.opts.Logger.Warn("cannot look for deadlocks on a shard: lock_timeout ends them", "shard", d.opts.Shards[i].Name, "error", errs[i])
		}
	}
	if after > 0 {
		d.after.Store(after)
	}
	return looks
}

// lookAt asks one shard.
func (d *Detector) lookAt(ctx context.Context, shard int) (look, error) {
	ctx, stop := context.WithTimeout(ctx, lookTimeout)
	defer stop()
	e := d.eyes[shard]
	s, err := d.sessionOf(ctx, shard)
	if err != nil {
		return look{}, err
	}
	l, err := s.look(ctx, d.opts.Shards[shard].Name)
	if err != nil {
		e.mu.Lock()
		e.session, e.failed, e.err = nil, time.Now(), err
		e.mu.Unlock()
		d.tasks.Go(s.close)
		return look{}, err
	}
	return l, nil
}

var errOpening = errors.New("its connection is still being opened")

// sessionOf returns a shard's session, and opens one if there is none. That goes on when
// ctx ends.
func (d *Detector) sessionOf(ctx context.Context, shard int) (*session, error) {
	e := d.eyes[shard]
	e.mu.Lock()
	if s := e.session; s != nil && s.usable() {
		e.mu.Unlock()
		return s, nil
	} else if s != nil {
		e.session = nil
		d.tasks.Go(s.close)
	}
	if e.opening == nil {
		if e.err != nil && time.Since(e.failed) < retryAfter {
			defer e.mu.Unlock()
			return nil, e.err
		}
		opened := make(chan struct{})
		e.opening, e.tried = opened, time.Now()
		d.tasks.Go(func() { d.open(shard, opened) })
	}
	opened, late := e.opening, time.Since(e.tried) > lookTimeout
	e.mu.Unlock()
	if late {
		return nil, errOpening // it was waited for once
	}
	select {
	case <-opened:
	case <-ctx.Done():
		return nil, errOpening
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.session == nil {
		return nil, e.err
	}
	return e.session, nil
}

// open opens a shard's session.
func (d *Detector) open(shard int, opened chan struct{}) {
	s, err := connect(d.life, d.opts.Cluster, d.opts.Shards[shard], d.opts.Timeout)
	e := d.eyes[shard]
	e.mu.Lock()
	e.session, e.err, e.opening = s, err, nil
	if err != nil {
		e.failed = time.Now()
	}
	e.mu.Unlock()
	close(opened)
}

// rest closes the connections, which are not needed now. It waits for nothing.
func (d *Detector) rest() {
	d.known = nil
	for _, e := range d.eyes {
		e.mu.Lock()
		if s := e.session; s != nil {
			e.session = nil
			d.tasks.Go(s.close)
		}
		e.mu.Unlock()
	}
}

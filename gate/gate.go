package gate

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/histogram"
)

// Defaults of Options.
const (
	DefaultHoldTimeout   = 10 * time.Second
	DefaultMaxHeld       = 1000
	DefaultDrainBatch    = 32
	DefaultDrainInterval = 5 * time.Millisecond
)

// ErrFull is returned by Enter when MaxHeld tickets are held already. The work
// was not queued; it may be tried again later.
var ErrFull = errors.New("gate: too much work is held already")

// ErrShutdown is returned by Enter after Shutdown.
var ErrShutdown = errors.New("gate: shut down")

// Clock is the time a Gate lives in.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f in a goroutine of its own after d, unless stopped.
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is a pending AfterFunc.
type Timer interface {
	Stop() bool
}

// Options says how much a Gate holds and how it lets go. The zero value means
// the defaults.
type Options struct {
	// HoldTimeout is how long one ticket waits before it ends as TimedOut.
	HoldTimeout time.Duration
	// MaxHeld is how many tickets wait at once; one more gets ErrFull.
	MaxHeld int
	// DrainBatch is how many tickets the first step after Open releases. Each
	// later step releases twice as many as the one before, so that a shard just
	// come back is not trampled and the queue still empties, however fast new
	// work arrives.
	DrainBatch int
	// DrainInterval is the time between two steps.
	DrainInterval time.Duration
	// Clock is the system's clock when nil.
	Clock Clock
}

type systemClock struct{}

func (systemClock) Now() time.Time                            { return time.Now() }
func (systemClock) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }

// phase is what the gate does with those who come.
type phase uint8

const (
	phaseOpen     phase = iota // nobody waits; who comes goes through
	phaseClosed                // who comes waits
	phaseDraining              // open again, but others came first: who comes queues behind them
	phaseShutdown              // nobody waits ever again
)

// Gate holds work while it is closed. Make one with New.
type Gate struct {
	opts Options

	// shut is true in every phase but phaseOpen: the one load of the hot path.
	// It is written under mu together with phase.
	shut atomic.Bool

	mu sync.Mutex
	// All below is guarded by mu.
	phase phase
	// generation counts the changes of phase. A timer callback carries the
	// generation it was armed in and does nothing in a later one: otherwise the
	// drain of an earlier opening would release tickets of a gate that has been
	// closed again since.
	generation  uint64
	reason      string
	closedSince time.Time
	head, tail  *Ticket // the queue: head came first
	held        int
	expiry      Timer // armed for head's deadline while closed and somebody waits
	drain       Timer // the next drain step
	batch       int   // size of the next drain step
	totals      Totals
	holds       histogram.Durations
}

// New returns an open gate. It starts nothing.
func New(opts Options) *Gate {
	if opts.HoldTimeout <= 0 {
		opts.HoldTimeout = DefaultHoldTimeout
	}
	if opts.MaxHeld <= 0 {
		opts.MaxHeld = DefaultMaxHeld
	}
	if opts.DrainBatch <= 0 {
		opts.DrainBatch = DefaultDrainBatch
	}
	if opts.DrainInterval <= 0 {
		opts.DrainInterval = DefaultDrainInterval
	}
	if opts.Clock == nil {
		opts.Clock = systemClock{}
	}
	return &Gate{opts: opts}
}

// Closed reports whether who comes now has to call Enter. It is one atomic
// load. False may be outdated by the time the caller acts on it: the work then
// meets the failure that the gate was closed for and comes back.
func (g *Gate) Closed() bool { return g.shut.Load() }

// Overdue reports whether the gate has been closed for longer than a ticket waits.
func (g *Gate) Overdue() bool {
	if !g.shut.Load() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.phase == phaseClosed && g.opts.Clock.Now().Sub(g.closedSince) >= g.opts.HoldTimeout
}

// Close makes whoever comes wait. reason is for operators and for the error of
// those who wait in vain. Closing a closed gate changes the reason only.
func (g *Gate) Close(reason string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch g.phase {
	case phaseShutdown:
		return
	case phaseClosed:
		g.reason = reason
		return
	}
	g.setPhaseLocked(phaseClosed)
	g.reason, g.closedSince = reason, g.opts.Clock.Now()
	g.totals.Closures++
	// Tickets that a drain had not come to yet keep their place and deadline.
	g.armExpiryLocked()
}

// Open lets go of those who wait, in order and in steps, and then lets whoever
// comes through. The first step's callbacks run before Open returns. Opening a
// gate that is open or draining changes nothing.
func (g *Gate) Open() {
	g.mu.Lock()
	if g.phase != phaseClosed {
		g.mu.Unlock()
		return
	}
	stop(&g.expiry)
	g.setPhaseLocked(phaseDraining)
	g.batch = g.opts.DrainBatch
	released := g.drainLocked()
	g.mu.Unlock()
	wakeAll(released)
}

// Shutdown ends every ticket as Evicted and refuses all later ones with
// ErrShutdown. It is final and idempotent.
func (g *Gate) Shutdown() {
	g.mu.Lock()
	if g.phase == phaseShutdown {
		g.mu.Unlock()
		return
	}
	g.setPhaseLocked(phaseShutdown)
	stop(&g.expiry)
	var evicted []*Ticket
	for g.head != nil {
		evicted = append(evicted, g.endHeadLocked(Evicted))
	}
	g.mu.Unlock()
	wakeAll(evicted)
}

// Enter asks to go through. A nil Ticket and a nil error mean: go on now.
// Otherwise the caller waits until wake is called, which happens exactly once
// unless Ticket.Cancel returned true, possibly before Enter has returned. wake
// must be quick, must not block and is called from any goroutine.
//
// The errors are ErrFull and ErrShutdown.
func (g *Gate) Enter(wake func()) (*Ticket, error) {
	if !g.shut.Load() {
		return nil, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	// The phase is looked at again under the lock that also guards the queue:
	// a gate that opened since the load above will not come to drain us.
	switch g.phase {
	case phaseOpen:
		return nil, nil
	case phaseShutdown:
		return nil, ErrShutdown
	}
	if g.held >= g.opts.MaxHeld {
		if g.phase == phaseDraining {
			return nil, nil // the shard is back: better out of turn than refused
		}
		g.totals.Refused++
		return nil, ErrFull
	}
	t := &Ticket{gate: g, wake: wake, since: g.opts.Clock.Now(), generation: g.generation}
	g.pushLocked(t)
	if g.phase == phaseClosed && g.head == t {
		g.armExpiryLocked()
	}
	return t, nil
}

func (g *Gate) setPhaseLocked(p phase) {
	g.phase = p
	g.generation++
	g.shut.Store(p != phaseOpen)
	stop(&g.drain)
	if p == phaseOpen || p == phaseShutdown {
		g.reason, g.closedSince = "", time.Time{}
	}
}

// drainLocked takes the next batch off the queue and arms the step after it,
// or opens the gate for good when nobody is left.
func (g *Gate) drainLocked() []*Ticket {
	var released []*Ticket
	for n := g.batch; n > 0 && g.head != nil; n-- {
		released = append(released, g.endHeadLocked(Released))
	}
	if g.head == nil {
		g.setPhaseLocked(phaseOpen)
		return released
	}
	if g.batch < g.opts.MaxHeld {
		g.batch *= 2
	}
	gen := g.generation
	g.drain = g.opts.Clock.AfterFunc(g.opts.DrainInterval, func() { g.drainStep(gen) })
	return released
}

func (g *Gate) drainStep(gen uint64) {
	g.mu.Lock()
	if g.generation != gen {
		g.mu.Unlock()
		return
	}
	released := g.drainLocked()
	g.mu.Unlock()
	wakeAll(released)
}

// armExpiryLocked sets the one timer to the deadline of whoever waits longest:
// all wait equally long, so the queue is in the order of deadlines too.
func (g *Gate) armExpiryLocked() {
	stop(&g.expiry)
	if g.head == nil {
		return
	}
	left := max(0, g.head.since.Add(g.opts.HoldTimeout).Sub(g.opts.Clock.Now()))
	gen := g.generation
	g.expiry = g.opts.Clock.AfterFunc(left, func() { g.expire(gen) })
}

func (g *Gate) expire(gen uint64) {
	g.mu.Lock()
	if g.generation != gen {
		g.mu.Unlock()
		return
	}
	now := g.opts.Clock.Now()
	var late []*Ticket
	for g.head != nil && now.Sub(g.head.since) >= g.opts.HoldTimeout {
		late = append(late, g.endHeadLocked(TimedOut))
	}
	// Armed again under the same lock as the queue was read under: a ticket
	// pushed in between cannot be left without a timer.
	g.armExpiryLocked()
	g.mu.Unlock()
	wakeAll(late)
}

func stop(t *Timer) {
	if *t != nil {
		(*t).Stop()
		*t = nil
	}
}

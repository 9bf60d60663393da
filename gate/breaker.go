package gate

import (
	"sync"
	"sync/atomic"
	"time"
)

// BreakerOptions say when a Breaker opens, and for how long. The zero value has it never open.
type BreakerOptions struct {
	// Share is that of the tries within Window that have failed, from which the breaker opens; 0: never.
	Share float64
	// Least is how many must have failed.
	Least int
	// Window is the time that is looked back upon.
	Window time.Duration
	// OpenFor is how long nothing is tried; twice as long each time that what is tried then fails, up to OpenMax.
	OpenFor, OpenMax time.Duration
}

// BreakerState says what a Breaker does with those who come.
type BreakerState int32

// The states of a Breaker.
const (
	BreakerClosed   BreakerState = iota // all go through
	BreakerOpen                         // nobody does
	BreakerHalfOpen                     // a few do, to be seen how they fare
)

// String returns closed, open or half-open.
func (s BreakerState) String() string { return [...]string{"closed", "open", "half-open"}[s] }

const (
	// breakerSlots are the parts of the window. Failures must be in breakerLasting of them: what is over at once, as
	// the end of a server whose place another takes, is not what a breaker is for.
	breakerSlots   = 10
	breakerLasting = 3
	// breakerTrials go through while it is half open, and as many again each OpenFor.
	breakerTrials = 3
	// breakerQuiet is for how long nothing may fail behind the last of them.
	breakerQuiet = time.Second
)

// Breaker keeps work from a shard that fails much of it, so that clients are told at once instead of each
// waiting for its own failure. It is closed at first; the zero value is ready. It counts what it is told of, and
// Tick, called every tenth of a second or so, draws the conclusions: who comes pays for one or two atomic operations.
//
// The methods may be called from any goroutine, Tick from one at a time.
type Breaker struct {
	state  atomic.Int32
	counts atomic.Bool // what is told is counted
	trials atomic.Int32
	tries  atomic.Int64
	fails  atomic.Int64
	last   atomic.Pointer[string] // why the last one failed

	refused, opened atomic.Int64

	// mu guards what follows against Status.
	mu     sync.Mutex
	opts   BreakerOptions
	slots  [breakerSlots]breakerSlot // of the window; the one at is under way
	at     int
	ends   time.Time // of that slot
	was    breakerSlot
	since  time.Time     // of the state
	until  time.Time     // when an open one is half opened, or a half-open one lets more through
	next   time.Duration // how long it opens next
	found  breakerSlot   // what it opened for
	begin  breakerSlot   // the totals when it was half opened
	passed time.Time     // when the last of the trials was seen to have begun
	// unready is set when the shard was not ready while the breaker was open.
	unready bool
}

// breakerSlot are tries and those of them that failed.
type breakerSlot struct{ tries, fails int64 }

// Admits reports whether who comes may go on; if not, it is counted as refused. While the shard is not ready, which
// is known without a try, nobody is let through to find out.
func (b *Breaker) Admits(ready bool) bool {
	switch BreakerState(b.state.Load()) {
	case BreakerClosed:
		return true
	case BreakerHalfOpen:
		if ready && b.trials.Load() > 0 && b.trials.Add(-1) >= 0 {
			return true
		}
	}
	b.refused.Add(1)
	return false
}

// Tried notes one who got through to the shard.
func (b *Breaker) Tried() {
	if b.counts.Load() {
		b.tries.Add(1)
	}
}

// Failed notes that one of those failed for a reason that speaks against the shard.
func (b *Breaker) Failed(why string) {
	if b.counts.Load() {
		b.last.Store(&why)
		b.fails.Add(1)
	}
}

// InVain notes one who did not get through.
func (b *Breaker) InVain(why string) {
	b.Tried()
	b.Failed(why)
}

// BreakerStatus is what is known of a Breaker.
type BreakerStatus struct {
	State BreakerState
	Since time.Time // of the state; zero while it never was another
	// Tries and Fails are those of the window, or what an open one was opened for. Last says why the last one failed.
	Tries, Fails int64
	Last         string
	// Retry is when something is tried again; zero when it is closed.
	Retry time.Time
	// Opened and Refused count since the start: how often it opened, whom it turned away.
	Opened, Refused int64
}

// Status returns what is known.
func (b *Breaker) Status() BreakerStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := BreakerStatus{State: BreakerState(b.state.Load()), Since: b.since, Opened: b.opened.Load(), Refused: b.refused.Load()}
	if last := b.last.Load(); last != nil {
		s.Last = *last
	}
	sum := b.found
	if s.State == BreakerClosed {
		sum, _ = b.windowLocked()
	} else {
		s.Retry = b.until
	}
	s.Tries, s.Fails = sum.tries, sum.fails
	return s
}

// Tick draws the conclusions of what was noted, by the options as they are now. An open breaker is half opened when its
// time is over, or at once when the shard, as its probes have it, was not ready and is. It reports whether the
// state has changed.
func (b *Breaker) Tick(o BreakerOptions, ready bool, now time.Time) (changed bool) {
	if o.Share == 0 && !b.counts.Load() {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	was := BreakerState(b.state.Load())
	if o != b.opts {
		b.opts = o
		b.resetLocked(now)
	}
	b.advanceLocked(now)
	switch BreakerState(b.state.Load()) {
	case BreakerClosed:
		if sum, slots := b.windowLocked(); o.Share > 0 && slots >= breakerLasting && sum.fails >= int64(o.Least) && float64(sum.fails) >= o.Share*float64(sum.tries) {
			b.found = sum
			b.openLocked(now)
		}
	case BreakerOpen:
		if b.unready = b.unready || !ready; ready && (b.unready || !now.Before(b.until)) {
			b.begin, b.passed, b.unready = b.total(), time.Time{}, false
			b.trials.Store(breakerTrials)
			b.setLocked(BreakerHalfOpen, now, now.Add(o.OpenFor))
		}
	case BreakerHalfOpen:
		b.probeLocked(now)
	}
	return was != BreakerState(b.state.Load())
}

// probeLocked looks at how those fared who were let through.
func (b *Breaker) probeLocked(now time.Time) {
	all := b.total()
	switch {
	case all.fails > b.begin.fails:
		b.openLocked(now)
	case all.tries-b.begin.tries >= breakerTrials:
		if b.passed.IsZero() {
			b.passed = now
		}
		if now.Sub(b.passed) >= breakerQuiet {
			b.resetLocked(now)
		}
	case !now.Before(b.until): // some of them were given up before they came to the shard
		b.trials.Store(breakerTrials)
		b.until = now.Add(b.opts.OpenFor)
	}
}

// openLocked opens, for longer than the last time unless it was closed in between.
func (b *Breaker) openLocked(now time.Time) {
	if b.next == 0 {
		b.next = b.opts.OpenFor
	}
	b.opened.Add(1)
	b.unready = false
	b.setLocked(BreakerOpen, now, now.Add(b.next))
	b.next = min(2*b.next, max(b.opts.OpenMax, b.opts.OpenFor))
}

func (b *Breaker) setLocked(s BreakerState, now, until time.Time) {
	b.since, b.until = now, until
	b.state.Store(int32(s))
}

// resetLocked closes, and begins to count anew.
func (b *Breaker) resetLocked(now time.Time) {
	b.next, b.slots, b.at, b.was = 0, [breakerSlots]breakerSlot{}, 0, b.total()
	b.ends = now.Add(b.opts.Window / breakerSlots)
	b.counts.Store(b.opts.Share > 0)
	if BreakerState(b.state.Load()) != BreakerClosed {
		b.setLocked(BreakerClosed, now, time.Time{})
	}
}

// advanceLocked notes what came since the last tick, and goes on to the slot of now.
func (b *Breaker) advanceLocked(now time.Time) {
	all := b.total()
	slot := &b.slots[b.at]
	slot.tries += all.tries - b.was.tries
	slot.fails += all.fails - b.was.fails
	b.was = all
	each := b.opts.Window / breakerSlots
	for n := 0; !now.Before(b.ends) && each > 0; n++ {
		if n == breakerSlots {
			b.ends = now.Add(each) // all of the window has passed
			break
		}
		b.at = (b.at + 1) % breakerSlots
		b.slots[b.at] = breakerSlot{}
		b.ends = b.ends.Add(each)
	}
}

// windowLocked sums the window up. slots are those with failures.
func (b *Breaker) windowLocked() (sum breakerSlot, slots int) {
	for _, s := range b.slots {
		sum.tries += s.tries
		sum.fails += s.fails
		if s.fails > 0 {
			slots++
		}
	}
	return sum, slots
}

func (b *Breaker) total() breakerSlot { return breakerSlot{b.tries.Load(), b.fails.Load()} }

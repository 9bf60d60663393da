package gate

import (
	"sync/atomic"
	"time"
)

// State is what has become of a Ticket.
type State uint32

// The states of a Ticket. All but Waiting are final.
const (
	Waiting   State = iota
	Released        // go on
	TimedOut        // waited for HoldTimeout in vain
	Evicted         // the gate was shut down
	Cancelled       // left by its owner
)

var stateNames = [...]string{"waiting", "released", "timed out", "evicted", "cancelled"}

// String returns the state in plain words.
func (s State) String() string { return stateNames[s] }

// Ticket is one place in the queue of a Gate.
type Ticket struct {
	gate       *Gate
	wake       func()
	since      time.Time
	generation uint64
	state      atomic.Uint32

	// Guarded by gate.mu: the neighbours in the queue.
	prev, next *Ticket
}

// State returns the current state; after wake it is a final one.
func (t *Ticket) State() State { return State(t.state.Load()) }

// Since returns when the ticket entered the queue.
func (t *Ticket) Since() time.Time { return t.since }

// Generation returns the gate's generation in which the ticket entered.
func (t *Ticket) Generation() uint64 { return t.generation }

// Cancel leaves the queue. It returns true if the ticket was still waiting:
// wake will not be called. It returns false if the ticket had ended before:
// wake has been called or is about to be.
func (t *Ticket) Cancel() bool {
	g := t.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.State() != Waiting {
		return false
	}
	g.endLocked(t, Cancelled)
	// A drain whose last ticket has left has nothing more to wait for.
	if g.head == nil && g.phase == phaseDraining {
		g.setPhaseLocked(phaseOpen)
	}
	return true
}

func (g *Gate) pushLocked(t *Ticket) {
	if g.tail == nil {
		g.head = t
	} else {
		g.tail.next, t.prev = t, g.tail
	}
	g.tail = t
	g.held++
	g.totals.Held++
}

func (g *Gate) endHeadLocked(s State) *Ticket {
	t := g.head
	g.endLocked(t, s)
	return t
}

// endLocked takes t off the queue and makes s its final state.
func (g *Gate) endLocked(t *Ticket, s State) {
	if t.prev == nil {
		g.head = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next == nil {
		g.tail = t.prev
	} else {
		t.next.prev = t.prev
	}
	t.prev, t.next = nil, nil
	g.held--
	waited := g.opts.Clock.Now().Sub(t.since)
	g.totals.count(s, waited)
	g.holds.Observe(waited)
	t.state.Store(uint32(s))
}

// wakeAll tells the owners, without the lock.
func wakeAll(tickets []*Ticket) {
	for _, t := range tickets {
		t.wake()
	}
}

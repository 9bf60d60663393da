package gate

import (
	"time"

	"shardproxy/histogram"
)

// Totals are counts since the gate was made.
type Totals struct {
	Closures  uint64 // times the gate went from open or draining to closed
	Held      uint64 // tickets given out
	Released  uint64
	TimedOut  uint64
	Evicted   uint64
	Cancelled uint64
	Refused   uint64 // ErrFull
	// HeldTime is the sum of what all ended tickets waited; LongestHeld the
	// longest single wait.
	HeldTime    time.Duration
	LongestHeld time.Duration
}

func (t *Totals) count(s State, waited time.Duration) {
	switch s {
	case Released:
		t.Released++
	case TimedOut:
		t.TimedOut++
	case Evicted:
		t.Evicted++
	case Cancelled:
		t.Cancelled++
	}
	t.HeldTime += waited
	t.LongestHeld = max(t.LongestHeld, waited)
}

// Stats is what a Gate looks like at one moment.
type Stats struct {
	Closed      bool      // whoever comes now waits, behind a drain or until Open
	Draining    bool      // opened, and still letting go of those who waited
	Reason      string    // why it was closed
	ClosedSince time.Time // zero when open
	Generation  uint64    // changes of phase so far
	HeldNow     int       // tickets in the queue
	HeldMax     int       // the bound, Options.MaxHeld
	OldestSince time.Time // when the first of them entered; zero when none
	Totals      Totals
	Holds       histogram.Counts // the waits of all ended tickets, one by one
}

// Stats returns a consistent picture.
func (g *Gate) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := Stats{
		Closed:      g.phase != phaseOpen,
		Draining:    g.phase == phaseDraining,
		Reason:      g.reason,
		ClosedSince: g.closedSince,
		Generation:  g.generation,
		HeldNow:     g.held,
		HeldMax:     g.opts.MaxHeld,
		Totals:      g.totals,
	}
	s.Holds = g.holds.Counts()
	if g.head != nil {
		s.OldestSince = g.head.since
	}
	return s
}

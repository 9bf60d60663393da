package rebalance

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"

	"shardproxy/shardmap"
)

// Strategy says what shards get equal shares of.
type Strategy string

// The strategies.
const (
	BySlots Strategy = "slots"
	ByRows  Strategy = "rows"
	ByBytes Strategy = "bytes"
)

// Defaults of a PlanRequest.
const (
	DefaultThreshold       = 0.05
	DefaultStepSlots       = 64
	DefaultStepBytes int64 = 8 << 30
)

// PlanRequest says what is to move.
type PlanRequest struct {
	// Current is the map that holds now; its first shard is the home shard.
	Current *shardmap.Map
	// Members are the shards that are to own slots, with their weights. Those of Current that are not
	// among them give up all that they own.
	Members []shardmap.Member
	// By says what is spread evenly; "" is BySlots.
	By Strategy
	// Load is what lies in the slots. Nil: nothing is known, which only BySlots allows.
	Load *Load
	// Given are slots that are to lie on the shard they are given to. With any, nothing else moves.
	Given []GivenSlots
	// Pinned are slots that cannot move, with the reason as a clause.
	Pinned map[shardmap.Slot]string
	// Threshold is how far from its share a shard may be: 0.05 is 5 %. It is left alone then.
	Threshold float64
	// MaxSlots and MaxBytes bound how much moves in all; 0 is no bound.
	MaxSlots int
	MaxBytes int64
	// StepSlots and StepBytes bound one move of the plan; 0 are the defaults. A slot that
	// has more bytes moves alone.
	StepSlots int
	StepBytes int64
}

// GivenSlots are slots and the shard that they are to lie on.
type GivenSlots struct {
	Slots []shardmap.Slot
	To    string
}

// Plan is which slots move, and what comes of it. It may be ended behind any of its moves: each leaves the
// shards better balanced than it found them, or empties a shard that leaves. It is immutable.
type Plan struct {
	By     Strategy
	Shards []PlanShard // those of the map in its order, then new ones in the order of the request
	Moves  []PlanMove  // in the order in which they are to be done
	// Blockers say what keeps the request from being done. Moves has what could be done without them.
	Blockers []*Blocker
	// Limited is set when MaxSlots or MaxBytes has cut the plan short.
	Limited bool
	// Before and After are how far the shard is from its share that is farthest: 0.1 is 10 %. Shards that leave do not count.
	Before, After float64
}

// PlanShard is one shard of a plan.
type PlanShard struct {
	Name string
	// Weight is 0 for a shard that leaves.
	Weight        int
	Leaves, New   bool
	Before, After Amount
	// ShareBefore and ShareAfter are its parts of all that the strategy looks at, Fair is what its weight gives it.
	ShareBefore, ShareAfter, Fair float64
}

// Amount is how much lies in slots. Rows and Bytes are estimates unless they were counted.
type Amount struct {
	Slots int
	Rows  int64
	Bytes int64
}

// add adds b, sign times.
func (a *Amount) add(b Amount, sign int64) {
	a.Slots += b.Slots * int(sign)
	a.Rows += b.Rows * sign
	a.Bytes += b.Bytes * sign
}

// of is the part that a strategy looks at.
func (a Amount) of(s Strategy) int64 {
	switch s {
	case ByRows:
		return a.Rows
	case ByBytes:
		return a.Bytes
	}
	return int64(a.Slots)
}

// PlanMove is slots that move together from one shard to another.
type PlanMove struct {
	From, To string
	Slots    []shardmap.Slot // ascending
	Amount   Amount
}

// Ranges are the slots in words: "3, 17-20".
func (m *PlanMove) Ranges() string {
	var b strings.Builder
	for i := 0; i < len(m.Slots); {
		end := i
		for end+1 < len(m.Slots) && m.Slots[end+1] == m.Slots[end]+1 {
			end++
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprint(&b, m.Slots[i])
		if end > i {
			fmt.Fprintf(&b, "-%d", m.Slots[end])
		}
		i = end + 1
	}
	return b.String()
}

// MakePlan plans. The same request gives the same plan on every machine. It does no I/O. The error is about a request
// that makes no sense; what is in the way of one that does is in the plan's Blockers.
func MakePlan(r PlanRequest) (*Plan, error) {
	r.By = cmp.Or(r.By, BySlots)
	r.StepSlots = cmp.Or(r.StepSlots, DefaultStepSlots)
	r.StepBytes = cmp.Or(r.StepBytes, DefaultStepBytes)
	if err := r.check(); err != nil {
		return nil, err
	}
	p, err := newPlanner(&r)
	if err != nil {
		return nil, err
	}
	switch {
	case len(p.blockers) > 0: // the home shard leaves
	case len(r.Given) > 0:
		if err := p.give(); err != nil {
			return nil, err
		}
	default:
		p.empty()
		p.spread()
	}
	return p.plan(), nil
}

// check refuses what makes no sense whatever the members are.
func (r *PlanRequest) check() error {
	switch {
	case r.By != BySlots && r.By != ByRows && r.By != ByBytes:
		return fmt.Errorf("%q is none of slots, rows and bytes", string(r.By))
	case r.By != BySlots && r.Load == nil:
		return fmt.Errorf("it is not known how many %s there are", r.By)
	case r.Load != nil && (len(r.Load.Rows) != r.Current.Slots() || len(r.Load.Bytes) != r.Current.Slots()):
		return fmt.Errorf("loads of %d slots, of %d that there are", len(r.Load.Rows), r.Current.Slots())
	case math.IsNaN(r.Threshold) || r.Threshold < 0 || r.Threshold >= 1:
		return errors.New("the threshold is from 0 % to less than 100 %")
	case r.MaxSlots < 0 || r.MaxBytes < 0 || r.StepSlots < 0 || r.StepBytes < 0:
		return errors.New("bounds of slots and bytes are not negative")
	}
	return nil
}

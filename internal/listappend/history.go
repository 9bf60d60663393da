package listappend

import (
	"fmt"
	"slices"
)

// Outcome says what a client was told of its transaction.
type Outcome int

const (
	// OK: it was committed.
	OK Outcome = iota
	// Failed: it was rolled back, or never asked to commit. Nothing of it may be seen.
	Failed
	// Unknown: it is whole or not at all, and the client does not know which.
	Unknown
)

// String returns the outcome in a word.
func (o Outcome) String() string { return [...]string{"ok", "failed", "unknown"}[o] }

// Op is one step of a transaction.
type Op struct {
	Key    int64
	Append bool
	Value  int64   // what was appended
	List   []int64 // what was read, the oldest first
}

// Append is a step that appends a value to a key's list. A key has each value once in
// a history.
func Append(key, value int64) Op { return Op{Key: key, Append: true, Value: value} }

// Read is a step that read a key's list. A read without an answer is no step.
func Read(key int64, list ...int64) Op { return Op{Key: key, List: list} }

// Txn is one transaction as its client saw it: its steps, in order, up to the last
// one that was answered; of appends also the one that was not.
type Txn struct {
	// Process is the client, which runs one transaction after the other.
	Process int
	Outcome Outcome
	// Begin is before the first statement was sent, End after the outcome was known, by
	// one clock in any unit. They count for orders and for lost appends only; 0 is unknown.
	Begin, End int64
	Ops        []Op
}

// History are transactions in any order. Anomalies name them by their place in it.
type History []Txn

// element is one value of one key.
type element struct{ key, value int64 }

// origin is the append of an element.
type origin struct {
	txn  int32
	step int32
	last bool // of its transaction to that key
}

// origins finds who appended what.
func (h History) origins() (map[element]origin, error) {
	all := map[element]origin{}
	for i := range h {
		for j, op := range h[i].Ops {
			if !op.Append {
				continue
			}
			e := element{op.Key, op.Value}
			if other, twice := all[e]; twice {
				return nil, fmt.Errorf("listappend: transactions %d and %d both append %d to key %d", other.txn, i, op.Value, op.Key)
			}
			last := !slices.ContainsFunc(h[i].Ops[j+1:], func(o Op) bool { return o.Append && o.Key == op.Key })
			all[e] = origin{int32(i), int32(j), last}
		}
	}
	return all, nil
}

// committed says of each transaction whether it was committed: those that were
// told so, and those of unknown outcome of which a committed one has read something.
func (h History) committed(origins map[element]origin) []bool {
	all := make([]bool, len(h))
	var work []int32
	for i := range h {
		if h[i].Outcome == OK {
			all[i] = true
			work = append(work, int32(i))
		}
	}
	for len(work) > 0 {
		t := work[len(work)-1]
		work = work[:len(work)-1]
		for _, op := range h[t].Ops {
			for _, v := range op.List {
				if o, known := origins[element{op.Key, v}]; known && !all[o.txn] && h[o.txn].Outcome == Unknown {
					all[o.txn] = true
					work = append(work, o.txn)
				}
			}
		}
	}
	return all
}

package listappend

import (
	"fmt"
	"slices"
	"strings"
)

// Kind is a kind of anomaly.
type Kind int

// The kinds. Those that are cycles stand at the end, the gravest first.
const (
	// AbortedRead (G1a): a committed transaction read what a failed one had appended.
	AbortedRead Kind = iota
	// IntermediateRead (G1b): a list ends with a value behind which its own
	// transaction appended another.
	IntermediateRead
	// DirtyUpdate: a committed value stands behind one of a failed transaction.
	DirtyUpdate
	// Duplicate: a list has a value twice.
	Duplicate
	// Phantom: a list has a value that nobody appended.
	Phantom
	// IncompatibleOrder: of two lists of a key neither begins with the other.
	IncompatibleOrder
	// Internal: a transaction does not see its own appends, or sees them too early.
	Internal
	// LostAppend: an append that was acknowledged is in no list, although the key was
	// read later.
	LostAppend
	// FracturedRead: a transaction saw another one's append to one key, and not that to
	// another key (or saw and missed it on one key).
	FracturedRead
	// LostUpdate: two transactions read one version of a list and both appended to it.
	LostUpdate

	// WriteCycle (G0): transactions overwrote each other in a circle.
	WriteCycle
	// Circular (G1c): they overwrote or read each other in a circle.
	Circular
	// ReadSkew (G-single): a circle with one anti-dependency.
	ReadSkew
	// LongFork: two readers saw two appends in opposite orders.
	LongFork
	// Nonadjacent (G-nonadjacent): a circle with several anti-dependencies, no two of
	// them in a row. A long fork is one that has a name of its own.
	Nonadjacent
	// WriteSkew (G2-item): a circle with anti-dependencies in a row.
	WriteSkew

	kinds // their number
)

// String returns the kind's name, with Adya's where there is one.
func (k Kind) String() string {
	return [...]string{
		"aborted read (G1a)", "intermediate read (G1b)", "dirty update", "duplicate", "phantom", "incompatible order", "internal", "lost append",
		"fractured read", "lost update", "write cycle (G0)", "circular information flow (G1c)", "read skew (G-single)", "long fork",
		"nonadjacent anti-dependencies (G-nonadjacent)", "write skew (G2-item)",
	}[k]
}

// Level is an isolation level: a set of anomalies that must not be.
type Level int

const (
	// ReadCommitted is Adya's PL-2, and what every PostgreSQL holds besides: acknowledged
	// appends are there for who comes later.
	ReadCommitted Level = iota
	// ReadAtomic is ReadCommitted for transactions that are seen wholly or not at all.
	ReadAtomic
	// SnapshotIsolation is what PostgreSQL calls REPEATABLE READ. It allows write skew.
	SnapshotIsolation
	// Serializable allows none.
	Serializable
)

// Forbids reports whether the level has no anomalies of a kind.
func (l Level) Forbids(k Kind) bool {
	switch k {
	case FracturedRead:
		return l >= ReadAtomic
	case LostUpdate, ReadSkew, LongFork, Nonadjacent:
		return l >= SnapshotIsolation
	case WriteSkew:
		return l >= Serializable
	}
	return true
}

// Order is what a cycle needs besides what was read and written.
type Order int

const (
	// Data: nothing.
	Data Order = iota
	// Process: that the transactions of one client follow each other.
	Process
	// Realtime: that a transaction which began after another had ended comes later.
	Realtime
)

// String returns the order in a word.
func (o Order) String() string { return [...]string{"data", "process", "realtime"}[o] }

// Anomaly is one thing that was found.
type Anomaly struct {
	Kind  Kind
	Order Order
	// Txns are the transactions concerned, by their places in the history; of a cycle in
	// the order of its edges.
	Txns []int
	// Detail says what happened, in words.
	Detail string
}

// String returns the anomaly for people.
func (a Anomaly) String() string {
	name := a.Kind.String()
	if a.Order != Data {
		name += " by " + a.Order.String()
	}
	return name + ": " + a.Detail
}

// Report is what Check found.
type Report struct {
	// Anomalies, at most Options.Limit of each kind and order.
	Anomalies []Anomaly
	// Committed transactions, those of unknown outcome that were seen included, and the
	// edges between them.
	Committed, Edges int

	counts [kinds][Realtime + 1]int
	limit  int
}

// Count returns how many of a kind and order were found. A knot of cycles counts as
// one of each kind that is in it.
func (r *Report) Count(k Kind, o Order) int { return r.counts[k][o] }

// Forbidden returns the anomalies that a level does not have, of the given orders and
// of Data.
func (r *Report) Forbidden(l Level, orders ...Order) (all []Anomaly) {
	for _, a := range r.Anomalies {
		if l.Forbids(a.Kind) && (a.Order == Data || slices.Contains(orders, a.Order)) {
			all = append(all, a)
		}
	}
	return all
}

// Summary returns the numbers of all that was found, in one line.
func (r *Report) Summary() string {
	var all []string
	for k := range kinds {
		for o, n := range r.counts[k] {
			if n > 0 {
				all = append(all, fmt.Sprintf("%d %s", n, strings.TrimSuffix(k.String()+" by "+Order(o).String(), " by data")))
			}
		}
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

func (r *Report) add(a Anomaly) {
	if r.counts[a.Kind][a.Order]++; r.counts[a.Kind][a.Order] <= r.limit {
		r.Anomalies = append(r.Anomalies, a)
	}
}

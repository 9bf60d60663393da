package listappend

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// model is a dumb database of lists: every committed version of every key is kept.
type model struct {
	r       *rand.Rand
	spread  int64 // keys in use at a time
	clock   int64
	lists   map[int64][]version
	commits int64
	next    int64 // value to append
	h       History
	open    []*running
}

// version is a key's list from a commit on.
type version struct {
	commit int64
	list   []int64
}

// running is a transaction under way.
type running struct {
	txn      Txn
	snapshot bool  // it reads what was committed at its begin, not what is at the moment
	taken    int64 // commits at the snapshot
	own      map[int64][]int64
	left     int // steps
}

func newModel(seed uint64) *model {
	return &model{r: rand.New(rand.NewPCG(seed, 7)), spread: 8, lists: map[int64][]version{}}
}

func (m *model) now() int64 { m.clock++; return m.clock }

// begin starts a client's transaction.
func (m *model) begin(process int, snapshot bool) *running {
	t := &running{txn: Txn{Process: process, Begin: m.now()}, snapshot: snapshot, taken: m.commits, own: map[int64][]int64{}, left: 1 + m.r.IntN(5)}
	m.open = append(m.open, t)
	return t
}

// key is one of a few that are in use, others as time goes on.
func (m *model) key() int64 { return int64(len(m.h))/20 + m.r.Int64N(m.spread) }

// at returns a key's version at a commit.
func (m *model) at(key, commit int64) version {
	for _, v := range slices.Backward(m.lists[key]) {
		if v.commit <= commit {
			return v
		}
	}
	return version{}
}

// locked reports whether another transaction has appended to the key.
func (m *model) locked(by *running, key int64) bool {
	return slices.ContainsFunc(m.open, func(t *running) bool { return t != by && len(t.own[key]) > 0 })
}

// step runs one step; it reports false when the transaction must be rolled back.
func (m *model) step(t *running) bool {
	t.left--
	key := m.key()
	if m.r.IntN(2) == 0 {
		seen := m.commits
		if t.snapshot {
			seen = t.taken
		}
		t.txn.Ops = append(t.txn.Ops, Read(key, slices.Concat(m.at(key, seen).list, t.own[key])...))
		return true
	}
	if m.locked(t, key) || t.snapshot && m.at(key, m.commits).commit > t.taken {
		return false
	}
	m.next++
	t.own[key] = append(t.own[key], m.next)
	t.txn.Ops = append(t.txn.Ops, Append(key, m.next))
	return true
}

// end ends a transaction.
func (m *model) end(t *running, o Outcome) {
	if o == OK || o == Unknown && m.r.IntN(2) == 0 {
		m.commits++
		for k, own := range t.own {
			m.lists[k] = append(m.lists[k], version{m.commits, slices.Concat(m.at(k, m.commits).list, own)})
		}
	}
	t.txn.Outcome, t.txn.End = o, m.now()
	m.h = append(m.h, t.txn)
	m.open = slices.DeleteFunc(m.open, func(o *running) bool { return o == t })
}

// run makes n transactions of so many clients at a time.
func (m *model) run(n, clients int, snapshot bool) History {
	sessions := make([]*running, clients)
	for id := 0; len(m.h) < n; {
		i := m.r.IntN(clients)
		if sessions[i] == nil {
			id++
			sessions[i] = m.begin(i, snapshot)
		}
		t := sessions[i]
		switch {
		case !m.step(t):
			m.end(t, Failed)
		case t.left > 0:
			continue
		case m.r.IntN(20) == 0:
			m.end(t, Unknown)
		default:
			m.end(t, OK)
		}
		sessions[i] = nil
	}
	return m.h
}

// last adds a transaction that reads every key.
func (m *model) last(h History) History {
	t := Txn{Process: -1, Begin: m.now()}
	for k := range m.lists {
		t.Ops = append(t.Ops, Read(k, m.at(k, m.commits).list...))
	}
	t.End = m.now()
	return append(h, t)
}

// TestSound: what a correct database did has no anomalies that its level forbids.
func TestSound(t *testing.T) {
	all := Options{Process: true, Realtime: true}
	skews, losses := 0, 0
	for seed := range uint64(60) {
		for _, test := range []struct {
			name     string
			clients  int
			snapshot bool
			level    Level
		}{{"serial", 1, true, Serializable}, {"snapshots", 10, true, SnapshotIsolation}, {"read committed", 10, false, ReadCommitted}} {
			m := newModel(seed)
			h := m.run(300, test.clients, test.snapshot)
			if seed%2 == 0 {
				h = m.last(h)
			}
			if seed%3 == 0 {
				m.r.Shuffle(len(h), func(i, j int) { h[i], h[j] = h[j], h[i] })
			}
			r, err := Check(h, all)
			if err != nil {
				t.Fatal(err)
			}
			if bad := r.Forbidden(test.level, Process, Realtime); len(bad) > 0 {
				t.Fatalf("%s, seed %d: %v", test.name, seed, bad)
			}
			if test.snapshot {
				skews += r.Count(WriteSkew, Data)
			} else if losses += r.Count(LostUpdate, Data); r.Count(ReadSkew, Data) == 0 {
				t.Errorf("READ COMMITTED has %s", r.Summary())
			}
		}
	}
	if skews < 40 || losses == 0 {
		t.Errorf("%d write skews under snapshots, %d lost updates else: the histories are too tame", skews, losses)
	}
}

// harm is a bug of a database, put into a history that had none. It reports whether it
// found a place.
type harm struct {
	name string
	do   func(m *model, h History) bool
	// finds holds when one of these is found.
	finds []Kind
	order Order
}

// pick returns a random transaction and step of a history for which f says yes.
func (m *model) pick(h History, f func(t *Txn, op *Op) bool) (*Txn, *Op) {
	for range 2000 {
		t := &h[m.r.IntN(len(h))]
		if len(t.Ops) == 0 || t.Outcome != OK {
			continue
		}
		if op := &t.Ops[m.r.IntN(len(t.Ops))]; f(t, op) {
			return t, op
		}
	}
	return nil, nil
}

// reads returns whether a transaction reads and does not append to a key.
func reads(t *Txn, key int64) bool {
	return !slices.ContainsFunc(t.Ops, func(o Op) bool { return o.Append && o.Key == key })
}

// harms are the bugs.
func harms() []harm {
	return []harm{
		{"a read value was rolled back", func(m *model, h History) bool {
			origins, _ := h.origins()
			_, op := m.pick(h, func(t *Txn, op *Op) bool { return !op.Append && len(op.List) > 0 && reads(t, op.Key) })
			if op == nil {
				return false
			}
			h[origins[element{op.Key, op.List[len(op.List)-1]}].txn].Outcome = Failed
			return true
		}, []Kind{AbortedRead}, Data},
		{"an append is lost", func(m *model, h History) bool {
			_, op := m.pick(h, func(_ *Txn, op *Op) bool { return op.Append })
			if op == nil {
				return false
			}
			for i := range h {
				for j := range h[i].Ops {
					if o := &h[i].Ops[j]; o.Key == op.Key && !o.Append {
						o.List = slices.DeleteFunc(slices.Clone(o.List), func(v int64) bool { return v == op.Value })
					}
				}
			}
			return true
		}, []Kind{LostAppend}, Data},
		{"two values change places in one read", func(m *model, h History) bool {
			_, op := m.pick(h, func(t *Txn, op *Op) bool { return len(op.List) > 2 && reads(t, op.Key) })
			if op == nil {
				return false
			}
			op.List = slices.Clone(op.List)
			op.List[0], op.List[1] = op.List[1], op.List[0]
			return true
		}, []Kind{IncompatibleOrder}, Data},
		{"half of a transaction is not seen", func(m *model, h History) bool {
			origins, _ := h.origins()
			// A transaction that read two keys of one other; the last value of one goes.
			for range 2000 {
				t, op := m.pick(h, func(t *Txn, op *Op) bool { return len(op.List) > 0 && reads(t, op.Key) })
				if op == nil {
					return false
				}
				writer := origins[element{op.Key, op.List[len(op.List)-1]}].txn
				for i := range t.Ops {
					o := &t.Ops[i]
					if o.Append || o.Key == op.Key || !slices.ContainsFunc(o.List, func(v int64) bool { return origins[element{o.Key, v}].txn == writer }) {
						continue
					}
					key, v := op.Key, op.List[len(op.List)-1]
					for j := range t.Ops { // each of its reads of the key
						if same := &t.Ops[j]; same.Key == key {
							same.List = slices.DeleteFunc(slices.Clone(same.List), func(w int64) bool { return w == v })
						}
					}
					return true
				}
			}
			return false
		}, []Kind{FracturedRead}, Data},
		{"a stale read", func(m *model, h History) bool {
			_, op := m.pick(h, func(t *Txn, op *Op) bool {
				return len(op.List) > 8 && !slices.ContainsFunc(t.Ops, func(o Op) bool { return o.Append })
			})
			if op == nil {
				return false
			}
			op.List = op.List[:1]
			return true
		}, []Kind{ReadSkew, FracturedRead, IntermediateRead}, Realtime},
		{"a read of the future", func(m *model, h History) bool {
			t, op := m.pick(h, func(t *Txn, op *Op) bool {
				return !op.Append && reads(t, op.Key) && slices.ContainsFunc(t.Ops, func(o Op) bool { return o.Append })
			})
			if op == nil {
				return false
			}
			// Somebody appended behind what it appended itself.
			for i := range h {
				for _, o := range h[i].Ops {
					if !o.Append && o.Key == op.Key && len(o.List) > len(op.List)+3 && h[i].Begin > t.End && h[i].Outcome == OK && reads(&h[i], o.Key) {
						op.List = o.List
						return true
					}
				}
			}
			return false
		}, []Kind{Circular, ReadSkew, FracturedRead}, Realtime},
	}
}

// TestComplete puts bugs into histories, one into each, and finds them all.
func TestComplete(t *testing.T) {
	for _, bug := range harms() {
		t.Run(bug.name, func(t *testing.T) {
			done := 0
			for seed := range uint64(60) {
				m := newModel(seed)
				h := m.last(m.run(300, 1+int(seed%10), true))
				if !bug.do(m, h) {
					continue
				}
				done++
				r, err := Check(h, Options{Process: true, Realtime: true})
				if err != nil {
					t.Fatal(err)
				}
				if !slices.ContainsFunc(bug.finds, func(k Kind) bool { return r.Count(k, Data) > 0 || r.Count(k, bug.order) > 0 }) {
					t.Errorf("seed %d: found %s", seed, r.Summary())
				}
			}
			if done < 30 {
				t.Errorf("put into %d histories only", done)
			}
		})
	}
}

// TestSkewsAreTheSame compares what is found of cycles by the graph with two vertices for
// each transaction with a search over all cycles, in small random graphs.
func TestSkewsAreTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	seen := map[bool]int{}
	for range 20_000 {
		n := 2 + r.IntN(5)
		c := &checker{h: make(History, n), report: &Report{limit: 10}}
		for range 1 + r.IntN(2*n) {
			c.edge(r.Int32N(int32(n)), r.Int32N(int32(n)), []relation{ww, wr, rw, rw}[r.IntN(4)], 1)
		}
		c.search(Data)
		got := [...]bool{c.report.Count(WriteCycle, Data) > 0, c.report.Count(Circular, Data) > 0, c.report.Count(ReadSkew, Data) > 0,
			c.report.Count(LongFork, Data)+c.report.Count(Nonadjacent, Data) > 0}
		want := c.allCycles()
		if got[0] != want[WriteCycle] || got[1] != want[Circular] || got[2] != want[ReadSkew] {
			t.Fatalf("found %v, want %v: %v", got, want, c.edges)
		}
		// Of the others a knot that has read skews too may hide some.
		if others := want[LongFork] || want[Nonadjacent]; got[3] && !others || others && !got[3] && !got[2] {
			t.Fatalf("found %v, want %v: %v", got, want, c.edges)
		}
		if want[WriteSkew] && c.report.Count(WriteSkew, Data) == 0 && !want[ReadSkew] && !want[Circular] && !want[WriteCycle] {
			t.Fatalf("no write skew: %v", c.edges)
		}
		if !want[WriteSkew] && c.report.Count(WriteSkew, Data) > 0 {
			t.Fatalf("a write skew that is none: %v", c.report.Anomalies)
		}
		seen[want[LongFork] || want[Nonadjacent]]++
	}
	if seen[true] < 100 {
		t.Errorf("%v: the graphs are too small", seen)
	}
}

// allCycles walks every simple cycle and returns the kinds there are.
func (c *checker) allCycles() map[Kind]bool {
	s := &seeker{checker: c}
	kinds := map[Kind]bool{}
	var walk []int32
	on := make([]bool, len(c.h))
	var from func(start, v int32)
	from = func(start, v int32) {
		on[v] = true
		for i, e := range c.edges {
			switch {
			case e.from != v || e.to < start:
			case e.to == start:
				k, _ := s.judge(append(slices.Clone(walk), int32(i)))
				kinds[k] = true
			case !on[e.to]:
				walk = append(walk, int32(i))
				from(start, e.to)
				walk = walk[:len(walk)-1]
			}
		}
		on[v] = false
	}
	for v := range c.h {
		from(int32(v), int32(v))
	}
	return kinds
}

// TestSpeed checks many transactions, good ones and ones that are in one great knot.
// SHARDPROXY_TEST_HISTORY says how many.
func TestSpeed(t *testing.T) {
	many := 20_000
	if text := os.Getenv("SHARDPROXY_TEST_HISTORY"); text != "" {
		var err error
		if many, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	for _, snapshot := range []bool{true, false} {
		m := newModel(1)
		m.spread = 60
		h := m.last(m.run(many, 20, snapshot))
		began := time.Now()
		r, err := Check(h, Options{Process: true, Realtime: true})
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		t.Logf("snapshots %t: %d transactions, %d edges in %v: %s", snapshot, r.Committed, r.Edges, took.Round(time.Millisecond), r.Summary())
		if took > 20*time.Second || r.Committed < many/2 {
			t.Errorf("%d transactions took %v", r.Committed, took)
		}
	}
	// All in one: everybody reads what is not yet there of the next.
	var h History
	n := int64(many / 2)
	for i := range n {
		h = append(h, Txn{Process: int(i), Begin: 1, End: 9, Ops: ops(Append(i, 1), Read((i+1)%n), Read((i+2)%n, 1))})
	}
	began := time.Now()
	r, err := Check(h, Options{})
	if err != nil || r.Count(ReadSkew, Data)+r.Count(Nonadjacent, Data)+r.Count(WriteSkew, Data) == 0 {
		t.Error(r, err)
	}
	t.Log(fmt.Sprint(time.Since(began).Round(time.Millisecond)), r.Summary())
}

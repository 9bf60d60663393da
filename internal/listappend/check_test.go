package listappend

import (
	"slices"
	"strings"
	"testing"
)

// txns makes a history of committed transactions, one client each, all at once.
func txns(all ...[]Op) (h History) {
	for i, ops := range all {
		h = append(h, Txn{Process: i, Begin: 1, End: 1000, Ops: ops})
	}
	return h
}

func ops(all ...Op) []Op { return all }

// as changes the outcome of a history's transaction.
func (h History) as(i int, o Outcome) History {
	h[i].Outcome = o
	return h
}

// at says when a history's transactions ran: pairs of begin and end.
func (h History) at(times ...int64) History {
	for i := range h {
		h[i].Begin, h[i].End = times[2*i], times[2*i+1]
	}
	return h
}

// by says who ran a history's transactions.
func (h History) by(processes ...int) History {
	for i := range h {
		h[i].Process = processes[i]
	}
	return h
}

// found returns the kinds and orders of what a report has.
func found(r *Report) (all []string) {
	for k := range kinds {
		for o := range Realtime + 1 {
			if r.Count(k, o) > 0 {
				name := k.String()
				if o != Data {
					name += " by " + o.String()
				}
				all = append(all, name)
			}
		}
	}
	return all
}

func kindNames(all ...Kind) (names []string) {
	for _, k := range all {
		names = append(names, k.String())
	}
	return names
}

// TestKinds finds each anomaly in the smallest history that has it, and no other.
func TestKinds(t *testing.T) {
	for _, test := range []struct {
		name string
		h    History
		want []Kind
	}{
		{"nothing", nil, nil},
		{"one after the other", txns(ops(Append(1, 1), Append(2, 1)), ops(Read(1, 1), Read(2, 1), Append(1, 2)), ops(Read(1, 1, 2), Read(2, 1))), nil},
		{"before and after", txns(ops(Append(1, 1), Append(2, 1)), ops(Read(1), Read(2)), ops(Read(1, 1), Read(2, 1))), nil},
		{"own appends", txns(ops(Append(1, 1), Read(1, 1), Append(1, 2), Read(1, 1, 2))), nil},
		{"read, appended, read", txns(ops(Append(1, 1)), ops(Read(1, 1), Append(1, 2), Read(1, 1, 2)), ops(Read(1, 1, 2))), nil},
		{"unknown and not seen", txns(ops(Append(1, 1), Append(2, 1)), ops(Read(1), Read(2))).as(0, Unknown), nil},
		{"unknown and seen", txns(ops(Append(1, 1), Append(2, 1)), ops(Read(1, 1), Read(2, 1))).as(0, Unknown), nil},
		{"failed and not seen", txns(ops(Append(1, 1)), ops(Read(1))).as(0, Failed), nil},
		{"what a failed one read", txns(ops(Append(1, 1)), ops(Read(1, 9))).as(1, Failed), nil},

		{"aborted read", txns(ops(Append(1, 1)), ops(Read(1, 1))).as(0, Failed), []Kind{AbortedRead}},
		{"an aborted value under a good one", txns(ops(Append(1, 1)), ops(Append(1, 2)), ops(Read(1, 1, 2))).as(0, Failed), []Kind{AbortedRead, DirtyUpdate}},
		{"intermediate read", txns(ops(Append(1, 1), Append(1, 2)), ops(Read(1, 1)), ops(Read(1, 1, 2))), []Kind{IntermediateRead, ReadSkew}},
		{"intermediate and nothing more", txns(ops(Append(1, 1), Append(1, 2)), ops(Read(1, 1))), []Kind{IntermediateRead, ReadSkew}},
		{"intermediate under its reader's own", txns(ops(Append(1, 1), Append(1, 2)), ops(Append(1, 3), Read(1, 1, 3)), ops(Read(1, 1, 3, 2))), []Kind{IntermediateRead, WriteCycle, Circular}},
		{"duplicate", txns(ops(Append(1, 1)), ops(Read(1, 1, 1))), []Kind{Duplicate}},
		{"phantom", txns(ops(Read(1, 7))), []Kind{Phantom}},
		{"incompatible", txns(ops(Append(1, 1)), ops(Append(1, 2)), ops(Read(1, 1, 2)), ops(Read(1, 2, 1))), []Kind{IncompatibleOrder}},
		{"incompatible and short", txns(ops(Append(1, 1)), ops(Append(1, 2)), ops(Read(1, 1, 2)), ops(Read(1, 2))), []Kind{IncompatibleOrder}},
		{"own not seen", txns(ops(Append(1, 1), Read(1)), ops(Read(1, 1))), []Kind{Internal}},
		{"own seen early", txns(ops(Read(1, 1), Append(1, 1))), []Kind{Internal}},
		{"somebody behind own", txns(ops(Append(1, 1), Read(1, 1, 2)), ops(Append(1, 2))), []Kind{Internal, Circular}},
		{"lost", txns(ops(Append(1, 1)), ops(Read(1))).at(1, 2, 3, 4), []Kind{LostAppend}},
		{"one of two lost", txns(ops(Append(1, 1), Append(2, 1)), ops(Read(1, 1), Read(2))).at(1, 2, 3, 4), []Kind{LostAppend, FracturedRead, ReadSkew}},
		{"fractured", txns(ops(Append(1, 1), Append(2, 1)), ops(Read(1, 1), Read(2)), ops(Read(2, 1))), []Kind{FracturedRead, ReadSkew}},
		{"fractured by what came later", txns(ops(Append(1, 1), Append(2, 1)), ops(Append(1, 2)), ops(Read(1, 1, 2), Read(2)), ops(Read(2, 1))), []Kind{FracturedRead, ReadSkew}},
		{"half of an unknown one", txns(ops(Append(1, 1), Append(2, 1)), ops(Read(1, 1), Read(2))).as(0, Unknown), []Kind{FracturedRead, ReadSkew}},
		{"not repeatable", txns(ops(Append(1, 1)), ops(Read(1), Read(1, 1))), []Kind{FracturedRead, ReadSkew}},
		{"lost update", txns(ops(Read(1), Append(1, 1)), ops(Read(1), Append(1, 2)), ops(Read(1, 1, 2))), []Kind{LostUpdate, ReadSkew}},
		{"lost update, unseen", txns(ops(Read(1), Append(1, 1)), ops(Read(1), Append(1, 2))), []Kind{LostUpdate, WriteSkew}},
		{"write cycle", txns(ops(Append(1, 1), Append(2, 1)), ops(Append(1, 2), Append(2, 2)), ops(Read(1, 1, 2)), ops(Read(2, 2, 1))), []Kind{WriteCycle}},
		{"between another's", txns(ops(Append(1, 1), Append(1, 3)), ops(Append(1, 2)), ops(Read(1, 1, 2, 3))), []Kind{WriteCycle}},
		{"read in a circle", txns(ops(Append(1, 1), Read(2, 1)), ops(Append(2, 1), Read(1, 1))), []Kind{Circular}},
		{"read skew over others", txns(ops(Append(1, 1)), ops(Read(1, 1), Append(2, 1)), ops(Read(1), Read(2, 1))), []Kind{ReadSkew}},
		{"long fork", txns(ops(Append(1, 1)), ops(Append(2, 1)), ops(Read(1, 1), Read(2)), ops(Read(1), Read(2, 1))), []Kind{LongFork}},
		{"a longer fork", txns(ops(Append(1, 1)), ops(Append(2, 1)), ops(Append(3, 1)), ops(Read(1, 1), Read(2)), ops(Read(2, 1), Read(3)), ops(Read(3, 1), Read(1))), []Kind{Nonadjacent}},
		{"write skew", txns(ops(Read(1), Append(2, 1)), ops(Read(2), Append(1, 1)), ops(Read(1, 1), Read(2, 1))), []Kind{WriteSkew}},
		{"write skew, unseen", txns(ops(Read(1), Append(2, 1)), ops(Read(2), Append(1, 1))), []Kind{WriteSkew}},
		{"skew of three", txns(ops(Read(1), Append(2, 1)), ops(Read(2), Append(3, 1)), ops(Read(3), Append(1, 1)), ops(Read(1, 1), Read(2, 1), Read(3, 1))), []Kind{WriteSkew}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := Check(test.h, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := found(r), kindNames(test.want...); !slices.Equal(got, want) {
				t.Errorf("found %q, want %q", got, want)
			}
			for _, a := range r.Anomalies {
				t.Log(a)
			}
		})
	}
}

// TestOrders finds cycles that need the order of a client or of a clock.
func TestOrders(t *testing.T) {
	for _, test := range []struct {
		name string
		h    History
		want string
	}{
		{"stale read of a client", txns(ops(Append(1, 1)), ops(Read(1)), ops(Read(1, 1))).by(1, 1, 2).at(1, 2, 3, 4, 1, 9), "read skew (G-single) by process"},
		{"going back", txns(ops(Append(1, 1)), ops(Read(1, 1)), ops(Read(1))).by(1, 2, 2).at(1, 9, 3, 4, 5, 6), "read skew (G-single) by process"},
		{"stale read", txns(ops(Append(1, 1)), ops(Read(1)), ops(Read(1, 1))).at(1, 2, 3, 4, 1, 9), "read skew (G-single) by realtime"},
		{"stale when both are slow", txns(ops(Append(1, 1)), ops(Read(1)), ops(Read(1, 1))).at(1, 4, 3, 4, 1, 9), ""},
		{"the second and not the first", txns(ops(Append(1, 1)), ops(Append(2, 1)), ops(Read(1), Read(2, 1)), ops(Read(1, 1))).at(1, 2, 3, 4, 1, 9, 1, 9), "read skew (G-single) by realtime"},
		{"written before", txns(ops(Append(1, 2)), ops(Append(1, 1)), ops(Read(1, 1, 2))).at(1, 2, 3, 4, 1, 9), "write cycle (G0) by realtime"},
		{"read before it was", txns(ops(Append(1, 1)), ops(Read(1, 1))).at(3, 4, 1, 2), "circular information flow (G1c) by realtime"},
		{"over many", txns(ops(Append(1, 1)), ops(Append(3, 1)), ops(Append(3, 2)), ops(Read(1)), ops(Read(1, 1)), ops(Read(3, 1, 2))).at(1, 2, 3, 4, 5, 6, 7, 8, 1, 9, 1, 9), "read skew (G-single) by realtime"},
		{"unknown ends never", txns(ops(Append(1, 1)), ops(Read(1)), ops(Read(1, 1))).as(0, Unknown).by(1, 1, 2).at(1, 2, 3, 4, 1, 9), ""},
	} {
		for _, o := range []Options{{Process: true}, {Realtime: true}, {Process: true, Realtime: true}} {
			r, err := Check(test.h, o)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.HasSuffix(test.want, "by process") && o.Process || strings.HasSuffix(test.want, "by realtime") && o.Realtime
			if got := slices.Contains(found(r), test.want); got != want {
				t.Errorf("%s, %+v: %q, want %q", test.name, o, found(r), test.want)
			}
			if r.Count(ReadSkew, Data) > 0 || test.want == "" && len(r.Anomalies) > 0 {
				t.Errorf("%s, %+v: %v", test.name, o, r.Anomalies)
			}
		}
	}
}

// TestLevels says which level forbids what.
func TestLevels(t *testing.T) {
	for l, allows := range map[Level][]Kind{
		ReadCommitted: {FracturedRead, LostUpdate, ReadSkew, LongFork, Nonadjacent, WriteSkew}, ReadAtomic: {LostUpdate, ReadSkew, LongFork, Nonadjacent, WriteSkew},
		SnapshotIsolation: {WriteSkew}, Serializable: nil,
	} {
		for k := range kinds {
			if l.Forbids(k) == slices.Contains(allows, k) {
				t.Errorf("level %d, %v: %t", l, k, l.Forbids(k))
			}
		}
	}
	r, err := Check(txns(ops(Append(1, 1)), ops(Read(1)), ops(Read(1, 1))).at(1, 2, 3, 4, 1, 9), Options{Realtime: true})
	if err != nil || len(r.Forbidden(SnapshotIsolation)) != 0 || len(r.Forbidden(SnapshotIsolation, Realtime)) != 1 || len(r.Forbidden(ReadCommitted, Realtime)) != 0 {
		t.Error(r, err)
	}
	if got := r.Summary(); got != "1 read skew (G-single) by realtime" || (&Report{}).Summary() != "none" {
		t.Error(got)
	}
}

// TestDetail: an anomaly names its transactions, keys and edges.
func TestDetail(t *testing.T) {
	r, err := Check(txns(ops(Append(1, 1), Append(2, 1)), ops(Read(1, 1), Read(2)), ops(Read(2, 1))), Options{})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(r.Anomalies, func(a Anomaly) bool { return a.Kind == ReadSkew })
	if a := r.Anomalies[i]; a.String() != "read skew (G-single): T1 -rw of key 2-> T0 -wr of key 1-> T1" || !slices.Equal(a.Txns, []int{1, 0}) {
		t.Error(a)
	}
}

// TestLimit describes some of many.
func TestLimit(t *testing.T) {
	h := txns(ops(Append(1, 1)), ops(Append(1, 2))).as(0, Failed)
	for range 30 {
		h = append(h, Txn{Ops: ops(Read(1, 1))})
	}
	r, err := Check(h, Options{Limit: 3})
	if err != nil || len(r.Anomalies) != 3 || r.Count(AbortedRead, Data) != 30 {
		t.Error(r.Anomalies, err)
	}
	if _, err := Check(txns(ops(Append(1, 1)), ops(Append(1, 1))), Options{}); err == nil {
		t.Error("one value twice is taken")
	}
}

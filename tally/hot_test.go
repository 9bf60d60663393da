package tally

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

func TestHotSlots(t *testing.T) {
	h := &Hot{}
	minute := int64(time.Minute)
	if all := h.Slots(5, 100*minute); len(all) != 0 {
		t.Error(all)
	}
	for i := range 30 {
		h.Slot(i%3, 16, 100*minute+int64(i))
		h.Slot(7, 16, 100*minute+int64(i))
	}
	h.Slot(-1, 16, 100*minute)
	h.Slot(16, 16, 100*minute)
	want := "[{7 30 60 30s} {0 10 60 30s}]"
	if got := fmt.Sprint(h.Slots(2, 100*minute+minute/2)); got != want {
		t.Error(got)
	}
	// The window is over: it is what is shown until the next one is.
	want = "[{7 30 60 1m0s} {0 10 60 1m0s}]"
	if got := fmt.Sprint(h.Slots(2, 101*minute)); got != want {
		t.Error(got)
	}
	h.Slot(5, 16, 101*minute)
	if got := fmt.Sprint(h.Slots(2, 101*minute+minute/2)); got != want {
		t.Error(got)
	}
	if got := fmt.Sprint(h.Slots(2, 102*minute)); got != "[{5 1 1 1m0s}]" {
		t.Error(got)
	}
	if got := h.Slots(2, 103*minute); len(got) != 0 {
		t.Error(got)
	}
	if n := testing.AllocsPerRun(100, func() { h.Slot(5, 16, 101*minute) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestHotKeys: what is asked for often is found among many others.
func TestHotKeys(t *testing.T) {
	h := &Hot{}
	h.Key(1, []byte("before"))
	if len(h.keys) != 0 {
		t.Error("a key is kept that is not wanted")
	}
	h.KeepKeys(true)
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		switch n := r.IntN(100); {
		case n < 10:
			h.Key(1, []byte("ten percent"))
		case n < 12:
			h.Key(2, []byte("two"))
		default:
			h.Key(3, fmt.Appendf(nil, "%d", r.IntN(50_000)))
		}
	}
	h.Key(4, make([]byte, keyMax+1))
	all := h.Keys(2)
	if len(h.keys) != hotKeys || all[0].Key != "ten percent" || all[0].Slot != 1 || all[1].Key != "two" {
		t.Fatalf("%d: %v", len(h.keys), all)
	}
	if n := all[0].Count - all[0].Over; n < 9000 || n > 11000 {
		t.Error(all[0])
	}
	// A minute halves the counts, also one in which nothing was asked for.
	minute := int64(time.Minute)
	before := all[0].Count
	h.Slot(1, 16, 100*minute)
	h.Slot(1, 16, 104*minute)
	if all = h.Keys(1); all[0].Count != before/2/16 {
		t.Error(before, all)
	}
	h.Slot(1, 16, 1000*minute)
	if all = h.Keys(1); len(all) != 0 {
		t.Error("of hours ago:", all)
	}
	h.Key(1, []byte("one"))
	h.KeepKeys(false)
	h.Key(1, []byte("late"))
	if all := h.Keys(2); len(all) != 0 {
		t.Error(all)
	}
}

package tally

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestBuckets(t *testing.T) {
	if got := bucketOf(0); got != 0 {
		t.Error(got)
	}
	for i := range bucketCount {
		from, to := boundsOf(i)
		if from >= to || bucketOf(from) != i || bucketOf(to-1) != i {
			t.Errorf("bucket %d: %v to %v, which are in %d and %d", i, from, to, bucketOf(from), bucketOf(to-1))
		}
	}
	if bucketOf(1<<62) != bucketCount-1 {
		t.Error("the longest")
	}
}

func TestQuantiles(t *testing.T) {
	e := New(1, 1, time.Time{}).Entry(1, "a", Reads)
	var all []time.Duration
	r := rand.New(rand.NewPCG(1, 2))
	for range 10000 {
		d := time.Duration(r.ExpFloat64() * float64(5*time.Millisecond))
		all = append(all, d)
		e.Took(d)
	}
	slices.Sort(all)
	s := e.Statement()
	for _, c := range []struct {
		percent int
		got     time.Duration
	}{{50, s.P50}, {95, s.P95}, {99, s.P99}} {
		want := all[len(all)*c.percent/100]
		if off := float64(c.got) / float64(want); off < 0.8 || off > 1.25 {
			t.Errorf("p%d is %v, was %v", c.percent, c.got, want)
		}
	}
	if s.Min != all[0] || s.Max != all[len(all)-1] || s.Timed != 10000 {
		t.Errorf("%+v", s)
	}
}

func TestEntry(t *testing.T) {
	b := New(10, 3, time.Unix(5, 0))
	e := b.Entry(7, "select $1", Reads)
	if b.Entry(7, "select $1", Reads) != e {
		t.Fatal("another")
	}
	e.Ended(Outcome{Rows: 2, Bytes: 30, Shard: 1})
	e.Ended(Outcome{Failed: true, Shard: 0, Bytes: 1})
	e.Ended(Outcome{Rows: 5, Shard: Several})
	e.Spread([]int{0, 2})
	e.Spread(nil)
	e.Refused()
	e.Retried()
	e.Took(3 * time.Millisecond)
	e.Took(0)
	got := e.Statement()
	if got.Calls != 4 || got.Errors != 2 || got.Refused != 1 || got.Retries != 1 || got.Rows != 7 || got.Bytes != 31 || got.Several != 2 || got.Shards != 5 ||
		fmt.Sprint(got.ByShard) != "[3 2 2]" || got.Min != 0 || got.Max != 3*time.Millisecond || got.Mean() != 1500*time.Microsecond || got.Estimated() != 6*time.Millisecond {
		t.Errorf("%+v", got)
	}
	if n := e.Size(); n < 300 || n > 700 {
		t.Errorf("%d bytes", n)
	}
	b.Unread().Ended(Outcome{})
	all, state := b.All()
	if len(all) != 2 || state.Entries != 1 || state.Limit != 10 || !state.Since.Equal(time.Unix(5, 0)) {
		t.Errorf("%+v %+v", all, state)
	}
	b.Reset(time.Unix(9, 0))
	if all, state = b.All(); len(all) != 0 || !state.Since.Equal(time.Unix(9, 0)) {
		t.Errorf("%+v %+v", all, state)
	}
	if got := e.Statement(); got.Calls != 0 || got.Timed != 0 || got.P50 != 0 || fmt.Sprint(got.ByShard) != "[0 0 0]" {
		t.Errorf("%+v", got)
	}
	if text := b.Entry(8, strings.Repeat("é", TextMax), Reads).Text; len(text) > TextMax+3 || !strings.HasSuffix(text, "é...") {
		t.Errorf("%d bytes", len(text))
	}
}

// TestEvict: what is used stays, whatever comes once.
func TestEvict(t *testing.T) {
	const limit = 100
	b := New(limit, 1, time.Time{})
	used := make([]*Entry, 50)
	for i := range used {
		used[i] = b.Entry(uint64(i+1), "used", Reads)
	}
	for i := range 20000 {
		e := used[i%len(used)]
		for range 20 {
			e.Ended(Outcome{})
		}
		e.Took(time.Millisecond) // of a sample, in truth
		once := b.Entry(uint64(1000+i), "once", Reads)
		once.Ended(Outcome{})
	}
	_, state := b.All()
	if state.Entries != limit || state.Evictions < 19000 {
		t.Errorf("%+v", state)
	}
	for i, e := range used {
		if got := e.Statement().Calls; got != 8000 {
			t.Errorf("%d was counted %d times", i, got)
		}
	}
	listed := 0
	for _, e := range used {
		if !e.unlisted.Load() {
			listed++
		}
	}
	if listed < 45 {
		t.Errorf("%d of those used are listed", listed)
	}
}

// TestRelist: one that was reset while it was not listed begins at 0.
func TestRelist(t *testing.T) {
	b := New(1, 1, time.Time{})
	first := b.Entry(1, "first", Reads)
	first.Ended(Outcome{})
	b.Entry(2, "second", Reads)
	if !first.unlisted.Load() {
		t.Fatal("still listed")
	}
	first.Took(time.Second)
	if got := first.Statement(); first.unlisted.Load() || got.Calls != 1 || got.Timed != 1 {
		t.Errorf("not listed again: %+v", got)
	}
	b.Entry(2, "second", Reads)
	b.Reset(time.Time{})
	if got := first.Statement(); got.Calls != 1 {
		t.Errorf("%+v", got)
	}
	first.Took(time.Second)
	if got := first.Statement(); first.unlisted.Load() || got.Calls != 0 {
		t.Errorf("%+v", got)
	}
}

func TestNoBook(t *testing.T) {
	var b *Book
	if b.Entry(1, "", Reads) != nil || b.Unread() != nil {
		t.Error("there is one")
	}
	b.Reset(time.Time{})
	if all, _ := b.All(); all != nil || b.State() != (State{}) {
		t.Error(all)
	}
}

func TestAtOnce(t *testing.T) {
	b := New(8, 2, time.Time{})
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range 2000 {
				e := b.Entry(uint64(1+(i+g)%16), "x", Reads)
				e.Ended(Outcome{Rows: 1, Shard: i % 2})
				e.Took(time.Duration(i))
				if i%500 == 0 {
					b.All()
				}
			}
		})
	}
	group.Wait()
	e := b.Entry(1, "x", Reads)
	if n := testing.AllocsPerRun(100, func() { e.Ended(Outcome{Rows: 1, Shard: 1}); e.Took(time.Millisecond) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkEnded(b *testing.B) {
	e := New(8, 2, time.Time{}).Entry(1, "x", Reads)
	for b.Loop() {
		e.Ended(Outcome{Rows: 1, Bytes: 100, Shard: 1})
	}
}

// TestRelistUses: one that was reset while it was not listed has its uses counted from then on, and is no less used than others.
func TestRelistUses(t *testing.T) {
	b := New(2, 1, time.Time{})
	e := b.Entry(1, "used", Reads)
	for range 1000 {
		e.Ended(Outcome{})
	}
	e.counted = 1000 // uses of long ago
	b.Entry(2, "second", Reads).Ended(Outcome{})
	b.Entry(3, "third", Reads)
	if !e.unlisted.Load() {
		t.Fatal("still listed")
	}
	b.Reset(time.Time{})
	e.Took(time.Millisecond)
	for range 100 {
		e.Ended(Outcome{})
	}
	b.Entry(4, "once", Reads)
	if e.unlisted.Load() {
		t.Error("what is used most gave way")
	}
}

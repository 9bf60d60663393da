package tally

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// Entry counts one kind of statement. It must not be copied.
type Entry struct {
	Fingerprint uint64
	Text        string

	does atomic.Uint32 // a Does
	book *Book
	// counted are the calls that count as uses no more; book.mu guards it.
	counted    int64
	generation atomic.Uint32
	unlisted   atomic.Bool

	calls, errors, rows, bytes      atomic.Int64
	retries, refused                atomic.Int64
	several, shards                 atomic.Int64 // calls on several shards, and on how many
	byShard                         []atomic.Int64
	timed, total, longest, shortest atomic.Int64 // nanoseconds; shortest is one more than that, 0: none
	buckets                         [bucketCount]atomic.Uint32
}

func newEntry(b *Book, fingerprint uint64, text string) *Entry {
	e := &Entry{Fingerprint: fingerprint, Text: text, book: b}
	e.generation.Store(b.generation.Load())
	if b.shards > 1 {
		e.byShard = make([]atomic.Int64, b.shards)
	}
	return e
}

// Size estimates what an entry keeps from the garbage collector, in bytes.
func (e *Entry) Size() int { return int(unsafe.Sizeof(*e)) + len(e.Text) + 8*len(e.byShard) }

// Does returns what its statements do.
func (e *Entry) Does() Does { return Does(e.does.Load()) }

// Several is the shard of a statement that ran on several.
const Several = -1

// Outcome is how a statement ended.
type Outcome struct {
	Rows, Bytes int64 // of the answer
	// Shard is the place of the shard that it ran on, or Several.
	Shard  int
	Failed bool
}

// Ended counts a statement that has ended. Those on several shards are counted by Spread besides.
func (e *Entry) Ended(o Outcome) {
	e.calls.Add(1)
	if o.Rows > 0 {
		e.rows.Add(o.Rows)
	}
	e.bytes.Add(o.Bytes)
	if o.Failed {
		e.errors.Add(1)
	}
	if o.Shard >= 0 && o.Shard < len(e.byShard) {
		e.byShard[o.Shard].Add(1)
	}
}

// Spread counts that a statement ran on several shards, those of the places given; nil: on all.
func (e *Entry) Spread(shards []int) {
	e.several.Add(1)
	if shards == nil {
		e.shards.Add(int64(len(e.byShard)))
		for i := range e.byShard {
			e.byShard[i].Add(1)
		}
		return
	}
	e.shards.Add(int64(len(shards)))
	for _, i := range shards {
		if i >= 0 && i < len(e.byShard) {
			e.byShard[i].Add(1)
		}
	}
}

// Refused counts a statement that was sent nowhere.
func (e *Entry) Refused() {
	e.calls.Add(1)
	e.errors.Add(1)
	e.refused.Add(1)
}

// Retried counts that a statement was begun anew, unseen by its client.
func (e *Entry) Retried() { e.retries.Add(1) }

// Took counts the time of one of those that are timed.
func (e *Entry) Took(t time.Duration) {
	t = max(t, 0)
	e.timed.Add(1)
	e.total.Add(int64(t))
	for {
		was := e.longest.Load()
		if int64(t) <= was || e.longest.CompareAndSwap(was, int64(t)) {
			break
		}
	}
	for {
		was := e.shortest.Load()
		if was != 0 && int64(t)+1 >= was || e.shortest.CompareAndSwap(was, int64(t)+1) {
			break
		}
	}
	e.buckets[bucketOf(t)].Add(1)
	if e.unlisted.Load() {
		e.book.relist(e)
	}
}

// clear makes all counters 0.
func (e *Entry) clear() {
	for _, c := range []*atomic.Int64{&e.calls, &e.errors, &e.rows, &e.bytes, &e.retries, &e.refused, &e.several, &e.shards, &e.timed, &e.total, &e.longest, &e.shortest} {
		c.Store(0)
	}
	for i := range e.byShard {
		e.byShard[i].Store(0)
	}
	for i := range e.buckets {
		e.buckets[i].Store(0)
	}
}

// Statement is what an Entry has counted, at about one moment.
type Statement struct {
	Fingerprint uint64
	Text        string // "" for statements that were not understood
	// Calls have ended, with an error or without; Refused are those of Errors that were sent nowhere.
	Calls, Errors, Refused, Retries int64
	Rows, Bytes                     int64
	// Several are the calls that ran on several shards, Shards on how many these did, in all.
	Several, Shards int64
	// ByShard counts by shard; nil in a database of one.
	ByShard []int64
	// Timed are the calls whose times are known: the rest is of these.
	Timed           int64
	Total, Min, Max time.Duration
	P50, P95, P99   time.Duration
}

// Mean returns the mean time, 0 when none is known.
func (s *Statement) Mean() time.Duration {
	if s.Timed == 0 {
		return 0
	}
	return s.Total / time.Duration(s.Timed)
}

// Estimated returns the time that all calls took together, if those that were timed are like the others.
func (s *Statement) Estimated() time.Duration {
	if s.Timed == 0 {
		return 0
	}
	return time.Duration(float64(s.Total) / float64(s.Timed) * float64(max(s.Calls, s.Timed)))
}

// Statement returns what was counted.
func (e *Entry) Statement() Statement {
	s := Statement{
		Fingerprint: e.Fingerprint, Text: e.Text, Calls: e.calls.Load(), Errors: e.errors.Load(), Refused: e.refused.Load(), Retries: e.retries.Load(),
		Rows: e.rows.Load(), Bytes: e.bytes.Load(), Several: e.several.Load(), Shards: e.shards.Load(),
		Timed: e.timed.Load(), Total: time.Duration(e.total.Load()), Max: time.Duration(e.longest.Load()), Min: time.Duration(max(e.shortest.Load()-1, 0)),
	}
	for i := range e.byShard {
		s.ByShard = append(s.ByShard, e.byShard[i].Load())
	}
	var counts [bucketCount]uint32
	for i := range counts {
		counts[i] = e.buckets[i].Load()
	}
	s.P50, s.P95, s.P99 = quantile(&counts, 50, s.Min, s.Max), quantile(&counts, 95, s.Min, s.Max), quantile(&counts, 99, s.Min, s.Max)
	return s
}

package tally

import (
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// TextMax bounds the text that is kept of a statement, in bytes.
const TextMax = 2048

// sampleOf is how many entries are looked at for the least used one.
const sampleOf = 16

// Book holds the statements of one database, at most so many.
type Book struct {
	shards     int
	unread     *Entry // statements that were not understood as a whole
	evictions  atomic.Int64
	generation atomic.Uint32 // counts resets

	mu      sync.Mutex
	limit   int
	entries map[uint64]*Entry
	since   time.Time
	// evicted counts since the uses of all entries were last halved.
	evicted int
}

// New returns a Book of at most limit statements, of a database of so many shards, that counts from now on.
func New(limit, shards int, now time.Time) *Book {
	b := &Book{shards: shards, limit: max(limit, 1), entries: map[uint64]*Entry{}, since: now}
	b.unread = newEntry(b, 0, "")
	b.unread.does.Store(uint32(DoesAll))
	return b
}

// Unread returns the entry for statements that were relayed without being understood. It is in no list but All's.
func (b *Book) Unread() *Entry {
	if b == nil {
		return nil
	}
	return b.unread
}

// Entry returns the entry for a fingerprint; what is not in the book takes the place of one that is little used. text is
// cut to TextMax bytes. does is added to what its statements do: of texts in which it is not certain what is a value so little is kept that
// several are one. A nil Book has none: the result is nil.
func (b *Book) Entry(fingerprint uint64, text string, does Does) *Entry {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[fingerprint]
	if e == nil {
		e = newEntry(b, fingerprint, cut(text))
		b.listLocked(e)
	}
	e.does.Or(uint32(does))
	return e
}

func cut(text string) string {
	if len(text) <= TextMax {
		return text
	}
	n := TextMax
	for n > 0 && !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n] + "..."
}

// listLocked puts an entry in the list.
func (b *Book) listLocked(e *Entry) {
	if len(b.entries) >= b.limit {
		b.evictLocked()
	}
	if now := b.generation.Load(); e.generation.Swap(now) != now {
		e.clear() // it was not listed when the others were
		e.counted = 0
	}
	b.entries[e.Fingerprint] = e
	e.unlisted.Store(false)
}

// evictLocked takes the least used of a few entries out of the list. What it has counted stays with the plans that know
// it, and is listed again with the next statement of its kind that is timed.
func (b *Book) evictLocked() {
	var least *Entry
	var uses int64
	n := 0
	for _, e := range b.entries { // in random order
		if u := e.calls.Load() - e.counted; least == nil || u < uses {
			least, uses = e, u
		}
		if n++; n == sampleOf {
			break
		}
	}
	delete(b.entries, least.Fingerprint)
	least.unlisted.Store(true)
	b.evictions.Add(1)
	// Uses of long ago count for less.
	if b.evicted++; b.evicted >= max(b.limit/4, 1) {
		b.evicted = 0
		for _, e := range b.entries {
			calls := e.calls.Load()
			e.counted = calls - (calls-e.counted)/2
		}
	}
}

// relist lists an entry again that was evicted, unless the list is in use: the next one tries again. Its fingerprint may
// have got another entry meanwhile, which stays.
func (b *Book) relist(e *Entry) {
	if !b.mu.TryLock() {
		return
	}
	defer b.mu.Unlock()
	if e.unlisted.Load() && b.entries[e.Fingerprint] == nil {
		b.listLocked(e)
	}
}

// Reset makes all counters 0. What ends at the same moment may be counted by halves.
func (b *Book) Reset(now time.Time) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	n := b.generation.Add(1)
	for _, e := range b.entries {
		e.generation.Store(n)
		e.clear()
		e.counted = 0
	}
	b.unread.clear()
	b.since = now
}

// State is what a Book tells of itself.
type State struct {
	Since     time.Time // it counts from then on
	Entries   int
	Limit     int
	Evictions int64
}

// State returns the state of the book; that of a nil Book is zero.
func (b *Book) State() State {
	if b == nil {
		return State{}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stateLocked()
}

func (b *Book) stateLocked() State {
	return State{Since: b.since, Entries: len(b.entries), Limit: b.limit, Evictions: b.evictions.Load()}
}

// All returns what was counted, in no order, and the state of the book. Statements that never ended are left out; those
// that were not understood are one, of fingerprint 0, if there are any.
func (b *Book) All() ([]Statement, State) {
	if b == nil {
		return nil, State{}
	}
	b.mu.Lock()
	entries := make([]*Entry, 0, len(b.entries)+1)
	for _, e := range b.entries {
		entries = append(entries, e)
	}
	state := b.stateLocked()
	b.mu.Unlock()
	all := make([]Statement, 0, len(entries)+1)
	for _, e := range append(entries, b.unread) {
		if s := e.Statement(); s.Calls > 0 {
			all = append(all, s)
		}
	}
	return all, state
}

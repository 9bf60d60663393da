package cache

import (
	"slices"
	"time"
)

// Flight is a query that is being run to keep its result. It belongs to who has claimed it, and must be ended by Fill or Drop.
type Flight struct {
	c      *Cache
	key    string
	tables []string
	lasts  time.Duration
	stale  bool     // a table has changed since it began
	done   bool     // it has ended
	wakes  []func() // of those who wait
	// answering is when the first byte of the answer came.
	answering time.Time
}

// Answers says that the answer has begun to come. Who waits is told, and may wait no longer.
func (f *Flight) Answers() {
	f.c.mu.Lock()
	f.answering = time.Now()
	wakes := slices.Clone(f.wakes)
	f.c.mu.Unlock()
	for _, wake := range wakes {
		wake()
	}
}

// Answering returns when the answer began to come, the zero time before.
func (f *Flight) Answering() time.Time {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	return f.answering
}

// Claim is for who finds nothing under a key. It returns a new Flight, mine, to be filled with the answer, or that of somebody who is at it already:
// wake is called when it ends. It returns nil while nothing is kept. The query must not be sent before.
func (c *Cache) Claim(key []byte, tables []string, lasts time.Duration, wake func()) (f *Flight, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Misses++
	if !c.open {
		return nil, false
	}
	if f = c.flights[string(key)]; f != nil {
		c.counts.Waits++
		f.wakes = append(f.wakes, wake)
		return f, false
	}
	f = &Flight{c: c, key: string(key), tables: tables, lasts: lasts}
	c.flights[f.key] = f
	c.hang(tables, nil, f)
	return f, true
}

// Done reports whether the query is over.
func (f *Flight) Done() bool {
	f.c.mu.Lock()
	defer f.c.mu.Unlock()
	return f.done
}

// Fill ends the Flight with the answer, which is kept unless it is too long, or something it hangs on has changed. The cache owns answer from now on.
func (f *Flight) Fill(answer []byte, now time.Time) {
	c := f.c
	wakes := func() []func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		e := &entry{key: f.key, answer: answer, tables: f.tables, until: now.Add(f.lasts)}
		switch {
		case f.done:
			return nil
		case int64(len(answer)) > c.o.Entry || e.bytes() > c.o.Bytes:
			c.counts.Large++
		case f.stale || !c.open:
			c.counts.Stale++
		default:
			c.storeLocked(e)
		}
		return f.endLocked()
	}()
	for _, wake := range wakes {
		wake()
	}
}

// Drop ends the Flight without an answer; large says that it was too long. It may be called behind an end.
func (f *Flight) Drop(large bool) {
	f.c.mu.Lock()
	if large && !f.done {
		f.c.counts.Large++
	}
	wakes := f.endLocked()
	f.c.mu.Unlock()
	for _, wake := range wakes {
		wake()
	}
}

func (f *Flight) endLocked() (wakes []func()) {
	if f.done {
		return nil
	}
	f.done = true
	delete(f.c.flights, f.key)
	f.c.unhang(f.tables, nil, f)
	wakes, f.wakes = f.wakes, nil
	return wakes
}

func (c *Cache) storeLocked(e *entry) {
	if old := c.entries[e.key]; old != nil {
		c.dropLocked(old)
	}
	c.entries[e.key] = e
	e.link(&c.first)
	c.hang(e.tables, e, nil)
	c.counts.Stored++
	c.counts.Entries++
	c.counts.Bytes += e.bytes()
	for c.counts.Bytes > c.o.Bytes {
		c.dropLocked(c.first.prev)
		c.counts.Evicted++
	}
}

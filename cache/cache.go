package cache

import (
	"sync"
	"time"
)

// Options say what is kept.
type Options struct {
	// Bytes bounds what all results take, with their keys. Entry bounds one of them.
	Bytes, Entry int64
	// Tables are those of which results are kept, each for so long; named as catalog.TableName does.
	Tables map[string]time.Duration
	// Statements are those whose results are kept whatever tables they read, by fingerprint.
	Statements map[uint64]time.Duration
	// Touched is told of each call of Touch; nil: nobody is. It must not block.
	Touched func(tables []string, all bool)
}

// Cache keeps results. It is safe for concurrent use.
type Cache struct {
	o Options

	mu      sync.Mutex
	open    bool
	entries map[string]*entry
	flights map[string]*Flight
	tables  map[string]*dependents
	first   entry // the ring of entries, the latest used first
	counts  Stats
}

// entry is a result, and its place in the ring.
type entry struct {
	prev, next *entry
	key        string
	answer     []byte
	tables     []string
	until      time.Time
}

// dependents are what hangs on a table.
type dependents struct {
	entries map[*entry]struct{}
	flights map[*Flight]struct{}
}

// Stats are what a cache has done since it was made. They only grow, but for Open, Entries and Bytes.
type Stats struct {
	// Open is set while results are kept: see Open and Shut.
	Open    bool
	Entries int
	Bytes   int64
	// BytesMax is Options.Bytes.
	BytesMax int64
	// Hits were answered from here. Misses were not, Waits of them waited for somebody who asked the same.
	Hits, Misses, Waits int64
	// Stored results came in. Large ones did not, for their length; Stale ones because a table had changed meanwhile.
	Stored, Large, Stale int64
	// Invalidated ones left for a change of a table, Expired ones for their age, Evicted ones for others.
	Invalidated, Expired, Evicted int64
}

// entryBytes is what an entry takes besides its key and its answer.
const entryBytes = 256

// New returns a Cache that keeps nothing until it is opened.
func New(o Options) *Cache {
	c := &Cache{o: o}
	c.clearLocked()
	return c
}

func (c *Cache) clearLocked() {
	c.entries, c.flights, c.tables = map[string]*entry{}, map[string]*Flight{}, map[string]*dependents{}
	c.first.prev, c.first.next = &c.first, &c.first
	c.counts.Entries, c.counts.Bytes = 0, 0
}

// EntryMax returns how many bytes an answer may have.
func (c *Cache) EntryMax() int { return int(c.o.Entry) }

// Lasts returns for how long results of a query are kept that reads tables; 0: they are not. fingerprint is asked for the query's when that decides.
func (c *Cache) Lasts(tables []string, fingerprint func() uint64) time.Duration {
	if len(c.o.Statements) > 0 {
		if d := c.o.Statements[fingerprint()]; d > 0 {
			return d
		}
	}
	least := time.Duration(0)
	for _, t := range tables {
		d, ok := c.o.Tables[t]
		if !ok {
			return 0
		}
		if least == 0 || d < least {
			least = d
		}
	}
	return least
}

// Open has results kept from now on, Shut none until then: what is there is dropped, and what is under way is not kept. Who does not hear what others
// write must not keep results.
func (c *Cache) Open() { c.turn(true) }

// Shut is the opposite of Open.
func (c *Cache) Shut() { c.turn(false) }

func (c *Cache) turn(open bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = open
	c.forgetLocked()
}

// Clear drops all results.
func (c *Cache) Clear() { c.Invalidate(nil, true) }

// Get returns the answer under a key; nil when there is none. The answer is shared: it must not be changed.
func (c *Cache) Get(key []byte, now time.Time) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[string(key)]
	if e != nil && !now.Before(e.until) {
		c.dropLocked(e)
		c.counts.Expired++
		e = nil
	}
	if e == nil {
		return nil
	}
	c.counts.Hits++
	e.unlink()
	e.link(&c.first)
	return e.answer
}

// Touch says that tables, or all, may have changed: results that hang on them are dropped, and what is being read is not kept. It is to be
// called before anybody is told of the change.
func (c *Cache) Touch(tables []string, all bool) {
	c.Invalidate(tables, all)
	if c.o.Touched != nil {
		c.o.Touched(tables, all)
	}
}

// Invalidate is Touch for what others have changed, of which nobody else is told.
func (c *Cache) Invalidate(tables []string, all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if all {
		c.forgetLocked()
		return
	}
	for _, t := range tables {
		d := c.tables[t]
		if d == nil {
			continue
		}
		for e := range d.entries {
			c.dropLocked(e)
			c.counts.Invalidated++
		}
		for f := range d.flights {
			f.stale = true
		}
	}
}

// forgetLocked drops all results, and has none kept that is being read.
func (c *Cache) forgetLocked() {
	c.counts.Invalidated += int64(len(c.entries))
	for _, f := range c.flights {
		f.stale = true
	}
	flights := c.flights
	c.clearLocked()
	c.flights = flights // which are stale whatever their tables do
}

// hang notes that something hangs on tables.
func (c *Cache) hang(tables []string, e *entry, f *Flight) {
	for _, t := range tables {
		d := c.tables[t]
		if d == nil {
			d = &dependents{entries: map[*entry]struct{}{}, flights: map[*Flight]struct{}{}}
			c.tables[t] = d
		}
		if e != nil {
			d.entries[e] = struct{}{}
		}
		if f != nil {
			d.flights[f] = struct{}{}
		}
	}
}

// unhang is the opposite of hang.
func (c *Cache) unhang(tables []string, e *entry, f *Flight) {
	for _, t := range tables {
		d := c.tables[t]
		if d == nil {
			continue
		}
		delete(d.entries, e)
		delete(d.flights, f)
		if len(d.entries)+len(d.flights) == 0 {
			delete(c.tables, t)
		}
	}
}

func (c *Cache) dropLocked(e *entry) {
	e.unlink()
	delete(c.entries, e.key)
	c.unhang(e.tables, e, nil)
	c.counts.Entries--
	c.counts.Bytes -= e.bytes()
}

func (e *entry) bytes() int64 { return entryBytes + int64(len(e.key)) + int64(len(e.answer)) }

func (e *entry) unlink() { e.prev.next, e.next.prev = e.next, e.prev }

// link puts the entry behind another.
func (e *entry) link(at *entry) {
	e.prev, e.next = at, at.next
	e.prev.next, e.next.prev = e, e
}

// Stats returns what the cache has done.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.counts
	s.Open, s.BytesMax = c.open, c.o.Bytes
	return s
}

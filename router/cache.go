package router

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"shardproxy/query"
)

// ways is the number of places an entry may stand in.
const ways = 8

// entry is one cached plan. All but used is written before it is published.
type entry struct {
	hash    uint64
	key     string // the text, or its normalised form
	ctx     Context
	exact   bool
	version uint64 // of the catalog
	plan    *Plan
	size    int64
	used    atomic.Bool
}

// cache is a set-associative table of plans. Look-ups take no lock and do not
// allocate; entries are compared by value. Insertions are rare and take the
// mutex. An entry that is used between two passes of the clock's hand stays,
// so that texts seen once do not drive out the others.
type cache struct {
	sets  []([ways]atomic.Pointer[entry])
	limit int64

	mu        sync.Mutex
	hand      int
	bytes     atomic.Int64
	entries   atomic.Int64
	evictions atomic.Uint64
}

// newCache returns a cache of at most limit bytes, its table included.
func newCache(limit int64) *cache {
	const entryBytes = 1024 // what a small plan takes
	sets := max(1, limit/entryBytes/ways)
	sets = 1 << (bits.Len64(uint64(sets)) - 1)
	c := &cache{sets: make([][ways]atomic.Pointer[entry], sets)}
	c.limit = limit - sets*ways*8
	return c
}

// get returns the entry for a key; nil when there is none.
func (c *cache) get(hash uint64, key []byte, ctx *Context, exact bool) *entry {
	set := &c.sets[hash&uint64(len(c.sets)-1)]
	for i := range set {
		e := set[i].Load()
		if e != nil && e.hash == hash && e.exact == exact && e.key == string(key) && e.ctx == *ctx {
			if !e.used.Load() {
				e.used.Store(true)
			}
			return e
		}
	}
	return nil
}

// put adds an entry, in place of one with the same key. One that would take
// more than a fraction of the cache is left out.
func (c *cache) put(e *entry) {
	const fraction = 32
	e.size = entrySize(e)
	if e.size > c.limit/fraction {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	set := &c.sets[e.hash&uint64(len(c.sets)-1)]
	place := victim(set, e)
	c.replaceLocked(&set[place], e)
	for c.bytes.Load() > c.limit {
		c.sweepLocked(e)
	}
}

// victim chooses the place for e in its set: that of the same key, a free one,
// or that of the first entry not used lately.
func victim(set *[ways]atomic.Pointer[entry], e *entry) int {
	free := -1
	for i := range set {
		o := set[i].Load()
		if o == nil {
			if free < 0 {
				free = i
			}
			continue
		}
		if o.hash == e.hash && o.exact == e.exact && o.key == e.key && o.ctx == e.ctx {
			return i
		}
	}
	if free >= 0 {
		return free
	}
	start := int(e.hash>>32) % ways
	for i := range 2 * ways {
		at := (start + i) % ways
		if !set[at].Load().used.Swap(false) {
			return at
		}
	}
	return start
}

// replaceLocked puts e (nil: nothing) in a place and keeps the books.
func (c *cache) replaceLocked(place *atomic.Pointer[entry], e *entry) {
	old := place.Swap(e)
	if e != nil {
		c.bytes.Add(e.size)
		c.entries.Add(1)
	}
	if old != nil {
		c.bytes.Add(-old.size)
		c.entries.Add(-1)
		if e == nil || old.key != e.key {
			c.evictions.Add(1)
		}
	}
}

// sweepLocked moves the hand over one set: entries not used since it last came
// by go, but never keep, which was just added.
func (c *cache) sweepLocked(keep *entry) {
	set := &c.sets[c.hand]
	c.hand = (c.hand + 1) % len(c.sets)
	for i := range set {
		e := set[i].Load()
		if e != nil && e != keep && !e.used.Swap(false) {
			c.replaceLocked(&set[i], nil)
		}
	}
}

// entrySize estimates what an entry keeps from the garbage collector.
func entrySize(e *entry) int64 {
	const (
		entryBase   = 320 // entry, plan and statement
		commandBase = 512
		nameBase    = 40
		settingBase = 112
		groupBase   = 96
		valueBase   = 64
		rowBase     = 20
	)
	n := entryBase + len(e.key) + len(e.ctx.SearchPath) + len(e.ctx.Role) + len(e.plan.Why)
	if t := e.plan.Tally; t != nil {
		n += t.Size() // others may have it too, but this one may be the last
	}
	if e.plan.split != nil {
		sp := e.plan.split
		n += len(sp.rows)*rowBase + len(sp.replaced)*rowBase + len(sp.draws)*groupBase + len(sp.names)
	}
	for i := range e.plan.groups {
		n += groupBase
		for _, column := range e.plan.groups[i].columns {
			n += len(column) * valueBase
			for i := range column {
				if w := column[i].within; w != nil && (i == 0 || w != column[i-1].within) {
					n += len(w.limits) * valueBase
				}
			}
		}
	}
	for i := range e.plan.Statement.Commands {
		c := &e.plan.Statement.Commands[i]
		n += commandBase + len(c.Target)
		for _, names := range [][]query.Name{c.Functions, c.Operators, c.Types, c.Relations, c.Writes} {
			for _, name := range names {
				n += nameBase + len(name.Schema) + len(name.Name)
			}
		}
		for _, list := range [][]string{c.Attributes, c.SettingsRead} {
			for _, s := range list {
				n += 16 + len(s)
			}
		}
		for _, s := range c.Settings {
			n += settingBase + len(s.Name) + len(s.Value) + len(s.Literal) + len(s.Flat)
		}
	}
	return int64(n)
}

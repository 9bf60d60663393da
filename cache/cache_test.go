package cache

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

func opened(o Options) *Cache {
	c := New(o)
	c.Open()
	return c
}

// store runs a query whose answer is kept.
func store(t *testing.T, c *Cache, key, answer string, now time.Time, tables ...string) {
	t.Helper()
	f, mine := c.Claim([]byte(key), tables, time.Minute, func() {})
	if !mine {
		t.Fatalf("%s is being asked for already", key)
	}
	f.Fill([]byte(answer), now)
}

func TestCacheKeeps(t *testing.T) {
	now := time.Now()
	c := opened(Options{Bytes: 1 << 20, Entry: 10})
	get := func(key string, after time.Duration) string { return string(c.Get([]byte(key), now.Add(after))) }
	store(t, c, "a", "1", now, "t", "u")
	store(t, c, "b", "2", now, "u")
	store(t, c, "c", "3", now, "v")
	store(t, c, "d", "12345678901", now, "v") // too long
	for _, step := range []struct {
		what  string
		do    func()
		after time.Duration
		want  string // of a, b, c, d
	}{
		{"all is there", func() {}, 0, "1 2 3 "},
		{"another table changes", func() { c.Touch([]string{"w"}, false) }, 0, "1 2 3 "},
		{"one changes", func() { c.Touch([]string{"t"}, false) }, 0, " 2 3 "},
		{"what it was about is read again", func() { store(t, c, "a", "4", now, "t", "u") }, 0, "4 2 3 "},
		{"two change", func() { c.Invalidate([]string{"u", "t"}, false) }, 0, "  3 "},
		{"time is almost over", func() {}, time.Minute - 1, "  3 "},
		{"time is over", func() {}, time.Minute, "   "},
		{"two are back", func() { store(t, c, "a", "1", now, "t"); store(t, c, "b", "2", now, "u") }, 0, "1 2  "},
		{"anything changes", func() { c.Touch(nil, true) }, 0, "   "},
		{"one is back", func() { store(t, c, "a", "1", now, "t") }, 0, "1   "},
		{"nothing is heard of others", c.Shut, 0, "   "},
		{"nothing is kept then", func() {
			if f, mine := c.Claim([]byte("a"), nil, time.Minute, func() {}); f != nil || mine {
				t.Error("a flight of a cache that is shut")
			}
		}, 0, "   "},
		{"others are heard again", c.Open, 0, "   "},
	} {
		step.do()
		if got := get("a", step.after) + " " + get("b", step.after) + " " + get("c", step.after) + " " + get("d", step.after); got != step.want {
			t.Errorf("%s: %q, want %q", step.what, got, step.want)
		}
	}
	if s := c.Stats(); s.Entries != 0 || s.Bytes != 0 || s.Large != 1 || s.Expired != 1 || s.Stored != 7 || s.Invalidated != 6 || len(c.tables) != 0 {
		t.Errorf("%+v, %d tables", s, len(c.tables))
	}
}

// TestCacheStale changes tables while queries are under way.
func TestCacheStale(t *testing.T) {
	now := time.Now()
	for what, change := range map[string]func(c *Cache){
		"its table": func(c *Cache) { c.Touch([]string{"t"}, false) }, "all": func(c *Cache) { c.Touch(nil, true) },
		"others are not heard": func(c *Cache) { c.Shut(); c.Open() }, "twice": func(c *Cache) { c.Clear(); c.Invalidate([]string{"t"}, false) },
	} {
		c := opened(Options{Bytes: 1 << 20, Entry: 10})
		f, _ := c.Claim([]byte("a"), []string{"s", "t"}, time.Minute, func() {})
		change(c)
		f.Fill([]byte("old"), now)
		if got := c.Get([]byte("a"), now); got != nil || c.Stats().Stale != 1 || len(c.tables) != 0 {
			t.Errorf("%s: %q, %+v", what, got, c.Stats())
		}
		store(t, c, "a", "new", now, "t")
		if got := c.Get([]byte("a"), now); string(got) != "new" {
			t.Errorf("%s: then %q", what, got)
		}
	}
}

// TestCacheFlight has others wait for the first who asks.
func TestCacheFlight(t *testing.T) {
	now := time.Now()
	c := opened(Options{Bytes: 1 << 20, Entry: 10})
	woken := 0
	f, mine := c.Claim([]byte("a"), []string{"t"}, time.Minute, func() { t.Error("who flies is woken") })
	g, second := c.Claim([]byte("a"), []string{"t"}, time.Minute, func() { woken++ })
	h, third := c.Claim([]byte("a"), []string{"t"}, time.Minute, func() { woken++ })
	if !mine || second || third || f != g || f != h || f.Done() {
		t.Fatalf("%t %t %t", mine, second, third)
	}
	f.Fill([]byte("x"), now)
	f.Drop(true)
	f.Fill([]byte("y"), now)
	if woken != 2 || !f.Done() || string(c.Get([]byte("a"), now)) != "x" {
		t.Errorf("%d woken, %q", woken, c.Get([]byte("a"), now))
	}
	c.Clear()
	f, _ = c.Claim([]byte("a"), nil, time.Minute, nil)
	c.Claim([]byte("a"), nil, time.Minute, func() { woken++ })
	f.Drop(false)
	if woken != 3 || c.Get([]byte("a"), now) != nil || len(c.flights) != 0 {
		t.Errorf("%d woken, %d flights", woken, len(c.flights))
	}
}

func TestCacheLasts(t *testing.T) {
	c := New(Options{Tables: map[string]time.Duration{"p.a": time.Minute, "p.b": time.Second}, Statements: map[uint64]time.Duration{7: time.Hour}})
	for _, test := range []struct {
		tables string
		print  uint64
		want   time.Duration
	}{{"p.a", 1, time.Minute}, {"p.b", 1, time.Second}, {"p.a p.b", 1, time.Second}, {"p.c", 1, 0}, {"p.a p.c", 1, 0}, {"p.c", 7, time.Hour}, {"p.a", 7, time.Hour}} {
		if got := c.Lasts(strings.Fields(test.tables), func() uint64 { return test.print }); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

// TestCacheBounds fills a cache with more than it may hold: what was used last stays.
func TestCacheBounds(t *testing.T) {
	now := time.Now()
	c := opened(Options{Bytes: 100 * (entryBytes + 20), Entry: 1000})
	for i := range 1000 {
		store(t, c, fmt.Sprintf("key %06d", i), "0123456789", now, fmt.Sprint("t", i%7))
		if c.Get([]byte("key 000000"), now) == nil {
			t.Fatalf("what is used all the time is gone after %d", i)
		}
		if s := c.Stats(); s.Bytes > c.o.Bytes || s.Entries != len(c.entries) {
			t.Fatalf("%+v", s)
		}
	}
	if s := c.Stats(); s.Entries != 100 || s.Evicted != 900 || len(c.tables) > 7 {
		t.Errorf("%+v", s)
	}
}

// TestCacheNothingOld has readers and writers at work at once: once a write is told, no reader may get what was there before it began.
func TestCacheNothingOld(t *testing.T) {
	c := opened(Options{Bytes: 1 << 20, Entry: 100})
	tables := []string{"a", "b", "c"}
	var stored [3]struct {
		sync.Mutex
		value int
	}
	var told [3]struct {
		sync.Mutex
		value int
	}
	read := func(i int) int {
		stored[i].Lock()
		defer stored[i].Unlock()
		return stored[i].value
	}
	var group sync.WaitGroup
	for w := range 6 {
		group.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for range 20000 {
				i := r.IntN(3)
				if w < 2 {
					stored[i].Lock()
					stored[i].value++
					v := stored[i].value
					stored[i].Unlock()
					c.Touch(tables[i:i+1], r.IntN(100) == 0)
					told[i].Lock()
					told[i].value = max(told[i].value, v)
					told[i].Unlock()
					continue
				}
				told[i].Lock()
				least := told[i].value
				told[i].Unlock()
				got := 0
				if a := c.Get([]byte(tables[i]), time.Now()); a != nil {
					fmt.Sscan(string(a), &got)
				} else if f, mine := c.Claim([]byte(tables[i]), tables[i:i+1], time.Minute, func() {}); mine {
					got = read(i)
					f.Fill(fmt.Append(nil, got), time.Now())
				} else {
					continue
				}
				if got < least {
					t.Errorf("%s: %d is read, %d was told", tables[i], got, least)
				}
			}
		})
	}
	group.Wait()
	if s := c.Stats(); s.Hits == 0 || s.Stale == 0 {
		t.Errorf("%+v", s)
	}
}

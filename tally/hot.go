package tally

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// hotWindow is the time whose slots are counted together: the last window that is over is what is shown.
	hotWindow = time.Minute
	// hotKeys is how many keys are kept: one that has more than that part of the statements is surely among them.
	hotKeys = 200
	// keyMax bounds a key that is kept, in bytes.
	keyMax = 64
)

// Hot counts which slots, and keys, a sample of a database's statements asks for. Counting takes no lock, but for keys,
// and no memory, but once in a window.
type Hot struct {
	window atomic.Pointer[window]

	// mu guards what follows; who finds it taken leaves out a key.
	mu   sync.Mutex
	last *window // the one before
	// keeps is set while keys are counted.
	keeps bool
	keys  map[string]*hotKey
}

// window is what one hotWindow has counted.
type window struct {
	number int64
	counts []atomic.Uint32 // by slot
	all    atomic.Int64
}

// hotKey is a counter of the space-saving algorithm (Metwally and others, 2005): what is counted is at most over too many.
type hotKey struct {
	slot        int
	text        string
	count, over int64
}

// Slot counts a statement that asks for a slot of so many, at a time in Unix nanoseconds.
func (h *Hot) Slot(slot, of int, now int64) {
	w := h.at(of, now)
	if w != nil && slot >= 0 && slot < len(w.counts) {
		w.counts[slot].Add(1)
		w.all.Add(1)
	}
}

// at returns the window of the moment; nil when others are making it.
func (h *Hot) at(slots int, now int64) *window {
	number := now / int64(hotWindow)
	w := h.window.Load()
	if w != nil && w.number >= number && len(w.counts) == slots {
		return w
	}
	if !h.mu.TryLock() {
		return nil
	}
	defer h.mu.Unlock()
	if w = h.window.Load(); w != nil && w.number >= number && len(w.counts) == slots {
		return w
	}
	h.last = nil
	if w != nil && w.number == number-1 && len(w.counts) == slots {
		h.last = w
	}
	windows := int64(1)
	if w != nil {
		windows = min(number-w.number, 62)
	}
	for text, k := range h.keys { // keys of long ago count for less
		if k.count, k.over = k.count>>windows, k.over>>windows; k.count == 0 {
			delete(h.keys, text)
		}
	}
	next := &window{number: number, counts: make([]atomic.Uint32, slots)}
	h.window.Store(next)
	return next
}

// Key counts a statement that asks for a key in a slot, while KeepKeys has keys counted. What is borrowed by key may change afterwards.
func (h *Hot) Key(slot int, key []byte) {
	if len(key) > keyMax || !h.mu.TryLock() {
		return
	}
	defer h.mu.Unlock()
	if !h.keeps {
		return
	}
	if k := h.keys[string(key)]; k != nil {
		k.count++
		return
	}
	if h.keys == nil {
		h.keys = map[string]*hotKey{}
	}
	next := &hotKey{slot: slot, text: string(key), count: 1}
	if len(h.keys) >= hotKeys {
		var least *hotKey
		for _, k := range h.keys {
			if least == nil || k.count < least.count {
				least = k
			}
		}
		delete(h.keys, least.text)
		next.count, next.over = least.count+1, least.count
	}
	h.keys[next.text] = next
}

// KeepKeys has keys counted from now on, or drops those there are: none is counted any more then, by whoever is about to.
func (h *Hot) KeepKeys(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.keeps = on; !on {
		h.keys = nil
	}
}

// HotSlot is a slot that statements ask for.
type HotSlot struct {
	Slot  int
	Count int64 // of the sample, in Over
	Of    int64 // all of the sample then
	Over  time.Duration
}

// HotKey is a key that statements ask for.
type HotKey struct {
	Slot int
	Key  string
	// Count is how many of the sample asked for it, those of a minute ago counting half; at most Over of them are others'.
	Count, Over int64
}

// Slots returns the most slots that were asked for most, those of the last window that is over, or of the present one while there
// is none, the first being asked for most. now is in Unix nanoseconds.
func (h *Hot) Slots(most int, now int64) (all []HotSlot) {
	w := h.window.Load()
	if w == nil {
		return nil
	}
	h.mu.Lock()
	last := h.last
	h.mu.Unlock()
	over := time.Duration(now - w.number*int64(hotWindow))
	switch number := now / int64(hotWindow); {
	case w.number < number-1:
		return nil // nothing was asked for lately
	case w.number == number-1:
		over = hotWindow
	case last != nil && last.number == number-1:
		w, over = last, hotWindow
	}
	of := w.all.Load()
	for i := range w.counts {
		if n := w.counts[i].Load(); n > 0 {
			all = append(all, HotSlot{Slot: i, Count: int64(n), Of: of, Over: max(over, time.Second)})
		}
	}
	slices.SortFunc(all, func(a, b HotSlot) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Slot, b.Slot)) })
	return all[:min(len(all), most)]
}

// Keys returns the most keys that were asked for most, the first most.
func (h *Hot) Keys(most int) (all []HotKey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range h.keys {
		all = append(all, HotKey{k.slot, k.text, k.count, k.over})
	}
	slices.SortFunc(all, func(a, b HotKey) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Key, b.Key)) })
	return all[:min(len(all), most)]
}

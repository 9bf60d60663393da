package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"shardproxy/admin"
)

// Logins leave garbage behind, statements none: after many logins the next collection,
// which comes when the heap has doubled, may never come, and the memory of a thousand idle
// clients would stay twice what it need be. So the program collects by itself, and gives
// the memory back, once it allocates little while there is much to be had.

const (
	tidyInterval = time.Second
	// tidyQuiet is how much may be allocated in an interval that counts as quiet, bytes.
	tidyQuiet = 512 << 10
	// tidyLeast is how much there must be to be had, in bytes and as a part of what is alive.
	tidyLeast = 2 << 20
	tidyPart  = 8
)

// heap is what the runtime says of its memory, in bytes.
type heap struct {
	allocated uint64 // since the program began
	objects   uint64 // dead ones included
	live      uint64 // at the last collection
	free      uint64 // the program's, without objects
}

// readHeap asks the runtime. It takes microseconds and stops nothing.
func readHeap() heap {
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(samples)
	var values [4]uint64
	for i, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 { // else this Go does not tell, and nothing is tidied
			values[i] = s.Value.Uint64()
		}
	}
	return heap{values[0], values[1], values[2], values[3]}
}

// tidier decides when to collect.
type tidier struct {
	last   uint64 // heap.allocated at the last look
	tidied uint64 // the same when it was last tidied
}

// wants reports whether now is the time. As much as it takes must have been allocated
// since the last time: so it costs no more than the collections of a busy program.
func (t *tidier) wants(h heap) bool {
	quiet := h.allocated-t.last < tidyQuiet
	t.last = h.allocated
	least := max(tidyLeast, h.live/tidyPart)
	if !quiet || h.allocated-t.tidied < least || h.objects+h.free < h.live+least {
		return false
	}
	t.tidied = h.allocated
	return true
}

// tidy collects garbage when that is worth it, until ctx ends.
func tidy(ctx context.Context) {
	tick := time.NewTicker(tidyInterval)
	defer tick.Stop()
	var t tidier
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if t.wants(readHeap()) {
				debug.FreeOSMemory()
			}
		}
	}
}

// endPeriods has the console's averages be of the last minute, until ctx ends.
func (p *program) endPeriods(ctx context.Context) {
	tick := time.NewTicker(admin.StatsPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.console.EndPeriod()
		}
	}
}

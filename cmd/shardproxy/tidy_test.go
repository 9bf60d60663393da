package main

import (
	"runtime"
	"testing"
)

func TestTidierWants(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name  string
		looks []heap
		want  bool // at the last look
	}{
		{"at rest", []heap{{allocated: 40 * mib, objects: 21 * mib, live: 20 * mib}, {allocated: 40 * mib, objects: 21 * mib, live: 20 * mib}}, false},
		{"while logins come", []heap{{allocated: 40 * mib, objects: 39 * mib, live: 20 * mib}}, false},
		{"after logins", []heap{{allocated: 40 * mib, objects: 39 * mib, live: 20 * mib}, {allocated: 40 * mib, objects: 39 * mib, live: 20 * mib}}, true},
		{"memory that nothing is in", []heap{{allocated: 40 * mib, objects: 20 * mib, live: 20 * mib, free: 5 * mib},
			{allocated: 40 * mib, objects: 20 * mib, live: 20 * mib, free: 5 * mib}}, true},
		{"little for its size", []heap{{allocated: 900 * mib, objects: 203 * mib, live: 200 * mib}, {allocated: 900 * mib, objects: 203 * mib, live: 200 * mib}}, false},
		{"again, though it was of no use", []heap{{allocated: 40 * mib, objects: 39 * mib, live: 20 * mib}, {allocated: 40 * mib, objects: 39 * mib, live: 20 * mib},
			{allocated: 40*mib + 1, objects: 39 * mib, live: 20 * mib}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var tidy tidier
			got := false
			for _, h := range c.looks {
				got = tidy.wants(h)
			}
			if got != c.want {
				t.Errorf("wants: %t", got)
			}
		})
	}
}

// The runtime must tell all that is asked: else nothing would ever be tidied.
func TestReadHeap(t *testing.T) {
	runtime.GC()
	if h := readHeap(); h.allocated == 0 || h.objects == 0 || h.live == 0 || h.allocated < h.live {
		t.Errorf("the heap is %+v", h)
	}
}

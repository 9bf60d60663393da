package proxy

import "testing"

// TestTimedEvenly: one in eight requests is timed, and each of those that an application does over and over
// as often as the others; so are those of sessions that have only one.
func TestTimedEvenly(t *testing.T) {
	const requests = 48_000
	for _, period := range []int{1, 2, 3, 4, 8, 16, 24} {
		timed := make([]int, period)
		for id := range uint64(10) {
			a := askingOf(id)
			for i := range requests / 10 {
				if a.timed() {
					timed[i%period]++
				}
				a.next()
			}
		}
		want := requests / period / timedEvery
		for i, n := range timed {
			if n < want*3/4 || n > want*5/4 {
				t.Errorf("of %d requests one after the other, the %dth was timed %d times, want about %d", period, i, n, want)
			}
		}
	}
	first := 0
	for id := range uint64(8000) {
		if a := askingOf(id); a.timed() {
			first++
		}
	}
	if first != 1000 {
		t.Errorf("of 8000 sessions, %d have their first request timed", first)
	}
}

package sequence

import (
	"math/rand/v2"
	"slices"
	"testing"

	"shardproxy/metadata"
)

// TestUniqueClock has the clock jump about: ids grow all the same, lie within what was granted, and none comes twice.
func TestUniqueClock(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	u := newUnique()
	seen := map[int64]bool{}
	last, until, number := int64(-1), int64(0), int64(0)
	now, granted := int64(1000), 0
	for range 100_000 {
		now += r.Int64N(9) - 3
		if r.IntN(1000) == 0 {
			now += r.Int64N(4000) - 2000
		}
		ids := u.takeLocked(1+r.IntN(20), now)
		if ids == nil {
			granted++
			from := max(until, now)
			if until = from + 50; r.IntN(4) == 0 { // the number went to another proxy
				number, last = int64(granted%metadata.UniqueProxies), -1
			}
			u.add(metadata.Grant{Number: int(number), From: from, Until: until})
			continue
		}
		for _, id := range ids {
			if seen[id] || id <= last || id>>12&1023 != number || id>>22 >= until {
				t.Fatalf("id %d, of time %d and number %d, behind %d", id, id>>22, id>>12&1023, last)
			}
			seen[id], last = true, id
		}
	}
	if granted < 50 {
		t.Errorf("%d grants only", granted)
	}
}

// TestUniqueBurst takes more than a millisecond has room for: the ids go on in the next ones.
func TestUniqueBurst(t *testing.T) {
	u := newUnique()
	u.add(metadata.Grant{Number: 7, From: 100, Until: 110})
	ids := u.takeLocked(10_000, 100)
	if ids[0] != 100<<22|7<<12 || ids[4095] != 100<<22|7<<12|4095 || ids[4096] != 101<<22|7<<12 || !slices.IsSorted(ids) {
		t.Errorf("%x %x %x", ids[0], ids[4095], ids[4096])
	}
	if next := u.takeLocked(1, 100); next[0] != ids[9999]+1 {
		t.Errorf("behind it %x", next)
	}
	if got := u.takeLocked(50_000, 100); got != nil {
		t.Error("more than was granted")
	}
}

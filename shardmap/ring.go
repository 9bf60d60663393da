package shardmap

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/buraksezer/consistent"
	"github.com/cespare/xxhash/v2"
)

// Member is a shard that should own slots.
type Member struct {
	Name string
	// Weight is the shard's share relative to the others'; 0 means 1, the most
	// is 1,000.
	Weight int
}

// The ring's shape. Changing any of it changes what is proposed, never what is
// stored.
const (
	pointsEach    = 20   // points of one place on the ring
	maxPlaces     = 256  // places that weights are spread over
	maxWeight     = 1000 //
	maxMembers    = 1024 // the ring's making is quadratic
	firstMapEpoch = 1
)

// Propose returns a first map, of epoch 1: the ring says which shard each slot
// should have, and every shard gets its fair share, rounded. The same members in
// any order give the same map on every machine.
func Propose(members []Member, slots int) (*Map, error) {
	members, err := checkMembers(members, slots)
	if err != nil {
		return nil, err
	}
	l := newLeveller(members, slots)
	copy(l.owner, l.wish)
	l.level()
	return l.result(firstMapEpoch), nil
}

// ProposeChange returns the map that follows current when these members are to
// own its slots: shards that are not among them give up all, new ones get their
// fair share. No slot moves that need not for the shares to come out, rounded.
// Which ones move is the ring's wish. Its epoch is current's plus one, even when
// nothing moves.
func ProposeChange(current *Map, members []Member) (*Map, error) {
	members, err := checkMembers(members, current.Slots())
	if err != nil {
		return nil, err
	}
	l := newLeveller(members, current.Slots())
	index := make(map[string]int, len(members))
	for i, m := range members {
		index[m.Name] = i
	}
	for s := range l.owner {
		l.owner[s] = nobody
		if i, ok := index[current.Owner(Slot(s))]; ok {
			l.owner[s] = i
		}
	}
	l.level()
	return l.result(current.epoch + 1), nil
}

// Shares returns how many slots each of these members owns in the map that ProposeChange gives, by their names.
func Shares(current *Map, members []Member) (map[string]int, error) {
	members, err := checkMembers(members, current.Slots())
	if err != nil {
		return nil, err
	}
	counts, owned := make([]int, len(members)), current.Counts()
	for i := range members {
		if at := slices.Index(current.shards, members[i].Name); at >= 0 {
			counts[i] = owned[at]
		}
	}
	l := leveller{members: members, owner: make([]int, current.Slots())}
	shares := make(map[string]int, len(members))
	for i, n := range l.shares(counts) {
		shares[members[i].Name] = n
	}
	return shares, nil
}

// checkMembers returns the members sorted by name with their weights.
func checkMembers(members []Member, slots int) ([]Member, error) {
	if err := CheckSlots(slots); err != nil {
		return nil, err
	}
	if len(members) == 0 || len(members) > min(slots, maxMembers) {
		return nil, fmt.Errorf("%d shards for %d slots: want 1 to %d", len(members), slots, min(slots, maxMembers))
	}
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	for i := range members {
		m := &members[i]
		if m.Weight == 0 {
			m.Weight = 1
		}
		switch {
		case m.Name == "":
			return nil, fmt.Errorf("a shard has no name")
		case i > 0 && m.Name == members[i-1].Name:
			return nil, fmt.Errorf("shard %q is named twice", m.Name)
		case m.Weight < 0 || m.Weight > maxWeight:
			return nil, fmt.Errorf("shard %q: weight %d, want 1 to %d", m.Name, m.Weight, maxWeight)
		}
	}
	return members, nil
}

// place is a member of the library's ring. It knows no weights, so a heavy
// shard has several places.
type place struct {
	name   string
	member int
}

// String is the place's name on the ring.
func (p place) String() string { return p.name }

// hasher gives the ring XXH64, which has no seed.
type hasher struct{}

// Sum64 hashes a point's or a slot's name.
func (hasher) Sum64(b []byte) uint64 { return xxhash.Sum64(b) }

// pointKey names a point of a place. It is ours, because a release of the
// library once changed its own.
func pointKey(name string, point int) []byte { return fmt.Appendf(nil, "%d/%s", point, name) }

// ringWish asks the ring for each slot's owner.
func ringWish(members []Member, slots int) []int {
	total := 0
	for _, m := range members {
		total += m.Weight
	}
	equal := !slices.ContainsFunc(members, func(m Member) bool { return m.Weight != members[0].Weight })
	var places []consistent.Member
	for i, m := range members {
		n := m.Weight
		switch {
		case equal:
			n = 1
		case total > maxPlaces:
			n = max(1, m.Weight*maxPlaces/total)
		}
		for p := range n {
			places = append(places, place{fmt.Sprintf("%d/%s", p, m.Name), i})
		}
	}
	ring := consistent.New(places, consistent.Config{
		Hasher:            hasher{},
		PartitionCount:    slots,
		ReplicationFactor: pointsEach,
		Load:              1, // no place gets more than the average, rounded up
		ReplicaKey:        pointKey,
	})
	wish := make([]int, slots)
	for s := range wish {
		wish[s] = ring.GetPartitionOwner(s).(place).member
	}
	return wish
}

// nobody owns a slot whose shard leaves.
const nobody = -1

// leveller gives every member its share of the slots with the fewest moves.
type leveller struct {
	members []Member
	wish    []int // by slot: the owner that the ring wants
	owner   []int // by slot: index into members, or nobody
}

func newLeveller(members []Member, slots int) *leveller {
	return &leveller{members: members, wish: ringWish(members, slots), owner: make([]int, slots)}
}

func (l *leveller) counts() []int {
	counts := make([]int, len(l.members))
	for _, o := range l.owner {
		if o != nobody {
			counts[o]++
		}
	}
	return counts
}

// shares returns how many slots each member should own: its exact share rounded
// down, and one more for those with the largest remainders; among equals for
// those that own the most now, so that the fewest slots move.
func (l *leveller) shares(counts []int) []int {
	total := 0
	for _, m := range l.members {
		total += m.Weight
	}
	shares := make([]int, len(l.members))
	order := make([]int, len(l.members))
	left := len(l.owner)
	for i, m := range l.members {
		shares[i] = len(l.owner) * m.Weight / total
		left -= shares[i]
		order[i] = i
	}
	remainder := func(i int) int { return len(l.owner) * l.members[i].Weight % total }
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(remainder(b), remainder(a)), cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for _, i := range order[:left] {
		shares[i]++
	}
	return shares
}

// level takes slots from members that own too many and gives them, and those of
// nobody, to members that own too few: where the ring wants them, if it can be.
func (l *leveller) level() {
	counts := l.counts()
	shares := l.shares(counts)
	for s := range l.owner {
		l.take(s, counts, shares)
	}
	surplus := func(s int) bool { o := l.owner[s]; return o != nobody && counts[o] > shares[o] }
	release := func(s int) { counts[l.owner[s]]--; l.owner[s] = nobody }
	for s, w := range l.wish {
		if surplus(s) && counts[w] < shares[w] {
			release(s)
			l.take(s, counts, shares)
		}
	}
	for s, w := range l.wish {
		if surplus(s) && w != l.owner[s] {
			release(s)
		}
	}
	for s := range l.owner {
		if surplus(s) {
			release(s)
		}
	}
	l.fill(counts, shares)
}

// take gives a slot of nobody to the member that the ring wants, if it has room.
func (l *leveller) take(s int, counts, shares []int) {
	if w := l.wish[s]; l.owner[s] == nobody && counts[w] < shares[w] {
		l.owner[s] = w
		counts[w]++
	}
}

// fill gives the slots still of nobody to the members that lack the most.
func (l *leveller) fill(counts, shares []int) {
	for s, o := range l.owner {
		if o != nobody {
			continue
		}
		poorest := 0
		for i := range counts {
			if shares[i]-counts[i] > shares[poorest]-counts[poorest] {
				poorest = i
			}
		}
		l.owner[s] = poorest
		counts[poorest]++
	}
}

func (l *leveller) result(epoch int64) *Map {
	m := &Map{epoch: epoch, owner: make([]uint16, len(l.owner))}
	for _, member := range l.members {
		m.shards = append(m.shards, member.Name)
	}
	for s, o := range l.owner {
		m.owner[s] = uint16(o)
	}
	return m
}

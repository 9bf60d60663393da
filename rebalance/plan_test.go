package rebalance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"shardproxy/shardmap"
)

// planCase draws a request: a map of up to 64 shards with loads, and members that are to own it.
func planCase(rt *rapid.T) PlanRequest {
	slots := 1 << rapid.IntRange(4, 9).Draw(rt, "slots")
	n := rapid.IntRange(1, min(slots/2, 32)).Draw(rt, "shards")
	var members []shardmap.Member
	weighted := rapid.Bool().Draw(rt, "weighted")
	member := func(name string) {
		m := shardmap.Member{Name: name}
		if weighted {
			m.Weight = rapid.IntRange(1, 5).Draw(rt, "weight")
		}
		members = append(members, m)
	}
	for i := range n {
		member(fmt.Sprintf("s%d", i))
	}
	current := planOddMap(rt, slots, members)
	r := PlanRequest{Current: current, Load: planOddLoad(rt, slots), By: rapid.SampledFrom([]Strategy{BySlots, ByRows, ByBytes}).Draw(rt, "by")}
	for i := 1; i < n; i++ {
		if rapid.IntRange(0, 4).Draw(rt, "leaves") == 0 {
			members = slices.DeleteFunc(members, func(m shardmap.Member) bool { return m.Name == fmt.Sprintf("s%d", i) })
		}
	}
	for i := range rapid.IntRange(0, min(n, slots/2)).Draw(rt, "joins") {
		member(fmt.Sprintf("new%d", i))
	}
	r.Members = members
	r.Threshold = rapid.SampledFrom([]float64{0, 0.05, 0.3}).Draw(rt, "threshold")
	r.StepSlots = rapid.SampledFrom([]int{0, 1, 7, 1000}).Draw(rt, "step")
	r.StepBytes = rapid.SampledFrom([]int64{0, 1, 5000, math.MaxInt64}).Draw(rt, "step bytes")
	return r
}

// planOddMap is a map as the ring proposes it, or with slots anywhere.
func planOddMap(rt *rapid.T, slots int, members []shardmap.Member) *shardmap.Map {
	m, err := shardmap.Propose(members, slots)
	if err != nil {
		rt.Fatal(err)
	}
	rows := m.Rows()
	random := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "map"), 0))
	for range rapid.IntRange(0, slots).Draw(rt, "misplaced") * rapid.IntRange(0, 1).Draw(rt, "odd") {
		rows[random.IntN(slots)].Shard = members[random.IntN(len(members))].Name
	}
	var names []string
	for _, member := range members {
		names = append(names, member.Name)
	}
	if m, err = shardmap.NewMap(1, slots, names, rows); err != nil {
		rt.Fatal(err)
	}
	return m
}

// planOddLoad is equal loads, random ones, ones with few hot slots, or none.
func planOddLoad(rt *rapid.T, slots int) *Load {
	l := NewLoad(slots)
	kind := rapid.IntRange(0, 3).Draw(rt, "loads")
	seed := rapid.Uint64().Draw(rt, "seed")
	for s := range slots {
		seed = seed*6364136223846793005 + 1442695040888963407
		x := int64(seed >> 54)
		switch kind {
		case 0:
			x = 100
		case 1:
		case 2:
			if x /= 100; seed>>40&63 == 0 {
				x = int64(seed>>44) % 1_000_000
			}
		case 3:
			x = 0
		}
		l.Rows[s], l.Bytes[s] = x, x*int64(1+seed>>60)
	}
	return l
}

// planBalance is a placement as it is behind some moves, computed anew.
type planBalance struct {
	load, share []float64
	leaving     float64 // slots of shards that leave
}

func planWeight(r *PlanRequest, name string) int {
	for _, m := range r.Members {
		if m.Name == name {
			return max(m.Weight, 1)
		}
	}
	return 0
}

func planBalanceOf(r *PlanRequest, goal *shardmap.Map, owner []string, names []string) (b planBalance) {
	var total float64
	weights := 0
	by, slots := map[string]float64{}, map[string]int{}
	for slot, name := range owner {
		a := Amount{Slots: 1, Rows: r.Load.Rows[slot], Bytes: r.Load.Bytes[slot]}
		by[name] += float64(a.of(r.By))
		total += float64(a.of(r.By))
		slots[name]++
	}
	for name, n := range slots {
		if planWeight(r, name) == 0 {
			b.leaving += float64(n)
		}
	}
	for _, name := range names {
		weights += planWeight(r, name)
	}
	for _, name := range names {
		b.load = append(b.load, by[name])
		share := total * float64(planWeight(r, name)) / float64(weights)
		if r.By == BySlots {
			share = float64(len(goal.SlotsOf(name)))
		}
		b.share = append(b.share, share)
	}
	return b
}

// worst is how far that shard is from its share that is farthest.
func (b planBalance) worst() (off float64) {
	for i := range b.load {
		if b.share[i] > 0 {
			off = max(off, math.Abs(b.load[i]-b.share[i])/b.share[i])
		}
	}
	return off
}

func planOwners(m *shardmap.Map) (all []string) {
	for _, row := range m.Rows() {
		all = append(all, row.Shard)
	}
	return all
}

// TestPlanAnyPrefix ends plans behind each of their moves.
func TestPlanAnyPrefix(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := planCase(rt)
		p, err := MakePlan(r)
		if err != nil {
			rt.Fatal(err)
		}
		if again, _ := MakePlan(r); !reflect.DeepEqual(p, again) {
			rt.Fatal("the same request gives two plans")
		}
		planChecked(rt, &r, p)
		planAgainstRing(rt, &r, p)
	})
}

func planChecked(rt *rapid.T, r *PlanRequest, p *Plan) {
	if len(p.Blockers) > 0 || p.Limited {
		rt.Fatalf("blockers %v, limited %v", p.Blockers, p.Limited)
	}
	var names []string
	for _, s := range p.Shards {
		names = append(names, s.Name)
	}
	owner := planOwners(r.Current)
	goal := planGoal(rt, r)
	now := planBalanceOf(r, goal, owner, names)
	if math.Abs(now.worst()-p.Before) > 1e-9 {
		rt.Fatalf("before: %v, want %v", p.Before, now.worst())
	}
	moved := map[shardmap.Slot]bool{}
	for i, m := range p.Moves {
		planCheckMove(rt, r, m)
		for _, slot := range m.Slots {
			if owner[slot] != m.From || moved[slot] {
				rt.Fatalf("move %d takes slot %d of %s from %s, moved: %v", i, slot, owner[slot], m.From, moved[slot])
			}
			moved[slot], owner[slot] = true, m.To
		}
		next := planBalanceOf(r, goal, owner, names)
		if planWeight(r, m.To) == 0 {
			rt.Fatalf("move %d goes to %s, which leaves", i, m.To)
		}
		if planWeight(r, m.From) > 0 && (next.worst() > now.worst()+1e-9 || now.leaving > 0) {
			rt.Fatalf("move %d of %d: off by %v, then by %v; %v slots of shards that leave", i, len(p.Moves), now.worst(), next.worst(), now.leaving)
		}
		now = next
	}
	if now.leaving > 0 || math.Abs(now.worst()-p.After) > 1e-9 {
		rt.Fatalf("%v slots are left; after: %v, want %v", now.leaving, p.After, now.worst())
	}
	for _, s := range p.Shards {
		n := 0
		for _, name := range owner {
			if name == s.Name {
				n++
			}
		}
		if s.After.Slots != n {
			rt.Fatalf("%s: %+v, has %d slots", s.Name, s, n)
		}
	}
}

// planCheckMove holds a move to the bounds of the request.
func planCheckMove(rt *rapid.T, r *PlanRequest, m PlanMove) {
	want := Amount{Slots: len(m.Slots)}
	for _, slot := range m.Slots {
		want.Rows += r.Load.Rows[slot]
		want.Bytes += r.Load.Bytes[slot]
	}
	limit, limitBytes := r.StepSlots, r.StepBytes
	if limit == 0 {
		limit = DefaultStepSlots
	}
	if limitBytes == 0 {
		limitBytes = DefaultStepBytes
	}
	if m.Amount != want || len(m.Slots) == 0 || len(m.Slots) > limit || len(m.Slots) > 1 && want.Bytes > limitBytes || !slices.IsSorted(m.Slots) {
		rt.Fatalf("%+v, want %+v, at most %d slots and %d bytes", m, want, limit, limitBytes)
	}
}

// planAgainstRing compares how many slots move with what the ring's fewest are.
func planAgainstRing(rt *rapid.T, r *PlanRequest, p *Plan) {
	if r.By != BySlots {
		return
	}
	moved := 0
	for _, m := range p.Moves {
		moved += len(m.Slots)
	}
	fewest := r.Current.Diff(planGoal(rt, r)).Moved()
	if moved > fewest || r.Threshold == 0 && moved != fewest {
		rt.Fatalf("%d slots move, %d need to", moved, fewest)
	}
}

// planGoal is what the ring proposes.
func planGoal(t interface{ Fatal(...any) }, r *PlanRequest) *shardmap.Map {
	m, err := shardmap.ProposeChange(r.Current, r.Members)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestPlanThreshold: with loads that can be divided, each shard comes within the threshold.
func TestPlanThreshold(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := planCase(rt)
		r.Current = planOddMap(rt, 4096, []shardmap.Member{{Name: "s0"}, {Name: "s1"}, {Name: "s2"}})
		r.Members = []shardmap.Member{{Name: "s0"}, {Name: "s2", Weight: 2}, {Name: "s3"}, {Name: "s4"}}
		r.Load = NewLoad(4096)
		for s := range 4096 {
			r.Load.Rows[s] = int64(100 + s%50)
			r.Load.Bytes[s] = int64(7000 + s)
		}
		p, err := MakePlan(r)
		if err != nil {
			rt.Fatal(err)
		}
		if p.After > r.Threshold+0.003 {
			rt.Fatalf("off by %v, the threshold is %v", p.After, r.Threshold)
		}
	})
}

// TestPlanLarge bounds how long the largest plans take.
func TestPlanLarge(t *testing.T) {
	var members []shardmap.Member
	for i := range 64 {
		members = append(members, shardmap.Member{Name: fmt.Sprint("s", i)})
	}
	for _, slots := range []int{4096, shardmap.MaxSlots} {
		m, err := shardmap.Propose(members[:40], slots)
		if err != nil {
			t.Fatal(err)
		}
		l := NewLoad(slots)
		for s := range slots {
			l.Rows[s] = int64(s*s%1013) + 1
			l.Bytes[s] = l.Rows[s] * 100
		}
		for _, by := range []Strategy{BySlots, ByRows, ByBytes} {
			began := time.Now()
			p, err := MakePlan(PlanRequest{Current: m, Members: append(slices.Clone(members[:1]), members[20:]...), Load: l, By: by})
			took := time.Since(began)
			if err != nil || p.After > 0.02 || slots == 4096 && took > time.Second {
				t.Errorf("%d slots by %s: %v, off by %v, %v", slots, by, err, p.After, took)
			}
			t.Logf("%d slots by %s: %d moves, off by %.4f, %v", slots, by, len(p.Moves), p.After, took)
		}
	}
}

// TestPlanRefused are requests without sense.
func TestPlanRefused(t *testing.T) {
	m, err := shardmap.Propose([]shardmap.Member{{Name: "a"}, {Name: "b"}}, 8)
	if err != nil {
		t.Fatal(err)
	}
	both := []shardmap.Member{{Name: "a"}, {Name: "b"}}
	for _, c := range []struct {
		r    PlanRequest
		want string
	}{
		{PlanRequest{}, "0 shards for 8 slots: want 1 to 8"},
		{PlanRequest{Members: append(both, both[0])}, `"a" is named twice`},
		{PlanRequest{Members: []shardmap.Member{{}}}, "no name"},
		{PlanRequest{Members: []shardmap.Member{{Name: "a", Weight: 1001}}}, "weight 1001"},
		{PlanRequest{Members: both, By: "colour"}, "none of slots, rows and bytes"},
		{PlanRequest{Members: both, By: ByRows}, "not known how many rows"},
		{PlanRequest{Members: both, Load: NewLoad(4)}, "4 slots, of 8"},
		{PlanRequest{Members: both, Threshold: 1}, "less than 100 %"},
		{PlanRequest{Members: both, Threshold: math.NaN()}, "less than 100 %"},
		{PlanRequest{Members: both, MaxBytes: -1}, "not negative"},
		{PlanRequest{Members: both, Given: []GivenSlots{{To: "c"}}}, `no shard "c"`},
		{PlanRequest{Members: both[:1], Given: []GivenSlots{{To: "b"}}}, `"b" leaves`},
		{PlanRequest{Members: both, Given: []GivenSlots{{Slots: []shardmap.Slot{8}, To: "b"}}}, "no slot 8: they are 0 to 7"},
		{PlanRequest{Members: both, Given: []GivenSlots{{Slots: []shardmap.Slot{1}, To: "b"}, {Slots: []shardmap.Slot{1}, To: "a"}}}, "slot 1 is given to"},
	} {
		c.r.Current = m
		if _, err := MakePlan(c.r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

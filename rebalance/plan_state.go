package rebalance

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"shardproxy/shardmap"
)

// planner is a plan as it is made.
type planner struct {
	r       *PlanRequest
	shards  []plannedShard // as Plan.Shards
	owner   []int          // by slot: index into shards
	eps     float64        // what is less is a rounding error of loads
	before  float64
	moves   []PlanMove
	pair    [2]int // shards of the last move
	sum     Amount // of all moves
	limited bool

	blockers []*Blocker
}

// plannedShard is a shard as it would be behind the moves so far.
type plannedShard struct {
	PlanShard
	load  float64
	share float64 // what its weight gives it, as load, of slots whole ones; 0 when it leaves
	slots float64 // what its weight gives it of the slots
	// movable are slots that may leave it: by load, those of one load by falling numbers. A slot that has
	// moved is in no list: none moves twice.
	movable []shardmap.Slot
}

// over is how much load the shard has above its share; negative is below.
func (s *plannedShard) over() float64 { return s.load - s.share }

// off is how far the shard is from its share, which it is part of.
func (s *plannedShard) off() float64 { return planOff(s.load, s.share) }

func planOff(load, share float64) float64 {
	if share == 0 {
		return 0
	}
	return math.Abs(load-share) / share
}

func newPlanner(r *PlanRequest) (*planner, error) {
	p := &planner{r: r, owner: make([]int, r.Current.Slots()), pair: [2]int{-1, -1}}
	shares, err := shardmap.Shares(r.Current, r.Members)
	if err != nil {
		return nil, err
	}
	p.join()
	for slot := range p.owner {
		at := r.Current.OwnerIndex(shardmap.Slot(slot)) // the map's shards come first, in its order
		p.owner[slot] = at
		s := &p.shards[at]
		s.Before.add(p.amount(shardmap.Slot(slot)), 1)
		if _, pinned := r.Pinned[shardmap.Slot(slot)]; !pinned {
			s.movable = append(s.movable, shardmap.Slot(slot))
		}
	}
	p.level(shares)
	if home := &p.shards[0]; home.Leaves {
		p.blockers = append(p.blockers, &Blocker{Shard: home.Name, Reason: "it is the home shard, which holds the slot map and the single tables, and cannot leave",
			Hint: "leave it in; give it a small weight, if it is to have few slots"})
	}
	return p, nil
}

// join makes the shards from the map and the members.
func (p *planner) join() {
	weight := make(map[string]int, len(p.r.Members))
	for _, m := range p.r.Members {
		weight[m.Name] = cmp.Or(m.Weight, 1)
	}
	for _, name := range p.r.Current.Shards() {
		w := weight[name]
		p.shards = append(p.shards, plannedShard{PlanShard: PlanShard{Name: name, Weight: w, Leaves: w == 0}})
		delete(weight, name)
	}
	for _, m := range p.r.Members {
		if w, is := weight[m.Name]; is {
			p.shards = append(p.shards, plannedShard{PlanShard: PlanShard{Name: m.Name, Weight: w, New: true}})
		}
	}
}

// level computes loads and shares, and sorts the slots that may move. Whole slots are shared out as the ring's
// proposals do it: so none moves that would not there.
func (p *planner) level(shares map[string]int) {
	var total float64
	weights := 0
	for i := range p.shards {
		s := &p.shards[i]
		s.After = s.Before
		s.load = float64(s.Before.of(p.r.By))
		total += s.load
		weights += s.Weight
	}
	p.eps = total * 1e-12
	for i := range p.shards {
		s := &p.shards[i]
		s.Fair = float64(s.Weight) / float64(weights)
		s.share, s.slots = total*s.Fair, float64(shares[s.Name])
		if p.r.By == BySlots {
			s.share = s.slots
		}
		if total > 0 {
			s.ShareBefore = s.load / total
		}
		slices.SortFunc(s.movable, func(a, b shardmap.Slot) int {
			return cmp.Or(cmp.Compare(p.load(a), p.load(b)), cmp.Compare(b, a))
		})
	}
	p.before = p.farthest()
}

// amount is what lies in a slot.
func (p *planner) amount(slot shardmap.Slot) Amount {
	a := Amount{Slots: 1}
	if l := p.r.Load; l != nil {
		a.Rows, a.Bytes = l.Rows[slot], l.Bytes[slot]
	}
	return a
}

// load is what the strategy looks at of a slot.
func (p *planner) load(slot shardmap.Slot) float64 { return float64(p.amount(slot).of(p.r.By)) }

// farthest is how far that shard is from its share that is farthest.
func (p *planner) farthest() (off float64) {
	for i := range p.shards {
		off = max(off, p.shards[i].off())
	}
	return off
}

// place is where a slot stands in the list of those that may leave its shard, -1 when it is pinned or has moved.
func (p *planner) place(slot shardmap.Slot) int {
	list := p.shards[p.owner[slot]].movable
	x := p.load(slot)
	at := sort.Search(len(list), func(i int) bool { return p.load(list[i]) > x || p.load(list[i]) == x && list[i] <= slot })
	if at == len(list) || list[at] != slot {
		return -1
	}
	return at
}

// fits reports whether a slot may be added to the last move.
func (p *planner) fits(slot shardmap.Slot, to int) bool {
	if p.pair != [2]int{p.owner[slot], to} {
		return false
	}
	sum := p.moves[len(p.moves)-1].Amount
	return sum.Slots < p.r.StepSlots && sum.Bytes+p.amount(slot).Bytes <= p.r.StepBytes
}

// move moves a slot: in the last move, or in a new one when that is full or of other shards. It is false when
// the request's bounds leave no room.
func (p *planner) move(slot shardmap.Slot, to int) bool {
	a := p.amount(slot)
	if p.r.MaxSlots > 0 && p.sum.Slots+1 > p.r.MaxSlots || p.r.MaxBytes > 0 && p.sum.Bytes+a.Bytes > p.r.MaxBytes {
		p.limited = true
		return false
	}
	from := p.owner[slot]
	if !p.fits(slot, to) {
		p.moves = append(p.moves, PlanMove{From: p.shards[from].Name, To: p.shards[to].Name})
		p.pair = [2]int{from, to}
	}
	m := &p.moves[len(p.moves)-1]
	m.Slots = append(m.Slots, slot)
	m.Amount.add(a, 1)
	p.sum.add(a, 1)
	at, x := p.place(slot), float64(a.of(p.r.By))
	p.shards[from].movable = slices.Delete(p.shards[from].movable, at, at+1)
	p.shards[from].After.add(a, -1)
	p.shards[to].After.add(a, 1)
	p.shards[from].load -= x
	p.shards[to].load += x
	p.owner[slot] = to
	return true
}

// plan is what was made.
func (p *planner) plan() *Plan {
	plan := &Plan{By: p.r.By, Moves: p.moves, Blockers: p.blockers, Limited: p.limited, Before: p.before, After: p.farthest()}
	var total float64
	for i := range p.shards {
		total += p.shards[i].load
	}
	for i := range p.shards {
		s := &p.shards[i]
		if total > 0 {
			s.ShareAfter = s.load / total
		}
		plan.Shards = append(plan.Shards, s.PlanShard)
	}
	for i := range plan.Moves {
		slices.Sort(plan.Moves[i].Slots)
	}
	return plan
}

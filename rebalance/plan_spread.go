package rebalance

import (
	"cmp"
	"fmt"
	"slices"
	"sort"

	"shardproxy/shardmap"
)

// empty takes all slots from the shards that leave, the heaviest first, each to the shard that lacks the most.
func (p *planner) empty() {
	for from := range p.shards {
		s := &p.shards[from]
		if !s.Leaves {
			continue
		}
		p.held(from)
		for to := -1; len(s.movable) > 0; {
			slot := s.movable[len(s.movable)-1]
			if to < 0 || !p.fits(slot, to) || p.lack(to, slot)+p.eps < p.weigh(slot) {
				to = p.poorest(slot)
			}
			if !p.move(slot, to) {
				return
			}
		}
	}
}

// held notes the slots that keep a shard from leaving.
func (p *planner) held(from int) {
	for slot, owner := range p.owner {
		if why, pinned := p.r.Pinned[shardmap.Slot(slot)]; pinned && owner == from {
			p.blocked(p.shards[from].Name, shardmap.Slot(slot), why)
		}
	}
}

func (p *planner) blocked(shard string, slot shardmap.Slot, why string) {
	p.blockers = append(p.blockers, &Blocker{Shard: shard, Reason: fmt.Sprintf("slot %d cannot move: %s", slot, why)})
}

// weigh and lack compare shards for a slot by the strategy's load; for one without any by slots,
// so that not all of those come together where rows may yet come.
func (p *planner) weigh(slot shardmap.Slot) float64 { return cmp.Or(p.load(slot), 1) }

func (p *planner) lack(to int, slot shardmap.Slot) float64 {
	s := &p.shards[to]
	if p.load(slot) == 0 {
		return s.slots - float64(s.After.Slots)
	}
	return -s.over()
}

// poorest is the shard that lacks the most.
func (p *planner) poorest(slot shardmap.Slot) int {
	best := -1
	for i := range p.shards {
		if !p.shards[i].Leaves && (best < 0 || p.lack(i, slot) > p.lack(best, slot)+p.eps) {
			best = i
		}
	}
	return best
}

// spread moves slots from shards above their shares to shards below, as long as one of the two is further off than
// the threshold. No move makes a shard the farthest, or takes more than brings both nearer to their shares together.
func (p *planner) spread() {
	for !p.limited {
		from, to, slot := p.next()
		if slot < 0 || !p.move(shardmap.Slot(slot), to) {
			return
		}
		// The step is filled with what both can take without going beyond their shares.
		for p.far(from, to) {
			at := p.below(from, p.want(from, to)) - 1
			if at < 0 {
				break
			}
			next := p.shards[from].movable[at]
			if p.load(next) == 0 || !p.fits(next, to) || !p.move(next, to) {
				break
			}
		}
	}
}

// far reports whether one of two shards is further off than the threshold.
func (p *planner) far(a, b int) bool {
	return max(p.shards[a].off(), p.shards[b].off()) > p.r.Threshold
}

// want is how much the one can give, and the other take, without going beyond their shares.
func (p *planner) want(from, to int) float64 {
	return min(p.shards[from].over(), -p.shards[to].over()) + p.eps
}

// below is how many of a shard's slots have a load of x or less: those in front.
func (p *planner) below(from int, x float64) int {
	list := p.shards[from].movable
	return sort.Search(len(list), func(i int) bool { return p.load(list[i]) > x })
}

// next finds the next slot to move, -1 when there is none: of the shard that has the most above its share, to the one
// that lacks the most, or of the next ones where no slot of these does.
func (p *planner) next() (from, to, slot int) {
	var over, under []int
	for i := range p.shards {
		s := &p.shards[i]
		switch {
		case s.Leaves:
		case s.over() > p.eps && len(s.movable) > 0:
			over = append(over, i)
		case s.over() < -p.eps:
			under = append(under, i)
		}
	}
	// By what they have to give and to take, not by the part of their shares that it is: else weights and rounding
	// together make more slots move than need to.
	slices.SortFunc(over, func(a, b int) int {
		return cmp.Or(cmp.Compare(p.shards[b].over(), p.shards[a].over()), cmp.Compare(a, b))
	})
	slices.SortFunc(under, func(a, b int) int {
		return cmp.Or(cmp.Compare(p.shards[a].over(), p.shards[b].over()), cmp.Compare(a, b))
	})
	worst := p.farthest()
	for _, a := range over {
		for _, b := range under {
			if !p.far(a, b) {
				continue
			}
			if slot := p.pick(a, b, worst); slot >= 0 {
				return a, b, slot
			}
		}
	}
	return 0, 0, -1
}

// pick finds the slot whose load is nearest to what is wanted, -1 when none does.
func (p *planner) pick(from, to int, worst float64) int {
	list, want := p.shards[from].movable, p.want(from, to)
	n := p.below(from, want)
	low := -1
	if n > 0 && p.load(list[n-1]) > 0 {
		low = int(list[n-1])
	}
	if n < len(list) {
		high := list[n]
		if near := low < 0 || p.load(high)-want < want-p.load(shardmap.Slot(low)); near && p.better(from, to, p.load(high), worst) {
			return int(high)
		}
	}
	return low
}

// better reports whether a load that is more than wanted makes things better nevertheless.
func (p *planner) better(from, to int, x, worst float64) bool {
	a, b := &p.shards[from], &p.shards[to]
	return x < a.over()-b.over()-p.eps &&
		max(planOff(a.load-x, a.share), planOff(b.load+x, b.share)) <= worst
}

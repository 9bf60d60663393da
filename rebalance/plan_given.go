package rebalance

import (
	"fmt"
	"slices"

	"shardproxy/shardmap"
)

// give moves the slots that are given.
func (p *planner) give() error {
	goal := make(map[shardmap.Slot]int)
	for _, g := range p.r.Given {
		to := slices.IndexFunc(p.shards, func(s plannedShard) bool { return s.Name == g.To })
		switch {
		case to < 0:
			return fmt.Errorf("there is no shard %q", g.To)
		case p.shards[to].Leaves:
			return fmt.Errorf("shard %q leaves: nothing can be given to it", g.To)
		}
		for _, slot := range g.Slots {
			if int(slot) >= len(p.owner) {
				return fmt.Errorf("there is no slot %d: they are 0 to %d", slot, len(p.owner)-1)
			}
			if other, twice := goal[slot]; twice && other != to {
				return fmt.Errorf("slot %d is given to %q and to %q", slot, p.shards[other].Name, g.To)
			}
			goal[slot] = to
		}
	}
	for to := range p.shards {
		for from := range p.shards {
			if !p.giveAll(from, to, goal) {
				return nil
			}
		}
	}
	return nil
}

// giveAll moves what is given of one shard to another. It is false when the bounds leave no room.
func (p *planner) giveAll(from, to int, goal map[shardmap.Slot]int) bool {
	for i, owner := range p.owner {
		slot := shardmap.Slot(i)
		if g, given := goal[slot]; !given || g != to || owner != from || from == to {
			continue
		}
		if why, pinned := p.r.Pinned[slot]; pinned {
			p.blocked(p.shards[from].Name, slot, why)
			continue
		}
		if !p.move(slot, to) {
			return false
		}
	}
	return true
}

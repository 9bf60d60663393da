package proxy

import (
	"shardproxy/router"
	"shardproxy/tally"
)

// locates is shardOf; of one in eight requests it counts the slots that the keys lie in.
func (s *session) locates(p *router.Plan, text, rest, bind []byte) (int, error) {
	if p.Where != router.Keyed || !s.asking.timed() {
		return s.shardOf(p, text, rest, bind)
	}
	if s.sample == nil {
		s.sample = &router.Sample{}
	}
	sample := s.sample
	sample.Reset()
	sample.WithKeys = s.db.Policy().HotKeys
	s.values.Sample = sample
	shard, err := s.shardOf(p, text, rest, bind)
	s.values.Sample = nil
	if err != nil {
		return shard, err
	}
	for i := range sample.Count {
		slot := int(sample.Slots[i])
		s.db.hot.Slot(slot, sample.Of, s.server.clock.Load())
		if key := sample.Key(i); len(key) > 0 {
			s.db.hot.Key(slot, key)
		}
	}
	return shard, err
}

// HotSlots returns the most slots that a sample of the statements, those of one in eight requests of each session, asked for most
// in the last minute. now is in Unix nanoseconds.
func (d *Database) HotSlots(most int, now int64) []tally.HotSlot { return d.hot.Slots(most, now) }

// HotSampled is how many requests there are to one that HotSlots and HotKeys look at.
const HotSampled = timedEvery

// HotKeys returns the most keys that were asked for most, none unless the policy has them counted.
func (d *Database) HotKeys(most int) []tally.HotKey {
	if p := d.Policy(); p == nil || !p.HotKeys {
		return nil
	}
	return d.hot.Keys(most)
}

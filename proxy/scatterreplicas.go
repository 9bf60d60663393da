package proxy

import (
	"errors"

	"shardproxy/pool"
	"shardproxy/router"
	"shardproxy/wire"
)

// Windows of the fence are opened on primaries, so what is to be of one moment is read there, on all shards. With
// shardproxy.snapshot = off each shard's part is as it is when the shard is asked: by the rules of a read on one
// shard (see session.pick) it goes to a replica, and to the primary where none is fit. Nothing is left behind by
// such a query, and until the client has been given a row it may be run again.

// replicaParts are the nodes that a query over several shards is read on. Who has none reads the primaries.
type replicaParts struct {
	// vouched is set when the client itself asks for replicas.
	vouched bool
	// on are the replicas by shard, and excluded those that are not to be tried again, bit i for node i.
	on       map[int]int
	excluded map[int]uint64
	failures int
}

// note notes the node that a shard's part is read on.
func (p *replicaParts) note(shard, node int, replica bool) {
	delete(p.on, shard)
	if replica {
		p.on[shard] = node
	}
}

// fail notes that a shard's part has failed, and reports whether it was read on a replica.
func (p *replicaParts) fail(shard int) bool {
	node, ok := p.on[shard]
	if ok {
		p.excluded[shard] |= 1 << node
	}
	return ok
}

// mayReadReplicas reports whether a query may be read on replicas, as far as it and the session go: its slots may move besides.
// What is only vouched for by the client is not, for a part of it may have to run on a primary, and would write there.
func (s *session) mayReadReplicas(p *router.Plan) bool {
	n := s.needOf(p)
	return s.mode != ModeSession && n.read && !n.primary && !s.fillsCache() && (n.replica || s.db.Policy().Split) && !s.whole()
}

// seeksReplicas finds out whether the query is read on replicas.
func (c *scattering) seeksReplicas(p *router.Plan) {
	if c.own && c.opening == nil && c.s.mayReadReplicas(p) {
		c.parts = &replicaParts{vouched: c.s.wantsReplica(p), on: map[int]int{}, excluded: map[int]uint64{}}
	}
}

// onReplicas reports whether a part of the query is read on a replica.
func (c *scattering) onReplicas() bool { return c.parts != nil && len(c.parts.on) > 0 }

// readElsewhere notes that a part on a replica has failed: the primaries are asked when that was too often.
func (c *scattering) readElsewhere(shard int) {
	if c.parts == nil {
		return
	}
	if c.parts.fail(shard) {
		c.parts.failures++
	}
	if c.parts.failures >= triesMax {
		c.parts = nil
	}
}

// unfit reports whether the query has failed for what a replica is, and may be run again: outside of transactions, as
// long as the client has been told nothing.
func (c *scattering) unfit() bool {
	if !c.onReplicas() || c.err == nil || c.gone != nil || c.unwanted.Load() {
		return false
	}
	if c.failed < 0 {
		if c.err.Code != "55000" || !c.untold() { // definitions that one replica knows and another not yet
			return false
		}
		c.parts = nil
		return true
	}
	shard := c.shards[c.failed]
	if _, ok := c.parts.on[shard.index]; !ok || !isReplicaFault(c.err) || !c.untold() {
		return false
	}
	c.s.db.Shards[shard.index].Nodes.Suspect(shard.lease.Node, c.err)
	c.readElsewhere(shard.index)
	return true
}

// reaches makes shards a part of the query's transaction, on replicas if it may be. One of its own is begun once more where that may go better.
func (s *session) reaches(c *scattering, own bool, shards []int) *wire.Error {
	for {
		e := s.enlistWith(enlisting{own: own, level: c.level(), parts: c.parts}, shards)
		if !own || !c.notAtOneMoment(e) && !c.lostReplica(e) {
			return e
		}
		if s.lease != nil {
			s.giveBack(pool.Clean) // what was begun there has been taken back
		}
	}
}

// lostReplica has another replica be tried: a connection to one may have been lost in the pool.
func (c *scattering) lostReplica(e *wire.Error) bool {
	if e == nil || c.parts == nil || !errors.Is(e, errLost) || e.IsFatal() || c.s.tx == 'E' {
		return false
	}
	shard := c.s.unreached(e)
	if _, ok := c.parts.on[shard]; !ok {
		return false
	}
	c.readElsewhere(shard)
	return true
}

// countRead counts the query among the reads, as those on one shard are.
func (c *scattering) countRead() {
	if c.parts == nil {
		return
	}
	c.s.db.stats.reads.Add(1)
	if c.onReplicas() {
		c.s.db.stats.replicaReads.Add(1)
	}
}

// hasReplica reports whether a shard's part may be read on a replica now.
func (c *scattering) hasReplica(shard int) bool {
	if c.parts == nil || c.s.db.Owners().HiddenSlots() > 0 {
		return false
	}
	mark := c.s.markAt(shard, c.parts.vouched)
	_, ok := c.s.db.Shards[shard].Nodes.PickRead(mark, mark != 0, c.parts.excluded[shard])
	return ok
}

package proxy

import (
	"slices"
	"sync/atomic"

	"shardproxy/gate"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// While slots move, the slot map changes step by step, and a step is taken when no proxy works by an older map any more. So
// every session of a database of several shards notes by which epoch it works where others can see it, and looks again,
// once it has, whether that is still the newest: who has found nothing noted knows that what comes later sees the new map.

// epochs are what one session has noted. The session writes, everybody may read.
type epochs struct {
	// request is the epoch of the request under way, twice, and one more unless it surely leaves all rows alone; 0: none is.
	request atomic.Int64
	// wrote is the epoch at which the open transaction may first have written or locked rows; 0: it has not.
	wrote atomic.Int64
}

// oldest is the oldest epoch that anything noted keeps to; 0 for none.
func (e *epochs) oldest() int64 {
	r, w := e.request.Load()>>1, e.wrote.Load()
	if w == 0 || r != 0 && r < w {
		return r
	}
	return w
}

// noteRequest notes the epoch of a request that begins, and returns it.
func (s *session) noteRequest() int64 {
	now := s.db.Owners().Epoch()
	if s.owed.empty() && !s.open {
		s.endRequest()
	}
	if r := s.epochs.request.Load(); r == 0 {
		s.epochs.request.Store(now<<1 | 1)
	} else {
		s.epochs.request.Store(r | 1)
	}
	return now
}

// noteRest notes that no request is under way once the session rests.
func (s *session) noteRest(p phase) {
	if s.places != nil && (p == phaseIdle || p == phaseIdleInTx) {
		s.endRequest()
	}
}

// endRequest notes that no request is under way.
func (s *session) endRequest() {
	r := s.epochs.request.Load()
	switch {
	case s.tx == 'I' && s.begun == nil:
		if s.epochs.wrote.Load() != 0 {
			s.epochs.wrote.Store(0)
		}
	case r&1 != 0 && s.epochs.wrote.Load() == 0:
		s.epochs.wrote.Store(r >> 1)
	}
	if r != 0 {
		s.epochs.request.Store(0)
	}
}

// scan looks ahead over the whole request, up to its Sync, and plans its
// texts. ok is false while too little has arrived, or replies must come first.
func (s *session) scan() (n need, ok bool) {
	if s.places == nil {
		s.forgetPlans()
		return s.scanned()
	}
	for {
		s.forgetPlans()
		under := s.epochs.request.Load()
		epoch := s.noteRequest()
		if n, ok = s.scanPlaced(); !ok {
			if under == 0 || s.owed.empty() && !s.open {
				s.epochs.request.Store(0) // nothing is under way until the rest has come
			}
			return n, ok
		}
		if !n.opaque && !slices.ContainsFunc(s.executes, touchesRows) && s.epochs.request.Load() == epoch<<1|1 && under&1 == 0 {
			s.epochs.request.Store(epoch << 1)
		}
		if s.db.Owners().Epoch() == epoch {
			return n, ok
		}
	}
}

// scanPlaced is scan with what the proxy adds to texts for several shards.
func (s *session) scanPlaced() (n need, ok bool) {
	wait, e := s.supply()
	if wait {
		return need{}, false
	}
	if n, ok = s.scanned(); ok && e != nil && s.tx != 'E' {
		n.err, n.batch, n.all = e, false, false
	}
	if ok && n.err == nil && n.batch && s.tx != 'E' && s.mustHold() && (n.opaque || slices.ContainsFunc(s.executes, touchesRows)) {
		n.err = errHeld // which slots it is about is seen when it runs
	}
	return n, ok
}

// touchesRows reports whether a statement may write rows, or lock some.
func touchesRows(p *router.Plan) bool {
	return p.MayWrite || p.Intent == router.Write && (p.Where == router.Keyed || p.Where == router.FanOut || p.Scatters())
}

// errHeld says that a statement waits for its slots, or until a shard has joined or left.
var errHeld = wire.Errorf("57P03", "rows of this statement are moving to another shard, or a shard joins or leaves").
	WithHint("The statement was not executed and may be tried again.")

// mustHold reports whether statements that write wait for the slots that are held. One of a transaction that has written before
// they were does not: who holds the slots waits for its end.
func (s *session) mustHold() bool {
	owners := s.db.Owners()
	if !owners.Holding() {
		return false
	}
	oldest := s.epochs.oldest()
	return oldest == 0 || oldest >= owners.HeldSince()
}

// holdsBack reports whether a statement that was placed, with this error, waits for slots.
func (s *session) holdsBack(p *router.Plan, err error) bool {
	if !touchesRows(p) || !s.mustHold() {
		return false
	}
	if p.Where == router.All {
		// A write of a reference table is on no slot.
		return p.Single == nil || p.Single.Kind != query.KindDML || s.db.Owners().Closed()
	}
	return s.values.Held || p.Where == router.FanOut || p.CopyIn != nil || err == errSplit || router.OnSeveral(err)
}

// awaitSlots waits until the slots that the request at the head of the buffer writes are free, and looks at it anew. ok is as of
// scan then. An error ends the session.
func (s *session) awaitSlots(n *need) (ok bool, err error) {
	ok = true
	for ok && n.err == errHeld {
		t, err := s.db.Slots.Enter(s.wake)
		if err != nil {
			return true, nil // too many wait: it is told so
		}
		s.epochs.request.Store(0)
		for t != nil && t.State() == gate.Waiting {
			if err := s.waitTurn(phaseHeld); err != nil {
				t.Cancel()
				return false, err
			}
		}
		if t != nil && t.State() != gate.Released {
			return true, nil
		}
		*n, ok = s.scan()
	}
	return ok, nil
}

// Kept returns the oldest epochs of the slot map that sessions of a database work by: those of statements and transactions that
// may have written or locked rows, and those of any statement. Both are now, at most.
func (srv *Server) Kept(db *Database, now int64) (writes, statements int64) {
	writes, statements = now, now
	srv.each(func(s *session) {
		if s.db != db {
			return
		}
		r := s.epochs.request.Load()
		if r != 0 {
			statements = min(statements, r>>1)
		}
		if r&1 != 0 {
			writes = min(writes, r>>1)
		}
		// Looked at behind the request, which leaves it behind when it ends.
		if w := s.epochs.wrote.Load(); w != 0 {
			writes = min(writes, w)
		}
	})
	return writes, statements
}

// errMoved is what a transaction is told that sees the shards as they were before rows moved.
var errMoved = wire.Errorf("40001", "rows of this statement have moved to another shard since the transaction began").
	WithHint("Try the transaction again.")

// errLate is what a statement is told that has waited while the proxy was cut off from the cluster.
var errLate = wire.Errorf("57P03", "the proxy was cut off from the shards while the statement waited for a connection").
	WithHint("The statement was not executed and may be tried again.")

// late reports whether the request under way began by a slot map for which nobody has waited: it would look for rows where they are not any more.
func (s *session) late() bool {
	if s.places == nil || s.db.Since == nil {
		return false
	}
	noted := s.epochs.request.Load() >> 1
	return noted != 0 && noted < s.db.Since()
}

// ownedOtherwise reports whether the key of a statement was another shard's when the transaction began, which may see the shards
// as they were then.
func (s *session) ownedOtherwise(p *router.Plan, v *router.Values, shard int) bool {
	m := s.spread
	if m == nil || m.owners == nil || m.owners.Epoch() == s.db.Owners().Epoch() || m.isolation == readCommitted && !s.replica {
		return false
	}
	before, err := p.Shard(m.owners, v)
	return err == nil && before != shard
}

// othersNow reports whether the cluster has other shards than when the transaction began, which may see them as they were then: it
// would miss what has gone to one that has joined, or see it twice.
func (s *session) othersNow() bool {
	m, now := s.spread, s.db.Owners()
	if m == nil || m.owners == nil || m.owners.Epoch() == now.Epoch() || m.isolation == readCommitted {
		return false
	}
	return !slices.Equal(m.owners.All(), now.All())
}

// strayed reports whether the session is at a shard that is none of the cluster any more.
func (s *session) strayed() bool {
	owners := s.db.Owners()
	return owners != nil && s.index > 0 && !slices.Contains(owners.All(), s.index)
}

// sinceMoved looks at a request anew of which a key has moved since the transaction began: one that is READ COMMITTED sees
// each shard as it is.
func (s *session) sinceMoved(n *need) {
	if s.replica {
		return // which may not have replayed yet what has come to its shard
	}
	level, e := s.level()
	switch {
	case e != nil:
		n.err = e
	case level == readCommitted || level == "read uncommitted":
		s.spread.owners = s.db.Owners()
		*n, _ = s.scan()
	}
}

package proxy

import (
	"strings"

	"shardproxy/pool"
	"shardproxy/twopc"
	"shardproxy/wire"
)

// runAlone runs a request that was rewritten and needs one shard, outside of a
// transaction, and answers it.
func (s *session) runAlone(kind byte, size int, r *allRequest) error {
	err := s.acquire(need{shard: r.shards[0], primary: true})
	if err == nil {
		if e := s.awaitReplies(); e != nil {
			err = e
		}
	}
	if err != nil {
		e := wire.AsError(err)
		if err == errEnded || e.IsFatal() {
			return err
		}
		if s.lease != nil {
			s.giveBack(pool.Clean) // nothing has run there
		}
		s.refuse(kind, size, e)
		return nil
	}
	s.db.stats.statements.Add(1)
	s.noteAsk(nil, scopeOne)
	s.tallyBegins(r.plan, r.shards)
	s.setPhase(phaseActive)
	s.client.Release()
	s.held = false
	a, err := s.runOn(s.lease, r.parts[0], answerMax)
	var e *wire.Error
	switch {
	case isLost(err):
		return s.lostAlone(kind, size, err)
	case err == pool.ErrAnswerTooLarge:
		e = wire.Errorf("54000", "the answer is larger than %d bytes", answerMax).WithDetail("The rows were inserted.")
	case err != nil:
		e = wire.AsError(err)
	}
	s.acted, s.wrote = true, true
	s.suspect |= r.plan.Effects & auditEffects
	s.transaction('I')
	s.forgetPlans()
	return s.answerAll(kind, *r, a, e)
}

// lostAlone ends a request whose connection is gone: it may have been executed.
func (s *session) lostAlone(kind byte, size int, cause error) error {
	l := s.lease
	s.shard.lost(l.Node, cause)
	s.giveBack(pool.Dead)
	s.mark, s.wrote = s.shard.Nodes.Mark(), false
	s.refuse(kind, size, wire.Errorf("08007", "the connection to the server was lost: it is not known whether the rows were inserted").
		WithDetail("Shard %s, node %s.", s.shard.Name, l.Address()).WithCause(cause))
	return nil
}

// runEach runs a command in no transaction on one shard after the other. What it does
// may be done again: when one fails the others need not be undone.
func (s *session) runEach(kind byte, size int, r *allRequest) error {
	s.db.stats.statements.Add(1)
	s.noteAsk(nil, scopeSeveral)
	s.tallyBegins(r.plan, nil)
	s.client.Release()
	s.held = false
	var first pool.Answer
	var done []string
	shards := s.allShards()
	if shards == nil {
		return s.answerAll(kind, *r, first, errNoOwners()) // it was known when the statement was located
	}
	for _, i := range shards {
		a, err := s.runThere(i, r.frames)
		e := wire.AsError(err)
		if err == errEnded || err != nil && e.IsFatal() && !isLost(err) {
			return err
		}
		if err != nil {
			told := *e
			told.Severity = "ERROR"
			told.Detail = strings.TrimSpace(told.Detail + " Shard " + s.db.Shards[i].Name + "; done on: " + listed(done) + ".")
			s.forgetPlans()
			return s.answerAll(kind, *r, pool.Answer{}, &told)
		}
		if done = append(done, s.db.Shards[i].Name); i == 0 {
			first = a
		}
	}
	s.forgetPlans()
	return s.answerAll(kind, *r, first, nil)
}

func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// runThere runs frames on a shard outside of a transaction, on a connection that it
// gives back.
func (s *session) runThere(shard int, frames []byte) (pool.Answer, error) {
	if err := s.acquire(need{shard: shard, primary: true}); err != nil {
		return pool.Answer{}, err
	}
	if e := s.awaitReplies(); e != nil {
		if s.lease != nil {
			s.giveBack(pool.Clean) // nothing has run there
		}
		return pool.Answer{}, e
	}
	s.setPhase(phaseActive)
	a, err := s.runOn(s.lease, frames, answerMax)
	if isLost(err) {
		l := s.lease
		s.shard.lost(l.Node, err)
		s.giveBack(pool.Dead)
		return a, wire.Errorf("08006", "the connection to a server was lost").WithDetail("Node %s.", l.Address()).WithCause(err)
	}
	s.acted = true
	s.transaction('I')
	s.giveBack(pool.Clean)
	return a, err
}

// runTied runs a request on several shards for a session that is tied to its connection
// to the home shard, outside of a transaction: a migration tool that holds an advisory
// lock. It keeps that connection.
func (s *session) runTied(kind byte, size int, r *allRequest) error {
	s.db.stats.statements.Add(1)
	s.noteAsk(nil, scopeSeveral)
	s.tallyBegins(r.plan, nil)
	s.client.Release()
	s.held = false
	if err := s.beginTied("BEGIN", twopc.NewMark()); err != nil || s.lease == nil {
		if e := wire.AsError(err); err != nil && s.lease != nil && !e.IsFatal() {
			return s.answerAll(kind, *r, pool.Answer{}, e) // it was cancelled
		}
		return err
	}
	e := s.enlistAll(false, false, r.enlisted())
	var answer pool.Answer
	if e == nil && r.scatter != nil {
		return s.runScatter(r, false, s.endTied)
	}
	if e == nil {
		s.setPhase(phaseActive)
		answer, e = s.onAll(r)
	}
	if unfit := s.unfit(answer.Frames, r.limit); e == nil && unfit != nil {
		answer, e = pool.Answer{}, unfit
	}
	if e != nil && e.IsFatal() {
		return e
	}
	if e == nil {
		s.noteAll(r.plan)
	}
	s.notesDrawing(r.plan)
	s.fresh = false // it has been used
	if err := s.finish(e == nil); err != nil && e == nil {
		if e = wire.AsError(err); e.IsFatal() {
			return e
		}
	}
	s.forgetPlans()
	return s.answerAll(kind, *r, answer, e)
}

// endTied ends the transaction of a query of such a session.
func (s *session) endTied(e *wire.Error) (*wire.Error, error) {
	s.fresh = false // it has been used
	if err := s.finish(e == nil); err != nil && e == nil {
		if e = wire.AsError(err); e.IsFatal() {
			return nil, e
		}
	}
	return e, nil
}

// beginTied begins a transaction over several shards of a session that is tied to the
// lease; mark is 0 while it may stay on that one. The lease may be lost then, which the
// client is told.
func (s *session) beginTied(begin string, mark twopc.Mark) error {
	if _, err := s.runOn(s.lease, wire.AppendQuery(nil, begin+marks(mark)), 0); err != nil {
		if isLost(err) {
			return s.serverLost(err)
		}
		return err
	}
	s.tx, s.leaseBase = 'T', s.lease.Settings
	s.spread = &spreadTx{begin: begin, mark: mark, tied: true, home: s.index}
	s.txMark.Store(uint32(mark))
	return nil
}

// staysTied reports whether the session is tied to its connection, and not in a
// transaction that may go on to other shards nevertheless.
func (s *session) staysTied() bool {
	return s.pinned != "" && (s.spread == nil || !s.spread.tied)
}

// backHome makes the connection that the session is tied to the lease again.
func (s *session) backHome() error {
	if s.spread == nil || !s.spread.tied || s.index == s.spread.home {
		return nil
	}
	s.tx = 'T' // also of one that has failed: it ends next
	if e := s.extend(s.spread.home); e != nil {
		return e
	}
	s.fresh = false
	return nil
}

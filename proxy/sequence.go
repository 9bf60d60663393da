package proxy

import (
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// currval and lastval answer from the memory of one server session. That of a
// pooled connection is its last writers': a client must neither read another's
// values nor lose its own.
//
// A connection remembers whose values it may hold: nobody's, one session's, or
// several sessions'. A statement that reads them goes to the connection that has
// the session's own when it is free. On one that has others' they are discarded
// first, so that PostgreSQL itself says 55000; also ahead of what may ask unseen
// (functions that cannot be read, DO, calls by number), and ahead of statements
// that draw new ones by name, or, once any client has asked for such values, that may draw
// them at all, so that the next question finds them. A session that has asked keeps its connection from then on.

// mixedSequences stands for several sessions in pool.Server.Sequences.
const mixedSequences = ^uint64(0)

// discardSequences is prepared on servers as a statement of ours.
const discardSequences = "DISCARD SEQUENCES\x00\x00\x00"

// sequencePortal is the portal that runs it.
const sequencePortal = "_sp_sequences"

// readsSequences reports whether the plan asks for the session's sequence values.
func readsSequences(p *router.Plan) bool {
	return p != nil && p.Effects&query.EffectSequenceRead != 0
}

// drawsSequences notes that something was sent that may draw from a sequence.
func (s *session) drawsSequences() {
	if s.lease.Sequences != 0 && s.lease.Sequences != s.id {
		s.lease.Sequences, s.sequencesOn = mixedSequences, 0
		return
	}
	s.lease.Sequences, s.sequencesOn = s.id, s.lease.ID()
}

// mustDiscardSequences reports whether the values of others have to go before
// the plan runs; they are taken for gone.
func (s *session) mustDiscardSequences(p *router.Plan) bool {
	switch {
	case readsSequences(p):
		s.usesSequences = true
		s.db.sequencesRead.Store(true)
	case p == nil || p.Effects&query.EffectUnknown != 0:
		// It may ask.
	case p.Effects&query.EffectSequenceWrite != 0:
		// Who draws a value by name is likely to ask for it again.
	case p.Intent == router.Read || !s.db.sequencesRead.Load() || p.Single != nil && drawsNothing(p.Single.Kind):
		return false
	}
	if s.lease.Sequences == 0 || s.lease.Sequences == s.id && s.sequencesOn == s.lease.ID() {
		return false
	}
	// Others' values, or own ones that are older than those elsewhere.
	s.lease.Sequences, s.sequencesOn = s.id, s.lease.ID()
	return true
}

// drawsNothing lists the commands ahead of which nothing may run that takes a snapshot.
func drawsNothing(k query.Kind) bool {
	switch k {
	case query.KindBegin, query.KindSet, query.KindReset, query.KindSetTransaction, query.KindCommit, query.KindRollback:
		return true
	}
	return false
}

// guardSequences discards others' values ahead of a frame that runs the plan.
// Ahead of a request that is a query of ours. Within a request it happens inside
// the client's implicit transaction, which some commands do not bear: there it is
// done for nothing less than what asks, or may ask.
func (s *session) guardSequences(p *router.Plan) {
	if !s.open {
		if s.mustDiscardSequences(p) {
			s.lease.SetOutput(wire.AppendQuery(s.lease.Output(), "DISCARD SEQUENCES"))
			s.lease.Unnamed = 0 // a query drops it
			s.owed.push(expect{kind: expectQuery, mode: swallow, purpose: forSequences})
		}
		return
	}
	unknown := p == nil || p.Effects&query.EffectUnknown != 0
	if !unknown && !readsSequences(p) || !s.mustDiscardSequences(p) {
		return
	}
	st := s.db.Statements.Acquire("", []byte(discardSequences))
	s.ensure(st)
	s.db.Statements.Release(st)
	out := s.lease.Output()
	// Bind: portal, statement, no formats, no parameters, no result formats.
	out = wire.AppendFrame(out, wire.MsgBind, []byte(sequencePortal+"\x00"+st.Name+"\x00"), make([]byte, 6))
	out = wire.AppendFrame(out, wire.MsgExecute, []byte(sequencePortal+"\x00"), make([]byte, 4))
	out = wire.AppendClose(out, 'P', sequencePortal)
	s.lease.SetOutput(out)
	s.owed.push(expect{kind: expectBind, mode: swallow})
	s.owed.push(expect{kind: expectExecute, mode: swallow})
	s.owed.push(expect{kind: expectClose, mode: swallow})
}

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
// A connection remembers which session last ran something on it that may have
// drawn from a sequence. A statement that reads the memory goes to that
// connection when it is free; on any other the memory is discarded first, so
// that PostgreSQL itself says 55000. A session that has read it once keeps its
// connection from then on.

// discardSequences is prepared on servers as a statement of ours.
const discardSequences = "DISCARD SEQUENCES\x00\x00\x00"

// sequencePortal is the portal that runs it.
const sequencePortal = "_sp_sequences"

// readsSequences reports whether the plan asks for the session's sequence values.
func readsSequences(p *router.Plan) bool {
	return p != nil && p.Effects&query.EffectSequenceRead != 0
}

// segmentReadsSequences reports whether the request that is being begun does.
func (s *session) segmentReadsSequences() bool {
	for _, p := range s.segment {
		if readsSequences(p) {
			return true
		}
	}
	return false
}

// guardSequences makes sure, before a simple query of the plan is sent, that
// the lease remembers no other session's values.
func (s *session) guardSequences(p *router.Plan) {
	if !readsSequences(p) {
		return
	}
	s.usesSequences = true
	if s.lease.Sequences == s.id {
		return
	}
	s.lease.Sequences = s.id
	s.lease.SetOutput(wire.AppendQuery(s.lease.Output(), "DISCARD SEQUENCES"))
	s.owed.push(expect{kind: expectQuery, mode: swallow, purpose: forSequences})
}

// guardSequencesExtended does the same ahead of a Bind, inside the client's
// implicit transaction.
func (s *session) guardSequencesExtended(p *router.Plan) {
	if !readsSequences(p) {
		return
	}
	s.usesSequences = true
	if s.lease.Sequences == s.id {
		return
	}
	s.lease.Sequences = s.id
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

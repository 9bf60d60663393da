package proxy

import (
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// In a database of several shards BEGIN is answered without a server: where the
// transaction runs is known when its first statement is. A transaction that ends
// before it has none is answered the same way.

// begunTx is a transaction that no server knows of yet.
type begunTx struct {
	text                       string
	readOnly, replica, primary bool
	// serializable is set when the transaction is to be: over several shards none is.
	serializable bool
}

// answersHere answers a request that only begins or ends such a transaction.
func (s *session) answersHere(n *need) bool {
	if s.places == nil || n.err != nil || n.opaque || len(s.segment) != 1 || s.mode != ModeTransaction || !s.owed.empty() {
		return false
	}
	p := s.segment[0]
	if p.Single == nil || s.refused(p) != nil {
		return false
	}
	c := p.Single
	switch c.Kind {
	case query.KindBegin:
		if s.tx != 'I' {
			return false
		}
	case query.KindCommit, query.KindRollback:
		if s.begun == nil || c.Chain {
			return false
		}
	default:
		return false
	}
	b := s.client.Buffered()
	text := trimNUL(b[5:frameSize(b)])
	if b[0] != wire.MsgQuery {
		var ok bool
		if text, ok = s.unnamedAlone(b); !ok {
			return false
		}
	}
	s.takeOver(n, c, string(text))
	s.answerFrames(p, tagOf(c, text))
	s.forgetPlans()
	s.steps++
	return true
}

// unnamedAlone returns the text of a request that does nothing but run one unnamed
// statement, up to its Sync.
func (s *session) unnamedAlone(b []byte) (text []byte, ok bool) {
	for len(b) > 0 {
		size := frameSize(b)
		body := b[5:size]
		switch b[0] {
		case wire.MsgParse:
			name, rest, good := wire.CString(body)
			if !good || len(name) > 0 {
				return nil, false
			}
			text = cut(rest)
		case wire.MsgBind:
			if len(body) < 2 || body[0] != 0 || body[1] != 0 {
				return nil, false
			}
		case wire.MsgDescribe, wire.MsgClose:
			if len(body) < 2 || body[1] != 0 {
				return nil, false
			}
		case wire.MsgExecute:
		case wire.MsgSync:
			return text, text != nil
		default:
			return nil, false
		}
		b = b[size:]
	}
	return nil, false
}

// takeOver notes what the command does to the session.
func (s *session) takeOver(n *need, c *query.Command, text string) {
	s.db.stats.statements.Add(1)
	if c.Kind == query.KindBegin {
		s.tx = 'T'
		s.begun = &begunTx{text: text, readOnly: n.readOnly, replica: n.replica, primary: n.primary,
			serializable: c.Tx.Isolation == "serializable" || c.Tx.Isolation == "" && s.serializable}
		return
	}
	s.tx, s.begun = 'I', nil
	s.db.stats.transactions.Add(1)
}

// tagOf is what a server says when the command is complete.
func tagOf(c *query.Command, text []byte) string {
	switch c.Kind {
	case query.KindCommit:
		return "COMMIT"
	case query.KindRollback:
		return "ROLLBACK"
	}
	if c.Start < len(text) && text[c.Start]|0x20 == 's' {
		return "START TRANSACTION"
	}
	return "BEGIN"
}

// answerFrames answers the frames of the request in a server's place.
func (s *session) answerFrames(p *router.Plan, tag string) {
	for {
		b := s.client.Buffered()
		kind, size := b[0], frameSize(b)
		out := s.client.Output()
		switch kind {
		case wire.MsgQuery:
			s.unnamedTok, s.unnamedLarge = 0, false
			s.client.SetOutput(wire.AppendCommandComplete(out, tag))
			s.drop(size)
			s.answerReady()
			return
		case wire.MsgParse:
			_, rest, _ := wire.CString(b[5:size])
			s.unnamed, s.unnamedAs, s.unnamedShape = append(s.unnamed[:0], rest...), p, nil
			s.unnamedTok, s.unnamedLarge, s.unnamedOther = s.db.tokens.Add(1), false, false
			out = wire.AppendEmpty(out, wire.MsgParseComplete)
		case wire.MsgBind:
			out = wire.AppendEmpty(out, wire.MsgBindComplete)
		case wire.MsgDescribe:
			if b[5] == 'S' {
				out = append(out, wire.MsgParameterDescription, 0, 0, 0, 6, 0, 0)
			}
			out = wire.AppendEmpty(out, wire.MsgNoData)
		case wire.MsgExecute:
			out = wire.AppendCommandComplete(out, tag)
		case wire.MsgClose:
			out = wire.AppendEmpty(out, wire.MsgCloseComplete)
		case wire.MsgSync:
			s.drop(size)
			s.answerReady()
			return
		}
		s.client.SetOutput(out)
		s.drop(size)
	}
}

// enlist begins the transaction on the lease, ahead of its first statement.
func (s *session) enlist() {
	if s.begun == nil {
		return
	}
	s.lease.SetOutput(wire.AppendQuery(s.lease.Output(), s.begun.text))
	s.lease.Unnamed = 0
	s.owed.push(expect{kind: expectQuery, mode: swallow, purpose: forBegin})
	s.spread = &spreadTx{begin: s.begun.text}
	switch {
	case s.replica:
		s.spread.only = "it runs on a replica"
	case s.begun.serializable:
		s.spread.only = "it is SERIALIZABLE, which holds on one server only"
	}
	s.begun, s.enlisting = nil, true
	s.steps++
}

// abort fails a transaction that no server knows of.
func (s *session) abort() {
	if s.begun != nil {
		s.begun, s.tx, s.lost = nil, 'E', true
	}
}

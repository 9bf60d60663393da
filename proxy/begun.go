package proxy

import (
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/twopc"
	"shardproxy/wire"
)

// In a database of several shards BEGIN is answered without a server: where the
// transaction runs is known when its first statement is. A transaction that ends
// before it has none is answered the same way.

// begunTx is a transaction that no server knows of yet.
type begunTx struct {
	text string
	// mark is that of a transaction that has others shards too, and then what is set there
	// behind it: see enlist.
	mark                       twopc.Mark
	then                       string
	readOnly, replica, primary bool
	// serializable is set when the transaction is to be: over several shards none is.
	serializable bool
	// isolation is its level, "" while that is not known.
	isolation string
	// parts are set for one of a query over several shards that may be read on replicas.
	parts *replicaParts
}

// reads has the transaction read on replicas, as far as there are fit ones; nil leaves it as it is.
func (b *begunTx) reads(parts *replicaParts) {
	if b.parts = parts; parts != nil {
		b.readOnly, b.primary, b.replica = true, false, parts.vouched
	}
}

// answersHere answers a request that only begins or ends such a transaction.
func (s *session) answersHere(n *need) bool {
	if s.places == nil || n.err != nil || n.opaque || len(s.executes) != 1 || s.mode != ModeTransaction || !s.owed.empty() {
		return false
	}
	p := s.executes[0]
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
		if text, ok = s.oneAlone(b); !ok || s.prepareAlone(p) != nil {
			return false
		}
	}
	s.takeOver(n, c, string(text))
	s.answerFrames(tagOf(c, text), false)
	s.forgetPlans()
	s.steps++
	return true
}

// peelsBegin answers the BEGIN at the head of a request that goes on, as drivers send it
// with a transaction's first statement. What is behind it is a request of its own then.
func (s *session) peelsBegin(n *need) bool {
	if s.places == nil || n.opaque || len(s.executes) < 2 || s.mode != ModeTransaction || !s.owed.empty() || s.tx != 'I' || s.pinned != "" {
		return false
	}
	p := s.executes[0]
	if !begins(p) || s.refused(p) != nil {
		return false
	}
	text, ok := s.one(s.client.Buffered(), wire.MsgExecute)
	if !ok || s.prepareAlone(p) != nil {
		return false
	}
	begin := s.needOf(p)
	s.takeOver(&begin, p.Single, string(text))
	s.answerFrames(tagOf(p.Single, text), true)
	s.forgetPlans()
	s.steps++
	return true
}

// oneAlone returns the text of a request that does nothing but run one statement, up to
// its Sync.
func (s *session) oneAlone(b []byte) (text []byte, ok bool) { return s.one(b, wire.MsgSync) }

// one returns the text of the one statement that frames run, up to one of a kind.
func (s *session) one(b []byte, end byte) (text []byte, ok bool) {
	var parsed, name []byte
	bound, executed := false, false
	for len(b) >= 5 && len(b) >= frameSize(b) {
		kind, size := b[0], frameSize(b)
		body := b[5:size]
		switch kind {
		case wire.MsgParse:
			nm, rest, good := wire.CString(body)
			if !good || bound || text != nil || len(nm) > 0 && (s.statements[string(nm)] != nil || s.mayPrepare(rest) != nil) {
				return nil, false
			}
			parsed, text = nm, cut(rest)
		case wire.MsgBind:
			portal, after, good := wire.CString(body)
			nm, _, fine := wire.CString(after)
			if !good || !fine || len(portal) > 0 || bound || text != nil && string(nm) != string(parsed) {
				return nil, false
			}
			bound, name = true, nm
			if text == nil {
				text = cut(s.restOf(nm))
			}
		case wire.MsgDescribe:
			of := cut(body[min(1, len(body)):])
			if len(body) < 2 || body[0] == 'P' && (!bound || len(of) > 0) ||
				body[0] == 'S' && (text == nil || string(of) != string(parsed) && (!bound || string(of) != string(name))) {
				return nil, false
			}
		case wire.MsgClose:
			// Drivers close what they no longer use ahead of what they run.
			if len(body) < 2 || (text != nil || bound) && (len(body) != 2 || body[0] != 'P') {
				return nil, false
			}
		case wire.MsgExecute:
			if !bound || executed || len(body) < 5 || body[0] != 0 {
				return nil, false
			}
			executed = true
		case wire.MsgSync:
		default:
			return nil, false
		}
		if kind == end {
			return text, executed && len(text) > 0
		}
		b = b[size:]
	}
	return nil, false
}

// prepareAlone notes what the request closes and prepares that one has read.
func (s *session) prepareAlone(p *router.Plan) *wire.Error {
	for b := s.client.Buffered(); ; b = b[frameSize(b):] {
		body := b[5:frameSize(b)]
		switch b[0] {
		case wire.MsgClose:
			s.closesHere(body)
		case wire.MsgParse:
			name, rest, _ := wire.CString(body)
			return s.preparesHere(string(name), rest, p)
		default:
			return nil
		}
	}
}

// closesHere forgets what a Close names that no server gets. A portal ends with the
// transaction.
func (s *session) closesHere(body []byte) {
	name := string(cut(body[1:]))
	switch st := s.statements[name]; {
	case body[0] == 'P':
		s.closes(name)
	case name == "":
		s.unnamedTok, s.unnamedAs, s.unnamedLarge = 0, nil, false
	case st != nil:
		delete(s.statements, name)
		s.release(st)
	}
}

// takeOver notes what the command does to the session.
func (s *session) takeOver(n *need, c *query.Command, text string) {
	s.db.stats.statements.Add(1)
	if c.Kind == query.KindBegin {
		s.tx = 'T'
		s.begun = &begunTx{text: text, readOnly: n.readOnly, replica: n.replica, primary: n.primary, isolation: c.Tx.Isolation,
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

// answerFrames answers the frames of the request in a server's place; with head, those up
// to its first Execute.
func (s *session) answerFrames(tag string, head bool) {
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
		if head && kind == wire.MsgExecute {
			return
		}
	}
}

// enlist begins the transaction on the lease, ahead of its first statement.
func (s *session) enlist() {
	if s.begun == nil {
		return
	}
	s.lease.SetOutput(wire.AppendQuery(s.lease.Output(), s.begun.text+marks(s.begun.mark)+s.begun.then))
	s.lease.Unnamed = 0
	s.owed.push(expect{kind: expectQuery, mode: swallow, purpose: forBegin})
	s.spread = s.newSpread(s.begun.text, s.begun.isolation)
	s.spread.mark = s.begun.mark
	s.txMark.Store(uint32(s.begun.mark))
	switch {
	case s.begun.parts != nil:
		s.spread.parts = s.begun.parts
		s.spread.parts.note(s.index, s.lease.Node, s.replica)
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

package proxy

import (
	"bytes"
	"encoding/binary"

	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// auditEffects are the effects that only the server can tell the outcome of.
const auditEffects = query.EffectTemp | query.EffectAdvisory | query.EffectHoldCursor |
	query.EffectPrepared | query.EffectListen | query.EffectUnknown

// send forwards one frame to the lease, renaming statements, and notes what
// reply is owed for it. false means that more of the frame must arrive first.
func (s *session) send(kind byte, size int) (bool, error) {
	s.setPhase(phaseActive)
	s.asked = false
	switch kind {
	case wire.MsgQuery:
		going, err := s.sendQuery(size)
		if going {
			s.marksAgain()
		}
		return going, err
	case wire.MsgParse:
		return s.sendParse(size)
	case wire.MsgBind:
		return s.sendBind(size)
	case wire.MsgDescribe:
		return s.sendDescribe(size)
	case wire.MsgExecute:
		return s.sendExecute(size)
	case wire.MsgClose:
		return s.sendClose(size)
	case wire.MsgSync:
		s.forward(size)
		s.owed.push(expect{kind: expectSync, afterData: s.dataAhead, ask: s.takeAsk()})
		s.open, s.forgetting, s.queried = false, false, false
		s.marksAgain()
	case wire.MsgFlush:
		s.forward(size)
	case wire.MsgFunctionCall:
		s.guardSequences(nil)
		s.forward(size)
		s.note(nil)
		s.queried = s.queried || s.open
		s.owed.push(expect{kind: expectFunction, ask: s.takeAsk()})
	}
	return true, nil
}

// body returns the whole frame's body, or false while it is incomplete.
func (s *session) body(size int) ([]byte, bool) {
	b := s.client.Buffered()
	if len(b) < size {
		return nil, false
	}
	return b[5:size], true
}

func (s *session) sendQuery(size int) (bool, error) {
	if size > s.db.Policy().ParsedMax {
		if s.places != nil {
			s.sendRefusal(size, errTooLong())
			return true, nil
		}
		s.guardSequences(nil)
		s.forwardLarge(size)
		s.expectQuery(nil)
		return true, nil
	}
	body, ok := s.body(size)
	if !ok {
		return false, nil
	}
	text := trimNUL(body)
	p := s.planAhead(text)
	if e := p.BlockedBy(); e != nil {
		s.segmentRead++
		s.sendRefusal(size, e)
		return true, nil
	}
	going, done, err := s.namesStatement(p, text, size)
	if done && !going || err != nil {
		return false, err
	}
	s.segmentRead++
	if done {
		s.notesDrawing(p)
		return true, nil
	}
	s.mentions(p, text)
	e := s.refused(p)
	if e == nil {
		e = s.misplaced(p, text, nil, nil)
	}
	if e != nil {
		if p.Tally != nil {
			p.Tally.Refused()
			s.auditsRefused(p.Tally, e)
		}
		s.sendRefusal(size, e)
		return true, nil
	}
	s.guardSequences(p)
	s.notesDrawing(p)
	if text, tag := s.resetText(p); tag != "" {
		s.lease.SetOutput(wire.AppendQuery(s.lease.Output(), text))
		s.drop(size)
		s.expectQuery(p)
		s.owed.last().tag = tag
		return true, nil
	}
	if text, spliced := s.spliceResets(p, text); spliced != nil {
		s.lease.SetOutput(wire.AppendQuery(s.lease.Output(), text))
		s.drop(size)
		s.expectQuery(p)
		s.owed.last().spliced = spliced
		return true, nil
	}
	if s.spread != nil && p.Effects&query.EffectSetting != 0 && s.travels(p) && p.Single.Settings[0].Local {
		s.goesLocal(p, string(text[p.Single.Start:p.Single.End]))
	}
	if s.spread != nil && s.setsModes(p) {
		s.spread.begin += "\n; " + string(text[p.Single.Start:p.Single.End])
		s.spread.travelling = p
		if level := p.Single.Tx.Isolation; level != "" {
			s.spread.isolation = level
		}
	}
	s.forward(size)
	s.expectQuery(p)
	s.owed.last().above = s.above(p)
	return true, nil
}

// expectQuery notes a simple query that has been forwarded.
func (s *session) expectQuery(p *router.Plan) {
	s.queried, s.dataAhead = s.queried || s.open, false
	s.lease.Unnamed = 0
	s.unnamedTok, s.unnamedLarge = 0, false
	s.note(p)
	s.owed.push(expect{kind: expectQuery, plan: p, ask: s.takeAsk()})
}

// note records what running the plan (nil: an unread text) may leave behind.
func (s *session) note(p *router.Plan) {
	s.notesSpread(p)
	s.db.stats.statements.Add(1)
	s.noteAsk(p, scopeOne)
	if p == nil || p.Intent != router.Read {
		s.drawsSequences()
	}
	s.notesSequences(p)
	if p == nil {
		s.suspect |= query.EffectUnknown
		s.writesAny()
		return
	}
	s.suspect |= p.Effects & auditEffects
	s.setsUnknown = s.setsUnknown || p.Effects&query.EffectUnknown != 0 && callsSetConfig(p)
}

// mentions notes which custom settings a text, or a function that it makes, may set.
func (s *session) mentions(p *router.Plan, text []byte) {
	if p.Effects&(query.EffectUnknown|query.EffectCatalog|query.EffectTemp) == 0 {
		return
	}
	if lower := bytes.ToLower(text); bytes.Contains(lower, []byte("set")) && !s.db.mention(string(lower)) {
		s.setsUnknown = true
	}
}

// callsSetConfig reports whether the text itself calls set_config.
func callsSetConfig(p *router.Plan) bool {
	if p.Statement == nil {
		return false
	}
	for i := range p.Statement.Commands {
		for _, f := range p.Statement.Commands[i].Functions {
			if f.Name == "set_config" {
				return true
			}
		}
	}
	return false
}

func (s *session) sendParse(size int) (bool, error) {
	if size > s.db.Policy().ParsedMax {
		return s.sendLargeParse(size)
	}
	body, ok := s.body(size)
	if !ok {
		return false, nil
	}
	name, rest, ok := wire.CString(body)
	if !ok || len(name) > nameMax {
		return false, wire.Fatal("08P01", "invalid message format")
	}
	if s.uncertain(name) || len(name) > 0 && s.owed.altering > 0 && !s.outcomeKnown() {
		return false, nil
	}
	p := s.planAhead(cut(rest))
	if !s.private && namesStatements(p, cut(rest)) && !deallocates(p) {
		if !s.outcomeKnown() {
			return false, nil
		}
		s.goPrivate()
	}
	s.segmentRead++
	s.mentions(p, cut(rest))
	if !s.open {
		s.guardSequences(p)
	}
	s.open = true
	if len(name) > 0 {
		return true, s.parseNamed(string(name), rest, p, size)
	}
	s.unnamedOther = false
	if text, tag := s.resetText(p); tag != "" {
		s.unnamedOther = true
		rest = append(append([]byte(nil), text...), 0, 0, 0)
		s.lease.SetOutput(wire.AppendParse(s.lease.Output(), "", rest))
		s.drop(size)
		size = 0
	}
	if other, ok := s.substitute("", rest, p); ok {
		s.unnamedOther = true
		rest = other
		s.lease.SetOutput(wire.AppendParse(s.lease.Output(), "", rest))
		s.drop(size)
		size = 0
	}
	s.unnamed = append(s.unnamed[:0], rest...)
	s.unnamedAs = p
	s.unnamedTok, s.unnamedLarge = s.db.tokens.Add(1), false
	s.lease.Unnamed = s.unnamedTok
	if size > 0 {
		s.forward(size)
	}
	s.owed.push(expect{kind: expectParse, unnamed: true})
	return true, nil
}

// sendLargeParse relays a Parse that is too long to be understood. Its text is
// not kept, so the session keeps the server connection that has it.
func (s *session) sendLargeParse(size int) (bool, error) {
	b := s.client.Buffered()
	body := b[5:min(len(b), size)]
	name, _, ok := wire.CString(body)
	if !ok {
		if len(body) > nameMax {
			return false, wire.Fatal("08P01", "invalid message format")
		}
		return false, nil
	}
	if s.places != nil {
		return false, wire.Fatal("54000", "%s", errTooLong().Message)
	}
	s.guardSequences(nil)
	if len(name) > 0 {
		s.goPrivate()
		s.open = true
		if s.statements[string(name)] != nil || !s.private {
			s.forward(size) // the server says that it exists, or that the transaction has failed
			s.owed.push(expect{kind: expectParse})
			return true, nil
		}
		s.forwardParse(string(name), &preparedStatement{name: string(name)}, size)
		return true, nil
	}
	s.open = true
	s.unnamedAs = nil
	s.unnamedTok, s.unnamedLarge = s.db.tokens.Add(1), true
	s.lease.Unnamed = s.unnamedTok
	s.forwardLarge(size)
	s.owed.push(expect{kind: expectParse, unnamed: true})
	return true, nil
}

// nameMax bounds the names of statements, and of portals in messages that are not
// read whole, in bytes.
const nameMax = 8192

func (s *session) sendBind(size int) (bool, error) {
	b := s.client.Buffered()
	body := b[5:min(len(b), size)]
	portal, after, ok := wire.CString(body)
	var name []byte
	if ok {
		name, _, ok = wire.CString(after)
	}
	if !ok {
		if len(b) >= size || len(body) > 2*nameMax {
			return false, wire.Fatal("08P01", "invalid message format")
		}
		return false, nil
	}
	if s.uncertain(name) {
		return false, nil
	}
	var p *router.Plan
	var about *preparedStatement
	bound := s.boundPlan(name)
	if target := s.deallocatedBy(name, bound); target != "" && s.uncertain([]byte(target)) {
		return false, nil
	}
	e := s.refusedBind(name, bound)
	if e == nil {
		e = s.misplacedBind(bound, name, after)
	}
	if len(portal) > 0 && s.cursors[string(portal)] != nil {
		e = errCursorExists(string(portal))
	}
	if st := s.statements[string(name)]; st != nil && !s.private && e == nil {
		ready, err := s.bring(st, true)
		if !ready {
			return false, nil
		}
		e = err
	} else if len(name) == 0 && e == nil {
		s.guardSequences(bound)
		ready, err := s.bringUnnamed()
		if !ready {
			return false, nil
		}
		e = err
	}
	if e != nil {
		s.open = true
		s.renamed(wire.MsgBind, size, portal, noStatement, 5+len(portal)+1+len(name)+1)
		s.owed.push(expect{kind: expectBind, instead: e})
		return true, nil
	}
	if len(name) == 0 {
		p = s.unnamedAs
		s.bound(portal, p)
		s.forward(size)
	} else if st := s.statements[string(name)]; st != nil && s.private {
		p = s.replan(st)
		s.guardSequences(p)
		s.bound(portal, p)
		s.forward(size)
	} else if st != nil {
		p, about = s.replan(st), st
		s.guardSequences(p)
		s.bound(portal, p)
		s.renamed(wire.MsgBind, size, portal, st.shared.Name, 5+len(portal)+1+len(name)+1)
	} else if st := s.foreign(string(name)); st != nil {
		about = st
		s.bound(portal, nil)
		s.renamed(wire.MsgBind, size, portal, st.shared.Name, 5+len(portal)+1+len(name)+1)
	} else {
		// Not ours: the server says that it does not exist, unless a function made
		// it on this connection, which is pinned then.
		s.bound(portal, nil)
		s.forward(size)
	}
	if len(portal) == 0 {
		s.portalShape = nil
		if about != nil {
			s.portalShape = &about.shape
		}
	}
	s.open = true
	s.countsBind(name)
	s.owed.push(expect{kind: expectBind, about: about})
	return true, nil
}

// boundPlan returns the plan that a Bind of the name runs, nil when it is not known.
func (s *session) boundPlan(name []byte) *router.Plan {
	if len(name) == 0 {
		if s.db.blocks.byPrint.Load() != nil || s.unnamedAs.BlockedBy() != nil {
			return s.planOf(name, nil, nil) // it may be blocked since it was parsed, or no longer
		}
		s.writesBy(s.unnamedAs)
		return s.unnamedAs
	}
	if st := s.statements[string(name)]; st != nil {
		return s.replan(st)
	}
	s.writesAny()
	return nil
}

// renamed forwards a frame of size bytes whose first skip bytes (header and
// names) are replaced by a header, the portal (for Bind) and the server's
// statement name.
func (s *session) renamed(kind byte, size int, portal []byte, name string, skip int) {
	out := s.lease.Output()
	out = append(out, kind, 0, 0, 0, 0)
	at := len(out) - 4
	out = append(append(out, portal...), 0)
	out = append(append(out, name...), 0)
	binary.BigEndian.PutUint32(out[at:], uint32(len(out)-at+size-skip))
	s.lease.SetOutput(out)
	s.client.Discard(skip)
	s.steps++
	if size > skip {
		s.forward(size - skip)
	}
}

// bound notes which plan a portal runs.
func (s *session) bound(portal []byte, p *router.Plan) {
	if m := s.spread; m != nil {
		if m.portals == nil {
			m.portals, m.levels = map[string]int{}, map[string]int{}
		}
		m.portals[string(portal)], m.levels[string(portal)] = s.index, len(s.savepoints)
		m.noUnnamed = m.noUnnamed && len(portal) > 0
	}
	if len(portal) == 0 {
		s.closes("")
		s.portal = p
		return
	}
	if s.portals == nil {
		s.portals = map[string]*router.Plan{}
	}
	s.portals[string(portal)] = p
}

// restoreUnnamed makes the lease's unnamed statement the session's own.
func (s *session) restoreUnnamed() {
	if s.unnamedTok == 0 || s.unnamedLarge && s.lease.Unnamed != s.unnamedTok {
		// It has none; what another session left there is not its own.
		s.lease.Unnamed = 0
		s.lease.SetOutput(wire.AppendClose(s.lease.Output(), 'S', ""))
		s.owed.push(expect{kind: expectClose, mode: swallow})
		return
	}
	if s.lease.Unnamed == s.unnamedTok {
		return
	}
	s.lease.Unnamed = s.unnamedTok
	s.lease.SetOutput(wire.AppendParse(s.lease.Output(), "", s.unnamed))
	s.owed.push(expect{kind: expectParse, mode: swallow, restores: true})
}

func (s *session) sendDescribe(size int) (bool, error) {
	body, ok := s.body(size)
	if !ok {
		return false, nil
	}
	if len(body) < 2 {
		return false, wire.Fatal("08P01", "invalid message format")
	}
	what, name := body[0], cut(body[1:])
	if what == 'S' && s.uncertain(name) {
		return false, nil
	}
	if st := s.statements[string(name)]; what == 'S' && st != nil && !s.private {
		ready, e := s.bring(st, true)
		if !ready {
			return false, nil
		}
		if e != nil {
			s.open = true
			s.lease.SetOutput(append(wire.AppendHeader(s.lease.Output(), wire.MsgDescribe, len(noStatement)+2), "S"+noStatement+"\x00"...))
			s.drop(size)
			s.owed.push(expect{kind: expectDescribe, instead: e})
			return true, nil
		}
	}
	s.open = true
	var st *preparedStatement
	if what == 'S' && len(name) > 0 && !s.private {
		if st = s.statements[string(name)]; st == nil {
			st = s.foreign(string(name))
		}
	}
	ask := expect{kind: expectDescribe, about: st, shape: s.shapeOf(what, name, st)}
	if what == 'S' {
		ask.supplied = uint16(s.suppliedTo(name))
	}
	if ask.shape != nil {
		ask.token = ask.shape.token
	}
	switch {
	case what == 'S' && len(name) == 0:
		s.restoreUnnamed()
		s.forward(size)
	case st != nil:
		out := s.lease.Output()
		out = wire.AppendHeader(out, wire.MsgDescribe, len(st.shared.Name)+2)
		out = append(append(append(out, 'S'), st.shared.Name...), 0)
		s.lease.SetOutput(out)
		s.drop(size)
	default:
		s.forward(size)
	}
	s.owed.push(ask)
	return true, nil
}

func (s *session) sendExecute(size int) (bool, error) {
	body, ok := s.body(size)
	if !ok {
		return false, nil
	}
	s.open, s.dataAhead = true, false
	s.paysFor()
	p := s.portal
	if name := cut(body); len(name) > 0 {
		p = s.portals[string(name)]
	}
	if s.spread != nil && p != nil && p.Effects&query.EffectSetting != 0 && s.travels(p) {
		if sql, ok := localSQL(p); ok {
			s.goesLocal(p, sql)
		}
	}
	s.note(p)
	s.notesDrawing(p)
	s.forward(size)
	e := expect{kind: expectExecute, plan: p, limit: limitIn(body)}
	if p != nil {
		_, e.tag = s.resetText(p)
		s.forgetting = s.forgetting || deallocatesAll(p)
	}
	if n := len(body); n >= 4 && binary.BigEndian.Uint32(body[n-4:]) == 0 {
		e.above = s.above(p)
	}
	s.owed.push(e)
	return true, nil
}

func (s *session) sendClose(size int) (bool, error) {
	body, ok := s.body(size)
	if !ok {
		return false, nil
	}
	if len(body) < 2 {
		return false, wire.Fatal("08P01", "invalid message format")
	}
	name := cut(body[1:])
	if body[0] == 'S' && s.uncertain(name) {
		return false, nil
	}
	s.open = true
	switch {
	case body[0] == 'P':
		s.closes(string(name))
		delete(s.portals, string(name))
	case len(name) == 0:
		s.unnamedTok, s.unnamedAs, s.unnamedLarge = 0, nil, false
		s.lease.Unnamed = 0
	default:
		return true, s.closeStatement(string(name), size)
	}
	s.forward(size)
	s.owed.push(expect{kind: expectClose})
	return true, nil
}

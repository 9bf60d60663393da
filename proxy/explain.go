package proxy

import (
	"encoding/binary"

	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/shardmap"
	"shardproxy/wire"
)

// EXPLAIN (ROUTE) is answered by the proxy: no server is asked, and nothing is run. A
// request that begins with it is dealt with here frame by frame up to its Sync, and
// must hold nothing else. Plain EXPLAIN of several shards gets a row above the server's.

// routing is such a request of the extended protocol.
type routing struct {
	portals map[string]*routePortal
}

// routePortal is one answer, and how much of it was fetched.
type routePortal struct {
	options *query.ExplainOptions
	format  shardmap.Format
	lines   []string
	sent    int
}

// explains answers the request that begins with the frame when it asks for a route.
func (s *session) explains(kind byte, size int) (verdict, error) {
	b := s.client.Buffered()
	switch kind {
	case wire.MsgQuery, wire.MsgParse:
		text := b[5:min(size, len(b))]
		if kind == wire.MsgParse {
			_, text, _ = wire.CString(text)
		}
		if !query.BeginsExplain(text) || size > s.db.Policy().ParsedMax {
			return goesOn, nil
		}
		if len(b) < size {
			return waits, nil
		}
		if p := s.plan(cut(text)); !routes(p) {
			return goesOn, nil
		}
	case wire.MsgBind, wire.MsgDescribe:
		if !s.explained {
			return goesOn, nil // for no statement of the session is one
		}
		if size > s.db.Policy().ParsedMax {
			return goesOn, nil
		}
		if len(b) < size {
			return waits, nil
		}
		if !routes(s.boundPlan(statementOf(b[:size]))) {
			return goesOn, nil
		}
	default:
		return goesOn, nil
	}
	if s.lease != nil {
		if !s.owed.empty() {
			return waits, nil
		}
		if s.tx == 'E' {
			return goesOn, nil // where all fails
		}
		s.read = false
		s.commitHold()
	}
	s.forgetPlans()
	s.routing = &routing{portals: map[string]*routePortal{}}
	_, err := s.routeFrame(kind, size)
	return isRefused, err
}

// routes reports whether a plan asks for a route.
func routes(p *router.Plan) bool {
	return p != nil && p.Explain() != nil && p.Explain().Route
}

// statementOf returns the name of the statement that a Bind or Describe is of.
func statementOf(frame []byte) []byte {
	body := frame[5:]
	if frame[0] == wire.MsgDescribe {
		if len(body) == 0 || body[0] != 'S' {
			return nil
		}
		return cut(body[1:])
	}
	_, after, _ := wire.CString(body)
	return cut(after)
}

// errRouteAlone refuses to answer for a server in the middle of what it answers.
func errRouteAlone() *wire.Error {
	return wire.Errorf("0A000", "EXPLAIN (ROUTE) is answered by the proxy and cannot be sent together with other statements").
		WithHint("Send it alone, whole and up to its Sync.")
}

// refusedRouting returns why a plan must not reach a server, nil when it may.
func (s *session) refusedRouting(p *router.Plan) *wire.Error {
	if s.tx != 'E' && routes(p) {
		return errRouteAlone()
	}
	return nil
}

// routeFrame answers one frame of the request; false means that more of it must arrive.
func (s *session) routeFrame(kind byte, size int) (bool, error) {
	if size > s.db.Policy().ParsedMax {
		return true, s.failRoute(kind, size, wire.Errorf("54000", "what asks for EXPLAIN (ROUTE) is too long to be understood").
			WithHint("limits.parsed_statement bounds the length."))
	}
	b := s.client.Buffered()
	if len(b) < size {
		return false, nil
	}
	body := b[5:size]
	out, e := s.client.Output(), (*wire.Error)(nil)
	switch kind {
	case wire.MsgQuery:
		s.unnamedTok, s.unnamedLarge = 0, false
		out, e = s.routeQuery(out, trimNUL(body))
	case wire.MsgParse:
		out, e = s.routeParse(out, body)
	case wire.MsgBind:
		out, e = s.routeBind(out, body)
	case wire.MsgDescribe:
		out, e = s.routeDescribe(out, body)
	case wire.MsgExecute:
		out, e = s.routeExecute(out, body)
	case wire.MsgClose:
		out, e = s.routeClose(out, body)
	case wire.MsgFlush:
	case wire.MsgSync:
		out = wire.AppendReadyForQuery(out, s.tx)
	default:
		e = errRouteAlone()
	}
	switch {
	case e == nil:
	case s.lease != nil && (!s.owed.empty() || s.settling || s.audit.running):
		return false, nil // what is being asked there ends first
	default:
		return true, s.failRoute(kind, size, e)
	}
	if kind == wire.MsgQuery || kind == wire.MsgSync {
		s.routing = nil
	}
	s.client.SetOutput(out)
	s.drop(size)
	if kind == wire.MsgQuery {
		s.answerReady()
	}
	return true, nil
}

// failRoute fails the request, and with it a transaction that is open.
func (s *session) failRoute(kind byte, size int, e *wire.Error) error {
	s.routing = nil
	return s.refuseWhole(kind, size, e)
}

func (s *session) routeQuery(out, text []byte) ([]byte, *wire.Error) {
	p := s.plan(text)
	if !routes(p) || len(s.routing.portals) > 0 {
		return out, errRouteAlone()
	}
	r := routePortal{options: p.Explain()}
	var e *wire.Error
	if r.lines, e = s.routeOf(p, text, nil, nil); e != nil {
		return out, e
	}
	return r.rows(r.description(out), 0), nil
}

// routeParse takes a statement that no server gets to know.
func (s *session) routeParse(out, body []byte) ([]byte, *wire.Error) {
	name, rest, ok := wire.CString(body)
	if !ok || len(name) > nameMax {
		return out, wire.Fatal("08P01", "invalid message format")
	}
	p := s.plan(cut(rest))
	switch {
	case !routes(p):
		return out, errRouteAlone()
	case len(name) == 0:
		s.unnamed, s.unnamedAs, s.unnamedShape = append(s.unnamed[:0], rest...), p, nil
		s.unnamedTok, s.unnamedLarge, s.unnamedOther = s.db.tokens.Add(1), false, false
	case s.statements[string(name)] != nil:
		return out, wire.Errorf("42P05", "prepared statement \"%s\" already exists", name)
	default:
		if err := s.mayPrepare(rest); err != nil {
			return out, wire.AsError(err)
		}
		s.define(s.newStatement(string(name), rest, p))
	}
	s.explained = true
	return wire.AppendEmpty(out, wire.MsgParseComplete), nil
}

// routeStatement returns what a name means, which must ask for a route.
func (s *session) routeStatement(name []byte) (*router.Plan, []byte, *wire.Error) {
	rest := s.restOf(name)
	if rest == nil {
		return nil, nil, wire.Errorf("26000", "prepared statement \"%s\" does not exist", name)
	}
	p := s.plan(cut(rest))
	if !routes(p) {
		return nil, nil, errRouteAlone()
	}
	return p, rest, nil
}

func (s *session) routeBind(out, body []byte) ([]byte, *wire.Error) {
	portal, after, ok := wire.CString(body)
	var name, bind []byte
	if ok {
		name, bind, ok = wire.CString(after)
	}
	if !ok {
		return out, wire.Fatal("08P01", "invalid message format")
	}
	p, rest, e := s.routeStatement(name)
	if e != nil {
		return out, e
	}
	r := &routePortal{options: p.Explain()}
	if r.lines, e = s.routeOf(p, cut(rest), rest, bind); e != nil {
		return out, e
	}
	if r.format, ok = s.values.ResultFormat(); !ok {
		return out, wire.Fatal("08P01", "invalid message format")
	}
	s.routing.portals[string(portal)] = r
	return wire.AppendEmpty(out, wire.MsgBindComplete), nil
}

func (s *session) routeDescribe(out, body []byte) ([]byte, *wire.Error) {
	if len(body) < 2 {
		return out, wire.Fatal("08P01", "invalid message format")
	}
	name := cut(body[1:])
	if body[0] == 'P' {
		r := s.routing.portals[string(name)]
		if r == nil {
			return out, errNoPortal(name)
		}
		return r.description(out), nil
	}
	p, rest, e := s.routeStatement(name)
	if e != nil {
		return out, e
	}
	types := s.routeTypes(p, cut(rest), rest)
	b := binary.BigEndian.AppendUint16(nil, uint16(len(types)))
	for _, t := range types {
		b = binary.BigEndian.AppendUint32(b, t)
	}
	r := routePortal{options: p.Explain()}
	return r.description(wire.AppendFrame(out, wire.MsgParameterDescription, b)), nil
}

func errNoPortal(name []byte) *wire.Error {
	return wire.Errorf("34000", "portal \"%s\" does not exist", name)
}

func (s *session) routeExecute(out, body []byte) ([]byte, *wire.Error) {
	name, after, ok := wire.CString(body)
	if !ok || len(after) != 4 {
		return out, wire.Fatal("08P01", "invalid message format")
	}
	r := s.routing.portals[string(name)]
	if r == nil {
		return out, errNoPortal(name)
	}
	return r.rows(out, int(int32(binary.BigEndian.Uint32(after)))), nil
}

func (s *session) routeClose(out, body []byte) ([]byte, *wire.Error) {
	if len(body) < 2 {
		return out, wire.Fatal("08P01", "invalid message format")
	}
	name := string(cut(body[1:]))
	switch st := s.statements[name]; {
	case body[0] == 'P':
		delete(s.routing.portals, name)
	case name == "":
		s.unnamedTok, s.unnamedAs, s.unnamedLarge = 0, nil, false
	case st != nil && s.private && !routes(s.replan(st)):
		return out, errRouteAlone() // the server has it under the name
	case st != nil:
		delete(s.statements, name)
		s.release(st)
	}
	return wire.AppendEmpty(out, wire.MsgCloseComplete), nil
}

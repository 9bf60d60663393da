package proxy

import (
	"bytes"
	"encoding/binary"
	"encoding/json"

	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// description appends the RowDescription.
func (r *routePortal) description(dst []byte) []byte {
	const json, text = 114, 25
	oid := uint32(text)
	if r.options.Format == "json" {
		oid = json
	}
	b := planColumn(oid)
	return wire.AppendFrame(dst, wire.MsgRowDescription, binary.BigEndian.AppendUint16(b[:len(b)-2], uint16(r.format)))
}

// planColumn is the body of the RowDescription of an EXPLAIN, in text format.
func planColumn(oid uint32) []byte {
	b := append([]byte{0, 1}, "QUERY PLAN\x00\x00\x00\x00\x00\x00\x00"...)
	b = binary.BigEndian.AppendUint32(b, oid)
	return append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0)
}

// rows appends the next rows, limit of them at most unless it is 0, and what ends them.
func (r *routePortal) rows(dst []byte, limit int) []byte {
	for n := 0; r.sent < len(r.lines); n++ {
		if limit > 0 && n == limit {
			return wire.AppendEmpty(dst, wire.MsgPortalSuspended)
		}
		dst = appendTextRow(dst, r.lines[r.sent])
		r.sent++
	}
	return wire.AppendCommandComplete(dst, "EXPLAIN")
}

// appendTextRow appends a DataRow of one column of text.
func appendTextRow(dst []byte, line string) []byte {
	head := binary.BigEndian.AppendUint32([]byte{0, 1}, uint32(len(line)))
	return wire.AppendFrame(dst, wire.MsgDataRow, head, []byte(line))
}

// routeOf explains where the command behind EXPLAIN (ROUTE) goes. rest and bind are as
// for shardOf.
func (s *session) routeOf(p *router.Plan, text, rest, bind []byte) ([]string, *wire.Error) {
	o := p.Explain()
	switch {
	case len(o.Others) > 0:
		return nil, wire.Errorf("0A000", "EXPLAIN option ROUTE cannot be combined with %s", bytes.ToUpper([]byte(o.Others[0]))).
			WithHint("Nothing is run or planned for ROUTE, which goes with FORMAT only; plain EXPLAIN shows PostgreSQL's plan.")
	case o.Format != "text" && o.Format != "json":
		return nil, wire.Errorf("0A000", "EXPLAIN (ROUTE) has no format %q", o.Format).WithHint("Its formats are TEXT and JSON.")
	}
	s.db.stats.statements.Add(1)
	inner := text[o.Start:]
	of := s.plan(inner)
	if routes(of) || !of.Statement.Opaque && len(of.Statement.Commands) != 1 {
		return nil, wire.Errorf("0A000", "EXPLAIN (ROUTE) needs one statement behind it").WithHint("Ask for each statement alone.")
	}
	s.values = router.Values{Text: inner, OtherEncoding: !s.serverEncoding(), Standard: !s.nonStandard}
	n := s.scanner()
	n.Scan(inner)
	s.values.Literals = n.Literals
	if bind != nil {
		if !s.values.Bind(bind) {
			return nil, wire.Fatal("08P01", "invalid message format")
		}
		s.values.Types = s.routeTypes(p, text, rest)
	}
	in := router.RouteInput{Values: &s.values}
	for _, sh := range s.db.Shards {
		in.Shards = append(in.Shards, sh.Name)
	}
	if s.db.Owners != nil {
		in.Owners = s.db.Owners()
	}
	if of.Scatters() {
		in.Scatter, _ = s.db.Planner.Scatter(string(inner), s.planContext(), s.db.scatterOptions()) // what keeps it from that is told when it is run
	}
	in.Replicas = s.tx == 'I' && s.mayReadReplicas(of)
	r := of.Route(in)
	if o.Format == "text" {
		return r.Lines(), nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, wire.AsError(err)
	}
	return []string{string(b)}, nil
}

// routeTypes returns the types of the parameters of a text that asks for a route: those
// that the client has declared, and of others that of the key they are compared with.
func (s *session) routeTypes(p *router.Plan, text, rest []byte) []uint32 {
	types := appendTypes(nil, rest)
	inner := text[p.Explain().Start:]
	of := s.plan(inner)
	for n := query.Params(inner); len(types) < min(n, 65535); {
		types = append(types, 0)
	}
	for i := range types {
		if types[i] == 0 {
			types[i] = of.ParamType(i + 1)
		}
	}
	return types
}

// above returns the row that goes above a server's answer to an EXPLAIN, "" for none.
func (s *session) above(p *router.Plan) string {
	if s.places == nil || p == nil || p.Explain() == nil || p.Single == nil || p.Explain().Format != "text" {
		return ""
	}
	return p.Above(s.shard.Name)
}

// sayAbove puts that row in front of the rows of the answer, of which the first has come.
func (s *session) sayAbove(front *expect) {
	s.commitHold()
	s.client.SetOutput(appendTextRow(s.client.Output(), front.above))
	front.above = ""
}

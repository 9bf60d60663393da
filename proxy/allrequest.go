package proxy

import (
	"bytes"
	"encoding/binary"
	"slices"

	"shardproxy/router"
	"shardproxy/wire"
)

// allRequest is a request in the form in which it goes to every shard.
type allRequest struct {
	plan   *router.Plan
	shards []int    // where it runs
	frames []byte   // for all of them,
	parts  [][]byte // or for each of shards
	rows   [][]int  // that each of shards gets
	// adds is set when all shards get the same, each for the rows that it has: the answer
	// is all of theirs.
	adds bool
	// atOnce is set when the parts run at once.
	atOnce bool
	// move is set when rows may have to be moved.
	move *moving
	// moment is set when the frames hold the server's mark for the time of the transaction.
	moment bool
	// told is the result that the client was told of a statement that it prepared before; nil when
	// it was not.
	told *string
	// scatter is set for a query that is answered from several shards.
	scatter *scattering
	// opens is set for a query that a portal reads in pieces.
	opens *openQuery
	// limit is the row limit of Execute: an answer with as many rows is refused. JDBC has one for
	// whatever should give no rows.
	limit int64
	// parse is set when the client's own request has no Parse: the answer to ours is
	// left out.
	parse bool
}

// allRequest reads the request. What it prepares is prepared.
func (s *session) allRequest(kind byte, size int) (r allRequest, e *wire.Error) {
	if len(s.segment) == 1 {
		r.plan = s.segment[0]
	}
	b := s.client.Buffered()
	if kind == wire.MsgQuery {
		s.values = router.Values{Text: trimNUL(b[5:size])}
		r.frames = append(r.frames, b[:size]...)
		s.unnamedTok, s.unnamedLarge = 0, false
		return r, s.spreadOver(&r, nil, nil)
	}
	var rest, values, tail, parsed []byte
	bound := false
	for {
		kind, size := b[0], frameSize(b)
		body := b[5:size]
		switch kind {
		case wire.MsgParse:
			name, text, _ := wire.CString(body)
			if rest != nil || len(r.frames) > 0 {
				return r, errOneOnly()
			}
			rest, parsed = text, name
			if e := s.preparesHere(string(name), text, s.segment[0]); e != nil {
				return r, e
			}
			r.frames = wire.AppendParse(r.frames, "", text)
		case wire.MsgBind:
			portal, after, _ := wire.CString(body)
			var name []byte
			name, values, _ = wire.CString(after)
			if len(portal) > 0 || bound || rest != nil && !bytes.Equal(name, parsed) {
				return r, errOneOnly()
			}
			bound = true
			s.countsBind(name)
			if rest == nil {
				if rest = s.restOf(name); rest == nil {
					return r, wire.Errorf("26000", "prepared statement \"%s\" does not exist", name)
				}
				r.parse = true
				r.frames = wire.AppendParse(r.frames, "", rest)
				r.plan = s.boundPlan(name)
				r.told = s.toldOf(name)
			}
			r.frames = wire.AppendFrame(r.frames, kind, []byte("\x00\x00"), values)
		case wire.MsgDescribe:
			if body[0] != 'P' {
				return r, errOneOnly()
			}
			r.frames, tail = append(r.frames, b[:size]...), append(tail, b[:size]...)
		case wire.MsgExecute:
			name, limit := limitOf(body)
			if name != "" {
				return r, errOneOnly()
			}
			r.limit = limit
			r.frames = wire.AppendFrame(r.frames, kind, make([]byte, 5))
			tail = wire.AppendFrame(tail, kind, make([]byte, 5))
		case wire.MsgClose:
			return r, errOneOnly()
		case wire.MsgSync:
			if r.plan != nil && r.plan.CopyIn != nil {
				return r, wire.Errorf("0A000", "COPY into a table on several shards must be sent as a simple query")
			}
			r.frames, tail = append(r.frames, b[:size]...), append(tail, b[:size]...)
			s.values = router.Values{Text: cut(rest), Types: appendTypes(nil, rest), Described: s.ahead.described}
			s.values.Bind(values)
			return r, s.spreadOver(&r, values, tail)
		}
		b = b[size:]
	}
}

// spreadOver finds the shards of the request, and what each of them gets. tail are the
// frames behind Bind.
func (s *session) spreadOver(r *allRequest, bind, tail []byte) *wire.Error {
	n := s.scanner()
	n.Scan(s.values.Text)
	s.values.Literals = n.Literals
	if e := s.draw(r.plan); e != nil {
		return e
	}
	if r.plan != nil && r.plan.Scatters() {
		return s.scatter(r, bind, tail)
	}
	if r.plan != nil && r.plan.FansOut() {
		return s.fanOut(r, bind, tail)
	}
	if r.plan == nil || !r.plan.Splits() {
		return s.everywhere(r, bind, tail)
	}
	rows, err := s.rowsOf(r.plan)
	if err != nil {
		return wire.AsError(err)
	}
	if r.plan.Moment() && slices.ContainsFunc(rows, func(i int) bool { return i != rows[0] }) {
		s.markMoment(r)
	}
	for i := range s.places {
		if !slices.Contains(rows, i) {
			continue
		}
		part, ok := r.plan.Part(s.values.Text, s.scanner(), &s.values, rows, i)
		if !ok {
			return errRows()
		}
		r.shards, r.parts, r.rows = append(r.shards, i), append(r.parts, partFrames(&part, bind != nil, tail)), append(r.rows, part.Rows)
	}
	if len(r.shards) > 1 {
		return s.unsteady()
	}
	return nil
}

// fanOut makes the request one for all shards that have rows of it.
func (s *session) fanOut(r *allRequest, bind, tail []byte) *wire.Error {
	owners := s.db.Owners()
	if owners == nil {
		return errNoOwners()
	}
	s.values.OtherEncoding, s.values.Standard = !s.serverEncoding(), !s.nonStandard
	shards, err := r.plan.Shards(owners, &s.values)
	if err != nil {
		return wire.AsError(err)
	}
	if len(shards) == 0 {
		shards = owners.All()[:1] // a key that is NULL: no row has it, and a server says what there is to say
	}
	if len(shards) > 1 || r.plan.Moves() {
		if e := s.rewriteFor(r, bind, tail, shards, owners); e != nil {
			return e
		}
	}
	r.shards, r.adds = shards, true
	for range shards {
		r.parts = append(r.parts, r.frames)
	}
	return s.unsteady()
}

// rewriteFor makes the frames of a request what its shards get.
func (s *session) rewriteFor(r *allRequest, bind, tail []byte, shards []int, owners *router.Owners) *wire.Error {
	if r.plan.Moment() && len(shards) > 1 {
		s.markMoment(r)
	}
	if r.plan.Moves() {
		return s.moves(r, owners, bind, tail)
	}
	text, e := s.guarded()
	if e == nil && (r.moment || text != nil) {
		r.frames = s.rewritten(r.plan, text, bind, tail)
	}
	return e
}

// guarded is the text of a write over several shards that leaves out the rows which these hide; nil when there are none.
func (s *session) guarded() ([]byte, *wire.Error) {
	ctx := s.planContext()
	if ctx.HiddenSlots == 0 {
		return nil, nil
	}
	text, err := s.db.Planner.Guard(string(s.values.Text), ctx)
	if err != nil {
		return nil, wire.AsError(err)
	}
	return []byte(text), nil
}

// partFrames is a part as a simple query, or by the extended protocol with tail behind
// Bind.
func partFrames(part *router.Part, extended bool, tail []byte) []byte {
	if !extended {
		return wire.AppendQuery(nil, string(part.Text))
	}
	frames := wire.AppendParse(nil, "", parseRest(part))
	frames = wire.AppendFrame(frames, wire.MsgBind, []byte("\x00\x00"), part.Bind)
	return append(frames, tail...)
}

// everywhere makes the request one for all shards.
func (s *session) everywhere(r *allRequest, bind, tail []byte) *wire.Error {
	if r.shards = s.allShards(); r.shards == nil {
		return errNoOwners()
	}
	if r.plan != nil && r.plan.Moment() {
		s.markMoment(r)
	}
	if r.plan != nil && len(r.plan.Draws()) > 0 {
		part, ok := r.plan.Part(s.values.Text, s.scanner(), &s.values, nil, 0)
		if !ok {
			return errRows()
		}
		r.frames = partFrames(&part, bind != nil, tail)
	} else if r.moment {
		r.frames = s.rewritten(r.plan, nil, bind, tail)
	}
	return s.unsteady()
}

func errRows() *wire.Error {
	return wire.Errorf("0A000", "the rows of this INSERT cannot be told apart").WithHint("Send one INSERT for each row.")
}

// rowsOf returns the shard of each row of an INSERT whose values are set.
func (s *session) rowsOf(p *router.Plan) ([]int, error) {
	owners := s.db.Owners()
	if owners == nil {
		return nil, errNoOwners()
	}
	s.values.OtherEncoding, s.values.Standard = !s.serverEncoding(), !s.nonStandard
	return p.Rows(owners, &s.values)
}

// parseRest is the body of Parse behind the name.
func parseRest(p *router.Part) []byte {
	rest := append(p.Text, 0)
	rest = binary.BigEndian.AppendUint16(rest, uint16(len(p.Types)))
	for _, t := range p.Types {
		rest = binary.BigEndian.AppendUint32(rest, t)
	}
	return rest
}

func errOneOnly() *wire.Error {
	return wire.Errorf("0A000", "what runs on all shards must be sent alone, whole and up to its Sync")
}

// unsteady refuses values that may mean something else on each shard.
func (s *session) unsteady() *wire.Error {
	if s.values.SteadyValues() {
		return nil
	}
	return wire.Errorf("0A000", "a value that stands for the time of the moment may differ from shard to shard").
		WithHint("Give the time itself.")
}

// restOf returns what Parse made a statement, behind its name; nil for none.
func (s *session) restOf(name []byte) []byte {
	if len(name) == 0 {
		if s.unnamedTok == 0 || s.unnamedLarge {
			return nil
		}
		return s.unnamed
	}
	if st := s.statements[string(name)]; st != nil && st.shared != nil {
		return st.shared.Rest
	}
	return nil
}

// preparesHere notes a Parse that no server gets under the name.
func (s *session) preparesHere(name string, rest []byte, p *router.Plan) *wire.Error {
	if name == "" {
		s.unnamed, s.unnamedAs, s.unnamedShape = append(s.unnamed[:0], rest...), p, nil
		s.unnamedTok, s.unnamedLarge, s.unnamedOther = s.db.tokens.Add(1), false, false
		return nil
	}
	if s.statements[name] != nil {
		s.tellTrail("a statement is prepared twice")
		return wire.Errorf("42P05", "prepared statement \"%s\" already exists", name)
	}
	if err := s.mayPrepare(rest); err != nil {
		return wire.AsError(err)
	}
	s.define(s.newStatement(name, rest, p))
	return nil
}
